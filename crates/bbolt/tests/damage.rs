//! Damaged files: every contradiction is found and named, nothing makes the crate panic or run on.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use bbolt::{Database, Edit, Error, Memory, PageId, Problem, ReadAt};
use common::{Content, Keys, Model, image, key, keys, patch_metas, value};

const PAGE: usize = 1024;

/// A small file with everything in it: inline buckets, a branch, overflow, a free list, padding.
fn small() -> (Model, Vec<u8>) {
    let model = Model::from([
        (b"branch".to_vec(), keys(60, 40)),
        (b"empty".to_vec(), Keys::new()),
        (b"inline".to_vec(), keys(2, 20)),
        (b"wide".to_vec(), Keys::from([(key(1), value(1, 2000)), (key(2), value(2, 10))])),
    ]);
    let bytes = image(&model, PAGE as u32, true, true);
    (model, bytes)
}

/// Reads everything in every way, edits it, and says what the walk said.
fn exercise(bytes: &[u8]) -> Result<Content, Error> {
    bbolt::fuzzing::read(bytes);
    let database = Database::open(Memory::new(bytes.to_vec()))?;
    let mut content = Content::default();
    let walked = database.walk(&mut content);
    let edited = change(database);
    walked.map(|_| content).inspect(|_| {
        edited.unwrap();
    })
}

fn change(database: Database<Memory>) -> Result<(), Error> {
    let names = database.bucket_names()?;
    let mut edit = Edit::begin(database)?;
    for name in &names {
        edit.put(name, &key(5), b"new")?;
        edit.delete(name, &key(1))?;
    }
    edit.create_bucket(b"zz")?;
    edit.commit()?.check()?;
    Ok(())
}

/// The bytes of the file that are keys, values or sequence numbers, where no structure can be seen; and the sizes of
/// each page's last key and value, which nothing follows that would have to move.
fn is_data(bytes: &[u8]) -> Vec<bool> {
    let mut data = vec![false; bytes.len()];
    let mut page = 2 * PAGE;
    while page < bytes.len() {
        mark(&bytes[page..], &mut data[page..]);
        page += PAGE * (1 + u32_at(bytes, page + 12) as usize);
    }
    data
}

fn mark(page: &[u8], data: &mut [bool]) {
    let (flags, count) = (page[8], usize::from(u16::from_le_bytes([page[10], page[11]])));
    for at in (0..count).map(|index| 16 + 16 * index) {
        match flags {
            1 => {
                let start = at + u32_at(page, at) as usize;
                data[start..start + u32_at(page, at + 4) as usize].fill(true);
            }
            2 => {
                let start = at + u32_at(page, at + 4) as usize;
                let value = start + u32_at(page, at + 8) as usize;
                let end = value + u32_at(page, at + 12) as usize;
                data[start..value].fill(true);
                if page[at] == 0 {
                    data[value..end].fill(true);
                } else {
                    data[value + 8..value + 16].fill(true);
                    if page[value..value + 8] == [0; 8] {
                        mark(&page[value + 16..end], &mut data[value + 16..end]);
                    }
                }
            }
            _ => {}
        }
        if flags == 2 && at == 16 * count {
            data[at + 8..at + 16].fill(true);
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// How many keys, values, names or sequence numbers differ.
fn differences(one: &Content, other: &Content) -> usize {
    let flat = |content: &Content| {
        let mut lines = Vec::new();
        for (path, (sequence, keys)) in &content.buckets {
            lines.push((path.clone(), *sequence, Vec::new(), Vec::new()));
            lines.extend(keys.iter().map(|(key, value)| (Vec::new(), 0, key.clone(), value.clone())));
        }
        lines
    };
    let (one, other) = (flat(one), flat(other));
    assert_eq!(one.len(), other.len());
    one.iter().zip(&other).filter(|(one, other)| one != other).count()
}

#[test]
fn every_flipped_byte_is_an_error_or_without_effect_or_one_changed_datum() {
    let (model, intact) = small();
    let expected = Content::expected(&model);
    let data = is_data(&intact);
    assert!(intact.len() <= 20 * PAGE, "{} bytes are many", intact.len());
    let (mut errors, mut harmless, mut changed) = (0, 0, 0);
    for at in 0..intact.len() {
        for flip in [0x01, 0x80, 0xFF] {
            let mut bytes = intact.clone();
            bytes[at] ^= flip;
            match exercise(&bytes) {
                Err(_) => errors += 1,
                Ok(content) if content.same(&expected) => harmless += 1,
                Ok(content) => {
                    assert!(data[at], "byte {at} is structure, yet its flip shows other content");
                    assert_eq!(differences(&content, &expected), 1, "byte {at}");
                    changed += 1;
                }
            }
        }
    }
    assert!(errors > 1000 && harmless > 1000 && changed > 1000, "{errors} {harmless} {changed}");
}

#[test]
fn every_truncation_is_an_error() {
    let (_, intact) = small();
    for length in (0..intact.len()).step_by(64) {
        assert!(exercise(&intact[..length]).is_err(), "{length}");
        let mut blank = intact.clone();
        blank[length..].fill(0);
        let _ = exercise(&blank);
    }
    for page in 2..intact.len() / PAGE {
        let mut blank = intact.clone();
        blank[page * PAGE..][..PAGE].fill(0);
        let inside_overflow = u32_at(&intact, (page - 1) * PAGE + 12) > 0 || intact[page * PAGE] != page as u8;
        assert!(inside_overflow || exercise(&blank).is_err(), "page {page}");
    }
}

/// The first page of the given type, and its offset.
fn find(bytes: &[u8], flags: u8, count: impl Fn(usize) -> bool) -> (u64, usize) {
    let page = (2..bytes.len() / PAGE)
        .find(|page| {
            let at = page * PAGE;
            bytes[at] == *page as u8 && bytes[at + 8] == flags && count(usize::from(bytes[at + 10]))
        })
        .unwrap();
    (page as u64, page * PAGE)
}

fn damage(bytes: &[u8]) -> (PageId, u64, Problem) {
    bbolt::fuzzing::read(bytes);
    match Database::open(bytes.to_vec()).unwrap().check() {
        Err(Error::Damaged { page, offset, problem }) => (page, offset, problem),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cycle_ends_as_a_page_used_twice() {
    let (_, mut bytes) = small();
    let (page, at) = find(&bytes, 1, |_| true);
    for child in [0, 1] {
        let mut bytes = bytes.clone();
        bytes[at + 16 + 16 * child + 8..][..8].copy_from_slice(&page.to_le_bytes());
        assert_eq!(damage(&bytes), (PageId(page), at as u64, Problem::UsedTwice));
    }
    let first: [u8; 8] = bytes[at + 24..at + 32].try_into().unwrap();
    bytes[at + 16 + 16 + 8..][..8].copy_from_slice(&first);
    let shared = PageId(u64::from_le_bytes(first));
    assert_eq!(damage(&bytes), (shared, shared.0 * PAGE as u64, Problem::UsedTwice));
    let database = Database::open(bytes).unwrap();
    let bucket = database.bucket(b"branch").unwrap().unwrap();
    let mut cursor = bucket.cursor();
    let ended = loop {
        match cursor.next() {
            Ok(Some(_)) => {}
            other => break other.map(|_| ()),
        }
    };
    assert!(matches!(ended, Err(Error::Damaged { problem: Problem::KeyOrder { .. }, .. })), "{ended:?}");
}

#[test]
fn a_chain_of_branches_that_never_ends_is_too_deep() {
    // Every page is a branch whose only child is the next page.
    let pages = 100;
    let (_, small) = small();
    let mut bytes = small[..2 * PAGE].to_vec();
    for page in 2..pages {
        let mut branch = vec![0; PAGE];
        branch[..8].copy_from_slice(&(page as u64).to_le_bytes());
        branch[8] = 1;
        branch[10] = 1;
        branch[16] = 16;
        branch[20] = 1;
        branch[24..32].copy_from_slice(&(page as u64 + 1).to_le_bytes());
        branch[32] = b'k';
        bytes.extend(branch);
    }
    bytes.extend(vec![0; PAGE]);
    patch_metas(&mut bytes, PAGE as u32, 16, 2);
    patch_metas(&mut bytes, PAGE as u32, 32, u64::MAX);
    patch_metas(&mut bytes, PAGE as u32, 40, pages as u64 + 1);
    assert!(matches!(damage(&bytes).2, Problem::TooDeep { .. }));
    let database = Database::open(Memory::new(bytes)).unwrap();
    assert!(database.bucket_names().is_err());
    let mut edit = Edit::begin(database).unwrap();
    assert!(edit.create_bucket(b"b").is_err());
}

#[test]
fn overlapping_pages_are_found() {
    let (_, mut bytes) = small();
    let (page, at) = find(&bytes, 2, |count| count > 5);
    bytes[at + 12] = 1;
    assert_eq!(damage(&bytes).2, Problem::UsedTwice);
    bytes[at + 12..at + 16].fill(0xFF);
    let (found, _, problem) = damage(&bytes);
    assert_eq!(found, PageId(page));
    assert!(matches!(problem, Problem::Overflow { overflow: u32::MAX, .. }));
}

#[test]
fn absurd_numbers_are_found_where_they_are() {
    let (_, bytes) = small();
    let (leaf, at) = find(&bytes, 2, |count| count > 5);
    let with = |offset: usize, number: u32| {
        let mut bytes = bytes.clone();
        bytes[at + offset..][..4].copy_from_slice(&number.to_le_bytes());
        let (page, found, problem) = damage(&bytes);
        assert_eq!(page, PageId(leaf));
        (found as usize - at, problem)
    };
    let element = 16 + 16 * 2;
    assert_eq!(with(element, 2), (element, Problem::ElementFlags { index: 2, flags: 2 }));
    for pos in [0, 1, 15, 16, u32::MAX] {
        assert_eq!(with(element + 4, pos), (element, Problem::Element { index: 2 }));
    }
    for size in [0, 32_769, u32::MAX] {
        assert_eq!(with(element + 8, size), (element, Problem::KeySize { index: 2, size }));
    }
    assert_eq!(with(element + 8, 1025), (element, Problem::Element { index: 2 }));
    assert_eq!(with(element + 12, u32::MAX), (element, Problem::Element { index: 2 }));
    // A value that reaches over the next key.
    let value_size = u32_at(&bytes, at + element + 12);
    assert_eq!(with(element + 12, value_size + 1), (element + 16, Problem::Element { index: 3 }));
    assert_eq!(with(8, 0xFFFF_0002), (10, Problem::ElementTable { count: 0xFFFF }));
    assert_eq!(with(8, 0x0000_0002), (0, Problem::Empty));
    assert_eq!(with(8, 0x0001_0003), (0, Problem::PageType { flags: 3, expected: "branch or leaf" }));
    assert_eq!(with(0, 77), (0, Problem::PageNumber { found: PageId(77) }));
}

#[test]
fn keys_out_of_order_or_range_are_found() {
    let (_, bytes) = small();
    let (branch, at) = find(&bytes, 1, |_| true);
    let child = |index: usize| u64::from_le_bytes(bytes[at + 16 + 16 * index + 8..][..8].try_into().unwrap());
    // Two children change places.
    let mut swapped = bytes.clone();
    swapped[at + 16 + 8..][..8].copy_from_slice(&child(1).to_le_bytes());
    swapped[at + 32 + 8..][..8].copy_from_slice(&child(0).to_le_bytes());
    assert_eq!(damage(&swapped).2, Problem::AboveParent);
    // The parent's key for the second child rises above that child's first key, or falls into the first child.
    let last_digit = at + 32 + u32_at(&bytes, at + 32) as usize + key(0).len() - 1;
    let mut raised = bytes.clone();
    raised[last_digit] = b'~';
    assert_eq!(damage(&raised), (PageId(child(1)), child(1) * PAGE as u64, Problem::BelowParent));
    let mut lowered = bytes.clone();
    lowered[last_digit - 1] = b'0';
    assert_eq!(damage(&lowered), (PageId(child(0)), child(0) * PAGE as u64, Problem::AboveParent));
    let mut equal = bytes.clone();
    let first = at + 16 + u32_at(&bytes, at + 16) as usize;
    let second = at + 32 + u32_at(&bytes, at + 32) as usize;
    equal.copy_within(first..first + key(0).len(), second);
    assert_eq!(damage(&equal), (PageId(branch), at as u64 + 32, Problem::KeyOrder { index: 1 }));
    let mut away = bytes.clone();
    away[at + 32 + 8..][..8].copy_from_slice(&1_000_000_u64.to_le_bytes());
    assert!(matches!(damage(&away).2, Problem::Reference { target: PageId(1_000_000), .. }));
    let mut none = bytes.clone();
    none[at + 10] = 0;
    assert_eq!(damage(&none), (PageId(branch), at as u64 + 10, Problem::Empty));
}

#[test]
fn a_stored_free_list_must_name_exactly_the_free_pages() {
    let sink = Memory::default();
    let mut builder = bbolt::build::Builder::new(&sink, PAGE as u32).unwrap();
    builder.skip_pages(4).unwrap();
    builder.bucket(b"b", 0).unwrap();
    builder.item(b"k", b"v").unwrap();
    let list = builder.finish(true).unwrap().meta().freelist.unwrap();
    let bytes = sink.into_bytes();
    let at = list.0 as usize * PAGE;
    let with = |offset: usize, number: u64| {
        let mut bytes = bytes.clone();
        bytes[at + offset..][..8].copy_from_slice(&number.to_le_bytes());
        damage(&bytes)
    };
    assert_eq!(u32_at(&bytes, at + 16), 2, "pages 2 to 5 are free");
    assert_eq!(with(16, 6), (PageId(2), 2 * PAGE as u64, Problem::Lost));
    assert_eq!(with(16, 3), (list, at as u64 + 24, Problem::FreeTwice(PageId(3))));
    assert!(matches!(with(16, 1).2, Problem::Reference { target: PageId(1), .. }));
    assert!(matches!(with(16, 1 << 60).2, Problem::Reference { .. }));
    let mut more = bytes.clone();
    more[at + 10] = 5;
    more[at + 16 + 32] = 6;
    assert_eq!(damage(&more), (PageId(6), 6 * PAGE as u64, Problem::FreeAndUsed));
    let mut fewer = bytes.clone();
    fewer[at + 10] = 3;
    assert_eq!(damage(&fewer).2, Problem::Lost);
    let mut long = bytes.clone();
    long[at + 10..at + 12].fill(0xFF);
    long[at + 16..at + 24].fill(0xFF);
    assert_eq!(damage(&long), (list, at as u64 + 10, Problem::FreeCount { count: u64::MAX }));
    let mut typed = bytes;
    typed[at + 8] = 2;
    assert_eq!(damage(&typed).2, Problem::PageType { flags: 2, expected: "free list" });
}

#[test]
fn buckets_that_hold_too_little_or_too_much_are_found() {
    let (_, bytes) = small();
    let at = Database::open(bytes.clone()).unwrap().meta().root.0 as usize * PAGE;
    let element = |index: usize| at + 16 + 16 * index;
    let value = |index: usize| {
        let element = element(index);
        element + u32_at(&bytes, element + 4) as usize + u32_at(&bytes, element + 8) as usize
    };
    let with = |offset: usize, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[offset] = byte;
        damage(&bytes).2
    };
    assert_eq!(with(element(0), 0), Problem::NotABucket { index: 0 });
    assert_eq!(with(element(0) + 12, 15), Problem::BucketValue { index: 0 });
    assert_eq!(with(element(1) + 12, 31), Problem::BucketValue { index: 1 });
    assert_eq!(with(value(2) + 16 + 8, 1), Problem::BucketValue { index: 2 });
    assert_eq!(with(value(2) + 16 + 10, 200), Problem::ElementTable { count: 200 });
    assert_eq!(with(value(2) + 32, 1), Problem::BucketValue { index: 0 }, "a bucket inside an inline one");
    assert!(matches!(with(value(0), 1), Problem::Reference { target: PageId(1), .. }));
    assert!(matches!(with(value(0) + 7, 1), Problem::Reference { .. }));
}

/// Fails at the read with the given number.
struct Failing(Vec<u8>, AtomicU32);

impl ReadAt for Failing {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self.1.fetch_sub(1, Ordering::Relaxed) {
            0 => Err(io::ErrorKind::TimedOut.into()),
            _ => self.0.read_exact_at(buffer, offset),
        }
    }
}

#[test]
fn a_failing_read_is_told_at_every_point() {
    let (_, bytes) = small();
    let mut reads = 0;
    loop {
        let source = Failing(bytes.clone(), AtomicU32::new(reads));
        match Database::open(source).and_then(|database| database.check()) {
            Err(Error::Read { source, .. }) => assert_eq!(source.kind(), io::ErrorKind::TimedOut),
            Ok(_) => break,
            other => panic!("{other:?}"),
        }
        reads += 1;
    }
    assert!(reads > 6, "{reads}");
}
