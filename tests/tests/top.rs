//! `etcd top`: who fills the database. Every number is computed here from what was written, and the totals are those that other tools tell.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use etcd_api::{Client, DeleteRequest, KeyRange, PutRequest};
use etcd_store::id::Revision;
use lifeboat_tests::{EtcdCluster, Job, Lifeboat, etcd_matrix};
use serde_json::Value;

/// One row as etcd stores it.
#[derive(Clone, Debug)]
struct Row {
    key: Vec<u8>,
    revision: i64,
    bytes: u64,
    deletes: bool,
}

/// Writes, and keeps in mind what etcd must hold then.
struct Writer {
    client: Client,
    rows: Vec<Row>,
    /// Creation revision and version of the live keys.
    live: BTreeMap<Vec<u8>, (i64, i64)>,
    compacted: i64,
}

fn varint(value: i64) -> u64 {
    u64::from((i64::BITS - value.leading_zeros()).max(1).div_ceil(7))
}

/// A length-delimited protobuf field with a number below 16.
fn field(length: usize) -> u64 {
    if length == 0 { 0 } else { 1 + varint(length as i64) + length as u64 }
}

impl Writer {
    async fn put(&mut self, key: &[u8], size: usize) {
        let response = self.client.put(PutRequest::new(key.to_vec(), vec![b'v'; size])).await.unwrap();
        let revision = response.header.revision.0;
        let (created, version) = self.live.get(key).map_or((revision, 1), |(created, version)| (*created, version + 1));
        self.live.insert(key.to_vec(), (created, version));
        let numbers: u64 = [created, revision, version].into_iter().map(|number| 1 + varint(number)).sum();
        let bytes = 17 + field(key.len()) + numbers + field(size);
        self.rows.push(Row { key: key.to_vec(), revision, bytes, deletes: false });
    }

    async fn delete(&mut self, key: &[u8]) {
        let response = self.client.delete_range(DeleteRequest::new(KeyRange::single(key.to_vec()))).await.unwrap();
        self.live.remove(key);
        let bytes = 18 + field(key.len());
        self.rows.push(Row { key: key.to_vec(), revision: response.header.revision.0, bytes, deletes: true });
    }

    /// Of each key the newest row up to the revision stays, unless it deletes.
    async fn compact(&mut self, revision: i64) {
        self.client.compact(Revision(revision), true).await.unwrap();
        let rows = std::mem::take(&mut self.rows);
        let superseded = |at: usize| rows[at + 1..].iter().any(|later| later.revision <= revision && later.key == rows[at].key);
        self.rows = (0..rows.len())
            .filter(|&at| rows[at].revision > revision || !rows[at].deletes && !superseded(at))
            .map(|at| rows[at].clone())
            .collect();
        self.compacted = revision;
    }

    /// bytes, live bytes, revisions, deletions, keys, live keys, changes.
    fn expect(&self, of: impl Fn(&[u8]) -> bool) -> [u64; 7] {
        let mut sums = [0; 7];
        for (at, row) in self.rows.iter().enumerate().filter(|(_, row)| of(&row.key)) {
            let is_latest = !self.rows[at + 1..].iter().any(|later| later.key == row.key);
            let is_live = is_latest && !row.deletes;
            let more = [
                row.bytes,
                if is_live { row.bytes } else { 0 },
                1,
                u64::from(row.deletes),
                u64::from(is_latest),
                u64::from(is_live),
                u64::from(row.revision > self.compacted),
            ];
            sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        }
        sums
    }
}

fn numbers(value: &Value) -> [u64; 7] {
    ["bytes", "live_bytes", "revisions", "deletions", "keys", "live_keys", "changes"].map(|name| value[name].as_u64().unwrap())
}

fn line<'a>(report: &'a Value, list: &str, field: &str, name: &str) -> &'a Value {
    let lines = report[list].as_array().unwrap();
    lines.iter().find(|line| line[field] == name).unwrap_or_else(|| panic!("no {field} {name} in {report}"))
}

fn names<'a>(report: &'a Value, list: &str, field: &str) -> Vec<&'a str> {
    report[list].as_array().unwrap().iter().map(|line| line[field].as_str().unwrap_or("-")).collect()
}

/// A small Kubernetes: many pods, one lease that changes all the time, a large secret, keys with bytes that no terminal should see.
async fn lived(cluster: &EtcdCluster) -> Writer {
    let mut writer = Writer { client: cluster.client(0).await, rows: Vec::new(), live: BTreeMap::new(), compacted: 0 };
    for round in 0..3 {
        for pod in 0..20 {
            writer.put(format!("/registry/pods/ns{}/pod-{pod}", pod % 3).as_bytes(), 300 + pod * 7 + round).await;
        }
    }
    writer.delete(b"/registry/pods/ns0/pod-0").await;
    writer.put(b"/registry/secrets/kube-system/large", 60_000).await;
    let revision = writer.rows.last().unwrap().revision;
    writer.compact(revision).await;
    for _ in 0..40 {
        writer.put(b"/registry/leases/kube-node-lease/node-1", 130).await;
    }
    writer.put(b"/registry/cert-manager.io/certificates/ns1/web", 900).await;
    writer.put(b"\x1b[31mred\xff\n", 10).await;
    writer.put(b"compact_rev_key", 5).await;
    writer.put(b"/registry/pods/ns1/pod-1", 100).await;
    writer.delete(b"/registry/pods/ns1/pod-4").await;
    writer
}

etcd_matrix! {
    /// Resources, prefixes and keys have exactly what was written, and the parts sum up to the file.
    async fn every_number_is_what_was_written(etcd: EtcdVersion) {
        let cluster = EtcdCluster::single(etcd);
        let writer = lived(&cluster).await;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("snapshot.db");
        cluster.snapshot(0, &file);
        let lifeboat = Lifeboat::new();
        let top = |more: &[&str]| lifeboat.cmd(["etcd", "top"]).arg(&file).args(["-o", "json"]).args(more).run().ok().json();
        let report = top(&[]);
        assert_eq!(report["schema"], "lifeboat.etcd-top/1");

        assert_eq!(numbers(&report["all"]), writer.expect(|_| true));
        assert_eq!(report["compact_revision"], writer.compacted);
        assert_eq!(report["revision"], writer.rows.last().unwrap().revision);
        let resource = |name: &str| numbers(line(&report, "resources", "resource", name));
        assert_eq!(resource("pods"), writer.expect(|key| key.starts_with(b"/registry/pods/")));
        assert_eq!(resource("secrets"), writer.expect(|key| key.starts_with(b"/registry/secrets/")));
        assert_eq!(resource("certificates.cert-manager.io"), writer.expect(|key| key.starts_with(b"/registry/cert-manager.io/")));
        assert_eq!(names(&report, "resources", "resource")[0], "secrets");
        assert_eq!(numbers(line(&report, "prefixes", "prefix", "/registry/leases/")), writer.expect(|key| key.starts_with(b"/registry/leases/")));
        assert_eq!(numbers(line(&report, "keys", "key", "/registry/leases/kube-node-lease/node-1"))[2], 40);
        assert_eq!(names(&report, "keys", "key")[..2], ["/registry/secrets/kube-system/large", "/registry/leases/kube-node-lease/node-1"]);

        // The parts are the file, and the totals are etcd's.
        let sum = |list: &str, of: &str| report[list].as_array().unwrap().iter().map(|line| line[of].as_u64().unwrap()).sum::<u64>();
        let number = |name: &str| report[name].as_u64().unwrap();
        assert_eq!(sum("buckets", "bytes") + number("overhead") + number("free"), number("size"));
        assert_eq!(number("size") + number("behind"), std::fs::metadata(&file).unwrap().len());
        let status = lifeboat.cmd(["snapshot", "status", "-w", "json"]).arg(&file).run().ok().json();
        assert_eq!((status["totalSize"].as_u64(), status["totalKeyAllBuckets"].as_u64()), (Some(number("size")), Some(sum("buckets", "items"))));
        assert_eq!(sum("resources", "bytes"), writer.expect(|_| true)[0]);

        // Another order, and down into a part.
        assert_eq!(names(&top(&["--by", "revisions"]), "keys", "key")[0], "/registry/leases/kube-node-lease/node-1");
        let churn = top(&["--by", "churn", "-n", "1"]);
        assert_eq!(names(&churn, "keys", "key"), ["/registry/leases/kube-node-lease/node-1"]);
        assert_eq!((names(&churn, "prefixes", "prefix"), churn["keys"][0]["churn"].as_f64()), (vec!["/registry/leases/"], Some(40.0)));
        let pods = top(&["--prefix", "/registry/pods/"]);
        assert_eq!(numbers(&pods["matched"]), writer.expect(|key| key.starts_with(b"/registry/pods/")));
        assert_eq!(numbers(line(&pods, "prefixes", "prefix", "/registry/pods/ns1/")), writer.expect(|key| key.starts_with(b"/registry/pods/ns1/")));
        assert_eq!((pods["prefixes"].as_array().unwrap().len(), pods["resources"].as_array().unwrap().len()), (3, 1));
        let whole = top(&["--depth", "1"]);
        assert_eq!(numbers(line(&whole, "prefixes", "prefix", "/registry/")), writer.expect(|key| key.starts_with(b"/registry/")));

        // Nothing of a key reaches a terminal that could steer it, and what is shown can be asked for.
        for form in ["table", "json", "simple", "yaml", "fields"] {
            let shown = lifeboat.cmd(["etcd", "top", "-n", "99", "-o", form]).arg(&file).run().ok().out();
            assert!(!shown.contains('\x1b') && shown.contains("x1b[31mred"), "{form}: {shown}");
        }
        assert_eq!(numbers(&top(&["--prefix", "\\x1b["])["matched"]), writer.expect(|key| key.starts_with(b"\x1b")));
    }

    /// A backup gives what a snapshot file of the same moment gives, and so does the database of a member that was stopped.
    async fn a_backup_and_a_stopped_member_are_looked_at_too(etcd: EtcdVersion) {
        let mut cluster = EtcdCluster::single(etcd);
        let writer = lived(&cluster).await;
        let job = Job::new();
        drop(job.backup(&cluster));
        let spool = job.dir().join("spool");
        let top = || {
            let run = job.lifeboat.cmd(["etcd", "top", "--repo", job.url(), "-o", "json", "--spool-reserve", "0", "--spool-dir"]).arg(&spool);
            run.arg("-i").arg(job.identity())
        };
        let report = top().run().ok().json();
        assert_eq!(numbers(&report["all"]), writer.expect(|_| true));
        assert_eq!(report["subject"], job.list()[0]["id"]);
        let keyless = job.lifeboat.cmd(["etcd", "top", "latest", "--repo", job.url()]).run().exit(12);
        assert!(keyless.err().contains("no identity was given"), "{keyless}");
        let nothing = top().arg("zzzzzz").run().exit(1);
        assert!(nothing.err().contains("no backup was found"), "{nothing}");

        let database = cluster.members()[0].data_dir().join("member/snap/db");
        let in_use = job.lifeboat.cmd(["etcd", "top"]).arg(&database).run().exit(1);
        assert!(in_use.err().contains("in use"), "{in_use}");
        cluster.stop();
        let stopped = job.lifeboat.cmd(["etcd", "top", "-o", "json"]).arg(&database).run().ok().json();
        assert_eq!(numbers(&stopped["all"]), writer.expect(|_| true));
    }
}

/// What is no database, and what is no question, is refused in words.
#[test]
fn what_cannot_be_looked_at_is_said() {
    let lifeboat = Lifeboat::new();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("text.db");
    std::fs::write(&file, "a text\n".repeat(2_000)).unwrap();
    let top = |words: &[&str]| lifeboat.cmd(["etcd", "top"]).args(words);
    let path = file.to_string_lossy().into_owned();
    for (words, code, says) in [
        (vec![path.as_str()], 20, "not a sound etcd database"),
        (vec!["missing.db"], 1, "there is no such snapshot file"),
        (vec![], 2, "nothing is named to look at"),
        (vec!["--lines", "0", &path], 2, "a list without lines"),
        (vec!["--prefix", "\\q", &path], 2, "the prefix cannot be read"),
        (vec!["--by", "size", &path], 2, "invalid value"),
    ] {
        let refused = top(&words).run().exit(code);
        assert!(refused.err().contains(says), "{words:?}: {refused}");
    }
}
