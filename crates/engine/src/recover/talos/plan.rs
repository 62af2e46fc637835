//! The plan: who is rescued, wiped, bootstrapped and waited for, fixed before anything is changed. Pure.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::checks::{self, Backup, Check, Verdict};
use super::diagnosis::{State, diagnose};
use super::evidence::{Data, Evidence, Facts, Node};
use crate::failure::{Failure, Outcome};
use crate::journal;

/// Where the data come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A backup in a repository.
    Backup {
        /// The repository's URL.
        repository: String,
        /// The cluster's name there.
        cluster: String,
        /// The backup's id.
        id: String,
    },
    /// A file: a snapshot, or with `raw` a copy of a database without a trailer.
    File {
        /// The file.
        path: PathBuf,
        /// Whether its digest is not to be compared.
        raw: bool,
    },
}

impl Source {
    /// In words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Backup { cluster, id, .. } => format!("backup {id} of '{cluster}'"),
            Self::File { path, .. } => path.display().to_string(),
        }
    }
}

/// What is to be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Goal {
    /// The cluster is restored.
    Restore {
        /// From what.
        source: Source,
        /// Revisions stay as they were: unsafe for Kubernetes.
        keep_revisions: bool,
    },
    /// One member is replaced; the others go on.
    Replace {
        /// The node.
        node: String,
    },
}

/// A node that takes part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedNode {
    /// Its name.
    pub name: String,
    /// How it is asked.
    pub address: String,
    /// Its addresses, by which its member is known.
    pub addresses: Vec<std::net::IpAddr>,
    /// Label of the partition that is wiped.
    pub wipe: String,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Step {
    /// What a node holds is saved first.
    Rescue {
        /// The node.
        node: PlannedNode,
        /// The file, without `.db` or `.dirty.db`.
        to: PathBuf,
    },
    /// The file that is restored is made and proven.
    Prepare {
        /// From what.
        from: Source,
        /// The file.
        file: PathBuf,
    },
    /// A member is removed from the membership.
    Remove {
        /// Its id.
        member: String,
        /// Its name.
        label: String,
    },
    /// Nodes are wiped of etcd's data and start again.
    Reset {
        /// The nodes.
        nodes: Vec<PlannedNode>,
    },
    /// The file goes to the node that is bootstrapped.
    Upload {
        /// That node.
        node: PlannedNode,
        /// The file.
        file: PathBuf,
    },
    /// etcd is bootstrapped from it.
    Bootstrap {
        /// The node.
        node: PlannedNode,
    },
    /// A node joins, first as a learner.
    Join {
        /// The node.
        node: PlannedNode,
    },
    /// The cluster is looked at as a whole.
    Verify,
}

impl journal::Step for Step {
    fn name(&self) -> &'static str {
        match self {
            Self::Rescue { .. } => "rescue",
            Self::Prepare { .. } => "prepare",
            Self::Remove { .. } => "remove",
            Self::Reset { .. } => "reset",
            Self::Upload { .. } => "upload",
            Self::Bootstrap { .. } => "bootstrap",
            Self::Join { .. } => "join",
            Self::Verify => "verify",
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Rescue { node, to } => format!("save what {} holds to {}", node.name, to.with_extension("db").display()),
            Self::Prepare { from, .. } => format!("fetch {}, prove it, and make the file for the upload", from.words()),
            Self::Remove { label, member } => format!("remove member {label} ({member})"),
            Self::Reset { nodes } => {
                let each: Vec<String> = nodes.iter().map(|node| format!("{} ({})", node.name, node.wipe)).collect();
                format!("wipe etcd's data and reboot: {}", each.join(", "))
            }
            Self::Upload { node, .. } => format!("upload the file to {}", node.name),
            Self::Bootstrap { node } => format!("bootstrap etcd on {} from it", node.name),
            Self::Join { node } => format!("wait until {} has joined and has a vote", node.name),
            Self::Verify => "verify members, leader, alarms, health and content".to_owned(),
        }
    }
}

impl Step {
    /// Whether something is lost by it that was there before.
    #[must_use]
    pub fn destroys(&self) -> bool {
        matches!(self, Self::Remove { .. } | Self::Reset { .. })
    }
}

/// The plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The talosconfig's context.
    pub context: String,
    /// What is to be reached.
    pub goal: Goal,
    /// In which state the cluster was.
    pub state: String,
    /// That state in plain words.
    pub words: String,
    /// Where apid is dialled.
    pub endpoints: Vec<String>,
    /// The nodes of the cluster to be. The first is the one that is bootstrapped, or for a replacement one that stays.
    pub nodes: Vec<PlannedNode>,
    /// Why the first one is the first.
    pub why: String,
    /// Nodes that are out of order and powered off.
    pub gone: Vec<String>,
    /// Those of them of which an address is known: they are asked again before anything is lost.
    pub away: Vec<PlannedNode>,
    /// The words that asked for it; the same ones go on with it.
    pub asked: Vec<String>,
    /// A living cluster is given up.
    pub roll_back: bool,
    /// What cannot be read is wiped all the same.
    pub no_rescue: bool,
    /// Workers: name and address.
    pub workers: Vec<(String, String)>,
    /// The backup is wanted although it seems to be of another cluster.
    pub foreign: bool,
    /// Where rescue files and the file for the upload lie.
    pub directory: PathBuf,
    /// The checks, with what was found.
    pub checks: Vec<Check>,
    /// What is done.
    pub steps: Vec<Step>,
}

impl journal::Plan for Plan {
    type Step = Step;

    fn steps(&self) -> &[Step] {
        &self.steps
    }
}

impl Plan {
    /// The first step that destroys; consent is asked for before it.
    #[must_use]
    pub fn point_of_no_return(&self) -> usize {
        self.steps.iter().position(Step::destroys).unwrap_or(self.steps.len())
    }

    /// The file for the upload, where there is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.steps.iter().find_map(|step| match step {
            Step::Prepare { file, .. } => Some(file.as_path()),
            _ => None,
        })
    }
}

/// What somebody wants of a recovery.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The node to bootstrap; else one is chosen.
    pub node: Option<String>,
    /// Nodes that are out of order, powered off, and stay so until they are wiped.
    pub gone: Vec<String>,
    /// Restore although the cluster takes writes.
    pub roll_back: bool,
    /// Take a backup of what seems to be another cluster.
    pub foreign: bool,
    /// Wipe without a rescue of what cannot be read.
    pub no_rescue: bool,
    /// Leave revisions as they were.
    pub keep_revisions: bool,
    /// The words that ask for it.
    pub asked: Vec<String>,
    /// Where files go: a directory that is not there yet.
    pub directory: PathBuf,
    /// Bytes that are free where it will be.
    pub free: Option<u64>,
}

fn planned(node: &Node) -> PlannedNode {
    PlannedNode {
        name: node.name.clone(),
        address: node.address.clone(),
        addresses: node.addresses.iter().copied().collect(),
        wipe: node.told().map_or("EPHEMERAL", Facts::wipe).to_owned(),
    }
}

/// A plan that restores the cluster.
///
/// # Errors
/// Every check that fails, in one failure: nothing was changed.
pub fn restore(evidence: &Evidence, backup: &Backup, wanted: &Wanted) -> Outcome<Plan> {
    let diagnosis = diagnose(evidence, None);
    if diagnosis.state.is_alive() && !wanted.roll_back {
        return Err(still_alive(&diagnosis));
    }
    let (first, why) = first(evidence, wanted)?;
    let checks = checks::restore(evidence, backup, wanted, first);
    refuse(&checks)?;
    let here: Vec<&Node> = evidence.nodes.iter().filter(|node| node.told().is_some()).collect();
    let mut nodes = vec![planned(first)];
    nodes.extend(here.iter().filter(|node| node.name != first.name).map(|node| planned(node)));
    let mut steps: Vec<Step> = rescues(&here, wanted);
    let file = wanted.directory.join("upload.db");
    steps.push(Step::Prepare { from: backup.source.clone(), file: file.clone() });
    steps.push(Step::Reset { nodes: nodes.clone() });
    steps.push(Step::Upload { node: nodes[0].clone(), file });
    steps.push(Step::Bootstrap { node: nodes[0].clone() });
    steps.extend(nodes.iter().skip(1).map(|node| Step::Join { node: node.clone() }));
    steps.push(Step::Verify);
    Ok(Plan {
        context: evidence.context.clone(),
        goal: Goal::Restore { source: backup.source.clone(), keep_revisions: wanted.keep_revisions },
        state: diagnosis.state.word().to_owned(),
        words: diagnosis.words,
        endpoints: evidence.endpoints.clone(),
        nodes,
        why,
        gone: wanted.gone.clone(),
        away: away(evidence, wanted),
        asked: wanted.asked.clone(),
        roll_back: wanted.roll_back,
        no_rescue: wanted.no_rescue,
        workers: evidence.workers.clone(),
        foreign: wanted.foreign,
        directory: wanted.directory.clone(),
        checks,
        steps,
    })
}

/// Every check that a restore of this backup would have to pass now, whatever they come to; that the cluster still works is none of them.
///
/// # Errors
/// No node could be bootstrapped at all.
pub fn rehearse(evidence: &Evidence, backup: &Backup, wanted: &Wanted) -> Outcome<Vec<Check>> {
    let (first, _) = first(evidence, wanted)?;
    Ok(checks::restore(evidence, backup, wanted, first))
}

/// A plan that replaces one member while the others go on.
///
/// # Errors
/// Where there is no quorum that could go on, or the node is none of the control plane's.
pub fn replace(evidence: &Evidence, node: &str, wanted: &Wanted) -> Outcome<Plan> {
    let diagnosis = diagnose(evidence, None);
    let target = evidence.node(node).ok_or_else(|| no_such_node(evidence, node))?;
    let checks = checks::replace(evidence, target, wanted);
    refuse(&checks)?;
    let stays = |other: &&Node| other.name != target.name && other.works();
    let keeper = evidence.nodes.iter().find(stays).ok_or_else(|| {
        Failure::failed("no other member works, so there is nobody who could take the node in again")
            .cause(diagnosis.words.clone())
            .next(["lifeboat", "recover", "talos"])
    })?;
    let mut nodes = vec![planned(keeper)];
    nodes
        .extend(evidence.nodes.iter().filter(|other| other.name != keeper.name && other.name != target.name && other.works()).map(planned));
    let mut steps = rescues(&[keeper], wanted);
    if target.has_data() {
        steps.extend(rescues(&[target], wanted));
    }
    if let Some((member, label)) = member_of(keeper, target) {
        steps.push(Step::Remove { member, label });
    }
    if target.told().is_some() {
        nodes.push(planned(target));
        steps.push(Step::Reset { nodes: vec![planned(target)] });
        steps.push(Step::Join { node: planned(target) });
    }
    steps.push(Step::Verify);
    Ok(Plan {
        context: evidence.context.clone(),
        goal: Goal::Replace { node: target.name.clone() },
        state: diagnosis.state.word().to_owned(),
        words: diagnosis.words,
        endpoints: evidence.endpoints.clone(),
        nodes,
        why: format!("{} works and keeps what the cluster holds", keeper.name),
        gone: wanted.gone.clone(),
        away: away(evidence, wanted),
        asked: wanted.asked.clone(),
        roll_back: wanted.roll_back,
        no_rescue: wanted.no_rescue,
        workers: evidence.workers.clone(),
        foreign: false,
        directory: wanted.directory.clone(),
        checks,
        steps,
    })
}

fn away(evidence: &Evidence, wanted: &Wanted) -> Vec<PlannedNode> {
    let is_gone = |node: &&Node| node.facts.is_err() && wanted.gone.iter().any(|gone| node.is_called(gone));
    evidence.nodes.iter().filter(is_gone).map(planned).collect()
}

/// The member that runs, or ran, on a node, as another node's member list has it: id and name.
pub(super) fn member_of(by: &Node, node: &Node) -> Option<(String, String)> {
    let members = by.told()?.member.as_ref()?.members.as_ref()?;
    let addresses: Vec<_> = node.addresses.iter().copied().collect();
    let member = members.iter().find(|member| is_of(member, &node.name, &addresses))?;
    Some((member.id.to_string(), if member.name.is_empty() { node.name.clone() } else { member.name.clone() }))
}

/// Whether a member runs on a node: by its peer URLs' hosts, or by its name.
pub(super) fn is_of(member: &talos_api::Member, name: &str, addresses: &[std::net::IpAddr]) -> bool {
    let hosts = member.peer_urls.iter().chain(&member.client_urls).filter_map(|url| crate::talos::reach::host_of(url));
    let mut ips = hosts.filter_map(|host| host.parse::<std::net::IpAddr>().ok()).peekable();
    if ips.peek().is_none() { member.name == name } else { ips.any(|ip| addresses.contains(&ip)) }
}

fn rescues(nodes: &[&Node], wanted: &Wanted) -> Vec<Step> {
    let with_data = nodes.iter().filter(|node| matches!(node.told().map(|facts| &facts.data), Some(Data::There { database: Some(_) })));
    with_data.map(|node| Step::Rescue { node: planned(node), to: wanted.directory.join(plain(&node.name)) }).collect()
}

/// A node's name as the name of a file: names come from outside. No dot, for what follows one is an extension.
pub(super) fn plain(name: &str) -> String {
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }).take(100).collect();
    if plain.is_empty() { "node".to_owned() } else { plain }
}

/// The node that is bootstrapped, and why this one: named; else the one that was the furthest, the largest room, the first by name.
fn first<'a>(evidence: &'a Evidence, wanted: &Wanted) -> Outcome<(&'a Node, String)> {
    if let Some(named) = &wanted.node {
        let node = evidence.node(named).ok_or_else(|| no_such_node(evidence, named))?;
        return Ok((node, format!("{} was named", node.name)));
    }
    let fits = |node: &&Node| {
        node.told().is_some_and(|facts| !checks::restores_badly(facts)) && !wanted.gone.iter().any(|gone| node.is_called(gone))
    };
    let clean = |node: &Node| node.told().is_some_and(|facts| facts.data == Data::None);
    let best = evidence.nodes.iter().filter(fits).min_by_key(|node| (!clean(node), node.name.clone()));
    let best = best.or_else(|| evidence.nodes.iter().find(|node| node.told().is_some()));
    let node = best.ok_or_else(|| {
        Failure::failed("no control plane node answers, so there is nobody to bootstrap").next(["lifeboat", "recover", "talos"])
    })?;
    let why = if clean(node) {
        "it is empty already and waits for a bootstrap"
    } else {
        "every node is wiped first, and it is the first by name"
    };
    Ok((node, format!("{}: {why}", node.name)))
}

fn no_such_node(evidence: &Evidence, text: &str) -> Failure {
    let is_worker = evidence.workers.iter().any(|(name, address)| name == text || address == text)
        || evidence.named_workers.iter().any(|name| name == text);
    let labels: Vec<String> = evidence.nodes.iter().map(Node::label).collect();
    let what =
        if is_worker { format!("{text} is a worker: there is no etcd on it") } else { format!("no control plane node is called '{text}'") };
    Failure::usage(what).cause(format!("the control plane nodes are {}", labels.join(", "))).next(["lifeboat", "recover", "talos"])
}

fn still_alive(diagnosis: &super::Diagnosis) -> Failure {
    let failure = Failure::failed("etcd has a quorum, so nothing is restored: that would lose what it holds").cause(format!(
        "{}; {}--roll-back gives up what the living cluster holds all the same",
        diagnosis.words,
        diagnosis.troubled.iter().map(|(name, what)| format!("{name}: {what}; ")).collect::<String>()
    ));
    match diagnosis.ways.iter().find(|way| way.command.is_some() && diagnosis.state != State::Healthy) {
        Some(way) => failure.next(way.command.clone().unwrap_or_default()),
        None => failure.next(["lifeboat", "etcd", "health"]),
    }
}

fn refuse(checks: &[Check]) -> Outcome<()> {
    let failed: Vec<&Check> = checks.iter().filter(|check| check.verdict == Verdict::Refused).collect();
    let Some(worst) = failed.first() else { return Ok(()) };
    let all: Vec<String> = failed
        .iter()
        .map(|check| {
            let mend = check.mend.as_ref().map(|mend| format!(" ({mend})")).unwrap_or_default();
            format!("{}{mend}", check.says)
        })
        .collect();
    let failure = Failure::new(worst.code(), "nothing was changed: the recovery would fail or do harm").cause(all.join("; "));
    let failure = match &worst.node {
        Some(node) => failure.object(node),
        None => failure,
    };
    Err(if worst.with.is_empty() { failure.again() } else { failure.again_with(&worst.with) })
}
