//! Changes of the membership: the sum before, the call, the effect, the next command. The sums are pure.

use etcd_store::id::MemberId;

use super::quorum::Quorum;
use super::view::{ClusterView, MemberView};
use crate::failure::{Failure, Outcome};

/// A change of the membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A member goes, for good.
    Remove(MemberId),
    /// A member goes by its own doing: over Talos its node also stops etcd and deletes its data.
    Leave(MemberId),
    /// A member comes.
    Add {
        /// Where the others will reach it.
        peer_urls: Vec<String>,
        /// Without a vote at first.
        learner: bool,
    },
    /// A learner gets its vote.
    Promote(MemberId),
    /// Another member leads.
    MoveLeader {
        /// Who leads now.
        from: MemberId,
        /// Who shall.
        to: MemberId,
    },
}

/// A change that may be made, with the sum that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangePlan {
    /// What is done.
    pub change: Change,
    /// In words.
    pub words: String,
    /// The quorum before.
    pub before: Quorum,
    /// The quorum afterwards, as far as it can be told.
    pub after: Quorum,
}

impl ChangePlan {
    /// The arithmetic, on one line.
    #[must_use]
    pub fn sum(&self) -> String {
        format!("before: {}; after: {}", self.before.words(), self.after.words())
    }
}

/// The member that is meant, or a failure that says whom one could have meant.
pub fn meant<'a>(view: &'a ClusterView, text: &str) -> Outcome<&'a MemberView> {
    view.find(text).ok_or_else(|| {
        Failure::usage(format!("no single member is called '{text}'"))
            .cause(format!("the members are {}", view.labels()))
            .next(["lifeboat", "etcd", "members"])
    })
}

/// Removing a member: refused where the rest would have no quorum, or where there is none to decide it.
pub fn remove(view: &ClusterView, member: &MemberView) -> Outcome<ChangePlan> {
    let before = Quorum::of(view);
    let after = if member.is_learner { before } else { before.without(member.is_working_voter()) };
    let plan = ChangePlan { change: Change::Remove(member.id), words: format!("remove {} ({})", member.label(), member.id), before, after };
    if view.members.iter().filter(|other| other.is_listed && !other.is_learner).count() <= 1 && !member.is_learner {
        return Err(Failure::failed(format!("{} is the only voting member", member.label()))
            .object(member.id)
            .cause("without it there is no cluster; to end a cluster, stop it")
            .next(["lifeboat", "etcd", "members"]));
    }
    refuse_without_quorum(&plan)?;
    if !after.holds() {
        return Err(lost(&plan, "start the members that do not answer first, or remove one of those instead"));
    }
    Ok(plan)
}

/// A member leaving: the same sum as for removing it.
///
/// # Errors
/// As [`remove`]; where it does not answer, for then it can do nothing by itself.
pub fn leave(view: &ClusterView, member: &MemberView) -> Outcome<ChangePlan> {
    let plan = remove(view, member)?;
    if member.answer.is_err() {
        return Err(Failure::failed(format!("{} does not answer, so it cannot leave by itself", member.label()))
            .object(member.id)
            .cause("another member can remove it")
            .next(["lifeboat", "etcd", "remove-member", &member.id.to_string()]));
    }
    Ok(ChangePlan { change: Change::Leave(member.id), words: format!("take {} ({}) out of the cluster", member.label(), member.id), ..plan })
}

/// Adding a member. One with a vote counts against the quorum before it has ever run.
pub fn add(view: &ClusterView, peer_urls: Vec<String>, learner: bool) -> Outcome<ChangePlan> {
    let before = Quorum::of(view);
    let after = if learner { before } else { before.with_a_new_voter() };
    let what = if learner { "as a learner" } else { "with a vote" };
    let words = format!("add a member {what} at {}", peer_urls.join(","));
    if let Some(member) = view.members.iter().find(|member| member.peer_urls.iter().any(|url| peer_urls.contains(url))) {
        return Err(Failure::failed(format!("{} is at this peer URL already", member.label()))
            .object(peer_urls.join(","))
            .cause("a member that is to start anew must be removed first")
            .next(["lifeboat", "etcd", "remove-member", &member.id.to_string()]));
    }
    let plan = ChangePlan { change: Change::Add { peer_urls, learner }, words, before, after };
    refuse_without_quorum(&plan)?;
    let waiting: Vec<&MemberView> = view.members.iter().filter(|member| member.is_listed && member.name.is_empty()).collect();
    if let Some(unstarted) = waiting.first().filter(|_| !learner) {
        return Err(Failure::failed("a member that was added before has never started")
            .object(unstarted.id)
            .cause("start it or remove it first: each one that has not started counts against the quorum")
            .next(["lifeboat", "etcd", "remove-member", &unstarted.id.to_string()]));
    }
    // etcd itself (strict-reconfig-check) only wants the members of before to be a quorum of after.
    if !after.holds() && before.voters > 1 {
        return Err(lost(&plan, "add it as a learner (--learner), which has no vote, and promote it when it has caught up"));
    }
    Ok(plan)
}

/// Giving a learner its vote.
pub fn promote(view: &ClusterView, member: &MemberView) -> Outcome<ChangePlan> {
    if !member.is_learner {
        return Err(Failure::failed(format!("{} has a vote already", member.label()))
            .object(member.id)
            .next(["lifeboat", "etcd", "members"]));
    }
    let before = Quorum::of(view);
    let answers = member.answer.is_ok();
    let words = format!("give {} ({}) a vote", member.label(), member.id);
    let plan = ChangePlan { change: Change::Promote(member.id), words, before, after: before.with_a_promoted(answers) };
    refuse_without_quorum(&plan)?;
    if !answers {
        return Err(Failure::failed(format!(
            "{} does not answer, and a vote that does not answer counts against the quorum",
            member.label()
        ))
        .object(member.id)
        .cause(plan.sum())
        .next(["lifeboat", "etcd", "status"]));
    }
    Ok(plan)
}

/// Moving the leadership: to the member named, else to the voting follower that is furthest on.
pub fn move_leader(view: &ClusterView, to: Option<&MemberView>) -> Outcome<ChangePlan> {
    let from = view.leader().ok_or_else(|| {
        Failure::failed("there is no leader whose place could be taken")
            .cause("the members that answer name none, or several")
            .next(["lifeboat", "etcd", "health"])
    })?;
    let can = |member: &&MemberView| member.id != from && member.is_working_voter();
    let target = match to {
        Some(member) if member.id == from => {
            return Err(Failure::usage(format!("{} leads already", member.label())).object(member.id).next(["lifeboat", "etcd", "status"]));
        }
        Some(member) if !can(&member) => {
            return Err(Failure::usage(format!("{} cannot lead", member.label()))
                .object(member.id)
                .cause(if member.is_learner { "it is a learner" } else { "it does not answer, or knows of no leader" })
                .next(["lifeboat", "etcd", "status"]));
        }
        Some(member) => member,
        None => {
            let followers = view.members.iter().filter(can);
            let applied = |member: &&MemberView| member.status().map_or(0, |status| status.raft_applied_index);
            followers.max_by_key(|member| (applied(member), std::cmp::Reverse(member.id))).ok_or_else(|| {
                Failure::failed("no other member can lead")
                    .cause("there is no other voting member that answers")
                    .next(["lifeboat", "etcd", "status"])
            })?
        }
    };
    let quorum = Quorum::of(view);
    let leader = view.member(from).map_or_else(|| from.to_string(), MemberView::label);
    let words = format!("move the leadership from {leader} to {}", target.label());
    Ok(ChangePlan { change: Change::MoveLeader { from, to: target.id }, words, before: quorum, after: quorum })
}

fn refuse_without_quorum(plan: &ChangePlan) -> Outcome<()> {
    if plan.before.holds() {
        return Ok(());
    }
    Err(Failure::failed(format!("cannot {}: the cluster has no quorum to decide it", plan.words))
        .cause(plan.before.words())
        .next(["lifeboat", "etcd", "health"]))
}

fn lost(plan: &ChangePlan, instead: &str) -> Failure {
    Failure::failed(format!("to {} would cost the cluster its quorum", plan.words))
        .cause(format!("{}; {instead}", plan.sum()))
        .next(["lifeboat", "etcd", "health"])
}
