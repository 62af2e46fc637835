//! `lifeboat drill`: a real etcd boots from the backup and is what was backed up, the result is on record, and nothing of it is left.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lifeboat_tests::{EtcdCluster, EtcdVersion, Finished, Job, Options, Run, Workload, etcd_matrix, matrix};
use rustix::process::Signal;
use secrecy::ExposeSecret;
use serde_json::Value;
use vault::sign::SigningKey;

const CANARY: &str = "/registry/namespaces/kube-system";

/// A user, a signing key, and backups of one cluster.
struct Bench {
    job: Job,
    key_file: PathBuf,
    public: String,
    etcd: EtcdVersion,
    cluster: EtcdCluster,
}

impl Bench {
    fn new(etcd: EtcdVersion) -> Self {
        Self::of(EtcdCluster::start(etcd, Options::default()), etcd)
    }

    fn of(cluster: EtcdCluster, etcd: EtcdVersion) -> Self {
        let job = Job::new();
        let key = SigningKey::generate().unwrap();
        let key_file = job.dir().join("sign.key");
        std::fs::write(&key_file, key.to_file().unwrap().expose_secret()).unwrap();
        drop(cluster.etcdctl(["put", CANARY, "here"]));
        drop(cluster.etcdctl(["put", "/registry/pods/default/a", "1"]));
        drop(cluster.etcdctl(["put", "/registry/cilium.io/ciliumnodes/n1", "1"]));
        Self { job, key_file, public: key.public().to_line(), etcd, cluster }
    }

    /// Takes a backup, and answers its id.
    fn backup(&self) -> String {
        // Ids tell seconds, and of two in the same one nobody knows which is the newer.
        std::thread::sleep(Duration::from_millis(1100));
        drop(self.cluster.etcdctl(["put", "/registry/events/e", "1"]));
        drop(self.job.backup_cmd(&self.cluster.client_flags()).arg("--signing-key").arg(&self.key_file).run().ok());
        self.job.list()[0]["id"].as_str().unwrap().to_owned()
    }

    fn scratch(&self) -> PathBuf {
        self.job.dir().join("scratch")
    }

    /// `drill` without an identity and an etcd.
    fn bare(&self) -> Run {
        let (scratch, spool) = (self.scratch(), self.job.dir().join("spool"));
        let run = self.job.cmd("drill").args(["-o", "json", "--spool-reserve", "0", "--spool-dir"]).arg(spool);
        run.arg("--directory").arg(scratch).arg("--signing-key").arg(&self.key_file).args(["--trusted-signer", &self.public])
    }

    fn drill(&self, more: &[&str]) -> Run {
        self.bare().arg("-i").arg(self.job.identity()).arg("--etcd").arg(self.etcd.etcd()).args(more)
    }

    fn marks(&self) -> Vec<Value> {
        let Ok(entries) = std::fs::read_dir(self.job.repository().join("prod/marks")) else { return Vec::new() };
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let json = paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        json.map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()).collect()
    }

    /// How `list` shows a backup.
    fn listed(&self, id: &str) -> Value {
        let list = self.job.cmd("list").args(["-o", "json", "--trusted-signer", &self.public]).run().ok().json();
        let backups = list["clusters"][0]["backups"].as_array().unwrap().clone();
        backups.into_iter().find(|backup| backup["id"] == id).unwrap()
    }

    fn latest(&self) -> String {
        self.job
            .cmd("show")
            .args(["latest", "-o", "simple", "--trusted-signer", &self.public])
            .run()
            .ok()
            .out()
            .split(", ")
            .nth(1)
            .unwrap()
            .to_owned()
    }

    /// No etcd and no data.
    fn nothing_left(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !processes(&self.scratch()).is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(processes(&self.scratch()), Vec::<u32>::new(), "no etcd is left");
        let left = std::fs::read_dir(self.scratch()).map(|entries| entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>());
        assert_eq!(left.unwrap_or_default(), Vec::<PathBuf>::new(), "no data are left");
    }
}

fn processes(path: &Path) -> Vec<u32> {
    let wanted = format!("--data-dir={}", path.display());
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let names = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    names
        .filter(|pid| String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).contains(&wanted))
        .collect()
}

fn only(done: &Finished) -> Value {
    let report = done.json();
    assert_eq!((report["schema"].as_str(), report["backups"].as_array().unwrap().len()), (Some("lifeboat.drill/1"), 1), "{done}");
    report["backups"][0].clone()
}

fn error(done: &Finished) -> Value {
    let line = done.err().lines().rev().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{done}")).to_owned();
    serde_json::from_str::<Value>(&line).unwrap()["error"].clone()
}

fn check<'a>(drilled: &'a Value, what: &str) -> &'a Value {
    drilled["checks"].as_array().unwrap().iter().find(|check| check["check"] == what).unwrap_or_else(|| panic!("{drilled}"))
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

etcd_matrix! {
    /// Everything is compared, the result is a signed mark, and `list` and `show` say it.
    async fn a_sound_backup_passes_and_is_marked(etcd: EtcdVersion) {
        let bench = Bench::new(etcd);
        drop(Workload::small(71).apply(&bench.cluster.client(0).await).await);
        // A short lease ends while etcd runs: its keys go, and that is no fault of the backup.
        // On a busy machine it may end before anything is bound to it.
        for attempt in 0.. {
            let lease = bench.cluster.etcdctl(["lease", "grant", "1"]).out();
            let lease = lease.split_whitespace().nth(1).unwrap();
            let put = bench.cluster.etcdctl_cmd(["put", "/registry/masterleases/a", "1", &format!("--lease={lease}")]).run();
            if put.code() == Some(0) {
                break;
            }
            assert!(attempt < 100, "{put}");
        }
        let id = bench.backup();

        let done = bench.drill(&["--canary", CANARY]).run().ok();
        let drilled = only(&done);
        assert_eq!((drilled["id"].as_str(), drilled["why"].as_str(), drilled["result"].as_str()), (Some(id.as_str()), Some("latest-undrilled"), Some("passed")), "{done}");
        let checks: Vec<&str> = drilled["checks"].as_array().unwrap().iter().map(|check| check["check"].as_str().unwrap()).collect();
        assert_eq!(checks, ["hashkv", "live-hashkv", "revision", "keys", "prefixes", "canary", "members", "alarms"], "{done}");
        assert!(drilled["checks"].as_array().unwrap().iter().all(|check| check["result"] == "passed"), "{done}");
        assert!(check(&drilled, "hashkv")["detail"].as_str().unwrap().contains("as the manifest states"), "{done}");
        assert!(check(&drilled, "live-hashkv")["detail"].as_str().unwrap().contains("1 of 1"), "{done}");
        assert_eq!(drilled["etcd"], etcd.full(), "{done}");
        let seconds = |name: &str| drilled[name].as_f64().unwrap();
        assert!(seconds("restored_seconds") > 0.0 && seconds("booted_seconds") > 0.0);
        assert!((seconds("recovered_seconds") - seconds("restored_seconds") - seconds("booted_seconds")).abs() < 1e-6);
        bench.nothing_left();

        let marks = bench.marks();
        assert_eq!(marks.len(), 1);
        let data = &marks[0]["data"];
        assert_eq!((marks[0]["kind"].as_str(), data["result"].as_str(), data["etcd"].as_str()), (Some("drill"), Some("passed"), Some(etcd.full())));
        assert!(data["seconds"].as_u64().unwrap() >= 1, "{data}");
        assert_eq!(std::fs::read_dir(bench.job.repository().join("prod/marks")).unwrap().count(), 2, "the mark and its signature");
        assert_eq!(bench.listed(&id)["proven"]["rung"], "booted");
        let shown = bench.job.cmd("show").args(["--trusted-signer", &bench.public]).run().ok().out();
        assert!(shown.contains("drill: passed"), "{shown}");
    }

    /// With authentication on, a user is wanted; without one nothing is proven.
    fn with_authentication(etcd: EtcdVersion) {
        let bench = Bench::of(EtcdCluster::start(etcd, Options::default().auth("secret")), etcd);
        drop(bench.backup());
        let without = bench.drill(&[]).run().exit(1);
        assert!(error(&without)["cause"].as_str().unwrap().contains("--user"), "{without}");
        bench.nothing_left();
        let password = bench.job.dir().join("password");
        std::fs::write(&password, "secret").unwrap();
        let with = bench.drill(&["--user", "root", "--password-file", password.to_str().unwrap(), "--canary", CANARY]).run().ok();
        assert_eq!(only(&with)["result"], "passed", "{with}");
        bench.nothing_left();
    }
}

fn on_one_version(name: &str, body: impl Fn(EtcdVersion)) {
    matrix::each(name, &[EtcdVersion::V3_6], body);
}

/// A damaged backup fails, `latest` moves on to the one before it, and that is what the next drill takes.
#[test]
fn damage_fails_and_latest_moves_on() {
    on_one_version("damage_fails_and_latest_moves_on", |etcd| {
        let bench = Bench::new(etcd);
        let (older, newer) = (bench.backup(), bench.backup());
        flip(&bench.job.repository().join("prod/snapshots").join(&newer).join("db.zst.age"));
        let failed = bench.drill(&[]).run().exit(21);
        let drilled = only(&failed);
        assert_eq!((drilled["id"].as_str(), drilled["result"].as_str()), (Some(newer.as_str()), Some("failed")), "{failed}");
        let said = error(&failed);
        assert_eq!((said["code"].as_str(), said["object"].as_str()), (Some("drill-failed"), Some(newer.as_str())), "{said}");
        assert!(said["cause"].as_str().unwrap().contains("db.zst.age"), "{said}");
        drop(bench.job.lifeboat.shell(said["next"].as_str().unwrap()).run().ok());
        bench.nothing_left();

        assert_eq!(bench.listed(&newer)["proven"]["failed"], true);
        assert_eq!(bench.latest(), older);
        let next = bench.drill(&[]).run().ok();
        assert_eq!(only(&next)["id"], older.as_str(), "{next}");
        let both = bench.drill(&["--all"]).run().exit(21).json();
        let results: Vec<&str> = both["backups"].as_array().unwrap().iter().map(|drilled| drilled["result"].as_str().unwrap()).collect();
        assert_eq!(results, ["failed", "passed"], "the one tried longer ago comes first: {both}");
    });
}

/// What should be there and is not fails a drill; a drill that passes answers it.
#[test]
fn a_canary_that_is_missing_or_empty_fails() {
    on_one_version("a_canary_that_is_missing_or_empty_fails", |etcd| {
        let bench = Bench::new(etcd);
        drop(bench.cluster.etcdctl(["put", "/empty", ""]));
        let id = bench.backup();
        for (key, says) in [("/registry/namespaces/gone", "is not there"), ("/empty", "is there and empty")] {
            let failed = bench.drill(&[id.as_str(), "--canary", CANARY, "--canary", key]).run().exit(21);
            let drilled = only(&failed);
            let canaries: Vec<&Value> = drilled["checks"].as_array().unwrap().iter().filter(|check| check["check"] == "canary").collect();
            let results: Vec<&str> = canaries.iter().map(|check| check["result"].as_str().unwrap()).collect();
            assert_eq!(results, ["passed", "failed"], "{failed}");
            assert_eq!(drilled["detail"], format!("canary: {key} {says}"), "{failed}");
            assert_eq!(check(&drilled, "hashkv")["result"], "passed");
            assert_eq!(bench.listed(&id)["proven"]["failed"], true);
        }
        drop(bench.drill(&[&id]).run().ok());
        assert_eq!((&bench.listed(&id)["proven"]["rung"], &bench.listed(&id)["proven"]["failed"]), (&"booted".into(), &false.into()));
    });
}

/// What is in the way of a drill says nothing of the backup: no key, no etcd, one that is older than the data, no room.
#[test]
fn what_is_in_the_way_proves_nothing() {
    on_one_version("what_is_in_the_way_proves_nothing", |etcd| {
        let bench = Bench::new(etcd);
        let id = bench.backup();
        let stranger = bench.job.dir().join("stranger.txt");
        drop(bench.job.lifeboat.cmd(["key", "new", "--identity-out"]).arg(&stranger).run().ok());

        let none = bench.bare().arg("--etcd").arg(etcd.etcd()).run().exit(12);
        assert!(error(&none)["what"].as_str().unwrap().contains("no identity was given"), "{none}");
        assert!(bench.marks().is_empty(), "nothing was tried");
        let wrong = bench.bare().arg("--etcd").arg(etcd.etcd()).arg("-i").arg(&stranger).run().exit(12);
        assert_eq!(only(&wrong)["result"], "inconclusive", "{wrong}");
        assert!(error(&wrong)["what"].as_str().unwrap().contains("no identity given opens this backup"), "{wrong}");

        let with = |etcd: &Path| bench.bare().arg("-i").arg(bench.job.identity()).arg("--etcd").arg(etcd);
        let mut cases = vec![(PathBuf::from("/nonexistent/etcd"), "cannot be run"), (etcd.etcdctl().to_owned(), "etcd Version")];
        if EtcdVersion::V3_5.available() {
            cases.push((EtcdVersion::V3_5.etcd().to_owned(), "older than the backup's data"));
        }
        // It tells its version, and ends before it reads any data.
        let broken = bench.job.dir().join("broken-etcd");
        std::fs::write(&broken, "#!/bin/sh\n[ \"$1\" = --version ] && echo 'etcd Version: 3.6.0' && exit 0\necho broken >&2; exit 1\n")
            .unwrap();
        std::fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        cases.push((broken, "ended by itself"));
        for (path, says) in &cases {
            let done = with(path).run().exit(1);
            let drilled = only(&done);
            assert_eq!((drilled["result"].as_str(), drilled["recorded"].as_bool()), (Some("inconclusive"), Some(true)), "{done}");
            assert!(drilled["detail"].as_str().unwrap().contains(says), "{done}");
            bench.nothing_left();
        }
        assert_eq!(bench.marks().len(), 1 + cases.len());
        assert!(bench.marks().iter().all(|mark| mark["data"]["result"] == "inconclusive"));
        assert_eq!(bench.listed(&id)["proven"]["failed"], false);
        assert_eq!(bench.latest(), id);
        // However often it proved nothing, it is still the one to be drilled.
        assert_eq!(only(&bench.drill(&[]).run().ok())["why"], "latest-undrilled");
    });
}

/// However early it is told to end, no etcd and no data are left, and nothing is recorded.
#[test]
fn it_ends_cleanly_at_any_moment() {
    on_one_version("it_ends_cleanly_at_any_moment", |etcd| {
        let bench = Bench::new(etcd);
        matrix::block_on(async { drop(Workload::small(72).apply(&bench.cluster.client(0).await).await) });
        drop(bench.backup());
        let cases =
            [(5, Signal::TERM), (80, Signal::INT), (200, Signal::TERM), (350, Signal::HUP), (500, Signal::INT), (700, Signal::TERM)];
        for (delay, signal) in cases {
            let ended = bench.drill(&[]).signal_after(Duration::from_millis(delay), signal).run();
            assert!(!ended.timed_out && ended.orphans.is_empty(), "{ended}");
            bench.nothing_left();
        }
        // One that was killed takes etcd with it, and the next one removes its data.
        let killed = bench.drill(&[]).kill_after(Duration::from_millis(600)).run();
        assert!(!killed.timed_out, "{killed}");
        let deadline = Instant::now() + Duration::from_secs(10);
        while !processes(&bench.scratch()).is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(bench.drill(&["latest"]).run().ok());
        bench.nothing_left();
    });
}

/// Without a name: latest first, then those never drilled, then the least recently drilled. A dry run says the same, and does nothing.
#[test]
fn the_least_recently_drilled_is_chosen() {
    on_one_version("the_least_recently_drilled_is_chosen", |etcd| {
        let bench = Bench::new(etcd);
        let ids: Vec<String> = (0..3).map(|_| bench.backup()).collect();
        for (expected, why) in [(2, "latest-undrilled"), (1, "undrilled"), (0, "undrilled"), (2, "least-recently"), (1, "least-recently")] {
            let planned = bench.drill(&["--dry-run"]).run().ok().json();
            let before = bench.marks().len();
            assert_eq!((planned["left"].as_array().unwrap().len(), planned["backups"].as_array().unwrap().len()), (1, 0), "{planned}");
            let done = bench.drill(&[]).run().ok();
            let drilled = only(&done);
            assert_eq!((drilled["id"].as_str(), drilled["why"].as_str()), (Some(ids[expected].as_str()), Some(why)), "{done}");
            assert_eq!(planned["left"][0]["id"], drilled["id"], "{planned}");
            assert_eq!(bench.marks().len(), before + 1);
        }
        let order = |report: &Value| {
            report["backups"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let all = bench.drill(&["--budget", "1h"]).run().ok().json();
        assert_eq!(order(&all), [ids[0].clone(), ids[2].clone(), ids[1].clone()], "{all}");
        let little = bench.drill(&["--budget", "1ms"]).run().ok().json();
        assert_eq!((order(&little), little["left"].as_array().unwrap().len()), (vec![ids[0].clone()], 2), "{little}");
        let named = bench.drill(&[&ids[1], "latest", &ids[1]]).run().ok().json();
        assert_eq!(order(&named), [ids[1].clone(), ids[2].clone()], "{named}");
    });
}

/// The configuration says what opens the backup, which etcd is run and what must be there; a rehearsal says what is missing and changes nothing.
#[test]
fn the_configuration_is_enough_and_a_rehearsal_changes_nothing() {
    on_one_version("the_configuration_is_enough_and_a_rehearsal_changes_nothing", |etcd| {
        let bench = Bench::new(etcd);
        let id = bench.backup();
        let dir = bench.job.dir();
        let config = dir.join("lifeboat.yaml");
        let write = |command: &str| {
            let text = format!(
                "stores:\n  main:\n    url: {url}\nkeys:\n  recipients: [{recipient}]\n  signing_file: {sign}\nspool:\n  directory: {spool}\n  reserve: 0B\nclusters:\n  prod:\n    etcd:\n      endpoints: [{endpoint}]\n    drill:\n      etcd: {etcd}\n      identity_command: [{command}]\n      canary: [{CANARY}]\n",
                url = bench.job.url(),
                recipient = bench.job.recipient(),
                sign = bench.key_file.display(),
                spool = bench.scratch().display(),
                endpoint = bench.cluster.endpoint(0),
                etcd = etcd.etcd().display(),
            );
            std::fs::write(&config, text).unwrap();
        };
        let drill = |more: &[&str]| bench.job.lifeboat.cmd(["drill", "-o", "json", "--config"]).arg(&config).args(more);
        write(&format!("cat, {}", bench.job.identity().display()));

        let items = |done: &Finished| -> Vec<(String, String)> {
            let report = done.json();
            assert_eq!(report["schema"], "lifeboat.rehearsal/1", "{done}");
            let item = |item: &Value| (item["item"].as_str().unwrap().to_owned(), item["state"].as_str().unwrap().to_owned());
            report["items"].as_array().unwrap().iter().map(item).collect()
        };
        let states = |of: [&str; 7]| -> Vec<(String, String)> {
            let names = ["backup", "proof", "objects", "key", "room", "etcd", "time"];
            names.iter().zip(of).map(|(name, state)| ((*name).to_owned(), state.to_owned())).collect()
        };
        let before = drill(&["--rehearse"]).run().ok();
        assert_eq!(items(&before), states(["ready", "doubtful", "ready", "ready", "ready", "ready", "doubtful"]), "{before}");
        assert!(bench.marks().is_empty() && !bench.scratch().exists());

        let done = drill(&[]).run().ok();
        let drilled = only(&done);
        assert_eq!((drilled["result"].as_str(), drilled["id"].as_str()), (Some("passed"), Some(id.as_str())), "{done}");
        assert_eq!(check(&drilled, "canary")["detail"], format!("{CANARY} is there"), "{done}");
        bench.nothing_left();
        let after = drill(&["--rehearse"]).run().ok();
        assert_eq!(items(&after), states(["ready", "ready", "ready", "ready", "ready", "ready", "ready"]), "{after}");
        assert!(after.json()["expected_seconds"].as_f64().unwrap() >= 1.0, "{after}");
        assert_eq!(bench.marks().len(), 1);

        write("sh, -c, exit 3");
        let failed = drill(&[]).run().exit(2);
        assert!(error(&failed)["cause"].as_str().unwrap().contains("exit status: 3"), "{failed}");
        write("printf, ''");
        let locked = drill(&["--rehearse"]).run();
        assert!([2, 12].contains(&locked.code().unwrap()), "{locked}");
        write(&format!("cat, {}", bench.job.identity().display()));
        let object = bench.job.repository().join("prod/snapshots").join(&id).join("db.zst.age");
        let moved = object.with_extension("away");
        std::fs::rename(&object, &moved).unwrap();
        let gone = drill(&["--rehearse", &id]).run().exit(1);
        assert!(items(&gone).contains(&("objects".to_owned(), "missing".to_owned())), "{gone}");
        std::fs::rename(&moved, &object).unwrap();
    });
}
