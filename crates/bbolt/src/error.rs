//! What can be wrong with a database, and where.

use std::io;

use crate::meta::PageId;

/// Why a database could not be read, checked or edited.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The source refused to give bytes that exist according to its size.
    #[error("cannot read {length} bytes at offset {offset}")]
    Read {
        /// First byte wanted.
        offset: u64,
        /// Number of bytes wanted.
        length: usize,
        /// What the source said.
        source: io::Error,
    },
    /// The source refused to take bytes. The state of the last commit is untouched.
    #[error("cannot write {length} bytes at offset {offset}")]
    Write {
        /// First byte to be written.
        offset: u64,
        /// Number of bytes to be written.
        length: usize,
        /// What the source said.
        source: io::Error,
    },
    /// The source could not make written bytes durable.
    #[error("cannot bring written pages to stable storage")]
    Sync(#[source] io::Error),
    /// Neither meta page is usable, so this is no bbolt database, or its head is destroyed.
    #[error("not a bbolt database: meta page 0: {first}; meta page 1: {second}")]
    NoMeta {
        /// What is wrong with meta page 0.
        first: MetaProblem,
        /// What is wrong with meta page 1, at the place where it would be most likely.
        second: MetaProblem,
    },
    /// The file was written on a big-endian machine (s390x). bbolt files are not portable between byte orders.
    #[error("the database was written on a big-endian machine (s390x); such files are not supported")]
    BigEndian,
    /// The page size is none that an operating system uses.
    #[error("page size {found} is not a power of two from 1024 to 65536")]
    PageSize {
        /// The page size in the meta page.
        found: u32,
    },
    /// The file ends before the last page that the database uses.
    #[error("the file is truncated: {size} bytes, but the database's pages take {needed}")]
    Truncated {
        /// Length of the file, bytes.
        size: u64,
        /// Length the meta page speaks of, bytes; `u64::MAX` when it does not fit.
        needed: u64,
    },
    /// The database is larger than this crate handles.
    #[error("the database has {pages} pages; at most {limit} are supported")]
    TooManyPages {
        /// The high-water mark.
        pages: u64,
        /// The largest high-water mark supported.
        limit: u64,
    },
    /// A page contradicts the format or the rest of the tree.
    #[error("page {page} is damaged at byte {offset} of the file: {problem}")]
    Damaged {
        /// The page; for an inline bucket the page that holds it.
        page: PageId,
        /// Offset in the file of the bytes that are wrong.
        offset: u64,
        /// What is wrong with them.
        problem: Problem,
    },
    /// There are more buckets than one list may hold.
    #[error("more than {limit} top-level buckets, or their names are longer than the list may be")]
    TooManyBuckets {
        /// The most names a list holds.
        limit: usize,
    },
    /// An edit names a bucket that is not there.
    #[error("there is no bucket {:?}", String::from_utf8_lossy(name))]
    NoBucket {
        /// Its name.
        name: Vec<u8>,
    },
    /// A key is empty or longer than 32768 bytes.
    #[error("a key of {size} bytes; 1 to 32768 are allowed")]
    KeySize {
        /// Its length.
        size: usize,
    },
    /// A value does not fit the largest page.
    #[error("a value of {size} bytes; at most {limit} are allowed beside its key")]
    ValueSize {
        /// Its length.
        size: usize,
        /// The most bytes allowed for this key.
        limit: u64,
    },
    /// An edit would treat a nested bucket as a value.
    #[error("the key {:?} names a nested bucket, not a value", String::from_utf8_lossy(key))]
    IsBucket {
        /// The key.
        key: Vec<u8>,
    },
    /// Keys given to a [`crate::build::Builder`] do not ascend.
    #[error("keys and buckets must be added in strictly ascending order")]
    NotAscending,
    /// The transaction id is at its end. No real database gets there.
    #[error("the transaction id {txid} cannot be raised")]
    TransactionIds {
        /// The last one.
        txid: u64,
    },
}

/// Why a meta page is not usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetaProblem {
    /// The file ends before it.
    #[error("the file ends before it")]
    Missing,
    /// It does not begin with bbolt's magic number.
    #[error("wrong magic number {0:#010x}")]
    Magic(u32),
    /// It is of a version other than 2.
    #[error("unknown version {0}")]
    Version(u32),
    /// Its checksum does not match.
    #[error("wrong checksum")]
    Checksum,
    /// It speaks of a page size that does not fit the place it was found at.
    #[error("its page size {0} does not fit its place in the file")]
    PageSize(u32),
}

/// What is wrong with the bytes that [`Error::Damaged`] points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A page calls itself by another number.
    #[error("the page calls itself {found}")]
    PageNumber {
        /// The number in its header.
        found: PageId,
    },
    /// A page's type is not the one its place asks for.
    #[error("page type {flags:#06x}, expected {expected}")]
    PageType {
        /// The flags in its header.
        flags: u16,
        /// What the place asks for.
        expected: &'static str,
    },
    /// A page's overflow goes beyond the high-water mark.
    #[error("{overflow} overflow pages go beyond the high-water mark {high_water_mark}")]
    Overflow {
        /// The overflow count in its header.
        overflow: u32,
        /// The first page never used.
        high_water_mark: PageId,
    },
    /// A page is larger than any limit of this crate.
    #[error("{bytes} bytes for one page, or pages held at once, are more than {limit}")]
    TooBig {
        /// The bytes it would take.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A reference to a page that cannot hold what is referred to.
    #[error("refers to page {target}, outside 2 to {high_water_mark}")]
    Reference {
        /// The page referred to.
        target: PageId,
        /// The first page never used.
        high_water_mark: PageId,
    },
    /// The page, or its overflow, is reached a second time: a cycle or an overlap.
    #[error("the page is used twice")]
    UsedTwice,
    /// The page is both in the free list and reachable.
    #[error("the page is in use and in the free list")]
    FreeAndUsed,
    /// The page is neither reachable nor in the free list.
    #[error("the page is neither in use nor in the free list")]
    Lost,
    /// The free list names a page twice.
    #[error("the free list names page {0} twice")]
    FreeTwice(PageId),
    /// The free list claims more entries than its page has room for.
    #[error("the free list claims {count} entries, more than fit its page")]
    FreeCount {
        /// The number claimed.
        count: u64,
    },
    /// The element table is larger than the page.
    #[error("{count} elements do not fit the page")]
    ElementTable {
        /// The number of elements claimed.
        count: u16,
    },
    /// An element's key or value lies outside its page, or not right behind the table or the element before.
    #[error("element {index} lies outside its page or not right behind the data before it")]
    Element {
        /// Position in the page, from 0.
        index: usize,
    },
    /// An element has flags that no writer sets.
    #[error("element {index} has unknown flags {flags:#010x}")]
    ElementFlags {
        /// Position in the page, from 0.
        index: usize,
        /// The flags.
        flags: u32,
    },
    /// A key is empty or too long.
    #[error("element {index} has a key of {size} bytes; 1 to 32768 are allowed")]
    KeySize {
        /// Position in the page, from 0.
        index: usize,
        /// Length of the key.
        size: u32,
    },
    /// A key is not greater than the one before it.
    #[error("the key of element {index} is not greater than the key before it")]
    KeyOrder {
        /// Position in the page, from 0.
        index: usize,
    },
    /// A page's first key is below the key its parent knows it by.
    #[error("the first key is below the parent's key for this page")]
    BelowParent,
    /// A page's last key reaches into the next page's range.
    #[error("the last key is not below the parent's key for the next page")]
    AboveParent,
    /// A page without elements where at least one must be.
    #[error("the page is empty, which only a bucket's only page may be")]
    Empty,
    /// A tree or a chain of nested buckets is deeper than any real one.
    #[error("nested more than {limit} deep")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// A plain key where only buckets can be.
    #[error("element {index} of the root is not a bucket")]
    NotABucket {
        /// Position in the page, from 0.
        index: usize,
    },
    /// A bucket's value is too short, or an inline bucket holds another bucket.
    #[error("the bucket in element {index} is malformed")]
    BucketValue {
        /// Position in the page, from 0.
        index: usize,
    },
    /// A leaf hangs beside branches, so the tree cannot be edited safely.
    #[error("leaves at different depths; the tree cannot be edited")]
    Unbalanced,
}
