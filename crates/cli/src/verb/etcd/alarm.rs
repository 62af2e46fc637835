//! `lifeboat etcd alarm list` and `alarm disarm`.

use clap::Subcommand;
use engine::care::look::look;
use engine::care::{ClusterView, MemberView, act, change};
use engine::limits::{IN_USE_ADVICE, QUOTA_ALERT};
use engine::source::alarm_name;
use engine::{Code, Failure, Outcome};
use etcd_api::{Alarm, AlarmKind};
use serde::Serialize;

use super::ClusterArgs;
use crate::args::{ConsentArgs, GlobalArgs};
use crate::output::{self, Report, size};
use crate::{consent, signals};

/// Arguments of `lifeboat etcd alarm`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Show the alarms that are raised
    List(ListArgs),
    /// Take alarms back, on the whole cluster, once their cause is gone
    Disarm(DisarmArgs),
}

#[derive(clap::Args, Debug)]
struct ListArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(clap::Args, Debug)]
struct DisarmArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Disarm CORRUPT too (wants the cluster's name)
    #[arg(long)]
    corrupt: bool,
    /// Disarm NOSPACE although a member is still near its quota
    #[arg(long)]
    force: bool,
    /// Show what would be done
    #[arg(long)]
    dry_run: bool,
    /// Consent without a question to disarming NOSPACE
    #[arg(long, help_heading = "Consent")]
    yes: bool,
    #[command(flatten)]
    consent: ConsentArgs,
}

/// Runs `lifeboat etcd alarm …`.
pub(crate) fn run(global: &GlobalArgs, args: &Args) -> Outcome<Code> {
    match &args.what {
        What::List(args) => list(global, args),
        What::Disarm(args) => disarm(global, args),
    }
}

#[derive(Serialize)]
struct Alarms {
    cluster_id: Option<String>,
    /// Only what would be done was asked for.
    dry_run: bool,
    /// What was, or would be.
    disarmed: Vec<Line>,
    alarms: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    member: String,
    name: String,
    alarm: String,
}

impl Line {
    fn of(view: &ClusterView, alarm: &Alarm) -> Self {
        let name = view.member(alarm.member).map(|member| member.name.clone()).unwrap_or_default();
        Self { member: alarm.member.to_string(), name, alarm: alarm_name(alarm.kind) }
    }
}

impl Report for Alarms {
    const SCHEMA: &'static str = "lifeboat.etcd-alarms/1";

    fn table(&self) -> String {
        let cells = |line: &Line| vec![line.member.clone(), line.name.clone(), line.alarm.clone()];
        let mut text = String::new();
        let verb = if self.dry_run { "would disarm" } else { "disarmed" };
        for line in &self.disarmed {
            text.push_str(&format!("{verb} {} of {} ({})\n", line.alarm, line.name, line.member));
        }
        if self.dry_run && !self.disarmed.is_empty() {
            return text;
        }
        if self.alarms.is_empty() {
            text.push_str("no alarm is raised\n");
        } else {
            text.push_str(&output::columns(&["MEMBER", "HOSTNAME", "ALARM"], &[], &self.alarms.iter().map(cells).collect::<Vec<_>>()));
        }
        text
    }
}

fn list(global: &GlobalArgs, args: &ListArgs) -> Outcome<Code> {
    let access = args.cluster.access(global)?;
    let view = signals::run(super::seen(global, &access))?.view;
    let alarms = raised(&view)?;
    let report = Alarms {
        cluster_id: view.cluster_id().map(|id| id.to_string()),
        dry_run: false,
        disarmed: Vec::new(),
        alarms: alarms.iter().map(|alarm| Line::of(&view, alarm)).collect(),
    };
    output::report(global.format(), &report)?;
    Ok(Code::Ok)
}

fn raised(view: &ClusterView) -> Outcome<Vec<Alarm>> {
    view.alarms.clone().ok_or_else(|| Failure::failed("the alarms cannot be listed").cause(view.notes.join("; ")).again())
}

fn disarm(global: &GlobalArgs, args: &DisarmArgs) -> Outcome<Code> {
    let access = args.cluster.access(global)?;
    let looked = signals::run(super::seen(global, &access))?;
    let view = &looked.view;
    change::one_cluster(view)?;
    let alarms = raised(view)?;
    let kinds: Vec<AlarmKind> = if args.corrupt { vec![AlarmKind::NoSpace, AlarmKind::Corrupt] } else { vec![AlarmKind::NoSpace] };
    let chosen: Vec<&Alarm> = alarms.iter().filter(|alarm| kinds.contains(&alarm.kind)).collect();
    if chosen.is_empty() {
        if alarms.iter().any(|alarm| alarm.kind == AlarmKind::Corrupt) {
            return Err(Failure::usage("CORRUPT is raised, and it is disarmed only with --corrupt")
                .cause("members hold different data: find the odd one and replace it first")
                .next(["lifeboat", "etcd", "hashkv"]));
        }
        return answer(global, args, view, &[], alarms.clone());
    }
    still_near_quota(view, args, &chosen)?;
    if args.dry_run {
        let chosen: Vec<Alarm> = chosen.into_iter().cloned().collect();
        return answer(global, args, view, &chosen, alarms);
    }
    let words: Vec<String> = chosen.iter().map(|alarm| format!("{} of {}", alarm_name(alarm.kind), label(view, alarm))).collect();
    let what = format!("This disarms {} on the whole cluster.", words.join(", "));
    if chosen.iter().any(|alarm| alarm.kind == AlarmKind::Corrupt) {
        consent::by_name(&args.consent, Some(&args.cluster.name(global, &looked)?), &what)?;
    } else {
        consent::by_yes(args.yes, &what)?;
    }
    // Connections belong to the runtime they were made on, and that ended before the question.
    let chosen: Vec<Alarm> = chosen.into_iter().cloned().collect();
    // Time went by while somebody was asked: what holds must hold now, and nothing is disarmed but what was consented to.
    let left = signals::run(async {
        let looked = look(&access).await?;
        change::one_cluster(&looked.view)?;
        still_near_quota(&looked.view, args, &chosen.iter().collect::<Vec<_>>())?;
        act::disarm(&looked, &chosen).await
    })?;
    let gone: Vec<Alarm> = chosen.into_iter().filter(|alarm| !left.contains(alarm)).collect();
    answer(global, args, view, &gone, left)
}

fn label(view: &ClusterView, alarm: &Alarm) -> String {
    view.member(alarm.member).map_or_else(|| alarm.member.to_string(), MemberView::label)
}

fn answer(global: &GlobalArgs, args: &DisarmArgs, view: &ClusterView, gone: &[Alarm], left: Vec<Alarm>) -> Outcome<Code> {
    let report = Alarms {
        cluster_id: view.cluster_id().map(|id| id.to_string()),
        dry_run: args.dry_run,
        disarmed: gone.iter().map(|alarm| Line::of(view, alarm)).collect(),
        alarms: left.iter().map(|alarm| Line::of(view, alarm)).collect(),
    };
    output::report(global.format(), &report)?;
    Ok(Code::Ok)
}

/// NOSPACE comes back with the next write while the file is as large as the quota.
fn still_near_quota(view: &ClusterView, args: &DisarmArgs, chosen: &[&Alarm]) -> Outcome<()> {
    if args.force || !chosen.iter().any(|alarm| alarm.kind == AlarmKind::NoSpace) {
        return Ok(());
    }
    let stands = |member: &MemberView, why: String| {
        Failure::failed("the cause of NOSPACE still stands: it would be raised again by the next write")
            .object(format!("{}: {why}", member.label()))
            .cause("compact first where no API server does it, then give the free pages back; --force disarms all the same")
            .next(["lifeboat", "etcd", "nospace"])
    };
    for member in &view.members {
        let (Some(status), Some((quota, told))) = (member.status(), engine::care::health::quota_of(member)) else { continue };
        if status.db_size as f64 >= quota as f64 * QUOTA_ALERT {
            let assumed = if told { "" } else { " (etcd's default: this release does not tell its own; give --force where it is larger)" };
            return Err(stands(member, format!("{} of a quota of {}{assumed}", size(status.db_size), size(quota))));
        }
        // A file only shrinks by a defragmentation: one that is half empty was not defragmented since it was full.
        let accused = chosen.iter().any(|alarm| alarm.member == member.id && alarm.kind == AlarmKind::NoSpace);
        if accused && !told && (status.db_size_in_use as f64) < status.db_size as f64 * IN_USE_ADVICE {
            let free = size(status.db_size - status.db_size_in_use);
            return Err(stands(
                member,
                format!("{free} of {} are free, and not given back: it is as large as when the alarm was raised", size(status.db_size)),
            ));
        }
        if accused && !told {
            output::say(&format!(
                "note: etcd {} does not tell its quota; if {} has {} of it now, the next write raises the alarm again",
                status.version,
                member.label(),
                size(status.db_size)
            ));
        }
    }
    Ok(())
}
