//! `cargo xtask demo` and `cargo xtask bench`: programs of the package `lifeboat-tests`, with the peers they need.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::peers;
use crate::workspace;

/// The main job, on the newest etcd of this list that can be had.
pub(crate) fn demo() -> Result<ExitCode> {
    let json = workspace::peers_dir().join("demo.json");
    let etcd = ["etcd-3.6", "etcd-3.5", "etcd-3.4"];
    for wanted in etcd {
        let found = peers::obtain_some(|name| name == wanted, &json, &|line| println!("{line}"))?;
        match found.missing.first() {
            None => return run("demo", &json, &[], &[]),
            Some(missing) => println!("{}: {}", missing.name, missing.why),
        }
    }
    bail!("no etcd could be had; the demo needs one of {}", etcd.join(", "));
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
