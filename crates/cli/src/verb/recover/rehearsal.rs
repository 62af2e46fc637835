//! `lifeboat recover talos --rehearse`: could this cluster be brought back now? Nothing is changed, on no node and in no store.

use std::time::Duration;

use engine::drill::rehearse::{Item, Rehearsal, State};
use engine::recover::talos::{Check, Evidence, Verdict};
use engine::{Code, Failure, Outcome};
use serde_json::json;

use crate::args::GlobalArgs;
use crate::output::{self, Format};
use crate::verb::drill::state;

/// What an upload through Talos's API is reckoned with, in bytes per second; a slow link between two sites carries as much.
const UPLOAD_SPEED: u64 = 10_000_000;
/// What a wipe with its reboot, the bootstrap and each member's joining are reckoned with.
const REBOOT: Duration = Duration::from_secs(180);
/// See [`REBOOT`].
const JOIN: Duration = Duration::from_secs(60);

/// What was looked at.
pub(super) struct Rehearsed {
    rehearsal: Rehearsal,
    checks: Vec<Check>,
    context: String,
    answering: usize,
    nodes: usize,
    /// How long the whole would take, roughly; none where it cannot be told how long the data take.
    expected: Option<Duration>,
}

impl Rehearsed {
    pub(super) fn of(mut rehearsal: Rehearsal, evidence: &Evidence, checks: Vec<Check>, bytes: u64) -> Self {
        // No etcd runs on this machine in a recovery of Talos.
        rehearsal.items.retain(|item| item.what != "etcd");
        let (answering, nodes) = (evidence.answering().count(), evidence.nodes.len());
        let joins = u32::try_from(nodes.saturating_sub(1)).unwrap_or(u32::MAX);
        let on_talos = Duration::from_secs(bytes / UPLOAD_SPEED) + REBOOT + JOIN.saturating_mul(joins);
        let expected = rehearsal.expected.map(|here| here.saturating_add(on_talos));
        Self { context: evidence.context.clone(), answering, nodes, expected, rehearsal, checks }
    }

    fn failure(&self) -> Option<Failure> {
        if let Some(failure) = self.rehearsal.failure() {
            return Some(failure);
        }
        let refused: Vec<&Check> = self.checks.iter().filter(|check| check.verdict == Verdict::Refused).collect();
        let worst = refused.first()?;
        let words: Vec<String> = refused
            .iter()
            .map(|check| format!("{}{}", check.says, check.mend.as_ref().map(|mend| format!(" ({mend})")).unwrap_or_default()))
            .collect();
        Some(Failure::new(worst.code(), "a recovery would be refused now").object(&self.context).cause(words.join("; ")).again())
    }

    /// Prints it.
    ///
    /// # Errors
    /// That a recovery would fail, and why.
    pub(super) fn print(&self, global: &GlobalArgs) -> Outcome<Code> {
        let failure = self.failure();
        let code = failure.as_ref().map_or(Code::Ok, |failure| failure.code);
        match global.format() {
            Format::Table => output::print(&self.table(failure.is_none())),
            Format::Simple => {
                let lines = self.lines().into_iter().map(|(what, how, _)| format!("{what}, {how}\n"));
                output::print(&lines.collect::<String>());
            }
            format => {
                let item = |item: &Item| json!({"item": item.what, "state": state(item.state), "detail": item.words});
                let value = json!({
                    "repository": self.rehearsal.repository,
                    "cluster": self.rehearsal.cluster,
                    "context": self.context,
                    "exit": code as u8,
                    "backup": self.rehearsal.backup,
                    "taken": self.rehearsal.taken,
                    "nodes": self.nodes,
                    "answering": self.answering,
                    "expected_seconds": self.expected.map(|time| time.as_secs_f64()),
                    "items": self.rehearsal.items.iter().map(item).collect::<Vec<_>>(),
                    "checks": self.checks,
                });
                output::value(format, "lifeboat.rehearsal/1", value)?;
            }
        }
        failure.map_or(Ok(Code::Ok), Err)
    }

    fn lines(&self) -> Vec<(String, &'static str, String)> {
        let items = self.rehearsal.items.iter().map(|item| (item.what.to_owned(), state(item.state), item.words.clone()));
        let nodes = if self.answering == self.nodes { State::Ready } else { State::Doubtful };
        let nodes = ("nodes".to_owned(), state(nodes), format!("{} of {} control plane nodes answer", self.answering, self.nodes));
        let checks = self.checks.iter().map(|check| {
            let how = match check.verdict {
                Verdict::Passed => State::Ready,
                Verdict::Warned => State::Doubtful,
                Verdict::Refused => State::Missing,
            };
            let node = check.node.as_ref().map(|node| format!("{node}: ")).unwrap_or_default();
            (check.check.clone(), state(how), format!("{node}{}", check.says))
        });
        items.chain([nodes]).chain(checks).collect()
    }

    fn table(&self, is_ready: bool) -> String {
        let lines = self.lines();
        let width = lines.iter().map(|(what, _, _)| what.len()).max().unwrap_or(0);
        let mut text: String = lines.iter().map(|(what, how, words)| format!("{what:<width$}  {how:<9} {words}\n")).collect();
        if let Some(expected) = self.expected {
            text.push_str(&format!(
                "reckoned at about {} min in all, with an upload of {} MB/s and reboots of a minute or three\n",
                expected.as_secs().div_ceil(60).max(1),
                UPLOAD_SPEED / 1_000_000
            ));
        }
        text.push_str(if is_ready { "a recovery has all it needs\n" } else { "a recovery would fail\n" });
        text
    }
}
