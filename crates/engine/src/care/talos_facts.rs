//! What Talos tells of the machines, for the checks that `talosctl health` makes (reference: `pkg/cluster/check`): asked of every node, judged elsewhere
//! ([`super::health`]).

use std::collections::BTreeSet;
use std::net::IpAddr;

use futures::future::join_all;
use talos_api::{Diagnostic, MachineStatus, MachineType, Memory, Node, NodeName, Role, Service, Version};

use crate::talos::Reached;

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
    let nodes = join_all(all_nodes(reached).await.into_iter().map(one)).await;
    TalosFacts { nodes, untold: None }
}

struct Known {
    name: String,
    addresses: BTreeSet<IpAddr>,
    is_control_plane: bool,
    node: Node,
}

async fn all_nodes(reached: &Reached) -> Vec<Known> {
    let members = reached.discovered().await;
    let of_discovery = members.into_iter().filter_map(|member| {
        let name = NodeName::parse(&member.addresses.first()?.to_string()).ok()?;
        Some(Known {
            name: if member.hostname.is_empty() { name.to_string() } else { member.hostname },
            addresses: member.addresses.into_iter().collect(),
            is_control_plane: matches!(member.machine_type, MachineType::ControlPlane | MachineType::Init),
            node: reached.client.node(&name),
        })
    });
    let mut known: Vec<Known> = of_discovery.collect();
    // Discovery may be off, or not know a node that etcd's member list leads to.
    for node in &reached.nodes {
        let address = node.name().and_then(NodeName::ip);
        let is_known =
            known.iter().any(|known| address.is_some_and(|address| known.addresses.contains(&address)) || known.name == node.to_string());
        if !is_known {
            known.push(Known {
                name: node.to_string(),
                addresses: address.into_iter().collect(),
                is_control_plane: true,
                node: node.clone(),
            });
        }
    }
    known
}

async fn one(known: Known) -> NodeFacts {
    let Known { name, addresses, is_control_plane, node } = known;
    let words = |error: talos_api::Error| error.kind().to_string();
    let (version, services, memory, ephemeral, diagnostics, status) =
        tokio::join!(node.version(), node.services(), node.memory(), node.volume("EPHEMERAL"), node.diagnostics(), node.machine_status());
    NodeFacts {
        name,
        addresses,
        is_control_plane,
        version: version.map_err(words),
        services: services.map_err(words),
        memory: memory.map_err(words),
        ephemeral: ephemeral.map(|volume| volume.map(|volume| volume.size).filter(|size| *size > 0)).map_err(words),
        diagnostics: diagnostics.map_err(words),
        status: status.map_err(words),
    }
}
