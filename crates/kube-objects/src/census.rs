//! Counting objects by resource, one class number for each.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use crate::{is_encrypted_at_rest, resource_of};

/// The class of keys that belong to no resource.
const OTHER: u16 = 0;
/// Added to a class for a value that is encrypted at rest.
const ENCRYPTED: u16 = 0x8000;
/// Resources told apart at most; whatever comes later is counted as [`OTHER`]. Large clusters have some hundreds.
const MAX_RESOURCES: usize = 0x4000;

/// Gives each resource a small number while a file is read, and turns counts by number into counts by name afterwards.
///
/// Memory is proportional to the number of different resources, at most 16 384.
#[derive(Debug, Default)]
pub struct Census {
    classes: RefCell<HashMap<String, u16>>,
    /// Used again for each name, so that classifying a key allocates nothing.
    scratch: RefCell<String>,
}

/// What a census found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceCounts {
    /// Live objects of each resource.
    pub by_resource: BTreeMap<String, u64>,
    /// Live objects whose value the API server encrypted.
    pub encrypted: u64,
}

impl Census {
    /// A census that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The class of one key and value. Equal resources have equal classes within one census.
    pub fn classify(&self, key: &[u8], value: &[u8]) -> u16 {
        use std::fmt::Write as _;

        let marker = if is_encrypted_at_rest(value) { ENCRYPTED } else { 0 };
        let Some(resource) = resource_of(key) else { return OTHER | marker };
        let mut name = self.scratch.borrow_mut();
        name.clear();
        if write!(name, "{resource}").is_err() {
            return OTHER | marker;
        }
        let mut classes = self.classes.borrow_mut();
        if let Some(class) = classes.get(name.as_str()) {
            return class | marker;
        }
        if classes.len() >= MAX_RESOURCES {
            return OTHER | marker;
        }
        let class = u16::try_from(classes.len() + 1).unwrap_or(OTHER);
        classes.insert(name.clone(), class);
        class | marker
    }

    /// The name of each class that was given so far.
    #[must_use]
    pub fn names(&self) -> BTreeMap<u16, String> {
        self.classes.borrow().iter().map(|(name, class)| (*class, name.clone())).collect()
    }

    /// Names for counts that were kept by class.
    pub fn name_counts(&self, by_class: impl IntoIterator<Item = (u16, u64)>) -> ResourceCounts {
        let classes = self.classes.borrow();
        let names: HashMap<u16, &str> = classes.iter().map(|(name, class)| (*class, name.as_str())).collect();
        let mut counts = ResourceCounts::default();
        for (class, count) in by_class {
            if class & ENCRYPTED != 0 {
                counts.encrypted += count;
            }
            if let Some(name) = names.get(&(class & !ENCRYPTED)) {
                *counts.by_resource.entry((*name).to_owned()).or_default() += count;
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_resource_and_notices_encryption() {
        let census = Census::new();
        let mut by_class: HashMap<u16, u64> = HashMap::new();
        for (key, value) in [
            ("/registry/pods/a/x", "k8s\0"),
            ("/registry/pods/a/y", "k8s\0"),
            ("/registry/secrets/a/s", "k8s:enc:secretbox:v1:k:..."),
            ("compact_rev_key", "17"),
        ] {
            *by_class.entry(census.classify(key.as_bytes(), value.as_bytes())).or_default() += 1;
        }
        let named: Vec<String> = census.names().into_values().collect();
        assert_eq!(named, ["pods", "secrets"]);
        let counts = census.name_counts(by_class);
        assert_eq!(counts.encrypted, 1);
        assert_eq!(counts.by_resource.get("pods"), Some(&2));
        assert_eq!(counts.by_resource.get("secrets"), Some(&1));
        assert_eq!(counts.by_resource.len(), 2);
    }
}
