//! Addresses that are no node's own: a virtual address or a load balancer among the endpoints.
//!
//! Talos elects the holder of a virtual address through etcd: without etcd there is none. As an endpoint it vanishes
//! exactly when a recovery needs it, and two calls through it may reach two nodes.
//!
//! Pure: addresses in, findings out. Source: Talos `internal/app/machined/pkg/controllers/network/operator/vip.go`.

use std::net::{IpAddr, Ipv4Addr};

use crate::node::Endpoint;

/// An address of a node with the length of its network's prefix, in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    /// The address.
    pub ip: IpAddr,
    /// 32 or 128 for an address that is a network of its own, as Talos assigns virtual ones.
    pub prefix: u8,
}

impl NodeAddress {
    fn alone(&self) -> bool {
        u32::from(self.prefix) == if self.ip.is_ipv4() { 32 } else { 128 }
    }
}

/// What a node is known by, and the addresses it tells of itself ([`Node::addresses`](crate::Node::addresses)).
pub type NodeAddresses<'a> = (&'a str, &'a [NodeAddress]);

/// An endpoint that is not one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Why.
    pub reason: Reason,
}

/// Why an endpoint is not one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Several nodes have it among their addresses: it moves between them.
    Shared(Vec<String>),
    /// This node has it at present, but as Talos assigns virtual addresses: a network of its own, beside an address that is
    /// part of a real one.
    LooksVirtual(String),
    /// No node has it: a virtual address nobody holds at present, a load balancer, or a translated address.
    Nobodys,
}

/// The endpoints that are not one node each, as far as addresses tell. Endpoints that are names are not judged; without a
/// single known address none is.
///
/// [`Reason::Nobodys`] is only worth saying when every control plane node was asked.
#[must_use]
pub fn suspects(endpoints: &[Endpoint], nodes: &[NodeAddresses<'_>]) -> Vec<Finding> {
    if nodes.iter().all(|(_, addresses)| addresses.is_empty()) {
        return Vec::new();
    }
    let judge = |endpoint: &Endpoint| Some(Finding { endpoint: endpoint.clone(), reason: reason(endpoint.ip()?, nodes)? });
    endpoints.iter().filter_map(judge).collect()
}

fn reason(ip: IpAddr, nodes: &[NodeAddresses<'_>]) -> Option<Reason> {
    let holders: Vec<&NodeAddresses<'_>> = nodes.iter().filter(|(_, addresses)| addresses.iter().any(|a| a.ip == ip)).collect();
    match holders[..] {
        [] => Some(Reason::Nobodys),
        [(name, addresses)] => {
            let alone = addresses.iter().any(|address| address.ip == ip && address.alone());
            let beside = addresses.iter().any(|address| address.ip.is_ipv4() == ip.is_ipv4() && !address.alone() && real(address.ip));
            (alone && beside).then(|| Reason::LooksVirtual((*name).to_owned()))
        }
        _ => Some(Reason::Shared(holders.iter().map(|(name, _)| (*name).to_owned()).collect())),
    }
}

/// Whether an address could be a node's main one. Of 127.0.0.0/8 only the machine's own is ruled out: others are given to
/// nodes that run on one machine.
fn real(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip != Ipv4Addr::LOCALHOST && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn an_address_that_is_not_one_nodes_own_is_named() {
        let addresses = |texts: &[&str]| -> Vec<NodeAddress> {
            let split = texts.iter().map(|text| text.split_once('/').unwrap());
            split.map(|(ip, prefix)| NodeAddress { ip: ip.parse().unwrap(), prefix: prefix.parse().unwrap() }).collect()
        };
        let endpoints: Vec<Endpoint> = ["10.0.0.2", "10.0.0.10", "10.0.0.50", "10.0.0.60", "[fd00::2]:50000", "talos.default", "10.9.0.4"]
            .map(|text| Endpoint::parse(text).unwrap())
            .into();
        let one = addresses(&["10.0.0.2/24", "10.0.0.10/32", "fd00::2/128", "127.0.0.1/8"]);
        let two = addresses(&["10.0.0.3/24", "10.0.0.10/32", "10.0.0.60/32"]);
        // Some clouds give a machine nothing but an address alone: that is its own.
        let three = addresses(&["10.9.0.4/32", "127.0.0.1/8", "169.254.1.1/16"]);
        let found = suspects(&endpoints, &[("cp-1", &one), ("cp-2", &two), ("cp-3", &three)]);
        let reasons: Vec<(usize, Reason)> =
            vec![(1, Reason::Shared(vec!["cp-1".into(), "cp-2".into()])), (2, Reason::Nobodys), (3, Reason::LooksVirtual("cp-2".into()))];
        let expected: Vec<Finding> =
            reasons.into_iter().map(|(index, reason)| Finding { endpoint: endpoints[index].clone(), reason }).collect();
        assert_eq!(found, expected);
        assert_eq!(suspects(&endpoints, &[("cp-1", &[])]), []);
        assert_eq!(suspects(&endpoints, &[]), []);
    }
}
