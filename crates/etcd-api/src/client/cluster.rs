//! Membership.

use etcd_store::id::MemberId;

use super::{Client, method};
use crate::error::{Error, ErrorKind};
use crate::pb;
use crate::types::{Member, MemberAdded, MemberList};

impl Client {
    /// The membership. `linearizable` asks the quorum first (3.5 and later; 3.4 always answers from its own state).
    ///
    /// # Errors
    /// What any call may return. Where authentication is on, releases since 3.4.42, 3.5.28 and 3.6.9 want a user.
    pub async fn members(&self, linearizable: bool) -> Result<MemberList, Error> {
        let request = pb::MemberListRequest { linearizable };
        let answer: pb::MemberListResponse = self.call(&method::MEMBER_LIST, request).await?;
        self.expected(&method::MEMBER_LIST, MemberList::from_wire(answer.header, answer.members))
    }

    /// Adds a member, as a learner or at once with a vote.
    ///
    /// # Errors
    /// [`TooManyLearners`](ErrorKind::TooManyLearners); `Rpc` when the quorum could not stand it; what any call may
    /// return. After a lost answer ask [`Self::members`] before repeating it.
    pub async fn member_add(&self, peer_urls: Vec<String>, learner: bool) -> Result<MemberAdded, Error> {
        let request = pb::MemberAddRequest { peer_urls, is_learner: learner };
        let answer: pb::MemberAddResponse = self.call(&method::MEMBER_ADD, request).await?;
        let list = self.expected(&method::MEMBER_ADD, MemberList::from_wire(answer.header, answer.members))?;
        match answer.member {
            Some(member) => Ok(MemberAdded { member: Member::from(member), list }),
            None => {
                let fact = "the answer does not name the new member".to_owned();
                Err(self.error(&method::MEMBER_ADD, ErrorKind::Protocol(fact)))
            }
        }
    }

    /// Removes a member for good. Returns the membership afterwards.
    ///
    /// # Errors
    /// [`MemberNotFound`](ErrorKind::MemberNotFound), and what any call may return.
    pub async fn member_remove(&self, id: MemberId) -> Result<MemberList, Error> {
        self.change(&method::MEMBER_REMOVE, pb::MemberRemoveRequest { id: id.0 }).await
    }

    /// Changes where a member is reached by the others. Returns the membership afterwards.
    ///
    /// # Errors
    /// [`MemberNotFound`](ErrorKind::MemberNotFound), and what any call may return.
    pub async fn member_update(&self, id: MemberId, peer_urls: Vec<String>) -> Result<MemberList, Error> {
        let request = pb::MemberUpdateRequest { id: id.0, peer_urls };
        self.change(&method::MEMBER_UPDATE, request).await
    }

    /// Gives a learner its vote. Returns the membership afterwards.
    ///
    /// # Errors
    /// [`LearnerNotReady`](ErrorKind::LearnerNotReady) below 90 % of the leader's log, and what any call may return.
    pub async fn member_promote(&self, id: MemberId) -> Result<MemberList, Error> {
        self.change(&method::MEMBER_PROMOTE, pb::MemberPromoteRequest { id: id.0 }).await
    }

    async fn change<Q>(&self, method: &'static method::Method, request: Q) -> Result<MemberList, Error>
    where
        Q: prost::Message + Clone + 'static,
    {
        let answer: pb::MembershipResponse = self.call(method, request).await?;
        self.expected(method, MemberList::from_wire(answer.header, answer.members))
    }
}
