//! What `cargo xtask test` runs, phase by phase.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::again;
use super::options::Options;
use super::parse::{Binary, Parser};
use super::summary::Summary;
use crate::peers::Peers;
use crate::{process, workspace};

/// A phase that takes longer hangs: it is killed and counted as failed.
const LIMIT: Duration = Duration::from_secs(45 * 60);
/// The same for `--full`, whose soak tests run for hours.
const LIMIT_FULL: Duration = Duration::from_secs(6 * 3600);
/// End-to-end tests mostly wait for servers, so a few more than there are cores run at once.
const EXTRA_THREADS: usize = 1;

/// One program run by the suite.
pub(super) struct Phase {
    /// Also the log's file name.
    name: &'static str,
    command: Command,
    /// Its output is `cargo test`'s; otherwise only the exit code counts.
    tests: bool,
    limit: Duration,
}

/// What needs no peer: compiling everything, and the checks that only read the sources.
pub(super) fn before_peers() -> Vec<Phase> {
    vec![
        component("fmt", &["fmt", "--all", "--", "--check", "-l"]),
        component("build", &["test", "--workspace", "--no-run", "--color", "never"]),
        component("clippy", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    ]
}

/// The package whose tests run real servers.
const E2E: &str = "lifeboat-tests";

/// All tests, with everything they need in their environment; end to end last.
pub(super) fn with_peers(options: &Options, peers: &Peers, summary: &mut Summary) -> Vec<Phase> {
    let mut phases = vec![tests("unit", options, &["--workspace", "--exclude", E2E, "--lib", "--bins"])];
    if any_integration_tests() {
        phases.push(tests("integration", options, &["--workspace", "--exclude", E2E, "--test", "*"]));
    }
    phases.push(tests("documentation", options, &["--workspace", "--exclude", E2E, "--doc"]));

    let threads = std::thread::available_parallelism().map_or(2, usize::from) + EXTRA_THREADS;
    let mut end_to_end = tests("end-to-end", options, &["-p", E2E, "--lib", "--tests"]);
    end_to_end.command.env("RUST_TEST_THREADS", threads.to_string());
    for (variable, features) in [("LIFEBOAT_TEST_BIN_CRASH", Some("crash-points")), ("LIFEBOAT_TEST_BIN", None)] {
        match build_binary(features) {
            Ok(path) => {
                end_to_end.command.env(variable, path);
            }
            Err(error) => summary.gate("build", vec![format!("{error:#}")]),
        }
    }
    phases.push(end_to_end);
    for phase in &mut phases {
        phase.give(peers);
        if options.full {
            phase.command.env("LIFEBOAT_TEST_FULL", "1");
        }
    }
    phases
}

/// Builds `lifeboat` and copies it aside, so that neither the other variant nor a developer's rebuild replaces it under a running test.
fn build_binary(features: Option<&str>) -> Result<PathBuf> {
    let mut command = Command::new(workspace::cargo());
    command.args(["build", "--quiet", "-p", "lifeboat", "--bin", "lifeboat"]).current_dir(workspace::root());
    if let Some(features) = features {
        command.args(["--features", features]);
    }
    process::output(&mut command)?;
    let bins = workspace::bins_dir();
    std::fs::create_dir_all(&bins).with_context(|| format!("cannot create {}", bins.display()))?;
    let copy = bins.join(features.map_or("lifeboat".to_owned(), |features| format!("lifeboat-{features}")));
    let built = workspace::cargo_target_dir().join("debug/lifeboat");
    let fresh = copy.with_extension("new");
    std::fs::copy(&built, &fresh).with_context(|| format!("cannot copy {}", built.display()))?;
    std::fs::rename(&fresh, &copy).with_context(|| format!("cannot write {}", copy.display()))?;
    Ok(copy)
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(workspace::cargo());
    command.args(arguments).current_dir(workspace::root());
    command
}

fn tests(name: &'static str, options: &Options, what: &[&str]) -> Phase {
    let mut command = cargo(&["test", "--no-fail-fast", "--color", "never"]);
    command.env("RUST_BACKTRACE", "1").args(what).arg("--").arg("--show-output").args(&options.filter);
    Phase { name, command, tests: true, limit: if options.full { LIMIT_FULL } else { LIMIT } }
}

fn component(name: &'static str, arguments: &[&str]) -> Phase {
    Phase { name, command: cargo(arguments), tests: false, limit: LIMIT }
}

/// `cargo test --test '*'` is an error when there is none.
fn any_integration_tests() -> bool {
    let Ok(crates) = std::fs::read_dir(workspace::root().join("crates")) else { return false };
    crates.flatten().any(|entry| has_rust_file(&entry.path().join("tests")))
}

fn has_rust_file(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|entries| entries.flatten().any(|entry| entry.path().extension().is_some_and(|ext| ext == "rs")))
}

/// Peers that tests find through a variable of their own.
const VARIABLES: &[(&str, &str)] = &[
    ("LIFEBOAT_TEST_AGE", "age"),
    ("LIFEBOAT_TEST_AGE_KEYGEN", "age-keygen"),
    ("LIFEBOAT_TEST_ZSTD", "zstd"),
    ("LIFEBOAT_TEST_MINISIGN", "minisign"),
    ("LIFEBOAT_TEST_S3_VERSITYGW", "versitygw"),
    ("LIFEBOAT_TEST_S3_MOTO", "moto"),
    ("LIFEBOAT_TEST_FAKE_GCS", "fake-gcs-server"),
    ("LIFEBOAT_TEST_AZURITE", "azurite"),
];

impl Phase {
    /// Tells the tests of this phase where the peers are.
    fn give(&mut self, peers: &Peers) {
        self.command.env("LIFEBOAT_PEERS", workspace::peers_json());
        for (variable, name) in VARIABLES {
            if let Some(path) = peers.path(name) {
                self.command.env(variable, path);
            }
        }
    }

    /// Runs the phase and adds what came of it to the summary. Only a failure to run anything at all is an error.
    pub(super) fn run(self, options: &Options, summary: &mut Summary) -> Result<()> {
        if !self.tests && !installed(self.name) {
            summary.skip(format!("{}: this cargo has no such component", self.name));
            return Ok(());
        }
        println!("== {}", self.name);
        let begun = Instant::now();
        let path = workspace::logs_dir().join(format!("{}.log", self.name));
        let mut log = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut parser = Parser::default();
        let mut lines = Vec::new();
        let status = process::stream(&self.command, self.limit, |line| {
            // A full disk must not stop the tests; the summary still says what happened.
            drop(writeln!(log, "{line}"));
            if !self.tests {
                lines.push(line.to_owned());
            } else if let Some(binary) = parser.line(line) {
                summary.binary(binary);
            }
        })?;
        let ok = status.is_some_and(|status| status.success());
        if status.is_none() {
            summary.gate(self.name, vec![format!("killed after {} minutes", self.limit.as_secs() / 60)]);
        }
        if self.tests {
            summary.end_of_tests(self.name, &parser, ok);
            if status.is_some() && !options.strict {
                self.look_again(&parser.binaries, &mut log, summary)?;
            }
        } else if !ok {
            summary.gate(self.name, lines);
        }
        println!("   {:.0} s, log: {}", begun.elapsed().as_secs_f64(), path.display());
        Ok(())
    }

    /// Runs the tests that failed once more, if a second look is due; see [`again`].
    fn look_again(&self, binaries: &[Binary], log: &mut File, summary: &mut Summary) -> Result<()> {
        let Some(names) = again::due(binaries) else { return Ok(()) };
        println!("   again, alone: {}", names.join(" "));
        let mut parser = Parser::default();
        let status = process::stream(&again::command(&self.command, &names), self.limit, |line| {
            drop(writeln!(log, "{line}"));
            parser.line(line);
        })?;
        if status.is_some_and(|status| status.success()) && again::all_passed(binaries, &parser.binaries, &names) {
            summary.unsteady(binaries);
        } else {
            println!("   they failed again");
        }
        Ok(())
    }
}

fn installed(component: &str) -> bool {
    Command::new(workspace::cargo())
        .args([component, "--help"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
