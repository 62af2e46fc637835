//! Which rows are live: the latest of their key, and not a deletion.

use std::collections::BTreeMap;

use super::table::{Fingerprint, Fingerprints, Latest, Partition, Table};

/// Rows looked up together.
const BATCH: usize = 64;

/// One bit per row of the bucket.
#[derive(Debug, Default)]
pub(super) struct RowSet(Vec<u64>);

impl RowSet {
    #[inline]
    fn insert(&mut self, row: u32) {
        let word = row as usize / 64;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (row % 64);
    }

    #[inline]
    pub(super) fn contains(&self, row: u32) -> bool {
        self.0.get(row as usize / 64).is_some_and(|word| word >> (row % 64) & 1 == 1)
    }
}

/// Finds the live rows in one pass over all rows in ascending order, or in several when there are more keys than memory allows.
#[derive(Debug)]
pub(crate) struct Live {
    prints: Fingerprints,
    table: Table,
    limit: usize,
    part: Partition,
    todo: Vec<Partition>,
    dead: RowSet,
    /// Whether a deletion that is the latest row of its key counts like a live row.
    deletions_count: bool,
    /// Rows noted and not yet in the table.
    waiting: Vec<(Fingerprint, Latest)>,
    /// Live keys of the parts done.
    pub(super) keys: u64,
    /// The same per class.
    pub(super) classes: BTreeMap<u16, u64>,
}

impl Live {
    /// Keeps at most about `limit` keys at a time.
    pub(crate) fn with_limit(limit: usize) -> Self {
        Self {
            prints: Fingerprints::new(),
            table: Table::new(),
            limit,
            part: Partition::ALL,
            todo: Vec::new(),
            dead: RowSet::default(),
            deletions_count: false,
            waiting: Vec::with_capacity(BATCH),
            keys: 0,
            classes: BTreeMap::new(),
        }
    }

    /// Finds the latest row of every key instead, whether it is a deletion or not.
    pub(crate) fn latest_rows(limit: usize) -> Self {
        Self { deletions_count: true, ..Self::with_limit(limit) }
    }

    #[inline]
    pub(crate) fn fingerprint(&self, key: &[u8]) -> Fingerprint {
        self.prints.of(key)
    }

    /// Whether the present pass is about this key.
    #[inline]
    pub(crate) fn wants(&self, print: Fingerprint) -> bool {
        self.part.holds(print)
    }

    /// Notes the next row. Rows must come in ascending order in every pass, with the same numbers.
    #[inline]
    pub(crate) fn row(&mut self, print: Fingerprint, latest: Latest) {
        if latest.tombstone && !self.deletions_count {
            self.dead.insert(latest.row);
        }
        self.waiting.push((print, latest));
        if self.waiting.len() == BATCH {
            self.flush();
        }
    }

    /// Every lookup misses the caches. Touching the slots of a whole batch first lets the misses overlap, which halves the time of
    /// a pass.
    fn flush(&mut self) {
        self.table.touch(self.waiting.iter().map(|(print, _)| *print));
        for index in 0..self.waiting.len() {
            let (print, latest) = self.waiting[index];
            if !self.part.holds(print) {
                continue;
            }
            if let Some(before) = self.table.replace(print, latest) {
                self.dead.insert(before.row);
            } else if self.table.len() > self.limit {
                self.halve();
            }
        }
        self.waiting.clear();
    }

    /// A row that belongs to no key.
    pub(crate) fn stray(&mut self, row: u32) {
        self.dead.insert(row);
    }

    /// Goes on with half of the present part; the other half waits for a later pass. What was found about it so far stays true.
    #[cold]
    fn halve(&mut self) {
        if let Some((near, far)) = self.part.split() {
            self.part = near;
            self.todo.push(far);
            self.table.retain(near);
        }
    }

    /// Ends a pass; true when another one over all rows is needed.
    pub(crate) fn end_pass(&mut self) -> bool {
        self.flush();
        for latest in self.table.entries().filter(|latest| !latest.tombstone) {
            self.keys += 1;
            *self.classes.entry(latest.class).or_default() += 1;
        }
        match self.todo.pop() {
            Some(part) => {
                self.part = part;
                self.table.clear();
                true
            }
            None => {
                self.table = Table::new();
                false
            }
        }
    }

    /// Whether a row is live. Final after the last pass only; until then rows may seem live that are not.
    #[inline]
    pub(crate) fn is_live(&self, row: u32) -> bool {
        !self.dead.contains(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// One row per element: which key, and whether it is deleted.
    fn passes(live: &mut Live, rows: &[(u16, bool)]) -> usize {
        let mut passes = 0;
        loop {
            passes += 1;
            for (row, &(key, tombstone)) in (0..).zip(rows) {
                let print = live.fingerprint(&key.to_be_bytes());
                if live.wants(print) {
                    live.row(print, Latest { row, tombstone, class: key % 5 });
                }
            }
            if !live.end_pass() {
                return passes;
            }
        }
    }

    proptest! {
        #[test]
        fn any_memory_limit_gives_the_same(rows in prop::collection::vec((0_u16..200, prop::bool::weighted(0.2)), 0..600), limit in 8_usize..300) {
            let mut latest: HashMap<u16, u32> = HashMap::new();
            for (row, &(key, _)) in (0..).zip(&rows) {
                latest.insert(key, row);
            }
            let is_live = |row: u32| { let (key, tombstone) = rows[row as usize]; !tombstone && latest[&key] == row };
            let mut live = Live::with_limit(limit);
            let passes = passes(&mut live, &rows);
            prop_assert!(latest.len() > limit || passes == 1);
            for row in 0..rows.len() as u32 {
                prop_assert_eq!(live.is_live(row), is_live(row), "row {}", row);
            }
            let expected = (0..rows.len() as u32).filter(|&row| is_live(row)).count() as u64;
            prop_assert_eq!(live.keys, expected);
            prop_assert_eq!(live.classes.values().sum::<u64>(), expected);
        }
    }
}
