//! `cargo xtask fuzz`: the targets of `fuzz/`, one after another, each for a while.
//!
//! With a nightly toolchain they run under libFuzzer and AddressSanitizer, guided by coverage; without one, the same functions run over seeds and
//! mutations of them. What it keeps lies in `target/fuzz`: a corpus per target, which the next run begins with, a log, and findings, which every
//! later run tries first until they are mended.

mod build;
mod output;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::build::{Fuzzer, Guidance};
use self::output::Outcome;
use crate::{process, workspace};

/// Seconds per target unless told otherwise.
const SECONDS: u64 = 60;
/// An input that takes longer is a finding.
const LONGEST_INPUT: &str = "25";
/// Memory of the whole program, in MiB. AddressSanitizer keeps some of what was freed.
const MEMORY_MIB: &str = "2048";
/// One allocation, in MiB: far above every limit that a small input may reach.
const ALLOCATION_MIB: &str = "300";
/// How much longer than its time a target may take in all, reading the corpus and ending included.
const GRACE: Duration = Duration::from_secs(300);

#[derive(Debug, PartialEq, Eq)]
struct Options {
    seconds: u64,
    list: bool,
    targets: Vec<String>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self { seconds: SECONDS, list: false, targets: Vec::new() };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--list" => options.list = true,
                "--seconds" => {
                    let value = args.next().context("--seconds wants a number")?;
                    options.seconds =
                        value.parse().ok().filter(|n| *n > 0).with_context(|| format!("--seconds wants a number, got {value:?}"))?;
                }
                flag if flag.starts_with('-') => bail!("fuzz takes --seconds N, --list and names of targets, got {flag:?}"),
                name => options.targets.push(name.to_owned()),
            }
        }
        Ok(options)
    }
}

/// A target as the built program lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    name: String,
    max_len: String,
    covers: String,
}

/// The `fuzz` subcommand.
pub(crate) fn command(args: &[String]) -> Result<ExitCode> {
    let options = Options::parse(args)?;
    let fuzzer = build::build(&|line| println!("{line}"))?;
    let targets = chosen(list(&fuzzer)?, &options.targets)?;
    if options.list {
        targets.iter().for_each(|target| println!("{:22}{}", target.name, target.covers));
        return Ok(ExitCode::SUCCESS);
    }
    println!("{:22}{:>12}{:>9}{:>8}{:>10}", "target", "executions", "per s", "corpus", "findings");
    let (mut executions, mut findings) = (0, Vec::new());
    for target in &targets {
        let outcome = run(&fuzzer, target, options.seconds)?;
        println!(
            "{:22}{:>12}{:>9}{:>8}{:>10}",
            target.name,
            outcome.executions,
            outcome.executions / options.seconds,
            outcome.corpus,
            outcome.findings.len()
        );
        executions += outcome.executions;
        for finding in outcome.findings {
            println!("  {}\n  reproduce: {}", outcome.why, reproduce(&fuzzer, target, &finding));
            findings.push(finding);
        }
    }
    println!("{} targets, {executions} executions, {} findings", targets.len(), findings.len());
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn list(fuzzer: &Fuzzer) -> Result<Vec<Target>> {
    let mut command = Command::new(&fuzzer.program);
    match fuzzer.guidance {
        Guidance::Coverage => command.env("LIFEBOAT_FUZZ_LIST", "1"),
        Guidance::None => command.arg("--list"),
    };
    let text = process::output(&mut command)?;
    let target = |line: &str| {
        let mut parts = line.splitn(3, '\t').map(str::to_owned);
        Some(Target { name: parts.next()?, max_len: parts.next()?, covers: parts.next()? })
    };
    Ok(text.lines().filter_map(target).collect())
}

/// The targets asked for, all without; a name that is none is an error that lists them.
fn chosen(all: Vec<Target>, names: &[String]) -> Result<Vec<Target>> {
    if let Some(wrong) = names.iter().find(|name| all.iter().all(|target| target.name != **name)) {
        let known: Vec<&str> = all.iter().map(|target| target.name.as_str()).collect();
        bail!("there is no target {wrong:?}; there are {}", known.join(" "));
    }
    Ok(all.into_iter().filter(|target| names.is_empty() || names.contains(&target.name)).collect())
}

fn run(fuzzer: &Fuzzer, target: &Target, seconds: u64) -> Result<Outcome> {
    let corpus = directory(&["corpus", &target.name])?;
    let findings = directory(&["findings", &target.name])?;
    let mut command = process::nice(&fuzzer.program);
    match fuzzer.guidance {
        Guidance::Coverage => {
            command
                .env("LIFEBOAT_FUZZ_TARGET", &target.name)
                .env("LIFEBOAT_FUZZ_SEEDS", &corpus)
                // Leaks are no finding in safe code, and looking for them wants rights that containers lack.
                .env("ASAN_OPTIONS", "detect_leaks=0:symbolize=0")
                .arg(format!("-max_total_time={seconds}"))
                .arg(format!("-max_len={}", target.max_len))
                .arg(format!("-timeout={LONGEST_INPUT}"))
                .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
                .arg(format!("-malloc_limit_mb={ALLOCATION_MIB}"))
                .arg(format!("-artifact_prefix={}/", findings.display()))
                .args(["-print_final_stats=1", "-detect_leaks=0"])
                .arg(&corpus)
                // What was found once is tried first, until it is mended.
                .arg(&findings);
        }
        Guidance::None => {
            command.args([&target.name, &seconds.to_string()]).arg(&findings);
        }
    }
    let log = workspace::fuzz_dir().join(format!("{}.log", target.name));
    let mut text = String::new();
    let status = process::stream(&command, Duration::from_secs(seconds) + GRACE, |line| {
        text.push_str(line);
        text.push('\n');
    })?;
    std::fs::write(&log, &text).with_context(|| format!("cannot write {}", log.display()))?;
    let mut outcome = output::read(&text);
    if fuzzer.guidance == Guidance::Coverage {
        outcome.corpus = count(&corpus)?;
    }
    match status {
        Some(status) if status.success() => {}
        _ if !outcome.findings.is_empty() => {}
        Some(status) => bail!("{}: {status} without a finding, see {}", target.name, log.display()),
        None => bail!("{}: it did not end in time, see {}", target.name, log.display()),
    }
    Ok(outcome)
}

fn directory(parts: &[&str]) -> Result<PathBuf> {
    let path = parts.iter().fold(workspace::fuzz_dir(), |path, part| path.join(part));
    std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

fn count(directory: &Path) -> Result<u64> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    Ok(entries.count() as u64)
}

/// The command that shows a finding again.
fn reproduce(fuzzer: &Fuzzer, target: &Target, finding: &str) -> String {
    let program = fuzzer.program.display();
    match fuzzer.guidance {
        Guidance::Coverage => format!("LIFEBOAT_FUZZ_TARGET={} {program} {finding}", target.name),
        Guidance::None => format!("{program} {} 1 {} {finding}", target.name, workspace::fuzz_dir().display()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn args(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_are_read_and_wrong_ones_refused() {
        let options = Options::parse(&args("--seconds 5 bbolt_read vault_mark")).unwrap();
        assert_eq!(options, Options { seconds: 5, list: false, targets: args("bbolt_read vault_mark") });
        assert_eq!(Options::parse(&[]).unwrap().seconds, SECONDS);
        for wrong in ["--seconds", "--seconds 0", "--seconds x", "--all"] {
            assert!(Options::parse(&args(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_that_is_no_target_is_refused_with_those_that_are() {
        let target = |name: &str| Target { name: name.to_owned(), max_len: "1".to_owned(), covers: String::new() };
        let all = vec![target("a"), target("b")];
        assert_eq!(chosen(all.clone(), &[]).unwrap(), all);
        assert_eq!(chosen(all.clone(), &args("b")).unwrap(), [target("b")]);
        assert!(chosen(all, &args("b c")).unwrap_err().to_string().contains("\"c\"; there are a b"));
    }
}
