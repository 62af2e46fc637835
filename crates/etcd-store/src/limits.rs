//! Every limit this crate sets on what it reads from outside, in one place.
//!
//! A file beyond one of them is refused with an error that names the limit, or its list is cut and marked as cut; memory never
//! follows what a hostile file claims.

/// Members read from the `members` bucket, and members of one cluster to be restored.
pub const MAX_MEMBERS: usize = 1024;

/// Bytes of one JSON value (a member, a confState, a downgrade record).
pub const MAX_JSON_BYTES: usize = 64 * 1024;

/// Alarms read from the `alarm` bucket.
pub const MAX_ALARMS: usize = 4096;

/// Leases listed one by one; more are counted only.
pub const MAX_LISTED_LEASES: usize = 100_000;

/// Names of users, and of roles, listed one by one; more are counted only.
pub const MAX_LISTED_AUTH_NAMES: usize = 10_000;

/// Bytes of one name or version text that are kept; longer ones are malformed.
pub const MAX_NAME_BYTES: usize = 4096;

/// Warnings about rows kept with their text; more are counted only.
pub const MAX_WARNINGS: usize = 100;

/// Lease ids listed as missing; more are counted only.
pub const MAX_MISSING_LEASES: usize = 100_000;

/// Rows of keys with given prefixes that one edit takes out of a database; about 200 bytes of memory each until it is committed.
pub const MAX_DROPPED_ROWS: usize = 100_000;

/// Live keys tracked in one pass over the `key` bucket. With more, the pass keeps a part of the keys (chosen by their hash) and
/// further passes take the rest. About 24 bytes of memory per key.
pub const MAX_TRACKED_KEYS: usize = 1_600_000;

/// Rows whose running CRC is remembered so that HashKV needs no second pass; 8 bytes each. Beyond it a second pass is made.
pub const MAX_CHECKPOINTS: usize = 1_600_000;

/// Rows with a lease remembered in one pass, 12 bytes each; beyond it lease references are found in passes of their own.
pub const MAX_LEASED_ROWS: usize = 1_000_000;

/// Rows in the `key` bucket. Row numbers take 31 bits.
pub const MAX_ROWS: u64 = (1 << 31) - 1;

/// User keys whose live value a caller may ask to capture.
pub const MAX_CAPTURES: usize = 64;

/// Bytes of one captured value; a longer one is cut and marked.
pub const MAX_CAPTURED_BYTES: usize = 64 * 1024;

/// Bytes of one WAL record (etcd's requests are at most tens of MiB).
pub const MAX_WAL_RECORD_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes of one `.snap` file. Real ones hold the member list and are a few KiB.
pub const MAX_SNAP_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Voters or learners in one decoded `ConfState`.
pub const MAX_CONF_STATE_IDS: usize = 4096;

/// Bytes of one `--initial-cluster` text.
pub const MAX_INITIAL_CLUSTER_BYTES: usize = 256 * 1024;

/// Bytes of names and numbers held per way of grouping in one pass of [`crate::usage`]. With more, the pass keeps a part of the names
/// (chosen by their hash) and further passes take the rest.
pub const MAX_GROUPED_BYTES: usize = 32 << 20;

/// Lines of one list of [`crate::usage`].
pub const MAX_USAGE_LINES: usize = 10_000;

/// Bytes of a key or prefix that [`crate::usage`] shows; of a longer one it shows the beginning.
pub const MAX_SHOWN_NAME: usize = 4096;

/// Buckets that [`crate::usage`] lists by name; more are summed up. etcd makes ten.
pub const MAX_LISTED_BUCKETS: usize = 64;
