//! What the agent knows of every cluster now: for metrics, the pages, and whoever asks.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::care::ClusterView;
use engine::care::health::{Finding, Severity};
use engine::status::{Standing, State};
use engine::{Code, Failure};
use jiff::Timestamp;

use crate::plan::Job;

/// Everything, by the names of the clusters.
#[derive(Debug, Default)]
pub struct Observed {
    clusters: Mutex<BTreeMap<String, Cluster>>,
}

/// What is known of one cluster.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// How it stands by its repository; none before the first look.
    pub standing: Option<Standing>,
    /// Since when it stands like this, as far as this agent has seen.
    pub state_since: Option<Timestamp>,
    /// The last try of a backup by this agent.
    pub attempt: Option<Attempt>,
    /// Whether that try failed, and all its retries.
    pub has_given_up: bool,
    /// Tries that committed a backup.
    pub succeeded: u64,
    /// Tries that did not.
    pub failed: u64,
    /// Backups that this agent removed by the policy, on all stores together.
    pub pruned: u64,
    /// When it was looked at last what the policy does not keep, and whether nothing stood in the way of that.
    pub last_prune: Option<(Timestamp, bool)>,
    /// Members that this agent defragmented.
    pub defragmented: u64,
    /// When it looked for members to defragment last, and whether all went well.
    pub last_defrag: Option<(Timestamp, bool)>,
    /// Times the store did not answer or refused.
    pub store_errors: u64,
    /// Times etcd or Talos could not be reached.
    pub source_errors: u64,
    /// Times the leader was another one than at the look before.
    pub leader_changes: u64,
    /// What was seen of its members last, and when; none while they are not looked at or do not answer.
    pub view: Option<ClusterView>,
    /// When the first of the certificates that are in use there ends.
    pub certificate_ends: Option<Timestamp>,
    /// What was found in it.
    pub findings: Vec<Finding>,
    /// Why the members could not be looked at.
    pub unseen: Option<String>,
    /// How many looks at the members in a row failed.
    pub looks_missed: u32,
    /// What is done next, and when.
    pub next: Option<(Job, Timestamp)>,
    /// What is done now, and since when.
    pub doing: Option<(Job, Timestamp)>,
}

/// One try of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it began.
    pub at: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// What it came to: 0, 3, or the code of its failure.
    pub code: Code,
    /// Why it failed, in words.
    pub failure: Option<String>,
}

impl Observed {
    /// All clusters. Nothing waits while the answer is held, so it is held shortly.
    pub fn all(&self) -> MutexGuard<'_, BTreeMap<String, Cluster>> {
        // A thread that panicked left whole values behind: each is written by one assignment.
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to know a cluster, if it is not known yet.
    pub fn begin(&self, cluster: &str) {
        self.all().entry(cluster.to_owned()).or_default();
    }

    /// Changes what is known of one cluster. Of one that was forgotten nothing is known any more, whoever still works on it.
    pub fn of(&self, cluster: &str, change: impl FnOnce(&mut Cluster)) {
        if let Some(known) = self.all().get_mut(cluster) {
            change(known);
        }
    }

    /// All clusters as they are at this moment.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> BTreeMap<String, Cluster> {
        let mut clusters = self.all().clone();
        for known in clusters.values_mut() {
            known.standing = known.standing.take().map(|standing| standing.at(now));
        }
        clusters
    }

    /// Forgets a cluster that is no longer configured.
    pub fn forget(&self, cluster: &str) {
        self.all().remove(cluster);
    }
}

impl Cluster {
    /// Takes in how it stands. What cannot be read is not forgotten: it grows old all the same.
    pub fn stands(&mut self, mut standing: Standing, now: Timestamp) {
        if let (State::Unknown, Some(before)) = (standing.state, &self.standing) {
            standing = Standing { state: State::Unknown, warnings: standing.warnings, ..before.clone() };
        }
        if self.standing.as_ref().map(|before| before.state) != Some(standing.state) {
            self.state_since = Some(now);
        }
        self.standing = Some(standing);
    }

    /// Counts what failed.
    pub fn count(&mut self, failure: &Failure) {
        match failure.code {
            Code::StoreUnreachable | Code::NoRepository => self.store_errors += 1,
            Code::SourceUnreachable => self.source_errors += 1,
            _ => {}
        }
    }

    /// The worst of what was found in its members.
    #[must_use]
    pub fn severity(&self) -> Option<Severity> {
        self.view.as_ref().map(|_| engine::care::health::verdict(&self.findings))
    }

    /// Takes a new look at the members in.
    pub fn looked(&mut self, view: ClusterView, findings: Vec<Finding>) {
        let before = self.view.as_ref().and_then(ClusterView::leader);
        if before.is_some() && view.leader().is_some() && view.leader() != before {
            self.leader_changes += 1;
        }
        self.findings = findings;
        self.view = Some(view);
        (self.unseen, self.looks_missed) = (None, 0);
    }
}
