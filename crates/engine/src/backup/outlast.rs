//! Whether the members are asked for HashKV before the stream: when it may last so long that the snapshot's revision is compacted before they can
//! be asked about it. Kubernetes compacts what is older than five minutes, every five minutes (design part 10, "Live HashKV").

use std::time::Duration;

use etcd_store::id::MemberId;
use vault::manifest::Manifest;

use crate::limits::{STREAM_MEASURED, STREAM_OUTLASTS, STREAM_SPEED};

/// What an earlier stream of the cluster took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Past {
    /// Bytes of the database.
    pub(super) bytes: u64,
    /// From its first message to its end.
    pub(super) took: Duration,
}

impl Past {
    /// The newest one from the same member, else the newest of any: `manifests` from the oldest on.
    pub(super) fn newest<'a>(manifests: impl DoubleEndedIterator<Item = &'a Manifest> + Clone, member: MemberId) -> Option<Self> {
        let from_member = |manifest: &&Manifest| manifest.member.as_ref().is_some_and(|from| from.id == member);
        let manifest = manifests.clone().rev().find(from_member).or_else(|| manifests.clone().next_back())?;
        let took = manifest.times.stream_ended.duration_since(manifest.times.stream_started);
        // A clock that was set back meanwhile measured nothing.
        Some(Self { bytes: manifest.snapshot.db_size, took: took.try_into().ok()? })
    }
}

/// How long the stream of a database of `size` bytes may take, going by the last one. One that was over at once says more about the way there than
/// about speed, so a usual speed is assumed after it, as after none.
pub(super) fn expected(size: u64, past: Option<Past>) -> Duration {
    let speed = match past {
        Some(Past { bytes, took }) if bytes > 0 && took >= STREAM_MEASURED => bytes as f64 / took.as_secs_f64(),
        _ => STREAM_SPEED as f64,
    };
    // Without a limit a speed near zero would be more seconds than a duration holds.
    Duration::from_secs_f64((size as f64 / speed).min(1e9))
}

/// Whether a stream of that length may outlast the snapshot's revision.
pub(super) fn may_outlast(expected: Duration) -> bool {
    expected > STREAM_OUTLASTS
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_last_stream_says_how_fast_the_next_one_is() {
        let slow = Past { bytes: 10 * MIB, took: Duration::from_secs(20) };
        assert_eq!(expected(100 * MIB, Some(slow)), Duration::from_secs(200));
        assert!(may_outlast(expected(100 * MIB, Some(slow))));
        assert!(!may_outlast(expected(80 * MIB, Some(slow))));
    }

    #[test]
    fn without_a_measure_a_usual_speed_is_assumed() {
        let at_once = Past { bytes: 1, took: Duration::from_millis(5) };
        let nothing = Past { bytes: 0, took: Duration::from_secs(100) };
        for past in [None, Some(at_once), Some(nothing)] {
            assert!(!may_outlast(expected(8 << 30, past)), "the quota etcd advises streams in time: {past:?}");
            assert!(may_outlast(expected(10 << 30, past)), "{past:?}");
        }
    }

    #[test]
    fn no_size_and_no_time_is_too_much() {
        let endless = Past { bytes: 1, took: Duration::MAX };
        assert!(may_outlast(expected(u64::MAX, Some(endless))));
        assert_eq!(expected(0, Some(endless)), Duration::ZERO);
    }
}
