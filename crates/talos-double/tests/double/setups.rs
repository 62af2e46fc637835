//! Clusters that are set up in ways a recovery must look out for.

use crate::common::{admin, block_on, reach, reset, start, taken, upload, wipe};
use lifeboat_tests::EtcdVersion;
use talos_api::{ErrorClass, ErrorKind, MachineType};
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
