//! Every byte of a small repository is changed once (design part 9). Either the change is found, and named, or it is harmless: list, show,
//! `verify --deep` and the restored bytes are what they were before.
//!
//! The repository is made by the real binary from a real etcd; the flips are then played on a copy in memory against the same library calls that
//! the verbs make, for a process per byte would take hours.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use engine::progress::{Progress, Silent};
use engine::spool::SpoolOptions;
use engine::verify::{Checked, How, check};
use etcd_api::PutRequest;
use lifeboat_tests::{EtcdCluster, EtcdVersion, Job, Options, matrix};
use secrecy::ExposeSecret;
use vault::digest::{Sha256, Sha256Hasher};
use vault::manifest::{HashKvVerdict, Manifest, Rung};
use vault::repository::{Catalog, Repository};
use vault::seal::{Identities, NoCallbacks};
use vault::sign::{SigningKey, TrustedSigners};
use vault::store::{MemoryStore, Store};

struct Bench {
    job: Job,
    store: MemoryStore,
    objects: BTreeMap<String, Vec<u8>>,
    signers: TrustedSigners,
    how: How,
}

fn read_tree(directory: &Path, prefix: &str, into: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let key = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            read_tree(&entry.path(), &format!("{key}/"), into);
        } else {
            into.insert(key, std::fs::read(entry.path()).unwrap());
        }
    }
}

impl Bench {
    /// One signed backup with an extra and one signed mark.
    async fn new(etcd: EtcdVersion) -> Self {
        let job = Job::new();
        let key = SigningKey::generate().unwrap();
        let key_file = job.dir().join("sign.key");
        std::fs::write(&key_file, key.to_file().unwrap().expose_secret()).unwrap();
        let extra = job.dir().join("x");
        std::fs::write(&extra, "small\n").unwrap();
        let cluster = EtcdCluster::start(etcd, Options::default());
        let client = cluster.client(0).await;
        for n in 0..3 {
            drop(client.put(PutRequest::new(format!("key/{n}"), "value")).await.unwrap());
        }
        let run = job.backup_cmd(&cluster.client_flags()).arg("--signing-key").arg(&key_file).arg("--extra").arg(&extra);
        drop(run.run().ok());
        drop(job.cmd("verify").arg("--signing-key").arg(&key_file).run().ok());
        let mut objects = BTreeMap::new();
        read_tree(&job.repository(), "", &mut objects);
        let store = MemoryStore::new();
        objects.iter().for_each(|(key, bytes)| store.overwrite(key, bytes.clone()));
        let mut identities = Identities::new();
        identities.add_file("identity", &std::fs::read(job.identity()).unwrap(), NoCallbacks).unwrap();
        let spool = SpoolOptions { directory: Some(job.dir().to_owned()), reserve: 0, flush_gently: false };
        let how = How { rung: Rung::Deep, identities: Arc::new(identities), spool, allow_unsigned: false };
        Self { job, store, objects, signers: TrustedSigners::new(vec![key.public().clone()]), how }
    }

    /// What every verb begins with.
    async fn open(&self) -> Result<(Repository, Catalog), String> {
        let store: Arc<dyn Store> = Arc::new(self.store.clone());
        let repository = Repository::open(store).await.map_err(|error| error.to_string())?.with_signers(self.signers.clone());
        let catalog = repository.catalog(&"prod".parse().unwrap()).await.map_err(|error| error.to_string())?;
        Ok((repository, catalog))
    }

    async fn verify(&self, repository: &Repository, catalog: &Catalog) -> Checked {
        let progress: Arc<dyn Progress> = Arc::new(Silent);
        check(repository, catalog, &catalog.backups[0], &self.how, &progress).await.unwrap()
    }

    /// The digest of the bytes that a restore writes.
    async fn restored(&self, repository: &Repository, catalog: &Catalog) -> Sha256 {
        let (object, _) = engine::select::open(repository, &catalog.backups[0], &self.how.identities).await.unwrap();
        let hasher = Arc::new(Mutex::new(Sha256Hasher::new()));
        let shared = Arc::clone(&hasher);
        let in_order: engine::fetch::InOrder = Box::new(move |bytes| {
            shared.lock().unwrap().update(bytes);
            Ok(())
        });
        engine::fetch::fetch(object, Arc::new(|_, _| Ok(())), in_order).await.unwrap();
        hasher.lock().unwrap().clone().finish()
    }
}

/// Before any flip.
struct Before {
    catalog: Catalog,
    checked: Checked,
    restored: Sha256,
}

/// Whether a flip was found (and then named), or was harmless.
async fn found(bench: &Bench, before: &Before, key: &str, at: usize) -> bool {
    let Ok((repository, catalog)) = bench.open().await else {
        assert_eq!(key, "lifeboat.json", "only the marker decides whether there is a repository");
        return true;
    };
    if catalog != before.catalog {
        // What list and show print is made of the catalog. A foreign signature shows as such; everything else is named by key.
        let named = catalog.problems.iter().any(|problem| problem.key == key || problem.key == format!("{key}.minisig"));
        assert!(named || key.ends_with(".minisig"), "{key} byte {at}: {:?}", catalog.problems);
        return true;
    }
    let checked = bench.verify(&repository, &catalog).await;
    if checked != before.checked {
        let named = |range: &Option<std::ops::Range<u64>>| range.as_ref().is_some_and(|range| range.contains(&(at as u64)));
        assert!(checked.findings.iter().any(|finding| finding.object == key && named(&finding.range)), "{key} byte {at}: {checked:?}");
        assert!(checked.failed_at.is_some() && !checked.locked, "{key} byte {at}: {checked:?}");
        return true;
    }
    assert_eq!(bench.restored(&repository, &catalog).await, before.restored, "{key} byte {at} changes what is restored");
    false
}

#[test]
fn every_changed_byte_is_found_or_harmless() {
    matrix::run("every_changed_byte_is_found_or_harmless", EtcdVersion::V3_6, |etcd| {
        matrix::block_on(async {
            let bench = Bench::new(etcd).await;
            let (repository, catalog) = bench.open().await.unwrap();
            assert!(catalog.problems.is_empty() && catalog.backups.len() == 1 && catalog.marks.len() == 1, "{:?}", catalog.problems);
            let checked = bench.verify(&repository, &catalog).await;
            assert!(checked.reached == Rung::Deep && checked.findings.is_empty(), "{checked:?}");
            let restored = bench.restored(&repository, &catalog).await;
            assert_eq!(restored, catalog.backups[0].manifest.snapshot.file_sha256);
            let before = Before { catalog, checked, restored };

            let (mut flips, mut harmless) = (0, BTreeMap::new());
            for (key, bytes) in &bench.objects {
                for at in 0..bytes.len() {
                    let mut changed = bytes.clone();
                    changed[at] ^= 1 << (at % 8);
                    bench.store.overwrite(key, changed);
                    flips += 1;
                    if !found(&bench, &before, key, at).await {
                        *harmless.entry(key.as_str()).or_insert(0) += 1;
                    }
                }
                bench.store.overwrite(key, bytes.clone());
            }
            println!("{flips} flips in {} objects; harmless: {harmless:?}", bench.objects.len());
            assert!(flips > 5_000 && bench.objects.len() == 12, "{flips} in {:?}", bench.objects.keys());
            // The instructions for people, the lease that nothing depends on, and the line of a signature that the format itself calls untrusted.
            for (key, count) in harmless {
                let untrusted = |bytes: &[u8]| bytes.iter().position(|byte| *byte == b'\n').unwrap();
                let may_change = matches!(key, "RESTORE.txt" | "prod/lease.json");
                let most = if may_change { bench.objects[key].len() } else { untrusted(&bench.objects[key]) };
                assert!((may_change || key.ends_with(".minisig")) && count <= most, "{key}: {count}");
            }
            assert!(bench.job.repository().is_dir());
        });
    });
}

/// A manifest that is sound in itself and says something else than the file: each single fact is read from the file anew.
#[test]
fn every_claim_of_a_manifest_is_checked() {
    type Lie = (&'static str, fn(&mut Manifest));
    const LIES: &[Lie] = &[
        ("the revision", |m| m.revision += 1),
        ("the scheduled compaction", |m| m.compact_revision.scheduled = 1),
        ("the finished compaction", |m| m.compact_revision.finished = 1),
        ("the raft term", |m| m.raft.term += 1),
        ("the raft index", |m| m.raft.index += 1),
        ("the last row", |m| m.last_row.as_mut().unwrap().sha256 = Sha256::of(b"")),
        ("the fingerprint", |m| m.fingerprint = "uid-1".parse().ok()),
        ("the number of rows", |m| m.counts.rows += 1),
        ("the number of live keys", |m| m.counts.live_keys -= 1),
        ("the number of leases", |m| m.counts.leases += 1),
        ("HashKV", |m| m.hashkv.computed.as_mut().unwrap().hash ^= 1),
        ("what the members answered is failed", |m| m.hashkv.answers[0].answer.as_mut().unwrap().hash ^= 1),
        ("SHA-256 of the database", |m| m.snapshot.db_sha256 = Sha256::of(b"")),
        ("SHA-256 of the snapshot file", |m| m.snapshot.file_sha256 = Sha256::of(b"")),
        ("the frame table describes", |m| {
            m.snapshot.db_size += 1;
            m.snapshot.file_size += 1;
        }),
    ];
    matrix::run("every_claim_of_a_manifest_is_checked", EtcdVersion::V3_6, |etcd| {
        matrix::block_on(async {
            let mut bench = Bench::new(etcd).await;
            bench.signers = TrustedSigners::default();
            let key = bench.objects.keys().find(|key| key.ends_with("/manifest.json")).unwrap().clone();
            bench.store.delete(&format!("{key}.minisig")).await.unwrap();
            let sound = Manifest::decode(&bench.objects[&key]).unwrap();
            for (what, lie) in LIES {
                let mut manifest = sound.clone();
                lie(&mut manifest);
                assert_ne!(manifest, sound, "{what}");
                bench.store.overwrite(&key, vault::canonical::encode(&manifest).unwrap());
                let (repository, catalog) = bench.open().await.unwrap();
                let checked = bench.verify(&repository, &catalog).await;
                let told = checked.findings.iter().any(|finding| finding.what.contains(what));
                assert!(told && checked.failed_at == Some(Rung::Deep) && checked.reached == Rung::Read, "{what}: {checked:?}");
            }
            // A dispute is no damage, and no proof either.
            let mut disputed = sound.clone();
            disputed.hashkv.verdict = HashKvVerdict::Disputed;
            bench.store.overwrite(&key, vault::canonical::encode(&disputed).unwrap());
            let (repository, catalog) = bench.open().await.unwrap();
            let checked = bench.verify(&repository, &catalog).await;
            assert!(checked.disputed() && checked.findings.is_empty() && checked.reached == Rung::Read, "{checked:?}");
        });
    });
}
