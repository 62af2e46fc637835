//! Objects of format version 1 as they were first written. Every later release reads them; none changes what they say.
//!
//! The files under `tests/golden/v1` are a whole repository. They were made once by `LIFEBOAT_GOLDEN=write`, which refuses to overwrite one.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::BytesMut;
use vault::digest::Sha256;
use vault::frames::FrameTable;
use vault::key::{Key, SnapshotObject};
use vault::layers::Layers;
use vault::lineage::Lineage;
use vault::lineage::standing::{AcceptedBy, Standing};
use vault::manifest::*;
use vault::mark::{Accept, Drill, Outcome, Pin, Restore, Run, RunResult, Statement, Tags, Tombstone, Unpin, Verify};
use vault::repository::{Catalog, Repository, Selector};
use vault::seal::recipients::generate_identity;
use vault::seal::{FrameCompressor, FrameDecoder, Identities, NoCallbacks, Recipients, SealWriter, Unsealer, decode};
use vault::sign::{KeyId, SigningKey, Status, TrustedSigners};
use vault::store::{MemoryStore, Store};

const ID: &str = "20261121T020004Z-7qk2m9";
const LINEAGE: &str = "0001-cdf818194e3a8c32-0";

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

/// What the snapshot of the golden repository holds.
fn snapshot() -> Vec<u8> {
    let mut file: Vec<u8> = (0..150_000u32).map(|n| (n / 7 % 251) as u8).collect();
    let trailer = Sha256::of(&file);
    file.extend_from_slice(&trailer.0);
    file
}

fn at(time: &str) -> jiff::Timestamp {
    time.parse().unwrap()
}

/// All files below a directory, as a store.
async fn load() -> MemoryStore {
    let store = MemoryStore::new();
    let root = directory().join("repository");
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let key = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                store.create(&key, fs::read(&path).unwrap().into()).await.unwrap();
            }
        }
    }
    store
}

fn signers() -> TrustedSigners {
    let public = fs::read_to_string(directory().join("signer.pub")).unwrap();
    TrustedSigners::new(vec![public.parse().unwrap()])
}

async fn catalog(store: &MemoryStore) -> (Repository, Catalog) {
    let repository = Repository::open(Arc::new(store.clone())).await.unwrap().with_signers(signers());
    let catalog = repository.catalog(&"prod".parse().unwrap()).await.unwrap();
    (repository, catalog)
}

#[tokio::test]
async fn the_golden_repository_is_read() {
    if std::env::var("LIFEBOAT_GOLDEN").as_deref() == Ok("write") {
        write().await;
    }
    let store = load().await;
    let (repository, catalog) = catalog(&store).await;
    assert_eq!(catalog.problems, []);
    assert_eq!(repository.marker().format, 1);
    let standing = &catalog.lineages[&LINEAGE.parse().unwrap()].standing;
    assert_eq!(*standing, Standing::Accepted(AcceptedBy::Mark));

    let backup = catalog.resolve(&Selector::Latest(0)).unwrap().backup;
    let Manifest { sealing, objects, signer, .. } = &backup.manifest;
    assert_eq!(backup.manifest, manifest(&repository, sealing, objects, *signer));
    assert!(matches!(backup.signature, Status::Trusted(_)) && backup.counts);
    assert_eq!((backup.proof.rung, backup.proof.failed.is_some()), (Rung::Booted, false));
    assert_eq!(backup.tags.iter().map(|tag| tag.as_str()).collect::<Vec<_>>(), ["before-upgrade"]);
    assert_eq!(backup.pins.len(), 1);
    let kinds: Vec<&str> = catalog.marks.iter().map(|entry| entry.mark.statement.kind()).collect();
    assert_eq!(kinds, ["pin", "pin", "unpin", "tag", "tag", "untag", "verify", "drill", "restore", "accept", "tombstone", "run"]);
}

#[tokio::test]
async fn the_golden_backup_opens() {
    let store = load().await;
    let (_, catalog) = catalog(&store).await;
    let manifest = &catalog.backups[0].manifest;
    let key = |object: SnapshotObject| Key::Snapshot(manifest.cluster.clone(), manifest.id, object).to_string();
    let data = manifest.data().unwrap();
    let (_, stored) = store.get(&key(data.name.clone()), 1 << 20).await.unwrap();
    assert_eq!(Sha256::of(&stored), data.sha256);
    let frames = manifest.object(&SnapshotObject::Frames).unwrap();
    let (_, table) = store.get(&key(SnapshotObject::Frames), 1 << 20).await.unwrap();
    let table = FrameTable::decode_checked(&table, frames.sha256, data.size).unwrap();

    let mut identities = Identities::new();
    identities.add_file("golden", &fs::read(directory().join("identity.txt")).unwrap(), NoCallbacks).unwrap();
    let unsealer = Unsealer::open(manifest.layers, data.size, &stored, &identities).unwrap();
    decode::check_table(&unsealer, &table).unwrap();
    let mut file = Vec::new();
    for run in table.runs(1 << 20) {
        let range = unsealer.stored_range(&table.run_range(&run).unwrap()).unwrap();
        let fetched = BytesMut::from(&stored[range.start as usize..range.end as usize]);
        let mut decoder = FrameDecoder::new().unwrap();
        decoder
            .decode_run(&unsealer, &table, run, fetched, |_, raw| {
                file.extend_from_slice(raw);
                Ok::<(), vault::seal::SealError>(())
            })
            .unwrap();
    }
    assert_eq!(Sha256::of(&file), manifest.snapshot.file_sha256);
    assert_eq!(file, snapshot());
}

/// What the golden manifest says, beside what came of sealing and of making keys.
fn manifest(repository: &Repository, sealing: &Sealing, objects: &[StoredObject], signer: Option<KeyId>) -> Manifest {
    let file = snapshot();
    let db = &file[..file.len() - 32];
    let value = HashKvValue { hash: 0xdead_beef, revision: 123_456, compact_revision: 120_000 };
    let (leader, follower) = ("8e9e05c52164694d".parse().unwrap(), "00000000000000ff".parse().unwrap());
    let member = |id, name: &str, answered| MemberState { id, name: name.into(), learner: false, answered };
    Manifest {
        repository: *repository.id(),
        cluster: "prod".parse().unwrap(),
        id: ID.parse().unwrap(),
        lineage: LINEAGE.parse().unwrap(),
        lineage_check: LineageCheck::Compared,
        last_row_check: RowCheck::NotComparable,
        older: false,
        unconfirmed: None,
        source: Source::Direct,
        clean: None,
        cluster_id: "cdf818194e3a8c32".parse().ok(),
        member: Some(Member { id: follower, name: "cp-2".into() }),
        versions: Versions { etcd: Some("3.5.30".into()), cluster: Some("3.5.0".into()), ..Versions::default() },
        revision: 123_456,
        compact_revision: CompactRevision { scheduled: 120_000, finished: 119_000 },
        raft: Raft { term: 7, index: 200_001 },
        epoch: 0,
        last_row: Some(LastRow { main: 123_456, sub: 1, sha256: Sha256::of(b"row") }),
        fingerprint: "6a1f2b3c-0000-4444-8888-123456789abc".parse().ok(),
        counts: Counts { rows: 5000, live_keys: 4000, leases: 31 },
        snapshot: SnapshotFile {
            db_size: db.len() as u64,
            db_sha256: Sha256::of(db),
            file_size: file.len() as u64,
            file_sha256: Sha256::of(&file),
            in_use: Some(140_000),
        },
        layers: Layers::SEALED,
        sealing: sealing.clone(),
        objects: objects.to_vec(),
        hashkv: HashKv {
            verdict: HashKvVerdict::Match,
            computed: Some(value),
            answers: vec![HashKvAnswer { member: follower, answer: Some(value), asked: Some(at("2026-11-21T02:00:09Z")) }],
        },
        proven: Proven { rung: Rung::Stored, at: Some(at("2026-11-21T02:00:12Z")) },
        cluster_state: ClusterState {
            leader: Some(leader),
            members: vec![member(leader, "cp-1", true), member(follower, "cp-2", true)],
            alarms: vec![Alarm { member: leader, alarm: "NOSPACE".into() }],
        },
        times: Times {
            started: at("2026-11-21T02:00:04.25Z"),
            opening_read: Some(at("2026-11-21T02:00:04.5Z")),
            stream_started: at("2026-11-21T02:00:05Z"),
            stream_ended: at("2026-11-21T02:00:08Z"),
            committed: at("2026-11-21T02:00:12Z"),
        },
        encryption_at_rest: Some(true),
        secrets: Default::default(),
        tool: Tool { version: "0.1.0".into() },
        tags: vec!["before-upgrade".parse().unwrap()],
        parents: vec![],
        signer,
        warnings: vec!["member cp-3 did not answer".into()],
    }
}

/// Makes the golden repository. Only for a new format version: an existing one is never replaced.
async fn write() {
    let root = directory();
    assert!(!root.exists(), "golden objects are never rewritten");
    let store = MemoryStore::new();
    let repository = Repository::init(Arc::new(store.clone()), at("2026-11-21T02:00:00Z")).await.unwrap();
    let (key, (identity, recipient)) = (SigningKey::generate().unwrap(), generate_identity());
    let cluster = "prod".parse().unwrap();
    let fingerprint = "6a1f2b3c-0000-4444-8888-123456789abc".parse().ok();
    repository.write_lineage(&cluster, &Lineage::new(LINEAGE.parse().unwrap(), None, fingerprint)).await.unwrap();

    let recipients = Recipients::keys([recipient.as_str()]).unwrap();
    let mut writer = SealWriter::new(Layers::SEALED, Some(&recipients), NoCallbacks).unwrap();
    let mut frames = FrameCompressor::zstd().unwrap();
    // Shorter frames than Lifeboat's, so that a small file has several; readers take any length.
    for raw in snapshot().chunks(40_000) {
        writer.push(frames.compress(raw).unwrap()).unwrap();
    }
    let (pieces, sealed) = writer.finish().unwrap();
    let table = sealed.frames.encode().unwrap();
    let sealing = Sealing { recipients: recipients.fingerprints(), passphrase: false, extra_recipients: vec![] };
    let mut objects = Vec::new();
    for (name, role, bytes) in [("db.zst.age", Role::Snapshot, pieces.concat()), ("frames.bin", Role::Frames, table)] {
        let name: SnapshotObject = name.parse().unwrap();
        objects.push(StoredObject { name: name.clone(), role, size: bytes.len() as u64, sha256: Sha256::of(&bytes) });
        let key = Key::Snapshot("prod".parse().unwrap(), ID.parse().unwrap(), name);
        store.create(&key.to_string(), bytes.into()).await.unwrap();
    }
    let stored = manifest(&repository, &sealing, &objects, Some(key.public().id()));
    repository.commit(&stored, Some(&key), at("2026-11-21T02:00:12Z")).await.unwrap();
    write_marks(&repository, &key).await;

    for info in store.list("").await.unwrap() {
        let path = root.join("repository").join(&info.key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, store.get(&info.key, 1 << 20).await.unwrap().1).unwrap();
    }
    use age::secrecy::ExposeSecret;
    fs::write(root.join("identity.txt"), identity.expose_secret()).unwrap();
    fs::write(root.join("signer.pub"), key.public().to_file()).unwrap();
}

async fn write_marks(repository: &Repository, key: &SigningKey) {
    let (id, now) = (ID.parse().unwrap(), at("2026-11-21T03:00:00Z"));
    let cluster = "prod".parse().unwrap();
    let tags = |tag: &str| Tags { tags: vec![tag.parse().unwrap()] };
    let mut prev = None;
    let mut first_pin = None;
    for step in 0..12 {
        let statement = match step {
            0 => Statement::Pin(id, Pin { reason: Some("audit".into()) }),
            1 => Statement::Pin(id, Pin { reason: None }),
            2 => Statement::Unpin(id, Unpin { pins: Vec::from_iter(first_pin) }),
            3 => Statement::Tag(id, tags("before-upgrade")),
            4 => Statement::Tag(id, tags("wrong")),
            5 => Statement::Untag(id, tags("wrong")),
            6 => Statement::Verify(
                id,
                Verify { rung: Rung::Deep, result: Outcome::Passed, at: now, hashkv: Some(HashKvVerdict::Match), detail: None },
            ),
            7 => Statement::Drill(
                id,
                Drill { result: Outcome::Passed, at: now, etcd: Some("3.5.30".into()), seconds: Some(4), detail: None },
            ),
            8 => Statement::Restore(id, Restore { target_revision: 5_000_000_123, bumped: true, at: now, token: Some("t".into()) }),
            9 => Statement::Accept(LINEAGE.parse().unwrap(), Accept { fingerprint: None }),
            10 => {
                let gone = "20261120T020004Z-aaaaaa".parse().unwrap();
                Statement::Tombstone(gone, Tombstone { due: now, reason: Some("older than 30d".into()), pruner: None })
            }
            _ => Statement::Run(Run {
                verb: "backup".into(),
                result: RunResult::Warnings,
                exit: 3,
                at: now,
                detail: Some("one store".into()),
            }),
        };
        let mark = repository.write_mark(&cluster, statement, prev, Some(key), now).await.unwrap();
        first_pin = first_pin.or(Some(mark.id));
        let bytes = mark.encode().unwrap();
        prev = Some(vault::mark::Previous { id: mark.id, sha256: Sha256::of(&bytes) });
    }
}
