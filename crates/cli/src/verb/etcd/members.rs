//! `lifeboat etcd members`.

use engine::care::ClusterView;
use engine::{Code, Outcome};
use serde::Serialize;

use super::{ClusterArgs, node, yes};
use crate::args::GlobalArgs;
use crate::output::{self, Report};
use crate::signals;

/// Arguments of `lifeboat etcd members`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Serialize)]
struct Members {
    cluster_id: Option<String>,
    leader: Option<String>,
    members: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    node: String,
    id: String,
    /// Only where the members that answer belong to several.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_id: Option<String>,
    name: String,
    peer_urls: Vec<String>,
    client_urls: Vec<String>,
    learner: bool,
    listed: bool,
    answers: bool,
}

/// Runs `lifeboat etcd members`.
pub(crate) fn run(global: &GlobalArgs, args: &Args) -> Outcome<Code> {
    let access = args.cluster.access(global)?;
    let looked = signals::run(super::seen(global, &access))?;
    output::report(global.format(), &Members::of(&looked.view))?;
    Ok(Code::Ok)
}

impl Members {
    fn of(view: &ClusterView) -> Self {
        let line = |member: &engine::care::MemberView| Line {
            cluster_id: super::cluster_of(view, member),
            node: node(member),
            id: member.id.to_string(),
            name: member.name.clone(),
            peer_urls: member.peer_urls.clone(),
            client_urls: member.client_urls.clone(),
            learner: member.is_learner,
            listed: member.is_listed,
            answers: member.answer.is_ok(),
        };
        Self {
            cluster_id: view.cluster_id().map(|id| id.to_string()),
            leader: view.leader().map(|id| id.to_string()),
            members: view.members.iter().map(line).collect(),
        }
    }
}

impl Report for Members {
    const SCHEMA: &'static str = "lifeboat.etcd-members/1";

    fn table(&self) -> String {
        let rows: Vec<Vec<String>> = self.members.iter().map(Line::cells).collect();
        output::columns(&["NODE", "ID", "HOSTNAME", "PEER URLS", "CLIENT URLS", "LEARNER", "ANSWERS"], &[], &rows)
    }

    fn simple(&self) -> String {
        self.members.iter().map(|line| line.cells().join(", ") + "\n").collect()
    }
}

impl Line {
    fn cells(&self) -> Vec<String> {
        let answers = match (self.answers, self.listed) {
            (true, true) => "yes",
            (true, false) => "yes, NOT LISTED",
            (false, _) => "NO",
        };
        vec![
            self.node.clone(),
            self.id.clone(),
            if self.name.is_empty() { "(not started)".to_owned() } else { self.name.clone() },
            self.peer_urls.join(","),
            self.client_urls.join(","),
            yes(self.learner),
            answers.to_owned(),
        ]
    }
}
