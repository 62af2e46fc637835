//! What Lifeboat does: plans, and their execution.
//!
//! A plan is a value, made by pure functions from what was found out; `--dry-run` prints the plan that execution would carry out. Everything that
//! touches the network, the disk or the store is in this crate's drivers, on top of the pure crates below.
//!
//! It never prints, never reads the command line or the environment (but for the default place of the spool), and never ends the process: it returns
//! reports and [`Failure`]s, which the command line turns into words and exit codes.
//!
//! Invariants: a backup that was not committed by its manifest is not listed anywhere; nothing is written to the cluster that is backed up; no plain
//! byte of a snapshot reaches a disk under a name (`--no-encrypt` and `--snapshot-file` are asked for); the old data directory is moved, never removed.

pub mod access;
pub mod backup;
pub mod cache;
pub mod care;
pub mod choice;
pub mod config;
pub mod copy;
pub mod drill;
pub mod exclusion;
pub mod extra;
pub mod failure;
pub mod feed;
pub mod fetch;
pub mod init;
pub mod journal;
pub mod judge;
pub mod key_check;
pub mod known_stores;
pub mod label;
pub mod lease;
pub mod limits;
pub mod lineage;
pub mod member_link;
mod memory;
pub mod next;
pub mod opening;
mod order;
pub mod place;
pub mod progress;
pub mod prune;
pub mod record;
pub mod recover;
pub mod restore;
pub mod schedule;
pub mod seal_pipeline;
pub mod select;
pub mod snapshot_file;
pub mod source;
pub mod source_failure;
pub mod spool;
pub mod status;
pub mod store_failure;
pub mod store_kind;
pub mod stored;
pub mod stores;
pub mod talos;
mod temporary;
pub mod top;
pub mod try_etcd;
pub mod verify;

pub use access::Access;
pub use failure::{Code, Failure, Outcome};
