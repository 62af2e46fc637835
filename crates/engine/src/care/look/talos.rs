//! Looking round over Talos's API: a node for each member of the list, and each asked what its own etcd says.

use std::time::Instant;

use etcd_api::{Header, MemberStatus};
use etcd_store::id::{ClusterId, Revision};
use futures::future::join_all;
use jiff::Timestamp;
use talos_api::{ErrorClass, Node, Role};

use super::{Heard, Looked, MemberAnswer, Round, Silence};
use crate::failure::Outcome;
use crate::limits::DEFAULT_QUOTA;
use crate::member_link::MemberLink;
use crate::talos::failure::failure;
use crate::talos::reach::address;
use crate::talos::{TalosOptions, reach};

pub(super) async fn look(options: &TalosOptions) -> Outcome<Looked> {
    let taken = Timestamp::now();
    let reached = reach(options, true).await?;
    let mut round = Round::new(taken);
    round.notes.clone_from(&reached.notes);
    let heard = join_all(reached.nodes.iter().map(ask)).await;
    // A role that is too small is no member that is down, and is the same for every node.
    if let Some(failure) = heard.iter().find_map(|heard| heard.answer.as_ref().err().filter(|(silence, _)| silence.is_denied)) {
        return Err(failure.1.clone());
    }
    if let Some(nobody) = heard.iter().map(|heard| heard.answer.as_ref().err()).collect::<Option<Vec<_>>>()
        && let Some((_, failure)) = nobody.first()
        && reached.members.is_empty()
    {
        return Err(failure.clone());
    }
    for heard in heard {
        // A node that is silent is known by the address at which its member advertises itself.
        let member = reached.members.iter().find(|member| address(member).is_some_and(|node| node.as_str() == heard.endpoint));
        match member {
            Some(member) if heard.answer.is_err() => round.hear_of(member.id, heard),
            _ => round.hear(heard),
        }
    }
    // Whoever answers nothing at all may still be on the list that led to the nodes.
    round.seen = reached.members.clone();
    let alarms = round.alarms().await;
    Ok(round.finish(alarms, Some(reached)))
}

async fn ask(node: &Node) -> Heard {
    let endpoint = node.to_string();
    match answer(node).await {
        Ok(answer) => Heard { endpoint, answer: Ok((MemberLink::Talos(node.clone()), answer)) },
        Err(error) => {
            let connected = error.class() != ErrorClass::Unreachable;
            let is_denied = error.class() == ErrorClass::Denied;
            let silence = Silence { reason: error.kind().to_string(), connected, is_denied };
            Heard { endpoint, answer: Err((silence, failure("Talos does not answer as it should", &error))) }
        }
    }
}

async fn answer(node: &Node) -> Result<MemberAnswer, talos_api::Error> {
    let asked = Instant::now();
    let status = node.etcd_status().await?;
    let took = asked.elapsed();
    let listed = node.etcd_members(true).await.map_err(|error| error.kind().to_string());
    let status = MemberStatus {
        // Talos tells neither the cluster's id nor the revision; nobody may take these for an answer (`MemberAnswer::cluster_id`).
        header: Header { cluster_id: ClusterId(0), member_id: status.member_id, revision: Revision(0), raft_term: status.raft_term },
        version: status.version,
        db_size: status.db_size,
        db_size_in_use: status.db_size_in_use,
        leader: status.leader,
        raft_index: status.raft_index,
        raft_term: status.raft_term,
        raft_applied_index: status.raft_applied_index,
        errors: status.errors,
        is_learner: status.is_learner,
        storage_version: status.storage_version,
        db_size_quota: quota(node).await,
        downgrade: None,
    };
    Ok(MemberAnswer { status, cluster_id: None, listed, took })
}

/// The quota by the flags Talos runs etcd with; etcd's own default where there is none. Only asked where our role may.
async fn quota(node: &Node) -> Option<u64> {
    if !node.client().roles().suffice(&[Role::Reader, Role::Operator, Role::Admin]) {
        return None;
    }
    let spec = node.etcd_spec().await.ok()??;
    Some(spec.quota().unwrap_or(DEFAULT_QUOTA))
}
