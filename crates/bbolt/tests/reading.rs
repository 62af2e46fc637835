//! What was written is read back, whatever the page size and whichever way it is read.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use bbolt::build::Builder;
use bbolt::{Database, Error, Memory, PageId};
use common::{Content, Keys, Model, image, key, keys, sample};

const PAGE_SIZES: [u32; 7] = [1024, 2048, 4096, 8192, 16384, 32768, 65536];

#[test]
fn every_page_size_reads_back_by_walk() {
    for page_size in PAGE_SIZES {
        let model = sample(page_size);
        for (inline, freelist) in [(false, false), (true, false), (true, true)] {
            let database = Database::open(image(&model, page_size, inline, freelist)).unwrap();
            assert_eq!(database.meta().page_size, page_size);
            assert!(Content::of(&database).same(&Content::expected(&model)));
            let report = database.check().unwrap();
            assert_eq!(report.items, model.values().map(|keys| keys.len() as u64).sum::<u64>());
            assert_eq!(report.buckets, 5);
            assert_eq!(report.inline_buckets, if inline { 3 } else { 0 });
            assert_eq!(report.freelist_pages, u64::from(freelist));
            assert_eq!(report.free, 0);
            assert!(report.depth >= 2);
            assert_eq!(report.bytes_in_use, database.source().len() as u64);
        }
    }
}

#[test]
fn a_cursor_moves_forward_back_and_to_keys() {
    for inline in [false, true] {
        let model = sample(1024);
        let database = Database::open(image(&model, 1024, inline, false)).unwrap();
        assert_eq!(database.bucket_names().unwrap(), model.keys().cloned().collect::<Vec<_>>());
        for (name, expected) in &model {
            let bucket = database.bucket(name).unwrap().unwrap();
            let mut cursor = bucket.cursor();
            let mut forward = Keys::new();
            while let Some((key, value)) = cursor.next().unwrap() {
                forward.insert(key.to_vec(), value.to_vec());
            }
            assert_eq!(&forward, expected);
            assert_eq!(cursor.next().unwrap(), None);
            let mut backward = Vec::new();
            while let Some((key, _)) = cursor.prev().unwrap() {
                backward.push(key.to_vec());
            }
            assert!(backward.iter().eq(expected.keys().rev()));
            assert_eq!(cursor.prev().unwrap(), None);
            let first = cursor.next().unwrap().map(|(key, _)| key.to_vec());
            assert_eq!(first.as_ref(), expected.keys().next());
            let last = cursor.last().unwrap().map(|(key, _)| key.to_vec());
            assert_eq!(last.as_ref(), expected.keys().next_back());
        }
    }
}

#[test]
fn seek_finds_the_first_key_not_below() {
    let even: Keys = (0..4000).map(|number| (key(number * 2), b"v".to_vec())).collect();
    let model = Model::from([(b"even".to_vec(), even.clone())]);
    let database = Database::open(image(&model, 1024, false, false)).unwrap();
    let bucket = database.bucket(b"even").unwrap().unwrap();
    let mut cursor = bucket.cursor();
    for number in (0..8002).step_by(7) {
        let wanted = key(number);
        let found = cursor.seek(&wanted).unwrap().map(|(key, _)| key.to_vec());
        assert_eq!(found.as_ref(), even.range(wanted.clone()..).next().map(|(key, _)| key));
        assert_eq!(bucket.get(&wanted).unwrap(), even.get(&wanted).cloned());
    }
    assert_eq!(cursor.seek(b"").unwrap().unwrap().0, key(0));
    assert_eq!(cursor.seek(b"zzz").unwrap(), None);
    assert_eq!(cursor.prev().unwrap().unwrap().0, key(7998));
    assert!(database.bucket(b"odd").unwrap().is_none());
    assert!(bucket.bucket(&key(0)).unwrap().is_none());
}

#[test]
fn a_walk_ends_with_the_visitors_own_error() {
    #[derive(Debug)]
    enum Stop {
        Enough,
        Bad(Error),
    }
    impl From<Error> for Stop {
        fn from(error: Error) -> Self {
            Self::Bad(error)
        }
    }
    struct Few(u32);
    impl bbolt::Visitor for Few {
        type Error = Stop;
        fn item(&mut self, _: &[u8], _: &[u8]) -> Result<(), Stop> {
            self.0 += 1;
            if self.0 == 10 { Err(Stop::Enough) } else { Ok(()) }
        }
    }
    let database = Database::open(image(&sample(4096), 4096, false, false)).unwrap();
    let mut few = Few(0);
    assert!(matches!(database.walk(&mut few), Err(Stop::Enough)));
    assert_eq!(few.0, 10);
    let mut image = database.into_source();
    image[4096 * 2 + 8] = 0x77;
    let result = Database::open(image).unwrap().walk(&mut Few(0));
    assert!(matches!(result, Err(Stop::Bad(Error::Damaged { page: PageId(2), .. }))), "{result:?}");
}

#[test]
fn bytes_behind_the_last_page_do_not_matter() {
    let model = sample(4096);
    let mut bytes = image(&model, 4096, false, false);
    bytes.extend([0x5a; 32]);
    let database = Database::open(bytes.clone()).unwrap();
    assert!(Content::of(&database).same(&Content::expected(&model)));
    bytes.resize(bytes.len() + (1 << 20), 0);
    assert!(Content::of(&Database::open(bytes).unwrap()).same(&Content::expected(&model)));
}

#[test]
fn a_long_free_list_keeps_its_count_in_its_first_number() {
    for free in [0, 1, 0xFFFE, 0xFFFF, 0x1_0000, 70_000] {
        let sink = Memory::default();
        let mut builder = Builder::new(&sink, 1024).unwrap();
        builder.bucket(b"a", 7).unwrap();
        for number in 0..50 {
            builder.item(&key(number), &[1; 100]).unwrap();
        }
        builder.skip_pages(free).unwrap();
        builder.bucket(b"b", 8).unwrap();
        builder.item(b"k", b"v").unwrap();
        let database = builder.finish(true).unwrap();
        let report = database.check().unwrap();
        assert_eq!(report.free, free);
        assert_eq!(report.pages, report.free + report.reachable);
        assert_eq!(database.bucket(b"b").unwrap().unwrap().sequence(), 8);
    }
}

#[test]
fn the_builder_refuses_what_does_not_ascend() {
    let sink = Memory::default();
    let mut builder = Builder::new(&sink, 4096).unwrap();
    assert!(matches!(builder.item(b"k", b"v"), Err(Error::NotAscending)));
    builder.bucket(b"b", 0).unwrap();
    builder.item(b"k", b"v").unwrap();
    assert!(matches!(builder.item(b"k", b"v"), Err(Error::NotAscending)));
    assert!(matches!(builder.item(b"", b"v"), Err(Error::KeySize { size: 0 })));
    assert!(matches!(builder.item(&[1; 32_769], b""), Err(Error::KeySize { size: 32_769 })));
    assert!(matches!(builder.bucket(b"b", 0), Err(Error::NotAscending)));
    assert!(matches!(Builder::new(&sink, 4095), Err(Error::PageSize { found: 4095 })));
}

#[test]
fn the_longest_keys_make_branches_larger_than_a_page() {
    let long: Keys = (0..60u8).map(|number| (vec![number; 32_768], vec![number])).collect();
    let model = Model::from([(b"long".to_vec(), long), (b"short".to_vec(), keys(10, 10))]);
    let database = Database::open(image(&model, 1024, false, false)).unwrap();
    assert!(Content::of(&database).same(&Content::expected(&model)));
    assert!(database.check().unwrap().depth >= 5);
}
