//! A running double, and what tests do with it.

use std::ffi::OsStr;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lifeboat_tests::process::Process;
use lifeboat_tests::{Finished, Run};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::apid;
use crate::balancer;
use crate::certificates::{self, Authority, Use, Validity};
use crate::etcd::{Cluster, EtcdService, POLL, Place};
use crate::machined::boot;
use crate::network;
use crate::options::Options;
use crate::switch::Switches;
use crate::world::{Call, Kind, NodeState, World};

/// How long a new cluster may take until it answers.
const READY: Duration = Duration::from_secs(120);

/// The contexts of the talosconfig, with their roles.
const CONTEXTS: [(&str, &[&str]); 4] =
    [("admin", &["os:admin"]), ("operator", &["os:operator"]), ("reader", &["os:reader"]), ("etcd-backup", &["os:etcd:backup"])];

/// Talos nodes with real etcd processes, until dropped.
pub struct TalosDouble {
    world: Arc<World>,
    runtime: Option<Runtime>,
    /// Last: everything else lives in it.
    dir: TempDir,
}

impl TalosDouble {
    /// Starts nodes and their etcd, and waits until every member is healthy. May be called in or outside of an async runtime;
    /// it blocks the calling thread meanwhile.
    #[must_use]
    pub fn start(options: Options) -> Self {
        let dir = TempDir::new().unwrap();
        let world = Arc::new(world(options, dir.path()));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
        let double = Self { world, runtime: Some(runtime), dir };
        double.write_talosconfig();
        double.block_on(|world| async move {
            for node in &world.nodes {
                apid::listen(&world, node.index).await;
            }
            if let Some(ip) = world.load_balancer {
                balancer::listen(&world, ip).await;
            }
            if world.options.bootstrapped {
                start_cluster(&world).await;
            } else {
                for node in world.control_planes() {
                    boot(&world, node.index).await;
                }
            }
        });
        double
    }

    /// Runs something on the double's own runtime and waits for it, from any thread.
    pub(crate) fn block_on<T, F, Fut>(&self, work: F) -> T
    where
        T: Send + 'static,
        F: FnOnce(Arc<World>) -> Fut + Send + 'static,
        Fut: Future<Output = T> + Send + 'static,
    {
        let task = self.runtime.as_ref().expect("it runs until dropped").spawn(work(Arc::clone(&self.world)));
        let handle = self.runtime.as_ref().expect("it runs until dropped").handle().clone();
        // A thread of its own: the caller's may belong to a runtime, which must not block on another one.
        let waiter = std::thread::spawn(move || handle.block_on(task));
        match waiter.join() {
            Ok(Ok(done)) => done,
            Ok(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Ok(Err(error)) => panic!("{error}"),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// The talosconfig with the contexts `admin`, `operator`, `reader` and `etcd-backup`; `admin` is the default one. Its
    /// endpoints are all control plane nodes (the virtual address first, if there is one), its node is the first one.
    #[must_use]
    pub fn talosconfig(&self) -> PathBuf {
        self.dir.path().join("talosconfig")
    }

    /// Another talosconfig: its certificate has these roles (at most two), its context is `custom`.
    #[must_use]
    pub fn talosconfig_for(&self, roles: &[&str], endpoints: &[&str], nodes: &[&str]) -> PathBuf {
        self.other_talosconfig(roles, endpoints, nodes, Validity::Now)
    }

    /// A talosconfig of the admin whose certificate's time is over.
    #[must_use]
    pub fn expired_talosconfig(&self) -> PathBuf {
        let endpoint = self.node_ip(0).to_string();
        self.other_talosconfig(&["os:admin"], &[&endpoint], &[], Validity::Over)
    }

    fn other_talosconfig(&self, roles: &[&str], endpoints: &[&str], nodes: &[&str], validity: Validity) -> PathBuf {
        let pair = self.world.os.issue("", roles, &[], Use::Client, validity);
        let owned = |items: &[&str]| items.iter().map(|&item| item.to_owned()).collect::<Vec<_>>();
        let ca = &self.world.os.pair.cert;
        let text = certificates::talosconfig(&[("custom", &pair)], "custom", &owned(endpoints), &owned(nodes), ca);
        let (_, path) = tempfile::Builder::new().prefix("talosconfig-").tempfile_in(self.dir.path()).unwrap().keep().unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    fn write_talosconfig(&self) {
        let pairs: Vec<_> =
            CONTEXTS.iter().map(|(name, roles)| (*name, self.world.os.issue("", roles, &[], Use::Client, Validity::Now))).collect();
        let contexts: Vec<_> = pairs.iter().map(|(name, pair)| (*name, pair)).collect();
        let nodes = self.world.control_planes().map(|node| node.ip);
        let endpoints: Vec<String> = self.world.virtual_ip.into_iter().chain(nodes).map(|ip| ip.to_string()).collect();
        let text = certificates::talosconfig(&contexts, "admin", &endpoints, &[self.node_ip(0).to_string()], &self.world.os.pair.cert);
        std::fs::write(self.talosconfig(), text).unwrap();
    }

    /// How many nodes there are, control plane nodes first.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.world.nodes.len()
    }

    /// Indexes of the control plane nodes.
    pub fn control_planes(&self) -> std::ops::Range<usize> {
        0..self.world.options.control_planes
    }

    /// Address of a node.
    #[must_use]
    pub fn node_ip(&self, node: usize) -> Ipv4Addr {
        self.world.nodes[node].ip
    }

    /// Host name of a node, which is the name of its etcd member too.
    #[must_use]
    pub fn hostname(&self, node: usize) -> &str {
        &self.world.nodes[node].hostname
    }

    /// The virtual address, where there is one.
    #[must_use]
    pub fn virtual_ip(&self) -> Option<Ipv4Addr> {
        self.world.virtual_ip
    }

    /// The address of the load balancer: on apid's port it hands each connection to the next control plane node that is up. It
    /// belongs to no node, and the talosconfig does not name it.
    #[must_use]
    pub fn load_balancer(&self) -> Ipv4Addr {
        self.world.load_balancer.expect("Options::load_balancer")
    }

    /// The directory that stands for a node's root.
    #[must_use]
    pub fn root(&self, node: usize) -> &Path {
        &self.world.nodes[node].root
    }

    /// Changes what goes wrong on a node.
    pub fn switch(&self, node: usize, change: impl FnOnce(&mut Switches)) {
        change(&mut self.world.nodes[node].switches());
    }

    /// Every call that reached a machined, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.world.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often a call reached a machined, by Talos' name for it.
    #[must_use]
    pub fn count(&self, name: &str) -> usize {
        self.calls().iter().filter(|call| call.name == name).count()
    }

    /// Whether a node answers at all; its etcd goes on.
    pub fn set_up(&self, node: usize, up: bool) {
        self.world.nodes[node].up.send_replace(up);
    }

    /// Stops a node's etcd in an orderly way; its data stays.
    pub fn stop_etcd(&self, node: usize) {
        self.block_on(move |world| async move {
            world.nodes[node].halt_boot().await;
            world.nodes[node].etcd.lock().await.stop("Finished", "Service finished successfully");
        });
    }

    /// Ends a node's etcd by SIGKILL; its data stays.
    pub fn kill_etcd(&self, node: usize) {
        self.block_on(move |world| async move {
            world.nodes[node].halt_boot().await;
            world.nodes[node].etcd.lock().await.kill();
        });
    }

    /// Starts a node's etcd from its data.
    pub fn start_etcd(&self, node: usize) {
        self.block_on(move |world| async move { world.nodes[node].etcd.lock().await.start(&Cluster::Data).await.unwrap() });
    }

    /// Freezes a node's etcd: its connections stay open, it answers nothing.
    pub fn pause_etcd(&self, node: usize) {
        self.with_process(node, Process::pause);
    }

    /// Lets a frozen etcd go on.
    pub fn resume_etcd(&self, node: usize) {
        self.with_process(node, Process::resume);
    }

    fn with_process(&self, node: usize, work: fn(&Process)) {
        self.block_on(move |world| async move {
            if let Some(process) = world.nodes[node].etcd.lock().await.process() {
                work(process);
            }
        });
    }

    /// Starts a node anew: what its memory held is lost, etcd begins from what its disk holds.
    pub fn reboot(&self, node: usize) {
        self.block_on(move |world| async move { crate::machined::reboot(&world, node).await });
    }

    /// Waits until a node's etcd answers linearizable reads.
    pub fn wait_healthy(&self, node: usize) {
        self.block_on(move |world| async move { wait_healthy(&world.nodes[node]).await });
    }

    /// An `etcdctl` run against one node's etcd directly, with the certificate of an administrator.
    #[must_use]
    pub fn etcdctl_cmd<A: AsRef<OsStr>>(&self, node: usize, args: impl IntoIterator<Item = A>) -> Run {
        let place = &self.place(node);
        let flags = [
            format!("--endpoints={}", place.client_url()),
            format!("--cacert={}", place.ca.display()),
            format!("--cert={}", place.admin.0.display()),
            format!("--key={}", place.admin.1.display()),
        ];
        lifeboat_tests::etcd::etcdctl(place.version, flags).args(args)
    }

    /// Runs `etcdctl` against one node's etcd and insists that it succeeds.
    pub fn etcdctl<A: AsRef<OsStr>>(&self, node: usize, args: impl IntoIterator<Item = A>) -> Finished {
        self.etcdctl_cmd(node, args).run().ok()
    }

    /// A connection to one node's etcd directly, with the certificate of an administrator; `None` when it does not answer.
    pub async fn etcd_client(&self, node: usize) -> Option<etcd_api::Client> {
        self.place(node).client().await.ok()
    }

    /// The log of a node's etcd.
    #[must_use]
    pub fn etcd_log(&self, node: usize) -> PathBuf {
        self.place(node).log
    }

    /// Waits until something holds; panics with `what` when it does not in two minutes.
    pub fn wait_until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + READY;
        while !holds(self) {
            assert!(Instant::now() < deadline, "not within {READY:?}: {what}");
            std::thread::sleep(POLL);
        }
    }

    fn place(&self, node: usize) -> Place {
        self.block_on(move |world| async move { world.nodes[node].etcd.lock().await.place.clone() })
    }
}

impl Drop for TalosDouble {
    fn drop(&mut self) {
        // Dropping a runtime waits, which is not allowed within another one.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        for node in &self.world.nodes {
            // A call under way may hold it for a moment; its process dies with this program at the latest.
            if let Ok(mut etcd) = node.etcd.try_lock() {
                etcd.kill();
            }
        }
    }
}

impl fmt::Debug for TalosDouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<String> = self.world.nodes.iter().map(|node| format!("{} {}", node.hostname, node.ip)).collect();
        f.debug_struct("TalosDouble").field("nodes", &nodes).field("options", &self.world.options).finish_non_exhaustive()
    }
}

fn world(options: Options, dir: &Path) -> World {
    assert!(options.control_planes >= 1, "a cluster has a control plane");
    let count = options.control_planes + options.workers;
    let mut addresses = network::addresses(count + usize::from(options.virtual_ip) + usize::from(options.load_balancer));
    let load_balancer = options.load_balancer.then(|| addresses.pop()).flatten();
    let virtual_ip = options.virtual_ip.then(|| addresses.pop()).flatten();
    let (os, etcd) = (Authority::new("talos", &rcgen::PKCS_ED25519), Authority::new("etcd", &rcgen::PKCS_ECDSA_P256_SHA256));
    let nodes = addresses.into_iter().enumerate().map(|(index, ip)| node(&options, dir, index, ip, &etcd)).collect();
    World { options, nodes, virtual_ip, load_balancer, os, etcd, calls: Mutex::default() }
}

fn node(options: &Options, dir: &Path, index: usize, ip: Ipv4Addr, authority: &Authority) -> NodeState {
    let (kind, hostname) = if index < options.control_planes {
        (Kind::ControlPlane, format!("cp-{}", index + 1))
    } else {
        (Kind::Worker, format!("worker-{}", index + 1 - options.control_planes))
    };
    let root = dir.join(&hostname);
    let secrets = dir.join(format!("{hostname}-secrets"));
    for directory in [&root.join("var/lib"), &root.join("proc/sys/kernel/random"), &secrets] {
        std::fs::create_dir_all(directory).unwrap();
    }
    let ca = secrets.join("etcd-ca.crt");
    std::fs::write(&ca, &authority.pair.cert).unwrap();
    let member = authority.issue(&hostname, &[], &[ip, Ipv4Addr::LOCALHOST], Use::Both, Validity::Now);
    let admin = authority.issue("talos", &[], &[], Use::Client, Validity::Now);
    let mut flags = options.etcd_flags.clone();
    flags.extend(options.quota.map(|quota| format!("--quota-backend-bytes={quota}")));
    let place = Place {
        hostname: hostname.clone(),
        ip,
        version: options.etcd,
        flags,
        data: root.join("var/lib/etcd"),
        recovery: root.join("var/lib/etcd.snapshot"),
        log: dir.join(format!("{hostname}-etcd.log")),
        ca,
        member: certificates::write_pair(&secrets, "member", &member),
        admin: certificates::write_pair(&secrets, "admin", &admin),
    };
    std::fs::write(&place.log, "").unwrap();
    let node = NodeState {
        index,
        hostname,
        ip,
        kind,
        root,
        up: tokio::sync::watch::Sender::new(true),
        switches: Mutex::default(),
        etcd: Arc::new(tokio::sync::Mutex::new(EtcdService::new(place))),
        booting: Mutex::default(),
        resetting: AtomicBool::new(false),
    };
    crate::machined::new_boot_id(&node);
    node
}

async fn start_cluster(world: &Arc<World>) {
    let mut pairs = Vec::new();
    for node in world.control_planes() {
        pairs.push(node.etcd.lock().await.place.pair());
    }
    let cluster = Cluster::New(pairs.join(","));
    let mut starting = tokio::task::JoinSet::new();
    for node in world.control_planes() {
        let (etcd, cluster) = (Arc::clone(&node.etcd), cluster.clone());
        // Beside each other: a member opens its client port only when it has found the others.
        starting.spawn(async move { etcd.lock().await.start(&cluster).await.unwrap() });
    }
    while let Some(started) = starting.join_next().await {
        started.unwrap();
    }
    for node in world.control_planes() {
        wait_healthy(node).await;
    }
}

async fn wait_healthy(node: &NodeState) {
    let place = node.etcd.lock().await.place.clone();
    let deadline = Instant::now() + READY;
    while !place.is_healthy().await {
        if Instant::now() > deadline {
            let log = std::fs::read_to_string(&place.log).unwrap_or_default();
            let tail = log.lines().rev().take(20).collect::<Vec<_>>().join("\n");
            let events = node.etcd.lock().await.events.clone();
            panic!("etcd of {} does not get healthy: {events:?}\n{tail}", node.hostname);
        }
        tokio::time::sleep(POLL).await;
    }
}
