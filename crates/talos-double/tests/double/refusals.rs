//! Roles, releases, workers, endpoints that are down: how the client is refused, and what it makes of it.

use crate::common::{admin, block_on, client, client_through, kind, node, select, start};
use etcd_api::SnapshotLimits;
use lifeboat_tests::EtcdVersion;
use talos_api::{Error, ErrorClass, ErrorKind, LinkFault, Node, Role, Selection};
use talos_double::{Failure, Options, Profile};

/// Whether a call was let through.
fn allowed<T>(outcome: Result<T, Error>) -> bool {
    match outcome {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.class(), ErrorClass::Denied, "{error}");
            assert!(matches!(error.kind(), ErrorKind::Denied { .. }), "{error}");
            false
        }
    }
}

/// Which of the reading calls a context may make: snapshot, status, alarms, members, defragment, version, config.
async fn rights(node: &Node) -> [bool; 7] {
    [
        allowed(node.etcd_snapshot(SnapshotLimits::default()).await),
        allowed(node.etcd_status().await),
        allowed(node.etcd_alarms().await),
        allowed(node.etcd_members(true).await),
        allowed(node.etcd_defragment(std::time::Duration::from_secs(60)).await),
        allowed(node.version().await),
        allowed(node.machine_config().await),
    ]
}

#[test]
fn each_role_may_what_talos_lets_it() {
    let (yes, no) = (true, false);
    for profile in Profile::ALL {
        let Some(double) = start(Options::default().profile(profile), EtcdVersion::V3_6) else { return };
        block_on(async {
            let wide = profile >= Profile::V1_10;
            for (context, expected) in [
                ("admin", [yes; 7]),
                ("operator", [yes, yes, yes, yes, yes, yes, no]),
                ("reader", [no, wide, wide, yes, no, yes, no]),
                ("etcd-backup", [yes, wide, wide, wide, no, no, no]),
            ] {
                assert_eq!(rights(&node(&double, &client(&double, context), 0)).await, expected, "{context} on Talos {profile}");
            }
            // Where a newer Talos would do, the error says so.
            let error = node(&double, &client(&double, "etcd-backup"), 0).etcd_status().await.err();
            let newer = error.map(|error| match error.kind() {
                ErrorKind::Denied { newer, .. } => newer.unwrap_or("never"),
                _ => "another error",
            });
            assert_eq!(newer, (!wide).then_some("1.9.6, 1.10.1 and 1.11"));
        });
    }
}

#[test]
fn two_roles_of_one_certificate_both_count() {
    let Some(double) = start(Options::default(), EtcdVersion::V3_6) else { return };
    let talosconfig = double.talosconfig_for(&["os:reader", "os:etcd:backup"], &[&double.node_ip(0).to_string()], &["cp-1"]);
    block_on(async {
        let client = select(&talosconfig, Selection::default());
        assert!(client.roles().has(&Role::Reader) && client.roles().has(&Role::EtcdBackup));
        assert_eq!(rights(&client.nodes()[0]).await, [true, true, true, true, false, true, false]);
    });
}

#[test]
fn what_a_release_does_not_know_is_told_from_what_it_denies() {
    let Some(double) = start(Options::default().workers(1), EtcdVersion::V3_6) else { return };
    double.switch(0, |switches| {
        switches.unimplemented.insert("EtcdStatus".to_owned());
        switches.denied.insert("EtcdAlarmList".to_owned());
        switches.fail.insert("Version".to_owned(), Failure::new(9, "not now"));
        switches.fail_first.insert("Hostname".to_owned(), (2, Failure::new(14, "starting")));
    });
    block_on(async {
        let (control, worker) = (admin(&double, 0), admin(&double, 1));
        let error = control.etcd_status().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Unimplemented(_)) && error.class() == ErrorClass::NotOffered, "{error}");
        assert!(matches!(kind(control.etcd_alarms().await), ErrorKind::Denied { newer: None, .. }));
        assert!(matches!(kind(control.version().await), ErrorKind::NotReady(text) if text == "not now"));
        for _ in 0..2 {
            assert!(matches!(kind(control.hostname().await), ErrorKind::Unavailable(_)));
        }
        assert_eq!(control.hostname().await.unwrap(), "cp-1");
        for outcome in [worker.etcd_status().await.map(drop), worker.etcd_members(true).await.map(drop), worker.etcd_leave().await] {
            assert!(matches!(kind(outcome), ErrorKind::NotControlPlane(_)));
        }
        assert!(matches!(kind(worker.etcd_snapshot(SnapshotLimits::default()).await), ErrorKind::NotControlPlane(_)));
    });
}

#[test]
fn a_worker_passes_nothing_on_and_another_endpoint_does() {
    let Some(double) = start(Options::default().workers(1), EtcdVersion::V3_6) else { return };
    let (control, worker) = (double.node_ip(0).to_string(), double.node_ip(1).to_string());
    block_on(async {
        let alone = client_through(&double, "admin", std::slice::from_ref(&worker));
        assert_eq!(kind(node(&double, &alone, 0).version().await), ErrorKind::NoForwarding);
        // About itself it answers, named or not.
        assert_eq!(node(&double, &alone, 1).hostname().await.unwrap(), "worker-1");
        assert_eq!(alone.at_endpoints()[0].hostname().await.unwrap(), "worker-1");
        let both = client_through(&double, "admin", &[worker.clone(), control.clone()]);
        assert_eq!(both.node(&talos_api::NodeName::parse("cp-1").unwrap()).hostname().await.unwrap(), "cp-1");
    });
}

#[test]
fn endpoints_that_are_down_are_passed_over_and_nodes_that_are_down_are_named() {
    let Some(double) = start(Options::default().control_planes(3), EtcdVersion::V3_6) else { return };
    block_on(async {
        let through_all = client(&double, "admin");
        assert_eq!(node(&double, &through_all, 0).hostname().await.unwrap(), "cp-1");
        double.set_up(0, false);
        // The connection that worked is gone with the node; a reading call goes elsewhere.
        assert_eq!(node(&double, &through_all, 1).hostname().await.unwrap(), "cp-2");
        let error = node(&double, &through_all, 0).hostname().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NodeUnreachable(_)), "{error}");
        assert_eq!(error.class(), ErrorClass::Unreachable);
        let error = client_through(&double, "admin", &[double.node_ip(0).to_string()]).at_endpoints()[0].hostname().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Link(_)), "{error}");
        double.set_up(0, true);
        assert_eq!(node(&double, &client(&double, "admin"), 0).hostname().await.unwrap(), "cp-1");

        for index in double.control_planes() {
            double.set_up(index, false);
        }
        let error = node(&double, &client(&double, "admin"), 0).hostname().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NoEndpoint(all) if all.len() == 3), "{error}");
    });
}

#[test]
fn certificates_that_will_not_do_are_said_to_be_so() {
    let Some(double) = start(Options::default(), EtcdVersion::V3_6) else { return };
    let Some(stranger) = start(Options::default(), EtcdVersion::V3_6) else { return };
    block_on(async {
        let expired = select(&double.expired_talosconfig(), Selection::default());
        let error = expired.at_endpoints()[0].hostname().await.unwrap_err();
        let fault = match error.kind() {
            ErrorKind::Link(fault) => fault.clone(),
            other => panic!("{other}"),
        };
        assert!(matches!(fault, LinkFault::TlsClientCertificate(_)), "{fault}");
        // Another cluster's talosconfig, pointed here.
        let selection = Selection { endpoints: vec![double.node_ip(0).to_string()], ..Selection::default() };
        let wrong = select(&stranger.talosconfig(), selection);
        let error = wrong.at_endpoints()[0].hostname().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Link(LinkFault::TlsCa(_))), "{error}");
    });
}
