//! One etcd process.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use super::health;
use super::options::{Options, Tls};
use super::plan::PlannedMember;
use crate::net::{anybody_listens, listens};
use crate::peers::EtcdVersion;
use crate::process::{Process, guarded};
use crate::tls::{Pair, TlsSet};

/// How long a member may take to open its ports.
const LISTENING: Duration = Duration::from_secs(60);
/// How long it may take until it has a leader and answers.
const READY: Duration = Duration::from_secs(90);
/// How long it may take to stop in an orderly way.
const STOPPING: Duration = Duration::from_secs(20);

/// A member: its place and, while it runs, its process.
#[derive(Debug)]
pub struct Member {
    pub(super) name: String,
    pub(super) data_dir: PathBuf,
    client_port: u16,
    peer_port: u16,
    metrics_port: u16,
    scheme: &'static str,
    arguments: Vec<String>,
    program: PathBuf,
    log: PathBuf,
    /// Length of the log, as text, when the member was started last.
    log_offset: usize,
    process: Option<Process>,
}

/// Why a member does not listen.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StartFailure {
    /// Somebody else took one of its ports.
    PortTaken,
    /// It ended; the log says why.
    Ended,
}

/// What members of a cluster have in common when one is started.
pub(super) struct Common<'a> {
    pub(super) version: EtcdVersion,
    pub(super) options: &'a Options,
    pub(super) tls: Option<&'a TlsSet>,
    pub(super) initial_cluster: &'a str,
    pub(super) token: &'a str,
    /// `new` or `existing`.
    pub(super) state: &'a str,
    pub(super) logs: &'a Path,
}

impl Member {
    /// Takes a planned member's place; frees its ports.
    pub(super) fn new(planned: PlannedMember, common: &Common<'_>) -> Self {
        let ports = (planned.client.port(), planned.peer.port(), planned.metrics.port());
        let scheme = if common.options.tls == Tls::Off { "http" } else { "https" };
        let arguments = arguments(&planned, common, scheme);
        Self {
            log: common.logs.join(format!("{}.log", planned.name)),
            name: planned.name,
            data_dir: planned.data_dir,
            client_port: ports.0,
            peer_port: ports.1,
            metrics_port: ports.2,
            scheme,
            arguments,
            program: common.version.etcd().to_owned(),
            log_offset: 0,
            process: None,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its data is.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Its client URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.client_port)
    }

    /// Port of its client URL.
    #[must_use]
    pub fn client_port(&self) -> u16 {
        self.client_port
    }

    /// Its peer URL.
    #[must_use]
    pub fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer_port)
    }

    /// Its process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Its process while it has one.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// Its whole log, over all starts.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What it tells about itself under `/metrics`.
    #[must_use]
    pub fn metrics(&self) -> Option<String> {
        health::get(self.metrics_port, "/metrics")
    }

    fn log_since_start(&self) -> String {
        self.log().get(self.log_offset..).unwrap_or_default().to_owned()
    }

    pub(super) fn start(&mut self) {
        self.log_offset = self.log().len();
        let mut command = guarded(&self.program);
        command.args(&self.arguments);
        without_etcd_variables(&mut command);
        self.process = Some(Process::start(&format!("etcd {}", self.name), command, &self.log));
    }

    /// Waits until all its ports are open, and open by itself.
    pub(super) fn wait_listening(&mut self) -> Result<(), StartFailure> {
        let deadline = Instant::now() + LISTENING;
        let ports = [self.client_port, self.peer_port, self.metrics_port];
        let process = self.process.as_mut().expect("the member was started");
        loop {
            let pid = process.pid();
            if ports.iter().all(|&port| listens(pid, port)) {
                return Ok(());
            }
            if !process.running() {
                process.kill();
                let taken = process.log_tail(20).contains("address already in use");
                return Err(if taken { StartFailure::PortTaken } else { StartFailure::Ended });
            }
            // Two looks: between one look at the port and one at the process either can change.
            let foreign = || ports.iter().any(|&port| anybody_listens(port) && !listens(pid, port));
            if foreign() {
                std::thread::sleep(Duration::from_millis(100));
                if foreign() && process.running() {
                    return Err(StartFailure::PortTaken);
                }
            }
            assert!(Instant::now() < deadline, "etcd {} does not listen:\n{}", self.name, process.log_tail(40));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it answers linearizable reads, on its client port too: that one accepts nothing until the member has published itself, later than
    /// the health check already succeeds, and only the log tells without a certificate.
    pub(super) fn wait_ready(&mut self) {
        let deadline = Instant::now() + READY;
        while !(health::ready(self.metrics_port) && self.log_since_start().contains("serving client traffic")) {
            let process = self.process.as_mut().expect("the member was started");
            assert!(process.running(), "etcd {} ended:\n{}", self.name, process.log_tail(40));
            assert!(Instant::now() < deadline, "etcd {} does not get ready:\n{}", self.name, process.log_tail(40));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until it serves clients: as far as a learner gets, which answers no linearizable read.
    pub(super) fn wait_serving(&mut self) {
        let deadline = Instant::now() + READY;
        while !self.log_since_start().contains("serving client traffic") {
            let process = self.process.as_mut().expect("the member was started");
            assert!(process.running(), "etcd {} ended:\n{}", self.name, process.log_tail(40));
            assert!(Instant::now() < deadline, "etcd {} does not serve:\n{}", self.name, process.log_tail(40));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(super) fn stop(&mut self) -> Option<ExitStatus> {
        self.process.take().map(|mut process| process.terminate(STOPPING))
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }
}

fn arguments(planned: &PlannedMember, common: &Common<'_>, scheme: &str) -> Vec<String> {
    let client = format!("{scheme}://127.0.0.1:{}", planned.client.port());
    let mut arguments: Vec<String> = [
        ("name", planned.name.as_str()),
        ("data-dir", &planned.data_dir.display().to_string()),
        ("listen-client-urls", &client),
        ("advertise-client-urls", &client),
        ("listen-peer-urls", &planned.peer_url()),
        ("initial-advertise-peer-urls", &planned.peer_url()),
        ("listen-metrics-urls", &format!("http://127.0.0.1:{}", planned.metrics.port())),
        ("initial-cluster", common.initial_cluster),
        ("initial-cluster-token", common.token),
        ("initial-cluster-state", common.state),
        // 3.4 still defaults to another logger, which would write elsewhere.
        ("logger", "zap"),
        ("log-outputs", "stderr"),
    ]
    .iter()
    .map(|(flag, value)| format!("--{flag}={value}"))
    .collect();
    if let Some(quota) = common.options.quota {
        arguments.push(format!("--quota-backend-bytes={quota}"));
    }
    if let Some(tls) = common.tls {
        let Pair { cert, key } = match common.options.broken_server_cert {
            None => &tls.server,
            Some("expired-server") => &tls.expired_server,
            Some("other-name-server") => &tls.other_name_server,
            Some("ending-server") => &tls.ending_server,
            Some(other) => panic!("no server certificate {other}"),
        };
        arguments.push(format!("--cert-file={}", cert.display()));
        arguments.push(format!("--key-file={}", key.display()));
        if common.options.tls == Tls::ClientAuth {
            arguments.push("--client-cert-auth=true".to_owned());
            arguments.push(format!("--trusted-ca-file={}", tls.ca.display()));
        }
    }
    arguments.extend(common.options.arguments_of(common.version));
    arguments.extend(common.options.extra.iter().cloned());
    arguments
}

/// Settings of the developer's own shell must not reach the servers and tools under test.
pub(super) fn without_etcd_variables(command: &mut Command) {
    for (variable, _) in std::env::vars_os() {
        if variable.to_str().is_some_and(|name| name.starts_with("ETCD_") || name.starts_with("ETCDCTL_")) {
            command.env_remove(variable);
        }
    }
}
