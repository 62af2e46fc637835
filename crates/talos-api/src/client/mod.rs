//! The cluster's nodes, spoken to through its endpoints.

mod call;
mod etcd;
mod link;
mod machine;
pub(crate) mod method;
mod recover;
mod resources;
mod stream;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

pub(crate) use self::call::Via;
use self::link::Link;
pub use self::recover::Upload;
pub use self::stream::{DataStream, FileEntry};
use crate::limits;
use crate::node::{Endpoint, NodeName};
use crate::role::Roles;
use crate::talosconfig::Access;

/// Time limits of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Limit for one attempt to connect to one endpoint, TLS included. Default 5 s.
    pub dial_timeout: Duration,
    /// Limit for each unary call that does not take its own. Default 20 s.
    pub request_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { dial_timeout: limits::DIAL_TIMEOUT, request_timeout: limits::REQUEST_TIMEOUT }
    }
}

/// One cluster as one talosconfig reaches it. Cloning is cheap; clones share the connections.
///
/// An endpoint is dialled when the first call needs it, and anew after its connection broke.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    links: Vec<Link>,
    /// Index of the endpoint that worked last.
    preferred: AtomicUsize,
    nodes: Vec<NodeName>,
    roles: Roles,
    metadata: Vec<(&'static str, MetadataValue<Ascii>)>,
    options: Options,
}

impl Client {
    /// From a context of a talosconfig. Nothing is dialled yet.
    #[must_use]
    pub fn new(access: &Access, options: Options) -> Self {
        let tls = Arc::new(access.tls.clone());
        let links = access.endpoints.iter().map(|endpoint| Link::new(endpoint.clone(), Arc::clone(&tls), options.dial_timeout)).collect();
        // What talosctl sends with every call; apid of some releases looks at it.
        let mut metadata = vec![("runtime", MetadataValue::from_static("Talos"))];
        if let Some(Ok(cluster)) = access.cluster.as_deref().map(MetadataValue::try_from) {
            metadata.push(("context", cluster));
        }
        if let Some(Ok(mut authorization)) = access.authorization.as_ref().map(|text| MetadataValue::try_from(text.as_str())) {
            authorization.set_sensitive(true);
            metadata.push(("authorization", authorization));
        }
        let shared =
            Shared { links, preferred: AtomicUsize::new(0), nodes: access.nodes.clone(), roles: access.roles(), metadata, options };
        Self { shared: Arc::new(shared) }
    }

    /// A node by its name or address. Nothing is asked yet.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Node {
        Node { client: self.clone(), name: Some(name.clone()), only: None }
    }

    /// The nodes that the talosconfig or `-n` names, in that order. Often none.
    #[must_use]
    pub fn nodes(&self) -> Vec<Node> {
        self.shared.nodes.iter().map(|name| self.node(name)).collect()
    }

    /// The machines that answer at the endpoints themselves, one each: for talosconfigs that name no node.
    ///
    /// No `node` is sent, and no other endpoint stands in. Behind a name with several addresses, a virtual address or a
    /// load balancer a new connection may reach another machine; [`Node::is_pinned`] tells.
    #[must_use]
    pub fn at_endpoints(&self) -> Vec<Node> {
        (0..self.shared.links.len()).map(|index| Node { client: self.clone(), name: None, only: Some(index) }).collect()
    }

    /// The endpoints, in the order of the talosconfig.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.shared.links.iter().map(|link| link.endpoint().clone()).collect()
    }

    /// The roles of our client certificate.
    #[must_use]
    pub fn roles(&self) -> &Roles {
        &self.shared.roles
    }

    /// The endpoints to try for a node, best first: the node itself, which spares a hop; the one that worked last; the
    /// others in their order.
    fn order(&self, node: Option<&NodeName>) -> Vec<usize> {
        let links = &self.shared.links;
        let direct = node.and_then(|node| links.iter().position(|link| link.endpoint().host() == node.as_str()));
        let preferred = self.shared.preferred.load(Ordering::Relaxed);
        let mut order: Vec<usize> = direct.into_iter().chain([preferred]).chain(0..links.len()).collect();
        let mut seen = vec![false; links.len()];
        order.retain(|&index| seen.get_mut(index).is_some_and(|seen| !std::mem::replace(seen, true)));
        order
    }

    fn worked(&self, index: usize) {
        self.shared.preferred.store(index, Ordering::Relaxed);
    }

    fn metadata(&self, node: Option<&NodeName>) -> MetadataMap {
        let mut map = MetadataMap::new();
        for (name, value) in &self.shared.metadata {
            map.insert(*name, value.clone());
        }
        // A node's name is checked when it is made: it always fits.
        if let Some(Ok(value)) = node.map(|node| MetadataValue::try_from(node.as_str())) {
            map.insert("node", value);
        }
        map
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoints", &self.endpoints())
            .field("nodes", &self.shared.nodes)
            .field("roles", &self.shared.roles)
            .finish_non_exhaustive()
    }
}

/// One machine, about which every call of this value is. Cloning is cheap.
#[derive(Clone)]
pub struct Node {
    client: Client,
    name: Option<NodeName>,
    /// The one endpoint that may be used, where the machine is the one behind it.
    only: Option<usize>,
}

impl Node {
    /// Its name or address; `None` for the machine behind an endpoint.
    #[must_use]
    pub fn name(&self) -> Option<&NodeName> {
        self.name.as_ref()
    }

    /// Whether every call reaches the same machine: it is named, or its endpoint is an address. An address may still be a
    /// virtual one ([`crate::vip`]).
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.name.is_some() || self.link_of_only().is_some_and(|link| link.endpoint().ip().is_some())
    }

    /// Its client.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    fn link_of_only(&self) -> Option<&Link> {
        self.only.and_then(|index| self.client.shared.links.get(index))
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.link_of_only()) {
            (Some(name), _) => name.fmt(f),
            (None, Some(link)) => link.endpoint().fmt(f),
            (None, None) => f.write_str("any node"),
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Node").field(&self.to_string()).finish()
    }
}
