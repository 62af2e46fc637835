//! gRPC to etcd members, one member per [`Client`].
//!
//! What it is for: everything Lifeboat asks of a live etcd (3.4 to 3.7): status, membership, keys, transactions, leases,
//! watches, hashes, alarms, and above all the snapshot stream, whose every rule is enforced ([`snapshot`]).
//!
//! What it never does: it does not balance over members (a snapshot, a status and a hash are about one member), does not
//! read files or the environment, does not log secrets, and does not repeat a call except once after fetching a new
//! token. A lost answer to a write is reported as [`LinkFault::ConnectionLost`] or [`ErrorKind::Timeout`] and means that
//! nobody knows whether it took effect.
//!
//! Invariants:
//! - [`SnapshotStream`] answers `None` only when every announced byte has arrived, the trailer equals our own SHA-256,
//!   nothing followed, and the server ended with status OK. A stream can neither hang nor loop for ever.
//! - [`WatchStream`] never hands out events out of order, twice, or of another watch.
//! - Every error names its endpoint and says what the caller can do about it ([`Error::class`]).
//! - Every unary call has a deadline; every answer has a size limit ([`limits`]).
//! - A connection with no open stream is never pinged, because etcd closes such connections.
//!
//! The messages are compiled from `proto/etcd.proto`, which is ours; no protoc is needed. The feature `testing` adds a
//! server that misbehaves on command, for the tests of this and other crates.

mod auth;
pub mod client;
pub mod endpoint;
pub mod error;
#[doc(hidden)]
pub mod fuzzing;
pub mod limits;
pub mod options;
pub mod snapshot;
mod status;
#[cfg(feature = "testing")]
pub mod testing;
pub mod types;
pub mod watch;

/// Generated from `proto/etcd.proto`. Private: the wire's shapes are not ours to promise.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    reason = "generated code; the comments are in the .proto"
)]
mod pb {
    include!(concat!(env!("OUT_DIR"), "/etcdserverpb.rs"));
}

pub use client::Client;
pub use endpoint::{Endpoint, EndpointError};
pub use error::{Code, Error, ErrorClass, ErrorKind, Position};
pub use grpc_link::{LinkFault, Material, MaterialError, Scheme, TlsOptions, certificate_ends, certificates};
pub use options::{ConnectOptions, Credentials};
pub use snapshot::{SnapshotLimits, SnapshotStream, SnapshotSummary, SnapshotViolation};
pub use types::*;
pub use watch::{WatchEvent, WatchMessage, WatchRequest, WatchStream, WatchViolation};
