//! How well a backup is proven: the PROVEN column. A pure function of the manifest and the marks that count.

use jiff::Timestamp;

use crate::manifest::{Proven, Rung};
use crate::mark::{Outcome, Statement};
use crate::seal::SealError;

/// A check that found the backup bad.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The rung that was tried.
    pub rung: Rung,
    /// When.
    pub at: Timestamp,
    /// What was found.
    pub detail: Option<String>,
}

/// The highest rung passed, when last, and whether a later check failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The highest rung passed.
    pub rung: Rung,
    /// When it was passed last; none for [`Rung::None`].
    pub at: Option<Timestamp>,
    /// The newest failed check that no later pass of the same or a higher rung has answered. Such a backup is never `latest`.
    pub failed: Option<Failure>,
}

impl Proof {
    /// How long ago the rung was passed, at `now`; never negative, for clocks differ.
    pub fn age(&self, now: Timestamp) -> Option<jiff::SignedDuration> {
        self.at.map(|at| now.duration_since(at).max(jiff::SignedDuration::ZERO))
    }

    /// The word for the column: the rung, or `FAILED`.
    pub fn word(&self) -> &'static str {
        if self.failed.is_some() { "FAILED" } else { self.rung.as_str() }
    }

    fn pass(&mut self, rung: Rung, at: Timestamp) {
        let better = rung > self.rung || (rung == self.rung && self.at.is_none_or(|before| at > before));
        if better {
            (self.rung, self.at) = (rung, Some(at));
        }
    }
}

struct Check<'a> {
    rung: Rung,
    result: Outcome,
    at: Timestamp,
    detail: &'a Option<String>,
}

fn check(statement: &Statement) -> Option<Check<'_>> {
    match statement {
        Statement::Verify(_, data) => Some(Check { rung: data.rung, result: data.result, at: data.at, detail: &data.detail }),
        Statement::Drill(_, data) => Some(Check { rung: Rung::Booted, result: data.result, at: data.at, detail: &data.detail }),
        _ => None,
    }
}

/// Works out the proof of a backup from its manifest and the marks about it that count.
pub fn prove<'a>(committed: &Proven, marks: impl IntoIterator<Item = &'a Statement>) -> Proof {
    let mut proof = Proof { rung: committed.rung, at: committed.at, failed: None };
    let mut checks: Vec<Check<'_>> = marks.into_iter().filter_map(check).collect();
    // At the same time the failure goes last: it is not to be hidden by a pass.
    checks.sort_by_key(|check| (check.at, check.result == Outcome::Failed));
    for Check { rung, result, at, detail } in checks {
        match result {
            Outcome::Passed => {
                proof.pass(rung, at);
                proof.failed.take_if(|failure| failure.rung <= rung);
            }
            Outcome::Failed => proof.failed = Some(Failure { rung, at, detail: detail.clone() }),
            Outcome::Inconclusive => {}
        }
    }
    proof
}

/// Whether an error of opening a backup means that the backup is bad (as against a wrong key or a missing plugin).
pub fn is_damage(error: &SealError) -> bool {
    use SealError as E;
    matches!(
        error,
        E::Header { .. } | E::Size { .. } | E::Chunk { .. } | E::Frame { .. } | E::Table { .. } | E::Range { .. } | E::Zstd { .. }
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::mark::{Drill, Verify};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn verify(rung: Rung, result: Outcome, second: i64) -> Statement {
        let id = "20261121T020004Z-7qk2m9".parse().unwrap();
        Statement::Verify(id, Verify { rung, result, at: at(second), hashkv: None, detail: None })
    }

    fn drill(result: Outcome, second: i64) -> Statement {
        let id = "20261121T020004Z-7qk2m9".parse().unwrap();
        Statement::Drill(id, Drill { result, at: at(second), etcd: None, seconds: None, detail: None })
    }

    fn of(marks: &[Statement]) -> Proof {
        prove(&Proven { rung: Rung::Stored, at: Some(at(1)) }, marks)
    }

    #[test]
    fn the_highest_rung_and_when_it_was_passed_last() {
        use Outcome::Passed;
        assert_eq!((of(&[]).rung, of(&[]).at), (Rung::Stored, Some(at(1))));
        let proof = of(&[verify(Rung::Deep, Passed, 30), verify(Rung::Read, Passed, 40), verify(Rung::Deep, Passed, 20)]);
        assert_eq!((proof.rung, proof.at), (Rung::Deep, Some(at(30))));
        let proof = of(&[drill(Passed, 10), verify(Rung::Deep, Passed, 50)]);
        assert_eq!((proof.word(), proof.at), ("booted", Some(at(10))));
        assert_eq!(proof.age(at(60)), Some(jiff::SignedDuration::from_secs(50)));
        assert_eq!(proof.age(at(0)), Some(jiff::SignedDuration::ZERO));
    }

    #[test]
    fn a_failure_shows_until_a_check_as_deep_passes() {
        use Outcome::{Failed, Inconclusive, Passed};
        let failed = of(&[drill(Passed, 10), verify(Rung::Read, Failed, 20)]);
        assert_eq!((failed.word(), failed.rung), ("FAILED", Rung::Booted));
        assert_eq!(of(&[verify(Rung::Read, Failed, 20), verify(Rung::Stored, Passed, 30)]).word(), "FAILED");
        assert_eq!(of(&[verify(Rung::Read, Failed, 20), verify(Rung::Deep, Passed, 30)]).word(), "deep");
        assert_eq!(of(&[verify(Rung::Read, Passed, 30), verify(Rung::Read, Failed, 20)]).word(), "read");
        assert_eq!(of(&[drill(Inconclusive, 20)]).word(), "stored");
    }
}
