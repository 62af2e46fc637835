#![allow(clippy::unwrap_used)]
use bbolt::Memory;
use proptest::prelude::*;

use super::*;
use crate::cluster::parse_initial_cluster;
use crate::id::MemberId;
use crate::inspect::{Inspection, Options, inspect};
use crate::row::KeyValue;
use crate::testing::{Items, image};
use crate::version::Version;

fn cluster() -> ClusterSpec {
    ClusterSpec::new("t", parse_initial_cluster("a=http://a:1,b=http://b:1").unwrap()).unwrap()
}

fn rows(count: i64) -> Items {
    let row = |main: i64| {
        let key = format!("k{main}");
        let value = KeyValue { key: key.as_bytes(), create_revision: main, mod_revision: main, version: 1, value: b"v", lease: 7 };
        (RowKey::put(Revision(main), 0).encode().to_vec(), value.encode())
    };
    (2..count + 2).map(row).collect()
}

fn before() -> Vec<u8> {
    image(&[
        ("alarm", vec![(vec![8, 5, 16, 1], vec![])]),
        ("auth", vec![(b"authEnabled".to_vec(), vec![1])]),
        ("authUsers", vec![(b"root".to_vec(), vec![])]),
        ("cluster", vec![(b"clusterVersion".to_vec(), b"3.7.0".to_vec())]),
        ("key", rows(2000)),
        ("members", vec![(b"9".to_vec(), br#"{"id":9,"peerURLs":["http://old:1"]}"#.to_vec())]),
        ("members_removed", vec![(b"8".to_vec(), b"removed".to_vec())]),
        ("meta", vec![(b"storageVersion".to_vec(), b"3.7.0".to_vec()), (b"term".to_vec(), 9_u64.to_be_bytes().to_vec())]),
    ])
}

fn edited(edits: &Edits) -> (EditReport, Inspection) {
    let memory = Memory::new(before());
    let (database, report) = apply_edits(Database::open(&memory).unwrap(), edits).unwrap();
    let inspection = inspect(&database, &Options::default()).unwrap();
    (report, inspection)
}

#[test]
fn a_restore_replaces_what_belonged_to_the_old_cluster() {
    let edits = Edits {
        cluster: Some(cluster()),
        bump: Some(Revision(5_000_000)),
        mark_compacted: true,
        clear_alarms: true,
        drop_versions: true,
        reset_auth: true,
        add_leases: vec![(LeaseId(7), 60), (LeaseId(7), 90)],
        drop_prefixes: Vec::new(),
    };
    let (report, after) = edited(&edits);
    assert_eq!(after.members, cluster().records());
    assert!(after.removed_members.is_empty() && after.alarms.is_empty() && after.missing_leases.total == 0);
    assert_eq!((after.meta.consistent_index, after.meta.term), (Some(2), Some(1)));
    assert_eq!(after.meta.conf_state, Some(cluster().conf_state()));
    assert_eq!((after.meta.storage_version, after.versions.cluster_version), (None, None));
    assert!(!after.auth.enabled && after.auth.users.total == 0);
    assert_eq!((after.revision, after.epoch), (Revision(5_000_000), Some(Revision(5_000_000))));
    assert_eq!((after.compact_revision, after.mid_compaction), (Some(Revision(5_000_000)), true));
    assert_eq!((after.live_keys, after.user_keys(), after.leases), (2001, 2000, 1));
    assert_eq!((report.revision_before, report.revision_after), (Revision(2001), Revision(5_000_000)));
    assert_eq!((report.members_replaced, report.removed_members_forgotten, report.leases_added), (1, 1, 1));
    assert_eq!((report.alarms_cleared.len(), report.auth_entries_dropped), (1, 1));
    assert_eq!(report.alarms_cleared[0].member, MemberId(5));
    assert_eq!(report.versions_dropped, ["storageVersion", "clusterVersion"]);
    assert_eq!(report.buckets_created, ["lease", "authRoles"]);
}

#[test]
fn what_is_not_asked_for_stays() {
    let (report, after) = edited(&Edits::default());
    assert_eq!(after.members[0].id, MemberId(9));
    assert_eq!((after.alarms.len(), after.removed_members.len()), (1, 1));
    assert_eq!((after.meta.storage_version, after.meta.term), (Some(Version::minor(7)), Some(9)));
    assert!(after.auth.enabled && after.epoch.is_none());
    assert_eq!((after.missing_leases.items, after.missing_leases.total), (vec![LeaseId(7)], 1));
    assert_eq!(report.revision_after, Revision(2001));
}

#[test]
fn edits_that_do_not_fit_change_nothing() {
    for edits in [
        Edits { bump: Some(Revision(2001)), ..Edits::default() },
        Edits { bump: Some(Revision(i64::MAX)), ..Edits::default() },
        Edits { add_leases: vec![(LeaseId(0), 1)], ..Edits::default() },
        Edits { add_leases: vec![(LeaseId(1), 0)], ..Edits::default() },
    ] {
        let memory = Memory::new(before());
        assert!(apply_edits(Database::open(&memory).unwrap(), &edits).is_err());
        assert_eq!(memory.into_bytes(), before());
    }
}

#[test]
fn a_bump_by_a_delta_counts_from_the_last_row_as_etcdutl_does() {
    assert_eq!(Bump::By(100).target(Revision(10), Revision(10)).unwrap(), Revision(110));
    assert_eq!(Bump::By(100).target(Revision(10), Revision(50)).unwrap(), Revision(110));
    assert!(Bump::By(100).target(Revision(10), Revision(110)).is_err());
    assert!(Bump::By(0).target(Revision(10), Revision(10)).is_err());
    assert!(Bump::By(u64::MAX).target(Revision(10), Revision(10)).is_err());
    assert!(Bump::By(i64::MAX as u64).target(Revision(10), Revision(10)).is_err());
    assert_eq!(Bump::To(Revision(11)).target(Revision(10), Revision(10)).unwrap(), Revision(11));
    assert!(Bump::To(Revision(-1)).target(Revision(10), Revision(10)).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_bump_beyond_the_file_is_found_again(target in 2002_i64..i64::MAX, mark_compacted: bool) {
        let (_, after) = edited(&Edits { bump: Some(Revision(target)), mark_compacted, ..Edits::default() });
        prop_assert_eq!((after.revision, after.last_main, after.epoch), (Revision(target), Revision(target), Some(Revision(target))));
        prop_assert_eq!(after.compact_revision, mark_compacted.then_some(Revision(target)));
    }
}
