//! Reboots that strike while a recovery is under way, and resets that do less than they say.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::{admin, block_on, kind, reach, reborn, reset, snapshot, start, taken, upload, waiting, wipe};
use etcd_api::PutRequest;
use lifeboat_tests::EtcdVersion;
use talos_api::{ErrorClass, ErrorKind, MachineStage};
use talos_double::Options;

/// Whether a restore into this directory is at work.
fn restoring(data: &Path) -> bool {
    let wanted = format!("--data-dir={}", data.display());
    let arguments = |pid: &std::fs::DirEntry| std::fs::read(pid.path().join("cmdline")).unwrap_or_default();
    std::fs::read_dir("/proc").unwrap().flatten().any(|pid| {
        let arguments = arguments(&pid);
        let mut words = arguments.split(|&byte| byte == 0);
        words.clone().any(|word| word == b"restore") && words.any(|word| word == wanted.as_bytes())
    })
}

#[test]
fn a_reboot_after_bootstrap_loses_the_order_so_many_times() {
    let (Some(file), Some(double)) = (taken(), waiting()) else { return };
    double.switch(0, |switches| {
        switches.reboot_after_bootstrap = Some((2, Duration::from_secs(2)));
        switches.restore_takes = Duration::from_secs(3600);
    });
    block_on(async {
        let node = admin(&double, 0);
        for _ in 0..2 {
            upload(&node, &file).await.unwrap();
            let before = node.boot_id().await.unwrap();
            node.bootstrap(true, false).await.unwrap();
            reborn(&node, &before).await;
            // The order is forgotten, what was uploaded is not, and nothing is in the way of the next try.
            assert_eq!(reach(&node, &["Preparing"]).await.state, "Preparing");
            assert_eq!(std::fs::read(double.root(0).join("var/lib/etcd.snapshot")).unwrap(), file);
            assert!(!double.root(0).join("var/lib/etcd/member").exists());
        }
        double.switch(0, |switches| switches.restore_takes = Duration::from_secs(1));
        let began = Instant::now();
        let before = node.boot_id().await.unwrap();
        node.bootstrap(true, false).await.unwrap();
        double.wait_healthy(0);
        assert!(began.elapsed() >= Duration::from_secs(1), "the restore takes so long");
        assert_eq!(node.boot_id().await.unwrap(), before, "the third time it stays up");
        assert!(node.etcd_status().await.unwrap().db_size > 100_000);
        assert!(!double.root(0).join("var/lib/etcd.snapshot").exists());
    });
}

#[test]
fn a_reboot_kills_a_restore_and_what_it_wrote_is_what_etcd_starts_from() {
    let (Some(source), Some(double)) = (start(Options::default(), EtcdVersion::V3_6), waiting()) else { return };
    block_on(async {
        // Large enough that the tool is at work for a while.
        let direct = source.etcd_client(0).await.unwrap();
        for number in 0..60 {
            direct.put(PutRequest::new(format!("/big/{number}"), vec![7_u8; 1_000_000])).await.unwrap();
        }
        let file = snapshot(&admin(&source, 0)).await.unwrap();
        let node = admin(&double, 0);
        upload(&node, &file).await.unwrap();
        node.bootstrap(true, false).await.unwrap();
        let data = double.root(0).join("var/lib/etcd");
        let deadline = Instant::now() + Duration::from_secs(60);
        while !data.join("member/snap/db").exists() {
            assert!(Instant::now() < deadline, "the tool writes nothing");
            std::thread::sleep(Duration::from_millis(1));
        }
        double.reboot(0);
        assert!(!restoring(&data), "the tool went with the node");
        assert!(double.root(0).join("var/lib/etcd.snapshot").exists(), "it did not come to its end");
        let service = reach(&node, &["Running", "Failed"]).await;
        assert!(service.events.iter().all(|event| !event.message.contains("snapshot")), "no restore is tried again: {service:?}");
        assert!(matches!(kind(node.bootstrap(true, false).await), ErrorKind::AlreadyExists(_)), "what it wrote is in the way");
        reset(&node, wipe("EPHEMERAL")).await;
        upload(&node, &file).await.unwrap();
        node.bootstrap(true, false).await.unwrap();
        double.wait_healthy(0);
        assert!(node.etcd_status().await.unwrap().db_size > 50_000_000);
    });
}

#[test]
fn a_reset_that_is_ignored_reboots_and_wipes_nothing() {
    let Some(double) = start(Options::default(), EtcdVersion::V3_6) else { return };
    double.switch(0, |switches| switches.ignore_reset = 1);
    let data = double.root(0).join("var/lib/etcd/member");
    block_on(async {
        let node = admin(&double, 0);
        reset(&node, wipe("EPHEMERAL")).await;
        assert!(data.exists());
        double.wait_healthy(0);
        reset(&node, wipe("EPHEMERAL")).await;
        assert!(!data.exists(), "the second one is carried out");
    });
}

#[test]
fn a_machine_is_resetting_then_booting_until_its_etcd_is_up() {
    let Some(double) = start(Options::default(), EtcdVersion::V3_6) else { return };
    block_on(async {
        let node = admin(&double, 0);
        let before = node.boot_id().await.unwrap();
        assert_eq!(node.machine_status().await.unwrap().unwrap().stage, MachineStage::Running);
        node.reset(wipe("EPHEMERAL")).await.unwrap();
        let status = node.machine_status().await;
        let down = status.as_ref().is_err_and(|error| error.class() == ErrorClass::Unreachable);
        let resetting = status.as_ref().is_ok_and(|status| status.as_ref().unwrap().stage == MachineStage::Resetting);
        // Where this machine is slow, the node may have come back already.
        assert!(down || resetting || node.boot_id().await.is_ok_and(|id| id != before), "{status:?}");
        reborn(&node, &before).await;
        let status = node.machine_status().await.unwrap().unwrap();
        assert_eq!((status.stage, status.ready), (MachineStage::Booting, false));
        node.bootstrap(false, false).await.unwrap();
        double.wait_healthy(0);
        assert_eq!(node.machine_status().await.unwrap().unwrap().stage, MachineStage::Running);
    });
}
