//! `lifeboat prune`.

use std::path::PathBuf;

use engine::config::Keep;
use engine::lease::{Holder, Mode};
use engine::prune::{self, PRUNE_GRACE, Plan, Prepared, Report, Request, Target};
use engine::{Code, Failure, Outcome};
use jiff::Timestamp;
use serde_json::{Value, json};
use vault::repository::Catalog;
use vault::retention::{Decision, Verdict};
use vault::store::Unfinished;

use super::list::age;
use crate::args::{GlobalArgs, RepositoryArgs};
use crate::output::{self, Format, size};
use crate::progress::Teller;
use crate::resolve::Resolved;
use crate::{consent, signals};

/// Arguments of `lifeboat prune`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "A backup goes in two runs at least 24 h apart: the first marks it as due, the second removes it, if it still is. Pinned ones, the newest good one and the best proven one always stay; nothing goes while a history is unconfirmed that came out of its own. Any --keep flag takes the place of the whole 'keep' section of lifeboat.yaml. docs/retention.md"
)]
pub(crate) struct Args {
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    keep: KeepArgs,
    /// minisign secret key that signs what is marked as due
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_SIGNING_KEY", help_heading = "Keys")]
    signing_key: Option<PathBuf>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Consent without a question
    #[arg(long, help_heading = "Consent")]
    yes: bool,
}

/// Heading of the rules.
const KEEP: &str = "What is kept";

/// What is kept, by flags.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct KeepArgs {
    /// The newest so many
    #[arg(long, value_name = "N", env = "LIFEBOAT_KEEP_LAST", help_heading = KEEP)]
    keep_last: Option<u32>,
    /// The newest of each of the last N hours that have one
    #[arg(long, value_name = "N", env = "LIFEBOAT_KEEP_HOURLY", help_heading = KEEP)]
    keep_hourly: Option<u32>,
    /// The newest of each of the last N days that have one
    #[arg(long, value_name = "N", env = "LIFEBOAT_KEEP_DAILY", help_heading = KEEP)]
    keep_daily: Option<u32>,
    /// The newest of each of the last N ISO weeks that have one
    #[arg(long, value_name = "N", env = "LIFEBOAT_KEEP_WEEKLY", help_heading = KEEP)]
    keep_weekly: Option<u32>,
    /// The newest of each of the last N months that have one
    #[arg(long, value_name = "N", env = "LIFEBOAT_KEEP_MONTHLY", help_heading = KEEP)]
    keep_monthly: Option<u32>,
    /// The newest of each of the last N years that have one
    #[arg(long, value_name = "N", env = "LIFEBOAT_KEEP_YEARLY", help_heading = KEEP)]
    keep_yearly: Option<u32>,
    /// Everything not older than this, counted back from the newest backup: 30d, '1y 6mo'
    #[arg(long, value_name = "SPAN", env = "LIFEBOAT_KEEP_WITHIN", help_heading = KEEP)]
    keep_within: Option<String>,
    /// Everything with this tag (repeatable)
    #[arg(long, value_name = "TAG", env = "LIFEBOAT_KEEP_TAG", value_delimiter = ',', help_heading = KEEP)]
    keep_tag: Vec<String>,
    /// At most this much in all; the oldest that only counting rules keep goes first
    #[arg(long, value_name = "BYTES", env = "LIFEBOAT_KEEP_MAX_BYTES", help_heading = KEEP)]
    keep_max_bytes: Option<String>,
}

impl KeepArgs {
    /// What the flags say; none where there is none of them.
    fn keep(&self) -> Option<Keep> {
        let keep = Keep {
            last: self.keep_last,
            hourly: self.keep_hourly,
            daily: self.keep_daily,
            weekly: self.keep_weekly,
            monthly: self.keep_monthly,
            yearly: self.keep_yearly,
            within: self.keep_within.clone(),
            tags: self.keep_tag.clone(),
            max_bytes: self.keep_max_bytes.clone(),
        };
        (keep != Keep::default()).then_some(keep)
    }
}

/// What is kept: what the flags say, else the cluster's policy in the configuration.
///
/// # Errors
/// A usage failure where neither says anything: without a policy nothing is removed.
pub(crate) fn keep(resolved: &Resolved, flags: &KeepArgs) -> Outcome<Keep> {
    if let Some(keep) = flags.keep() {
        return Ok(keep);
    }
    let configured = resolved.section.as_ref().zip(resolved.config.as_ref()).map(|(section, config)| config.policy(section).keep);
    configured.ok_or_else(|| {
        Failure::usage("no policy says what is kept, so nothing was done")
            .cause("the cluster has no section in a lifeboat.yaml, and no --keep flag was given")
            .again_with(["--keep-within", "30d"])
    })
}

/// Runs `lifeboat prune`.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Outcome<Code> {
    let resolved = Resolved::new(global, args.repository.cluster.as_deref(), true)?;
    let request = Request {
        place: resolved.place(&args.repository)?,
        cluster: resolved.cluster.clone(),
        policy: prune::policy(&keep(&resolved, &args.keep)?)?,
        signing_key: resolved.signing_key(args.signing_key.as_ref()),
        state: engine::exclusion::state_directory(),
        dry_run: args.dry_run,
    };
    let now = Timestamp::now();
    let prepared = signals::run(prune::prepare(&request, now))?;
    let format = global.format();
    if args.dry_run || prepared.plan.is_empty() {
        match format {
            Format::Table => output::print(&table(&prepared.plan, &prepared.catalog)),
            Format::Simple => output::print(&simple(&prepared.plan)),
            _ => output::value(format, "lifeboat.prune/1", json(&prepared.plan, None))?,
        }
        return Ok(Code::Ok);
    }
    consent::by_yes(args.yes, &table(&prepared.plan, &prepared.catalog))?;
    let report = carry_out(global, &prepared, resolved.lease())?;
    match format {
        Format::Table => {
            // Who was asked has seen it.
            if args.yes {
                output::print(&table(&report.plan, &prepared.catalog));
            }
            output::print(&done(&report));
        }
        Format::Simple => output::print(&simple(&report.plan)),
        _ => output::value(format, "lifeboat.prune/1", json(&report.plan, Some(&report)))?,
    }
    report.failure().map_or(Ok(Code::Ok), Err)
}

fn carry_out(global: &GlobalArgs, prepared: &Prepared, lease: Mode) -> Outcome<Report> {
    let holder = Holder::default();
    let teller = Teller::new(global);
    signals::run_then(prune::execute(prepared, &holder, lease, &teller), holder.release())
}

/// Prunes after a backup was committed. Nothing that goes wrong here makes the backup a worse one: the answer is words, one line each.
pub(crate) fn after_backup(global: &GlobalArgs, request: &Request, lease: Mode) -> (Option<Value>, Vec<String>) {
    let pruned = signals::run(prune::prepare(request, Timestamp::now())).and_then(|prepared| carry_out(global, &prepared, lease));
    match pruned {
        Ok(report) => {
            let mut words = Vec::new();
            words.extend(report.plan.hold.as_ref().map(|hold| format!("nothing was pruned: {hold}")));
            words.extend(report.failure().map(|failure| format!("pruning did not end well: {}", one_line(&failure))));
            (Some(json(&report.plan, Some(&report))), words)
        }
        Err(failure) => (None, vec![format!("nothing was pruned: {}", one_line(&failure))]),
    }
}

fn one_line(failure: &Failure) -> String {
    let cause = failure.cause.as_ref().map(|cause| format!(" ({cause})")).unwrap_or_default();
    format!("{}{cause}", failure.what)
}

/// What is done with a backup, as a word and for people.
fn action(plan: &Plan, decision: &Decision) -> (&'static str, String) {
    let of = |targets: &[Target]| targets.iter().find(|target| target.id == decision.id).cloned();
    if decision.verdict.is_kept() {
        return ("keep", decision.verdict.to_string());
    }
    let from =
        |since: Timestamp| since.checked_add(PRUNE_GRACE).map(|from| from.strftime("%Y-%m-%d %H:%M UTC").to_string()).unwrap_or_default();
    if of(&plan.removals).is_some() {
        return ("remove", decision.verdict.to_string());
    }
    match of(&plan.waiting).and_then(|target| target.since) {
        Some(since) => ("wait", format!("{}; removed from {} on", decision.verdict, from(since))),
        None => ("mark", format!("{}; removed from {} on", decision.verdict, from(plan.now))),
    }
}

fn table(plan: &Plan, catalog: &Catalog) -> String {
    let mut text = format!("policy of '{}': {}\n", plan.cluster, plan.policy);
    let rows: Vec<Vec<String>> = plan
        .decisions
        .of
        .iter()
        .rev()
        .map(|decision| {
            let taken = catalog.backup(&decision.id).map(|backup| age(plan.now.duration_since(backup.id().start()))).unwrap_or_default();
            let (word, why) = action(plan, decision);
            vec![decision.id.to_string(), taken, size(decision.stored), word.to_owned(), why]
        })
        .collect();
    if !rows.is_empty() {
        text.push_str(&output::columns(&["ID", "AGE", "STORED", "WHAT", "WHY"], &[1, 2], &rows));
    }
    for stray in &plan.strays {
        let why = if stray.was_removed { "what a removal left" } else { "an attempt that was never completed" };
        text.push_str(&format!("remove {} object(s) of {}, {}: {why}\n", stray.objects, stray.id, size(stray.bytes)));
    }
    if !plan.unfinished.is_empty() {
        let bytes = plan.unfinished.iter().map(|file| file.size).fold(0, u64::saturating_add);
        text.push_str(&format!("remove {} file(s) of writes that were cut off, {}\n", plan.unfinished.len(), size(bytes)));
    }
    if !plan.marks.is_empty() {
        text.push_str(&format!("remove {} record(s) of old checks and runs that change nothing any more\n", plan.marks.len()));
    }
    if let Some(hold) = &plan.hold {
        text.push_str(&format!("nothing is marked or removed: {hold}\n"));
    }
    let kept = plan.decisions.of.iter().filter(|decision| decision.verdict.is_kept()).count();
    text.push_str(&format!(
        "{kept} kept, {} to be marked as due, {} due and waiting, {} to be removed ({})\n",
        plan.tombstones.len(),
        plan.waiting.len(),
        plan.removals.len(),
        size(plan.bytes())
    ));
    text
}

fn done(report: &Report) -> String {
    let sets = report.removed.iter().chain(&report.strays).map(|removed| removed.bytes);
    let bytes = sets.chain(report.unfinished.iter().map(|file| file.size)).fold(0, u64::saturating_add);
    let mut text = format!(
        "marked {}, removed {} backup(s) and {} left-over(s), {}\n",
        report.tombstones.len(),
        report.removed.len(),
        report.strays.len() + report.unfinished.len(),
        size(bytes)
    );
    for id in &report.spared {
        text.push_str(&format!("spared {id}: something was said for it meanwhile\n"));
    }
    for refused in &report.refused {
        text.push_str(&format!("warning: {refused}\n"));
    }
    text
}

fn simple(plan: &Plan) -> String {
    let line = |decision: &Decision| {
        let (word, _) = action(plan, decision);
        format!("{}, {word}, {}\n", decision.id, decision.verdict)
    };
    plan.decisions.of.iter().rev().map(line).collect()
}

fn json(plan: &Plan, report: Option<&Report>) -> Value {
    let backup = |decision: &Decision| {
        let reasons = match &decision.verdict {
            Verdict::Keep(reasons) => reasons.iter().map(ToString::to_string).collect(),
            Verdict::Expire(expiry) => vec![expiry.to_string()],
        };
        let (word, _) = action(plan, decision);
        let since = plan.waiting.iter().chain(&plan.removals).find(|target| target.id == decision.id).and_then(|target| target.since);
        json!({"id": decision.id, "stored": decision.stored, "kept": decision.verdict.is_kept(), "action": word, "reasons": reasons, "due_since": since})
    };
    let unfinished = |file: &Unfinished| json!({"file": file.key, "bytes": file.size});
    let stray = |stray: &prune::Stray| json!({"id": stray.id, "objects": stray.objects, "bytes": stray.bytes});
    let done = report.map(|report| {
        let removed = |of: &[prune::Removed]| of.iter().map(|removed| json!({"id": removed.id, "bytes": removed.bytes})).collect::<Vec<_>>();
        json!({
            "marked": report.tombstones,
            "removed": removed(&report.removed),
            "leftovers": removed(&report.strays),
            "unfinished": report.unfinished.iter().map(unfinished).collect::<Vec<_>>(),
            "records": report.marks,
            "spared": report.spared,
            "refused": report.refused.iter().map(|refused| json!({"id": refused.id, "listed": refused.is_listed, "why": refused.why})).collect::<Vec<_>>(),
        })
    });
    json!({
        "cluster": plan.cluster,
        "policy": plan.policy.to_string(),
        "now": plan.now,
        "hold": plan.hold,
        "backups": plan.decisions.of.iter().rev().map(backup).collect::<Vec<_>>(),
        "leftovers": plan.strays.iter().map(stray).collect::<Vec<_>>(),
        "unfinished": plan.unfinished.iter().map(unfinished).collect::<Vec<_>>(),
        "records": plan.marks,
        "bytes": plan.bytes(),
        "done": done,
    })
}
