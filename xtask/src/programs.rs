//! `cargo xtask demo`, `bench` and `talos-double`: programs of the packages `lifeboat-tests` and `talos-double`, with the peers they need.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::peers;
use crate::workspace;

/// The main job, on the newest etcd of this list that can be had.
pub(crate) fn demo() -> Result<ExitCode> {
    let json = workspace::peers_dir().join("demo.json");
    one_etcd(&["3.6", "3.5", "3.4"], &json)?;
    run("demo", &json, &[], &[])
}

/// Stands in for Talos nodes until Ctrl-C, on the etcd that the arguments name or the newest that Talos 1.13 could run.
pub(crate) fn talos_double(args: &[String]) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    const PROGRAM: &str = "talos-double";
    let named = args.iter().position(|arg| arg == "--etcd").and_then(|at| args.get(at + 1));
    let json = workspace::peers_dir().join("talos-double.json");
    let version = match named {
        Some(version) => one_etcd(&[version], &json)?,
        None => one_etcd(&["3.6", "3.5"], &json)?,
    };
    cargo(&["build", "--quiet", "--package", PROGRAM, "--bin", PROGRAM], &[])?;
    let mut command = Command::new(workspace::cargo_target_dir().join("debug").join(PROGRAM));
    command.args(args).env("LIFEBOAT_PEERS", &json);
    if named.is_none() {
        command.args(["--etcd", version]);
    }
    // In place of this program, so that Ctrl-C goes to the double alone and the prompt returns when it has ended its etcds.
    Err(command.exec()).context("cannot run talos-double")
}

/// Obtains the first of these minor versions of etcd that can be had; which one.
fn one_etcd<'a>(minors: &[&'a str], json: &Path) -> Result<&'a str> {
    for minor in minors {
        let wanted = format!("etcd-{minor}");
        let found = peers::obtain_some(|name| name == wanted, json, &|line| println!("{line}"))?;
        match found.missing.first() {
            None if found.path(&wanted).is_some() => return Ok(minor),
            None => println!("{wanted}: not one of the versions known here"),
            Some(missing) => println!("{}: {}", missing.name, missing.why),
        }
    }
    bail!("no etcd could be had of {}", minors.join(", "));
}

/// Measures with optimised binaries, beside the peers.
pub(crate) fn bench(args: &[String]) -> Result<ExitCode> {
    let found = peers::obtain(&|line| println!("{line}"))?;
    for missing in &found.missing {
        println!("{}: {}", missing.name, missing.why);
    }
    run("bench", &workspace::peers_json(), &["--release"], args)
}

fn run(program: &str, peers: &Path, profile: &[&str], args: &[String]) -> Result<ExitCode> {
    cargo(&["build", "--quiet", "--package", "lifeboat", "--bin", "lifeboat"], profile)?;
    cargo(&["build", "--quiet", "--package", "lifeboat-tests", "--bin", program], profile)?;
    let bins = workspace::cargo_target_dir().join(if profile.is_empty() { "debug" } else { "release" });
    let status = Command::new(bins.join(program))
        .args(args)
        .env("LIFEBOAT_PEERS", peers)
        .env("LIFEBOAT_TEST_BIN", bins.join("lifeboat"))
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn cargo(args: &[&str], profile: &[&str]) -> Result<()> {
    let status =
        Command::new(workspace::cargo()).args(args).args(profile).current_dir(workspace::root()).status().context("cannot run cargo")?;
    if status.success() { Ok(()) } else { bail!("cargo {} failed", args.join(" ")) }
}
