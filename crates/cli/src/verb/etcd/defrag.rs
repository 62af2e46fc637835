//! `lifeboat etcd defrag`.

use std::time::Duration;

use engine::care::defrag::{Plan, Rule, Step, plan};
use engine::care::defrag_run::{self, Ran, Turn};
use engine::care::look::Looked;
use engine::exclusion::{self, Asked, Key};
use engine::lease::Holder;
use engine::limits::{DEFRAG_FREE_ABOVE, DEFRAG_IN_USE_BELOW, DEFRAG_PAUSE};
use engine::{Code, Failure, Outcome, config};
use serde::Serialize;

use super::ClusterArgs;
use super::beside::Repository;
use crate::args::GlobalArgs;
use crate::output::{self, Report, size};
use crate::progress::Teller;
use crate::{consent, signals};

/// Arguments of `lifeboat etcd defrag`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Only these members: names, ids or client URLs
    #[arg(value_name = "MEMBER")]
    members: Vec<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// A member needs it when less of its file is in use [default: 60%]
    #[arg(long, value_name = "SHARE", env = "LIFEBOAT_IN_USE_BELOW")]
    in_use_below: Option<String>,
    /// A member needs it when more of its file is free [default: 200MiB]
    #[arg(long, value_name = "BYTES", env = "LIFEBOAT_FREE_ABOVE")]
    free_above: Option<String>,
    /// Every member, whether it needs it or not
    #[arg(long, conflicts_with_all = ["in_use_below", "free_above"])]
    all: bool,
    /// Time between two members [default: 10s]
    #[arg(long, value_name = "TIME", env = "LIFEBOAT_DEFRAG_PAUSE")]
    pause: Option<String>,
    /// The repository, to see how young the newest backup is and to keep backups of other hosts away [default: the configured one]
    #[arg(long, value_name = "URL", env = "LIFEBOAT_REPO")]
    repo: Option<String>,
    /// Show the plan
    #[arg(long)]
    dry_run: bool,
    /// Consent without a question
    #[arg(long, help_heading = "Consent")]
    yes: bool,
}

#[derive(Serialize)]
struct Defragmented {
    done: bool,
    steps: Vec<String>,
    skipped: Vec<Skipped>,
    members: Vec<Line>,
    stopped: Option<String>,
}

#[derive(Serialize)]
struct Skipped {
    member: String,
    reason: String,
}

#[derive(Serialize)]
struct Line {
    member: String,
    name: String,
    size_before: u64,
    size_after: u64,
    seconds: f64,
}

/// Runs `lifeboat etcd defrag`.
pub(crate) fn run(global: &GlobalArgs, args: &Args) -> Outcome<Code> {
    let access = args.cluster.access(global)?;
    let rule = rule(args)?;
    let pause = args.pause.as_deref().map(config::duration).transpose()?.unwrap_or(DEFRAG_PAUSE);
    let looked = signals::run(super::seen(global, &access))?;
    let plan = plan(&looked.view, &rule)?;
    may_defragment(&looked, args.dry_run || plan.steps.is_empty(), plan.hands_over())?;
    let keys = looked.known_by(&access);
    let access = looked.everywhere(&access);
    drop(looked);
    if args.dry_run || plan.steps.is_empty() {
        output::report(global.format(), &Defragmented::planned(&plan))?;
        return Ok(Code::Ok);
    }
    let repository = Repository::of(global, args.cluster.cluster.as_deref(), args.repo.as_deref());
    let _alone = alone_here(args, &keys, repository.is_known())?;
    if args.yes {
        output::say(&format!("note: {}", repository.backup));
    }
    consent::by_yes(args.yes, &format!("{}\n{}", words(&plan, pause), repository.backup))?;
    let teller = Teller::new(global);
    let holder = Holder::default();
    let ran = signals::run_then(
        async {
            repository.keep_others_away(&holder, args.yes, &teller).await?;
            let ran = tokio::select! {
                ran = defrag_run::run(&access, &plan, pause, &teller) => ran,
                never = holder.keep(&teller) => match never {},
            };
            holder.release().await;
            Ok(ran)
        },
        holder.release(),
    )?;
    output::report(global.format(), &Defragmented::ran(&plan, &ran))?;
    match ran.stopped {
        None => Ok(Code::Ok),
        Some(failure) => Err(failure),
    }
}

/// That our role is enough for the whole plan, before its first step: half a plan is worse than none. Only said where nothing is done.
pub(super) fn may_defragment(looked: &Looked, only_said: bool, hands_over: bool) -> Outcome<()> {
    match looked.may_defragment(hands_over) {
        Err(failure) if only_said => {
            output::say(&format!("note: {}", failure.cause.unwrap_or(failure.what)));
            Ok(())
        }
        allowed => allowed,
    }
}

fn rule(args: &Args) -> Outcome<Rule> {
    let in_use_below = args.in_use_below.as_deref().map(share).transpose()?;
    let free_above = args.free_above.as_deref().map(config::bytes).transpose()?;
    let neither = in_use_below.is_none() && free_above.is_none();
    Ok(Rule {
        in_use_below: if neither { Some(DEFRAG_IN_USE_BELOW) } else { in_use_below },
        free_above: if neither { Some(DEFRAG_FREE_ABOVE) } else { free_above },
        // A member that was named is meant, whatever its file looks like.
        all: args.all || neither && !args.members.is_empty(),
        only: args.members.clone(),
    })
}

fn share(text: &str) -> Outcome<f64> {
    let number = text.trim_end_matches('%').parse::<f64>().ok();
    let number = number.map(|number| if text.ends_with('%') { number / 100.0 } else { number });
    number.filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| {
        Failure::usage(format!("'{text}' is no share")).cause("a share is written as 60% or 0.6").again_with(["--in-use-below", "60%"])
    })
}

/// Nobody backs this cluster up from this host meanwhile. Where neither that can be known nor a repository is there whose lease could tell, only
/// `--yes` goes on.
fn alone_here(args: &Args, keys: &[Key], repository: bool) -> Outcome<Vec<exclusion::Exclusion>> {
    if keys.is_empty() {
        return not_known(args, "this source tells neither the cluster's id nor its members", repository).map(|()| Vec::new());
    }
    let held: Outcome<Vec<Option<exclusion::Exclusion>>> = keys.iter().map(|key| alone_by(args, key, repository)).collect();
    Ok(held?.into_iter().flatten().collect())
}

fn alone_by(args: &Args, key: &Key, repository: bool) -> Outcome<Option<exclusion::Exclusion>> {
    match exclusion::alone(exclusion::state_directory().as_deref(), key) {
        Asked::Free(exclusion) => Ok(Some(exclusion)),
        Asked::Taken => Err(Failure::failed("a backup or a defragmentation of this cluster runs on this machine")
            .cause("a member that is being read stops serving when it is defragmented; wait until the other one has ended")
            .again()),
        Asked::Unknown(reason) => not_known(args, &reason, repository).map(|()| None),
    }
}

fn not_known(args: &Args, reason: &str, repository: bool) -> Outcome<()> {
    if args.yes || repository {
        output::say(&format!("note: whether a backup runs on this machine cannot be known: {reason}"));
        return Ok(());
    }
    Err(Failure::usage("whether a backup of this cluster runs cannot be known").cause(reason).again_with(["--yes"]))
}

fn words(plan: &Plan, pause: Duration) -> String {
    let steps: Vec<String> = plan.steps.iter().enumerate().map(|(at, step)| format!("  {}. {}", at + 1, step_words(step))).collect();
    format!(
        "The plan, one after the other with {} s between two members:\n{}\nA member does not serve while it has its turn.",
        pause.as_secs(),
        steps.join("\n")
    )
}

fn step_words(step: &Step) -> String {
    match step {
        Step::Defragment { label, size: all, in_use, .. } => format!("defragment {label}: {} → about {}", size(*all), size(*in_use)),
        Step::MoveLeader { labels, .. } => format!("move the leadership from {} to {}", labels.0, labels.1),
    }
}

impl Defragmented {
    fn planned(plan: &Plan) -> Self {
        Self {
            done: false,
            steps: plan.steps.iter().map(step_words).collect(),
            skipped: plan.skipped.iter().map(|(member, reason)| Skipped { member: member.clone(), reason: reason.clone() }).collect(),
            members: Vec::new(),
            stopped: None,
        }
    }

    fn ran(plan: &Plan, ran: &Ran) -> Self {
        let line = |turn: &Turn| Line {
            member: turn.member.to_string(),
            name: turn.label.clone(),
            size_before: turn.before,
            size_after: turn.after,
            seconds: turn.took.as_secs_f64(),
        };
        let stopped = ran.stopped.as_ref().map(|failure| failure.what.clone());
        Self { done: stopped.is_none(), members: ran.turns.iter().map(line).collect(), stopped, ..Self::planned(plan) }
    }
}

impl Report for Defragmented {
    const SCHEMA: &'static str = "lifeboat.etcd-defrag/1";

    fn table(&self) -> String {
        let mut text = String::new();
        if self.members.is_empty() {
            for (at, step) in self.steps.iter().enumerate() {
                text.push_str(&format!("would do {}. {step}\n", at + 1));
            }
        }
        let cells = |line: &Line| {
            vec![line.name.clone(), line.member.clone(), size(line.size_before), size(line.size_after), format!("{:.1} s", line.seconds)]
        };
        if !self.members.is_empty() {
            text.push_str(&output::columns(
                &["HOSTNAME", "MEMBER", "BEFORE", "AFTER", "TOOK"],
                &[2, 3, 4],
                &self.members.iter().map(cells).collect::<Vec<_>>(),
            ));
        }
        for skipped in &self.skipped {
            text.push_str(&format!("left     {}: {}\n", skipped.member, skipped.reason));
        }
        if self.steps.is_empty() {
            text.push_str("nothing to do\n");
        }
        text
    }
}
