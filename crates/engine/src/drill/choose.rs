//! Which backups are drilled, and in which order. Pure.

use std::time::Duration;

use jiff::Timestamp;
use vault::backup_id::BackupId;
use vault::mark::{Outcome as Ending, Statement};
use vault::repository::{Backup, Catalog};

/// A backup that can be chosen, and what is known of its drills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The backup.
    pub id: BackupId,
    /// Whether it is `latest`.
    pub latest: bool,
    /// Bytes of its database.
    pub bytes: u64,
    /// When a drill of it last passed or failed.
    pub concluded: Option<Timestamp>,
    /// When it was last tried, whatever came of it.
    pub tried: Option<Timestamp>,
}

/// Why a backup was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It was asked for.
    Named,
    /// It is `latest`, and no drill has passed or failed yet.
    LatestUndrilled,
    /// It was never tried.
    Undrilled,
    /// No other one was tried longer ago.
    TriedAt(Timestamp),
}

impl Why {
    /// In words.
    #[must_use]
    pub fn words(self) -> String {
        match self {
            Self::Named => "asked for".to_owned(),
            Self::LatestUndrilled => "latest, and never drilled".to_owned(),
            Self::Undrilled => "never drilled".to_owned(),
            Self::TriedAt(at) => format!("least recently drilled: {at:.0}"),
        }
    }
}

/// A backup, and why it was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The backup.
    pub id: BackupId,
    /// Why.
    pub why: Why,
    /// Bytes of its database.
    pub bytes: u64,
}

/// What the catalog knows of the drills of some of its backups. Only marks that count are read.
#[must_use]
pub fn candidates(catalog: &Catalog, of: &[&Backup]) -> Vec<Candidate> {
    let latest = catalog.eligible().first().map(|backup| backup.id());
    let candidate = |backup: &&Backup| {
        let id = backup.id();
        let drills = || {
            catalog.marks.iter().filter(|entry| entry.counts).filter_map(|entry| match &entry.mark.statement {
                Statement::Drill(of, data) if *of == id => Some(data),
                _ => None,
            })
        };
        Candidate {
            id,
            latest: latest == Some(id),
            bytes: backup.manifest.snapshot.db_size,
            concluded: drills().filter(|data| data.result != Ending::Inconclusive).map(|data| data.at).max(),
            tried: drills().map(|data| data.at).max(),
        }
    };
    of.iter().map(candidate).collect()
}

/// The order in which backups are drilled: `latest` while no drill of it came to anything, then those never tried, the newest first, then those tried
/// longest ago.
///
/// What counts for the rest is the last try and not the last result, or one backup that can never be opened would be tried for ever in the place of all
/// others.
#[must_use]
pub fn order(candidates: &[Candidate]) -> Vec<Chosen> {
    let mut sorted = candidates.to_vec();
    let is_first = |candidate: &Candidate| candidate.latest && candidate.concluded.is_none();
    sorted.sort_by_key(|candidate| (!is_first(candidate), candidate.tried, std::cmp::Reverse(candidate.id)));
    let why = |candidate: &Candidate| match candidate.tried {
        _ if is_first(candidate) => Why::LatestUndrilled,
        None => Why::Undrilled,
        Some(at) => Why::TriedAt(at),
    };
    sorted.iter().map(|candidate| Chosen { id: candidate.id, why: why(candidate), bytes: candidate.bytes }).collect()
}

/// How many of the chosen backups are drilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The first one.
    One,
    /// All of them.
    All,
    /// The first one, and then as many as will be over within this time.
    Within(Duration),
}

/// Whether another drill begins. `done` is how many bytes those of this run had and how long they took: by them the next one is estimated.
#[must_use]
pub fn fits(done: &[(u64, Duration)], elapsed: Duration, extent: Extent, next: u64) -> bool {
    let budget = match extent {
        _ if done.is_empty() => return true,
        Extent::One => return false,
        Extent::All => return true,
        Extent::Within(budget) => budget,
    };
    let estimate =
        |(bytes, took): &(u64, Duration)| took.mul_f64((next as f64 / (*bytes).max(1) as f64).clamp(SMALLEST_SHARE, LARGEST_SHARE));
    elapsed.saturating_add(done.iter().map(estimate).max().unwrap_or_default()) <= budget
}

/// A much smaller backup still takes this share of the time: etcd has to start.
const SMALLEST_SHARE: f64 = 0.5;
/// Beyond this nothing fits anyway.
const LARGEST_SHARE: f64 = 1e6;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn candidate(day: u8, tried: Option<i64>, concluded: Option<i64>) -> Candidate {
        let id = format!("202611{day:02}T020004Z-7qk2m9").parse().unwrap();
        Candidate { id, latest: day == 20, bytes: 1, concluded: concluded.map(at), tried: tried.map(at) }
    }

    fn days(candidates: &[Candidate]) -> Vec<String> {
        order(candidates).iter().map(|chosen| chosen.id.to_string()[6..8].to_owned()).collect()
    }

    #[test]
    fn latest_comes_first_until_a_drill_of_it_came_to_something() {
        let others = [candidate(18, None, None), candidate(19, Some(5), Some(5))];
        let with = |latest: Candidate| days(&[others[0], others[1], latest]);
        assert_eq!(with(candidate(20, None, None)), ["20", "18", "19"]);
        assert_eq!(with(candidate(20, Some(9), None)), ["20", "18", "19"], "an inconclusive one is tried again");
        assert_eq!(with(candidate(20, Some(9), Some(9))), ["18", "19", "20"]);
        assert_eq!(with(candidate(20, Some(2), Some(2))), ["18", "20", "19"]);
    }

    #[test]
    fn then_the_never_tried_newest_first_then_the_longest_ago() {
        let all = [
            candidate(11, Some(40), Some(40)),
            candidate(12, None, None),
            candidate(13, Some(10), None),
            candidate(14, None, None),
            candidate(15, Some(20), Some(15)),
            candidate(20, Some(30), Some(30)),
        ];
        assert_eq!(days(&all), ["14", "12", "13", "15", "20", "11"]);
        let why: Vec<Why> = order(&all).iter().map(|chosen| chosen.why).collect();
        assert_eq!(why[..3], [Why::Undrilled, Why::Undrilled, Why::TriedAt(at(10))]);
        assert_eq!(order(&[candidate(20, None, None)])[0].why, Why::LatestUndrilled);
        assert!(order(&[]).is_empty());
    }

    #[test]
    fn an_order_does_not_depend_on_how_it_came_in() {
        let mut all: Vec<Candidate> = (1..20).map(|day| candidate(day, (day % 3 != 0).then_some(i64::from(day % 5)), None)).collect();
        let first = days(&all);
        for _ in 0..all.len() {
            all.rotate_left(1);
            assert_eq!(days(&all), first);
        }
    }

    #[test]
    fn one_is_drilled_without_a_budget_and_as_many_as_fit_with_one() {
        let second = Duration::from_secs;
        let within = |seconds| Extent::Within(second(seconds));
        assert!(fits(&[], second(0), Extent::One, u64::MAX) && fits(&[], second(900), within(1), u64::MAX));
        let one = [(100, second(10))];
        assert!(!fits(&one, second(10), Extent::One, 1) && fits(&one, second(10), Extent::All, u64::MAX));
        assert!(fits(&one, second(10), within(20), 100));
        assert!(!fits(&one, second(10), within(20), 101));
        assert!(!fits(&one, second(10), within(14), 1), "etcd has to start whatever the size");
        assert!(!fits(&[(0, second(10))], second(10), within(600), u64::MAX));
    }
}
