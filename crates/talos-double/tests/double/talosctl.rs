//! The real talosctl against the double, where there is one: it must not notice the difference.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::common::{block_on, fill, start};
use lifeboat_tests::peers::{peer, skipped};
use lifeboat_tests::{EtcdVersion, Finished, Run};
use talos_double::{Options, TalosDouble};

/// `LIFEBOAT_TEST_TALOSCTL`, the peers, or `PATH`.
fn talosctl() -> Option<PathBuf> {
    let named = std::env::var_os("LIFEBOAT_TEST_TALOSCTL").map(PathBuf::from);
    let on_path = || std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join("talosctl")).find(|file| file.is_file());
    named.or_else(|| peer("talosctl").map(|peer| peer.path.clone())).or_else(on_path)
}

struct Talosctl<'a> {
    program: PathBuf,
    double: &'a TalosDouble,
}

impl Talosctl<'_> {
    fn run(&self, context: &str, node: usize, command: &[&str]) -> Finished {
        let node = self.double.node_ip(node).to_string();
        Run::new(&self.program)
            .clear_env()
            .env("HOME", self.double.root(0))
            .env("TALOSCONFIG", self.double.talosconfig())
            .args(["--context", context, "-n", &node])
            .args(command)
            .run()
    }

    fn ok(&self, node: usize, command: &[&str]) -> String {
        self.run("admin", node, command).ok().out()
    }

    /// The rows of a table, without its head, as words.
    fn rows(&self, node: usize, command: &[&str]) -> Vec<Vec<String>> {
        self.ok(node, command).lines().skip(1).map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    }

    /// Waits for a membership: while a leader is elected there is no list.
    fn wait_for_names(&self, expected: &[&str]) {
        self.double.wait_until("the members", |_| {
            let answer = self.run("admin", 0, &["etcd", "members"]).out();
            let mut names: Vec<&str> = answer.lines().skip(1).filter_map(|line| line.split_whitespace().nth(2)).collect();
            names.sort_unstable();
            names == expected
        });
    }

    /// Repeats what etcd refuses while its members have not known each other for long enough.
    fn patiently(&self, node: usize, command: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let answer = self.run("admin", node, command);
            if answer.code() == Some(0) {
                return;
            }
            assert!(answer.err().contains("unhealthy cluster") && Instant::now() < deadline, "{answer}");
            std::thread::sleep(Duration::from_millis(300));
        }
    }
}

#[test]
fn talosctl_works_unchanged() {
    let Some(program) = talosctl() else {
        skipped("no talosctl in LIFEBOAT_TEST_TALOSCTL or on PATH");
        return;
    };
    let Some(double) = start(Options::default().control_planes(3).workers(1), EtcdVersion::V3_6) else { return };
    block_on(fill(&double, 31));
    let talosctl = Talosctl { program, double: &double };

    talosctl.wait_for_names(&["cp-1", "cp-2", "cp-3"]);
    let status = talosctl.rows(0, &["etcd", "status"]);
    assert_eq!(status.len(), 1, "{status:?}");
    assert!(status[0].contains(&EtcdVersion::V3_6.full().to_owned()), "{status:?}");
    // A new cluster of 3.6 begins with the storage version before it.
    double.wait_until("the storage version", |_| talosctl.rows(0, &["etcd", "status"])[0].contains(&"3.6.0".to_owned()));
    let ids: Vec<String> = (0..3).map(|node| talosctl.rows(node, &["etcd", "status"])[0][1].clone()).collect();
    let member = |id: &str| talosctl.rows(0, &["etcd", "members"]).into_iter().find(|row| row[1] == id).unwrap()[2].clone();
    assert_eq!(ids.iter().map(|id| member(id)).collect::<Vec<_>>(), ["cp-1", "cp-2", "cp-3"]);

    let file = double.root(0).join("talosctl.snapshot");
    let path = file.display().to_string();
    let said = talosctl.run("etcd-backup", 1, &["etcd", "snapshot", &path]).ok().out();
    assert!(said.contains("etcd snapshot saved to") && said.contains("snapshot info: hash"), "{said}");
    let denied = talosctl.run("reader", 1, &["etcd", "snapshot", &path]).exit(1);
    assert!(denied.err().contains("PermissionDenied"), "{denied}");

    assert_eq!(talosctl.ok(0, &["etcd", "alarm", "list"]), "");
    assert_eq!(talosctl.ok(0, &["etcd", "alarm", "disarm"]), "");
    drop(talosctl.ok(0, &["etcd", "defrag"]));
    let worker = talosctl.run("admin", 3, &["etcd", "status"]).exit(1);
    assert!(worker.err().contains("only available on control plane nodes"), "{worker}");

    // The first node may know of none for a moment, or not have heard of the new one yet.
    let leader_but = |not: Option<usize>| {
        let mut leader = None;
        double.wait_until("another leader", |_| {
            let row = talosctl.rows(0, &["etcd", "status"]).remove(0);
            leader = ids.iter().position(|id| row.iter().skip(2).any(|word| word == id)).filter(|at| Some(*at) != not);
            leader.is_some()
        });
        leader.unwrap()
    };
    let first = leader_but(None);
    let said = talosctl.ok(first, &["etcd", "forfeit-leadership"]);
    let next = leader_but(Some(first));
    assert!(said.is_empty() || said.contains(double.hostname(next)), "{said}");

    talosctl.patiently(2, &["etcd", "leave"]);
    talosctl.wait_for_names(&["cp-1", "cp-2"]);
    let unknown = talosctl.run("admin", 0, &["etcd", "remove-member", "0000000000000001"]).exit(1);
    assert!(unknown.err().contains("NotFound"), "{unknown}");
    talosctl.patiently(0, &["etcd", "remove-member", &ids[1]]);
    talosctl.wait_for_names(&["cp-1"]);
}
