//! Long histories and their compactions: HashKV of a backup, of what is restored from it and of the live cluster are the same at every revision and
//! compaction, also for a file that was taken while a compaction ran (design promise 8).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etcd_api::{Client, DeleteRequest, KeyRange, PutRequest, Txn, TxnOp};
use etcd_store::id::Revision;
use etcd_store::{DatabaseFile, Inspection};
use futures::stream::{self, StreamExt};
use lifeboat_tests::etcd::etcdutl;
use lifeboat_tests::{ClusterPlan, EtcdCluster, EtcdVersion, Job, Options, dump_all, etcd_matrix};

const LIMIT: Duration = Duration::from_secs(60);
/// Keys of the long history; each is written and deleted many times.
const KEYS: u64 = 300;
/// Rounds of the long history, each with a backup and a compaction.
const ROUNDS: u64 = 5;
/// Revisions of a round.
const ROUND: u64 = 2_000;
const IN_FLIGHT: usize = 32;

/// What a live member answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer {
    revision: i64,
    compact: i64,
    hash: u32,
}

async fn answer(client: &Client, revision: i64) -> Answer {
    let reply = client.hash_kv(Some(Revision(revision)), LIMIT).await.unwrap_or_else(|error| panic!("HashKV at {revision}: {error}"));
    Answer { revision, compact: reply.compact_revision.0, hash: reply.hash }
}

async fn head(client: &Client) -> i64 {
    client.linearizable_read().await.unwrap().revision.0
}

/// Writes and deletes, each one revision, until there were `count` of them.
async fn write_history(client: &Client, round: u64, count: u64) {
    let begun = head(client).await;
    let until = begun + count as i64;
    let mut from = round * 1_000_000;
    // Deleting what is not there makes no revision, so some more may be needed.
    while head(client).await < until {
        let left = (until - head(client).await) as u64;
        stream::iter(from..from + left)
            .for_each_concurrent(IN_FLIGHT, |n| async move {
                let key = Bytes::from(format!("/registry/configmaps/ns/c{:03}", n.wrapping_mul(7919) % KEYS));
                if n % 9 == 0 {
                    drop(client.delete_range(DeleteRequest::new(KeyRange::single(key))).await.expect("delete"));
                } else {
                    drop(client.put(PutRequest::new(key, format!("round {round}, number {n}"))).await.expect("put"));
                }
            })
            .await;
        from += left;
    }
}

/// The file of a backup, byte by byte as it was taken.
fn original(job: &Job, which: &str) -> std::path::PathBuf {
    let file = job.dir().join(format!("{which}.db"));
    drop(job.restore_cmd().args([which, "--no-bump", "--snapshot-file"]).arg(&file).run().ok());
    file
}

fn offline(file: &Path, compact: i64, revision: i64) -> u32 {
    let database = bbolt::Database::open(DatabaseFile::open(file).unwrap()).unwrap();
    etcd_store::hash_kv(&database, Some(Revision(compact)), Revision(revision)).unwrap().hash
}

fn inspected(file: &Path) -> Inspection {
    let database = bbolt::Database::open(DatabaseFile::open(file).unwrap()).unwrap();
    etcd_store::inspect(&database, &etcd_store::Options::default()).unwrap()
}

/// Three revisions between a compaction and a head, both ends left out: at the compaction itself a member answers from what it hashed before.
fn between(compact: i64, head: i64) -> [i64; 3] {
    let step = (head - compact) / 4;
    [compact + step, compact + 2 * step, compact + 3 * step]
}

etcd_matrix! {
    /// Ten thousand revisions, compacted five times, backed up before and after each: every backup agrees with the members, and its file gives every answer
    /// that the members gave; what is restored gives them too, and goes on giving the cluster's own answers through further compactions.
    async fn ten_thousand_revisions(etcd: EtcdVersion) {
        let job = Job::new();
        let cluster = EtcdCluster::start(etcd, Options::default());
        let client = cluster.client(0).await;
        let mut told: Vec<(String, Vec<Answer>)> = Vec::new();
        let mut compacted = -1;
        for round in 0..ROUNDS {
            write_history(&client, round, ROUND).await;
            let newest = head(&client).await;
            let mut answers = vec![answer(&client, newest).await];
            for revision in between(compacted.max(1), newest) {
                answers.push(answer(&client, revision).await);
            }
            assert!(answers.iter().all(|answer| answer.compact == compacted), "{answers:?}");
            told.push((backup(&job, &cluster), answers));

            compacted = newest - (ROUND / 3) as i64;
            client.compact(Revision(compacted), true).await.unwrap();
            let mut answers = vec![answer(&client, newest).await];
            for revision in between(compacted, newest) {
                answers.push(answer(&client, revision).await);
            }
            assert!(answers.iter().all(|answer| answer.compact == compacted), "{answers:?}");
            told.push((backup(&job, &cluster), answers));
        }
        let newest = head(&client).await;
        assert!(newest > (ROUNDS * ROUND) as i64);
        for (id, answers) in &told {
            let file = original(&job, id);
            for answer in answers {
                assert_eq!(offline(&file, answer.compact, answer.revision), answer.hash, "{id}: {answer:?}");
            }
        }

        let plan = ClusterPlan::new(1).token("t");
        let (last, answers) = told.last().unwrap();
        drop(job.restore(last, &plan, &["--no-bump"]));
        let restored = EtcdCluster::boot(etcd, plan, Options::default().token("t"));
        let copy = restored.client(0).await;
        for told in answers {
            assert_eq!(answer(&copy, told.revision).await, *told);
        }
        let file = job.dir().join(format!("{last}.db"));
        for revision in between(compacted, newest) {
            client.compact(Revision(revision), true).await.unwrap();
            copy.compact(Revision(revision), true).await.unwrap();
            let told = answer(&client, newest).await;
            assert_eq!((told, told.compact), (answer(&copy, newest).await, revision));
            assert_eq!(offline(&file, revision, newest), told.hash, "{told:?}");
        }
    }

    /// A backup taken while a long compaction runs. Its file is the same to etcd's own tool; restored, the compaction is brought to its end.
    async fn a_file_taken_in_mid_compaction(etcd: EtcdVersion) {
        let job = Job::new();
        // Thirty thousand rows by fifteen, with etcd's pauses between: at least twenty seconds, whatever the machine.
        let cluster = EtcdCluster::start(etcd, Options::default().compaction_batch(15));
        let client = cluster.client(0).await;
        for round in 0..240_u32 {
            let then = (0..125).map(|n| TxnOp::Put(PutRequest::new(format!("txn/{n}"), format!("{round}")))).collect();
            drop(client.txn(Txn { then, ..Txn::default() }).await.unwrap());
        }
        for n in 0..20 {
            drop(client.delete_range(DeleteRequest::new(KeyRange::single(format!("txn/{n}")))).await.unwrap());
        }
        let newest = head(&client).await;
        client.compact(Revision(newest - 5), false).await.unwrap();
        let id = backup(&job, &cluster);
        let told = answer(&client, newest).await;
        assert_eq!(told.compact, newest - 5);
        let before = dump_all(&client).await;

        let file = original(&job, &id);
        let found = inspected(&file);
        assert!(found.mid_compaction, "the backup was taken too late: the compaction was over");
        assert!(found.rows > 1_000, "{} rows are left", found.rows);
        assert_eq!(offline(&file, newest - 5, newest), told.hash);
        same_as_etcdutl(etcd, &job, &file, found.status_hash, told.hash);
        drop(client);
        drop(cluster);

        let plan = ClusterPlan::new(1).token("t");
        drop(job.restore("latest", &plan, &["--no-bump"]));
        let restored = EtcdCluster::boot(etcd, plan, Options::default().token("t"));
        let client = restored.client(0).await;
        finished(&restored, &job, newest - 5).await;
        assert_eq!(answer(&client, newest).await, told);
        before.assert_same_history(&dump_all(&client).await);

        // With a bump everything before it counts as compacted, what was half gone too.
        let plan = ClusterPlan::new(1).token("bumped");
        drop(job.restore("latest", &plan, &[]));
        let bumped = EtcdCluster::boot(etcd, plan, Options::default().token("bumped"));
        let client = bumped.client(0).await;
        let compacted = finished(&bumped, &job, newest).await;
        assert!(compacted > 1_000_000_000, "{compacted}");
        before.assert_same_live(&dump_all(&client).await);
    }
}

/// Backs up, insists that the members agree, and gives the id.
fn backup(job: &Job, cluster: &EtcdCluster) -> String {
    let done = job.backup(cluster);
    assert!(done.out().contains("hashkv match"), "{done}");
    // Not the newest of the list: two of one second and revision stand there in any order.
    done.out().split_whitespace().nth(1).expect("`backup <id> of ...`").to_owned()
}

/// Waits until a member has finished its compaction at `least` or later, as a snapshot of it shows, and gives the revision.
async fn finished(cluster: &EtcdCluster, job: &Job, least: i64) -> i64 {
    let deadline = Instant::now() + LIMIT;
    loop {
        let file = job.dir().join("look.db");
        drop(std::fs::remove_file(&file));
        cluster.snapshot(0, &file);
        let found = inspected(&file);
        let compacted = found.compact_revision.unwrap();
        if !found.mid_compaction && compacted.0 >= least {
            return compacted.0;
        }
        assert!(Instant::now() < deadline, "the compaction does not come to its end: {compacted}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// etcd's own tool computes the same hashes from the file. Its `hashkv`, of 3.6 and later, changes the file, so it gets a copy.
fn same_as_etcdutl(etcd: EtcdVersion, job: &Job, file: &Path, status: u32, hash_kv: u32) {
    let json = etcdutl(etcd, ["snapshot", "status", "-w", "json"]).arg(file).run().ok().json();
    assert_eq!(json["hash"].as_u64(), Some(u64::from(status)), "{json}");
    if etcd >= EtcdVersion::V3_6 {
        let copy = job.dir().join("copy.db");
        std::fs::copy(file, &copy).unwrap();
        let json = etcdutl(etcd, ["hashkv", "-w", "json"]).arg(&copy).run().ok().json();
        assert_eq!(json["hash"].as_u64(), Some(u64::from(hash_kv)), "{json}");
    }
}
