//! How a cluster is set up.

use crate::peers::EtcdVersion;

/// Whether clients speak TLS. Peers always speak plain HTTP on loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tls {
    /// `http://`.
    #[default]
    Off,
    /// `https://`; any client may connect.
    Server,
    /// `https://`; clients need a certificate of the authority.
    ClientAuth,
}

/// How a cluster is set up; one member without TLS, authentication or quota by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub(super) members: usize,
    pub(super) tls: Tls,
    pub(super) root_password: Option<String>,
    pub(super) quota: Option<u64>,
    pub(super) token: String,
    pub(super) extra: Vec<String>,
    pub(super) corrupt_check_seconds: Option<u32>,
    pub(super) compaction_batch: Option<u32>,
    pub(super) broken_server_cert: Option<&'static str>,
    pub(super) fsync: bool,
    pub(super) wait: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            members: 1,
            tls: Tls::Off,
            root_password: None,
            quota: None,
            token: "lifeboat-tests".to_owned(),
            extra: Vec::new(),
            corrupt_check_seconds: None,
            compaction_batch: None,
            broken_server_cert: None,
            fsync: false,
            wait: true,
        }
    }
}

impl Options {
    /// How many voting members.
    #[must_use]
    pub fn members(mut self, members: usize) -> Self {
        self.members = members;
        self
    }

    /// How clients connect.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// The server shows this certificate of the set instead of its good one: `expired-server`, `other-name-server` or
    /// `ending-server`. Needs TLS.
    #[must_use]
    pub fn server_cert(mut self, name: &'static str) -> Self {
        self.broken_server_cert = Some(name);
        self
    }

    /// Turns authentication on once the cluster is up; the user `root` has this password.
    #[must_use]
    pub fn auth(mut self, root_password: &str) -> Self {
        self.root_password = Some(root_password.to_owned());
        self
    }

    /// `--quota-backend-bytes`.
    #[must_use]
    pub fn quota(mut self, bytes: u64) -> Self {
        self.quota = Some(bytes);
        self
    }

    /// `--initial-cluster-token`, which decides the ids of a new cluster.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        token.clone_into(&mut self.token);
        self
    }

    /// One more argument for every member, e.g. `--auto-compaction-retention=1`.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.extra.push(arg.to_owned());
        self
    }

    /// The leader compares the members every `seconds`; one that differs raises the alarm CORRUPT.
    #[must_use]
    pub fn corrupt_check(mut self, seconds: u32) -> Self {
        self.corrupt_check_seconds = Some(seconds);
        self
    }

    /// Compactions go by this many revisions at a time, with etcd's own pause of 10 ms between: a small number makes a long compaction.
    #[must_use]
    pub fn compaction_batch(mut self, revisions: u32) -> Self {
        self.compaction_batch = Some(revisions);
        self
    }

    /// Waits for the disk at every write, as in earnest: for what is measured.
    #[must_use]
    pub fn fsync(mut self) -> Self {
        self.fsync = true;
        self
    }

    /// The arguments that not every version knows, or not by the same name.
    pub(super) fn arguments_of(&self, version: EtcdVersion) -> Vec<String> {
        let prefix = if version >= EtcdVersion::V3_6 { "" } else { "experimental-" };
        let check = self.corrupt_check_seconds.map(|seconds| format!("--{prefix}corrupt-check-time={seconds}s"));
        let batch = self.compaction_batch.map(|revisions| format!("--{prefix}compaction-batch-limit={revisions}"));
        // A disk that is busy for a second with what other tests write would cost a member its leadership. Nothing that is asserted changes: a process
        // that is killed leaves its writes in the page cache, and nothing here cuts the power.
        let no_fsync = (!self.fsync && version >= EtcdVersion::V3_5).then(|| "--unsafe-no-fsync".to_owned());
        check.into_iter().chain(batch).chain(no_fsync).collect()
    }

    /// Does not wait until the members are healthy: for data that is expected not to boot.
    #[must_use]
    pub fn no_wait(mut self) -> Self {
        self.wait = false;
        self
    }
}
