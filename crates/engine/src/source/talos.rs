//! Looking round over Talos's API: what each node says of the member on it, as far as our role may ask.

use etcd_store::id::MemberId;
use futures::future::join_all;
use talos_api::{ErrorKind, Node, Role};

use super::{Asked, Source, accuse, each_member_once, name_silent};
use crate::choice::{Candidate, CandidateState};
use crate::failure::{Failure, Outcome};
use crate::member_link::MemberLink;
use crate::talos::failure::failure;
use crate::talos::{Reached, TalosOptions, reach};

pub(super) async fn connect(options: &TalosOptions) -> Outcome<Source> {
    let reached = reach(options, false).await?;
    refuse_without_a_role(&reached)?;
    let answers = join_all(reached.nodes.iter().map(|node| ask(&reached, node))).await;
    let mut notes = reached.notes.clone();
    let mut asked = Vec::new();
    let mut first_failure = None;
    let mut untold = None;
    for (one, problem) in answers {
        match problem {
            Some(Problem::Silent(failure)) => first_failure = first_failure.or(Some(failure)),
            Some(Problem::Untold(words)) => untold = Some(words),
            None => {}
        }
        asked.push(one);
    }
    if asked.iter().all(|one| one.candidate.state.is_err())
        && let Some(failure) = first_failure
    {
        return Err(failure);
    }
    notes.extend(untold.map(|words| format!("the members' state is not known ({words}); the nodes are taken as they were named")));
    let mut members = reached.members.clone();
    if members.is_empty() {
        match member_list(&asked).await {
            Ok(list) => members = list,
            Err(why) => notes.push(format!("the member list cannot be had: {why}")),
        }
    }
    name_silent(&mut asked, &members);
    name_by_node(&mut asked, &members);
    let mut asked = each_member_once(asked);
    let alarms = alarms(&asked, &mut notes).await;
    accuse(&mut asked, &alarms);
    Ok(Source { cluster_id: None, talos: Some(reached), asked, members, alarms, notes })
}

enum Problem {
    /// Nothing can be had from it.
    Silent(Failure),
    /// Our role may not look at it, but may take its snapshot.
    Untold(String),
}

async fn ask(reached: &Reached, node: &Node) -> (Asked, Option<Problem>) {
    let (state, id, version, problem) = match node.etcd_status().await {
        Ok(status) => {
            let state = CandidateState {
                leader: status.leader,
                is_learner: status.is_learner,
                applied_index: status.raft_applied_index,
                db_size: status.db_size,
                db_size_in_use: status.db_size_in_use,
                errors: status.errors,
                accused: false,
                is_told: true,
            };
            (Ok(state), status.member_id, Some(status.version), None)
        }
        // Talos before 1.9.6 and 1.10.1 lets os:etcd:backup take the snapshot and tells it nothing else.
        Err(error) if may_snapshot(reached) && matches!(error.kind(), ErrorKind::Denied { .. } | ErrorKind::Unimplemented(_)) => {
            let state = CandidateState {
                leader: None,
                is_learner: false,
                applied_index: 0,
                db_size: 0,
                db_size_in_use: 0,
                errors: Vec::new(),
                accused: false,
                is_told: false,
            };
            (Ok(state), MemberId(0), None, Some(Problem::Untold(error.to_string())))
        }
        Err(error) => {
            let failure = failure("etcd's state cannot be asked of the node", &error);
            (Err(error.kind().to_string()), MemberId(0), None, Some(Problem::Silent(failure)))
        }
    };
    let talos_version = if state.is_ok() && may_read(reached) { node.version().await.ok().map(|version| version.tag) } else { None };
    let link = state.is_ok().then(|| MemberLink::Talos(node.clone()));
    let candidate = Candidate { id, name: String::new(), endpoint: node.to_string(), state };
    (Asked { candidate, link, version, talos_version, cluster_id: None }, problem)
}

/// Told before anything is asked, and once: it is the same for every node. Behind a proxy that has roles of its own the certificate names none.
fn refuse_without_a_role(reached: &Reached) -> Outcome<()> {
    let roles = reached.client.roles();
    if roles.as_slice().is_empty() || may_snapshot(reached) {
        return Ok(());
    }
    Err(Failure::failed("this talosconfig may not take snapshots")
        .object(format!("context '{}'", reached.context))
        .cause(format!(
            "the role os:etcd:backup is needed (or os:operator, os:admin); it has {roles}. A talosconfig with it: talosctl config new --roles \
             os:etcd:backup FILE, or spec.roles of the ServiceAccount"
        ))
        .again())
}

fn may_snapshot(reached: &Reached) -> bool {
    reached.client.roles().suffice(&[Role::EtcdBackup, Role::Operator, Role::Admin])
}

/// Whether our role may ask a node for its version.
fn may_read(reached: &Reached) -> bool {
    reached.client.roles().suffice(&[Role::Reader, Role::Operator, Role::Admin])
}

async fn member_list(asked: &[Asked]) -> Result<Vec<etcd_api::Member>, String> {
    let mut said = "nobody answers".to_owned();
    for node in asked.iter().filter_map(|one| one.link.as_ref()?.talos()) {
        match node.etcd_members(false).await {
            Ok(members) if members.len() <= crate::limits::MAX_MEMBERS => return Ok(members),
            Ok(members) => said = format!("{} members are more than an etcd cluster has", members.len()),
            Err(error) => said = error.to_string(),
        }
    }
    Err(said)
}

/// Gives those that did not say who they are the id and name of the member at their address.
fn name_by_node(asked: &mut [Asked], members: &[etcd_api::Member]) {
    for one in asked.iter_mut().filter(|one| one.candidate.id == MemberId(0)) {
        let here = |member: &&etcd_api::Member| {
            crate::talos::reach::address(member).is_some_and(|node| node.as_str() == one.candidate.endpoint)
                || member.name == one.candidate.endpoint
        };
        if let Some(member) = members.iter().find(here) {
            one.candidate.id = member.id;
            one.candidate.name.clone_from(&member.name);
        }
    }
}

async fn alarms(asked: &[Asked], notes: &mut Vec<String>) -> Vec<etcd_api::Alarm> {
    let told = |one: &&Asked| one.candidate.state.as_ref().is_ok_and(|state| state.is_told);
    let Some(node) = asked.iter().filter(told).find_map(|one| one.link.as_ref()?.talos()) else { return Vec::new() };
    match node.etcd_alarms().await {
        Ok(alarms) => alarms,
        Err(error) => {
            notes.push(format!("the alarms cannot be listed: {error}"));
            Vec::new()
        }
    }
}
