//! The etcd service of a node: a real process, its states and its data.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use etcd_api::{Client, ConnectOptions, Endpoint, TlsOptions};
use lifeboat_tests::EtcdVersion;
use lifeboat_tests::net::listens;
use lifeboat_tests::process::{Process, guarded};
use zeroize::Zeroizing;

use crate::network::{ETCD_CLIENT, ETCD_METRICS, ETCD_PEER};

/// How long a process may take to open its ports, on a busy machine.
const LISTENING: Duration = Duration::from_secs(60);
/// How long it may take to stop in an orderly way.
const STOPPING: Duration = Duration::from_secs(20);
/// How often waiting loops look.
pub(crate) const POLL: Duration = Duration::from_millis(50);
/// Time for one call to a local etcd: machined sets none, the caller's is over long before.
const CALL: Duration = Duration::from_secs(600);
/// Time for the health check.
const HEALTH: Duration = Duration::from_secs(3);

/// Where the service's things are, and how it is run.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) hostname: String,
    pub(crate) ip: Ipv4Addr,
    pub(crate) version: EtcdVersion,
    pub(crate) flags: Vec<String>,
    /// `/var/lib/etcd` of the node.
    pub(crate) data: PathBuf,
    /// `/var/lib/etcd.snapshot`, where an upload goes.
    pub(crate) recovery: PathBuf,
    pub(crate) log: PathBuf,
    /// etcd's authority, and pairs (certificate, key) of the member and of machined as its client.
    pub(crate) ca: PathBuf,
    pub(crate) member: (PathBuf, PathBuf),
    pub(crate) admin: (PathBuf, PathBuf),
}

/// Where etcd talks to the other members.
pub(crate) fn peer_url(ip: Ipv4Addr) -> String {
    format!("https://{ip}:{ETCD_PEER}")
}

/// Something that happened to the service.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) state: &'static str,
    pub(crate) message: String,
    pub(crate) at: u64,
}

/// How a process is to find its cluster.
#[derive(Clone, Debug)]
pub(crate) enum Cluster {
    /// As a new cluster of these members.
    New(String),
    /// As a member that was added to these.
    Existing(String),
    /// From its data.
    Data,
}

/// What Bootstrap asks for; it lives in memory only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Intent {
    pub(crate) recover: bool,
    pub(crate) skip_hash_check: bool,
}

/// The service.
#[derive(Debug)]
pub(crate) struct EtcdService {
    pub(crate) place: Place,
    process: Option<Process>,
    /// etcd's own tool, while it restores.
    tool: Option<Process>,
    pub(crate) events: Vec<Event>,
    pub(crate) intent: Option<Intent>,
}

impl Place {
    pub(crate) fn peer_url(&self) -> String {
        peer_url(self.ip)
    }

    pub(crate) fn client_url(&self) -> String {
        format!("https://{}:{ETCD_CLIENT}", self.ip)
    }

    pub(crate) fn pair(&self) -> String {
        format!("{}={}", self.hostname, self.peer_url())
    }

    pub(crate) fn has_data(&self) -> bool {
        std::fs::read_dir(&self.data).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// A connection to the member, as machined makes one for each call.
    pub(crate) async fn client(&self) -> Result<Client, etcd_api::Error> {
        let endpoint = Endpoint::parse(&self.client_url(), true).unwrap();
        let read = |path: &Path| std::fs::read(path).unwrap();
        let tls = TlsOptions {
            ca_pem: Some(read(&self.ca)),
            cert_pem: Some(read(&self.admin.0)),
            key_pem: Some(Zeroizing::new(read(&self.admin.1))),
            ..TlsOptions::default()
        };
        let options = ConnectOptions { tls: Some(tls), dial_timeout: CALL, request_timeout: CALL, ..ConnectOptions::default() };
        Client::connect(endpoint, &options).await
    }

    /// Whether it answers linearizable reads, and so has a leader.
    pub(crate) async fn is_healthy(&self) -> bool {
        let asking = async { self.client().await?.linearizable_read().await };
        matches!(tokio::time::timeout(HEALTH, asking).await, Ok(Ok(_)))
    }

    fn arguments(&self, cluster: &Cluster) -> Vec<String> {
        let client = self.client_url();
        let mut arguments: Vec<(&str, String)> = vec![
            ("name", self.hostname.clone()),
            ("data-dir", self.data.display().to_string()),
            ("listen-client-urls", client.clone()),
            ("advertise-client-urls", client),
            ("listen-peer-urls", self.peer_url()),
            ("listen-metrics-urls", format!("http://{}:{ETCD_METRICS}", self.ip)),
            ("cert-file", self.member.0.display().to_string()),
            ("key-file", self.member.1.display().to_string()),
            ("trusted-ca-file", self.ca.display().to_string()),
            ("client-cert-auth", "true".to_owned()),
            ("peer-cert-file", self.member.0.display().to_string()),
            ("peer-key-file", self.member.1.display().to_string()),
            ("peer-trusted-ca-file", self.ca.display().to_string()),
            ("peer-client-cert-auth", "true".to_owned()),
            ("logger", "zap".to_owned()),
            ("log-outputs", "stderr".to_owned()),
        ];
        arguments.push(("initial-advertise-peer-urls", self.peer_url()));
        match cluster {
            Cluster::New(members) => {
                arguments.push(("initial-cluster", members.clone()));
                arguments.push(("initial-cluster-state", "new".to_owned()));
            }
            Cluster::Existing(members) => {
                arguments.push(("initial-cluster", members.clone()));
                arguments.push(("initial-cluster-state", "existing".to_owned()));
            }
            // Data says who belongs to it; etcd only wants its own name and URL to fit each other.
            Cluster::Data => arguments.push(("initial-cluster", self.pair())),
        }
        let mut arguments: Vec<String> = arguments.into_iter().map(|(flag, value)| format!("--{flag}={value}")).collect();
        if self.version >= EtcdVersion::V3_5 {
            // A disk that is busy for a second would cost a member its leadership. What is killed leaves its writes in the page cache, and nothing
            // here cuts the power of the machine, so what a node finds after its reboot is the same.
            arguments.push("--unsafe-no-fsync".to_owned());
        }
        arguments.extend(self.flags.iter().cloned());
        arguments
    }
}

impl EtcdService {
    pub(crate) fn new(place: Place) -> Self {
        Self { place, process: None, tool: None, events: Vec::new(), intent: None }
    }

    /// The state, as ServiceList tells it.
    pub(crate) fn state(&self) -> &'static str {
        self.events.last().map_or("Initialized", |event| event.state)
    }

    pub(crate) fn enter(&mut self, state: &'static str, message: impl Into<String>) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.events.push(Event { state, message: message.into(), at });
    }

    /// Tells what keeps it in its state, unless that was told last.
    pub(crate) fn note(&mut self, message: String) {
        if self.events.last().is_some_and(|event| event.message != message) {
            self.enter(self.state(), message);
        }
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::running)
    }

    pub(crate) fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// Starts the process and waits until its ports are its own.
    pub(crate) async fn start(&mut self, cluster: &Cluster) -> Result<(), String> {
        std::fs::create_dir_all(&self.place.data).unwrap();
        set_private(&self.place.data);
        let mut command = guarded(self.place.version.etcd());
        command.args(self.place.arguments(cluster));
        for (variable, _) in std::env::vars_os() {
            if variable.to_str().is_some_and(|name| name.starts_with("ETCD_")) {
                command.env_remove(variable);
            }
        }
        let mut process = Process::start(&format!("etcd {}", self.place.hostname), command, &self.place.log);
        let pid = process.pid();
        let deadline = Instant::now() + LISTENING;
        while ![ETCD_CLIENT, ETCD_PEER].iter().all(|&port| listens(pid, port)) {
            if !process.running() {
                let tail = process.log_tail(5);
                self.enter("Failed", format!("etcd ended: {tail}"));
                return Err(tail);
            }
            assert!(Instant::now() < deadline, "etcd does not listen:\n{}", process.log_tail(30));
            tokio::time::sleep(POLL).await;
        }
        self.process = Some(process);
        self.enter("Running", "Started task etcd");
        Ok(())
    }

    /// Stops the process; waits for it. The node's boot must have been halted.
    pub(crate) fn stop(&mut self, state: &'static str, message: &str) {
        self.end_tool();
        if let Some(mut process) = self.process.take() {
            tokio::task::block_in_place(|| process.terminate(STOPPING));
        }
        self.enter(state, message);
    }

    /// SIGKILL, as a power cut. The node's boot must have been halted.
    pub(crate) fn kill(&mut self) {
        self.end_tool();
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
        self.enter("Failed", "killed");
    }

    /// Deletes the data; with `keep` the directory itself stays, as since Talos 1.14.
    pub(crate) fn wipe(&mut self, keep: bool) {
        if self.place.data.exists() {
            std::fs::remove_dir_all(&self.place.data).unwrap();
        }
        if keep {
            std::fs::create_dir_all(&self.place.data).unwrap();
        }
    }

    /// Begins to build the data directory from the uploaded file with etcd's own tool, as Talos does with its library.
    pub(crate) fn begin_restore(&mut self, skip_hash_check: bool, cluster: &str, peers: &str) {
        let place = &self.place;
        let tool = place.version.etcdutl().unwrap_or_else(|| place.version.etcdctl());
        // The tool wants to make the directory itself; what it leaves behind after a failure stays, as on a real node.
        if !place.has_data() && place.data.exists() {
            std::fs::remove_dir(&place.data).unwrap();
        }
        let mut command = guarded(tool);
        command.args(["snapshot", "restore"]).arg(&place.recovery).args([
            format!("--name={}", place.hostname),
            format!("--data-dir={}", place.data.display()),
            format!("--initial-cluster={cluster}"),
            format!("--initial-advertise-peer-urls={peers}"),
            "--initial-cluster-token=".to_owned(),
        ]);
        if skip_hash_check {
            command.arg("--skip-hash-check");
        }
        let log = place.log.with_extension("restore");
        std::fs::write(&log, "").unwrap();
        self.tool = Some(Process::start(&format!("restore {}", place.hostname), command, &log));
    }

    /// How the restore ended; `None` while it goes on.
    pub(crate) fn restored(&mut self) -> Option<Result<(), String>> {
        let tool = self.tool.as_mut()?;
        if tool.running() {
            return None;
        }
        let well = tool.wait(Duration::ZERO).is_some_and(|status| status.success());
        let why = tool.log_tail(1);
        self.tool = None;
        if !well {
            return Some(Err(why.trim_start_matches("Error: ").to_owned()));
        }
        // Deleted after a success alone (Talos `services/etcd.go`, recoverFromSnapshot).
        std::fs::remove_file(&self.place.recovery).unwrap();
        Some(Ok(()))
    }

    /// Kills the tool, where it is at work; what it has written stays.
    pub(crate) fn end_tool(&mut self) {
        if let Some(mut tool) = self.tool.take() {
            tool.kill();
        }
    }
}

/// etcd wants its data directory for itself, and warns otherwise.
fn set_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
}
