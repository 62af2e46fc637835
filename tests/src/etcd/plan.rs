//! Names, addresses and directories of a cluster, fixed before anything is started, as a restore needs them.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::net::ReservedPort;

/// A cluster that does not run yet. Its ports stay reserved until the members start.
#[derive(Debug)]
pub struct ClusterPlan {
    pub(super) dir: TempDir,
    pub(super) members: Vec<PlannedMember>,
    pub(super) token: String,
}

/// One member of a plan.
#[derive(Debug)]
pub struct PlannedMember {
    /// `--name`.
    pub name: String,
    /// `--data-dir`; not created by the plan.
    pub data_dir: PathBuf,
    pub(super) client: ReservedPort,
    pub(super) peer: ReservedPort,
    pub(super) metrics: ReservedPort,
}

impl PlannedMember {
    /// A member with free ports.
    pub(super) fn new(name: String, data_dir: PathBuf) -> Self {
        Self { name, data_dir, client: ReservedPort::new(), peer: ReservedPort::new(), metrics: ReservedPort::new() }
    }

    /// `--initial-advertise-peer-urls`.
    #[must_use]
    pub fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer.port())
    }
}

impl ClusterPlan {
    /// Members `m0`, `m1` ... with data directories in a temporary directory.
    #[must_use]
    pub fn new(members: usize) -> Self {
        let dir = TempDir::new().unwrap();
        let members = (0..members)
            .map(|index| {
                let name = format!("m{index}");
                let data_dir = dir.path().join(format!("{name}.etcd"));
                PlannedMember::new(name, data_dir)
            })
            .collect();
        Self { dir, members, token: "lifeboat-tests".to_owned() }
    }

    /// One member whose data directory is somewhere else already.
    #[must_use]
    pub fn at(data_dir: &Path) -> Self {
        let mut plan = Self::new(1);
        data_dir.clone_into(&mut plan.members[0].data_dir);
        plan
    }

    /// `--initial-cluster-token`.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        token.clone_into(&mut self.token);
        self
    }

    /// The members.
    #[must_use]
    pub fn members(&self) -> &[PlannedMember] {
        &self.members
    }

    /// `--initial-cluster`: `m0=http://127.0.0.1:1234,m1=...`.
    #[must_use]
    pub fn initial_cluster(&self) -> String {
        let pairs: Vec<String> = self.members.iter().map(|member| format!("{}={}", member.name, member.peer_url())).collect();
        pairs.join(",")
    }

    /// `--initial-cluster-token`.
    #[must_use]
    pub fn cluster_token(&self) -> &str {
        &self.token
    }
}
