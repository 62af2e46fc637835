//! Entry points for fuzzers: every parser of outside bytes. They must return, whatever the bytes.

use bbolt::build::Builder;
use bbolt::{Database, Memory};

use crate::cluster::{ClusterSpec, parse_initial_cluster};
use crate::conf_state::ConfState;
use crate::id::{LeaseId, Revision};
use crate::inspect::{Options, inspect_and_hash};
use crate::member::MemberRecord;
use crate::raft_snapshot::RaftSnapshot;
use crate::restore::{Edits, apply_edits};
use crate::row::{KeyValue, RowKey};
use crate::schema;
use crate::snapshot_file::SnapshotLayout;
use crate::usage::{By, Question, usage};
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

/// A segment of a write-ahead log: as it is, then with checksums that fit, which no fuzzer would find by itself.
pub fn wal(bytes: &[u8]) {
    read_wal(bytes);
    read_wal(&crate::wal::with_valid_checksums(bytes));
}

fn read_wal(bytes: &[u8]) {
    // Twice the same: a segment continues the log of the one before.
    let mut reader = Reader::new(bytes);
    while let Ok(Some(_)) = reader.next_record() {}
    let mut reader = reader.next_segment(bytes);
    while let Ok(Some(_)) = reader.next_record() {}
}

/// A `.snap` file: as it is, then with a checksum that fits. What is read is written, and is read again as the same.
pub fn raft_snapshot(bytes: &[u8]) {
    let _ = RaftSnapshot::decode(bytes);
    if let Ok(snapshot) = RaftSnapshot::decode(&crate::raft_snapshot::with_valid_checksum(bytes)) {
        assert_eq!(RaftSnapshot::decode(&snapshot.encode()).as_ref(), Ok(&snapshot));
    }
}

/// What etcd keeps in the small buckets and nobody else looks at: leases, alarms, auth, members, versions, meta.
pub fn schema(bytes: &[u8]) {
    let Ok(database) = Database::open(bytes.to_vec()) else { return };
    let _ = schema::read_meta(&database);
    let _ = schema::read_members(&database);
    let _ = schema::read_removed_members(&database);
    let _ = schema::read_cluster_versions(&database);
    let _ = schema::read_leases(&database, 64);
    let _ = schema::read_alarms(&database);
    let _ = schema::read_auth(&database);
}

/// One value in each of the small buckets: a sound file around hostile content. The first byte says how long the key is.
pub fn values(bytes: &[u8]) {
    let Some((&split, content)) = bytes.split_first() else { return };
    let (key, value) = content.split_at(usize::from(split).clamp(1, 64).min(content.len()));
    let memory = Memory::default();
    if build_values(&memory, key, value).is_ok() {
        schema(&memory.into_bytes());
    }
}

fn build_values(memory: &Memory, key: &[u8], value: &[u8]) -> Result<(), bbolt::Error> {
    let mut builder = Builder::new(memory, 1024)?;
    let mut names = schema::bucket::ALL;
    names.sort_unstable();
    for name in names {
        builder.bucket(name.as_bytes(), 0)?;
        let mut items = match name {
            schema::bucket::META => vec![
                (schema::meta_key::CONF_STATE, value),
                (schema::meta_key::CONSISTENT_INDEX, value),
                (schema::meta_key::FINISHED_COMPACT, value),
                (schema::meta_key::SCHEDULED_COMPACT, value),
                (schema::meta_key::STORAGE_VERSION, value),
                (schema::meta_key::TERM, value),
            ],
            schema::bucket::CLUSTER => vec![(schema::cluster_key::CLUSTER_VERSION, value), (schema::cluster_key::DOWNGRADE, value)],
            schema::bucket::AUTH => vec![(&b"authEnabled"[..], value), (b"authRevision", value)],
            _ => vec![(key, value)],
        };
        items.sort_unstable();
        for (key, value) in items {
            builder.item(key, value)?;
        }
    }
    builder.finish(false).map(|_| ())
}

/// The text of an initial cluster.
pub fn initial_cluster(bytes: &[u8]) {
    if let Ok(members) = parse_initial_cluster(&String::from_utf8_lossy(bytes)) {
        let _ = ClusterSpec::new("token", members);
    }
}

/// A snapshot file, inspected and hashed, and what fills it.
pub fn inspect(bytes: &[u8]) {
    let image = bytes.to_vec();
    let _ = SnapshotLayout::read(&image);
    if let Ok(database) = Database::open(image) {
        let _ = inspect_and_hash(&database, &Options { classify: Some(&|key, _| key.len() as u16), capture: &[b"a"] });
        let question = Question { by: By::Churn, lines: 3, prefix: b"", depth: 1, classify: Some(&|key| key.len() as u16) };
        if let Ok(usage) = usage(&database, &question) {
            let held: u64 = usage.buckets.iter().map(|bucket| bucket.bytes).sum();
            assert_eq!(held + usage.overhead() + usage.free(), usage.total());
        }
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
        drop_prefixes: vec![b"k".to_vec()],
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
