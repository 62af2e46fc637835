//! From a snapshot back to a cluster, through the calls a recovery makes, with the traps on the way.

use crate::common::{admin, block_on, fill, kind, reach, reset, snapshot, start, taken, upload, waiting, wipe};
use bytes::Bytes;
use lifeboat_tests::{EtcdVersion, dump_all};
use talos_api::{ErrorClass, ErrorKind};
use talos_double::{Options, Profile};

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
        let before = node.boot_id().await.unwrap();
        node.reset(wipe("EPHEMERAL")).await.unwrap();
        let answer = node.bootstrap(true, false).await;
        let refused = |error: &talos_api::Error| error.class() == ErrorClass::Unreachable || matches!(error.kind(), ErrorKind::NotReady(_));
        // Where this machine is slow, the node may have come back already.
        let well = match &answer {
            Ok(()) => node.boot_id().await.is_ok_and(|id| id != before),
            Err(error) => refused(error),
        };
        assert!(well, "{answer:?}");
    });
}
