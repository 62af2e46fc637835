//! `prune`, `pin`, `unpin`, `tag` and `backup --prune` on real repositories of a real cluster (design part 4, "Deleting"; promise 5).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use etcd_api::{DeleteRequest, KeyRange, PutRequest};
use jiff::{SignedDuration, Timestamp};
use lifeboat_tests::{EtcdCluster, EtcdVersion, Job, Run};
use vault::key::Key;
use vault::manifest::Manifest;
use vault::mark::{Statement, Tombstone};
use vault::repository::Repository;
use vault::store::{FileStore, Store};

fn newest() -> Option<EtcdVersion> {
    let version = lifeboat_tests::versions().into_iter().next_back();
    if version.is_none() {
        lifeboat_tests::peers::skipped("retention: no etcd");
    }
    version
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    lifeboat_tests::matrix::block_on(future)
}

fn small_cluster(version: EtcdVersion) -> EtcdCluster {
    let cluster = EtcdCluster::single(version);
    block_on(async {
        let client = cluster.client(0).await;
        for n in 0..20 {
            drop(client.put(PutRequest::new(format!("/registry/pods/default/p{n}"), format!("value {n}"))).await.unwrap());
        }
    });
    cluster
}

/// A repository with a real backup of now, and the same as it would be had it been taken on each of some days before.
struct Bench {
    job: Job,
    /// The ids, the newest first.
    ids: Vec<String>,
}

impl Bench {
    fn new(job: Job, version: EtcdVersion, days: i64) -> Self {
        let cluster = small_cluster(version);
        drop(job.backup(&cluster));
        let bench = Self { ids: vec![job.list()[0]["id"].as_str().unwrap().to_owned()], job };
        block_on(bench.with_days_before(days))
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::new(FileStore::open(&self.job.repository(), self.job.url(), false).unwrap())
    }

    async fn with_days_before(mut self, days: i64) -> Self {
        let store = self.store();
        let repository = Repository::open(Arc::clone(&store)).await.unwrap();
        let cluster = "prod".parse().unwrap();
        let catalog = repository.catalog(&cluster).await.unwrap();
        let real = catalog.backups[0].manifest.clone();
        for day in 1..=days {
            let moment = real.id.start() - SignedDuration::from_hours(24 * day);
            let id = format!("{}-{day:06}", moment.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ"));
            let manifest = Manifest { id: id.parse().unwrap(), ..real.clone() };
            for object in &manifest.objects {
                let key = |id| Key::Snapshot(manifest.cluster.clone(), id, object.name.clone()).to_string();
                let (_, bytes) = store.get(&key(real.id), 1 << 30).await.unwrap();
                store.create(&key(manifest.id), bytes).await.unwrap();
            }
            repository.commit(&manifest, None, moment).await.unwrap();
            self.ids.push(id);
        }
        self
    }

    fn prune(&self, more: &[&str]) -> Run {
        self.job.cmd("prune").args(["--keep-last", "3"]).args(more)
    }

    fn listed(&self) -> Vec<String> {
        let listed = self.job.list();
        assert!(listed.iter().all(|backup| backup["incomplete"] == false), "{listed:?}");
        listed.iter().map(|backup| backup["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Every file but the lease, which every run takes.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = files(&self.job.repository());
        files.remove(&self.job.repository().join("prod/lease.json"));
        files
    }

    /// Makes every tombstone there is two days old: the same word of the same pruner, said earlier.
    fn two_days_pass(&self) {
        block_on(async {
            let store = self.store();
            let repository = Repository::open(Arc::clone(&store)).await.unwrap();
            let cluster = "prod".parse().unwrap();
            let then = Timestamp::now() - SignedDuration::from_hours(48);
            for entry in repository.catalog(&cluster).await.unwrap().marks {
                let Statement::Tombstone(id, data) = entry.mark.statement else { continue };
                store.delete(&Key::Mark(cluster.clone(), entry.mark.id).to_string()).await.unwrap();
                let statement = Statement::Tombstone(id, Tombstone { due: then, ..data });
                drop(repository.write_mark(&cluster, statement, None, None, then).await.unwrap());
            }
        });
    }
}

/// Every file below a directory with its content.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                found.insert(path.clone(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn copy_tree(from: &Path, to: &Path) {
    for (path, bytes) in files(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::write(target, bytes).unwrap();
    }
}

/// What a file in the repository belongs to: the id of a backup, else its directory.
fn owner(bench: &Bench, path: &Path) -> String {
    let path = path.strip_prefix(bench.job.repository()).unwrap();
    let mut parts = path.iter().map(|part| part.to_string_lossy().into_owned());
    match (parts.next().as_deref(), parts.next().as_deref(), parts.next()) {
        (Some("prod"), Some("snapshots"), Some(id)) => id,
        (_, second, _) => second.unwrap_or_default().to_owned(),
    }
}

#[test]
fn a_backup_goes_in_two_runs_and_nothing_else_goes() {
    let Some(version) = newest() else { return };
    let bench = Bench::new(Job::new(), version, 9);
    assert_eq!(bench.listed(), bench.ids);

    // A plan changes nothing; neither does a run that nobody consented to.
    let before = bench.files();
    let planned = bench.prune(&["--dry-run"]).run().ok().out();
    assert!(planned.contains("policy of 'prod': last 3") && planned.contains("3 kept, 7 to be marked as due"), "{planned}");
    drop(bench.prune(&[]).run().exit(2));
    drop(bench.job.cmd("prune").arg("--yes").run().exit(2));
    drop(bench.job.cmd("prune").args(["--yes", "--keep-last", "0"]).run().exit(2));
    assert!(bench.files() == before);

    let first = bench.prune(&["--yes", "-o", "json"]).run().ok().json();
    assert_eq!((first["schema"].as_str(), first["done"]["marked"].as_array().unwrap().len()), (Some("lifeboat.prune/1"), 7), "{first}");
    assert_eq!(bench.listed(), bench.ids);
    let again = bench.prune(&["--yes", "-o", "json"]).run().ok().json();
    assert_eq!(again["done"], serde_json::Value::Null, "nothing to do: {again}");
    assert!(again["backups"].as_array().unwrap().iter().filter(|backup| backup["action"] == "wait").count() == 7, "{again}");

    // One is pinned, one is tagged, before the time is over.
    let (pinned, tagged) = (&bench.ids[9], &bench.ids[8]);
    drop(bench.job.cmd("pin").args([pinned.as_str(), "--reason", "audit"]).run().ok());
    let labelled = bench.job.cmd("tag").args([tagged.as_str(), "keep-me", "and-me"]).run().ok().out();
    assert!(labelled.contains("and-me, keep-me"), "{labelled}");
    let table = bench.job.cmd("list").run().ok().out();
    assert!(table.contains("LABELS") && table.contains("pinned") && table.contains("#and-me #keep-me"), "{table}");
    bench.two_days_pass();

    let before = bench.files();
    let planned = bench.prune(&["--keep-tag", "keep-me", "--dry-run", "-o", "json"]).run().ok().json();
    assert!(bench.files() == before);
    let due: Vec<&str> = planned["backups"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|backup| backup["action"] == "remove")
        .map(|backup| backup["id"].as_str().unwrap())
        .collect();
    assert_eq!(due, bench.ids[3..8]);
    drop(bench.prune(&["--keep-tag", "keep-me"]).run().exit(2));
    assert!(bench.files() == before);

    let done = bench.prune(&["--keep-tag", "keep-me", "--yes"]).run().ok().out();
    assert!(done.contains("removed 5 backup(s)"), "{done}");
    let kept: Vec<String> = bench.ids[..3].iter().chain(&bench.ids[8..]).cloned().collect();
    assert_eq!(bench.listed(), kept);
    let after = bench.files();
    for (path, bytes) in &before {
        let gone = bench.ids[3..8].contains(&owner(&bench, path));
        assert_eq!(after.get(path), (!gone).then_some(bytes), "{}", path.display());
    }
    assert_eq!(after.len() + 5 * before.keys().filter(|path| owner(&bench, path) == bench.ids[5]).count(), before.len());

    // What is left is sound, the gap is explained, and the oldest still restores.
    let verified = bench.job.cmd("verify").args(["--all", "--read"]).run().ok();
    assert!(!verified.err().contains("without a tombstone"), "{verified}");
    let out = bench.job.dir().join("restored.db");
    drop(bench.job.restore_cmd().args([pinned.as_str(), "--no-bump", "--snapshot-file"]).arg(&out).run().ok());
    assert!(out.metadata().unwrap().len() > 0);

    // The pin and the tag off, the time runs anew.
    drop(bench.job.cmd("unpin").arg(pinned).run().ok());
    drop(bench.job.cmd("tag").args([tagged.as_str(), "keep-me", "--remove"]).run().ok());
    let anew = bench.prune(&["--keep-tag", "keep-me", "--yes", "-o", "json"]).run().ok().json();
    assert_eq!((anew["done"]["marked"].as_array().unwrap().len(), anew["done"]["removed"].as_array().unwrap().len()), (2, 0), "{anew}");
}

#[test]
fn a_mass_deletion_pins_what_was_there_before() {
    let Some(version) = newest() else { return };
    let job = Job::new();
    let cluster = small_cluster(version);
    drop(job.backup(&cluster));
    block_on(async {
        let client = cluster.client(0).await;
        drop(client.delete_range(DeleteRequest::new(KeyRange::prefix("/registry/pods/default/p1"))).await.unwrap());
    });
    a_second_passes();
    let config = job.dir().join("lifeboat.yaml");
    let endpoint = cluster.client_flags()[0].replace("--endpoints=", "");
    let text = format!(
        "stores: {{main: {{url: '{}'}}}}\nkeys: {{recipients: [{}]}}\nclusters:\n  prod: {{etcd: {{endpoints: ['{endpoint}']}}, keep: {{last: 1}}}}\n",
        job.url(),
        job.recipient()
    );
    std::fs::write(&config, text).unwrap();
    let run = job.backup_cmd(&cluster.client_flags()).arg("--config").arg(&config).args(["--prune", "-o", "json"]).run().ok();
    let report = run.json();
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("content shrank from 20 to 9 keys") && warnings.contains("is pinned"), "{report}");
    let listed = job.list();
    assert_eq!((&listed[0]["pinned"], &listed[1]["pinned"]), (&false.into(), &true.into()), "{listed:?}");
    // Only the newest has a place, and the pinned one is not told that it is due.
    assert_eq!(report["prune"]["done"]["marked"].as_array().unwrap().len(), 0, "{report}");

    a_second_passes();
    // The next one has lost nothing more: nothing is pinned anew, and the one between is due.
    let report = job.backup_cmd(&cluster.client_flags()).arg("--config").arg(&config).args(["--prune", "-o", "json"]).run().ok().json();
    assert_eq!(report["warnings"].as_array().unwrap().len(), 0, "{report}");
    assert_eq!(report["prune"]["done"]["marked"].as_array().unwrap().len(), 1, "{report}");
    let shown = job.cmd("show").arg("latest~1").arg("--config").arg(&config).run().ok().out();
    assert!(shown.contains("NO: no rule keeps it"), "{shown}");
    // Without a policy nothing is pruned, and that is said before the backup.
    drop(job.backup_cmd(&cluster.client_flags()).arg("--prune").run().exit(2));
    assert_eq!(job.list().len(), 3);
}

/// Ids of one second sort by chance.
fn a_second_passes() {
    std::thread::sleep(std::time::Duration::from_millis(1_100));
}

const CRASHED: i32 = 137;
const TOO_MANY: u32 = 2_000;

#[test]
fn a_pruning_that_ends_anywhere_leaves_only_sound_backups() {
    let Some(version) = newest() else { return };
    let bench = Bench::new(Job::with_crash_points(), version, 6);
    drop(bench.prune(&["--yes"]).run().ok());
    bench.two_days_pass();
    let whole = bench.job.dir().join("whole");
    copy_tree(&bench.job.repository(), &whole);
    for way in [("LIFEBOAT_CRASH_AT", None), ("LIFEBOAT_CRASH_AFTER", Some("names"))] {
        let mut steps = 0;
        for step in 1..TOO_MANY {
            std::fs::remove_dir_all(bench.job.repository()).unwrap();
            copy_tree(&whole, &bench.job.repository());
            let mut run = bench.prune(&["--yes"]).env(way.0, step.to_string());
            if let Some(forget) = way.1 {
                run = run.env("LIFEBOAT_CRASH_FORGET", forget);
            }
            let finished = run.run();
            let listed = bench.listed();
            assert!(listed.starts_with(&bench.ids[..3]) && listed.iter().all(|id| bench.ids.contains(id)), "step {step}: {listed:?}");
            drop(bench.job.cmd("verify").args(["--all", "--read"]).run().ok());
            // The next run finishes the work.
            if finished.code() == Some(CRASHED) {
                drop(bench.prune(&["--yes"]).run().ok());
            } else {
                drop(finished.ok());
                steps = step - 1;
            }
            assert_eq!(bench.listed(), bench.ids[..3], "step {step}");
            let left: Vec<PathBuf> = bench.files().into_keys().filter(|path| bench.ids[3..].contains(&owner(&bench, path))).collect();
            assert!(left.is_empty(), "step {step}: {left:?}");
            if steps > 0 {
                break;
            }
        }
        println!("prune, {way:?}: {steps} steps");
        assert!(steps > 4 * 3);
    }
}
