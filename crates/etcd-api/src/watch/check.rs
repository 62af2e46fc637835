//! The rules of a watch stream, as a pure state machine: values in, verdict out.
//!
//! Source: etcd 3.4 to 3.7, `api/v3rpc/watch.go` and `mvcc/watchable_store.go`. All events of one revision travel in one
//! response, or, when fragments are allowed, in consecutive responses of which all but the last say `fragment`.

use etcd_store::id::Revision;

use crate::pb;

/// A rule of the stream that was broken. Releases with known faults break them: events twice (before 3.4.24 and 3.5.8),
/// events of the past after a snapshot between peers (before 3.4.25 and 3.5.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WatchViolation {
    /// The first answer does not confirm the watch.
    #[error("the member did not confirm the watch first")]
    NotCreated,
    /// The watch was confirmed twice.
    #[error("the member confirmed the watch twice")]
    CreatedTwice,
    /// An answer is about another watch.
    #[error("an answer for watch {got} on a stream of watch {expected}")]
    ForeignWatch {
        /// Ours.
        expected: i64,
        /// Theirs.
        got: i64,
    },
    /// An event without a key-value, or of an unknown type.
    #[error("an event after revision {after} is incomplete")]
    IncompleteEvent {
        /// The last sound revision.
        after: Revision,
    },
    /// An event from before the start.
    #[error("an event of revision {got} on a watch from {start}")]
    BeforeStart {
        /// Where the watch starts.
        start: Revision,
        /// The event's revision.
        got: Revision,
    },
    /// An event at or below a revision that was complete already.
    #[error("an event of revision {got} after revision {after} was complete")]
    OutOfOrder {
        /// The last complete revision.
        after: Revision,
        /// The event's revision.
        got: Revision,
    },
    /// A progress notice between the fragments of one revision, or below what was delivered.
    #[error("a progress notice for revision {got} after events of revision {after}")]
    FalseProgress {
        /// The last event's revision.
        after: Revision,
        /// What the notice says.
        got: Revision,
    },
    /// The stream ended in the middle of a revision.
    #[error("the stream ended between the fragments of revision {revision}")]
    EndedWithinRevision {
        /// Which.
        revision: Revision,
    },
}

/// The state machine for one watch on its own stream.
#[derive(Debug)]
pub(crate) struct Checker {
    watch_id: Option<i64>,
    start: Revision,
    /// Revision of the last event.
    last: Revision,
    /// Revision up to which the member has said that everything was delivered.
    progress: Revision,
    /// The last answer said that more of it follows.
    open: bool,
}

/// Answers that concern every watch of a stream carry this id (`mvcc.InvalidWatchID`): progress on request.
const ANY_WATCH: i64 = -1;

impl Checker {
    /// `start` is the first revision wanted, zero for "from now on".
    pub(crate) fn new(start: Revision) -> Self {
        Self { watch_id: None, start, last: Revision(0), progress: Revision(0), open: false }
    }

    /// Judges an answer. After an `Err` nothing more from this stream can be trusted.
    pub(crate) fn answer(&mut self, answer: &pb::WatchResponse) -> Result<(), WatchViolation> {
        let expected = match (self.watch_id, answer.created) {
            (None, true) => {
                self.watch_id = Some(answer.watch_id);
                return Ok(());
            }
            (None, false) => return Err(WatchViolation::NotCreated),
            (Some(_), true) => return Err(WatchViolation::CreatedTwice),
            (Some(id), false) => id,
        };
        let general = answer.watch_id == ANY_WATCH && answer.events.is_empty() && !answer.canceled;
        if answer.watch_id != expected && !general {
            return Err(WatchViolation::ForeignWatch { expected, got: answer.watch_id });
        }
        if answer.canceled {
            return Ok(());
        }
        if answer.events.is_empty() && !answer.fragment {
            return self.progress(answer);
        }
        self.events(answer)
    }

    /// Judges the end of the stream.
    pub(crate) fn end(&self) -> Result<(), WatchViolation> {
        if self.open {
            return Err(WatchViolation::EndedWithinRevision { revision: self.last });
        }
        Ok(())
    }

    fn progress(&mut self, answer: &pb::WatchResponse) -> Result<(), WatchViolation> {
        let got = Revision(answer.header.map_or(0, |header| header.revision));
        if self.open || got < self.last {
            return Err(WatchViolation::FalseProgress { after: self.last, got });
        }
        self.progress = self.progress.max(got);
        Ok(())
    }

    fn events(&mut self, answer: &pb::WatchResponse) -> Result<(), WatchViolation> {
        // The first event may continue the last revision only if that was announced.
        let mut same_allowed = self.open;
        for event in &answer.events {
            let known = pb::EventType::try_from(event.r#type).is_ok();
            let got = match &event.kv {
                Some(kv) if known && !kv.key.is_empty() => Revision(kv.mod_revision),
                _ => return Err(WatchViolation::IncompleteEvent { after: self.last }),
            };
            if got < self.start {
                return Err(WatchViolation::BeforeStart { start: self.start, got });
            }
            if got < self.last || (got == self.last && !same_allowed) {
                return Err(WatchViolation::OutOfOrder { after: self.last, got });
            }
            if got <= self.progress {
                return Err(WatchViolation::OutOfOrder { after: self.progress, got });
            }
            self.last = got;
            same_allowed = true;
        }
        self.open = answer.fragment;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn created() -> pb::WatchResponse {
        pb::WatchResponse { created: true, ..Default::default() }
    }

    fn events(revisions: &[i64], fragment: bool) -> pb::WatchResponse {
        let event = |&revision: &i64| pb::Event {
            kv: Some(pb::KeyValue { key: "k".into(), mod_revision: revision, ..Default::default() }),
            ..Default::default()
        };
        pb::WatchResponse { events: revisions.iter().map(event).collect(), fragment, ..Default::default() }
    }

    fn progress(revision: i64, watch_id: i64) -> pb::WatchResponse {
        pb::WatchResponse { header: Some(pb::ResponseHeader { revision, ..Default::default() }), watch_id, ..Default::default() }
    }

    fn run(start: i64, answers: &[pb::WatchResponse]) -> Result<(), WatchViolation> {
        let mut checker = Checker::new(Revision(start));
        checker.answer(&created()).unwrap();
        answers.iter().try_for_each(|answer| checker.answer(answer))?;
        checker.end()
    }

    #[test]
    fn whole_revisions_fragments_and_progress_pass() {
        let sound = [
            events(&[5, 5, 6], false),
            progress(6, 0),
            events(&[7, 8], true),
            events(&[8, 8], true),
            events(&[8, 9], false),
            progress(12, ANY_WATCH),
            events(&[13], false),
        ];
        assert_eq!(run(5, &sound), Ok(()));
    }

    #[test]
    fn each_broken_rule_has_its_name() {
        let at = Revision;
        let foreign = pb::WatchResponse { watch_id: 3, ..events(&[5], false) };
        let broadcast_events = pb::WatchResponse { watch_id: ANY_WATCH, ..events(&[5], false) };
        let mut no_kv = events(&[5], false);
        no_kv.events[0].kv = None;
        let mut odd_type = events(&[5], false);
        odd_type.events[0].r#type = 7;
        for (answers, violation) in [
            (vec![created()], WatchViolation::CreatedTwice),
            (vec![foreign], WatchViolation::ForeignWatch { expected: 0, got: 3 }),
            (vec![broadcast_events], WatchViolation::ForeignWatch { expected: 0, got: -1 }),
            (vec![no_kv], WatchViolation::IncompleteEvent { after: at(0) }),
            (vec![odd_type], WatchViolation::IncompleteEvent { after: at(0) }),
            (vec![events(&[4], false)], WatchViolation::BeforeStart { start: at(5), got: at(4) }),
            (vec![events(&[6], false), events(&[6], false)], WatchViolation::OutOfOrder { after: at(6), got: at(6) }),
            (vec![events(&[7, 6], false)], WatchViolation::OutOfOrder { after: at(7), got: at(6) }),
            (vec![events(&[7], false), progress(6, 0)], WatchViolation::FalseProgress { after: at(7), got: at(6) }),
            (vec![events(&[7], true), progress(8, 0)], WatchViolation::FalseProgress { after: at(7), got: at(8) }),
            (vec![events(&[7], false), progress(9, -1), events(&[9], false)], WatchViolation::OutOfOrder { after: at(9), got: at(9) }),
            (vec![events(&[7], true)], WatchViolation::EndedWithinRevision { revision: at(7) }),
        ] {
            assert_eq!(run(5, &answers), Err(violation));
        }
        let first = Checker::new(at(5)).answer(&events(&[5], false));
        assert_eq!(first, Err(WatchViolation::NotCreated));
    }
}
