//! Defragmentation as a plan: who needs it, in which order, and what must be true before each step. Pure.

use etcd_api::AlarmKind;
use etcd_store::id::MemberId;

use super::quorum::Quorum;
use super::view::{ClusterView, MemberView};
use crate::failure::{Failure, Outcome};
use crate::limits::{DEFRAG_FREE_ABOVE, DEFRAG_IN_USE_BELOW};

/// Who needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// A member needs it when less than this share of its file is in use; 0 to 1.
    pub in_use_below: Option<f64>,
    /// A member needs it when more than this many bytes of its file are free.
    pub free_above: Option<u64>,
    /// Every member that can be defragmented.
    pub all: bool,
    /// Only these members, as they were named.
    pub only: Vec<String>,
}

impl Default for Rule {
    fn default() -> Self {
        Self { in_use_below: Some(DEFRAG_IN_USE_BELOW), free_above: Some(DEFRAG_FREE_ABOVE), all: false, only: Vec::new() }
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Rewrite a member's file.
    Defragment {
        /// The member.
        member: MemberId,
        /// Its label.
        label: String,
        /// Bytes of its file now.
        size: u64,
        /// Bytes of it in use: what it will have afterwards, roughly.
        in_use: u64,
    },
    /// Let another one lead before the leader's turn.
    MoveLeader {
        /// Who leads now.
        from: MemberId,
        /// Who shall lead.
        to: MemberId,
        /// Their labels.
        labels: (String, String),
    },
}

/// The whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// One after the other.
    pub steps: Vec<Step>,
    /// Members that are left as they are, and why.
    pub skipped: Vec<(String, String)>,
}

impl Rule {
    /// Why a member needs it; `None` where it does not.
    #[must_use]
    pub fn needs(&self, size: u64, in_use: u64) -> Option<String> {
        if self.all {
            return Some("all were asked for".to_owned());
        }
        let share = if size == 0 { 1.0 } else { in_use as f64 / size as f64 };
        let free = size.saturating_sub(in_use);
        if let Some(below) = self.in_use_below.filter(|below| share < *below) {
            return Some(format!("{:.0} % in use, below {:.0} %", share * 100.0, below * 100.0));
        }
        let above = self.free_above.filter(|above| free > *above)?;
        Some(format!("{} MiB free, above {} MiB", free >> 20, above >> 20))
    }
}

/// Makes the plan.
///
/// # Errors
/// What makes it unsafe to begin: a member that does not answer, no leader, no quorum, the alarm CORRUPT; members named that are none.
pub fn plan(view: &ClusterView, rule: &Rule) -> Outcome<Plan> {
    healthy(view)?;
    let chosen = chosen(view, rule)?;
    let leader = view.leader();
    let mut plan = Plan { steps: Vec::new(), skipped: Vec::new() };
    let mut last = None;
    for member in &view.members {
        let Some(status) = member.status() else { continue };
        let why_not = if !chosen.is_empty() && !chosen.contains(&member.id) {
            Some("it was not named".to_owned())
        } else if member.is_learner {
            Some("etcd does not defragment learners".to_owned())
        } else if rule.needs(status.db_size, status.db_size_in_use).is_none() {
            Some(format!("{} of {} MiB in use: it does not need it", status.db_size_in_use >> 20, status.db_size >> 20))
        } else {
            None
        };
        if let Some(reason) = why_not {
            plan.skipped.push((member.label(), reason));
            continue;
        }
        let step = Step::Defragment { member: member.id, label: member.label(), size: status.db_size, in_use: status.db_size_in_use };
        if leader == Some(member.id) { last = Some((member, step)) } else { plan.steps.push(step) }
    }
    if let Some((member, step)) = last {
        plan.steps.extend(successor(view, member).map(|to| Step::MoveLeader {
            from: member.id,
            to: to.id,
            labels: (member.label(), to.label()),
        }));
        plan.steps.push(step);
    }
    Ok(plan)
}

/// Whether a defragmentation may begin, or go on: every member answers and knows the leader, there is a quorum, and nobody accuses anybody.
///
/// # Errors
/// What is not as it should be, with the command that shows it.
pub fn healthy(view: &ClusterView) -> Outcome<()> {
    let next = ["lifeboat", "etcd", "health"];
    let refuse = |cause: String| Failure::failed("the cluster is not healthy enough to defragment").cause(cause).next(next);
    if let Some((member, silence)) = view.silent().next() {
        return Err(refuse(format!(
            "{} does not answer ({}); a member that is being defragmented does not serve, so that two would be missing",
            member.label(),
            silence.reason
        )));
    }
    if view.cluster_ids().len() > 1 {
        return Err(refuse("the members belong to different clusters".to_owned()));
    }
    let quorum = Quorum::of(view);
    if !quorum.holds() || view.leader().is_none() {
        return Err(refuse(format!("{}; the members that answer agree on no leader", quorum.words())));
    }
    // NOSPACE is no hindrance: this is what mends it.
    if view.alarms.iter().flatten().any(|alarm| alarm.kind == AlarmKind::Corrupt) {
        return Err(refuse(
            "the alarm CORRUPT is raised: members hold different data, and nothing is rewritten before it is known which".to_owned(),
        ));
    }
    Ok(())
}

fn chosen(view: &ClusterView, rule: &Rule) -> Outcome<Vec<MemberId>> {
    rule.only.iter().map(|text| super::change::meant(view, text).map(|member| member.id)).collect()
}

/// Who leads while the leader has its turn: the voting follower that is furthest on.
fn successor<'a>(view: &'a ClusterView, leader: &MemberView) -> Option<&'a MemberView> {
    let followers = view.members.iter().filter(|member| member.id != leader.id && member.is_working_voter());
    followers.max_by_key(|member| (member.status().map_or(0, |status| status.raft_applied_index), std::cmp::Reverse(member.id)))
}
