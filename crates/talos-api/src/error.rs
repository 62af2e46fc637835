//! What can go wrong between Lifeboat and one Talos node, as types.

use std::fmt;
use std::time::Duration;

use grpc_link::LinkFault;
pub use tonic::Code;

use crate::node::{Endpoint, NodeName};
use crate::role::{Role, Roles};
use crate::snapshot::StreamViolation;

/// A failed call. It names the node where one was named, the endpoint where one was reached, and the call.
#[derive(Debug)]
pub struct Error(Box<Facts>);

#[derive(Debug)]
struct Facts {
    node: Option<NodeName>,
    endpoint: Option<Endpoint>,
    call: &'static str,
    position: Option<Position>,
    kind: ErrorKind,
}

/// How far a transfer had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Bytes received, or sent for an upload.
    pub transferred: u64,
}

/// What went wrong. Texts that come from a server are cut to [`grpc_link::TEXT_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no connection to the endpoint, or no longer one.
    #[error(transparent)]
    Link(#[from] LinkFault),
    /// No endpoint could be connected to; why, each.
    #[error("no endpoint can be reached: {}", each(.0))]
    NoEndpoint(Vec<(Endpoint, LinkFault)>),
    /// The endpoint answers and cannot reach the node behind it.
    #[error("the endpoint cannot reach the node: {0}")]
    NodeUnreachable(String),
    /// The endpoint forwards to no other node, because it is a worker: only control plane nodes can.
    #[error("the endpoint is no control plane node and cannot pass the call on")]
    NoForwarding,
    /// The roles of the client certificate do not allow the call.
    #[error("{}", denied(.needs, .had, *.newer))]
    Denied {
        /// Roles any of which is enough, the least first.
        needs: &'static [Role],
        /// Roles of our certificate.
        had: Roles,
        /// The releases since which one of our roles is enough, where it only is in newer ones than this node's.
        newer: Option<&'static str>,
    },
    /// No client certificate, or not one this cluster takes.
    #[error("not authenticated: {0}")]
    Unauthenticated(String),
    /// The node's Talos does not know the call: it is older than the call, or gone beyond it.
    #[error("the Talos of this node does not offer this call ({0})")]
    Unimplemented(String),
    /// The node is a worker, or not yet configured: there is no etcd on it.
    #[error("there is no etcd on this node: {0}")]
    NotControlPlane(String),
    /// The node answers, its etcd does not.
    #[error("etcd on this node does not answer: {0}")]
    EtcdSilent(String),
    /// etcd's own word, passed on by Talos.
    #[error("etcd: {0}")]
    Etcd(etcd_api::ErrorKind),
    /// The node is not yet, or no longer, in a state for this call. Worth a retry.
    #[error("the node is not ready for this: {0}")]
    NotReady(String),
    /// The thing asked for is not there.
    #[error("not found: {0}")]
    NotFound(String),
    /// It is done already, or something is in the way: etcd's data directory is not empty.
    #[error("already there: {0}")]
    AlreadyExists(String),
    /// The call itself is wrong.
    #[error("refused as invalid: {0}")]
    Invalid(String),
    /// The node could not serve the call now. Worth a retry.
    #[error("temporarily unavailable: {0}")]
    Unavailable(String),
    /// No answer in time. Whether a change took effect is unknown.
    #[error("no answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// An answer was larger than the limit for its call.
    #[error("the answer is too large: {0}")]
    TooLarge(String),
    /// The snapshot is not what etcd made; what was received is worthless.
    #[error("snapshot stream: {0}")]
    Snapshot(#[from] StreamViolation),
    /// An answer that Talos would not give.
    #[error("unexpected answer: {0}")]
    Protocol(String),
    /// Any other status of the server. Talos gives most of its own errors the code `Unknown`.
    #[error("{message}{}", if *.code == Code::Unknown { String::new() } else { format!(" ({:?})", .code) })]
    Rpc {
        /// gRPC status code.
        code: Code,
        /// The server's text.
        message: String,
    },
}

/// What a caller does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The caller's own input is unusable: exit 2.
    Input,
    /// The node, or etcd on it, cannot be reached: exit 30.
    Unreachable,
    /// The node is there and wants other rights.
    Denied,
    /// The node's Talos does not offer it: do without, and say so.
    NotOffered,
    /// The node answered and refuses because of the state it is in.
    Refused,
    /// The node answered what it must not answer: distrust it.
    Misbehaved,
}

fn each(faults: &[(Endpoint, LinkFault)]) -> String {
    faults.iter().map(|(endpoint, fault)| format!("{endpoint}: {fault}")).collect::<Vec<_>>().join("; ")
}

fn denied(needs: &[Role], had: &Roles, newer: Option<&str>) -> String {
    let (least, others) = match needs.split_first() {
        Some((least, others)) => (least.name(), others),
        None => (Role::Admin.name(), &[][..]),
    };
    let mut text = format!("the role {least} is needed");
    if !others.is_empty() {
        let others: Vec<&str> = others.iter().map(Role::name).collect();
        text.push_str(&format!(" (or {})", others.join(", ")));
    }
    text.push_str(&format!("; this talosconfig has {had}"));
    match newer {
        Some(newer) => text.push_str(&format!(", which is enough since Talos {newer}")),
        // Omni rewrites roles; a cluster may narrow what its service accounts may have.
        None if had.suffice(needs) => text.push_str(", which would be enough: something in front of Talos allows less"),
        None => {}
    }
    text
}

impl Error {
    pub(crate) fn new(call: &'static str, node: Option<&NodeName>, endpoint: Option<&Endpoint>, kind: impl Into<ErrorKind>) -> Self {
        Self(Box::new(Facts { node: node.cloned(), endpoint: endpoint.cloned(), call, position: None, kind: kind.into() }))
    }

    pub(crate) fn at(mut self, transferred: u64) -> Self {
        self.0.position = Some(Position { transferred });
        self
    }

    /// The node the call was about; `None` when none was named.
    #[must_use]
    pub fn node(&self) -> Option<&NodeName> {
        self.0.node.as_ref()
    }

    /// The endpoint through which it went; `None` when none could be reached.
    #[must_use]
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.0.endpoint.as_ref()
    }

    /// Name of the call, as Talos names it ("EtcdSnapshot").
    #[must_use]
    pub fn call(&self) -> &'static str {
        self.0.call
    }

    /// How far a transfer had come; `None` for calls that transfer nothing.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.0.position
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        self.0.kind.class()
    }
}

impl ErrorKind {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Link(fault) if fault.is_input() => ErrorClass::Input,
            Self::NoEndpoint(faults) if faults.iter().all(|(_, fault)| fault.is_input()) => ErrorClass::Input,
            Self::Link(_)
            | Self::NoEndpoint(_)
            | Self::NodeUnreachable(_)
            | Self::EtcdSilent(_)
            | Self::Timeout(_)
            | Self::NoForwarding => ErrorClass::Unreachable,
            Self::Denied { .. } | Self::Unauthenticated(_) => ErrorClass::Denied,
            Self::Unimplemented(_) => ErrorClass::NotOffered,
            Self::Etcd(kind) if kind.class() == etcd_api::ErrorClass::Unreachable => ErrorClass::Unreachable,
            Self::NotControlPlane(_)
            | Self::Etcd(_)
            | Self::NotReady(_)
            | Self::NotFound(_)
            | Self::AlreadyExists(_)
            | Self::Invalid(_)
            | Self::Unavailable(_)
            | Self::Rpc { .. } => ErrorClass::Refused,
            Self::TooLarge(_) | Self::Snapshot(_) | Self::Protocol(_) => ErrorClass::Misbehaved,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.node(), self.endpoint()) {
            (Some(node), Some(endpoint)) if endpoint.host() == node.as_str() => write!(f, "{node}: ")?,
            (Some(node), Some(endpoint)) => write!(f, "{node} (through {endpoint}): ")?,
            (Some(node), None) => write!(f, "{node}: ")?,
            (None, Some(endpoint)) => write!(f, "{endpoint}: ")?,
            (None, None) => {}
        }
        write!(f, "{}: {}", self.call(), self.kind())?;
        match self.0.position {
            Some(Position { transferred }) => write!(f, ", after {transferred} bytes"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The kind is already part of our own text; its own cause, if any, is what a chain printer should add.
        std::error::Error::source(&self.0.kind)
    }
}
