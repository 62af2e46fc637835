//! From rules, pins, proofs and doubts to one verdict per backup.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::rules::{back, by_rules, is_within};
use super::{BAD_KEPT_DAYS, Clock, Decision, Decisions, EmptyPolicy, Entry, Expiry, Policy, RESCUE_KEPT_DAYS, Reason, Verdict, View};
use crate::backup_id::BackupId;
use crate::manifest::HashKvVerdict;
use crate::name::Tag;
use crate::repository::catalog::NotLatest;

/// What becomes of every backup, by this policy at this time. Pure.
///
/// # Errors
/// [`EmptyPolicy`]: a policy that keeps nothing is a mistake, never an order.
pub fn decide(view: &View, policy: &Policy, now: Timestamp) -> Result<Decisions, EmptyPolicy> {
    if policy.is_empty() {
        return Err(EmptyPolicy);
    }
    let mut entries: Vec<&Entry> = view.entries.iter().collect();
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.id));
    let good: Vec<&Entry> = entries.iter().filter(|entry| entry.not_good().is_none()).copied().collect();
    let times: Vec<(Timestamp, &BTreeSet<Tag>)> = good.iter().map(|entry| (entry.at(), &entry.tags)).collect();
    let mut given: BTreeMap<BackupId, Vec<Reason>> = good.iter().map(|entry| entry.id).zip(by_rules(&times, policy)).collect();
    let context = Context { view, policy, newest: good.first().copied(), latest: latest(&good), protected: protected(view) };
    let mut of: Vec<Decision> = entries
        .iter()
        .map(|entry| {
            let verdict = context.verdict(entry, given.remove(&entry.id).unwrap_or_default());
            Decision { id: entry.id, stored: entry.stored, verdict }
        })
        .collect();
    drop_to_size(&mut of, view, policy);
    let clock = Clock::of(view, now);
    if clock != Clock::Sound {
        for decision in of.iter_mut().filter(|decision| !decision.verdict.is_kept()) {
            decision.verdict = Verdict::Keep(vec![Reason::Clock]);
        }
    }
    of.sort_by_key(|decision| decision.id);
    Ok(Decisions { of, clock })
}

/// The backup that promise 5 protects: good, and the newest among those with the best HashKV verdict their source offers and, of these, the highest rung.
#[must_use]
pub fn protected(view: &View) -> Option<BackupId> {
    // A source that offers no HashKV cannot be blamed for it; one that offers it and could not be compared is less proven.
    let is_best = |entry: &Entry| matches!(entry.hashkv, HashKvVerdict::Match | HashKvVerdict::NotOffered);
    let good = view.entries.iter().filter(|entry| entry.not_good().is_none());
    good.max_by_key(|entry| (is_best(entry), entry.rung, entry.id)).map(|entry| entry.id)
}

/// What `latest` names, by history and revision: an id is as right as the clock of the host that made it.
fn latest(good: &[&Entry]) -> Option<BackupId> {
    good.iter().max_by_key(|entry| (entry.lineage, entry.revision, entry.id)).map(|entry| entry.id)
}

struct Context<'a> {
    view: &'a View,
    policy: &'a Policy,
    /// The newest good one.
    newest: Option<&'a Entry>,
    /// The one that `latest` names.
    latest: Option<BackupId>,
    protected: Option<BackupId>,
}

impl Context<'_> {
    /// `reasons` are those of the rules, for a good one.
    fn verdict(&self, entry: &Entry, mut reasons: Vec<Reason>) -> Verdict {
        let not_good = entry.not_good();
        if not_good == Some(NotLatest::Untrusted) {
            return Verdict::Keep(vec![Reason::Untrusted]);
        }
        if not_good.is_some() {
            reasons.extend(entry.tags.intersection(&self.policy.tags).map(|tag| Reason::Tagged(tag.clone())));
        }
        if entry.pinned {
            reasons.push(Reason::Pinned);
        }
        if self.newest.is_some_and(|newest| newest.id == entry.id) || self.latest == Some(entry.id) {
            reasons.push(Reason::Newest);
        }
        if self.protected == Some(entry.id) {
            reasons.push(Reason::Protected);
        }
        match self.view.held_by(entry.lineage) {
            _ if not_good == Some(NotLatest::Unconfirmed) => reasons.push(Reason::Unconfirmed),
            Some(lineage) => reasons.push(Reason::BeforeUnconfirmed(lineage)),
            None => {}
        }
        let expiry = match not_good {
            Some(NotLatest::Rescue) => self.outlived(entry, RESCUE_KEPT_DAYS, Reason::Rescue, Expiry::OldRescue),
            Some(NotLatest::HashKv | NotLatest::Failed) => self.outlived(entry, BAD_KEPT_DAYS, Reason::Evidence, Expiry::Bad),
            _ => Ok(Expiry::NoRule),
        };
        let expiry = expiry.map_err(|more| reasons.extend(more));
        reasons.sort();
        reasons.dedup();
        match expiry {
            Ok(expiry) if reasons.is_empty() => Verdict::Expire(expiry),
            _ => Verdict::Keep(reasons),
        }
    }

    /// Whether a backup that has no place is outlived by a good one for long enough; else why it stays.
    fn outlived(&self, entry: &Entry, days: i64, reason: Reason, expiry: Expiry) -> Result<Expiry, Vec<Reason>> {
        let Some(newest) = self.newest else { return Err(vec![Reason::NothingGood]) };
        let mut reasons = Vec::new();
        let since = self.policy.within.as_ref().and_then(|within| back(newest.at(), within));
        if is_within(entry.at(), since, self.policy) {
            reasons.push(Reason::Within);
        }
        if newest.at().duration_since(entry.at()) < SignedDuration::from_hours(days * 24) {
            reasons.push(reason);
        }
        if reasons.is_empty() { Ok(expiry) } else { Err(reasons) }
    }
}

/// Drops the oldest that only counting rules keep until no more than `max_bytes` are left, or nothing else may go. `decisions` are sorted newest first.
/// What does not count is not added up: whoever wrote it would else drive the others out.
fn drop_to_size(decisions: &mut [Decision], view: &View, policy: &Policy) {
    let Some(most) = policy.max_bytes else { return };
    let counting: BTreeSet<BackupId> = view.entries.iter().filter(|entry| entry.counts).map(|entry| entry.id).collect();
    let kept = decisions.iter().filter(|decision| decision.verdict.is_kept() && counting.contains(&decision.id));
    let mut bytes = kept.map(|decision| decision.stored).fold(0, u64::saturating_add);
    for decision in decisions.iter_mut().rev() {
        if bytes <= most {
            return;
        }
        let only_counted =
            matches!(&decision.verdict, Verdict::Keep(reasons) if reasons.iter().all(|reason| matches!(reason, Reason::Rule(_))));
        if only_counted {
            bytes = bytes.saturating_sub(decision.stored);
            decision.verdict = Verdict::Expire(Expiry::MaxBytes);
        }
    }
}
