//! How a cluster is set up.

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
    pub(super) broken_server_cert: Option<&'static str>,
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
            broken_server_cert: None,
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

    /// The server shows this certificate of the set instead of its good one: `expired-server` or `other-name-server`. Needs TLS.
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

    /// Turns on the corruption check at start and every `seconds`; a member that differs raises the alarm CORRUPT.
    #[must_use]
    pub fn corrupt_check(self, seconds: u32) -> Self {
        self.arg("--experimental-initial-corrupt-check=true").arg(&format!("--experimental-corrupt-check-time={seconds}s"))
    }

    /// Does not wait until the members are healthy: for data that is expected not to boot.
    #[must_use]
    pub fn no_wait(mut self) -> Self {
        self.wait = false;
        self
    }
}
