//! The daily care of a cluster on real etcd: who belongs to it, is it well, and the changes that keep it well.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant};

use etcd_api::{AlarmKind, ErrorKind, PutRequest};
use lifeboat_tests::care::{Care, PATIENCE};
use lifeboat_tests::net::ReservedPort;
use lifeboat_tests::{EtcdCluster, EtcdVersion, Options, at_terminal, etcd_matrix, matrix};

const COLUMNS: &str = "NODE MEMBER DB SIZE IN USE LEADER RAFT INDEX RAFT TERM RAFT APPLIED INDEX LEARNER PROTOCOL STORAGE ERRORS";

fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn index_of(name: &str) -> usize {
    name.trim_start_matches('m').parse().unwrap()
}

etcd_matrix! {
    /// Every member is found from one; a healthy cluster is healthy in every check, on every version; the forms of the output.
    fn three_members_found_from_one(etcd: EtcdVersion) {
        let cluster = EtcdCluster::start(etcd, Options::default().members(3));
        let care = Care::through(&cluster, 1);
        let members = care.members();
        let names: Vec<&str> = members.iter().map(|member| member["name"].as_str().unwrap()).collect();
        assert!(members.len() == 3 && ["m0", "m1", "m2"].iter().all(|name| names.contains(name)), "{names:?}");
        assert!(members.iter().all(|member| member["answers"] == true && member["listed"] == true));
        let table = care.cmd(&["members"]).run().ok().out();
        assert_eq!(words(table.lines().next().unwrap()), "NODE ID HOSTNAME PEER URLS CLIENT URLS LEARNER ANSWERS");

        let status = care.json(&["status"]);
        let lines = status["members"].as_array().unwrap();
        assert!(lines.iter().all(|line| line["status"]["leader"] == lines[0]["status"]["leader"]), "{status}");
        let done = care.cmd(&["status"]).run().ok();
        assert!(done.err().starts_with("source: etcd cluster ") && done.err().contains("3 of 3 members answer"), "{done}");
        let table = done.out();
        assert_eq!(words(table.lines().next().unwrap()), COLUMNS);
        assert_eq!(table.lines().count(), 4, "{table}");
        let leader = lines[0]["status"]["leader"].as_str().unwrap();
        assert!(leader.len() == 16 && table.lines().skip(1).all(|line| line.contains(leader)), "{table}");

        let health = care.health_until("a healthy cluster", |health| health.own().is_empty());
        assert!(["healthy", "advice"].contains(&health.verdict.as_str()), "{}", health.done);
        let hashes = care.json(&["hashkv", "--hashkv-budget", "60s"]);
        assert_eq!(hashes["verdict"], "equal", "{hashes}");
        assert_eq!(care.cmd(&["alarm", "list"]).run().ok().out(), "no alarm is raised\n");
        assert_eq!(care.cmd(&["alarm", "disarm", "--yes"]).run().ok().out(), "no alarm is raised\n");

        for (verb, schema) in [("members", "members"), ("status", "status"), ("hashkv", "hashkv"), ("health", "health")] {
            let schema = format!("lifeboat.etcd-{schema}/1");
            assert_eq!(care.cmd(&[verb, "-o", "json"]).run().json()["schema"], schema.as_str());
            assert!(care.cmd(&[verb, "-o", "yaml"]).run().out().contains(&format!("schema: \"{schema}\"")), "{verb}");
            assert_eq!(care.cmd(&[verb, "-o", "fields"]).run().code(), care.cmd(&[verb, "-o", "simple"]).run().code(), "{verb}");
        }
        let flags = care.flags.join(" ");
        let torn = care.lifeboat.shell(&format!("{{ lifeboat etcd status {flags}; echo code $? >&2; }} | true")).run();
        assert!(torn.err().contains("code 0"), "a reader that went away is no error: {torn}");
    }

    /// One of three down: it is shown as such and is an alert; what would cost the quorum is refused with the sum, and nothing is done by a dry run or
    /// without consent. Two down: quorum lost, and every verb that changes something refuses and shows the sum.
    fn a_member_down_and_a_majority_lost(etcd: EtcdVersion) {
        let mut cluster = EtcdCluster::start(etcd, Options::default().members(3));
        cluster.stop_member(2);
        cluster.wait_ready();
        let care = Care::through(&cluster, 0);
        let status = care.cmd(&["status"]).run().ok().out();
        assert!(status.contains("does not answer"), "{status}");
        let health = care.health_until("a leader", |health| !health.odd.iter().any(|(check, _)| check == "leader"));
        assert!(health.has("quorum", "") && health.has("answers", "m2"), "{}", health.done);
        assert_eq!(health.says("quorum", ""), "2 of 3 voting member(s) work, 2 needed: survives no further loss");

        let refused = care.error(&["remove-member", "m0", "--confirm", "x"], 1);
        let sum = "before: 2 of 3 voting member(s) work, 2 needed: survives no further loss; after: 1 of 2 voting member(s) work, 2 needed: NO QUORUM";
        assert!(refused["cause"].as_str().unwrap().contains(sum), "{refused}");
        let refused = care.cmd(&["defrag", "--all", "--yes"]).run().exit(1);
        assert!(refused.err().contains("m2 does not answer"), "{refused}");
        let voter = care.error(&["promote", "m0", "--yes"], 1);
        assert!(voter["what"].as_str().unwrap().contains("has a vote already"), "{voter}");
        let planned = care.cmd(&["remove-member", "m2", "--dry-run"]).run().ok().out();
        assert!(planned.contains("2 of 2 voting member(s) work"), "{planned}");
        let unasked = care.cmd(&["remove-member", "m2"]).run().exit(2);
        assert!(unasked.err().contains("--confirm"), "{unasked}");
        assert_eq!(care.members().len(), 3, "nothing was done without consent");

        cluster.stop_member(1);
        // The last one needs an election time-out to notice.
        let health = care.health_until("a lost quorum", |health| health.says("quorum", "").ends_with("NO QUORUM") && health.has("leader", "m0"));
        assert_eq!(health.verdict, "alert");
        let peer = format!("http://127.0.0.1:{}", ReservedPort::new().port());
        for verb in [
            &["remove-member", "m2", "--confirm", "x"][..],
            &["leave", "m0", "--confirm", "x"],
            &["add-member", &peer, "--learner", "--yes"],
            &["forfeit-leadership", "--yes"],
            &["defrag", "--all", "--yes"],
        ] {
            let refused = care.cmd(verb).run().exit(1);
            assert!(refused.err().contains("of 3 voting member(s) work, 2 needed: NO QUORUM") || verb[0] == "defrag", "{refused}");
        }
        drop(care.cmd(&["alarm", "disarm", "--yes"]).run().exit(1));
        assert_eq!(care.members().len(), 3);
    }

    /// A dead member is replaced: removed by its name, a learner added in its place; what is not right is refused on the way.
    fn a_dead_member_is_replaced(etcd: EtcdVersion) {
        let mut cluster = EtcdCluster::start(etcd, Options::default().members(3));
        cluster.stop_member(2);
        cluster.wait_ready();
        let care = Care::through(&cluster, 0);
        let id = care.cluster_id();
        let wrong = care.cmd(&["remove-member", "m2", "--confirm", "nonsense"]).run().exit(2);
        assert!(wrong.err().contains("is not the cluster's name"), "{wrong}");
        let done = care.json(&["remove-member", "m2", "--confirm", &id]);
        assert!(done["done"] == true && done["after"]["voters"] == 2, "{done}");
        assert_eq!(care.members().len(), 2);
        let again = care.error(&["remove-member", "m2", "--confirm", &id], 2);
        assert!(again["what"].as_str().unwrap().contains("no single member") && again["cause"].as_str().unwrap().contains("m1 ("), "{again}");

        let taken = cluster.members()[0].peer_url();
        let refused = care.cmd(&["add-member", &taken, "--learner", "--yes"]).run().exit(1);
        assert!(refused.err().contains("at this peer URL already"), "{refused}");
        let peer = format!("http://127.0.0.1:{}", ReservedPort::new().port());
        let planned = care.json(&["add-member", &peer, "--learner", "--dry-run"]);
        assert!(planned["done"] == false && care.members().len() == 2, "{planned}");
        let added = care.json(&["add-member", &peer, "--learner", "--name", "m9", "--yes"]);
        let member = added["member"].as_str().unwrap().to_owned();
        assert!(added["next"][0].as_str().unwrap().contains(&format!("m9={peer}")), "{added}");
        assert!(added["next"][1].as_str().unwrap().ends_with(&format!("promote {member} {}", care.flags[0])), "{added}");
        assert_eq!(added["after"]["voters"], 2, "a learner has no vote: {added}");
        let unready = care.cmd(&["promote", &member, "--yes"]).run().exit(1);
        assert!(unready.err().contains("does not answer"), "{unready}");
        let health = care.health();
        assert!(health.verdict == "advice" && health.has("answers", &member), "{}", health.done);
        let removed = care.json(&["remove-member", &member, "--confirm", &id]);
        assert_eq!(removed["after"]["voters"], 2, "{removed}");
    }

    /// A real learner: it is named by health, promoted when it has caught up, and then counts.
    fn a_learner_is_promoted(etcd: EtcdVersion) {
        let mut cluster = EtcdCluster::start(etcd, Options::default().members(2));
        let name = format!("m{}", cluster.add_learner());
        let care = Care::through(&cluster, 0);
        let health = care.health_until("a learner that caught up", |health| health.has("learners", &name) && health.says("learners", &name).contains("can be promoted"));
        assert!(health.verdict == "advice" && health.says("quorum", "").starts_with("2 of 2"), "{}", health.done);
        let line = care.members().into_iter().find(|member| member["name"] == name.as_str()).unwrap();
        assert!(line["learner"] == true && line["answers"] == true, "{line}");
        let cannot = care.error(&["move-leader", &name, "--yes"], 2);
        assert!(cannot["cause"].as_str().unwrap().contains("learner"), "{cannot}");
        let done = care.json(&["promote", &name, "--yes"]);
        assert!(done["after"]["voters"] == 3 && done["after"]["working"] == 3, "{done}");
        assert!(!care.health_until("no learner", |health| !health.has("learners", &name)).has("quorum", ""));
    }

    /// Leadership goes where it is sent, and anywhere when nobody is named; it never goes to one that cannot lead.
    fn the_leadership_moves(etcd: EtcdVersion) {
        let cluster = EtcdCluster::start(etcd, Options::default().members(3));
        let care = Care::through(&cluster, 0);
        let before = care.leader();
        let to = ["m0", "m1", "m2"].into_iter().find(|name| *name != before).unwrap();
        drop(care.cmd(&["move-leader", to, "--yes"]).run().ok());
        assert_eq!(care.leader(), to);
        let already = care.cmd(&["forfeit-leadership", to, "--yes"]).run().exit(2);
        assert!(already.err().contains("leads already"), "{already}");
        drop(care.cmd(&["forfeit-leadership", "--yes"]).run().ok());
        assert_ne!(care.leader(), to);
    }

    /// A real NOSPACE, reached by writes: named, not disarmed while its cause stands; compacted, defragmented one by one with the leader last, disarmed.
    async fn a_full_database_is_made_well(etcd: EtcdVersion) {
        const QUOTA: u64 = 16 << 20;
        let cluster = EtcdCluster::start(etcd, Options::default().members(3).quota(QUOTA));
        let care = Care::through(&cluster, 0);
        let client = cluster.client(0).await;
        let value = vec![b'x'; 256 << 10];
        for round in 0..1_000 {
            match client.put(PutRequest::new("same", value.clone())).await {
                Err(error) if *error.kind() == ErrorKind::NoSpace => break,
                // An election on a busy machine.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                Ok(_) => {}
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
        let health = care.health();
        assert!(health.verdict == "alert" && health.odd.iter().any(|(check, _)| check == "alarms"), "{}", health.done);
        if etcd >= EtcdVersion::V3_6 {
            let refused = care.cmd(&["alarm", "disarm", "--yes"]).run().exit(1);
            assert!(refused.err().contains("the cause of NOSPACE still stands"), "{refused}");
        }
        let revision = client.status().await.unwrap().header.revision;
        client.compact(revision, true).await.unwrap();
        if etcd >= EtcdVersion::V3_6 {
            // Compacted, and not given back: the file is as large as before.
            drop(care.cmd(&["alarm", "disarm", "--yes"]).run().exit(1));
        }
        // All of them: what a compaction freed shows in a member's numbers only after later commits, and a full cluster has few of those.
        let planned = care.json(&["defrag", "--dry-run", "--all"]);
        let leader = care.leader();
        let steps: Vec<&str> = planned["steps"].as_array().unwrap().iter().map(|step| step.as_str().unwrap()).collect();
        assert!(steps.len() == 4 && steps[2].starts_with("move the leadership") && steps[3].contains(&leader), "{planned}");
        let unasked = care.cmd(&["defrag", "--all"]).run().exit(2);
        assert!(unasked.err().contains("--yes"), "{unasked}");
        let done = care.json(&["defrag", "--all", "--pause", "100ms", "--yes"]);
        let members = done["members"].as_array().unwrap();
        assert!(members.len() == 3 && members[2]["name"] == leader.as_str(), "{done}");
        assert!(members.iter().all(|member| member["size_after"].as_u64().unwrap() < member["size_before"].as_u64().unwrap() / 4), "{done}");
        let unasked = care.cmd(&["alarm", "disarm"]).run().exit(2);
        assert!(unasked.err().contains("on the whole cluster") && unasked.err().contains("--yes"), "{unasked}");
        let planned = care.json(&["alarm", "disarm", "--dry-run"]);
        assert!(planned["dry_run"] == true && !planned["alarms"].as_array().unwrap().is_empty(), "{planned}");
        let disarmed = care.json(&["alarm", "disarm", "--yes"]);
        assert!(!disarmed["disarmed"].as_array().unwrap().is_empty() && disarmed["alarms"].as_array().unwrap().is_empty(), "{disarmed}");
        drop(client.put(PutRequest::new("again", "works")).await.unwrap());
        let nothing = care.cmd(&["defrag", "--in-use-below", "10%"]).run().ok().out();
        assert!(nothing.contains("nothing to do"), "{nothing}");
        assert_eq!(client.alarms().await.unwrap().iter().filter(|alarm| alarm.kind == AlarmKind::NoSpace).count(), 0);
    }
}

/// The leader leaves: another one leads first, and the membership is one less. `leave` alone means the member that was asked.
#[test]
fn the_leader_hands_over_before_it_leaves() {
    matrix::each("the_leader_hands_over_before_it_leaves", &[EtcdVersion::V3_4, EtcdVersion::V3_7], |etcd| {
        let cluster = EtcdCluster::start(etcd, Options::default().members(3));
        let leader = Care::through(&cluster, 0).leader();
        let care = Care::through(&cluster, index_of(&leader));
        let id = care.cluster_id();
        let planned = care.json(&["leave", "--dry-run"]);
        let words = planned["change"].as_str().unwrap();
        assert!(
            words.starts_with(&format!("move the leadership from {leader} to ")) && words.contains(&format!("then remove {leader}")),
            "{planned}"
        );
        drop(care.cmd(&["leave"]).run().exit(2));
        assert_eq!((care.leader(), care.members().len()), (leader.clone(), 3), "nothing was done");
        let through = Care::through(&cluster, (index_of(&leader) + 1) % 3);
        let done = through.cmd(&["leave", &leader, "--confirm", &id, "-o", "json"]).run().ok();
        assert!(done.err().contains("done: move the leadership from"), "{done}");
        assert!(done.json()["after"]["voters"] == 2 && through.members().len() == 2, "{done}");
        assert_ne!(through.leader(), leader);
    });
}

/// A cluster of one: what would leave nothing, or leave it waiting for somebody who never started, is refused.
#[test]
fn one_member_alone() {
    matrix::each("one_member_alone", &[EtcdVersion::V3_6], |etcd| {
        let cluster = EtcdCluster::single(etcd);
        let care = Care::through(&cluster, 0);
        let health = care.health();
        assert!(health.verdict == "advice" && health.has("quorum", ""), "{}", health.done);
        assert!(care.cmd(&["forfeit-leadership", "--yes"]).run().exit(1).err().contains("no other member can lead"));
        assert!(care.cmd(&["leave", "--confirm", "x"]).run().exit(1).err().contains("is the only voting member"));
        let refused = care.cmd(&["add-member", "http://127.0.0.1:1", "--yes"]).run().exit(1);
        assert!(refused.err().contains("after: 1 of 2 voting member(s) work, 2 needed: NO QUORUM"), "{refused}");
        assert!(refused.err().trim_end().ends_with("--learner"), "the next command adds a learner: {refused}");
        assert_eq!(care.members().len(), 1);
        let done = care.json(&["defrag", "--all", "--yes"]);
        assert_eq!(done["members"].as_array().unwrap().len(), 1, "{done}");
        assert_eq!(care.json(&["hashkv"])["verdict"], "alone");
    });
}

/// What is written wrongly is told apart from what is refused, and names what could have been meant.
#[test]
fn wrong_words() {
    matrix::each("wrong_words", &[EtcdVersion::V3_5], |etcd| {
        let cluster = EtcdCluster::start(etcd, Options::default().members(2));
        let care = Care::through(&cluster, 0);
        for verb in [
            &["remove-member", "m7", "--confirm", "x"][..],
            &["remove-member", "0000000000000001", "--confirm", "x"],
            &["promote", "http://127.0.0.1:1", "--yes"],
            &["move-leader", "m7", "--yes"],
            &["defrag", "m7", "--yes"],
        ] {
            let error = care.error(verb, 2);
            assert!(error["cause"].as_str().unwrap().contains("m0 (") && error["cause"].as_str().unwrap().contains("m1 ("), "{error}");
            assert!(error["next"].as_str().unwrap().ends_with(&care.flags[0]), "the next command leads to the same cluster: {error}");
        }
        for verb in [
            &["add-member", "10.0.0.1:2380", "--yes"][..],
            &["add-member"],
            &["defrag", "--in-use-below", "160%"],
            &["defrag", "--free-above", "lots"],
            &["defrag", "--all", "--pause", "soon"],
            &["health", "--wait-timeout", "soon"],
            &["hashkv", "--hashkv-budget", "soon"],
            &["remove-member"],
            &["health", "--watch", "--wait-timeout", "1s"],
            &["frobnicate"],
        ] {
            drop(care.cmd(verb).run().exit(2));
        }
        let nobody = Care::with(vec!["--endpoints=http://127.0.0.1:1".to_owned()]);
        for verb in ["members", "status", "health", "hashkv"] {
            let refused = nobody.cmd(&[verb]).run().exit(30);
            assert!(refused.err().contains("127.0.0.1:1") && refused.err().contains("next:"), "{refused}");
        }
        drop(Care::with(vec!["--endpoints=nonsense:port".to_owned()]).cmd(&["status"]).run().exit(2));
        assert_eq!(care.members().len(), 2);
    });
}

/// At a terminal consent is a question; anything but a yes, or the name, changes nothing.
#[test]
fn consent_at_a_terminal() {
    matrix::each("consent_at_a_terminal", &[EtcdVersion::V3_7], |etcd| {
        let cluster = EtcdCluster::start(etcd, Options::default().members(3));
        let care = Care::through(&cluster, 0);
        let command = |words: &[&str]| -> Vec<String> {
            let line: Vec<&str> = ["etcd"].iter().chain(words).copied().collect();
            let mut command = vec![care.lifeboat.path().display().to_string()];
            command.extend(line.into_iter().map(str::to_owned).chain(care.flags.clone()));
            command
        };
        let leader = care.leader();
        let Some((code, said)) = at_terminal(&command(&["forfeit-leadership"]), &[("Go on? [y/N]", "\n")]) else {
            return lifeboat_tests::peers::skipped(format_args!("consent at a terminal: no setsid"));
        };
        assert!(code == Some(2) && said.contains("nothing was done"), "{said}");
        let stopped = at_terminal(&command(&["forfeit-leadership"]), &[("Go on? [y/N]", "\u{3}")]).unwrap();
        assert_eq!((stopped.0, care.leader()), (Some(130), leader.clone()), "Ctrl-C is heard at the question: {}", stopped.1);
        let (code, said) = at_terminal(&command(&["forfeit-leadership"]), &[("Go on? [y/N]", "y\n")]).unwrap();
        assert!(code == Some(0), "{said}");
        assert_ne!(care.leader(), leader);
        let victim = ["m0", "m1", "m2"].into_iter().find(|name| *name != care.leader()).unwrap();
        let question = "Type the cluster's name";
        let (code, said) = at_terminal(&command(&["remove-member", victim]), &[(question, "y\n")]).unwrap();
        assert!(code == Some(2) && care.members().len() == 3, "{said}");
        let id = format!("{}\n", care.cluster_id());
        let through = Care::through(&cluster, index_of(&care.leader()));
        let (code, said) = at_terminal(&command(&["remove-member", victim]), &[(question, &id)]).unwrap();
        assert!(code == Some(0) && through.members().len() == 2, "{said}");
    });
}
