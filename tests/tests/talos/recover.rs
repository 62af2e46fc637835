//! `recover talos`: from a healthy cluster to each disaster and back, with what etcd holds compared.

use std::time::Duration;

use etcd_api::{Client, KeyRange, PutRequest, RangeRequest};
use lifeboat_tests::matrix::block_on;
use lifeboat_tests::{Dump, Finished, Run, Workload, dump_all};
use serde_json::Value;
use talos_double::{Failure, Options, Profile};

use crate::common::Talos;

/// How long a step of a recovery may stand still in these tests.
const PATIENCE: &str = "90s";
/// Time for one HashKV.
const HASH: Duration = Duration::from_secs(30);

impl Talos {
    /// `recover talos …` as administrator, with journals of its own.
    pub(crate) fn recover(&self, words: &[&str]) -> Run {
        let run = self.job.lifeboat.cmd(["recover", "talos"].iter().chain(words)).args(self.flags("admin"));
        let run = run.env("LIFEBOAT_STATE_DIR", self.job.dir().join("state")).timeout(Duration::from_secs(600));
        if words.contains(&"--replace") { run } else { run.args(["--repo", self.job.url(), "--cluster", "prod"]) }
    }

    /// With consent, the key, and patience for tests.
    pub(crate) fn recovering(&self, words: &[&str]) -> Run {
        let run = self.recover(words).args(["--patience", PATIENCE, "-o", "json"]);
        if words.contains(&"--replace") {
            return run.args(["--confirm", "admin"]);
        }
        run.arg("-i").arg(self.job.identity()).args(["--confirm", "prod"])
    }

    /// What etcd on a node holds.
    pub(crate) fn dump(&self, node: usize) -> Dump {
        block_on(async { dump_all(&self.double.etcd_client(node).await.unwrap()).await })
    }

    /// A backup of what is there now, and that.
    pub(crate) fn backed_up(&self) -> Dump {
        drop(self.backup_cmd("admin").run().ok());
        self.dump(0)
    }

    /// What is written after the backup, and so lost with it.
    pub(crate) fn write_more(&self) {
        block_on(async {
            let client = self.double.etcd_client(0).await.unwrap();
            Workload::small(99).apply(&client).await;
        });
    }

    /// Every control plane node is a voting member that works; what they hold is `before`, moved on; and they agree after one more write.
    pub(crate) fn assert_back(&self, before: &Dump, nodes: &[usize]) {
        for node in nodes {
            self.double.wait_healthy(*node);
            before.assert_same_live(&self.dump(*node));
        }
        block_on(async {
            let first = self.double.etcd_client(nodes[0]).await.unwrap();
            let put = first.put(PutRequest::new("/after/the/recovery", "written")).await.unwrap();
            assert!(put.header.revision.0 > before.revision + 1_000_000_000, "{}", put.header.revision);
            let mut hashes = Vec::new();
            for node in nodes {
                let client = self.double.etcd_client(*node).await.unwrap();
                client.linearizable_read().await.unwrap();
                let hash = client.hash_kv(Some(put.header.revision), HASH).await.unwrap();
                hashes.push((hash.hash, hash.compact_revision));
            }
            assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
            self.assert_offline(&first, hashes[0].0).await;
        });
        let members = self.members();
        assert!(members.len() == nodes.len() && members.iter().all(|(_, _, answers)| *answers), "{members:?}");
    }

    /// The value that members give is the one that a fresh snapshot has, computed offline.
    async fn assert_offline(&self, client: &Client, live: u32) {
        let file = self.job.dir().join("after.db");
        let file_text = file.to_str().unwrap().to_owned();
        drop(self.etcd(&["snapshot", &file_text]).run().ok());
        drop(client.range(RangeRequest::new(KeyRange::single("/after/the/recovery"))).await.unwrap());
        let shown = self.job.lifeboat.cmd(["etcd", "hashkv", &file_text, "-o", "json"]).run().ok().json();
        assert_eq!(shown["hash"].as_u64().unwrap_or_default(), u64::from(live), "{shown}");
        std::fs::remove_file(&file).unwrap();
    }

    /// How often nodes were wiped.
    pub(crate) fn resets(&self) -> usize {
        self.double.count("Reset")
    }
}

/// The report of a recovery that came to its end.
fn recovered(done: Finished) -> Value {
    let report = done.ok().json();
    assert!(report["done"] == true && report["result"]["alarms"] == 0, "{report}");
    report
}

#[test]
fn three_nodes_that_lost_everything_come_back_from_the_backup() {
    let Some(talos) = Talos::start(Options::default().control_planes(3).workers(1)) else { return };
    talos.fill(41);
    drop(talos.backup_cmd("admin").args(["--extra", "machine-config"]).run().ok());
    let before = talos.dump(0);
    talos.write_more();
    talos.wipe_data(talos.double.control_planes());
    let found = talos.recover(&["-o", "json"]).run().ok().json();
    assert_eq!((&found["state"], found["nodes"].as_array().unwrap().len()), (&"lost".into(), 3), "{found}");
    assert!(found["ways"][0]["command"].as_str().unwrap().starts_with("lifeboat recover talos "), "{found}");
    let planned = talos.recover(&["latest", "--dry-run", "-o", "json"]).arg("-i").arg(talos.job.identity()).run().ok().json();
    let secrets = planned["checks"].as_array().unwrap().iter().find(|check| check["check"] == "secrets").unwrap();
    assert!(secrets["verdict"] == "passed" && secrets["says"].as_str().unwrap().contains("3 node(s)"), "{planned}");
    // Without consent nothing is begun.
    let unasked = talos.recover(&["latest"]).arg("-i").arg(talos.job.identity()).run().exit(2);
    assert!(unasked.err().contains("--confirm prod") && talos.resets() == 0, "{unasked}");
    drop(talos.recover(&["latest", "--confirm", "other"]).arg("-i").arg(talos.job.identity()).run().exit(2));

    let report = recovered(talos.recovering(&["latest"]).run());
    let steps: Vec<&str> = report["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    let would: Vec<&str> = planned["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(steps, would, "the plan is what was done");
    assert!(report["afterwards"].to_string().contains("service kubelet restart"), "{report}");
    assert_eq!(talos.resets(), 0, "nodes that are empty are not wiped");
    assert!(talos.double.calls().iter().all(|call| call.nodes_metadata.is_empty()));
    talos.assert_back(&before, &[0, 1, 2]);
    let upload = report["directory"].as_str().unwrap();
    assert!(!std::path::Path::new(upload).join("upload.db").exists(), "nothing lies about in the clear but what was rescued");
    // Run again it does no harm: there is a quorum.
    let again = talos.recovering(&["latest"]).run().exit(1);
    assert!(again.err().contains("quorum"), "{again}");
    // And the next backup is one of a restored cluster that is known.
    drop(talos.backup_cmd("admin").run().ok());
}

#[test]
fn a_survivor_that_still_serves_old_data_is_rescued_and_wiped() {
    let Some(talos) = Talos::start(Options::default().control_planes(3)) else { return };
    talos.fill(42);
    let before = talos.backed_up();
    talos.write_more();
    let last = talos.dump(0);
    // The majority is gone: two disks, and the third serves on without a quorum.
    talos.wipe_data([1, 2]);
    let found = talos.recover(&["-o", "json"]).run().ok().json();
    assert_eq!(found["state"], "no-quorum", "{found}");
    assert!(found["ways"][0]["command"].as_str().unwrap().contains("--from-node cp-1"), "what loses least comes first: {found}");
    let report = recovered(talos.recovering(&["latest", "-r", talos.job.recipient()]).run());
    let rescued = &report["rescued"][0];
    let kept = talos.job.cmd("show").arg(rescued["backup"].as_str().unwrap()).args(["-o", "json"]).run().ok();
    assert!(kept.out().contains("rescue"), "{kept}");
    assert!(rescued["node"] == "cp-1" && rescued["clean"] == true && rescued["sound"] == true, "{report}");
    assert!(rescued["revision"].as_i64().unwrap() >= last.revision, "{report}");
    talos.assert_back(&before, &[0, 1, 2]);
    let file = rescued["file"].as_str().unwrap();
    let status = talos.job.lifeboat.cmd(["snapshot", "status", file]).run().ok();
    assert!(!status.out().is_empty(), "{status}");
}

#[test]
fn what_a_survivor_holds_is_what_comes_back() {
    let Some(talos) = Talos::start(Options::default().control_planes(3)) else { return };
    talos.fill(43);
    talos.write_more();
    let last = talos.dump(0);
    // Both at once: as long as two work, one that was wiped joins them again.
    talos.double.kill_etcd(2);
    talos.double.wipe_data(1);
    // A disk that was damaged: its etcd does not start, and its file is no database any more.
    talos.double.damage_data(2);
    let damaged = talos.recovering(&["--from-node", "cp-3"]).run().exit(20);
    assert!(damaged.err().contains("not sound") && talos.resets() == 0, "{damaged}");
    let report = recovered(talos.recovering(&["--from-node", "cp-1"]).run());
    let kept: Vec<bool> = report["rescued"].as_array().unwrap().iter().map(|rescued| rescued["sound"] == true).collect();
    assert_eq!(kept, [true, false], "a damaged file is kept as it is: {report}");
    talos.assert_back(&last, &[0, 1, 2]);
}

#[test]
fn a_stopped_etcd_is_rescued_from_its_file() {
    let Some(talos) = Talos::start(Options::default()) else { return };
    talos.fill(44);
    let before = talos.backed_up();
    talos.double.stop_etcd(0);
    let report = recovered(talos.recovering(&["latest"]).run());
    let rescued = &report["rescued"][0];
    assert!(rescued["clean"] == false && rescued["sound"] == true, "{report}");
    let file = rescued["file"].as_str().unwrap().to_owned();
    assert!(file.ends_with(".dirty.db"), "{file}");
    talos.assert_back(&before, &[0]);
    // A raw copy is taken as a file too, and gets a trailer of its own: the server's check stays on.
    talos.double.wipe_data(0);
    let refused = talos.recovering(&["--file", &file]).run();
    assert_ne!(refused.code(), Some(0), "{refused}");
    drop(recovered(talos.recovering(&["--file", &file, "--recover-skip-hash-check"]).run()));
    talos.assert_back(&before, &[0]);
}

#[test]
fn a_bad_restore_attempt_that_was_left_behind_is_cleared_away() {
    let Some(talos) = Talos::start(Options::default().control_planes(3)) else { return };
    talos.fill(45);
    let before = talos.backed_up();
    talos.wipe_data([1, 2]);
    talos.double.leave_bad_restore(0);
    let found = talos.recover(&["-o", "json"]).run().ok().json();
    assert!(found["nodes"][0]["trouble"].as_str().unwrap().contains("a restore was tried here and failed"), "{found}");
    drop(recovered(talos.recovering(&["latest", "--node", "cp-1"]).run()));
    assert_eq!(talos.resets(), 1, "only what holds data is wiped");
    talos.assert_back(&before, &[0, 1, 2]);
}

#[test]
fn one_node_that_is_gone_is_replaced_while_the_others_go_on() {
    let Some(talos) = Talos::start(Options::default().control_planes(3)) else { return };
    talos.fill(46);
    drop(talos.backup_cmd("admin").run().ok());
    let before = talos.dump(0);
    let old = talos.members();
    talos.double.damage_data(2);
    let found = talos.recover(&["-o", "json"]).run().ok().json();
    assert_eq!(found["state"], "degraded", "{found}");
    assert!(found["ways"][0]["command"].as_str().unwrap().contains("--replace cp-3"), "{found}");
    // Nothing is restored over a living cluster.
    let refused = talos.recovering(&["latest"]).run().exit(1);
    assert!(refused.err().contains("--replace cp-3") && talos.resets() == 0, "{refused}");
    let report = talos.recovering(&["--replace", "cp-3"]).run().ok().json();
    assert!(report["done"] == true, "{report}");
    let members = talos.members();
    assert_eq!(members.len(), 3);
    assert!(members[2].1 != old[2].1 && members[0].1 == old[0].1, "it is another member now: {members:?} {old:?}");
    talos.double.wait_healthy(2);
    before.assert_same_live(&talos.dump(2));
    // One that was powered off is removed, and a machine that comes in its place joins by itself.
    talos.double.set_up(2, false);
    talos.double.kill_etcd(2);
    drop(talos.recovering(&["--replace", "cp-3"]).run().exit(1));
    drop(talos.recovering(&["--replace", "cp-3", "--node-gone", "cp-3"]).run().ok());
    assert_eq!(talos.members().len(), 2);
    talos.double.wipe_data(2);
    talos.double.wait_healthy(2);
    before.assert_same_live(&talos.dump(2));
}

#[test]
fn a_living_cluster_is_rolled_back_only_by_name() {
    let Some(talos) = Talos::start(Options::default().control_planes(3).profile(Profile::V1_14).etcd_partition()) else { return };
    talos.fill(47);
    let before = talos.backed_up();
    drop(talos.double.etcdctl(0, ["del", "", "--prefix"]));
    let report = recovered(talos.recovering(&["latest", "--roll-back"]).run());
    assert_eq!(report["rescued"].as_array().unwrap().len(), 3, "{report}");
    let wipes = report["steps"].to_string();
    assert!(wipes.contains("cp-1 (ETCD)") && !wipes.contains("EPHEMERAL"), "a partition of its own is wiped, and nothing else: {wipes}");
    talos.assert_back(&before, &[0, 1, 2]);
}

#[test]
fn a_node_that_is_powered_off_is_left_out_and_said_to_be() {
    let Some(talos) = Talos::start(Options::default().control_planes(3).virtual_ip()) else { return };
    talos.fill(48);
    let before = talos.backed_up();
    talos.double.kill_etcd(2);
    talos.double.set_up(2, false);
    talos.wipe_data([0, 1]);
    let refused = talos.recovering(&["latest"]).run().exit(1);
    assert!(refused.err().contains("--node-gone cp-3") && talos.double.count("Bootstrap") == 0, "{refused}");
    let report = recovered(talos.recovering(&["latest", "--node-gone", "cp-3"]).run());
    assert!(report["afterwards"].to_string().contains("cp-3: wipe its disk"), "{report}");
    talos.assert_back(&before, &[0, 1]);
}

#[test]
fn a_node_that_is_not_ready_at_first_is_asked_again() {
    let Some(talos) = Talos::start(Options::default()) else { return };
    talos.fill(49);
    let before = talos.backed_up();
    talos.double.switch(0, |switches| {
        let not_yet = |text: &str| (3, Failure::new(9, text));
        switches.fail_first.insert("Bootstrap".to_owned(), not_yet("bootstrap is not available yet"));
        switches.fail_first.insert("EtcdRecover".to_owned(), not_yet("etcd service is not ready for recovery yet"));
        // And a reset that is answered and not carried out.
        switches.ignore_reset = 1;
    });
    drop(recovered(talos.recovering(&["latest", "--roll-back"]).run()));
    assert!(talos.resets() >= 2 && talos.double.count("Bootstrap") >= 4, "{} {}", talos.resets(), talos.double.count("Bootstrap"));
    talos.assert_back(&before, &[0]);
}

#[test]
fn a_learner_that_is_never_promoted_is_told_and_waited_for_again() {
    let Some(talos) = Talos::start(Options::default().control_planes(2)) else { return };
    talos.fill(50);
    let before = talos.backed_up();
    talos.wipe_data([0, 1]);
    talos.double.switch(1, |switches| switches.never_promote = true);
    let stuck =
        talos.recover(&["latest", "--patience", "25s", "-o", "json", "--confirm", "prod"]).arg("-i").arg(talos.job.identity()).run();
    assert_eq!(stuck.code(), Some(1), "{stuck}");
    let error = crate::common::error(&stuck);
    assert!(error["what"].as_str().unwrap().contains("cp-2 is not promoted"), "{stuck}");
    assert!(error["next"].as_str().unwrap().contains("promote cp-2 --talos-direct"), "{stuck}");
    talos.double.switch(1, |switches| switches.never_promote = false);
    drop(recovered(talos.recovering(&["latest"]).run()));
    talos.assert_back(&before, &[0, 1]);
}

/// `restore --snapshot-file --for talos` and `talosctl bootstrap --recover-from`, which uploads, bootstraps, and says nothing more.
#[test]
fn by_hand_it_ends_the_same() {
    let Some(talos) = Talos::start(Options::default()) else { return };
    talos.fill(51);
    let before = talos.backed_up();
    talos.double.wipe_data(0);
    let file = talos.job.dir().join("snapshot.db");
    let restore =
        talos.job.cmd("restore").args(["latest", "--for", "talos", "--snapshot-file"]).arg(&file).arg("-i").arg(talos.job.identity());
    drop(restore.run().ok());
    block_on(async {
        let selection = talos_api::Selection { context: Some("admin".to_owned()), ..talos_api::Selection::default() };
        let access = talos_api::Talosconfig::read(&talos.double.talosconfig()).unwrap().select(&selection).unwrap();
        let client = talos_api::Client::new(&access, talos_api::Options::default());
        let node = client.node(&talos_api::NodeName::parse(&talos.ip(0)).unwrap());
        let mut upload = node.etcd_recover().await.unwrap();
        upload.send(std::fs::read(&file).unwrap().into()).await.unwrap();
        upload.finish().await.unwrap();
        node.bootstrap(true, false).await.unwrap();
    });
    talos.assert_back(&before, &[0]);
}
