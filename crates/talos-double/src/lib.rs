//! A double of Talos nodes in front of real etcd processes.
//!
//! Two layers, as on a real node. *apid* takes connections by mutual TLS, reads the caller's roles from the client
//! certificate and routes by the metadata `node` and `nodes`. *machined* judges the roles and answers, from a real etcd
//! process and from a state of its own. `docs/talos-double.md` is its contract: every rule with its source.
//!
//! It speaks real gRPC over real sockets and encodes every Talos message by hand ([`grpc_link::testing`]): it shares no
//! generated type with the client it tests. talosctl works against it unchanged.
//!
//! Every node has an address of its own in 127.0.0.0/8, on which apid listens on 50000 and etcd on 2379 and 2380, as on real
//! nodes. All processes and listeners end with the [`TalosDouble`].
//!
//! This is test code: it panics where a test could not go on anyway.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc, reason = "a panic with a message is how a test fails")]

mod apid;
mod balancer;
mod certificates;
mod disaster;
mod double;
mod etcd;
mod machined;
mod message;
mod network;
mod options;
mod profile;
mod switch;
mod world;

pub use double::TalosDouble;
pub use grpc_link::testing::Failure;
pub use options::Options;
pub use profile::Profile;
pub use switch::{SnapshotFault, Switches};
pub use world::{Call, Kind};
