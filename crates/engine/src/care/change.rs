//! Changes of the membership: the sum before, the call, the effect, the next command. The sums are pure.

use etcd_store::id::MemberId;

use super::quorum::Quorum;
use super::view::{ClusterView, MemberView};
use crate::failure::{Code, Failure, Outcome};

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

/// That all who answer belong to one cluster and follow one leader: nothing is changed where it is not certain what would be.
///
/// # Errors
/// [`Code::WrongCluster`] with who belongs where; a failure where members name several leaders.
pub fn one_cluster(view: &ClusterView) -> Outcome<()> {
    if view.cluster_ids().len() > 1 {
        return Err(Failure::new(Code::WrongCluster, "the members that answer belong to different clusters")
            .object(view.clusters())
            .cause(
                "endpoints of several clusters were mixed, or a member was restored or started anew by itself; name the endpoints of one",
            )
            .next(["lifeboat", "etcd", "health"]));
    }
    let leaders = view.leaders();
    if leaders.len() > 1 {
        let names: Vec<String> = leaders.iter().map(|id| view.member(*id).map_or_else(|| id.to_string(), MemberView::label)).collect();
        return Err(Failure::failed("the members that answer follow different leaders")
            .object(names.join(", "))
            .cause("an election was under way at this moment, or the cluster is split")
            .next(["lifeboat", "etcd", "health"]));
    }
    Ok(())
}

/// Removing a member: refused where the rest would have no quorum, or where there is none to decide it.
pub fn remove(view: &ClusterView, member: &MemberView) -> Outcome<ChangePlan> {
    one_cluster(view)?;
    if !member.is_listed {
        return Err(Failure::failed(format!("{} is no member of this cluster: no member list holds it", member.label()))
            .object(member.id)
            .cause("it was removed before and still runs: stop it")
            .next(["lifeboat", "etcd", "members"]));
    }
    let before = Quorum::of(view);
    let after = if member.is_learner { before } else { before.without(member.is_working_voter()) };
    let plan = ChangePlan { change: Change::Remove(member.id), words: format!("remove {} ({})", member.label(), member.id), before, after };
    if view.voters().count() <= 1 && !member.is_learner {
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
    let words = match view.over_talos {
        true => format!("make {} ({}) leave: its node stops etcd and deletes its data", member.label(), member.id),
        false => plan.words,
    };
    Ok(ChangePlan { change: Change::Leave(member.id), words, ..plan })
}

/// Adding a member. One with a vote counts against the quorum before it has ever run.
pub fn add(view: &ClusterView, peer_urls: Vec<String>, learner: bool) -> Outcome<ChangePlan> {
    one_cluster(view)?;
    if let Some(url) = peer_urls.iter().find(|url| !is_peer_url(url)) {
        return Err(Failure::usage(format!("'{url}' is not a peer URL"))
            .cause("a URL with a scheme and a port is expected, such as https://10.0.0.4:2380")
            .again());
    }
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
    // etcd itself (strict-reconfig-check) lets a single member add a second voter, and then stands still until that one runs.
    if !after.holds() {
        return Err(lost(&plan, "as a learner it has no vote, and is promoted when it has caught up").again_with(["--learner"]));
    }
    Ok(plan)
}

/// Whether etcd would take it: a scheme, a host, a port, and nothing else.
fn is_peer_url(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let Some((host, port)) = rest.trim_end_matches('/').rsplit_once(':') else { return false };
    matches!(scheme, "http" | "https")
        && !host.is_empty()
        && !host.contains(['/', '@', '?'])
        && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// Giving a learner its vote.
pub fn promote(view: &ClusterView, member: &MemberView) -> Outcome<ChangePlan> {
    one_cluster(view)?;
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
    one_cluster(view)?;
    let from = view.leader().ok_or_else(|| {
        Failure::failed("there is no leader whose place could be taken")
            .cause(Quorum::of(view).words())
            .next(["lifeboat", "etcd", "health"])
    })?;
    let can = |member: &&MemberView| member.id != from && view.working_voters().any(|voter| voter.id == member.id);
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
    let words = match view.over_talos {
        true => format!("move the leadership from {leader} to another member, which its node chooses"),
        false => format!("move the leadership from {leader} to {}", target.label()),
    };
    // Its node takes the first member of the list, and waits for minutes where that one is down.
    if let Some(down) = view.voters().find(|member| view.over_talos && !member.is_working_voter()) {
        return Err(Failure::failed("the leadership is not moved while a voting member is down")
            .object(down.label())
            .cause("over Talos the leader's node chooses who follows it, and may choose that one; with --talos-direct it is chosen here")
            .again_with(["--talos-direct"]));
    }
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

#[cfg(test)]
mod tests {
    use etcd_store::id::ClusterId;

    use super::*;
    use crate::care::health::tests::cluster;
    use crate::care::view::Silence;

    /// A cluster in which the members with these ids do not answer.
    fn without(of: u64, down: &[u64]) -> ClusterView {
        let mut view = cluster(of);
        for member in view.members.iter_mut().filter(|member| down.contains(&member.id.0)) {
            member.answer = Err(Silence { reason: "refused".to_owned(), connected: false, is_denied: false });
        }
        view
    }

    fn removal(view: &ClusterView, id: u64) -> Outcome<ChangePlan> {
        remove(view, view.member(MemberId(id)).unwrap())
    }

    #[test]
    fn a_removal_that_costs_the_quorum_is_refused_and_one_that_saves_it_is_not() {
        for (of, down, id, may) in [
            (3, &[][..], 1, true),
            (3, &[3], 3, true),
            (3, &[3], 2, false),
            (5, &[4, 5], 4, true),
            (5, &[4, 5], 1, false),
            (5, &[5], 1, true),
            (2, &[], 1, true),
            (1, &[], 1, false),
        ] {
            let plan = removal(&without(of, down), id);
            assert_eq!(plan.is_ok(), may, "{id} of {of} without {down:?}: {plan:?}");
        }
        let refused = removal(&without(5, &[4, 5]), 1).unwrap_err();
        let sum = "before: 3 of 5 voting member(s) work, 3 needed: survives no further loss; after: 2 of 4 voting member(s) work, 3 needed: NO QUORUM";
        assert!(refused.cause.as_ref().unwrap().starts_with(sum), "{refused}");
        let refused = removal(&without(3, &[2, 3]), 3).unwrap_err();
        assert!(refused.what.contains("no quorum to decide it"), "{refused}");
    }

    #[test]
    fn a_new_voter_counts_before_it_runs_and_a_learner_does_not() {
        let url = |text: &str| vec![text.to_owned()];
        assert!(add(&cluster(3), url("http://10.0.0.9:2380"), false).is_ok());
        assert!(add(&without(3, &[3]), url("http://10.0.0.9:2380"), false).is_err());
        assert!(add(&without(3, &[3]), url("http://10.0.0.9:2380"), true).is_ok());
        let alone = add(&cluster(1), url("http://10.0.0.9:2380"), false).unwrap_err();
        assert!(alone.cause.unwrap().contains("after: 1 of 2 voting member(s) work, 2 needed: NO QUORUM"));
        assert!(add(&cluster(3), url("http://10.0.0.1:2380"), true).unwrap_err().what.contains("at this peer URL already"));
        for wrong in ["10.0.0.9:2380", "http://10.0.0.9", "ftp://10.0.0.9:2380", "http://:2380", "http://a:0", "http://a/b:2380", ""] {
            assert_eq!(add(&cluster(3), url(wrong), true).unwrap_err().code, Code::Usage, "{wrong}");
        }
        assert!(add(&cluster(3), url("https://[::1]:2380/"), true).is_ok());
    }

    #[test]
    fn nothing_is_changed_in_two_clusters_at_once() {
        let mut view = cluster(3);
        view.members[2].answer.as_mut().unwrap().cluster_id = Some(ClusterId(8));
        let url = vec!["http://10.0.0.9:2380".to_owned()];
        let refusals = [removal(&view, 3), add(&view, url, true), promote(&view, &view.members[0]), move_leader(&view, None)];
        for refused in refusals {
            let refused = refused.unwrap_err();
            assert_eq!(refused.code, Code::WrongCluster);
            assert_eq!(refused.object.as_deref(), Some("0000000000000007: m1, m2; 0000000000000008: m3"));
        }
        let mut torn = cluster(3);
        torn.members[2].answer.as_mut().unwrap().status.leader = Some(MemberId(3));
        assert!(removal(&torn, 3).unwrap_err().what.contains("different leaders"));
    }

    #[test]
    fn whoever_was_removed_and_still_answers_has_no_vote() {
        let mut view = cluster(4);
        view.members[3].is_listed = false;
        assert_eq!(Quorum::of(&view), Quorum { voters: 3, working: 3 });
        assert!(removal(&view, 4).unwrap_err().what.contains("is no member of this cluster"));
        assert!(move_leader(&view, view.member(MemberId(4))).is_err());
    }

    #[test]
    fn the_leadership_goes_to_whoever_is_furthest_on() {
        let mut view = cluster(3);
        view.members[1].answer.as_mut().unwrap().status.raft_applied_index = 9_000;
        assert_eq!(move_leader(&view, None).unwrap().change, Change::MoveLeader { from: MemberId(1), to: MemberId(3) });
        view.members[2].is_learner = true;
        assert_eq!(move_leader(&view, None).unwrap().change, Change::MoveLeader { from: MemberId(1), to: MemberId(2) });
        assert!(move_leader(&view, view.member(MemberId(3))).unwrap_err().cause.unwrap().contains("learner"));
        assert!(move_leader(&cluster(1), None).is_err());
    }
}
