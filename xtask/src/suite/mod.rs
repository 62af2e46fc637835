//! `cargo xtask test`: every check and every test, and a last line that says how many ran.
//!
//! Order: the checks that need no server (source rules, formatting, lints) and compiling, while the peers are fetched; then unit tests, the crates'
//! integration and documentation tests, and end to end on real etcd. Full logs go to `target/test-logs/`; the terminal gets a line per test binary and every failure in full.
//!
//! Tests talk to this program through lines on their output:
//! `MATRIX: <etcd version> <test name> ok` and `SKIPPED: <what and why>`.

mod again;
mod options;
mod parse;
mod phases;
mod summary;

use std::process::ExitCode;
use std::sync::mpsc;

use anyhow::{Context, Result, anyhow};

use crate::peers::{self, Peers};
use crate::{tidy, workspace};
use options::Options;
use summary::Summary;

/// The `test` subcommand.
pub(crate) fn command(args: &[String]) -> Result<ExitCode> {
    let options = Options::parse(args)?;
    let logs = workspace::logs_dir();
    if logs.exists() {
        std::fs::remove_dir_all(&logs).with_context(|| format!("cannot remove {}", logs.display()))?;
    }
    std::fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
    let mut summary = Summary::default();

    let peers = fetch_in_background();
    summary.gate("tidy", tidy::findings()?);
    for phase in phases::before_peers() {
        phase.run(&options, &mut summary)?;
    }
    let peers = match peers.recv() {
        Ok(found) => found.unwrap_or_else(|error| {
            summary.note(format!("peers: {error:#}"));
            Peers::default()
        }),
        Err(_) => return Err(anyhow!("the thread that fetches peers died")),
    };
    for missing in &peers.missing {
        summary.note(format!("{}: {}", missing.name, missing.why));
    }
    for phase in phases::with_peers(&options, &peers, &mut summary) {
        phase.run(&options, &mut summary)?;
    }
    for version in &options.require_etcd {
        if peers.path(&format!("etcd-{version}")).is_none() {
            summary.gate("require-etcd", vec![format!("etcd {version} is required and could not be had")]);
        } else if options.filter.is_empty() && !summary.ran_on(version) {
            summary.gate("require-etcd", vec![format!("etcd {version} is required and no test ran on it")]);
        }
    }
    print!("{}", summary.closing());
    Ok(if summary.passed_all() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn fetch_in_background() -> mpsc::Receiver<Result<Peers>> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let peers = peers::obtain(&|line| println!("peers: {line}"));
        drop(send.send(peers));
    });
    receive
}
