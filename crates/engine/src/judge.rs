//! Does the file hold what the members hold? Pure: from hashes to a verdict (design promise 8).
//!
//! etcd's HashKV depends on the compact revision at which a member computes it, so an answer says something only about the file's hash at the same
//! compact revision. The caller computes that offline; where it cannot, the answer is not comparable and counts for nothing.

use etcd_store::id::{MemberId, Revision};

/// What came of asking one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It answered, and the file's hash at the same revision and compact revision is known.
    Comparable {
        /// The member's hash.
        hash: u32,
        /// The revision asked for.
        revision: Revision,
        /// The compact revision it used; -1 where it never compacted.
        compact_revision: Revision,
        /// The file's hash there.
        file: u32,
    },
    /// It answered, but the file no longer holds what it would take to compute the same.
    NotComparable {
        /// The member's hash.
        hash: u32,
        /// The revision asked for.
        revision: Revision,
        /// The compact revision it used.
        compact_revision: Revision,
    },
    /// It was not asked, or did not answer; with the reason.
    None(String),
}

/// One member's part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Testimony {
    /// The member.
    pub member: MemberId,
    /// Its name.
    pub name: String,
    /// Whether it votes.
    pub voter: bool,
    /// Whether the file came from it.
    pub is_source: bool,
    /// What came of asking it.
    pub answer: Answer,
    /// When it was asked, if it was.
    pub asked: Option<jiff::Timestamp>,
}

/// What the testimonies say of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The file holds what those members hold that could be compared, or what a strict majority of the voters holds.
    Match,
    /// Members hold different things, and the file is not what a strict majority of the voters holds.
    Disputed,
    /// The file is not what the member it came from holds: the stream or the file is bad.
    Failed,
    /// No answer could be compared.
    Inconclusive,
    /// The source passes no HashKV on.
    NotOffered,
}

/// A verdict and what it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// Members whose answer equals the file's hash.
    pub agree: Vec<MemberId>,
    /// Members whose answer differs from it.
    pub differ: Vec<MemberId>,
    /// Whether a strict majority of the voters agrees with each other at all. Without one no backup of this cluster is the right one.
    pub majority: bool,
}

/// Judges. `voters` is the number of voting members of the cluster, whether they answered or not.
#[must_use]
pub fn judge(testimonies: &[Testimony], voters: usize) -> Judgement {
    let comparable = |wanted: bool| {
        testimonies.iter().filter(move |testimony| match testimony.answer {
            Answer::Comparable { hash, file, .. } => (hash == file) == wanted,
            _ => false,
        })
    };
    let agree: Vec<&Testimony> = comparable(true).collect();
    let differ: Vec<&Testimony> = comparable(false).collect();
    let is_majority = |count: usize| 2 * count > voters;
    let agreeing_voters = agree.iter().filter(|testimony| testimony.voter).count();
    let verdict = if differ.iter().any(|testimony| testimony.is_source) {
        Verdict::Failed
    } else if agree.is_empty() && differ.is_empty() {
        Verdict::Inconclusive
    } else if differ.is_empty() || is_majority(agreeing_voters) {
        Verdict::Match
    } else {
        Verdict::Disputed
    };
    let majority = differ.is_empty() || is_majority(agreeing_voters) || is_majority(largest_group(&differ));
    let ids = |of: &[&Testimony]| of.iter().map(|testimony| testimony.member).collect();
    Judgement { verdict, agree: ids(&agree), differ: ids(&differ), majority }
}

/// The most voters among these that gave the same hash at the same revision and compact revision.
fn largest_group(testimonies: &[&Testimony]) -> usize {
    let mut groups = std::collections::HashMap::new();
    for testimony in testimonies.iter().filter(|testimony| testimony.voter) {
        if let Answer::Comparable { hash, revision, compact_revision, .. } = testimony.answer {
            *groups.entry((hash, revision, compact_revision)).or_insert(0_usize) += 1;
        }
    }
    groups.into_values().max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: u32 = 7;

    fn said(member: u64, hash: u32) -> Testimony {
        Testimony {
            member: MemberId(member),
            name: format!("m{member}"),
            voter: true,
            is_source: member == 1,
            answer: Answer::Comparable { hash, revision: Revision(9), compact_revision: Revision(-1), file: FILE },
            asked: None,
        }
    }

    fn silent(member: u64) -> Testimony {
        Testimony { answer: Answer::None("down".to_owned()), ..said(member, 0) }
    }

    #[test]
    fn all_agree() {
        let judgement = judge(&[said(1, FILE), said(2, FILE), said(3, FILE)], 3);
        assert_eq!((judgement.verdict, judgement.agree.len(), judgement.majority), (Verdict::Match, 3, true));
    }

    #[test]
    fn one_that_answers_is_enough_when_nobody_differs() {
        assert_eq!(judge(&[said(1, FILE), silent(2), silent(3)], 3).verdict, Verdict::Match);
    }

    #[test]
    fn the_odd_one_does_not_spoil_the_majority() {
        let judgement = judge(&[said(1, FILE), said(2, FILE), said(3, 8)], 3);
        assert_eq!((judgement.verdict, judgement.differ), (Verdict::Match, vec![MemberId(3)]));
    }

    #[test]
    fn a_file_of_the_odd_one_is_disputed() {
        let judgement = judge(&[said(1, FILE), said(2, 8), said(3, 8)], 3);
        assert_eq!((judgement.verdict, judgement.majority), (Verdict::Disputed, true));
    }

    #[test]
    fn without_a_majority_everything_is_disputed() {
        let judgement = judge(&[said(1, FILE), said(2, 8)], 2);
        assert_eq!((judgement.verdict, judgement.majority), (Verdict::Disputed, false));
        let judgement = judge(&[said(1, FILE), said(2, 8), said(3, 9)], 3);
        assert_eq!((judgement.verdict, judgement.majority), (Verdict::Disputed, false));
    }

    #[test]
    fn a_file_unlike_its_own_member_has_failed() {
        assert_eq!(judge(&[said(1, 8), said(2, FILE), said(3, FILE)], 3).verdict, Verdict::Failed);
    }

    #[test]
    fn nothing_comparable_is_inconclusive() {
        let odd =
            Testimony { answer: Answer::NotComparable { hash: 8, revision: Revision(9), compact_revision: Revision(3) }, ..said(1, 0) };
        assert_eq!(judge(&[odd, silent(2)], 2).verdict, Verdict::Inconclusive);
    }
}
