//! From what a person types to one backup: an id, a unique beginning of one, its last six characters, `latest`, `latest~N`, `@<revision>`, or a
//! moment.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};

use super::catalog::{Backup, Catalog, NotLatest};
use crate::backup_id::{self, BackupId};

/// What was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// `latest` (0) or `latest~N`: N before it.
    Latest(usize),
    /// `@<revision>`.
    Revision(i64),
    /// The beginning of an id, or its last six characters.
    Text(String),
}

/// What was typed names no backup in any way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' does not name a backup: an id, its beginning or its last six characters, latest, latest~N or @REVISION is expected")]
pub struct NotASelector {
    /// What was typed, cut to 100 characters.
    pub text: String,
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl FromStr for Selector {
    type Err = NotASelector;

    fn from_str(text: &str) -> Result<Self, NotASelector> {
        let wrong = || NotASelector { text: text.chars().take(100).collect() };
        if text == "latest" {
            return Ok(Self::Latest(0));
        }
        if let Some(back) = text.strip_prefix("latest~") {
            return number(back).map(Self::Latest).ok_or_else(wrong);
        }
        if let Some(revision) = text.strip_prefix('@') {
            return number(revision).filter(|revision| *revision >= 1).map(Self::Revision).ok_or_else(wrong);
        }
        let plain = (1..=backup_id::LENGTH).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if plain { Ok(Self::Text(text.to_owned())) } else { Err(wrong()) }
    }
}

/// How the backup found relates to what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It is what was asked for.
    Exact,
    /// It is newer and holds the revision asked for: later rows are to be left out.
    Later {
        /// How many revisions lie between.
        revisions: i64,
    },
    /// It is the newest before what was asked for, and what came after it is not in it.
    Earlier {
        /// How many revisions are missing.
        revisions: i64,
    },
    /// It is the newest not later than the moment asked for.
    Before {
        /// How far before.
        by: SignedDuration,
    },
}

/// The backup that was meant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resolved<'a> {
    /// The backup.
    pub backup: &'a Backup,
    /// How it relates to what was asked for.
    pub reach: Reach,
}

/// Why no backup was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// No id begins or ends so.
    #[error("no backup's id begins with '{text}', and none ends with it")]
    NotFound {
        /// What was typed.
        text: String,
    },
    /// More than one does.
    #[error("'{text}' could be {} backups: {}", .ids.len(), Ids(.ids))]
    Ambiguous {
        /// What was typed.
        text: String,
        /// Those it could be.
        ids: Vec<BackupId>,
    },
    /// There are fewer backups that can be `latest`.
    #[error("there are {have} backups that can be 'latest'{}", Reasons(.why))]
    TooFew {
        /// How many there are.
        have: usize,
        /// How many others there are, by what keeps them from it.
        why: BTreeMap<NotLatest, usize>,
    },
    /// Every backup that counts begins after this revision.
    #[error("no backup reaches back to revision {revision}{}", Reasons(.why))]
    NoRevision {
        /// The revision.
        revision: i64,
        /// How many others there are, by what keeps them from being used.
        why: BTreeMap<NotLatest, usize>,
    },
    /// Every backup that counts is later.
    #[error("no backup is from {moment} or earlier{}", Reasons(.why))]
    NothingBefore {
        /// The moment.
        moment: Timestamp,
        /// How many others there are, by what keeps them from being used.
        why: BTreeMap<NotLatest, usize>,
    },
}

struct Ids<'a>(&'a [BackupId]);

impl fmt::Display for Ids<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        for (at, id) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{id}", if at > 0 { ", " } else { "" })?;
        }
        if self.0.len() > SHOWN { f.write_str(", …") } else { Ok(()) }
    }
}

struct Reasons<'a>(&'a BTreeMap<NotLatest, usize>);

impl fmt::Display for Reasons<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (why, count)) in self.0.iter().enumerate() {
            write!(f, "{}{count} {why}", if at > 0 { ", " } else { "; left out: " })?;
        }
        Ok(())
    }
}

impl Catalog {
    /// The backups that can be `latest`, the best first: the newest history, in it the highest revision, of those the newest id. Of ids of
    /// one second the one that stands for the later moment is the newer one.
    pub fn eligible(&self) -> Vec<&Backup> {
        let mut eligible: Vec<&Backup> = self.backups.iter().filter(|backup| backup.not_latest().is_none()).collect();
        eligible.sort_by_key(|backup| std::cmp::Reverse((backup.manifest.lineage, backup.manifest.revision, backup.age_order())));
        eligible
    }

    fn left_out(&self) -> BTreeMap<NotLatest, usize> {
        let mut why = BTreeMap::new();
        for reason in self.backups.iter().filter_map(Backup::not_latest) {
            *why.entry(reason).or_default() += 1;
        }
        why
    }

    /// Finds the backup that was meant. Ids find any backup; `latest` and `@…` only those of [`Catalog::eligible`].
    pub fn resolve(&self, selector: &Selector) -> Result<Resolved<'_>, ResolveError> {
        match selector {
            Selector::Latest(back) => {
                let eligible = self.eligible();
                let too_few = || ResolveError::TooFew { have: eligible.len(), why: self.left_out() };
                eligible.get(*back).map(|backup| Resolved { backup, reach: Reach::Exact }).ok_or_else(too_few)
            }
            Selector::Revision(revision) => self.at_revision(*revision),
            Selector::Text(text) => self.by_text(text),
        }
    }

    fn by_text(&self, text: &str) -> Result<Resolved<'_>, ResolveError> {
        let named = |backup: &&Backup| backup.id().to_string().starts_with(text) || backup.id().suffix() == text;
        let found: Vec<&Backup> = self.backups.iter().filter(named).collect();
        match found[..] {
            [] => Err(ResolveError::NotFound { text: text.to_owned() }),
            [backup] => Ok(Resolved { backup, reach: Reach::Exact }),
            _ => Err(ResolveError::Ambiguous { text: text.to_owned(), ids: found.iter().map(|backup| backup.id()).collect() }),
        }
    }

    /// In the newest history that reaches the revision: the backup of exactly that revision, else the nearest later one that still holds it, else
    /// the nearest earlier one. Below a history's epoch its revisions are its parent's.
    fn at_revision(&self, revision: i64) -> Result<Resolved<'_>, ResolveError> {
        let eligible = self.eligible();
        let exact = eligible.iter().find(|backup| backup.manifest.revision == revision);
        // Highest revisions first within a history, so the last that fits is the nearest.
        let holds = |backup: &&&Backup| backup.manifest.revision > revision && backup.manifest.floor() <= revision;
        let newest_holding = eligible.iter().find(|backup| holds(backup)).map(|backup| backup.manifest.lineage);
        let later = || eligible.iter().rev().filter(holds).find(|backup| Some(backup.manifest.lineage) == newest_holding);
        let earlier = || eligible.iter().find(|backup| backup.manifest.revision < revision && backup.manifest.epoch <= revision);
        let found = exact.copied().map(|backup| Resolved { backup, reach: Reach::Exact });
        let found = found.or_else(|| {
            let backup = *later()?;
            Some(Resolved { backup, reach: Reach::Later { revisions: backup.manifest.revision - revision } })
        });
        let found = found.or_else(|| {
            let backup = *earlier()?;
            Some(Resolved { backup, reach: Reach::Earlier { revisions: revision - backup.manifest.revision } })
        });
        found.ok_or_else(|| ResolveError::NoRevision { revision, why: self.left_out() })
    }

    /// The newest backup that is not later than a moment, in whatever accepted history was alive then.
    pub fn at_moment(&self, moment: Timestamp) -> Result<Resolved<'_>, ResolveError> {
        let eligible = self.eligible();
        let before = eligible.iter().filter(|backup| backup.manifest.moment() <= moment);
        let newest = before.max_by_key(|backup| (backup.manifest.moment(), backup.manifest.lineage, backup.manifest.revision, backup.id()));
        let Some(backup) = newest.copied() else {
            return Err(ResolveError::NothingBefore { moment, why: self.left_out() });
        };
        let by = moment.duration_since(backup.manifest.moment());
        Ok(Resolved { backup, reach: if by.is_zero() { Reach::Exact } else { Reach::Before { by } } })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_person_types() {
        let parse = |text: &str| text.parse::<Selector>();
        assert_eq!(parse("latest"), Ok(Selector::Latest(0)));
        assert_eq!(parse("latest~3"), Ok(Selector::Latest(3)));
        assert_eq!(parse("@123"), Ok(Selector::Revision(123)));
        assert_eq!(parse("7qk2m9"), Ok(Selector::Text("7qk2m9".into())));
        assert_eq!(parse("20261121T020004Z-7qk2m9"), Ok(Selector::Text("20261121T020004Z-7qk2m9".into())));
        for bad in ["", "@", "@-1", "@0", "@x", "latest~", "latest~-1", "latest~+1", "a/b", "é", "20261121T020004Z-7qk2m9x", "../x"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
