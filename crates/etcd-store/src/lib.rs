//! What etcd keeps in its database file and beside it.
//!
//! What it is for: reading a snapshot as etcd would ([`inspect`], [`schema`], [`row`]), proving that it holds what a live member
//! held ([`hash_kv`]), saying what fills it ([`usage`]), and making a member's data directory of it ([`restore`], [`wal`], [`raft_snapshot`]) with the ids etcd
//! itself would compute ([`cluster`]).
//!
//! What it never does: it opens no network connection, runs no etcd, stops no server and takes no lock. It edits a database only
//! through [`restore::apply_edits`], in one commit, and never one that it was only asked to read. SHA-256 of whole files
//! is left to callers, who read the bytes anyway.
//!
//! Invariants:
//! - Bytes from outside are hostile: no panic, no arithmetic overflow, no memory that follows a claimed length. Every limit is a
//!   named constant in [`limits`].
//! - What is written for etcd is byte for byte what etcd's own tools write: rows, member JSON, ids, the first WAL segment.
//! - Memory does not depend on the size of values, and grows with the number of live keys only up to a stated limit; beyond it
//!   further passes are made.
//! - Writes, syncs and renames go through the `disk` crate, so that a crash at any of them can be tested.

pub mod cluster;
pub mod conf_state;
mod crc;
mod database_file;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod go_json;
mod hash_kv;
pub mod id;
mod inspect;
pub mod limits;
pub mod member;
pub mod peer_url;
mod proto;
pub mod raft_snapshot;
pub mod restore;
pub mod row;
mod scan;
pub mod schema;
pub mod snapshot_file;
pub mod usage;
pub mod version;
pub mod wal;

#[cfg(test)]
mod testing;

pub use database_file::DatabaseFile;
pub use error::{Bytes, Error, ValueProblem};
pub use hash_kv::{HashKv, hash_kv};
pub use inspect::{Captured, Classifier, Inspection, LastRowDigest, Options, RowProblem, RowWarning, inspect, inspect_and_hash};
pub use proto::Malformed;
