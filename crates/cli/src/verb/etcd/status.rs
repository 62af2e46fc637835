//! `lifeboat etcd status`.

use std::collections::BTreeSet;

use engine::care::{ClusterView, MemberView};
use engine::{Code, Outcome};
use serde::Serialize;

use super::{ClusterArgs, node, yes};
use crate::args::GlobalArgs;
use crate::output::{self, Format, Report, size};
use crate::signals;

/// Arguments of `lifeboat etcd status`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Serialize)]
struct Statuses {
    cluster_id: Option<String>,
    members: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    node: String,
    member: String,
    /// Only where the members that answer belong to several.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_id: Option<String>,
    name: String,
    /// What it said; `null` for one that does not answer.
    status: Option<Said>,
    /// Why it did not.
    silent: Option<String>,
}

#[derive(Serialize)]
struct Said {
    db_size: u64,
    db_size_in_use: u64,
    db_size_quota: Option<u64>,
    leader: Option<String>,
    raft_index: u64,
    raft_term: u64,
    raft_applied_index: u64,
    revision: Option<i64>,
    learner: bool,
    protocol_version: String,
    storage_version: Option<String>,
    errors: Vec<String>,
    seconds: f64,
}

/// Runs `lifeboat etcd status`.
pub(crate) fn run(global: &GlobalArgs, args: &Args) -> Outcome<Code> {
    let access = args.cluster.access(global)?;
    let looked = signals::run(super::seen(global, &access))?;
    output::report(global.format(), &Statuses::of(&looked.view))?;
    if global.format() == Format::Table && !global.quiet {
        say_quota(&looked.view);
    }
    Ok(Code::Ok)
}

/// The quota has no column in talosctl's table, which scripts cut by its columns.
fn say_quota(view: &ClusterView) {
    let told: BTreeSet<u64> = view.answering().filter_map(|(_, answer)| answer.status.db_size_quota).filter(|quota| *quota > 0).collect();
    if !told.is_empty() {
        output::say(&format!("quota: {}", told.into_iter().map(size).collect::<Vec<_>>().join(", ")));
    }
}

impl Statuses {
    fn of(view: &ClusterView) -> Self {
        Self {
            cluster_id: view.cluster_id().map(|id| id.to_string()),
            members: view.members.iter().map(|member| Line::of(view, member)).collect(),
        }
    }
}

impl Line {
    fn of(view: &ClusterView, member: &MemberView) -> Self {
        let said = |answer: &engine::care::MemberAnswer| {
            let status = &answer.status;
            Said {
                db_size: status.db_size,
                db_size_in_use: status.db_size_in_use,
                db_size_quota: status.db_size_quota,
                leader: status.leader.map(|id| id.to_string()),
                raft_index: status.raft_index,
                raft_term: status.raft_term,
                raft_applied_index: status.raft_applied_index,
                // Talos tells none.
                revision: answer.cluster_id.map(|_| status.header.revision.0),
                learner: status.is_learner,
                protocol_version: status.version.clone(),
                storage_version: status.storage_version.clone(),
                errors: status.errors.clone(),
                seconds: answer.took.as_secs_f64(),
            }
        };
        Self {
            node: node(member),
            member: member.id.to_string(),
            cluster_id: super::cluster_of(view, member),
            name: member.name.clone(),
            status: member.answer.as_ref().ok().map(said),
            silent: member.answer.as_ref().err().map(|silence| silence.reason.clone()),
        }
    }

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.node.clone(), self.member.clone()];
        let Some(said) = &self.status else {
            cells.extend(vec!["-".to_owned(); HEADER.len() - 3]);
            cells.push(format!("does not answer: {}", self.silent.as_deref().unwrap_or_default()));
            return cells;
        };
        let share = if said.db_size == 0 { 0.0 } else { said.db_size_in_use as f64 * 100.0 / said.db_size as f64 };
        cells.extend([
            size(said.db_size),
            format!("{} ({share:.2}%)", size(said.db_size_in_use)),
            said.leader.clone().unwrap_or_else(|| "NONE".to_owned()),
            said.raft_index.to_string(),
            said.raft_term.to_string(),
            said.raft_applied_index.to_string(),
            yes(said.learner),
            said.protocol_version.clone(),
            said.storage_version.clone().unwrap_or_else(|| "-".to_owned()),
            said.errors.join(", "),
        ]);
        cells
    }
}

/// talosctl's columns.
const HEADER: [&str; 12] = [
    "NODE",
    "MEMBER",
    "DB SIZE",
    "IN USE",
    "LEADER",
    "RAFT INDEX",
    "RAFT TERM",
    "RAFT APPLIED INDEX",
    "LEARNER",
    "PROTOCOL",
    "STORAGE",
    "ERRORS",
];

impl Report for Statuses {
    const SCHEMA: &'static str = "lifeboat.etcd-status/1";

    fn table(&self) -> String {
        let rows: Vec<Vec<String>> = self.members.iter().map(Line::cells).collect();
        output::columns(&HEADER, &[], &rows)
    }

    fn simple(&self) -> String {
        self.members.iter().map(|line| line.cells().join(", ") + "\n").collect()
    }
}
