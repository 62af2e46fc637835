//! What a node tells of itself as a machine: its start, its clock; and how it is started anew.

use std::time::{Duration, SystemTime};

use crate::common::{admin, block_on, client, kind, node, start};
use lifeboat_tests::EtcdVersion;
use talos_api::{ErrorKind, Node, TimeStatus};
use talos_double::Options;

/// How far a node's clock is ahead of ours, in seconds.
async fn ahead(node: &Node) -> f64 {
    let theirs = node.clock().await.unwrap();
    match theirs.duration_since(SystemTime::now()) {
        Ok(ahead) => ahead.as_secs_f64(),
        Err(behind) => -behind.duration().as_secs_f64(),
    }
}

#[test]
fn a_node_tells_its_clock_and_whether_it_is_in_sync() {
    let Some(double) = start(Options::default().not_bootstrapped(), EtcdVersion::V3_6) else { return };
    block_on(async {
        let first = admin(&double, 0);
        for seconds in [0, 7200, -7200] {
            double.switch(0, |switches| switches.clock_ahead = seconds);
            let ahead = ahead(&first).await;
            // Whole seconds on one side, and what the calls take on the other.
            assert!((ahead - seconds as f64).abs() < 10.0, "{seconds}: {ahead}");
        }
        assert_eq!(first.time_status().await.unwrap(), Some(TimeStatus { synced: true, sync_disabled: false }));
        double.switch(0, |switches| switches.time_unsynced = true);
        assert_eq!(first.time_status().await.unwrap(), Some(TimeStatus { synced: false, sync_disabled: false }));
        let refusal = first.bootstrap(false, false).await.unwrap_err();
        assert!(matches!(refusal.kind(), ErrorKind::NotReady(text) if text.contains("time is not in sync")), "{refusal}");
        double.switch(0, |switches| switches.time_unsynced = false);
        first.bootstrap(false, false).await.unwrap();
        double.wait_healthy(0);
    });
}

#[test]
fn a_reboot_shows_in_the_boot_id_and_is_for_operators() {
    let Some(double) = start(Options::default(), EtcdVersion::V3_6) else { return };
    block_on(async {
        let first = admin(&double, 0);
        let before = first.boot_id().await.unwrap();
        assert_eq!(before.len(), 36, "{before}");
        let reader = node(&double, &client(&double, "reader"), 0);
        assert!(matches!(kind(reader.reboot().await), ErrorKind::Denied { .. }));
        assert!(matches!(kind(reader.boot_id().await), ErrorKind::Denied { .. }));
        node(&double, &client(&double, "operator"), 0).reboot().await.unwrap();
        // It does not answer for a moment.
        while first.boot_id().await.is_ok_and(|now| now == before) || first.boot_id().await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        double.wait_healthy(0);
        assert!(ahead(&first).await.abs() < 10.0, "it was started just now, and its clock is right");
    });
}
