//! A cluster to be: its members, its token, and the ids that follow from them.
//!
//! Source: etcd `server/etcdserver/api/membership/{member,cluster}.go` and `client/pkg/types/urlsmap.go`. Ids are a hash of peer
//! URLs and token, so a fresh token is what keeps members of the lost cluster from joining the restored one.

use std::collections::{BTreeMap, BTreeSet};

use sha1::{Digest, Sha1};

use crate::conf_state::ConfState;
use crate::id::{ClusterId, MemberId};
use crate::limits::{MAX_INITIAL_CLUSTER_BYTES, MAX_MEMBERS};
use crate::member::MemberRecord;
use crate::peer_url::{PeerUrl, PeerUrlError};

/// The token etcd and etcdutl use when none is given.
pub const DEFAULT_TOKEN: &str = "etcd-cluster";

/// Why a cluster cannot be made of what was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// No member at all.
    #[error("the initial cluster is empty: name=http://host:port is expected")]
    Empty,
    /// A part without `=`, or with nothing before it.
    #[error("'{0}' in the initial cluster is not name=URL")]
    NotNameAndUrl(String),
    /// A URL that etcd would refuse.
    #[error("member {name}: {source}")]
    Url {
        /// The member's name.
        name: String,
        /// What is wrong with the URL.
        source: PeerUrlError,
    },
    /// A member without a URL.
    #[error("member {0} has no peer URL")]
    NoUrl(String),
    /// Two members, or one twice, with the same URL.
    #[error("peer URL {0} is given twice")]
    DuplicateUrl(PeerUrl),
    /// Two members with the same name.
    #[error("member name '{0}' is given twice")]
    DuplicateName(String),
    /// Two members whose ids are equal (their URLs, joined, read the same).
    #[error("members '{0}' and '{1}' have the same id")]
    DuplicateId(String, String),
    /// The id 0, which means "none" to etcd.
    #[error("member '{0}' would have the id 0; use another token")]
    ZeroId(String),
    /// More members than [`MAX_MEMBERS`], or text longer than [`MAX_INITIAL_CLUSTER_BYTES`].
    #[error("the initial cluster is too large")]
    TooLarge,
    /// The member to be restored is not among those of the cluster.
    #[error("there is no member '{name}' in the initial cluster; it has {}", members.join(", "))]
    NoSuchMember {
        /// The name looked for.
        name: String,
        /// The names there are.
        members: Vec<String>,
    },
    /// The member's own URLs are not those the cluster has for it.
    #[error("member '{name}' advertises {advertised} but the initial cluster has {initial} for it")]
    Advertised {
        /// The member's name.
        name: String,
        /// What it advertises.
        advertised: String,
        /// What the cluster has.
        initial: String,
    },
}

/// One member of a cluster to be: a name and at least one peer URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSpec {
    /// The member's name, as given to etcd's `--name`.
    pub name: String,
    /// Its peer URLs, in any order.
    pub peer_urls: Vec<PeerUrl>,
}

/// A member with its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The id etcd computes for it.
    pub id: MemberId,
    /// Its name.
    pub name: String,
    /// Its peer URLs, ascending.
    pub peer_urls: Vec<PeerUrl>,
}

/// A checked cluster: at least one member, names, URLs and ids unique, members in ascending order of their ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSpec {
    token: String,
    id: ClusterId,
    members: Vec<Member>,
}

/// The id etcd computes for a bootstrap member with these URLs.
#[must_use]
pub fn member_id(peer_urls: &[PeerUrl], token: &str) -> MemberId {
    let mut sorted: Vec<&str> = peer_urls.iter().map(PeerUrl::as_str).collect();
    sorted.sort_unstable();
    let mut hash = Sha1::new();
    for url in sorted {
        hash.update(url);
    }
    hash.update(token);
    MemberId(first_eight(&hash.finalize()))
}

/// The id etcd computes for a cluster of these members, in any order.
#[must_use]
pub fn cluster_id(members: &[MemberId]) -> ClusterId {
    let sorted: BTreeSet<MemberId> = members.iter().copied().collect();
    let mut hash = Sha1::new();
    for member in sorted {
        hash.update(member.0.to_be_bytes());
    }
    ClusterId(first_eight(&hash.finalize()))
}

fn first_eight(digest: &[u8]) -> u64 {
    digest.iter().take(8).fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// Parses etcd's `--initial-cluster`: `name=url,name=url2,other=url`. A repeated name collects several URLs; members come in the
/// order of their names.
///
/// # Errors
///
/// [`ClusterError`] for anything etcd would refuse; duplicates are found by [`ClusterSpec::new`].
pub fn parse_initial_cluster(text: &str) -> Result<Vec<MemberSpec>, ClusterError> {
    if text.len() > MAX_INITIAL_CLUSTER_BYTES {
        return Err(ClusterError::TooLarge);
    }
    let mut members: BTreeMap<&str, Vec<PeerUrl>> = BTreeMap::new();
    // etcd skips empty parts, so a trailing comma is fine.
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let (name, url) = part
            .split_once('=')
            .map(|(name, url)| (name.trim(), url))
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| ClusterError::NotNameAndUrl(part.to_owned()))?;
        let url = url.parse().map_err(|source| ClusterError::Url { name: name.to_owned(), source })?;
        members.entry(name).or_default().push(url);
    }
    if members.is_empty() {
        return Err(ClusterError::Empty);
    }
    Ok(members.into_iter().map(|(name, peer_urls)| MemberSpec { name: name.to_owned(), peer_urls }).collect())
}

impl ClusterSpec {
    /// Checks the members and computes every id.
    ///
    /// # Errors
    ///
    /// [`ClusterError`] as etcd's own bootstrap checks would.
    pub fn new(token: &str, members: Vec<MemberSpec>) -> Result<Self, ClusterError> {
        if members.is_empty() {
            return Err(ClusterError::Empty);
        }
        if members.len() > MAX_MEMBERS {
            return Err(ClusterError::TooLarge);
        }
        let mut urls = BTreeSet::new();
        let mut names = BTreeSet::new();
        let mut by_id: BTreeMap<MemberId, Member> = BTreeMap::new();
        for MemberSpec { name, mut peer_urls } in members {
            if peer_urls.is_empty() {
                return Err(ClusterError::NoUrl(name));
            }
            if !names.insert(name.clone()) {
                return Err(ClusterError::DuplicateName(name));
            }
            if let Some(twice) = peer_urls.iter().find(|url| !urls.insert((*url).clone())) {
                return Err(ClusterError::DuplicateUrl(twice.clone()));
            }
            peer_urls.sort();
            let id = member_id(&peer_urls, token);
            if id.0 == 0 {
                return Err(ClusterError::ZeroId(name));
            }
            if let Some(other) = by_id.insert(id, Member { id, name: name.clone(), peer_urls }) {
                return Err(ClusterError::DuplicateId(other.name, name));
            }
        }
        let ids: Vec<MemberId> = by_id.keys().copied().collect();
        Ok(Self { token: token.to_owned(), id: cluster_id(&ids), members: by_id.into_values().collect() })
    }

    /// The token that went into the ids.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The new cluster's id.
    #[must_use]
    pub fn id(&self) -> ClusterId {
        self.id
    }

    /// The members in ascending order of their ids; never empty.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member with this name.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoSuchMember`] with the names there are.
    pub fn member(&self, name: &str) -> Result<&Member, ClusterError> {
        self.members.iter().find(|member| member.name == name).ok_or_else(|| ClusterError::NoSuchMember {
            name: name.to_owned(),
            members: self.members.iter().map(|member| member.name.clone()).collect(),
        })
    }

    /// Checks that a member's own `--initial-advertise-peer-urls` are the ones the cluster has for it. Names are compared as text:
    /// unlike etcd, nothing is resolved.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Advertised`] or [`ClusterError::NoSuchMember`].
    pub fn check_advertised(&self, name: &str, advertised: &[PeerUrl]) -> Result<(), ClusterError> {
        let initial = &self.member(name)?.peer_urls;
        let mut sorted = advertised.to_vec();
        sorted.sort();
        if &sorted == initial {
            return Ok(());
        }
        let join = |urls: &[PeerUrl]| urls.iter().map(PeerUrl::as_str).collect::<Vec<_>>().join(",");
        Err(ClusterError::Advertised { name: name.to_owned(), advertised: join(&sorted), initial: join(initial) })
    }

    /// The raft configuration of the new cluster: every member votes.
    #[must_use]
    pub fn conf_state(&self) -> ConfState {
        ConfState { voters: self.members.iter().map(|member| member.id).collect(), ..ConfState::default() }
    }

    /// The raft index of the last of the entries that add the members, one each.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.members.len() as u64
    }

    /// The members as the `members` bucket and the WAL hold them.
    #[must_use]
    pub fn records(&self) -> Vec<MemberRecord> {
        self.members
            .iter()
            .map(|member| MemberRecord {
                id: member.id,
                name: member.name.clone(),
                peer_urls: member.peer_urls.iter().map(|url| url.as_str().to_owned()).collect(),
                client_urls: Vec::new(),
                is_learner: false,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn id_of(url: &str, token: &str) -> String {
        member_id(&[url.parse().unwrap()], token).to_string()
    }

    #[test]
    fn the_ids_of_the_reference_are_met() {
        assert_eq!(id_of("http://127.0.0.1:41791", "tok"), "b3417e67ec0088c7");
        assert_eq!(id_of("http://127.0.0.1:41793", "tok"), "055b1deecf87799f");
        assert_eq!(id_of("http://127.0.0.1:41795", "tok"), "0db454b603a0ef4b");
        assert_eq!(id_of("http://127.0.0.1:41791", DEFAULT_TOKEN), "ad42c680fd5d6c5a");
        assert_eq!(id_of("http://localhost:2380", DEFAULT_TOKEN), "8e9e05c52164694d");
        assert_eq!(id_of("http://127.0.0.1:2380", DEFAULT_TOKEN), "b71f75320dc06a6c");
        let one = ClusterSpec::new(DEFAULT_TOKEN, parse_initial_cluster("m1=http://127.0.0.1:41791").unwrap()).unwrap();
        assert_eq!(one.id().to_string(), "0b5e394246d9cc85");
    }

    #[test]
    fn three_members_are_ordered_by_id_and_make_the_references_cluster() {
        let text = "m1=http://127.0.0.1:41791,m2=http://127.0.0.1:41793,m3=http://127.0.0.1:41795";
        let cluster = ClusterSpec::new("tok", parse_initial_cluster(text).unwrap()).unwrap();
        assert_eq!(cluster.id().to_string(), "9e3426927fc28029");
        let names: Vec<&str> = cluster.members().iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["m2", "m3", "m1"]);
        assert_eq!(cluster.member("m1").unwrap().id.to_string(), "b3417e67ec0088c7");
        assert_eq!(cluster.last_index(), 3);
        assert!(matches!(cluster.member("m4"), Err(ClusterError::NoSuchMember { members, .. }) if members.len() == 3));
    }

    #[test]
    fn several_urls_of_one_member_count_in_any_order() {
        let ids = ["m=http://a:1,m=http://b:2", "m=http://b:2,m=http://a:1,"].map(|text| {
            let cluster = ClusterSpec::new("t", parse_initial_cluster(text).unwrap()).unwrap();
            assert_eq!(cluster.members()[0].peer_urls[0].as_str(), "http://a:1");
            cluster.id()
        });
        assert_eq!(ids[0], ids[1]);
    }

    #[test]
    fn what_cannot_be_a_cluster_is_refused() {
        let make = |text: &str| parse_initial_cluster(text).and_then(|members| ClusterSpec::new("t", members));
        assert_eq!(make(""), Err(ClusterError::Empty));
        assert_eq!(make(",,"), Err(ClusterError::Empty));
        assert!(matches!(make("m1"), Err(ClusterError::NotNameAndUrl(_))));
        assert!(matches!(make("=http://a:1"), Err(ClusterError::NotNameAndUrl(_))));
        assert!(matches!(make("m1=http://a"), Err(ClusterError::Url { .. })));
        assert!(matches!(make("m1=http://a:1,m2=http://a:1"), Err(ClusterError::DuplicateUrl(_))));
        assert!(matches!(make("m1=http://a:1,m1=http://a:1"), Err(ClusterError::DuplicateUrl(_))));
        assert_eq!(ClusterSpec::new("t", Vec::new()), Err(ClusterError::Empty));
        let nameless = MemberSpec { name: "m".into(), peer_urls: Vec::new() };
        assert_eq!(ClusterSpec::new("t", vec![nameless]), Err(ClusterError::NoUrl("m".into())));
    }

    #[test]
    fn advertised_urls_must_be_the_clusters() {
        let cluster = ClusterSpec::new("t", parse_initial_cluster("m=http://a:1,m=http://b:2").unwrap()).unwrap();
        let urls = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<PeerUrl>>();
        assert_eq!(cluster.check_advertised("m", &urls(&["http://b:2", "http://a:1"])), Ok(()));
        assert!(cluster.check_advertised("m", &urls(&["http://a:1"])).is_err());
        assert!(cluster.check_advertised("x", &urls(&["http://a:1"])).is_err());
    }
}
