//! The care of a cluster in trouble, on real etcd: members that hang, differ, or are lost; clusters that are mixed up; and that nobody gets in the way of
//! a backup.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant};

use etcd_api::{ErrorKind, PutRequest};
use lifeboat_tests::care::{Care, PATIENCE};
use lifeboat_tests::damage::falsify_last_row;
use lifeboat_tests::matrix::{block_on, each};
use lifeboat_tests::net::ReservedPort;
use lifeboat_tests::proxy::Toxics;
use lifeboat_tests::{EtcdCluster, EtcdVersion, Finished, Job, Lifeboat, Options, Proxy, Run, Running, Tls, workload};
use rustix::process::Signal;

use EtcdVersion::{V3_4, V3_5, V3_6, V3_7};

fn index_of(name: &str) -> usize {
    name.trim_start_matches('m').parse().unwrap()
}

/// Files that are mostly free pages on every member, as `defrag` finds them.
fn make_holes(cluster: &EtcdCluster, care: &Care) {
    block_on(async {
        let client = cluster.client(0).await;
        for _ in 0..24 {
            drop(client.put(PutRequest::new("same", vec![b'x'; 256 << 10])).await.unwrap());
        }
        let revision = client.status().await.unwrap().header.revision;
        client.compact(revision, true).await.unwrap();
    });
    let until = Instant::now() + PATIENCE;
    loop {
        let planned = care.json(&["defrag", "--dry-run", "--in-use-below", "60%"]);
        if planned["skipped"].as_array().unwrap().is_empty() {
            return;
        }
        assert!(Instant::now() < until, "{planned}");
        // Pages that a compaction freed count as free from the next commit on.
        block_on(async { drop(cluster.client(0).await.put(PutRequest::new("commit", "")).await.unwrap()) });
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Five members: one loss leaves room for another, two leave none, three are the end; the sum is shown at each step.
#[test]
fn five_members_lose_one_after_the_other() {
    each("five_members_lose_one_after_the_other", &[V3_6], |etcd| {
        let mut cluster = EtcdCluster::start(etcd, Options::default().members(5));
        let care = Care::through(&cluster, 0);
        let health = care.health_until("five that are well", |health| health.own().is_empty());
        assert_eq!(health.says("quorum", ""), "5 of 5 voting member(s) work, 3 needed: survives 2 more losses");
        cluster.stop_member(4);
        cluster.wait_ready();
        let health = care.health_until("four with a leader", |health| health.own() == [("answers", "m4")]);
        assert_eq!(health.says("quorum", ""), "4 of 5 voting member(s) work, 3 needed: survives 1 more loss");
        assert!(care.cmd(&["remove-member", "m1", "--dry-run"]).run().ok().out().contains("3 of 4 voting member(s) work"));
        cluster.stop_member(3);
        cluster.wait_ready();
        let health = care.health_until("three with a leader", |health| {
            health.own() == [("quorum", ""), ("answers", "m3"), ("answers", "m4")]
                || health.own() == [("quorum", ""), ("answers", "m4"), ("answers", "m3")]
        });
        assert_eq!(health.says("quorum", ""), "3 of 5 voting member(s) work, 3 needed: survives no further loss");
        let refused = care.error(&["remove-member", "m1", "--confirm", "x"], 1);
        assert!(refused["cause"].as_str().unwrap().contains("after: 2 of 4 voting member(s) work, 3 needed: NO QUORUM"), "{refused}");
        let peer = format!("http://127.0.0.1:{}", ReservedPort::new().port());
        let refused = care.error(&["add-member", &peer, "--yes"], 1);
        assert!(refused["cause"].as_str().unwrap().contains("after: 3 of 6 voting member(s) work, 4 needed: NO QUORUM"), "{refused}");
        let id = care.cluster_id();
        let removed = care.json(&["remove-member", "m4", "--confirm", &id]);
        assert_eq!((&removed["after"]["voters"], &removed["after"]["working"]), (&4.into(), &3.into()), "{removed}");
        cluster.stop_member(2);
        let health = care.health_until("a lost quorum", |health| health.says("quorum", "").ends_with("NO QUORUM"));
        assert_eq!(health.done.code(), Some(5));
        assert!(care.error(&["remove-member", "m3", "--confirm", &id], 1)["what"].as_str().unwrap().contains("no quorum to decide it"));
    });
}

/// The leader hangs (SIGSTOP): it is shown as silent, the others elect another, no verb hangs; when it goes on, all is well again.
#[test]
fn a_paused_leader_is_silent_and_nothing_hangs() {
    each("a_paused_leader_is_silent_and_nothing_hangs", &[V3_4, V3_7], |etcd| {
        let mut cluster = EtcdCluster::start(etcd, Options::default().members(3));
        let paused = Care::through(&cluster, 0).leader();
        let at = index_of(&paused);
        let mut care = Care::through(&cluster, (at + 1) % 3);
        care.flags.extend(["--dial-timeout=5s".to_owned(), "--command-timeout=5s".to_owned()]);
        cluster.pause_member(at);
        let health = care.health_until("another leader", |health| {
            health.has("answers", &paused)
                && !health.odd.iter().any(|(check, _)| check == "leader")
                && !health.says("leader", "").contains(&format!("{paused} leads"))
        });
        assert!(health.verdict == "alert" && health.has("quorum", ""), "{}", health.done);
        // Far less than a command's time would be if every question waited for the paused one; far more than a slow machine needs.
        let bounded = |words: &[&str]| care.cmd(words).timeout(Duration::from_secs(60)).run();
        let status = bounded(&["status", "-o", "json"]).ok().json();
        let silent: Vec<_> = status["members"].as_array().unwrap().iter().filter(|line| line["status"].is_null()).collect();
        assert!(silent.len() == 1 && silent[0]["name"] == paused.as_str() && silent[0]["silent"].is_string(), "{status}");
        assert!(bounded(&["members"]).ok().out().contains("NO"));
        drop(bounded(&["alarm", "list"]).ok());
        assert_eq!(bounded(&["hashkv", "--hashkv-budget", "60s", "-o", "json"]).ok().json()["verdict"], "equal");
        assert!(bounded(&["defrag", "--all", "--yes"]).exit(1).err().contains(&format!("{paused} does not answer")));
        drop(bounded(&["move-leader", &paused, "--yes"]).exit(2));
        assert!(bounded(&["remove-member", &paused, "--dry-run"]).ok().out().contains("2 of 2 voting member(s) work"));
        let other = format!("m{}", (at + 2) % 3);
        assert!(bounded(&["remove-member", &other, "--confirm", "x"]).exit(1).err().contains("NO QUORUM"));
        // Only the paused one is named: nobody can say who the others are.
        let alone = Care::with(cluster.member_flags(at).into_iter().chain(care.flags[1..].iter().cloned()).collect());
        drop(alone.cmd(&["status"]).timeout(Duration::from_secs(60)).run().exit(30));

        cluster.resume_member(at);
        drop(care.health_until("all well", |health| health.own().is_empty()));
    });
}

/// A member whose file was changed while it was down. etcd's own check raises CORRUPT; health and hashkv name the odd one; CORRUPT is disarmed only with its
/// own flag and the cluster's name.
#[test]
fn a_corrupt_member_is_named() {
    each("a_corrupt_member_is_named", &[V3_4, V3_7], |etcd| {
        let mut cluster = EtcdCluster::start(etcd, Options::default().members(3).corrupt_check(2));
        let leader = index_of(&Care::through(&cluster, 0).leader());
        let odd = (leader + 1) % 3;
        let care = Care::through(&cluster, leader);
        block_on(async {
            let client = cluster.client(leader).await;
            for number in 0..20 {
                drop(client.put(PutRequest::new(format!("key-{number}"), format!("value-{number}-of-some-length"))).await.unwrap());
            }
        });
        cluster.stop_member(odd);
        falsify_last_row(&cluster.members()[odd].data_dir().join("member/snap/db"));
        cluster.restart_member(odd);
        let name = format!("m{odd}");
        let health = care.health_until("the alarm CORRUPT", |health| health.odd.iter().any(|(check, _)| check == "alarms"));
        // Where no majority is asked for its hashes, etcd raises the alarm for nobody in particular.
        assert!(health.has("alarms", &name) || health.has("alarms", "nobody in particular"), "{}", health.done);
        let id = care.cluster_id();
        let hashes = care.cmd(&["hashkv", "--hashkv-budget", "60s", "-o", "json"]).run().exit(20).json();
        let member = care.members().into_iter().find(|member| member["name"] == name.as_str()).unwrap()["id"].clone();
        assert!(hashes["verdict"] == "odd" && hashes["odd"][0] == member && hashes["odd"].as_array().unwrap().len() == 1, "{hashes}");
        assert!(care.cmd(&["hashkv", "--hashkv-budget", "60s"]).run().exit(20).out().contains("DIFFERS from the majority"));

        let refused = care.cmd(&["alarm", "disarm", "--yes"]).run().exit(2);
        assert!(refused.err().contains("only with --corrupt") && refused.err().contains("lifeboat etcd hashkv"), "{refused}");
        drop(care.cmd(&["alarm", "disarm", "--corrupt"]).run().exit(2));
        drop(care.cmd(&["alarm", "disarm", "--corrupt", "--yes"]).run().exit(2));
        drop(care.cmd(&["alarm", "disarm", "--corrupt", "--confirm", "nonsense"]).run().exit(2));
        assert!(care.cmd(&["defrag", "--all", "--yes"]).run().exit(1).err().contains("CORRUPT"));
        let raised = || care.json(&["alarm", "list"])["alarms"].as_array().unwrap().iter().any(|alarm| alarm["alarm"] == "CORRUPT");
        assert!(raised(), "nothing was disarmed");
        // The remedy: the odd one is replaced, and only then the alarm is taken back for good.
        cluster.stop_member(odd);
        cluster.wait_ready();
        drop(care.cmd(&["remove-member", &name, "--confirm", &id]).run().ok());
        let until = Instant::now() + PATIENCE;
        while raised() {
            let disarmed = care.json(&["alarm", "disarm", "--corrupt", "--confirm", &id]);
            assert!(disarmed["disarmed"][0]["alarm"] == "CORRUPT" || !disarmed["alarms"].as_array().unwrap().is_empty(), "{disarmed}");
            assert!(Instant::now() < until, "the alarm comes back");
        }
        assert_eq!(care.json(&["hashkv", "--hashkv-budget", "60s"])["verdict"], "equal");
    });
}

/// The leader is killed while a defragmentation pauses between two members: the plan stops, says where, and what to look at; the same command does the rest.
#[test]
fn the_leader_killed_during_a_defragmentation() {
    each("the_leader_killed_during_a_defragmentation", &[V3_6], |etcd| {
        let mut cluster = EtcdCluster::start(etcd, Options::default().members(3));
        let leader = Care::through(&cluster, 0).leader();
        let care = Care::through(&cluster, (index_of(&leader) + 1) % 3);
        make_holes(&cluster, &care);
        let command = || care.cmd(&["defrag", "--in-use-below", "60%", "--yes"]);
        let mut running = command().args(["--pause", "8s", "-o", "json"]).start();
        running.wait_for("it has caught up", PATIENCE);
        cluster.kill_member(index_of(&leader));
        let stopped = running.finish().exit(1);
        let report = stopped.json();
        assert!(report["done"] == false && report["members"].as_array().unwrap().len() == 1, "{report}");
        let error = lifeboat_tests::care::error(&stopped);
        let text = |field: &str| error[field].as_str().unwrap().to_owned();
        assert!(text("what").starts_with("the defragmentation stopped at m"), "{error}");
        assert!(
            text("cause").contains(&format!("{leader} does not answer")) && text("cause").contains("1 of 3 member(s) had their turn"),
            "{error}"
        );
        assert_eq!(text("next"), format!("lifeboat etcd health {}", care.flags[0]));
        let early = command().run().exit(1);
        assert!(early.err().contains(&format!("{leader} does not answer")), "{early}");

        cluster.restart_member(index_of(&leader));
        drop(care.health_until("all three back", |health| health.own().is_empty()));
        let rest = command().args(["--pause", "100ms", "-o", "json"]).run().ok().json();
        assert!(rest["done"] == true && rest["members"].as_array().unwrap().len() == 2, "{rest}");
        assert!(rest["skipped"][0]["member"] == report["members"][0]["name"], "{rest}");
        drop(care.health_until("all well", |health| health.own().is_empty()));
    });
}

/// Members of two clusters among the endpoints: named in every look, and nothing is changed in either.
#[test]
fn two_clusters_among_the_endpoints() {
    each("two_clusters_among_the_endpoints", &[V3_5], |etcd| {
        let (one, other) =
            (EtcdCluster::start(etcd, Options::default().members(2)), EtcdCluster::start(etcd, Options::default().token("other")));
        let care = Care::with(vec![format!("--endpoints={},{}", one.endpoint(0), other.endpoint(0))]);
        let health = care.health();
        assert!(health.verdict == "alert" && health.has("cluster-id", ""), "{}", health.done);
        assert!(health.says("cluster-id", "").starts_with("SPLIT: "), "{}", health.done);
        let report = care.json(&["members"]);
        let members = report["members"].as_array().unwrap();
        let ids: std::collections::BTreeSet<&str> = members.iter().map(|member| member["cluster_id"].as_str().unwrap()).collect();
        assert!(members.len() == 3 && ids.len() == 2 && report["cluster_id"].is_null(), "{report}");
        let status = care.cmd(&["status"]).run().ok();
        assert!(status.err().contains("warning: the members that answer belong to different clusters"), "{status}");
        let peer = format!("http://127.0.0.1:{}", ReservedPort::new().port());
        let id = members[0]["id"].as_str().unwrap();
        for verb in [
            &["remove-member", id, "--confirm", "x"][..],
            &["leave", id, "--confirm", "x"],
            &["add-member", &peer, "--learner", "--yes"],
            &["promote", id, "--yes"],
            &["forfeit-leadership", "--yes"],
            &["alarm", "disarm", "--yes"],
            &["defrag", "--all", "--yes"],
            &["hashkv"],
        ] {
            let refused = care.cmd(verb).run().exit(13);
            assert!(refused.err().contains("belong to different clusters"), "{refused}");
        }
        assert_eq!(care.json(&["members"])["members"].as_array().unwrap().len(), 3);
    });
}

/// Certificates that end soon are told before they bite: ours and the servers'.
#[test]
fn certificates_near_their_end() {
    each("certificates_near_their_end", &[V3_6], |etcd| {
        let cluster = EtcdCluster::start(etcd, Options::default().members(3).tls(Tls::ClientAuth));
        let care = Care::through(&cluster, 2);
        let health = care.health_until("three that are well", |health| health.own().is_empty());
        assert!(health.says("certificates", "").contains("the first to end"), "{}", health.done);
        let tls = cluster.tls().unwrap();
        let client = |cert: &std::path::Path, key: &std::path::Path| {
            Care::with(vec![
                care.flags[0].clone(),
                care.flags[1].clone(),
                format!("--cert={}", cert.display()),
                format!("--key={}", key.display()),
            ])
        };
        let soon = client(&tls.ending_client.cert, &tls.ending_client.key);
        let health = soon.health();
        let whose = format!("our client certificate ({})", tls.ending_client.cert.display());
        assert!(health.verdict == "advice" && health.has("certificates", &whose), "{}", health.done);
        assert!(soon.json(&["hashkv", "--hashkv-budget", "60s"])["verdict"] == "equal");
        drop(client(&tls.wrong_client.cert, &tls.wrong_client.key).cmd(&["status"]).run().exit(30));

        let cluster = EtcdCluster::start(etcd, Options::default().tls(Tls::Server).server_cert("ending-server"));
        let health = Care::through(&cluster, 0).health();
        assert!(health.verdict == "alert" && health.has("certificates", "m0"), "{}", health.done);
    });
}

/// `--wait-timeout` ends as soon as the cluster is well, and with the verdict's code where it does not get well; `--watch` tells elections.
#[test]
fn waiting_for_health_and_watching_it() {
    each("waiting_for_health_and_watching_it", &[V3_7], |etcd| {
        let mut cluster = EtcdCluster::start(etcd, Options::default().members(3));
        let care = Care::through(&cluster, 0);
        drop(care.health_until("three that are well", |health| health.own().is_empty()));
        drop(care.cmd(&["health", "--wait-timeout", "100s"]).run().ok());
        cluster.stop_member(2);
        let down = care.cmd(&["health", "--wait-timeout", "3s"]).run().exit(5);
        assert!(down.out().contains("in all: alert"), "{down}");
        let waiting = care.cmd(&["health", "--wait-timeout", "150s"]).start();
        cluster.restart_member(2);
        assert!(waiting.finish().ok().out().contains("in all: healthy"));

        let mut watching = care.cmd(&["health", "--watch"]).start();
        watching.wait_for("in all: healthy", PATIENCE);
        drop(care.cmd(&["forfeit-leadership", "--yes"]).run().ok());
        // One at least: a transfer may need a second term.
        watching.wait_for("election(s) in", PATIENCE);
        drop(watching.signal(Signal::INT).exit(130));
    });
}

/// Runs it until it is refused for this reason: on a busy machine an election may come in between, and is a reason too.
fn refused(run: impl Fn() -> Run, code: i32, why: &str) -> Finished {
    let until = Instant::now() + PATIENCE;
    loop {
        let done = run().run().exit(code);
        if done.err().contains(why) {
            return done;
        }
        assert!(Instant::now() < until, "not refused because of {why:?}: {done}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A slow backup of `job` through a proxy, as soon as its stream runs.
fn slow_backup(job: &Job, cluster: &EtcdCluster) -> (Running, Proxy) {
    block_on(async { workload::fill(&cluster.client(0).await, 71, 8 << 20).await });
    let port: u16 = cluster.endpoint(0).rsplit(':').next().unwrap().parse().unwrap();
    let proxy = Proxy::to(port);
    proxy.set(Toxics { rate: Some(256 << 10), ..Toxics::default() });
    let mut running = job.backup_cmd(&[format!("--endpoints=http://127.0.0.1:{}", proxy.port())]).start();
    running.wait_for("member: m0", PATIENCE);
    (running, proxy)
}

/// A defragmentation by this user that stands between its first and its second member.
fn pausing_defrag(lifeboat: &Lifeboat, care: &Care, pause: &str, more: &[&str]) -> Running {
    let run: Run = lifeboat.cmd(["etcd", "defrag", "--all", "--yes", "--pause", pause]).args(&care.flags).args(more);
    let mut running = run.start();
    running.wait_for("it has caught up", PATIENCE);
    running
}

/// On one host a lock keeps backup and defragmentation apart, in both directions; across hosts the lease of the repository does. A young backup is known of.
#[test]
fn no_defragmentation_beside_a_backup() {
    each("no_defragmentation_beside_a_backup", &[V3_6], |etcd| {
        let cluster = EtcdCluster::start(etcd, Options::default().members(2));
        let care = Care::through(&cluster, 0);
        let job = Job::new();
        let defrag = |lifeboat: &Lifeboat| lifeboat.cmd(["etcd", "defrag", "--all", "--yes", "--pause", "100ms"]).args(&care.flags);
        let elsewhere = Lifeboat::new();
        drop(care.health_until("two with a leader", |health| health.own() == [("quorum", "")]));
        let (backup, proxy) = slow_backup(&job, &cluster);
        drop(refused(|| defrag(&job.lifeboat), 1, "a backup or a defragmentation of this cluster runs on this machine"));
        let with_repository = || defrag(&elsewhere).args(["--repo", job.url(), "--cluster", "prod"]);
        let busy = refused(with_repository, 1, "somebody else works on this cluster now");
        assert!(busy.err().contains("(backup)"), "{busy}");
        proxy.set(Toxics::default());
        drop(backup.finish().ok());

        let mut running = pausing_defrag(&job.lifeboat, &care, "40s", &["--repo", job.url(), "--cluster", "prod"]);
        let said = running.stderr();
        assert!(said.contains("the newest backup of 'prod' is ") && said.contains(" min old"), "{said}");
        let mut waiting = job.backup_cmd(&cluster.client_flags()).start();
        let file = job.dir().join("saved.db");
        let mut saving = job.lifeboat.cmd(["snapshot", "save"]).arg(&file).args(cluster.member_flags(0)).start();
        let other = Job::at(job.url().to_owned(), Vec::new());
        let busy = refused(|| other.backup_cmd(&cluster.client_flags()), 1, "a defragmentation of this cluster runs");
        assert!(busy.err().contains("(defrag)"), "{busy}");
        waiting.wait_for("a defragmentation of this cluster runs on this machine", PATIENCE);
        saving.wait_for("a defragmentation of this cluster runs on this machine", PATIENCE);
        assert!(running.process().running() && !file.exists(), "both wait for it");
        drop(running.finish().ok());
        drop(waiting.finish().ok());
        drop(saving.finish().ok());
        assert_eq!(job.list().len(), 2);

        // Without a repository it is said once that nobody knows.
        let unknown = defrag(&elsewhere).run().ok();
        assert_eq!(unknown.err().matches("no repository is named").count(), 1, "{unknown}");
        // Without a state directory there is no lock, and without a repository no lease.
        let no_state = || elsewhere.cmd(["etcd", "defrag", "--all"]).args(&care.flags).env("XDG_STATE_HOME", "/dev/null");
        let unsure = no_state().run().exit(2);
        assert!(unsure.err().contains("cannot be known") && unsure.err().contains("--yes"), "{unsure}");
        let told = no_state().args(["--yes", "--pause", "100ms"]).run().ok();
        assert!(told.err().contains("whether a backup runs on this machine cannot be known"), "{told}");
    });
}

/// A learner takes no turn, has no vote, and is compared with nobody; while it is down the cluster is not ill.
#[test]
fn a_learner_beside_three() {
    each("a_learner_beside_three", &[V3_5], |etcd| {
        let mut cluster = EtcdCluster::start(etcd, Options::default().members(3));
        let learner = cluster.add_learner();
        let name = format!("m{learner}");
        let care = Care::through(&cluster, 0);
        let health = care.health_until("a learner", |health| health.own() == [("learners", name.as_str())]);
        assert!(health.verdict == "advice" && health.says("quorum", "").starts_with("3 of 3"), "{}", health.done);
        let planned = care.json(&["defrag", "--all", "--dry-run"]);
        assert_eq!(planned["skipped"][0]["member"], name.as_str(), "{planned}");
        let hashes = care.json(&["hashkv", "--hashkv-budget", "60s"]);
        let line = hashes["members"].as_array().unwrap().iter().find(|line| line["name"] == name.as_str()).unwrap();
        assert!(hashes["verdict"] == "equal" && line["hash"].is_null() && line["reason"].is_string(), "{hashes}");
        cluster.stop_member(learner);
        let health = care.health_until("a silent learner, and nothing else", |health| {
            health.verdict == "advice" && health.own() == [("answers", name.as_str())]
        });
        assert_eq!(health.report["findings"].as_array().unwrap().iter().filter(|finding| finding["check"] == "answers").count(), 1);
        assert!(care.cmd(&["promote", &name, "--yes"]).run().exit(1).err().contains("counts against the quorum"));
    });
}

/// The alarms of members that have lost their quorum are still told, from what each says of itself.
#[test]
fn an_alarm_without_a_quorum() {
    each("an_alarm_without_a_quorum", &[V3_7], |etcd| {
        let mut cluster = EtcdCluster::start(etcd, Options::default().members(2).quota(4 << 20));
        let care = Care::through(&cluster, 0);
        block_on(async {
            let client = cluster.client(0).await;
            for round in 0.. {
                match client.put(PutRequest::new("same", vec![b'x'; 256 << 10])).await {
                    Err(error) if *error.kind() == ErrorKind::NoSpace => break,
                    // An election on a busy machine.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                    Ok(_) => {}
                }
                assert!(round < 1_000, "the quota is never reached");
            }
        });
        drop(care.health_until("the alarm", |health| health.odd.iter().any(|(check, _)| check == "alarms")));
        cluster.stop_member(1);
        let health = care.health_until("a lost quorum", |health| health.has("leader", "m0"));
        assert!(health.says("alarms", "m0").contains("NOSPACE"), "{}", health.done);
    });
}
