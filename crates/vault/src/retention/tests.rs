#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};
use proptest::prelude::*;

use super::rules::back;
use super::*;
use crate::manifest::{HashKvVerdict, Rung};

const ONE: &str = "0001-cdf818194e3a8c32-0";
const TWO: &str = "0002-000000000000000b-0";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn id(at: Timestamp) -> BackupId {
    let civil = TimeZone::UTC.to_datetime(at);
    format!("{}-00000{}", civil.strftime("%Y%m%dT%H%M%SZ"), at.as_second() % 10).parse().unwrap()
}

fn entry(moment: Timestamp) -> Entry {
    Entry {
        id: id(moment),
        lineage: ONE.parse().unwrap(),
        revision: moment.as_second(),
        confirmed: true,
        counts: true,
        is_rescue: false,
        hashkv: HashKvVerdict::Match,
        failed: false,
        rung: Rung::Stored,
        stored: 10,
        tags: BTreeSet::new(),
        pinned: false,
    }
}

/// One a day at noon, the newest on 20 November 2026, the oldest first.
fn days(count: i64) -> View {
    let newest = at("2026-11-20T12:00:00Z");
    let day = |back: i64| entry(newest.checked_sub(SignedDuration::from_hours(24 * back)).unwrap());
    View { entries: (0..count).rev().map(day).collect(), unconfirmed: Vec::new() }
}

fn now() -> Timestamp {
    at("2026-11-20T13:00:00Z")
}

fn last(last: u32) -> Policy {
    Policy { last, ..Policy::default() }
}

fn kept(view: &View, policy: &Policy) -> BTreeSet<BackupId> {
    decide(view, policy, now()).unwrap().of.into_iter().filter(|decision| decision.verdict.is_kept()).map(|decision| decision.id).collect()
}

fn verdict(view: &View, policy: &Policy, of: usize) -> Verdict {
    let wanted = view.entries[of].id;
    decide(view, policy, now()).unwrap().of.into_iter().find(|decision| decision.id == wanted).unwrap().verdict
}

fn keeps(view: &View, policy: &Policy, of: usize, reason: &Reason) -> bool {
    matches!(verdict(view, policy, of), Verdict::Keep(reasons) if reasons.contains(reason))
}

#[test]
fn a_policy_that_keeps_nothing_is_refused() {
    for policy in [Policy::default(), Policy { max_bytes: Some(1), ..Policy::default() }] {
        assert_eq!(decide(&days(3), &policy, now()), Err(EmptyPolicy));
    }
}

#[test]
fn the_newest_and_the_best_proven_stay() {
    let mut view = days(10);
    view.entries[2].rung = Rung::Booted;
    let policy = last(1);
    assert_eq!(kept(&view, &policy), BTreeSet::from([view.entries[2].id, view.entries[9].id]));
    assert!(keeps(&view, &policy, 2, &Reason::Protected) && keeps(&view, &policy, 9, &Reason::Newest));
    // A higher rung does not make up for a verdict that nobody could give.
    view.entries[2].hashkv = HashKvVerdict::Inconclusive;
    assert_eq!(protected(&view), Some(view.entries[9].id));
    // Where the source offers none, none is missed.
    view.entries[2].hashkv = HashKvVerdict::NotOffered;
    assert_eq!(protected(&view), Some(view.entries[2].id));
}

#[test]
fn bad_ones_take_no_place_and_go_late() {
    let mut view = days(60);
    for (of, bad) in view.entries.iter_mut().enumerate() {
        match of {
            50..60 => bad.failed = true,
            5 => bad.hashkv = HashKvVerdict::Disputed,
            _ => {}
        }
    }
    let policy = last(3);
    // The newest good ones are 47, 48 and 49, however many runs failed after them.
    for of in [47, 48, 49] {
        assert!(keeps(&view, &policy, of, &Reason::Rule(Rule::Last)), "{of}");
    }
    assert!(keeps(&view, &policy, 49, &Reason::Newest));
    assert_eq!(verdict(&view, &policy, 46), Verdict::Expire(Expiry::NoRule));
    assert!(keeps(&view, &policy, 55, &Reason::Evidence));
    assert_eq!(verdict(&view, &policy, 5), Verdict::Expire(Expiry::Bad));
    let within = Policy { within: Some(Span::new().days(50)), ..policy };
    assert!(keeps(&view, &within, 5, &Reason::Within));
}

#[test]
fn a_rescue_takes_no_place_and_stays_for_a_quarter() {
    let mut view = days(120);
    view.entries[119].is_rescue = true;
    view.entries[60].is_rescue = true;
    view.entries[1].is_rescue = true;
    let policy = last(1);
    assert!(keeps(&view, &policy, 118, &Reason::Newest));
    assert!(keeps(&view, &policy, 119, &Reason::Rescue) && keeps(&view, &policy, 60, &Reason::Rescue));
    assert_eq!(verdict(&view, &policy, 1), Verdict::Expire(Expiry::OldRescue));
    view.entries[1].pinned = true;
    assert_eq!(verdict(&view, &policy, 1), Verdict::Keep(vec![Reason::Pinned]));
}

#[test]
fn an_emptied_cluster_does_not_age_the_good_one_out() {
    let mut view = days(40);
    for unconfirmed in &mut view.entries[20..] {
        (unconfirmed.lineage, unconfirmed.confirmed) = (TWO.parse().unwrap(), false);
    }
    view.unconfirmed = vec![(TWO.parse().unwrap(), ONE.parse().ok())];
    let policy = last(1);
    assert_eq!(kept(&view, &policy).len(), 40);
    assert_eq!(verdict(&view, &policy, 30), Verdict::Keep(vec![Reason::Unconfirmed]));
    assert!(keeps(&view, &policy, 0, &Reason::BeforeUnconfirmed(TWO.parse().unwrap())));
    // Of a third history nothing hangs on it.
    view.entries[0].lineage = "0001-0000000000000001-0".parse().unwrap();
    assert_eq!(verdict(&view, &policy, 0), Verdict::Expire(Expiry::NoRule));
    // One that does not tell where it came from could have come from anywhere.
    view.unconfirmed[0].1 = None;
    assert_eq!(kept(&view, &policy).len(), 40);
}

#[test]
fn what_does_not_count_neither_takes_a_place_nor_goes() {
    let mut view = days(10);
    view.entries[9].counts = false;
    view.entries[0].counts = false;
    view.entries[0].stored = 1_000_000;
    let policy = Policy { max_bytes: Some(20), ..last(2) };
    assert_eq!(verdict(&view, &policy, 9), Verdict::Keep(vec![Reason::Untrusted]));
    assert_eq!(verdict(&view, &policy, 0), Verdict::Keep(vec![Reason::Untrusted]));
    assert!(keeps(&view, &policy, 8, &Reason::Newest) && keeps(&view, &policy, 7, &Reason::Rule(Rule::Last)));
}

#[test]
fn without_a_good_one_nothing_goes() {
    let mut view = days(100);
    view.entries.iter_mut().for_each(|entry| entry.failed = true);
    assert_eq!(kept(&view, &last(1)).len(), 100);
    assert!(keeps(&view, &last(1), 0, &Reason::NothingGood));
}

#[test]
fn max_bytes_takes_the_oldest_that_only_counting_rules_keep() {
    let mut view = days(10);
    view.entries[1].pinned = true;
    view.entries[2].tags.insert("audit".parse().unwrap());
    let mut policy = Policy { max_bytes: Some(50), tags: ["audit".parse().unwrap()].into(), ..last(10) };
    // The pinned and the tagged one are in the sum and do not go.
    let left: Vec<usize> = (0..10).filter(|of| verdict(&view, &policy, *of).is_kept()).collect();
    assert_eq!(left, [1, 2, 7, 8, 9]);
    assert_eq!(verdict(&view, &policy, 0), Verdict::Expire(Expiry::MaxBytes));
    policy.max_bytes = Some(0);
    let left: Vec<usize> = (0..10).filter(|of| verdict(&view, &policy, *of).is_kept()).collect();
    assert_eq!(left, [1, 2, 9]);
}

#[test]
fn a_clock_that_is_not_believed_lets_nothing_go() {
    let view = days(10);
    for (moment, clock) in [
        ("2026-11-20T11:56:00Z", Clock::Sound),
        ("2026-11-20T11:54:00Z", Clock::Behind(view.entries[9].id)),
        ("2027-02-18T12:00:00Z", Clock::Sound),
        ("2027-02-18T12:00:01Z", Clock::FarAhead(view.entries[9].id)),
    ] {
        let decisions = decide(&view, &last(1), at(moment)).unwrap();
        assert_eq!(decisions.clock, clock, "{moment}");
        let going = decisions.of.iter().filter(|decision| !decision.verdict.is_kept()).count();
        assert_eq!(going, if clock == Clock::Sound { 9 } else { 0 }, "{moment}");
    }
    assert_eq!(Clock::of(&View::default(), now()), Clock::Unknown);
}

#[test]
fn months_go_back_as_restic_counts_them() {
    for (from, span, to) in [
        ("2026-03-31T10:00:00Z", Span::new().months(1), "2026-03-03T10:00:00Z"),
        ("2024-02-29T10:00:00Z", Span::new().years(1), "2023-03-01T10:00:00Z"),
        ("2026-01-15T10:00:00Z", Span::new().months(2).days(20).hours(11), "2025-10-25T23:00:00Z"),
        ("2026-11-20T12:00:00Z", Span::new().weeks(2), "2026-11-06T12:00:00Z"),
        ("2026-11-20T12:00:00Z", Span::new().minutes(90).seconds(1), "2026-11-20T10:29:59Z"),
    ] {
        assert_eq!(back(at(from), &span), Some(at(to)), "{from} less {span:#}");
    }
    assert_eq!(back(at("2026-11-20T12:00:00Z"), &Span::new().years(19_998)), None);
}

#[test]
fn weeks_are_those_of_iso_8601() {
    // Sunday 3 January 2027 is in week 53 of 2026, as are the days before; Monday begins week 1.
    let moments = ["2027-01-04T01:00:00Z", "2027-01-03T23:00:00Z", "2026-12-31T23:00:00Z", "2026-12-28T00:00:00Z", "2026-12-27T23:59:59Z"];
    let none = BTreeSet::new();
    let list: Vec<(Timestamp, &BTreeSet<Tag>)> = moments.iter().map(|text| (at(text), &none)).collect();
    let kept: Vec<bool> = by_rules(&list, &Policy { weekly: 2, ..Policy::default() }).iter().map(|of| !of.is_empty()).collect();
    assert_eq!(kept, [true, true, false, false, false]);
}

/// Rules written down once more, as plainly as can be: all distinct buckets first, then who is the newest of each.
fn oracle(times: &[Timestamp], policy: &Policy) -> BTreeSet<Timestamp> {
    let zoned = |at: &Timestamp| at.to_zoned(TimeZone::UTC);
    let words: [(u32, &str); 5] = [
        (policy.hourly, "%Y-%m-%d %H"),
        (policy.daily, "%Y-%m-%d"),
        (policy.weekly, "%G-W%V"),
        (policy.monthly, "%Y-%m"),
        (policy.yearly, "%Y"),
    ];
    let mut sorted: Vec<Timestamp> = times.to_vec();
    sorted.sort();
    sorted.reverse();
    let mut kept: BTreeSet<Timestamp> = sorted.iter().take(policy.last as usize).copied().collect();
    for (places, form) in words {
        let name = |at: &Timestamp| zoned(at).strftime(form).to_string();
        let mut buckets: Vec<String> = sorted.iter().map(name).collect();
        buckets.dedup();
        let newest_of = |bucket: &String| sorted.iter().find(|at| name(at) == *bucket).copied();
        kept.extend(buckets.iter().take(places as usize).filter_map(newest_of));
        if buckets.len() < places as usize {
            kept.extend(sorted.last());
        }
    }
    if let (Some(within), Some(newest)) = (policy.within, sorted.first()) {
        let since = zoned(newest).checked_sub(within).unwrap().timestamp();
        kept.extend(sorted.iter().filter(|at| **at > since));
    }
    kept
}

fn moments() -> impl Strategy<Value = Vec<Timestamp>> {
    // Dense hours, dense days, and years apart; to the second, each once.
    let second = prop_oneof![0..200_000_i64, 0..8_000_000_i64, 0..200_000_000_i64];
    prop::collection::btree_set(second, 1..60).prop_map(|set| {
        let newest = at("2026-11-20T12:00:00Z");
        set.into_iter().map(|second| newest.checked_sub(SignedDuration::from_secs(second)).unwrap()).collect()
    })
}

fn policies() -> impl Strategy<Value = Policy> {
    let few = || prop_oneof![2 => Just(0_u32), 3 => 1..8_u32, 1 => 20..50_u32];
    let within = prop_oneof![
        Just(None),
        (1..900_i64).prop_map(|hours| Some(Span::new().hours(hours))),
        (1..60_i64).prop_map(|days| Some(Span::new().days(days)))
    ];
    (few(), few(), few(), few(), few(), few(), within).prop_map(|(last, hourly, daily, weekly, monthly, yearly, within)| {
        let mut policy = Policy { last, hourly, daily, weekly, monthly, yearly, within, ..Policy::default() };
        if policy.is_empty() {
            policy.last = 1;
        }
        policy
    })
}

/// Backups of every kind.
fn views() -> impl Strategy<Value = View> {
    (moments(), prop::collection::vec((0..24_u8, 0..4_u8, 0..5_u8, 1..100_u64), 60)).prop_map(|(moments, kinds)| {
        let entries: Vec<Entry> = moments
            .into_iter()
            .zip(kinds)
            .map(|(moment, (kind, rung, tag, stored))| {
                let mut entry = Entry { stored, ..entry(moment) };
                entry.rung = [Rung::Stored, Rung::Read, Rung::Deep, Rung::Booted][usize::from(rung)];
                if tag == 0 {
                    entry.tags.insert("a".parse().unwrap());
                }
                match kind {
                    0 => entry.failed = true,
                    1 => entry.hashkv = HashKvVerdict::Disputed,
                    2 => entry.is_rescue = true,
                    3 => entry.counts = false,
                    4 => entry.pinned = true,
                    5 => (entry.lineage, entry.confirmed) = (TWO.parse().unwrap(), false),
                    6 => entry.lineage = TWO.parse().unwrap(),
                    7 => entry.hashkv = HashKvVerdict::Inconclusive,
                    _ => {}
                }
                entry
            })
            .collect();
        View { entries, unconfirmed: Vec::new() }
    })
}

fn only(view: &View, ids: &BTreeSet<BackupId>) -> View {
    View { entries: view.entries.iter().filter(|entry| ids.contains(&entry.id)).cloned().collect(), unconfirmed: view.unconfirmed.clone() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_rules_equal_the_oracle(moments in moments(), policy in policies()) {
        let none = BTreeSet::new();
        let mut newest_first = moments.clone();
        newest_first.sort();
        newest_first.reverse();
        let list: Vec<(Timestamp, &BTreeSet<Tag>)> = newest_first.iter().map(|at| (*at, &none)).collect();
        let reasons = by_rules(&list, &policy);
        let kept: BTreeSet<Timestamp> = newest_first.iter().zip(&reasons).filter(|(_, of)| !of.is_empty()).map(|(at, _)| *at).collect();
        prop_assert_eq!(kept, oracle(&moments, &policy));
    }

    #[test]
    fn what_must_stay_stays(view in views(), policy in policies(), max_bytes in prop::option::of(0..500_u64)) {
        let policy = Policy { max_bytes, ..policy };
        let kept = kept(&view, &policy);
        prop_assert!(!kept.is_empty());
        let newest = view.entries.iter().filter(|entry| entry.not_good().is_none()).map(|entry| entry.id).max();
        prop_assert!(newest.is_none_or(|newest| kept.contains(&newest)));
        prop_assert!(protected(&view).is_none_or(|protected| kept.contains(&protected)));
        for entry in view.entries.iter().filter(|entry| entry.pinned || !entry.counts || !entry.confirmed) {
            prop_assert!(kept.contains(&entry.id));
        }
        if newest.is_none() {
            prop_assert_eq!(kept.len(), view.entries.len());
        }
    }

    #[test]
    fn more_rules_keep_more(view in views(), policy in policies(), more in policies(), tags in any::<bool>()) {
        let within = match (policy.within, more.within) {
            (Some(a), Some(b)) => Some(if back(now(), &a) < back(now(), &b) { a } else { b }),
            (a, b) => a.or(b),
        };
        let wider = Policy {
            last: policy.last.max(more.last),
            hourly: policy.hourly.max(more.hourly),
            daily: policy.daily.max(more.daily),
            weekly: policy.weekly.max(more.weekly),
            monthly: policy.monthly.max(more.monthly),
            yearly: policy.yearly.max(more.yearly),
            within,
            tags: if tags { ["a".parse().unwrap()].into() } else { BTreeSet::new() },
            max_bytes: None,
        };
        prop_assert!(kept(&view, &policy).is_subset(&kept(&view, &wider)));
        let (less, more) = (Policy { max_bytes: Some(100), ..policy.clone() }, Policy { max_bytes: Some(300), ..policy });
        prop_assert!(kept(&view, &less).is_subset(&kept(&view, &more)));
    }

    #[test]
    fn planning_again_changes_nothing(view in views(), policy in policies(), max_bytes in prop::option::of(0..2_000_u64)) {
        let policy = Policy { max_bytes, ..policy };
        let once = kept(&view, &policy);
        let again = kept(&only(&view, &once), &policy);
        prop_assert_eq!(again, once);
    }

    #[test]
    fn the_order_does_not_matter(view in views(), policy in policies(), seed in any::<u64>()) {
        let mut shuffled = view.clone();
        shuffled.entries.sort_by_key(|entry| entry.id.start().as_second().wrapping_mul(seed as i64 | 1));
        prop_assert_eq!(decide(&view, &policy, now()), decide(&shuffled, &policy, now()));
    }
}
