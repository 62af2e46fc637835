//! What Talos tells of the machines, for the checks that `talosctl health` makes (reference: `pkg/cluster/check`): asked of every node, judged elsewhere
//! ([`super::health`]).

use std::collections::BTreeSet;
use std::net::IpAddr;

use futures::future::join_all;
use talos_api::{Diagnostic, MachineStatus, Memory, Role, Service, Version};

use crate::talos::Reached;
use crate::talos::everyone::KnownNode;

/// What is known of a cluster's machines.
#[derive(Clone, Debug, Default)]
pub struct TalosFacts {
    /// Every node that is known.
    pub nodes: Vec<NodeFacts>,
    /// Why nothing more is known, where our role may not ask.
    pub untold: Option<String>,
}

/// What one node told. Each answer, or why there is none.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    /// Its host name, else its address.
    pub name: String,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Whether it belongs to the control plane.
    pub is_control_plane: bool,
    /// Whether Talos' own discovery knows it.
    pub is_discovered: bool,
    /// Its Talos.
    pub version: Result<Version, String>,
    /// Talos' own services on it.
    pub services: Result<Vec<Service>, String>,
    /// Its memory.
    pub memory: Result<Memory, String>,
    /// Bytes of the volume EPHEMERAL; `None` where it has none of its own (a container).
    pub ephemeral: Result<Option<u64>, String>,
    /// What Talos itself finds wrong; `None` where its release has no diagnostics (before 1.8).
    pub diagnostics: Result<Vec<Diagnostic>, String>,
    /// How far it has come.
    pub status: Result<Option<MachineStatus>, String>,
}

/// Asks every node, workers too where discovery knows them.
pub async fn facts(reached: &Reached) -> TalosFacts {
    if !reached.client.roles().suffice(&[Role::Reader, Role::Operator, Role::Admin]) {
        return TalosFacts {
            nodes: Vec::new(),
            untold: Some(format!("this talosconfig has {}, and machines answer os:reader", reached.client.roles())),
        };
    }
    let nodes = join_all(reached.everyone().await.into_iter().map(one)).await;
    TalosFacts { nodes, untold: None }
}

async fn one(known: KnownNode) -> NodeFacts {
    let KnownNode { name, addresses, is_control_plane, is_discovered, node } = known;
    let words = |error: talos_api::Error| error.kind().to_string();
    let (version, services, memory, ephemeral, diagnostics, status) =
        tokio::join!(node.version(), node.services(), node.memory(), node.volume("EPHEMERAL"), node.diagnostics(), node.machine_status());
    NodeFacts {
        name,
        addresses,
        is_control_plane,
        is_discovered,
        version: version.map_err(words),
        services: services.map_err(words),
        memory: memory.map_err(words),
        ephemeral: ephemeral.map(|volume| volume.map(|volume| volume.size).filter(|size| *size > 0)).map_err(words),
        diagnostics: diagnostics.map_err(words),
        status: status.map_err(words),
    }
}
