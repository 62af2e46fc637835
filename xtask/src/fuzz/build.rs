//! Compiling the fuzzer: with coverage where there is a nightly toolchain, else without.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{process, workspace};

/// What libFuzzer is told by: a counter per edge, the table of their places, and what was compared with what. The unstable part is the sanitizer,
/// which notices a bad access in the C code and in dependencies, and any allocation beyond the limit.
const COVERAGE_FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Zsanitizer=address";

/// What chooses the next input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guidance {
    /// libFuzzer, by the code that inputs reach.
    Coverage,
    /// Nothing: mutations of the seeds.
    None,
}

/// A program that runs any target.
#[derive(Debug)]
pub(super) struct Fuzzer {
    pub(super) program: PathBuf,
    pub(super) guidance: Guidance,
}

/// Builds the best fuzzer that this machine's toolchains allow, and says which.
pub(super) fn build(say: &dyn Fn(&str)) -> Result<Fuzzer> {
    let Some(toolchain) = nightly() else {
        say(
            "no nightly Rust is installed: mutations of the seeds, without coverage. For libFuzzer: rustup toolchain install nightly --profile minimal",
        );
        let program = compile(cargo_command(), &["--no-default-features", "--bin", "mutate"], "release/mutate")?;
        return Ok(Fuzzer { program, guidance: Guidance::None });
    };
    say(&format!("libFuzzer and AddressSanitizer, built by {toolchain}"));
    let host = host()?;
    let mut cargo = Command::new("rustup");
    // What the cargo that runs us has set is about its own toolchain.
    cargo.args(["run", &toolchain, "cargo"]).env_remove("CARGO").env_remove("RUSTC").env_remove("RUSTUP_TOOLCHAIN");
    cargo.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", COVERAGE_FLAGS);
    // A target is named so that build scripts and macros are compiled without all this.
    let program = compile(cargo, &["--bin", "fuzz", "--target", &host], &format!("{host}/release/fuzz"))?;
    Ok(Fuzzer { program, guidance: Guidance::Coverage })
}

fn cargo_command() -> Command {
    Command::new(workspace::cargo())
}

fn compile(mut cargo: Command, args: &[&str], program: &str) -> Result<PathBuf> {
    let directory = workspace::root().join("fuzz");
    // Apart from the product's own, which other flags made.
    let target = workspace::cargo_target_dir().join("fuzz");
    cargo.args(["build", "--release", "--quiet"]).args(args);
    let status = cargo.current_dir(&directory).env("CARGO_TARGET_DIR", &target).status().context("cannot run cargo")?;
    if !status.success() {
        bail!("the fuzz targets do not compile: {}", process::describe(&cargo));
    }
    Ok(target.join(program))
}

/// The first nightly toolchain that rustup has.
fn nightly() -> Option<String> {
    let list = process::output(Command::new("rustup").args(["toolchain", "list"])).ok()?;
    first_nightly(&list)
}

fn first_nightly(list: &str) -> Option<String> {
    list.lines().filter_map(|line| line.split_whitespace().next()).find(|name| name.starts_with("nightly")).map(str::to_owned)
}

fn host() -> Result<String> {
    let version = process::output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV does not say what machine this is")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nightly_is_found_among_toolchains() {
        let list = "stable-x86_64-unknown-linux-gnu (active, default)\nnightly-2026-05-19-x86_64-unknown-linux-gnu\n1.95.0\n";
        assert_eq!(first_nightly(list).as_deref(), Some("nightly-2026-05-19-x86_64-unknown-linux-gnu"));
        assert_eq!(first_nightly("stable\n"), None);
    }
}
