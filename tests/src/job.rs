//! The main job as a test does it: one user, one repository, one recovery identity; back a cluster up, restore it, boot it.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::binary::Lifeboat;
use crate::etcd::{ClusterPlan, EtcdCluster};
use crate::run::{Finished, Run};

/// The name the cluster has in the repository.
pub const CLUSTER: &str = "prod";

/// A user with a repository and keys.
#[derive(Debug)]
pub struct Job {
    /// The user.
    pub lifeboat: Lifeboat,
    dir: TempDir,
    url: String,
    recipient: String,
    env: Vec<(&'static str, String)>,
}

impl Job {
    /// With a repository in a directory.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Lifeboat::new(), None, Vec::new())
    }

    /// With the binary that counts durable steps.
    #[must_use]
    pub fn with_crash_points() -> Self {
        Self::with(Lifeboat::with_crash_points(), None, Vec::new())
    }

    /// With a repository at a URL, and what the environment must hold to reach it.
    #[must_use]
    pub fn at(url: String, env: Vec<(&'static str, String)>) -> Self {
        Self::with(Lifeboat::new(), Some(url), env)
    }

    fn with(lifeboat: Lifeboat, url: Option<String>, env: Vec<(&'static str, String)>) -> Self {
        let dir = TempDir::new().unwrap();
        let (secret, recipient) = vault::seal::recipients::generate_identity();
        let text = secrecy::ExposeSecret::expose_secret(&secret).to_owned();
        std::fs::write(dir.path().join("identity.txt"), format!("{text}\n")).unwrap();
        let url = url.unwrap_or_else(|| format!("file://{}", dir.path().join("repository").display()));
        Self { lifeboat, url, recipient, env, dir }
    }

    /// A directory for whatever the test makes.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The repository.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The repository's directory, where it is one.
    #[must_use]
    pub fn repository(&self) -> PathBuf {
        self.dir.path().join("repository")
    }

    /// The file with the identity that opens backups.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.dir.path().join("identity.txt")
    }

    /// Its public half.
    #[must_use]
    pub fn recipient(&self) -> &str {
        &self.recipient
    }

    /// A verb on the repository.
    #[must_use]
    pub fn cmd(&self, verb: &str) -> Run {
        let mut run = self.lifeboat.cmd([verb, "--repo", &self.url, "--cluster", CLUSTER]);
        for (name, value) in &self.env {
            run = run.env(name, value);
        }
        run
    }

    /// `backup` of a cluster, as a command to which more can be added. The spool lies in the test's own directory and reserves nothing; members have
    /// more time for HashKV than by default, since a busy machine is no reason for a backup without a verdict.
    #[must_use]
    pub fn backup_cmd(&self, source: &[String]) -> Run {
        self.backup_cmd_within("60s", source)
    }

    /// [`Job::backup_cmd`] with this much time for HashKV.
    #[must_use]
    pub fn backup_cmd_within(&self, hashkv_budget: &str, source: &[String]) -> Run {
        let run = self.cmd("backup").args(["--recipient", &self.recipient, "--hashkv-budget", hashkv_budget]);
        run.args(["--spool-reserve", "0", "--spool-dir"]).arg(self.dir.path().join("spool")).args(source)
    }

    /// Backs a whole cluster up and insists on exit 0.
    pub fn backup(&self, cluster: &EtcdCluster) -> Finished {
        self.backup_cmd(&cluster.client_flags()).run().ok()
    }

    /// `restore` with the identity, as a command to which more can be added.
    #[must_use]
    pub fn restore_cmd(&self) -> Run {
        self.cmd("restore").arg("-i").arg(self.identity())
    }

    /// Restores every member of a plan from `which` with further flags, and insists on exit 0. Several members go by a plan file.
    pub fn restore(&self, which: &str, plan: &ClusterPlan, more: &[&str]) -> Vec<Finished> {
        let initial = plan.initial_cluster();
        let member = |run: Run, at: usize| {
            let member = &plan.members()[at];
            run.args(["--name", &member.name, "--initial-advertise-peer-urls", &member.peer_url(), "--data-dir"]).arg(&member.data_dir)
        };
        if plan.members().len() == 1 {
            let run = member(self.restore_cmd().arg(which), 0).args([
                "--initial-cluster",
                &initial,
                "--initial-cluster-token",
                plan.cluster_token(),
            ]);
            return vec![run.args(more).run().ok()];
        }
        let file = self.dir.path().join(format!("plan-{}.json", which.replace(|c: char| !c.is_ascii_alphanumeric(), "-")));
        let run = self.restore_cmd().arg(which).args([
            "--initial-cluster",
            &initial,
            "--initial-cluster-token",
            plan.cluster_token(),
            "--plan-out",
        ]);
        drop(run.arg(&file).args(more).run().ok());
        (0..plan.members().len()).map(|at| member(self.restore_cmd().arg("--plan").arg(&file), at).run().ok()).collect()
    }

    /// The backups, newest first, as `list -o json` gives them.
    #[must_use]
    pub fn list(&self) -> Vec<serde_json::Value> {
        let listed = self.cmd("list").args(["-o", "json"]).run().ok().json();
        listed["clusters"][0]["backups"].as_array().cloned().unwrap_or_default()
    }
}

impl Default for Job {
    fn default() -> Self {
        Self::new()
    }
}
