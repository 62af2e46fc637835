//! The traps, one check each: what was found out, held against the backup. Pure. A check says what it saw, whether it passed or not, so that nothing passes
//! by not being looked at.

use std::collections::BTreeMap;

use etcd_store::member::MemberRecord;
use etcd_store::version::Version;
use serde::{Deserialize, Serialize};
use talos_api::MachineType;
pub use talos_api::Member;
use vault::digest::Sha256;

use super::evidence::{Data, Evidence, Facts, Node};
use super::plan::{Source, Wanted, is_of, member_of, plain};
use crate::failure::Code;
use crate::snapshot_file;

/// The first patch releases of Talos that restore onto a node with several advertised addresses (commit b9dbdc8e7).
const SEVERAL_ADDRESSES_SINCE: (u64, u64, u64) = (1, 10, 5);
/// Room beside the database that a restored member takes: its log and raft snapshot.
const BESIDE: u64 = 256 << 20;
/// A clock that is so far off, in seconds, is told; certificates and tokens begin to fail.
const CLOCK_ADVICE: i64 = 30;
/// A clock that is so far off refuses: certificates of one day are not valid any more, or not yet.
const CLOCK_REFUSED: i64 = 3600;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Passed,
    /// Worth knowing.
    Warned,
    /// Nothing is done.
    Refused,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// A stable word for it.
    pub check: String,
    /// How it came out.
    pub verdict: Verdict,
    /// The node concerned.
    pub node: Option<String>,
    /// What was seen.
    pub says: String,
    /// What mends it, in words.
    pub mend: Option<String>,
    /// Words that, added to the command, accept it or mend it.
    #[serde(default)]
    pub with: Vec<String>,
}

impl Check {
    fn passed(check: &str, says: impl Into<String>) -> Self {
        Self { check: check.to_owned(), verdict: Verdict::Passed, node: None, says: says.into(), mend: None, with: Vec::new() }
    }

    fn warned(check: &str, says: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warned, ..Self::passed(check, says) }
    }

    fn refused(check: &str, says: impl Into<String>) -> Self {
        Self { verdict: Verdict::Refused, ..Self::passed(check, says) }
    }

    fn of(self, node: &Node) -> Self {
        Self { node: Some(node.name.clone()), ..self }
    }

    fn mend(self, mend: impl Into<String>) -> Self {
        Self { mend: Some(mend.into()), ..self }
    }

    fn with(self, words: &[&str]) -> Self {
        Self { with: words.iter().map(|word| (*word).to_owned()).collect(), ..self }
    }

    /// The exit code where it refuses.
    #[must_use]
    pub fn code(&self) -> Code {
        match self.check.as_str() {
            "secrets" | "members" => Code::WrongCluster,
            "worker" => Code::Usage,
            _ => Code::Failed,
        }
    }
}

/// What is known of the data that are to be restored.
#[derive(Clone, Debug)]
pub struct Backup {
    /// Where they come from.
    pub source: Source,
    /// Bytes of the database.
    pub size: u64,
    /// The version of etcd that wrote it, as far as the data tell: the higher one of storage and cluster version.
    pub etcd: Option<Version>,
    /// Fingerprints of the secrets of the cluster it was taken of.
    pub secrets: BTreeMap<String, Sha256>,
    /// The members it names; of a backup in a repository the one that gave it.
    pub members: Vec<Member>,
    /// What is odd about it, in words.
    pub warnings: Vec<String>,
}

/// The members that a snapshot names.
#[must_use]
pub fn members_of(facts: &snapshot_file::Facts) -> Vec<Member> {
    let one = |record: &MemberRecord| Member {
        id: record.id,
        name: record.name.clone(),
        peer_urls: record.peer_urls.clone(),
        client_urls: record.client_urls.clone(),
        is_learner: record.is_learner,
    };
    facts.members.iter().map(one).collect()
}

/// Every check of a restore onto these nodes.
#[must_use]
pub fn restore(evidence: &Evidence, backup: &Backup, wanted: &Wanted, first: &Node) -> Vec<Check> {
    let mut checks = workers(evidence);
    checks.extend(gone(evidence, wanted));
    checks.extend(evidence.answering().flat_map(|(node, facts)| machine(node, facts)));
    checks.extend(equal_names(evidence));
    checks.extend(evidence.answering().filter_map(|(node, facts)| unreadable(node, facts, wanted)));
    checks.push(version(backup, first));
    checks.extend(advertised(first));
    checks.push(secrets(evidence, backup, wanted));
    checks.extend(members(evidence, backup, wanted));
    checks.extend(space(backup, first));
    checks.push(local_room(evidence, backup.size, wanted));
    checks.extend(backup.warnings.iter().map(|warning| Check::warned("backup", warning)));
    if wanted.keep_revisions {
        checks.push(Check::warned(
            "revisions",
            "revisions stay as they were: every controller that saw later ones goes on as if nothing had happened",
        ));
    }
    checks
}

/// Every check of a replacement.
#[must_use]
pub fn replace(evidence: &Evidence, target: &Node, wanted: &Wanted) -> Vec<Check> {
    let mut checks = workers(evidence);
    checks.extend(equal_names(evidence));
    let others: Vec<&Node> = evidence.nodes.iter().filter(|node| node.name != target.name).collect();
    let keeper = others.iter().find(|node| node.works());
    let listed = keeper.and_then(|node| node.told()?.member.as_ref()?.members.as_ref());
    let voters: Vec<_> = listed.into_iter().flatten().filter(|member| !member.is_learner).collect();
    let on = |node: &Node, member: &Member| is_of(member, &node.name, &node.addresses.iter().copied().collect::<Vec<_>>());
    let working = voters.iter().filter(|member| others.iter().any(|node| node.works() && on(node, member))).count();
    let target_votes = voters.iter().any(|member| on(target, member));
    // With the member removed, those that stay must be more than half of what is left; and now, more than half of all must agree to the removal.
    let left = voters.len() - usize::from(target_votes);
    let sum = format!(
        "{working} voting member(s) beside {} work, {} are needed of the {left} that stay, and {} of {} to decide it now",
        target.name,
        left / 2 + 1,
        voters.len() / 2 + 1,
        voters.len()
    );
    let now = working + usize::from(target_votes && target.works());
    if working == 0 || working < left / 2 + 1 || now < voters.len() / 2 + 1 {
        checks.push(
            Check::refused("quorum", sum)
                .of(target)
                .mend("bring another member back first; without a quorum: lifeboat recover talos shows the ways out"),
        );
    } else {
        checks.push(Check::passed("quorum", sum));
    }
    let is_gone = wanted.gone.iter().any(|gone| target.is_called(gone));
    match (&target.facts, is_gone) {
        (Ok(facts), false) => {
            checks.extend(machine(target, facts));
            checks.extend(unreadable(target, facts, wanted));
        }
        (Ok(_), true) => checks.push(answers_although_gone(target)),
        (Err(_), true) => checks.push(
            Check::warned("gone", format!("{} is removed only; a new machine with the same machine config joins by itself", target.name))
                .of(target),
        ),
        (Err(reason), false) => checks.push(silent(target, reason)),
    }
    if keeper.is_some_and(|keeper| member_of(keeper, target).is_none()) {
        checks.push(Check::warned("member", format!("no member list holds {}: there is nothing to remove", target.name)).of(target));
    }
    let size = keeper.and_then(|node| Some(node.told()?.member.as_ref()?.db_size)).unwrap_or(0);
    checks.push(local_room(evidence, size, wanted));
    checks
}

fn workers(evidence: &Evidence) -> Vec<Check> {
    let of =
        |name: &String| Check::refused("worker", format!("{name} is a worker: there is no etcd on it")).mend("name control plane nodes");
    evidence.named_workers.iter().map(of).collect()
}

fn silent(node: &Node, reason: &str) -> Check {
    Check::refused("reachable", format!("{} does not answer: {reason}", node.label()))
        .of(node)
        .mend("if it still runs with old data, nodes that are wiped may join it: bring it back, or power it off and say so")
        .with(&["--node-gone", &node.name])
}

fn answers_although_gone(node: &Node) -> Check {
    Check::refused("gone", format!("{} was said to be gone, and it answers", node.label()))
        .of(node)
        .mend("leave --node-gone out: it is wiped with the others; or power it off")
}

/// No old member is left that others could join: every node answers, or is said to be powered off and does not.
fn gone(evidence: &Evidence, wanted: &Wanted) -> Vec<Check> {
    let mut checks = Vec::new();
    for node in &evidence.nodes {
        let is_gone = wanted.gone.iter().any(|gone| node.is_called(gone));
        match (&node.facts, is_gone) {
            (Ok(_), false) => checks.push(Check::passed("reachable", format!("{} answers", node.label())).of(node)),
            (Ok(_), true) => checks.push(answers_although_gone(node)),
            (Err(reason), false) => checks.push(silent(node, reason)),
            (Err(_), true) => checks.push(
                Check::warned(
                    "gone",
                    format!("{} is powered off, as you say: wipe its disk before it is ever started again", node.label()),
                )
                .of(node),
            ),
        }
    }
    let unknown = wanted.gone.iter().filter(|gone| evidence.nodes.iter().all(|node| !node.is_called(gone)));
    checks.extend(unknown.map(|gone| Check::warned("gone", format!("nothing here tells of a node {gone}; it is taken for gone"))));
    checks
}

/// What a machine must be for a reset and a bootstrap.
fn machine(node: &Node, facts: &Facts) -> Vec<Check> {
    let mut checks = Vec::new();
    match facts.machine_type {
        MachineType::ControlPlane => {}
        MachineType::Init => checks.push(
            Check::refused("machine-type", format!("{} is of machine type init, with which a recovery does not work", node.label()))
                .of(node)
                .mend(format!(
                    "make it a control plane node: talosctl -n {} edit machineconfig --mode=staged, then reboot it",
                    node.address
                )),
        ),
        MachineType::Worker | MachineType::Unknown => checks.push(
            Check::refused("machine-type", format!("{} is no control plane node", node.label())).of(node).mend("name control plane nodes"),
        ),
    }
    if facts.mode == "container" {
        checks.push(
            Check::refused("platform", format!("{} runs in a container, which Talos can only shut down, not reset", node.label()))
                .of(node)
                .mend("remove its volume and start it anew by hand; then lifeboat restore --snapshot-file and talosctl bootstrap --recover-from"),
        );
    }
    match facts.clock_ahead {
        Some(seconds) if seconds.abs() >= CLOCK_REFUSED => checks.push(
            Check::refused("clock", format!("the clock of {} is {} ahead of this machine's", node.label(), ahead(seconds)))
                .of(node)
                .mend("set the clock that is wrong: certificates of one day fail by it"),
        ),
        Some(seconds) if seconds.abs() >= CLOCK_ADVICE => {
            checks.push(
                Check::warned("clock", format!("the clock of {} is {} ahead of this machine's", node.label(), ahead(seconds))).of(node),
            );
        }
        _ => {}
    }
    if facts.time_synced == Some(false) {
        checks.push(
            Check::warned("time", format!("the time of {} is not in sync; Talos refuses a bootstrap until it is", node.label())).of(node),
        );
    }
    checks
}

fn ahead(seconds: i64) -> String {
    match seconds.abs() {
        few @ ..120 => format!("{}{few} s", sign(seconds)),
        more @ ..7200 => format!("{}{} min", sign(seconds), more / 60),
        many => format!("{}{} h", sign(seconds), many / 3600),
    }
}

fn sign(seconds: i64) -> &'static str {
    if seconds < 0 { "-" } else { "" }
}

/// What is wiped must have been read before.
fn unreadable(node: &Node, facts: &Facts, wanted: &Wanted) -> Option<Check> {
    let says = match &facts.data {
        Data::Unknown(reason) => format!("what {} holds cannot be told, so it cannot be rescued: {reason}", node.label()),
        Data::There { database: None } => {
            format!("{} holds something in etcd's directory that is no database, and is wiped without a rescue", node.label())
        }
        _ => return None,
    };
    let is_lost = matches!(facts.data, Data::Unknown(_)) && !wanted.no_rescue;
    let check =
        if is_lost { Check::refused("rescue", says).mend("or go without").with(&["--no-rescue"]) } else { Check::warned("rescue", says) };
    Some(check.of(node))
}

/// Nodes are told apart by their names, and so are their rescue files.
fn equal_names(evidence: &Evidence) -> Option<Check> {
    let names: Vec<String> = evidence.nodes.iter().map(|node| plain(&node.name).to_lowercase()).collect();
    let twice = evidence.nodes.iter().zip(&names).find(|(_, name)| names.iter().filter(|other| other == name).count() > 1)?;
    Some(Check::refused("names", format!("more than one node is called {}", twice.0.name)).of(twice.0).mend("give each its own host name"))
}

/// Target etcd at least as new as the data, and at most one minor newer.
fn version(backup: &Backup, first: &Node) -> Check {
    let target = first.told().and_then(|facts| facts.etcd.as_ref()?.version);
    match (backup.etcd, target) {
        (Some(data), Some(target)) if (data.major, data.minor) > (target.major, target.minor) => Check::refused(
            "version",
            format!("the data are of etcd {}.{}, and {} runs {target}, which is older and does not start with them", data.major, data.minor, first.label()),
        )
        .of(first)
        .mend(format!(
            "upgrade Talos first; or make a file for the older one by hand: lifeboat restore --snapshot-file F --for talos --target-version {}.{}, then --file F",
            target.major, target.minor
        )),
        (Some(data), Some(target)) if target.major == data.major && target.minor > data.minor + 1 => {
            Check::warned("version", format!("the data are of etcd {}.{}, and {} runs {target}: etcd itself promises one minor at a time", data.major, data.minor, first.label())).of(first)
        }
        (Some(data), Some(target)) => Check::passed("version", format!("data of etcd {}.{} fit etcd {target} of {}", data.major, data.minor, first.label())),
        (None, Some(target)) => Check::passed("version", format!("the data name no version (etcd 3.5 or older), and {} runs {target}", first.label())),
        (_, None) => Check::warned("version", format!("which etcd {} runs cannot be told, so whether the data fit is not known", first.label())).of(first),
    }
}

/// Whether Talos cannot restore onto this node: before 1.10.5 several advertised addresses make it fail.
#[must_use]
pub fn restores_badly(facts: &Facts) -> bool {
    let several = facts.etcd.as_ref().is_some_and(|etcd| etcd.advertised.len() > 1);
    several && facts.talos_version().is_none_or(|version| version < SEVERAL_ADDRESSES_SINCE)
}

fn advertised(first: &Node) -> Option<Check> {
    let facts = first.told()?;
    let addresses: Vec<String> = facts.etcd.as_ref()?.advertised.iter().map(ToString::to_string).collect();
    if !restores_badly(facts) {
        return Some(Check::passed("addresses", format!("{} advertises {}", first.label(), addresses.join(", "))));
    }
    Some(
        Check::refused(
            "addresses",
            format!(
                "{} advertises {} for etcd, and Talos {} restores onto no node with more than one (mended in 1.10.5)",
                first.label(),
                addresses.join(" and "),
                facts.talos
            ),
        )
        .of(first)
        .mend("choose another node by --node, or set cluster.etcd.advertisedSubnets to one network on it"),
    )
}

/// The secrets of the machine configs are those the data were written under: else Secrets cannot be read and service accounts are void.
fn secrets(evidence: &Evidence, backup: &Backup, wanted: &Wanted) -> Check {
    if backup.secrets.is_empty() {
        return Check::warned(
            "secrets",
            "the backup holds no fingerprints of secrets (extra: [machine-config]), so whether these machine configs fit it is not known",
        );
    }
    let mut compared = 0;
    for (node, facts) in evidence.answering() {
        let own = match &facts.secrets {
            Ok(own) => own,
            Err(reason) => {
                return Check::warned("secrets", format!("the machine config of {} cannot be compared: {reason}", node.label())).of(node);
            }
        };
        let differ: Vec<&str> = backup
            .secrets
            .iter()
            .filter(|(name, print)| own.get(*name).is_some_and(|here| here != *print))
            .map(|(name, _)| name.as_str())
            .collect();
        if !differ.is_empty() {
            let says = format!("the backup is of a cluster with other secrets than {}: {} differ", node.label(), differ.join(", "));
            let check = if wanted.foreign {
                Check::warned("secrets", says)
            } else {
                Check::refused("secrets", says)
                    .mend("restore the machine configs that are kept with the backup (extra/machine-config) first, or take a backup of this cluster; to take it all the same")
                    .with(&["--foreign"])
            };
            return check.of(node);
        }
        compared += 1;
    }
    Check::passed("secrets", format!("the secrets in the machine configs of {compared} node(s) are those of the backup"))
}

/// The data name members; where none of them was ever on one of these nodes, they are likely of another cluster.
fn members(evidence: &Evidence, backup: &Backup, wanted: &Wanted) -> Option<Check> {
    members_fit(
        &backup.members,
        evidence.nodes.iter().map(|node| (node.name.as_str(), node.addresses.iter().copied().collect())),
        wanted.foreign,
    )
}

/// See [`members`]. `nodes` are names with addresses.
pub(super) fn members_fit<'a>(
    members: &[Member],
    nodes: impl Iterator<Item = (&'a str, Vec<std::net::IpAddr>)>,
    foreign: bool,
) -> Option<Check> {
    if members.is_empty() {
        return None;
    }
    let nodes: Vec<(&str, Vec<std::net::IpAddr>)> = nodes.collect();
    let known = members
        .iter()
        .filter(|member| nodes.iter().any(|(name, addresses)| member.name == *name || is_of(member, name, addresses)))
        .count();
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    if known > 0 {
        return Some(Check::passed("members", format!("{known} of the members in the data ({}) are nodes here", names.join(", "))));
    }
    let says = format!("the data are of a cluster with the members {}, and none of them is a node here", names.join(", "));
    Some(if foreign {
        Check::warned("members", says)
    } else {
        Check::refused("members", says)
            .mend("is it the right backup? Where the nodes got new names and addresses it is")
            .with(&["--foreign"])
    })
}

/// The upload and the restored database side by side, on a volume that is empty by then.
fn space(backup: &Backup, first: &Node) -> Vec<Check> {
    let Some(facts) = first.told() else { return Vec::new() };
    let upload = backup.size;
    let member = backup.size.saturating_add(BESIDE);
    let mut checks = Vec::new();
    let mut judge = |what: &str, has: u64, needs: u64| {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let says = format!("{what} of {} has {} MiB, and {} MiB are needed", first.label(), mib(has), mib(needs));
        checks.push(if has < needs {
            Check::refused("space", says).of(first).mend("choose a node with a larger disk by --node")
        } else {
            Check::passed("space", says)
        });
    };
    match facts.etcd_partition {
        Some(size) if size > 0 => {
            judge("the volume ETCD", size, member);
            // EPHEMERAL is not wiped then: what counts is what is free on it.
            if let Some(free) = facts.available {
                judge("the room on EPHEMERAL", free, upload);
            }
        }
        _ if facts.data == Data::None => {
            if let Some(free) = facts.available {
                judge("the room on EPHEMERAL", free, upload.saturating_add(member));
            }
        }
        _ if facts.ephemeral > 0 => judge("the volume EPHEMERAL", facts.ephemeral, upload.saturating_add(member)),
        _ => {}
    }
    checks
}

/// Rescue files and the file for the upload have room here.
fn local_room(evidence: &Evidence, size: u64, wanted: &Wanted) -> Check {
    let rescued = evidence.answering().map(|(_, facts)| match (&facts.member, &facts.data) {
        (Some(member), _) => member.db_size,
        (None, Data::There { database: Some(size) }) => *size,
        _ => 0,
    });
    let needs = rescued.sum::<u64>().saturating_add(size.saturating_mul(2));
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    match wanted.free {
        Some(free) if free < needs => Check::refused(
            "local-room",
            format!(
                "{} MiB are needed for rescue files on this machine, and {} MiB are free at {}",
                mib(needs),
                mib(free),
                wanted.directory.display()
            ),
        )
        .mend("name another place")
        .with(&["--directory", "DIR"]),
        Some(free) => Check::passed("local-room", format!("{} MiB are needed on this machine, {} MiB are free", mib(needs), mib(free))),
        None => Check::warned("local-room", "how much room there is on this machine cannot be told"),
    }
}
