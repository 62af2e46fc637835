//! Which state of a file is opened, and which files are refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io;

use bbolt::{Database, Edit, Error, Memory, MetaProblem, PageId, ReadAt};
use common::{Content, image, patch_metas, sample, sign_meta};

/// The file that bbolt 1.4.3 makes when it opens a new one with 4 KiB pages.
fn golden() -> Vec<u8> {
    let mut image = vec![0; 4 * 4096];
    let meta = |txid: u8, checksum: [u8; 8]| {
        let mut page = vec![txid, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0];
        page.extend([0xed, 0xda, 0x0c, 0xed, 2, 0, 0, 0, 0x00, 0x10, 0, 0, 0, 0, 0, 0]);
        page.extend([3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        page.extend([2, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        page.extend([txid, 0, 0, 0, 0, 0, 0, 0]);
        page.extend(checksum);
        page
    };
    image[..80].copy_from_slice(&meta(0, [0xee, 0xfd, 0x89, 0x46, 0x11, 0x6e, 0x51, 0x07]));
    image[4096..4176].copy_from_slice(&meta(1, [0x0f, 0x48, 0x79, 0x51, 0x1a, 0x35, 0x4c, 0x26]));
    image[8192] = 2;
    image[8200] = 0x10;
    image[12288] = 3;
    image[12296] = 2;
    image
}

#[test]
fn a_new_file_of_bbolt_is_empty_and_sound() {
    let database = Database::open(golden()).unwrap();
    let meta = database.meta();
    assert_eq!((meta.page, meta.page_size, meta.txid), (PageId(1), 4096, 1));
    assert_eq!((meta.root, meta.freelist, meta.high_water_mark), (PageId(3), Some(PageId(2)), PageId(4)));
    assert_eq!(database.damaged_meta(), None);
    assert!(database.bucket_names().unwrap().is_empty());
    let report = database.check().unwrap();
    assert_eq!((report.pages, report.reachable, report.free), (4, 4, 0));
    assert_eq!((report.leaf_pages, report.freelist_pages, report.depth), (1, 1, 1));
}

#[test]
fn an_edit_of_a_new_file_is_these_bytes() {
    let database = Database::open(Memory::new(golden())).unwrap();
    let mut edit = Edit::begin(database).unwrap();
    edit.create_bucket(b"b").unwrap();
    edit.put(b"b", b"key", b"value").unwrap();
    let image = edit.commit().unwrap().into_source().into_bytes();
    let mut expected = golden();
    expected.resize(6 * 4096, 0);
    let bucket = [[4, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 16, 0, 0, 0, 3, 0, 0, 0, 5, 0, 0, 0]];
    expected[4 * 4096..][..32].copy_from_slice(bucket.as_flattened());
    expected[4 * 4096 + 32..][..8].copy_from_slice(b"keyvalue");
    let root = [[5, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 16, 0, 0, 0]];
    expected[5 * 4096..][..32].copy_from_slice(root.as_flattened());
    expected[5 * 4096 + 32] = b'b';
    expected[5 * 4096 + 33] = 4;
    expected[16 + 16] = 5;
    expected[16 + 32..][..8].fill(0xFF);
    expected[16 + 40] = 6;
    expected[16 + 48] = 2;
    sign_meta(&mut expected, 4096, 0);
    assert!(image == expected);
}

#[test]
fn one_damaged_meta_page_is_fine_and_named() {
    for page_size in [1024, 4096, 65536] {
        let model = sample(1024);
        let intact = image(&model, page_size, false, false);
        for page in [0, 1] {
            for at in 0..64 {
                let mut image = intact.clone();
                image[page * page_size as usize + 16 + at] ^= 0x10;
                let database = Database::open(image).unwrap();
                assert_eq!(database.damaged_meta(), Some(PageId(page as u64)));
                assert_eq!(database.meta().txid, 1 - page as u64);
                assert!(Content::of(&database).same(&Content::expected(&model)));
            }
            let mut image = intact.clone();
            image[page * page_size as usize..][..page_size as usize].fill(0xEE);
            assert!(Content::of(&Database::open(image).unwrap()).same(&Content::expected(&model)));
        }
    }
}

#[test]
fn two_damaged_meta_pages_are_no_database() {
    let mut bytes = golden();
    bytes[16 + 50] ^= 1;
    bytes[4096 + 16 + 4] = 3;
    let error = Database::open(bytes).unwrap_err();
    assert!(matches!(error, Error::NoMeta { first: MetaProblem::Checksum, second: MetaProblem::Version(3) }), "{error:?}");
    for length in [0, 1, 79, 80, 4096, 20000] {
        let error = Database::open(vec![0; length]).unwrap_err();
        assert!(matches!(error, Error::NoMeta { .. }), "{length}: {error:?}");
    }
}

#[test]
fn a_big_endian_file_is_refused_by_name() {
    let mut bytes = golden();
    for page in [0, 4096] {
        // Header: id u64, flags u16, count u16, overflow u32. Meta: four u32, six u64.
        for (start, length) in [(0, 8), (8, 2), (10, 2), (12, 4), (16, 4), (20, 4), (24, 4), (28, 4)] {
            bytes[page + start..][..length].reverse();
        }
        (32..80).step_by(8).for_each(|start| bytes[page + start..][..8].reverse());
    }
    assert!(matches!(Database::open(bytes.clone()), Err(Error::BigEndian)));
    bytes[..80].fill(0);
    assert!(matches!(Database::open(bytes), Err(Error::BigEndian)));
}

#[test]
fn a_file_that_ends_early_is_truncated() {
    let bytes = image(&sample(1024), 1024, false, false);
    for length in (0..bytes.len()).step_by(511) {
        match Database::open(bytes[..length].to_vec()) {
            Err(Error::Truncated { size, needed }) => {
                assert_eq!((size, needed), (length as u64, bytes.len() as u64));
                assert!(length >= 80);
            }
            Err(Error::NoMeta { .. }) => assert!(length < 80),
            other => panic!("{length}: {other:?}"),
        }
    }
}

#[test]
fn numbers_that_contradict_the_file_are_refused() {
    let refused = |at, number| {
        let mut bytes = golden();
        patch_metas(&mut bytes, 4096, at, number);
        Database::open(bytes).unwrap_err()
    };
    let reference = |error: &Error| matches!(error, Error::Damaged { page: PageId(1), .. });
    for root in [0, 1, 4, u64::MAX] {
        assert!(reference(&refused(16, root)));
    }
    for freelist in [0, 1, 4, u64::MAX - 1] {
        assert!(reference(&refused(32, freelist)));
    }
    assert!(reference(&refused(40, 3)), "the root is not below the high-water mark");
    for mark in [5, 1 << 40, 1 << 52, u64::MAX] {
        assert!(matches!(refused(40, mark), Error::Truncated { size: 16384, .. }), "{mark}");
    }
    for page_size in [0, 1, 512, 4095, 131_072, u64::from(u32::MAX)] {
        assert!(matches!(refused(8, page_size), Error::PageSize { .. }), "{page_size}");
    }
}

/// Claims any size; has only its own bytes.
struct Claims(Vec<u8>, u64);

impl ReadAt for Claims {
    fn size(&self) -> u64 {
        self.1
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        assert!(buffer.len() <= 16 << 20, "memory for {} bytes that may not exist", buffer.len());
        self.0.read_exact_at(buffer, offset)
    }
}

#[test]
fn a_sparse_file_of_absurd_size_is_refused() {
    let mut bytes = golden();
    patch_metas(&mut bytes, 4096, 40, 1 << 45);
    let error = Database::open(Claims(bytes, u64::MAX)).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::TooManyPages { .. }), "{error:?}");
}

#[test]
fn memory_is_taken_only_for_bytes_that_are_there() {
    let mut bytes = golden();
    patch_metas(&mut bytes, 4096, 40, 1 << 20);
    bytes[12288 + 12..][..4].copy_from_slice(&100_000_u32.to_le_bytes());
    let database = Database::open(Claims(bytes.clone(), 1 << 40)).unwrap();
    assert!(matches!(database.check(), Err(Error::Read { .. })));
    assert!(matches!(database.bucket_names(), Err(Error::Read { .. })));
    bytes[12288 + 12..][..4].copy_from_slice(&200_000_u32.to_le_bytes());
    let error = Database::open(Claims(bytes, 1 << 40)).unwrap().check().unwrap_err();
    assert!(error.to_string().contains("more than 536870912"), "{error}");
}
