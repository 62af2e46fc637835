//! Ended at every durable step, with and without forgetting what was not yet on the disk: a backup leaves nothing half-listed, a restore leaves the old
//! data directory or the new one, a verification no mark that is not true (design promises 1, 3, 5 and 8; part 9, "Crash").
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use etcd_api::PutRequest;
use lifeboat_tests::{EtcdCluster, EtcdVersion, Job, Run};
use secrecy::ExposeSecret;
use vault::sign::SigningKey;

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

/// Runs a command once for each of its steps, ending there, until it ends by itself with `code`. Returns how many steps there are.
fn at_every_step(way: (&str, Option<&str>), code: i32, mut command: impl FnMut(u32) -> Run, mut check: impl FnMut(u32, bool)) -> u32 {
    for step in 1..TOO_MANY {
        let mut run = command(step).env(way.0, step.to_string());
        if let Some(forget) = way.1 {
            run = run.env("LIFEBOAT_CRASH_FORGET", forget);
        }
        let finished = run.run();
        let crashed = finished.code() == Some(CRASHED);
        assert!(crashed || finished.code() == Some(code), "step {step}: {finished}");
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
            0,
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
            0,
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

/// A repository with a sound backup and a damaged one, and a key that signs marks.
struct Verified {
    job: Job,
    key: PathBuf,
    public: String,
    sound: String,
    damaged: String,
}

impl Verified {
    fn new(version: EtcdVersion) -> Self {
        let job = Job::with_crash_points();
        let signing = SigningKey::generate().unwrap();
        let key = job.dir().join("sign.key");
        std::fs::write(&key, signing.to_file().unwrap().expose_secret()).unwrap();
        let cluster = small_cluster(version);
        let made = || {
            let done = job.backup_cmd(&cluster.client_flags()).arg("--signing-key").arg(&key).run().ok();
            done.out().split_whitespace().nth(1).expect("`backup <id> of ...`").to_owned()
        };
        let (sound, damaged) = (made(), made());
        let object = job.repository().join("prod/snapshots").join(&damaged).join("db.zst.age");
        let mut bytes = std::fs::read(&object).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&object, bytes).unwrap();
        Self { public: signing.public().to_line(), job, key, sound, damaged }
    }

    fn verify(&self) -> Run {
        let spool = self.job.dir().join("spool");
        let run = self.job.cmd("verify").args(["--all", "--deep", "--spool-reserve", "0", "--trusted-signer", &self.public]);
        run.arg("--signing-key").arg(&self.key).arg("-i").arg(self.job.identity()).arg("--spool-dir").arg(spool)
    }

    /// Rung and failure of both, as whoever trusts the key sees them.
    fn proven(&self) -> (String, String) {
        let listed = self.job.cmd("list").args(["-o", "json", "--trusted-signer", &self.public]).run().ok().json();
        let backups = listed["clusters"][0]["backups"].as_array().unwrap().clone();
        assert_eq!(backups.len(), 2);
        assert!(backups.iter().all(|backup| backup["incomplete"] == false && backup["counts"] == true), "{listed}");
        let of = |id: &str| {
            let proven = &backups.iter().find(|backup| backup["id"] == id).unwrap()["proven"];
            format!("{}{}", proven["rung"].as_str().unwrap(), if proven["failed"] == true { " failed" } else { "" })
        };
        (of(&self.sound), of(&self.damaged))
    }

    fn marks(&self) -> PathBuf {
        self.job.repository().join("prod/marks")
    }

    /// Each mark is whole, states what is so, and has its signature.
    fn assert_true(&self, marks: &BTreeMap<PathBuf, Vec<u8>>, at: &str) {
        for (path, bytes) in marks.iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension == "json")) {
            let mark: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{at}: {error}"));
            let (target, result) = (mark["target"].as_str().unwrap(), mark["data"]["result"].as_str().unwrap());
            assert_eq!(result, if target == self.damaged { "failed" } else { "passed" }, "{at}: {mark}");
            assert!(path.with_extension("json.minisig").exists(), "{at}: a mark without its signature");
        }
    }
}

/// Every file below a directory with its content.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                found.insert(path.clone(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn a_verification_that_ends_anywhere_loses_nothing_and_states_nothing_false() {
    let Some(version) = newest() else { return };
    let bench = Verified::new(version);
    let before = files(&bench.job.repository());
    for way in WAYS {
        let _ = std::fs::remove_dir_all(bench.marks());
        assert_eq!(bench.proven(), ("stored".to_owned(), "stored".to_owned()));
        let steps = at_every_step(
            way,
            20,
            |_| bench.verify(),
            |step, crashed| {
                let (marks, rest): (BTreeMap<_, _>, BTreeMap<_, _>) =
                    files(&bench.job.repository()).into_iter().partition(|(path, _)| path.starts_with(bench.marks()));
                assert!(rest == before, "step {step} of {way:?}: something else changed");
                bench.assert_true(&marks, &format!("step {step} of {way:?}"));
                // What is on record is what was found; a run that was cut off has left no record, or the one.
                let proven = bench.proven();
                assert!(matches!(proven.0.as_str(), "stored" | "deep"), "step {step} of {way:?}: {proven:?}");
                assert!(matches!(proven.1.as_str(), "stored" | "stored failed" | "read failed"), "step {step} of {way:?}: {proven:?}");
                assert!(crashed || (proven.0 == "deep" && proven.1.ends_with("failed")), "step {step} of {way:?}: {proven:?}");
                // In the first way every run begins without a record, in the others with what those before it left.
                if way == WAYS[0] {
                    let _ = std::fs::remove_dir_all(bench.marks());
                }
            },
        );
        println!("verify, {way:?}: {steps} steps");
        assert!(steps > 5);
    }
}
