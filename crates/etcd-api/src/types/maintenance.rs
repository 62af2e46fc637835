//! Status, alarms and hashes.

use etcd_store::id::{MemberId, Revision};

use super::{Header, Unexpected};
use crate::pb;

/// What a member says of itself. Sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Who answered: cluster, member, revision, term.
    pub header: Header,
    /// Version of the server, like "3.6.14".
    pub version: String,
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
    /// Storage version, like "3.6.0"; told by 3.6 and later.
    pub storage_version: Option<String>,
    /// Quota of the database; told by 3.6 and later.
    pub db_size_quota: Option<u64>,
    /// Downgrade under way; told by 3.6 and later.
    pub downgrade: Option<Downgrade>,
}

/// A downgrade of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downgrade {
    /// Whether one is under way.
    pub enabled: bool,
    /// To which version; empty if none.
    pub target_version: String,
}

impl MemberStatus {
    pub(crate) fn from_wire(answer: pb::StatusResponse) -> Result<Self, Unexpected> {
        let size = |size: i64| u64::try_from(size).map_err(|_| Unexpected("a database size below zero"));
        Ok(Self {
            header: Header::from_wire(answer.header)?,
            version: answer.version,
            db_size: size(answer.db_size)?,
            db_size_in_use: size(answer.db_size_in_use)?,
            leader: (answer.leader != 0).then_some(MemberId(answer.leader)),
            raft_index: answer.raft_index,
            raft_term: answer.raft_term,
            raft_applied_index: answer.raft_applied_index,
            errors: answer.errors,
            is_learner: answer.is_learner,
            storage_version: (!answer.storage_version.is_empty()).then_some(answer.storage_version),
            // A disabled quota is sent as a number below zero by some releases: then there is none to tell.
            db_size_quota: u64::try_from(answer.db_size_quota).ok().filter(|&quota| quota != 0),
            downgrade: answer.downgrade_info.map(|info| Downgrade { enabled: info.enabled, target_version: info.target_version }),
        })
    }
}

/// A kind of alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AlarmKind {
    /// The database is at its quota.
    NoSpace,
    /// Members' data differ.
    Corrupt,
    /// A kind that this version of Lifeboat does not know, by its number.
    Other(i32),
}

impl AlarmKind {
    /// From etcd's number for it, which Talos uses too.
    #[must_use]
    pub fn from_number(number: i32) -> Self {
        match pb::AlarmType::try_from(number) {
            Ok(pb::AlarmType::Nospace) => Self::NoSpace,
            Ok(pb::AlarmType::Corrupt) => Self::Corrupt,
            Ok(pb::AlarmType::None) | Err(_) => Self::Other(number),
        }
    }

    pub(crate) fn to_wire(self) -> i32 {
        match self {
            Self::NoSpace => pb::AlarmType::Nospace.into(),
            Self::Corrupt => pb::AlarmType::Corrupt.into(),
            Self::Other(number) => number,
        }
    }
}

/// An alarm that is active. It may name a member that is long gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Alarm {
    /// The member that raised it.
    pub member: MemberId,
    /// Which.
    pub kind: AlarmKind,
}

/// A hash of every row of the key space up to a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// Who answered; its revision is the newest of the member.
    pub header: Header,
    /// CRC-32C over the rows (etcd `server/storage/mvcc/hash.go`).
    pub hash: u32,
    /// The compacted revision the hash was made under. Hashes are only comparable when these are equal. Asking exactly at
    /// the compacted revision returns a kept hash, whose compacted revision is the one before.
    pub compact_revision: Revision,
    /// The revision that was hashed; told by 3.6 and later.
    pub hash_revision: Option<Revision>,
}

impl HashKv {
    pub(crate) fn from_wire(answer: &pb::HashKvResponse) -> Result<Self, Unexpected> {
        Ok(Self {
            header: Header::from_wire(answer.header)?,
            hash: answer.hash,
            compact_revision: Revision(answer.compact_revision),
            hash_revision: (answer.hash_revision != 0).then_some(Revision(answer.hash_revision)),
        })
    }
}
