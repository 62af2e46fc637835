//! One connection to one gRPC server: dialling, TLS, and *why* it failed.
//!
//! What it is for: etcd members and Talos nodes are reached over the same kind of connection, mutual TLS included, and an
//! operator must be told the same things when one does not come about. The dialler is ours rather than the gRPC library's
//! because the library cannot skip verification, override the server name, read every key format, or say why a connection
//! failed: with TLS 1.3 a refused client certificate only shows after the handshake, as a broken pipe under the first call.
//!
//! What it never does: it reads no file and no environment, knows no call and no message, repeats nothing, logs nothing.
//!
//! Invariants:
//! - [`connect`] ends within the dial time-out, and every failure is a [`LinkFault`].
//! - Key bytes never reach an error or a `Debug` text.
//! - Text from a server is cut and tamed before it becomes part of an error ([`tame`]).

mod address;
mod channel;
mod dial;
mod fault;
mod material;
mod observe;
mod status;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;
mod verifier;

pub use self::address::{Address, Scheme};
pub use self::channel::{ChannelOptions, DEADLINE_GRACE, Keepalive, connect};
pub use self::fault::{ConnectFault, Fate, LinkFault};
pub use self::material::{Material, MaterialError, certificate_ends, certificates};
pub use self::status::{LocalCause, TEXT_MAX, local_cause, tame};
pub use self::tls::TlsOptions;
