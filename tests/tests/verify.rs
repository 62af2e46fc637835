//! `verify`, `show` and `lineage` on real repositories of real clusters (design parts 4, 6 and 10).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use etcd_api::PutRequest;
use lifeboat_tests::{EtcdCluster, EtcdVersion, Finished, Job, Options, Run, Workload, etcd_matrix, matrix, peers};
use secrecy::ExposeSecret;
use serde_json::Value;
use vault::sign::SigningKey;

/// A user, one signed backup with an extra, and the key it was signed with.
struct Bench {
    job: Job,
    id: String,
    key_file: PathBuf,
    public: String,
}

impl Bench {
    async fn new(etcd: EtcdVersion) -> Self {
        let job = Job::new();
        let key = SigningKey::generate().unwrap();
        let key_file = job.dir().join("sign.key");
        std::fs::write(&key_file, key.to_file().unwrap().expose_secret()).unwrap();
        let extra = job.dir().join("encryption.yaml");
        std::fs::write(&extra, "kind: EncryptionConfiguration\n").unwrap();
        let cluster = EtcdCluster::start(etcd, Options::default());
        drop(Workload::small(31).apply(&cluster.client(0).await).await);
        let run = job.backup_cmd(&cluster.client_flags()).arg("--signing-key").arg(&key_file).arg("--extra").arg(&extra);
        drop(run.run().ok());
        let id = job.list()[0]["id"].as_str().unwrap().to_owned();
        Self { job, id, key_file, public: key.public().to_line() }
    }

    fn directory(&self) -> PathBuf {
        self.job.repository().join("prod/snapshots").join(&self.id)
    }

    fn key(&self, name: &str) -> String {
        format!("prod/snapshots/{}/{name}", self.id)
    }

    /// `verify`, with its spool in the test's own directory.
    fn verify(&self, more: &[&str]) -> Run {
        let spool = self.job.dir().join("spool");
        self.job.cmd("verify").args(["-o", "json", "--spool-reserve", "0", "--spool-dir"]).arg(spool).args(more)
    }

    fn trusting(&self, more: &[&str]) -> Run {
        self.verify(more).args(["--trusted-signer", &self.public])
    }

    fn deep(&self, more: &[&str]) -> Run {
        self.trusting(more).arg("--deep").arg("-i").arg(self.job.identity())
    }

    fn marks(&self) -> Vec<Value> {
        let Ok(entries) = std::fs::read_dir(self.job.repository().join("prod/marks")) else { return Vec::new() };
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let json = paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        json.map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()).collect()
    }

    /// Changes the file at `path` while `test` runs, and puts it back.
    fn with<T>(&self, path: &Path, change: impl FnOnce(&Path, Vec<u8>), test: impl FnOnce() -> T) -> T {
        let before = std::fs::read(path).unwrap();
        change(path, before.clone());
        let outcome = test();
        std::fs::write(path, before).unwrap();
        outcome
    }
}

fn flip(at: usize) -> impl FnOnce(&Path, Vec<u8>) {
    move |path, mut bytes| {
        bytes[at] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }
}

fn findings(done: &Finished) -> Vec<Value> {
    let report = done.json();
    let of_backups = report["backups"].as_array().unwrap().iter().flat_map(|backup| backup["findings"].as_array().unwrap().clone());
    of_backups.chain(report["problems"].as_array().unwrap().clone()).collect()
}

fn names(finding: &Value, object: &str, at: Option<usize>) -> bool {
    let inside =
        |at: usize| finding["from"].as_u64().is_some_and(|from| from as usize <= at) && (at as u64) < finding["to"].as_u64().unwrap();
    finding["object"] == object && at.is_none_or(inside)
}

fn only(done: &Finished) -> Value {
    let report = done.json();
    assert_eq!((report["schema"].as_str(), report["backups"].as_array().unwrap().len()), (Some("lifeboat.verify/1"), 1), "{done}");
    report["backups"][0].clone()
}

fn error(done: &Finished) -> Value {
    let line = done.err().lines().rev().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{done}")).to_owned();
    serde_json::from_str::<Value>(&line).unwrap()["error"].clone()
}

etcd_matrix! {
    /// Each rung passes on a fresh backup, is recorded in a signed mark, and is what `list` and `show` say.
    async fn every_rung_passes_on_a_fresh_backup(etcd: EtcdVersion) {
        let bench = Bench::new(etcd).await;
        let signing = bench.key_file.to_str().unwrap().to_owned();
        let sign = ["--signing-key", signing.as_str()];
        let stored = only(&bench.trusting(&sign).run().ok());
        assert_eq!((stored["reached"].as_str(), stored["bytes_read"].as_u64()), (Some("stored"), Some(0)), "{stored}");
        let read = only(&bench.trusting(&sign).arg("--read").run().ok());
        let sizes: u64 = std::fs::read_dir(bench.directory()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert!(read["reached"] == "read" && read["bytes_read"].as_u64().unwrap() > sizes / 2, "{read}");
        let deep = only(&bench.deep(&sign).run().ok());
        assert_eq!((deep["reached"].as_str(), deep["result"].as_str(), deep["hashkv"].as_str()), (Some("deep"), Some("passed"), Some("match")));
        assert!(deep["notes"].to_string().contains("1 of 1 recorded answers"), "{deep}");

        let rungs: Vec<String> = bench.marks().iter().map(|mark| mark["data"]["rung"].as_str().unwrap().to_owned()).collect();
        assert_eq!(rungs, ["stored", "read", "deep"]);
        let signatures = std::fs::read_dir(bench.job.repository().join("prod/marks")).unwrap().count() - rungs.len();
        assert_eq!(signatures, 3);
        let listed = bench.job.cmd("list").args(["-o", "json", "--trusted-signer", &bench.public]).run().ok().json();
        assert_eq!(listed["clusters"][0]["backups"][0]["proven"]["rung"], "deep", "{listed}");

        let shown = bench.job.cmd("show").args(["--trusted-signer", &bench.public]).run().ok().out();
        for words in ["which is trusted", "verified: deep passed", "hashkv       match", "db.zst.age", "age -d -i key.txt", "can be", "lifeboat restore"] {
            assert!(shown.contains(words), "{words}: {shown}");
        }
        let table = bench.job.cmd("verify").run().ok().out();
        assert!(table.contains("stored passed"), "{table}");
    }

    /// A misspelt cluster is said to be one, by every verb that reads, with the names there are; the printed command works.
    async fn a_misspelt_cluster_is_not_an_empty_one(etcd: EtcdVersion) {
        let bench = Bench::new(etcd).await;
        for verb in [&["list"][..], &["show", "latest"], &["verify"], &["lineage", "list"]] {
            let done = bench.job.lifeboat.cmd(verb).args(["--repo", bench.job.url(), "--cluster", "pord", "-o", "json"]).run().exit(13);
            let said = error(&done);
            assert!(said["cause"].as_str().unwrap().contains("'prod'"), "{said}");
            drop(bench.job.lifeboat.shell(said["next"].as_str().unwrap()).run().ok());
        }
    }
}

/// A test on the version most clusters run.
fn on_one_version<F: Future<Output = ()>>(name: &str, body: impl Fn(EtcdVersion) -> F) {
    matrix::run(name, EtcdVersion::V3_6, |etcd| matrix::block_on(body(etcd)));
}

/// One changed byte in each object of the repository is found, and named by object and, where bytes are hashed in blocks or decrypted, by range.
#[test]
fn a_changed_byte_is_named() {
    on_one_version("a_changed_byte_is_named", |etcd| async move {
        let bench = Bench::new(etcd).await;
        drop(bench.trusting(&["--signing-key", bench.key_file.to_str().unwrap()]).run().ok());
        for name in ["db.zst.age", "frames.bin", "extra/encryption.yaml.age", "manifest.json", "manifest.json.minisig"] {
            // The name an extra gets is made of its whole path.
            let path = match name.strip_prefix("extra/") {
                Some(_) => std::fs::read_dir(bench.directory().join("extra")).unwrap().next().unwrap().unwrap().path(),
                None => bench.directory().join(name),
            };
            let key = path.strip_prefix(bench.job.repository()).unwrap().to_str().unwrap().to_owned();
            let length = std::fs::metadata(&path).unwrap().len() as usize;
            let ranged = !name.starts_with("manifest");
            for at in [length / 3, length / 2, length - 2] {
                let done = bench.with(&path, flip(at), || bench.trusting(&["--read", "--all"]).run().exit(20));
                let found = findings(&done);
                assert!(found.iter().any(|finding| names(finding, &key, ranged.then_some(at))), "{key} {at}: {done}");
                let said = error(&done);
                assert!(
                    said["object"].as_str().unwrap().starts_with(&key) && said["next"].as_str().unwrap().starts_with("lifeboat list"),
                    "{said}"
                );
                if ranged {
                    assert!(said["object"].as_str().unwrap().contains("bytes 0 to"), "{said}");
                }
            }
        }
        for directory in ["lineages", "marks"] {
            // Listed first: each run adds marks.
            let entries = std::fs::read_dir(bench.job.repository().join("prod").join(directory)).unwrap();
            let paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
            for path in paths {
                let key = path.strip_prefix(bench.job.repository()).unwrap().to_str().unwrap().to_owned();
                let at = std::fs::metadata(&path).unwrap().len() as usize - 5;
                let done = bench.with(&path, flip(at), || bench.trusting(&["--all"]).run().exit(20));
                assert!(findings(&done).iter().any(|finding| names(finding, &key, None)), "{key}: {done}");
            }
        }

        // Without hashing nothing is known of the bytes; a lost way out is known.
        let data = bench.directory().join("db.zst.age");
        drop(bench.with(&data, flip(1000), || bench.trusting(&[]).run().ok()));
        let text = bench.job.repository().join("RESTORE.txt");
        let lost = bench.with(&text, |path, _| std::fs::remove_file(path).unwrap(), || bench.trusting(&["--all"]).run().exit(20));
        assert!(findings(&lost).iter().any(|finding| names(finding, "RESTORE.txt", None)), "{lost}");

        // The failures were written down, and a pass as deep answers them.
        drop(
            bench.with(&data, flip(1000), || bench.trusting(&["--read", "--signing-key", bench.key_file.to_str().unwrap()]).run().exit(20)),
        );
        let shown = bench.job.cmd("show").arg(&bench.id).args(["--trusted-signer", &bench.public]).run().ok().out();
        assert!(shown.contains("FAILED at read") && shown.contains("never: verification failed"), "{shown}");
        let again = bench.trusting(&["--read", "--signing-key", bench.key_file.to_str().unwrap()]).run().ok();
        assert!(again.err().contains("no backup can be 'latest'"), "{again}");
        let shown = bench.job.cmd("show").args(["--trusted-signer", &bench.public]).run().ok().out();
        assert!(shown.contains("can be"), "{shown}");
    });
}

/// Objects that are short, missing, or lie elsewhere.
#[test]
fn a_short_or_missing_object_is_named() {
    on_one_version("a_short_or_missing_object_is_named", |etcd| async move {
        let bench = Bench::new(etcd).await;
        for name in ["db.zst.age", "frames.bin"] {
            let path = bench.directory().join(name);
            let cut = |path: &Path, bytes: Vec<u8>| std::fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
            let done = bench.with(&path, cut, || bench.trusting(&[]).run().exit(20));
            let found = only(&done)["findings"][0].clone();
            assert!(names(&found, &bench.key(name), None) && found["what"].as_str().unwrap().contains("the manifest says"), "{done}");
            let done = bench.with(&path, |path, _| std::fs::remove_file(path).unwrap(), || bench.deep(&[&bench.id]).run().exit(20));
            let found = only(&done)["findings"][0].clone();
            assert!(names(&found, &bench.key(name), None) && found["what"].as_str().unwrap().contains("missing"), "{done}");
        }

        // A manifest that cannot be read is still a backup that is lost: by default, by name, and with --all.
        let manifest = bench.directory().join("manifest.json");
        for args in [vec![], vec![bench.id.as_str()], vec![&bench.id[17..]], vec!["--all"]] {
            let done = bench.with(&manifest, flip(300), || bench.trusting(&args).run().exit(20));
            let lost = only(&done);
            assert!(lost["id"] == bench.id.as_str() && lost["reached"] == "none", "{done}");
            assert!(findings(&done).iter().any(|finding| names(finding, &bench.key("manifest.json"), None)), "{done}");
        }
        let shown = bench.with(&manifest, flip(300), || bench.job.cmd("show").arg(&bench.id).run().exit(20));
        assert!(shown.err().contains(&bench.key("manifest.json")), "{shown}");
        let unknown = bench.trusting(&["zzzzzz"]).run().exit(1);
        assert!(error(&unknown)["cause"].as_str().unwrap().contains("zzzzzz"), "{unknown}");
    });
}

/// Who has no key proves less, and is told so: exit 12, with what was proven kept.
#[test]
fn the_wrong_identity_is_told_from_damage() {
    on_one_version("the_wrong_identity_is_told_from_damage", |etcd| async move {
        let bench = Bench::new(etcd).await;
        let none = bench.verify(&["--deep"]).run().exit(12);
        assert!(error(&none)["next"].as_str().unwrap().ends_with("-i identity.txt") && bench.marks().is_empty(), "{none}");

        let (secret, _) = vault::seal::recipients::generate_identity();
        let other = bench.job.dir().join("other.txt");
        std::fs::write(&other, secret.expose_secret()).unwrap();
        let wrong = bench.verify(&["--deep", "-i", other.to_str().unwrap()]).run().exit(12);
        let checked = only(&wrong);
        assert_eq!((checked["reached"].as_str(), checked["result"].as_str()), (Some("read"), Some("inconclusive")), "{wrong}");
        assert!(checked["locked"] == true && checked["findings"].as_array().unwrap().is_empty(), "{wrong}");
        assert!(error(&wrong)["cause"].as_str().unwrap().contains("fingerprint"), "{wrong}");
        let marks = bench.marks();
        assert_eq!(
            (marks.len(), marks[0]["data"]["rung"].as_str(), marks[0]["data"]["result"].as_str()),
            (1, Some("read"), Some("passed"))
        );

        // Damage in the header looks like a wrong key to whoever only tries keys.
        let data = bench.directory().join("db.zst.age");
        let done = bench.with(&data, flip(60), || bench.deep(&[]).run().exit(20));
        assert!(findings(&done).iter().any(|finding| names(finding, &bench.key("db.zst.age"), Some(60))), "{done}");
    });
}

/// With trusted signers, what they did not sign does not pass, and nobody else is harmed by that.
#[test]
fn only_trusted_signatures_pass_where_signers_are_trusted() {
    on_one_version("only_trusted_signatures_pass_where_signers_are_trusted", |etcd| async move {
        let bench = Bench::new(etcd).await;
        let stranger = SigningKey::generate().unwrap().public().to_line();
        for which in [vec![], vec![bench.id.as_str()]] {
            let done = bench.verify(&which).args(["--trusted-signer", &stranger]).run().exit(20);
            assert!(only(&done)["untrusted"] == true && names(&findings(&done)[0], &bench.key("manifest.json"), None), "{done}");
        }
        assert!(bench.marks().is_empty(), "a wrong list of signers spoils the backup for nobody");
        drop(bench.verify(&[&bench.id]).args(["--trusted-signer", &stranger, "--allow-unsigned"]).run().ok());

        let signature = bench.directory().join("manifest.json.minisig");
        let unsigned = bench.with(
            &signature,
            |path, _| std::fs::remove_file(path).unwrap(),
            || {
                let shown = bench.job.cmd("show").arg(&bench.id).args(["--trusted-signer", &bench.public]).run().ok();
                assert!(shown.out().contains("NOT SIGNED; the backup does not count"), "{shown}");
                drop(bench.verify(&[]).run().ok());
                bench.trusting(&[&bench.id]).run().exit(20)
            },
        );
        assert!(only(&unsigned)["untrusted"] == true, "{unsigned}");
        let bad = bench.with(&signature, flip(150), || bench.trusting(&[]).run().exit(20));
        assert!(names(&findings(&bad)[0], &bench.key("manifest.json.minisig"), None), "{bad}");
    });
}

/// A store that can only be read is verified all the same; that nothing could be recorded is a warning.
#[test]
fn a_store_that_can_only_be_read_is_verified() {
    on_one_version("a_store_that_can_only_be_read_is_verified", |etcd| async move {
        let bench = Bench::new(etcd).await;
        fn close(directory: &Path, mode: u32) {
            std::fs::set_permissions(directory, std::fs::Permissions::from_mode(mode)).unwrap();
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    close(&path, mode);
                } else {
                    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode & 0o444)).unwrap();
                }
            }
        }
        for open in [bench.job.dir(), bench.job.lifeboat.home()] {
            std::fs::set_permissions(open, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        close(&bench.job.repository(), 0o555);
        let args = ["verify", "--read", "-o", "json", "--cluster", "prod", "--repo", bench.job.url()];
        // Nothing is closed to root.
        let run = if rustix::process::geteuid().is_root() {
            let nobody = Run::new("setpriv").args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
            if nobody.clone().arg("test").arg("-x").arg(bench.job.lifeboat.path()).run().code() != Some(0) {
                close(&bench.job.repository(), 0o755);
                peers::skipped("a_store_that_can_only_be_read_is_verified: the binary lies where only root can reach it");
                return;
            }
            nobody.clear_env().env("HOME", bench.job.lifeboat.home()).env("PATH", "/usr/bin:/bin").arg(bench.job.lifeboat.path()).args(args)
        } else {
            bench.job.lifeboat.cmd(args)
        };
        let done = run.run();
        close(&bench.job.repository(), 0o755);
        let done = done.ok();
        assert!(only(&done)["result"] == "passed" && done.err().contains("could not be recorded"), "{done}");
        assert!(done.json()["warnings"][0].as_str().unwrap().contains("denied"), "{done}");
    });
}

/// Promise "a wrong context never becomes latest", and the way out of it.
#[test]
fn another_cluster_is_latest_only_once_it_is_accepted() {
    on_one_version("another_cluster_is_latest_only_once_it_is_accepted", |etcd| async move {
        let bench = Bench::new(etcd).await;
        let signing = bench.key_file.to_str().unwrap();
        let other = EtcdCluster::start(etcd, Options::default().token("other"));
        let client = other.client(0).await;
        drop(Workload::small(32).apply(&client).await);
        let taken = bench.job.backup_cmd(&other.client_flags()).args(["--signing-key", signing]).run().exit(3);
        assert!(taken.out().contains("UNCONFIRMED") && taken.out().contains("lifeboat lineage accept 0002-"), "{taken}");

        let lineage = |more: &[&str]| bench.job.lifeboat.cmd(["lineage"]).args(more).args(["--repo", bench.job.url(), "--cluster", "prod"]);
        let trusting = |more: &[&str]| lineage(more).args(["--trusted-signer", &bench.public]);
        let latest = || bench.job.cmd("show").args(["-o", "json", "--trusted-signer", &bench.public]).run().ok().json()["id"].clone();
        let listed = || trusting(&["list", "-o", "json"]).run().ok().json()["lineages"].clone();
        assert_eq!(latest(), bench.id.as_str());
        let before = listed();
        let second = before[1]["name"].as_str().unwrap().to_owned();
        assert!(before[0]["accepted"] == true && before[1]["accepted"] == false && before[1]["parent"] == before[0]["name"], "{before}");
        assert!(before[1]["backups"] == 1 && before[1]["unconfirmed_backups"] == 1, "{before}");
        assert_eq!(before[1]["first_revision"], before[1]["last_revision"]);
        assert!(before[1]["fingerprint"].as_str().is_some_and(|uid| uid != before[0]["fingerprint"]), "{before}");

        // Consent is the cluster's name; a foreign or missing signature would count for nobody; the name must be one.
        drop(trusting(&["accept", &second, "--signing-key", signing]).run().exit(2));
        drop(trusting(&["accept", &second, "--signing-key", signing, "--confirm", "production"]).run().exit(2));
        let unsigned = trusting(&["accept", &second, "--confirm", "prod"]).run().exit(2);
        assert!(unsigned.err().contains("count for nobody"), "{unsigned}");
        let unknown = trusting(&["accept", "0007", "--signing-key", signing, "--confirm", "prod"]).run().exit(13);
        assert!(unknown.err().contains(&second), "{unknown}");
        assert_eq!(listed()[1]["accepted"], false);

        let done = trusting(&["accept", "0002", "--signing-key", signing, "--confirm", "prod"]).run().ok();
        assert!(done.out().contains("is accepted (signed); 1 backup(s)"), "{done}");
        assert!(listed()[1]["accepted"] == true && latest() != bench.id.as_str());
        let again = trusting(&["accept", &second, "--signing-key", signing]).run().ok();
        assert!(again.out().contains("accepted already"), "{again}");
        assert_eq!(bench.marks().iter().filter(|mark| mark["kind"] == "accept").count(), 1);

        // The next backup of it is an ordinary one.
        drop(client.put(PutRequest::new("more", "data")).await.unwrap());
        drop(bench.job.backup_cmd(&other.client_flags()).args(["--signing-key", signing, "--trusted-signer", &bench.public]).run().ok());
        let table = trusting(&["list"]).run().ok().out();
        assert!(table.contains("accepted by an operator") && table.contains("accepted: the cluster's first"), "{table}");
        let all = bench.trusting(&["--all"]).run().ok().json();
        assert_eq!(all["backups"].as_array().unwrap().len(), 3, "{all}");
        let both = bench.trusting(&[&bench.id, "latest"]).run().ok().json();
        assert_eq!(both["backups"].as_array().unwrap().len(), 2, "{both}");

        // That the newest backup is lost does not go unnoticed because the one before it is sound.
        let newest = all["backups"][0]["id"].as_str().unwrap();
        let manifest = bench.job.repository().join("prod/snapshots").join(newest).join("manifest.json");
        let done = bench.with(&manifest, flip(300), || bench.trusting(&[]).run().exit(20));
        let checked = done.json()["backups"].clone();
        assert!(checked[0]["id"] == newest && checked[0]["result"] == "failed" && checked[1]["result"] == "passed", "{done}");
        assert!(checked[1]["id"] == all["backups"][1]["id"], "{done}");
    });
}

/// Everything of the manifest is shown, as it is stored.
#[test]
fn a_backup_is_shown_in_full() {
    on_one_version("a_backup_is_shown_in_full", |etcd| async move {
        let bench = Bench::new(etcd).await;
        let shown = bench.job.cmd("show").args([&bench.id[17..], "-o", "json"]).run().ok().json();
        assert_eq!(shown["schema"], "lifeboat.show/1");
        let mut stored: Value = serde_json::from_slice(&std::fs::read(bench.directory().join("manifest.json")).unwrap()).unwrap();
        let envelope = stored.as_object_mut().unwrap();
        assert!(envelope.remove("schema").is_some() && envelope.remove("self_sha256").is_some());
        assert_eq!(shown["manifest"], stored);
        assert_eq!((shown["judgement"]["latest"].as_bool(), shown["judgement"]["incomplete"].as_bool()), (Some(true), Some(false)));
        let table = bench.job.cmd("show").run().ok().out();
        for object in stored["objects"].as_array().unwrap() {
            assert!(table.contains(object["name"].as_str().unwrap()) && table.contains(object["sha256"].as_str().unwrap()), "{table}");
        }
        assert!(table.contains("NOT CHECKED"), "{table}");
        assert!(table.contains(&format!("lifeboat restore {} ", &bench.id[17..])), "{table}");
    });
}
