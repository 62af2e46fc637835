//! Defragmentation as a plan: who needs it, in which order, and what must be true before each step. Pure.

use etcd_api::AlarmKind;
use etcd_store::id::MemberId;

use super::quorum::Quorum;
use super::size;
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

impl Plan {
    /// Whether another member is to lead before the leader's turn.
    #[must_use]
    pub fn hands_over(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::MoveLeader { .. }))
    }
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
        Some(format!("{} free, above {}", super::size(free), super::size(above)))
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
            Some(format!("{} of {} in use: it does not need it", size(status.db_size_in_use), size(status.db_size)))
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
    super::change::one_cluster(view)?;
    if let Some((member, _)) =
        view.answering().find(|(member, _)| !member.is_listed && view.voters().next().is_some_and(|voter| voter.is_listed))
    {
        return Err(refuse(format!("{} answers, and no member list holds it: stop it, or leave its endpoint out", member.label())));
    }
    let quorum = Quorum::of(view);
    if !quorum.holds() || view.leader().is_none() {
        return Err(refuse(format!("{}; the members that answer agree on no leader", quorum.words())));
    }
    if view.alarms.is_none() {
        return Err(refuse("the alarms cannot be listed, so nobody knows whether CORRUPT is among them".to_owned()));
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
    let followers = view.working_voters().filter(|member| member.id != leader.id);
    followers.max_by_key(|member| (member.status().map_or(0, |status| status.raft_applied_index), std::cmp::Reverse(member.id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::care::health::tests::cluster;
    use crate::care::view::Silence;

    fn order(plan: &Plan) -> Vec<String> {
        let word = |step: &Step| match step {
            Step::Defragment { label, .. } => label.clone(),
            Step::MoveLeader { labels, .. } => format!("{}>{}", labels.0, labels.1),
        };
        plan.steps.iter().map(word).collect()
    }

    fn all() -> Rule {
        Rule { all: true, ..Rule::default() }
    }

    #[test]
    fn whoever_needs_it_has_a_turn_and_the_leader_the_last() {
        let mut view = cluster(3);
        assert_eq!(order(&plan(&view, &Rule::default()).unwrap()), Vec::<String>::new());
        assert_eq!(order(&plan(&view, &all()).unwrap()), ["m2", "m3", "m1>m2", "m1"]);
        assert_eq!(order(&plan(&cluster(1), &all()).unwrap()), ["m1"], "nobody can take its place");
        view.members[1].answer.as_mut().unwrap().status.db_size_in_use = 59 << 20;
        view.members[2].is_learner = true;
        let made = plan(&view, &Rule::default()).unwrap();
        assert_eq!(order(&made), ["m2"]);
        assert_eq!(made.skipped.len(), 2);
        let only = Rule { only: vec!["m1".to_owned()], ..all() };
        assert_eq!(order(&plan(&view, &only).unwrap()), ["m1>m2", "m1"]);
        assert!(plan(&view, &Rule { only: vec!["m9".to_owned()], ..all() }).is_err());
    }

    #[test]
    fn a_share_or_a_number_of_free_bytes_decides() {
        let rule = Rule { in_use_below: Some(0.6), free_above: Some(200 << 20), all: false, only: Vec::new() };
        assert!(rule.needs(100, 59).is_some() && rule.needs(100, 60).is_none() && rule.needs(0, 0).is_none());
        assert!(rule.needs(1 << 30, (1 << 30) - (201 << 20)).is_some(), "80 % in use, and yet 201 MiB free");
    }

    #[test]
    fn nothing_begins_in_a_cluster_that_is_not_whole() {
        let refused = |change: &dyn Fn(&mut ClusterView)| {
            let mut view = cluster(3);
            change(&mut view);
            plan(&view, &all()).unwrap_err().to_string()
        };
        let silent = |view: &mut ClusterView| {
            view.members[2].answer = Err(Silence { reason: "refused".to_owned(), connected: false, is_denied: false })
        };
        assert!(refused(&silent).contains("m3 does not answer"));
        let corrupt = |view: &mut ClusterView| view.alarms = Some(vec![etcd_api::Alarm { member: MemberId(1), kind: AlarmKind::Corrupt }]);
        assert!(refused(&corrupt).contains("CORRUPT is raised"));
        assert!(refused(&|view| view.alarms = None).contains("alarms cannot be listed"));
        assert!(refused(&|view| view.members[2].is_listed = false).contains("no member list holds it"));
        let full = |view: &mut ClusterView| view.alarms = Some(vec![etcd_api::Alarm { member: MemberId(1), kind: AlarmKind::NoSpace }]);
        let mut view = cluster(3);
        full(&mut view);
        assert!(plan(&view, &all()).is_ok(), "NOSPACE is what it mends");
    }
}
