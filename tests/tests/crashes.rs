//! Ended at every durable step, with and without forgetting what was not yet on the disk: a backup leaves nothing half-listed, a restore leaves the old
//! data directory or the new one (design promises 1, 3 and 5; part 9, "Crash").
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::path::{Path, PathBuf};

use etcd_api::PutRequest;
use lifeboat_tests::{EtcdCluster, EtcdVersion, Job, Run};

const CRASHED: i32 = 137;
/// No verb has this many durable steps on a small database; a test that gets here has lost its way.
const TOO_MANY: u32 = 2_000;

/// One way to end: before the step or after it, and what is forgotten.
const WAYS: [(&str, Option<&str>); 4] = [
    ("LIFEBOAT_CRASH_AT", None),
    ("LIFEBOAT_CRASH_AT", Some("1")),
    ("LIFEBOAT_CRASH_AFTER", Some("content")),
    ("LIFEBOAT_CRASH_AFTER", Some("names")),
];

/// Runs a command once for each of its steps, ending there, until it ends by itself. Returns how many steps there are.
fn at_every_step(way: (&str, Option<&str>), mut command: impl FnMut(u32) -> Run, mut check: impl FnMut(u32, bool)) -> u32 {
    for step in 1..TOO_MANY {
        let mut run = command(step).env(way.0, step.to_string());
        if let Some(forget) = way.1 {
            run = run.env("LIFEBOAT_CRASH_FORGET", forget);
        }
        let finished = run.run();
        let crashed = finished.code() == Some(CRASHED);
        assert!(crashed || finished.code() == Some(0), "step {step}: {finished}");
        check(step, crashed);
        if !crashed {
            return step - 1;
        }
    }
    panic!("more than {TOO_MANY} steps");
}

fn newest() -> Option<EtcdVersion> {
    let version = lifeboat_tests::versions().into_iter().next_back();
    if version.is_none() {
        lifeboat_tests::peers::skipped("crash tests: no etcd");
    }
    version
}

fn small_cluster(version: EtcdVersion) -> EtcdCluster {
    let cluster = EtcdCluster::single(version);
    lifeboat_tests::matrix::block_on(async {
        let client = cluster.client(0).await;
        for n in 0..20 {
            drop(client.put(PutRequest::new(format!("/registry/pods/default/p{n}"), format!("value {n}"))).await.unwrap());
        }
    });
    cluster
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_backup_that_ends_anywhere_leaves_nothing_half_listed() {
    let Some(version) = newest() else { return };
    let job = Job::with_crash_points();
    let cluster = small_cluster(version);
    drop(job.backup(&cluster));
    let mut listed = job.list().len();
    for way in WAYS {
        let steps = at_every_step(
            way,
            |_| job.backup_cmd(&cluster.client_flags()),
            |step, crashed| {
                let now = job.list();
                // The manifest is one step: a run that ended there may have committed, and then all of it is there.
                assert!(now.len() == listed || now.len() == listed + 1, "step {step} of {way:?}: {} backups, {listed} before", now.len());
                if !crashed {
                    assert_eq!(now.len(), listed + 1);
                }
                listed = now.len();
                assert!(now.iter().all(|backup| backup["incomplete"] == false), "step {step} of {way:?}: {now:?}");
            },
        );
        println!("backup, {way:?}: {steps} steps");
        assert!(steps > 5);
    }
    // Everything listed restores: the newest and the oldest stand for all, which were made alike.
    for backup in [job.list().first().unwrap(), job.list().last().unwrap()] {
        let out = job.dir().join(format!("{}.db", backup["id"].as_str().unwrap()));
        drop(job.restore_cmd().arg(backup["id"].as_str().unwrap()).arg("--no-bump").arg("--snapshot-file").arg(out).run().ok());
    }
}

#[test]
fn a_restore_that_ends_anywhere_leaves_the_old_data_or_the_new() {
    let Some(version) = newest() else { return };
    let job = Job::with_crash_points();
    let cluster = small_cluster(version);
    drop(job.backup(&cluster));
    drop(cluster);
    let old = job.dir().join("old");
    std::fs::create_dir_all(old.join("member/snap")).unwrap();
    std::fs::write(old.join("member/snap/db"), "the old database").unwrap();

    for way in WAYS {
        let mut target = PathBuf::new();
        let mut count = 0;
        let steps = at_every_step(
            way,
            |step| {
                target = job.dir().join(format!("target-{}-{}-{step}", way.0, way.1.unwrap_or("none")));
                copy_tree(&old, &target);
                job.restore_cmd().args(["latest", "--replace", "--confirm", "prod", "--data-dir"]).arg(&target)
            },
            |step, crashed| {
                // A step may lie beside the target (the mark in the repository): what counts is that `member` is one or the other, whole.
                let database = std::fs::read(job_member(&job, way, step).join("snap/db")).expect("there is always a member");
                let is_old = database == b"the old database";
                if !is_old {
                    assert_whole(&job_member(&job, way, step));
                    let kept = find_old(&job_target(&job, way, step));
                    assert!(kept, "step {step} of {way:?}: the old data is nowhere");
                }
                assert!(crashed || !is_old);
                count += 1;
                std::fs::remove_dir_all(job_target(&job, way, step)).unwrap();
            },
        );
        println!("restore, {way:?}: {steps} steps, {count} ends looked at");
        assert!(steps > 10);
    }
}

fn job_target(job: &Job, way: (&str, Option<&str>), step: u32) -> PathBuf {
    job.dir().join(format!("target-{}-{}-{step}", way.0, way.1.unwrap_or("none")))
}

fn job_member(job: &Job, way: (&str, Option<&str>), step: u32) -> PathBuf {
    job_target(job, way, step).join("member")
}

/// The new member is complete: a sound database, a log and a raft snapshot.
fn assert_whole(member: &Path) {
    let database = bbolt::Database::open(etcd_store::DatabaseFile::open(member.join("snap/db")).unwrap()).unwrap();
    let inspection = etcd_store::inspect(&database, &etcd_store::Options::default()).unwrap();
    assert_eq!(inspection.user_keys(), 20);
    let summary = etcd_store::wal::summarize(&member.join("wal")).unwrap();
    assert!(summary.node.is_some() && summary.snapshot.is_some());
}

/// Whether the old database lies somewhere below the target.
fn find_old(target: &Path) -> bool {
    let mut waiting = vec![target.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if std::fs::read(&path).unwrap() == b"the old database" {
                return true;
            }
        }
    }
    false
}
