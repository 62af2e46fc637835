//! From a snapshot back to a cluster, through the calls a recovery makes, with the traps on the way.

use std::time::Duration;

use crate::common::{admin, block_on, fill, kind, snapshot, start, upload};
use bytes::Bytes;
use lifeboat_tests::{EtcdVersion, dump_all};
use talos_api::{Error, ErrorClass, ErrorKind, Node, ResetRequest, Service};
use talos_double::{Options, Profile, TalosDouble};

/// How a reset before a recovery is asked for.
fn wipe(label: &str) -> ResetRequest {
    ResetRequest { graceful: false, reboot: true, wipe: vec![label.to_owned()] }
}

/// The state of a node's etcd once it is one of these.
async fn reach(node: &Node, states: &[&str]) -> Service {
    loop {
        // A node that restarts does not answer meanwhile.
        if let Ok(Some(service)) = node.service("etcd").await
            && states.contains(&service.state.as_str())
        {
            return service;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Resets a node and waits until it has come back with another boot id.
async fn reset(node: &Node, request: ResetRequest) {
    let before = boot_id(node).await.unwrap();
    assert!(!node.reset(request).await.unwrap().is_empty());
    loop {
        if let Ok(id) = boot_id(node).await
            && id != before
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn boot_id(node: &Node) -> Result<Vec<u8>, Error> {
    node.read("/proc/sys/kernel/random/boot_id").await?.collect(100).await
}

#[test]
fn a_lost_cluster_comes_back_from_its_snapshot() {
    for (etcd, profile) in [(EtcdVersion::V3_5, Profile::V1_8), (EtcdVersion::V3_6, Profile::V1_14)] {
        let partition = profile == Profile::V1_14;
        let options = Options::default().control_planes(3).profile(profile);
        let Some(double) = start(if partition { options.etcd_partition() } else { options }, etcd) else { continue };
        block_on(async {
            fill(&double, 23).await;
            let before = dump_all(&double.etcd_client(0).await.unwrap()).await;
            let file = snapshot(&admin(&double, 1)).await.unwrap();
            drop(double.etcdctl(0, ["del", "", "--prefix"]));
            // Lost: as long as any of them has quorum, nodes that are wiped join it again.
            for index in double.control_planes() {
                double.stop_etcd(index);
            }
            if partition {
                reset(&admin(&double, 0), wipe("EPHEMERAL")).await;
                assert!(double.root(0).join("var/lib/etcd/member").exists(), "a partition of its own is not wiped with the other");
            }
            for index in double.control_planes() {
                reset(&admin(&double, index), wipe(if partition { "ETCD" } else { "EPHEMERAL" })).await;
            }
            for index in double.control_planes() {
                assert_eq!(reach(&admin(&double, index), &["Preparing"]).await.state, "Preparing");
                assert!(!double.root(index).join("var/lib/etcd/member").exists());
            }
            let first = admin(&double, 0);
            upload(&first, &file).await.unwrap();
            first.bootstrap(true, false).await.unwrap();
            for index in double.control_planes() {
                double.wait_healthy(index);
            }
            let members = first.etcd_members(true).await.unwrap();
            assert_eq!(members.len(), 3);
            for index in double.control_planes() {
                let client = double.etcd_client(index).await.unwrap();
                client.linearizable_read().await.unwrap();
                dump_all(&client).await.assert_same_live(&before);
            }
            assert!(matches!(kind(first.bootstrap(true, false).await), ErrorKind::AlreadyExists(_)));
        });
    }
}

fn waiting() -> Option<TalosDouble> {
    start(Options::default().not_bootstrapped(), EtcdVersion::V3_6)
}

#[test]
fn a_new_cluster_is_bootstrapped() {
    let Some(double) = waiting() else { return };
    block_on(async {
        let node = admin(&double, 0);
        assert_eq!(reach(&node, &["Preparing"]).await.state, "Preparing");
        assert!(matches!(kind(node.etcd_status().await), ErrorKind::EtcdSilent(_)));
        node.bootstrap(false, false).await.unwrap();
        reach(&node, &["Running"]).await;
        double.wait_healthy(0);
        assert_eq!(node.etcd_members(true).await.unwrap().len(), 1);
    });
}

/// A snapshot of some other cluster.
fn taken() -> Option<Vec<u8>> {
    let double = start(Options::default(), EtcdVersion::V3_6)?;
    Some(block_on(async {
        fill(&double, 29).await;
        snapshot(&admin(&double, 0)).await.unwrap()
    }))
}

#[test]
fn a_damaged_upload_shows_in_the_service_alone_and_blocks_the_next_try() {
    let (Some(mut file), Some(double)) = (taken(), waiting()) else { return };
    let last = file.len() - 1;
    file[last] ^= 1;
    block_on(async {
        let node = admin(&double, 0);
        upload(&node, &file).await.unwrap();
        node.bootstrap(true, false).await.unwrap();
        let service = reach(&node, &["Failed"]).await;
        let why = &service.events.last().unwrap().message;
        assert!(why.contains("error recovering from the snapshot"), "{why}");
        assert!(matches!(kind(node.bootstrap(true, false).await), ErrorKind::AlreadyExists(_)), "what the tool left stays");

        // Wiped, and without the check of the digest, which is all that was wrong.
        reset(&node, wipe("EPHEMERAL")).await;
        upload(&node, &file).await.unwrap();
        node.bootstrap(true, true).await.unwrap();
        double.wait_healthy(0);
        assert!(node.etcd_status().await.unwrap().db_size > 100_000);
    });
}

#[test]
fn an_upload_that_is_given_up_leaves_nothing() {
    let Some(double) = waiting() else { return };
    let place = double.root(0).join("var/lib/etcd.snapshot");
    block_on(async {
        let node = admin(&double, 0);
        let mut upload = node.etcd_recover().await.unwrap();
        upload.send(Bytes::from(vec![0; 3 << 20])).await.unwrap();
        double.wait_until("the upload to begin", |_| place.exists());
        drop(upload);
        double.wait_until("the upload to be thrown away", |_| !place.exists());
        node.bootstrap(true, false).await.unwrap();
        let service = reach(&node, &["Failed"]).await;
        assert!(service.events.last().unwrap().message.contains("error verifying snapshot"), "{service:?}");
    });
}

#[test]
fn an_intent_to_recover_that_is_forgotten_can_be_said_again() {
    let (Some(file), Some(double)) = (taken(), waiting()) else { return };
    double.switch(0, |switches| switches.forget_bootstrap = true);
    block_on(async {
        let node = admin(&double, 0);
        upload(&node, &file).await.unwrap();
        node.bootstrap(true, false).await.unwrap();
        double.reboot(0);
        assert_eq!(reach(&node, &["Preparing", "Running"]).await.state, "Preparing", "the answer was OK, and nothing happens");
        double.switch(0, |switches| switches.forget_bootstrap = false);
        upload(&node, &file).await.unwrap();
        node.bootstrap(true, false).await.unwrap();
        double.wait_healthy(0);
        assert!(node.etcd_status().await.unwrap().db_size > 100_000);
    });
}

#[test]
fn a_node_that_is_not_ready_for_a_recovery_says_so() {
    let Some(double) = waiting() else { return };
    let place = double.root(0).join("var/lib");
    block_on(async {
        let node = admin(&double, 0);
        std::fs::rename(&place, double.root(0).join("aside")).unwrap();
        assert!(matches!(kind(upload(&node, &[0; 4096]).await), ErrorKind::NotReady(_)));
        std::fs::rename(double.root(0).join("aside"), &place).unwrap();
        upload(&node, &[0; 4096]).await.unwrap();
        // A node that is being reset takes no bootstrap, until it goes down and answers nothing.
        node.reset(wipe("EPHEMERAL")).await.unwrap();
        let refusal = node.bootstrap(true, false).await.unwrap_err();
        let down = refusal.class() == ErrorClass::Unreachable;
        assert!(down || matches!(refusal.kind(), ErrorKind::NotReady(_)), "{refusal}");
    });
}
