//! `etcd nospace`: from a real NOSPACE to a cluster that takes writes, whatever stops the run on the way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use etcd_api::{Client, DeleteRequest, ErrorKind, KeyRange, PutRequest, RangeRequest};
use lifeboat_tests::{EtcdCluster, EtcdVersion, Job, Lifeboat, Options, Run, etcd_matrix};
use serde_json::Value;

/// How long an effect may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);
const QUOTA: u64 = 16 << 20;
const CRASHED: i32 = 137;

/// A cluster and a directory in which its journals are, and nobody else's.
struct Full {
    cluster: EtcdCluster,
    lifeboat: Lifeboat,
    dir: tempfile::TempDir,
}

impl Full {
    fn new(etcd: EtcdVersion, members: usize, lifeboat: Lifeboat) -> Self {
        let cluster = EtcdCluster::start(etcd, Options::default().members(members).quota(QUOTA));
        Self { cluster, lifeboat, dir: tempfile::tempdir().unwrap() }
    }

    async fn client(&self) -> Client {
        self.cluster.client(0).await
    }

    fn cmd(&self, words: &[&str]) -> Run {
        let run = self.lifeboat.cmd(["etcd", "nospace", "--pause", "100ms"]).env("LIFEBOAT_STATE_DIR", self.dir.path().join("state"));
        run.args(self.cluster.member_flags(0)).args(words).timeout(PATIENCE * 3)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Writes values of 256 KiB until the cluster refuses them and the alarm is seen.
async fn fill(client: &Client, key: impl Fn(usize) -> String) {
    for round in 0..1_000 {
        match client.put(PutRequest::new(key(round), vec![b'x'; 256 << 10])).await {
            Err(error) if *error.kind() == ErrorKind::NoSpace => break,
            // An election on a busy machine.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            Ok(_) => {}
        }
        assert!(round < 999, "the quota is never reached");
    }
    let until = Instant::now() + PATIENCE;
    while client.alarms().await.unwrap().is_empty() {
        assert!(Instant::now() < until, "no alarm");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Fills the file with live data to its brim. The alarm comes when the file is as large as the quota, free pages of older states included: only when
/// they were given back and the file was filled again does what is live alone reach it.
async fn fill_with_live_data(client: &Client) {
    for turn in 0..3 {
        fill(client, |round| format!("key-{turn}-{round}")).await;
        if turn < 2 {
            client.defragment(PATIENCE).await.unwrap();
            for alarm in client.alarms().await.unwrap() {
                drop(client.disarm(alarm.member, alarm.kind).await.unwrap());
            }
        }
    }
    let status = client.status().await.unwrap();
    assert!(status.db_size_in_use > QUOTA * 95 / 100, "{status:?}");
}

/// The alarm is gone, and it stays away when something is written.
async fn assert_well(client: &Client) {
    drop(client.put(PutRequest::new("after", "works")).await.unwrap());
    assert_eq!(client.alarms().await.unwrap(), []);
}

fn steps(report: &Value) -> Vec<(String, bool)> {
    let line = |line: &Value| (line["step"].as_str().unwrap().to_owned(), line["done"].as_bool().unwrap());
    report["steps"].as_array().unwrap().iter().map(line).collect()
}

fn json(run: Run) -> Value {
    run.args(["-o", "json"]).run().ok().json()
}

fn is_sound_snapshot(file: &Path) -> bool {
    let lifeboat = Lifeboat::new();
    lifeboat.cmd(["snapshot", "status"]).arg(file).run().code() == Some(0)
}

etcd_matrix! {
    /// Three members that refuse writes: looked at, planned, mended, and nothing is left to do.
    async fn a_full_cluster_is_mended(etcd: EtcdVersion) {
        let full = Full::new(etcd, 3, Lifeboat::new());
        let client = full.client().await;
        let nothing = json(full.cmd(&[]));
        assert!(nothing["done"] == false && steps(&nothing).is_empty(), "{nothing}");
        fill(&client, |_| "same".to_owned()).await;
        let revision = client.status().await.unwrap().header.revision.0;

        // Without a place for the backup, and without consent, nothing happens.
        let placeless = full.cmd(&["--yes"]).run().exit(2);
        assert!(placeless.err().contains("no place for it is named") && placeless.err().contains("--snapshot before-nospace.db"), "{placeless}");
        let snapshot = full.file("snap.db");
        let to_file = ["--snapshot", snapshot.to_str().unwrap()];
        let unasked = full.cmd(&to_file).run().exit(2);
        assert!(unasked.err().contains("--yes") && unasked.err().contains("1. save a snapshot"), "{unasked}");
        let unnamed = full.cmd(&["--no-backup", "--yes"]).run().exit(2);
        assert!(unnamed.err().contains("--confirm"), "{unnamed}");
        let planned = json(full.cmd(&to_file).arg("--dry-run"));
        let words: Vec<String> = steps(&planned).into_iter().map(|(step, _)| step).collect();
        assert!(words.len() == 7 && words[1] == format!("compact the history up to revision {revision}"), "{words:?}");
        assert!(words[2..5].iter().all(|step| step.starts_with("defragment m")) && words[5] == "disarm NOSPACE", "{words:?}");
        assert!(!snapshot.exists() && client.put(PutRequest::new("no", "room")).await.is_err());

        let done = json(full.cmd(&to_file).arg("--yes"));
        assert_eq!(steps(&done).iter().map(|(step, _)| step).collect::<Vec<_>>(), words.iter().collect::<Vec<_>>(), "the plan is what was done");
        assert!(done["helped"] == true && done["done"] == true && done["alarms"].as_array().unwrap().is_empty(), "{done}");
        let size = |of: &str, at: usize| done[of][at]["size"].as_u64().unwrap();
        assert!((0..3).all(|at| size("after", at) < size("before", at) / 4), "{done}");
        assert_eq!(done["before"][0]["quota_told"], etcd >= EtcdVersion::V3_6, "{done}");
        assert!(is_sound_snapshot(&snapshot));
        assert_well(&client).await;
        let again = full.cmd(&[]).run().ok().out();
        assert!(again.contains("nothing to do"), "{again}");
    }

    /// Of Kubernetes the history is left to the API server; where that is what fills the file, it is said, and a flag does it.
    async fn a_kubernetes_cluster_compacts_by_itself_unless_told(etcd: EtcdVersion) {
        let full = Full::new(etcd, 1, Lifeboat::new());
        let client = full.client().await;
        fill(&client, |_| "/registry/pods/default/web".to_owned()).await;
        let failed = full.cmd(&["--snapshot", full.file("one.db").to_str().unwrap(), "--yes"]).run().exit(1);
        assert!(failed.err().contains("--compact-anyway") && failed.err().contains("the API server compacts within 5 minutes"), "{failed}");
        assert!(!failed.err().contains("compact the history"), "{failed}");
        // Before 3.6 nothing but the alarm tells the quota, and that is gone: the next command carries it.
        assert_eq!(failed.err().contains("--compact-anyway --quota "), etcd < EtcdVersion::V3_6, "{failed}");
        let two = full.file("two.db");
        let again = ["--snapshot", two.to_str().unwrap(), "--compact-anyway", "--quota", "16MiB", "--yes"];
        let done = json(full.cmd(&again));
        assert!(done["helped"] == true && done["kubernetes"] == true, "{done}");
        assert_well(&client).await;
    }

    /// Live data fills the file: nothing can make room, and that is what it says.
    async fn live_data_is_not_made_smaller(etcd: EtcdVersion) {
        let full = Full::new(etcd, 1, Lifeboat::new());
        let client = full.client().await;
        fill_with_live_data(&client).await;
        let file = full.file("live.db");
        let failed = full.cmd(&["--snapshot", file.to_str().unwrap(), "--yes"]).run().exit(1);
        assert!(failed.err().contains("what is left is live data") && failed.err().contains("lifeboat etcd top"), "{failed}");
        let top = full.lifeboat.cmd(["etcd", "top"]).arg(&file).run().ok().out();
        assert!(top.contains("key-"), "{top}");
        // Once something was deleted, a new plan is made, and it helps.
        drop(client.delete_range(DeleteRequest::new(KeyRange::prefix("key-0"))).await.unwrap());
        let done = json(full.cmd(&["--no-backup", "--quota", "16MiB", "--confirm", &cluster_id(&client).await]));
        assert!(done["helped"] == true && done["backup"].is_null(), "{done}");
        assert_well(&client).await;
    }
}

async fn cluster_id(client: &Client) -> String {
    client.status().await.unwrap().header.cluster_id.to_string()
}

/// Killed again and again, a few durable steps further each time, the remedy comes to its end: once into a file, once into a repository.
#[test]
fn a_remedy_that_is_killed_at_every_step_comes_to_its_end() {
    let Some(version) = lifeboat_tests::versions().into_iter().next_back() else {
        return lifeboat_tests::peers::skipped("nospace: no etcd");
    };
    lifeboat_tests::matrix::block_on(async {
        let job = Job::with_crash_points();
        let full = Full::new(version, 3, Lifeboat::with_crash_points());
        let client = full.client().await;
        let spool = job.dir().join("spool");
        let repository = ["--repo", job.url(), "--cluster", "prod", "--recipient", job.recipient(), "--spool-reserve", "0", "--spool-dir"];
        for (way, first, into_repository) in [("LIFEBOAT_CRASH_AT", 1, false), ("LIFEBOAT_CRASH_AFTER", 20, true)] {
            fill(&client, |_| "same".to_owned()).await;
            let file = full.file("snap.db");
            let mut kills = 0;
            loop {
                let run = if into_repository { full.cmd(&repository).arg(&spool) } else { full.cmd(&["--snapshot"]).arg(&file) };
                // Each time it may go one durable step further than the time before.
                let run = run.arg("--yes").env(way, (first + kills).to_string()).env("LIFEBOAT_CRASH_FORGET", "1").run();
                if run.code() != Some(CRASHED) {
                    assert!(run.code() == Some(0) && run.out().contains("NOSPACE is gone"), "{run}");
                    break;
                }
                kills += 1;
                assert!(kills < 200, "it does not come to its end: {run}");
            }
            println!("{way} from {first} on: killed {kills} times");
            assert!(kills > 10, "nothing was tried");
            assert_well(&client).await;
            if into_repository {
                assert_eq!(job.list().len(), 1, "one backup is enough, whoever was killed behind it");
            } else {
                assert!(is_sound_snapshot(&file));
            }
            let seen = client.range(RangeRequest::new(KeyRange::single("same"))).await.unwrap();
            assert_eq!(seen.kvs[0].value.len(), 256 << 10);
        }
    });
}

/// A plan that is under way is gone on with, shown and given up; a second process keeps away.
#[test]
fn a_plan_under_way_is_shown_and_can_be_given_up() {
    let Some(version) = lifeboat_tests::versions().into_iter().next_back() else {
        return lifeboat_tests::peers::skipped("nospace: no etcd");
    };
    lifeboat_tests::matrix::block_on(async {
        let full = Full::new(version, 1, Lifeboat::with_crash_points());
        let client = full.client().await;
        fill(&client, |_| "same".to_owned()).await;
        let file = full.file("snap.db");
        let run = |words: &[&str]| full.cmd(&["--snapshot", file.to_str().unwrap()]).args(words);
        // The journal, and the line that the snapshot is begun.
        let killed = run(&["--yes"]).env("LIFEBOAT_CRASH_AFTER", "9").run();
        assert_eq!(killed.code(), Some(CRASHED), "{killed}");
        let shown = run(&["--dry-run"]).run().ok();
        assert!(shown.err().contains("is under way") && shown.out().contains("would do"), "{shown}");
        let unasked = run(&[]).run().exit(2);
        assert!(unasked.err().contains("--yes"), "{unasked}");
        let given_up = full.cmd(&["--abandon"]).run().ok();
        assert!(given_up.out().contains("given up here"), "{given_up}");
        let none = full.cmd(&["--abandon"]).run().ok();
        assert!(none.err().contains("no plan is under way"), "{none}");
        let done = json(full.cmd(&["--snapshot", full.file("new.db").to_str().unwrap(), "--yes"]));
        assert_eq!(done["helped"], true, "{done}");
    });
}
