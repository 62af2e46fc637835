//! The names etcd uses in its database, and readers for everything but the rows themselves.
//!
//! Source of the layout: etcd `server/storage/schema` of 3.4 to 3.7. Readers return what a sound file holds or an error that
//! names bucket and key; lists are bounded by [`crate::limits`].

mod auth;
mod lease;
mod membership;
mod meta;

use bbolt::{Database, ReadAt};

pub use auth::{Auth, read_auth};
pub use lease::{Alarm, AlarmKind, Lease, Listing, read_alarms, read_leases};
pub(crate) use lease::{encode_lease, lease_key, parse_lease_key};
pub use membership::{ClusterVersions, Downgrade, read_cluster_versions, read_members, read_removed_members};
pub use meta::{Meta, read_meta};

use crate::error::{Bytes, Error, ValueProblem};

/// Names of the top-level buckets.
pub mod bucket {
    /// The rows, by revision.
    pub const KEY: &str = "key";
    /// Raft and schema state.
    pub const META: &str = "meta";
    /// Leases by id.
    pub const LEASE: &str = "lease";
    /// Active alarms.
    pub const ALARM: &str = "alarm";
    /// The cluster's versions.
    pub const CLUSTER: &str = "cluster";
    /// Members by id.
    pub const MEMBERS: &str = "members";
    /// Ids of members that were removed.
    pub const MEMBERS_REMOVED: &str = "members_removed";
    /// Whether authentication is on, and its revision.
    pub const AUTH: &str = "auth";
    /// Users by name.
    pub const AUTH_USERS: &str = "authUsers";
    /// Roles by name.
    pub const AUTH_ROLES: &str = "authRoles";

    /// Every bucket a server creates at start.
    pub const ALL: [&str; 10] = [KEY, META, LEASE, ALARM, CLUSTER, MEMBERS, MEMBERS_REMOVED, AUTH, AUTH_USERS, AUTH_ROLES];
}

/// Keys of the `meta` bucket.
pub mod meta_key {
    /// Last applied raft index, u64 big endian.
    pub const CONSISTENT_INDEX: &[u8] = b"consistent_index";
    /// Its term, u64 big endian; since 3.5.
    pub const TERM: &[u8] = b"term";
    /// Raft configuration in JSON; since 3.5.
    pub const CONF_STATE: &[u8] = b"confState";
    /// Schema version as text; since 3.6.
    pub const STORAGE_VERSION: &[u8] = b"storageVersion";
    /// Revision of the compaction begun last, in the form of a row key.
    pub const SCHEDULED_COMPACT: &[u8] = b"scheduledCompactRev";
    /// Revision of the compaction completed last, in the form of a row key.
    pub const FINISHED_COMPACT: &[u8] = b"finishedCompactRev";
}

/// Keys of the `cluster` bucket.
pub mod cluster_key {
    /// The version all members have in common, as text.
    pub const CLUSTER_VERSION: &[u8] = b"clusterVersion";
    /// A downgrade under way, in JSON.
    pub const DOWNGRADE: &[u8] = b"downgrade";
}

/// Calls `each` for every key and value of a bucket in ascending order; nothing when there is no such bucket. `each` returns
/// whether to go on.
pub(crate) fn for_each<S: ReadAt>(
    database: &Database<S>,
    name: &'static str,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<bool, Error>,
) -> Result<(), Error> {
    let Some(bucket) = database.bucket(name.as_bytes())? else {
        return Ok(());
    };
    let mut cursor = bucket.cursor();
    cursor.first()?;
    loop {
        if cursor.is_bucket() {
            return Err(Error::Nested(Bytes::from(name.as_bytes())));
        }
        let Some((key, value)) = cursor.item()? else {
            return Ok(());
        };
        if !each(key, value)? {
            return Ok(());
        }
        cursor.next()?;
    }
}

/// The value of one key; none when bucket or key is not there.
pub(crate) fn get<S: ReadAt>(database: &Database<S>, bucket: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    match database.bucket(bucket.as_bytes())? {
        Some(bucket) => Ok(bucket.get(key)?),
        None => Ok(None),
    }
}

pub(crate) fn value_error(bucket: &'static str, key: &[u8], problem: impl Into<ValueProblem>) -> Error {
    Error::Value { bucket, key: Bytes::from(key), problem: problem.into() }
}

pub(crate) fn parse_u64(bytes: &[u8]) -> Result<u64, ValueProblem> {
    let bytes = <[u8; 8]>::try_from(bytes).map_err(|_| ValueProblem::Length { found: bytes.len(), expected: 8 })?;
    Ok(u64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests;
