//! Who fills the database: the largest keys, prefixes and classes of keys, and what the rest of the file is.
//!
//! Every row of the bucket `key` counts, old revisions and deletions included, for that is what takes the room. The first pass proves the structure and
//! finds each key's latest row; the next ones sum up. Memory does not follow the number of keys: beyond the limits of [`crate::limits`] further passes
//! are made, and the answer is the same.

mod group;
mod sums;

use std::collections::BTreeMap;

use bbolt::{CheckReport, Database, ReadAt, Visitor};

use crate::error::{Bytes, Error};
use crate::hash_kv::store_revision;
use crate::id::Revision;
use crate::limits::{MAX_GROUPED_BYTES, MAX_LISTED_BUCKETS, MAX_ROWS, MAX_TRACKED_KEYS, MAX_USAGE_LINES};
use crate::row::RowKey;
use crate::scan::{Latest, Live, decode, last_row};
use crate::schema::{bucket, for_each, read_meta};

pub use group::prefix_length;
pub use sums::{By, Sums};

use group::Groups;

/// Puts a user key into a class.
pub type KeyClassifier<'a> = &'a dyn Fn(&[u8]) -> u16;

/// What is asked.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// What the lists are ordered by, the greatest first.
    pub by: By,
    /// Lines of each list at most; more than [`MAX_USAGE_LINES`] are cut.
    pub lines: usize,
    /// Only keys that begin with this.
    pub prefix: &'a [u8],
    /// How many parts between slashes a prefix has in the list of prefixes.
    pub depth: usize,
    /// Puts a key into a class; the answer has the sums of each. It is called for every row, so it must be cheap.
    pub classify: Option<KeyClassifier<'a>>,
}

impl std::fmt::Debug for Question<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Question")
            .field("by", &self.by)
            .field("lines", &self.lines)
            .field("prefix", &Bytes::from(self.prefix))
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}

/// A key or a prefix, and what it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its bytes, or the first of them.
    pub name: Vec<u8>,
    /// True when it is longer than what is shown.
    pub cut: bool,
    /// What it takes.
    pub sums: Sums,
}

/// What one bucket holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketUse {
    /// Its name; empty for all buckets together beyond [`MAX_LISTED_BUCKETS`].
    pub name: Vec<u8>,
    /// Keys with values in it.
    pub items: u64,
    /// Bytes of these keys and values.
    pub bytes: u64,
}

/// Who fills a database. [`Usage::total`] is the sum of what the buckets hold, [`Usage::overhead`] and [`Usage::free`].
#[derive(Clone, Debug)]
pub struct Usage {
    /// Page size, bytes.
    pub page_size: u32,
    /// The proof of the structure, with page counts.
    pub check: CheckReport,
    /// What each bucket holds, in the order of their names.
    pub buckets: Vec<BucketUse>,
    /// The store's revision.
    pub revision: Revision,
    /// The higher one of both compaction marks: changes after it are all in the file.
    pub compact_revision: Option<Revision>,
    /// All rows.
    pub all: Sums,
    /// Rows of the keys asked for.
    pub matched: Sums,
    /// These, per class.
    pub classes: BTreeMap<u16, Sums>,
    /// The greatest prefixes.
    pub prefixes: Vec<Named>,
    /// The greatest keys.
    pub keys: Vec<Named>,
    /// How often the rows were read.
    pub passes: u32,
}

impl Usage {
    /// Bytes the database's pages take, free ones included: what etcd calls its size.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.check.pages.saturating_mul(u64::from(self.page_size))
    }

    /// Bytes of free pages, which a defragmentation gives back.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.check.free.saturating_mul(u64::from(self.page_size))
    }

    /// Bytes of pages in use that hold no key and no value: headers, branches, and what is left empty at the end of pages.
    #[must_use]
    pub fn overhead(&self) -> u64 {
        self.check.bytes_in_use.saturating_sub(self.check.item_bytes)
    }
}

/// How much may be held before further passes are made instead.
#[derive(Clone, Copy, Debug)]
struct Budget {
    keys: usize,
    grouped: usize,
}

/// Finds out who fills a database, and proves its structure on the way.
///
/// # Errors
///
/// [`Error::NotEtcd`], [`Error::Nested`], rows that cannot be decoded, [`Error::Database`]; [`Error::Changed`] when somebody writes to it meanwhile.
pub fn usage<S: ReadAt>(database: &Database<S>, question: &Question<'_>) -> Result<Usage, Error> {
    with_budget(database, question, Budget { keys: MAX_TRACKED_KEYS, grouped: MAX_GROUPED_BYTES })
}

fn with_budget<S: ReadAt>(database: &Database<S>, question: &Question<'_>, budget: Budget) -> Result<Usage, Error> {
    let meta = read_meta(database)?;
    let last = last_row(database)?.map(|row| row.key.main);
    let mut first = First { rows: Rows { live: Live::latest_rows(budget.keys), count: 0 }, in_rows: false, buckets: Vec::new() };
    let check = database.walk(&mut first)?;
    let First { mut rows, buckets, .. } = first;
    let expected = rows.count;
    let mut passes = 1;
    while rows.live.end_pass() {
        passes += 1;
        rows.count = 0;
        for_each(database, bucket::KEY, |key, value| rows.row(key, value).map(|()| true))?;
        unchanged(rows.count, expected)?;
    }
    let compact = meta.compact_revision();
    let lines = question.lines.min(MAX_USAGE_LINES);
    let mut sum = Summing {
        question,
        compact,
        all: Sums::default(),
        matched: Sums::default(),
        classes: BTreeMap::new(),
        keys: Groups::new(question.by, lines, budget.grouped),
        prefixes: Groups::new(question.by, lines, budget.grouped),
    };
    let mut is_first = true;
    loop {
        passes += 1;
        let mut number = 0;
        for_each(database, bucket::KEY, |key, value| {
            let (row_key, row) = decode(key, value)?;
            let is_latest = row_key.main.0 != 0 && rows.live.is_live(number);
            number = number.saturating_add(1);
            sum.row(row_key, row.key, (key.len() + value.len()) as u64, is_latest, is_first);
            Ok(true)
        })?;
        unchanged(u64::from(number), expected)?;
        is_first = false;
        // Both, whatever the first one says.
        let more = [sum.keys.end_pass(), sum.prefixes.end_pass()];
        if more == [false, false] {
            break;
        }
    }
    Ok(Usage {
        page_size: database.meta().page_size,
        check,
        buckets,
        revision: store_revision(last, &meta),
        compact_revision: compact,
        all: sum.all,
        matched: sum.matched,
        classes: sum.classes,
        prefixes: sum.prefixes.finish(),
        keys: sum.keys.finish(),
        passes,
    })
}

fn unchanged(found: u64, expected: u64) -> Result<(), Error> {
    if found == expected { Ok(()) } else { Err(Error::Changed) }
}

/// Finds the latest row of each key.
struct Rows {
    live: Live,
    count: u64,
}

impl Rows {
    fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let (row_key, row) = decode(key, value)?;
        if self.count >= MAX_ROWS {
            return Err(Error::TooMany { bucket: bucket::KEY, limit: MAX_ROWS });
        }
        // Below 2^31: MAX_ROWS.
        let number = self.count as u32;
        self.count += 1;
        if row_key.main.0 == 0 {
            // etcd's index begins at revision 1.
            self.live.stray(number);
            return Ok(());
        }
        let print = self.live.fingerprint(row.key);
        if self.live.wants(print) {
            self.live.row(print, Latest { row: number, tombstone: row_key.tombstone, class: 0 });
        }
        Ok(())
    }
}

/// The pass that proves the structure.
struct First {
    rows: Rows,
    in_rows: bool,
    buckets: Vec<BucketUse>,
}

impl Visitor for First {
    type Error = Error;

    fn bucket(&mut self, name: &[u8], _sequence: u64) -> Result<(), Error> {
        self.in_rows = name == bucket::KEY.as_bytes();
        match self.buckets.len() {
            0..MAX_LISTED_BUCKETS => self.buckets.push(BucketUse { name: name.to_vec(), items: 0, bytes: 0 }),
            MAX_LISTED_BUCKETS => self.buckets.push(BucketUse { name: Vec::new(), items: 0, bytes: 0 }),
            _ => {}
        }
        Ok(())
    }

    fn item(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        if let Some(bucket) = self.buckets.last_mut() {
            bucket.items += 1;
            bucket.bytes += (key.len() + value.len()) as u64;
        }
        if self.in_rows { self.rows.row(key, value) } else { Ok(()) }
    }

    fn nested(&mut self, path: &[Vec<u8>], _sequence: u64) -> Result<(), Error> {
        Err(Error::Nested(Bytes::from(path.first().map_or(&[][..], Vec::as_slice))))
    }
}

/// The passes that sum up.
struct Summing<'a> {
    question: &'a Question<'a>,
    compact: Option<Revision>,
    all: Sums,
    matched: Sums,
    classes: BTreeMap<u16, Sums>,
    keys: Groups,
    prefixes: Groups,
}

impl Summing<'_> {
    fn row(&mut self, row: RowKey, key: &[u8], bytes: u64, is_latest: bool, is_first: bool) {
        let is_change = self.compact.is_none_or(|compact| row.main > compact);
        let one = Sums::of_row(bytes, row.tombstone, is_latest, is_change);
        if is_first {
            self.all.add(&one);
        }
        if !key.starts_with(self.question.prefix) {
            return;
        }
        if is_first {
            self.matched.add(&one);
            if let Some(classify) = self.question.classify {
                self.classes.entry(classify(key)).or_default().add(&one);
            }
        }
        self.keys.add(key, &one);
        let length = prefix_length(key, self.question.depth).max(self.question.prefix.len());
        self.prefixes.add(key.get(..length).unwrap_or(key), &one);
    }
}

#[cfg(test)]
mod tests;
