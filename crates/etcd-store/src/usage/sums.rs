//! What a group of rows takes, and how two groups are ordered.

use std::cmp::Ordering;

/// What a list of groups is ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Bytes of all its rows in the file.
    Bytes,
    /// The number of its rows in the file.
    Revisions,
    /// Changes per key since the last compaction.
    Churn,
}

/// What a group of rows takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Different keys, deleted ones whose deletion is still in the file included.
    pub keys: u64,
    /// Of these the live ones.
    pub live_keys: u64,
    /// Rows: revisions of keys that are in the file, deletions included.
    pub rows: u64,
    /// Of these the deletions.
    pub tombstones: u64,
    /// Of the rows those after the last compaction. All changes since then are in the file, so this is how often something was changed.
    pub changes: u64,
    /// Bytes of all rows as stored, their revision keys included.
    pub bytes: u64,
    /// Of these the bytes of rows that are live.
    pub live_bytes: u64,
}

impl Sums {
    pub(super) fn of_row(bytes: u64, tombstone: bool, is_latest: bool, is_change: bool) -> Self {
        let is_live = is_latest && !tombstone;
        Self {
            keys: u64::from(is_latest),
            live_keys: u64::from(is_live),
            rows: 1,
            tombstones: u64::from(tombstone),
            changes: u64::from(is_change),
            bytes,
            live_bytes: if is_live { bytes } else { 0 },
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.keys += other.keys;
        self.live_keys += other.live_keys;
        self.rows += other.rows;
        self.tombstones += other.tombstones;
        self.changes += other.changes;
        self.bytes += other.bytes;
        self.live_bytes += other.live_bytes;
    }

    /// Changes per key since the last compaction.
    #[must_use]
    pub fn churn(&self) -> f64 {
        self.changes as f64 / self.keys.max(1) as f64
    }

    /// How two groups are ordered; ties of the one number are settled by bytes.
    #[must_use]
    pub fn compare(&self, other: &Self, by: By) -> Ordering {
        let one = match by {
            By::Bytes => Ordering::Equal,
            By::Revisions => self.rows.cmp(&other.rows),
            // As fractions, without rounding.
            By::Churn => {
                let product = |changes: u64, keys: u64| u128::from(changes) * u128::from(keys.max(1));
                product(self.changes, other.keys).cmp(&product(other.changes, self.keys))
            }
        };
        one.then(self.bytes.cmp(&other.bytes))
    }
}
