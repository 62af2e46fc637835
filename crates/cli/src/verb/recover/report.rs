//! A plan, and how far it came, as it is shown.

use std::path::PathBuf;

use engine::journal::{Journal, Standing, Step as _};
use engine::recover::talos::{Check, Goal, Plan, Verdict};
use serde::Serialize;
use serde_json::Value;

use super::found::with_source;
use crate::output::{self, Report};

/// The report of a recovery: planned, on its way, or done.
#[derive(Serialize)]
pub(super) struct Recovered {
    done: bool,
    context: String,
    state: String,
    words: String,
    goal: Value,
    node: Option<String>,
    why: String,
    gone: Vec<String>,
    directory: PathBuf,
    journal: Option<PathBuf>,
    checks: Vec<Check>,
    steps: Vec<Line>,
    rescued: Vec<Value>,
    prepared: Option<Value>,
    result: Option<Value>,
    afterwards: Vec<String>,
    #[serde(skip)]
    head: String,
}

#[derive(Serialize)]
struct Line {
    step: String,
    done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
}

impl Recovered {
    pub(super) fn planned(plan: &Plan) -> Self {
        Self {
            done: false,
            context: plan.context.clone(),
            state: plan.state.clone(),
            words: plan.words.clone(),
            goal: serde_json::to_value(&plan.goal).unwrap_or_default(),
            node: plan.nodes.first().map(|node| node.name.clone()),
            why: plan.why.clone(),
            gone: plan.gone.clone(),
            directory: plan.directory.clone(),
            journal: None,
            checks: plan.checks.clone(),
            steps: plan.steps.iter().map(|step| Line { step: step.words(), done: false, failed: None }).collect(),
            rescued: Vec::new(),
            prepared: None,
            result: None,
            afterwards: Vec::new(),
            head: String::new(),
        }
    }

    pub(super) fn of(journal: &Journal<Plan>, name: &str) -> Self {
        let plan = journal.plan();
        let line = |(at, step): (usize, &engine::recover::talos::Step)| {
            let (done, failed) = match journal.standing(at) {
                Standing::Done(_) => (true, None),
                Standing::Failed(reason) => (false, Some(reason.clone())),
                Standing::Begun | Standing::Waiting => (false, None),
            };
            Line { step: step.words(), done, failed }
        };
        let done = journal.next_step().is_none();
        let facts = |name: &str| journal.facts(name).map(|facts| Value::Object(facts.clone()));
        Self {
            done,
            journal: Some(journal.path().to_owned()),
            steps: plan.steps.iter().enumerate().map(line).collect(),
            rescued: journal.all_facts("rescue").into_iter().map(|facts| Value::Object(facts.clone())).collect(),
            prepared: facts("prepare"),
            result: facts("verify"),
            afterwards: if done { afterwards(plan, name) } else { Vec::new() },
            ..Self::planned(plan)
        }
    }

    /// With a first line.
    pub(super) fn headed(mut self, head: impl Into<String>) -> Self {
        self.head = head.into();
        self
    }
}

/// What is left to do by hand, in the order it is best done.
fn afterwards(plan: &Plan, name: &str) -> Vec<String> {
    let mut lines = Vec::new();
    if matches!(plan.goal, Goal::Restore { .. }) {
        for (worker, address) in &plan.workers {
            lines.push(format!(
                "on worker {worker}: talosctl -n {address} service kubelet restart   (its kubelet still believes what etcd knew before)"
            ));
        }
        if plan.workers.is_empty() {
            lines.push(
                "on every worker: talosctl -n WORKER service kubelet restart   (their kubelets still believe what etcd knew before)"
                    .to_owned(),
            );
        }
        lines.push("Kubernetes objects that were made after the backup are unknown now: volumes, load balancers and the like that belonged to them are left over".to_owned());
    }
    for gone in &plan.gone {
        lines.push(format!("{gone}: wipe its disk before it is started again; with the same machine config it then joins by itself"));
    }
    lines.push(format!("take a backup of what runs now: {}", with_source(&["lifeboat".to_owned(), "backup".to_owned()])));
    if !plan.steps.iter().all(|step| step.name() != "rescue") {
        lines.push(format!(
            "{} holds what the nodes of '{name}' held, in the clear: keep it until all is well, then remove it",
            plan.directory.display()
        ));
    }
    lines
}

impl Report for Recovered {
    const SCHEMA: &'static str = "lifeboat.recover-talos/1";

    fn table(&self) -> String {
        let mut text = self.head.clone();
        if !text.is_empty() {
            text.push('\n');
        }
        if self.done {
            text.push_str(&self.result_words());
            for line in &self.afterwards {
                text.push_str(&format!("next     {line}\n"));
            }
            return text;
        }
        text.push_str(&format!("state    {}: {}\n", self.state, self.words));
        if let Some(node) = &self.node {
            text.push_str(&format!("node     {node}: {}\n", self.why.trim_start_matches(&format!("{node}: "))));
        }
        for check in &self.checks {
            let word = match check.verdict {
                Verdict::Passed => "ok",
                Verdict::Warned => "warning",
                Verdict::Refused => "refused",
            };
            text.push_str(&format!("check    {word}: {}\n", check.says));
        }
        for (at, line) in self.steps.iter().enumerate() {
            let head = if line.done { "done    " } else { "would do" };
            let failed = line.failed.as_ref().map(|reason| format!(" (failed: {reason})")).unwrap_or_default();
            text.push_str(&format!("{head} {}. {}{failed}\n", at + 1, line.step));
        }
        text
    }
}

impl Recovered {
    fn result_words(&self) -> String {
        let mut text = String::new();
        let result = self.result.clone().unwrap_or_default();
        let word = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(true) => "yes".to_owned(),
            _ => "-".to_owned(),
        };
        if let Some(members) = result.get("members").and_then(Value::as_array) {
            let columns = ["name", "id", "node", "leader", "db_size", "raft_applied_index"];
            let cell = |member: &Value, column: &str| match (column, member.get(column)) {
                ("db_size", Some(size)) => size.as_u64().map_or_else(|| "-".to_owned(), output::size),
                (_, Some(value)) => word(value),
                (_, None) => "-".to_owned(),
            };
            let rows: Vec<Vec<String>> = members.iter().map(|member| columns.iter().map(|column| cell(member, column)).collect()).collect();
            text.push_str(&output::columns(&["NAME", "MEMBER", "NODE", "LEADER", "DB SIZE", "RAFT APPLIED"], &[4, 5], &rows));
        }
        let content = result.get("content").cloned().unwrap_or_default();
        text.push_str(&format!(
            "etcd is back: every member works, no alarm, revision {}, {} keys, proven by a snapshot of it\n",
            word(&content["revision"]),
            word(&content["keys"])
        ));
        for advice in result.get("advice").and_then(Value::as_array).into_iter().flatten() {
            text.push_str(&format!("advice   {}\n", word(advice)));
        }
        let changes = self.prepared.iter().filter_map(|prepared| prepared.get("changes")?.as_array()).flatten();
        changes.for_each(|change| text.push_str(&format!("changed  {}\n", word(change))));
        for rescued in &self.rescued {
            text.push_str(&format!("rescued  {}: {}\n", word(&rescued["node"]), word(&rescued["file"])));
        }
        text
    }
}

/// What one rescue came to, for a person who is about to consent.
pub(super) fn rescue_words(rescued: &Value) -> String {
    let text = |name: &str| rescued.get(name).and_then(Value::as_str).unwrap_or_default();
    let kind =
        if rescued.get("clean").and_then(Value::as_bool) == Some(true) { "a snapshot" } else { "its database file, as it lay there" };
    let holds = match rescued.get("sound").and_then(Value::as_bool) {
        Some(true) => format!("sound, revision {}, {} keys", rescued["revision"], rescued["keys"]),
        _ => format!("NOT sound ({}), kept byte for byte", text("why")),
    };
    let kept = rescued.get("backup").and_then(Value::as_str).map(|id| format!("; in the repository as {id}")).unwrap_or_default();
    format!("rescued {}: {kind} in {}: {holds}{kept}", text("node"), text("file"))
}
