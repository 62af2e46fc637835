//! Backups that no age key opens: sealed with a passphrase, or to a plugin's recipient. Every verb opens them, and so does `age` itself.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use lifeboat_tests::{EtcdCluster, EtcdVersion, Job, Run, at_terminal, matrix, peer, peers};

const PASSPHRASE: &str = "correct horse battery staple";

/// A file in the test's directory.
fn file(job: &Job, name: &str, content: &str) -> PathBuf {
    let path = job.dir().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

/// `backup` without the recipient that the harness would name.
fn backup(job: &Job, cluster: &EtcdCluster) -> Run {
    job.cmd("backup").args(["--spool-reserve", "0", "--spool-dir"]).arg(job.dir().join("spool")).args(cluster.client_flags())
}

/// The snapshot as Lifeboat writes it to a file, opened by `how`.
fn restored(job: &Job, name: &str, how: impl FnOnce(Run) -> Run) -> Vec<u8> {
    let target = job.dir().join(name);
    let run = job.cmd("restore").args(["latest", "--no-bump", "--snapshot-file"]).arg(&target);
    drop(how(run).run().ok());
    std::fs::read(target).unwrap()
}

/// The snapshot object of the newest backup.
fn stored(job: &Job) -> PathBuf {
    let id = job.list()[0]["id"].as_str().unwrap().to_owned();
    job.repository().join("prod/snapshots").join(id).join("db.zst.age")
}

/// Every way to say the passphrase, every verb that opens a backup, and the real `age`.
#[test]
fn a_passphrase_opens_what_it_sealed() {
    matrix::each("a_passphrase_opens_what_it_sealed", &[EtcdVersion::V3_6], |etcd| {
        let job = Job::new();
        let cluster = EtcdCluster::single(etcd);
        drop(cluster.etcdctl(["put", "a", "1"]));
        let secret = file(&job, "passphrase.txt", &format!("{PASSPHRASE}\n"));
        let extra = file(&job, "pki.txt", "a key that must not be lost");
        let report = backup(&job, &cluster).arg("--passphrase-file").arg(&secret).arg("--extra").arg(&extra).run().ok();
        assert!(report.out().contains("sealed   with a passphrase") && report.out().contains("--passphrase --data-dir"), "{report}");
        let manifest = job.cmd("show").args(["latest", "--json"]).run().ok().json();
        assert_eq!(manifest.pointer("/manifest/sealing/passphrase").unwrap(), true, "{manifest}");
        assert_eq!(manifest.pointer("/manifest/sealing/recipients").unwrap().as_array().unwrap().len(), 0);

        let by_file = restored(&job, "by-file.db", |run| run.arg("--passphrase-file").arg(&secret));
        let by_command = restored(&job, "by-command.db", |run| run.args(["--passphrase-command", &format!("printf '{PASSPHRASE}'")]));
        let by_environment = restored(&job, "by-environment.db", |run| run.env("LIFEBOAT_PASSPHRASE_FILE", &secret));
        assert!(by_file == by_command && by_file == by_environment && by_file.len() > 16 << 10);

        let deep = job.cmd("verify").args(["latest", "--deep", "--json", "--passphrase-file"]).arg(&secret).run().ok().json();
        assert_eq!(deep.pointer("/backups/0/reached").unwrap(), "deep", "{deep}");
        let check = job.lifeboat.cmd(["key", "check", "--json", "--repo", job.url(), "--passphrase-file"]).arg(&secret).run().ok().json();
        assert_eq!(check.pointer("/clusters/0/sealed/0/opened").and_then(|word| word.as_str()), Some("yes"), "{check}");
        let etcdctl = etcd.etcdctl();
        let tried = job.cmd("try").arg("--etcd").arg(etcd.etcd()).arg("--dir").arg(job.dir().join("scratch"));
        let tried = tried.arg("--passphrase-file").arg(&secret).arg("--").arg(etcdctl).args(["get", "a"]).run().ok();
        assert_eq!(tried.out().trim(), "a\n1", "{tried}");

        if let Some(age) = peer("age") {
            opened_by_age(&job, &age.path, &by_file);
        } else {
            peers::skipped("a_passphrase_opens_what_it_sealed: no age");
        }
    });
}

/// `age` asks at a terminal only, so it gets one.
fn opened_by_age(job: &Job, age: &Path, snapshot: &[u8]) {
    let Some(zstd) = peer("zstd") else { return peers::skipped("a_passphrase_opens_what_it_sealed: no zstd") };
    let (compressed, plain, tar) = (job.dir().join("db.zst"), job.dir().join("db"), job.dir().join("extra.tar"));
    let open = |sealed: &Path, target: &Path| {
        let command = [age, Path::new("-d"), Path::new("-o"), target, sealed].map(|word| word.display().to_string());
        let ended = at_terminal(&command, &[("assphrase", &format!("{PASSPHRASE}\n"))]);
        ended.inspect(|(code, shown)| assert_eq!(*code, Some(0), "{shown}")).is_some()
    };
    let snapshot_object = stored(job);
    if !open(&snapshot_object, &compressed) {
        return peers::skipped("a_passphrase_opens_what_it_sealed: no setsid(1) to give age a terminal");
    }
    drop(Run::new(&zstd.path).args(["-q", "-d", "-o"]).arg(&plain).arg(&compressed).run().ok());
    assert_eq!(std::fs::read(plain).unwrap(), snapshot);
    let extras: Vec<_> = std::fs::read_dir(snapshot_object.with_file_name("extra")).unwrap().collect();
    assert_eq!(extras.len(), 1);
    assert!(open(&extras[0].as_ref().unwrap().path(), &tar));
    assert!(std::fs::read(tar).unwrap().windows(27).any(|part| part == b"a key that must not be lost"));
}

/// Without the passphrase nothing is opened, and what is said leads to it; what cannot be a passphrase is refused before anything is done.
#[test]
fn without_the_passphrase_nothing_is_opened() {
    matrix::each("without_the_passphrase_nothing_is_opened", &[EtcdVersion::V3_6], |etcd| {
        let job = Job::new();
        let cluster = EtcdCluster::single(etcd);
        let secret = file(&job, "passphrase.txt", PASSPHRASE);
        let wrong = file(&job, "wrong.txt", "correct horse");
        let seal = || backup(&job, &cluster).arg("--passphrase-file").arg(&secret);
        for recipients in [["--recipient", job.recipient()], ["--recipients-file", secret.to_str().unwrap()]] {
            let both = seal().args(recipients).run().exit(2);
            assert!(both.err().contains("either to recipients or with a passphrase"), "{both}");
        }
        for (name, content) in [("empty", "\n"), ("lines", "one\ntwo\n"), ("long", &"x".repeat(5000))] {
            let bad = file(&job, name, content);
            drop(backup(&job, &cluster).arg("--passphrase-file").arg(bad).run().exit(2));
        }
        let failing = backup(&job, &cluster).args(["--passphrase-command", "echo geheim; exit 3"]).run().exit(2);
        assert!(failing.err().contains("exit status: 3") && !failing.err().contains("geheim\n"), "{failing}");
        let nobody = backup(&job, &cluster).arg("-p").run().exit(2);
        assert!(nobody.err().contains("--passphrase-file passphrase.txt"), "{nobody}");
        assert!(!job.repository().exists(), "nothing was done");

        drop(seal().run().ok());
        let target = || job.dir().join("snapshot.db");
        let restore = || job.cmd("restore").args(["latest", "--snapshot-file"]).arg(target());
        let verify = || job.cmd("verify").args(["latest", "--deep"]);
        for run in [restore(), verify()] {
            let refused = run.run().exit(12);
            assert!(refused.err().contains("sealed with a passphrase") && refused.err().contains("--passphrase\n"), "{refused}");
        }
        for run in [restore(), verify()] {
            let refused = run.arg("--passphrase-file").arg(&wrong).run().exit(12);
            assert!(refused.err().contains("sealed with a passphrase"), "{refused}");
        }
        for run in [restore(), verify()] {
            drop(run.arg("-i").arg(job.identity()).run().exit(12));
        }
        assert!(!target().exists());
        // No key is needed to look at it, and nobody is asked for one.
        drop(job.cmd("verify").args(["latest", "--read", "-p"]).run().ok());
    });
}

/// At a terminal it is asked for, without being shown; before it seals, twice.
#[test]
fn a_passphrase_is_asked_for_at_a_terminal() {
    matrix::each("a_passphrase_is_asked_for_at_a_terminal", &[EtcdVersion::V3_6], |etcd| {
        let job = Job::new();
        let cluster = EtcdCluster::single(etcd);
        let target = job.dir().join("snapshot.db");
        let spool = job.dir().join("spool").display().to_string();
        let command = |verb: &[&str]| -> Vec<String> {
            let program = job.lifeboat.path().display().to_string();
            let more = ["-p", "--repo", job.url(), "--cluster", "prod"];
            let words = verb.iter().chain(&more);
            std::iter::once(program).chain(words.map(|word| (*word).to_owned())).collect()
        };
        let mut backup = command(&["backup", "--spool-reserve", "0", "--spool-dir", &spool]);
        backup.extend(cluster.client_flags());
        let restore = command(&["restore", "latest", "--snapshot-file", &target.display().to_string()]);
        let Some((code, shown)) = at_terminal(&backup, &[("Passphrase: ", "one\n"), ("again: ", "two\n")]) else {
            return peers::skipped("a_passphrase_is_asked_for_at_a_terminal: no setsid(1) to make one");
        };
        assert!(code == Some(2) && shown.contains("not the same"), "{shown}");
        assert!(!job.repository().exists());
        for (command, answers, expected) in [
            (&backup, &[("Passphrase: ", "geheim\n"), ("again: ", "geheim\n")][..], 0),
            (&restore, &[("Passphrase: ", "gehei\u{3}")], 130),
            (&restore, &[("Passphrase: ", "geheim\n")], 0),
        ] {
            let (code, shown) = at_terminal(command, answers).unwrap();
            assert_eq!(code, Some(expected), "{shown}");
            assert!(!shown.contains("gehei"), "{shown}");
            assert_eq!(target.exists(), expected == 0 && command == &restore, "{shown}");
        }
    });
}

/// The recipient and the identity of the plugin below (bech32, as the age format writes them).
const PLUGIN_RECIPIENT: &str = "age1test1d35kvetzdashgtcdtan";
const PLUGIN_IDENTITY: &str = "AGE-PLUGIN-TEST-1M7420Z";

/// A plugin of the age plugin protocol in sh. Its key is no secret: the stanza holds the file key as it is.
const PLUGIN: &str = r#"#!/bin/sh
say() { printf -- '%s\n%s\n' "$1" "$2"; read -r answer; read -r _; }
keys=
while read -r line; do
    case "$line" in
        "-> wrap-file-key") read -r body; keys="$keys $body" ;;
        "-> recipient-stanza "*" test-stanza") read -r body; keys="$keys $body" ;;
        "-> done") read -r _; break ;;
    esac
done
case "$1" in
    --age-plugin=recipient-v1) for key in $keys; do say "-> recipient-stanza 0 test-stanza" "$key"; done ;;
    --age-plugin=identity-v1)
        say "-> msg" "dG91Y2ggdGhlIGtleQ"
        for key in $keys; do say "-> file-key 0" "$key"; done ;;
esac
printf -- '-> done\n\n'
"#;

/// A backup is sealed to a plugin's recipient and opened by its identity, as `age` does it; what the plugin says reaches the person.
#[test]
fn a_plugin_seals_and_opens() {
    matrix::each("a_plugin_seals_and_opens", &[EtcdVersion::V3_6], |etcd| {
        let job = Job::new();
        let cluster = EtcdCluster::single(etcd);
        let bin = job.dir().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let plugin = bin.join("age-plugin-test");
        std::fs::write(&plugin, PLUGIN).unwrap();
        std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let identity = file(&job, "plugin.txt", PLUGIN_IDENTITY);

        let missing = backup(&job, &cluster).args(["-r", PLUGIN_RECIPIENT]).run();
        assert!(missing.code() != Some(0) && missing.err().contains("age-plugin-test"), "{missing}");
        // Beside a plain recipient: both open it.
        drop(backup(&job, &cluster).args(["-r", PLUGIN_RECIPIENT, "-r", job.recipient()]).env("PATH", &path).run().ok());
        let opened = job.cmd("verify").args(["latest", "--deep", "-i"]).arg(&identity).env("PATH", &path).run().ok();
        assert!(opened.err().contains("touch the key"), "{opened}");
        let by_plugin = restored(&job, "by-plugin.db", |run| run.arg("-i").arg(&identity).env("PATH", &path));
        let by_key = restored(&job, "by-key.db", |run| run.arg("-i").arg(job.identity()));
        assert!(by_plugin == by_key && by_key.len() > 16 << 10);
        let without = job.cmd("verify").args(["latest", "--deep", "-i"]).arg(&identity).run();
        assert!(without.code() != Some(0) && without.err().contains("age-plugin-test"), "{without}");

        let (Some(age), Some(zstd)) = (peer("age"), peer("zstd")) else {
            return peers::skipped("a_plugin_seals_and_opens: no age or zstd");
        };
        let (compressed, plain) = (job.dir().join("db.zst"), job.dir().join("db"));
        drop(
            Run::new(&age.path)
                .args(["-d", "-i"])
                .arg(&identity)
                .arg("-o")
                .arg(&compressed)
                .arg(stored(&job))
                .env("PATH", &path)
                .run()
                .ok(),
        );
        drop(Run::new(&zstd.path).args(["-q", "-d", "-o"]).arg(&plain).arg(&compressed).run().ok());
        assert_eq!(std::fs::read(plain).unwrap(), by_key);
    });
}
