//! `lifeboat etcd …` over Talos's own API: the same verbs, the same output, the same judgement.

use std::time::{Duration, Instant};

use etcd_api::{ErrorKind, PutRequest};
use serde_json::Value;
use talos_double::{Options, Profile};

use crate::common::{Talos, error};

/// How long an effect may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn odd(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .filter(|one| one["verdict"] == "advice" || one["verdict"] == "alert")
        .map(|one| (text(&one["check"]), text(&one["member"])))
        .collect()
}

/// What `health` says once all is well: on a busy machine it may be slow at first, or an election under way.
fn well(talos: &Talos, context: &str) -> Value {
    let until = Instant::now() + PATIENCE;
    loop {
        let done = talos.etcd_as(context, &["health", "-o", "json"]).run();
        if done.code() == Some(0) && odd(&done.json()).is_empty() {
            return done.json();
        }
        assert!(Instant::now() < until, "not well: {done}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn every_member_is_found_from_one_and_judged() {
    let Some(talos) = Talos::start(Options::default().control_planes(3).workers(1)) else { return };
    let shown = talos.etcd(&["status"]).args(["-n", &talos.ip(1)]).run().ok();
    let table = shown.out();
    let header: Vec<&str> = table.lines().next().unwrap().split("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
    let talosctl = [
        "NODE",
        "MEMBER",
        "DB SIZE",
        "IN USE",
        "LEADER",
        "RAFT INDEX",
        "RAFT TERM",
        "RAFT APPLIED INDEX",
        "LEARNER",
        "PROTOCOL",
        "STORAGE",
    ];
    assert!(header.starts_with(&talosctl) && header.ends_with(&["ERRORS"]), "{shown}");
    for node in talos.double.control_planes() {
        assert!(shown.out().contains(&talos.ip(node)), "{shown}");
    }
    let members = talos.members();
    assert_eq!(
        members.iter().map(|(name, _, answers)| (name.as_str(), *answers)).collect::<Vec<_>>(),
        [("cp-1", true), ("cp-2", true), ("cp-3", true)]
    );
    assert!(members.iter().all(|(_, id, _)| id.len() == 16), "{members:?}");

    let report = well(&talos, "admin");
    let checks: Vec<&str> = report["findings"].as_array().unwrap().iter().map(|one| one["check"].as_str().unwrap()).collect();
    for check in [
        "quorum",
        "member-lists",
        "talos-etcd",
        "talos-members",
        "talos-apid",
        "talos-memory",
        "talos-disk",
        "talos-diagnostics",
        "talos-kubelet",
        "talos-boot",
    ] {
        assert!(checks.contains(&check), "{check}: {report}");
    }
    // The least role sees etcd, and is told that it does not see the machines.
    let least = well(&talos, "etcd-backup");
    let machines = least["findings"].as_array().unwrap().iter().find(|one| one["check"] == "machines").unwrap();
    assert_eq!(machines["verdict"], "unknown", "{least}");

    talos.double.stop_etcd(2);
    talos
        .double
        .switch(1, |switches| switches.diagnostics = vec![("address-overlap".to_owned(), "pod and host addresses overlap".to_owned())]);
    let report = talos.etcd(&["health", "-o", "json"]).run().exit(5).json();
    let found = odd(&report);
    for (check, member) in [("quorum", ""), ("answers", "cp-3"), ("talos-etcd", "cp-3"), ("talos-diagnostics", "cp-2")] {
        assert!(found.contains(&(check.to_owned(), member.to_owned())), "{check}: {report}");
    }
    let shown = talos.etcd(&["status"]).run().ok();
    assert!(shown.out().lines().any(|line| line.contains(&talos.ip(2)) && line.contains("does not answer")), "{shown}");
    let log = talos.etcd(&["logs", "cp-3", "--tail", "3"]).run().ok();
    assert!(log.out().lines().count() == 3 && log.out().contains("\"level\""), "the log of the member that is down: {log}");
}

#[test]
fn leadership_is_given_up_and_members_leave_and_are_removed() {
    let Some(talos) = Talos::start(Options::default().control_planes(3)) else { return };
    let leader = talos.leader();
    let dry = talos.etcd(&["forfeit-leadership", "--dry-run"]).run().ok();
    assert!(dry.out().contains("would do"), "{dry}");
    assert_eq!(talos.double.count("EtcdForfeitLeadership"), 0);
    drop(talos.etcd(&["forfeit-leadership"]).run().exit(2));
    drop(talos.etcd(&["forfeit-leadership", "--yes"]).run().ok());
    assert_ne!(talos.leader(), leader);
    drop(talos.etcd(&["forfeit-leadership", talos.double.hostname(leader), "--yes"]).run().exit(2));

    // With one of three down, to take a working one away would cost the quorum: the sum is shown, and Talos is not asked.
    let leader = talos.leader();
    let [down, working] = talos.double.control_planes().filter(|node| *node != leader).collect::<Vec<_>>()[..] else { panic!("three") };
    talos.double.stop_etcd(down);
    for (verb, call) in [("remove-member", "EtcdRemoveMemberByID"), ("leave", "EtcdLeaveCluster")] {
        let refused = talos.etcd(&[verb, talos.double.hostname(working), "--confirm", "admin", "-o", "json"]).run().exit(1);
        let error = error(&refused);
        assert!(error["what"].as_str().unwrap().contains("quorum") && error["cause"].as_str().unwrap().contains("1 of 2"), "{refused}");
        assert_eq!(talos.double.count(call), 0);
    }
    talos.double.start_etcd(down);
    talos.double.wait_healthy(down);

    // Without the name nothing is done; with it the leader hands over first, and the node cleans up behind itself.
    let leader = talos.leader();
    let node = talos.double.hostname(leader).to_owned();
    let refused = talos.etcd(&["leave", &node, "-o", "json"]).run().exit(2);
    assert!(error(&refused)["cause"].is_string() && talos.double.count("EtcdLeaveCluster") == 0, "{refused}");
    let left = talos.etcd(&["leave", &node, "--confirm", "admin"]).timeout(PATIENCE).run().ok();
    let log = talos.etcd(&["logs", &node, "--tail", "1"]).run().ok();
    assert!(log.err().contains("no member of etcd") && log.out().contains("level"), "a node that left has a log all the same: {log}");
    assert!(left.out().contains("reboot") && left.out().contains("2 of 2"), "{left}");
    assert_eq!(talos.double.count("EtcdLeaveCluster"), 1);
    assert!(!talos.double.root(leader).join("var/lib/etcd/member").exists(), "its data is gone");
}

#[test]
fn a_dead_member_is_removed_by_its_name() {
    let Some(talos) = Talos::start(Options::default().control_planes(3)) else { return };
    let leader = talos.leader();
    let dead = talos.double.control_planes().find(|node| *node != leader).unwrap();
    talos.double.kill_etcd(dead);
    let name = talos.double.hostname(dead);
    let cannot = talos.etcd(&["leave", name, "--confirm", "admin", "-o", "json"]).run().exit(1);
    assert!(
        error(&cannot)["next"].as_str().unwrap_or_default().contains("remove-member")
            || error(&cannot)["next"].to_string().contains("remove-member"),
        "{cannot}"
    );
    let until = Instant::now() + PATIENCE;
    let removed = talos.etcd(&["remove-member", name, "--confirm", "admin"]).timeout(PATIENCE).run().ok();
    assert!(Instant::now() < until && removed.out().contains("2 of 2"), "{removed}");
    assert_eq!(talos.members().len(), 2);
}

/// How many keys [`fill_up`] writes for [`compact`] to delete.
const SMALL: usize = 300;

/// Writes until etcd itself says that there is no room.
fn fill_up(talos: &Talos) {
    let full = lifeboat_tests::matrix::block_on(async {
        let client = talos.double.etcd_client(0).await.unwrap();
        for at in 0..SMALL {
            // One that an election loses is not missed.
            drop(client.put(PutRequest::new(format!("/small/{at}"), "")).await);
        }
        for at in 0..80 {
            match client.put(PutRequest::new(format!("/big/{}", at % 8), vec![b'x'; 500_000])).await {
                Err(error) if *error.kind() == ErrorKind::NoSpace => return true,
                // An election on a busy machine.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                Ok(_) => {}
            }
        }
        false
    });
    assert!(full, "the quota was not reached");
}

/// Takes the history away, as an API server does, and waits until every member shows that most of its file is free: eight of the thirty or so values
/// that fill it live on.
fn compact(talos: &Talos) {
    let status = |node: usize| talos.double.etcdctl(node, ["endpoint", "status", "-w", "json"]).json()[0]["Status"].clone();
    let revision = status(0)["header"]["revision"].as_i64().unwrap();
    drop(talos.double.etcdctl(0, ["compact", "--physical", &revision.to_string()]));
    // `--physical` waits for the member that was asked alone. What was freed counts as free from a later commit on, and while NOSPACE stands nothing but
    // deletions brings one.
    let free = |node: usize| {
        let status = status(node);
        status["dbSizeInUse"].as_u64().unwrap() < status["dbSize"].as_u64().unwrap() / 2
    };
    for at in 0..SMALL {
        drop(talos.double.etcdctl_cmd(0, ["del", &format!("/small/{at}")]).run());
        if talos.double.control_planes().all(free) {
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    panic!("the compaction shows nowhere: {:?}", talos.double.control_planes().map(status).collect::<Vec<_>>());
}

#[test]
fn a_full_database_is_defragmented_and_disarmed_over_talos() {
    let Some(talos) = Talos::start(Options::default().control_planes(3).quota(16 << 20)) else { return };
    fill_up(&talos);
    let report = talos.etcd(&["health", "-o", "json"]).run().exit(5).json();
    assert!(odd(&report).iter().any(|(check, _)| check == "alarms"), "{report}");
    let refused = talos.etcd(&["alarm", "disarm", "--yes", "-o", "json"]).run().exit(1);
    assert!(
        error(&refused)["what"].as_str().unwrap().len() > 10 && talos.double.count("EtcdAlarmDisarm") == 0,
        "the cause stands: {refused}"
    );
    compact(&talos);
    let defragmented =
        talos.etcd(&["defrag", "--in-use-below", "90%", "--free-above", "1MiB", "--pause", "0s", "--yes"]).timeout(PATIENCE).run().ok();
    assert_eq!(talos.double.count("EtcdDefragment"), 3, "{defragmented}");
    drop(talos.etcd(&["alarm", "disarm", "--yes"]).run().ok());
    assert_eq!(talos.double.count("EtcdAlarmDisarm"), 1);
    drop(talos.double.etcdctl(0, ["put", "/again", "1"]));
    drop(well(&talos, "admin"));
}

#[test]
fn the_whole_remedy_for_a_full_database_goes_over_talos() {
    let Some(talos) = Talos::start(Options::default().control_planes(3).quota(16 << 20)) else { return };
    fill_up(&talos);
    let nospace = |more: &[&str]| {
        let spool = talos.job.dir().join("spool");
        let run = talos.etcd(&["nospace", "--repo", talos.job.url(), "--cluster", "prod", "--recipient", talos.job.recipient()]);
        run.args(["--spool-reserve", "0", "--pause", "0s", "--spool-dir"]).arg(spool).args(more).timeout(PATIENCE)
    };
    let refused = nospace(&["--compact-anyway", "--yes", "-o", "json"]).run().exit(2);
    assert!(error(&refused)["cause"].as_str().unwrap().contains("talos.direct"), "{refused}");
    let planned = nospace(&["--dry-run"]).run().ok();
    assert!(planned.out().contains("defragment cp-1") && !planned.out().contains("compact the history"), "{planned}");
    assert_eq!(talos.double.count("EtcdDefragment"), 0);
    // What the API server would have compacted before it could no longer write.
    compact(&talos);
    let done = nospace(&["--yes", "-o", "json"]).run().ok().json();
    assert_eq!(
        (done["helped"].as_bool(), talos.double.count("EtcdDefragment"), talos.double.count("EtcdAlarmDisarm")),
        (Some(true), 3, 1),
        "{done}"
    );
    assert_eq!(talos.job.list().len(), 1, "a backup came first");
    drop(talos.double.etcdctl(0, ["put", "/again", "1"]));
    // With nothing left to mend nothing is done.
    drop(nospace(&["--yes"]).run().ok());
    assert_eq!((talos.double.count("EtcdDefragment"), talos.job.list().len()), (3, 1));
}

#[test]
fn a_role_that_is_not_enough_for_the_whole_plan_begins_none() {
    let Some(talos) = Talos::start(Options::default().control_planes(3)) else { return };
    let refused = talos.etcd_as("operator", &["defrag", "--all", "--pause", "0s", "--yes", "-o", "json"]).run().exit(1);
    let told = error(&refused);
    assert!(told["cause"].as_str().unwrap().contains("os:admin") && talos.double.count("EtcdDefragment") == 0, "{refused}");
    // What is printed as the next command does what the role may do.
    let next = told["next"].as_str().unwrap();
    let followers = talos.job.lifeboat.shell(&format!("{next} --pause 0s --yes")).run().ok();
    assert!(talos.double.count("EtcdDefragment") == 2 && talos.double.count("EtcdForfeitLeadership") == 0, "{followers}");
}

#[test]
fn a_release_that_tells_a_role_nothing_is_no_cluster_without_quorum() {
    let Some(talos) = Talos::start(Options::default().profile(Profile::V1_8)) else { return };
    for verb in ["health", "members", "status"] {
        let refused = talos.etcd_as("reader", &[verb, "-o", "json"]).run().exit(1);
        assert!(error(&refused)["cause"].as_str().unwrap().contains("os:reader"), "{refused}");
    }
}

#[test]
fn a_role_that_is_not_enough_is_told_in_words_and_changes_nothing() {
    let Some(talos) = Talos::start(Options::default().control_planes(3)) else { return };
    for (words, needs) in [
        (&["forfeit-leadership", "--yes"][..], "os:admin"),
        (&["leave", "cp-2", "--confirm", "reader"], "os:admin"),
        (&["remove-member", "cp-2", "--confirm", "reader"], "os:admin"),
        (&["snapshot", "no.db"], "os:etcd:backup"),
    ] {
        let refused = talos.etcd_as("reader", words).args(["-o", "json"]).run().exit(1);
        let cause = error(&refused)["cause"].as_str().unwrap_or_default().to_owned();
        assert!(cause.contains(needs) && cause.contains("os:reader"), "{words:?}: {refused}");
    }
    assert_eq!(talos.members().len(), 3);
    let older = talos.etcd_as("etcd-backup", &["logs", "-o", "json"]).run().exit(1);
    assert!(error(&older)["cause"].as_str().unwrap().contains("os:reader"), "{older}");
}
