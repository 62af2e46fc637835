//! A running cluster.

use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, Instant};

use etcd_api::{Client, ConnectOptions, Credentials, Endpoint, TlsOptions};
use zeroize::Zeroizing;

use super::member::{Common, Member, StartFailure};
use super::options::{Options, Tls};
use super::plan::{ClusterPlan, PlannedMember};
use super::tools;
use crate::peers::EtcdVersion;
use crate::run::{Finished, Run};
use crate::tls::TlsSet;

/// How often a new cluster is started on other ports when somebody was faster.
const ATTEMPTS: u32 = 4;
/// How long one call of [`EtcdCluster::client`] may take.
const CALL: Duration = Duration::from_secs(30);
/// How long a cluster may refuse a new member because it was started just now.
const JOINING: Duration = Duration::from_secs(30);

/// Members that run until this value is dropped. Members stopped meanwhile keep their place, data and ports.
#[derive(Debug)]
pub struct EtcdCluster {
    // Before `plan`: processes end before their directories go.
    members: Vec<Member>,
    version: EtcdVersion,
    options: Options,
    tls: Option<TlsSet>,
    initial_cluster: String,
    token: String,
    authenticated: bool,
    dir: tempfile::TempDir,
}

impl EtcdCluster {
    /// A new, empty cluster, healthy.
    #[must_use]
    pub fn start(version: EtcdVersion, options: Options) -> Self {
        for attempt in 1.. {
            let plan = ClusterPlan::new(options.members).token(&options.token);
            let mut cluster = Self::prepare(version, plan, options.clone());
            match cluster.launch() {
                Ok(()) => {
                    cluster.enable_auth();
                    return cluster;
                }
                Err(failure) => {
                    let retry = failure == StartFailure::PortTaken && attempt < ATTEMPTS;
                    assert!(retry, "etcd {version} does not start: {failure:?}\n{}", cluster.logs());
                }
            }
        }
        unreachable!("the loop returns or panics")
    }

    /// One member with default options.
    #[must_use]
    pub fn single(version: EtcdVersion) -> Self {
        Self::start(version, Options::default())
    }

    /// Boots data directories that exist already, e.g. restored ones, at the places and addresses the plan fixed. Authentication is left as the data has it;
    /// give [`Options::auth`] the password when it is on.
    #[must_use]
    pub fn boot(version: EtcdVersion, plan: ClusterPlan, options: Options) -> Self {
        for member in &plan.members {
            assert!(member.data_dir.exists(), "nothing to boot at {}", member.data_dir.display());
        }
        let wait = options.wait;
        let mut cluster = Self::prepare(version, plan, options);
        if let Err(failure) = cluster.launch() {
            assert!(!wait && failure == StartFailure::Ended, "etcd {version} does not boot: {failure:?}\n{}", cluster.logs());
        }
        cluster.authenticated = cluster.options.root_password.is_some();
        cluster
    }

    /// Boots one existing data directory as a single member.
    #[must_use]
    pub fn boot_data_dir(version: EtcdVersion, data_dir: &Path, options: Options) -> Self {
        Self::boot(version, ClusterPlan::at(data_dir), options)
    }

    fn prepare(version: EtcdVersion, plan: ClusterPlan, options: Options) -> Self {
        let tls = (options.tls != Tls::Off).then(TlsSet::new);
        let initial_cluster = plan.initial_cluster();
        let ClusterPlan { dir, members, token } = plan;
        let mut cluster = Self { members: Vec::new(), version, options, tls, initial_cluster, token, authenticated: false, dir };
        let members = members.into_iter().map(|planned| cluster.place(planned, "new")).collect();
        cluster.members = members;
        cluster
    }

    fn place(&self, planned: PlannedMember, state: &str) -> Member {
        let common = Common {
            version: self.version,
            options: &self.options,
            tls: self.tls.as_ref(),
            initial_cluster: &self.initial_cluster,
            token: &self.token,
            state,
            logs: self.dir.path(),
        };
        Member::new(planned, &common)
    }

    fn launch(&mut self) -> Result<(), StartFailure> {
        for member in &mut self.members {
            member.start();
        }
        for member in &mut self.members {
            member.wait_listening()?;
        }
        if self.options.wait {
            for member in &mut self.members {
                member.wait_ready();
            }
        }
        Ok(())
    }

    fn enable_auth(&mut self) {
        let Some(password) = self.options.root_password.clone() else { return };
        drop(self.etcdctl(["user", "add", &format!("root:{password}")]));
        drop(self.etcdctl(["user", "grant-role", "root", "root"]));
        drop(self.etcdctl(["auth", "enable"]));
        self.authenticated = true;
    }

    /// The version of its servers.
    #[must_use]
    pub fn version(&self) -> EtcdVersion {
        self.version
    }

    /// All members, in the order they were made.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// A member.
    pub fn member(&mut self, index: usize) -> &mut Member {
        &mut self.members[index]
    }

    /// Client URL of a member.
    #[must_use]
    pub fn endpoint(&self, index: usize) -> String {
        self.members[index].endpoint()
    }

    /// Client URLs of all members, stopped ones too.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(Member::endpoint).collect()
    }

    /// The certificates in use, when TLS is on.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsSet> {
        self.tls.as_ref()
    }

    /// The flags with which etcdctl, and Lifeboat, reach this cluster: endpoints, certificates, user.
    #[must_use]
    pub fn client_flags(&self) -> Vec<String> {
        let mut flags = vec![format!("--endpoints={}", self.endpoints().join(","))];
        flags.extend(self.credential_flags());
        flags
    }

    /// [`EtcdCluster::client_flags`] for one member only.
    #[must_use]
    pub fn member_flags(&self, index: usize) -> Vec<String> {
        let mut flags = vec![format!("--endpoints={}", self.endpoint(index))];
        flags.extend(self.credential_flags());
        flags
    }

    fn credential_flags(&self) -> Vec<String> {
        let mut flags = Vec::new();
        if let Some(tls) = &self.tls {
            flags.push(format!("--cacert={}", tls.ca.display()));
            if self.options.tls == Tls::ClientAuth {
                flags.push(format!("--cert={}", tls.client.cert.display()));
                flags.push(format!("--key={}", tls.client.key.display()));
            }
        }
        if let (true, Some(password)) = (self.authenticated, &self.options.root_password) {
            flags.push(format!("--user=root:{password}"));
        }
        flags
    }

    /// An `etcdctl` run of the cluster's own version against all members.
    #[must_use]
    pub fn etcdctl_cmd<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Run {
        tools::etcdctl(self.version, self.client_flags()).args(args)
    }

    /// Runs `etcdctl` and insists that it succeeds; returns its output.
    pub fn etcdctl<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Finished {
        self.etcdctl_cmd(args).run().ok()
    }

    /// A connection to one member, with whatever certificates and password this cluster wants.
    pub async fn client(&self, index: usize) -> Client {
        let endpoint = Endpoint::parse(&self.endpoint(index), false).expect("our own address");
        let tls = self.tls.as_ref().map(|tls| {
            let read = |path: &Path| std::fs::read(path).expect("our own file");
            let with_client = self.options.tls == Tls::ClientAuth;
            TlsOptions {
                ca_pem: Some(read(&tls.ca)),
                cert_pem: with_client.then(|| read(&tls.client.cert)),
                key_pem: with_client.then(|| Zeroizing::new(read(&tls.client.key))),
                ..TlsOptions::default()
            }
        });
        let credentials = self
            .options
            .root_password
            .as_ref()
            .filter(|_| self.authenticated)
            .map(|password| Credentials { user: "root".to_owned(), password: password.clone().into() });
        // The machine may be busy with other tests.
        let options = ConnectOptions { tls, credentials, dial_timeout: CALL, request_timeout: CALL, ..ConnectOptions::default() };
        Client::connect(endpoint, &options).await.unwrap_or_else(|error| panic!("{error:?}\n{}", self.logs()))
    }

    /// Saves a snapshot of one member with etcdctl.
    pub fn snapshot(&self, index: usize, file: &Path) {
        drop(tools::etcdctl(self.version, self.member_flags(index)).args(["snapshot", "save"]).arg(file).run().ok());
    }

    /// Stops a member in an orderly way.
    pub fn stop_member(&mut self, index: usize) {
        self.members[index].stop();
    }

    /// Ends a member by SIGKILL, as a power cut would (but for the page cache).
    pub fn kill_member(&mut self, index: usize) {
        self.members[index].kill();
    }

    /// Waits until every running member has a leader and answers; needed before writing when a leader may just have gone.
    pub fn wait_ready(&mut self) {
        for member in self.members.iter_mut().filter(|member| member.pid().is_some()) {
            member.wait_ready();
        }
    }

    /// Starts a stopped member again, at its old place, and waits until it is ready.
    pub fn restart_member(&mut self, index: usize) {
        let member = &mut self.members[index];
        member.kill();
        member.start();
        if let Err(failure) = member.wait_listening() {
            panic!("etcd {} does not come back: {failure:?}\n{}", member.name, member.log());
        }
        if self.options.wait {
            member.wait_ready();
        }
    }

    /// Freezes a member: its connections stay open, it answers nothing.
    pub fn pause_member(&mut self, index: usize) {
        if let Some(process) = self.members[index].process() {
            process.pause();
        }
    }

    /// Lets a frozen member go on.
    pub fn resume_member(&mut self, index: usize) {
        if let Some(process) = self.members[index].process() {
            process.resume();
        }
    }

    /// Adds a member with an empty data directory, which gets everything from the leader. Returns its index.
    pub fn add_member(&mut self) -> usize {
        self.join(false)
    }

    /// [`EtcdCluster::add_member`], without a vote.
    pub fn add_learner(&mut self) -> usize {
        self.join(true)
    }

    fn join(&mut self, learner: bool) -> usize {
        let index = self.members.len();
        let name = format!("m{index}");
        let planned = PlannedMember::new(name.clone(), self.dir.path().join(format!("{name}.etcd")));
        // Asked before: once a single member has a second one announced, nothing is answered until that one runs.
        let members = self.current_members();
        self.announce(&name, &planned.peer_url(), learner);
        self.initial_cluster = format!("{members},{name}={}", planned.peer_url());
        let mut member = self.place(planned, "existing");
        member.start();
        if let Err(failure) = member.wait_listening() {
            panic!("etcd {name} does not join: {failure:?}\n{}", member.log());
        }
        if learner {
            member.wait_serving();
        } else {
            member.wait_ready();
        }
        self.members.push(member);
        index
    }

    /// `member add`, repeated while the members know each other for less than the five seconds that etcd wants before it changes its membership.
    fn announce(&self, name: &str, peer_url: &str, learner: bool) {
        let deadline = Instant::now() + JOINING;
        let vote = if learner { &["--learner"][..] } else { &[] };
        loop {
            let answer = self.etcdctl_cmd(["member", "add", name, &format!("--peer-urls={peer_url}")]).args(vote).run();
            if answer.code() == Some(0) {
                return;
            }
            assert!(answer.err().contains("unhealthy cluster") && Instant::now() < deadline, "{answer}");
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Names and peer URLs as the cluster itself has them: restored data may say otherwise than our flags do.
    fn current_members(&self) -> String {
        let list = self.etcdctl(["member", "list", "-w", "json"]).json();
        let members = list["members"].as_array().expect("etcdctl lists members").clone();
        let pairs: Vec<String> =
            members.iter().filter_map(|member| Some(format!("{}={}", member["name"].as_str()?, member["peerURLs"][0].as_str()?))).collect();
        pairs.join(",")
    }

    /// Stops all members; their data stays until this value is dropped.
    pub fn stop(&mut self) {
        for member in &mut self.members {
            member.stop();
        }
    }

    /// The end of every member's log.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for member in &self.members {
            let log = member.log();
            let lines: Vec<&str> = log.lines().collect();
            text.push_str(&format!("--- {}\n{}\n", member.name, lines[lines.len().saturating_sub(30)..].join("\n")));
        }
        text
    }
}
