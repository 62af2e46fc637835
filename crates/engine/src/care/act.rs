//! Carrying changes out, over etcd's own API or over Talos's, and waiting until their effect is seen.
//!
//! No call is simply repeated: after each the cluster is looked at again, and what counts is what is seen then. A lost answer is therefore no failure.

use std::time::Instant;

use etcd_api::Alarm;
use etcd_store::id::MemberId;

use super::change::{Change, ChangePlan};
use super::look::{Looked, look};
use super::refusal::Refusal;
use super::view::{ClusterView, MemberAnswer, MemberView};
use crate::access::Access;
use crate::failure::{Failure, Outcome};
use crate::limits::{EFFECT_WITHIN, LOOK_AGAIN_AFTER};
use crate::member_link::MemberLink;
use crate::progress::Progress;
use crate::source::alarm_name;
use crate::talos::direct::not_offered;

/// What a change came to.
#[derive(Clone, Debug)]
pub struct Changed {
    /// The cluster afterwards.
    pub view: ClusterView,
    /// The member that was added.
    pub added: Option<MemberId>,
}

/// Makes a change of the membership and waits until every member that answers shows it.
///
/// # Errors
/// etcd's refusal; a failure that says what is seen instead when the effect does not come within [`EFFECT_WITHIN`].
pub async fn change(access: &Access, looked: &Looked, plan: &ChangePlan, progress: &dyn Progress) -> Outcome<Changed> {
    let access = &looked.everywhere(access);
    let known: Vec<MemberId> = looked.view.members.iter().map(|member| member.id).collect();
    let until = Instant::now() + EFFECT_WITHIN;
    let mut refused: Option<Refusal> = None;
    let (mut asked, mut taken) = (false, false);
    loop {
        let now = if asked {
            match look(access).await {
                Ok(looked) => looked,
                Err(failure) if Instant::now() >= until => return Err(failure),
                Err(_) => {
                    tokio::time::sleep(LOOK_AGAIN_AFTER).await;
                    continue;
                }
            }
        } else {
            looked.clone()
        };
        if let Some(done) = effect(&now, &plan.change, &known) {
            return Ok(Changed { view: now.view, added: done.added });
        }
        if Instant::now() >= until {
            return Err(unseen(plan, refused.as_ref()));
        }
        if taken {
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            continue;
        }
        match call(&now, &plan.change).await {
            // Taken for good: asked again it would be refused, for it is done. From here on only what is seen counts.
            Ok(()) => (refused, taken) = (None, true),
            Err(refusal) if refusal.is_final() => {
                // What a call did whose answer was lost makes the next one wrong: "not found" may be what was asked for.
                let done = if asked { look(access).await.ok() } else { None };
                let done = done.and_then(|now| {
                    let of_leader = now.view.leader().filter(|_| shown_by_leader(&now.view, &plan.change)).map(|_| Effect { added: None });
                    effect(&now, &plan.change, &known).or(of_leader).map(|done| (now.view, done.added))
                });
                return match done {
                    Some((view, added)) => Ok(Changed { view, added }),
                    None => Err(refusal.failure(&format!("etcd refuses to {}", plan.words))),
                };
            }
            Err(refusal) => {
                if refused.as_ref().is_none_or(|last| last.to_string() != refusal.to_string()) {
                    progress.say(&format!("not yet: {refusal}"));
                }
                refused = Some(refusal);
            }
        }
        asked = true;
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

struct Effect {
    added: Option<MemberId>,
}

/// Whether the leader's own list shows that a member is gone, or has its vote: others may be behind, or cut off.
fn shown_by_leader(view: &ClusterView, change: &Change) -> bool {
    let leader = view.leader().and_then(|id| view.member(id)).and_then(|member| member.answer.as_ref().ok());
    let Some(Ok(list)) = leader.map(|answer| &answer.listed) else { return false };
    match change {
        Change::Remove(id) | Change::Leave(id) => list.iter().all(|member| member.id != *id),
        Change::Promote(id) => list.iter().any(|member| member.id == *id && !member.is_learner),
        Change::MoveLeader { .. } | Change::Add { .. } => false,
    }
}

/// Whether the change is seen by every member that answers and follows a leader; one that is cut off holds an old list for as long as it is.
fn effect(looked: &Looked, change: &Change, known: &[MemberId]) -> Option<Effect> {
    let view = &looked.view;
    let follows = |answer: &MemberAnswer| answer.status.leader.is_some();
    let lists = || {
        let answering = view.answering().filter(|(member, answer)| member.is_listed && follows(answer));
        answering.filter_map(|(_, answer)| answer.listed.as_ref().ok())
    };
    lists().next()?;
    let nothing = Some(Effect { added: None });
    match change {
        Change::Remove(id) | Change::Leave(id) => lists().all(|list| list.iter().all(|member| member.id != *id)).then_some(())?,
        Change::Promote(id) => lists().all(|list| list.iter().any(|member| member.id == *id && !member.is_learner)).then_some(())?,
        // Talos lets the leader choose who follows it.
        Change::MoveLeader { from, .. } if looked.talos.is_some() => view.leader().filter(|leader| leader != from).map(drop)?,
        Change::MoveLeader { to, .. } => (view.leader() == Some(*to)).then_some(())?,
        Change::Add { peer_urls, .. } => {
            let added = view
                .members
                .iter()
                .find(|member| !known.contains(&member.id) && member.peer_urls.iter().any(|url| peer_urls.contains(url)))?;
            return Some(Effect { added: Some(added.id) });
        }
    }
    nothing
}

async fn call(looked: &Looked, change: &Change) -> Result<(), Refusal> {
    match whom_to_ask(looked, change) {
        Some(MemberLink::Etcd(client)) => match change {
            Change::Remove(id) | Change::Leave(id) => client.member_remove(*id).await.map(drop)?,
            Change::Promote(id) => client.member_promote(*id).await.map(drop)?,
            Change::Add { peer_urls, learner } => client.member_add(peer_urls.clone(), *learner).await.map(drop)?,
            Change::MoveLeader { to, .. } => client.move_leader(*to).await?,
        },
        Some(MemberLink::Talos(node)) => match change {
            Change::Remove(id) => node.etcd_remove_member(*id).await?,
            Change::Leave(_) => node.etcd_leave().await?,
            Change::MoveLeader { .. } => node.etcd_forfeit_leadership().await.map(drop)?,
            Change::Promote(_) | Change::Add { .. } => return Err(Refusal::not_offered("this change of the membership")),
        },
        None => {}
    }
    Ok(())
}

/// That the way to the cluster has a call for what is asked: over Talos's own API some have none.
///
/// # Errors
/// A usage failure that names the other way.
pub fn offered(looked: &Looked, what: &str) -> Outcome<()> {
    if looked.talos.is_some() { Err(not_offered(what)) } else { Ok(()) }
}

/// The leader, unless it is the one that goes; else any voting member that works.
fn whom_to_ask<'a>(looked: &'a Looked, change: &Change) -> Option<&'a MemberLink> {
    let leader = looked.view.leader();
    if let Change::MoveLeader { from, .. } = change {
        return looked.links.get(&leader.unwrap_or(*from));
    }
    // Over Talos a node leaves by itself, and cleans up behind itself.
    if let (Change::Leave(id), true) = (change, looked.talos.is_some()) {
        return looked.links.get(id);
    }
    let goes = if let Change::Remove(id) | Change::Leave(id) = change { Some(*id) } else { None };
    let may = |id: &MemberId| Some(*id) != goes;
    let working = || looked.view.working_voters().map(|member| member.id);
    let id = leader.filter(may).or_else(|| working().find(may)).or(leader)?;
    looked.links.get(&id)
}

fn unseen(plan: &ChangePlan, refused: Option<&Refusal>) -> Failure {
    let what = format!("to {} had no effect within {} s", plan.words, EFFECT_WITHIN.as_secs());
    match refused {
        Some(refusal) => refusal.failure(&what),
        None => Failure::failed(what).cause("etcd took the change, and not every member shows it").next(["lifeboat", "etcd", "members"]),
    }
}

/// Disarms exactly these alarms and shows what is left. Talos has one call for all there are, so it is only made where no other is raised.
///
/// # Errors
/// etcd's refusal. Over Talos also when an alarm was taken back that was not meant, because it was raised at that very moment.
pub async fn disarm(looked: &Looked, chosen: &[Alarm]) -> Outcome<Vec<Alarm>> {
    let leads = looked.view.leader().and_then(|id| looked.links.get(&id));
    let link = leads.or_else(|| looked.links.values().next()).ok_or_else(|| Failure::failed("no member answers").again())?;
    let wrong = |refusal: Refusal| refusal.failure("the alarm cannot be disarmed");
    let (taken, left) = disarm_through(link, chosen).await.map_err(wrong)?;
    let unmeant: Vec<String> = taken
        .iter()
        .filter(|alarm| !chosen.contains(alarm))
        .map(|alarm| format!("{} of {}", alarm_name(alarm.kind), alarm.member))
        .collect();
    if !unmeant.is_empty() {
        return Err(Failure::failed("alarms were taken back that were not meant")
            .object(unmeant.join(", "))
            .cause("they were raised at the moment of the call, and Talos takes back all there are. Their cause stands: look at the members now")
            .next(["lifeboat", "etcd", "health"]));
    }
    Ok(left)
}

/// What was taken back, and what is left.
async fn disarm_through(link: &MemberLink, chosen: &[Alarm]) -> Result<(Vec<Alarm>, Vec<Alarm>), Refusal> {
    match link {
        MemberLink::Etcd(client) => {
            for alarm in chosen {
                client.disarm(alarm.member, alarm.kind).await?;
            }
            Ok((chosen.to_vec(), client.alarms().await?))
        }
        MemberLink::Talos(node) => {
            let raised = node.etcd_alarms().await?;
            if raised.iter().any(|alarm| !chosen.contains(alarm)) {
                return Err(Refusal::not_offered("to disarm one alarm and leave another: it takes back all there are"));
            }
            let taken = if raised.is_empty() { Vec::new() } else { node.etcd_disarm_all().await? };
            Ok((taken, node.etcd_alarms().await?))
        }
    }
}

/// Waits until every member answers, knows the leader, and has applied what the leader had when the waiting began.
///
/// # Errors
/// Who has not caught up within `within`.
pub async fn caught_up(access: &Access, within: std::time::Duration) -> Outcome<Looked> {
    let until = Instant::now() + within;
    let mut target = None;
    loop {
        let last = match look(access).await {
            // The defragmented member may have been the leader for a moment more, and an election be under way.
            Ok(looked) if looked.view.leader().is_none() => "the members that answer agree on no leader".to_owned(),
            Ok(looked) => {
                let newest = looked.view.answering().map(|(_, answer)| answer.status.raft_index).max().unwrap_or_default();
                let target = *target.get_or_insert(newest);
                let behind = |member: &&MemberView| {
                    member.status().is_none_or(|status| status.leader.is_none() || status.raft_applied_index < target)
                };
                match looked.view.members.iter().find(behind) {
                    None => return Ok(looked),
                    Some(member) => format!("{} has not caught up with raft index {target}", member.label()),
                }
            }
            Err(failure) => failure.what,
        };
        if Instant::now() >= until {
            return Err(Failure::failed("the cluster did not come together again")
                .cause(format!("{last} within {} s", within.as_secs()))
                .next(["lifeboat", "etcd", "health"]));
        }
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}
