//! Edits beside a model: whatever is put, deleted, cleared and committed, the file passes the check and holds what an
//! ordered map holds.

use std::collections::BTreeMap;

use crate::build::Builder;
use crate::{Database, Edit, Error, Memory};

/// Most operations of one run, so that a run stays short.
const OPERATIONS: usize = 400;
/// Longest value: a few pages of the smallest size.
const LONGEST: usize = 5000;

type Bucket = BTreeMap<Vec<u8>, Vec<u8>>;
type Model = BTreeMap<Vec<u8>, Bucket>;

/// Reads `script` as a database to begin with and a sequence of edits, carries them out on the format and on a map, and
/// compares after every commit. The first four bytes say page size, inline buckets, and how many keys there are at first.
///
/// # Panics
/// When the two differ, or the file fails its check: that is what a fuzzer looks for.
pub fn model(script: &[u8]) {
    let Some((start, script)) = script.split_first_chunk::<4>() else { return };
    if let Err(error) = run(*start, script) {
        panic!("no operation of a sound file fails: {error}");
    }
}

fn run(start: [u8; 4], script: &[u8]) -> Result<(), Error> {
    let (image, mut model) = begin(start)?;
    let mut edit = Edit::begin(Database::open(Memory::new(image))?)?;
    for operation in script.chunks_exact(4).take(OPERATIONS) {
        if operation[0] % 32 == 31 {
            let database = edit.commit()?;
            compare(&database, &model)?;
            edit = Edit::begin(database)?;
        } else {
            apply(&mut edit, &mut model, operation)?;
        }
    }
    compare(&edit.commit()?, &model)
}

/// A fresh file and the same in a map.
fn begin([page_size, inline, keys, length]: [u8; 4]) -> Result<(Vec<u8>, Model), Error> {
    let memory = Memory::default();
    let mut builder = Builder::new(&memory, if page_size % 2 == 0 { 1024 } else { 4096 })?;
    builder.inline_small_buckets(inline % 2 == 0);
    let mut model = Model::new();
    for name in 0..inline / 2 % 4 {
        builder.bucket(&[b'a' + name], u64::from(name))?;
        let bucket = model.entry(vec![b'a' + name]).or_default();
        // The first bucket is the deep one: several levels with small pages.
        let count = if name == 0 { usize::from(keys) * 2 } else { usize::from(keys) / 4 };
        for key in 0..count {
            let (key, value) = (key_of(key as u64 * 3), vec![length; usize::from(length)]);
            builder.item(&key, &value)?;
            bucket.insert(key, value);
        }
    }
    builder.finish(inline >= 128)?;
    Ok((memory.into_bytes(), model))
}

fn key_of(number: u64) -> Vec<u8> {
    // Some long ones, for branches that split early.
    let mut key = format!("{number:05}").into_bytes();
    key.resize(key.len() + if number.is_multiple_of(37) { 300 } else { 0 }, b'k');
    key
}

fn apply(edit: &mut Edit<Memory>, model: &mut Model, operation: &[u8]) -> Result<(), Error> {
    let name = [b'a' + operation[0] / 32 % 5];
    let key = key_of(u64::from(u16::from_le_bytes([operation[1], operation[2]])) % 6400);
    edit.create_bucket(&name)?;
    let bucket = model.entry(name.to_vec()).or_default();
    match operation[0] % 32 {
        0..14 => {
            let value = vec![operation[3]; usize::from(operation[3]) * 20 % LONGEST];
            edit.put(&name, &key, &value)?;
            bucket.insert(key, value);
        }
        14..28 => {
            // Keys are sparse, so the nearest one that is there is taken; a missing one is asked for too.
            let near = bucket.range(key.clone()..).next().map(|(near, _)| near.clone());
            for key in [Some(key), near].into_iter().flatten() {
                assert_eq!(edit.delete(&name, &key)?, bucket.remove(&key).is_some(), "whether a key was there");
            }
        }
        28 => {
            edit.clear_bucket(&name)?;
            bucket.clear();
        }
        29 => {
            // A stretch, so that whole pages go.
            let last = key_of(u64::from(u16::from_le_bytes([operation[1], operation[2]])) % 6400 + u64::from(operation[3]) * 4);
            let gone: Vec<Vec<u8>> = bucket.range(key.clone()..last.max(key)).map(|(key, _)| key.clone()).collect();
            for key in gone {
                edit.delete(&name, &key)?;
                bucket.remove(&key);
            }
        }
        _ => assert_eq!(edit.get(&name, &key)?.as_ref(), bucket.get(&key), "a value as it will be"),
    }
    Ok(())
}

fn compare(database: &Database<Memory>, model: &Model) -> Result<(), Error> {
    assert!(database.check().is_ok(), "an edit broke the file: {:?}", database.check());
    assert_eq!(database.bucket_names()?, model.keys().cloned().collect::<Vec<_>>());
    for (name, expected) in model {
        let bucket = database.bucket(name)?.ok_or_else(|| Error::NoBucket { name: name.clone() })?;
        let mut forward = bucket.cursor();
        let mut backward = bucket.cursor();
        for pair in expected {
            let pair = (pair.0.as_slice(), pair.1.as_slice());
            assert_eq!(forward.next()?, Some(pair), "the next key of bucket {name:?}");
        }
        assert_eq!(forward.next()?, None, "a key too many in bucket {name:?}");
        for pair in expected.iter().rev() {
            let pair = (pair.0.as_slice(), pair.1.as_slice());
            assert_eq!(backward.prev()?, Some(pair), "the key before in bucket {name:?}");
        }
        assert_eq!(backward.prev()?, None, "a key too many before bucket {name:?}");
        for key in (0..6400).step_by(911).map(key_of) {
            let above = expected.range(key.clone()..).next().map(|(key, value)| (key.as_slice(), value.as_slice()));
            assert_eq!(forward.seek(&key)?, above, "where a seek ends in bucket {name:?}");
            assert_eq!(bucket.get(&key)?.as_ref(), expected.get(&key));
        }
    }
    Ok(())
}
