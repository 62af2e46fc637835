//! The alarm CORRUPT, raised by etcd's own comparison of its members: what a backup then does, and that a restore gives a cluster that works again
//! (design promises 6 and 8).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant};

use etcd_api::{AlarmKind, Client, ErrorKind, PutRequest};
use etcd_store::id::MemberId;
use lifeboat_tests::damage::falsify_last_row;
use lifeboat_tests::{ClusterPlan, EtcdCluster, Job, Options, Workload, dump_all, etcd_matrix};

/// The check runs every second; a busy machine may be late with it.
const ALARM_WITHIN: Duration = Duration::from_secs(120);

/// Waits for the alarm and gives the member that it accuses; 0 where etcd cannot say which.
async fn accused(client: &Client) -> MemberId {
    let deadline = Instant::now() + ALARM_WITHIN;
    loop {
        let alarms = client.alarms().await.unwrap();
        if let Some(alarm) = alarms.iter().find(|alarm| alarm.kind == AlarmKind::Corrupt) {
            return alarm.member;
        }
        assert!(Instant::now() < deadline, "etcd does not notice that a member differs");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn id(cluster: &EtcdCluster, index: usize) -> MemberId {
    cluster.client(index).await.status().await.unwrap().header.member_id
}

fn verdicts(job: &Job) -> Vec<String> {
    let mut verdicts: Vec<String> = job.list().iter().map(|backup| backup["hashkv"].as_str().unwrap().to_owned()).collect();
    verdicts.sort();
    verdicts
}

etcd_matrix! {
    /// A member's file changed while it was down. etcd raises CORRUPT and refuses writes. A backup is refused and says how it is had; it then holds
    /// what the majority holds, the odd state is kept as disputed, and what is restored has no alarm. Without a majority all is disputed.
    async fn a_corrupt_member(etcd: EtcdVersion) {
        let job = Job::new();
        let mut cluster = EtcdCluster::start(etcd, Options::default().members(3).corrupt_check(1));
        let client = cluster.client(0).await;
        drop(Workload::small(28).without_compactions().apply(&client).await);
        let before = dump_all(&client).await;
        // A follower: the leader is the one that compares.
        let leader = client.status().await.unwrap().leader.unwrap();
        let odd = if id(&cluster, 2).await == leader { 1 } else { 2 };
        let odd_id = id(&cluster, odd).await;
        let odd_name = format!("m{odd}");
        cluster.stop_member(odd);
        falsify_last_row(&cluster.members()[odd].data_dir().join("member/snap/db"));
        cluster.restart_member(odd);
        let accused = accused(&client).await;
        assert!(accused == odd_id || accused == MemberId(0), "etcd accuses {accused}, and {odd_id} differs");
        let put = client.put(PutRequest::new("while", "corrupt")).await.unwrap_err();
        assert!(matches!(put.kind(), ErrorKind::Corrupt), "{put}");

        let refused = job.backup_cmd(&cluster.client_flags()).run().exit(1);
        assert!(refused.err().contains("CORRUPT") && refused.err().contains("--degraded"), "{refused}");
        assert!(!job.repository().exists(), "a refused first backup makes no repository");

        let taken = job.backup_cmd(&cluster.client_flags()).arg("--degraded").run().exit(3);
        assert!(taken.out().contains(&format!("member {odd_name} DIVERGED from the majority")), "{taken}");
        assert_eq!(verdicts(&job), ["disputed", "match"]);
        if accused == odd_id {
            let first = taken.err().lines().find(|line| line.starts_with("member: ")).unwrap().to_owned();
            assert!(!first.contains(&odd_name), "the accused is not asked first: {first}");
        }
        let alone = job.backup_cmd(&cluster.client_flags()).args(["--degraded", "--member", &odd_name]).run().exit(3);
        assert!(alone.out().contains("DISPUTED"), "{alone}");
        let good = job.list().iter().find(|backup| backup["hashkv"] == "match").unwrap()["id"].as_str().unwrap().to_owned();

        // One against one: nobody can say who is right.
        cluster.stop_member(0);
        cluster.wait_ready();
        let torn = job.backup_cmd(&cluster.client_flags()).arg("--degraded").run().exit(20);
        assert!(torn.out().contains("DISPUTED"), "{torn}");
        assert_eq!(verdicts(&job), ["disputed", "disputed", "disputed", "disputed", "match"]);
        drop(client);
        drop(cluster);

        let plan = ClusterPlan::new(1).token("t");
        let restored = job.restore("latest", &plan, &[]);
        assert!(restored[0].out().contains(&good), "{}", restored[0]);
        assert!(restored[0].out().contains("1 alarm(s)"), "{}", restored[0]);
        let cluster = EtcdCluster::boot(etcd, plan, Options::default().token("t"));
        let client = cluster.client(0).await;
        assert!(client.alarms().await.unwrap().is_empty());
        before.assert_same_live(&dump_all(&client).await);
        drop(client.put(PutRequest::new("writes", "again")).await.unwrap());
    }
}
