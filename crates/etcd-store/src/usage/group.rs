//! Sums by name, in as many passes as the memory allowed takes.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::{By, Named, Sums};
use crate::limits::MAX_SHOWN_NAME;
use crate::scan::{Fingerprints, Partition};

/// What an entry takes beside its name's bytes: the sums, the name's pointer and length, and the map's and the allocator's share.
const ENTRY: usize = size_of::<Sums>() + 64;
/// Names longer than this are kept as their beginning and their fingerprint.
const LONGEST: usize = MAX_SHOWN_NAME + 16;

/// The length of a key's prefix of `depth` parts between slashes, the slash after it included; a slash at the beginning begins no part. Of a key with
/// fewer parts it is all up to its last slash.
#[must_use]
pub fn prefix_length(key: &[u8], depth: usize) -> usize {
    let slashes = depth + usize::from(key.first() == Some(&b'/'));
    let ends = key.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at + 1);
    ends.take(slashes).last().unwrap_or(0)
}

/// The greatest groups by name.
pub(super) struct Groups {
    by: By,
    lines: usize,
    limit: usize,
    prints: Fingerprints,
    part: Partition,
    todo: Vec<Partition>,
    held: usize,
    map: HashMap<Box<[u8]>, Sums>,
    best: Vec<(Box<[u8]>, Sums)>,
    done: bool,
}

impl Groups {
    pub(super) fn new(by: By, lines: usize, limit: usize) -> Self {
        Self {
            by,
            lines,
            limit,
            prints: Fingerprints::new(),
            part: Partition::ALL,
            todo: Vec::new(),
            held: 0,
            map: HashMap::new(),
            best: Vec::new(),
            done: false,
        }
    }

    /// Adds to a group. Every pass must show the same.
    pub(super) fn add(&mut self, name: &[u8], sums: &Sums) {
        if self.done || self.part != Partition::ALL && !self.part.holds(self.prints.of(name)) {
            return;
        }
        let long: Vec<u8>;
        let kept = if name.len() > MAX_SHOWN_NAME {
            long = [&name[..MAX_SHOWN_NAME], &self.prints.of(name).bytes()].concat();
            &long
        } else {
            name
        };
        if let Some(known) = self.map.get_mut(kept) {
            known.add(sums);
            return;
        }
        self.held += kept.len() + ENTRY;
        self.map.insert(Box::from(kept), *sums);
        if self.held > self.limit && self.map.len() > 1 {
            self.halve();
        }
    }

    /// Goes on with half of the present part; the other half waits for a later pass.
    #[cold]
    fn halve(&mut self) {
        let Some((near, far)) = self.part.split() else { return };
        self.part = near;
        self.todo.push(far);
        let prints = self.prints;
        let of = |name: &[u8]| match name.split_last_chunk::<16>() {
            // The fingerprint is that of the whole name, which a long one carries along.
            Some((_, print)) if name.len() == LONGEST => crate::scan::Fingerprint::from_bytes(*print),
            _ => prints.of(name),
        };
        self.map.retain(|name, _| near.holds(of(name)));
        self.map.shrink_to_fit();
        self.held = self.map.keys().map(|name| name.len() + ENTRY).sum();
    }

    /// Ends a pass; true when another one is needed.
    pub(super) fn end_pass(&mut self) -> bool {
        if self.done {
            return false;
        }
        for entry in std::mem::take(&mut self.map) {
            self.best.push(entry);
            // Not at every entry: sorting is the dear part.
            if self.best.len() > self.lines * 2 + 1024 {
                self.prune();
            }
        }
        self.prune();
        self.held = 0;
        match self.todo.pop() {
            Some(part) => self.part = part,
            None => self.done = true,
        }
        !self.done
    }

    fn prune(&mut self) {
        let by = self.by;
        self.best.sort_unstable_by(|(a_name, a), (b_name, b)| match b.compare(a, by) {
            Ordering::Equal => a_name.cmp(b_name),
            other => other,
        });
        self.best.truncate(self.lines);
    }

    /// The greatest groups, in order.
    pub(super) fn finish(self) -> Vec<Named> {
        let named = |(name, sums): (Box<[u8]>, Sums)| {
            let cut = name.len() > MAX_SHOWN_NAME;
            let mut name = name.into_vec();
            name.truncate(MAX_SHOWN_NAME);
            Named { name, cut, sums }
        };
        self.best.into_iter().map(named).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_counted_by_parts() {
        let prefix = |key: &'static str, depth| &key[..prefix_length(key.as_bytes(), depth)];
        assert_eq!(prefix("/registry/pods/ns/name", 0), "/");
        assert_eq!(prefix("/registry/pods/ns/name", 1), "/registry/");
        assert_eq!(prefix("/registry/pods/ns/name", 2), "/registry/pods/");
        assert_eq!(prefix("/registry/pods/ns/name", 3), "/registry/pods/ns/");
        assert_eq!(prefix("/registry/pods/ns/name", 9), "/registry/pods/ns/");
        assert_eq!(prefix("a/b/c", 1), "a/");
        assert_eq!(prefix("compact_rev_key", 2), "");
        assert_eq!(prefix("", 2), "");
    }

    #[test]
    fn names_too_long_to_be_shown_are_still_told_apart() {
        let sums = |bytes| Sums { keys: 1, rows: 1, bytes, ..Sums::default() };
        for limit in [1, usize::MAX] {
            let mut groups = Groups::new(By::Bytes, 10, limit);
            loop {
                for end in [1, 2, 3, 2] {
                    let mut name = vec![b'x'; MAX_SHOWN_NAME * 2];
                    name.push(end);
                    groups.add(&name, &sums(u64::from(end)));
                }
                groups.add(b"short", &sums(100));
                if !groups.end_pass() {
                    break;
                }
            }
            let found = groups.finish();
            assert_eq!(found.iter().map(|named| named.sums.bytes).collect::<Vec<_>>(), [100, 4, 3, 1], "{limit}");
            assert!(found[1].cut && found[1].name == vec![b'x'; MAX_SHOWN_NAME] && !found[0].cut);
        }
    }
}
