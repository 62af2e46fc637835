//! The counting rules and `within`, as `restic forget` has them.

use std::collections::BTreeSet;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};

use super::{Policy, Reason, Rule};
use crate::name::Tag;

/// The reasons that rules and tags give each of these backups, which are sorted newest first. Nothing else of the policy is looked at.
///
/// As restic: while a rule has places left, the last one of the list is kept by it too.
#[must_use]
pub fn by_rules(newest_first: &[(Timestamp, &BTreeSet<Tag>)], policy: &Policy) -> Vec<Vec<Reason>> {
    let mut counters = policy.places().map(|(rule, places)| Counter { rule, places, last: None });
    let newest = newest_first.first().map(|(at, _)| *at);
    let since = newest.zip(policy.within.as_ref()).and_then(|(newest, within)| back(newest, within));
    let oldest = newest_first.len().saturating_sub(1);
    let mut all = Vec::with_capacity(newest_first.len());
    for (nr, (at, tags)) in newest_first.iter().enumerate() {
        let mut reasons: Vec<Reason> =
            counters.iter_mut().filter_map(|counter| counter.takes(*at, nr, nr == oldest).then_some(Reason::Rule(counter.rule))).collect();
        if is_within(*at, since, policy) {
            reasons.push(Reason::Within);
        }
        reasons.extend(tags.intersection(&policy.tags).map(|tag| Reason::Tagged(tag.clone())));
        all.push(reasons);
    }
    all
}

/// Whether `within` reaches a moment. A span that goes back before all time reaches everything.
pub(super) fn is_within(at: Timestamp, since: Option<Timestamp>, policy: &Policy) -> bool {
    policy.within.is_some() && since.is_none_or(|since| at > since)
}

struct Counter {
    rule: Rule,
    places: u32,
    last: Option<i64>,
}

impl Counter {
    fn takes(&mut self, at: Timestamp, nr: usize, is_oldest: bool) -> bool {
        if self.places == 0 {
            return false;
        }
        let bucket = bucket(self.rule, at, nr);
        if self.last == Some(bucket) && !is_oldest {
            return false;
        }
        self.last = Some(bucket);
        self.places -= 1;
        true
    }
}

/// A number that two moments share exactly when they are in the same hour, day, ISO week, month or year, in UTC.
fn bucket(rule: Rule, at: Timestamp, nr: usize) -> i64 {
    let civil = TimeZone::UTC.to_datetime(at);
    let (year, month, day) = (i64::from(civil.year()), i64::from(civil.month()), i64::from(civil.day()));
    match rule {
        Rule::Last => i64::try_from(nr).unwrap_or(i64::MAX),
        Rule::Hourly => ((year * 100 + month) * 100 + day) * 100 + i64::from(civil.hour()),
        Rule::Daily => (year * 100 + month) * 100 + day,
        Rule::Weekly => {
            // The year of an ISO week is not always the calendar's.
            let week = civil.date().iso_week_date();
            i64::from(week.year()) * 100 + i64::from(week.week())
        }
        Rule::Monthly => year * 100 + month,
        Rule::Yearly => year,
    }
}

/// `span` before `from`, in UTC. None before all time.
///
/// A day that its month does not have runs over into the next (the 31st less one month may be the 3rd), as in restic; and what the calendar counts goes
/// before what the clock counts.
pub(super) fn back(from: Timestamp, span: &Span) -> Option<Timestamp> {
    let span = span.abs();
    let civil = TimeZone::UTC.to_datetime(from);
    let months = i64::from(span.get_years()) * 12 + i64::from(span.get_months());
    let month = i64::from(civil.year()) * 12 + i64::from(civil.month()) - 1 - months;
    let first = Date::new(month.div_euclid(12).try_into().ok()?, (month.rem_euclid(12) + 1).try_into().ok()?, 1).ok()?;
    let days = i64::from(civil.day()) - 1 - i64::from(span.get_weeks()) * 7 - i64::from(span.get_days());
    let date = first.checked_add(Span::new().try_days(days).ok()?).ok()?;
    let clock = Span::new()
        .try_hours(span.get_hours())
        .and_then(|clock| clock.try_minutes(span.get_minutes()))
        .and_then(|clock| clock.try_seconds(span.get_seconds()))
        .and_then(|clock| clock.try_milliseconds(span.get_milliseconds()))
        .and_then(|clock| clock.try_microseconds(span.get_microseconds()))
        .and_then(|clock| clock.try_nanoseconds(span.get_nanoseconds()));
    let clock = SignedDuration::try_from(clock.ok()?).ok()?;
    TimeZone::UTC.to_timestamp(date.to_datetime(civil.time())).ok()?.checked_sub(clock).ok()
}
