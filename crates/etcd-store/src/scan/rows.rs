//! The collector that sees every row once.

use std::collections::BTreeMap;
use std::fmt;

use bbolt::{Database, ReadAt};

use super::fold::{Checkpoints, seed};
use super::live::Live;
use super::table::{Fingerprint, Latest};
use crate::crc::Crc32c;
use crate::error::{Bytes, Error};
use crate::id::{LeaseId, Revision};
use crate::limits::{MAX_CAPTURED_BYTES, MAX_CHECKPOINTS, MAX_LEASED_ROWS, MAX_ROWS, MAX_TRACKED_KEYS, MAX_WARNINGS};
use crate::row::{KeyValue, RowKey};
use crate::schema::{Listing, bucket, for_each};

/// Something odd about one row that does not keep etcd from serving it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowWarning {
    /// The row.
    pub row: RowKey,
    /// What is odd.
    pub problem: RowProblem,
}

impl fmt::Display for RowWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {}: {}", self.row, self.problem)
    }
}

/// What is odd about a row. No known etcd writes any of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowProblem {
    /// Revision 0, which etcd's index does not load.
    #[error("revision 0")]
    RevisionZero,
    /// The same revision as the row before.
    #[error("the same revision as the row before")]
    SameRevision,
    /// The value names another revision than the key.
    #[error("its value says mod_revision {0}")]
    ModRevision(i64),
    /// Created after it was modified, or before the first revision.
    #[error("its value says create_revision {0}")]
    CreateRevision(i64),
    /// A version below 1, or version 1 of a key created earlier.
    #[error("its value says version {0}")]
    Version(i64),
    /// No user key, and yet a value: not a bump's row either.
    #[error("it has no user key")]
    NoKey,
    /// A deletion with more than the key.
    #[error("it is a deletion and has more than a key")]
    Deletion,
}

/// Puts a live key, given with its value, into a class.
pub type Classifier<'a> = &'a dyn Fn(&[u8], &[u8]) -> u16;

/// What a caller wants to know of live keys beside their number.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wanted<'a> {
    pub(crate) classify: Option<Classifier<'a>>,
    pub(crate) capture: &'a [&'a [u8]],
}

/// The live value of a key asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// The value, or its first [`MAX_CAPTURED_BYTES`] bytes.
    pub value: Vec<u8>,
    /// True when the value is longer.
    pub cut: bool,
    /// Revision of its last change.
    pub mod_revision: Revision,
}

/// How much may be remembered before further passes are made instead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    pub(crate) keys: usize,
    pub(crate) checkpoints: usize,
    pub(crate) leased: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { keys: MAX_TRACKED_KEYS, checkpoints: MAX_CHECKPOINTS, leased: MAX_LEASED_ROWS }
    }
}

/// A row with a lease, in 12 bytes.
#[derive(Clone, Copy)]
struct LeasedRow {
    row: u32,
    lease: [u32; 2],
}

/// Sees every row up to `at` in ascending order, once.
pub(crate) struct KeyRows<'a> {
    at: Revision,
    compact: Option<Revision>,
    wanted: Wanted<'a>,
    wanted_prints: Vec<Fingerprint>,
    live: Live,
    checkpoints: Checkpoints,
    leased: Option<Vec<LeasedRow>>,
    max_leased: usize,
    previous: Option<RowKey>,
    pub(crate) rows: u64,
    pub(crate) tombstones: u64,
    pub(crate) epoch: Option<Revision>,
    pub(crate) warnings: Listing<RowWarning>,
    pub(crate) captured: Vec<Option<Captured>>,
}

impl<'a> KeyRows<'a> {
    /// `crc` is the running checksum before the bucket's first row.
    pub(crate) fn new(at: Revision, compact: Option<Revision>, crc: u32, wanted: Wanted<'a>) -> Self {
        Self::with_budget(at, compact, crc, wanted, Budget::default())
    }

    pub(crate) fn with_budget(at: Revision, compact: Option<Revision>, crc: u32, wanted: Wanted<'a>, budget: Budget) -> Self {
        let live = Live::with_limit(budget.keys);
        Self {
            at,
            compact,
            wanted,
            wanted_prints: wanted.capture.iter().map(|key| live.fingerprint(key)).collect(),
            live,
            checkpoints: Checkpoints::new(crc, budget.checkpoints),
            max_leased: budget.leased,
            leased: Some(Vec::new()),
            previous: None,
            rows: 0,
            tombstones: 0,
            epoch: None,
            warnings: Listing::default(),
            captured: vec![None; wanted.capture.len()],
        }
    }

    /// Notes the next row. `crc` takes the row's bytes, unless the row is beyond `at`: then false is returned, and no row after it
    /// needs to be shown.
    pub(crate) fn row(&mut self, key: &[u8], value: &[u8], crc: &mut Crc32c) -> Result<bool, Error> {
        let (row_key, row) = decode(key, value)?;
        if row_key.main > self.at {
            return Ok(false);
        }
        let number = self.next_number()?;
        crc.update(key);
        crc.update(value);
        let compacted = self.compact.is_some_and(|compact| row_key.main <= compact);
        self.checkpoints.row(crc.value(), (key.len() + value.len()) as u64, compacted);
        self.judge(&row_key, &row, value.is_empty());
        if row_key.tombstone {
            self.tombstones += 1;
        } else if value.is_empty() {
            self.epoch = Some(row_key.main);
        }
        self.previous = Some(row_key);
        if row_key.main.0 == 0 {
            // etcd's index begins at revision 1: such a row is hashed, but never live.
            self.live.stray(number);
            return Ok(true);
        }
        let print = self.live.fingerprint(row.key);
        self.capture(print, &row_key, &row);
        if let (Some(_), false) = (row.lease(), row_key.tombstone) {
            self.note_lease(number, row.lease);
        }
        let class = match self.wanted.classify {
            Some(classify) if !row_key.tombstone => classify(row.key, row.value),
            _ => 0,
        };
        self.live.row(print, Latest { row: number, tombstone: row_key.tombstone, class });
        Ok(true)
    }

    fn next_number(&mut self) -> Result<u32, Error> {
        if self.rows >= MAX_ROWS {
            return Err(Error::TooMany { bucket: bucket::KEY, limit: MAX_ROWS });
        }
        let number = self.rows as u32;
        self.rows += 1;
        Ok(number)
    }

    fn judge(&mut self, key: &RowKey, row: &KeyValue<'_>, empty: bool) {
        let mut warn = |problem| self.warnings.push(MAX_WARNINGS, || RowWarning { row: *key, problem });
        if key.main.0 == 0 {
            warn(RowProblem::RevisionZero);
        }
        if self.previous.is_some_and(|before| (before.main, before.sub) >= (key.main, key.sub)) {
            warn(RowProblem::SameRevision);
        }
        if key.tombstone {
            if *row != KeyValue::tombstone(row.key) {
                warn(RowProblem::Deletion);
            }
            return;
        }
        if empty {
            return;
        }
        if row.key.is_empty() {
            warn(RowProblem::NoKey);
        }
        if row.mod_revision != key.main.0 {
            warn(RowProblem::ModRevision(row.mod_revision));
        }
        if row.create_revision < 1 || row.create_revision > row.mod_revision {
            warn(RowProblem::CreateRevision(row.create_revision));
        }
        if row.version < 1 || (row.version == 1) != (row.create_revision == row.mod_revision) {
            warn(RowProblem::Version(row.version));
        }
    }

    #[inline]
    fn capture(&mut self, print: Fingerprint, key: &RowKey, row: &KeyValue<'_>) {
        for (index, &wanted) in self.wanted_prints.iter().enumerate() {
            if wanted == print && self.wanted.capture[index] == row.key {
                let value = row.value.get(..MAX_CAPTURED_BYTES).unwrap_or(row.value);
                let cut = value.len() < row.value.len();
                let captured = Captured { value: value.to_vec(), cut, mod_revision: key.main };
                self.captured[index] = (!key.tombstone).then_some(captured);
            }
        }
    }

    fn note_lease(&mut self, row: u32, lease: i64) {
        let Some(leased) = &mut self.leased else {
            return;
        };
        if leased.len() >= self.max_leased {
            let live = &self.live;
            leased.retain(|leased| live.is_live(leased.row));
            if leased.len() >= self.max_leased.div_ceil(2) {
                self.leased = None;
                return;
            }
        }
        let id = lease.cast_unsigned();
        leased.push(LeasedRow { row, lease: [(id >> 32) as u32, id as u32] });
    }

    /// Makes the further passes that many keys need. Then live counts are final.
    pub(crate) fn finish<S: ReadAt>(&mut self, database: &Database<S>) -> Result<(), Error> {
        while self.live.end_pass() {
            let mut number = 0;
            for_each(database, bucket::KEY, |key, value| {
                let (row_key, row) = decode(key, value)?;
                if row_key.main > self.at {
                    return Ok(false);
                }
                if number >= self.rows {
                    return Err(Error::Changed);
                }
                let print = self.live.fingerprint(row.key);
                if row_key.main.0 != 0 && self.live.wants(print) {
                    let class = match self.wanted.classify {
                        Some(classify) if !row_key.tombstone => classify(row.key, row.value),
                        _ => 0,
                    };
                    self.live.row(print, Latest { row: number as u32, tombstone: row_key.tombstone, class });
                }
                number += 1;
                Ok(true)
            })?;
        }
        Ok(())
    }

    /// Live keys, by etcd's own count: the row a bump leaves counts as a key. After [`KeyRows::finish`].
    pub(crate) fn live_keys(&self) -> u64 {
        self.live.keys
    }

    /// Live keys per class. After [`KeyRows::finish`].
    pub(crate) fn classes(&mut self) -> BTreeMap<u16, u64> {
        std::mem::take(&mut self.live.classes)
    }

    /// The last row seen.
    pub(crate) fn last_key(&self) -> Option<RowKey> {
        self.previous
    }

    /// HashKV over what was seen. After [`KeyRows::finish`].
    pub(crate) fn hash<S: ReadAt>(&self, database: &Database<S>) -> Result<u32, Error> {
        // Without any live key etcd leaves out nothing but deletions at the compact revision, which the checkpoints cannot tell.
        if self.live.keys != 0
            && let Some(hash) = self.checkpoints.fold(|row| self.live.is_live(row))
        {
            return Ok(hash);
        }
        let mut crc = Crc32c::resume(seed());
        let mut number = 0_u64;
        for_each(database, bucket::KEY, |key, value| {
            let row_key = parse_key(key)?;
            if row_key.main > self.at {
                return Ok(false);
            }
            if number >= self.rows {
                return Err(Error::Changed);
            }
            let compacted = self.compact.is_some_and(|compact| row_key.main <= compact);
            let dropped = compacted && self.live.keys != 0 && !self.live.is_live(number as u32);
            let deletion_at_compaction = row_key.tombstone && Some(row_key.main) == self.compact;
            if !dropped && !deletion_at_compaction {
                crc.update(key);
                crc.update(value);
            }
            number += 1;
            Ok(true)
        })?;
        Ok(crc.value())
    }

    /// Calls `found` with leases that live rows refer to, ascending (as unsigned numbers) and each once within a call; several
    /// calls only when there are more leased rows than can be remembered. After [`KeyRows::finish`].
    pub(crate) fn for_leases<S: ReadAt>(
        &mut self,
        database: &Database<S>,
        mut found: impl FnMut(&[LeaseId]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut ids: Vec<LeaseId> = Vec::new();
        let mut flush = |ids: &mut Vec<LeaseId>, full: usize| {
            ids.sort_unstable_by_key(|id| id.0.cast_unsigned());
            ids.dedup();
            if ids.len() > full {
                found(ids)?;
                ids.clear();
            }
            Ok(())
        };
        if let Some(leased) = self.leased.take() {
            for row in leased.into_iter().filter(|leased| self.live.is_live(leased.row)) {
                let [high, low] = row.lease.map(u64::from);
                ids.push(LeaseId((high << 32 | low).cast_signed()));
            }
            return flush(&mut ids, 0);
        }
        let (mut number, max) = (0, self.max_leased);
        for_each(database, bucket::KEY, |key, value| {
            let (row_key, row) = decode(key, value)?;
            if row_key.main > self.at {
                return Ok(false);
            }
            if let (Some(lease), true) = (row.lease(), self.live.is_live(number)) {
                ids.push(lease);
            }
            number = number.saturating_add(1);
            if ids.len() >= max {
                flush(&mut ids, max / 2)?;
            }
            Ok(true)
        })?;
        flush(&mut ids, 0)
    }
}

fn parse_key(key: &[u8]) -> Result<RowKey, Error> {
    RowKey::parse(key).map_err(|source| Error::RowKey { key: Bytes::from(key), source })
}

#[inline]
pub(crate) fn decode<'v>(key: &[u8], value: &'v [u8]) -> Result<(RowKey, KeyValue<'v>), Error> {
    let row_key = parse_key(key)?;
    let row = KeyValue::decode(value).map_err(|source| Error::RowValue { key: row_key, source })?;
    Ok((row_key, row))
}

/// The last row of the bucket, as bytes.
pub(crate) struct LastRow {
    pub(crate) key: RowKey,
    pub(crate) key_bytes: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// Reads the last row without a pass; none when the bucket is empty.
pub(crate) fn last_row<S: ReadAt>(database: &Database<S>) -> Result<Option<LastRow>, Error> {
    let rows = database.bucket(bucket::KEY.as_bytes())?.ok_or(Error::NotEtcd)?;
    let mut cursor = rows.cursor();
    cursor.last()?;
    if cursor.is_bucket() {
        return Err(Error::Nested(Bytes::from(bucket::KEY.as_bytes())));
    }
    let Some((key, value)) = cursor.item()? else {
        return Ok(None);
    };
    Ok(Some(LastRow { key: parse_key(key)?, key_bytes: key.to_vec(), value: value.to_vec() }))
}
