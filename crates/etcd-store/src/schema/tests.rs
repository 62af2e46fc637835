#![allow(clippy::unwrap_used)]
use super::*;
use crate::id::{LeaseId, MemberId, Revision};
use crate::row::RowKey;
use crate::testing::database;
use crate::version::Version;

#[test]
fn an_empty_file_has_nothing_of_all_that() {
    let image = database(&[("key", vec![])]);
    assert_eq!(read_meta(&image).unwrap(), Meta::default());
    assert!(read_members(&image).unwrap().is_empty());
    assert!(read_alarms(&image).unwrap().is_empty());
    assert_eq!(read_leases(&image, 9).unwrap(), Listing::default());
    assert_eq!(read_auth(&image).unwrap(), Auth::default());
    assert_eq!(read_cluster_versions(&image).unwrap(), ClusterVersions::default());
}

#[test]
fn meta_is_read_and_marks_are_weighed() {
    let mark = |main| RowKey::put(Revision(main), 0).encode().to_vec();
    let image = database(&[(
        "meta",
        vec![
            (meta_key::CONF_STATE.to_vec(), br#"{"voters":[18446744073709551615],"auto_leave":false}"#.to_vec()),
            (meta_key::CONSISTENT_INDEX.to_vec(), 77_u64.to_be_bytes().to_vec()),
            (meta_key::FINISHED_COMPACT.to_vec(), mark(5)),
            (meta_key::SCHEDULED_COMPACT.to_vec(), mark(9)),
            (meta_key::STORAGE_VERSION.to_vec(), b"3.6.0".to_vec()),
            (meta_key::TERM.to_vec(), 3_u64.to_be_bytes().to_vec()),
        ],
    )]);
    let meta = read_meta(&image).unwrap();
    assert_eq!((meta.consistent_index, meta.term), (Some(77), Some(3)));
    assert_eq!(meta.conf_state.as_ref().unwrap().voters, [MemberId(u64::MAX)]);
    assert_eq!((meta.compact_revision(), meta.mid_compaction()), (Some(Revision(9)), true));
    assert_eq!(meta.storage_version_guess(), Some(Version::minor(6)));
    let older = Meta { storage_version: None, ..meta };
    assert_eq!(older.storage_version_guess(), Some(Version::minor(5)));
    assert_eq!(Meta { term: None, ..older }.storage_version_guess(), None);
}

#[test]
fn damaged_values_name_bucket_and_key() {
    for (bucket, key, value) in [
        ("meta", meta_key::TERM, &b"short"[..]),
        ("meta", meta_key::STORAGE_VERSION, b"three"),
        ("meta", meta_key::CONF_STATE, b"{"),
        ("meta", meta_key::FINISHED_COMPACT, b"12345678901234567"),
    ] {
        let image = database(&[(bucket, vec![(key.to_vec(), value.to_vec())])]);
        let message = read_meta(&image).unwrap_err().to_string();
        assert!(message.contains(bucket) && message.contains(std::str::from_utf8(key).unwrap()), "{message}");
    }
    let other_id = database(&[("members", vec![(b"a1".to_vec(), br#"{"id":1,"peerURLs":[]}"#.to_vec())])]);
    assert!(read_members(&other_id).unwrap_err().to_string().contains("members"));
    let no_id = database(&[("members_removed", vec![(b"xyz".to_vec(), b"removed".to_vec())])]);
    assert!(read_removed_members(&no_id).is_err());
}

#[test]
fn leases_alarms_members_and_auth_are_read() {
    let lease = Lease { id: LeaseId(0x70d0_1234), ttl: 60, remaining: 12 };
    let image = database(&[
        ("alarm", vec![(vec![8, 5, 16, 1], vec![]), (vec![16, 2], vec![])]),
        ("auth", vec![(b"authEnabled".to_vec(), vec![1]), (b"authRevision".to_vec(), 4_u64.to_be_bytes().to_vec())]),
        ("authRoles", vec![(b"root".to_vec(), vec![])]),
        ("authUsers", vec![(b"alice".to_vec(), vec![]), (b"root".to_vec(), vec![])]),
        (
            "cluster",
            vec![
                (b"clusterVersion".to_vec(), b"3.6.0".to_vec()),
                (b"downgrade".to_vec(), br#"{"target-version":"3.5.0","enabled":true}"#.to_vec()),
            ],
        ),
        (
            "lease",
            vec![
                (lease_key(LeaseId(3)).to_vec(), encode_lease(&Lease { id: LeaseId(3), ttl: 1, remaining: 0 })),
                (lease_key(lease.id).to_vec(), encode_lease(&lease)),
            ],
        ),
        ("members", vec![(b"55b1deecf87799f".to_vec(), br#"{"id":385935104591493535,"peerURLs":["http://a:1"],"name":"m"}"#.to_vec())]),
        ("members_removed", vec![(b"f1".to_vec(), b"removed".to_vec())]),
    ]);
    assert_eq!(
        read_alarms(&image).unwrap(),
        [Alarm { member: MemberId(5), kind: AlarmKind::NoSpace }, Alarm { member: MemberId(0), kind: AlarmKind::Corrupt }]
    );
    let auth = read_auth(&image).unwrap();
    assert!(auth.enabled && auth.revision == 4 && auth.users.items == ["alice", "root"] && auth.roles.items == ["root"]);
    let versions = read_cluster_versions(&image).unwrap();
    assert_eq!(versions.cluster_version, Some(Version::minor(6)));
    assert_eq!(versions.downgrade, Some(Downgrade { enabled: true, target: "3.5.0".into() }));
    let leases = read_leases(&image, 1).unwrap();
    assert!(leases.is_cut() && leases.total == 2);
    assert_eq!(read_leases(&image, 2).unwrap().items[1], lease);
    assert_eq!(read_members(&image).unwrap()[0].id, MemberId(0x055b_1dee_cf87_799f));
    assert_eq!(read_removed_members(&image).unwrap(), [MemberId(0xf1)]);
}
