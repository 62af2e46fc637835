//! Which rows go when keys with a prefix are taken out of a database.

use std::collections::HashSet;

use bbolt::{Database, ReadAt};
use sha2::{Digest, Sha256};

use super::Edits;
use crate::error::Error;
use crate::limits::MAX_DROPPED_ROWS;
use crate::row::RowKey;
use crate::scan::decode;
use crate::schema::{bucket, for_each};

/// What goes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    /// The rows, ascending.
    pub(super) rows: Vec<RowKey>,
    /// How many keys are live among them.
    pub(super) live: u64,
}

/// Finds every row of the keys that [`Edits::drop_prefixes`] names, in one pass over the `key` bucket; none without a prefix. The row that a
/// bump left has no key, so it always stays.
///
/// Memory: some 100 bytes per row found, whatever the length of its key and value; as much again while they are taken out.
pub(super) fn find<S: ReadAt>(database: &Database<S>, edits: &Edits) -> Result<Dropped, Error> {
    if edits.drop_prefixes.is_empty() {
        return Ok(Dropped::default());
    }
    if edits.bump.is_none() {
        return Err(Error::DropWithoutBump);
    }
    if edits.drop_prefixes.iter().any(Vec::is_empty) {
        return Err(Error::EmptyPrefix);
    }
    let mut rows = Vec::new();
    // By their digest: a hostile file could make keys themselves as long as it is.
    let mut live: HashSet<[u8; 32]> = HashSet::new();
    for_each(database, bucket::KEY, |key, value| {
        let (row, content) = decode(key, value)?;
        if !edits.drop_prefixes.iter().any(|prefix| content.key.starts_with(prefix)) {
            return Ok(true);
        }
        if rows.len() == MAX_DROPPED_ROWS {
            return Err(Error::TooManyDropped);
        }
        let name: [u8; 32] = Sha256::digest(content.key).into();
        if row.tombstone {
            live.remove(&name);
        } else {
            live.insert(name);
        }
        rows.push(row);
        Ok(true)
    })?;
    Ok(Dropped { rows, live: live.len() as u64 })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bbolt::Memory;
    use proptest::prelude::*;

    use super::*;
    use crate::id::{LeaseId, Revision};
    use crate::inspect::{Inspection, Options, inspect_and_hash};
    use crate::restore::apply_edits;
    use crate::row::KeyValue;
    use crate::schema::{Lease, encode_lease, lease_key};
    use crate::testing::{Items, image};

    const TARGET: Revision = Revision(5_000_000);

    fn edits(prefixes: &[&str], bump: Option<Revision>) -> Edits {
        let drop_prefixes = prefixes.iter().map(|prefix| prefix.as_bytes().to_vec()).collect();
        Edits { bump, mark_compacted: bump.is_some(), drop_prefixes, ..Edits::default() }
    }

    /// One row per element, from revision 2 on: its key, and whether it deletes.
    fn rows<'k>(history: impl IntoIterator<Item = (&'k str, bool)>) -> Items {
        (2..)
            .zip(history)
            .map(|(main, (key, tombstone))| {
                let key = key.as_bytes();
                let put = KeyValue { key, create_revision: main, mod_revision: main, version: 1, value: &[7; 300], lease: main };
                let value = if tombstone { KeyValue::tombstone(key) } else { put };
                (RowKey { main: Revision(main), sub: 0, tombstone }.encode().to_vec(), value.encode())
            })
            .collect()
    }

    fn with_leases(rows: Items) -> Vec<u8> {
        let lease = |id| (lease_key(LeaseId(id)).to_vec(), encode_lease(&Lease { id: LeaseId(id), ttl: 60, remaining: 0 }));
        image(&[("key", rows), ("lease", (2..1000).map(lease).collect())])
    }

    fn applied(file: Vec<u8>, edits: &Edits) -> (Inspection, crate::HashKv, super::super::EditReport) {
        let memory = Memory::new(file);
        let (database, report) = apply_edits(Database::open(&memory).unwrap(), edits).unwrap();
        database.check().unwrap();
        let (inspection, hash) = inspect_and_hash(&database, &Options::default()).unwrap();
        (inspection, hash, report)
    }

    #[test]
    fn every_row_of_the_keys_goes_and_no_other() {
        let history = [
            ("/registry/a", false),
            ("talos:v1:vip", false),
            ("talos:v1:vip", true),
            ("talos:v1:lock", false),
            ("talos:v1:lock", false),
            ("talos:v2:x", false),
            ("talos:v1:", false),
        ];
        let (after, hash, report) = applied(with_leases(rows(history)), &edits(&["talos:v1:"], Some(TARGET)));
        assert_eq!((report.rows_dropped, report.keys_dropped), (5, 2));
        assert_eq!((after.rows, after.tombstones, after.user_keys(), after.leases), (3, 0, 2, 998));
        assert_eq!((after.revision, after.epoch, hash.revision), (TARGET, Some(TARGET), TARGET));
        assert_eq!(after.missing_leases.items, Vec::<LeaseId>::new());
        let kept: Items =
            rows(history).into_iter().filter(|(_, value)| !KeyValue::decode(value).unwrap().key.starts_with(b"talos:v1:")).collect();
        let (expected, expected_hash, _) = applied(with_leases(kept), &edits(&[], Some(TARGET)));
        assert_eq!((after.status_hash, hash), (expected.status_hash, expected_hash));
    }

    #[test]
    fn a_file_of_nothing_else_is_empty_afterwards_and_keeps_its_place() {
        let history: Vec<(&str, bool)> = (0..900).map(|n| ("talos:v1:vip", n % 7 == 3)).collect();
        let (after, _, report) = applied(with_leases(rows(history)), &edits(&["talos:v1:"], Some(TARGET)));
        assert_eq!((report.rows_dropped, report.keys_dropped, report.revision_before), (900, 0, Revision(901)));
        assert_eq!((after.rows, after.user_keys(), after.last_main), (1, 0, TARGET));
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let file = with_leases(rows([("talos:v1:vip", false)]));
        let too_many = with_leases(rows(std::iter::repeat_n(("talos:v1:vip", true), MAX_DROPPED_ROWS + 1)));
        for (file, edits, word) in [
            (&file, edits(&["talos:v1:"], None), "unless the revision moves on"),
            (&file, edits(&["talos:v1:", ""], Some(TARGET)), "empty prefix"),
            (&too_many, edits(&["talos:v1:"], Some(TARGET)), "more than 100000 rows"),
        ] {
            let memory = Memory::new(file.clone());
            let error = apply_edits(Database::open(&memory).unwrap(), &edits).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
            assert!(memory.into_bytes() == *file);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_left_is_what_a_file_without_these_rows_would_be(
            history in prop::collection::vec((prop::sample::select(vec!["a", "b/1", "b/2", "b", "c"]), prop::bool::weighted(0.3)), 0..400),
        ) {
            let all = rows(history.iter().copied());
            let kept: Items = all.iter().filter(|(_, value)| !KeyValue::decode(value).unwrap().key.starts_with(b"b/")).cloned().collect();
            let (after, hash, report) = applied(with_leases(all.clone()), &edits(&["b/"], Some(TARGET)));
            let (expected, expected_hash, _) = applied(with_leases(kept.clone()), &edits(&[], Some(TARGET)));
            prop_assert_eq!(report.rows_dropped, (all.len() - kept.len()) as u64);
            prop_assert_eq!((after.status_hash, after.live_keys, after.rows, hash), (expected.status_hash, expected.live_keys, expected.rows, expected_hash));
            let before = applied(with_leases(all), &edits(&[], Some(TARGET))).0;
            prop_assert_eq!(report.keys_dropped, before.live_keys - after.live_keys);
        }
    }
}
