//! A source that misbehaves in each way of reference etcd.md 1.1 and 1.5, and a store that is refused, wrong or gone: nothing is listed, the exit code and
//! the words fit (design promises 1 and 8).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use bytes::Bytes;
use etcd_api::PutRequest;
use etcd_api::testing::{Behaviour, MisbehavingEtcd, Script, ScriptHash};
use lifeboat_tests::matrix::block_on;
use lifeboat_tests::{EtcdCluster, Job, S3Server};

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

#[test]
fn a_bad_stream_is_no_backup() {
    let Some((database, revision, hash)) = real_snapshot() else {
        return lifeboat_tests::peers::skipped("misbehaving etcd: no real etcd for a database");
    };
    let after = 60_000;
    let bad = [
        Behaviour::EmptyBlobLoop { after },
        Behaviour::WrongTrailer,
        Behaviour::CorruptByte { at: 50_000 },
        Behaviour::ShortTrailer,
        Behaviour::MissingTrailer,
        Behaviour::ShortStream { after },
        Behaviour::ExtraAfterTrailer,
        Behaviour::WrongRemaining { after },
        Behaviour::RemainingRising { after },
        Behaviour::OddSize,
        Behaviour::FailMidway { after, code: 14, message: "etcdserver: unhealthy cluster".to_owned() },
        Behaviour::CutMidway { after },
        Behaviour::ResetMidway { after, reason: 8 },
        Behaviour::GoAway { after },
        Behaviour::EndWithoutStatus { after },
    ];
    let job = Job::new();
    block_on(async {
        let double = MisbehavingEtcd::start(Behaviour::Sound, script(&database, revision, hash)).await.unwrap();
        let source = vec![format!("--endpoints={}", double.endpoint())];
        let sound = run(job.backup_cmd(&source)).await.ok();
        assert!(sound.out().contains("hashkv match"), "{sound}");
        for behaviour in bad {
            double.set_behaviour(behaviour.clone());
            let finished = run(job.backup_cmd(&source)).await;
            assert!(matches!(finished.code(), Some(1 | 20 | 30)), "{behaviour:?}: {finished}");
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
