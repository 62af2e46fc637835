//! Entry points for fuzzers: every parser of outside bytes. They must return, whatever the bytes.

use bbolt::{Database, Memory};

use crate::cluster::{ClusterSpec, parse_initial_cluster};
use crate::conf_state::ConfState;
use crate::id::{LeaseId, Revision};
use crate::inspect::{Options, inspect_and_hash};
use crate::member::MemberRecord;
use crate::raft_snapshot::RaftSnapshot;
use crate::restore::{Edits, apply_edits};
use crate::row::{KeyValue, RowKey};
use crate::snapshot_file::SnapshotLayout;
use crate::wal::Reader;

/// A row's key and its value.
pub fn row(bytes: &[u8]) {
    let _ = RowKey::parse(bytes);
    if let Ok(row) = KeyValue::decode(bytes) {
        assert_eq!(KeyValue::decode(&row.encode()), Ok(row));
    }
}

/// JSON from the `members` and `meta` buckets.
pub fn json(bytes: &[u8]) {
    if let Ok(member) = MemberRecord::from_json(bytes) {
        assert_eq!(MemberRecord::from_json(member.to_json().as_bytes()).ok(), Some(member));
    }
    let _ = ConfState::from_json(bytes);
}

/// A segment of a write-ahead log.
pub fn wal(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    while let Ok(Some(_)) = reader.next_record() {}
}

/// A `.snap` file.
pub fn raft_snapshot(bytes: &[u8]) {
    let _ = RaftSnapshot::decode(bytes);
}

/// The text of an initial cluster.
pub fn initial_cluster(bytes: &[u8]) {
    if let Ok(members) = parse_initial_cluster(&String::from_utf8_lossy(bytes)) {
        let _ = ClusterSpec::new("token", members);
    }
}

/// A snapshot file, inspected and hashed.
pub fn inspect(bytes: &[u8]) {
    let image = bytes.to_vec();
    let _ = SnapshotLayout::read(&image);
    if let Ok(database) = Database::open(image) {
        let _ = inspect_and_hash(&database, &Options { classify: Some(&|key, _| key.len() as u16), capture: &[b"a"] });
    }
}

/// HashKV at a revision the bytes choose.
pub fn hash_kv(bytes: &[u8]) {
    let Some((choice, image)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    if let Ok(database) = Database::open(image.to_vec()) {
        let [compact, at] = choice.map(|number| Revision(i64::from(number) - 1));
        let _ = crate::hash_kv(&database, (compact.0 >= 0).then_some(compact), at);
    }
}

/// A restore's edits of any file: what they leave must pass the check if the file did before.
pub fn edits(bytes: &[u8]) {
    let Ok(members) = parse_initial_cluster("m=http://127.0.0.1:2380") else {
        return;
    };
    let edits = Edits {
        cluster: ClusterSpec::new("token", members).ok(),
        bump: Some(Revision(1 << 40)),
        mark_compacted: true,
        clear_alarms: true,
        drop_versions: true,
        reset_auth: true,
        add_leases: vec![(LeaseId(1), 60)],
    };
    let memory = Memory::new(bytes.to_vec());
    let Ok(database) = Database::open(&memory) else {
        return;
    };
    let sound = database.check().is_ok();
    if let Ok((edited, _)) = apply_edits(database, &edits) {
        assert!(!sound || edited.check().is_ok());
    }
}
