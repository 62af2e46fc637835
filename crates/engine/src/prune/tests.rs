#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use vault::backup_id::BackupId;
use vault::digest::Sha256;
use vault::key::{Key, SnapshotObject};
use vault::lineage::{Lineage, LineageName};
use vault::manifest::{
    ClusterState, CompactRevision, Counts, HashKv, HashKvVerdict, LineageCheck, Manifest, Proven, Raft, Role, RowCheck, Rung, Sealing,
    SnapshotFile, Source, StoredObject, Times, Tool, Versions,
};
use vault::mark::{Outcome as Ending, Pin, Run as RunMark, RunResult, Statement, Tombstone, Unpin, Verify};
use vault::name::ClusterName;
use vault::retention::Policy;
use vault::sign::TrustedSigners;
use vault::store::fault::{Fault, FaultKind, FaultStore, Op};
use vault::store::{MemoryStore, Store, Unfinished};

use super::*;
use crate::failure::Code;
use crate::label::Scribe;
use crate::lease::{Holder, Mode};
use crate::progress::Silent;

const ONE: &str = "0001-file-0";
const TWO: &str = "0002-file-5";

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

/// Noon of the day on which the newest backup was taken.
fn now() -> Timestamp {
    at("2026-11-20T12:00:00Z")
}

/// The id of the backup of this day of November 2026.
fn id(day: u8) -> BackupId {
    format!("202611{day:02}T020000Z-0000{day:02}").parse().unwrap()
}

struct Bench {
    memory: MemoryStore,
    faults: FaultStore,
    repository: Repository,
    state: tempfile::TempDir,
    signing: Option<SigningKey>,
}

impl Bench {
    /// A repository with one backup a day, from 11 to 20 November.
    async fn new() -> Self {
        Self::with(None).await
    }

    async fn with(signing: Option<SigningKey>) -> Self {
        let memory = MemoryStore::new();
        let faults = FaultStore::new(Arc::new(memory.clone()));
        let signers = signing.iter().map(|key| key.public().clone()).collect();
        let repository = Repository::init(Arc::new(faults.clone()), at("2026-11-01T00:00:00Z"))
            .await
            .unwrap()
            .with_signers(TrustedSigners::new(signers));
        let bench = Self { memory, faults, repository, state: tempfile::tempdir().unwrap(), signing };
        bench.lineage(ONE, None).await;
        for day in 11..=20 {
            bench.backup(id(day), ONE).await;
        }
        bench
    }

    fn cluster(&self) -> ClusterName {
        "prod".parse().unwrap()
    }

    async fn lineage(&self, name: &str, parent: Option<&str>) {
        let parse = |name: &str| name.parse::<LineageName>().unwrap();
        self.repository.write_lineage(&self.cluster(), &Lineage::new(parse(name), parent.map(parse), None)).await.unwrap();
    }

    async fn object(&self, id: BackupId, name: SnapshotObject, role: Role) -> StoredObject {
        let bytes = Bytes::from(format!("{name} of {id}"));
        let key = Key::Snapshot(self.cluster(), id, name.clone()).to_string();
        self.memory.create(&key, bytes.clone()).await.unwrap();
        StoredObject { name, role, size: bytes.len() as u64, sha256: Sha256::of(&bytes) }
    }

    async fn backup(&self, id: BackupId, lineage: &str) {
        let moment = id.start();
        let objects = vec![
            self.object(id, "db.zst.age".parse().unwrap(), Role::Snapshot).await,
            self.object(id, "extra/pki.age".parse().unwrap(), Role::Extra).await,
            self.object(id, "frames.bin".parse().unwrap(), Role::Frames).await,
        ];
        let lineage: LineageName = lineage.parse().unwrap();
        let manifest = Manifest {
            repository: *self.repository.id(),
            cluster: self.cluster(),
            id,
            lineage,
            lineage_check: LineageCheck::Uncompared,
            last_row_check: RowCheck::NotComparable,
            older: false,
            unconfirmed: None,
            source: Source::File,
            clean: None,
            cluster_id: None,
            member: None,
            versions: Versions::default(),
            revision: 1_000 + moment.as_second() % 1_000_000,
            compact_revision: CompactRevision { scheduled: 0, finished: 0 },
            raft: Raft { term: 1, index: 1 },
            epoch: lineage.epoch(),
            last_row: None,
            fingerprint: None,
            counts: Counts { rows: 10, live_keys: 10, leases: 0 },
            snapshot: SnapshotFile {
                db_size: 4096,
                db_sha256: Sha256::of(b"db"),
                file_size: 4096 + 32,
                file_sha256: Sha256::of(b"file"),
                in_use: None,
            },
            layers: vault::layers::Layers::SEALED,
            sealing: Sealing {
                recipients: vec!["0123456789abcdef".parse().unwrap()],
                passphrase: false,
                extra_recipients: vec!["0123456789abcdef".parse().unwrap()],
            },
            objects,
            hashkv: HashKv { verdict: HashKvVerdict::NotOffered, computed: None, answers: Vec::new() },
            proven: Proven { rung: Rung::Stored, at: Some(moment) },
            cluster_state: ClusterState { leader: None, members: Vec::new(), alarms: Vec::new() },
            times: Times { started: moment, opening_read: None, stream_started: moment, stream_ended: moment, committed: moment },
            encryption_at_rest: None,
            secrets: Default::default(),
            tool: Tool { version: "0.1.0".to_owned() },
            tags: Vec::new(),
            parents: self.catalog().await.parents(),
            signer: self.signing.as_ref().map(|key| key.public().id()),
            warnings: Vec::new(),
        };
        self.repository.commit(&manifest, self.signing.as_ref(), moment).await.unwrap();
    }

    async fn mark(&self, statement: Statement, moment: Timestamp) {
        let cluster = self.cluster();
        let newest = self.catalog().await.newest_mark();
        drop(Scribe::new(&self.repository, &cluster, self.signing.as_ref(), newest).write(statement, moment).await.unwrap());
    }

    async fn catalog(&self) -> Catalog {
        self.repository.catalog(&self.cluster()).await.unwrap()
    }

    async fn keys(&self) -> BTreeSet<String> {
        self.memory.list("").await.unwrap().into_iter().map(|object| object.key).collect()
    }

    fn pruner(&self) -> Pruner {
        let signing = self
            .signing
            .as_ref()
            .map(|key| SigningKey::from_file_text(secrecy::ExposeSecret::expose_secret(&key.to_file().unwrap())).unwrap());
        Pruner::new(self.repository.signers(), signing, Some(self.state.path()), false).unwrap()
    }

    async fn prepare(&self, policy: &Policy, now: Timestamp) -> Prepared {
        let (catalog, pruner) = (self.catalog().await, self.pruner());
        let plan = plan(&catalog, policy, &pruner, now).unwrap();
        let place = PlaceOptions { url: "memory://".to_owned(), ..PlaceOptions::default() };
        Prepared { place, repository: self.repository.clone(), catalog, pruner, plan }
    }

    async fn prune(&self, policy: &Policy, now: Timestamp) -> Report {
        carry_out(&self.prepare(policy, now).await).await
    }

    /// The days of November that are listed, all of them whole.
    async fn days(&self) -> Vec<i8> {
        let catalog = self.catalog().await;
        assert!(catalog.backups.iter().all(|backup| !backup.incomplete), "listed and not whole");
        catalog.backups.iter().map(|backup| backup.id().start().to_zoned(jiff::tz::TimeZone::UTC).day()).collect()
    }
}

async fn carry_out(prepared: &Prepared) -> Report {
    execute(prepared, &Holder::default(), Mode::Off, &Silent).await.unwrap()
}

fn last(last: u32) -> Policy {
    Policy { last, ..Policy::default() }
}

const ALL: [i8; 10] = [11, 12, 13, 14, 15, 16, 17, 18, 19, 20];

#[test]
fn what_is_due_goes_in_two_runs_a_day_apart() {
    run(async {
        let bench = Bench::new().await;
        let first = bench.prune(&last(3), now()).await;
        assert_eq!((first.tombstones.len(), first.removed.len()), (7, 0));
        assert_eq!(bench.days().await, ALL);
        // The same run again, and once more within the day, say nothing new.
        for later in [hours(0), hours(23)] {
            let again = bench.prune(&last(3), now() + later).await;
            assert_eq!((again.plan.waiting.len(), again.tombstones.len(), again.removed.len()), (7, 0, 0));
        }
        let before = bench.keys().await;
        let second = bench.prune(&last(3), now() + hours(24)).await;
        assert!(second.failure().is_none());
        assert_eq!(second.removed.iter().map(|removed| removed.id).collect::<Vec<_>>(), (11..=17).map(id).collect::<Vec<_>>());
        assert_eq!(bench.days().await, [18, 19, 20]);
        // Nothing else is gone, and nothing of them is left.
        let gone: Vec<String> = before.difference(&bench.keys().await).cloned().collect();
        assert!(gone.iter().all(|key| (11..=17).any(|day| key.starts_with(&format!("prod/snapshots/{}/", id(day))))), "{gone:?}");
        assert_eq!(gone.len(), 7 * 4);
        // The gap is explained.
        assert!(bench.catalog().await.problems.is_empty());
        assert!(bench.prune(&last(3), now() + hours(48)).await.plan.is_empty());
    });
}

#[test]
fn somebody_elses_tombstone_starts_no_grace() {
    run(async {
        let bench = Bench::new().await;
        let tombstone =
            |pruner: Option<&str>, due| Statement::Tombstone(id(11), Tombstone { due, reason: None, pruner: pruner.map(str::to_owned) });
        for pruner in [None, Some("another host")] {
            bench.mark(tombstone(pruner, now() - hours(100)), now() - hours(100)).await;
        }
        // One of its own from a clock that was ahead does not count either.
        let own = bench.pruner().host().map(str::to_owned);
        bench.mark(tombstone(own.as_deref(), now() + hours(100)), now()).await;
        let plan = bench.prepare(&last(9), now()).await.plan;
        assert_eq!((plan.tombstones.len(), plan.removals.len()), (1, 0));
        bench.mark(tombstone(own.as_deref(), now() - hours(24)), now() - hours(24)).await;
        assert_eq!(bench.prepare(&last(9), now()).await.plan.removals.len(), 1);
    });
}

#[test]
fn with_trusted_signers_their_word_counts_and_no_other() {
    run(async {
        let bench = Bench::with(Some(SigningKey::generate().unwrap())).await;
        bench.prune(&last(9), now()).await;
        assert_eq!(bench.prepare(&last(9), now() + hours(24)).await.plan.removals.len(), 1);
        // Another host with the same key goes on; one without is refused before anything is written.
        let elsewhere = Pruner::new(bench.repository.signers(), None, None, false).unwrap_err();
        assert_eq!(elsewhere.code, Code::Usage);
        let looker = Pruner::new(bench.repository.signers(), None, None, true).unwrap();
        assert_eq!(plan(&bench.catalog().await, &last(9), &looker, now() + hours(24)).unwrap().removals.len(), 1);
        // A forged one, unsigned, is none.
        let forger = Bench { signing: None, ..Bench::with(Some(SigningKey::generate().unwrap())).await };
        let data = Tombstone { due: now() - hours(100), reason: None, pruner: None };
        forger.mark(Statement::Tombstone(id(11), data), now() - hours(100)).await;
        let looker = Pruner::new(forger.repository.signers(), None, None, true).unwrap();
        let plan = plan(&forger.catalog().await, &last(9), &looker, now()).unwrap();
        assert_eq!((plan.tombstones.len(), plan.removals.len()), (1, 0));
    });
}

#[test]
fn a_pin_beats_a_tombstone_and_taking_it_off_starts_anew() {
    run(async {
        let bench = Bench::new().await;
        bench.prune(&last(9), now()).await;
        bench.mark(Statement::Pin(id(11), Pin::default()), now() + hours(1)).await;
        assert!(bench.prune(&last(9), now() + hours(30)).await.plan.is_empty());
        let pins = bench.catalog().await.backup(&id(11)).unwrap().pins.iter().copied().collect();
        bench.mark(Statement::Unpin(id(11), Unpin { pins }), now() + hours(31)).await;
        let plan = bench.prepare(&last(9), now() + hours(32)).await.plan;
        assert_eq!((plan.tombstones.len(), plan.removals.len()), (1, 0));
    });
}

#[test]
fn what_is_said_between_plan_and_removal_is_heard() {
    run(async {
        let bench = Bench::new().await;
        bench.prune(&last(8), now()).await;
        let prepared = bench.prepare(&last(8), now() + hours(24)).await;
        assert_eq!(prepared.plan.removals.len(), 2);
        bench.mark(Statement::Pin(id(11), Pin::default()), now() + hours(24)).await;
        let report = carry_out(&prepared).await;
        assert_eq!(report.spared, [id(11)]);
        assert_eq!(bench.days().await, [11, 13, 14, 15, 16, 17, 18, 19, 20]);

        // A history that nobody confirmed, begun meanwhile, holds its parent back.
        let bench = Bench::new().await;
        bench.prune(&last(8), now()).await;
        let prepared = bench.prepare(&last(8), now() + hours(24)).await;
        bench.lineage(TWO, Some(ONE)).await;
        bench.backup("20261120T030000Z-000099".parse().unwrap(), TWO).await;
        let report = carry_out(&prepared).await;
        assert_eq!((report.spared.len(), report.removed.len()), (2, 0));
        assert_eq!(bench.days().await.len(), 11);
    });
}

#[test]
fn a_store_that_forbids_deletion_is_told_and_nothing_is_half_done() {
    run(async {
        let bench = Bench::new().await;
        bench.prune(&last(8), now()).await;
        bench.faults.inject(Fault::new(FaultKind::Deny).on(Op::Delete));
        let report = bench.prune(&last(8), now() + hours(24)).await;
        assert_eq!((report.removed.len(), report.refused.len()), (0, 2));
        assert!(report.refused.iter().all(|refused| refused.is_listed));
        assert_eq!(report.failure().unwrap().code, Code::Failed);
        assert_eq!(bench.days().await, ALL);

        // Where only data are locked, the backup is not listed any more, which is said; a later run removes the rest.
        bench.faults.heal();
        bench.faults.inject(Fault::new(FaultKind::Deny).on(Op::Delete).key("db.zst.age"));
        let report = bench.prune(&last(8), now() + hours(25)).await;
        assert!(report.refused.len() == 2 && report.refused.iter().all(|refused| !refused.is_listed));
        assert_eq!(bench.days().await, ALL[2..]);
        bench.faults.heal();
        let report = bench.prune(&last(8), now() + hours(26)).await;
        assert_eq!(report.strays.iter().map(|stray| stray.id).collect::<Vec<_>>(), [id(11), id(12)]);
        assert!(bench.keys().await.iter().all(|key| !key.contains("20261111T") && !key.contains("20261112T")));
    });
}

#[test]
fn a_run_that_ends_anywhere_leaves_only_whole_backups() {
    run(async {
        for kind in [FaultKind::FailBefore, FaultKind::FailAfter] {
            let mut nth = 0;
            loop {
                let bench = Bench::new().await;
                bench.prune(&last(8), now()).await;
                bench.faults.inject(Fault::new(kind).on(Op::Delete).nth(nth));
                let report = bench.prune(&last(8), now() + hours(24)).await;
                let days = bench.days().await;
                assert!(days.ends_with(&ALL[2..]), "{nth}: {days:?}");
                bench.faults.heal();
                let finished = report.error.is_none();
                assert_eq!(report.failure().is_none(), finished);
                bench.prune(&last(8), now() + hours(25)).await;
                assert_eq!(bench.days().await, ALL[2..]);
                assert!(bench.keys().await.iter().all(|key| !key.contains("20261111T") && !key.contains("20261112T")), "{nth}");
                if finished {
                    break;
                }
                nth += 1;
            }
            assert_eq!(nth, 2 * 4);
        }
    });
}

#[test]
fn a_tombstone_that_cannot_be_written_ends_the_run() {
    run(async {
        let bench = Bench::new().await;
        bench.faults.inject(Fault::new(FaultKind::Deny).on(Op::Create).key("marks/"));
        let report = bench.prune(&last(8), now()).await;
        assert_eq!(report.failure().unwrap().code, Code::StoreUnreachable);
        assert_eq!(bench.days().await, ALL);
    });
}

#[test]
fn data_without_a_manifest_go_after_a_week_by_their_id() {
    run(async {
        let bench = Bench::new().await;
        for attempt in ["20261113T115959Z-aaaaaa", "20261113T120001Z-bbbbbb"] {
            drop(bench.object(attempt.parse().unwrap(), "db.zst.age".parse().unwrap(), Role::Snapshot).await);
        }
        // A manifest that somebody else removed: the data can still be opened by hand.
        bench.memory.delete(&format!("prod/snapshots/{}/manifest.json", id(12))).await.unwrap();
        let report = bench.prune(&last(100), now()).await;
        assert_eq!(report.strays.iter().map(|stray| stray.id.to_string()).collect::<Vec<_>>(), ["20261113T115959Z-aaaaaa"]);
        let keys = bench.keys().await;
        assert!(keys.iter().any(|key| key.contains("bbbbbb")) && keys.iter().any(|key| key.contains("20261112T")));
        assert!(!keys.iter().any(|key| key.contains("aaaaaa")));
    });
}

#[test]
fn a_mark_that_cannot_be_read_may_be_a_pin() {
    run(async {
        let bench = Bench::new().await;
        bench.prune(&last(8), now()).await;
        bench.mark(Statement::Pin(id(11), Pin::default()), now() + hours(1)).await;
        let pin = bench.keys().await.into_iter().rfind(|key| key.starts_with("prod/marks/")).unwrap();
        bench.memory.overwrite(&pin, &b"{}"[..]);
        let report = bench.prune(&last(8), now() + hours(24)).await;
        assert!(report.plan.hold.is_some() && report.removed.is_empty());
        assert_eq!(bench.days().await, ALL);
    });
}

#[test]
fn a_clock_that_is_not_believed_does_nothing() {
    run(async {
        let bench = Bench::new().await;
        bench.prune(&last(8), now()).await;
        for mad in [at("2026-11-20T01:00:00Z"), at("2030-01-01T00:00:00Z")] {
            let report = bench.prune(&last(8), mad).await;
            assert!(report.plan.hold.is_some() && report.removed.is_empty() && report.tombstones.is_empty() && report.marks.is_empty());
        }
    });
}

#[test]
fn records_that_change_nothing_go_after_a_quarter() {
    run(async {
        let bench = Bench::new().await;
        let old = now() - hours(100 * 24);
        let verify = |rung, result, moment| Statement::Verify(id(20), Verify { rung, result, at: moment, hashkv: None, detail: None });
        let ran = |result, moment| Statement::Run(RunMark { verb: "backup".to_owned(), result, exit: 0, at: moment, detail: None });
        bench.mark(verify(Rung::Read, Ending::Passed, old), old).await;
        bench.mark(verify(Rung::Deep, Ending::Passed, old + hours(1)), old + hours(1)).await;
        bench.mark(verify(Rung::Deep, Ending::Failed, old + hours(2)), old + hours(2)).await;
        bench.mark(ran(RunResult::Failed, old), old + hours(3)).await;
        bench.mark(ran(RunResult::Ok, old), old + hours(4)).await;
        bench.mark(ran(RunResult::Ok, now()), now()).await;
        let before = bench.catalog().await;
        let report = bench.prune(&last(100), now()).await;
        // The first verification and the first good run; the failure and what it speaks of stay.
        assert_eq!(report.marks, [before.marks[0].mark.id, before.marks[4].mark.id]);
        let after = bench.catalog().await;
        assert_eq!(after.marks.len(), 4);
        assert!(after.backups.iter().zip(&before.backups).all(|(after, before)| after.proof == before.proof));
    });
}

#[test]
fn only_what_nobody_has_written_to_for_a_week_was_left_by_a_crash() {
    let file = |day: u8, changed: Timestamp| Unfinished {
        key: format!("prod/snapshots/{}/.tmp-1-2-3", id(day)),
        size: 8 << 30,
        changed: changed.into(),
    };
    let old = now() - hours(7 * 24);
    let of_others = |key: &str| Unfinished { key: key.to_owned(), ..file(11, old) };
    let found = vec![
        file(11, old),
        file(11, now()),
        file(11, now() + hours(1_000)),
        file(20, old),
        of_others("other/snapshots/20261111T020000Z-000011/.tmp-1"),
        of_others("prod/snapshots/notes/.tmp-1"),
        of_others("prod/.tmp-1"),
    ];
    let left = plan::abandoned(found.clone(), &"prod".parse().unwrap(), now());
    assert_eq!(left, found[..1], "a copy writes under old ids, and a clock may be wrong");
    assert!(plan::abandoned(found, &"prod".parse().unwrap(), old).is_empty());
}

#[test]
fn a_policy_is_read_from_its_section() {
    let keep = Keep {
        daily: Some(7),
        within: Some("30d".to_owned()),
        tags: vec!["audit".to_owned()],
        max_bytes: Some("1GiB".to_owned()),
        ..Keep::default()
    };
    let policy = policy(&keep).unwrap();
    assert_eq!((policy.daily, policy.last, policy.max_bytes, policy.tags.len()), (7, 0, Some(1 << 30), 1));
    assert_eq!(policy.to_string(), "daily 7, within 30d, tag audit, max-bytes 1073741824");
    for empty in [Keep::default(), Keep { last: Some(0), max_bytes: Some("1GiB".to_owned()), ..Keep::default() }] {
        assert_eq!(super::policy(&empty).unwrap_err().code, Code::Usage);
    }
}
