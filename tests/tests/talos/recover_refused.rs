//! Wrong uses of `recover talos`: each is refused, and nothing was changed.

use lifeboat_tests::peers::skipped;
use lifeboat_tests::{EtcdVersion, Finished};
use talos_double::{Options, TalosDouble};

use crate::common::{Talos, error};

/// Refused with this code, in words that say why; no node was told anything.
fn assert_refused(talos: &Talos, done: Finished, code: i32, words: &str) {
    let done = done.exit(code);
    let error = error(&done);
    let text = format!("{} {} {}", error["what"], error["cause"], error["next"]);
    assert!(text.contains(words), "{words}: {done}");
    for call in ["Reset", "EtcdRecover", "Bootstrap", "EtcdRemoveMemberByID", "Reboot"] {
        assert_eq!(talos.double.count(call), 0, "{call}: {done}");
    }
    assert!(
        !talos
            .job
            .dir()
            .join("state/journal")
            .read_dir()
            .is_ok_and(|mut journals| { journals.any(|journal| journal.unwrap().file_name().to_string_lossy().ends_with(".jsonl")) })
    );
}

#[test]
fn wrong_backups_nodes_and_roles_are_refused_before_anything_is_changed() {
    let Some(talos) = Talos::start(Options::default().control_planes(2).workers(1).load_balancer()) else { return };
    talos.fill(61);
    drop(talos.backup_cmd("admin").args(["--extra", "machine-config"]).run().ok());
    for node in [0, 1] {
        talos.double.stop_etcd(node);
    }
    let worker = talos.ip(2);
    assert_refused(&talos, talos.recovering(&["latest", "--node", "worker-1"]).run(), 2, "is a worker");
    assert_refused(&talos, talos.recovering(&["latest", "-n", &worker]).run(), 2, "is a worker");
    assert_refused(&talos, talos.recovering(&["latest", "--node", "cp-9"]).run(), 2, "no control plane node is called");
    assert_refused(&talos, talos.recovering(&["nosuch"]).run(), 1, "nosuch");
    assert_refused(&talos, talos.recovering(&["--from-node", "worker-1"]).run(), 2, "holds data");
    assert_refused(&talos, talos.recovering(&["latest", "--node-gone", "cp-2"]).run(), 1, "and it answers");
    assert_refused(&talos, talos.recovering(&["--replace", "cp-2"]).run(), 1, "needed");
    assert_refused(&talos, talos.recovering(&["--file", "/nonexistent.db"]).run(), 1, "no such");

    // An endpoint that is a load balancer: the nodes' own addresses are the next command.
    let balancer = talos.double.load_balancer().to_string();
    let refused = talos.recovering(&["latest", "-e", &balancer]).run();
    assert!(error(&refused)["next"].as_str().unwrap().contains(&format!("-e {},{}", talos.ip(0), talos.ip(1))), "{refused}");
    assert_refused(&talos, refused, 2, "not one node");

    // A role that is too small.
    let state = talos.job.dir().join("state");
    let operator = talos.job.lifeboat.cmd(["recover", "talos", "latest", "--confirm", "prod", "-o", "json"]).args(talos.flags("operator"));
    let operator = operator.args(["--repo", talos.job.url(), "--cluster", "prod"]).arg("-i").arg(talos.job.identity());
    assert_refused(&talos, operator.env("LIFEBOAT_STATE_DIR", &state).run(), 1, "os:admin");
    // A key that opens nothing.
    let keyless = talos.recover(&["latest", "--confirm", "prod", "-o", "json"]);
    assert_refused(&talos, keyless.run(), 12, "");

    // A backup of another cluster: its secrets are others.
    let other = TalosDouble::start(Options::default().control_planes(1));
    let flags = ["--talosconfig".to_owned(), other.talosconfig().display().to_string(), "--context".to_owned(), "admin".to_owned()];
    other.stop_etcd(0);
    let wrong = talos.job.lifeboat.cmd(["recover", "talos", "latest", "--confirm", "prod", "-o", "json"]).args(&flags);
    let wrong = wrong.args(["--repo", talos.job.url(), "--cluster", "prod"]).arg("-i").arg(talos.job.identity());
    assert_refused(&talos, wrong.env("LIFEBOAT_STATE_DIR", &state).run(), 13, "other secrets");
    assert_eq!(other.count("Reset"), 0);

    // A file that was cut, and one that is none.
    let file = talos.job.dir().join("snapshot.db");
    drop(talos.job.cmd("restore").args(["latest", "--snapshot-file"]).arg(&file).arg("-i").arg(talos.job.identity()).run().ok());
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let cut = talos.recovering(&["--file", file.to_str().unwrap()]).run();
    assert!(matches!(cut.code(), Some(1 | 20)), "{cut}");
    let code = cut.code().unwrap();
    assert_refused(&talos, cut, code, "");
    let both = talos.recovering(&["--file", file.to_str().unwrap(), "--recover-skip-hash-check"]).run();
    assert!(matches!(both.code(), Some(1 | 20)), "not even without its digest: {both}");
}

#[test]
fn a_machine_that_cannot_take_it_is_refused() {
    for (options, words) in [
        (Options::default().ephemeral_size(8 << 20), "EPHEMERAL"),
        (Options::default().platform_mode("container"), "container"),
        (Options::default().init_node(), "machine type init"),
        (Options::default().profile(talos_double::Profile::V1_8).advertised(2), "advertisedSubnets"),
    ] {
        let Some(talos) = Talos::start(options) else { return };
        talos.fill(62);
        drop(talos.backup_cmd("admin").run().ok());
        talos.double.stop_etcd(0);
        assert_refused(&talos, talos.recovering(&["latest"]).run(), 1, words);
        if words == "EPHEMERAL" {
            talos.double.switch(0, |switches| switches.clock_ahead = -90_000);
            assert_refused(&talos, talos.recovering(&["latest"]).run(), 1, "clock");
        }
    }
}

#[test]
fn data_of_a_newer_etcd_are_refused() {
    let newer = EtcdVersion::V3_7;
    if !newer.available() || !EtcdVersion::V3_6.available() {
        skipped("recover: a newer etcd is not here");
        return;
    }
    let Some(talos) = Talos::start(Options::default()) else { return };
    let new = TalosDouble::start(Options::default().etcd(newer));
    let flags = ["--talosconfig".to_owned(), new.talosconfig().display().to_string(), "--context".to_owned(), "admin".to_owned()];
    drop(talos.job.backup_cmd(&flags).run().ok());
    drop(new);
    talos.double.stop_etcd(0);
    assert_refused(&talos, talos.recovering(&["latest", "--foreign"]).run(), 1, "which is older");
}
