//! The calls about etcd.

use std::time::{Duration, Instant};

use etcd_api::{AlarmKind, Client, Error, ErrorKind, MemberList};
use etcd_store::id::MemberId;
use grpc_link::testing::{Encoder, Failure, Fields};

use super::failure::{bare, text, wrapped};
use crate::etcd::POLL;
use crate::message::{
    alarms as alarms_fields, code, forfeit_leadership, member, member_alarm, member_list_request, member_status, members as members_fields,
    remove_member_request, status as status_fields,
};
use crate::world::{NodeState, World};

/// How long a defragmentation may take.
const DEFRAGMENT: Duration = Duration::from_secs(300);
/// How long one member of several is waited for before the next one is asked.
const ANSWERING: Duration = Duration::from_secs(3);
/// How long members are asked again and again.
const REPEATING: Duration = Duration::from_secs(3);
/// How long Talos repeats the removal of an unhealthy member (`retry.Constant(5*time.Minute, …)`), and how often; shorter
/// here, with the same order of things.
const LEAVE_RETRY: Duration = Duration::from_secs(60);
const LEAVE_PAUSE: Duration = Duration::from_millis(500);

/// The etcd on the node itself. Talos' client connects when it is first used, so that the call fails, not the making of it.
async fn local(node: &NodeState) -> Result<Client, Error> {
    let place = node.etcd.lock().await.place.clone();
    place.client().await
}

/// Why no member could be asked.
enum NoMember {
    /// Discovery knows no control plane node; Talos says so itself.
    NoEndpoints,
    /// The last one's error.
    Etcd(Error),
    /// The last one knows no leader (`WithRequireLeader`).
    NoLeader,
    /// The last one does not answer.
    Silent,
}

impl NoMember {
    fn rank(&self) -> u8 {
        match self {
            Self::NoEndpoints => 0,
            Self::Etcd(error) if matches!(error.kind(), ErrorKind::Link(_)) => 1,
            Self::Silent => 2,
            Self::Etcd(_) | Self::NoLeader => 3,
        }
    }

    /// As the failure of a call in which `doing` failed.
    fn wrapped(&self, doing: &str) -> Failure {
        match self {
            Self::Etcd(error) => wrapped(doing, error),
            Self::NoEndpoints => Failure::new(code::UNKNOWN, "failed to create etcd client: no controlplane endpoints discovered yet"),
            Self::NoLeader | Self::Silent => Failure::new(code::UNKNOWN, format!("{doing}: {}", self.bare().message)),
        }
    }

    /// As Talos returns it unwrapped.
    fn bare(&self) -> Failure {
        match self {
            Self::Etcd(error) => bare(error),
            Self::NoEndpoints => Failure::new(code::UNKNOWN, "no controlplane endpoints discovered yet"),
            Self::NoLeader => Failure::new(code::UNKNOWN, text(&ErrorKind::NoLeader)),
            Self::Silent => Failure::new(code::UNKNOWN, "context deadline exceeded"),
        }
    }
}

/// Any etcd of the control plane that has a leader (`WithRequireLeader`), with the membership as it knows it. Repeated for a
/// moment, as etcd's client repeats what is only unavailable: an election passes.
async fn any(world: &World) -> Result<(Client, MemberList), NoMember> {
    let deadline = Instant::now() + REPEATING;
    loop {
        let mut why = NoMember::NoEndpoints;
        for node in world.control_planes() {
            let failed = match tokio::time::timeout(ANSWERING, led(node)).await {
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(failed)) => failed,
                Err(_) => NoMember::Silent,
            };
            // A member that is there says more than one that is not.
            if failed.rank() >= why.rank() {
                why = failed;
            }
        }
        if Instant::now() > deadline {
            return Err(why);
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn led(node: &NodeState) -> Result<(Client, MemberList), NoMember> {
    let client = local(node).await.map_err(NoMember::Etcd)?;
    let status = client.status().await.map_err(NoMember::Etcd)?;
    if status.leader.is_none() {
        return Err(NoMember::NoLeader);
    }
    let members = client.members(true).await.map_err(NoMember::Etcd)?;
    Ok((client, members))
}

pub(super) async fn status(world: &World, node: &NodeState) -> Result<Encoder, Failure> {
    const DOING: &str = "failed to query etcd status";
    let client = local(node).await.map_err(|error| wrapped(DOING, &error))?;
    let status = client.status().await.map_err(|error| wrapped(DOING, &error))?;
    let message = Encoder::new()
        .bytes(member_status::PROTOCOL_VERSION, &status.version)
        .number(member_status::DB_SIZE, status.db_size)
        .number(member_status::DB_SIZE_IN_USE, status.db_size_in_use)
        .number(member_status::LEADER, status.leader.map_or(0, |leader| leader.0))
        .number(member_status::RAFT_INDEX, status.raft_index)
        .number(member_status::RAFT_TERM, status.raft_term)
        .number(member_status::RAFT_APPLIED_INDEX, status.raft_applied_index)
        .flag(member_status::IS_LEARNER, status.is_learner)
        .number(member_status::MEMBER_ID, status.header.member_id.0);
    let message = status.errors.iter().fold(message, |message, error| message.element(member_status::ERRORS, error));
    let message = if world.options.profile.storage_version() {
        message.bytes(member_status::STORAGE_VERSION, status.storage_version.unwrap_or_else(|| derived(&status.version)))
    } else {
        message
    };
    Ok(Encoder::new().message(status_fields::MEMBER_STATUS, message))
}

/// What Talos says of an etcd that tells no storage version.
fn derived(version: &str) -> String {
    let mut parts = version.split('.');
    match (parts.next().and_then(|part| part.parse::<u64>().ok()), parts.next().and_then(|part| part.parse::<u64>().ok())) {
        (Some(major), Some(minor)) => format!("{major}.{minor}.0"),
        _ => "unknown".to_owned(),
    }
}

pub(super) async fn members(world: &World, node: &NodeState, request: &Fields) -> Result<Encoder, Failure> {
    let list = match request.number(member_list_request::QUERY_LOCAL) != 0 {
        true => led(node).await.map_err(|why| why.bare())?.1,
        false => any(world).await.map_err(|why| why.bare())?.1,
    };
    let legacy = list.members.iter().fold(Encoder::new(), |message, member| message.element(members_fields::LEGACY_MEMBERS, &member.name));
    Ok(list.members.iter().fold(legacy, |message, one| message.message(members_fields::MEMBERS, member_message(one))))
}

fn member_message(of: &etcd_api::Member) -> Encoder {
    let message = Encoder::new().number(member::ID, of.id.0).bytes(member::HOSTNAME, &of.name).flag(member::IS_LEARNER, of.is_learner);
    let message = of.peer_urls.iter().fold(message, |message, url| message.element(member::PEER_URLS, url));
    of.client_urls.iter().fold(message, |message, url| message.element(member::CLIENT_URLS, url))
}

fn alarm_message(alarms: &[etcd_api::Alarm]) -> Encoder {
    alarms.iter().fold(Encoder::new(), |message, alarm| {
        let kind = match alarm.kind {
            AlarmKind::NoSpace => 1,
            AlarmKind::Corrupt => 2,
            AlarmKind::Other(_) => 0,
        };
        let one = Encoder::new().number(member_alarm::MEMBER_ID, alarm.member.0).number(member_alarm::ALARM, kind);
        message.message(alarms_fields::MEMBER_ALARMS, one)
    })
}

pub(super) async fn alarms(node: &NodeState) -> Result<Encoder, Failure> {
    const DOING: &str = "failed to list etcd alarms";
    let asked = async { local(node).await?.alarms().await };
    let alarms = asked.await.map_err(|error| wrapped(DOING, &error))?;
    Ok(alarm_message(&alarms))
}

/// Every alarm of the whole cluster: clientv3 goes through the list when it is given an empty member.
pub(super) async fn disarm(node: &NodeState) -> Result<Encoder, Failure> {
    const DOING: &str = "failed to disarm etcd alarm";
    let client = local(node).await.map_err(|error| wrapped(DOING, &error))?;
    let mut gone = Vec::new();
    for alarm in client.alarms().await.map_err(|error| wrapped(DOING, &error))? {
        gone.extend(client.disarm(alarm.member, alarm.kind).await.map_err(|error| wrapped(DOING, &error))?);
    }
    Ok(alarm_message(&gone))
}

pub(super) async fn defragment(node: &NodeState) -> Result<Encoder, Failure> {
    const DOING: &str = "failed to defragment etcd";
    let asked = async { local(node).await?.defragment(DEFRAGMENT).await };
    asked.await.map_err(|error| wrapped(DOING, &error))?;
    Ok(Encoder::new())
}

/// The id of the node's own member, from the resource that exists only while etcd is healthy.
pub(super) async fn own_id(node: &NodeState) -> Option<MemberId> {
    let place = node.etcd.lock().await.place.clone();
    let asked = async { place.client().await?.status().await };
    Some(tokio::time::timeout(ANSWERING, asked).await.ok()?.ok()?.header.member_id)
}

async fn own_id_or_fail(node: &NodeState) -> Result<MemberId, Failure> {
    // A real node waits up to three minutes for the resource.
    let missing = || Failure::new(code::UNKNOWN, "failed to get local etcd member ID: context deadline exceeded");
    own_id(node).await.ok_or_else(missing)
}

pub(super) async fn forfeit(world: &World, node: &NodeState) -> Result<Encoder, Failure> {
    const DOING: &str = "failed to forfeit leadership";
    let own = own_id_or_fail(node).await?;
    let (_, list) = any(world).await.map_err(|why| why.wrapped(&format!("{DOING}: failed to list etcd members")))?;
    if list.members.len() == 1 {
        return Err(Failure::new(code::UNKNOWN, format!("{DOING}: cannot forfeit leadership, only one member")));
    }
    let client = local(node).await.map_err(|error| wrapped(DOING, &error))?;
    let status = client.status().await.map_err(|error| wrapped(DOING, &error))?;
    if status.leader != Some(own) {
        return Ok(Encoder::new());
    }
    let Some(next) = list.members.iter().find(|member| member.id != own) else { return Ok(Encoder::new()) };
    match client.move_leader(next.id).await {
        Ok(()) => Ok(Encoder::new().bytes(forfeit_leadership::MEMBER, &next.name)),
        Err(error) if *error.kind() == ErrorKind::NotLeader => Ok(Encoder::new()),
        Err(error) => Err(wrapped(DOING, &error)),
    }
}

pub(super) async fn remove(world: &World, request: &Fields) -> Result<Encoder, Failure> {
    const DOING: &str = "failed to remove member";
    let (client, _) = any(world).await.map_err(|why| why.wrapped(DOING))?;
    let id = request.number(remove_member_request::MEMBER_ID);
    match client.member_remove(MemberId(id)).await {
        Ok(_) => Ok(Encoder::new()),
        Err(error) if *error.kind() == ErrorKind::MemberNotFound => {
            Err(Failure::new(code::NOT_FOUND, format!("failed to remove member {id}: {}", text(error.kind()))))
        }
        Err(error) => Err(wrapped(&format!("{DOING}: failed to remove member {id}"), &error)),
    }
}

/// Removes the own member, stops etcd, deletes its data. In that order, as Talos does.
pub(super) async fn leave(world: &World, node: &NodeState) -> Result<Encoder, Failure> {
    const DOING: &str = "failed to leave cluster";
    let slow = node.switches().slow_leave;
    tokio::time::sleep(slow).await;
    let own = own_id_or_fail(node).await.map_err(|failure| Failure { message: format!("{DOING}: {}", failure.message), ..failure })?;
    let deadline = Instant::now() + LEAVE_RETRY;
    loop {
        let (client, _) = any(world).await.map_err(|why| why.wrapped(DOING))?;
        let error = match client.member_remove(own).await {
            Ok(_) => break,
            Err(error) if *error.kind() == ErrorKind::MemberNotFound => break,
            Err(error) => error,
        };
        let said = text(error.kind());
        let worth_a_retry = said.contains("unhealthy cluster") || said.contains("server stopped");
        if !worth_a_retry || Instant::now() > deadline {
            return Err(wrapped(DOING, &error));
        }
        tokio::time::sleep(LEAVE_PAUSE).await;
    }
    node.halt_boot().await;
    let mut etcd = node.etcd.lock().await;
    etcd.stop("Finished", "Service finished successfully");
    etcd.wipe(world.options.profile.keeps_directory());
    Ok(Encoder::new())
}
