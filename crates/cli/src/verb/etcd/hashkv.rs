//! `lifeboat etcd hashkv`.

use std::path::PathBuf;

use engine::care::hashkv::{Compared, Said, Verdict, compare};
use engine::limits::HASHKV_BUDGET;
use engine::{Code, Outcome, config};
use serde::Serialize;

use super::ClusterArgs;
use crate::args::GlobalArgs;
use crate::output::{self, Report};
use crate::signals;
use crate::verb::snapshot;

/// Arguments of `lifeboat etcd hashkv`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A snapshot file, instead of the members
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Time for asking all members together [default: 2s]
    #[arg(long, value_name = "TIME", env = "LIFEBOAT_HASHKV_BUDGET")]
    hashkv_budget: Option<String>,
}

#[derive(Serialize)]
struct Hashes {
    revision: i64,
    verdict: &'static str,
    odd: Vec<String>,
    members: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    member: String,
    name: String,
    hash: Option<String>,
    compact_revision: Option<i64>,
    reason: Option<String>,
    odd: bool,
}

/// Runs `lifeboat etcd hashkv`.
pub(crate) fn run(global: &GlobalArgs, args: &Args) -> Outcome<Code> {
    if let Some(file) = &args.file {
        return snapshot::hashkv_of(global, file);
    }
    let access = args.cluster.access(global)?;
    let budget = args.hashkv_budget.as_deref().map(config::duration).transpose()?.unwrap_or(HASHKV_BUDGET);
    let compared = signals::run(async {
        let looked = super::seen(global, &access).await?;
        compare(&looked, budget).await
    })?;
    output::report(global.format(), &Hashes::of(&compared))?;
    Ok(match compared.verdict {
        Verdict::Equal | Verdict::Alone => Code::Ok,
        Verdict::Odd(_) | Verdict::Disputed => Code::Unproven,
        Verdict::Inconclusive => Code::Failed,
    })
}

impl Hashes {
    fn of(compared: &Compared) -> Self {
        let (verdict, odd): (_, &[_]) = match &compared.verdict {
            Verdict::Equal => ("equal", &[]),
            Verdict::Alone => ("alone", &[]),
            Verdict::Odd(members) => ("odd", members),
            Verdict::Disputed => ("disputed", &[]),
            Verdict::Inconclusive => ("inconclusive", &[]),
        };
        let line = |(id, name, said): &(_, String, Said)| {
            let (hash, compact_revision, reason) = match said {
                Said::Hash { hash, compact_revision } => (Some(format!("{hash:08x}")), Some(compact_revision.0), None),
                Said::Nothing(reason) => (None, None, Some(reason.clone())),
            };
            Line { member: format!("{id}"), name: name.clone(), hash, compact_revision, reason, odd: odd.contains(id) }
        };
        Self {
            revision: compared.revision.0,
            verdict,
            odd: odd.iter().map(ToString::to_string).collect(),
            members: compared.members.iter().map(line).collect(),
        }
    }
}

impl Report for Hashes {
    const SCHEMA: &'static str = "lifeboat.etcd-hashkv/1";

    fn table(&self) -> String {
        let cells = |line: &Line| {
            vec![
                line.name.clone(),
                line.member.clone(),
                line.hash.clone().unwrap_or_else(|| "-".to_owned()),
                line.compact_revision.map_or_else(|| "-".to_owned(), |revision| revision.to_string()),
                if line.odd { "DIFFERS from the majority".to_owned() } else { line.reason.clone().unwrap_or_default() },
            ]
        };
        let rows: Vec<Vec<String>> = self.members.iter().map(cells).collect();
        let words = match self.verdict {
            "equal" => "every member that could be compared holds the same",
            "alone" => "one member: there is nothing to compare it with",
            "odd" => {
                "a majority agrees, and the others hold something else: replace them (remove-member, then add-member --learner with an empty data directory)"
            }
            "disputed" => {
                "the members hold different data, and no majority agrees: keep a backup of each (lifeboat backup --member NAME) before anything else"
            }
            _ => "fewer than two members could be compared; give more time with --hashkv-budget",
        };
        format!(
            "{}at revision {}: {words}\n",
            output::columns(&["HOSTNAME", "MEMBER", "HASHKV", "COMPACT REVISION", ""], &[], &rows),
            self.revision
        )
    }
}
