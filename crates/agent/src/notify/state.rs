//! What a receiver is told, and when: one message per change, a reminder now and then, one word when it is over.
//!
//! Pure: what is so, what was told and the time go in; the message that is due comes out. For each receiver and each [`Topic`] of each cluster there is
//! one [`Line`], which the caller keeps. A receiver that could not be reached is told later what is so then; what came and went meanwhile is not.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::config::Event;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::limits::{CHANGES_APART, TOLD_AGAIN_AFTER, TOLD_AGAIN_AFTER_MOST};

/// What can be well or not by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topic {
    /// That backups are taken.
    Backups,
    /// That they are what they claim to be.
    Content,
    /// That they can be restored.
    Drills,
    /// etcd itself.
    Health,
    /// That every store holds them.
    Stores,
}

/// How it is with one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// Well.
    Fine,
    /// Backups: the last one was committed with warnings. Content: the newest one is very different. Drills: a check is overdue.
    Warning,
    /// Backups: the last one failed, and all its retries; an older one is fresh.
    Failed,
    /// Backups: the newest good one is too old.
    Stale,
    /// Backups: there never was a good one.
    NeverRan,
    /// Content: a verification found damage.
    Damaged,
    /// Drills: the last one failed.
    DrillFailed,
    /// Health: etcd needs care.
    Health,
    /// Stores: one lacks backups, or cannot be read.
    StoreBehind,
}

impl Condition {
    /// What is told of it; nothing of what is well.
    #[must_use]
    pub fn event(self) -> Option<Event> {
        match self {
            Self::Fine => None,
            Self::Warning => Some(Event::Warning),
            Self::Failed => Some(Event::Failed),
            Self::Stale => Some(Event::Stale),
            Self::NeverRan => Some(Event::NeverRan),
            Self::Damaged => Some(Event::Damaged),
            Self::DrillFailed => Some(Event::DrillFailed),
            Self::Health => Some(Event::Health),
            Self::StoreBehind => Some(Event::StoreBehind),
        }
    }
}

/// How it is, and what makes it another case of the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub struct Situation {
    /// How it is.
    pub condition: Condition,
    /// What it is about, where that matters: the damaged backups, the findings. Not times, sizes or errors in words, which differ each time.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
}

impl Situation {
    /// A situation of which there is one.
    #[must_use]
    pub fn of(condition: Condition) -> Self {
        Self { condition, about: String::new() }
    }

    /// A situation that is about something.
    #[must_use]
    pub fn about(condition: Condition, about: impl Into<String>) -> Self {
        Self { condition, about: about.into() }
    }
}

/// What one receiver knows of one topic of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// What it takes to be so; well without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<Situation>,
    /// When it was last told anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// When it last could not be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<Timestamp>,
    /// How often in a row it could not be told.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub misses: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// All lines, as an agent keeps them: by cluster, receiver and topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Lines(BTreeMap<String, BTreeMap<String, BTreeMap<Topic, Line>>>);

impl Lines {
    /// One line; a receiver that was never told anything takes all to be well.
    #[must_use]
    pub fn get(&self, cluster: &str, receiver: &str, topic: Topic) -> Line {
        self.0.get(cluster).and_then(|receivers| receivers.get(receiver)?.get(&topic)).cloned().unwrap_or_default()
    }

    /// Keeps a line.
    pub fn set(&mut self, cluster: &str, receiver: &str, topic: Topic, line: Line) {
        self.0.entry(cluster.to_owned()).or_default().entry(receiver.to_owned()).or_default().insert(topic, line);
    }

    /// Forgets clusters and receivers that are no longer configured.
    pub fn retain(&mut self, is_cluster: impl Fn(&str) -> bool, is_receiver: impl Fn(&str) -> bool) {
        self.0.retain(|cluster, _| is_cluster(cluster));
        for receivers in self.0.values_mut() {
            receivers.retain(|receiver, _| is_receiver(receiver));
        }
    }
}

/// What a receiver wants to hear.
#[derive(Clone, Copy)]
pub struct Wishes<'a> {
    /// Of which events.
    pub hears: &'a dyn Fn(Event) -> bool,
    /// How often of what has not changed.
    pub remind: Option<Duration>,
}

impl std::fmt::Debug for Wishes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wishes").field("remind", &self.remind).finish_non_exhaustive()
    }
}

/// A message that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// What is told.
    pub event: Event,
    /// Whether it was told before, and has not changed.
    pub reminder: bool,
    /// What the receiver takes to be so once it is told; well without.
    pub then: Option<Situation>,
}

/// What follows from how it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The line as it is to be kept, whatever becomes of the message.
    pub line: Line,
    /// The message, if one is due. What became of it goes to [`delivered`] or [`not_delivered`].
    pub due: Option<Due>,
}

/// Decides what a receiver is told now.
///
/// - Bad news comes at once; after any message the next change waits for [`CHANGES_APART`], and is told as it is by then, if it still is another.
/// - What somebody was told and is over is told as [`Event::Recovered`], once, to who hears of it.
/// - A condition that a receiver does not hear of neither begins nor ends anything for it; only warnings count as well for who does not hear of them.
/// - A clock that went back delays nothing by more than it would from now on.
#[must_use]
pub fn decide(line: &Line, now_is: &Situation, wishes: &Wishes<'_>, now: Timestamp) -> Decision {
    let mut line = not_ahead(line, now);
    let Some(target) = heard(now_is, wishes) else { return Decision { line, due: None } };
    if target == line.told {
        let due = target.filter(|_| is_reminder_due(&line, wishes, now)).and_then(|told| {
            let event = told.condition.event()?;
            Some(Due { event, reminder: true, then: Some(told) })
        });
        return Decision { due: due.filter(|_| may_try(&line, now)), line };
    }
    let event = match &target {
        Some(situation) => situation.condition.event(),
        None => Some(Event::Recovered).filter(|event| (wishes.hears)(*event)),
    };
    let Some(event) = event else {
        // Nobody is told that it is over; the next time is news again.
        line.told = None;
        return Decision { line, due: None };
    };
    let settled = line.at.is_none_or(|at| passed(at, now) >= CHANGES_APART);
    let due = Some(Due { event, reminder: false, then: target }).filter(|_| settled && may_try(&line, now));
    Decision { line, due }
}

/// The line after a message arrived.
#[must_use]
pub fn delivered(due: &Due, now: Timestamp) -> Line {
    Line { told: due.then.clone(), at: Some(now), missed: None, misses: 0 }
}

/// The line after a message did not arrive.
#[must_use]
pub fn not_delivered(line: &Line, now: Timestamp) -> Line {
    Line { missed: Some(now), misses: line.misses.saturating_add(1), ..line.clone() }
}

/// What a receiver should take to be so. The outer `None`: this is nothing of its business, and whatever it knows may stay.
#[expect(clippy::option_option, reason = "not heard, well, and not well are three answers")]
fn heard(now_is: &Situation, wishes: &Wishes<'_>) -> Option<Option<Situation>> {
    match now_is.condition.event() {
        None => Some(None),
        Some(event) if (wishes.hears)(event) => Some(Some(now_is.clone())),
        Some(Event::Warning) => Some(None),
        Some(_) => None,
    }
}

fn is_reminder_due(line: &Line, wishes: &Wishes<'_>, now: Timestamp) -> bool {
    wishes.remind.is_some_and(|remind| line.at.is_none_or(|at| passed(at, now) >= remind))
}

/// Whether a receiver that could not be told is tried again.
fn may_try(line: &Line, now: Timestamp) -> bool {
    let Some(missed) = line.missed else { return true };
    let doubled = 2_u32.saturating_pow(line.misses.saturating_sub(1));
    passed(missed, now) >= TOLD_AGAIN_AFTER.saturating_mul(doubled).min(TOLD_AGAIN_AFTER_MOST)
}

fn passed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since).max(SignedDuration::ZERO)).unwrap_or_default()
}

/// Times of a clock that was ahead count from now on.
fn not_ahead(line: &Line, now: Timestamp) -> Line {
    Line { at: line.at.map(|at| at.min(now)), missed: line.missed.map(|at| at.min(now)), ..line.clone() }
}

#[cfg(test)]
mod tests;
