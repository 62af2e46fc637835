//! The etcd member on a node, and the cluster it belongs to.

use std::time::Duration;

use etcd_api::SnapshotLimits;
use etcd_store::id::MemberId;

use super::method::Method;
use super::{Node, method};
use crate::error::{Error, ErrorKind};
use crate::limits::{FORFEIT_TIMEOUT, LEAVE_TIMEOUT};
use crate::pb;
use crate::snapshot::SnapshotStream;
use crate::types::etcd::{alarms, member};
use crate::types::{Alarm, EtcdStatus, Member};

impl Node {
    /// What the member on this node says of itself.
    ///
    /// # Errors
    /// [`ErrorKind::EtcdSilent`], [`ErrorKind::NotControlPlane`], [`ErrorKind::Denied`] for `os:etcd:backup` and `os:reader`
    /// on Talos before 1.9.6 and 1.10.1; what any call may return.
    pub async fn etcd_status(&self) -> Result<EtcdStatus, Error> {
        let answer = self.call::<_, pb::EtcdStatusResponse>(&method::ETCD_STATUS, pb::Empty {}).await?;
        EtcdStatus::from_wire(answer).map_err(|unexpected| self.protocol(&method::ETCD_STATUS, unexpected.0))
    }

    /// The membership. `local` asks the etcd on this node, otherwise Talos picks any of the control plane.
    ///
    /// # Errors
    /// What any call may return.
    pub async fn etcd_members(&self, local: bool) -> Result<Vec<Member>, Error> {
        let request = pb::EtcdMemberListRequest { query_local: local };
        let answer = self.call::<_, pb::EtcdMemberListResponse>(&method::ETCD_MEMBER_LIST, request).await?;
        Ok(answer.members.into_iter().map(member).collect())
    }

    /// Every active alarm of the cluster.
    ///
    /// # Errors
    /// What any call may return.
    pub async fn etcd_alarms(&self) -> Result<Vec<Alarm>, Error> {
        let answer = self.call::<_, pb::EtcdAlarmResponse>(&method::ETCD_ALARM_LIST, pb::Empty {}).await?;
        Ok(alarms(answer))
    }

    /// Takes back every alarm of the whole cluster, CORRUPT included: Talos offers no narrower call, whatever its
    /// documentation says of "the node". Returns those that were taken back.
    ///
    /// # Errors
    /// What any call may return.
    pub async fn etcd_disarm_all(&self) -> Result<Vec<Alarm>, Error> {
        let answer = self.call::<_, pb::EtcdAlarmResponse>(&method::ETCD_ALARM_DISARM, pb::Empty {}).await?;
        Ok(alarms(answer))
    }

    /// Rewrites the member's database file without its free pages. The member serves nothing meanwhile.
    ///
    /// # Errors
    /// What any call may return; after a [`Timeout`](ErrorKind::Timeout) it goes on.
    pub async fn etcd_defragment(&self, limit: Duration) -> Result<(), Error> {
        self.call_within::<_, pb::EtcdDefragmentResponse>(&method::ETCD_DEFRAGMENT, pb::Empty {}, limit).await?;
        Ok(())
    }

    /// Hands leadership to another member. Returns the new leader's name; `None` when this node was not the leader. May
    /// take minutes.
    ///
    /// # Errors
    /// An `Rpc` error when there is only one member; what any call may return.
    pub async fn etcd_forfeit_leadership(&self) -> Result<Option<String>, Error> {
        let request = pb::EtcdForfeitLeadershipRequest {};
        let call = self.call_within::<_, pb::EtcdForfeitLeadershipResponse>(&method::ETCD_FORFEIT_LEADERSHIP, request, FORFEIT_TIMEOUT);
        Ok(Some(call.await?.member).filter(|name| !name.is_empty()))
    }

    /// Takes the member on this node out of the cluster, stops etcd and deletes its data. The node joins again after a
    /// reboot. May take minutes.
    ///
    /// # Errors
    /// What any call may return. After a [`Timeout`](ErrorKind::Timeout) Talos goes on: ask for the members.
    pub async fn etcd_leave(&self) -> Result<(), Error> {
        let request = pb::EtcdLeaveClusterRequest {};
        self.call_within::<_, pb::EtcdLeaveClusterResponse>(&method::ETCD_LEAVE_CLUSTER, request, LEAVE_TIMEOUT).await?;
        Ok(())
    }

    /// Removes any member by its id, asked of whichever control plane node answers. The removed one's data stays.
    ///
    /// # Errors
    /// [`ErrorKind::Etcd`] with `MemberNotFound`; what any call may return.
    pub async fn etcd_remove_member(&self, id: MemberId) -> Result<(), Error> {
        let request = pb::EtcdRemoveMemberByIdRequest { member_id: id.0 };
        self.call::<_, pb::EtcdRemoveMemberByIdResponse>(&method::ETCD_REMOVE_MEMBER_BY_ID, request).await?;
        Ok(())
    }

    /// Opens a snapshot of the member on this node and waits for its first bytes.
    ///
    /// Talos announces no size. A hint, [`EtcdStatus::db_size`] for one, serves progress and preallocation only.
    ///
    /// # Errors
    /// As [`SnapshotStream::next`].
    pub async fn etcd_snapshot(&self, limits: SnapshotLimits) -> Result<SnapshotStream, Error> {
        SnapshotStream::open(self, limits).await
    }

    pub(super) fn protocol(&self, method: &'static Method, fact: &str) -> Error {
        self.error(method, None, ErrorKind::Protocol(fact.to_owned()))
    }
}
