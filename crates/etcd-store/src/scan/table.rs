//! The latest row of every user key, in little memory.
//!
//! A key is known by 88 bits of its SipHash-1-3-128 under a random key: a pseudo-random function, so nobody who writes keys into an
//! etcd can make two of them meet, and among two million keys a chance meeting has a probability below 2^-45. A slot takes 16
//! bytes. Sixteen segments grow one at a time, by a quarter, so that growing adds a twentieth to the peak instead of doubling it.

use std::hash::{BuildHasher, Hasher, RandomState};

use siphasher::sip128::SipHasher13;

/// The keyed hash of a user key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    high: u64,
    low: u64,
}

impl Fingerprint {
    /// The one that [`Fingerprint::bytes`] gave.
    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        let bytes = u128::from_be_bytes(bytes);
        Self { high: (bytes >> 64) as u64, low: bytes as u64 }
    }

    /// All of its bytes.
    pub(crate) fn bytes(self) -> [u8; 16] {
        (u128::from(self.high) << 64 | u128::from(self.low)).to_be_bytes()
    }
}

/// Makes fingerprints under one random key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fingerprints(SipHasher13);

impl Fingerprints {
    pub(crate) fn new() -> Self {
        // The standard library seeds this from the system's randomness.
        let random = || RandomState::new().build_hasher().finish();
        Self(SipHasher13::new_with_keys(random(), random()))
    }

    #[inline]
    pub(crate) fn of(&self, key: &[u8]) -> Fingerprint {
        let hash = self.0.hash(key);
        Fingerprint { high: hash.h1, low: hash.h2 }
    }
}

/// A part of all keys: those whose hash ends in `pattern` in `bits` bits (of a stretch of the hash used for nothing else).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    bits: u32,
    pattern: u32,
}

/// Splitting further than this would mean 2^32 passes.
const MAX_PARTITION_BITS: u32 = 31;

impl Partition {
    pub(crate) const ALL: Self = Self { bits: 0, pattern: 0 };

    /// The two halves of this part; none when it cannot be split further.
    pub(crate) fn split(self) -> Option<(Self, Self)> {
        let bits = self.bits + 1;
        (bits <= MAX_PARTITION_BITS).then_some((Self { bits, ..self }, Self { bits, pattern: self.pattern | 1 << self.bits }))
    }

    #[inline]
    pub(crate) fn holds(self, print: Fingerprint) -> bool {
        self.holds_high(print.high)
    }

    /// The upper bits of `high` place a key in its segment, so the lowest ones are free for this.
    #[inline]
    fn holds_high(self, high: u64) -> bool {
        high as u32 & !(u32::MAX << self.bits) == self.pattern
    }
}

// Of the lower half of the hash 4 bits choose the segment and 16 are kept as a tag.
const SEGMENTS: usize = 16;
const TAG_SHIFT: u32 = 4;

/// What is known of a key's latest row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Latest {
    /// Number of the row in the bucket, below 2^31 - 1.
    pub(crate) row: u32,
    pub(crate) tombstone: bool,
    pub(crate) class: u16,
}

/// `state`: class 16 bits, tombstone 1, row + 1 31 (0 = empty slot), tag 16.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    high: u64,
    state: u64,
}

impl Slot {
    fn new(print: Fingerprint, latest: Latest) -> Self {
        let state =
            u64::from(latest.class) | u64::from(latest.tombstone) << 16 | (u64::from(latest.row) + 1) << 17 | Self::tag(print) << 48;
        Self { high: print.high, state }
    }

    #[inline]
    fn tag(print: Fingerprint) -> u64 {
        print.low >> TAG_SHIFT & 0xffff
    }

    #[inline]
    fn is_empty(self) -> bool {
        self.state == 0
    }

    #[inline]
    fn is_of(self, print: Fingerprint) -> bool {
        self.high == print.high && self.state >> 48 == Self::tag(print)
    }

    fn latest(self) -> Latest {
        Latest {
            row: ((self.state >> 17 & 0x7fff_ffff) as u32).saturating_sub(1),
            tombstone: self.state >> 16 & 1 == 1,
            class: self.state as u16,
        }
    }
}

/// The latest row of every key seen.
#[derive(Debug)]
pub(super) struct Table {
    segments: Vec<Segment>,
    len: usize,
}

#[derive(Debug, Default)]
struct Segment {
    slots: Vec<Slot>,
    len: usize,
}

impl Table {
    pub(super) fn new() -> Self {
        Self { segments: (0..SEGMENTS).map(|_| Segment::default()).collect(), len: 0 }
    }

    /// Number of keys, deleted ones included.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Notes a key's new latest row and returns the one before.
    #[inline]
    pub(super) fn replace(&mut self, print: Fingerprint, latest: Latest) -> Option<Latest> {
        let segment = &mut self.segments[print.low as usize % SEGMENTS];
        let before = segment.replace(print, Slot::new(print, latest));
        self.len += usize::from(before.is_none());
        before
    }

    /// Brings the slots of these keys into the caches.
    pub(super) fn touch(&self, prints: impl Iterator<Item = Fingerprint>) {
        let mut sum = 0;
        for print in prints {
            let segment = &self.segments[print.low as usize % SEGMENTS];
            sum ^= segment.slots.get(Segment::home(print.high, segment.slots.len())).map_or(0, |slot| slot.state);
        }
        // The reads are the purpose; nothing may conclude that they are not needed.
        std::hint::black_box(sum);
    }

    /// All entries, in no order.
    pub(super) fn entries(&self) -> impl Iterator<Item = Latest> {
        self.segments.iter().flat_map(|segment| &segment.slots).filter(|slot| !slot.is_empty()).map(|slot| slot.latest())
    }

    /// Forgets every key outside the part.
    pub(super) fn retain(&mut self, part: Partition) {
        for segment in &mut self.segments {
            segment.rebuild(segment.slots.len(), |slot| part.holds_high(slot.high));
        }
        self.len = self.segments.iter().map(|segment| segment.len).sum();
    }

    /// Forgets every key and keeps the memory.
    pub(super) fn clear(&mut self) {
        for segment in &mut self.segments {
            segment.slots.fill(Slot::default());
            segment.len = 0;
        }
        self.len = 0;
    }
}

impl Segment {
    /// Where a hash would like to be: the table's size need not be a power of two.
    #[inline]
    fn home(high: u64, slots: usize) -> usize {
        ((u128::from(high) * slots as u128) >> 64) as usize
    }

    #[inline]
    fn replace(&mut self, print: Fingerprint, new: Slot) -> Option<Latest> {
        if self.len * 5 >= self.slots.len() * 4 {
            self.grow();
        }
        let mut at = Self::home(print.high, self.slots.len());
        loop {
            let slot = &mut self.slots[at];
            if slot.is_empty() {
                *slot = new;
                self.len += 1;
                return None;
            }
            if slot.is_of(print) {
                return Some(std::mem::replace(slot, new).latest());
            }
            at += 1;
            if at == self.slots.len() {
                at = 0;
            }
        }
    }

    fn grow(&mut self) {
        let slots = (self.slots.len() + self.slots.len() / 4).max(64);
        self.rebuild(slots, |_| true);
    }

    fn rebuild(&mut self, slots: usize, keep: impl Fn(&Slot) -> bool) {
        let old = std::mem::replace(&mut self.slots, vec![Slot::default(); slots]);
        self.len = 0;
        for slot in old.into_iter().filter(|slot| !slot.is_empty() && keep(slot)) {
            let mut at = Self::home(slot.high, slots);
            while !self.slots[at].is_empty() {
                at += 1;
                if at == slots {
                    at = 0;
                }
            }
            self.slots[at] = slot;
            self.len += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn latest(row: u32) -> Latest {
        Latest { row, tombstone: row.is_multiple_of(3), class: row as u16 }
    }

    #[test]
    fn it_does_what_a_map_does() {
        let prints = Fingerprints::new();
        let (mut table, mut map) = (Table::new(), HashMap::new());
        for row in 0..200_000_u32 {
            // A walk that comes back to about every other key.
            let key = row.wrapping_mul(2_654_435_761) % 100_003;
            let before = table.replace(prints.of(&key.to_be_bytes()), latest(row));
            assert_eq!(before, map.insert(key, latest(row)));
        }
        assert_eq!(table.len(), map.len());
        let mut rows: Vec<u32> = table.entries().map(|entry| entry.row).collect();
        let mut expected: Vec<u32> = map.values().map(|entry| entry.row).collect();
        rows.sort_unstable();
        expected.sort_unstable();
        assert_eq!(rows, expected);
        let slots: usize = table.segments.iter().map(|segment| segment.slots.len()).sum();
        assert!(slots < table.len() * 5 / 3, "{slots} slots for {} keys", table.len());
        table.clear();
        assert_eq!((table.len(), table.entries().count()), (0, 0));
    }

    #[test]
    fn the_extremes_of_an_entry_come_back() {
        let print = Fingerprint { high: u64::MAX, low: u64::MAX };
        let mut table = Table::new();
        for entry in [Latest { row: 0, tombstone: false, class: 0 }, Latest { row: (1 << 31) - 2, tombstone: true, class: u16::MAX }] {
            table.replace(print, entry);
            assert_eq!(table.entries().collect::<Vec<_>>(), [entry]);
        }
    }

    #[test]
    fn parts_divide_all_keys_and_retain_keeps_theirs() {
        let prints = Fingerprints::new();
        let keys: Vec<Fingerprint> = (0..10_000_u32).map(|key| prints.of(&key.to_be_bytes())).collect();
        let (left, right) = Partition::ALL.split().unwrap_or((Partition::ALL, Partition::ALL));
        let (near, far) = left.split().unwrap_or((left, left));
        let mut counts = [0; 3];
        for &key in &keys {
            let held = [near, far, right].map(|part| part.holds(key));
            assert_eq!(held.iter().filter(|&&held| held).count(), 1);
            assert!(Partition::ALL.holds(key));
            for (count, held) in counts.iter_mut().zip(held) {
                *count += usize::from(held);
            }
        }
        assert!(counts[2] > 4_000 && counts[0] > 2_000 && counts[1] > 2_000);
        let mut table = Table::new();
        for (row, &key) in (0..).zip(&keys) {
            table.replace(key, latest(row));
        }
        table.retain(near);
        assert_eq!(table.len(), counts[0]);
        assert!(table.entries().all(|entry| near.holds(keys[entry.row as usize])));
        let deepest = (0..MAX_PARTITION_BITS).try_fold(Partition::ALL, |part, _| part.split().map(|(half, _)| half));
        assert!(deepest.is_some_and(|part| part.split().is_none()));
    }
}
