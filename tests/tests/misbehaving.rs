//! A source that misbehaves in each way of reference etcd.md 1.1 and 1.5, and a store that is refused, wrong or gone: nothing is listed, the exit code and
//! the words fit (design promises 1 and 8).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use etcd_api::PutRequest;
use etcd_api::testing::{Behaviour, MisbehavingEtcd, Script, ScriptHash};
use lifeboat_tests::matrix::block_on;
use lifeboat_tests::{EtcdCluster, Job, Lifeboat, S3Server};
use vault::digest::Sha256;

/// A real database, and the HashKV its member answered at its revision.
fn real_snapshot() -> Option<(Bytes, i64, u32)> {
    let version = lifeboat_tests::versions().into_iter().next_back()?;
    let cluster = EtcdCluster::single(version);
    block_on(async {
        let client = cluster.client(0).await;
        for n in 0..200 {
            drop(client.put(PutRequest::new(format!("/registry/pods/default/p{n}"), vec![n as u8; 900])).await.unwrap());
        }
        let revision = client.linearizable_read().await.unwrap().revision;
        let hash = client.hash_kv(Some(revision), Duration::from_secs(10)).await.unwrap();
        let mut stream = client.snapshot(etcd_api::SnapshotLimits::default()).await.unwrap();
        let mut database = Vec::new();
        while let Some(bytes) = stream.next().await.unwrap() {
            database.extend_from_slice(&bytes);
        }
        Some((database.into(), revision.0, hash.hash))
    })
}

fn script(database: &Bytes, revision: i64, hash: u32) -> Script {
    let mut script = Script::with_snapshot(database.clone());
    script.revision = revision;
    script.leader = script.member_id;
    script.hash_kv_default = Some(ScriptHash { hash, compact_revision: -1 });
    script
}

const AFTER: u64 = 60_000;

/// Every way in which a stream goes wrong by itself, with the exit codes that fit: the member is bad, or out of reach.
fn bad_streams() -> Vec<(Behaviour, &'static [i32])> {
    const BAD: &[i32] = &[1];
    const GONE: &[i32] = &[30];
    // What ends a stream is told by the server or seen by the client, whichever comes first.
    const EITHER: &[i32] = &[1, 30];
    let after = AFTER;
    vec![
        (Behaviour::EmptyBlobLoop { after }, BAD),
        (Behaviour::WrongTrailer, BAD),
        (Behaviour::CorruptByte { at: 50_000 }, BAD),
        (Behaviour::ShortTrailer, BAD),
        (Behaviour::MissingTrailer, BAD),
        (Behaviour::ShortStream { after }, BAD),
        (Behaviour::ExtraAfterTrailer, BAD),
        (Behaviour::WrongRemaining { after }, BAD),
        (Behaviour::RemainingRising { after }, BAD),
        (Behaviour::HugeBlob { bytes: 3 << 20 }, BAD),
        (Behaviour::OddSize, BAD),
        (Behaviour::FailMidway { after, code: 14, message: "etcdserver: unhealthy cluster".to_owned() }, EITHER),
        (Behaviour::FailMidway { after, code: 13, message: "transport: something".to_owned() }, EITHER),
        (Behaviour::CutMidway { after }, GONE),
        (Behaviour::ResetMidway { after, reason: 8 }, EITHER),
        (Behaviour::GoAway { after }, EITHER),
        (Behaviour::EndWithoutStatus { after }, EITHER),
    ]
}

#[test]
fn a_bad_stream_is_no_backup() {
    let Some((database, revision, hash)) = real_snapshot() else {
        return lifeboat_tests::peers::skipped("misbehaving etcd: no real etcd for a database");
    };
    let job = Job::new();
    block_on(async {
        let double = MisbehavingEtcd::start(Behaviour::Sound, script(&database, revision, hash)).await.unwrap();
        let source = vec![format!("--endpoints={}", double.endpoint())];
        let sound = run(job.backup_cmd(&source)).await.ok();
        assert!(sound.out().contains("hashkv match"), "{sound}");
        for (behaviour, codes) in bad_streams() {
            double.set_behaviour(behaviour.clone());
            let finished = run(job.backup_cmd(&source)).await;
            assert!(finished.code().is_some_and(|code| codes.contains(&code)), "{behaviour:?}: {finished}");
            assert!(finished.err().contains("next:"), "{behaviour:?}: {finished}");
            assert_eq!(job.list().len(), 1, "{behaviour:?}");
        }
        // The stream is sound, but it is not what the member holds.
        double.set_behaviour(Behaviour::Sound);
        double.change(|script| script.hash_kv_default = Some(ScriptHash { hash: hash ^ 1, compact_revision: -1 }));
        let finished = run(job.backup_cmd(&source)).await.exit(20);
        assert!(finished.err().contains("does not hold what its own member holds"), "{finished}");
        assert_eq!(job.list().len(), 1);
    });
}

/// Everything below a directory, by name.
fn content(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// `snapshot save` from a member that misbehaves: no file, or the older one; nothing beside it; on standard output nothing that passes for a snapshot.
#[test]
fn a_bad_stream_is_no_file() {
    let Some((database, revision, hash)) = real_snapshot() else {
        return lifeboat_tests::peers::skipped("misbehaving etcd: no real etcd for a database");
    };
    let lifeboat = Lifeboat::new();
    let dir = tempfile::tempdir().unwrap();
    let save = |endpoint: String, more: &[&str]| lifeboat.cmd(["snapshot", "save", "--endpoints", &endpoint]).args(more).dir(dir.path());
    block_on(async {
        let double = MisbehavingEtcd::start(Behaviour::Sound, script(&database, revision, hash)).await.unwrap();
        let endpoint = double.endpoint().to_string();
        drop(run(save(endpoint.clone(), &["older.db"])).await.ok());
        let older = content(dir.path());
        assert_eq!((older.len(), older.values().next().map(Vec::len)), (1, Some(database.len() + 32)));
        let silence = [Behaviour::Stalled { after: AFTER }, Behaviour::Silent].map(|behaviour| (behaviour, &[1][..], "1s"));
        let limited = bad_streams().into_iter().map(|(behaviour, codes)| (behaviour, codes, "0s")).chain(silence);
        for (behaviour, codes, limit) in limited {
            double.set_behaviour(behaviour.clone());
            // Over the older file, under a new name, under the name that it gives itself.
            for target in [&["older.db"][..], &["new.db"], &[]] {
                let finished = run(save(endpoint.clone(), &[target, &["--command-timeout", limit]].concat())).await;
                assert!(finished.code().is_some_and(|code| codes.contains(&code)), "{behaviour:?} {target:?}: {finished}");
                assert!(finished.err().contains("next:"), "{behaviour:?} {target:?}: {finished}");
                assert!(content(dir.path()) == older, "{behaviour:?} {target:?}: {:?}: {finished}", content(dir.path()).keys());
            }
            let piped = run(save(endpoint.clone(), &["-", "--command-timeout", limit])).await;
            assert!(piped.code().is_some_and(|code| codes.contains(&code)), "{behaviour:?}: {:?} {}", piped.status, piped.err());
            assert!(!etcd_takes(&piped.stdout), "{behaviour:?}: {} bytes pass for a snapshot", piped.stdout.len());
        }
        double.set_behaviour(Behaviour::Trickle { piece: 16 << 10, pause: Duration::from_millis(1) });
        drop(run(save(endpoint.clone(), &["new.db"])).await.ok());
        assert!(std::fs::read(dir.path().join("new.db")).unwrap() == *older.values().next().unwrap());
    });
}

/// Sound on the way, damaged on the member's disk: the digest agrees, the structure does not.
#[test]
fn a_damaged_member_is_no_file() {
    let Some((database, revision, hash)) = real_snapshot() else {
        return lifeboat_tests::peers::skipped("misbehaving etcd: no real etcd for a database");
    };
    let lifeboat = Lifeboat::new();
    let dir = tempfile::tempdir().unwrap();
    let mut damaged = database.to_vec();
    // The ids of all pages from the third on: both meta pages stay.
    for page in damaged.chunks_mut(4096).skip(2) {
        page[0] ^= 0xff;
    }
    block_on(async {
        let double = MisbehavingEtcd::start(Behaviour::Sound, script(&damaged.into(), revision, hash)).await.unwrap();
        let save = || lifeboat.cmd(["snapshot", "save", "new.db", "--endpoints", double.endpoint()]).dir(dir.path());
        let finished = run(save()).await.exit(20);
        assert!(finished.err().contains("damaged") && finished.err().contains("--no-check"), "{finished}");
        assert!(content(dir.path()).is_empty());
        drop(run(save().arg("--no-check")).await.ok());
        assert_eq!(content(dir.path()).len(), 1);
    });
}

/// Whether etcd's own tools would take these bytes for a snapshot: a size that fits, and a trailer that is the digest of all before it.
fn etcd_takes(bytes: &[u8]) -> bool {
    bytes.len() % 512 == 32 && bytes.split_last_chunk::<32>().is_some_and(|(database, trailer)| Sha256::of(database).0 == *trailer)
}

async fn run(run: lifeboat_tests::Run) -> lifeboat_tests::Finished {
    tokio::task::spawn_blocking(move || run.run()).await.unwrap()
}

/// The same job on a real S3 server: bucket, credentials, absence.
fn on_s3(name: &str, server: Option<S3Server>, checks_signatures: bool) {
    let Some(server) = server else { return lifeboat_tests::peers::skipped(format_args!("{name}: the server is not available")) };
    let Some(version) = lifeboat_tests::versions().into_iter().next_back() else { return lifeboat_tests::peers::skipped("s3: no etcd") };
    let cluster = EtcdCluster::single(version);
    block_on(async { lifeboat_tests::workload::fill(&cluster.client(0).await, 51, 20 << 20).await });
    let mut env = server.env();
    env.push(("LIFEBOAT_S3_ENDPOINT", server.endpoint()));
    let job = Job::at(server.url("etcd"), env.clone());
    drop(job.backup(&cluster));
    drop(job.backup(&cluster));
    let listed = job.list();
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|backup| backup["incomplete"] == false && backup["hashkv"] == "match"));
    let out = job.dir().join("out.db");
    drop(job.restore_cmd().args(["latest", "--no-bump", "--snapshot-file"]).arg(&out).run().ok());
    let status = job.lifeboat.cmd(["snapshot", "status"]).arg(&out).run().ok();
    assert!(!status.out().is_empty());

    let missing = Job::at("s3://no-such-bucket-here/etcd".to_owned(), env.clone());
    let finished = missing.backup_cmd(&cluster.client_flags()).run();
    assert!(matches!(finished.code(), Some(10)), "{finished}");
    if checks_signatures {
        let wrong = env
            .iter()
            .cloned()
            .map(|(key, value)| if key == "AWS_SECRET_ACCESS_KEY" { (key, "wrong".to_owned()) } else { (key, value) })
            .collect();
        let finished = Job::at(server.url("etcd"), wrong).backup_cmd(&cluster.client_flags()).run().exit(31);
        assert!(finished.err().contains("credentials"), "{finished}");
    }
}

#[test]
fn the_job_on_versitygw() {
    on_s3("versitygw", S3Server::versitygw("lifeboat-bucket"), true);
}

#[test]
fn the_job_on_moto() {
    on_s3("moto", S3Server::moto("lifeboat-bucket"), false);
}
