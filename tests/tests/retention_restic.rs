//! The counting rules, `within` and tags of retention against the real `restic forget --dry-run --json`: one restic repository, random policies, the
//! kept sets and the reasons exactly the same. Pins, proofs and `max-bytes`, which restic does not have, are tested in `vault::retention`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "retention_restic/repository.rs"]
mod repository;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Span, Timestamp};
use lifeboat_tests::{Random, peers};
use repository::Restic;
use vault::name::Tag;
use vault::retention::{Policy, Reason, by_rules};

const SNAPSHOTS: usize = 600;
const SERIES: usize = 50;
const SERIES_FULL: usize = 1_000;
const SEED: u64 = 0x7e7e_0005;

/// One snapshot of restic.
struct Snapshot {
    at: Timestamp,
    tags: BTreeSet<Tag>,
    series: BTreeSet<usize>,
}

/// Moments of a schedule that somebody kept, changed, forgot and took up again: dense hours, days, gaps of months, the turns of years.
fn moments(random: &mut Random) -> Vec<Timestamp> {
    let newest: Timestamp = "2025-01-03T11:12:13Z".parse().unwrap();
    let mut moments: BTreeSet<Timestamp> = BTreeSet::new();
    while moments.len() < SNAPSHOTS {
        let seconds = match random.below(4) {
            0 => random.below(3 * 86_400),
            1 => random.below(40 * 86_400),
            2 => random.below(400 * 86_400),
            _ => random.below(6 * 365 * 86_400),
        };
        let at = newest.checked_sub(SignedDuration::from_secs(seconds.try_into().unwrap())).unwrap();
        // Now and then right at the edge of a day.
        let day = at.as_second().div_euclid(86_400) * 86_400;
        let edge = [at.as_second(), at.as_second(), at.as_second(), day, day + 86_399][usize::try_from(random.below(5)).unwrap()];
        moments.insert(Timestamp::from_second(edge).unwrap());
    }
    moments.into_iter().rev().collect()
}

fn snapshots(random: &mut Random, series: usize) -> Vec<Snapshot> {
    let tags = ["audit", "upgrade"];
    let mut all: Vec<Snapshot> = moments(random)
        .into_iter()
        .map(|at| {
            let tags = tags.iter().filter(|_| random.below(12) == 0).map(|tag| tag.parse().unwrap()).collect();
            Snapshot { at, tags, series: BTreeSet::new() }
        })
        .collect();
    for number in 0..series {
        let one_in = 1 + random.below(60);
        for snapshot in &mut all {
            if random.below(one_in) == 0 {
                snapshot.series.insert(number);
            }
        }
    }
    all
}

fn policy(random: &mut Random) -> Policy {
    let mut places = || match random.below(3) {
        0 => 0,
        1 => u32::try_from(1 + random.below(6)).unwrap(),
        _ => u32::try_from(1 + random.below(60)).unwrap(),
    };
    let mut policy = Policy {
        last: places(),
        hourly: places(),
        daily: places(),
        weekly: places(),
        monthly: places(),
        yearly: places(),
        ..Policy::default()
    };
    // Few rules at a time: with all six nearly everything is kept, and nothing compared.
    for rule in [&mut policy.last, &mut policy.hourly, &mut policy.daily, &mut policy.weekly, &mut policy.monthly, &mut policy.yearly] {
        if random.below(2) == 0 {
            *rule = 0;
        }
    }
    if random.below(3) == 0 {
        let part = |random: &mut Random, most| i64::try_from(random.below(most)).unwrap();
        let (years, months) = (part(random, 2), part(random, 14));
        policy.within = Some(Span::new().years(years).months(months).days(part(random, 40)).hours(1 + part(random, 30)));
    }
    if random.below(4) == 0 {
        policy.tags.insert("audit".parse().unwrap());
    }
    if policy.is_empty() {
        policy.daily = 3;
    }
    policy
}

fn flags(policy: &Policy) -> Vec<String> {
    let mut flags = Vec::new();
    let rules = [
        ("last", policy.last),
        ("hourly", policy.hourly),
        ("daily", policy.daily),
        ("weekly", policy.weekly),
        ("monthly", policy.monthly),
        ("yearly", policy.yearly),
    ];
    for (rule, places) in rules.into_iter().filter(|(_, places)| *places > 0) {
        flags.extend([format!("--keep-{rule}"), places.to_string()]);
    }
    if let Some(within) = &policy.within {
        let (years, months, days, hours) = (within.get_years(), within.get_months(), within.get_days(), within.get_hours());
        flags.extend(["--keep-within".to_owned(), format!("{years}y{months}m{days}d{hours}h")]);
    }
    for tag in &policy.tags {
        flags.extend(["--keep-tag".to_owned(), tag.to_string()]);
    }
    flags
}

/// The reason in restic's words.
fn word(reason: &Reason) -> String {
    match reason {
        Reason::Rule(rule) => format!("{rule} snapshot"),
        Reason::Within => "within".to_owned(),
        Reason::Tagged(tag) => format!("has tags [{tag}]"),
        other => panic!("no reason of a rule: {other}"),
    }
}

/// restic's own word, without what differs from release to release.
fn plain(word: &str) -> String {
    let word = word.strip_prefix("oldest ").unwrap_or(word);
    if word.starts_with("within") { "within".to_owned() } else { word.to_owned() }
}

type Kept = BTreeMap<Timestamp, BTreeSet<String>>;

/// Whether this release of restic lets a rule with places left keep the oldest snapshot: older ones do not, 0.14 among them.
fn keeps_oldest(restic: &Restic) -> bool {
    for at in ["2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"] {
        restic.write(at.parse().unwrap(), &["probe".to_owned()]);
    }
    let answer = restic.forget("probe", &["--keep-yearly".to_owned(), "5".to_owned()]);
    answer[0]["keep"].as_array().unwrap().len() == 2
}

fn ours(snapshots: &[Snapshot], series: usize, policy: &Policy, keeps_oldest: bool) -> Kept {
    let none = BTreeSet::new();
    let mut list: Vec<(Timestamp, &BTreeSet<Tag>)> =
        snapshots.iter().filter(|snapshot| snapshot.series.contains(&series)).map(|snapshot| (snapshot.at, &snapshot.tags)).collect();
    if !keeps_oldest {
        // An older one than all takes what the rule gives the oldest, and nothing of what the others have.
        list.push((Timestamp::UNIX_EPOCH, &none));
    }
    let mut reasons = by_rules(&list, policy);
    list.retain(|(at, _)| *at != Timestamp::UNIX_EPOCH);
    reasons.truncate(list.len());
    let kept = list.iter().zip(reasons).filter(|(_, reasons)| !reasons.is_empty());
    kept.map(|((at, _), reasons)| (*at, reasons.iter().map(word).collect())).collect()
}

fn theirs(restic: &Restic, series: usize, policy: &Policy) -> (Kept, usize) {
    let answer = restic.forget(&format!("series-{series}"), &flags(policy));
    let group = &answer[0];
    let time = |snapshot: &serde_json::Value| snapshot["time"].as_str().unwrap().parse::<Timestamp>().unwrap();
    let count = |name: &str| group[name].as_array().map_or(0, Vec::len);
    let mut kept = Kept::new();
    for reason in group["reasons"].as_array().into_iter().flatten() {
        let matches = reason["matches"].as_array().unwrap().iter().map(|word| plain(word.as_str().unwrap()));
        kept.insert(time(&reason["snapshot"]), matches.collect());
    }
    let listed: BTreeSet<Timestamp> = group["keep"].as_array().into_iter().flatten().map(time).collect();
    assert_eq!(listed, kept.keys().copied().collect(), "restic's own lists agree");
    (kept, count("keep") + count("remove"))
}

#[test]
fn what_is_kept_is_what_restic_keeps() {
    let Some(program) = peers::peer("restic") else { return peers::skipped("retention against restic: no restic") };
    let count = if peers::full() { SERIES_FULL } else { SERIES };
    println!("{}; {SNAPSHOTS} snapshots, {count} series, seed {SEED:#x}", program.version);
    let mut random = Random::new(SEED);
    let snapshots = snapshots(&mut random, count);
    let restic = Restic::new(&program.path);
    for snapshot in &snapshots {
        let tags = snapshot.series.iter().map(|series| format!("series-{series}")).chain(snapshot.tags.iter().map(ToString::to_string));
        restic.write(snapshot.at, &tags.collect::<Vec<_>>());
    }
    let keeps_oldest = keeps_oldest(&restic);
    println!("this restic {} the oldest while a rule has places left", if keeps_oldest { "keeps" } else { "does not keep" });
    let (mut compared, mut kept_in_all, mut of_all) = (0, 0, 0);
    for series in 0..count {
        let policy = policy(&mut random);
        let of = snapshots.iter().filter(|snapshot| snapshot.series.contains(&series)).count();
        if of == 0 {
            continue;
        }
        let (theirs, seen) = theirs(&restic, series, &policy);
        assert_eq!(seen, of, "series {series}: restic sees every snapshot");
        let ours = ours(&snapshots, series, &policy, keeps_oldest);
        assert_eq!(ours, theirs, "series {series} of {of} snapshots, policy {policy}: ours, then restic's");
        (compared, kept_in_all, of_all) = (compared + 1, kept_in_all + ours.len(), of_all + of);
    }
    println!("{compared} series compared: {kept_in_all} of {of_all} kept by both");
    assert!(compared * 10 > count * 9, "nearly every series has snapshots");
    assert!(kept_in_all * 10 > of_all && kept_in_all * 10 < of_all * 9, "the policies neither keep nor drop nearly everything");
}
