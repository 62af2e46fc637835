//! What Talos tells of the etcd member on a node.

use etcd_api::{Alarm, AlarmKind, Member};
use etcd_store::id::MemberId;

use super::Unexpected;
use crate::pb;

/// What a member says of itself, as far as Talos passes it on. Sizes are bytes.
///
/// Cluster id, revision, quota and downgrades are not among it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdStatus {
    /// The member's id.
    pub member_id: MemberId,
    /// Version of the server, like "3.6.14".
    pub version: String,
    /// Storage version, like "3.6.0"; told by Talos 1.11 and later. Derived from `version` for etcd before 3.6.
    pub storage_version: Option<String>,
    /// Size of the database file, free pages included.
    pub db_size: u64,
    /// Size of the pages in use.
    pub db_size_in_use: u64,
    /// The leader as this member knows it; `None` without one.
    pub leader: Option<MemberId>,
    /// Index of the last log entry committed, as this member knows it.
    pub raft_index: u64,
    /// Current term.
    pub raft_term: u64,
    /// Index of the last log entry applied.
    pub raft_applied_index: u64,
    /// What the member complains about: "etcdserver: no leader", alarms.
    pub errors: Vec<String>,
    /// Whether it has no vote.
    pub is_learner: bool,
}

impl EtcdStatus {
    pub(crate) fn from_wire(answer: pb::EtcdStatus) -> Result<Self, Unexpected> {
        let status = answer.member_status.ok_or(Unexpected("a status without a member"))?;
        let size = |size: i64| u64::try_from(size).map_err(|_| Unexpected("a database size below zero"));
        if status.member_id == 0 {
            return Err(Unexpected("a status of no member"));
        }
        Ok(Self {
            member_id: MemberId(status.member_id),
            db_size: size(status.db_size)?,
            db_size_in_use: size(status.db_size_in_use)?,
            version: status.protocol_version,
            // What Talos says where it could not read the server's version.
            storage_version: Some(status.storage_version).filter(|version| !version.is_empty() && version != "unknown"),
            leader: (status.leader != 0).then_some(MemberId(status.leader)),
            raft_index: status.raft_index,
            raft_term: status.raft_term,
            raft_applied_index: status.raft_applied_index,
            errors: status.errors,
            is_learner: status.is_learner,
        })
    }
}

pub(crate) fn member(member: pb::EtcdMember) -> Member {
    Member {
        id: MemberId(member.id),
        name: member.hostname,
        peer_urls: member.peer_urls,
        client_urls: member.client_urls,
        is_learner: member.is_learner,
    }
}

/// The alarms of an answer. Talos gives kinds it does not know the number of "none": they stay visible as such.
pub(crate) fn alarms(answer: pb::EtcdAlarm) -> Vec<Alarm> {
    let kind = AlarmKind::from_number;
    answer.member_alarms.into_iter().map(|alarm| Alarm { member: MemberId(alarm.member_id), kind: kind(alarm.alarm) }).collect()
}
