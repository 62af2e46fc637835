//! HashKV from one running checksum: stretches of rows are taken out of it afterwards, without reading them again.
//!
//! Which rows up to the compact revision count is known only when all later rows have been seen. CRC is linear, so it is enough to
//! remember the running value and the length after each of those rows.

use crate::crc::{checksum, concatenate, suffix};
use crate::schema::bucket;

/// What HashKV starts with: the name of the bucket.
pub(super) fn seed() -> u32 {
    checksum(bucket::KEY.as_bytes())
}

/// The running checksum, remembered where it may be needed.
#[derive(Debug)]
pub(super) struct Checkpoints {
    /// The running value before the first row.
    start: u32,
    /// After each row up to the compact revision: running value, length of the row.
    rows: Vec<(u32, u32)>,
    /// After all rows.
    end: u32,
    /// Length of the rows beyond the compact revision.
    tail: u64,
    limit: usize,
    overflown: bool,
}

impl Checkpoints {
    /// `start` is the running value before the first row, whatever was hashed before; at most `limit` rows are remembered.
    pub(super) fn new(start: u32, limit: usize) -> Self {
        Self { start, rows: Vec::new(), end: start, tail: 0, limit, overflown: false }
    }

    /// Notes the next row: the running value after it, its length, and whether it may have to be taken out again.
    #[inline]
    pub(super) fn row(&mut self, crc: u32, length: u64, compacted: bool) {
        self.end = crc;
        if !compacted {
            self.tail += length;
        } else if let (false, Ok(length)) = (self.overflown || self.rows.len() >= self.limit, u32::try_from(length)) {
            self.rows.push((crc, length));
        } else {
            self.overflown = true;
            self.rows = Vec::new();
        }
    }

    /// The checksum as if only the rows up to the compact revision that `keep` says, and all beyond it, had been hashed after
    /// [`seed`]; none when there were too many rows to remember.
    pub(super) fn fold(&self, keep: impl Fn(u32) -> bool) -> Option<u32> {
        if self.overflown {
            return None;
        }
        let mut hash = seed();
        let (mut before, mut length, mut last) = (self.start, 0_u64, self.start);
        for (row, &(crc, row_length)) in (0..).zip(&self.rows) {
            if keep(row) {
                length += u64::from(row_length);
            } else {
                hash = append(hash, before, last, length);
                (before, length) = (crc, 0);
            }
            last = crc;
        }
        Some(append(hash, before, self.end, length + self.tail))
    }
}

/// Appends the stretch between two running values to `hash`.
fn append(hash: u32, before: u32, after: u32, length: u64) -> u32 {
    concatenate(hash, suffix(before, after, length), length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crc::Crc32c;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn folding_equals_hashing_what_is_kept(prefix: Vec<u8>, rows: Vec<(Vec<u8>, bool)>, tail: Vec<Vec<u8>>) {
            let mut crc = Crc32c::new();
            crc.update(&prefix);
            let mut checkpoints = Checkpoints::new(crc.value(), usize::MAX);
            let mut expected = b"key".to_vec();
            for (row, keep) in &rows {
                crc.update(row);
                checkpoints.row(crc.value(), row.len() as u64, true);
                if *keep {
                    expected.extend(row);
                }
            }
            for row in &tail {
                crc.update(row);
                checkpoints.row(crc.value(), row.len() as u64, false);
                expected.extend(row);
            }
            prop_assert_eq!(checkpoints.fold(|row| rows[row as usize].1), Some(checksum(&expected)));
        }
    }
}
