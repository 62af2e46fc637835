//! The harness itself on every version: nobody can trust a test that stands on it otherwise.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::time::{Duration, Instant};

use lifeboat_tests::etcd::{etcdctl, etcdutl, restore_with_etcd};
use lifeboat_tests::{ClusterPlan, EtcdCluster, EtcdVersion, Options, S3Server, Tls, etcd_matrix, peers};

fn get(cluster: &EtcdCluster, key: &str) -> String {
    cluster.etcdctl(["get", key, "--print-value-only"]).out().trim().to_owned()
}

fn hash_kv(cluster: &EtcdCluster, index: usize) -> u64 {
    let args = cluster.member_flags(index);
    let json = etcdctl(cluster.version(), args).args(["endpoint", "hashkv", "-w", "json"]).run().ok().json();
    json[0]["HashKV"]["hash"].as_u64().unwrap_or_else(|| panic!("{json}"))
}

etcd_matrix! {
    /// One member: it is the version it should be, listens itself, keeps data over stop, kill and freeze, and leaves nothing behind.
    fn a_member_lives_and_dies(etcd: EtcdVersion) {
        let mut cluster = EtcdCluster::single(etcd);
        assert!(etcd.full().starts_with(etcd.minor()));
        let status = cluster.etcdctl(["endpoint", "status", "-w", "json"]).json();
        assert_eq!(status[0]["Status"]["version"].as_str(), Some(etcd.full()));
        let pid = cluster.members()[0].pid().unwrap();
        assert!(lifeboat_tests::net::listens(pid, cluster.members()[0].client_port()));

        drop(cluster.etcdctl(["put", "a", "1"]));
        cluster.stop_member(0);
        assert!(!lifeboat_tests::net::anybody_listens(cluster.members()[0].client_port()));
        cluster.restart_member(0);
        assert_eq!(get(&cluster, "a"), "1");
        drop(cluster.etcdctl(["put", "a", "2"]));
        cluster.kill_member(0);
        cluster.restart_member(0);
        assert_eq!(get(&cluster, "a"), "2");

        cluster.pause_member(0);
        let frozen = cluster.etcdctl_cmd(["get", "a", "--command-timeout=500ms", "--dial-timeout=500ms"]).run();
        assert_ne!(frozen.code(), Some(0), "{frozen}");
        cluster.resume_member(0);
        assert_eq!(get(&cluster, "a"), "2");

        let pid = cluster.members()[0].pid().unwrap();
        let data_dir = cluster.members()[0].data_dir().to_owned();
        drop(cluster);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        assert!(!data_dir.exists());
    }

    /// TLS and authentication: the right client gets in, each wrong one is refused.
    fn tls_and_auth_let_only_the_right_client_in(etcd: EtcdVersion) {
        let cluster = EtcdCluster::start(etcd, Options::default().tls(Tls::ClientAuth).auth("secret"));
        drop(cluster.etcdctl(["put", "a", "1"]));
        assert_eq!(get(&cluster, "a"), "1");
        let tls = cluster.tls().unwrap();
        let endpoints = format!("--endpoints={}", cluster.endpoint(0));
        let within = |limit: &str, ca: &Path, pair: Option<&lifeboat_tests::tls::Pair>, user: &str| {
            let limits = [format!("--command-timeout={limit}"), format!("--dial-timeout={limit}")];
            let mut run = etcdctl(etcd, [&endpoints]).args(limits).arg(format!("--cacert={}", ca.display()));
            if let Some(pair) = pair {
                run = run.arg(format!("--cert={}", pair.cert.display())).arg(format!("--key={}", pair.key.display()));
            }
            if !user.is_empty() {
                run = run.arg(format!("--user={user}"));
            }
            run.args(["get", "a"]).run().code()
        };
        let attempt = |ca: &Path, pair: Option<&lifeboat_tests::tls::Pair>, user: &str| within("2s", ca, pair, user);
        // Whoever gets in has to be let in by a busy machine, too: a handshake, and bcrypt.
        assert_eq!(within("20s", &tls.ca, Some(&tls.client), "root:secret"), Some(0));
        assert_ne!(attempt(&tls.ca, Some(&tls.client), "root:wrong"), Some(0));
        assert_ne!(attempt(&tls.wrong_ca, Some(&tls.client), "root:secret"), Some(0));
        assert_ne!(attempt(&tls.ca, Some(&tls.wrong_client), "root:secret"), Some(0));
        assert_ne!(attempt(&tls.ca, Some(&tls.expired_client), "root:secret"), Some(0));
        assert_ne!(attempt(&tls.ca, None, "root:secret"), Some(0));
    }

    /// Three members: a write survives the loss of one, which catches up; then a snapshot restored by etcd's own tool boots as three others,
    /// and a fourth member joins with the same content.
    fn three_members_agree_and_restored_ones_too(etcd: EtcdVersion) {
        let mut cluster = EtcdCluster::start(etcd, Options::default().members(3));
        drop(cluster.etcdctl(["put", "a", "1"]));
        cluster.kill_member(2);
        cluster.wait_ready();
        drop(cluster.etcdctl(["put", "b", "2"]));
        cluster.restart_member(2);
        assert_eq!(hash_kv(&cluster, 0), hash_kv(&cluster, 2));

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("snapshot.db");
        cluster.snapshot(1, &file);
        let status = etcdutl(etcd, ["snapshot", "status", "-w", "json"]).arg(&file).run().ok().json();
        assert_eq!(status["revision"].as_u64(), Some(3), "{status}");
        let before = hash_kv(&cluster, 1);
        cluster.stop();
        drop(cluster);

        let plan = ClusterPlan::new(3).token("restored");
        drop(restore_with_etcd(etcd, &file, &plan, &[]));
        let mut restored = EtcdCluster::boot(etcd, plan, Options::default());
        assert_eq!(get(&restored, "b"), "2");
        let joined = restored.add_member();
        drop(restored.etcdctl(["put", "c", "3"]));
        drop(restored.etcdctl(["del", "c"]));
        // One that has not applied all of it yet would hash an older revision.
        restored.wait_ready();
        let hashes: Vec<u64> = (0..=joined).map(|index| hash_kv(&restored, index)).collect();
        assert!(hashes.iter().all(|&hash| hash == hashes[0]), "{hashes:?}");
        assert_ne!(hashes[0], before);
    }

    /// A single restored data directory boots wherever it is.
    fn a_restored_directory_boots(etcd: EtcdVersion) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("snapshot.db");
        let cluster = EtcdCluster::start(etcd, Options::default().quota(64 << 20));
        drop(cluster.etcdctl(["put", "a", "1"]));
        cluster.snapshot(0, &file);
        let data_dir = dir.path().join("restored");
        drop(etcdutl(etcd, ["snapshot", "restore"]).arg(&file).arg("--data-dir").arg(&data_dir).run().ok());
        let restored = EtcdCluster::boot_data_dir(etcd, &data_dir, Options::default());
        assert_eq!(get(&restored, "a"), "1");
    }

    /// A member that is out of space is still recognised as running.
    fn an_alarm_does_not_look_like_a_dead_member(etcd: EtcdVersion) {
        // The quota counts the file, whose first growth is past this.
        let mut cluster = EtcdCluster::start(etcd, Options::default().quota(1 << 20));
        let value = "x".repeat(100_000);
        let refused = (0..40).any(|index| cluster.etcdctl_cmd(["put", &format!("k{index}"), &value]).run().err().contains("space exceeded"));
        assert!(refused);
        assert!(cluster.etcdctl(["alarm", "list"]).out().contains("NOSPACE"));
        cluster.restart_member(0);
        assert!(cluster.etcdctl(["alarm", "list"]).out().contains("NOSPACE"));
    }
}

/// Data that cannot boot is reported as such, not waited for.
#[test]
fn a_broken_directory_does_not_hang_the_harness() {
    lifeboat_tests::matrix::each("a_broken_directory_does_not_hang_the_harness", &EtcdVersion::ALL, |etcd| {
        let plan = ClusterPlan::new(1);
        let snap = plan.members()[0].data_dir.join("member/snap");
        std::fs::create_dir_all(&snap).unwrap();
        std::fs::create_dir_all(plan.members()[0].data_dir.join("member/wal")).unwrap();
        std::fs::write(snap.join("db"), vec![7; 65536]).unwrap();
        std::fs::write(plan.members()[0].data_dir.join("member/wal/0000000000000000-0000000000000000.wal"), b"junk").unwrap();
        let begun = Instant::now();
        let mut cluster = EtcdCluster::boot(etcd, plan, Options::default().no_wait());
        let ended = cluster.member(0).process().unwrap().wait(Duration::from_secs(30));
        assert!(ended.is_some_and(|status| !status.success()), "after {:?}:\n{}", begun.elapsed(), cluster.logs());
    });
}

/// The S3 servers start, answer, and are gone afterwards.
#[test]
fn s3_servers_start_and_end() {
    for (name, start) in [("versitygw", S3Server::versitygw as fn(&str) -> Option<S3Server>), ("moto", S3Server::moto)] {
        let Some(mut server) = start("bucket1") else {
            peers::skipped(format_args!("s3_servers_start_and_end: no {name}"));
            continue;
        };
        let port = server.port();
        assert!(lifeboat_tests::net::listens(server.process().pid(), port));
        drop(server);
        assert!(!lifeboat_tests::net::anybody_listens(port));
    }
}
