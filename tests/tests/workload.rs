//! The workload, the model of it and the dump agree with real etcd of every version; and a dump tells a restored cluster from a changed one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use etcd_api::{DeleteRequest, KeyRange, PutRequest, WatchEvent};
use lifeboat_tests::etcd::{etcdutl, restore_with_etcd};
use lifeboat_tests::{ClusterPlan, EtcdCluster, EtcdVersion, Options, Tls, Workload, dump_all, etcd_matrix, workload};

etcd_matrix! {
    /// What was written is what is read, key by key and lease by lease, and the history replays to it.
    async fn the_dump_is_what_the_workload_did(etcd: EtcdVersion) {
        let cluster = EtcdCluster::start(etcd, Options::default().tls(Tls::ClientAuth).auth("secret"));
        let client = cluster.client(0).await;
        let applied = Workload::small(11).apply(&client).await;
        let dump = dump_all(&client).await;
        assert_eq!(dump.revision, applied.revision);
        assert_eq!(dump.compact_revision, applied.compact_revision);
        assert!(applied.compact_revision > 1 && !dump.base.is_empty() && !dump.changes.is_empty());
        assert_eq!(dump.values(), applied.live);
        assert_eq!(
            dump.leases.iter().map(|(id, (_, keys))| (*id, keys.clone())).collect::<Vec<_>>(),
            applied.leases.iter().map(|(id, keys)| (*id, keys.iter().cloned().collect())).collect::<Vec<_>>()
        );
        assert!(dump.leases.values().all(|(granted, _)| *granted == 3600));
        assert!(dump.changes.iter().any(|change| matches!(change, WatchEvent::Delete { .. })));
    }

    /// etcd's own restore keeps history, live keys and leases; one further write is noticed by each comparison that should.
    async fn a_restored_cluster_compares_equal_until_it_changes(etcd: EtcdVersion) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("snapshot.db");
        let cluster = EtcdCluster::single(etcd);
        let client = cluster.client(0).await;
        drop(Workload::small(12).apply(&client).await);
        let before = dump_all(&client).await;
        cluster.snapshot(0, &file);
        drop(client);
        drop(cluster);

        let plan = ClusterPlan::new(1).token("restored");
        drop(restore_with_etcd(etcd, &file, &plan, &[]));
        let restored = EtcdCluster::boot(etcd, plan, Options::default());
        let client = restored.client(0).await;
        let after = dump_all(&client).await;
        before.assert_same_history(&after);
        before.assert_same_live(&after);
        before.assert_same_leases(&after);

        let key = before.live[0].key.clone();
        drop(client.put(PutRequest::new(key.clone(), before.live[0].value.clone())).await.unwrap());
        let changed = dump_all(&client).await;
        before.assert_same_history(&changed);
        assert_eq!(before.values(), changed.values());
        assert!(std::panic::catch_unwind(|| before.assert_same_live(&changed)).is_err(), "the mod revision differs");
        drop(client.delete_range(DeleteRequest::new(KeyRange::single(key))).await.unwrap());
        assert_ne!(before.values(), dump_all(&client).await.values());
    }

    /// The filler makes as much as it says.
    async fn filling_makes_a_database_of_that_size(etcd: EtcdVersion) {
        let cluster = EtcdCluster::single(etcd);
        let client = cluster.client(0).await;
        let objects = workload::fill(&client, 13, 20 << 20).await;
        // etcd commits to its file up to 100 ms after it answered.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let status = client.status().await.unwrap();
        assert!(status.db_size > 20 << 20, "{}", status.db_size);
        let all = client
            .range(etcd_api::RangeRequest { count_only: true, ..etcd_api::RangeRequest::new(KeyRange::all()) })
            .await
            .unwrap();
        assert_eq!(all.count, i64::try_from(objects).unwrap());
        client.defragment(Duration::from_secs(60)).await.unwrap();
    }
}

/// A bumped restore leaves a revision without an event at the end; the dump must not wait for it for ever.
#[test]
fn a_bumped_restore_can_be_dumped() {
    lifeboat_tests::matrix::each("a_bumped_restore_can_be_dumped", &[EtcdVersion::V3_6, EtcdVersion::V3_7], |etcd| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("snapshot.db");
        let cluster = EtcdCluster::single(etcd);
        let before = lifeboat_tests::matrix::block_on(async {
            let client = cluster.client(0).await;
            drop(Workload::small(14).apply(&client).await);
            dump_all(&client).await
        });
        cluster.snapshot(0, &file);
        let data_dir = dir.path().join("bumped");
        let restore = etcdutl(etcd, ["snapshot", "restore", "--bump-revision", "1000000", "--mark-compacted", "--data-dir"]);
        drop(restore.arg(&data_dir).arg(&file).run().ok());
        let bumped = EtcdCluster::boot_data_dir(etcd, &data_dir, Options::default());
        let after = lifeboat_tests::matrix::block_on(async { dump_all(&bumped.client(0).await).await });
        before.assert_same_live(&after);
        assert!(after.revision > 1_000_000 && after.changes.is_empty(), "{} {}", after.revision, after.compact_revision);
    });
}
