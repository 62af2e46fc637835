//! Clusters that are set up in ways a recovery must look out for.

use std::collections::BTreeSet;

use crate::common::{admin, block_on, client_through, kind, node, reach, reset, select, start, taken, upload, wipe};
use lifeboat_tests::EtcdVersion;
use talos_api::{ErrorClass, ErrorKind, MachineType, Selection};
use talos_double::{Options, Profile};

#[test]
fn several_advertised_addresses_stop_a_restore_on_an_old_talos_alone() {
    let Some(file) = taken() else { return };
    for (profile, restores) in [(Profile::V1_8, false), (Profile::V1_10, true)] {
        let options = Options::default().not_bootstrapped().advertised(2).profile(profile);
        let Some(double) = start(options, EtcdVersion::V3_6) else { return };
        block_on(async {
            let node = admin(&double, 0);
            let spec = node.etcd_spec().await.unwrap().unwrap();
            assert_eq!(spec.advertised_addresses.len(), 2);
            assert_eq!(spec.advertised_addresses[0], std::net::IpAddr::from(double.node_ip(0)));
            upload(&node, &file).await.unwrap();
            node.bootstrap(true, false).await.unwrap();
            let service = reach(&node, &["Running", "Failed"]).await;
            let why = &service.events.last().unwrap().message;
            if restores {
                double.wait_healthy(0);
            } else {
                let known = "error recovering from the snapshot: URL scheme must be http, https, unix, or unixs";
                assert!(service.state == "Failed" && why.contains(known), "{service:?}");
            }
        });
    }
}

#[test]
fn volumes_and_mounts_have_the_sizes_that_were_asked_for() {
    let options = Options::default().not_bootstrapped().profile(Profile::V1_14).etcd_partition();
    let Some(double) = start(options.ephemeral_size(3 << 30).etcd_size(1 << 30), EtcdVersion::V3_6) else { return };
    block_on(async {
        let node = admin(&double, 0);
        assert_eq!(node.volume("EPHEMERAL").await.unwrap().unwrap().size, 3 << 30);
        assert_eq!(node.volume("ETCD").await.unwrap().unwrap().size, 1 << 30);
        let var = node.mounts().await.unwrap().remove(0);
        assert!(var.size == 3 << 30 && var.available <= var.size, "{var:?}");
        double.switch(0, |switches| switches.available = Some(12_345));
        assert_eq!(node.mounts().await.unwrap()[0].available, 12_345);
    });
}

#[test]
fn a_container_is_only_shut_down_by_a_reset() {
    let Some(double) = start(Options::default().platform_mode("container"), EtcdVersion::V3_6) else { return };
    block_on(async {
        let node = admin(&double, 0);
        assert_eq!(node.version().await.unwrap().mode, "container");
        let refusal = node.reboot().await.unwrap_err();
        assert!(matches!(refusal.kind(), ErrorKind::NotReady(text) if text.contains("container mode")), "{refusal}");
        node.reset(wipe("EPHEMERAL")).await.unwrap();
        while !node.version().await.is_err_and(|error| error.class() == ErrorClass::Unreachable) {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        assert!(double.root(0).join("var/lib/etcd/member").exists());
        // Started again from outside, it is what it was.
        double.reboot(0);
        double.wait_healthy(0);
    });
}

#[test]
fn an_init_node_bootstraps_itself_whenever_it_is_empty() {
    let options = Options::default().control_planes(2).not_bootstrapped().init_node();
    let Some(double) = start(options, EtcdVersion::V3_6) else { return };
    block_on(async {
        let (first, second) = (admin(&double, 0), admin(&double, 1));
        assert_eq!(first.machine_type().await.unwrap(), MachineType::Init);
        assert_eq!(second.machine_type().await.unwrap(), MachineType::ControlPlane);
        assert_eq!(first.cluster_members().await.unwrap()[0].machine_type, MachineType::Init);
        double.wait_healthy(0);
        double.wait_healthy(1);
        double.set_up(1, false);
        double.stop_etcd(1);
        reset(&first, wipe("EPHEMERAL")).await;
        double.wait_healthy(0);
        assert_eq!(first.etcd_members(true).await.unwrap().len(), 1, "a new cluster, which nobody asked for");
    });
}

#[test]
fn a_load_balancer_leads_to_each_control_plane_node_in_turn() {
    let options = Options::default().control_planes(3).workers(1).not_bootstrapped().load_balancer();
    let Some(double) = start(options, EtcdVersion::V3_6) else { return };
    let balancer = double.load_balancer().to_string();
    assert!((0..double.nodes()).all(|node| double.node_ip(node) != double.load_balancer()));
    block_on(async {
        // Without a node named, whoever is behind the connection answers; each client makes one of its own.
        let talosconfig = double.talosconfig_for(&["os:admin"], &[&balancer], &[]);
        let mut seen = Vec::new();
        for _ in 0..6 {
            seen.push(select(&talosconfig, Selection::default()).at_endpoints()[0].hostname().await.unwrap());
        }
        assert_eq!(seen[..3], seen[3..]);
        assert_eq!(seen.iter().map(String::as_str).collect::<BTreeSet<_>>(), ["cp-1", "cp-2", "cp-3"].into());
        // A node that is named is reached through whichever.
        let through = client_through(&double, "admin", std::slice::from_ref(&balancer));
        assert_eq!(node(&double, &through, 3).hostname().await.unwrap(), "worker-1");
        for index in [0, 1] {
            double.set_up(index, false);
        }
        for _ in 0..3 {
            let next = select(&talosconfig, Selection::default());
            assert_eq!(next.at_endpoints()[0].hostname().await.unwrap(), "cp-3", "what is down is passed over");
        }
        double.set_up(2, false);
        let nobody = select(&talosconfig, Selection::default()).at_endpoints()[0].hostname().await;
        assert!(matches!(kind(nobody), ErrorKind::Link(_)));
    });
}
