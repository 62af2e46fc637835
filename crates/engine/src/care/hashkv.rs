//! HashKV of all members at one revision, one member after the other, and who is the odd one.
//!
//! A member that hashes holds up its own writes, so only one is asked at a time, and none whose size would not fit what is left of the budget.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use etcd_api::ErrorKind;
use etcd_store::id::{MemberId, Revision};

use super::look::Looked;
use super::view::{ClusterView, MemberView};
use crate::failure::{Code, Failure, Outcome};
use crate::limits::{HASHKV_ROUNDS, HASHKV_SPEED, LOOK_AGAIN_AFTER};
use crate::member_link::MemberLink;

/// What one member said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Its hash, and the compact revision it was made under.
    Hash {
        /// The hash.
        hash: u32,
        /// Hashes are only comparable when these are equal.
        compact_revision: Revision,
    },
    /// It was not asked, or did not answer, with the reason.
    Nothing(String),
}

/// What is held against each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The revision all were asked at.
    pub revision: Revision,
    /// Members and what they said, by id.
    pub members: Vec<(MemberId, String, Said)>,
    /// What that comes to.
    pub verdict: Verdict,
}

/// What the hashes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All that could be compared are equal, at least two.
    Equal,
    /// There is only one member: nothing to compare it with.
    Alone,
    /// A majority of the voting members agrees, and these differ from it.
    Odd(Vec<MemberId>),
    /// They differ, and no majority agrees.
    Disputed,
    /// Fewer than two could be compared.
    Inconclusive,
}

/// Asks every member, in rounds until two or more are comparable with each other: a compaction between two answers makes them incomparable.
///
/// # Errors
/// When no member answers at all.
pub async fn compare(looked: &Looked, budget: Duration) -> Outcome<Compared> {
    if looked.talos.is_some() {
        return Err(crate::talos::direct::not_offered("HashKV"));
    }
    super::change::one_cluster(&looked.view).or_else(|failure| if failure.code == Code::WrongCluster { Err(failure) } else { Ok(()) })?;
    let mut last = None;
    for _ in 0..HASHKV_ROUNDS {
        let compared = round(looked, budget).await?;
        if !matches!(compared.verdict, Verdict::Inconclusive) {
            return Ok(compared);
        }
        last = Some(compared);
    }
    last.ok_or_else(|| Failure::failed("no member was asked for HashKV").again())
}

async fn round(looked: &Looked, budget: Duration) -> Outcome<Compared> {
    let revision = newest_common(looked).await?;
    let until = Instant::now() + budget;
    let mut members = Vec::new();
    for member in &looked.view.members {
        let said = ask(looked, member, revision, until).await;
        members.push((member.id, member.label(), said));
    }
    let verdict = judge(&looked.view, &members);
    Ok(Compared { revision, members, verdict })
}

/// The least of the members' newest revisions: one that all have.
async fn newest_common(looked: &Looked) -> Outcome<Revision> {
    let mut least: Option<Revision> = None;
    for client in looked.links.values().filter_map(MemberLink::etcd) {
        if let Ok(status) = client.status().await {
            let revision = status.header.revision;
            least = Some(least.map_or(revision, |least| least.min(revision)));
        }
    }
    least.ok_or_else(|| Failure::new(crate::Code::SourceUnreachable, "no member answers").again())
}

async fn ask(looked: &Looked, member: &MemberView, revision: Revision, until: Instant) -> Said {
    let (Some(client), Some(status)) = (looked.links.get(&member.id).and_then(MemberLink::etcd), member.status()) else {
        let reason = member.answer.as_ref().err().map_or("it was not asked", |silence| silence.reason.as_str());
        return Said::Nothing(reason.to_owned());
    };
    if status.is_learner {
        return Said::Nothing("a learner does not answer HashKV".to_owned());
    }
    let needs = Duration::from_secs_f64(status.db_size_in_use as f64 / HASHKV_SPEED as f64);
    let left = until.saturating_duration_since(Instant::now());
    if needs > left {
        return Said::Nothing(format!(
            "not asked: its size may take {:.1} s, and {:.1} s of --hashkv-budget are left",
            needs.as_secs_f64(),
            left.as_secs_f64()
        ));
    }
    loop {
        match client.hash_kv(Some(revision), left.max(Duration::from_secs(1))).await {
            Ok(answer) => return Said::Hash { hash: answer.hash, compact_revision: answer.compact_revision },
            // A follower that has not applied the revision yet.
            Err(error) if *error.kind() == ErrorKind::FutureRevision && Instant::now() < until => {
                tokio::time::sleep(LOOK_AGAIN_AFTER).await
            }
            Err(error) => return Said::Nothing(error.kind().to_string()),
        }
    }
}

/// Judges. Only hashes of one compact revision are held against each other: of the largest such group.
fn judge(view: &ClusterView, members: &[(MemberId, String, Said)]) -> Verdict {
    let mut by_compaction: BTreeMap<Revision, BTreeMap<u32, Vec<MemberId>>> = BTreeMap::new();
    for (id, _, said) in members {
        if let Said::Hash { hash, compact_revision } = said {
            by_compaction.entry(*compact_revision).or_default().entry(*hash).or_default().push(*id);
        }
    }
    let answers = |group: &BTreeMap<u32, Vec<MemberId>>| group.values().map(Vec::len).sum::<usize>();
    let Some(group) = by_compaction.into_values().max_by_key(answers) else { return Verdict::Inconclusive };
    let voters = view.voters().count();
    if answers(&group) < 2 {
        return if voters == 1 { Verdict::Alone } else { Verdict::Inconclusive };
    }
    if group.len() == 1 {
        return Verdict::Equal;
    }
    let Some((hash, most)) = group.iter().max_by_key(|(_, ids)| ids.len()) else { return Verdict::Inconclusive };
    if most.len() * 2 > voters {
        return Verdict::Odd(group.iter().filter(|(other, _)| *other != hash).flat_map(|(_, ids)| ids.clone()).collect());
    }
    Verdict::Disputed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::care::health::tests::cluster;

    fn said(hash: u32, compact: i64) -> Said {
        Said::Hash { hash, compact_revision: Revision(compact) }
    }

    fn verdict(of: u64, answers: &[Said]) -> Verdict {
        let members: Vec<_> = (1..).zip(answers).map(|(id, said)| (MemberId(id), format!("m{id}"), said.clone())).collect();
        judge(&cluster(of), &members)
    }

    #[test]
    fn a_majority_names_the_odd_one_and_a_tie_is_disputed() {
        let none = || Said::Nothing("down".to_owned());
        assert_eq!(verdict(3, &[said(1, 5), said(1, 5), said(1, 5)]), Verdict::Equal);
        assert_eq!(verdict(3, &[said(1, 5), said(1, 5), none()]), Verdict::Equal);
        assert_eq!(verdict(3, &[said(1, 5), said(2, 5), said(1, 5)]), Verdict::Odd(vec![MemberId(2)]));
        assert_eq!(verdict(3, &[said(1, 5), said(2, 5), none()]), Verdict::Disputed);
        assert_eq!(verdict(3, &[said(1, 5), said(2, 5), said(3, 5)]), Verdict::Disputed);
        assert_eq!(verdict(5, &[said(1, 5), said(1, 5), said(2, 5), none(), none()]), Verdict::Disputed, "two of five are no majority");
    }

    #[test]
    fn hashes_of_different_compactions_are_not_compared() {
        assert_eq!(verdict(3, &[said(1, 5), said(2, 6), Said::Nothing("down".to_owned())]), Verdict::Inconclusive);
        assert_eq!(verdict(3, &[said(1, 5), said(2, 6), said(1, 5)]), Verdict::Equal);
        assert_eq!(verdict(1, &[said(1, 5)]), Verdict::Alone);
        assert_eq!(verdict(3, &[]), Verdict::Inconclusive);
    }
}
