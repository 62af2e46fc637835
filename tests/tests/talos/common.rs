//! A user with a talosconfig.

use std::time::{Duration, Instant};

use lifeboat_tests::care::PATIENCE;
use lifeboat_tests::peers::skipped;
use lifeboat_tests::{EtcdVersion, Finished, Job, Run, Workload};
use serde_json::Value;
use talos_double::{Options, TalosDouble};

/// A running double and a user of it.
pub(crate) struct Talos {
    pub(crate) double: TalosDouble,
    pub(crate) job: Job,
}

impl Talos {
    /// With etcd 3.6; a word and nothing where that is not here.
    pub(crate) fn start(options: Options) -> Option<Self> {
        let etcd = EtcdVersion::V3_6;
        if !etcd.available() {
            skipped(format_args!("etcd {etcd} is not available"));
            return None;
        }
        Some(Self { double: TalosDouble::start(options.etcd(etcd)), job: Job::new() })
    }

    /// Fills etcd with what Kubernetes would.
    pub(crate) fn fill(&self, seed: u64) {
        lifeboat_tests::matrix::block_on(async {
            let client = self.double.etcd_client(0).await.unwrap();
            Workload::small(seed).apply(&client).await;
        });
    }

    /// The flags that mean this cluster with a context of its talosconfig.
    pub(crate) fn flags(&self, context: &str) -> Vec<String> {
        vec!["--talosconfig".to_owned(), self.double.talosconfig().display().to_string(), "--context".to_owned(), context.to_owned()]
    }

    pub(crate) fn backup_cmd(&self, context: &str) -> Run {
        self.job.backup_cmd(&self.flags(context))
    }

    /// `etcd …` as administrator.
    pub(crate) fn etcd(&self, words: &[&str]) -> Run {
        self.etcd_as("admin", words)
    }

    pub(crate) fn etcd_as(&self, context: &str, words: &[&str]) -> Run {
        self.job.lifeboat.cmd(["etcd"].iter().chain(words)).args(self.flags(context))
    }

    pub(crate) fn ip(&self, node: usize) -> String {
        self.double.node_ip(node).to_string()
    }

    /// The members as Lifeboat shows them, by host name.
    pub(crate) fn members(&self) -> Vec<(String, String, bool)> {
        let shown = self.etcd(&["members", "-o", "json"]).run().ok().json();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let line = |member: &Value| (text(&member["name"]), text(&member["id"]), member["answers"] == true);
        let mut members: Vec<_> = shown["members"].as_array().unwrap().iter().map(line).collect();
        members.sort();
        members
    }

    /// The node whose member leads, as soon as every member that answers names the same.
    pub(crate) fn leader(&self) -> usize {
        let until = Instant::now() + PATIENCE;
        loop {
            let shown = self.etcd(&["members", "-o", "json"]).run().ok().json();
            if let Some(leader) = shown["members"].as_array().unwrap().iter().find(|member| member["id"] == shown["leader"]) {
                return self.double.control_planes().find(|node| leader["name"] == self.double.hostname(*node)).unwrap();
            }
            assert!(Instant::now() < until, "{shown}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Several nodes lose their etcd data at once. One after the other the first could join the rest again before the last is struck.
    pub(crate) fn wipe_data(&self, nodes: impl IntoIterator<Item = usize> + Clone) {
        for node in nodes.clone() {
            self.double.kill_etcd(node);
        }
        for node in nodes {
            self.double.wipe_data(node);
        }
    }
}

/// The error of a run that failed, as it is told in JSON.
pub(crate) fn error(done: &Finished) -> Value {
    let line = done.err().lines().rev().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{done}")).to_owned();
    serde_json::from_str::<Value>(&line).unwrap()["error"].clone()
}
