#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use vault::digest::Sha256;
use vault::key::Key;
use vault::lineage::Lineage;
use vault::manifest::Manifest;
use vault::manifest::Rung;
use vault::mark::{Accept, Run, Verify};
use vault::repository::Repository;
use vault::store::{MemoryStore, Store};

use super::*;
use crate::config::{self, Config};

/// A manifest of the released format; each test changes what it is about.
const GOLDEN: &[u8] = include_bytes!("../../../vault/tests/golden/v1/repository/prod/snapshots/20261121T020004Z-7qk2m9/manifest.json");
const ONE: &str = "0001-file-0";
const TWO: &str = "0002-file-5";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn policy(sections: &str) -> Policy {
    let config: Config = config::parse(&format!("clusters: {{prod: {{kubeadm: {{}}, {sections}}}}}")).unwrap();
    config.policy(&config.clusters["prod"])
}

struct Bench {
    store: MemoryStore,
    repository: Repository,
}

impl Bench {
    async fn new() -> Self {
        let store = MemoryStore::new();
        let repository = Repository::init(Arc::new(store.clone()), at("2026-11-01T00:00:00Z")).await.unwrap();
        let bench = Self { store, repository };
        for (name, parent) in [(ONE, None), (TWO, Some(ONE))] {
            let parent = parent.map(|name: &str| name.parse().unwrap());
            bench.repository.write_lineage(&bench.cluster(), &Lineage::new(name.parse().unwrap(), parent, None)).await.unwrap();
        }
        bench
    }

    fn cluster(&self) -> ClusterName {
        "prod".parse().unwrap()
    }

    /// A backup of the running cluster.
    async fn backup(&self, moment: &str, lineage: &str, keys: u64) {
        let moment = at(moment);
        let mut manifest = Manifest::decode(GOLDEN).unwrap();
        manifest.id = format!("{}-00000a", moment.strftime("%Y%m%dT%H%M%SZ")).parse().unwrap();
        manifest.lineage = lineage.parse::<LineageName>().unwrap();
        (manifest.repository, manifest.cluster) = (*self.repository.id(), self.cluster());
        (manifest.epoch, manifest.source, manifest.signer, manifest.cluster_id) = (manifest.lineage.epoch(), Source::Direct, None, None);
        (manifest.fingerprint, manifest.last_row, manifest.counts.live_keys) = (None, None, keys);
        manifest.parents.clear();
        let times = &mut manifest.times;
        (times.started, times.stream_started, times.stream_ended, times.committed) = (moment, moment, moment, moment);
        times.opening_read = Some(moment);
        for object in &mut manifest.objects {
            let bytes = Bytes::from(format!("{} of {}", object.name, manifest.id));
            (object.size, object.sha256) = (bytes.len() as u64, Sha256::of(&bytes));
            let key = Key::Snapshot(manifest.cluster.clone(), manifest.id, object.name.clone());
            self.store.create(&key.to_string(), bytes).await.unwrap();
        }
        self.repository.commit(&manifest, None, moment).await.unwrap();
    }

    async fn mark(&self, statement: Statement, moment: &str) {
        drop(self.repository.write_mark(&self.cluster(), statement, None, None, at(moment)).await.unwrap());
    }

    async fn accept(&self, lineage: &str) {
        self.mark(Statement::Accept(lineage.parse().unwrap(), Accept { fingerprint: None }), "2026-11-02T00:00:00Z").await;
    }

    async fn catalog(&self) -> Catalog {
        self.repository.catalog(&self.cluster()).await.unwrap()
    }
}

#[tokio::test]
async fn what_is_still_taken_of_an_older_history_is_not_the_running_cluster() {
    let bench = Bench::new().await;
    let now = at("2026-11-20T12:00:00Z");
    bench.backup("2026-11-20T06:00:00Z", ONE, 10).await;
    bench.backup("2026-11-20T08:00:00Z", TWO, 10).await;
    bench.accept(TWO).await;
    let policy = policy("backup: {every: 1h}");
    let before = judge(&bench.catalog().await, &policy, now);
    // The members that were replaced are up again, and somebody backs them up under the same name.
    bench.backup("2026-11-20T11:59:00Z", ONE, 10).await;
    let catalog = bench.catalog().await;
    let after = judge(&catalog, &policy, now);
    assert_eq!((before.state, after.state), (State::Stale, State::Stale));
    assert_eq!(last_moment(&catalog, now), Some(at("2026-11-20T08:00:00Z")), "the next one is due all the same");
}

#[tokio::test]
async fn a_check_that_nothing_passes_is_overdue_and_a_wrong_clock_does_not_hide_it() {
    let bench = Bench::new().await;
    let now = at("2026-11-20T12:00:00Z");
    let policy = policy("backup: {every: 1h}, verify: {every: 1d}, drill: {every: 30d}");
    bench.backup("2026-11-19T12:00:00Z", ONE, 10).await;
    assert!(judge(&bench.catalog().await, &policy, now).overdue.is_empty(), "it may still come");
    bench.backup("2026-11-18T06:00:00Z", ONE, 10).await;
    let standing = judge(&bench.catalog().await, &policy, now);
    assert_eq!(standing.overdue, ["verify"]);
    assert!(standing.warnings.iter().any(|word| word.starts_with("overdue: nothing has passed verify")), "{:?}", standing.warnings);
    let id = bench.catalog().await.backups[0].id();
    let passed = |moment: &str| {
        Statement::Verify(id, Verify { rung: Rung::Read, result: Ending::Passed, at: at(moment), hashkv: None, detail: None })
    };
    bench.mark(passed("2036-01-01T00:00:00Z"), "2026-11-20T09:00:00Z").await;
    assert_eq!(judge(&bench.catalog().await, &policy, now).overdue, ["verify"]);
    bench.mark(passed("2026-11-20T10:00:00Z"), "2026-11-20T10:00:00Z").await;
    assert!(judge(&bench.catalog().await, &policy, now).overdue.is_empty());
}

#[tokio::test]
async fn a_backup_of_the_future_does_not_end_a_row_of_failures() {
    let bench = Bench::new().await;
    let now = at("2026-11-20T12:00:00Z");
    let policy = policy("backup: {every: 6h}");
    bench.backup("2026-11-20T10:00:00Z", ONE, 10).await;
    let failed = Run { verb: record::BACKUP.to_owned(), result: RunResult::Failed, exit: 30, at: at("2026-11-20T11:00:00Z"), detail: None };
    bench.mark(Statement::Run(failed), "2026-11-20T11:00:00Z").await;
    assert_eq!(judge(&bench.catalog().await, &policy, now).state, State::LastRunFailed);
    bench.backup("2035-01-01T00:00:00Z", ONE, 10).await;
    assert_eq!(judge(&bench.catalog().await, &policy, now).state, State::LastRunFailed);
    bench.backup("2026-11-20T11:30:00Z", ONE, 10).await;
    assert_eq!(judge(&bench.catalog().await, &policy, now).state, State::Protected);
}

#[tokio::test]
async fn a_mass_deletion_is_told_of_until_there_is_a_backup_like_its_predecessor() {
    let bench = Bench::new().await;
    let now = at("2026-11-20T12:00:00Z");
    let policy = policy("backup: {every: 6h}, alert: {content_shrinks_by: 30%}");
    bench.backup("2026-11-20T08:00:00Z", ONE, 1_000).await;
    bench.backup("2026-11-20T09:00:00Z", ONE, 700).await;
    assert!(judge(&bench.catalog().await, &policy, now).changed.is_empty());
    bench.backup("2026-11-20T10:00:00Z", ONE, 400).await;
    let standing = judge(&bench.catalog().await, &policy, now);
    assert!(standing.changed.len() == 1 && standing.changed[0].contains("holds 400 keys, the one before it 700"), "{:?}", standing.changed);
    assert_eq!((standing.state, standing.warnings.len()), (State::Protected, 1));
    bench.backup("2026-11-20T11:00:00Z", ONE, 400).await;
    assert!(judge(&bench.catalog().await, &policy, now).changed.is_empty());
}
