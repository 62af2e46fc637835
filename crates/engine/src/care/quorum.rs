//! Quorum arithmetic: what a cluster survives, and what a change does to that. Pure.

use super::view::ClusterView;

/// The voting members, and how many of them work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// Members with a vote, whether they work or not.
    pub voters: usize,
    /// Those of them that answer and know of a leader.
    pub working: usize,
}

impl Quorum {
    /// As a view shows it.
    #[must_use]
    pub fn of(view: &ClusterView) -> Self {
        Self { voters: view.voters().count(), working: view.working_voters().count() }
    }

    /// How many must work: more than half of the votes.
    #[must_use]
    pub fn needed(self) -> usize {
        self.voters / 2 + 1
    }

    /// Whether enough work.
    #[must_use]
    pub fn holds(self) -> bool {
        self.voters > 0 && self.working >= self.needed()
    }

    /// How many of the working ones may still be lost.
    #[must_use]
    pub fn spare(self) -> usize {
        self.working.saturating_sub(self.needed())
    }

    /// After a voting member is removed from the membership.
    #[must_use]
    pub fn without(self, works: bool) -> Self {
        Self { voters: self.voters.saturating_sub(1), working: self.working.saturating_sub(usize::from(works)) }
    }

    /// After a member with a vote is added that does not work yet.
    #[must_use]
    pub fn with_a_new_voter(self) -> Self {
        Self { voters: self.voters + 1, working: self.working }
    }

    /// After a learner gets its vote.
    #[must_use]
    pub fn with_a_promoted(self, works: bool) -> Self {
        Self { voters: self.voters + 1, working: self.working + usize::from(works) }
    }

    /// The sum in words.
    #[must_use]
    pub fn words(self) -> String {
        let sum = format!("{} of {} voting member(s) work, {} needed", self.working, self.voters, self.needed());
        if !self.holds() {
            return format!("{sum}: NO QUORUM");
        }
        match self.spare() {
            0 => format!("{sum}: survives no further loss"),
            1 => format!("{sum}: survives 1 more loss"),
            several => format!("{sum}: survives {several} more losses"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arithmetic_of_raft() {
        for (voters, working, needed, holds, spare) in [
            (1, 1, 1, true, 0),
            (2, 2, 2, true, 0),
            (3, 3, 2, true, 1),
            (3, 2, 2, true, 0),
            (3, 1, 2, false, 0),
            (5, 5, 3, true, 2),
            (4, 3, 3, true, 0),
            (0, 0, 1, false, 0),
        ] {
            let quorum = Quorum { voters, working };
            assert_eq!((quorum.needed(), quorum.holds(), quorum.spare()), (needed, holds, spare), "{quorum:?}");
        }
    }

    #[test]
    fn removing_the_dead_one_helps_and_removing_a_live_one_may_kill() {
        let one_down = Quorum { voters: 3, working: 2 };
        assert_eq!(one_down.without(false), Quorum { voters: 2, working: 2 });
        assert!(!Quorum { voters: 3, working: 2 }.without(true).holds(), "one of two votes would be left of two");
        assert!(Quorum { voters: 2, working: 2 }.with_a_promoted(false).holds());
        assert!(!Quorum { voters: 2, working: 1 }.with_a_promoted(false).holds());
        assert!(!Quorum { voters: 1, working: 1 }.with_a_new_voter().holds());
        assert_eq!(one_down.words(), "2 of 3 voting member(s) work, 2 needed: survives no further loss");
    }
}
