//! What state a cluster is in, and the ways out of it: what each loses, and the command. Pure.

use std::collections::BTreeSet;

use etcd_store::id::MemberId;

use super::evidence::{Data, Evidence, Node};

/// What state this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Every node of the control plane has a voting member that works.
    Healthy,
    /// There is a quorum, and something is wrong with a node.
    Degraded,
    /// Several clusters live side by side.
    Split,
    /// Data are there, and no quorum.
    NoQuorum,
    /// No node that answers holds data of etcd.
    Lost,
}

impl State {
    /// A stable word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Split => "split",
            Self::NoQuorum => "no-quorum",
            Self::Lost => "lost",
        }
    }

    /// Whether somebody still takes writes: then nothing is restored, for that would lose what they are.
    #[must_use]
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Healthy | Self::Degraded | Self::Split)
    }
}

/// One way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// What is done, in a few words.
    pub does: String,
    /// What it loses.
    pub loses: String,
    /// The command, word by word; none where it is done by hand.
    pub command: Option<Vec<String>>,
}

/// What was concluded.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    /// The state.
    pub state: State,
    /// It in plain words.
    pub words: String,
    /// Nodes that something is wrong with: name, and what.
    pub troubled: Vec<(String, String)>,
    /// The ways out, the one that loses least first.
    pub ways: Vec<Way>,
}

/// Concludes from what was found out. `backup` is the name of a backup that is there, with its age in words.
#[must_use]
pub fn diagnose(evidence: &Evidence, backup: Option<(&str, &str)>) -> Diagnosis {
    let troubled: Vec<(String, String)> =
        evidence.nodes.iter().filter_map(|node| Some((node.name.clone(), trouble(evidence, node)?))).collect();
    let state = state(evidence, troubled.is_empty());
    Diagnosis { state, words: words(evidence, state), ways: ways(evidence, state, &troubled, backup), troubled }
}

fn leaders(evidence: &Evidence) -> BTreeSet<MemberId> {
    evidence.answering().filter_map(|(_, facts)| facts.member.as_ref()?.leader).collect()
}

/// Members that the leader of a member holds for its cluster's.
fn membership(evidence: &Evidence, leader: MemberId) -> BTreeSet<MemberId> {
    let of = evidence.answering().filter_map(|(_, facts)| facts.member.as_ref());
    let following = of.filter(|member| member.leader == Some(leader));
    following.filter_map(|member| member.members.as_ref()).flatten().map(|member| member.id).collect()
}

fn state(evidence: &Evidence, all_well: bool) -> State {
    let leaders: Vec<MemberId> = leaders(evidence).into_iter().collect();
    let lists: Vec<BTreeSet<MemberId>> = leaders.iter().map(|leader| membership(evidence, *leader)).collect();
    let is_split = lists.iter().enumerate().any(|(at, one)| {
        let others = &lists[at + 1..];
        !one.is_empty() && others.iter().any(|other| !other.is_empty() && one.is_disjoint(other))
    });
    match () {
        () if is_split => State::Split,
        () if !leaders.is_empty() && all_well => State::Healthy,
        () if !leaders.is_empty() => State::Degraded,
        () if evidence.nodes.iter().any(Node::has_data) => State::NoQuorum,
        () => State::Lost,
    }
}

/// What is wrong with a node; nothing where it has a voting member that works.
fn trouble(evidence: &Evidence, node: &Node) -> Option<String> {
    let facts = match &node.facts {
        Ok(facts) => facts,
        Err(reason) => return Some(format!("it does not answer: {reason}")),
    };
    let (state, event) = match &facts.service {
        Some((state, _, event)) => (state.as_str(), event.as_str()),
        None => ("", ""),
    };
    match (&facts.member, &facts.data) {
        (Some(member), _) if member.leader.is_some() && member.is_learner => Some("its member is a learner, without a vote".to_owned()),
        (Some(member), _) if member.leader.is_some() => {
            let listed = leaders(evidence).iter().any(|leader| membership(evidence, *leader).contains(&member.id));
            (!listed).then(|| "its member is on no member list".to_owned())
        }
        (Some(_), _) => Some("its etcd runs and knows of no leader".to_owned()),
        (None, Data::None) => Some(format!("it has no data of etcd; the service is {state} ({event})")),
        (None, Data::There { .. }) if event.contains("recovering from the snapshot") || event.contains("verifying snapshot") => {
            Some(format!("a restore was tried here and failed: {event}"))
        }
        (None, Data::There { .. }) => Some(format!("it has data, and its etcd does not answer; the service is {state} ({event})")),
        (None, Data::Unknown(reason)) => Some(format!("what lies in its data directory cannot be told: {reason}")),
    }
}

fn words(evidence: &Evidence, state: State) -> String {
    let all = evidence.nodes.len();
    let work = evidence.nodes.iter().filter(|node| node.works()).count();
    let hold: Vec<&str> = evidence.nodes.iter().filter(|node| node.has_data()).map(|node| node.name.as_str()).collect();
    match state {
        State::Healthy => format!("etcd is well: {work} of {all} control plane nodes have a voting member that works"),
        State::Degraded => {
            format!("etcd has a quorum and takes writes: {work} of {all} control plane nodes work. Nothing is to be restored; replace what is broken")
        }
        State::Split => "several etcd clusters live side by side: a node was bootstrapped while others still had their data. Each takes writes that the others do not have".to_owned(),
        State::NoQuorum => format!(
            "etcd has no quorum: no node of {all} knows of a leader, so nothing can be written or read. Data are left on {}",
            hold.join(", ")
        ),
        State::Lost => format!("no node that answers holds data of etcd ({} of {all} answer): what is in a backup is all there is", evidence.answering().count()),
    }
}

fn verb(words: &[&str]) -> Option<Vec<String>> {
    Some(["lifeboat", "recover", "talos"].iter().chain(words).map(|word| (*word).to_owned()).collect())
}

fn ways(evidence: &Evidence, state: State, troubled: &[(String, String)], backup: Option<(&str, &str)>) -> Vec<Way> {
    let way = |does: String, loses: &str, command| Way { does, loses: loses.to_owned(), command };
    let mut ways = Vec::new();
    let silent: Vec<&str> = evidence.nodes.iter().filter(|node| node.facts.is_err()).map(|node| node.name.as_str()).collect();
    let dead = |name: &str| silent.contains(&name);
    if state != State::Healthy && !silent.is_empty() {
        ways.push(way(format!("bring {} back: power, network", silent.join(", ")), "nothing, where their disks are whole", None));
    }
    let from_backup = |flags: &[&str]| {
        let (which, age) = backup.unwrap_or(("latest", "its moment"));
        let words: Vec<&str> = [which].into_iter().chain(flags.iter().copied()).collect();
        way("restore a backup".to_owned(), &format!("everything that was written after {age}"), verb(&words))
    };
    match state {
        State::Healthy => ways.push(from_backup(&["--roll-back"])),
        State::Degraded => {
            for (name, _) in troubled {
                let gone = if dead(name) { vec!["--node-gone", name] } else { Vec::new() };
                let words: Vec<&str> = ["--replace", name].into_iter().chain(gone).collect();
                ways.push(way(
                    format!("replace the member on {name}: remove it, reset the node, let it join anew as a learner"),
                    "nothing: the other members have everything",
                    verb(&words),
                ));
            }
        }
        State::Split => {
            for node in evidence.nodes.iter().filter(|node| node.works()) {
                ways.push(way(
                    format!("give up what {} holds, and let it join the others", node.name),
                    "every write that only its cluster took",
                    verb(&["--replace", &node.name]),
                ));
            }
        }
        State::NoQuorum => {
            let mut hold: Vec<&Node> = evidence.nodes.iter().filter(|node| node.has_data()).collect();
            hold.sort_by_key(|node| std::cmp::Reverse(node.told().and_then(|facts| Some(facts.member.as_ref()?.applied)).unwrap_or(0)));
            for node in hold {
                let how = match node.told().and_then(|facts| facts.member.as_ref()) {
                    Some(member) => format!(
                        "what {} has not got from the others when they were lost: it is at raft index {}",
                        node.name, member.applied
                    ),
                    None => format!(
                        "what {} had not got or not yet written to its database; its etcd does not run, so how much is not known",
                        node.name
                    ),
                };
                ways.push(Way {
                    does: format!("restore what {} holds", node.name),
                    loses: how,
                    command: with_gone(verb(&["--from-node", &node.name]), &silent),
                });
            }
            let restore = from_backup(&[]);
            ways.push(Way { command: with_gone(restore.command, &silent), ..restore });
        }
        State::Lost => {
            let restore = from_backup(&[]);
            ways.push(Way { command: with_gone(restore.command, &silent), ..restore });
        }
    }
    ways
}

/// Nodes that do not answer must be named as gone before anything is wiped.
fn with_gone(command: Option<Vec<String>>, silent: &[&str]) -> Option<Vec<String>> {
    let mut command = command?;
    for name in silent {
        command.extend(["--node-gone".to_owned(), (*name).to_owned()]);
    }
    Some(command)
}
