//! The main job on real etcd: back up, restore, boot, and everything is there (design promises 1, 6 and 8).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use etcd_api::{AlarmKind, Client, ErrorKind, KeyRange, PutRequest, Txn, TxnOp, WatchRequest};
use etcd_store::id::Revision;
use lifeboat_tests::damage::falsify_last_row;
use lifeboat_tests::{ClusterPlan, EtcdCluster, Job, Options, Tls, Workload, dump_all, etcd_matrix};

const LIMIT: Duration = Duration::from_secs(60);

/// HashKV at the newest revision, the same on every member asked.
async fn one_hash(clients: &[Client]) -> u32 {
    let revision = clients[0].linearizable_read().await.unwrap().revision;
    let mut hashes = Vec::new();
    for client in clients {
        for _ in 0..100 {
            match client.hash_kv(Some(revision), LIMIT).await {
                Ok(reply) => {
                    hashes.push((reply.hash, reply.compact_revision));
                    break;
                }
                // A member that just joined may be behind for a moment.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
    assert_eq!(hashes.len(), clients.len(), "every member answers");
    assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "members differ: {hashes:?}");
    hashes[0].0
}

/// Waits until a bumped cluster has compacted everything before the bump, so that hashes are comparable.
async fn settled(client: &Client) {
    for _ in 0..200 {
        let reply = client.hash_kv(None, LIMIT).await.unwrap();
        if reply.compact_revision.0 > 1_000_000_000 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the compaction of the bump does not finish");
}

etcd_matrix! {
    /// Promise 1 and 6: what is listed restores; every live key with all its fields; an old watch is told to relist; an added member holds the same.
    async fn a_backup_comes_back_as_a_cluster(etcd: EtcdVersion) {
        let job = Job::new();
        let cluster = EtcdCluster::start(etcd, Options::default());
        let client = cluster.client(0).await;
        let applied = Workload::small(21).apply(&client).await;
        let before = dump_all(&client).await;
        let done = job.backup(&cluster);
        assert!(done.out().contains("hashkv match"), "{done}");
        drop(client);
        drop(cluster);

        let plan = ClusterPlan::new(1).token("new-token");
        let restored = job.restore("latest", &plan, &[]);
        assert!(restored[0].out().contains("counts as compacted"), "{}", restored[0]);
        let mut cluster = EtcdCluster::boot(etcd, plan, Options::default().token("new-token"));
        let client = cluster.client(0).await;
        let after = dump_all(&client).await;
        before.assert_same_live(&after);
        before.assert_same_leases(&after);
        assert!(after.revision > 1_000_000_000 + applied.revision, "{}", after.revision);

        // A watch from the old future is told that it is compacted, and so relists.
        let mut watch = client.watch(WatchRequest { start_revision: Some(Revision(applied.revision + 5)), ..WatchRequest::new(KeyRange::all()) }).await.unwrap();
        let told = watch.next().await.unwrap_err();
        assert!(matches!(told.kind(), etcd_api::ErrorKind::Compacted(_)), "{told}");

        // One put, an added member, and HashKV is the same everywhere (reference etcd.md 0.1 #2).
        drop(client.put(PutRequest::new("after", "restore")).await.unwrap());
        settled(&client).await;
        let added = cluster.add_member();
        let clients = [client, cluster.client(added).await];
        let live = one_hash(&clients).await;

        // And to the offline value of a fresh snapshot.
        let again = job.backup(&cluster);
        assert!(again.out().contains(&format!("({live:08x})")), "{live:08x}: {again}");
        assert!(again.out().contains("hashkv match"), "{again}");
        assert_eq!(job.list().len(), 2);
    }

    /// Design part 10: without a bump the restored cluster is the old one to the byte: HashKV at the backup's revision, leases, history.
    async fn without_a_bump_nothing_changes(etcd: EtcdVersion) {
        let job = Job::new();
        let cluster = EtcdCluster::start(etcd, Options::default());
        let client = cluster.client(0).await;
        drop(Workload::small(22).apply(&client).await);
        let before = dump_all(&client).await;
        let hash = one_hash(std::slice::from_ref(&client)).await;
        drop(job.backup(&cluster));
        drop(client);
        drop(cluster);

        let plan = ClusterPlan::new(1).token("t");
        drop(job.restore("latest", &plan, &["--no-bump"]));
        let cluster = EtcdCluster::boot(etcd, plan, Options::default().token("t"));
        let client = cluster.client(0).await;
        before.assert_same_history(&dump_all(&client).await);
        assert_eq!(one_hash(&[client]).await, hash);
    }

    /// A plan carried out on three nodes gives one cluster.
    async fn three_members_by_one_plan(etcd: EtcdVersion) {
        let job = Job::new();
        let cluster = EtcdCluster::start(etcd, Options::default().members(3));
        let client = cluster.client(0).await;
        drop(Workload::small(23).apply(&client).await);
        let before = dump_all(&client).await;
        let done = job.backup(&cluster);
        assert!(done.err().contains("a follower"), "{done}");
        drop(client);
        drop(cluster);

        let plan = ClusterPlan::new(3).token("three");
        drop(job.restore("latest", &plan, &[]));
        let cluster = EtcdCluster::boot(etcd, plan, Options::default().token("three"));
        let clients = [cluster.client(0).await, cluster.client(1).await, cluster.client(2).await];
        before.assert_same_live(&dump_all(&clients[1]).await);
        drop(clients[0].put(PutRequest::new("after", "restore")).await.unwrap());
        for client in &clients {
            settled(client).await;
        }
        one_hash(&clients).await;
    }

    /// mTLS and etcd's own authentication; users and roles survive.
    async fn with_certificates_and_passwords(etcd: EtcdVersion) {
        let job = Job::new();
        let options = || Options::default().tls(Tls::ClientAuth).auth("secret");
        let cluster = EtcdCluster::start(etcd, options());
        let client = cluster.client(0).await;
        drop(Workload::small(24).apply(&client).await);
        let before = dump_all(&client).await;
        drop(job.backup(&cluster));
        drop(client);
        drop(cluster);
        let plan = ClusterPlan::new(1).token("t");
        drop(job.restore("latest", &plan, &[]));
        let cluster = EtcdCluster::boot(etcd, plan, options().token("t"));
        before.assert_same_live(&dump_all(&cluster.client(0).await).await);
    }

    /// One member of three is down: the backup is taken from another and says which members answered.
    async fn one_member_down(etcd: EtcdVersion) {
        let job = Job::new();
        let mut cluster = EtcdCluster::start(etcd, Options::default().members(3));
        drop(Workload::small(25).apply(&cluster.client(0).await).await);
        cluster.stop_member(2);
        cluster.wait_ready();
        let done = job.backup(&cluster);
        assert!(done.err().contains("2 of 3 members answer"), "{done}");
        assert!(done.out().contains("hashkv match"), "{done}");
        let healthy = job.backup_cmd(&cluster.client_flags()).arg("--require-healthy").run().exit(1);
        assert!(healthy.err().contains("--require-healthy"), "{healthy}");
    }

    /// The alarm NOSPACE: refused by default, taken with --degraded (exit 3), and cleared by the restore.
    async fn a_full_cluster(etcd: EtcdVersion) {
        let job = Job::new();
        let cluster = EtcdCluster::start(etcd, Options::default().quota(16 << 20));
        let client = cluster.client(0).await;
        let value = vec![7_u8; 1 << 20];
        for n in 0.. {
            match client.put(PutRequest::new(format!("big/{n}"), value.clone())).await {
                Err(error) if *error.kind() == ErrorKind::NoSpace => break,
                // An election on a busy machine.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                Ok(_) => {}
            }
            assert!(n < 64, "the quota holds");
        }
        assert!(client.alarms().await.unwrap().iter().any(|alarm| alarm.kind == AlarmKind::NoSpace));
        let refused = job.backup_cmd(&cluster.client_flags()).run().exit(1);
        assert!(refused.err().contains("--degraded"), "{refused}");
        let taken = job.backup_cmd(&cluster.client_flags()).arg("--degraded").run().exit(3);
        assert!(taken.out().contains("hashkv match"), "{taken}");
        let before = dump_all(&client).await;
        drop(client);
        drop(cluster);
        let plan = ClusterPlan::new(1).token("t");
        let restored = job.restore("latest", &plan, &[]);
        assert!(restored[0].out().contains("1 alarm(s)"), "{}", restored[0]);
        let cluster = EtcdCluster::boot(etcd, plan, Options::default().token("t"));
        let client = cluster.client(0).await;
        before.assert_same_live(&dump_all(&client).await);
        drop(client.put(PutRequest::new("writes", "again")).await.unwrap());
    }

    /// Values of 1.5 MB, transactions of 128 operations, keys bound to leases.
    async fn large_values_and_transactions(etcd: EtcdVersion) {
        let job = Job::new();
        let cluster = EtcdCluster::start(etcd, Options::default());
        let client = cluster.client(0).await;
        for n in 0..4_u8 {
            drop(client.put(PutRequest::new(format!("large/{n}"), vec![n; 1_500_000])).await.unwrap());
        }
        for round in 0..20 {
            let then = (0..128).map(|n| TxnOp::Put(PutRequest::new(format!("txn/{n}"), format!("{round}")))).collect();
            drop(client.txn(Txn { then, ..Txn::default() }).await.unwrap());
        }
        let lease = client.lease_grant(Duration::from_secs(3600), None).await.unwrap();
        drop(client.put(PutRequest { lease: lease.id, ..PutRequest::new("leased", "x") }).await.unwrap());
        let before = dump_all(&client).await;
        drop(job.backup(&cluster));
        drop(client);
        drop(cluster);
        let plan = ClusterPlan::new(1).token("t");
        drop(job.restore("latest", &plan, &["--no-bump"]));
        let cluster = EtcdCluster::boot(etcd, plan, Options::default().token("t"));
        let after = dump_all(&cluster.client(0).await).await;
        before.assert_same_history(&after);
        before.assert_same_leases(&after);
    }

    /// A member whose data silently differs: the backup of the majority is good and says who diverged; the odd state is kept, disputed, never latest.
    async fn a_diverged_member(etcd: EtcdVersion) {
        let job = Job::new();
        let mut cluster = EtcdCluster::start(etcd, Options::default().members(3));
        drop(Workload::small(26).without_compactions().apply(&cluster.client(0).await).await);
        cluster.stop_member(2);
        let database = cluster.members()[2].data_dir().join("member/snap/db");
        falsify_last_row(&database);
        cluster.restart_member(2);
        cluster.wait_ready();
        let done = job.backup(&cluster);
        assert!(done.out().contains("DIVERGED") && done.out().contains("m2"), "{done}");
        let backups = job.list();
        let verdicts: Vec<&str> = backups.iter().map(|backup| backup["hashkv"].as_str().unwrap()).collect();
        assert_eq!(verdicts.iter().filter(|verdict| **verdict == "match").count(), 1, "{verdicts:?}");
        assert_eq!(verdicts.iter().filter(|verdict| **verdict == "disputed").count(), 1, "{verdicts:?}");
        let plan = ClusterPlan::new(1).token("t");
        let restored = job.restore("latest", &plan, &[]);
        let good = backups.iter().find(|backup| backup["hashkv"] == "match").unwrap()["id"].as_str().unwrap().to_owned();
        assert!(restored[0].out().contains(&good), "latest is the backup that agrees: {}", restored[0]);
    }
}

/// Every pair of versions at hand: a backup of one restored for the other (reference etcd.md 3.7). Older data boots as it is, newer data is told.
#[test]
fn every_pair_of_versions() {
    let all = lifeboat_tests::versions();
    for from in &all {
        lifeboat_tests::matrix::run("every_pair_of_versions", *from, |from| {
            lifeboat_tests::matrix::block_on(async {
                let job = Job::new();
                let cluster = EtcdCluster::start(from, Options::default());
                let client = cluster.client(0).await;
                drop(Workload::small(27).apply(&client).await);
                let before = dump_all(&client).await;
                drop(job.backup(&cluster));
                drop(client);
                drop(cluster);
                for to in &all {
                    let plan = ClusterPlan::new(1).token("pair");
                    drop(job.restore("latest", &plan, &["--target-version", to.minor()]));
                    let cluster = EtcdCluster::boot(*to, plan, Options::default().token("pair"));
                    before.assert_same_live(&dump_all(&cluster.client(0).await).await);
                }
            });
        });
    }
}
