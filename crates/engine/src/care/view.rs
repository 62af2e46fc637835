//! What was seen of a cluster at one moment. A value: no connection, no clock.

use std::collections::BTreeSet;
use std::time::Duration;

use etcd_api::{Alarm, Member, MemberStatus};
use etcd_store::id::{ClusterId, MemberId};
use jiff::Timestamp;

/// Every member that is known, and what each said.
#[derive(Clone, Debug)]
pub struct ClusterView {
    /// When the looking began.
    pub taken: Timestamp,
    /// Every member that somebody lists or that answered, by id.
    pub members: Vec<MemberView>,
    /// Endpoints at which nobody answered and of which it is not known whose they are, with the reason.
    pub strangers: Vec<(String, Silence)>,
    /// Whether the members were asked over Talos's API, which tells no cluster id and adds and promotes members by itself.
    pub over_talos: bool,
    /// The alarms that are raised; `None` where no member would say.
    pub alarms: Option<Vec<Alarm>>,
    /// What was odd on the way, in words.
    pub notes: Vec<String>,
}

/// One member.
#[derive(Clone, Debug)]
pub struct MemberView {
    /// Its id.
    pub id: MemberId,
    /// Its name; empty for one that never started.
    pub name: String,
    /// Where the others reach it, as the member list says.
    pub peer_urls: Vec<String>,
    /// Where clients reach it, as the member list says.
    pub client_urls: Vec<String>,
    /// Whether the member list gives it no vote.
    pub is_learner: bool,
    /// Whether a member list that was seen holds it at all.
    pub is_listed: bool,
    /// Where it was asked: the endpoint or the node. Empty where nothing was known to ask at.
    pub endpoint: String,
    /// What it said, or why it said nothing.
    pub answer: Result<MemberAnswer, Silence>,
}

/// What a member said.
#[derive(Clone, Debug)]
pub struct MemberAnswer {
    /// Its status.
    pub status: MemberStatus,
    /// The cluster it belongs to; `None` where the source does not tell (Talos).
    pub cluster_id: Option<ClusterId>,
    /// The member list as this member holds it; the error's text where it would not say.
    pub listed: Result<Vec<Member>, String>,
    /// How long the answer with its status took.
    pub took: Duration,
}

/// Why a member said nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// In words.
    pub reason: String,
    /// A connection came about, and what failed came after it: somebody is there.
    pub connected: bool,
    /// Our rights do not allow the question.
    pub is_denied: bool,
}

impl MemberView {
    /// Its name, or its id where it has none yet.
    #[must_use]
    pub fn label(&self) -> String {
        if self.name.is_empty() { self.id.to_string() } else { self.name.clone() }
    }

    /// Its status, if it answered.
    #[must_use]
    pub fn status(&self) -> Option<&MemberStatus> {
        self.answer.as_ref().ok().map(|answer| &answer.status)
    }

    /// Whether it has a vote and answers and knows of a leader: one that counts for the quorum.
    #[must_use]
    pub fn is_working_voter(&self) -> bool {
        !self.is_learner && self.status().is_some_and(|status| status.leader.is_some())
    }
}

impl ClusterView {
    /// Members that answered.
    pub fn answering(&self) -> impl Iterator<Item = (&MemberView, &MemberAnswer)> {
        self.members.iter().filter_map(|member| Some((member, member.answer.as_ref().ok()?)))
    }

    /// Members that are listed and did not answer.
    pub fn silent(&self) -> impl Iterator<Item = (&MemberView, &Silence)> {
        self.members.iter().filter_map(|member| Some((member, member.answer.as_ref().err()?)))
    }

    /// Members with a vote: those the lists hold as such. One that answers and that no list holds has none; where no list could be had at all, what
    /// members say of themselves counts.
    pub fn voters(&self) -> impl Iterator<Item = &MemberView> {
        let lists_known = self.members.iter().any(|member| member.is_listed);
        self.members.iter().filter(move |member| !member.is_learner && (member.is_listed || !lists_known))
    }

    /// Voting members that answer and know of a leader.
    pub fn working_voters(&self) -> impl Iterator<Item = &MemberView> {
        self.voters().filter(|member| member.is_working_voter())
    }

    /// The member with an id.
    #[must_use]
    pub fn member(&self, id: MemberId) -> Option<&MemberView> {
        self.members.iter().find(|member| member.id == id)
    }

    /// The member that somebody means by a name, an id in hexadecimal, or an endpoint. `None` for nobody and for more than one.
    #[must_use]
    pub fn find(&self, text: &str) -> Option<&MemberView> {
        let id = text.parse::<MemberId>().ok();
        let bare = text.trim_end_matches('/');
        let is_at = |url: &str| {
            let url = url.trim_end_matches('/');
            url == bare || url.split_once("://").is_some_and(|(_, host)| host == bare)
        };
        let means = |member: &&MemberView| {
            !text.is_empty() && (member.name == text || is_at(&member.endpoint) || member.client_urls.iter().any(|url| is_at(url)))
        };
        if let Some(member) = id.and_then(|id| self.member(id)) {
            return Some(member);
        }
        let mut found = self.members.iter().filter(means);
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    /// The leader, where every member that answers and knows of one names the same.
    #[must_use]
    pub fn leader(&self) -> Option<MemberId> {
        let mut leaders = self.leaders().into_iter();
        let first = leaders.next()?;
        leaders.next().is_none().then_some(first)
    }

    /// Every leader that an answering member names. More than one means an election at this moment, or a split.
    #[must_use]
    pub fn leaders(&self) -> BTreeSet<MemberId> {
        self.answering().filter_map(|(_, answer)| answer.status.leader).collect()
    }

    /// The ids of the clusters the answering members belong to. More than one means a split, or endpoints of several clusters.
    #[must_use]
    pub fn cluster_ids(&self) -> BTreeSet<ClusterId> {
        self.answering().filter_map(|(_, answer)| answer.cluster_id).collect()
    }

    /// The cluster's id, where it is one.
    #[must_use]
    pub fn cluster_id(&self) -> Option<ClusterId> {
        let mut ids = self.cluster_ids().into_iter();
        let first = ids.next()?;
        ids.next().is_none().then_some(first)
    }

    /// Who belongs to which cluster, on one line: `6f3b8eea758ad949: m0, m1; 75f8081b6a92bc9c: m2`.
    #[must_use]
    pub fn clusters(&self) -> String {
        let of = |id: &ClusterId| {
            let members = self.answering().filter(|(_, answer)| answer.cluster_id == Some(*id)).map(|(member, _)| member.label());
            format!("{id}: {}", members.collect::<Vec<_>>().join(", "))
        };
        self.cluster_ids().iter().map(of).collect::<Vec<_>>().join("; ")
    }

    /// Every label, for a message that says whom one could have meant.
    #[must_use]
    pub fn labels(&self) -> String {
        let labels: Vec<String> = self.members.iter().map(|member| format!("{} ({})", member.label(), member.id)).collect();
        labels.join(", ")
    }
}
