//! Talos nodes to try things on: starts them, writes a talosconfig, serves until stopped.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a program for developers: it prints, and ends where it cannot go on"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lifeboat_tests::EtcdVersion;
use talos_double::{Options, Profile, TalosDouble};

const USAGE: &str = "\
talos-double [options]      stands in for Talos nodes in front of real etcd, until Ctrl-C

  --control-planes N        how many control plane nodes (3)
  --workers N               how many workers (0)
  --talos 1.8|1.10|1.13|1.14  which Talos to be like (1.13)
  --etcd 3.4|3.5|3.6|3.7    which etcd (3.6)
  --quota BYTES             quota of etcd's database
  --virtual-ip              with a virtual address among the endpoints
  --etcd-partition          etcd's volume is a partition of its own
  --not-bootstrapped        nodes that wait for a bootstrap
  --talosconfig FILE        write the talosconfig there instead of into the temporary directory";

/// What the arguments ask for.
struct Wanted {
    options: Options,
    etcd: EtcdVersion,
    talosconfig: Option<PathBuf>,
}

fn main() -> ExitCode {
    let wanted = match parse(std::env::args().skip(1)) {
        Ok(Some(wanted)) => wanted,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("talos-double: {wrong}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if !wanted.etcd.available() {
        eprintln!("talos-double: etcd {} is not here; cargo xtask talos-double gets it", wanted.etcd);
        return ExitCode::FAILURE;
    }
    // Before anything is started: a signal meanwhile must not leave anything behind.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let stopped = runtime.spawn(stopped());
    let double = TalosDouble::start(wanted.options.etcd(wanted.etcd));
    let talosconfig = match wanted.talosconfig {
        None => double.talosconfig(),
        Some(copy) => {
            if let Err(error) = std::fs::copy(double.talosconfig(), &copy) {
                eprintln!("talos-double: {}: {error}", copy.display());
                return ExitCode::FAILURE;
            }
            copy
        }
    };
    announce(&double, &talosconfig);
    runtime.block_on(stopped).unwrap();
    ExitCode::SUCCESS
}

fn announce(double: &TalosDouble, talosconfig: &Path) {
    println!("nodes:");
    for node in 0..double.nodes() {
        println!("  {:<10} {}", double.hostname(node), double.node_ip(node));
    }
    if let Some(ip) = double.virtual_ip() {
        println!("  {:<10} {ip}", "(virtual)");
    }
    println!("contexts of the talosconfig: admin (default), operator, reader, etcd-backup\n");
    println!("in another shell:");
    println!("  export TALOSCONFIG={}", talosconfig.display());
    println!("  talosctl etcd members");
    println!(
        "  talosctl -n {} etcd status",
        double.control_planes().map(|node| double.node_ip(node).to_string()).collect::<Vec<_>>().join(",")
    );
    println!("  talosctl --context etcd-backup etcd snapshot db.snapshot");
    println!("\nready; Ctrl-C ends it");
}

/// Waits for SIGINT or SIGTERM.
async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    let mut interrupt = signal(SignalKind::interrupt()).unwrap();
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Wanted>, String> {
    let mut wanted = Wanted { options: Options::default().control_planes(3), etcd: EtcdVersion::V3_6, talosconfig: None };
    while let Some(flag) = arguments.next() {
        let options = wanted.options.clone();
        let mut value = || arguments.next().ok_or_else(|| format!("{flag} wants a value"));
        let number = |text: String| text.parse::<usize>().map_err(|_| format!("{flag}: '{text}' is no number"));
        wanted.options = match flag.as_str() {
            "-h" | "--help" => return Ok(None),
            "--virtual-ip" => options.virtual_ip(),
            "--etcd-partition" => options.etcd_partition(),
            "--not-bootstrapped" => options.not_bootstrapped(),
            "--control-planes" => options.control_planes(number(value()?)?.max(1)),
            "--workers" => options.workers(number(value()?)?),
            "--quota" => options.quota(number(value()?)? as u64),
            "--talos" => {
                let minor = value()?;
                options.profile(Profile::from_minor(&minor).ok_or_else(|| format!("no Talos {minor} here"))?)
            }
            "--etcd" => {
                let minor = value()?;
                let found = EtcdVersion::ALL.into_iter().find(|version| version.minor() == minor);
                wanted.etcd = found.ok_or_else(|| format!("no etcd {minor} here"))?;
                options
            }
            "--talosconfig" => {
                wanted.talosconfig = Some(PathBuf::from(value()?));
                options
            }
            _ => return Err(format!("unknown option {flag}")),
        };
    }
    Ok(Some(wanted))
}
