//! Status, alarms, hashes, defragmentation, leadership.

use std::time::Duration;

use etcd_store::id::{MemberId, Revision};

use super::{Client, method};
use crate::error::Error;
use crate::pb;
use crate::types::{Alarm, AlarmKind, HashKv, MemberStatus};

impl Client {
    /// What this member says of itself. Served without a leader.
    ///
    /// # Errors
    /// What any call may return. Where authentication is on, 3.4 and older 3.5 and 3.6 want the role `root`.
    pub async fn status(&self) -> Result<MemberStatus, Error> {
        let answer = self.call(&method::STATUS, pb::StatusRequest {}).await?;
        self.expected(&method::STATUS, MemberStatus::from_wire(answer))
    }

    /// Hash of the key space at a revision, `None` for the member's newest. It scans the whole key space and blocks this
    /// member's writes meanwhile: the server does not stop when `limit` runs out.
    ///
    /// # Errors
    /// [`Compacted`](crate::ErrorKind::Compacted), [`FutureRevision`](crate::ErrorKind::FutureRevision), and what any
    /// call may return. Needs the role `root`.
    pub async fn hash_kv(&self, revision: Option<Revision>, limit: Duration) -> Result<HashKv, Error> {
        let request = pb::HashKvRequest { revision: revision.map_or(0, |revision| revision.0) };
        let answer = self.call_within(&method::HASH_KV, request, limit).await?;
        self.expected(&method::HASH_KV, HashKv::from_wire(&answer))
    }

    /// Every active alarm of the cluster.
    ///
    /// # Errors
    /// What any call may return.
    pub async fn alarms(&self) -> Result<Vec<Alarm>, Error> {
        self.alarm(pb::AlarmRequest { action: pb::AlarmAction::Get.into(), member_id: 0, alarm: pb::AlarmType::None.into() }).await
    }

    /// Takes one alarm back. Returns the alarms that were taken back; none if it was not active.
    ///
    /// # Errors
    /// What any call may return. Needs the role `root`.
    pub async fn disarm(&self, member: MemberId, kind: AlarmKind) -> Result<Vec<Alarm>, Error> {
        self.alarm(pb::AlarmRequest { action: pb::AlarmAction::Deactivate.into(), member_id: member.0, alarm: kind.to_wire() }).await
    }

    /// Rewrites this member's database file without its free pages. The member serves nothing meanwhile, and if a
    /// snapshot is being read from it, until that ends.
    ///
    /// # Errors
    /// What any call may return; after a [`Timeout`](crate::ErrorKind::Timeout) it goes on. Needs the role `root`.
    pub async fn defragment(&self, limit: Duration) -> Result<(), Error> {
        let request = pb::DefragmentRequest {};
        let _: pb::DefragmentResponse = self.call_within(&method::DEFRAGMENT, request, limit).await?;
        Ok(())
    }

    /// Hands leadership to another member; this one must be the leader.
    ///
    /// # Errors
    /// [`NotLeader`](crate::ErrorKind::NotLeader), and what any call may return. Needs the role `root`.
    pub async fn move_leader(&self, to: MemberId) -> Result<(), Error> {
        let request = pb::MoveLeaderRequest { target_id: to.0 };
        let _: pb::MoveLeaderResponse = self.call(&method::MOVE_LEADER, request).await?;
        Ok(())
    }

    async fn alarm(&self, request: pb::AlarmRequest) -> Result<Vec<Alarm>, Error> {
        let answer: pb::AlarmResponse = self.call(&method::ALARM, request).await?;
        let alarms =
            answer.alarms.into_iter().map(|alarm| Alarm { member: MemberId(alarm.member_id), kind: AlarmKind::from_number(alarm.alarm) });
        Ok(alarms.collect())
    }
}
