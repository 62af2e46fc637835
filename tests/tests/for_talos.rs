//! A snapshot file for a Talos node: the locks that Talos itself keeps in etcd are not in it, everything else is (design part 10).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use etcd_api::{Client, DeleteRequest, KeyRange, PutRequest};
use etcd_store::DatabaseFile;
use lifeboat_tests::etcd::restore_with_etcd;
use lifeboat_tests::{ClusterPlan, EtcdCluster, Job, Options, Workload, dump_all, etcd_matrix};

const TALOS: &[u8] = b"talos:v1:";

/// What Talos leaves: an election and mutexes, each key on the lease of a session; taken, given back, taken again.
async fn locks(client: &Client) -> usize {
    let names = ["vip:election:10.0.0.9", "manifestApplyMutex", "serviceAccountSyncerMutex"];
    for name in names {
        for round in 0..3 {
            let session = client.lease_grant(Duration::from_secs(60), None).await.unwrap();
            let key = format!("talos:v1:{name}/{:x}", session.id.0);
            drop(client.put(PutRequest { lease: session.id, ..PutRequest::new(key.clone(), "cp-1") }).await.unwrap());
            if round < 2 {
                drop(client.delete_range(DeleteRequest::new(KeyRange::single(key))).await.unwrap());
            }
        }
    }
    names.len()
}

etcd_matrix! {
    /// The file boots; Talos's keys are gone with their history, every other key and every lease is there, and HashKV can be computed and agrees.
    async fn a_file_for_talos_holds_everything_but_its_locks(etcd: EtcdVersion) {
        let job = Job::new();
        let cluster = EtcdCluster::start(etcd, Options::default());
        let client = cluster.client(0).await;
        drop(Workload::small(41).apply(&client).await);
        let held = locks(&client).await;
        let mut before = dump_all(&client).await;
        drop(job.backup(&cluster));
        drop(client);
        drop(cluster);

        let file = job.dir().join("snapshot.db");
        let restored = job.restore_cmd().args(["latest", "--for", "talos", "--snapshot-file"]).arg(&file).run().ok();
        assert!(restored.out().contains(&format!("{held} of Talos's own keys were dropped, with {} rows", held * 5)), "{restored}");
        let database = bbolt::Database::open(DatabaseFile::open(&file).unwrap()).unwrap();
        database.check().unwrap();
        drop(database);

        let plan = ClusterPlan::new(1).token("talos");
        drop(restore_with_etcd(etcd, &file, &plan, &[]));
        let cluster = EtcdCluster::boot(etcd, plan, Options::default().token("talos"));
        let client = cluster.client(0).await;
        let after = dump_all(&client).await;
        let all = before.live.len();
        before.live.retain(|kv| !kv.key.starts_with(TALOS));
        assert_eq!(all - before.live.len(), held);
        before.assert_same_live(&after);
        before.leases.values_mut().for_each(|(_, keys)| keys.retain(|key| !key.starts_with(TALOS)));
        before.assert_same_leases(&after);
        // At the bump's own revision, which counts as compacted, etcd 3.4 answers no HashKV.
        drop(client.put(PutRequest::new("after", "restore")).await.unwrap());
        let again = job.backup(&cluster);
        assert!(again.out().contains("hashkv match"), "{again}");
    }
}

#[test]
fn what_does_not_go_together_is_refused_and_writes_nothing() {
    if !lifeboat_tests::EtcdVersion::V3_6.available() {
        return lifeboat_tests::peers::skipped(format_args!("etcd 3.6 is not available"));
    }
    let job = Job::new();
    drop(job.backup(&EtcdCluster::start(lifeboat_tests::EtcdVersion::V3_6, Options::default())));
    let file = job.dir().join("snapshot.db");
    let refused = job.restore_cmd().args(["--for", "talos", "--no-bump", "--snapshot-file"]).arg(&file).run().exit(2);
    assert!(refused.err().contains("hand it out a second time"), "{refused}");
    assert!(!refused.err().lines().any(|line| line.contains("next:") && line.contains("--no-bump")), "{refused}");
    drop(job.restore_cmd().args(["--for", "talos", "--data-dir"]).arg(job.dir().join("etcd")).run().exit(2));
    drop(job.restore_cmd().args(["--for", "other", "--snapshot-file"]).arg(&file).run().exit(2));
    assert!(!file.exists());
    // A plan carries it on.
    let plan = job.dir().join("plan.json");
    drop(job.restore_cmd().args(["--for", "talos", "--snapshot-file"]).arg(&file).arg("--plan-out").arg(&plan).run().ok());
    let restored = job.restore_cmd().arg("--plan").arg(&plan).arg("--snapshot-file").arg(&file).run().ok();
    assert!(restored.out().contains("0 of Talos's own keys"), "{restored}");
}
