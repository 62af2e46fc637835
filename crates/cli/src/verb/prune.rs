//! `lifeboat prune`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use engine::config::Keep;
use engine::lease::{Holder, Mode};
use engine::prune::{self, PRUNE_GRACE, Plan, Prepared, Report, Request, Target};
use engine::stores::NamedPlace;
use engine::{Code, Failure, Outcome};
use jiff::Timestamp;
use serde_json::{Value, json};
use vault::backup_id::BackupId;
use vault::repository::{Backup, Catalog};
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
    let (places, _) = resolved.places(&args.repository)?;
    let request = Request {
        place: places[0].options.clone(),
        cluster: resolved.cluster.clone(),
        policy: prune::policy(&keep(&resolved, &args.keep)?)?,
        signing_key: resolved.signing_key(args.signing_key.as_ref()),
        state: engine::exclusion::state_directory(),
        dry_run: args.dry_run,
    };
    let mut pruning = Pruning::prepare(&request, &places)?;
    let format = global.format();
    if args.dry_run || pruning.is_empty() {
        match format {
            Format::Table => output::print(&pruning.tables()),
            Format::Simple => output::print(&pruning.simple()),
            _ => output::value(format, "lifeboat.prune/1", pruning.json())?,
        }
        return pruning.failure().map_or(Ok(Code::Ok), Err);
    }
    consent::by_yes(args.yes, &pruning.tables())?;
    pruning.carry_out(global, resolved.lease())?;
    match format {
        Format::Table => {
            // Who was asked has seen it.
            if args.yes {
                output::print(&pruning.tables());
            }
            output::print(&pruning.done());
        }
        Format::Simple => output::print(&pruning.simple()),
        _ => output::value(format, "lifeboat.prune/1", pruning.json())?,
    }
    pruning.failure().map_or(Ok(Code::Ok), Err)
}

/// A pruning of every store of the repository, each by itself: one that does not answer keeps nothing from the others.
struct Pruning {
    of: Vec<(NamedPlace, Prepared, Option<Report>)>,
    /// Stores that could not be read, or not be begun with.
    failed: Vec<(NamedPlace, Failure)>,
}

impl Pruning {
    /// Reads them all, and plans.
    ///
    /// # Errors
    /// Not one of them can be read; the request is not sound.
    fn prepare(request: &Request, places: &[NamedPlace]) -> Outcome<Self> {
        let now = Timestamp::now();
        let mut pruning = Self { of: Vec::new(), failed: Vec::new() };
        for place in places {
            let request = Request { place: place.options.clone(), ..request.clone() };
            match signals::run(prune::prepare(&request, now)) {
                Ok(prepared) => pruning.of.push((place.clone(), prepared, None)),
                Err(failure) if matches!(failure.code, Code::Usage | Code::Interrupted | Code::Terminated) => return Err(failure),
                Err(failure) => pruning.failed.push((place.clone(), failure)),
            }
        }
        pruning.spare_what_is_pinned_anywhere();
        match pruning.failed.first() {
            Some((_, failure)) if pruning.of.is_empty() => Err(failure.clone()),
            _ => Ok(pruning),
        }
    }

    /// A store that was away when somebody pinned a backup does not know of it yet.
    fn spare_what_is_pinned_anywhere(&mut self) {
        let backups = self.of.iter().flat_map(|(_, prepared, _)| &prepared.catalog.backups);
        let pinned: BTreeSet<BackupId> = backups.filter(|backup| !backup.pins.is_empty()).map(Backup::id).collect();
        for (_, prepared, _) in &mut self.of {
            prepared.plan.tombstones.retain(|target| !pinned.contains(&target.id));
            prepared.plan.removals.retain(|target| !pinned.contains(&target.id));
        }
    }

    fn is_empty(&self) -> bool {
        self.of.iter().all(|(_, prepared, _)| prepared.plan.is_empty())
    }

    fn carry_out(&mut self, global: &GlobalArgs, lease: Mode) -> Outcome<()> {
        let teller = Teller::new(global);
        for (place, prepared, report) in &mut self.of {
            let holder = Holder::default();
            match signals::run_then(prune::execute(prepared, &holder, lease, &teller), holder.release()) {
                Ok(made) => *report = Some(made),
                Err(failure) if matches!(failure.code, Code::Interrupted | Code::Terminated) => return Err(failure),
                Err(failure) => self.failed.push((place.clone(), failure)),
            }
        }
        Ok(())
    }

    /// Why it does not end well.
    fn failure(&self) -> Option<Failure> {
        let of_reports = self.of.iter().filter_map(|(_, _, report)| report.as_ref()?.failure());
        of_reports.chain(self.failed.iter().map(|(_, failure)| failure.clone())).next()
    }

    fn is_of_several(&self) -> bool {
        self.of.len() + self.failed.len() > 1
    }

    /// One text per store, with the store's name before it where there are several.
    fn each(&self, text: impl Fn(&Prepared, Option<&Report>) -> String) -> String {
        let one = |(place, prepared, report): &(NamedPlace, Prepared, Option<Report>)| {
            let text = text(prepared, report.as_ref());
            if self.is_of_several() { format!("store {}:\n{text}", place.described()) } else { text }
        };
        let failed =
            self.failed.iter().map(|(place, failure)| format!("store {}: nothing was pruned: {}\n", place.described(), one_line(failure)));
        self.of.iter().map(one).chain(failed).collect()
    }

    fn tables(&self) -> String {
        self.each(|prepared, _| table(&prepared.plan, &prepared.catalog))
    }

    fn simple(&self) -> String {
        self.of.iter().map(|(_, prepared, _)| simple(&prepared.plan)).collect()
    }

    fn done(&self) -> String {
        self.each(|_, report| report.map(done).unwrap_or_default())
    }

    /// What was planned and done in the first store; beside it, where there are several, in the others.
    fn json(&self) -> Value {
        let one = |(place, prepared, report): &(NamedPlace, Prepared, Option<Report>)| {
            let mut value = json(report.as_ref().map_or(&prepared.plan, |report| &report.plan), report.as_ref());
            value["store"] = Value::from(place.name.clone());
            value
        };
        let mut all = self.of.iter().map(one);
        let mut first = all.next().unwrap_or_default();
        if self.is_of_several() {
            first["others"] = all.collect();
            first["failed"] = self
                .failed
                .iter()
                .map(|(place, failure)| json!({"store": place.name, "why": one_line(failure)}))
                .collect::<Vec<_>>()
                .into();
        }
        first
    }
}

/// Prunes after a backup was committed. Nothing that goes wrong here makes the backup a worse one: the answer is words, one line each.
pub(crate) fn after_backup(global: &GlobalArgs, request: &Request, places: &[NamedPlace], lease: Mode) -> (Option<Value>, Vec<String>) {
    let pruned = Pruning::prepare(request, places).and_then(|mut pruning| pruning.carry_out(global, lease).map(|()| pruning));
    match pruned {
        Ok(pruning) => {
            let at = |place: &NamedPlace| if pruning.is_of_several() { format!(" at store {}", place.described()) } else { String::new() };
            let mut words = Vec::new();
            for (place, _, report) in &pruning.of {
                let Some(report) = report else { continue };
                words.extend(report.plan.hold.as_ref().map(|hold| format!("nothing was pruned{}: {hold}", at(place))));
                words.extend(report.failure().map(|failure| format!("pruning{} did not end well: {}", at(place), one_line(&failure))));
            }
            words.extend(pruning.failed.iter().map(|(place, failure)| format!("nothing was pruned{}: {}", at(place), one_line(failure))));
            (Some(pruning.json()), words)
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
