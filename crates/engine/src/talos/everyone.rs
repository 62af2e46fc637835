//! Every node of a cluster that anything tells of.

use std::collections::BTreeSet;
use std::net::IpAddr;

use talos_api::{Node, NodeName};

use super::Reached;

/// A node that is known.
#[derive(Clone, Debug)]
pub struct KnownNode {
    /// Its host name, else its address.
    pub name: String,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Whether it belongs to the control plane.
    pub is_control_plane: bool,
    /// Whether Talos' own discovery knows it; else only etcd's member list, or the talosconfig, leads there.
    pub is_discovered: bool,
    /// How it is asked.
    pub node: Node,
}

impl Reached {
    /// Every node, workers too: those that Talos' discovery knows, and those that discovery does not know and that are asked about etcd.
    pub async fn everyone(&self) -> Vec<KnownNode> {
        let of_discovery = self.discovered().await.into_iter().filter_map(|member| {
            let name = NodeName::parse(&member.addresses.first()?.to_string()).ok()?;
            Some(KnownNode {
                name: if member.hostname.is_empty() { name.to_string() } else { member.hostname },
                addresses: member.addresses.into_iter().collect(),
                is_control_plane: member.machine_type.has_etcd(),
                is_discovered: true,
                node: self.client.node(&name),
            })
        });
        let mut known: Vec<KnownNode> = of_discovery.collect();
        for node in &self.nodes {
            let address = node.name().and_then(NodeName::ip);
            let is_known = known
                .iter()
                .any(|known| address.is_some_and(|address| known.addresses.contains(&address)) || known.name == node.to_string());
            if !is_known {
                let addresses = address.into_iter().collect();
                known.push(KnownNode {
                    name: node.to_string(),
                    addresses,
                    is_control_plane: true,
                    is_discovered: false,
                    node: node.clone(),
                });
            }
        }
        known
    }
}
