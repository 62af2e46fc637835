//! What holds for one cluster, `defaults` filled in.

use std::time::Duration;

use super::{Alert, Backup, Cluster, Config, Defrag, Drill, Hooks, Keep, Schedule, Store, Verify, duration, share};
use crate::failure::{Failure, Outcome};

/// How often a backup is taken where nothing says otherwise.
const EVERY: &str = "6h";
/// How long backups are kept where nothing says otherwise.
const WITHIN: &str = "30d";
/// The share of keys whose loss is worth a word and a pin, where nothing says otherwise.
const SHRINKS_BY: f64 = 0.3;

/// Everything that holds for one cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Its stores, by name; the first one decides.
    pub stores: Vec<(String, Store)>,
    /// How many of them a backup must reach.
    pub min_stores: usize,
    /// When backups are taken.
    pub backup: Backup,
    /// What is kept.
    pub keep: Keep,
    /// When backups are verified; never by the agent without.
    pub verify: Option<Verify>,
    /// When they are drilled; never by the agent without.
    pub drill: Option<Drill>,
    /// When members are defragmented; never by the agent without.
    pub defrag: Option<Defrag>,
    /// What is worth a word.
    pub alert: Alert,
    /// Commands around each backup.
    pub hooks: Hooks,
}

/// The share of keys whose loss from one backup to the next pins the earlier one, where no configuration says another.
#[must_use]
pub fn content_shrinks_by() -> f64 {
    SHRINKS_BY
}

impl Config {
    /// What holds for a cluster of this configuration.
    #[must_use]
    pub fn policy(&self, cluster: &Cluster) -> Policy {
        let defaults = &self.defaults;
        let backup = cluster.backup.clone().or_else(|| defaults.backup.clone());
        let keep = cluster.keep.clone().or_else(|| defaults.keep.clone());
        Policy {
            stores: self.stores_of(cluster),
            min_stores: cluster.min_stores.or(defaults.min_stores).unwrap_or(1),
            backup: backup.unwrap_or_else(|| Backup { every: Some(EVERY.to_owned()), ..Backup::default() }),
            keep: keep.unwrap_or_else(|| Keep { within: Some(WITHIN.to_owned()), ..Keep::default() }),
            verify: cluster.verify.clone().or_else(|| defaults.verify.clone()),
            drill: cluster.drill.clone().or_else(|| defaults.drill.clone()),
            defrag: cluster.defrag.clone().or_else(|| defaults.defrag.clone()),
            alert: cluster.alert.clone().or_else(|| defaults.alert.clone()).unwrap_or_default(),
            hooks: cluster.hooks.clone().or_else(|| defaults.hooks.clone()).unwrap_or_default(),
        }
    }

    /// The stores of a cluster: those it names, else those of `defaults`, else the only one.
    fn stores_of(&self, cluster: &Cluster) -> Vec<(String, Store)> {
        let named = cluster.stores.as_ref().unwrap_or(&self.defaults.stores);
        if named.is_empty() && self.stores.len() == 1 {
            return self.stores.iter().map(|(name, store)| (name.clone(), store.clone())).collect();
        }
        named.iter().filter_map(|name| Some((name.clone(), self.stores.get(name)?.clone()))).collect()
    }
}

impl Policy {
    /// When backups are taken.
    ///
    /// # Errors
    /// A usage failure; none for a configuration that was checked.
    pub fn schedule(&self) -> Outcome<Schedule> {
        self.backup.timing().schedule()?.ok_or_else(|| Failure::usage("backup: neither every nor cron is given"))
    }

    /// At most how much later than scheduled a backup begins.
    #[must_use]
    pub fn jitter(&self) -> Duration {
        self.backup.jitter.as_deref().and_then(|text| duration(text).ok()).unwrap_or_default()
    }

    /// How long a failed backup is tried again.
    #[must_use]
    pub fn retry_window(&self, schedule: &Schedule, at: jiff::Timestamp) -> Duration {
        let named = self.backup.retry_window.as_deref().and_then(|text| duration(text).ok());
        named.unwrap_or_else(|| schedule.distance(at) / 2)
    }

    /// The share by which a backup may be larger than the one before it, where the configuration names one.
    #[must_use]
    pub fn backup_grows_by(&self) -> Option<f64> {
        self.alert.backup_grows_by.as_deref().and_then(|text| share(text).ok())
    }

    /// The share of keys whose loss from one backup to the next pins the earlier one.
    #[must_use]
    pub fn content_shrinks_by(&self) -> f64 {
        self.alert.content_shrinks_by.as_deref().and_then(|text| share(text).ok()).unwrap_or(SHRINKS_BY)
    }
}
