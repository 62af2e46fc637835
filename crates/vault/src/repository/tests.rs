#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::*;
use crate::backup_id::BackupId;
use crate::frames::FrameTable;
use crate::key::MARKER;
use crate::lineage::standing::Doubt;
use crate::lineage::{Fingerprint, LineageName};
use crate::manifest::tests::example;
use crate::manifest::{HashKvVerdict, Parent, Rung, Source};
use crate::mark::{Accept, Outcome, Pin, Restore, Tags, Tombstone, Unpin, Verify};
use crate::name::Tag;
use crate::repository::catalog::NotLatest;
use crate::sign::Status;
use crate::store::MemoryStore;
use crate::store::fault::{Fault, FaultKind, FaultStore, Op};

const A: &str = "0001-cdf818194e3a8c32-0";
const B: &str = "0002-000000000000000b-0";
const UID: &str = "6a1f2b3c-0000-4444-8888-123456789abc";

fn now() -> Timestamp {
    "2026-11-21T02:10:00Z".parse().unwrap()
}

struct Bench {
    store: MemoryStore,
    repository: Repository,
    key: SigningKey,
}

impl Bench {
    async fn new() -> Self {
        let store = MemoryStore::new();
        let repository = Repository::init(Arc::new(store.clone()), now()).await.unwrap();
        let bench = Self { store, repository, key: SigningKey::generate().unwrap() };
        bench.lineage(A, None, UID).await;
        bench
    }

    fn cluster(&self) -> ClusterName {
        "prod".parse().unwrap()
    }

    async fn lineage(&self, name: &str, parent: Option<&str>, fingerprint: &str) {
        let parse = |name: &str| name.parse::<LineageName>().unwrap();
        let lineage = Lineage::new(parse(name), parent.map(parse), fingerprint.parse().ok());
        self.repository.write_lineage(&self.cluster(), &lineage).await.unwrap();
    }

    /// A manifest of a tiny set whose objects are in the store.
    async fn manifest(&self, id: &str, revision: i64) -> Manifest {
        let mut manifest = example();
        manifest.repository = *self.repository.id();
        manifest.id = id.parse().unwrap();
        manifest.revision = revision;
        manifest.compact_revision = crate::manifest::CompactRevision { scheduled: revision - 10.min(revision), finished: 0 };
        manifest.last_row = None;
        manifest.parents.clear();
        manifest.signer = Some(self.key.public().id());
        manifest.times.opening_read = Some(manifest.id.start());
        for object in &mut manifest.objects {
            let bytes = Bytes::from(format!("{} of {id}", object.name));
            (object.size, object.sha256) = (bytes.len() as u64, Sha256::of(&bytes));
            let key = Key::Snapshot(manifest.cluster.clone(), manifest.id, object.name.clone());
            self.store.create(&key.to_string(), bytes).await.unwrap();
        }
        manifest
    }

    async fn commit(&self, manifest: &Manifest) -> Committed {
        let signer = manifest.signer.map(|_| &self.key);
        self.repository.commit(manifest, signer, now()).await.unwrap()
    }

    async fn backup(&self, id: &str, revision: i64, change: impl FnOnce(&mut Manifest)) -> Committed {
        let mut manifest = self.manifest(id, revision).await;
        change(&mut manifest);
        self.commit(&manifest).await
    }

    async fn mark(&self, statement: Statement) -> MarkId {
        self.repository.write_mark(&self.cluster(), statement, None, Some(&self.key), now()).await.unwrap().id
    }

    async fn catalog(&self) -> Catalog {
        self.repository.catalog(&self.cluster()).await.unwrap()
    }

    async fn trusting(&self) -> Catalog {
        let signers = TrustedSigners::new(vec![self.key.public().clone()]);
        self.repository.clone().with_signers(signers).catalog(&self.cluster()).await.unwrap()
    }
}

const ONE: &str = "20261121T010000Z-aaaaa1";
const TWO: &str = "20261121T020000Z-bbbbb2";
const THREE: &str = "20261121T020100Z-ccccc3";

fn id(text: &str) -> BackupId {
    text.parse().unwrap()
}

fn latest(catalog: &Catalog) -> Option<String> {
    catalog.resolve(&Selector::Latest(0)).ok().map(|found| found.backup.id().to_string())
}

// Making and opening.

#[tokio::test]
async fn an_empty_place_a_repository_and_something_else_differ() {
    let store = MemoryStore::new();
    let open = || Repository::open(Arc::new(store.clone()));
    assert!(matches!(open().await, Err(RepositoryError::NoRepository { empty: true, .. })));
    store.create("other/thing", Bytes::from_static(b"x")).await.unwrap();
    assert!(matches!(open().await, Err(RepositoryError::NoRepository { empty: false, .. })));
    assert!(Repository::init(Arc::new(store.clone()), now()).await.is_err(), "made among other things");
    assert!(store.get(MARKER, 1 << 16).await.is_err());
}

#[tokio::test]
async fn init_is_idempotent_for_one_id_and_refuses_another() {
    let store = MemoryStore::new();
    // An init that was cut off behind its first object.
    store.create("RESTORE.txt", Bytes::from_static(b"of another release")).await.unwrap();
    let first = Repository::init(Arc::new(store.clone()), now()).await.unwrap();
    let again = Repository::init_as(Arc::new(store.clone()), *first.id(), now()).await.unwrap();
    assert_eq!(again.marker(), first.marker());
    let other = Repository::init(Arc::new(store.clone()), now()).await;
    assert!(matches!(other, Err(RepositoryError::AlreadyThere { id, .. }) if id == *first.id()));
}

#[tokio::test(start_paused = true)]
async fn those_who_begin_at_once_get_one_repository() {
    let milliseconds = std::time::Duration::from_millis;
    for seed in 0..200_u64 {
        let store = Arc::new(MemoryStore::new());
        let begins = (0..6_u64).map(|who| {
            let slow = FaultStore::new(Arc::<MemoryStore>::clone(&store));
            for (at, op) in [Op::Get, Op::List, Op::Create].into_iter().enumerate() {
                let wait = (seed * 31 + who * 7 + at as u64 * 13) * 2_654_435_761 % 11;
                slow.inject(Fault::new(FaultKind::Slow(milliseconds(wait))).on(op));
            }
            async move {
                let (repository, made) = Repository::open_or_init(Arc::new(slow.clone()), now()).await.unwrap();
                // From here on the place holds more than the marker.
                slow.create(&format!("cluster{who}/lease.json"), Bytes::from_static(b"x")).await.unwrap();
                (*repository.id(), made)
            }
        });
        let begun = futures::future::join_all(begins).await;
        assert_eq!(begun.iter().filter(|(_, made)| *made).count(), 1, "seed {seed}: {begun:?}");
        assert!(begun.iter().all(|(id, _)| *id == begun[0].0), "seed {seed}: {begun:?}");
    }
}

#[tokio::test]
async fn a_damaged_marker_is_not_an_empty_place() {
    let bench = Bench::new().await;
    let (_, bytes) = bench.store.get(MARKER, 1 << 16).await.unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 2;
        bench.store.overwrite(MARKER, damaged);
        let opened = Repository::open(Arc::new(bench.store.clone())).await;
        assert!(matches!(opened, Err(RepositoryError::Marker { .. })), "byte {at}");
    }
}

#[tokio::test]
async fn restore_text_is_there_from_the_beginning() {
    let bench = Bench::new().await;
    let (_, bytes) = bench.store.get("RESTORE.txt", 1 << 20).await.unwrap();
    assert_eq!(bytes, restore_txt::text());
}

// Committing.

#[tokio::test]
async fn a_backup_is_listed_after_its_commit_and_not_before() {
    let bench = Bench::new().await;
    let manifest = bench.manifest(TWO, 100).await;
    let before = bench.catalog().await;
    assert!(before.backups.is_empty() && before.problems.is_empty());
    assert_eq!((before.uncommitted.len(), before.uncommitted[0].objects), (1, 3));
    let committed = bench.commit(&manifest).await;
    let after = bench.trusting().await;
    assert_eq!((after.backups.len(), after.problems.len(), after.uncommitted.len()), (1, 0, 0));
    assert_eq!(after.backups[0].manifest, manifest);
    assert_eq!(after.backups[0].sha256, committed.sha256);
    assert_eq!(after.backups[0].signature, Status::Trusted(bench.key.public().id()));
    assert_eq!(bench.repository.clusters().await.unwrap(), [bench.cluster()]);
}

/// The store takes the manifest and says nothing: that is no failure, for the backup may be listed.
#[tokio::test]
async fn a_commit_without_an_answer_is_unsettled() {
    let bench = Bench::new().await;
    let manifest = bench.manifest(TWO, 100).await;
    let faulty = FaultStore::new(Arc::new(bench.store.clone()));
    let repository = Repository::open(Arc::new(faulty.clone())).await.unwrap();
    let commit = async || repository.commit(&manifest, Some(&bench.key), now()).await.unwrap_err();
    // The objects cannot be looked at, the signature cannot be written: nothing is listed for sure.
    for (op, key) in [(Op::Head, "db"), (Op::Create, "manifest.json.minisig")] {
        faulty.inject(Fault::new(FaultKind::FailBefore).on(op).key(key));
        assert!(matches!(commit().await, RepositoryError::Store(StoreError::Unreachable { .. })), "{op:?}");
        faulty.heal();
    }
    assert!(bench.catalog().await.backups.is_empty());
    faulty.inject(Fault::new(FaultKind::FailAfter).on(Op::Create).key("manifest.json").nth(1));
    let error = commit().await;
    assert!(matches!(&error, RepositoryError::Unsettled { key, .. } if key.ends_with("/manifest.json")), "{error}");
    assert_eq!(bench.catalog().await.backups.len(), 1);
}

#[tokio::test]
async fn what_is_not_fit_is_not_written() {
    let bench = Bench::new().await;
    let good = bench.manifest(TWO, 100).await;
    type Change = fn(&mut Manifest);
    let changes: [(&str, Change); 5] = [
        ("another repository", |m| m.repository = "01D39ZY06FGSCTVN4T2V9PKHFZ".parse().unwrap()),
        ("another signer", |m| m.signer = Some(crate::sign::KeyId(1))),
        ("a contradiction", |m| m.revision = 0),
        ("another size", |m| m.objects[0].size += 1),
        ("a lineage that is not there", |m| m.lineage = "0009-cdf818194e3a8c32-0".parse().unwrap()),
    ];
    for (what, change) in changes {
        let mut manifest = good.clone();
        change(&mut manifest);
        assert!(bench.repository.commit(&manifest, Some(&bench.key), now()).await.is_err(), "{what}");
    }
    let late = now().checked_add(jiff::SignedDuration::from_hours(25)).unwrap();
    assert!(bench.repository.commit(&good, Some(&bench.key), late).await.is_err(), "late");
    assert!(bench.repository.commit(&good, None, now()).await.is_err(), "unsigned");
    assert!(bench.catalog().await.backups.is_empty());
    bench.store.delete(&Key::Snapshot(bench.cluster(), good.id, good.objects[0].name.clone()).to_string()).await.unwrap();
    assert!(bench.repository.commit(&good, Some(&bench.key), now()).await.is_err(), "missing data");
}

#[tokio::test]
async fn nothing_stored_is_overwritten() {
    let bench = Bench::new().await;
    let manifest = bench.manifest(TWO, 100).await;
    bench.commit(&manifest).await;
    let mut other = manifest.clone();
    other.revision += 1;
    let again = bench.repository.commit(&other, Some(&bench.key), now()).await;
    assert!(matches!(again, Err(RepositoryError::Conflict { .. })), "{again:?}");
    assert_eq!(bench.catalog().await.backups[0].manifest, manifest);

    let lineage = Lineage::new(A.parse().unwrap(), None, "another".parse().ok());
    let conflict = bench.repository.write_lineage(&bench.cluster(), &lineage).await;
    assert!(matches!(conflict, Err(RepositoryError::Conflict { .. })));
    bench.lineage(A, None, UID).await;
}

// Damage.

#[tokio::test]
async fn damage_is_listed_and_hides_nothing_else() {
    let bench = Bench::new().await;
    bench.backup(ONE, 100, |_| {}).await;
    bench.backup(TWO, 200, |_| {}).await;
    let key = format!("prod/snapshots/{TWO}/manifest.json");
    let (_, bytes) = bench.store.get(&key, 1 << 16).await.unwrap();
    for at in (0..bytes.len()).step_by(97) {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 1;
        bench.store.overwrite(&key, damaged);
        let catalog = bench.catalog().await;
        assert_eq!(catalog.backups.iter().map(Backup::id).collect::<Vec<_>>(), [id(ONE)], "byte {at}");
        assert!(catalog.problems.iter().any(|problem| problem.key == key), "byte {at}");
    }
    bench.store.overwrite(&key, vec![b' '; (64 << 10) + 1]);
    assert_eq!(bench.catalog().await.problems.len(), 1);
}

#[tokio::test]
async fn strange_keys_and_moved_objects_are_problems() {
    let bench = Bench::new().await;
    bench.backup(ONE, 100, |_| {}).await;
    let (_, manifest) = bench.store.get(&format!("prod/snapshots/{ONE}/manifest.json"), 1 << 16).await.unwrap();
    let (_, signature) = bench.store.get(&format!("prod/snapshots/{ONE}/manifest.json.minisig"), 1 << 16).await.unwrap();
    bench.store.overwrite(&format!("prod/snapshots/{TWO}/manifest.json"), manifest);
    bench.store.overwrite(&format!("prod/snapshots/{TWO}/manifest.json.minisig"), signature);
    bench.store.overwrite("prod/snapshots/README", &b"x"[..]);
    let catalog = bench.catalog().await;
    assert_eq!(catalog.backups.len(), 1);
    let kinds: Vec<String> = catalog.problems.iter().map(|problem| problem.to_string()).collect();
    assert_eq!(kinds.len(), 3, "{kinds:?}");
    assert!(kinds.iter().filter(|kind| kind.contains("moved")).count() == 2, "{kinds:?}");
}

#[tokio::test]
async fn missing_and_cut_data_objects_are_named() {
    let bench = Bench::new().await;
    bench.backup(ONE, 100, |_| {}).await;
    bench.store.overwrite(&format!("prod/snapshots/{ONE}/db.zst.age"), &b"short"[..]);
    bench.store.delete(&format!("prod/snapshots/{ONE}/frames.bin")).await.unwrap();
    let catalog = bench.catalog().await;
    assert!(matches!(catalog.problems[0].kind, ProblemKind::Size { there: 5, .. }));
    assert_eq!(catalog.problems[1].kind, ProblemKind::Missing);
    assert_eq!(catalog.backups[0].not_latest(), Some(NotLatest::Failed));
}

#[tokio::test]
async fn a_lineage_that_is_gone_or_damaged_is_noticed() {
    let bench = Bench::new().await;
    bench.backup(ONE, 100, |_| {}).await;
    let key = format!("prod/lineages/{A}.json");
    bench.store.overwrite(&key, &b"junk"[..]);
    let damaged = bench.catalog().await;
    assert!(matches!(damaged.problems[0].kind, ProblemKind::Damaged(_)));
    assert_eq!((damaged.histories().highest_seq, latest(&damaged)), (1, None));
    bench.store.delete(&key).await.unwrap();
    let gone = bench.catalog().await;
    assert_eq!(gone.problems[0].kind, ProblemKind::LineageMissing);
    assert_eq!(gone.backups[0].unconfirmed, Some(Doubt::LineageMissing));
}

#[tokio::test]
async fn a_parent_that_vanished_is_reported_unless_a_tombstone_says_why() {
    let bench = Bench::new().await;
    let one = bench.backup(ONE, 100, |_| {}).await;
    bench.backup(TWO, 200, |m| m.parents = vec![Parent { id: id(ONE), sha256: one.sha256 }]).await;
    assert!(bench.catalog().await.problems.is_empty());
    bench.backup(THREE, 300, |m| m.parents = vec![Parent { id: id(ONE), sha256: Sha256::of(b"other") }]).await;
    assert_eq!(bench.catalog().await.problems[0].kind, ProblemKind::Replaced { child: id(THREE) });
    for object in ["manifest.json", "manifest.json.minisig"] {
        bench.store.delete(&format!("prod/snapshots/{ONE}/{object}")).await.unwrap();
    }
    let catalog = bench.catalog().await;
    assert!(matches!(catalog.problems[..], [Problem { kind: ProblemKind::Vanished { .. }, .. }]), "{:?}", catalog.problems);
    bench.mark(Statement::Tombstone(id(ONE), Tombstone { due: now(), reason: None, pruner: None })).await;
    assert!(bench.catalog().await.problems.is_empty());
}

// Trust.

#[tokio::test]
async fn unsigned_and_foreign_backups_do_not_count_where_signers_are_trusted() {
    let bench = Bench::new().await;
    bench.backup(ONE, 100, |_| {}).await;
    bench.backup(TWO, 900, |m| m.signer = None).await;
    let foreign = SigningKey::generate().unwrap();
    let mut manifest = bench.manifest(THREE, 1000).await;
    manifest.signer = Some(foreign.public().id());
    bench.repository.commit(&manifest, Some(&foreign), now()).await.unwrap();

    let trusting = bench.trusting().await;
    assert_eq!(trusting.backups.iter().map(|backup| backup.counts).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(latest(&trusting).as_deref(), Some(ONE));
    assert_eq!(trusting.histories().known[0].highest, Some(100));
    assert_eq!(latest(&bench.catalog().await).as_deref(), Some(THREE), "without trusted signers all count");
}

#[tokio::test]
async fn foreign_marks_do_nothing_where_signers_are_trusted() {
    let bench = Bench::new().await;
    bench.backup(ONE, 100, |_| {}).await;
    bench.lineage(B, Some(A), "another-cluster").await;
    bench.backup(TWO, 200, |m| m.lineage = B.parse().unwrap()).await;
    let foreign = SigningKey::generate().unwrap();
    let accept = || Statement::Accept(B.parse().unwrap(), Accept { fingerprint: None });
    bench.repository.write_mark(&bench.cluster(), accept(), None, Some(&foreign), now()).await.unwrap();
    bench.repository.write_mark(&bench.cluster(), accept(), None, None, now()).await.unwrap();
    assert_eq!(latest(&bench.trusting().await).as_deref(), Some(ONE));
    bench.mark(accept()).await;
    // The lineage is accepted; its backup's own fingerprint is not the lineage's, and the mark took "none" only.
    assert_eq!(bench.trusting().await.backups[1].unconfirmed, Some(Doubt::OtherFingerprint));
}

// Histories.

#[tokio::test]
async fn an_unconfirmed_history_is_never_latest_until_accepted() {
    let bench = Bench::new().await;
    let other: Option<Fingerprint> = "another-cluster".parse().ok();
    bench.backup(ONE, 100, |_| {}).await;
    bench.lineage(B, Some(A), "another-cluster").await;
    bench.backup(TWO, 900, |m| (m.lineage, m.fingerprint) = (B.parse().unwrap(), other.clone())).await;
    let catalog = bench.catalog().await;
    assert_eq!(latest(&catalog).as_deref(), Some(ONE));
    assert_eq!(catalog.backups[1].not_latest(), Some(NotLatest::Unconfirmed));
    assert_eq!(catalog.resolve(&Selector::Text("bbbbb2".into())).unwrap().backup.id(), id(TWO), "by its name it is found");
    bench.mark(Statement::Accept(B.parse().unwrap(), Accept { fingerprint: other })).await;
    assert_eq!(latest(&bench.catalog().await).as_deref(), Some(TWO));
}

#[tokio::test]
async fn a_restored_cluster_is_accepted_by_the_restore_mark() {
    let bench = Bench::new().await;
    bench.backup(ONE, 100, |_| {}).await;
    let name = "0002-000000000000000b-5000000123";
    bench.lineage(name, Some(A), "").await;
    bench.backup(TWO, 5_000_000_200, |m| (m.lineage, m.epoch, m.fingerprint) = (name.parse().unwrap(), 5_000_000_123, None)).await;
    assert_eq!(latest(&bench.catalog().await).as_deref(), Some(ONE));
    let data = Restore { target_revision: 5_000_000_123, bumped: true, at: now(), token: None };
    bench.mark(Statement::Restore(id(ONE), data)).await;
    assert_eq!(latest(&bench.catalog().await).as_deref(), Some(TWO));
}

/// A rescue of another epoch stands in the lineage of a history that goes on without it; what it says of its own changes nothing there.
#[tokio::test]
async fn a_rescue_stands_beside_a_history_and_changes_nothing_of_it() {
    let bench = Bench::new().await;
    bench.backup(ONE, 100, |_| {}).await;
    let before = bench.catalog().await;
    bench.backup(TWO, 6_000_000_000, |m| (m.source, m.clean, m.epoch) = (Source::Rescue, Some(false), 5_000_000_123)).await;
    let catalog = bench.catalog().await;
    assert_eq!((catalog.problems.len(), catalog.backups.len(), latest(&catalog).as_deref()), (0, 2, Some(ONE)));
    assert_eq!((catalog.backups[1].unconfirmed.clone(), catalog.backups[1].not_latest()), (None, Some(NotLatest::Rescue)));
    assert_eq!(catalog.histories(), before.histories());
    assert_eq!(catalog.highest_revision(), 6_000_000_000, "a bump must pass it");
    assert_eq!(catalog.resolve(&Selector::Text("bbbbb2".into())).unwrap().backup.id(), id(TWO));
}

#[tokio::test]
async fn disputed_failed_and_rescued_backups_are_not_latest() {
    let bench = Bench::new().await;
    bench.backup(ONE, 100, |_| {}).await;
    bench.backup("20261121T013000Z-ddddd1", 200, |m| m.hashkv.verdict = HashKvVerdict::Disputed).await;
    bench.backup("20261121T013000Z-ddddd2", 300, |m| m.hashkv.verdict = HashKvVerdict::Failed).await;
    bench.backup("20261121T013000Z-ddddd3", 400, |m| (m.source, m.clean) = (Source::Rescue, Some(true))).await;
    let catalog = bench.catalog().await;
    assert_eq!(latest(&catalog).as_deref(), Some(ONE));
    assert_eq!(catalog.histories().known[0].highest, Some(100));
    assert_eq!(catalog.highest_revision(), 400, "a bump must pass them all");
    bench.backup(TWO, 50, |m| m.hashkv.verdict = HashKvVerdict::Inconclusive).await;
    assert_eq!(bench.catalog().await.eligible().len(), 2);
}

#[tokio::test]
async fn of_two_backups_of_one_second_the_later_one_is_latest() {
    let bench = Bench::new().await;
    let (first, second) = ("20261121T013000Z-zzzzz9", "20261121T013000Z-aaaaa1");
    bench.backup(first, 100, |_| {}).await;
    bench.backup(second, 100, |m| m.times.opening_read = m.times.opening_read.map(|at| at + jiff::SignedDuration::from_millis(300))).await;
    assert_eq!(latest(&bench.catalog().await).as_deref(), Some(second));
}

// Naming.

#[tokio::test]
async fn latest_goes_by_history_then_revision_then_id() {
    let bench = Bench::new().await;
    bench.backup(THREE, 100, |_| {}).await;
    bench.backup(ONE, 200, |_| {}).await;
    bench.backup(TWO, 200, |_| {}).await;
    bench.lineage(B, Some(A), UID).await;
    assert_eq!(latest(&bench.catalog().await).as_deref(), Some(TWO), "a history without backups does not hide the one before");
    bench.backup("20261121T000000Z-ddddd4", 5, |m| m.lineage = B.parse().unwrap()).await;
    let catalog = bench.catalog().await;
    let back = |n| catalog.resolve(&Selector::Latest(n)).map(|found| found.backup.id());
    assert_eq!(back(0), Ok(id("20261121T000000Z-ddddd4")));
    assert_eq!((back(1), back(2), back(3)), (Ok(id(TWO)), Ok(id(ONE)), Ok(id(THREE))));
    assert!(matches!(back(4), Err(ResolveError::TooFew { have: 4, .. })));
    let parents = catalog.parents();
    assert_eq!(parents.iter().map(|parent| parent.id).collect::<Vec<_>>(), [id("20261121T000000Z-ddddd4"), id(THREE)]);
}

#[tokio::test]
async fn ids_are_found_by_their_beginning_and_their_end() {
    let bench = Bench::new().await;
    for (at, id) in [ONE, TWO, THREE].into_iter().enumerate() {
        bench.backup(id, 100 + at as i64, |_| {}).await;
    }
    let catalog = bench.catalog().await;
    let find = |text: &str| catalog.resolve(&Selector::Text(text.into())).map(|found| found.backup.id());
    assert_eq!(find(ONE), Ok(id(ONE)));
    assert_eq!(find("20261121T01"), Ok(id(ONE)));
    assert_eq!(find("ccccc3"), Ok(id(THREE)));
    assert!(matches!(find("20261121T02"), Err(ResolveError::Ambiguous { ids, .. }) if ids.len() == 2));
    assert!(matches!(find("cccc3"), Err(ResolveError::NotFound { .. })));
}

#[tokio::test]
async fn a_revision_is_reached_exactly_from_above_or_from_below() {
    let bench = Bench::new().await;
    bench.backup(ONE, 100, |_| {}).await;
    bench.backup(TWO, 200, |_| {}).await;
    bench.backup(THREE, 205, |_| {}).await;
    let catalog = bench.catalog().await;
    let at = |revision| catalog.resolve(&Selector::Revision(revision)).map(|found| (found.backup.id(), found.reach));
    assert_eq!(at(200), Ok((id(TWO), Reach::Exact)));
    assert_eq!(at(196), Ok((id(TWO), Reach::Later { revisions: 4 })), "the nearest that holds it");
    assert_eq!(at(202), Ok((id(THREE), Reach::Later { revisions: 3 })));
    assert_eq!(at(150), Ok((id(ONE), Reach::Earlier { revisions: 50 })), "compacted in the later ones");
    assert_eq!(at(1000), Ok((id(THREE), Reach::Earlier { revisions: 795 })));
    assert!(matches!(at(5), Err(ResolveError::NoRevision { .. })));
}

#[tokio::test]
async fn a_moment_finds_the_newest_backup_not_later() {
    let bench = Bench::new().await;
    bench.backup(ONE, 100, |_| {}).await;
    bench.backup(TWO, 200, |_| {}).await;
    let catalog = bench.catalog().await;
    let at = |moment: &str| catalog.at_moment(moment.parse().unwrap()).map(|found| (found.backup.id(), found.reach));
    assert_eq!(at("2026-11-21T02:00:00Z"), Ok((id(TWO), Reach::Exact)));
    let by = jiff::SignedDuration::from_secs(1800);
    assert_eq!(at("2026-11-21T01:30:00Z"), Ok((id(ONE), Reach::Before { by })));
    assert!(matches!(at("2026-11-21T00:59:59Z"), Err(ResolveError::NothingBefore { .. })));
}

#[tokio::test]
async fn an_empty_catalog_says_why() {
    let bench = Bench::new().await;
    let error = bench.catalog().await.resolve(&Selector::Latest(0)).unwrap_err();
    assert_eq!(error.to_string(), "there are 0 backups that can be 'latest'");
    bench.backup(ONE, 100, |m| m.hashkv.verdict = HashKvVerdict::Failed).await;
    let error = bench.catalog().await.resolve(&Selector::Latest(0)).unwrap_err();
    assert!(error.to_string().ends_with("left out: 1 HashKV disputed or failed"), "{error}");
}

// Marks.

#[tokio::test]
async fn pins_tags_and_proofs_come_from_marks() {
    let bench = Bench::new().await;
    bench.backup(ONE, 100, |_| {}).await;
    let first = bench.mark(Statement::Pin(id(ONE), Pin::default())).await;
    let second = bench.mark(Statement::Pin(id(ONE), Pin { reason: Some("audit".into()) })).await;
    bench.mark(Statement::Unpin(id(ONE), Unpin { pins: vec![first] })).await;
    bench.mark(Statement::Tag(id(ONE), Tags { tags: vec!["keep".parse().unwrap()] })).await;
    let data = Verify { rung: Rung::Deep, result: Outcome::Passed, at: now(), hashkv: None, detail: None };
    bench.mark(Statement::Verify(id(ONE), data.clone())).await;
    let catalog = bench.trusting().await;
    let backup = catalog.backup(&id(ONE)).unwrap();
    assert_eq!(backup.pins.iter().collect::<Vec<_>>(), [&second]);
    assert_eq!(backup.tags.iter().map(Tag::as_str).collect::<Vec<_>>(), ["before-upgrade", "keep"]);
    assert_eq!((backup.proof.rung, backup.proof.at), (Rung::Deep, Some(now())));
    assert_eq!(catalog.newest_mark().map(|previous| previous.id), catalog.marks.last().map(|entry| entry.mark.id));

    bench.mark(Statement::Verify(id(ONE), Verify { result: Outcome::Failed, ..data })).await;
    let failed = bench.trusting().await;
    assert_eq!(failed.backups[0].not_latest(), Some(NotLatest::Failed));
}

#[tokio::test]
async fn a_marks_signature_is_written_first() {
    let bench = Bench::new().await;
    let mark = bench.mark(Statement::Pin(id(ONE), Pin::default())).await;
    // A store that lost the mark itself: the signature alone is no mark and no problem.
    bench.store.delete(&format!("prod/marks/{mark}.json")).await.unwrap();
    let catalog = bench.catalog().await;
    assert!(catalog.marks.is_empty() && catalog.problems.is_empty());
    assert!(bench.store.head(&format!("prod/marks/{mark}.json.minisig")).await.is_ok());
}

#[tokio::test]
async fn every_flipped_byte_of_a_small_repository_is_found_or_harmless() {
    let bench = Bench::new().await;
    let table = FrameTable::default().encode().unwrap();
    assert!(FrameTable::decode_checked(&table, Sha256::of(&table), 0).is_ok());
    bench.backup(ONE, 100, |_| {}).await;
    bench.mark(Statement::Pin(id(ONE), Pin::default())).await;
    let sound = bench.trusting().await;
    assert!(sound.problems.is_empty());
    for info in bench.store.list("prod/").await.unwrap() {
        let (_, bytes) = bench.store.get(&info.key, 1 << 20).await.unwrap();
        // Data objects are checked by their digests, see `seal`.
        if !info.key.contains(".json") {
            continue;
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1;
            bench.store.overwrite(&info.key, damaged);
            let catalog = bench.trusting().await;
            let signer_shown =
                catalog.backups.first().is_some_and(|backup| matches!(backup.signature, Status::Untrusted(_)) && !backup.counts);
            assert!(catalog == sound || !catalog.problems.is_empty() || signer_shown, "{} byte {at}", info.key);
        }
        bench.store.overwrite(&info.key, bytes);
    }
}
