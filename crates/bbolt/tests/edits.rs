//! Edits do what a map would do, keep the file sound, and leave the state before them readable.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io;
use std::sync::Mutex;

use bbolt::{Database, Edit, Error, Memory, PageId, ReadAt, WriteAt};
use common::{Content, Keys, Model, image, key, keys, sample, value};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Action {
    Put { bucket: u8, key: u32, size: usize },
    Delete { bucket: u8, key: u32 },
    DeleteRun { bucket: u8, key: u32, count: u32 },
    Create { bucket: u8 },
    Clear { bucket: u8 },
}

const BUCKETS: [&[u8]; 7] = [b"big", b"deep", b"empty", b"new", b"one", b"tiny", b"zoo"];

/// Applies one action to both; an unknown bucket must be refused by the edit and is skipped.
fn act(action: &Action, edit: &mut Edit<Memory>, model: &mut Model) {
    let name = |bucket: &u8| BUCKETS[usize::from(*bucket) % BUCKETS.len()];
    match action {
        Action::Put { bucket, key: number, size } => match model.get_mut(name(bucket)) {
            Some(keys) => {
                edit.put(name(bucket), &key(*number), &value(*number, *size)).unwrap();
                keys.insert(key(*number), value(*number, *size));
            }
            None => assert!(matches!(edit.put(name(bucket), b"k", b"v"), Err(Error::NoBucket { .. }))),
        },
        Action::Delete { bucket, key: number } => {
            let Some(keys) = model.get_mut(name(bucket)) else { return };
            let there = keys.remove(&key(*number)).is_some();
            assert_eq!(edit.delete(name(bucket), &key(*number)).unwrap(), there);
        }
        Action::DeleteRun { bucket, key: from, count } => {
            let Some(keys) = model.get_mut(name(bucket)) else { return };
            for number in *from..from + count {
                let there = keys.remove(&key(number)).is_some();
                assert_eq!(edit.delete(name(bucket), &key(number)).unwrap(), there);
            }
        }
        Action::Create { bucket } => {
            edit.create_bucket(name(bucket)).unwrap();
            model.entry(name(bucket).to_vec()).or_default();
        }
        Action::Clear { bucket } => {
            let Some(keys) = model.get_mut(name(bucket)) else { return };
            edit.clear_bucket(name(bucket)).unwrap();
            keys.clear();
        }
    }
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let bucket = any::<u8>();
    let number = 0..1200u32;
    let size = prop_oneof![8 => 0..80usize, 1 => 500..5000usize];
    let action = prop_oneof![
        8 => (bucket, number.clone(), size).prop_map(|(bucket, key, size)| Action::Put { bucket, key, size }),
        4 => (bucket, number.clone()).prop_map(|(bucket, key)| Action::Delete { bucket, key }),
        3 => (bucket, number, 1..600u32).prop_map(|(bucket, key, count)| Action::DeleteRun { bucket, key, count }),
        1 => bucket.prop_map(|bucket| Action::Create { bucket }),
        1 => bucket.prop_map(|bucket| Action::Clear { bucket }),
    ];
    vec(action, 0..30)
}

/// The image with one meta page made unusable.
fn without_meta(image: &[u8], page_size: u32, page: PageId) -> Vec<u8> {
    let mut image = image.to_vec();
    image[page.0 as usize * page_size as usize + 16] ^= 0xFF;
    image
}

/// Every branch below the root has two children at least and calls each child by its first key: what bbolt relies on
/// when it changes the tree later.
fn assert_bbolts_invariants(image: &[u8]) {
    let database = Database::open(image.to_vec()).unwrap();
    let meta = database.meta().clone();
    assert_eq!(meta.txid % 2, meta.page.0);
    let mut roots = vec![meta.root.0];
    let root = bbolt_root_values(image, meta.page_size, meta.root.0);
    roots.extend(root.iter().map(|value| u64::from_le_bytes(value[..8].try_into().unwrap())));
    for root in roots.into_iter().filter(|&root| root != 0) {
        let mut leaf_depths = Vec::new();
        first_keys(image, meta.page_size, root, 0, &mut leaf_depths);
        leaf_depths.dedup();
        assert_eq!(leaf_depths.len(), 1, "leaves at one depth");
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn bbolt_root_values(image: &[u8], page_size: u32, page: u64) -> Vec<Vec<u8>> {
    let bytes = &image[page as usize * page_size as usize..];
    let count = usize::from(u16_at(bytes, 10));
    let elements = (0..count).map(|index| 16 + 16 * index);
    if u16_at(bytes, 8) == 1 {
        let child = |at: usize| u64::from_le_bytes(bytes[at + 8..at + 16].try_into().unwrap());
        return elements.flat_map(|at| bbolt_root_values(image, page_size, child(at))).collect();
    }
    let value = |at: usize| {
        let start = at + u32_at(bytes, at + 4) as usize + u32_at(bytes, at + 8) as usize;
        bytes[start..start + u32_at(bytes, at + 12) as usize].to_vec()
    };
    elements.map(value).collect()
}

fn first_keys(image: &[u8], page_size: u32, page: u64, depth: usize, leaf_depths: &mut Vec<usize>) -> Vec<u8> {
    let bytes = &image[page as usize * page_size as usize..];
    let count = usize::from(u16_at(bytes, 10));
    let is_branch = u16_at(bytes, 8) == 1;
    let first_key = |index: usize| {
        let at = 16 + 16 * index;
        let field = if is_branch { 0 } else { 4 };
        let start = at + u32_at(bytes, at + field) as usize;
        bytes[start..start + u32_at(bytes, at + field + 4) as usize].to_vec()
    };
    if !is_branch {
        leaf_depths.push(depth);
        return if count == 0 { Vec::new() } else { first_key(0) };
    }
    assert!(count >= 2, "page {page}: a branch with {count} children");
    for index in 0..count {
        let at = 16 + 16 * index;
        let child = u64::from_le_bytes(bytes[at + 8..at + 16].try_into().unwrap());
        let key = first_keys(image, page_size, child, depth + 1, leaf_depths);
        assert_eq!(key, first_key(index), "page {page} calls its child {index} by another key");
    }
    first_key(0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn edits_equal_a_map(
        page_size in prop_oneof![4 => Just(1024u32), 1 => Just(4096u32)],
        inline in any::<bool>(),
        freelist in any::<bool>(),
        edits in vec(actions(), 1..5),
    ) {
        let mut model = sample(1024);
        let mut bytes = image(&model, page_size, inline, freelist);
        for actions in edits {
            let before = model.clone();
            let mut edit = Edit::begin(Database::open(Memory::new(bytes.clone())).unwrap()).unwrap();
            for action in &actions {
                act(action, &mut edit, &mut model);
            }
            for (name, keys) in &model {
                for (key, value) in keys.iter().step_by(97) {
                    prop_assert_eq!(&edit.get(name, key).unwrap(), &Some(value.clone()));
                }
            }
            let old = edit.database().meta().clone();
            let database = edit.commit().unwrap();
            prop_assert!(Content::of(&database).same(&Content::expected(&model)));
            let new = database.meta().clone();
            let after = database.into_source().into_bytes();
            prop_assert!(after.len() as u64 >= new.size());
            if new != old {
                prop_assert_ne!(new.page, old.page);
                prop_assert_eq!(new.freelist, None);
                let old_end = old.size() as usize;
                prop_assert!(bytes[2 * page_size as usize..old_end] == after[2 * page_size as usize..old_end]);
                assert_bbolts_invariants(&after);
                let back = Database::open(without_meta(&after, page_size, new.page)).unwrap();
                prop_assert_eq!(back.meta(), &old);
                prop_assert!(Content::of(&back).same(&Content::expected(&before)));
            } else {
                prop_assert_eq!(&bytes, &after);
            }
            bytes = after;
        }
    }
}

#[test]
fn deleting_everything_leaves_an_empty_bucket() {
    for count in [1, 40, 5000] {
        let model = Model::from([(b"b".to_vec(), keys(count, 30))]);
        let database = Database::open(Memory::new(image(&model, 1024, true, true))).unwrap();
        let mut edit = Edit::begin(database).unwrap();
        for number in 0..count {
            assert!(edit.delete(b"b", &key(number)).unwrap());
            assert!(!edit.delete(b"b", &key(number)).unwrap());
        }
        let database = edit.commit().unwrap();
        let report = database.check().unwrap();
        assert_eq!((report.items, report.depth, report.reachable), (0, 1, 4));
        let mut edit = Edit::begin(database).unwrap();
        edit.put(b"b", b"again", b"there").unwrap();
        let database = edit.commit().unwrap();
        assert_eq!(database.bucket(b"b").unwrap().unwrap().get(b"again").unwrap().unwrap(), b"there");
        database.check().unwrap();
    }
}

#[test]
fn a_branch_left_with_one_child_joins_its_neighbour() {
    let model = Model::from([(b"b".to_vec(), keys(60_000, 30))]);
    let bytes = image(&model, 1024, false, false);
    let depth = Database::open(bytes.clone()).unwrap().check().unwrap().depth;
    assert!(depth >= 4, "the test wants branches above branches: {depth}");
    for keep in [0, 1, 29_999, 30_000, 59_999] {
        for width in [1, 500, 9000] {
            let mut edit = Edit::begin(Database::open(Memory::new(bytes.clone())).unwrap()).unwrap();
            let kept = |number: u32| number == keep || number.abs_diff(30_000) > width + 20_000;
            for number in (0..60_000).filter(|&number| !kept(number)) {
                edit.delete(b"b", &key(number)).unwrap();
            }
            let database = edit.commit().unwrap();
            let left = (0..60_000).filter(|&number| kept(number)).count() as u64;
            assert_eq!(database.check().unwrap().items, left);
            assert_bbolts_invariants(&database.into_source().into_bytes());
        }
    }
}

#[test]
fn only_touched_pages_are_written() {
    let model = Model::from([(b"b".to_vec(), keys(100_000, 30))]);
    let database = Database::open(Memory::new(image(&model, 4096, false, false))).unwrap();
    let before = database.meta().clone();
    let depth = database.check().unwrap().depth;
    let mut edit = Edit::begin(database).unwrap();
    edit.put(b"b", &key(50_000), b"changed").unwrap();
    let after = edit.commit().unwrap().meta().clone();
    assert_eq!(after.high_water_mark.0 - before.high_water_mark.0, u64::from(depth) + 1);
}

#[test]
fn an_edit_of_nothing_writes_nothing() {
    let bytes = image(&sample(1024), 1024, false, true);
    let mut edit = Edit::begin(Database::open(Memory::new(bytes.clone())).unwrap()).unwrap();
    edit.create_bucket(b"deep").unwrap();
    assert!(!edit.delete(b"deep", b"no such key").unwrap());
    edit.put(b"deep", b"new", b"taken back").unwrap();
    assert!(edit.delete(b"deep", b"new").unwrap());
    assert!(edit.commit().unwrap().into_source().into_bytes() == bytes);
}

#[test]
fn a_snapshots_meta_of_the_wrong_parity_stays_intact() {
    // Tx.WriteTo puts transaction T into page 0 and T-1 into page 1, whatever T is.
    let model = sample(1024);
    let mut bytes = image(&model, 1024, false, false);
    let newer = bytes[1024 + 16..1024 + 80].to_vec();
    let older = bytes[16..80].to_vec();
    bytes[16..80].copy_from_slice(&newer);
    bytes[1024 + 16..1024 + 80].copy_from_slice(&older);
    let database = Database::open(Memory::new(bytes)).unwrap();
    assert_eq!((database.meta().txid, database.meta().page), (1, PageId(0)));
    let mut edit = Edit::begin(database).unwrap();
    edit.put(b"one", b"k", b"v").unwrap();
    let database = edit.commit().unwrap();
    assert_eq!((database.meta().txid, database.meta().page), (3, PageId(1)));
    let back = Database::open(without_meta(&database.into_source().into_bytes(), 1024, PageId(1))).unwrap();
    assert!(Content::of(&back).same(&Content::expected(&model)));
}

#[test]
fn what_cannot_be_stored_is_refused_and_changes_nothing() {
    let bytes = image(&sample(1024), 1024, false, false);
    let mut edit = Edit::begin(Database::open(Memory::new(bytes.clone())).unwrap()).unwrap();
    assert!(matches!(edit.put(b"one", b"", b"v"), Err(Error::KeySize { size: 0 })));
    assert!(matches!(edit.put(b"one", &[0; 32_769], b"v"), Err(Error::KeySize { size: 32_769 })));
    assert!(matches!(edit.put(b"none", b"k", b"v"), Err(Error::NoBucket { .. })));
    assert!(matches!(edit.delete(b"none", b"k"), Err(Error::NoBucket { .. })));
    assert!(matches!(edit.clear_bucket(b"none"), Err(Error::NoBucket { .. })));
    assert!(matches!(edit.create_bucket(b""), Err(Error::KeySize { size: 0 })));
    assert!(edit.commit().unwrap().into_source().into_bytes() == bytes);
}

/// What happened to a sink, in order.
#[derive(Debug, PartialEq, Eq, Clone)]
enum Event {
    Write { offset: u64, bytes: Vec<u8> },
    Sync,
}

/// An image that remembers what was written when, and fails from the `fail_at`th event on.
struct Recorder {
    image: Memory,
    events: Mutex<Vec<Event>>,
    fail_at: usize,
}

impl Recorder {
    fn record(&self, event: Event) -> io::Result<()> {
        let mut events = self.events.lock().unwrap();
        if events.len() >= self.fail_at {
            return Err(io::ErrorKind::StorageFull.into());
        }
        events.push(event);
        Ok(())
    }
}

impl ReadAt for Recorder {
    fn size(&self) -> u64 {
        self.image.size()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.image.read_exact_at(buffer, offset)
    }
}

impl WriteAt for Recorder {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.record(Event::Write { offset, bytes: bytes.to_vec() })?;
        self.image.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.record(Event::Sync)
    }
}

#[test]
fn a_crash_at_any_step_leaves_the_old_state_or_the_new_one() {
    let old = sample(1024);
    let bytes = image(&old, 1024, false, false);
    let mut new = old.clone();
    let commit = |fail_at| {
        let recorder = Recorder { image: Memory::new(bytes.clone()), events: Mutex::default(), fail_at };
        let mut edit = Edit::begin(Database::open(&recorder).unwrap()).unwrap();
        for number in 0..40 {
            edit.put(b"big", &key(number), &value(number, 100_000)).unwrap();
        }
        edit.delete(b"deep", &key(7)).unwrap();
        let result = edit.commit().map(|_| ());
        (result, recorder.events.into_inner().unwrap())
    };
    new.insert(b"big".to_vec(), {
        let mut keys: Keys = old[b"big".as_slice()].clone();
        keys.extend((0..40).map(|number| (key(number), value(number, 100_000))));
        keys
    });
    new.get_mut(b"deep".as_slice()).unwrap().remove(&key(7));
    let (result, events) = commit(usize::MAX);
    result.unwrap();
    assert!(events.len() >= 6, "several data writes, sync, meta, sync: {}", events.len());
    let meta_at = events.len() - 2;
    assert!(matches!(events[meta_at], Event::Write { offset: 0, .. }), "page 0 is the one not in use");
    assert!(events[meta_at - 1] == Event::Sync && events[meta_at + 1] == Event::Sync);
    for steps in 0..=events.len() {
        let (result, done) = commit(steps);
        assert_eq!(result.is_ok(), steps == events.len());
        assert!(done == events[..steps]);
        // Writes since the last sync may be lost one by one, or be torn in the middle.
        let synced = done.iter().rposition(|event| *event == Event::Sync).map_or(0, |at| at + 1);
        for lost in synced..=done.len() {
            for torn in [false, true] {
                let after = Memory::new(bytes.clone());
                for (index, event) in done.iter().enumerate() {
                    let Event::Write { offset, bytes } = event else { continue };
                    let kept = match index == lost {
                        true if torn => bytes.len() / 2,
                        true => 0,
                        false => bytes.len(),
                    };
                    after.write_all_at(&bytes[..kept], *offset).unwrap();
                }
                let content = Content::of(&Database::open(after.into_bytes()).unwrap());
                let is_new = steps > meta_at && lost != meta_at;
                assert!(content.same(&Content::expected(if is_new { &new } else { &old })), "{steps} {lost} {torn}");
            }
        }
    }
}
