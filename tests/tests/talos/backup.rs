//! Backups from Talos: with the least role, from every release, and never of a stream that was cut.

use lifeboat_tests::{ClusterPlan, EtcdCluster, EtcdVersion, Options as EtcdOptions, dump_all};
use talos_double::{Failure, Options, Profile, SnapshotFault};

use crate::common::Talos;

#[test]
fn with_the_least_role_what_etcd_holds_comes_back() {
    let Some(talos) = Talos::start(Options::default().control_planes(3)) else { return };
    talos.fill(31);
    let done = talos.backup_cmd("etcd-backup").args(["-o", "json"]).run().ok();
    let manifest = &done.json()["backups"][0]["manifest"];
    assert_eq!((&manifest["source"], &manifest["cluster_id"]), (&"talos".into(), &serde_json::Value::Null), "{done}");
    assert_eq!((&manifest["hashkv"]["verdict"], &manifest["lineage_check"]), (&"not-offered".into(), &"uncompared".into()), "{done}");
    assert!(manifest["member"]["name"].as_str().unwrap().starts_with("cp-"), "{done}");
    assert!(manifest["lineage"].as_str().unwrap().contains("-talos-"), "{done}");
    assert!(done.err().contains("3 of 3 members answer") && done.err().contains("not offered by this source"), "{done}");
    assert_eq!(talos.double.count("Version"), 0, "the role may not ask for it, so it is not asked");

    // The next one is another follower's turn, and belongs to the same lineage.
    let next = talos.backup_cmd("etcd-backup").args(["-o", "json"]).run().ok();
    let next = &next.json()["backups"][0]["manifest"];
    assert_ne!(next["member"]["id"], manifest["member"]["id"]);
    assert_eq!((&next["lineage"], &next["revision"]), (&manifest["lineage"], &manifest["revision"]));

    let verified = talos.job.cmd("verify").args(["latest", "--deep"]).arg("-i").arg(talos.job.identity()).run().ok();
    assert!(verified.out().contains("not-offered"), "{verified}");
    let before = lifeboat_tests::matrix::block_on(async { dump_all(&talos.double.etcd_client(0).await.unwrap()).await });
    let plan = ClusterPlan::new(1).token("again");
    drop(talos.job.restore("latest", &plan, &[]));
    let restored = EtcdCluster::boot(EtcdVersion::V3_6, plan, EtcdOptions::default().token("again"));
    lifeboat_tests::matrix::block_on(async { before.assert_same_live(&dump_all(&restored.client(0).await).await) });
}

#[test]
fn every_release_of_talos_gives_a_backup_to_the_least_role() {
    for profile in Profile::ALL {
        let Some(talos) = Talos::start(Options::default().profile(profile)) else { return };
        talos.fill(5);
        let done = talos.backup_cmd("etcd-backup").args(["-o", "json"]).run().ok();
        let untold = done.err().contains("members' state is not known");
        assert_eq!(untold, profile == Profile::V1_8, "{profile}: {done}");
        let manifest = &done.json()["backups"][0]["manifest"];
        assert_eq!(manifest["member"].is_null(), untold, "who gave it is not known where it is not told: {done}");
        assert!(manifest["counts"]["live_keys"].as_u64().unwrap() > 10, "{done}");
        // The digest is compared with the trailer here, which Talos' own status says nothing of.
        let file = talos.job.dir().join("file.db");
        let saved = talos.etcd_as("etcd-backup", &["snapshot"]).arg(&file).run().ok();
        assert!(saved.err().contains("agrees") && saved.err().contains("structure sound"), "{saved}");
    }
}

#[test]
fn a_stream_that_is_cut_and_ends_ok_is_never_a_backup() {
    let Some(talos) = Talos::start(Options::default().control_planes(3)) else { return };
    talos.fill(9);
    let leader = talos.leader();
    let cut = |after| SnapshotFault::CutWithOk { after };
    let faults = [
        cut(0),
        cut(300_032),
        cut(40_960 + 32),
        SnapshotFault::DamagedByte { at: 12_345 },
        SnapshotFault::ErrorInData { after: 100_000, failure: Failure::new(4, "context deadline exceeded") },
        SnapshotFault::Disconnect { after: 200_000 },
        SnapshotFault::Fail { after: 100_000, failure: Failure::new(2, "etcdserver: no leader") },
    ];
    // Every member that would be tried first gives a bad stream: the leader, the last one, gives the backup.
    for fault in faults {
        for node in talos.double.control_planes().filter(|node| *node != leader) {
            talos.double.switch(node, |switches| switches.snapshot = Some(fault.clone()));
        }
        let done = talos.backup_cmd("etcd-backup").args(["-o", "json"]).run().ok();
        let report = done.json();
        assert_eq!(report["backups"][0]["manifest"]["member"]["name"], talos.double.hostname(leader), "{fault:?}: {done}");
        assert_eq!(done.err().matches("is given up").count(), 2, "{fault:?}: {done}");
    }
    // Where everybody's is bad there is no backup, and no file.
    let before = talos.job.list().len();
    talos.double.switch(leader, |switches| switches.snapshot = Some(cut(300_032)));
    for node in talos.double.control_planes() {
        talos.double.switch(node, |switches| switches.snapshot = Some(cut(300_032)));
    }
    let done = talos.backup_cmd("etcd-backup").run().exit(1);
    assert!(done.err().contains("300032 bytes") || done.err().contains("snapshot stream"), "{done}");
    assert_eq!(talos.job.list().len(), before, "nothing is listed that did not come whole");
    let file = talos.job.dir().join("cut.db");
    let saved = talos.job.lifeboat.cmd(["snapshot", "save"]).arg(&file).args(talos.flags("etcd-backup")).run().exit(1);
    assert!(
        !file.exists()
            && std::fs::read_dir(talos.job.dir()).unwrap().flatten().all(|entry| !entry.file_name().to_string_lossy().contains("cut")),
        "{saved}"
    );
}

#[test]
fn a_member_that_is_down_costs_nothing_and_one_that_is_named_is_taken() {
    let Some(talos) = Talos::start(Options::default().control_planes(3)) else { return };
    talos.fill(3);
    let leader = talos.leader();
    let followers: Vec<usize> = talos.double.control_planes().filter(|node| *node != leader).collect();
    talos.double.stop_etcd(followers[0]);
    let done = talos.backup_cmd("etcd-backup").args(["-o", "json"]).run().ok();
    assert_eq!(done.json()["backups"][0]["manifest"]["member"]["name"], talos.double.hostname(followers[1]), "{done}");
    assert!(done.err().contains("2 of 3 members answer"), "{done}");
    // The node of the talosconfig's context is where the looking begins, not all there is.
    talos.double.set_up(0, false);
    let done = talos.backup_cmd("admin").run();
    if followers[0] != 0 {
        drop(done);
    } else {
        drop(done.ok());
    }
    talos.double.set_up(0, true);
    let named = talos.backup_cmd("admin").args(["-n", &talos.ip(leader), "-o", "json"]).run().ok();
    assert_eq!(named.json()["backups"][0]["manifest"]["member"]["name"], talos.double.hostname(leader), "{named}");
    assert_eq!(named.json()["backups"][0]["manifest"]["versions"]["talos"], "v1.13.9", "an administrator is told: {named}");
    let gone = talos.backup_cmd("admin").args(["-n", &talos.ip(followers[0])]).run().exit(30);
    assert!(gone.err().contains(&talos.ip(followers[0])), "{gone}");
}
