//! What is asked of members and what they answer, in Lifeboat's own types.

mod cluster;
mod kv;
mod maintenance;

use etcd_store::id::{ClusterId, MemberId, Revision};

pub use self::cluster::{Member, MemberAdded, MemberList};
pub use self::kv::{
    Compare, CompareOp, CompareTarget, DeleteRequest, DeleteResponse, KeyRange, KeyValue, LeaseGranted, LeaseState, PutRequest,
    PutResponse, RangeRequest, RangeResponse, Txn, TxnOp, TxnResponse, TxnResult,
};
pub use self::maintenance::{Alarm, AlarmKind, Downgrade, HashKv, MemberStatus};
use crate::pb;

/// Who answered, and at which point of the cluster's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Id of the cluster.
    pub cluster_id: ClusterId,
    /// Id of the member that answered.
    pub member_id: MemberId,
    /// Revision of the key space on that member when it answered. Zero in answers of some calls (membership, leases).
    pub revision: Revision,
    /// Raft term on that member.
    pub raft_term: u64,
}

/// An answer that etcd never gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unexpected(pub(crate) &'static str);

impl Header {
    pub(crate) fn from_wire(header: Option<pb::ResponseHeader>) -> Result<Self, Unexpected> {
        let header = header.ok_or(Unexpected("the answer has no header"))?;
        Ok(Self {
            cluster_id: ClusterId(header.cluster_id),
            member_id: MemberId(header.member_id),
            revision: Revision(header.revision),
            raft_term: header.raft_term,
        })
    }
}
