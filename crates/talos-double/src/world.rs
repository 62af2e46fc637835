//! The cluster that the double plays: its nodes, certificates, and what was asked.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::certificates::Authority;
use crate::etcd::EtcdService;
use crate::options::Options;
use crate::switch::Switches;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It has etcd, and can pass calls on.
    ControlPlane,
    /// It has neither.
    Worker,
}

/// One call as it reached a node's machined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Talos' name for it, like "EtcdSnapshot".
    pub name: String,
    /// Index of the node that was dialled.
    pub endpoint: usize,
    /// Index of the node it was about.
    pub node: usize,
    /// The roles of the caller.
    pub roles: Vec<String>,
    /// The metadata `node`, as it came.
    pub node_metadata: Vec<String>,
    /// The metadata `nodes`, as it came.
    pub nodes_metadata: Vec<String>,
    /// The metadata `runtime`.
    pub runtime: Option<String>,
}

pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) nodes: Vec<NodeState>,
    pub(crate) virtual_ip: Option<Ipv4Addr>,
    pub(crate) load_balancer: Option<Ipv4Addr>,
    pub(crate) os: Authority,
    pub(crate) etcd: Authority,
    pub(crate) calls: Mutex<Vec<Call>>,
}

pub(crate) struct NodeState {
    pub(crate) index: usize,
    pub(crate) hostname: String,
    pub(crate) ip: Ipv4Addr,
    pub(crate) kind: Kind,
    /// What would be the root of its filesystem.
    pub(crate) root: PathBuf,
    /// Whether it answers at all. Every connection watches it.
    pub(crate) up: watch::Sender<bool>,
    pub(crate) switches: Mutex<Switches>,
    pub(crate) etcd: Arc<tokio::sync::Mutex<EtcdService>>,
    /// What brings etcd up: it may wait for a bootstrap or a cluster to join. Beside the service, so that it can be ended
    /// whatever it holds.
    pub(crate) booting: Mutex<Option<JoinHandle<()>>>,
    /// Whether a reset is under way.
    pub(crate) resetting: AtomicBool,
}

impl World {
    /// The node that a `node` metadata names: by address or host name.
    pub(crate) fn find(&self, target: &str) -> Option<&NodeState> {
        self.nodes.iter().find(|node| node.ip.to_string() == target || node.hostname == target)
    }

    pub(crate) fn control_planes(&self) -> impl Iterator<Item = &NodeState> {
        self.nodes.iter().filter(|node| node.kind == Kind::ControlPlane)
    }

    /// Whether a node is of the kind that bootstraps by itself.
    pub(crate) fn is_init(&self, node: &NodeState) -> bool {
        self.options.init_node && node.index == 0
    }

    /// The addresses that a node's etcd advertises; those beyond the first are of a network for documentation (RFC 5737).
    pub(crate) fn advertised(&self, node: &NodeState) -> Vec<Ipv4Addr> {
        let more = (1..self.options.advertised).map(|number| {
            let octet = |number: usize| u8::try_from(number).unwrap();
            Ipv4Addr::new(192, 0, 2, octet(10 * (node.index + 1) + number))
        });
        std::iter::once(node.ip).chain(more).collect()
    }

    pub(crate) fn record(&self, call: Call) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }
}

impl NodeState {
    pub(crate) fn switches(&self) -> MutexGuard<'_, Switches> {
        self.switches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file with the id of its present start.
    pub(crate) fn boot_id(&self) -> PathBuf {
        self.root.join("proc/sys/kernel/random/boot_id")
    }

    pub(crate) fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Ends what brings etcd up, and waits until it has let go of everything.
    pub(crate) async fn halt_boot(&self) {
        let booting = self.booting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(booting) = booting {
            booting.abort();
            let _aborted = booting.await;
        }
    }

    pub(crate) fn is_resetting(&self) -> bool {
        self.resetting.load(Ordering::Relaxed)
    }
}
