//! Held against a model that keeps everything in memory; small budgets take the paths that only huge files take otherwise.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use bbolt::Database;
use proptest::prelude::*;

use super::*;
use crate::inspect::{Options, inspect};
use crate::row::KeyValue;
use crate::testing::{Items, database};

/// One change: its key, the size of its value, whether it deletes, and whether it shares a transaction with the one before.
type Change = (u8, usize, bool, bool);

fn key(number: u8) -> Vec<u8> {
    let resource = ["pods", "secrets", "leases"][usize::from(number % 3)];
    match number {
        0 => b"compact_rev_key".to_vec(),
        1 => vec![0xff, 0, 7],
        number if number % 5 == 0 => format!("/registry/{resource}/cluster-{number}").into_bytes(),
        number => format!("/registry/{resource}/ns{}/name-{number}", number % 4).into_bytes(),
    }
}

fn class(key: &[u8]) -> u16 {
    key.get(10).map_or(0, |byte| u16::from(*byte))
}

fn rows(history: &[Change]) -> Items {
    let mut items = Items::new();
    let (mut main, mut sub) = (1, 0);
    for &(number, size, tombstone, together) in history {
        (main, sub) = if together && main > 1 { (main, sub + 1) } else { (main + 1, 0) };
        let (key, value) = (key(number), vec![b'v'; size]);
        let put = KeyValue { key: &key, create_revision: 1, mod_revision: main, version: 2, value: &value, lease: 0 };
        let value = if tombstone { KeyValue::tombstone(&key) } else { put };
        items.push((RowKey { main: Revision(main), sub, tombstone }.encode().to_vec(), value.encode()));
    }
    items
}

fn image(history: &[Change], compact: Option<i64>) -> Database<Vec<u8>> {
    let compact = compact.map(|main| (b"finishedCompactRev".to_vec(), RowKey::put(Revision(main), 0).encode().to_vec()));
    database(&[("key", rows(history)), ("widgets", vec![(vec![1; 8], vec![2; 5])]), ("meta", compact.into_iter().collect())])
}

/// The sums of every group, computed the plain way.
fn model(items: &Items, compact: Option<i64>, prefix: &[u8], name: impl Fn(&[u8]) -> Vec<u8>) -> BTreeMap<Vec<u8>, Sums> {
    let decoded: Vec<_> = items.iter().map(|(key, value)| decode(key, value).unwrap()).collect();
    let mut groups: BTreeMap<Vec<u8>, Sums> = BTreeMap::new();
    for (at, (row, value)) in decoded.iter().enumerate() {
        if !value.key.starts_with(prefix) {
            continue;
        }
        let is_latest = !decoded[at + 1..].iter().any(|(_, later)| later.key == value.key);
        let sums = groups.entry(name(value.key)).or_default();
        let bytes = (items[at].0.len() + items[at].1.len()) as u64;
        sums.rows += 1;
        sums.bytes += bytes;
        sums.keys += u64::from(is_latest);
        sums.tombstones += u64::from(row.tombstone);
        sums.changes += u64::from(compact.is_none_or(|compact| row.main.0 > compact));
        if is_latest && !row.tombstone {
            sums.live_keys += 1;
            sums.live_bytes += bytes;
        }
    }
    groups
}

fn greatest(groups: BTreeMap<Vec<u8>, Sums>, by: By, lines: usize) -> Vec<(Vec<u8>, Sums)> {
    let mut all: Vec<_> = groups.into_iter().collect();
    // Stable: the names are ascending already.
    all.sort_by(|(_, a), (_, b)| b.compare(a, by));
    all.truncate(lines);
    all
}

fn listed(found: &[Named]) -> Vec<(Vec<u8>, Sums)> {
    found.iter().map(|named| (named.name.clone(), named.sums)).collect()
}

proptest! {
    #[test]
    fn any_budget_gives_what_the_model_says(
        history in prop::collection::vec((0_u8..60, 0_usize..300, prop::bool::weighted(0.2), any::<bool>()), 0..300),
        compact in prop::option::of(0_i64..200),
        by in prop::sample::select(vec![By::Bytes, By::Revisions, By::Churn]),
        (lines, depth) in (0_usize..12, 0_usize..5),
        prefix in prop::sample::select(vec![&b""[..], b"/registry/", b"/registry/pods/", b"/registry/secrets/ns1", b"nothing"]),
        (keys, grouped) in (1_usize..40, 1_usize..4_000),
    ) {
        let database = image(&history, compact);
        let items = rows(&history);
        let question = Question { by, lines, prefix, depth, classify: Some(&class) };
        let found = with_budget(&database, &question, Budget { keys, grouped }).unwrap();

        prop_assert_eq!(listed(&found.keys), greatest(model(&items, compact, prefix, <[u8]>::to_vec), by, lines));
        let group = |key: &[u8]| key[..prefix_length(key, depth).max(prefix.len())].to_vec();
        prop_assert_eq!(listed(&found.prefixes), greatest(model(&items, compact, prefix, group), by, lines));
        let classes = model(&items, compact, prefix, |key| class(key).to_be_bytes().to_vec());
        let of_classes: BTreeMap<Vec<u8>, Sums> = found.classes.iter().map(|(class, sums)| (class.to_be_bytes().to_vec(), *sums)).collect();
        prop_assert_eq!(of_classes, classes);
        let matched = model(&items, compact, prefix, |_| Vec::new()).remove(&b""[..]).unwrap_or_default();
        prop_assert_eq!(found.matched, matched);

        // The sum explains the file, and the numbers are those of `inspect`.
        let buckets: u64 = found.buckets.iter().map(|bucket| bucket.bytes).sum();
        prop_assert_eq!(buckets + found.overhead() + found.free(), found.total());
        let inspection = inspect(&database, &Options::default()).unwrap();
        prop_assert_eq!((found.all.rows, found.all.tombstones, found.all.live_keys), (inspection.rows, inspection.tombstones, inspection.live_keys));
        prop_assert_eq!((found.total(), found.revision, found.compact_revision), (inspection.total_size, inspection.revision, inspection.compact_revision));
        let in_key = found.buckets.iter().find(|bucket| bucket.name == b"key").unwrap();
        prop_assert_eq!((in_key.items, in_key.bytes), (found.all.rows, found.all.bytes));
    }
}

#[test]
fn small_budgets_take_more_passes() {
    let history: Vec<Change> = (0..200).map(|number| (number, 10, false, false)).collect();
    let question = Question { by: By::Bytes, lines: 5, prefix: b"", depth: 2, classify: None };
    let database = image(&history, None);
    assert_eq!(usage(&database, &question).unwrap().passes, 2);
    let passes = with_budget(&database, &question, Budget { keys: 20, grouped: 2_000 }).unwrap().passes;
    assert!(passes > 20, "{passes}");
}

#[test]
fn what_is_no_etcd_is_refused() {
    let other = database(&[("widgets", vec![(b"a".to_vec(), b"b".to_vec())])]);
    let question = Question { by: By::Bytes, lines: 5, prefix: b"", depth: 2, classify: None };
    assert!(matches!(usage(&other, &question), Err(Error::NotEtcd)));
    let garbled = database(&[("key", vec![(b"not a revision".to_vec(), b"b".to_vec())])]);
    assert!(matches!(usage(&garbled, &question), Err(Error::RowKey { .. })));
}

#[test]
fn buckets_beyond_the_limit_are_summed_up() {
    let names: Vec<String> = (0..MAX_LISTED_BUCKETS + 20).map(|number| format!("z{number:03}")).collect();
    let mut buckets: Vec<(&str, Items)> = names.iter().map(|name| (name.as_str(), vec![(b"k".to_vec(), b"v".to_vec())])).collect();
    buckets.push(("key", Items::new()));
    let question = Question { by: By::Bytes, lines: 5, prefix: b"", depth: 2, classify: None };
    let found = usage(&database(&buckets), &question).unwrap();
    assert_eq!(found.buckets.len(), MAX_LISTED_BUCKETS + 1);
    let rest = found.buckets.last().unwrap();
    assert_eq!((rest.name.len(), rest.items, rest.bytes), (0, 21, 42));
}
