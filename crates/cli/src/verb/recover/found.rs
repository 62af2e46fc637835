//! What was found out, as it is shown: a line for each node, the state in plain words, and the ways out with their commands.

use engine::next::line;
use engine::recover::talos::{Data, Diagnosis, Evidence, Node};
use serde::Serialize;

use crate::again;
use crate::output::{self, Report};

/// The report of `lifeboat recover talos` without a backup.
#[derive(Serialize)]
pub(super) struct Found {
    context: String,
    state: &'static str,
    words: String,
    nodes: Vec<NodeLine>,
    ways: Vec<WayLine>,
    notes: Vec<String>,
    /// The journal of a plan that is under way.
    under_way: Option<String>,
}

#[derive(Serialize)]
struct NodeLine {
    name: String,
    address: String,
    answers: bool,
    talos: Option<String>,
    machine_type: Option<String>,
    stage: Option<String>,
    etcd: Option<String>,
    service: Option<String>,
    event: Option<String>,
    data: String,
    db_size: Option<u64>,
    leader: Option<bool>,
    raft_applied_index: Option<u64>,
    etcd_volume: Option<&'static str>,
    available: Option<u64>,
    advertised: Vec<String>,
    clock_ahead: Option<i64>,
    time_synced: Option<bool>,
    trouble: Option<String>,
}

#[derive(Serialize)]
struct WayLine {
    does: String,
    loses: String,
    command: Option<String>,
}

/// A command with the flags that lead to the same cluster.
pub(super) fn with_source(words: &[String]) -> String {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let flags = again::source_flags(words, &arguments);
    line(words.iter().cloned().chain(flags))
}

impl Found {
    pub(super) fn of(evidence: &Evidence, diagnosis: &Diagnosis, under_way: Option<String>) -> Self {
        let trouble = |node: &Node| diagnosis.troubled.iter().find(|(name, _)| *name == node.name).map(|(_, what)| what.clone());
        let ways = diagnosis.ways.iter().map(|way| WayLine {
            does: way.does.clone(),
            loses: way.loses.clone(),
            command: way.command.as_ref().map(|words| with_source(words)),
        });
        Self {
            context: evidence.context.clone(),
            state: diagnosis.state.word(),
            words: diagnosis.words.clone(),
            nodes: evidence.nodes.iter().map(|node| NodeLine::of(node, trouble(node))).collect(),
            ways: ways.collect(),
            notes: evidence.notes.clone(),
            under_way,
        }
    }
}

impl NodeLine {
    fn of(node: &Node, trouble: Option<String>) -> Self {
        let facts = node.told();
        let member = facts.and_then(|facts| facts.member.as_ref());
        let database = facts.and_then(|facts| match facts.data {
            Data::There { database } => database,
            _ => None,
        });
        Self {
            name: node.name.clone(),
            address: node.address.clone(),
            answers: facts.is_some(),
            talos: facts.map(|facts| facts.talos.clone()),
            machine_type: facts.map(|facts| format!("{:?}", facts.machine_type).to_lowercase()),
            stage: facts.map(|facts| format!("{:?}", facts.stage).to_lowercase()),
            etcd: facts.and_then(|facts| facts.etcd.as_ref()?.version).map(|version| version.to_string()),
            service: facts.and_then(|facts| facts.service.as_ref()).map(|(state, _, _)| state.clone()),
            event: facts.and_then(|facts| facts.service.as_ref()).map(|(_, _, event)| event.clone()),
            data: match facts.map(|facts| &facts.data) {
                None | Some(Data::Unknown(_)) => "unknown",
                Some(Data::None) => "none",
                Some(Data::There { .. }) => "there",
            }
            .to_owned(),
            db_size: member.map(|member| member.db_size).or(database),
            leader: member.map(|member| member.leader == Some(member.id)),
            raft_applied_index: member.map(|member| member.applied),
            etcd_volume: facts.map(|facts| if facts.etcd_partition.is_some() { "partition" } else { "directory" }),
            available: facts.and_then(|facts| facts.available),
            advertised: facts
                .and_then(|facts| facts.etcd.as_ref())
                .map_or_else(Vec::new, |etcd| etcd.advertised.iter().map(ToString::to_string).collect()),
            clock_ahead: facts.and_then(|facts| facts.clock_ahead),
            time_synced: facts.and_then(|facts| facts.time_synced),
            trouble,
        }
    }

    fn cells(&self) -> Vec<String> {
        let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let role = match self.leader {
            Some(true) => "leader",
            Some(false) => "member",
            None => "-",
        };
        vec![
            self.name.clone(),
            self.address.clone(),
            or(&self.talos),
            or(&self.etcd),
            or(&self.service),
            role.to_owned(),
            self.data.clone(),
            self.db_size.map_or_else(|| "-".to_owned(), output::size),
            number(self.raft_applied_index),
        ]
    }
}

impl Report for Found {
    const SCHEMA: &'static str = "lifeboat.recover-talos-state/1";

    fn table(&self) -> String {
        let rows: Vec<Vec<String>> = self.nodes.iter().map(NodeLine::cells).collect();
        let mut text =
            output::columns(&["NODE", "ADDRESS", "TALOS", "ETCD", "SERVICE", "ROLE", "DATA", "DB SIZE", "RAFT APPLIED"], &[7, 8], &rows);
        text.push_str(&format!("\n{}: {}\n", self.state, self.words));
        for node in &self.nodes {
            if let Some(trouble) = &node.trouble {
                text.push_str(&format!("  {}: {trouble}\n", node.name));
            }
        }
        if let Some(journal) = &self.under_way {
            text.push_str(&format!(
                "\na recovery is under way ({journal}): the command that began it goes on with it; --abandon gives it up\n"
            ));
        }
        if !self.ways.is_empty() {
            text.push_str("\nways out:\n");
        }
        for (at, way) in self.ways.iter().enumerate() {
            text.push_str(&format!("  {}. {}\n     loses {}\n", at + 1, way.does, way.loses));
            if let Some(command) = &way.command {
                text.push_str(&format!("     {command}\n"));
            }
        }
        text
    }
}
