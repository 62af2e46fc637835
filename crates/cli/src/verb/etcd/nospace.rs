//! `lifeboat etcd nospace`: the whole remedy for a full database, as one plan that can be stopped and goes on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use engine::care::ClusterView;
use engine::care::act;
use engine::care::look::look;
use engine::care::nospace::{self, BackupTo, Outcomes, Plan, Remedy, Space, VERB, Wanted};
use engine::journal::{Desk, Journal, Journals, run as carry_out};
use engine::lease::Holder;
use engine::limits::DEFRAG_PAUSE;
use engine::next::line;
use engine::{Access, Code, Failure, Outcome, backup, config};
use serde::Serialize;

use super::defrag::may_defragment;
use crate::args::{ConsentArgs, GlobalArgs};
use crate::output::{self, Report, size};
use crate::progress::Teller;
use crate::resolve::Resolved;
use crate::{consent, signals, verb};

/// The name that commands shown give to a snapshot.
const SNAPSHOT: &str = "before-nospace.db";

/// Arguments of `lifeboat etcd nospace`.
#[derive(clap::Args, Debug)]
#[group(skip)]
#[command(
    after_help = "The plan: a backup (into the repository, or with --snapshot into a file), compaction up to the revision before it (on Kubernetes left to the API server), every member defragmented with the leader last, NOSPACE disarmed, and a look whether it helped. Each step is on record in the state directory: stopped anywhere, the same command goes on."
)]
pub(crate) struct Args {
    #[command(flatten)]
    backup: verb::backup::Args,
    /// Save a plain snapshot to this file in the place of a backup into a repository
    #[arg(long, value_name = "FILE", conflicts_with = "no_backup", env = "LIFEBOAT_SNAPSHOT")]
    snapshot: Option<PathBuf>,
    /// Take no backup first (wants the cluster's name)
    // No environment variable: to go without is decided for one run, by a person who looks.
    #[arg(long)]
    no_backup: bool,
    /// Compact on Kubernetes, too: watches that are behind start anew
    #[arg(long)]
    compact_anyway: bool,
    /// The members' --quota-backend-bytes, which etcd tells from 3.6 on
    #[arg(long, value_name = "BYTES", env = "LIFEBOAT_QUOTA")]
    quota: Option<String>,
    /// Time between two members [default: 10s]
    #[arg(long, value_name = "TIME", env = "LIFEBOAT_DEFRAG_PAUSE")]
    pause: Option<String>,
    /// Give the plan up that was begun, and say how far it came
    #[arg(long)]
    abandon: bool,
    /// Consent without a question
    #[arg(long, help_heading = "Consent")]
    yes: bool,
    #[command(flatten)]
    consent: ConsentArgs,
}

#[derive(Serialize)]
struct Line {
    step: String,
    done: bool,
}

#[derive(Serialize)]
struct Nospace {
    done: bool,
    cluster_id: Option<String>,
    kubernetes: bool,
    revision: i64,
    journal: Option<PathBuf>,
    alarms_before: Vec<String>,
    steps: Vec<Line>,
    remarks: Vec<String>,
    backup: Option<String>,
    before: Vec<Space>,
    after: Vec<Space>,
    alarms: Vec<String>,
    helped: Option<bool>,
    #[serde(skip)]
    words: &'static str,
}

/// Runs `lifeboat etcd nospace`.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Outcome<Code> {
    let resolved = Resolved::new(global, args.backup.repository.cluster.as_deref(), true)?;
    let access = resolved.source(&args.backup.source)?;
    let quota = args.quota.as_deref().map(config::bytes).transpose()?;
    let pause = args.pause.as_deref().map(config::duration).transpose()?.unwrap_or(DEFRAG_PAUSE);
    let looked = signals::run(super::seen(global, &access))?;
    may_defragment(&looked, args.backup.dry_run, true)?;
    if args.compact_anyway {
        act::offered(&looked, "compaction: its API servers compact")?;
    }
    let known_as = nospace::known_as(&looked, &access)?;
    let desk = Journals::usual()?.hold(VERB, &known_as)?;
    let open = desk.find::<Plan>()?;
    if args.abandon {
        return abandon(global, open);
    }
    let context = || looked.talos.as_ref().map(|talos| talos.context.clone());
    let leads_elsewhere = args.backup.repository.cluster.is_none() && args.backup.source.leads_elsewhere();
    let configured = resolved.cluster.as_ref().filter(|_| !leads_elsewhere).map(ToString::to_string);
    let name = configured.or_else(context).unwrap_or_else(|| known_as.clone());
    let place = resolved.place(&args.backup.repository).ok();
    let repository = place.map(|place| (place, resolved.cluster.clone()));
    let run = Run { global, access: &access, known_as, quota, pause, name, repository };
    match open {
        Some(journal) => run.go_on(&args, journal),
        None => run.begin(args, &desk),
    }
}

fn abandon(global: &GlobalArgs, open: Option<Journal<Plan>>) -> Outcome<Code> {
    let Some(journal) = open else {
        output::say("no plan is under way");
        return Ok(Code::Ok);
    };
    let report = Nospace::of(&journal, "given up here; nothing that was done is taken back");
    journal.abandon()?;
    output::report(global.format(), &report)?;
    Ok(Code::Ok)
}

/// What every part of a run needs.
struct Run<'a> {
    global: &'a GlobalArgs,
    access: &'a Access,
    /// What its plans are found by.
    known_as: String,
    quota: Option<u64>,
    pause: Duration,
    /// What consent is given by.
    name: String,
    /// Whose lease keeps other hosts' backups away.
    repository: Option<(engine::place::PlaceOptions, Option<vault::name::ClusterName>)>,
}

impl Run<'_> {
    /// A plan that an earlier run left.
    fn go_on(&self, args: &Args, journal: Journal<Plan>) -> Outcome<Code> {
        output::say(&format!(
            "a plan of {} is under way ({}): this goes on with it; --abandon gives it up",
            journal.head().created,
            journal.path().display()
        ));
        if args.backup.dry_run {
            output::report(self.global.format(), &Nospace::of(&journal, "would go on with what is not done"))?;
            return Ok(Code::Ok);
        }
        // Only a repository that is still needed must be named.
        let next = journal.next_step().and_then(|step| journal.plan().steps.get(step));
        let request = match next {
            Some(nospace::Step::Backup { .. }) => Some(self.request(args)?),
            _ => None,
        };
        consent::by_yes(args.yes, &words(journal.plan(), &nospace::progress(&journal)))?;
        self.carry_out(journal, request)
    }

    fn begin(&self, args: Args, desk: &Desk) -> Outcome<Code> {
        let (view, found) = signals::run(async {
            let looked = look(self.access).await?;
            let found = nospace::find_out(&looked).await?;
            Ok((looked.view, found))
        })?;
        // Asked before anything about backups: where nothing is wrong, nothing has to be named.
        let nothing = Wanted { backup: BackupTo::Nowhere, compact_anyway: args.compact_anyway, quota: self.quota };
        if nospace::plan(&view, &self.known_as, found, &nothing)?.is_none() {
            output::report(self.global.format(), &Nospace::nothing(&view, found, self.quota))?;
            return Ok(Code::Ok);
        }
        let (backup, request) = self.backup(&args)?;
        let plan = nospace::plan(&view, &self.known_as, found, &Wanted { backup, ..nothing })?;
        let plan = plan.ok_or_else(|| Failure::failed("the alarm is gone").again())?;
        if args.backup.dry_run {
            output::report(self.global.format(), &Nospace::planned(&plan))?;
            return Ok(Code::Ok);
        }
        let steps: Vec<(bool, String)> = plan.steps.iter().map(|step| (false, engine::journal::Step::words(step))).collect();
        let question = words(&plan, &steps);
        if args.no_backup {
            consent::by_name(&args.consent, Some(&self.name), &format!("{question}\nNo backup is taken before it."))?;
        } else {
            consent::by_yes(args.yes, &question)?;
        }
        self.carry_out(desk.begin(plan)?, request)
    }

    /// Where the backup goes, and what takes it where that is a repository.
    fn backup(&self, args: &Args) -> Outcome<(BackupTo, Option<backup::Request>)> {
        if args.no_backup {
            return Ok((BackupTo::Nowhere, None));
        }
        if let Some(file) = &args.snapshot {
            let file = std::path::absolute(file).map_err(|error| Failure::usage("the snapshot has no place").cause(error).again())?;
            if file.exists() {
                return Err(Failure::usage("there is such a file already, and it is not overwritten")
                    .object(file.display())
                    .again_instead("--snapshot", ["--snapshot", &format!("{}.new", file.display())]));
            }
            return Ok((BackupTo::File(file), None));
        }
        let request = self.request(args)?;
        Ok((BackupTo::Repository(request.place.url.clone()), Some(request)))
    }

    fn request(&self, args: &Args) -> Outcome<backup::Request> {
        let resolved = Resolved::new(self.global, args.backup.repository.cluster.as_deref(), true)?;
        if resolved.place(&args.backup.repository).is_err() {
            return Err(Failure::usage("a backup comes first, and no place for it is named")
                .cause("name a repository by --repo or in lifeboat.yaml, or a file by --snapshot; --no-backup goes without")
                .again_with(["--snapshot", SNAPSHOT]));
        }
        let mut request = verb::backup::request(self.global, args.backup.clone())?;
        // Every member is in alarm, or will be: that is why this is run.
        request.wish.degraded = true;
        request.dry_run = false;
        Ok(request)
    }

    fn carry_out(&self, mut journal: Journal<Plan>, backup: Option<backup::Request>) -> Outcome<Code> {
        let teller = Arc::new(Teller::new(self.global));
        let holder = Holder::default();
        let mut remedy = Remedy {
            access: self.access.clone(),
            repository: self.repository.clone(),
            backup,
            holder: &holder,
            quota: self.quota,
            pause: self.pause,
            progress: Arc::<Teller>::clone(&teller),
        };
        let ran = signals::run_then(carry_out(&mut journal, &mut remedy, teller.as_ref()), holder.release());
        if let Err(mut failure) = ran {
            let hint = format!("what was done is on record in {}; the same command goes on from there", journal.path().display());
            failure.cause = Some(failure.cause.map_or_else(|| hint.clone(), |cause| format!("{cause}; {hint}")));
            return Err(failure);
        }
        let report = Nospace::of(&journal, "");
        output::report(self.global.format(), &report)?;
        match Outcomes::of(&journal).and_then(|outcomes| outcomes.failure(journal.plan())) {
            None => Ok(Code::Ok),
            Some(failure) => Err(failure),
        }
    }
}

fn words(plan: &Plan, steps: &[(bool, String)]) -> String {
    let line = |(at, (done, words)): (usize, &(bool, String))| format!("  {}. {words}{}", at + 1, if *done { " (done)" } else { "" });
    let steps: Vec<String> = steps.iter().enumerate().map(line).collect();
    let remarks: String = plan.remarks().iter().map(|remark| format!("\nnote: {remark}")).collect();
    format!("The plan for cluster {}:\n{}\nA member does not serve while it is defragmented.{remarks}", plan.cluster_id, steps.join("\n"))
}

impl Nospace {
    fn planned(plan: &Plan) -> Self {
        Self {
            done: false,
            cluster_id: Some(plan.cluster_id.clone()),
            kubernetes: plan.is_kubernetes,
            revision: plan.revision,
            journal: None,
            alarms_before: plan.alarms.clone(),
            steps: plan.steps.iter().map(|step| Line { step: engine::journal::Step::words(step), done: false }).collect(),
            remarks: plan.remarks(),
            backup: None,
            before: plan.before.clone(),
            after: Vec::new(),
            alarms: plan.alarms.clone(),
            helped: None,
            words: "",
        }
    }

    fn nothing(view: &ClusterView, found: nospace::Found, quota: Option<u64>) -> Self {
        Self {
            done: false,
            cluster_id: view.cluster_id().map(|id| id.to_string()),
            kubernetes: found.is_kubernetes,
            revision: found.revision,
            journal: None,
            alarms_before: Vec::new(),
            steps: Vec::new(),
            remarks: Vec::new(),
            backup: None,
            before: Vec::new(),
            after: Vec::new(),
            alarms: Vec::new(),
            helped: None,
            words: if nospace::knows_quota(view, quota) {
                "nothing to do: NOSPACE is not raised, and every file is well below its quota"
            } else {
                "nothing to do: NOSPACE is not raised; how near the files are to their quota is not known: before 3.6 etcd does not tell it, --quota does"
            },
        }
    }

    fn of(journal: &Journal<Plan>, words: &'static str) -> Self {
        let outcomes = Outcomes::of(journal);
        Self {
            done: journal.next_step().is_none(),
            journal: Some(journal.path().to_owned()),
            steps: nospace::progress(journal).into_iter().map(|(done, step)| Line { step, done }).collect(),
            backup: outcomes.as_ref().and_then(|outcomes| outcomes.backup.clone()),
            helped: outcomes.as_ref().map(Outcomes::helped),
            alarms: outcomes.as_ref().map_or_else(|| journal.plan().alarms.clone(), |outcomes| outcomes.alarms.clone()),
            after: outcomes.map(|outcomes| outcomes.after).unwrap_or_default(),
            words,
            ..Self::planned(journal.plan())
        }
    }
}

impl Report for Nospace {
    const SCHEMA: &'static str = "lifeboat.etcd-nospace/1";

    fn table(&self) -> String {
        let mut text = String::new();
        if self.after.is_empty() {
            for (at, line) in self.steps.iter().enumerate() {
                let head = if line.done { "done     " } else { "would do " };
                text.push_str(&format!("{head} {}. {}\n", at + 1, line.step));
            }
            self.remarks.iter().for_each(|remark| text.push_str(&format!("note      {remark}\n")));
        } else {
            let rows: Vec<Vec<String>> = self.after.iter().map(|space| self.cells(space)).collect();
            text.push_str(&output::columns(&["HOSTNAME", "MEMBER", "BEFORE", "AFTER", "IN USE", "QUOTA"], &[2, 3, 4, 5], &rows));
        }
        if let Some(backup) = &self.backup {
            text.push_str(&format!("backup   {}\n", line([backup.as_str()])));
        }
        if self.helped == Some(true) {
            text.push_str("NOSPACE is gone, and the cluster takes writes\n");
        }
        if !self.words.is_empty() {
            text.push_str(&format!("{}\n", self.words));
        }
        text
    }
}

impl Nospace {
    fn cells(&self, after: &Space) -> Vec<String> {
        let before = self.before.iter().find(|space| space.member == after.member);
        let quota = match after.quota {
            None => "not told".to_owned(),
            Some(quota) if after.quota_told => size(quota),
            Some(quota) => format!("about {}", size(quota)),
        };
        let before = before.map_or_else(|| "-".to_owned(), |space| size(space.size));
        vec![after.name.clone(), after.member.clone(), before, size(after.size), size(after.in_use), quota]
    }
}
