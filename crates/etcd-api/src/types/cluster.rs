//! Membership.

use etcd_store::id::MemberId;

use super::{Header, Unexpected};
use crate::pb;

/// One member as the membership lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Its name; empty until it has started for the first time.
    pub name: String,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has started for the first time.
    pub client_urls: Vec<String>,
    /// Whether it has no vote.
    pub is_learner: bool,
}

impl Member {
    /// Whether it has ever started.
    #[must_use]
    pub fn has_started(&self) -> bool {
        !self.name.is_empty()
    }
}

impl From<pb::Member> for Member {
    fn from(member: pb::Member) -> Self {
        Self {
            id: MemberId(member.id),
            name: member.name,
            peer_urls: member.peer_urls,
            client_urls: member.client_urls,
            is_learner: member.is_learner,
        }
    }
}

/// The membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberList {
    /// Who answered; the revision in it is zero.
    pub header: Header,
    /// Every member, in no promised order.
    pub members: Vec<Member>,
}

/// The answer to adding a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberAdded {
    /// The new member.
    pub member: Member,
    /// The membership afterwards.
    pub list: MemberList,
}

impl MemberList {
    pub(crate) fn from_wire(header: Option<pb::ResponseHeader>, members: Vec<pb::Member>) -> Result<Self, Unexpected> {
        Ok(Self { header: Header::from_wire(header)?, members: members.into_iter().map(Member::from).collect() })
    }
}
