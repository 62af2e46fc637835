//! When something is due: a fixed distance, or cron's five fields in a time zone. Pure: time is an argument.

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

use super::units::span;
use crate::failure::{Failure, Outcome};

/// The shortest distance of a schedule: more often is the log's work.
const SHORTEST: Duration = Duration::from_secs(60);
/// The longest.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// The fields of a configuration that say when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// A fixed distance: `6h`.
    pub every: Option<String>,
    /// Five fields of cron, or `@daily` and its like.
    pub cron: Option<String>,
    /// The time zone of `cron`.
    pub timezone: Option<String>,
}

/// When something is due.
#[derive(Clone, Debug)]
pub enum Schedule {
    /// This long after the last time.
    Every(Duration),
    /// At these moments.
    Cron {
        /// The fields.
        cron: Box<Cron>,
        /// In whose days and hours.
        zone: TimeZone,
    },
}

impl Timing {
    /// The schedule; none where neither a distance nor cron is given.
    ///
    /// # Errors
    /// A usage failure for what is not understood, and for a distance below a minute or above a year.
    pub fn schedule(&self) -> Outcome<Option<Schedule>> {
        match (&self.every, &self.cron, &self.timezone) {
            (Some(_), Some(_), _) => Err(Failure::usage("every and cron are one too many")),
            (Some(_), None, Some(_)) => Err(Failure::usage("timezone belongs to cron, and every is given")),
            (Some(every), None, None) => distance(every).map(|distance| Some(Schedule::Every(distance))),
            (None, Some(cron), zone) => Schedule::cron(cron, zone.as_deref().unwrap_or("UTC")).map(Some),
            (None, None, Some(_)) => Err(Failure::usage("timezone belongs to cron, and neither is given")),
            (None, None, None) => Ok(None),
        }
    }
}

fn distance(text: &str) -> Outcome<Duration> {
    let distance = exact(&span(text)?).filter(|distance| (SHORTEST..=LONGEST).contains(distance));
    distance
        .ok_or_else(|| Failure::usage(format!("every: '{text}'")).cause("from one minute to one year; in weeks, days, hours and minutes"))
}

/// A span without months and years, whose days have 24 hours.
fn exact(span: &Span) -> Option<Duration> {
    let exact = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(exact).ok()
}

impl Schedule {
    fn cron(text: &str, zone: &str) -> Outcome<Self> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|error| {
            Failure::usage(format!("cron: '{text}': {error}"))
                .cause("five fields are expected: minute, hour, day of the month, month, day of the week")
        })?;
        let zone = TimeZone::get(zone)
            .map_err(|error| Failure::usage(format!("timezone: '{zone}': {error}")).cause("a name such as Europe/Berlin is expected"))?;
        let schedule = Self::Cron { cron: Box::new(cron), zone };
        // 30 February never comes.
        match schedule.next_after(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => Err(Failure::usage(format!("cron: '{text}' never comes"))),
        }
    }

    /// The first moment after this one; none only past the end of the calendar.
    #[must_use]
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Every(distance) => at.checked_add(SignedDuration::try_from(*distance).ok()?).ok(),
            Self::Cron { cron, zone } => {
                let next = cron.find_next_occurrence(&at.to_zoned(zone.clone()), false).ok()?;
                // A clock that is set back brings an hour twice, and nothing is due before it is.
                Some(next.timestamp()).filter(|next| *next > at)
            }
        }
    }

    /// How far apart two moments are here, from the first one after `at`.
    #[must_use]
    pub fn distance(&self, at: Timestamp) -> Duration {
        match self {
            Self::Every(distance) => *distance,
            Self::Cron { .. } => {
                let apart = self.next_after(at).and_then(|first| Some(self.next_after(first)?.duration_since(first)));
                apart.and_then(|apart| Duration::try_from(apart).ok()).unwrap_or(LONGEST)
            }
        }
    }

    /// When it is due, where it was done last at `last`: a moment that was missed is due once, now.
    #[must_use]
    pub fn due(&self, last: Option<Timestamp>, now: Timestamp) -> Timestamp {
        match last {
            Some(last) if last <= now => self.next_after(last).map_or(now, |next| next.max(now)),
            // What was done in the future was done by a wrong clock, and says nothing.
            _ => now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every(text: &str) -> Outcome<Option<Schedule>> {
        Timing { every: Some(text.to_owned()), ..Timing::default() }.schedule()
    }

    fn cron(text: &str, zone: &str) -> Outcome<Schedule> {
        let timing = Timing { cron: Some(text.to_owned()), timezone: Some(zone.to_owned()), ..Timing::default() };
        timing.schedule().map(|schedule| schedule.unwrap())
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn moments(schedule: &Schedule, from: &str, to: &str) -> Vec<Timestamp> {
        let end = at(to);
        std::iter::successors(schedule.next_after(at(from)), |last| schedule.next_after(*last)).take_while(|next| *next < end).collect()
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for bad in ["soon", "0s", "-6h", "10s", "2y", "400d"] {
            assert!(every(bad).is_err(), "{bad}");
        }
        assert!(matches!(every("1d").unwrap(), Some(Schedule::Every(day)) if day.as_secs() == 86_400));
        assert!(matches!(every("2w").unwrap(), Some(Schedule::Every(_))));
        for bad in ["* * * *", "61 * * * *", "0 0 * * * *", "@never", "0 0 30 2 *"] {
            assert!(cron(bad, "UTC").is_err(), "{bad}");
        }
        assert!(cron("@daily", "Europe/Atlantis").is_err());
        let both = Timing { every: Some("6h".to_owned()), cron: Some("@daily".to_owned()), timezone: None };
        assert!(both.schedule().is_err());
        assert!(Timing::default().schedule().unwrap().is_none());
    }

    #[test]
    fn a_year_of_nights_in_berlin_has_one_backup_each() {
        let nights = moments(&cron("30 2 * * *", "Europe/Berlin").unwrap(), "2027-12-31T22:00:00Z", "2028-12-31T22:00:00Z");
        assert_eq!(nights.len(), 366, "a leap year");
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let days: std::collections::BTreeSet<_> = nights.iter().map(|night| night.to_zoned(zone.clone()).date()).collect();
        assert_eq!(days.len(), 366, "one for every day, that without 02:30 and that with two of them included");
        assert!(days.contains(&jiff::civil::date(2028, 2, 29)));
        for pair in nights.windows(2) {
            let apart = pair[1].duration_since(pair[0]).as_secs();
            assert!((22 * 3600..=26 * 3600).contains(&apart), "{} {}", pair[0], pair[1]);
        }
    }

    #[test]
    fn every_hour_is_every_hour_on_the_days_the_clock_is_set() {
        let hourly = cron("0 * * * *", "Europe/Berlin").unwrap();
        for (from, to) in [("2027-03-27T22:59:00Z", "2027-03-28T22:00:00Z"), ("2027-10-30T21:59:00Z", "2027-10-31T23:00:00Z")] {
            let hours = moments(&hourly, from, to);
            for pair in hours.windows(2) {
                assert_eq!(pair[1].duration_since(pair[0]).as_secs(), 3600, "{} {}", pair[0], pair[1]);
            }
        }
    }

    #[test]
    fn a_year_of_every_six_hours() {
        let schedule = every("6h").unwrap().unwrap();
        assert_eq!(moments(&schedule, "2027-12-31T18:00:00Z", "2029-01-01T00:00:00Z").len(), 366 * 4);
    }

    #[test]
    fn what_was_missed_is_due_once() {
        let schedule = cron("0 */6 * * *", "UTC").unwrap();
        let now = at("2026-11-22T13:00:00Z");
        assert_eq!(schedule.due(Some(at("2026-11-19T00:00:01Z")), now), now, "three days missed are one run");
        assert_eq!(schedule.due(Some(now), now), at("2026-11-22T18:00:00Z"));
        assert_eq!(schedule.due(None, now), now, "what never ran is due");
    }

    #[test]
    fn a_clock_that_jumps_neither_stops_the_schedule_nor_makes_it_run_wild() {
        let schedule = every("6h").unwrap().unwrap();
        let now = at("2026-11-22T13:00:00Z");
        assert_eq!(schedule.due(Some(at("2036-01-01T00:00:00Z")), now), now, "a run of the future says nothing");
        assert_eq!(schedule.distance(now), Duration::from_secs(6 * 3600));
        assert_eq!(cron("0 3 * * *", "UTC").unwrap().distance(now), Duration::from_secs(24 * 3600));
    }
}
