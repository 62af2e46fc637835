//! `lifeboat snapshot` in the place of etcdctl and etcdutl: the same words, the same bytes, on real files of every version; and what it does beyond.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bbolt::{Database, Visitor};
use etcd_store::DatabaseFile;
use lifeboat_tests::etcd::{etcdctl, etcdutl, restore_with_etcd};
use lifeboat_tests::proxy::Toxics;
use lifeboat_tests::workload::Operation;
use lifeboat_tests::{
    Applied, ClusterPlan, EtcdCluster, EtcdVersion, Finished, Lifeboat, Options, Proxy, Run, Tls, Workload, dump_all, etcd_matrix, peers,
    workload,
};

const FORMS: [&str; 4] = ["simple", "table", "json", "fields"];

/// A cluster that had a life: Kubernetes-like objects, leases, deletions, transactions, compactions.
async fn lived(etcd: EtcdVersion, seed: u64) -> EtcdCluster {
    let cluster = EtcdCluster::single(etcd);
    drop(Workload::small(seed).apply(&cluster.client(0).await).await);
    cluster
}

/// Names in a directory, hidden ones too.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn status(lifeboat: &Lifeboat, form: &str, compat: &str, file: &Path) -> String {
    lifeboat.cmd(["snapshot", "status", "-w", form, "--compat", compat]).arg(file).run().ok().out()
}

/// The tools that describe snapshot files, with the form of theirs that we print.
fn describers() -> Vec<(EtcdVersion, &'static str)> {
    [(EtcdVersion::V3_4, "3.5"), (EtcdVersion::V3_5, "3.5"), (EtcdVersion::V3_6, "3.6"), (EtcdVersion::V3_7, "3.7")]
        .into_iter()
        .filter(|(version, _)| version.available())
        .collect()
}

/// What etcd's own tool of a version prints is what we print: to the byte, and in JSON up to the fields we add at the end.
fn assert_status_is_theirs(lifeboat: &Lifeboat, file: &Path) {
    for (version, compat) in describers() {
        for form in FORMS {
            let theirs = etcdutl(version, ["snapshot", "status", "-w", form]).arg(file).run().ok().out();
            let ours = status(lifeboat, form, compat, file);
            if form == "json" {
                let object = theirs.trim_end().strip_suffix('}').unwrap();
                assert!(ours.starts_with(&format!("{object},")), "{version}: {theirs}{ours}");
            } else {
                assert_eq!(ours, theirs, "{version} {form}");
            }
        }
    }
    // Where 3.6 and 3.7 agree, the default is theirs; 3.6 also draws our table.
    if EtcdVersion::V3_6.available() {
        for form in ["table", "fields"] {
            let theirs = etcdutl(EtcdVersion::V3_6, ["snapshot", "status", "-w", form]).arg(file).run().ok().out();
            assert_eq!(lifeboat.cmd(["snapshot", "status", "-w", form]).arg(file).run().ok().out(), theirs);
        }
        let theirs = etcdutl(EtcdVersion::V3_6, ["snapshot", "status"]).arg(file).run().ok().out();
        assert_eq!(lifeboat.cmd(["snapshot", "status"]).arg(file).run().ok().out(), theirs);
    }
}

etcd_matrix! {
    /// A snapshot, the same after it was bumped, and the database of a stopped member: every tool's words for each of them.
    async fn status_prints_what_etcds_tools_print(etcd: EtcdVersion) {
        let lifeboat = Lifeboat::new();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("snapshot.db");
        let mut cluster = lived(etcd, 21).await;
        cluster.snapshot(0, &file);
        assert_status_is_theirs(&lifeboat, &file);
        let json: serde_json::Value = serde_json::from_str(&status(&lifeboat, "json", "3.5", &file)).unwrap();
        assert!(json["totalKeyAllBuckets"].as_u64() > json["totalKeyLive"].as_u64() && json["totalKey"] == json["totalKeyAllBuckets"], "{json}");
        assert_eq!(json["trailer"], "match");

        let data_dir = dir.path().join("bumped");
        drop(lifeboat.cmd(["snapshot", "restore", "--bump-revision", "1000000", "--mark-compacted", "--data-dir"]).arg(&data_dir).arg(&file).run().ok());
        assert_status_is_theirs(&lifeboat, &data_dir.join("member/snap/db"));

        let live = cluster.members()[0].data_dir().join("member/snap/db");
        let in_use = lifeboat.cmd(["snapshot", "status"]).arg(&live).run().exit(1);
        assert!(in_use.err().contains("in use"), "{in_use}");
        cluster.stop();
        assert_status_is_theirs(&lifeboat, &live);
        let note = lifeboat.cmd(["snapshot", "status"]).arg(&live).run().ok();
        assert!(note.err().contains("no SHA-256 trailer"), "{note}");
    }

    /// HashKV of a file at every revision from its compaction to its end is what etcdutl computes; and our file stays as it was.
    async fn hashkv_prints_what_etcdutl_prints(etcd: EtcdVersion) {
        let lifeboat = Lifeboat::new();
        let dir = tempfile::tempdir().unwrap();
        let (file, theirs) = (dir.path().join("snapshot.db"), dir.path().join("theirs.db"));
        let cluster = EtcdCluster::single(etcd);
        let client = cluster.client(0).await;
        let mut applied = Applied::default();
        for operation in Workload::small(22).operations() {
            // etcdutl 3.6 panics over a file in which a key has a lease ("no lessor to attach lease"); 3.7 does not.
            match operation {
                Operation::Grant(..) | Operation::Revoke(_) => {}
                Operation::Put(object, _) => applied.apply(&client, Operation::Put(object, None)).await,
                other => applied.apply(&client, other).await,
            }
        }
        cluster.snapshot(0, &file);
        std::fs::copy(&file, &theirs).unwrap();
        let content = std::fs::read(&file).unwrap();
        let (revision, compacted) = {
            let json = lifeboat.cmd(["snapshot", "hashkv", "-w", "json"]).arg(&file).run().ok().json();
            (json["hashRevision"].as_i64().unwrap(), json["compactRevision"].as_i64().unwrap())
        };
        assert!(compacted > 1 && revision > compacted);
        let revisions: Vec<String> = [0, revision, revision - 1, compacted + 1, compacted, (revision + compacted) / 2].map(|rev: i64| rev.to_string()).into();
        for version in [EtcdVersion::V3_6, EtcdVersion::V3_7].into_iter().filter(|version| version.available()) {
            for rev in &revisions {
                for form in FORMS {
                    let expected = etcdutl(version, ["hashkv", "-w", form, "--rev", rev]).arg(&theirs).run().ok().out();
                    let args = ["snapshot", "hashkv", "-w", form, "--rev", rev, "--compat", version.minor()];
                    assert_eq!(lifeboat.cmd(args).arg(&file).run().ok().out(), expected, "{version} {form} {rev}");
                }
            }
            for (rev, word) in [(revision + 1, "future"), (compacted - 1, "compacted")] {
                let rev = rev.to_string();
                let refused = etcdutl(version, ["hashkv", "--rev", &rev]).arg(&theirs).run().exit(1);
                let ours = lifeboat.cmd(["snapshot", "hashkv", "--rev", &rev]).arg(&file).run().exit(1);
                assert!(refused.err().contains(word) && ours.err().contains(word), "{refused}\n{ours}");
            }
        }
        assert!(std::fs::read(&file).unwrap() == content, "our file changed");

        // With leases: what the live member answers.
        let file = dir.path().join("leases.db");
        drop(Workload::small(22).apply(&client).await);
        cluster.snapshot(0, &file);
        let live = client.hash_kv(None, Duration::from_secs(30)).await.unwrap();
        let ours = lifeboat.cmd(["snapshot", "hashkv"]).arg(&file).run().ok().out();
        assert_eq!(ours.split(", ").next().unwrap(), live.hash.to_string());
    }

    /// Saving prints etcdctl's words and makes etcdctl's file, durable under its name, private, and in place of an older one.
    async fn save_makes_the_file_that_etcdctl_makes(etcd: EtcdVersion) {
        let lifeboat = Lifeboat::new();
        let dir = tempfile::tempdir().unwrap();
        let cluster = lived(etcd, 23).await;
        let endpoint = format!("--endpoints={}", cluster.endpoint(0));
        let file = dir.path().join("snapshot.db");
        let theirs = etcdctl(etcd, [&endpoint, "snapshot", "save"]).arg(&file).run().ok();
        let theirs_dir = tempfile::tempdir().unwrap();
        let theirs_file = theirs_dir.path().join("theirs.db");
        std::fs::copy(&file, &theirs_file).unwrap();
        std::fs::write(&file, "an older one").unwrap();
        let ours = lifeboat.cmd(["snapshot", "save", &endpoint]).arg(&file).run().ok();
        let words = |finished: &Finished| -> Vec<String> {
            finished.out().lines().filter(|line| line.starts_with("Snapshot saved") || line.starts_with("Server version")).map(str::to_owned).collect()
        };
        assert_eq!(words(&ours), words(&theirs));
        assert_eq!(ours.out().lines().count(), words(&theirs).len());
        // The pages may have moved between the two; what they hold may not.
        let saved = std::fs::read(&file).unwrap();
        assert_eq!(saved.len() % 512, 32);
        assert!(buckets(&file) == buckets(&theirs_file));
        assert_status_is_theirs(&lifeboat, &file);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(dir.path()), ["snapshot.db"]);

        // Standard output: the same bytes, everything else on standard error.
        let piped = lifeboat.cmd(["snapshot", "save", "-", &endpoint]).run().ok();
        assert_eq!(piped.stdout.len() % 512, 32);
        std::fs::write(dir.path().join("piped.db"), &piped.stdout).unwrap();
        assert_eq!(status(&lifeboat, "json", "3.6", &dir.path().join("piped.db")), status(&lifeboat, "json", "3.6", &file));

        // Without a name: the cluster's id and the time, in the working directory.
        let unnamed = dir.path().join("unnamed");
        std::fs::create_dir(&unnamed).unwrap();
        let cluster_id = cluster.client(0).await.status().await.unwrap().header.cluster_id;
        let named = lifeboat.cmd(["snapshot", "save", "-o", "json", &endpoint]).dir(&unnamed).run().ok().json();
        let name = named["path"].as_str().unwrap();
        assert!(name.starts_with(&format!("etcd-{cluster_id}-20")) && name.ends_with("Z.db"), "{name}");
        assert_eq!(names(&unnamed), [name]);
    }

    /// etcdctl's flags and its environment: certificates, user, password; wrong ones leave nothing.
    async fn save_connects_as_etcdctl_does(etcd: EtcdVersion) {
        let lifeboat = Lifeboat::new();
        let dir = tempfile::tempdir().unwrap();
        let cluster = EtcdCluster::start(etcd, Options::default().tls(Tls::ClientAuth).auth("secret"));
        drop(cluster.etcdctl(["put", "a", "1"]));
        let tls = cluster.tls().unwrap();
        let file = dir.path().join("snapshot.db");
        drop(lifeboat.cmd(["snapshot", "save", "--insecure-transport=false", "--dial-timeout=2s", "--keepalive-time=10s"]).args(cluster.member_flags(0)).arg(&file).run().ok());
        std::fs::remove_file(&file).unwrap();

        let bare = cluster.endpoint(0).trim_start_matches("https://").to_owned();
        let save = || {
            lifeboat
                .cmd(["snapshot", "save"])
                .arg(&file)
                .env("ETCDCTL_CACERT", &tls.ca)
                .env("ETCDCTL_CERT", &tls.client.cert)
                .env("ETCDCTL_KEY", &tls.client.key)
                .env("ETCDCTL_ENDPOINTS", &bare)
        };
        drop(save().env("ETCDCTL_USER", "root:secret").run().ok());
        std::fs::remove_file(&file).unwrap();
        drop(save().env("ETCDCTL_USER", "root").env("ETCDCTL_PASSWORD", "secret").run().ok());
        std::fs::remove_file(&file).unwrap();
        for (run, code) in [
            (save().env("ETCDCTL_USER", "root:wrong"), 1),
            (save().env("ETCDCTL_USER", "root:secret").arg(format!("--cacert={}", tls.wrong_ca.display())), 30),
            (save().env("ETCDCTL_USER", "root:secret").args(["--endpoints", "http://127.0.0.1:1"]), 30),
        ] {
            let refused = run.run().exit(code);
            assert!(refused.err().contains("next:"), "{refused}");
            assert!(names(dir.path()).is_empty());
        }
        let both = save().args(["--endpoints", "http://127.0.0.1:1,http://127.0.0.1:2", "-o", "json"]).run().exit(2);
        let error: serde_json::Value = serde_json::from_str(&both.err()).unwrap();
        assert!(error["error"]["what"].as_str().unwrap().contains("one selected member"), "{both}");
    }

    /// The restored member is etcdutl's, row for row and log for log, but for `confState`; it boots with everything that was there.
    async fn restore_makes_what_etcdutl_makes(etcd: EtcdVersion) {
        let lifeboat = Lifeboat::new();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("snapshot.db");
        let cluster = lived(etcd, 24).await;
        let before = dump_all(&cluster.client(0).await).await;
        cluster.snapshot(0, &file);
        drop(cluster);
        let content = std::fs::read(&file).unwrap();

        let plan = ClusterPlan::new(1).token("restored");
        drop(restore_with_etcd(etcd, &file, &plan, &[]));
        let data_dir = plan.members()[0].data_dir.clone();
        let theirs = dir.path().join("theirs");
        std::fs::rename(&data_dir, &theirs).unwrap();
        let run = restore(&lifeboat, &file, &plan, 0).run().ok();
        assert!(run.stdout.is_empty() && run.err().contains("Kubernetes"), "{run}");
        assert_same_member(etcd, &data_dir, &theirs);
        assert!(std::fs::read(&file).unwrap() == content, "the snapshot changed");

        let restored = EtcdCluster::boot(etcd, plan, Options::default());
        let after = dump_all(&restored.client(0).await).await;
        before.assert_same_history(&after);
        before.assert_same_live(&after);
        before.assert_same_leases(&after);
    }

    /// Three members, bumped: etcdutl's rows again, the logs elsewhere; the cluster forms, goes on beyond the bump, and a member that joins gets everything.
    async fn three_bumped_members_form_a_cluster(etcd: EtcdVersion) {
        let lifeboat = Lifeboat::new();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("snapshot.db");
        let cluster = lived(etcd, 25).await;
        let before = dump_all(&cluster.client(0).await).await;
        cluster.snapshot(0, &file);
        drop(cluster);

        let plan = ClusterPlan::new(3).token("restored");
        let bump = ["--bump-revision", "1000000", "--mark-compacted"];
        // Debian's 3.4 is older than bumps.
        let reference = if etcd == EtcdVersion::V3_4 { EtcdVersion::V3_5 } else { etcd };
        let has_reference = reference.etcdutl().is_some();
        if has_reference {
            drop(restore_with_etcd(reference, &file, &plan, &bump));
        }
        for (index, member) in plan.members().iter().enumerate() {
            let theirs = dir.path().join(format!("theirs{index}"));
            if has_reference {
                std::fs::rename(&member.data_dir, &theirs).unwrap();
            }
            let run = restore(&lifeboat, &file, &plan, index).args(bump).run().ok();
            assert!(run.err().contains("bumped from") && !run.err().contains("Kubernetes"), "{run}");
            if has_reference {
                assert_same_member(reference, &member.data_dir, &theirs);
            }
        }
        let mut restored = EtcdCluster::boot(etcd, plan, Options::default().members(3));
        let client = restored.client(0).await;
        let after = dump_all(&client).await;
        assert_eq!(after.revision, before.revision + 1_000_000);
        before.assert_same_live(&after);
        drop(client);
        assert_members_agree(&mut restored);
    }
}

/// Our restore of one member of a plan.
fn restore(lifeboat: &Lifeboat, file: &Path, plan: &ClusterPlan, index: usize) -> Run {
    let member = &plan.members()[index];
    lifeboat
        .cmd(["snapshot", "restore"])
        .arg(file)
        .args(["--name", &member.name, "--initial-cluster", &plan.initial_cluster()])
        .args(["--initial-cluster-token", plan.cluster_token(), "--initial-advertise-peer-urls", &member.peer_url()])
        .args(["--initial-memory-map-size", "1000000", "--data-dir"])
        .arg(&member.data_dir)
}

/// One more member joins; after another write all answer the same HashKV.
fn assert_members_agree(cluster: &mut EtcdCluster) {
    let joined = cluster.add_member();
    drop(cluster.etcdctl(["put", "after", "the restore"]));
    drop(cluster.etcdctl(["get", "after"]));
    cluster.wait_ready();
    let hash = |index: usize| {
        let flags = cluster.member_flags(index);
        etcdctl(cluster.version(), flags).args(["endpoint", "hashkv", "-w", "json"]).run().ok().json()[0]["HashKV"]["hash"].clone()
    };
    let first = hash(0);
    assert!(first.is_u64());
    for index in 1..=joined {
        // A follower applies a moment later.
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while hash(index) != first && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(hash(index), first, "member {index}");
    }
}

/// Every bucket with every key and value.
fn buckets(file: &Path) -> BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>> {
    #[derive(Default)]
    struct All {
        buckets: BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>,
        current: String,
    }
    impl Visitor for All {
        type Error = bbolt::Error;
        fn bucket(&mut self, name: &[u8], _: u64) -> Result<(), bbolt::Error> {
            self.current = String::from_utf8_lossy(name).into_owned();
            self.buckets.entry(self.current.clone()).or_default();
            Ok(())
        }
        fn item(&mut self, key: &[u8], value: &[u8]) -> Result<(), bbolt::Error> {
            self.buckets.get_mut(&self.current).unwrap().insert(key.to_vec(), value.to_vec());
            Ok(())
        }
    }
    let mut all = All::default();
    Database::open(DatabaseFile::open(file).unwrap()).unwrap().walk(&mut all).unwrap();
    all.buckets
}

fn assert_same_member(etcd: EtcdVersion, ours: &Path, theirs: &Path) {
    let database = "member/snap/db";
    let (mut mine, mut yours) = (buckets(&ours.join(database)), buckets(&theirs.join(database)));
    let [my_conf, your_conf] = [&mut mine, &mut yours].map(|all| all.get_mut("meta").unwrap().remove(&b"confState"[..]));
    if etcd == EtcdVersion::V3_4 {
        // The tool of 3.4 leaves the old members in the database, which is what 3.6 dies of, and knows no term; all data are the same.
        for (bucket, keys) in [("members", None), ("members_removed", None), ("meta", Some(&b"term"[..]))] {
            for all in [&mut mine, &mut yours] {
                match keys {
                    Some(key) => drop(all.get_mut(bucket).unwrap().remove(key)),
                    None => drop(all.remove(bucket)),
                }
            }
        }
    } else {
        assert!(my_conf.is_some() && my_conf != your_conf, "confState is the new cluster's");
    }
    for (name, theirs) in &yours {
        assert!(mine.get(name) == Some(theirs), "bucket {name}: {:?}\n{theirs:?}", mine.get(name));
    }
    assert_eq!(mine.keys().collect::<Vec<_>>(), yours.keys().collect::<Vec<_>>());
    let wal = "member/wal/0000000000000000-0000000000000000.wal";
    // 3.4 wrote no ConfState; 3.7 leaves fields away that are zero. Both mean the same.
    if matches!(etcd, EtcdVersion::V3_5 | EtcdVersion::V3_6) {
        assert!(std::fs::read(ours.join(wal)).unwrap() == std::fs::read(theirs.join(wal)).unwrap(), "the logs differ");
    }
    assert_eq!(names(&ours.join("member/snap")), names(&theirs.join("member/snap")));
    assert_eq!(names(ours), ["member"]);
    for (path, mode) in [("", 0o700), ("member", 0o700), ("member/snap", 0o700), ("member/wal", 0o700), (database, 0o600), (wal, 0o600)] {
        assert_eq!(std::fs::metadata(ours.join(path)).unwrap().permissions().mode() & 0o777, mode, "{path}");
    }
}

/// A server and a file for tests whose point is not the version.
fn any_version() -> Option<EtcdVersion> {
    let version = lifeboat_tests::versions().into_iter().max();
    if version.is_none() {
        peers::skipped("snapshot_verbs: no etcd");
    }
    version
}

/// Damage after saving, a cut file, a missing trailer: refused with both digests, or the flag that takes it; and nothing is left behind.
#[test]
fn what_is_not_what_the_member_sent_is_refused() {
    let Some(etcd) = any_version() else { return };
    let lifeboat = Lifeboat::new();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("snapshot.db");
    let cluster = EtcdCluster::single(etcd);
    drop(cluster.etcdctl(["put", "a", "1"]));
    cluster.snapshot(0, &file);
    drop(cluster);
    let sound = std::fs::read(&file).unwrap();
    let data_dir = dir.path().join("etcd");
    let attempt = |content: &[u8], extra: &[&str]| {
        std::fs::write(&file, content).unwrap();
        lifeboat.cmd(["snapshot", "restore", "--data-dir"]).arg(&data_dir).arg(&file).args(extra).run()
    };

    let mut flipped = sound.clone();
    let value = sound.windows(4).position(|window| window == b"a\x10\x02\x18").unwrap() + 9;
    flipped[value] ^= 1;
    let refused = attempt(&flipped, &[]).exit(20);
    let digest: String = sound[sound.len() - 32..].iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(refused.err().contains(&digest), "{refused}");
    let refused = lifeboat.cmd(["snapshot", "status"]).arg(&file).run().exit(20);
    assert!(refused.err().contains(&digest) && refused.stdout.is_empty(), "{refused}");

    let refused = attempt(&sound[..sound.len() - 32], &[]).exit(1);
    assert!(refused.err().contains("--skip-hash-check"), "{refused}");
    let refused = attempt(&sound[..sound.len() / 2 / 512 * 512], &["--skip-hash-check"]).exit(20);
    assert!(refused.err().contains("truncated"), "{refused}");
    let refused = attempt(&sound, &["--bump-revision", "5"]).exit(2);
    assert!(refused.err().contains("--mark-compacted required"), "{refused}");
    drop(attempt(&sound, &["--mark-compacted"]).exit(2));
    let refused = attempt(&sound, &["--name", "m1"]).exit(1);
    assert!(refused.err().contains("m1"), "{refused}");
    assert_eq!(names(dir.path()), ["snapshot.db"]);

    drop(attempt(&sound[..sound.len() - 32], &["--skip-hash-check=true"]).ok());
    let refused = attempt(&sound, &[]).exit(1);
    assert!(refused.err().contains("not empty"), "{refused}");
    // The command it names is one that a shell takes, and after it the restore is possible.
    let next = refused.err().lines().find_map(|line| line.trim().strip_prefix("next:").map(|next| next.trim().to_owned())).unwrap();
    drop(Run::new("sh").args(["-c", &next]).run().ok());
    let again = attempt(&sound, &[]).ok();
    assert!(again.err().contains("member.before-restore"), "{again}");
    drop(EtcdCluster::boot_data_dir(etcd, &data_dir, Options::default()));
}

/// A log elsewhere: written there, and etcd starts from it.
#[test]
fn a_log_elsewhere_is_found_by_etcd() {
    let Some(etcd) = any_version() else { return };
    let lifeboat = Lifeboat::new();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("snapshot.db");
    let cluster = EtcdCluster::single(etcd);
    drop(cluster.etcdctl(["put", "a", "1"]));
    cluster.snapshot(0, &file);
    drop(cluster);
    let (data_dir, wal_dir) = (dir.path().join("etcd"), dir.path().join("log/wal"));
    let run = || lifeboat.cmd(["snapshot", "restore", "--data-dir"]).arg(&data_dir).arg("--wal-dir").arg(&wal_dir).arg(&file);
    drop(run().run().ok());
    assert_eq!(names(&data_dir.join("member")), ["snap"]);
    let booted = EtcdCluster::boot_data_dir(etcd, &data_dir, Options::default().arg(&format!("--wal-dir={}", wal_dir.display())));
    assert_eq!(booted.etcdctl(["get", "a", "--print-value-only"]).out().trim(), "1");
    drop(booted);
    std::fs::remove_dir_all(&data_dir).unwrap();
    let refused = run().run().exit(1);
    assert!(refused.err().contains("not empty") && !data_dir.exists(), "{refused}");
}

/// A database of this many bytes takes a moment to send.
const LARGE: u64 = 24 << 20;

async fn large() -> Option<(EtcdCluster, Proxy)> {
    let cluster = EtcdCluster::single(any_version()?);
    let _objects = workload::fill(&cluster.client(0).await, 26, LARGE).await;
    let proxy = Proxy::to(cluster.members()[0].client_port());
    Some((cluster, proxy))
}

/// The connection breaks, the time is up, the process is ended, in the middle: the older file stays, and (but after SIGKILL) nothing beside it.
#[test]
fn a_save_that_is_cut_short_leaves_the_older_file() {
    lifeboat_tests::matrix::block_on(async {
        let Some((_cluster, proxy)) = large().await else { return };
        let lifeboat = Lifeboat::new();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("snapshot.db");
        let endpoint = format!("--endpoints=http://127.0.0.1:{}", proxy.port());
        let save = || lifeboat.cmd(["snapshot", "save", &endpoint]).arg(&file);
        drop(save().run().ok());
        let older = std::fs::read(&file).unwrap();

        proxy.set(Toxics { cut_after: Some(LARGE / 2), ..Toxics::default() });
        let cut = save().run();
        assert!(matches!(cut.code(), Some(1 | 30)), "{cut}");
        assert!(cut.stdout.is_empty() && cut.err().contains("no use"), "{cut}");

        proxy.set(Toxics { rate: Some(LARGE / 8), ..Toxics::default() });
        let late = save().arg("--command-timeout=1s").run().exit(1);
        assert!(late.err().contains("--command-timeout"), "{late}");
        let interrupted = save().signal_after(Duration::from_secs(1), rustix::process::Signal::INT).run().exit(130);
        assert!(interrupted.stdout.is_empty(), "{interrupted}");
        let terminated = save().signal_after(Duration::from_secs(1), rustix::process::Signal::TERM).run().exit(143);
        assert!(terminated.stdout.is_empty(), "{terminated}");
        assert!(std::fs::read(&file).unwrap() == older);
        assert_eq!(names(dir.path()), ["snapshot.db"]);

        assert_eq!(save().kill_after(Duration::from_secs(1)).run().signal(), Some(9));
        assert!(std::fs::read(&file).unwrap() == older);
        let left: Vec<String> = names(dir.path()).into_iter().filter(|name| name != "snapshot.db").collect();
        assert!(left.iter().all(|name| name.starts_with(".snapshot.db.part")), "{left:?}");
    });
}

/// Whoever reads standard output goes away, or has no room: exit 1 and the reason, whatever the reader did.
#[test]
fn a_pipe_that_breaks_is_a_failure() {
    lifeboat_tests::matrix::block_on(async {
        let Some((cluster, _proxy)) = large().await else { return };
        let lifeboat = Lifeboat::new();
        let script = |after: &str| {
            let command = format!("{} snapshot save - --endpoints={} {after}", lifeboat.path().display(), cluster.endpoint(0));
            Run::new("bash").args(["-c", &format!("set -o pipefail; {command}")]).run()
        };
        let broken = script("| head -c 100000 >/dev/null").exit(1);
        assert!(broken.err().contains("went away"), "{broken}");
        let full = script(">/dev/full").exit(1);
        assert!(full.err().contains("No space left"), "{full}");
    });
}

/// A filesystem without room: said beforehand, and nothing is left on it; likewise for a restore.
#[test]
fn a_full_disk_is_said_and_left_clean() {
    lifeboat_tests::matrix::block_on(async {
        let Some((cluster, _proxy)) = large().await else { return };
        let lifeboat = Lifeboat::new();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("snapshot.db");
        drop(lifeboat.cmd(["snapshot", "save"]).args(cluster.member_flags(0)).arg(&file).run().ok());
        let small = dir.path().join("small");
        std::fs::create_dir(&small).unwrap();
        let inside = |command: String| {
            let script =
                format!("mount -t tmpfs -o size=8m none {0} && {command}; code=$?; echo left:; ls -A {0}; exit $code", small.display());
            Run::new("unshare").args(["--mount", "--map-root-user", "sh", "-c", &script]).run()
        };
        if inside("true".to_owned()).code() != Some(0) {
            peers::skipped("a_full_disk_is_said_and_left_clean: no mounts in a namespace of our own");
            return;
        }
        let binary = lifeboat.path().display();
        let save = inside(format!("{binary} snapshot save {}/s.db --endpoints={}", small.display(), cluster.endpoint(0))).exit(1);
        assert!(save.err().contains("no room") && save.out() == "left:\n", "{save}");
        let restore = inside(format!("{binary} snapshot restore {} --data-dir {}/etcd", file.display(), small.display())).exit(1);
        assert!(restore.err().contains("no room") && restore.out() == "left:\n", "{restore}");
    });
}

/// Targets that a rename would destroy or that cannot be files.
#[test]
fn a_save_destroys_no_device_and_no_directory() {
    let Some(etcd) = any_version() else { return };
    let cluster = EtcdCluster::single(etcd);
    let lifeboat = Lifeboat::new();
    let dir = tempfile::tempdir().unwrap();
    for target in [PathBuf::from("/dev/null"), dir.path().to_owned()] {
        drop(lifeboat.cmd(["snapshot", "save"]).args(cluster.member_flags(0)).arg(&target).run().exit(2));
    }
    let nowhere = lifeboat.cmd(["snapshot", "save"]).args(cluster.member_flags(0)).arg(dir.path().join("none/s.db")).run().exit(1);
    assert!(nowhere.err().contains("does not exist"), "{nowhere}");
    assert!(names(dir.path()).is_empty());
}
