//! `lifeboat guard`: a verified backup, then a command that may go wrong; its exit code is the command's own.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;

use engine::backup::{Report, Request};
use engine::lease::Holder;
use engine::next::line;
use engine::opening::Opening;
use engine::verify;
use engine::{Code, Failure, Outcome};
use vault::manifest::Rung;

use super::try_backup::exit_code;
use crate::args::GlobalArgs;
use crate::progress::Teller;
use crate::{output, passphrase, signals, verb};

/// The variable in which the command finds the backup's id.
const BACKUP: &str = "LIFEBOAT_BACKUP";

/// Arguments of `lifeboat guard`.
#[derive(clap::Args, Debug)]
#[group(skip)]
#[command(
    after_help = "The backup is committed and every stored byte of it read back before the command starts; LIFEBOAT_BACKUP in its environment is the backup's id. Exit code: the command's own, 128 and the signal's number when a signal ended it; 1 when there is no verified backup, and then the command was not run."
)]
pub(crate) struct Args {
    #[command(flatten)]
    backup: verb::backup::Args,
    /// The command, after --
    #[arg(value_name = "COMMAND", last = true, required = true)]
    command: Vec<OsString>,
}

/// Runs `lifeboat guard`.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Outcome<u8> {
    let Args { backup, command } = args;
    let words: Vec<String> = command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    // A command that cannot start needs no backup.
    let program = command.first().ok_or_else(|| Failure::usage("no command is given").again())?;
    find(program)?;
    if backup.prune {
        return Err(Failure::usage("nothing is removed before a command that may go wrong").again_without("--prune"));
    }
    let dry_run = backup.dry_run;
    let request = verb::backup::request(global, backup)?;
    let teller = Arc::new(Teller::new(global));
    let holder = Holder::default();
    if dry_run {
        let report = signals::run_then(engine::backup::run(request, &holder, teller), holder.release())?;
        output::print(&format!("{}then read it back, and run: {}\n", verb::backup::table(&report, true), line(&words)));
        return Ok(Code::Ok as u8);
    }
    let prepare = prepare(request, &holder, &teller);
    let start = |report: &Report| {
        let id = report.committed.first().map(|committed| committed.manifest.id.to_string()).unwrap_or_default();
        if !global.quiet {
            output::say(&format!("backup {id} is verified; running: {}", line(&words)));
        }
        let mut child = tokio::process::Command::new(program);
        child.args(&command[1..]).env(BACKUP, id);
        child
    };
    let (report, status) = signals::run_then_command(prepare, holder.release(), start)?;
    if !status.success() {
        output::failure(global.format(), &way_back(&report, status));
    }
    Ok(u8::try_from(exit_code(status)).unwrap_or(Code::Failed as u8))
}

/// A backup of which every stored byte was read back. Whatever keeps it from being one is exit 1.
async fn prepare(request: Request, holder: &Holder, teller: &Arc<Teller>) -> Outcome<Report> {
    let unguarded = |mut failure: Failure| {
        if !matches!(failure.code, Code::Usage | Code::Interrupted | Code::Terminated) {
            failure.code = Code::Failed;
            failure.what = format!("{}; the command was not run", failure.what);
        }
        failure
    };
    let (spool, signing_key) = (request.spool.clone(), request.signing_key.clone());
    let report = engine::backup::run(request, holder, Arc::<Teller>::clone(teller)).await.map_err(unguarded)?;
    for warning in &report.warnings {
        output::say(&format!("warning: {warning}"));
    }
    let id = match (report.code, &report.committed[..]) {
        // Perhaps of another cluster: it may be no way back at all.
        (_, [committed, ..]) if committed.manifest.unconfirmed.is_some() => {
            let accept = report.next.clone().unwrap_or_default();
            return Err(unguarded(
                Failure::failed("the backup is unconfirmed: it may be of another cluster than the ones before it")
                    .cause(report.warnings.join("; "))
                    .next(accept),
            ));
        }
        (Code::Ok | Code::Warnings, [committed, ..]) => committed.manifest.id,
        _ => {
            return Err(unguarded(
                Failure::failed("the members hold different data, and the backups of it are disputed").next(["lifeboat", "etcd", "hashkv"]),
            ));
        }
    };
    let request = verify::Request {
        // With several stores, one that holds the backup.
        place: report.place.clone(),
        cluster: Some(report.cluster.clone()),
        which: vec![id.to_string()],
        all: false,
        rung: Rung::Read,
        opening: Opening::default(),
        signing_key,
        spool,
    };
    let verified = verify::run(request, Arc::<Teller>::clone(teller)).await.map_err(unguarded)?;
    for warning in &verified.warnings {
        output::say(&format!("warning: {warning}"));
    }
    verified.failure().map_or(Ok(report), |failure| Err(unguarded(failure)))
}

/// What happened, and the command that brings the state before it back.
fn way_back(report: &Report, status: ExitStatus) -> Failure {
    let ended = match status.code() {
        Some(code) => format!("the command ended with exit code {code}"),
        None => format!("the command was ended by a signal ({status})"),
    };
    let Some(committed) = report.committed.first() else { return Failure::failed(ended) };
    let manifest = &committed.manifest;
    let mut restore = report.place.cluster_command(&["restore", manifest.id.suffix()], &report.cluster);
    restore.extend(passphrase::flag(manifest).split_whitespace().map(str::to_owned));
    restore.extend(output::restore_target(manifest).iter().map(|word| (*word).to_owned()));
    Failure::failed(ended)
        .object(format!("backup {} of '{}', revision {}", manifest.id, report.cluster, manifest.revision))
        .cause("that is the state before the command; look first what the command changed, a restore takes back everything since")
        .next(restore)
}

/// Whether a shell would find the program.
fn find(program: &OsStr) -> Outcome<()> {
    let runs = |path: &Path| path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0);
    let found = if program.as_bytes().contains(&b'/') {
        runs(Path::new(program))
    } else {
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|directory| runs(&directory.join(program))))
    };
    if found {
        return Ok(());
    }
    Err(Failure::usage("there is no such command, so nothing was done")
        .object(program.to_string_lossy())
        .cause("it is neither a file that can be run nor a name in PATH; a shell's own words need 'sh -c'")
        .again())
}
