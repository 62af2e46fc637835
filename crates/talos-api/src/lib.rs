//! gRPC to Talos nodes, and the talosconfig that says how to reach them.
//!
//! What it is for: everything Lifeboat asks of Talos Linux (1.8 to 1.14): etcd's snapshot, status, members, alarms and the
//! rest of its daily care, the services and logs behind them, and the resources a recovery needs.
//!
//! What it never does: it never sends `nodes` metadata, so that an error is a gRPC status and never hides in a message; it
//! never spreads calls over endpoints, so that two calls about one node reach that node; it caches no talosconfig, because
//! those of Kubernetes service accounts live six hours; it logs no secret.
//!
//! Invariants:
//! - [`SnapshotStream`] answers `None` only when the SHA-256 that ends the stream equals our own over everything before it.
//!   Talos ends a truncated stream with status OK, so the status proves nothing.
//! - A call is repeated at another endpoint only when it certainly did not reach the node, or only reads.
//! - Every error names the node, the endpoint where one was used, the call, and says what can be done ([`Error::class`]).
//! - Every unary call has a deadline; every answer has a size limit ([`limits`]).
//!
//! Vocabulary: an *endpoint* is an apid that is dialled; a *node* is the machine a call is about. apid forwards.
//!
//! The messages are compiled from `proto/talos.proto`, which is ours; no protoc is needed.

pub mod client;
pub mod error;
pub mod fuzzing;
pub mod limits;
mod node;
mod role;
pub mod snapshot;
mod status;
pub mod talosconfig;
pub mod types;
pub mod vip;

/// Generated from `proto/talos.proto`. Private: the wire's shapes are not ours to promise.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    reason = "generated code; the comments are in the .proto"
)]
mod pb {
    include!(concat!(env!("OUT_DIR"), "/talos.rs"));
}

pub use client::{Client, DataStream, Node, Options};
pub use error::{Code, Error, ErrorClass, ErrorKind, Position};
pub use grpc_link::LinkFault;
pub use node::{AddressError, Endpoint, NodeName};
pub use role::{Role, Roles};
pub use snapshot::{SnapshotStream, StreamViolation};
pub use talosconfig::{Access, ConfigError, Identity, Remaining, Selection, Talosconfig};
pub use types::*;
