//! What is kept and what may go: a pure function of what the repository says, of a policy and of the time.
//!
//! It deletes nothing. It gives every backup a verdict with all its reasons, the same for every reader; the pruner in `engine` acts on it.
//!
//! The counting rules and `within` are those of `restic forget`, in UTC, held against the real one by a test: newest first; each rule takes the newest of
//! each of its buckets until its places are full; a bucket without a backup takes no place; while a rule has places left, the oldest backup of all is kept
//! too (newer releases of restic; 0.14 does not); `within` goes back from the newest backup, not from now.
//!
//! # Which backups have places
//!
//! | backup | places | goes |
//! |---|---|---|
//! | good: trusted, confirmed, complete, no rescue, neither disputed nor failed | takes them | when no rule keeps it |
//! | disputed, failed, incomplete | takes none, so that it drives no good one out | once it is [`BAD_KEPT_DAYS`] older than the newest good one, and `within` does not reach it |
//! | rescue | takes none: it is not part of the schedule | likewise, after [`RESCUE_KEPT_DAYS`]: whoever rescued data had reason to |
//! | unconfirmed | takes none | not before it is accepted |
//! | of the parent of an unconfirmed lineage | takes them | not while that one is unconfirmed: the good data of an emptied cluster lie there |
//! | not signed by a trusted signer | takes none | never: whoever could write it could also have made it look old or new |
//!
//! Whatever the rules say, these stay: pinned ones, tagged ones of the policy, the newest good one, the protected one ([`protected`]), and everything
//! while there is no good one at all, or while the clock cannot be believed.
//!
//! # Invariants (property tests)
//!
//! The newest good backup is always kept; more rules, or larger ones, keep a superset (without `max_bytes`); planning again what was kept changes
//! nothing; the order of the input does not matter; never does a plan leave nothing where there was something.

mod decide;
mod rules;
#[cfg(test)]
mod tests;
mod view;

use std::collections::BTreeSet;
use std::fmt;

use jiff::{SignedDuration, Span, Timestamp};

use crate::backup_id::BackupId;
use crate::lineage::LineageName;
use crate::name::Tag;

pub use decide::{decide, protected};
pub use rules::by_rules;
pub use view::{Entry, View};

/// A disputed, failed or incomplete backup stays until the newest good one is this much newer: it is evidence, and perhaps somebody's last copy.
pub const BAD_KEPT_DAYS: i64 = 30;
/// A rescue stays until the newest good backup is this much newer.
pub const RESCUE_KEPT_DAYS: i64 = 90;
/// A clock this far beyond the newest backup is not believed: ages by it would be made up.
pub const FAR_AHEAD: SignedDuration = SignedDuration::from_hours(90 * 24);
/// How far two hosts' clocks may differ without a word: the newest backup may be this much in the future.
pub const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// What is to be kept. Whatever one rule keeps is kept.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The newest so many.
    pub last: u32,
    /// The newest of each of the last so many hours that have one.
    pub hourly: u32,
    /// The newest of each of the last so many days that have one.
    pub daily: u32,
    /// The newest of each of the last so many ISO weeks that have one.
    pub weekly: u32,
    /// The newest of each of the last so many months that have one.
    pub monthly: u32,
    /// The newest of each of the last so many years that have one.
    pub yearly: u32,
    /// Everything younger than this, counted back from the newest backup.
    pub within: Option<Span>,
    /// Everything with one of these tags.
    pub tags: BTreeSet<Tag>,
    /// At most this many stored bytes in all: the oldest that only counting rules keep goes first.
    pub max_bytes: Option<u64>,
}

impl Policy {
    /// Whether nothing in it keeps anything. Such a policy is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places().iter().all(|(_, places)| *places == 0) && self.within.is_none() && self.tags.is_empty()
    }

    /// The counting rules with their places, in the order in which reasons are given.
    fn places(&self) -> [(Rule, u32); 6] {
        [
            (Rule::Last, self.last),
            (Rule::Hourly, self.hourly),
            (Rule::Daily, self.daily),
            (Rule::Weekly, self.weekly),
            (Rule::Monthly, self.monthly),
            (Rule::Yearly, self.yearly),
        ]
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> =
            self.places().iter().filter(|(_, places)| *places > 0).map(|(rule, places)| format!("{rule} {places}")).collect();
        words.extend(self.within.as_ref().map(|within| format!("within {within:#}")));
        words.extend(self.tags.iter().map(|tag| format!("tag {tag}")));
        words.extend(self.max_bytes.map(|bytes| format!("max-bytes {bytes}")));
        f.write_str(&words.join(", "))
    }
}

/// A counting rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// The newest ones.
    Last,
    /// One an hour.
    Hourly,
    /// One a day.
    Daily,
    /// One an ISO week.
    Weekly,
    /// One a month.
    Monthly,
    /// One a year.
    Yearly,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Last => "last",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        })
    }
}

/// Why a backup stays.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// A counting rule has a place for it.
    Rule(Rule),
    /// It is young enough.
    Within,
    /// It has a tag of the policy.
    Tagged(Tag),
    /// It is pinned.
    Pinned,
    /// It is the newest good one.
    Newest,
    /// It is the newest among the best proven (promise 5).
    Protected,
    /// Nobody has said yet whether it is of this cluster.
    Unconfirmed,
    /// It is of the history that this unconfirmed one came out of, or could have.
    BeforeUnconfirmed(LineageName),
    /// It is disputed, failed or incomplete, and not old enough yet to be of no use.
    Evidence,
    /// It holds rescued data, and is not old enough yet to be of no use.
    Rescue,
    /// Its signature does not count, so nothing it says does.
    Untrusted,
    /// There is no good backup, so nothing goes.
    NothingGood,
    /// It would go, but the clock cannot be believed.
    Clock,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) => rule.fmt(f),
            Self::Within => f.write_str("within"),
            Self::Tagged(tag) => write!(f, "tag {tag}"),
            Self::Pinned => f.write_str("pinned"),
            Self::Newest => f.write_str("newest"),
            Self::Protected => f.write_str("best proven"),
            Self::Unconfirmed => f.write_str("unconfirmed"),
            Self::BeforeUnconfirmed(lineage) => write!(f, "lineage {lineage} is unconfirmed"),
            Self::Evidence => f.write_str("disputed or failed, and young"),
            Self::Rescue => f.write_str("rescue"),
            Self::Untrusted => f.write_str("not signed by a trusted signer"),
            Self::NothingGood => f.write_str("there is no good backup"),
            Self::Clock => f.write_str("the clock is not believed"),
        }
    }
}

/// Why a backup may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expiry {
    /// No rule has a place for it.
    NoRule,
    /// A counting rule would keep it, and there is more than `max_bytes`.
    MaxBytes,
    /// It is disputed, failed or incomplete, and a good one is newer by [`BAD_KEPT_DAYS`].
    Bad,
    /// It holds rescued data, and a good one is newer by [`RESCUE_KEPT_DAYS`].
    OldRescue,
}

impl fmt::Display for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRule => "no rule keeps it",
            Self::MaxBytes => "there is more than max-bytes",
            Self::Bad => "disputed or failed, and good ones are newer",
            Self::OldRescue => "an old rescue",
        })
    }
}

/// What becomes of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays; every reason, sorted, at least one.
    Keep(Vec<Reason>),
    /// It may go.
    Expire(Expiry),
}

impl Verdict {
    /// Whether it stays.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        matches!(self, Self::Keep(_))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep(reasons) => {
                let words: Vec<String> = reasons.iter().map(ToString::to_string).collect();
                f.write_str(&words.join(", "))
            }
            Self::Expire(expiry) => expiry.fmt(f),
        }
    }
}

/// One backup with its verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The backup.
    pub id: BackupId,
    /// Its stored bytes.
    pub stored: u64,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// Whether the clock can be believed, by the newest backup whose signature counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// It can.
    Sound,
    /// There is nothing to hold it against.
    Unknown,
    /// It is behind this backup by more than [`CLOCK_SKEW`].
    Behind(BackupId),
    /// It is more than [`FAR_AHEAD`] after this backup.
    FarAhead(BackupId),
}

impl Clock {
    /// Holds the time against the backups.
    #[must_use]
    pub fn of(view: &View, now: Timestamp) -> Self {
        let Some(newest) = view.entries.iter().filter(|entry| entry.counts).map(|entry| entry.id).max() else { return Self::Unknown };
        let since = now.duration_since(newest.start());
        if since < -CLOCK_SKEW {
            Self::Behind(newest)
        } else if since > FAR_AHEAD {
            Self::FarAhead(newest)
        } else {
            Self::Sound
        }
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sound => f.write_str("the clock agrees with the newest backup"),
            Self::Unknown => f.write_str("there is no backup to hold the clock against"),
            Self::Behind(id) => write!(f, "the clock is behind the newest backup {id}"),
            Self::FarAhead(id) => write!(f, "the clock is more than 90 days after the newest backup {id}"),
        }
    }
}

/// The policy keeps nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the policy has no rule that keeps anything")]
pub struct EmptyPolicy;

/// What becomes of every backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decisions {
    /// Every backup of the view, sorted by id.
    pub of: Vec<Decision>,
    /// Whether the clock can be believed. Nothing expires unless it is [`Clock::Sound`].
    pub clock: Clock,
}
