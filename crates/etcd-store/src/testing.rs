//! Databases made for tests.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use bbolt::build::Builder;
use bbolt::{Database, Memory};

/// Keys with their values.
pub(crate) type Items = Vec<(Vec<u8>, Vec<u8>)>;

/// A database with these buckets and items, in any order.
pub(crate) fn database(buckets: &[(&str, Items)]) -> Database<Vec<u8>> {
    Database::open(image(buckets)).unwrap()
}

/// The same as bytes.
pub(crate) fn image(buckets: &[(&str, Items)]) -> Vec<u8> {
    let sorted: BTreeMap<&str, BTreeMap<&[u8], &[u8]>> =
        buckets.iter().map(|(name, items)| (*name, items.iter().map(|(key, value)| (&key[..], &value[..])).collect())).collect();
    let memory = Memory::default();
    let mut builder = Builder::new(&memory, 4096).unwrap();
    builder.inline_small_buckets(true);
    for (name, items) in sorted {
        builder.bucket(name.as_bytes(), 0).unwrap();
        for (key, value) in items {
            builder.item(key, value).unwrap();
        }
    }
    builder.finish(false).unwrap();
    memory.into_bytes()
}
