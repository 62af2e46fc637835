//! What a run of the pruner would do: a value, made by a pure function.

use std::collections::BTreeSet;

use jiff::Timestamp;
use vault::backup_id::BackupId;
use vault::key::{self, Key, SnapshotObject};
use vault::mark::Statement;
use vault::name::{ClusterName, MarkId};
use vault::repository::{Catalog, MarkEntry, ProblemKind};
use vault::retention::{self, Clock, Decisions, Expiry, Policy, Verdict, View};
use vault::sign::Status;
use vault::store::Unfinished;

use super::pruner::Pruner;
use super::superseded::superseded;
use crate::failure::{Failure, Outcome};
use crate::limits::{PRUNE_GRACE, STRAY_AFTER, TOMBSTONE_LASTS};

/// A backup that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The backup.
    pub id: BackupId,
    /// Its stored bytes.
    pub stored: u64,
    /// Why it may go.
    pub expiry: Expiry,
    /// When a run of this pruner first found it due, and nothing was said in its favour since; none when this is the first.
    pub since: Option<Timestamp>,
}

/// Data without a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// The attempt, or what was a backup.
    pub id: BackupId,
    /// How many objects.
    pub objects: u64,
    /// Their bytes together.
    pub bytes: u64,
    /// Its manifest was removed by this pruner; else it never had one.
    pub was_removed: bool,
}

/// What a run would do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The cluster.
    pub cluster: ClusterName,
    /// What is kept.
    pub policy: Policy,
    /// The time it was made for.
    pub now: Timestamp,
    /// What becomes of every backup, and why.
    pub decisions: Decisions,
    /// Due for the first time: a tombstone is written, nothing is removed.
    pub tombstones: Vec<Target>,
    /// Due and told so by an earlier run, less than the grace ago: nothing is done.
    pub waiting: Vec<Target>,
    /// Due, and told so by an earlier run at least the grace ago: removed.
    pub removals: Vec<Target>,
    /// Data without a manifest that nobody will complete: removed.
    pub strays: Vec<Stray>,
    /// Files of writes that were cut off long ago, which only some stores keep: removed.
    pub unfinished: Vec<Unfinished>,
    /// Records that change nothing any more: removed.
    pub marks: Vec<MarkId>,
    /// Why nothing at all is done, whatever is due.
    pub hold: Option<String>,
}

impl Plan {
    /// Whether there is nothing to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tombstones.is_empty() && !self.removes()
    }

    /// Whether something is to be removed, now.
    #[must_use]
    pub fn removes(&self) -> bool {
        !(self.removals.is_empty() && self.strays.is_empty() && self.unfinished.is_empty() && self.marks.is_empty())
    }

    /// Bytes that are to be removed.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let sets = self.removals.iter().map(|target| target.stored);
        let files = self.unfinished.iter().map(|file| file.size);
        sets.chain(self.strays.iter().map(|stray| stray.bytes)).chain(files).fold(0, u64::saturating_add)
    }
}

/// Makes the plan. Pure.
///
/// # Errors
/// A usage failure for a policy that keeps nothing.
pub fn plan(catalog: &Catalog, policy: &Policy, pruner: &Pruner, now: Timestamp) -> Outcome<Plan> {
    let decisions = retention::decide(&View::of(catalog), policy, now)
        .map_err(|error| Failure::usage(format!("{error}, so nothing was done")).again_with(["--keep-within", "30d"]))?;
    let hold = hold(catalog, decisions.clock);
    let mut plan = Plan {
        cluster: catalog.cluster.clone(),
        policy: policy.clone(),
        now,
        tombstones: Vec::new(),
        waiting: Vec::new(),
        removals: Vec::new(),
        strays: Vec::new(),
        unfinished: Vec::new(),
        marks: Vec::new(),
        hold,
        decisions,
    };
    if plan.hold.is_some() {
        return Ok(plan);
    }
    for decision in &plan.decisions.of {
        let Verdict::Expire(expiry) = decision.verdict else { continue };
        let since = told_since(catalog, pruner, decision.id, now);
        let target = Target { id: decision.id, stored: decision.stored, expiry, since };
        match since {
            None => plan.tombstones.push(target),
            Some(since) if now.duration_since(since) < PRUNE_GRACE => plan.waiting.push(target),
            Some(_) => plan.removals.push(target),
        }
    }
    plan.strays = strays(catalog, pruner, now);
    plan.marks = superseded(catalog, now);
    Ok(plan)
}

/// Why nothing may go, whatever the policy says.
fn hold(catalog: &Catalog, clock: Clock) -> Option<String> {
    if clock != Clock::Sound {
        return Some(format!("{clock}, so no age is believed"));
    }
    let prefix = key::marks_prefix(&catalog.cluster);
    let unread = catalog.problems.iter().filter(|problem| problem.key.starts_with(&prefix)).find(|problem| {
        let kind = &problem.kind;
        matches!(
            kind,
            ProblemKind::Damaged(_) | ProblemKind::Unreadable(_) | ProblemKind::Moved(_) | ProblemKind::Signature(Status::Invalid(_))
        )
    })?;
    Some(format!("a mark cannot be read, and it may be a pin: {unread}; remove that object if it is none"))
}

/// Since when this pruner holds a backup for due, by its own tombstones of the last [`TOMBSTONE_LASTS`]: an older one may be of a slip that was mended, for
/// what the policy keeps again is not written down. Whatever was said of the backup after one (a pin, taken off since; a tag) makes it
/// void, and so does a time that has not come yet.
fn told_since(catalog: &Catalog, pruner: &Pruner, id: BackupId, now: Timestamp) -> Option<Timestamp> {
    let about = || catalog.marks.iter().filter(|entry| entry.counts && entry.mark.statement.backup() == Some(&id));
    let speaks_for_it = |entry: &&MarkEntry| {
        matches!(entry.mark.statement, Statement::Pin(..) | Statement::Unpin(..) | Statement::Tag(..) | Statement::Untag(..))
    };
    let newest_word = about().filter(speaks_for_it).map(|entry| entry.mark.id.time()).max();
    let own = about().filter_map(|entry| match &entry.mark.statement {
        Statement::Tombstone(_, data) if pruner.owns(entry, data) => Some(data.due),
        _ => None,
    });
    let lasts = |due: &Timestamp| *due <= now && now.duration_since(*due) <= TOMBSTONE_LASTS;
    own.filter(|due| lasts(due) && newest_word.is_none_or(|word| *due > word)).min()
}

/// Of the files that writes left, those that nobody writes to any more: of an attempt older than [`STRAY_AFTER`] by its id, and not touched for as long,
/// for a copy writes under old ids too.
pub(super) fn abandoned(found: Vec<Unfinished>, cluster: &ClusterName, now: Timestamp) -> Vec<Unfinished> {
    let prefix = key::snapshots_prefix(cluster);
    let is_old = |moment: Timestamp| now.duration_since(moment) >= STRAY_AFTER;
    let is_abandoned = |file: &Unfinished| {
        let id = file.key.strip_prefix(&prefix).and_then(|rest| rest.split('/').next()).and_then(|id| id.parse::<BackupId>().ok());
        id.is_some_and(|id| is_old(id.start())) && Timestamp::try_from(file.changed).is_ok_and(is_old)
    };
    found.into_iter().filter(is_abandoned).collect()
}

/// Data without a manifest that no writer will complete: older than [`STRAY_AFTER`] by its id, or what an own removal left.
fn strays(catalog: &Catalog, pruner: &Pruner, now: Timestamp) -> Vec<Stray> {
    // Whose manifest somebody else removed can still be opened by hand.
    let vanished: BTreeSet<&str> = catalog
        .problems
        .iter()
        .filter(|problem| matches!(problem.kind, ProblemKind::Vanished { .. } | ProblemKind::Replaced { .. }))
        .map(|problem| problem.key.as_str())
        .collect();
    let removable = catalog.uncommitted.iter().filter_map(|left| {
        let since = told_since(catalog, pruner, left.id, now);
        let was_removed = since.is_some_and(|since| now.duration_since(since) >= PRUNE_GRACE);
        let is_old = now.duration_since(left.id.start()) >= STRAY_AFTER;
        let manifest = Key::Snapshot(catalog.cluster.clone(), left.id, SnapshotObject::Manifest).to_string();
        let may_go = was_removed || (is_old && !vanished.contains(manifest.as_str()));
        may_go.then_some(Stray { id: left.id, objects: left.objects, bytes: left.bytes, was_removed })
    });
    removable.collect()
}
