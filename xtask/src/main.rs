//! `cargo xtask <command>`: everything a developer or the CI does to this project, with nothing but cargo to start from.
//!
//! - `peers` obtains the real programs that tests and benchmarks run against (etcd 3.4 to 3.7, age, zstd, minisign, promtool, S3 servers, emulators of
//!   Google's and Azure's storage …).
//! - `test` runs every check and test there is, end to end on real etcd included.
//! - `demo` shows the main job on a real etcd.
//! - `bench` measures it beside the tools it replaces.
//! - `fuzz` throws damaged input at every parser of bytes from outside.
//! - `dist` makes what is released: static programs, packages, a bill of materials.
//! - `talos-double` starts stand-ins of Talos nodes to try things on.
//! - `tidy` checks the sources for what compilers do not see.
//!
//! It depends on none of the project's crates, so that it compiles in seconds and still runs when they do not.
//! It starts no server but `talos-double`, needs root only where `apt-get` does, and leaves everything it fetches under `target/`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program for developers: printing is its output")]

mod dist;
mod fuzz;
mod peers;
mod process;
mod programs;
mod suite;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
cargo xtask <command>

  peers                     obtain etcd 3.4-3.7, age, zstd, minisign, promtool, S3 servers, emulators of Google's and Azure's storage … under target/peers
  test [options] [-- FILTER]
                            every check and test; options:
    --full                  the long ones too (soak, all version pairs, long property runs)
    --strict                a test that fails once has failed, even if it passes when run again alone
    --require-etcd A,B      fail unless these etcd versions were tested, e.g. 3.5,3.6
  demo                      the main job on a real etcd: back up, lose everything, restore, compare
  bench [--out FILE]        speed and memory beside etcdctl, etcdutl, zstd and age; FILE gets the numbers as JSON
  fuzz [options] [TARGET…]  every parser of outside bytes against damaged input, guided by coverage where a nightly Rust is installed; options:
    --seconds N             for each target, 60 without
    --list                  the targets and what they cover
  dist [--target T]         what is released, under target/dist: static musl programs (x86_64, aarch64) as tar.gz, .deb and container directory,
                            SHA256SUMS, a CycloneDX bill of materials; checked to be static and to run in an empty file system
  talos-double [options]    stand-ins of Talos nodes in front of real etcd, until Ctrl-C; --help names the options
  tidy                      source checks: file length, forbidden words, documentation links";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[String]) -> Result<ExitCode> {
    let Some((command, rest)) = args.split_first() else {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    };
    match command.as_str() {
        "peers" => {
            no_arguments(command, rest)?;
            peers::command()
        }
        "demo" => {
            no_arguments(command, rest)?;
            programs::demo()
        }
        "bench" => programs::bench(rest),
        "dist" => dist::command(rest),
        "fuzz" => fuzz::command(rest),
        "talos-double" => programs::talos_double(rest),
        "test" => suite::command(rest),
        "tidy" => {
            no_arguments(command, rest)?;
            tidy::command()
        }
        "help" | "-h" | "--help" => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        other => bail!("unknown command {other:?}\n\n{USAGE}"),
    }
}

fn no_arguments(command: &str, rest: &[String]) -> Result<()> {
    match rest.first() {
        None => Ok(()),
        Some(extra) => bail!("{command} takes no argument, got {extra:?}"),
    }
}
