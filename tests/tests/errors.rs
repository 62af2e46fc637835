//! What an operator reads when something is wrong (design promise 10): what, which object, the likely cause, and a command. Each story provokes one
//! error, compares all of its text with a file, mends the fault, and runs the command exactly as it was printed.
//!
//! `SNAPSHOTS=overwrite` writes the files anew; look at the difference before you commit it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use lifeboat_tests::{EtcdCluster, EtcdVersion, Finished, Job, Options, Run, S3Server, Tls, s3};
use snapbox::assert::DEFAULT_ACTION_ENV;
use snapbox::{Assert, Data, Redactions};

/// One error from its cause to its end.
struct Story {
    name: &'static str,
    job: Job,
    text: String,
    hidden: Redactions,
}

impl Story {
    fn new(name: &'static str) -> Self {
        Self::with(name, Job::new())
    }

    fn with(name: &'static str, job: Job) -> Self {
        let mut story = Self { name, text: String::new(), hidden: Redactions::new(), job };
        let (dir, home, recipient) = (story.path(""), story.job.lifeboat.home().display().to_string(), story.job.recipient().to_owned());
        story.hide("[DIR]", dir.trim_end_matches('/'));
        story.hide("[HOME]", &home);
        story.hide("[RECIPIENT]", &recipient);
        story
    }

    /// Whatever differs from run to run.
    fn hide(&mut self, name: &'static str, value: &str) {
        self.hidden.insert(name, value.to_owned()).unwrap();
    }

    fn hide_endpoint(&mut self, cluster: &EtcdCluster) {
        let endpoint = cluster.endpoint(0);
        self.hide("[ETCD]", endpoint.split_once("://").unwrap().1);
    }

    fn path(&self, name: &str) -> String {
        self.job.dir().join(name).display().to_string()
    }

    /// `backup` into the job's repository.
    fn backup(&self, source: &[String]) -> Vec<String> {
        let words = ["backup", "--repo", self.job.url(), "--cluster", "prod", "--recipient", self.job.recipient(), "--spool-reserve", "0"];
        words.into_iter().map(str::to_owned).chain(source.iter().cloned()).collect()
    }

    /// `restore` from the job's repository.
    fn restore(&self, more: &[&str]) -> Vec<String> {
        let words = ["restore", "latest", "--repo", self.job.url(), "--cluster", "prod"];
        words.iter().chain(more).map(|word| (*word).to_owned()).collect()
    }

    /// What goes wrong.
    fn fails(&mut self, words: &[String], code: i32) -> Finished {
        self.run(self.job.lifeboat.cmd(words), &format!("lifeboat {}", words.join(" ")), code)
    }

    fn run(&mut self, run: Run, line: &str, code: i32) -> Finished {
        let finished = run.env("AWS_ALLOW_HTTP", "true").run().exit(code);
        // What was told before it went wrong is not the error's.
        let told = finished.err();
        let error = told.find("lifeboat: ").map_or("", |at| &told[at..]);
        self.text.push_str(&format!("$ {line}\n{error}(exit code {code})\n"));
        finished
    }

    /// Runs the command that was printed, word for word, after the fault was mended; compares the text.
    fn ends_well(mut self, failed: &Finished, mended: &str) {
        let said = format!("{}{}", failed.out(), failed.err());
        let next: Vec<&str> = said.lines().filter_map(|line| line.trim_start().strip_prefix("next:")).map(str::trim).collect();
        let [next] = next[..] else { panic!("one next command is expected: {failed}") };
        assert!(said.trim_end().ends_with(next), "the command comes last: {failed}");
        self.text.push_str(&format!("\n# {mended}\n$ {next}\n"));
        let finished = self.job.lifeboat.shell(next).env("AWS_ALLOW_HTTP", "true").run();
        assert_eq!(finished.code(), Some(0), "{}: {finished}", self.name);
        self.text.push_str("(exit code 0)\n");
        let expected = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/errors/{}.txt", self.name));
        Assert::new().action_env(DEFAULT_ACTION_ENV).redact_with(self.hidden).eq(self.text, Data::read_from(&expected, None));
    }
}

/// The newest etcd, or word that there is none.
fn etcd(name: &str) -> Option<EtcdVersion> {
    let version = lifeboat_tests::versions().into_iter().next_back();
    if version.is_none() {
        lifeboat_tests::peers::skipped(format_args!("errors, {name}: no etcd"));
    }
    version
}

fn copy(from: &Path, to: &str) {
    std::fs::copy(from, to).unwrap();
}

#[test]
fn wrong_endpoint() {
    let Some(version) = etcd("wrong endpoint") else { return };
    let mut story = Story::new("wrong-endpoint");
    let mut cluster = EtcdCluster::single(version);
    story.hide_endpoint(&cluster);
    cluster.stop_member(0);
    let failed = story.fails(&story.backup(&cluster.client_flags()), 30);
    cluster.restart_member(0);
    story.ends_well(&failed, "etcd is started");
}

#[test]
fn wrong_ca() {
    let Some(version) = etcd("wrong CA") else { return };
    let mut story = Story::new("wrong-ca");
    let cluster = EtcdCluster::start(version, Options::default().tls(Tls::Server));
    story.hide_endpoint(&cluster);
    let tls = cluster.tls().unwrap();
    let ca = story.path("ca.pem");
    copy(&tls.wrong_ca, &ca);
    let source = [format!("--endpoints={}", cluster.endpoint(0)), format!("--cacert={ca}")];
    let failed = story.fails(&story.backup(&source), 30);
    copy(&tls.ca, &ca);
    story.ends_well(&failed, "the CA of this etcd is put there");
}

#[test]
fn wrong_client_certificate() {
    let Some(version) = etcd("wrong client certificate") else { return };
    let mut story = Story::new("wrong-client-certificate");
    let cluster = EtcdCluster::start(version, Options::default().tls(Tls::ClientAuth));
    story.hide_endpoint(&cluster);
    let tls = cluster.tls().unwrap();
    let (cert, key) = (story.path("client.pem"), story.path("client-key.pem"));
    let source = [
        format!("--endpoints={}", cluster.endpoint(0)),
        format!("--cacert={}", tls.ca.display()),
        format!("--cert={cert}"),
        format!("--key={key}"),
    ];
    story.hide("[CA]", &tls.ca.display().to_string());
    copy(&tls.wrong_client.cert, &cert);
    copy(&tls.wrong_client.key, &key);
    let failed = story.fails(&story.backup(&source), 30);
    copy(&tls.client.cert, &cert);
    copy(&tls.client.key, &key);
    story.ends_well(&failed, "a certificate that this etcd accepts is put there");
}

#[test]
fn no_permission() {
    let Some(version) = etcd("no permission") else { return };
    let mut story = Story::new("no-permission");
    let cluster = EtcdCluster::start(version, Options::default().auth("secret"));
    story.hide_endpoint(&cluster);
    drop(cluster.etcdctl(["user", "add", "keeper:word"]));
    let password = story.path("password.txt");
    std::fs::write(&password, "word\n").unwrap();
    let source = [format!("--endpoints={}", cluster.endpoint(0)), "--user=keeper".to_owned(), format!("--password-file={password}")];
    let failed = story.fails(&story.backup(&source), 1);
    drop(cluster.etcdctl(["user", "grant-role", "keeper", "root"]));
    story.ends_well(&failed, "the user gets the role");
}

/// A cluster and a story whose repository is in a bucket.
fn on_s3(name: &'static str) -> Option<(Story, EtcdCluster, S3Server)> {
    let version = etcd(name)?;
    let Some(server) = S3Server::versitygw("lifeboat-bucket") else {
        lifeboat_tests::peers::skipped(format_args!("errors, {name}: no versitygw"));
        return None;
    };
    let mut story = Story::with(name, Job::at(server.url("etcd"), Vec::new()));
    let cluster = EtcdCluster::single(version);
    story.hide_endpoint(&cluster);
    story.hide("[STORE]", server.endpoint().split_once("://").unwrap().1);
    Some((story, cluster, server))
}

/// Writes a credentials file and names what leads to the server with it.
fn to_s3(story: &Story, cluster: &EtcdCluster, server: &S3Server, secret: &str) -> Vec<String> {
    let credentials = story.path("credentials.env");
    std::fs::write(&credentials, format!("AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={secret}\n", s3::ACCESS_KEY)).unwrap();
    let mut source = cluster.client_flags();
    source.extend(["--s3-endpoint".to_owned(), server.endpoint(), "--s3-credentials-file".to_owned(), credentials]);
    source
}

#[test]
fn missing_bucket() {
    let Some((mut story, cluster, server)) = on_s3("missing-bucket") else { return };
    let source = to_s3(&story, &cluster, &server, s3::SECRET_KEY);
    std::fs::remove_dir(server.bucket_dir()).unwrap();
    let failed = story.fails(&story.backup(&source), 10);
    std::fs::create_dir(server.bucket_dir()).unwrap();
    story.ends_well(&failed, "the bucket is made");
}

#[test]
fn wrong_credentials() {
    let Some((mut story, cluster, server)) = on_s3("wrong-credentials") else { return };
    let source = to_s3(&story, &cluster, &server, "not-the-secret");
    let failed = story.fails(&story.backup(&source), 31);
    drop(to_s3(&story, &cluster, &server, s3::SECRET_KEY));
    story.ends_well(&failed, "the right ones are put there");
}

#[test]
fn full_disk() {
    let Some(version) = etcd("full disk") else { return };
    let mut story = Story::new("full-disk");
    let small = story.job.dir().join("small");
    std::fs::create_dir(&small).unwrap();
    let mount = |options: &str| {
        let mut command = std::process::Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&small).status().is_ok_and(|status| status.success())
    };
    if !mount("size=8m") {
        return lifeboat_tests::peers::skipped("errors, full disk: a tmpfs of 8 MiB cannot be mounted here");
    }
    let unmount = Unmount(small.clone());
    let cluster = EtcdCluster::single(version);
    story.hide_endpoint(&cluster);
    // More than fits, however large etcd makes the file.
    lifeboat_tests::matrix::block_on(async { lifeboat_tests::workload::fill(&cluster.client(0).await, 61, 12 << 20).await });
    let mut source = cluster.client_flags();
    source.extend(["--spool-dir".to_owned(), small.display().to_string()]);
    let failed = story.fails(&story.backup(&source), 1);
    for (name, before) in [("[SIZE]", "for a database of "), ("[FREE]", "cause:  "), ("[NEEDED]", "are free, ")] {
        let rest = failed.err().split_once(before).unwrap_or_else(|| panic!("{failed}")).1.to_owned();
        story.hide(name, rest.split(' ').next().unwrap());
    }
    assert!(mount("remount,size=256m"));
    story.ends_well(&failed, "the disk gets room");
    drop(unmount);
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

/// A story about a plain snapshot file, and the file.
fn with_snapshot(name: &'static str) -> Option<(Story, String)> {
    let version = etcd(name)?;
    let story = Story::new(name);
    let cluster = EtcdCluster::single(version);
    drop(cluster.etcdctl(["put", "/registry/pods/default/p", "value"]));
    let file = story.path("good.db");
    cluster.snapshot(0, Path::new(&file));
    Some((story, file))
}

fn restore_file(story: &Story, file: &str) -> Vec<String> {
    let data = story.path("restored");
    ["snapshot", "restore", file, "--data-dir", &data].map(str::to_owned).to_vec()
}

#[test]
fn not_a_snapshot() {
    let Some((mut story, good)) = with_snapshot("not-a-snapshot") else { return };
    let file = story.path("snapshot.db");
    std::fs::write(&file, [b"this is a letter, not a snapshot\n".repeat(512), vec![0; 32]].concat()).unwrap();
    let failed = story.fails(&["snapshot".to_owned(), "status".to_owned(), file.clone()], 20);
    copy(Path::new(&good), &file);
    story.ends_well(&failed, "the snapshot is put there");
}

#[test]
fn truncated_snapshot() {
    let Some((mut story, good)) = with_snapshot("truncated-snapshot") else { return };
    let file = story.path("snapshot.db");
    let whole = std::fs::read(&good).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2 + 7]).unwrap();
    let failed = story.fails(&restore_file(&story, &file), 20);
    let pages = failed.err().split_once("pages take ").unwrap_or_else(|| panic!("{failed}")).1.to_owned();
    story.hide("[PAGES]", pages.split(';').next().unwrap());
    story.hide("[LENGTH]", &(whole.len() / 2 + 7).to_string());
    copy(Path::new(&good), &file);
    story.ends_well(&failed, "a whole copy is put there");
}

#[test]
fn wrong_identity() {
    let Some(version) = etcd("wrong identity") else { return };
    let mut story = Story::new("wrong-identity");
    let cluster = EtcdCluster::single(version);
    drop(story.job.backup(&cluster));
    let backup = &story.job.list()[0];
    let id = backup["id"].as_str().unwrap().to_owned();
    story.hide("[ID]", &id);
    let identity = story.path("mine.txt");
    drop(story.job.lifeboat.run(["key", "new", "--identity-out", &identity]).ok());
    let shown = story.job.cmd("show").args([&id, "-o", "json"]).run().ok().json();
    story.hide("[FINGERPRINT]", shown["manifest"]["sealing"]["recipients"][0].as_str().unwrap());
    let data = story.path("restored");
    let failed = story.fails(&story.restore(&["-i", &identity, "--data-dir", &data]), 12);
    copy(&story.job.identity(), &identity);
    story.ends_well(&failed, "the identity that it is sealed to is put there");
}

#[test]
fn unconfirmed_lineage() {
    let Some(version) = etcd("unconfirmed lineage") else { return };
    let mut story = Story::new("unconfirmed-lineage");
    drop(story.job.backup(&EtcdCluster::start(version, Options::default().token("one"))));
    let cluster = EtcdCluster::start(version, Options::default().token("two"));
    story.hide_endpoint(&cluster);
    let words = story.backup(&cluster.client_flags());
    let mut taken = story.job.lifeboat.cmd(&words).run().exit(3);
    let listed =
        story.job.lifeboat.cmd(["lineage", "list", "--repo", story.job.url(), "--cluster", "prod", "-o", "json"]).run().ok().json();
    let name = listed["lineages"][1]["name"].as_str().unwrap().to_owned();
    story.hide("[LINEAGE]", &name);
    let warned = taken.out().split_once("warning: ").map(|(_, rest)| format!("warning: {rest}")).unwrap();
    story.text.push_str(&format!("$ lifeboat {}\n{warned}(exit code 3)\n", words.join(" ")));
    // What is said on standard error is the story of how it was taken.
    taken.stderr.clear();
    story.ends_well(&taken, "it is this cluster: its history is accepted");
}

#[test]
fn target_in_use() {
    let Some(version) = etcd("target in use") else { return };
    let mut story = Story::new("target-in-use");
    let mut cluster = EtcdCluster::single(version);
    drop(story.job.backup(&cluster));
    let data = cluster.members()[0].data_dir().display().to_string();
    story.hide("[DATA]", &data);
    let identity = story.job.identity().display().to_string();
    let failed = story.fails(&story.restore(&["-i", &identity, "--replace", "--confirm", "prod", "--data-dir", &data]), 1);
    cluster.stop_member(0);
    story.ends_well(&failed, "etcd is stopped");
}
