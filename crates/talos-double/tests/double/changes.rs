//! Every call of the client that changes a running cluster, with what real etcd made of it.

use std::time::Duration;

use crate::common::{admin, block_on, fill, kind, start};
use etcd_api::{PutRequest, Txn, TxnOp};
use etcd_store::id::MemberId;
use lifeboat_tests::EtcdVersion;
use talos_api::{Alarm, AlarmKind, ErrorKind, Node, ResetRequest};
use talos_double::{Options, Profile, TalosDouble};

/// As long as a change may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Number of the node whose member leads.
async fn leader(double: &TalosDouble) -> usize {
    loop {
        let status = admin(double, 0).etcd_status().await.unwrap();
        for index in double.control_planes() {
            if status.leader.is_some() && status.leader == admin(double, index).etcd_member_id().await.unwrap() {
                return index;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn an_alarm_of_any_member_is_taken_back_through_any_node() {
    // etcd 3.5 counts a write's size against the quota before it applies it, as every version here does.
    let Some(double) = start(Options::default().control_planes(3).quota(4 << 20), EtcdVersion::V3_5) else { return };
    block_on(async {
        let direct = double.etcd_client(0).await.unwrap();
        let mut number = 0;
        loop {
            number += 1;
            let put = TxnOp::Put(PutRequest::new(format!("/big/{number}"), vec![7_u8; 400_000]));
            match direct.txn(Txn { then: vec![put], ..Txn::default() }).await {
                Err(error) if *error.kind() == etcd_api::ErrorKind::NoSpace => break,
                // An election on a busy machine.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                Ok(_) => {}
            }
            assert!(number < 50, "the quota does not hold");
        }
        let second = admin(&double, 1);
        let mut alarms = second.etcd_alarms().await.unwrap();
        while alarms.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            alarms = second.etcd_alarms().await.unwrap();
        }
        assert!(alarms.iter().all(|alarm| alarm.kind == AlarmKind::NoSpace), "{alarms:?}");
        let status = second.etcd_status().await.unwrap();
        assert!(status.errors.iter().any(|error| error.contains("NOSPACE")), "{status:?}");

        let gone: Vec<Alarm> = second.etcd_disarm_all().await.unwrap();
        assert!(!gone.is_empty());
        // Every member's, asked of another one.
        let mut left = admin(&double, 2).etcd_alarms().await.unwrap();
        while !left.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            left = admin(&double, 2).etcd_alarms().await.unwrap();
        }
    });
}

#[test]
fn a_member_is_defragmented() {
    let Some(double) = start(Options::default(), EtcdVersion::V3_6) else { return };
    block_on(async {
        fill(&double, 11).await;
        let direct = double.etcd_client(0).await.unwrap();
        drop(double.etcdctl(0, ["del", "", "--prefix"]));
        let revision = direct.status().await.unwrap().header.revision;
        direct.compact(revision, true).await.unwrap();
        let node = admin(&double, 0);
        let before = node.etcd_status().await.unwrap();
        node.etcd_defragment(PATIENCE).await.unwrap();
        let after = node.etcd_status().await.unwrap();
        assert!(after.db_size < before.db_size, "{before:?} {after:?}");
    });
}

#[test]
fn leadership_goes_to_another_member() {
    let Some(double) = start(Options::default().control_planes(3), EtcdVersion::V3_6) else { return };
    block_on(async {
        let first = leader(&double).await;
        let name = admin(&double, first).etcd_forfeit_leadership().await.unwrap().unwrap();
        let mut next = leader(&double).await;
        // The node that is asked may not have heard of it yet.
        while next == first {
            tokio::time::sleep(Duration::from_millis(100)).await;
            next = leader(&double).await;
        }
        assert_eq!(double.hostname(next), name);
        assert_eq!(admin(&double, first).etcd_forfeit_leadership().await.unwrap(), None, "it is not the leader");
    });
}

#[test]
fn members_leave_are_removed_and_come_back() {
    for profile in [Profile::V1_13, Profile::V1_14] {
        let Some(double) = start(Options::default().control_planes(3).profile(profile), EtcdVersion::V3_6) else { return };
        block_on(async {
            fill(&double, 5).await;
            let (first, third) = (admin(&double, 0), admin(&double, 2));
            double.switch(2, |switches| switches.slow_leave = Duration::from_millis(300));
            third.etcd_leave().await.unwrap();
            assert_eq!(names(&first).await, ["cp-1", "cp-2"]);
            let data = double.root(2).join("var/lib/etcd");
            assert_eq!(data.exists(), profile == Profile::V1_14, "since 1.14 the directory itself stays");
            assert!(matches!(kind(third.etcd_status().await), ErrorKind::EtcdSilent(_)));
            assert_eq!(third.service("etcd").await.unwrap().unwrap().state, "Finished");

            // A reboot brings it back, as a learner first.
            double.reboot(2);
            double.wait_healthy(2);
            while names(&first).await.len() < 3
                || first.etcd_members(true).await.map_or(true, |members| members.iter().any(|member| member.is_learner))
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert_eq!(names(&third).await, ["cp-1", "cp-2", "cp-3"]);
        });
    }
}

#[test]
fn a_member_is_removed_by_its_id() {
    let Some(double) = start(Options::default().control_planes(3), EtcdVersion::V3_6) else { return };
    block_on(async {
        let (first, second) = (admin(&double, 0), admin(&double, 1));
        let id = second.etcd_member_id().await.unwrap().unwrap();
        let missing = ErrorKind::Etcd(etcd_api::ErrorKind::MemberNotFound);
        assert_eq!(kind(first.etcd_remove_member(MemberId(1)).await), missing);
        // etcd wants its members to have known each other for a while.
        while let Err(error) = first.etcd_remove_member(id).await {
            assert!(error.to_string().contains("unhealthy cluster"), "{error}");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert_eq!(names(&first).await, ["cp-1", "cp-3"]);
        assert!(double.root(1).join("var/lib/etcd/member").exists(), "its data stay");
        assert_eq!(kind(first.etcd_remove_member(id).await), missing);
    });
}

#[test]
fn one_member_alone_keeps_its_leadership() {
    let Some(double) = start(Options::default(), EtcdVersion::V3_6) else { return };
    block_on(async {
        let error = admin(&double, 0).etcd_forfeit_leadership().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Rpc { message, .. } if message.contains("only one member")), "{error}");
        let unknown = ResetRequest { graceful: false, reboot: true, wipe: vec!["NONE".to_owned()] };
        let error = admin(&double, 0).reset(unknown).await.unwrap_err();
        assert!(error.to_string().contains("failed to get volume status"), "{error}");
        let directory = ResetRequest { graceful: false, reboot: true, wipe: vec!["ETCD".to_owned()] };
        let error = admin(&double, 0).reset(directory).await.unwrap_err();
        assert!(error.to_string().contains("is not located"), "{error}");
    });
}

/// The members' names, as soon as there is a list: none can be had while a leader is elected.
async fn names(node: &Node) -> Vec<String> {
    loop {
        if let Ok(members) = node.etcd_members(false).await {
            let mut names: Vec<String> = members.into_iter().map(|member| member.name).collect();
            names.sort();
            return names;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
