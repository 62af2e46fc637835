//! HashKV and inspection of random histories, compared with a model that keeps everything in memory and hashes bit by bit.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};

use bbolt::build::Builder;
use bbolt::{Database, Memory};
use etcd_store::id::Revision;
use etcd_store::row::{KeyValue, RowKey};
use etcd_store::{Error, Options, hash_kv, inspect, inspect_and_hash};
use proptest::prelude::*;

/// One change of a transaction.
#[derive(Clone, Debug)]
enum Change {
    Put { key: u8, value: Vec<u8>, lease: i64 },
    Delete { key: u8 },
    Bump,
}

/// A row as the model keeps it.
#[derive(Clone, Debug)]
struct Row {
    key: RowKey,
    user_key: Vec<u8>,
    value: Vec<u8>,
}

/// How far a compaction got, and as which version of etcd.
#[derive(Clone, Copy, Debug)]
struct Compaction {
    at: i64,
    /// Rows deleted before the file was taken; more than there are means it was completed.
    steps: usize,
    /// 3.4.34, 3.5.16 and later keep a deletion at the compact revision itself.
    keeps_tombstones: bool,
}

#[derive(Clone, Debug, Default)]
struct Store {
    rows: Vec<Row>,
    scheduled: Option<i64>,
    finished: Option<i64>,
}

impl Store {
    fn of(history: &[Vec<Change>]) -> Self {
        let mut rows = Vec::new();
        let mut current: BTreeMap<u8, (i64, i64)> = BTreeMap::new();
        for (main, changes) in (2..).zip(history) {
            let mut touched = BTreeSet::new();
            let mut sub = 0;
            for change in changes {
                let (user_key, value, tombstone) = match change {
                    // A transaction changes a key once, and deletes only what is there.
                    Change::Put { key, .. } | Change::Delete { key } if !touched.insert(*key) => continue,
                    Change::Delete { key } if current.remove(key).is_none() => continue,
                    Change::Delete { key } => (vec![*key], KeyValue::tombstone(&[*key]).encode(), true),
                    Change::Put { key, value, lease } => {
                        let (create, version) = current.get(key).map_or((main, 1), |&(create, version)| (create, version + 1));
                        current.insert(*key, (create, version));
                        let row = KeyValue { key: &[*key], create_revision: create, mod_revision: main, version, value, lease: *lease };
                        (vec![*key], row.encode(), false)
                    }
                    Change::Bump if sub == 0 => (Vec::new(), Vec::new(), false),
                    Change::Bump => continue,
                };
                rows.push(Row { key: RowKey { main: Revision(main), sub, tombstone }, user_key, value });
                sub += 1;
            }
        }
        Self { rows, scheduled: None, finished: None }
    }

    /// The latest row of every key at a revision, deletions left out.
    fn live(&self, at: i64) -> BTreeMap<Vec<u8>, &Row> {
        let mut latest = BTreeMap::new();
        for row in self.rows.iter().filter(|row| row.key.main.0 <= at) {
            latest.insert(row.user_key.clone(), row);
        }
        latest.retain(|_, row| !row.key.tombstone);
        latest
    }

    fn compact(&self, compaction: Compaction) -> Self {
        let keep: BTreeSet<RowKey> = self.live(compaction.at).values().map(|row| row.key).collect();
        let mut steps = 0;
        let mut store = Self { rows: Vec::new(), scheduled: Some(compaction.at), finished: self.finished };
        for row in &self.rows {
            let kept_tombstone = compaction.keeps_tombstones && row.key.tombstone && row.key.main.0 == compaction.at;
            let goes = row.key.main.0 <= compaction.at && !keep.contains(&row.key) && !kept_tombstone;
            if goes && steps < compaction.steps {
                steps += 1;
            } else {
                store.rows.push(row.clone());
            }
        }
        if steps < compaction.steps {
            store.finished = store.scheduled;
        }
        store
    }

    fn revision(&self) -> i64 {
        let last = self.rows.last().map_or(1, |row| row.key.main.0);
        last.max(self.scheduled.unwrap_or(1)).max(self.finished.unwrap_or(1))
    }

    /// The algorithm as the reference states it, row by row.
    fn hash(&self, compact: i64, at: i64) -> u32 {
        let live: BTreeSet<RowKey> = self.live(at).values().map(|row| row.key).collect();
        let mut bytes = b"key".to_vec();
        for row in self.rows.iter().filter(|row| row.key.main.0 <= at) {
            let superseded = row.key.main.0 <= compact && !live.is_empty() && !live.contains(&row.key);
            let deletion = row.key.main.0 == compact && row.key.tombstone;
            if !superseded && !deletion {
                bytes.extend_from_slice(&row.key.encode());
                bytes.extend_from_slice(&row.value);
            }
        }
        crc32c(&bytes)
    }

    fn file(&self) -> Database<Vec<u8>> {
        let memory = Memory::default();
        let mut builder = Builder::new(&memory, 4096).unwrap();
        builder.bucket(b"key", 0).unwrap();
        for row in &self.rows {
            builder.item(&row.key.encode(), &row.value).unwrap();
        }
        builder.bucket(b"lease", 0).unwrap();
        for lease in [3_i64, 5] {
            builder.item(&lease.to_be_bytes(), &[8, lease as u8, 16, 60]).unwrap();
        }
        builder.bucket(b"meta", 0).unwrap();
        for (name, mark) in [(&b"finishedCompactRev"[..], self.finished), (b"scheduledCompactRev", self.scheduled)] {
            if let Some(mark) = mark {
                builder.item(name, &RowKey::put(Revision(mark), 0).encode()).unwrap();
            }
        }
        builder.finish(false).unwrap();
        Database::open(memory.into_bytes()).unwrap()
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes
        .iter()
        .fold(u32::MAX, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }))
}

fn change() -> impl Strategy<Value = Change> {
    let lease = prop_oneof![3 => Just(0), 1 => 1_i64..7];
    prop_oneof![
        6 => (0_u8..12, prop::collection::vec(any::<u8>(), 0..40), lease).prop_map(|(key, value, lease)| Change::Put { key, value, lease }),
        4 => (0_u8..12).prop_map(|key| Change::Delete { key }),
        1 => Just(Change::Bump),
    ]
}

fn history() -> impl Strategy<Value = Vec<Vec<Change>>> {
    prop::collection::vec(prop::collection::vec(change(), 1..5), 1..40)
}

/// A store after some compactions, the last of which may have been cut short; and the history it came from.
fn store() -> impl Strategy<Value = (Store, Store)> {
    (history(), prop::collection::vec((0.0_f64..1.0, 0_usize..60, any::<bool>()), 0..3)).prop_map(|(history, compactions)| {
        let full = Store::of(&history);
        let mut store = full.clone();
        let last = compactions.len();
        for (number, (share, steps, keeps_tombstones)) in (1..).zip(compactions) {
            let floor = store.scheduled.unwrap_or(0) + 1;
            let at = floor + ((full.revision() - floor).max(0) as f64 * share) as i64;
            let steps = if number == last { steps } else { usize::MAX };
            if at <= full.revision() {
                store = store.compact(Compaction { at, steps, keeps_tombstones });
            }
        }
        (store, full)
    })
}

proptest! {
    #[test]
    fn hash_kv_is_the_models_at_every_revision_and_compaction((store, _) in store()) {
        let file = store.file();
        let own = store.scheduled.unwrap_or(-1);
        for at in 1..=store.revision() {
            let answer = hash_kv(&file, None, Revision(at));
            if at < own {
                prop_assert!(matches!(answer, Err(Error::Compacted { .. })), "{:?}", answer);
                continue;
            }
            let answer = answer.unwrap();
            prop_assert_eq!((answer.hash, answer.compact_revision, answer.revision), (store.hash(own, at), own, Revision(at)));
            for compact in own..=at {
                let answer = hash_kv(&file, Some(Revision(compact)), Revision(at)).unwrap();
                prop_assert_eq!(answer.hash, store.hash(compact, at), "compact {} at {}", compact, at);
            }
        }
        let beyond = hash_kv(&file, None, Revision(store.revision() + 1));
        prop_assert!(matches!(beyond, Err(Error::Future { .. })), "{:?}", beyond);
        if own >= 0 {
            let older = hash_kv(&file, Some(Revision(own - 1)), Revision(0));
            prop_assert!(matches!(older, Err(Error::HistoryGone { .. })), "{:?}", older);
        }
    }

    /// What makes hashes of different members comparable: how far a compaction got does not matter.
    #[test]
    fn hash_kv_does_not_depend_on_how_far_a_compaction_got((store, full) in store()) {
        if let Some(compact) = store.scheduled {
            for at in compact..=full.revision() {
                if !full.live(at).is_empty() {
                    prop_assert_eq!(store.hash(compact, at), full.hash(compact, at));
                    let answer = hash_kv(&full.file(), Some(Revision(compact)), Revision(at)).unwrap();
                    prop_assert_eq!(answer, hash_kv(&store.file(), None, Revision(at)).unwrap());
                }
            }
        }
    }

    #[test]
    fn inspection_is_the_models((store, _) in store()) {
        let file = store.file();
        let classify = |key: &[u8], value: &[u8]| u16::from(key.first().copied().unwrap_or(99)) % 4 + u16::from(value.is_empty()) * 10;
        let keys: [&[u8]; 3] = [&[0], &[7], &[200]];
        let options = Options { classify: Some(&classify), capture: &keys };
        let (found, hash) = inspect_and_hash(&file, &options).unwrap();
        let live = store.live(i64::MAX);
        let row = |row: &Row| { let kv = KeyValue::decode(&row.value).unwrap(); (kv.key.to_vec(), kv.value.to_vec(), kv.lease, kv.mod_revision) };
        prop_assert_eq!(hash.hash, store.hash(store.scheduled.unwrap_or(-1), store.revision()));
        prop_assert_eq!((hash.revision, found.revision), (Revision(store.revision()), Revision(store.revision())));
        prop_assert_eq!(found.last_main, store.rows.last().map_or(Revision(0), |row| row.key.main));
        prop_assert_eq!(found.rows, store.rows.len() as u64);
        prop_assert_eq!(found.tombstones, store.rows.iter().filter(|row| row.key.tombstone).count() as u64);
        prop_assert_eq!(found.live_keys, live.len() as u64);
        prop_assert_eq!(found.user_keys(), live.keys().filter(|key| !key.is_empty()).count() as u64);
        prop_assert_eq!(found.mid_compaction, store.scheduled > store.finished);
        prop_assert_eq!(found.compact_revision, store.scheduled.map(Revision));
        prop_assert_eq!(found.epoch, store.rows.iter().rev().find(|row| row.value.is_empty()).map(|row| row.key.main));
        prop_assert_eq!(found.warnings.total, 0, "{:?}", found.warnings);
        prop_assert_eq!(found.check, file.check().unwrap());
        prop_assert_eq!(found.leases, 2);
        let referred: BTreeSet<i64> = live.values().map(|live| row(live).2).filter(|lease| ![0, 3, 5].contains(lease)).collect();
        prop_assert_eq!(found.missing_leases.items.iter().map(|id| id.0).collect::<BTreeSet<_>>(), referred);
        let mut classes: BTreeMap<u16, u64> = BTreeMap::new();
        for live in live.values() {
            let (key, value, ..) = row(live);
            *classes.entry(classify(&key, &value)).or_default() += 1;
        }
        prop_assert_eq!(&found.classes, &classes);
        for (key, captured) in keys.iter().zip(&found.captured) {
            let expected = live.get(*key).map(|live| row(live));
            prop_assert_eq!(captured.as_ref().map(|c| (&c.value, c.mod_revision.0)), expected.as_ref().map(|(_, value, _, main)| (value, *main)));
        }
        prop_assert_eq!(inspect(&file, &options).unwrap().status_hash, found.status_hash);
    }
}

#[test]
fn the_status_hash_is_over_names_keys_and_values_of_all_buckets() {
    let store = Store::of(&[vec![Change::Put { key: 1, value: b"v".to_vec(), lease: 0 }]]);
    let mut bytes = b"key".to_vec();
    bytes.extend_from_slice(&store.rows[0].key.encode());
    bytes.extend_from_slice(&store.rows[0].value);
    bytes.extend_from_slice(b"lease");
    for lease in [3_i64, 5] {
        bytes.extend_from_slice(&lease.to_be_bytes());
        bytes.extend_from_slice(&[8, lease as u8, 16, 60]);
    }
    bytes.extend_from_slice(b"meta");
    let found = inspect(&store.file(), &Options::default()).unwrap();
    assert_eq!((found.status_hash, found.total_keys_all_buckets), (crc32c(&bytes), 3));
    assert_eq!(found.total_size, found.check.pages * 4096);
    let row = found.last_row.unwrap();
    assert_eq!((row.main, row.sub), (Revision(2), 0));
    // sha256 of 0000000000000002 5f 0000000000000000 0a0101 1002 1802 2001 2a0176
    assert_eq!(row.sha256, "224a66279fa62c79afcd66dcfa3a3f9a067bcbc88534b65755a31345746659b8");
}

#[test]
fn a_store_without_live_keys_hashes_everything_but_deletions_at_the_compaction() {
    let put = |key| Change::Put { key, value: b"v".to_vec(), lease: 0 };
    let store = Store::of(&[vec![put(1)], vec![put(2)], vec![Change::Delete { key: 1 }], vec![Change::Delete { key: 2 }]]);
    let file = store.file();
    for compact in [-1, 2, 3, 4, 5] {
        let answer = hash_kv(&file, Some(Revision(compact)), Revision(0)).unwrap();
        assert_eq!(answer.hash, store.hash(compact, 5), "compact {compact}");
    }
}

#[test]
fn a_row_that_cannot_be_decoded_is_named() {
    let build = |key: &[u8], value: &[u8]| {
        let memory = Memory::default();
        let mut builder = Builder::new(&memory, 4096).unwrap();
        builder.bucket(b"key", 0).unwrap();
        builder.item(key, value).unwrap();
        builder.finish(false).unwrap();
        Database::open(memory.into_bytes()).unwrap()
    };
    let sound = RowKey::put(Revision(7), 3).encode();
    let damaged = build(&sound, b"\x0a\xff");
    let message = inspect(&damaged, &Options::default()).unwrap_err().to_string();
    assert!(message.contains("\"key\"") && message.contains("7/3"), "{message}");
    assert!(matches!(hash_kv(&damaged, None, Revision(0)), Err(Error::RowValue { .. })));
    let no_row = build(b"foo", b"bar");
    assert!(matches!(inspect(&no_row, &Options::default()), Err(Error::RowKey { .. })));
    let odd = build(&sound, &KeyValue { key: b"k", create_revision: 9, mod_revision: 8, version: 0, value: b"", lease: 0 }.encode());
    let found = inspect(&odd, &Options::default()).unwrap();
    assert_eq!(found.warnings.total, 3);
    assert!(found.warnings.items[0].to_string().contains("mod_revision 8"));
}

#[test]
fn another_programs_database_is_refused() {
    let memory = Memory::default();
    let mut builder = Builder::new(&memory, 4096).unwrap();
    builder.bucket(b"things", 0).unwrap();
    builder.finish(false).unwrap();
    let file = Database::open(memory.into_bytes()).unwrap();
    assert!(matches!(inspect(&file, &Options::default()), Err(Error::NotEtcd)));
    assert!(matches!(hash_kv(&file, None, Revision(0)), Err(Error::NotEtcd)));
}
