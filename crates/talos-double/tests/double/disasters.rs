//! What can befall a node, and what is seen of it through Talos.

use crate::common::{admin, block_on, fill, kind, reach, start};
use bbolt::Database;
use etcd_store::DatabaseFile;
use lifeboat_tests::EtcdVersion;
use talos_api::{ErrorKind, Node};
use talos_double::{Options, TalosDouble};

/// Whether a node's database is sound, as far as its structure goes.
fn sound(double: &TalosDouble, node: usize) -> bool {
    let path = double.root(node).join("var/lib/etcd/member/snap/db");
    Database::open(DatabaseFile::open(path).unwrap()).is_ok_and(|database| database.check().is_ok())
}

/// Learners and voters, as one member knows them.
async fn roll(node: &Node) -> (usize, usize) {
    let members = node.etcd_members(true).await.unwrap();
    let learners = members.iter().filter(|member| member.is_learner).count();
    (learners, members.len() - learners)
}

#[test]
fn data_that_are_lost_leave_a_node_that_waits() {
    let Some(double) = start(Options::default(), EtcdVersion::V3_6) else { return };
    block_on(async {
        let node = admin(&double, 0);
        let before = node.boot_id().await.unwrap();
        double.wipe_data(0);
        assert_eq!(reach(&node, &["Preparing"]).await.state, "Preparing");
        assert_ne!(node.boot_id().await.unwrap(), before);
        assert!(matches!(kind(node.etcd_status().await), ErrorKind::EtcdSilent(_)));
        assert!(!double.root(0).join("var/lib/etcd").exists());
        node.bootstrap(false, false).await.unwrap();
        double.wait_healthy(0);
    });
}

#[test]
fn damaged_data_are_found_by_a_check() {
    let Some(double) = start(Options::default().control_planes(3), EtcdVersion::V3_6) else { return };
    block_on(async {
        fill(&double, 31).await;
        double.damage_data(1);
        let second = admin(&double, 1);
        assert_eq!(reach(&second, &["Failed"]).await.state, "Failed");
        assert!(matches!(kind(second.etcd_status().await), ErrorKind::EtcdSilent(_)));
        assert!(!sound(&double, 1));
        // The others go on, when they have chosen a leader if it was the one that fell; and a database of next to nothing can be damaged as well.
        let first = admin(&double, 0);
        while first.etcd_members(true).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        assert_eq!(roll(&first).await, (0, 3));
        let Some(empty) = start(Options::default(), EtcdVersion::V3_6) else { return };
        empty.damage_data(0);
        assert!(!sound(&empty, 0));
    });
}

#[test]
fn a_bad_restore_is_a_service_that_failed_and_a_database_alone() {
    let Some(double) = start(Options::default().control_planes(1), EtcdVersion::V3_6) else { return };
    let Some(waiting) = start(Options::default().not_bootstrapped(), EtcdVersion::V3_6) else { return };
    block_on(async {
        for (double, size) in [(&double, 16 << 10), (&waiting, 0)] {
            double.leave_bad_restore(0);
            let node = admin(double, 0);
            let service = reach(&node, &["Failed"]).await;
            let why = &service.events.last().unwrap().message;
            assert!(why.contains("error recovering from the snapshot: expected sha256"), "{why}");
            let left = node.list("/var/lib/etcd", 3).await.unwrap();
            let files: Vec<&str> = left.iter().filter(|entry| !entry.is_directory).map(|entry| entry.name.as_str()).collect();
            assert_eq!(files, ["member/snap/db"]);
            assert!(left.iter().any(|entry| entry.name == "member/snap/db" && entry.size >= size), "{left:?}");
            assert!(matches!(kind(node.bootstrap(true, false).await), ErrorKind::AlreadyExists(_)));
        }
        assert!(sound(&double, 0), "it is what was uploaded");
    });
}

#[test]
fn a_learner_is_promoted_only_when_the_switch_is_taken_off() {
    let Some(double) = start(Options::default().control_planes(2).not_bootstrapped(), EtcdVersion::V3_6) else { return };
    double.switch(1, |switches| switches.never_promote = true);
    block_on(async {
        let first = admin(&double, 0);
        first.bootstrap(false, false).await.unwrap();
        reach(&admin(&double, 1), &["Running"]).await;
        // Ample time for a learner of nothing.
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        assert_eq!(roll(&first).await, (1, 1));
        double.switch(1, |switches| switches.never_promote = false);
        while roll(&first).await != (0, 2) {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        double.wait_healthy(1);
    });
}
