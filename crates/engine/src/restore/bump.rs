//! How far a restored cluster's revisions move on. Pure.
//!
//! Kubernetes controllers hold revisions of a future that the restore takes back. Only when the restored cluster is past every revision that was ever
//! handed out, and says that everything before is compacted, do they all relist (reference: etcd 3.5+ `etcdutl snapshot restore --bump-revision
//! --mark-compacted`).

use etcd_store::id::Revision;

/// The least that revisions move on.
pub const MARGIN: i64 = 1_000_000_000;
/// Revisions a second where two backups do not tell.
pub const USUAL_RATE: f64 = 1_500.0;
/// How many times the rate is allowed for since the newest record.
const SAFETY: f64 = 10.0;
/// The part of the addition that is random at most, so that no two restores choose the same target.
const RANDOM_SHARE: f64 = 0.01;
/// Revisions never go beyond this: it leaves as much again for the restored cluster to count on.
const HIGHEST: i64 = i64::MAX / 2;

/// One record of a revision at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sighting {
    /// The revision.
    pub revision: Revision,
    /// Seconds since the Unix epoch.
    pub at: f64,
}

/// The target: highest revision ever recorded + 1 000 000 000 + 10 × rate × age, plus a random share below 1 % of that addition (design part 10).
///
/// `sightings` are all records of all lineages, `newest_two` the last two of the restored lineage in order (for the rate), `now` seconds since the
/// epoch, `random` in `0.0..1.0`. A clock that is behind the newest record counts as age 0.
#[must_use]
pub fn target(sightings: &[Sighting], newest_two: Option<(Sighting, Sighting)>, now: f64, random: f64) -> Revision {
    let highest = sightings.iter().map(|sighting| sighting.revision.0).max().unwrap_or(1).max(1);
    let newest = sightings.iter().map(|sighting| sighting.at).fold(f64::NEG_INFINITY, f64::max);
    let age = if newest.is_finite() { (now - newest).max(0.0) } else { 0.0 };
    let rate = newest_two.and_then(|(older, newer)| rate(older, newer)).unwrap_or(USUAL_RATE);
    let addition = (MARGIN as f64 + SAFETY * rate * age).min(HIGHEST as f64);
    let random = random.clamp(0.0, 1.0) * RANDOM_SHARE * addition;
    Revision(highest.saturating_add((addition + random) as i64).min(HIGHEST))
}

fn rate(older: Sighting, newer: Sighting) -> Option<f64> {
    let seconds = newer.at - older.at;
    let revisions = newer.revision.0.checked_sub(older.revision.0)?;
    (seconds > 0.0 && revisions >= 0).then(|| revisions as f64 / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(revision: i64, at: f64) -> Sighting {
        Sighting { revision: Revision(revision), at }
    }

    #[test]
    fn moves_past_everything_recorded_by_the_margin_at_least() {
        let target = target(&[seen(500, 100.0), seen(9_000, 50.0)], None, 100.0, 0.0);
        assert_eq!(target, Revision(9_000 + MARGIN));
    }

    #[test]
    fn grows_with_rate_and_age() {
        let two = (seen(1_000, 0.0), seen(3_000, 1.0));
        assert_eq!(target(&[two.0, two.1], Some(two), 11.0, 0.0), Revision(3_000 + MARGIN + 10 * 2_000 * 10));
        assert_eq!(target(&[two.1], None, 11.0, 0.0), Revision(3_000 + MARGIN + 10 * 1_500 * 10));
    }

    #[test]
    fn the_random_share_is_below_one_percent_of_the_addition() {
        let most = target(&[seen(0, 0.0)], None, 0.0, 0.999_999).0;
        assert!(most > MARGIN && most < 1 + MARGIN + MARGIN / 100, "{most}");
    }

    #[test]
    fn a_clock_behind_and_absurd_records_do_no_harm() {
        assert_eq!(target(&[seen(10, 1e9)], None, 5.0, 0.0), Revision(10 + MARGIN));
        assert_eq!(target(&[seen(i64::MAX, 0.0)], None, 1e12, 1.0), Revision(HIGHEST));
        assert_eq!(target(&[], None, 5.0, 0.0), Revision(1 + MARGIN));
    }
}
