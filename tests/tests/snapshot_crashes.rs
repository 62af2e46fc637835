//! `lifeboat snapshot` ended at every durable step, with and without forgetting what was not yet on the disk: a file is the older one or the new one,
//! a data directory has no member or the whole one (design promise 5; part 9, "Crash").
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lifeboat_tests::{EtcdCluster, Lifeboat, Run, peers};

const CRASHED: i32 = 137;
/// Neither verb has this many durable steps on a small database; a test that gets here has lost its way.
const TOO_MANY: u32 = 500;

/// How a run ends: before a step or after it, and what is forgotten.
const WAYS: [(&str, Option<&str>); 4] = [
    ("LIFEBOAT_CRASH_AT", None),
    ("LIFEBOAT_CRASH_AT", Some("1")),
    ("LIFEBOAT_CRASH_AFTER", Some("content")),
    ("LIFEBOAT_CRASH_AFTER", Some("names")),
];

/// Runs a command in every way once for each of its steps, ending there, until it ends by itself.
fn at_every_step(what: &str, mut command: impl FnMut() -> Run, mut check: impl FnMut(&str, bool)) {
    for (variable, forget) in WAYS {
        for step in 1.. {
            assert!(step < TOO_MANY, "more than {TOO_MANY} steps");
            let mut run = command().env(variable, step.to_string());
            if let Some(forget) = forget {
                run = run.env("LIFEBOAT_CRASH_FORGET", forget);
            }
            let finished = run.run();
            let crashed = finished.code() == Some(CRASHED);
            assert!(crashed || finished.code() == Some(0), "{variable}={step} {forget:?}: {finished}");
            check(&format!("{what}, {variable}={step} {forget:?}"), crashed);
            if !crashed {
                println!("{what}, {variable} {forget:?}: {} steps", step - 1);
                assert!(step > 5);
                break;
            }
        }
    }
}

/// A small snapshot of the newest etcd there is, beside its cluster.
fn snapshot(dir: &Path) -> Option<(EtcdCluster, PathBuf)> {
    let Some(version) = lifeboat_tests::versions().into_iter().next_back() else {
        peers::skipped("snapshot_crashes: no etcd");
        return None;
    };
    let cluster = EtcdCluster::single(version);
    for n in 0..5 {
        drop(cluster.etcdctl(["put", &format!("k{n}"), "v"]));
    }
    let file = dir.join("snapshot.db");
    cluster.snapshot(0, &file);
    Some((cluster, file))
}

/// Every file below a directory with its content, but for building sites that were left.
fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with(".lifeboat-") {
                continue;
            }
            if path.is_dir() {
                waiting.push(path);
            } else {
                files.insert(path.strip_prefix(dir).unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

#[test]
fn a_saved_file_is_the_older_one_or_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let Some((cluster, older)) = snapshot(dir.path()) else { return };
    drop(cluster.etcdctl(["put", "later", "v"]));
    let lifeboat = Lifeboat::with_crash_points();
    let file = dir.path().join("target.db");
    let before = std::fs::read(&older).unwrap();
    std::fs::write(&file, &before).unwrap();
    at_every_step(
        "save",
        || lifeboat.cmd(["snapshot", "save"]).args(cluster.member_flags(0)).arg(&file),
        |at, crashed| {
            let after = std::fs::read(&file).unwrap_or_else(|error| panic!("{at}: {error}"));
            assert!(crashed || after != before, "{at}");
            if after != before {
                let described = lifeboat.run(["snapshot", "status", "-w", "json", &file.to_string_lossy()]).ok().json();
                assert_eq!((described["trailer"].as_str(), described["totalKey"].as_u64()), (Some("match"), Some(6)), "{at}");
                std::fs::write(&file, &before).unwrap();
            }
        },
    );
}

#[test]
fn a_restored_member_is_whole_or_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let Some((cluster, file)) = snapshot(dir.path()) else { return };
    drop(cluster);
    let lifeboat = Lifeboat::with_crash_points();
    let whole = dir.path().join("whole");
    let restore = |data_dir: &Path| lifeboat.cmd(["snapshot", "restore", "--data-dir"]).arg(data_dir).arg(&file);
    drop(restore(&whole).run().ok());
    let whole = tree(&whole);
    let target = dir.path().join("etcd");
    at_every_step(
        "restore",
        || restore(&target),
        |at, crashed| {
            let there = tree(&target);
            assert!(there == whole || (crashed && there.is_empty()), "{at}: {:?}", there.keys());
            // Whatever was left behind, the same command does it now. Once is enough: what was forgotten leaves less in the way.
            if there.is_empty() && at.ends_with("None") {
                drop(restore(&target).run().ok());
                assert!(tree(&target) == whole, "{at}");
            }
            // Gone already where the machine forgot that it was ever made.
            if target.exists() {
                std::fs::remove_dir_all(&target).unwrap();
            }
        },
    );
}

/// With a log elsewhere two names change: the log is there first, so no member is ever without one.
#[test]
fn a_restored_member_is_never_without_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let Some((cluster, file)) = snapshot(dir.path()) else { return };
    drop(cluster);
    let lifeboat = Lifeboat::with_crash_points();
    let (target, log) = (dir.path().join("etcd"), dir.path().join("log/wal"));
    let restore = || lifeboat.cmd(["snapshot", "restore", "--data-dir"]).arg(&target).arg("--wal-dir").arg(&log).arg(&file);
    drop(restore().run().ok());
    let (whole, whole_log) = (tree(&target), tree(&log));
    let clear = || {
        for dir in [&target, &log] {
            let _ = std::fs::remove_dir_all(dir);
        }
    };
    clear();
    at_every_step("restore --wal-dir", restore, |at, crashed| {
        let (member, log) = (tree(&target), tree(&log));
        assert!(member.is_empty() || (member == whole && log == whole_log), "{at}");
        assert!(crashed || !member.is_empty(), "{at}");
        clear();
    });
}
