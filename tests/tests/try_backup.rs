//! `lifeboat try`: the backup serves on loopback, is what it was, and nothing of it is left, however the run ends.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use etcd_api::{Client, ConnectOptions, Endpoint};
use lifeboat_tests::{Dump, EtcdCluster, EtcdVersion, Job, Options, Run, Running, Workload, dump_all, etcd_matrix, matrix};
use rustix::process::Signal;

const LIMIT: Duration = Duration::from_secs(90);

fn scratch(job: &Job) -> PathBuf {
    job.dir().join("scratch")
}

/// `try` with the identity and an etcd.
fn attempt(job: &Job, etcd: &Path) -> Run {
    job.cmd("try").arg("-i").arg(job.identity()).arg("--dir").arg(scratch(job)).arg("--etcd").arg(etcd)
}

/// What is left in the scratch directory.
fn left(job: &Job) -> Vec<PathBuf> {
    std::fs::read_dir(scratch(job)).map(|entries| entries.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default()
}

/// Processes whose command line names a path.
fn processes(path: &Path) -> Vec<u32> {
    let wanted = path.display().to_string();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&format!("--data-dir={wanted}"))
        })
        .collect()
}

fn gone(job: &Job) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !processes(&scratch(job)).is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(processes(&scratch(job)), Vec::<u32>::new(), "no etcd is left");
}

fn nothing_left(job: &Job) {
    gone(job);
    assert_eq!(left(job), Vec::<PathBuf>::new(), "no data are left");
}

fn endpoint(running: &Running) -> String {
    let out = running.stdout();
    out.lines().find_map(|line| line.strip_prefix("export ETCDCTL_ENDPOINTS=")).unwrap_or_else(|| panic!("{out}")).to_owned()
}

async fn dump(endpoint: &str) -> Dump {
    let options = ConnectOptions { dial_timeout: LIMIT, request_timeout: LIMIT, ..ConnectOptions::default() };
    dump_all(&Client::connect(Endpoint::parse(endpoint, false).unwrap(), &options).await.unwrap()).await
}

etcd_matrix! {
    /// It serves what was backed up, history and all, on loopback alone, and is proven by HashKV; SIGTERM leaves nothing.
    async fn it_is_what_it_was_and_leaves_nothing(etcd: EtcdVersion) {
        let job = Job::new();
        let cluster = EtcdCluster::single(etcd);
        let client = cluster.client(0).await;
        drop(Workload::small(61).apply(&client).await);
        let before = dump_all(&client).await;
        drop(job.backup(&cluster));
        drop(client);
        drop(cluster);

        let mut running = attempt(&job, etcd.etcd()).start();
        running.wait_for("export ETCDCTL_API=3\n", LIMIT);
        let endpoint = endpoint(&running);
        assert_eq!(running.stdout().lines().filter(|line| !line.starts_with("export ")).count(), 0, "{}", running.stdout());
        assert!(endpoint.starts_with("http://127.0.0.1:"), "{endpoint}");
        running.wait_for("Ctrl-C ends it", LIMIT);
        assert!(running.stderr().contains("proof: HashKV") && running.stderr().contains("as the manifest states"), "{}", running.stderr());
        let data = left(&job);
        assert_eq!(data.len(), 1, "{data:?}");
        assert_eq!(std::fs::metadata(&data[0]).unwrap().permissions().mode() & 0o777, 0o700);
        let port: u16 = endpoint.rsplit(':').next().unwrap().parse().unwrap();
        let served = processes(&scratch(&job));
        assert_eq!(served.len(), 1, "{served:?}");
        assert!(lifeboat_tests::net::listens(served[0], port));
        let line = std::fs::read(format!("/proc/{}/cmdline", served[0])).unwrap();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        assert_eq!(line.matches("http://").count(), line.matches("http://127.0.0.1:").count(), "{line}");

        let after = dump(&endpoint).await;
        before.assert_same_history(&after);
        before.assert_same_leases(&after);

        let ended = running.signal(Signal::TERM).ok();
        assert!(ended.orphans.is_empty(), "{ended}");
        nothing_left(&job);
        assert!(!lifeboat_tests::net::anybody_listens(port));
        assert!(!job.repository().join("prod/marks").exists(), "nothing was recorded: {ended}");
    }

    /// A command gets the endpoint, and its exit code is ours.
    fn a_command_runs_against_it(etcd: EtcdVersion) {
        let job = Job::new();
        let cluster = EtcdCluster::single(etcd);
        drop(cluster.etcdctl(["put", "a", "first value"]));
        drop(job.backup(&cluster));
        drop(cluster);
        let get = format!("{} get a --print-value-only; echo \"$ETCDCTL_ENDPOINTS\" >&2; exit 7", etcd.etcdctl().display());
        // Settings of another etcd would stop etcdctl from getting in.
        let run = attempt(&job, etcd.etcd()).env("ETCDCTL_USER", "root:wrong").args(["--", "sh", "-c", &get]).run().exit(7);
        assert_eq!(run.out(), "first value\n", "{run}");
        assert!(run.err().contains("http://127.0.0.1:"), "{run}");
        nothing_left(&job);
    }

    /// With authentication on, the proof wants a user; with one it is there.
    fn with_authentication(etcd: EtcdVersion) {
        let job = Job::new();
        let cluster = EtcdCluster::start(etcd, Options::default().auth("secret"));
        drop(cluster.etcdctl(["put", "a", "1"]));
        drop(job.backup(&cluster));
        drop(cluster);
        let without = attempt(&job, etcd.etcd()).args(["--", "true"]).run().ok();
        assert!(without.err().contains("HashKV inconclusive") && without.err().contains("--user"), "{without}");
        std::fs::write(job.dir().join("password"), "secret").unwrap();
        let login = ["--user", "root", "--password-file"];
        let with = attempt(&job, etcd.etcd()).args(login).arg(job.dir().join("password")).args(["--", "true"]).run().ok();
        assert!(with.err().contains("as the manifest states"), "{with}");
        nothing_left(&job);
    }
}

/// Data of a newer etcd run on an older one with a word about what was changed.
#[test]
fn an_older_etcd_is_told() {
    matrix::each("an_older_etcd_is_told", &[EtcdVersion::V3_6], |etcd| {
        let job = Job::new();
        let cluster = EtcdCluster::single(etcd);
        drop(cluster.etcdctl(["put", "a", "1"]));
        drop(job.backup(&cluster));
        drop(cluster);
        for older in [EtcdVersion::V3_5, EtcdVersion::V3_4].into_iter().filter(|version| version.available()) {
            let run = attempt(&job, older.etcd()).args(["--", "true"]).run().ok();
            assert!(run.err().contains("recorded versions were dropped"), "{run}");
            assert!(run.err().contains(older.full()) && run.err().contains(etcd.full()), "{run}");
            assert!(run.err().contains("as the manifest states"), "{run}");
        }
        nothing_left(&job);
    });
}

/// A run that is killed takes etcd with it, and the next run removes its data.
#[test]
fn a_killed_run_is_cleaned_up_after() {
    matrix::each("a_killed_run_is_cleaned_up_after", &[EtcdVersion::V3_6], |etcd| {
        let job = Job::new();
        let cluster = EtcdCluster::single(etcd);
        drop(job.backup(&cluster));
        let mut running = attempt(&job, etcd.etcd()).start();
        running.wait_for("export ETCDCTL_API", LIMIT);
        let killed = running.signal(Signal::KILL);
        assert_eq!(killed.signal(), Some(9), "{killed}");
        gone(&job);
        let stale = left(&job);
        assert_eq!(stale.len(), 1);
        let next = attempt(&job, etcd.etcd()).args(["--", "true"]).run().ok();
        assert!(next.err().contains(&stale[0].display().to_string()), "{next}");
        nothing_left(&job);
    });
}

/// However early it is told to end.
#[test]
fn it_ends_cleanly_at_any_moment() {
    matrix::each("it_ends_cleanly_at_any_moment", &[EtcdVersion::V3_6], |etcd| {
        let job = Job::new();
        let cluster = EtcdCluster::single(etcd);
        matrix::block_on(async { drop(Workload::small(62).apply(&cluster.client(0).await).await) });
        drop(job.backup(&cluster));
        for (delay, signal) in [(5, Signal::TERM), (60, Signal::INT), (150, Signal::TERM), (400, Signal::HUP), (800, Signal::INT)] {
            let ended = attempt(&job, etcd.etcd()).signal_after(Duration::from_millis(delay), signal).run();
            assert!(!ended.timed_out, "{ended}");
            nothing_left(&job);
        }
        // A command that does not end by itself is told.
        let mut running = attempt(&job, etcd.etcd()).args(["--", "sh", "-c", "echo ready; exec sleep 600"]).start();
        running.wait_for("ready", LIMIT);
        let told = running.signal(Signal::TERM);
        assert_eq!(told.code(), Some(143), "{told}");
        assert!(told.orphans.is_empty(), "{told}");
        nothing_left(&job);
    });
}

/// What is wrong is said, and leaves nothing.
#[test]
fn wrong_inputs_leave_nothing() {
    matrix::each("wrong_inputs_leave_nothing", &[EtcdVersion::V3_6], |etcd| {
        let job = Job::new();
        let cluster = EtcdCluster::single(etcd);
        drop(job.backup(&cluster));
        let stranger = job.dir().join("stranger.txt");
        drop(job.lifeboat.cmd(["key", "new", "--identity-out"]).arg(&stranger).run().ok());
        let dir = scratch(&job);
        let with = |identity: &Path, etcd: &Path| job.cmd("try").arg("-i").arg(identity).arg("--dir").arg(&dir).arg("--etcd").arg(etcd);
        let cases: [(Run, i32, &str); 6] = [
            (with(&stranger, etcd.etcd()), 12, "no identity given opens"),
            (with(&job.identity(), Path::new("/nonexistent/etcd")), 2, "/nonexistent/etcd"),
            (with(&job.identity(), etcd.etcdctl()), 2, "etcd Version"),
            (with(&job.identity(), etcd.etcd()).arg("zzzzzz"), 1, "no backup was found"),
            (with(&job.identity(), etcd.etcd()).args(["--", "/nonexistent/command"]), 2, "/nonexistent/command"),
            (job.cmd("try").arg("-i").arg(job.identity()).arg("--dir").arg(&dir).env("PATH", "/nonexistent"), 2, "--etcd"),
        ];
        for (run, code, says) in cases {
            let refused = run.run();
            // An etcd in the usual places is found without PATH.
            if says == "--etcd" && ["/usr/local/bin/etcd", "/usr/bin/etcd"].iter().any(|path| Path::new(path).exists()) {
                continue;
            }
            let refused = refused.exit(code);
            assert!(refused.err().contains(says), "{refused}");
            assert!(!refused.out().contains("export"), "{refused}");
            nothing_left(&job);
        }
    });
}
