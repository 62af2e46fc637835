//! From a talosconfig to the first backup, and what is said of a talosconfig that will not do.

use lifeboat_tests::at_terminal;
use lifeboat_tests::peers::skipped;
use talos_double::Options;

use crate::common::{Talos, error};

#[test]
fn init_understands_a_talosconfig_and_the_backup_follows() {
    let Some(talos) = Talos::start(Options::default().control_planes(3)) else { return };
    let config = talos.job.dir().join("lifeboat.yaml");
    let store = format!("file://{}", talos.job.dir().join("store").display());
    let init = talos
        .job
        .lifeboat
        .cmd(["init", "--repo", &store, "--extra", "machine-config", "--config"])
        .arg(&config)
        .args(["--recipient", talos.job.recipient()])
        .args(talos.flags("admin"))
        .run()
        .ok();
    assert!(init.out().contains("Talos context 'admin'") && init.out().contains("'admin'"), "{init}");
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(text.contains("talos:\n") && text.contains("context: \"admin\"") && text.contains("extra: [\"machine-config\"]"), "{text}");
    let spool = talos.job.dir().join("spool");
    let backup =
        talos.job.lifeboat.cmd(["backup", "--config"]).arg(&config).args(["--spool-reserve", "0", "--spool-dir"]).arg(&spool).run().ok();
    assert!(backup.out().contains("not-offered"), "{backup}");
    let checked = talos.job.lifeboat.cmd(["config", "check", "--config"]).arg(&config).run().ok();
    assert!(!checked.out().contains("warning"), "{checked}");
    std::fs::write(&config, text.replace("context: \"admin\"", "context: \"gone\"")).unwrap();
    let checked = talos.job.lifeboat.cmd(["config", "check", "--config"]).arg(&config).run().ok();
    assert!(checked.out().contains("gone") && checked.out().contains("etcd-backup"), "the contexts that are there: {checked}");
    std::fs::write(&config, &text).unwrap();
    // Care needs no more than the configuration, and a flag beats it.
    let members = talos.job.lifeboat.cmd(["etcd", "members", "--config"]).arg(&config).run().ok();
    assert!(members.out().contains("cp-3"), "{members}");
    // Consent is to the cluster that the flags lead to, not to the one that is configured.
    let other = ["etcd", "remove-member", "cp-3", "--context", "operator", "--confirm", "admin", "-o", "json", "--config"];
    let refused = talos.job.lifeboat.cmd(other).arg(&config).run().exit(2);
    assert!(error(&refused)["cause"].as_str().unwrap().contains("operator"), "{refused}");
    let elsewhere = talos
        .job
        .lifeboat
        .cmd(["etcd", "members", "--config"])
        .arg(&config)
        .args(["--cacert", "/x", "--endpoints", "https://127.0.0.1:1"])
        .run()
        .exit(2);
    assert!(elsewhere.err().contains("/x"), "etcd's own flags mean etcd: {elsewhere}");
}

#[test]
fn an_administrator_is_asked_once_whether_machine_configs_are_kept() {
    let Some(talos) = Talos::start(Options::default()) else { return };
    let (config, store) = (talos.job.dir().join("asked.yaml"), format!("file://{}", talos.job.dir().join("asked").display()));
    let command = |context: &str, config: &std::path::Path| {
        let words = ["init", "--repo", &store, "--cluster", "edge", "--recipient", talos.job.recipient(), "--config"];
        let mut command = vec![talos.job.lifeboat.path().display().to_string()];
        command.extend(words.map(str::to_owned));
        command.push(config.display().to_string());
        command.extend(talos.flags(context));
        command
    };
    let Some((code, shown)) = at_terminal(&command("admin", &config), &[("machine config", "\n")]) else {
        return skipped("an_administrator_is_asked: no setsid(1) to make a terminal");
    };
    assert_eq!(code, Some(0), "{shown}");
    assert!(std::fs::read_to_string(&config).unwrap().contains("extra: [\"machine-config\"]"), "{shown}");
    // Who could not read them is not asked, and told that none are kept.
    let other = talos.job.dir().join("other.yaml");
    let (code, shown) = at_terminal(&command("etcd-backup", &other), &[]).unwrap();
    assert!(code == Some(0) && shown.contains("no machine config is kept"), "{shown}");
    let text = std::fs::read_to_string(&other).unwrap();
    assert!(text.contains("# extra: [machine-config]") && text.contains("context: \"etcd-backup\""), "{text}");
}

#[test]
fn flags_and_environment_that_name_two_clusters_are_refused() {
    let Some(talos) = Talos::start(Options::default()) else { return };
    let lifeboat = &talos.job.lifeboat;
    let file = talos.double.talosconfig();
    let both = lifeboat.cmd(["etcd", "members", "--cacert", "/x", "--talosconfig"]).arg(&file).args(["-o", "json"]).run().exit(2);
    assert!(error(&both)["what"].as_str().unwrap().contains("both"), "{both}");
    let environment = lifeboat.cmd(["etcd", "members"]).env("TALOSCONFIG", &file).env("ETCDCTL_ENDPOINTS", "127.0.0.1:1").run().exit(2);
    assert!(environment.err().contains("--talosconfig") && environment.err().contains("--endpoints"), "each with its flag: {environment}");
    // Either alone is enough, and a flag settles it.
    for run in [
        lifeboat.cmd(["etcd", "members"]).env("TALOSCONFIG", &file),
        lifeboat.cmd(["etcd", "members"]).env("ETCDCTL_ENDPOINTS", "127.0.0.1:1").args(["--talosconfig"]).arg(&file),
    ] {
        assert!(run.run().ok().out().contains("cp-1"));
    }
    let home = lifeboat.home().join(".talos");
    std::fs::create_dir_all(&home).unwrap();
    std::fs::copy(&file, home.join("config")).unwrap();
    let found = lifeboat.cmd(["etcd", "members"]).run().ok();
    assert!(found.err().contains("source: Talos") && found.out().contains("cp-1"), "{found}");
}

#[test]
fn a_talosconfig_that_will_not_do_is_told_before_anything_is_asked() {
    let Some(talos) = Talos::start(Options::default().control_planes(2).virtual_ip()) else { return };
    let lifeboat = &talos.job.lifeboat;
    let members = |file: &std::path::Path| lifeboat.cmd(["etcd", "members", "-o", "json", "--talosconfig"]).arg(file);
    let expired = members(&talos.double.expired_talosconfig()).run().exit(2);
    assert!(error(&expired)["what"].as_str().unwrap().contains("expired"), "{expired}");
    assert_eq!(talos.double.calls().len(), 0, "nothing was asked with it");
    let missing = members(&talos.job.dir().join("nowhere")).run().exit(2);
    assert!(error(&missing)["cause"].as_str().unwrap().contains("nowhere"), "{missing}");
    let context = members(&talos.double.talosconfig()).args(["--context", "gone"]).run().exit(2);
    assert!(error(&context)["cause"].as_str().unwrap().contains("etcd-backup"), "the contexts there are: {context}");
    // A virtual address among the endpoints works today, and is told.
    let shown = lifeboat.cmd(["etcd", "members", "--talosconfig"]).arg(talos.double.talosconfig()).run().ok();
    assert!(shown.err().contains("is not one node") && shown.err().contains(&talos.double.virtual_ip().unwrap().to_string()), "{shown}");
}

#[test]
fn a_service_accounts_talosconfig_names_no_node_and_is_enough() {
    let Some(talos) = Talos::start(Options::default().control_planes(3)) else { return };
    talos.fill(2);
    let endpoint = talos.ip(1);
    let file = talos.double.talosconfig_for(&["os:etcd:backup"], &[&endpoint], &[]);
    let flags = vec!["--talosconfig".to_owned(), file.display().to_string()];
    let done = talos.job.backup_cmd(&flags).args(["-o", "json"]).run().ok();
    assert!(done.err().contains("3 of 3 members answer"), "the member list leads to the others: {done}");
    // Read anew on every run: what is there now counts, six hours later another certificate.
    std::fs::copy(talos.double.expired_talosconfig(), &file).unwrap();
    drop(talos.job.backup_cmd(&flags).run().exit(2));
}
