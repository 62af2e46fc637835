//! Several stores of one repository (design part 4): a backup reaches all of them, one that is down is named and caught up by `copy`, and everything is
//! the same bytes everywhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcd_api::PutRequest;
use lifeboat_tests::http_proxy::Misdeed;
use lifeboat_tests::matrix::block_on;
use lifeboat_tests::random::Random;
use lifeboat_tests::{EtcdCluster, Finished, HttpProxy, Job, Options, Run, S3Server, peers};

const METHODS: &[&str] = &["GET", "HEAD", "PUT", "POST", "DELETE"];

/// One etcd, a user, and a configuration with two directories and, where it can be had, an S3 server behind a proxy.
struct Bench {
    job: Job,
    cluster: EtcdCluster,
    offsite: Option<(HttpProxy, S3Server)>,
    changes: u32,
}

impl Bench {
    /// `values` values of 512 KiB that cannot be compressed.
    fn new(name: &str, offsite: bool, values: usize) -> Option<Self> {
        let Some(version) = lifeboat_tests::versions().into_iter().next_back() else {
            peers::skipped(format_args!("{name}: no etcd"));
            return None;
        };
        let server = if offsite { S3Server::versitygw("lifeboat-bucket") } else { None };
        if offsite && server.is_none() {
            peers::skipped(format_args!("{name}: no versitygw"));
            return None;
        }
        let cluster = EtcdCluster::start(version, Options::default());
        block_on(async {
            let client = cluster.client(0).await;
            let mut random = Random::new(11);
            for n in 0..values {
                drop(client.put(PutRequest::new(format!("/registry/secrets/ns/s{n}"), random.bytes(512 << 10))).await.unwrap());
            }
        });
        let offsite = server.map(|server| (HttpProxy::before(server.port()), server));
        let bench = Self { job: Job::new(), cluster, offsite, changes: 0 };
        bench.configure(1);
        Some(bench)
    }

    fn directory(&self, store: &str) -> PathBuf {
        self.job.dir().join(store)
    }

    fn url(&self, store: &str) -> String {
        format!("file://{}", self.directory(store).display())
    }

    fn config(&self) -> PathBuf {
        self.job.dir().join("lifeboat.yaml")
    }

    fn configure(&self, min_stores: usize) {
        let (mut stores, mut names) = (format!("  main: {{url: '{}'}}\n", self.url("main")), vec!["main"]);
        if let Some((proxy, server)) = &self.offsite {
            stores.push_str(&format!(
                "  offsite: {{url: '{}', region: us-east-1, endpoint: '{}'}}\n",
                server.url("etcd"),
                proxy.endpoint()
            ));
            names.push("offsite");
        }
        stores.push_str(&format!("  third: {{url: '{}'}}\n", self.url("third")));
        names.push("third");
        let text = format!(
            "stores:\n{stores}keys: {{recipients: [{}], identity_file: {}}}\nspool: {{reserve: '0', directory: {}}}\ndefaults: {{stores: [{}], min_stores: {min_stores}}}\nclusters: {{prod: {{etcd: {{endpoints: ['{}']}}}}}}\n",
            self.job.recipient(),
            self.job.identity().display(),
            self.job.dir().join("spool").display(),
            names.join(", "),
            self.cluster.endpoint(0)
        );
        std::fs::write(self.config(), text).unwrap();
    }

    fn cmd(&self, verb: &str) -> Run {
        let mut run = self.job.lifeboat.cmd([verb, "--config"]).arg(self.config());
        if let Some((_, server)) = &self.offsite {
            for (name, value) in server.env().into_iter().filter(|(name, _)| *name != "AWS_ENDPOINT_URL") {
                run = run.env(name, value);
            }
        }
        run
    }

    /// A backup of a cluster that has changed since the last one.
    fn backup(&mut self) -> Finished {
        self.changes += 1;
        let (cluster, value) = (&self.cluster, self.changes.to_string());
        block_on(async { drop(cluster.client(0).await.put(PutRequest::new("/registry/configmaps/ns/c", value)).await.unwrap()) });
        self.cmd("backup").args(["-o", "json"]).run()
    }

    fn copy(&self, from: &str, to: &str) -> Run {
        self.cmd("copy").args(["--from", from, "--to", to])
    }

    /// The ids that a store lists.
    fn listed(&self, store: &str) -> Vec<String> {
        let listed = self.job.lifeboat.cmd(["list", "--cluster", "prod", "-o", "json", "--repo"]).arg(self.url(store)).run().ok().json();
        let backups = listed["clusters"][0]["backups"].as_array().cloned().unwrap_or_default();
        assert!(backups.iter().all(|backup| backup["incomplete"] == false), "{backups:?}");
        backups.iter().map(|backup| backup["id"].as_str().unwrap().to_owned()).collect()
    }

    /// What the S3 server holds, brought to a directory of its own: there it can be compared.
    fn fetch_offsite(&self, name: &str) -> PathBuf {
        drop(self.copy("offsite", &self.url(name)).run().ok());
        self.directory(name)
    }
}

/// Every object below a directory, but for leases, which are each store's own. Names with a dot are the store's own too: a lock, what a killed write left.
fn tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut files, mut open) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.file_name().is_some_and(|name| name != "lease.json" && !name.to_string_lossy().starts_with('.')) {
                files.insert(path.strip_prefix(root).unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (tree(a), tree(b));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    assert!(a == b, "the same bytes");
}

fn held(finished: &Finished) -> Vec<(String, bool)> {
    let report = finished.json();
    let stores = report["stores"].as_array().unwrap().iter();
    stores.map(|store| (store["name"].as_str().unwrap().to_owned(), store["holds"] == true)).collect()
}

#[test]
fn a_backup_reaches_every_store_and_one_that_is_down_is_caught_up() {
    let Some(mut bench) = Bench::new("stores", true, 20) else { return };
    let first = bench.backup().ok();
    assert_eq!(held(&first), [("main".to_owned(), true), ("offsite".to_owned(), true), ("third".to_owned(), true)]);
    assert_same(&bench.directory("main"), &bench.directory("third"));
    assert_same(&bench.directory("main"), &bench.fetch_offsite("fetched-1"));

    // Down from the beginning; then while it is written to.
    for methods in [METHODS, &["PUT", "POST"]] {
        bench.offsite.as_ref().unwrap().0.misbehave_at_random(1, 100, methods, &[Misdeed::InternalError]);
        let finished = bench.backup().exit(3);
        assert!(held(&finished).contains(&("offsite".to_owned(), false)), "{finished}");
        let report = finished.json();
        assert!(report["warnings"][0].as_str().unwrap().contains("not on store 'offsite'"), "{finished}");
        let next = report["next"].as_str().unwrap().to_owned();
        assert!(next.contains("lifeboat copy --from file://") && next.contains("--to s3://lifeboat-bucket/etcd"), "{next}");
        assert_same(&bench.directory("main"), &bench.directory("third"));
        bench.offsite.as_ref().unwrap().0.behave();
    }
    let planned = bench.copy("main", "offsite").args(["--dry-run", "-o", "json"]).run().ok().json();
    let copied = bench.copy("main", "offsite").args(["-o", "json"]).run().ok().json();
    let outcomes = |report: &serde_json::Value| {
        let backups = report["clusters"][0]["backups"].as_array().unwrap().clone();
        backups.iter().map(|backup| backup["outcome"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        (outcomes(&planned), outcomes(&copied)),
        (vec!["there".into(), "would-copy".into(), "would-copy".into()], vec!["there".into(), "copied".into(), "copied".into()])
    );
    assert_eq!(copied["schema"], "lifeboat.copy/1");
    assert_same(&bench.directory("main"), &bench.fetch_offsite("fetched-2"));
    drop(bench.backup().ok());
    assert_same(&bench.directory("main"), &bench.fetch_offsite("fetched-3"));

    // Too few stores: nothing is committed anywhere.
    bench.configure(3);
    bench.offsite.as_ref().unwrap().0.misbehave_at_random(1, 100, &["PUT", "POST"], &[Misdeed::InternalError]);
    let before = bench.listed("main");
    let refused = bench.backup().exit(31);
    assert!(refused.err().contains("\"next\":\"lifeboat backup"), "{refused}");
    assert_eq!(bench.listed("main"), before);
}

#[test]
fn without_the_first_store_the_others_are_read_and_written() {
    let Some(mut bench) = Bench::new("first store gone", false, 1) else { return };
    drop(bench.backup().ok());
    let moved = bench.directory("moved");
    std::fs::rename(bench.directory("main"), &moved).unwrap();
    // A file where the directory was: it cannot be made anew either.
    std::fs::write(bench.directory("main"), "").unwrap();
    let listed = bench.cmd("list").run().ok();
    assert!(listed.err().contains("reading from store 'third'"), "{listed}");
    let out = bench.job.dir().join("restored.db");
    drop(bench.cmd("restore").args(["latest", "--no-bump", "--snapshot-file"]).arg(&out).run().ok());
    assert!(out.metadata().unwrap().len() > 0);
    let finished = bench.backup().exit(3);
    assert_eq!(held(&finished), [("third".to_owned(), true), ("main".to_owned(), false)]);

    std::fs::remove_file(bench.directory("main")).unwrap();
    std::fs::rename(&moved, bench.directory("main")).unwrap();
    assert_eq!(bench.listed("main").len(), 1);
    // It is the one that is read, and it is behind.
    let standing = bench.cmd("status").args(["-o", "json"]).run().ok().json();
    let behind = &standing["clusters"][0]["stores_behind"];
    assert_eq!((&behind[0]["store"], &behind[0]["lacks"]), (&"main".into(), &1.into()), "{standing}");
    drop(bench.copy("third", "main").run().ok());
    assert_same(&bench.directory("main"), &bench.directory("third"));
    assert_eq!(bench.listed("main").len(), 2);
    drop(bench.backup().ok());
    assert_same(&bench.directory("main"), &bench.directory("third"));
    // One store alone, where it is named.
    drop(bench.cmd("backup").args(["--repo", &bench.url("third")]).run().ok());
    assert_eq!((bench.listed("main").len(), bench.listed("third").len()), (3, 4));
}

#[test]
fn a_disk_that_is_not_mounted_does_not_become_a_new_repository() {
    let Some(mut bench) = Bench::new("not mounted", false, 1) else { return };
    drop(bench.backup().ok());
    let away = |store: &str| {
        std::fs::rename(bench.directory(store), bench.directory(&format!("{store}-away"))).unwrap();
        std::fs::create_dir(bench.directory(store)).unwrap();
    };
    away("main");
    away("third");
    let refused = bench.backup().exit(10);
    assert!(refused.err().contains("is its disk mounted?"), "{refused}");
    for store in ["main", "third"] {
        assert!(std::fs::read_dir(bench.directory(store)).unwrap().next().is_none(), "nothing was begun in {store}");
    }
    std::fs::remove_dir(bench.directory("main")).unwrap();
    std::fs::rename(bench.directory("main-away"), bench.directory("main")).unwrap();
    let one = bench.backup().exit(3);
    assert_eq!(held(&one), [("main".to_owned(), true), ("third".to_owned(), false)]);
    assert!(std::fs::read_dir(bench.directory("third")).unwrap().next().is_none());
    drop(bench.copy("main", "third").run().exit(10));
    // It was emptied on purpose: the words say how that is told.
    let warning = one.json()["warnings"][0].as_str().unwrap().to_owned();
    let file = warning.split("remove ").nth(1).unwrap().split(".json").next().unwrap().to_owned() + ".json";
    std::fs::remove_file(&file).unwrap();
    drop(bench.copy("main", "third").run().ok());
    assert_same(&bench.directory("main"), &bench.directory("third"));
    drop(bench.backup().ok());
}

#[test]
fn every_store_is_pruned_and_one_that_is_gone_keeps_nothing_from_the_others() {
    let Some(mut bench) = Bench::new("prune", false, 1) else { return };
    for _ in 0..3 {
        drop(bench.backup().ok());
        // Ids of one second sort by chance.
        std::thread::sleep(Duration::from_millis(1_100));
    }
    let prune = |more: &[&str]| bench.cmd("prune").args(["--keep-last", "1", "-o", "json"]).args(more).run();
    let marked = |part: &serde_json::Value| part["done"]["marked"].as_array().map(Vec::len);
    let waits = |part: &serde_json::Value| part["backups"].as_array().unwrap().iter().filter(|one| one["action"] == "wait").count();
    let planned = prune(&["--dry-run"]).ok().json();
    assert_eq!((&planned["store"], &planned["others"][0]["store"], waits(&planned)), (&"main".into(), &"third".into(), 0), "{planned}");
    let done = prune(&["--yes"]).ok().json();
    assert_eq!((marked(&done), marked(&done["others"][0])), (Some(2), Some(2)), "{done}");
    let told = bench.cmd("prune").args(["--keep-last", "1", "--dry-run"]).run().ok();
    assert!(told.out().contains("store 'main' (") && told.out().contains("store 'third' ("), "{told}");

    std::fs::rename(bench.directory("main"), bench.directory("moved")).unwrap();
    std::fs::write(bench.directory("main"), "").unwrap();
    let without = prune(&["--yes"]).exit(10);
    let report: serde_json::Value = serde_json::from_str(&without.out()).unwrap();
    assert_eq!((&report["store"], &report["failed"][0]["store"], waits(&report)), (&"third".into(), &"main".into(), 2), "{report}");
}

#[test]
fn another_repository_is_never_taken_for_a_copy() {
    let Some(mut bench) = Bench::new("another repository", false, 1) else { return };
    let other =
        bench.job.cmd("backup").args(["--recipient", bench.job.recipient(), "--spool-reserve", "0"]).args(bench.cluster.client_flags());
    drop(other.run().ok());
    drop(bench.backup().ok());
    let other = bench.job.url().to_owned();
    let before = tree(&bench.job.repository());
    let refused = bench.copy("main", &other).run().exit(13);
    assert!(refused.err().contains("another repository") && refused.err().contains(&other), "{refused}");
    assert_eq!(tree(&bench.job.repository()), before);
    // As one of the stores of a cluster it stops the backup, before anything is written.
    let text = std::fs::read_to_string(bench.config()).unwrap();
    std::fs::write(bench.config(), text.replace(&bench.url("third"), &other)).unwrap();
    let main = tree(&bench.directory("main"));
    let refused = bench.backup().exit(13);
    assert!(refused.err().contains("'third'"), "{refused}");
    assert_eq!((tree(&bench.directory("main")), tree(&bench.job.repository())), (main, before));
    drop(bench.copy("main", "main").run().exit(2));
    drop(bench.copy("main", "nowhere").run().exit(2));
}

#[test]
fn a_copy_that_is_killed_goes_on() {
    let Some(mut bench) = Bench::new("killed copies", false, 60) else { return };
    for _ in 0..3 {
        drop(bench.backup().ok());
    }
    let target = bench.url("target");
    let mut kills = 0;
    for round in 0..40 {
        let finished = bench.copy("main", &target).kill_after(Duration::from_millis(20 + 15 * round)).run();
        if finished.code() == Some(0) {
            break;
        }
        assert_eq!(finished.signal(), Some(9), "{finished}");
        kills += 1;
        if bench.directory("target").join("lifeboat.json").exists() {
            for id in bench.listed("target") {
                let snapshot = Path::new("prod/snapshots").join(id);
                assert_same(&bench.directory("main").join(&snapshot), &bench.directory("target").join(&snapshot));
            }
        }
    }
    println!("{kills} copies were killed");
    assert!(kills > 0);
    drop(bench.copy("main", &target).run().ok());
    assert_same(&bench.directory("main"), &bench.directory("target"));
}

#[test]
fn a_flipped_byte_in_the_source_does_not_go_over() {
    let Some(mut bench) = Bench::new("flipped byte", false, 20) else { return };
    for _ in 0..2 {
        drop(bench.backup().ok());
    }
    let ids = bench.listed("main");
    let key = format!("prod/snapshots/{}/db.zst.age", ids[1]);
    let path = bench.directory("main").join(&key);
    let mut bytes = std::fs::read(&path).unwrap();
    let sound = bytes.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let target = bench.url("target");
    let finished = bench.copy("main", &target).run().exit(20);
    assert!(finished.err().contains(&key) && finished.err().contains("lifeboat verify"), "{finished}");
    assert!(finished.out().contains("NOT COPIED"), "{finished}");
    assert_eq!(bench.listed("target"), [ids[0].clone()]);
    assert!(!bench.directory("target").join(&key).exists(), "nothing of the damaged object is there");
    std::fs::write(&path, &sound).unwrap();
    drop(bench.copy("main", &target).run().ok());
    assert_same(&bench.directory("main"), &bench.directory("target"));
}
