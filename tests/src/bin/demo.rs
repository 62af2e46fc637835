//! The main job on a real etcd, as a person would do it, in under a minute. Run by `cargo xtask demo`; everything is gone afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a demonstration prints, and a panic is how it fails")]

use std::ffi::OsStr;
use std::path::Path;
use std::time::Instant;

use etcd_api::{KeyRange, PutRequest, WatchRequest};
use etcd_store::id::Revision;
use lifeboat_tests::matrix::block_on;
use lifeboat_tests::{ClusterPlan, EtcdCluster, Lifeboat, Options, Run, Workload, dump_all, versions};

fn main() {
    let Some(version) = versions().into_iter().next_back() else {
        println!("no etcd could be had; `cargo xtask peers` says why");
        std::process::exit(1);
    };
    let started = Instant::now();
    block_on(demo(version));
    println!(
        "\nDone in {:.0} s; nothing is left running, and the files are gone with their temporary directory.",
        started.elapsed().as_secs_f64()
    );
    println!(
        "Where to look next: `lifeboat --help`, README.md, docs/format.md, and `cargo xtask test`, which does this and much more on etcd 3.4 to 3.7."
    );
}

fn title(text: &str) {
    println!("\n== {text}");
}

/// Runs a command, shows it and what it says, and insists on exit 0.
fn show(run: Run, words: &[&OsStr]) -> String {
    let line: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    println!("$ lifeboat {}", line.join(" "));
    let finished = run.args(words).run().ok();
    for text in [finished.err(), finished.out()] {
        text.lines().for_each(|line| println!("  {line}"));
    }
    finished.out()
}

async fn demo(version: lifeboat_tests::EtcdVersion) {
    let lifeboat = Lifeboat::new();
    let home = lifeboat.home().to_owned();
    let (repository, identity, config) = (home.join("repository"), home.join("recovery.key"), home.join("lifeboat.yaml"));
    let say = |words: &[&str]| {
        let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        show(lifeboat.cmd::<&str>([]), &words)
    };

    title(&format!("A real etcd {version} with Kubernetes-like data"));
    let cluster = EtcdCluster::start(version, Options::default());
    let client = cluster.client(0).await;
    let applied = Workload::medium(1).apply(&client).await;
    println!("  {} live keys at revision {}", applied.live.len(), applied.revision);

    title("Set up: finds the cluster, makes keys and a repository, writes the configuration");
    let (config_arg, identity_arg) = (config.display().to_string(), identity.display().to_string());
    let repository_arg = format!("file://{}", repository.display());
    let endpoints = cluster.endpoint(0);
    say(&[
        "init",
        "--config",
        &config_arg,
        "--cluster",
        "demo",
        "--endpoints",
        &endpoints,
        "--repo",
        &repository_arg,
        "--identity-out",
        &identity_arg,
    ]);

    title("Back up, write, back up again");
    say(&["backup", "--config", &config_arg]);
    for n in 0..50 {
        let key = format!("/registry/configmaps/default/written-later-{n}");
        drop(client.put(PutRequest::new(key, "{\"kind\":\"ConfigMap\"}")).await.unwrap());
    }
    let before = dump_all(&client).await;
    say(&["backup", "--config", &config_arg]);
    say(&["list", "--config", &config_arg]);
    say(&["verify", "latest", "--deep", "--config", &config_arg, "-i", &identity_arg]);

    title("Disaster: etcd is gone, and its data directory with it");
    let lost = cluster.members()[0].data_dir().to_owned();
    drop(client);
    drop(cluster);
    assert!(!lost.exists(), "the data directory is gone");
    println!("  {} does not exist any more", lost.display());

    title("Restore, and start etcd on what was made");
    let plan = ClusterPlan::new(1).token("demo");
    let (member, data_dir) = (&plan.members()[0], plan.members()[0].data_dir.display().to_string());
    let (name, peer) = (member.name.clone(), member.peer_url());
    say(&[
        "restore",
        "latest",
        "--config",
        &config_arg,
        "-i",
        &identity_arg,
        "--data-dir",
        &data_dir,
        "--name",
        &name,
        "--initial-advertise-peer-urls",
        &peer,
    ]);
    let cluster = EtcdCluster::boot(version, plan, Options::default().token("demo"));
    let client = cluster.client(0).await;
    let after = dump_all(&client).await;
    before.assert_same_live(&after);
    println!("  etcd runs; all {} keys are there, each with its value, create and mod revision, version and lease", after.live.len());

    title("A watch from the lost future is told to list again");
    let from = Revision(before.revision + 1);
    let mut watch = client.watch(WatchRequest { start_revision: Some(from), ..WatchRequest::new(KeyRange::all()) }).await.unwrap();
    let told = watch.next().await.expect_err("the watch is refused");
    println!("  watch from revision {from}: {}", told.kind());

    title("Proof: a scratch etcd from the backup, and its HashKV beside the one that was recorded");
    try_latest(&lifeboat, &config, &identity);
}

fn try_latest(lifeboat: &Lifeboat, config: &Path, identity: &Path) {
    let etcd = versions().into_iter().next_back().expect("there is one").etcd();
    let words =
        [OsStr::new("try"), OsStr::new("latest"), OsStr::new("--config"), config.as_os_str(), OsStr::new("-i"), identity.as_os_str()];
    let words: Vec<&OsStr> =
        words.into_iter().chain([OsStr::new("--etcd"), etcd.as_os_str(), OsStr::new("--"), OsStr::new("true")]).collect();
    show(lifeboat.cmd::<&str>([]), &words);
}
