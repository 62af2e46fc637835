//! Carrying changes out over etcd's own API, and waiting until their effect is seen.
//!
//! No call is simply repeated: after each the cluster is looked at again, and what counts is what is seen then. A lost answer is therefore no failure.

use std::time::Instant;

use etcd_api::{AlarmKind, Client, ErrorKind};
use etcd_store::id::MemberId;

use super::change::{Change, ChangePlan};
use super::look::{Looked, look};
use super::view::{ClusterView, MemberView};
use crate::failure::{Failure, Outcome};
use crate::limits::{EFFECT_WITHIN, LOOK_AGAIN_AFTER};
use crate::progress::Progress;
use crate::source::SourceOptions;
use crate::source_failure::failure;

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
pub async fn change(options: &SourceOptions, looked: &Looked, plan: &ChangePlan, progress: &dyn Progress) -> Outcome<Changed> {
    let options = &looked.everywhere(options);
    let known: Vec<MemberId> = looked.view.members.iter().map(|member| member.id).collect();
    let until = Instant::now() + EFFECT_WITHIN;
    let mut looked_last = None;
    let mut refused: Option<etcd_api::Error> = None;
    let mut asked = false;
    loop {
        let now = match looked_last.take() {
            Some(looked) => looked,
            None if asked => match look(options).await {
                Ok(looked) => looked,
                Err(failure) if Instant::now() >= until => return Err(failure),
                Err(_) => {
                    tokio::time::sleep(LOOK_AGAIN_AFTER).await;
                    continue;
                }
            },
            None => Looked { view: looked.view.clone(), clients: looked.clients.clone() },
        };
        if let Some(done) = effect(&now.view, &plan.change, &known) {
            return Ok(Changed { view: now.view, added: done.added });
        }
        if Instant::now() >= until {
            return Err(unseen(plan, refused.as_ref()));
        }
        match call(&now, &plan.change).await {
            Ok(()) => refused = None,
            Err(error) if is_final(error.kind()) => {
                // What a call did whose answer was lost makes the next one wrong: "not found" may be what was asked for.
                let done = if asked { look(options).await.ok() } else { None };
                let done = done.and_then(|now| effect(&now.view, &plan.change, &known).map(|done| (now.view, done.added)));
                return match done {
                    Some((view, added)) => Ok(Changed { view, added }),
                    None => Err(failure(&format!("etcd refuses to {}", plan.words), &error)),
                };
            }
            Err(error) => {
                if refused.as_ref().is_none_or(|last| last.kind() != error.kind()) {
                    progress.say(&format!("not yet: {error}"));
                }
                refused = Some(error);
            }
        }
        asked = true;
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

struct Effect {
    added: Option<MemberId>,
}

/// Whether the change is seen by every member that answers.
fn effect(view: &ClusterView, change: &Change, known: &[MemberId]) -> Option<Effect> {
    let lists = || view.answering().filter(|(member, _)| member.is_listed).filter_map(|(_, answer)| answer.listed.as_ref().ok());
    lists().next()?;
    let nothing = Some(Effect { added: None });
    match change {
        Change::Remove(id) => lists().all(|list| list.iter().all(|member| member.id != *id)).then_some(())?,
        Change::Promote(id) => lists().all(|list| list.iter().any(|member| member.id == *id && !member.is_learner)).then_some(())?,
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

async fn call(looked: &Looked, change: &Change) -> Result<(), etcd_api::Error> {
    let Some(client) = whom_to_ask(looked, change) else { return Ok(()) };
    match change {
        Change::Remove(id) => client.member_remove(*id).await.map(drop),
        Change::Promote(id) => client.member_promote(*id).await.map(drop),
        Change::Add { peer_urls, learner } => client.member_add(peer_urls.clone(), *learner).await.map(drop),
        Change::MoveLeader { to, .. } => client.move_leader(*to).await,
    }
}

/// The leader, unless it is the one that goes; else any voting member that works.
fn whom_to_ask<'a>(looked: &'a Looked, change: &Change) -> Option<&'a Client> {
    let leader = looked.view.leader();
    if let Change::MoveLeader { from, .. } = change {
        return looked.clients.get(&leader.unwrap_or(*from));
    }
    let goes = if let Change::Remove(id) = change { Some(*id) } else { None };
    let may = |id: &MemberId| Some(*id) != goes;
    let working = || looked.view.working_voters().map(|member| member.id);
    let id = leader.filter(may).or_else(|| working().find(may)).or(leader)?;
    looked.clients.get(&id)
}

/// Whether asking again cannot help.
fn is_final(kind: &ErrorKind) -> bool {
    match kind {
        ErrorKind::MemberNotFound
        | ErrorKind::TooManyLearners
        | ErrorKind::PermissionDenied(_)
        | ErrorKind::Unauthenticated(_)
        | ErrorKind::AuthenticationFailed
        | ErrorKind::Unimplemented(_)
        | ErrorKind::Corrupt => true,
        // "unhealthy cluster" is what etcd says for the first seconds after a member connected (server/etcdserver, HealthInterval).
        ErrorKind::Rpc { message, .. } => !message.contains("unhealthy cluster"),
        _ => false,
    }
}

fn unseen(plan: &ChangePlan, refused: Option<&etcd_api::Error>) -> Failure {
    let what = format!("to {} had no effect within {} s", plan.words, EFFECT_WITHIN.as_secs());
    match refused {
        Some(error) => failure(&what, error),
        None => Failure::failed(what).cause("etcd took the change, and not every member shows it").next(["lifeboat", "etcd", "members"]),
    }
}

/// Disarms every alarm of a kind, on the whole cluster, and shows what is left.
///
/// # Errors
/// etcd's refusal.
pub async fn disarm(looked: &Looked, kinds: &[AlarmKind]) -> Outcome<Vec<etcd_api::Alarm>> {
    let wrong = |error: &etcd_api::Error| failure("the alarm cannot be disarmed", error);
    let client = looked
        .view
        .leader()
        .and_then(|id| looked.clients.get(&id))
        .or_else(|| looked.clients.values().next())
        .ok_or_else(|| Failure::failed("no member answers").again())?;
    for alarm in client.alarms().await.map_err(|error| wrong(&error))? {
        if kinds.contains(&alarm.kind) {
            client.disarm(alarm.member, alarm.kind).await.map_err(|error| wrong(&error))?;
        }
    }
    client.alarms().await.map_err(|error| wrong(&error))
}

/// Waits until every member answers, knows the leader, and has applied what the leader had when the waiting began.
///
/// # Errors
/// Who has not caught up within `within`.
pub async fn caught_up(options: &SourceOptions, within: std::time::Duration) -> Outcome<Looked> {
    let until = Instant::now() + within;
    let mut target = None;
    loop {
        let last = match look(options).await {
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
