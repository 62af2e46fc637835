//! What a restored database holds, counted from the file before anybody opens it.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bbolt::Database;
use etcd_store::DatabaseFile;
use etcd_store::usage::{self, By, Question, prefix_length};

use crate::failure::{Code, Failure, Outcome};
use crate::limits::DRILL_PREFIXES;

/// Live keys of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// All of them.
    pub keys: u64,
    /// Those that begin with each prefix; none at all where there are more than [`DRILL_PREFIXES`].
    pub prefixes: BTreeMap<Vec<u8>, u64>,
    /// Whether there are more prefixes than that.
    pub many: bool,
}

/// The class of keys whose prefix is not told apart any more.
const OTHERS: u16 = u16::MAX;

/// The parts of a key that say what it is of: `/registry/pods/`, and where the second part is an API group, `/registry/cilium.io/ciliumnodes/`.
fn prefix(key: &[u8]) -> &[u8] {
    let two = &key[..prefix_length(key, 2)];
    let last = two.strip_suffix(b"/").and_then(|two| two.rsplit(|byte| *byte == b'/').next()).unwrap_or_default();
    if last.contains(&b'.') { &key[..prefix_length(key, 3)] } else { two }
}

/// Counts. Blocks: the whole file is walked.
pub(super) fn count(database: &Path) -> Outcome<Counted> {
    let unsound = |error: &dyn std::fmt::Display| {
        Failure::new(Code::Unproven, "the restored database is not sound").object(database.display()).cause(error)
    };
    let file = DatabaseFile::open(database)
        .map_err(|error| Failure::failed(format!("the restored database cannot be read: {error}")).object(database.display()).again())?;
    let opened = Database::open(file).map_err(|error| unsound(&error))?;
    let names: RefCell<HashMap<Vec<u8>, u16>> = RefCell::default();
    let classify = |key: &[u8]| {
        let mut names = names.borrow_mut();
        let prefix = prefix(key);
        if let Some(class) = names.get(prefix) {
            return *class;
        }
        let Some(class) = u16::try_from(names.len()).ok().filter(|class| usize::from(*class) < DRILL_PREFIXES) else { return OTHERS };
        names.insert(prefix.to_vec(), class);
        class
    };
    let question = Question { by: By::Bytes, lines: 1, prefix: b"", depth: 1, classify: Some(&classify) };
    let usage = usage::usage(&opened, &question).map_err(|error| unsound(&error))?;
    let of = |class: u16| usage.classes.get(&class).map_or(0, |sums| sums.live_keys);
    let many = usage.classes.contains_key(&OTHERS);
    let by_class: BTreeMap<Vec<u8>, u64> =
        if many { BTreeMap::new() } else { names.take().into_iter().map(|(name, class)| (name, of(class))).collect() };
    Ok(Counted { keys: usage.all.live_keys, prefixes: with_all_below(&by_class), many })
}

/// Prefixes lie inside each other: a key of `/registry/` alone is counted with all of `/registry/pods/` by whoever asks for `/registry/`.
fn with_all_below(by_class: &BTreeMap<Vec<u8>, u64>) -> BTreeMap<Vec<u8>, u64> {
    let below =
        |name: &Vec<u8>| by_class.range(name.clone()..).take_while(|(other, _)| other.starts_with(name)).map(|(_, keys)| keys).sum();
    by_class.keys().filter(|name| !name.is_empty()).map(|name| (name.clone(), below(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_says_what_a_key_is_of() {
        for (key, expected) in [
            ("/registry/pods/default/a", "/registry/pods/"),
            ("/registry/cilium.io/ciliumnodes/n1", "/registry/cilium.io/ciliumnodes/"),
            ("/registry/cilium.io/x", "/registry/cilium.io/"),
            ("/registry/health", "/registry/"),
            ("compact_rev_key", ""),
            ("app/users/1", "app/users/"),
            ("a.b/c", "a.b/"),
            ("//", "//"),
            ("", ""),
        ] {
            assert_eq!(prefix(key.as_bytes()), expected.as_bytes(), "{key}");
        }
    }

    #[test]
    fn a_prefix_counts_everything_below_it() {
        let of = |names: &[(&str, u64)]| names.iter().map(|(name, keys)| (name.as_bytes().to_vec(), *keys)).collect::<BTreeMap<_, _>>();
        let counted = with_all_below(&of(&[("", 1), ("/r/", 2), ("/r/a/", 3), ("/r/b/", 4), ("/s/", 5)]));
        assert_eq!(counted, of(&[("/r/", 9), ("/r/a/", 3), ("/r/b/", 4), ("/s/", 5)]));
    }
}
