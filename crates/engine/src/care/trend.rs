//! How fast a cluster's data grow, by what its backups say of them, and when they fill the quota. Pure.
//!
//! What is in use is looked at, not the file: the file grows in leaps and shrinks by a defragmentation alone, and what is free in it is used first. When
//! what is in use reaches the quota no defragmentation helps any more.

use jiff::{SignedDuration, Timestamp};

/// Backups older than this, counted back from the newest, say nothing of how it grows now.
const LOOKS_BACK: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Fewer backups than this are no trend.
const POINTS_LEAST: usize = 4;
/// The most that are looked at, evenly spread: every pair of them is compared.
const POINTS_MOST: usize = 120;
/// A trend must have been seen for this long: a busy hour is none.
const SPAN_LEAST: SignedDuration = SignedDuration::from_hours(24);
/// A day.
const DAY: f64 = 86_400.0;
/// Who reaches the quota only after this does not: nothing grows like this for ten years.
const DAYS_MOST: f64 = 3_650.0;

/// How fast data grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    /// Bytes in use more each day; negative where they shrink.
    pub bytes_per_day: f64,
    /// Bytes in use in the newest backup.
    pub in_use: u64,
    /// The newest backup's moment.
    pub at: Timestamp,
}

impl Growth {
    /// The growth by these moments and bytes in use, in any order: the median of the slopes of all pairs (Theil and Sen), so that a leap, or a cleaning
    /// up, is not taken for a trend. `None` where there are too few or they are too close together.
    #[must_use]
    pub fn of(points: &[(Timestamp, u64)]) -> Option<Self> {
        let (at, in_use) = *points.iter().max_by_key(|(moment, _)| *moment)?;
        let mut young: Vec<(Timestamp, u64)> =
            points.iter().copied().filter(|(moment, _)| at.duration_since(*moment) <= LOOKS_BACK).collect();
        young.sort_unstable();
        let (first, _) = *young.first()?;
        if young.len() < POINTS_LEAST || at.duration_since(first) < SPAN_LEAST {
            return None;
        }
        let step = young.len().div_ceil(POINTS_MOST);
        let young: Vec<_> = young.into_iter().rev().step_by(step).collect();
        let mut slopes = Vec::with_capacity(young.len() * young.len() / 2);
        for (index, (later, more)) in young.iter().enumerate() {
            for (earlier, less) in &young[index + 1..] {
                let days = later.duration_since(*earlier).as_secs_f64() / DAY;
                if days > 0.0 {
                    slopes.push((*more as f64 - *less as f64) / days);
                }
            }
        }
        slopes.sort_unstable_by(f64::total_cmp);
        Some(Self { bytes_per_day: *slopes.get(slopes.len().checked_sub(1)? / 2)?, in_use, at })
    }

    /// When so many bytes are in use if it goes on like this; `None` where it never comes to that, or not within ten years.
    #[must_use]
    pub fn reaches(&self, quota: u64) -> Option<Timestamp> {
        if self.in_use >= quota {
            return Some(self.at);
        }
        let days = (quota - self.in_use) as f64 / self.bytes_per_day;
        if !(self.bytes_per_day > 0.0 && days <= DAYS_MOST) {
            return None;
        }
        self.at.checked_add(SignedDuration::try_from_secs_f64(days * DAY).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(sizes: &[u64]) -> Vec<(Timestamp, u64)> {
        let begin: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
        sizes.iter().enumerate().map(|(day, size)| (begin + SignedDuration::from_hours(24 * day as i64), *size)).collect()
    }

    #[test]
    fn a_steady_growth_gives_the_day() {
        let growth = Growth::of(&days(&[100, 200, 300, 400, 500])).unwrap();
        assert!((growth.bytes_per_day - 100.0).abs() < 1e-9);
        assert_eq!(growth.reaches(1_000).unwrap().to_string(), "2026-11-10T00:00:00Z");
        assert_eq!(growth.reaches(500), Some(growth.at), "it is reached");
    }

    #[test]
    fn one_leap_and_one_cleaning_up_are_no_trend() {
        let growth = Growth::of(&days(&[100, 100, 100, 9_000, 9_000, 9_000, 9_000, 9_000, 9_000])).unwrap();
        assert!(growth.bytes_per_day.abs() < 1e-9, "{growth:?}");
        assert_eq!(growth.reaches(10_000), None);
        let growth = Growth::of(&days(&[100, 200, 300, 400, 50, 600, 700, 800])).unwrap();
        assert!((growth.bytes_per_day - 100.0).abs() < 30.0, "{growth:?}");
    }

    #[test]
    fn what_shrinks_or_is_too_little_known_reaches_nothing() {
        assert_eq!(Growth::of(&days(&[500, 400, 300, 200])).unwrap().reaches(1_000), None);
        assert_eq!(Growth::of(&days(&[100, 200, 300])), None, "too few");
        let hour: Vec<_> = days(&[1, 2, 3, 4, 5])
            .into_iter()
            .map(|(at, size)| (Timestamp::UNIX_EPOCH + at.duration_since(Timestamp::UNIX_EPOCH) / 1_000, size))
            .collect();
        assert_eq!(Growth::of(&hour), None, "too close together");
        assert_eq!(Growth::of(&[]), None);
        let same = vec![(Timestamp::UNIX_EPOCH, 5); 9];
        assert_eq!(Growth::of(&same), None);
    }

    #[test]
    fn only_the_last_month_counts_and_a_year_of_hours_is_quick() {
        let mut sizes = vec![0; 200];
        sizes.extend((0..31).map(|day| 1_000 * day));
        assert!((Growth::of(&days(&sizes)).unwrap().bytes_per_day - 1_000.0).abs() < 1e-6);
        let hours: Vec<_> =
            (0..9_000_i64).map(|hour| (Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hour), 10 * hour as u64)).collect();
        assert!((Growth::of(&hours).unwrap().bytes_per_day - 240.0).abs() < 1e-6);
    }
}
