//! Every call of the client that changes nothing, against real etcd, compared with what etcd itself says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::{admin, block_on, client, drain, fill, kind, node, snapshot, start};
use etcd_api::{KeyRange, SnapshotLimits};
use etcd_store::id::MemberId;
use lifeboat_tests::EtcdVersion;
use lifeboat_tests::matrix::each;
use talos_api::{ErrorKind, MachineStage, MachineType, NodeName, ServiceHealth, VolumeType, vip};
use talos_double::{Options, Profile};

/// The etcd versions that Talos ships, each with a release of Talos.
const SHIPPED: [(EtcdVersion, Profile); 3] =
    [(EtcdVersion::V3_5, Profile::V1_10), (EtcdVersion::V3_6, Profile::V1_13), (EtcdVersion::V3_7, Profile::V1_14)];

fn profile(etcd: EtcdVersion) -> Profile {
    SHIPPED.into_iter().find(|(version, _)| *version == etcd).unwrap().1
}

#[test]
fn status_members_alarms_and_snapshot_are_what_etcd_says() {
    each("talos reads", &SHIPPED.map(|(version, _)| version), |etcd| {
        let Some(double) = start(Options::default().control_planes(3).profile(profile(etcd)), etcd) else { return };
        block_on(async {
            fill(&double, 7).await;
            let mut ids = Vec::new();
            for index in double.control_planes() {
                let (talos, direct) = (admin(&double, index), double.etcd_client(index).await.unwrap());
                // Both at one revision: nobody writes any more, but followers may lag.
                direct.linearizable_read().await.unwrap();
                let (ours, theirs) = (talos.etcd_status().await.unwrap(), direct.status().await.unwrap());
                assert_eq!(ours.member_id, theirs.header.member_id);
                assert_eq!((ours.version.as_str(), ours.leader), (theirs.version.as_str(), theirs.leader));
                assert_eq!((ours.raft_term, ours.is_learner, &ours.errors), (theirs.raft_term, false, &theirs.errors));
                assert!(ours.db_size >= ours.db_size_in_use && ours.db_size_in_use > 100_000, "{ours:?}");
                assert!(ours.raft_applied_index > 300 && ours.raft_index >= ours.raft_applied_index, "{ours:?}");
                let storage = (profile(etcd) >= Profile::V1_13).then(|| format!("{etcd}.0"));
                // A new cluster begins with the storage version before its own.
                let mut told = ours.storage_version.clone();
                while told != storage {
                    assert!(told.is_some_and(|told| told.starts_with("3.")));
                    told = talos.etcd_status().await.unwrap().storage_version;
                }
                let mut members = talos.etcd_members(true).await.unwrap();
                members.sort_by_key(|member| member.id.0);
                let mut direct_members = direct.members(true).await.unwrap().members;
                direct_members.sort_by_key(|member| member.id.0);
                assert_eq!(members, direct_members);
                assert!(members.iter().any(|member| member.id == ours.member_id && member.name == double.hostname(index)));
                assert_eq!(talos.etcd_members(false).await.unwrap().len(), 3);
                assert_eq!(talos.etcd_alarms().await.unwrap(), []);
                assert_eq!(talos.etcd_member_id().await.unwrap(), Some(ours.member_id));
                ids.push(ours.member_id);
            }
            ids.sort_by_key(|id: &MemberId| id.0);
            ids.dedup();
            assert_eq!(ids.len(), 3, "each node has its own member");

            let file = snapshot(&admin(&double, 1)).await.unwrap();
            let path = double.root(1).join("taken.snapshot");
            std::fs::write(&path, &file).unwrap();
            let told = lifeboat_tests::etcd::etcdutl(etcd, ["snapshot", "status", "-w", "json"]).arg(&path).run().ok().json();
            let revision = double.etcd_client(1).await.unwrap().status().await.unwrap().header.revision.0;
            assert_eq!(told["revision"].as_i64(), Some(revision));
            assert_eq!(told["totalSize"].as_u64(), Some(file.len() as u64 - 32));
        });
        assert_eq!(double.count("EtcdSnapshot"), 1);
    });
}

#[test]
fn machine_and_resources_are_read() {
    let options = Options::default().workers(1).quota(64 << 20).virtual_ip();
    let Some(double) = start(options, EtcdVersion::V3_6) else { return };
    double.switch(0, |switches| switches.diagnostics.push(("no-disk".to_owned(), "the disk is nearly full".to_owned())));
    block_on(async {
        let (control, worker) = (admin(&double, 0), admin(&double, 1));
        let version = control.version().await.unwrap();
        assert_eq!((version.tag.as_str(), version.minor(), version.mode.as_str()), ("v1.13.9", Some((1, 13)), "metal"));
        assert_eq!(control.hostname().await.unwrap(), "cp-1");
        assert_eq!(control.memory().await.unwrap().total, 4 << 30);
        let mounts = control.mounts().await.unwrap();
        assert!(mounts[0].mounted_on == "/var" && mounts[0].size >= mounts[0].available && mounts[0].available > 0, "{mounts:?}");

        let etcd = control.service("etcd").await.unwrap().unwrap();
        assert!(etcd.is_well() && etcd.events.iter().any(|event| event.state == "Running" && event.at.is_some()), "{etcd:?}");
        assert_eq!(worker.service("etcd").await.unwrap(), None);
        assert_eq!(control.machine_type().await.unwrap(), MachineType::ControlPlane);
        assert_eq!(worker.machine_type().await.unwrap(), MachineType::Worker);
        assert_eq!(worker.etcd_spec().await.unwrap(), None);
        let spec = control.etcd_spec().await.unwrap().unwrap();
        assert_eq!((spec.name.as_str(), spec.quota(), spec.advertised_addresses.len()), ("cp-1", Some(64 << 20), 1));
        assert!(spec.image.ends_with(EtcdVersion::V3_6.full()), "{}", spec.image);
        let config = String::from_utf8(control.machine_config().await.unwrap().0.to_vec()).unwrap();
        assert!(config.contains("type: controlplane") && config.contains("kind: HostnameConfig"), "every document");

        let members = control.cluster_members().await.unwrap();
        let seen: Vec<_> = members.iter().map(|member| (member.hostname.as_str(), member.machine_type.has_etcd())).collect();
        assert_eq!(seen, [("cp-1", true), ("worker-1", false)]);
        assert_eq!(members[0].addresses, [std::net::IpAddr::from(double.node_ip(0))]);
        let volume = control.volume("ETCD").await.unwrap().unwrap();
        assert_eq!((volume.kind, volume.parent.as_deref()), (VolumeType::Directory, Some("EPHEMERAL")));
        assert_eq!(control.volume("NONE").await.unwrap(), None);
        assert!(control.volumes().await.unwrap().iter().any(|volume| volume.id == "STATE" && volume.size > 0));
        let status = control.machine_status().await.unwrap().unwrap();
        assert_eq!((status.stage, status.ready), (MachineStage::Running, true));
        assert_eq!(control.diagnostics().await.unwrap()[0].message, "the disk is nearly full");

        let own = control.addresses().await.unwrap();
        let found = vip::suspects(&control.client().endpoints(), &[("cp-1", &own)]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].endpoint.host(), double.virtual_ip().unwrap().to_string());
    });
}

#[test]
fn logs_and_files_are_read() {
    let Some(double) = start(Options::default(), EtcdVersion::V3_6) else { return };
    block_on(async {
        let control = admin(&double, 0);
        let all = control.logs("etcd", None, false).await.unwrap().collect(64 << 20).await.unwrap();
        let text = String::from_utf8(all).unwrap();
        assert!(text.lines().count() > 10 && text.contains("ready to serve client requests"), "{text}");
        let tail = control.logs("etcd", Some(2), false).await.unwrap().collect(64 << 20).await.unwrap();
        assert_eq!(String::from_utf8(tail).unwrap().lines().count(), 2);
        assert!(matches!(kind(control.logs("nothing", None, false).await), ErrorKind::Rpc { .. }));

        // Again and again: the first may be over before anybody follows.
        let seen_it = Arc::new(AtomicBool::new(false));
        let (noise, enough) = (double.etcdctl_cmd(0, ["defrag"]), Arc::clone(&seen_it));
        let defragmenting = std::thread::spawn(move || {
            while !enough.load(Ordering::Relaxed) {
                drop(noise.clone().run().ok());
            }
        });
        let mut following = control.logs("etcd", Some(0), true).await.unwrap();
        let mut seen = String::new();
        while !seen.contains("finished defragment") {
            seen.push_str(&String::from_utf8_lossy(&following.next().await.unwrap().unwrap()));
        }

        seen_it.store(true, Ordering::Relaxed);
        defragmenting.join().unwrap();

        let id = control.read("/proc/sys/kernel/random/boot_id").await.unwrap().collect(100).await.unwrap();
        assert_eq!(id.len(), 37, "{id:?}");
        assert!(matches!(kind(control.read("/nothing").await), ErrorKind::NotFound(_)));
        assert!(matches!(kind(control.read("/var/lib").await), ErrorKind::Rpc { .. }));
        let entries = control.list("/var/lib/etcd", 3).await.unwrap();
        assert!(entries.iter().any(|entry| entry.name == "member/snap/db" && entry.size > 0 && !entry.is_directory), "{entries:?}");
        assert_eq!(control.list("/var/lib/etcd", 1).await.unwrap().len(), 1);
        assert!(matches!(kind(control.list("/var/lib/none", 1).await), ErrorKind::Rpc { .. } | ErrorKind::NotFound(_)));
        double.reboot(0);
        let other = control.read("/proc/sys/kernel/random/boot_id").await.unwrap().collect(100).await.unwrap();
        assert_ne!(id, other, "a reboot shows");
    });
}

#[test]
fn an_etcd_that_is_down_silent_or_without_a_leader_is_told_apart() {
    let Some(double) = start(Options::default().control_planes(3), EtcdVersion::V3_6) else { return };
    block_on(async {
        let first = admin(&double, 0);
        double.stop_etcd(0);
        assert!(matches!(kind(first.etcd_status().await), ErrorKind::EtcdSilent(_)));
        assert!(matches!(kind(first.etcd_members(true).await), ErrorKind::EtcdSilent(_)));
        assert!(matches!(kind(first.etcd_snapshot(SnapshotLimits::default()).await), ErrorKind::EtcdSilent(_)));
        // As soon as another one leads, where that was the leader.
        let mut members = first.etcd_members(false).await;
        while members.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            members = first.etcd_members(false).await;
        }
        assert_eq!(members.unwrap().len(), 3, "any other member answers");
        assert_eq!(first.etcd_member_id().await.unwrap(), None);
        let service = first.service("etcd").await.unwrap().unwrap();
        assert_eq!((service.state.as_str(), service.health), ("Finished", ServiceHealth::Unknown));

        // A second one lost: the third has no leader any more.
        double.stop_etcd(1);
        let third = admin(&double, 2);
        let mut status = third.etcd_status().await.unwrap();
        while status.leader.is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            status = third.etcd_status().await.unwrap();
        }
        let leaderless = ErrorKind::Etcd(etcd_api::ErrorKind::NoLeader);
        assert_eq!(kind(third.etcd_members(true).await), leaderless);
        assert_eq!(kind(first.etcd_members(false).await), leaderless);
        // A snapshot needs no quorum.
        drain(third.etcd_snapshot(SnapshotLimits::default()).await.unwrap()).await.unwrap();

        // Frozen: only our own limit ends the call.
        double.pause_etcd(2);
        let limit = std::time::Duration::from_secs(3);
        let options = talos_api::Options { request_timeout: limit, ..talos_api::Options::default() };
        let access = talos_api::Talosconfig::read(&double.talosconfig()).unwrap().select(&talos_api::Selection::default()).unwrap();
        let hurried = talos_api::Client::new(&access, options).node(third.name().unwrap());
        assert_eq!(kind(hurried.etcd_status().await), ErrorKind::Timeout(limit));
        let service = third.service("etcd").await.unwrap().unwrap();
        assert_eq!(service.health, ServiceHealth::Unhealthy);
        double.resume_etcd(2);
        double.start_etcd(0);
        double.wait_healthy(0);
        assert_eq!(first.etcd_members(true).await.unwrap().len(), 3);
    });
}

#[test]
fn the_least_role_is_enough_for_a_backup_in_the_cluster() {
    // A service account's talosconfig: one endpoint, no node, `os:etcd:backup`.
    let Some(double) = start(Options::default(), EtcdVersion::V3_6) else { return };
    let talosconfig = double.talosconfig_for(&["os:etcd:backup"], &[&double.node_ip(0).to_string()], &[]);
    block_on(async {
        fill(&double, 3).await;
        let client = crate::common::select(&talosconfig, talos_api::Selection::default());
        assert!(client.nodes().is_empty());
        let nodes = client.at_endpoints();
        assert!(nodes.len() == 1 && nodes[0].is_pinned());
        let file = snapshot(&nodes[0]).await.unwrap();
        assert_eq!(file.len() % 512, 32);
        assert!(nodes[0].etcd_status().await.unwrap().db_size > 100_000, "a hint of the size");
        let keys = double.etcd_client(0).await.unwrap().range(etcd_api::RangeRequest::new(KeyRange::all())).await.unwrap();
        assert!(keys.kvs.len() > 100);
    });
    let calls = double.calls();
    assert!(calls.iter().all(|call| call.node_metadata.is_empty() && call.nodes_metadata.is_empty() && call.roles == ["os:etcd:backup"]));
}

#[test]
fn every_call_names_one_node_and_never_many() {
    let Some(double) = start(Options::default().workers(1), EtcdVersion::V3_6) else { return };
    block_on(async {
        let admin = client(&double, "admin");
        node(&double, &admin, 0).etcd_status().await.unwrap();
        node(&double, &admin, 1).version().await.unwrap();
        node(&double, &admin, 0).cluster_members().await.unwrap();
        admin.node(&NodeName::parse("worker-1").unwrap()).hostname().await.unwrap();
    });
    let calls = double.calls();
    let seen: Vec<(&str, usize, &str)> = calls.iter().map(|call| (call.name.as_str(), call.node, call.node_metadata[0].as_str())).collect();
    let (control, worker) = (double.node_ip(0).to_string(), double.node_ip(1).to_string());
    let expected = [("EtcdStatus", 0, control.as_str()), ("Version", 1, &worker), ("List", 0, &control), ("Hostname", 1, "worker-1")];
    assert_eq!(seen, expected);
    for call in calls {
        assert_eq!((call.node_metadata.len(), call.nodes_metadata.len(), call.runtime.as_deref()), (1, 0, Some("Talos")), "{call:?}");
    }
}
