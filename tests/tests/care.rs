//! The daily care of a cluster on real etcd: who belongs to it, is it well, and the changes that keep it well.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant};

use etcd_api::{AlarmKind, PutRequest};
use lifeboat_tests::net::ReservedPort;
use lifeboat_tests::{EtcdCluster, EtcdVersion, Finished, Lifeboat, Options, Run, etcd_matrix};
use serde_json::Value;

/// How long an effect may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

struct Care {
    lifeboat: Lifeboat,
    flags: Vec<String>,
}

impl Care {
    /// Asks through the member at `index` alone; the others are found.
    fn through(cluster: &EtcdCluster, index: usize) -> Self {
        Self { lifeboat: Lifeboat::new(), flags: cluster.member_flags(index) }
    }

    fn cmd(&self, words: &[&str]) -> Run {
        self.lifeboat.cmd(["etcd"].iter().chain(words)).args(&self.flags)
    }

    fn json(&self, words: &[&str]) -> Value {
        self.cmd(words).args(["-o", "json"]).run().ok().json()
    }

    /// The verdict of each check that is not healthy, with its member.
    fn health(&self, code: i32) -> (Value, Vec<(String, String)>) {
        let report = self.cmd(&["health", "-o", "json"]).run().exit(code).json();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let odd = report["findings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|finding| finding["verdict"] != "healthy" && finding["verdict"] != "unknown");
        let odd = odd.map(|finding| (text(&finding["check"]), text(&finding["member"]))).collect();
        (report, odd)
    }

    fn members(&self) -> Vec<Value> {
        self.json(&["members"])["members"].as_array().unwrap().clone()
    }
}

fn error(done: &Finished) -> Value {
    let line = done.err().lines().rev().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{done}")).to_owned();
    serde_json::from_str::<Value>(&line).unwrap()["error"].clone()
}

/// Versions with no fault that `health` warns of.
fn is_clean(etcd: EtcdVersion) -> bool {
    etcd != EtcdVersion::V3_4
}

fn own(checks: &[(String, String)]) -> Vec<(&str, &str)> {
    checks.iter().map(|(check, member)| (check.as_str(), member.as_str())).filter(|(check, _)| *check != "versions").collect()
}

etcd_matrix! {
    /// Every member is found from one; a healthy cluster is healthy in every check, on every version.
    async fn three_members_found_from_one(etcd: EtcdVersion) {
        let cluster = EtcdCluster::start(etcd, Options::default().members(3));
        let care = Care::through(&cluster, 1);
        let members = care.members();
        let names: Vec<&str> = members.iter().map(|member| member["name"].as_str().unwrap()).collect();
        assert!(members.len() == 3 && ["m0", "m1", "m2"].iter().all(|name| names.contains(name)), "{names:?}");
        assert!(members.iter().all(|member| member["answers"] == true && member["listed"] == true));
        let status = care.json(&["status"]);
        let leaders: Vec<&Value> = status["members"].as_array().unwrap().iter().map(|line| &line["status"]["leader"]).collect();
        assert!(leaders.iter().all(|leader| *leader == leaders[0] && leader.is_string()), "{status}");
        let table = care.cmd(&["status"]).run().ok().out();
        for column in ["NODE", "DB SIZE", "RAFT APPLIED INDEX", "STORAGE"] {
            assert!(table.lines().next().unwrap().contains(column), "{table}");
        }
        let (report, odd) = care.health(if is_clean(etcd) { 0 } else { 4 });
        assert_eq!(own(&odd), [], "{report}");
        let hashes = care.json(&["hashkv", "--hashkv-budget", "30s"]);
        assert_eq!(hashes["verdict"], "equal", "{hashes}");
        drop(care.cmd(&["alarm", "list"]).run().ok());
    }

    /// One of three down: it is shown as such and is an alert; what would cost the quorum is refused with the sum; two down is the end, and said to be.
    async fn a_member_down_and_a_majority_lost(etcd: EtcdVersion) {
        let mut cluster = EtcdCluster::start(etcd, Options::default().members(3));
        cluster.stop_member(2);
        let care = Care::through(&cluster, 0);
        let status = care.cmd(&["status"]).run().ok().out();
        assert!(status.contains("does not answer"), "{status}");
        let (report, odd) = care.health(5);
        assert!(own(&odd).contains(&("quorum", "")) && own(&odd).contains(&("answers", "m2")), "{report}");

        let refused = care.cmd(&["remove-member", "m0", "-o", "json", "--confirm", "x"]).run().exit(1);
        assert!(error(&refused)["cause"].as_str().unwrap().contains("NO QUORUM"), "{refused}");
        let refused = care.cmd(&["defrag", "--all", "--yes"]).run().exit(1);
        assert!(refused.err().contains("m2 does not answer"), "{refused}");
        assert!(error(&care.cmd(&["promote", "m0", "--yes", "-o", "json"]).run().exit(1))["what"].as_str().unwrap().contains("has a vote already"));
        let planned = care.cmd(&["remove-member", "m2", "--dry-run"]).run().ok().out();
        assert!(planned.contains("2 of 2 voting member(s) work"), "{planned}");
        drop(care.cmd(&["remove-member", "m2"]).run().exit(2));
        assert_eq!(care.members().len(), 3, "nothing was done without consent");

        cluster.stop_member(1);
        let until = Instant::now() + PATIENCE;
        loop {
            // The last one needs an election time-out to notice.
            let (report, odd) = care.health(5);
            if report["findings"][0]["says"].as_str().unwrap().ends_with("NO QUORUM") && own(&odd).contains(&("leader", "m0")) {
                break;
            }
            assert!(Instant::now() < until, "{report}");
            std::thread::sleep(Duration::from_millis(200));
        }
        let refused = care.cmd(&["remove-member", "m2", "--confirm", "x"]).run().exit(1);
        assert!(refused.err().contains("no quorum to decide it"), "{refused}");
    }

    /// A dead member is replaced: removed by its name, a learner added, started, promoted; the printed lines are what starts it.
    async fn a_dead_member_is_replaced(etcd: EtcdVersion) {
        let mut cluster = EtcdCluster::start(etcd, Options::default().members(3));
        let before = cluster.client(0).await.put(PutRequest::new("k", "v")).await.unwrap();
        drop(before);
        cluster.stop_member(2);
        let care = Care::through(&cluster, 0);
        let id = care.json(&["members"])["cluster_id"].as_str().unwrap().to_owned();
        let wrong = care.cmd(&["remove-member", "m2", "--confirm", "nonsense"]).run().exit(2);
        assert!(wrong.err().contains("is not the cluster's name"), "{wrong}");
        let done = care.cmd(&["remove-member", "m2", "--confirm", &id, "-o", "json"]).run().ok().json();
        assert!(done["done"] == true && done["after"]["voters"] == 2, "{done}");
        assert_eq!(care.members().len(), 2);
        let again = care.cmd(&["remove-member", "m2", "--confirm", &id, "-o", "json"]).run().exit(2);
        assert!(error(&again)["what"].as_str().unwrap().contains("no single member"), "{again}");

        let taken = cluster.members()[0].peer_url();
        assert!(care.cmd(&["add-member", &taken, "--learner", "--yes"]).run().exit(1).err().contains("at this peer URL already"));
        let peer = format!("http://127.0.0.1:{}", ReservedPort::new().port());
        let added = care.cmd(&["add-member", &peer, "--learner", "--name", "m9", "--yes", "-o", "json"]).run().ok().json();
        let member = added["member"].as_str().unwrap().to_owned();
        assert!(added["next"][0].as_str().unwrap().contains(&format!("m9={peer}")), "{added}");
        assert_eq!(added["after"]["voters"], 2, "a learner has no vote: {added}");
        let unready = care.cmd(&["promote", &member, "--yes"]).run().exit(1);
        assert!(unready.err().contains("does not answer"), "{unready}");
        let (report, odd) = care.health(5);
        assert!(own(&odd).iter().any(|(check, _)| *check == "answers"), "{report}");
        let removed = care.cmd(&["remove-member", &member, "--confirm", &id, "-o", "json"]).run().ok().json();
        assert_eq!(removed["after"]["voters"], 2, "{removed}");
    }

    /// A real learner: it is named by health, promoted when it has caught up, and then counts.
    async fn a_learner_is_promoted(etcd: EtcdVersion) {
        let mut cluster = EtcdCluster::start(etcd, Options::default().members(2));
        let index = cluster.add_member();
        let care = Care::through(&cluster, 0);
        let name = format!("m{index}");
        let until = Instant::now() + PATIENCE;
        while !care.members().iter().any(|member| member["name"] == name.as_str() && member["answers"] == true) {
            assert!(Instant::now() < until, "{:?}", care.members());
            std::thread::sleep(Duration::from_millis(200));
        }
        let (report, odd) = care.health(4);
        assert!(own(&odd).contains(&("learners", &name)), "{report}");
        let done = care.cmd(&["promote", &name, "--yes", "-o", "json"]).run().ok().json();
        assert!(done["after"]["voters"] == 3 && done["after"]["working"] == 3, "{done}");
    }

    /// Leadership goes where it is sent, and anywhere when nobody is named; it never goes to one that cannot lead.
    async fn the_leadership_moves(etcd: EtcdVersion) {
        let cluster = EtcdCluster::start(etcd, Options::default().members(3));
        let care = Care::through(&cluster, 0);
        let leader = || care.json(&["members"])["leader"].as_str().unwrap().to_owned();
        let before = leader();
        let to = care.members().into_iter().find(|member| member["id"] != before.as_str()).unwrap();
        drop(care.cmd(&["move-leader", to["name"].as_str().unwrap(), "--yes"]).run().ok());
        assert_eq!(leader(), to["id"].as_str().unwrap());
        let already = care.cmd(&["forfeit-leadership", to["id"].as_str().unwrap(), "--yes"]).run().exit(2);
        assert!(already.err().contains("leads already"), "{already}");
        drop(care.cmd(&["forfeit-leadership", "--yes"]).run().ok());
        assert_ne!(leader(), to["id"].as_str().unwrap());
        let single = EtcdCluster::single(etcd);
        let alone = Care::through(&single, 0).cmd(&["forfeit-leadership", "--yes"]).run().exit(1);
        assert!(alone.err().contains("no other member can lead"), "{alone}");
    }

    /// A real NOSPACE, reached by writes: named, not disarmed while its cause stands; compacted, defragmented one by one with the leader last, disarmed.
    async fn a_full_database_is_made_well(etcd: EtcdVersion) {
        const QUOTA: u64 = 16 << 20;
        let cluster = EtcdCluster::start(etcd, Options::default().members(3).quota(QUOTA));
        let care = Care::through(&cluster, 0);
        let client = cluster.client(0).await;
        let value = vec![b'x'; 256 << 10];
        for round in 0..1_000 {
            if client.put(PutRequest::new("same", value.clone())).await.is_err() {
                break;
            }
            assert!(round < 999, "the quota is never reached");
        }
        let until = Instant::now() + PATIENCE;
        while client.alarms().await.unwrap().is_empty() {
            assert!(Instant::now() < until);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let listed = care.json(&["alarm", "list"]);
        assert_eq!(listed["alarms"][0]["alarm"], "NOSPACE", "{listed}");
        let (report, odd) = care.health(5);
        assert!(odd.iter().any(|(check, _)| check == "alarms"), "{report}");
        if etcd >= EtcdVersion::V3_6 {
            let refused = care.cmd(&["alarm", "disarm", "--yes"]).run().exit(1);
            assert!(refused.err().contains("the cause of NOSPACE still stands"), "{refused}");
        }
        let revision = client.status().await.unwrap().header.revision;
        client.compact(revision, true).await.unwrap();
        let planned = care.json(&["defrag", "--dry-run", "--in-use-below", "60%"]);
        let leader = care.json(&["members"])["leader"].as_str().unwrap().to_owned();
        let leader = care.members().into_iter().find(|member| member["id"] == leader.as_str()).unwrap()["name"].as_str().unwrap().to_owned();
        let steps: Vec<&str> = planned["steps"].as_array().unwrap().iter().map(|step| step.as_str().unwrap()).collect();
        assert!(steps.len() == 4 && steps[2].starts_with("move the leadership") && steps[3].contains(&leader), "{planned}");
        let unasked = care.cmd(&["defrag", "--in-use-below", "60%"]).run().exit(2);
        assert!(unasked.err().contains("--yes"), "{unasked}");
        let done = care.json(&["defrag", "--in-use-below", "60%", "--pause", "100ms", "--yes"]);
        let members = done["members"].as_array().unwrap();
        assert_eq!(members.len(), 3, "{done}");
        assert!(members.iter().all(|member| member["size_after"].as_u64().unwrap() < member["size_before"].as_u64().unwrap() / 4), "{done}");
        let disarmed = care.json(&["alarm", "disarm", "--yes"]);
        assert!(!disarmed["disarmed"].as_array().unwrap().is_empty() && disarmed["alarms"].as_array().unwrap().is_empty(), "{disarmed}");
        drop(client.put(PutRequest::new("again", "works")).await.unwrap());
        let nothing = care.cmd(&["defrag", "--in-use-below", "10%"]).run().ok().out();
        assert!(nothing.contains("nothing to do"), "{nothing}");
        assert_eq!(client.alarms().await.unwrap().iter().filter(|alarm| alarm.kind == AlarmKind::NoSpace).count(), 0);
    }

    /// A member that hangs (SIGSTOP) is silent, not the end: the others are shown within the time-outs.
    async fn a_paused_member_is_shown_as_silent(etcd: EtcdVersion) {
        let mut cluster = EtcdCluster::start(etcd, Options::default().members(3));
        cluster.pause_member(1);
        let care = Care::through(&cluster, 0);
        let report = care.cmd(&["status", "--dial-timeout", "2s", "--command-timeout", "2s", "-o", "json"]).run().ok().json();
        let silent: Vec<&Value> = report["members"].as_array().unwrap().iter().filter(|line| line["status"].is_null()).collect();
        assert!(silent.len() == 1 && silent[0]["name"] == "m1", "{report}");
        cluster.resume_member(1);
    }
}
