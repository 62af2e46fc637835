#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use vault::backup_id::BackupId;
use vault::digest::Sha256;
use vault::lineage::Lineage;
use vault::manifest::Manifest;
use vault::mark::{Pin, Statement, Tombstone};
use vault::repository::Repository;
use vault::sign::{SigningKey, TrustedSigners};
use vault::store::fault::{Fault, FaultKind, FaultStore, Op};
use vault::store::{MemoryStore, Store};

use super::*;
use crate::place::PlaceOptions;
use crate::progress::Silent;

const MANIFEST: &[u8] = include_bytes!("../../../vault/tests/golden/v1/repository/prod/snapshots/20261121T020004Z-7qk2m9/manifest.json");
const IDS: [&str; 3] = ["20261121T010000Z-aaaaa1", "20261121T020000Z-bbbbb2", "20261121T030000Z-ccccc3"];
/// More than one block, and not a whole number of them.
const LARGE: usize = (17 << 20) + 5;

fn now() -> Timestamp {
    "2026-11-21T04:00:00Z".parse().unwrap()
}

fn id(at: usize) -> BackupId {
    IDS[at].parse().unwrap()
}

fn object(at: usize, name: &str) -> String {
    format!("prod/snapshots/{}/{name}", IDS[at])
}

/// Two stores that fail on demand; the first one is a repository with three backups, a lineage and marks.
struct Bench {
    memories: [MemoryStore; 2],
    stores: [FaultStore; 2],
    source: Repository,
    target: Repository,
    key: SigningKey,
}

impl Bench {
    async fn new() -> Self {
        let memories = [MemoryStore::new(), MemoryStore::new()];
        let stores = [0, 1].map(|at: usize| FaultStore::new(Arc::new(memories[at].clone())));
        let source = Repository::init(Arc::new(stores[0].clone()), now()).await.unwrap();
        let target = source.seed(Arc::new(stores[1].clone())).await.unwrap();
        let bench = Self { memories, stores, source, target, key: SigningKey::generate().unwrap() };
        let golden = Manifest::decode(MANIFEST).unwrap();
        let lineage = Lineage::new(golden.lineage, None, golden.fingerprint.clone());
        bench.source.write_lineage(&golden.cluster, &lineage).await.unwrap();
        for at in 0..3 {
            bench.backup(golden.clone(), at).await;
        }
        let pin = Statement::Pin(id(0), Pin { reason: Some("audit".into()) });
        bench.mark(&bench.source, pin).await;
        bench
    }

    async fn backup(&self, mut manifest: Manifest, at: usize) {
        manifest.repository = *self.source.id();
        manifest.id = id(at);
        manifest.signer = Some(self.key.public().id());
        for object in &mut manifest.objects {
            let length = if at == 1 && object.name.to_string() == "db.zst.age" { LARGE } else { 1000 };
            let bytes: Bytes = (0..length).map(|n| (n * 31 + at) as u8).collect::<Vec<u8>>().into();
            (object.size, object.sha256) = (length as u64, Sha256::of(&bytes));
            self.memories[0].overwrite(&format!("prod/snapshots/{}/{}", IDS[at], object.name), bytes);
        }
        self.source.commit(&manifest, Some(&self.key), now()).await.unwrap();
    }

    async fn mark(&self, on: &Repository, statement: Statement) {
        on.write_mark(&"prod".parse().unwrap(), statement, None, Some(&self.key), now()).await.unwrap();
    }

    fn trusting(&self, key: &SigningKey) -> (Repository, Repository) {
        let signers = TrustedSigners::new(vec![key.public().clone()]);
        (self.source.clone().with_signers(signers.clone()), self.target.clone().with_signers(signers))
    }

    async fn copy(&self, change: impl FnOnce(&mut Request)) -> crate::Outcome<Report> {
        self.copy_between(&self.source, &self.target, change).await
    }

    async fn copy_between(&self, source: &Repository, target: &Repository, change: impl FnOnce(&mut Request)) -> crate::Outcome<Report> {
        let named = |url: &str| NamedPlace::unnamed(PlaceOptions { url: url.to_owned(), ..PlaceOptions::default() });
        let mut request = Request {
            from: named("file:///from"),
            to: named("file:///to"),
            cluster: None,
            which: Vec::new(),
            allow_unsigned: false,
            dry_run: false,
        };
        change(&mut request);
        between(&request, source, target, false, &["prod".parse().unwrap()], &Silent).await
    }

    /// Everything in a store.
    async fn content(&self, at: usize) -> Vec<(String, Bytes)> {
        let mut content = Vec::new();
        for info in self.memories[at].list("").await.unwrap() {
            content.push((info.key.clone(), self.memories[at].get(&info.key, 1 << 30).await.unwrap().1));
        }
        content
    }

    async fn assert_equal(&self) {
        let (source, target) = (self.content(0).await, self.content(1).await);
        let keys = |content: &[(String, Bytes)]| content.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
        assert_eq!(keys(&source), keys(&target));
        assert!(source == target, "byte for byte");
    }

    async fn listed(&self) -> Vec<BackupId> {
        let catalog = self.target.catalog(&"prod".parse().unwrap()).await.unwrap();
        assert!(catalog.backups.iter().all(|backup| !backup.incomplete), "what is listed is whole");
        catalog.backups.iter().map(vault::repository::Backup::id).collect()
    }
}

fn fates(report: &Report) -> Vec<&'static str> {
    let word = |outcome: &Outcome| match outcome.fate {
        Fate::Copied(_) => "copied",
        Fate::There => "there",
        Fate::Skipped(_) => "skipped",
        Fate::Refused(_) => "refused",
    };
    report.clusters[0].backups.iter().map(word).collect()
}

#[tokio::test]
async fn an_empty_store_becomes_the_same_repository_byte_for_byte() {
    let bench = Bench::new().await;
    let planned = bench.copy(|request| request.dry_run = true).await.unwrap();
    assert_eq!(fates(&planned), ["copied"; 3]);
    assert_eq!(bench.content(1).await.len(), 2, "a plan writes nothing");
    let report = bench.copy(|_| ()).await.unwrap();
    assert_eq!(report.clusters, planned.clusters, "the plan is what was done");
    assert!(report.failure().is_none() && report.clusters[0].copied().1 > LARGE as u64);
    bench.assert_equal().await;
    let manifests: Vec<String> = bench.stores[1].log().into_iter().filter(|(op, _)| *op == Op::Create).map(|(_, key)| key).collect();
    let at = |text: &str| manifests.iter().position(|key| key.contains(text)).unwrap();
    assert!(at("lineages/") < at("frames.bin") && at("frames.bin") < at("manifest.json.minisig"));
    assert!(manifests.last().unwrap().contains("marks/"), "marks are about what is there: {manifests:?}");
}

#[tokio::test]
async fn only_what_is_missing_goes_over() {
    let bench = Bench::new().await;
    let some = bench.copy(|request| request.which = vec!["bbbbb2".to_owned()]).await.unwrap();
    assert_eq!((fates(&some), some.clusters[0].marks), (vec!["copied"], 0), "the pin is about another backup");
    let before = bench.stores[0].count(Op::GetRange);
    let rest = bench.copy(|_| ()).await.unwrap();
    assert_eq!((fates(&rest), rest.clusters[0].marks), (vec!["copied", "there", "copied"], 1));
    assert_eq!(bench.stores[0].count(Op::GetRange), before, "the large object is not read again");
    bench.assert_equal().await;
    let writes = bench.stores[1].count(Op::Create) + bench.stores[1].count(Op::Upload);
    assert_eq!(fates(&bench.copy(|_| ()).await.unwrap()), ["there"; 3]);
    assert_eq!(bench.stores[1].count(Op::Create) + bench.stores[1].count(Op::Upload), writes, "nothing is written twice");
}

/// The target fails at every single write in turn, before or after it was done: what is listed is whole, and the next run goes on.
#[tokio::test]
async fn stopped_at_any_write_it_goes_on() {
    for kind in [FaultKind::FailBefore, FaultKind::FailAfter, FaultKind::Full] {
        for (op, times) in [(Op::Create, 20), (Op::Upload, 1), (Op::Write, 3), (Op::Complete, 1)] {
            for nth in 0..times {
                let bench = Bench::new().await;
                bench.stores[1].inject(Fault::new(kind).on(op).nth(nth));
                let stopped = bench.copy(|_| ()).await;
                bench.listed().await;
                bench.stores[1].heal();
                if let Err(failure) = &stopped {
                    assert!(failure.next.is_some() && failure.to_string().contains("goes on"), "{failure}");
                } else {
                    assert!(op == Op::Create && nth > 8, "{op:?} {nth} went unnoticed");
                }
                let report = bench.copy(|_| ()).await.unwrap();
                assert!(report.failure().is_none(), "{op:?} {nth} {kind:?}: {:?}", report.failure());
                bench.assert_equal().await;
            }
        }
    }
}

/// A byte of the source is not what it was, or the end of an object is gone: that backup is named and not copied, all others are.
#[tokio::test]
async fn damage_in_the_source_is_named_and_does_not_go_over() {
    for (at, name, kind, ops) in [
        (1, "db.zst.age", FaultKind::Flip((9 << 20) + 3), Op::GetRange),
        (1, "db.zst.age", FaultKind::Hide, Op::GetRange),
        (0, "db.zst.age", FaultKind::Flip(999), Op::Get),
        (2, "frames.bin", FaultKind::Flip(0), Op::Get),
        (2, "frames.bin", FaultKind::Truncate(10), Op::Get),
    ] {
        let bench = Bench::new().await;
        bench.stores[0].inject(Fault::new(kind).on(ops).key(&object(at, name)));
        let report = bench.copy(|_| ()).await.unwrap();
        let failure = report.failure().unwrap();
        assert_eq!(failure.code, crate::Code::Unproven);
        assert_eq!(failure.object.as_deref(), Some(object(at, name).as_str()), "{failure}");
        assert!(failure.next.as_ref().unwrap().to_string().contains(&format!("verify {} --read --repo file:///from", &IDS[at][17..])));
        let whole: Vec<BackupId> = (0..3).filter(|other| *other != at).map(id).collect();
        assert_eq!(bench.listed().await, whole);
        assert!(bench.memories[1].head(&object(at, "manifest.json")).await.is_err());
        // The pin of a backup that could not be copied stays behind with it.
        assert_eq!(report.clusters[0].marks, usize::from(at != 0));
        bench.stores[0].heal();
        assert!(bench.copy(|_| ()).await.unwrap().failure().is_none());
        bench.assert_equal().await;
    }
}

#[tokio::test]
async fn a_damaged_manifest_is_named() {
    let bench = Bench::new().await;
    bench.memories[0].overwrite(&object(1, "manifest.json"), "{}");
    let report = bench.copy(|_| ()).await.unwrap();
    assert_eq!(fates(&report), ["copied", "copied"]);
    assert_eq!(report.clusters[0].refused.first().map(|refusal| refusal.object.clone()), Some(object(1, "manifest.json")));
    assert_eq!(report.failure().unwrap().code, crate::Code::Unproven);
}

/// Whatever lies in the target under a key that is needed is never overwritten and never believed.
#[tokio::test]
async fn what_the_target_holds_already_is_compared() {
    for (name, bytes) in [
        ("db.zst.age", vec![1; 1000]),
        ("db.zst.age", vec![1; 7]),
        ("manifest.json", b"{}".to_vec()),
        ("manifest.json.minisig", b"x".to_vec()),
    ] {
        let bench = Bench::new().await;
        bench.memories[1].overwrite(&object(0, name), bytes.clone());
        let report = bench.copy(|_| ()).await.unwrap();
        assert_eq!(fates(&report), ["refused", "copied", "copied"], "{name}");
        assert_eq!(report.failure().unwrap().code, crate::Code::Unproven);
        assert_eq!(bench.memories[1].get(&object(0, name), 1 << 20).await.unwrap().1, bytes);
    }
    // The same bytes, left by a run that was cut off, are taken.
    let bench = Bench::new().await;
    let data = bench.memories[0].get(&object(1, "db.zst.age"), 1 << 30).await.unwrap().1;
    bench.memories[1].overwrite(&object(1, "db.zst.age"), data);
    assert!(bench.copy(|_| ()).await.unwrap().failure().is_none());
    assert_eq!(bench.stores[1].count(Op::Upload), 0);
    bench.assert_equal().await;
}

/// An object of a listed backup is gone from the target: the copy brings it back.
#[tokio::test]
async fn a_backup_with_a_hole_is_mended() {
    let bench = Bench::new().await;
    bench.copy(|_| ()).await.unwrap();
    bench.memories[1].delete(&object(1, "db.zst.age")).await.unwrap();
    assert_eq!(fates(&bench.copy(|_| ()).await.unwrap()), ["there", "copied", "there"]);
    bench.assert_equal().await;
}

#[tokio::test]
async fn what_was_given_up_is_not_brought_back() {
    let bench = Bench::new().await;
    let tombstone = |at| Statement::Tombstone(id(at), Tombstone { due: now(), reason: None, pruner: None });
    // The first one is pinned, and a pin beats any tombstone.
    for at in 0..2 {
        bench.mark(&bench.target, tombstone(at)).await;
    }
    let report = bench.copy(|_| ()).await.unwrap();
    assert_eq!(fates(&report), ["copied", "skipped", "copied"]);
    assert!(report.failure().is_none());
    assert_eq!(bench.listed().await, [id(0), id(2)]);
    // What the source still lists it has not given up: a tombstone comes a day before anything goes, and may be a slip.
    let bench = Bench::new().await;
    for at in 0..2 {
        bench.mark(&bench.source, tombstone(at)).await;
    }
    assert_eq!(fates(&bench.copy(|_| ()).await.unwrap()), ["copied", "copied", "copied"]);
}

#[tokio::test]
async fn with_trusted_signers_only_what_they_signed_goes_over() {
    let bench = Bench::new().await;
    let (source, target) = bench.trusting(&bench.key);
    let stranger = SigningKey::generate().unwrap();
    let (strange_source, strange_target) = bench.trusting(&stranger);
    let report = bench.copy_between(&strange_source, &strange_target, |_| ()).await.unwrap();
    assert_eq!((fates(&report), report.clusters[0].marks), (vec!["refused"; 3], 0));
    let failure = report.failure().unwrap();
    assert!(failure.code == crate::Code::Failed && failure.to_string().contains("--allow-unsigned"), "{failure}");
    assert!(bench.listed().await.is_empty());
    let report = bench.copy_between(&strange_source, &strange_target, |request| request.allow_unsigned = true).await.unwrap();
    assert!(report.failure().is_none() && report.clusters[0].warnings.len() == 3, "it is said: {:?}", report.clusters[0].warnings);
    bench.assert_equal().await;

    assert_eq!(fates(&bench.copy_between(&source, &target, |_| ()).await.unwrap()), ["there"; 3]);
}

/// A store that cannot be reached ends the run with that, not with damage.
#[tokio::test]
async fn a_source_out_of_reach_is_no_damage() {
    let bench = Bench::new().await;
    bench.stores[0].inject(Fault::new(FaultKind::FailBefore).on(Op::GetRange));
    let failure = bench.copy(|_| ()).await.unwrap_err();
    assert_eq!(failure.code, crate::Code::StoreUnreachable, "{failure}");
    assert_eq!(bench.listed().await, [id(0)], "what was copied before is there");
}

/// Somebody removes the data of an old backup as litter right before its manifest is written: that is noticed, and mended by the next run.
#[tokio::test]
async fn data_that_vanish_at_the_commit_are_noticed() {
    let bench = Bench::new().await;
    // The look before the manifest finds it, the one after it does not.
    let gone = Fault::new(FaultKind::Hide).on(Op::Head).key(&object(0, "frames.bin")).nth(1);
    bench.stores[1].inject(gone);
    let report = bench.copy(|_| ()).await.unwrap();
    assert_eq!(fates(&report), ["refused", "copied", "copied"]);
    bench.stores[1].heal();
    bench.memories[1].delete(&object(0, "frames.bin")).await.unwrap();
    assert!(bench.copy(|_| ()).await.unwrap().failure().is_none());
    bench.assert_equal().await;
}
