//! Small budgets take the paths that only huge files take otherwise.

#![allow(clippy::unwrap_used)]

use bbolt::Database;
use proptest::prelude::*;

use super::rows::Budget;
use super::*;
use crate::crc::Crc32c;
use crate::id::{LeaseId, Revision};
use crate::row::{KeyValue, RowKey};
use crate::schema::{bucket, for_each};
use crate::testing::{Items, database};

/// What a scan says in all.
type Answer = (u64, Vec<(u16, u64)>, u32, Vec<LeaseId>);

fn scan(image: &Database<Vec<u8>>, compact: Option<Revision>, budget: Budget) -> Answer {
    let classify: Classifier<'_> = &|key, _| u16::from(key.first().copied().unwrap_or(0)) % 3;
    let wanted = Wanted { classify: Some(classify), capture: &[] };
    let mut crc = Crc32c::new();
    let mut rows = KeyRows::with_budget(Revision(i64::MAX), compact, crc.value(), wanted, budget);
    for_each(image, bucket::KEY, |key, value| rows.row(key, value, &mut crc)).unwrap();
    rows.finish(image).unwrap();
    let hash = rows.hash(image).unwrap();
    let mut leases = Vec::new();
    rows.for_leases(image, |found| {
        assert!(found.is_sorted_by_key(|id| id.0.cast_unsigned()));
        leases.extend_from_slice(found);
        Ok(())
    })
    .unwrap();
    leases.sort_unstable();
    leases.dedup();
    (rows.live_keys(), rows.classes().into_iter().collect(), hash, leases)
}

/// One row per element: its key, its lease, whether it deletes.
fn rows(history: &[(u8, i64, bool)]) -> Items {
    (2..)
        .zip(history)
        .map(|(main, &(key, lease, tombstone))| {
            let key = [key];
            let put = KeyValue { key: &key, create_revision: 1, mod_revision: main, version: 2, value: b"v", lease };
            let value = if tombstone { KeyValue::tombstone(&key) } else { put };
            (RowKey { main: Revision(main), sub: 0, tombstone }.encode().to_vec(), value.encode())
        })
        .collect()
}

proptest! {
    #[test]
    fn any_budget_gives_the_same_answer(
        history in prop::collection::vec((any::<u8>(), -3_i64..20, prop::bool::weighted(0.3)), 0..400),
        compact in prop::option::of(1_i64..300),
        keys in 1_usize..100, checkpoints in 0_usize..400, leased in 1_usize..60,
    ) {
        let image = database(&[("key", rows(&history))]);
        let compact = compact.map(Revision);
        let small = Budget { keys, checkpoints, leased };
        prop_assert_eq!(scan(&image, compact, small), scan(&image, compact, Budget::default()));
    }
}
