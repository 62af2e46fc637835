//! `lifeboat backup` under cron: whoever is to hear of it hears, once per change, and a collector finds its metrics.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use lifeboat_tests::run::Finished;
use lifeboat_tests::{EtcdCluster, Job, peers};

struct Bench {
    job: Job,
    etcd: EtcdCluster,
    config: PathBuf,
    heard: PathBuf,
}

impl Bench {
    fn new(name: &str) -> Option<Self> {
        let Some(version) = lifeboat_tests::versions().into_iter().next_back() else {
            peers::skipped(format_args!("oneshot, {name}: no etcd"));
            return None;
        };
        let (job, etcd) = (Job::new(), EtcdCluster::single(version));
        let (config, heard) = (job.dir().join("lifeboat.yaml"), job.dir().join("heard"));
        let text = format!(
            "stores:\n  main: {{url: '{}'}}\n  second: {{url: 'file://{}'}}\nkeys: {{recipients: [{}]}}\nspool: {{reserve: '0'}}\ndefaults: {{stores: [main, second]}}\nclusters: {{prod: {{etcd: {{endpoints: ['{}']}}}}}}\nnotify:\n  - exec: {{command: [/bin/sh, -c, 'cat >> {}; echo >> {}']}}\n    on: [started, succeeded, failed, recovered]\n",
            job.url(),
            job.dir().join("second").display(),
            job.recipient(),
            etcd.endpoint(0),
            heard.display(),
            heard.display(),
        );
        std::fs::write(&config, text).unwrap();
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).unwrap();
        Some(Self { job, etcd, config, heard })
    }

    fn backup(&self, more: &[&str]) -> Finished {
        self.job.lifeboat.cmd(["backup", "--config"]).arg(&self.config).args(["--dial-timeout", "2s"]).args(more).run()
    }

    /// The events that were heard since the last question, sorted: two channels of one run are told at once.
    fn events(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.heard).unwrap_or_default();
        drop(std::fs::remove_file(&self.heard));
        let event = |message: serde_json::Value| message["event"].as_str().unwrap().to_owned();
        let mut events: Vec<String> =
            serde_json::Deserializer::from_str(&text).into_iter().map(|message| event(message.unwrap())).collect();
        events.sort();
        events
    }
}

fn value(file: &Path, name: &str) -> Option<f64> {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(!text.contains("_total"), "a process that ends has no counters\n{text}");
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("{cluster=\"prod\"}")?.trim().parse().ok())
}

#[test]
fn whoever_is_to_hear_of_a_run_under_cron_hears_once_per_change() {
    let Some(mut bench) = Bench::new("hears") else { return };
    let metrics = bench.job.dir().join("lifeboat.prom");
    let file = metrics.to_str().unwrap().to_owned();
    drop(bench.backup(&["--no-notify"]).ok());
    drop(bench.backup(&["--dry-run"]).ok());
    assert_eq!(bench.events(), [""; 0]);
    drop(bench.backup(&["--metrics-file", &file]).ok());
    assert_eq!(bench.events(), ["started", "succeeded"]);
    assert_eq!((value(&metrics, "lifeboat_last_attempt_success"), value(&metrics, "lifeboat_last_attempt_exit")), (Some(1.0), Some(0.0)));
    assert_eq!(value(&metrics, "lifeboat_store_backups"), Some(2.0));

    bench.etcd.stop_member(0);
    drop(bench.backup(&["--metrics-file", &file]).exit(30));
    assert_eq!(bench.events(), ["failed", "started"]);
    assert_eq!((value(&metrics, "lifeboat_last_attempt_success"), value(&metrics, "lifeboat_last_attempt_exit")), (Some(0.0), Some(30.0)));
    assert_eq!(value(&metrics, "lifeboat_store_backups"), Some(2.0), "what there is is told all the same");
    drop(bench.backup(&[]).exit(30));
    assert_eq!(bench.events(), ["started"], "nothing has changed");

    bench.etcd.restart_member(0);
    drop(bench.backup(&[]).ok());
    assert_eq!(bench.events(), ["recovered", "started", "succeeded"]);
}

#[test]
fn a_store_that_is_gone_shows_in_status_and_in_the_metrics() {
    let Some(bench) = Bench::new("store is gone") else { return };
    drop(bench.backup(&["--no-notify"]).ok());
    let status = || bench.job.lifeboat.cmd(["status", "--config"]).arg(&bench.config);
    let stores = |finished: &Finished| finished.json()["clusters"][0]["stores_behind"].as_array().unwrap().clone();
    assert_eq!(stores(&status().args(["-o", "json"]).run().ok()), [serde_json::Value::Null; 0]);
    std::fs::rename(bench.job.dir().join("second"), bench.job.dir().join("away")).unwrap();
    let file = bench.job.dir().join("status.prom");
    let told = status().args(["-o", "json", "--metrics-file"]).arg(&file).run().ok();
    assert_eq!(stores(&told)[0]["store"], "second");
    assert_eq!(value(&file, "lifeboat_stores_behind"), Some(1.0));
    assert!(status().run().ok().out().contains("prod: the store 'second'"));
    drop(status().arg("--metrics-file").arg(bench.job.dir().join("status.txt")).run().exit(2));
}
