//! What the tests share: images, a file as a source, a comparable dump.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bbolt::build::Builder;
use bbolt::{Database, Error, Memory, ReadAt, Visitor, WriteAt};

/// One bucket's content.
pub(crate) type Keys = BTreeMap<Vec<u8>, Vec<u8>>;

/// Top-level buckets by name.
pub(crate) type Model = BTreeMap<Vec<u8>, Keys>;

/// A file as a source. The crate itself never opens one.
#[derive(Debug)]
pub(crate) struct Disk(pub(crate) File);

impl ReadAt for Disk {
    fn size(&self) -> u64 {
        self.0.metadata().unwrap().len()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(&self.0, buffer, offset)
    }
}

impl WriteAt for Disk {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(&self.0, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        // No test takes the machine's power away.
        Ok(())
    }
}

/// Everything a walk shows: per bucket its path, its sequence number and its items.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
pub(crate) struct Content {
    pub(crate) buckets: BTreeMap<Vec<Vec<u8>>, (u64, Keys)>,
    current: Vec<Vec<u8>>,
}

impl Visitor for Content {
    type Error = Error;

    fn bucket(&mut self, name: &[u8], sequence: u64) -> Result<(), Error> {
        self.current = vec![name.to_vec()];
        self.buckets.insert(self.current.clone(), (sequence, Keys::new()));
        Ok(())
    }

    fn item(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let (_, keys) = self.buckets.get_mut(&self.current).unwrap();
        assert!(keys.last_key_value().is_none_or(|(last, _)| last.as_slice() < key), "order of keys");
        keys.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn nested(&mut self, path: &[Vec<u8>], sequence: u64) -> Result<(), Error> {
        self.buckets.insert(path.to_vec(), (sequence, Keys::new()));
        Ok(())
    }

    fn nested_item(&mut self, path: &[Vec<u8>], key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.buckets.get_mut(path).unwrap().1.insert(key.to_vec(), value.to_vec());
        Ok(())
    }
}

impl Content {
    /// What the walk of a sound database shows.
    pub(crate) fn of<S: ReadAt>(database: &Database<S>) -> Self {
        let mut content = Self::default();
        database.walk(&mut content).unwrap();
        content
    }

    /// What a model's database must show, sequence numbers left at 0.
    pub(crate) fn expected(model: &Model) -> Self {
        let buckets = model.iter().map(|(name, keys)| (vec![name.clone()], (0, keys.clone())));
        Self { buckets: buckets.collect(), current: Vec::new() }
    }

    pub(crate) fn same(&self, other: &Self) -> bool {
        self.buckets == other.buckets
    }
}

/// A fresh image of the model.
pub(crate) fn image(model: &Model, page_size: u32, inline: bool, store_freelist: bool) -> Vec<u8> {
    let sink = Memory::default();
    let mut builder = Builder::new(&sink, page_size).unwrap();
    builder.inline_small_buckets(inline);
    for (name, keys) in model {
        builder.bucket(name, 0).unwrap();
        for (key, value) in keys {
            builder.item(key, value).unwrap();
        }
    }
    builder.finish(store_freelist).unwrap();
    sink.into_bytes()
}

/// A bucket of `count` keys that end in their number, each with a value of `size` bytes.
pub(crate) fn keys(count: u32, size: usize) -> Keys {
    (0..count).map(|number| (key(number), value(number, size))).collect()
}

pub(crate) fn key(number: u32) -> Vec<u8> {
    format!("key-{number:08}").into_bytes()
}

pub(crate) fn value(number: u32, size: usize) -> Vec<u8> {
    (0..size).map(|at| (number as usize * 31 + at * 7) as u8).collect()
}

/// Several buckets: empty, tiny, one page, several levels, values larger than a page.
pub(crate) fn sample(page_size: u32) -> Model {
    let mut big = keys(5, page_size as usize * 3 / 2);
    big.insert(b"small".to_vec(), b"beside big ones".to_vec());
    Model::from([
        (b"big".to_vec(), big),
        (b"deep".to_vec(), keys(page_size, 60)),
        (b"empty".to_vec(), Keys::new()),
        (b"one".to_vec(), keys(3, 20)),
        (b"tiny".to_vec(), keys(1, 1)),
    ])
}

/// Makes the checksum of a meta page fit what it says.
pub(crate) fn sign_meta(image: &mut [u8], page_size: u32, page: usize) {
    let body = &mut image[page * page_size as usize + 16..][..64];
    let hash = body[..56].iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    body[56..].copy_from_slice(&hash.to_le_bytes());
}

/// Writes a number into both metas, `at` bytes from their beginning, and signs them.
pub(crate) fn patch_metas(image: &mut [u8], page_size: u32, at: usize, number: u64) {
    for page in [0, 1] {
        let start = page * page_size as usize + 16 + at;
        image[start..start + 8].copy_from_slice(&number.to_le_bytes());
        sign_meta(image, page_size, page);
    }
}
