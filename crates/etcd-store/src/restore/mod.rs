//! Making a member's data directory of a snapshot: the edits to its database, and the files beside it.
//!
//! Source of the order of work: etcd `etcdutl/snapshot/v3_snapshot.go`. Beyond etcdutl the old confState is replaced, alarms can be
//! cleared, versions and keys of others dropped and leases added, everything is made durable, and all database edits are one commit.
//!
//! A restore is: the database without its trailer at `<member>/snap/db`, [`apply_edits`] on it, [`write_member_files`] beside it,
//! for every member with the same [`Edits`] (other revisions or members in one member of a cluster diverge silently).

mod edits;
mod files;

pub use edits::{Bump, EditReport, Edits, apply_edits};
pub use files::{FileError, MemberFiles, write_member_files};

/// The raft term in which the members of a restored cluster are added.
pub const BOOTSTRAP_TERM: u64 = 1;
