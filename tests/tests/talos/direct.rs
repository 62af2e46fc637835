//! `talos.direct`: etcd itself is asked, with a certificate made from the machine config; and the machine configs beside a backup.

use std::io::Read;

use talos_double::Options;

use crate::common::{Talos, error};

#[test]
fn etcd_itself_is_asked_for_what_talos_does_not_pass_on() {
    let Some(talos) = Talos::start(Options::default().control_planes(3)) else { return };
    talos.fill(11);
    // Recorded over Talos first: the same lineage goes on when the cluster's id gets known.
    drop(talos.backup_cmd("etcd-backup").run().ok());
    let done = talos.backup_cmd("admin").args(["--talos-direct", "-o", "json"]).run().ok();
    let manifest = &done.json()["backups"][0]["manifest"];
    assert_eq!((&manifest["source"], &manifest["hashkv"]["verdict"]), (&"direct".into(), &"match".into()), "{done}");
    assert_eq!(manifest["hashkv"]["answers"].as_array().unwrap().len(), 3, "{done}");
    assert!(manifest["cluster_id"].is_string() && manifest["lineage_check"] == "compared", "{done}");

    let hashes = talos.etcd(&["hashkv", "--talos-direct", "-o", "json"]).run().ok().json();
    assert_eq!(hashes["members"].as_array().unwrap().len(), 3, "{hashes}");
    for words in [&["hashkv"][..], &["promote", "cp-2", "--yes"], &["add-member", "https://127.9.9.9:2380", "--learner", "--yes"]] {
        let refused = talos.etcd(words).args(["-o", "json"]).run().exit(2);
        let error = error(&refused);
        assert!(error["cause"].as_str().unwrap().contains("talos.direct"), "{refused}");
    }
    // A node that is named is the one that is asked, over etcd's own API as well.
    for node in talos.double.control_planes() {
        let file = talos.job.dir().join(format!("of-{node}.db"));
        let saved = talos.etcd(&["snapshot", "--talos-direct", "-n", &talos.ip(node)]).arg(&file).run().ok();
        assert!(saved.err().contains(&format!("from https://{}:2379", talos.ip(node))), "{saved}");
    }
    drop(talos.etcd(&["snapshot", "--talos-direct", "-n", "127.1.2.3", "never.db"]).run().exit(30));
    // Another role than os:admin is not given the authority's key.
    let refused = talos.etcd_as("operator", &["hashkv", "--talos-direct", "-o", "json"]).run().exit(1);
    assert!(error(&refused)["cause"].as_str().unwrap().contains("os:admin"), "{refused}");
}

#[test]
fn machine_configs_are_kept_byte_for_byte_or_said_to_be_missing() {
    let Some(talos) = Talos::start(Options::default().workers(1)) else { return };
    let done = talos.backup_cmd("admin").args(["--extra", "machine-config", "-o", "json"]).run().ok();
    let manifest = &done.json()["backups"][0]["manifest"];
    let secrets = manifest["secrets"].as_object().unwrap();
    for name in ["cluster-id", "cluster-secret", "etcd-ca-key", "os-ca-key", "secretbox-encryption-secret"] {
        assert_eq!(secrets[name].as_str().unwrap().len(), 64, "{name}: {done}");
    }
    let id = manifest["id"].as_str().unwrap();
    let sealed = talos.job.repository().join("prod/snapshots").join(id).join("extra/machine-config.age");
    let Some(opened) = open(&sealed, &talos.job.identity()) else { return };
    let mut archive = tar_entries(&opened);
    archive.sort();
    let names: Vec<&str> = archive.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["machine-config/cp-1.yaml", "machine-config/worker-1.yaml"]);
    let control_plane = String::from_utf8(archive[0].1.clone()).unwrap();
    assert!(control_plane.starts_with("version: v1alpha1\n") && control_plane.contains("kind: HostnameConfig"), "every document is there");
    assert!(!String::from_utf8_lossy(&std::fs::read(&sealed).unwrap()).contains("v1alpha1"), "and none of it is readable");

    // The same secrets have the same fingerprints; a role that may not read them costs a warning, and the backup is kept.
    let again = talos.backup_cmd("admin").args(["--extra", "machine-config", "-o", "json"]).run().ok().json();
    assert_eq!(again["backups"][0]["manifest"]["secrets"], manifest["secrets"]);
    let without = talos.backup_cmd("etcd-backup").args(["--extra", "machine-config", "-o", "json"]).run().exit(3);
    let report = without.json();
    assert!(report["warnings"][0].as_str().unwrap().contains("os:admin"), "{without}");
    assert!(report["backups"][0]["manifest"]["secrets"].is_null(), "{without}");
    // A worker that is down is named.
    talos.double.set_up(1, false);
    let partly = talos.backup_cmd("admin").args(["--extra", "machine-config", "-o", "json"]).run().exit(3);
    assert!(partly.json()["warnings"].to_string().contains("worker-1"), "{partly}");
}

/// As a person without Lifeboat would: `age -d`.
fn open(sealed: &std::path::Path, identity: &std::path::Path) -> Option<Vec<u8>> {
    let Some(age) = lifeboat_tests::peer("age") else {
        lifeboat_tests::peers::skipped("machine_configs_are_kept: no age");
        return None;
    };
    let out = std::process::Command::new(&age.path).arg("-d").arg("-i").arg(identity).arg(sealed).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Some(out.stdout)
}

fn tar_entries(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(bytes);
    let entry = |entry: Result<tar::Entry<'_, &[u8]>, std::io::Error>| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        assert!(entry.read_to_end(&mut content).unwrap() > 0);
        (entry.path().unwrap().display().to_string(), content)
    };
    archive.entries().unwrap().map(entry).collect()
}
