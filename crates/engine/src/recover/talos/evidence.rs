//! What was found out about a Talos cluster's control plane. A value: no connection, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use etcd_store::id::MemberId;
use etcd_store::version::Version;
use talos_api::{MachineStage, MachineType, ServiceHealth};
use vault::digest::Sha256;

/// Everything that was found out.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Name of the talosconfig's context.
    pub context: String,
    /// The nodes that could have etcd, by name. Those that the caller says are gone are among them where anything else tells of them.
    pub nodes: Vec<Node>,
    /// Workers that discovery knows: name and address.
    pub workers: Vec<(String, String)>,
    /// Nodes that the caller named and that are workers.
    pub named_workers: Vec<String>,
    /// Where apid can be dialled: addresses that are one node each.
    pub endpoints: Vec<String>,
    /// What was odd on the way, in words.
    pub notes: Vec<String>,
}

/// One node of the control plane.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its host name, else its address.
    pub name: String,
    /// How it is asked.
    pub address: String,
    /// Every address that is known of it.
    pub addresses: BTreeSet<IpAddr>,
    /// What it told, or why it told nothing.
    pub facts: Result<Facts, String>,
}

/// What a node told of itself.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Like "v1.13.9".
    pub talos: String,
    /// "metal", "cloud", "container": a container cannot be reset.
    pub mode: String,
    /// What it is.
    pub machine_type: MachineType,
    /// How far it has come.
    pub stage: MachineStage,
    /// The id of this boot.
    pub boot_id: String,
    /// How far its clock is ahead of ours, in seconds; `None` where it cannot be told.
    pub clock_ahead: Option<i64>,
    /// Whether its clock is in sync, as far as it tells.
    pub time_synced: Option<bool>,
    /// How etcd is run on it.
    pub etcd: Option<Etcd>,
    /// The service: its state, its health, the last thing that happened to it.
    pub service: Option<(String, ServiceHealth, String)>,
    /// Bytes of the volume EPHEMERAL; 0 where it does not tell.
    pub ephemeral: u64,
    /// Bytes of the volume ETCD where that is a partition of its own (from Talos 1.14 on).
    pub etcd_partition: Option<u64>,
    /// What is free on /var, in bytes.
    pub available: Option<u64>,
    /// What lies in etcd's data directory.
    pub data: Data,
    /// What etcd on it says, if it runs and answers.
    pub member: Option<MemberFacts>,
    /// Fingerprints of the cluster's secrets under the repository's id, or why they cannot be had. Empty where no repository is meant.
    pub secrets: Result<BTreeMap<String, Sha256>, String>,
}

/// How etcd is run on a node.
#[derive(Clone, Debug)]
pub struct Etcd {
    /// The member's name.
    pub name: String,
    /// Addresses it gives to others.
    pub advertised: Vec<IpAddr>,
    /// Its version, by the image.
    pub version: Option<Version>,
}

/// What lies in etcd's data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// Nothing: it can be bootstrapped, or join.
    None,
    /// Something; with the size of the database where there is one.
    There {
        /// Bytes of `member/snap/db`.
        database: Option<u64>,
    },
    /// It cannot be told, and why.
    Unknown(String),
}

/// What a member says.
#[derive(Clone, Debug)]
pub struct MemberFacts {
    /// Its id.
    pub id: MemberId,
    /// The leader, as it knows it.
    pub leader: Option<MemberId>,
    /// Index of the last entry it has applied.
    pub applied: u64,
    /// Bytes of its database.
    pub db_size: u64,
    /// Whether it has no vote.
    pub is_learner: bool,
    /// The membership as it holds it: id, name, peer URLs, learner. `None` where it does not tell (without a leader).
    pub members: Option<Vec<talos_api::Member>>,
}

impl Node {
    /// What it told, if it answers.
    #[must_use]
    pub fn told(&self) -> Option<&Facts> {
        self.facts.as_ref().ok()
    }

    /// Whether somebody means it by a name or an address.
    #[must_use]
    pub fn is_called(&self, text: &str) -> bool {
        self.name.eq_ignore_ascii_case(text)
            || self.address == text
            || text.parse::<IpAddr>().is_ok_and(|address| self.addresses.contains(&address))
    }

    /// Its name, and its address where that is something else.
    #[must_use]
    pub fn label(&self) -> String {
        if self.name == self.address { self.name.clone() } else { format!("{} ({})", self.name, self.address) }
    }

    /// Whether it holds data of etcd.
    #[must_use]
    pub fn has_data(&self) -> bool {
        self.told().is_some_and(|facts| facts.data != Data::None)
    }

    /// Whether its etcd runs and knows of a leader.
    #[must_use]
    pub fn works(&self) -> bool {
        self.told().and_then(|facts| facts.member.as_ref()).is_some_and(|member| member.leader.is_some())
    }
}

impl Facts {
    /// The label of the system partition that holds etcd's data, and nothing more than it must: `ETCD` where that is a partition of its own.
    #[must_use]
    pub fn wipe(&self) -> &'static str {
        if self.etcd_partition.is_some() { "ETCD" } else { "EPHEMERAL" }
    }

    /// Major, minor and patch version of Talos, where its tag is one.
    #[must_use]
    pub fn talos_version(&self) -> Option<(u64, u64, u64)> {
        let mut parts = self.talos.strip_prefix('v')?.split(['.', '-', '+']);
        let mut number = || parts.next()?.parse().ok();
        Some((number()?, number()?, number().unwrap_or(0)))
    }
}

impl Evidence {
    /// The node that somebody means.
    #[must_use]
    pub fn node(&self, text: &str) -> Option<&Node> {
        let mut found = self.nodes.iter().filter(|node| node.is_called(text));
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    /// Nodes that answer.
    pub fn answering(&self) -> impl Iterator<Item = (&Node, &Facts)> {
        self.nodes.iter().filter_map(|node| Some((node, node.told()?)))
    }
}

/// The version in the name of an image: `registry.k8s.io/etcd:v3.6.12-0@sha256:…`.
#[must_use]
pub(super) fn image_version(image: &str) -> Option<Version> {
    let name = image.split('@').next()?;
    let (_, tag) = name.rsplit_once(':')?;
    tag.parse().ok()
}
