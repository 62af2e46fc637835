//! `lifeboat drill`.

use std::path::PathBuf;
use std::sync::Arc;

use engine::config::{self, Drill};
use engine::drill::rehearse::{Rehearsal, State, rehearse};
use engine::drill::{Chosen, Drilled, Report, Request, Why};
use engine::opening::Opening;
use engine::source::SourceOptions;
use engine::{Code, Failure, Outcome};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use vault::mark::Outcome as Ending;

use super::try_backup;
use super::verify::ending;
use crate::args::{GlobalArgs, IdentityArgs, RepositoryArgs, SourceArgs, SpoolArgs};
use crate::output::{self, Format};
use crate::progress::Teller;
use crate::resolve::Resolved;
use crate::{passphrase, signals};

/// Arguments of `lifeboat drill`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Without WHICH one backup is drilled: latest, or once a drill of it passed or failed the one tried longest ago.\nThe result is recorded in the repository; 'list' shows a drill that passed as 'booted' under PROVEN.\nExit 21 when a drill failed, 1 when one proved nothing, 12 when no key opens the backup.\nWhile it runs, the backup's content lies unencrypted in a directory that only its owner may enter, and every user of this\nmachine can reach the scratch etcd on 127.0.0.1."
)]
pub(crate) struct Args {
    /// Which backups: id, unique prefix, last six characters, latest, latest~N, @REVISION
    #[arg(value_name = "WHICH")]
    which: Vec<String>,
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    spool: SpoolArgs,
    /// Every backup of the cluster, the least recently drilled first
    #[arg(long, conflicts_with = "which", env = "LIFEBOAT_ALL")]
    all: bool,
    /// Drill as many as will be over within this time, at least one
    #[arg(long, value_name = "TIME", env = "LIFEBOAT_DRILL_BUDGET")]
    budget: Option<String>,
    /// The etcd to run, not older than the backup's [default: etcd in PATH, then /usr/local/bin]
    #[arg(long, value_name = "PATH", env = "LIFEBOAT_ETCD")]
    etcd: Option<PathBuf>,
    /// A key that must be there and not be empty (repeatable)
    #[arg(long, value_name = "KEY", env = "LIFEBOAT_CANARY")]
    canary: Vec<String>,
    /// Directory below which the scratch data goes [default: the spool directory]
    #[arg(long, visible_alias = "dir", value_name = "DIR", env = "LIFEBOAT_DRILL_DIRECTORY")]
    directory: Option<PathBuf>,
    /// User of the backup's own authentication, where that is on
    #[arg(long, value_name = "NAME[:PASSWORD]", env = "LIFEBOAT_USER")]
    user: Option<String>,
    /// File that holds the password for --user
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_PASSWORD_FILE")]
    password_file: Option<PathBuf>,
    /// minisign secret key that signs the record of the result
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_SIGNING_KEY", help_heading = "Keys")]
    signing_key: Option<PathBuf>,
    /// Say which backups would be drilled, and do nothing
    #[arg(long, conflicts_with = "rehearse")]
    dry_run: bool,
    /// Boot nothing and change nothing: look whether a recovery would have all it needs now
    #[arg(long, conflicts_with_all = ["all", "budget"])]
    rehearse: bool,
}

/// Runs `lifeboat drill`.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Outcome<Code> {
    let only_look = args.rehearse;
    let request = request(global, args)?;
    let teller = Arc::new(Teller::new(global));
    if only_look {
        let rehearsal = signals::run(rehearse(request, teller))?;
        return print_rehearsal(global, &rehearsal);
    }
    let report = signals::run(async {
        tokio::select! {
            report = engine::drill::run(request, teller) => report,
            failure = hung_up() => Err(failure),
        }
    })?;
    let failure = report.failure();
    let code = failure.as_ref().map_or(Code::Ok, |failure| failure.code);
    match global.format() {
        Format::Table => output::print(&table(&report)),
        Format::Simple => output::print(&simple(&report)),
        format => output::value(format, "lifeboat.drill/1", json(&report, code))?,
    }
    for warning in &report.warnings {
        output::say(&format!("warning: {warning}"));
    }
    failure.map_or(Ok(Code::Ok), Err)
}

/// A terminal that is closed ends it too, or the data would stay.
async fn hung_up() -> Failure {
    match signal(SignalKind::hangup()) {
        Ok(mut hang_up) => hang_up.recv().await,
        Err(_) => std::future::pending().await,
    };
    Failure::new(Code::Terminated, "the terminal is gone; the scratch data were removed")
}

/// What the configuration says of drills of this cluster.
fn configured(resolved: &Resolved) -> Drill {
    let Some(config) = &resolved.config else { return Drill::default() };
    let of_cluster = resolved.section.as_ref().map_or_else(|| config.defaults.drill.clone(), |section| config.policy(section).drill);
    of_cluster.unwrap_or_default()
}

/// What opens the backups, and the command that prints an identity: what was given beats what is configured for drills, which beats the usual identity.
fn opening(resolved: &Resolved, args: &IdentityArgs, drill: &Drill) -> Outcome<(Opening, Vec<String>)> {
    let given = !args.identity.is_empty() || args.passphrase.is_given();
    if given || (drill.identity_file.is_none() && drill.identity_command.is_empty()) {
        return Ok((resolved.opening(args)?, Vec::new()));
    }
    let identities = drill.identity_file.iter().cloned().collect();
    Ok((Opening { identities, person: passphrase::person(), ..Opening::default() }, drill.identity_command.clone()))
}

fn request(global: &GlobalArgs, args: Args) -> Outcome<Request> {
    let resolved = Resolved::new(global, args.repository.cluster.as_deref(), true)?;
    let drill = configured(&resolved);
    let (opening, identity_command) = opening(&resolved, &args.identity, &drill)?;
    // The users of the backup are those of the cluster.
    let etcd = resolved.section.as_ref().and_then(|section| section.etcd.as_ref());
    let login = SourceArgs {
        endpoints: vec!["http://127.0.0.1".to_owned()],
        password_file: args.password_file.or_else(|| etcd.filter(|_| args.user.is_none())?.password_file.clone()),
        user: args.user.or_else(|| etcd?.user.clone()),
        ..SourceArgs::default()
    };
    let spool = resolved.spool(&args.spool)?;
    let directory_named = args.directory.is_some() || spool.directory.is_some();
    let directory = args.directory.or_else(|| spool.directory.clone()).unwrap_or_else(engine::spool::default_directory);
    // What is configured limits the drills that nobody asked for one by one.
    let configured_budget = drill.budget.filter(|_| args.which.is_empty() && !args.all);
    Ok(Request {
        place: resolved.place_to_read(global, &args.repository)?,
        cluster: resolved.cluster.clone(),
        which: args.which,
        all: args.all,
        budget: args.budget.or(configured_budget).as_deref().map(config::duration).transpose()?,
        opening,
        identity_command,
        etcd: args.etcd.or(drill.etcd),
        search: try_backup::search(),
        canaries: if args.canary.is_empty() { drill.canary } else { args.canary },
        credentials: crate::source::etcd(SourceOptions::default(), &login)?.credentials,
        signing_key: resolved.signing_key(args.signing_key.as_ref()),
        directory: engine::init::keys::absolute(&directory)?,
        directory_named,
        spool,
        tie: try_backup::tie(),
        dry_run: args.dry_run,
    })
}

fn table(report: &Report) -> String {
    let mut text = String::new();
    for drilled in &report.drilled {
        text.push_str(&format!("{}  {}\n", drilled.chosen.id, headline(drilled)));
        for check in &drilled.checks {
            let mark = if check.result == Ending::Passed { String::new() } else { format!("{}: ", ending(check.result).to_uppercase()) };
            text.push_str(&format!("  {:<12} {mark}{}\n", check.what, check.words));
        }
        if let (Some(detail), true) = (&drilled.detail, drilled.checks.iter().all(|check| check.result == Ending::Passed)) {
            text.push_str(&format!("  {detail}\n"));
        }
        drilled.notes.iter().for_each(|note| text.push_str(&format!("  note: {note}\n")));
    }
    if report.dry_run {
        report.chosen.iter().for_each(|chosen| text.push_str(&format!("{}  {}\n", chosen.id, chosen.why.words())));
        text.push_str(&match &report.etcd {
            Ok((path, version)) => format!("with etcd {version} at {}; nothing was done\n", path.display()),
            Err(why) => format!("no drill would prove anything: {why}; nothing was done\n"),
        });
    } else if !report.left().is_empty() {
        text.push_str(&format!("{} more did not fit into the budget, the next one is {}\n", report.left().len(), report.left()[0].id));
    }
    text
}

fn headline(drilled: &Drilled) -> String {
    let result = match drilled.result {
        Ending::Passed => "passed",
        Ending::Failed => "FAILED",
        Ending::Inconclusive => "inconclusive",
    };
    match (&drilled.etcd, drilled.recovered_in(), drilled.restored_in, drilled.served_in) {
        (Some(etcd), Some(all), Some(restored), Some(served)) => {
            let seconds = |time: std::time::Duration| format!("{:.1} s", time.as_secs_f64());
            format!(
                "{result}: etcd {etcd} served it {} after the first byte (restored in {}, booted in {})",
                seconds(all),
                seconds(restored),
                seconds(served)
            )
        }
        _ => result.to_owned(),
    }
}

fn simple(report: &Report) -> String {
    if report.dry_run {
        return report.chosen.iter().map(|chosen| format!("{}, {}\n", chosen.id, chosen.why.words())).collect();
    }
    let line = |drilled: &Drilled| {
        let seconds = drilled.recovered_in().map_or_else(String::new, |time| format!("{:.3}", time.as_secs_f64()));
        format!("{}, {}, {seconds}, {}\n", drilled.chosen.id, ending(drilled.result), drilled.etcd.as_deref().unwrap_or_default())
    };
    report.drilled.iter().map(line).collect()
}

fn chosen(chosen: &Chosen) -> Value {
    let why = match chosen.why {
        Why::Named => "named",
        Why::LatestUndrilled => "latest-undrilled",
        Why::Undrilled => "undrilled",
        Why::TriedAt(_) => "least-recently",
    };
    let tried = if let Why::TriedAt(at) = chosen.why { Some(at) } else { None };
    json!({"id": chosen.id, "why": why, "tried": tried, "db_size": chosen.bytes})
}

fn json(report: &Report, code: Code) -> Value {
    let seconds = |time: Option<std::time::Duration>| time.map(|time| time.as_secs_f64());
    let checks = |drilled: &Drilled| -> Vec<Value> {
        drilled.checks.iter().map(|check| json!({"check": check.what, "result": check.result, "detail": check.words})).collect()
    };
    let backup = |drilled: &Drilled| {
        let mut value = chosen(&drilled.chosen);
        let more = json!({
            "taken": drilled.taken,
            "revision": drilled.revision,
            "keys": drilled.keys,
            "result": drilled.result,
            "detail": drilled.detail,
            "etcd": drilled.etcd,
            "recovered_seconds": seconds(drilled.recovered_in()),
            "restored_seconds": seconds(drilled.restored_in),
            "booted_seconds": seconds(drilled.served_in),
            "checks": checks(drilled),
            "notes": drilled.notes,
            "recorded": drilled.recorded,
        });
        if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
            value.extend(more);
        }
        value
    };
    let etcd = match &report.etcd {
        Ok((path, version)) => json!({"path": path, "version": version}),
        Err(why) => json!({"missing": why}),
    };
    json!({
        "repository": report.repository,
        "cluster": report.cluster,
        "exit": code as u8,
        "dry_run": report.dry_run,
        "etcd": etcd,
        "backups": report.drilled.iter().map(backup).collect::<Vec<_>>(),
        "left": report.left().iter().map(chosen).collect::<Vec<_>>(),
        "warnings": report.warnings,
    })
}

/// The word for how it stands with one thing.
pub(super) fn state(state: State) -> &'static str {
    match state {
        State::Ready => "ready",
        State::Doubtful => "doubtful",
        State::Missing => "missing",
    }
}

fn print_rehearsal(global: &GlobalArgs, rehearsal: &Rehearsal) -> Outcome<Code> {
    let failure = rehearsal.failure();
    let code = failure.as_ref().map_or(Code::Ok, |failure| failure.code);
    match global.format() {
        Format::Table => {
            let line = |(what, how, words): (&str, &str, &str)| format!("{what:<8} {how:<9} {words}\n");
            let mut text: String = rehearsal.items.iter().map(|item| line((item.what, state(item.state), &item.words))).collect();
            let so = if failure.is_none() { "a recovery has all it needs\n" } else { "a recovery would fail\n" };
            text.push_str(so);
            output::print(&text);
        }
        Format::Simple => {
            output::print(&rehearsal.items.iter().map(|item| format!("{}, {}\n", item.what, state(item.state))).collect::<String>());
        }
        format => {
            let item = |item: &engine::drill::rehearse::Item| json!({"item": item.what, "state": state(item.state), "detail": item.words});
            let value = json!({
                "repository": rehearsal.repository,
                "cluster": rehearsal.cluster,
                "exit": code as u8,
                "backup": rehearsal.backup,
                "taken": rehearsal.taken,
                "expected_seconds": rehearsal.expected.map(|time| time.as_secs_f64()),
                "items": rehearsal.items.iter().map(item).collect::<Vec<_>>(),
            });
            output::value(format, "lifeboat.rehearsal/1", value)?;
        }
    }
    failure.map_or(Ok(Code::Ok), Err)
}
