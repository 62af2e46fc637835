//! The edits to the database, as a value and as one commit.

mod drop_rows;

use std::collections::BTreeMap;

use bbolt::{Database, Edit, WriteAt};

use super::BOOTSTRAP_TERM;
use crate::cluster::ClusterSpec;
use crate::error::Error;
use crate::hash_kv::store_revision;
use crate::id::{LeaseId, Revision};
use crate::member::member_key;
use crate::row::RowKey;
use crate::scan::last_row;
use crate::schema::{
    Alarm, Lease, bucket, cluster_key, encode_lease, for_each, get, lease_key, meta_key, parse_lease_key, read_alarms, read_meta,
};

/// How far to move the revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bump {
    /// By this much beyond the last row, as etcdutl's `--bump-revision` does.
    By(u64),
    /// To exactly this revision.
    To(Revision),
}

impl Bump {
    /// The revision to move to, for a file whose last row is of `last_main` and whose revision is `revision`.
    ///
    /// # Errors
    ///
    /// [`Error::BumpNotAbove`] when that is not beyond every revision in the file, or beyond what 63 bits hold.
    pub fn target(self, last_main: Revision, revision: Revision) -> Result<Revision, Error> {
        let target = match self {
            Self::By(delta) => i64::try_from(delta).ok().and_then(|delta| last_main.0.checked_add(delta)).map(Revision),
            Self::To(target) => Some(target),
        };
        // The next write gets the revision after the target, which must exist too.
        match target.filter(|target| *target > revision && target.0 < i64::MAX) {
            Some(target) => Ok(target),
            None => Err(Error::BumpNotAbove { target: target.unwrap_or(Revision(i64::MAX)), revision }),
        }
    }
}

/// What is to be changed in a database before a server starts on it. A pure value: the same for every member of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// The new cluster: its members replace the old ones, no member counts as removed, raft's state begins anew. None leaves all
    /// that as it is, for a file that another tool will restore.
    pub cluster: Option<ClusterSpec>,
    /// The revision to move to; must be beyond every revision in the file, see [`Bump::target`].
    pub bump: Option<Revision>,
    /// Together with `bump`: everything up to there counts as compacted, so that no client can go on with what it saw before.
    pub mark_compacted: bool,
    /// Alarms go: their members do not exist any more, and NOSPACE would refuse writes from the start.
    pub clear_alarms: bool,
    /// `storageVersion`, `clusterVersion` and `downgrade` go, see [`crate::version::version_fit`].
    pub drop_versions: bool,
    /// Users, roles and passwords go and authentication is off: for a lost root password.
    pub reset_auth: bool,
    /// Leases that must exist, with their time to live in seconds; one that exists is left as it is.
    pub add_leases: Vec<(LeaseId, i64)>,
    /// Every row of the user keys that begin with one of these goes: the live one, old revisions and deletions. Leases they are attached
    /// to stay. Only together with `bump`: the file's newest row could be among them, and its revision would be handed out twice.
    pub drop_prefixes: Vec<Vec<u8>>,
}

/// What [`apply_edits`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EditReport {
    /// The store's revision before.
    pub revision_before: Revision,
    /// The store's revision after.
    pub revision_after: Revision,
    /// Number of members that were replaced.
    pub members_replaced: u64,
    /// Number of ids that counted as removed members and do not any more.
    pub removed_members_forgotten: u64,
    /// Alarms that were cleared.
    pub alarms_cleared: Vec<Alarm>,
    /// Keys of versions that were dropped.
    pub versions_dropped: Vec<&'static str>,
    /// Users and roles that were dropped.
    pub auth_entries_dropped: u64,
    /// Leases that were added.
    pub leases_added: u64,
    /// Rows that were dropped for their key's prefix, old revisions and deletions included.
    pub rows_dropped: u64,
    /// Keys that were live and went with these rows.
    pub keys_dropped: u64,
    /// Buckets that every server creates and this file did not have.
    pub buckets_created: Vec<&'static str>,
}

/// Applies the edits in one commit: after a crash the file is as before or fully edited.
///
/// # Errors
///
/// [`Error::BumpNotAbove`], [`Error::UnusableLease`], [`Error::DropWithoutBump`], [`Error::EmptyPrefix`] and [`Error::TooManyDropped`] for
/// edits that do not fit the file; the first row that cannot be decoded, where rows are dropped; [`Error::Database`]. Nothing is changed
/// then, unless the very last sync failed.
pub fn apply_edits<S: WriteAt>(database: Database<S>, edits: &Edits) -> Result<(Database<S>, EditReport), Error> {
    let mut report = EditReport::default();
    let bump = checked_bump(&database, edits, &mut report)?;
    let leases = new_leases(&database, edits)?;
    let dropped = drop_rows::find(&database, edits)?;
    survey(&database, edits, &mut report)?;
    let mut edit = Edit::begin(database)?;
    for name in bucket::ALL {
        if edit.database().bucket(name.as_bytes())?.is_none() {
            edit.create_bucket(name.as_bytes())?;
            report.buckets_created.push(name);
        }
    }
    if let Some(cluster) = &edits.cluster {
        put_cluster(&mut edit, cluster)?;
    }
    (report.rows_dropped, report.keys_dropped) = (dropped.rows.len() as u64, dropped.live);
    for row in dropped.rows {
        edit.delete(bucket::KEY.as_bytes(), &row.encode())?;
    }
    if let Some(target) = bump {
        put_bump(&mut edit, target, edits.mark_compacted)?;
        report.revision_after = target;
    }
    if edits.clear_alarms {
        edit.clear_bucket(bucket::ALARM.as_bytes())?;
    }
    if edits.drop_versions {
        drop_versions(&mut edit, &mut report)?;
    }
    if edits.reset_auth {
        for name in [bucket::AUTH, bucket::AUTH_USERS, bucket::AUTH_ROLES] {
            edit.clear_bucket(name.as_bytes())?;
        }
    }
    for (id, ttl) in leases {
        let lease = Lease { id, ttl, remaining: 0 };
        edit.put(bucket::LEASE.as_bytes(), &lease_key(id), &encode_lease(&lease))?;
        report.leases_added += 1;
    }
    Ok((edit.commit()?, report))
}

fn checked_bump<S: WriteAt>(database: &Database<S>, edits: &Edits, report: &mut EditReport) -> Result<Option<Revision>, Error> {
    let last_main = last_row(database)?.map(|row| row.key.main);
    let revision = store_revision(last_main, &read_meta(database)?);
    report.revision_before = revision;
    report.revision_after = revision;
    edits.bump.map(|target| Bump::To(target).target(last_main.unwrap_or_default(), revision)).transpose()
}

/// The leases to add that do not exist, each once.
fn new_leases<S: WriteAt>(database: &Database<S>, edits: &Edits) -> Result<Vec<(LeaseId, i64)>, Error> {
    let mut wanted: BTreeMap<[u8; 8], i64> = BTreeMap::new();
    for &(id, ttl) in &edits.add_leases {
        if id.0 == 0 || ttl <= 0 {
            return Err(Error::UnusableLease { id, ttl });
        }
        wanted.entry(lease_key(id)).or_insert(ttl);
    }
    let mut added = Vec::new();
    for (key, ttl) in wanted {
        if get(database, bucket::LEASE, &key)?.is_none() {
            added.push((parse_lease_key(&key)?, ttl));
        }
    }
    Ok(added)
}

/// Counts what the edits will take away.
fn survey<S: WriteAt>(database: &Database<S>, edits: &Edits, report: &mut EditReport) -> Result<(), Error> {
    let count = |name| -> Result<u64, Error> {
        let mut entries = 0;
        for_each(database, name, |_, _| {
            entries += 1;
            Ok(true)
        })?;
        Ok(entries)
    };
    if edits.cluster.is_some() {
        report.members_replaced = count(bucket::MEMBERS)?;
        report.removed_members_forgotten = count(bucket::MEMBERS_REMOVED)?;
    }
    if edits.clear_alarms {
        report.alarms_cleared = read_alarms(database)?;
    }
    if edits.reset_auth {
        report.auth_entries_dropped = count(bucket::AUTH_USERS)? + count(bucket::AUTH_ROLES)?;
    }
    Ok(())
}

fn put_cluster<S: WriteAt>(edit: &mut Edit<S>, cluster: &ClusterSpec) -> Result<(), Error> {
    edit.clear_bucket(bucket::MEMBERS.as_bytes())?;
    edit.clear_bucket(bucket::MEMBERS_REMOVED.as_bytes())?;
    for member in cluster.records() {
        edit.put(bucket::MEMBERS.as_bytes(), member_key(member.id).as_bytes(), member.to_json().as_bytes())?;
    }
    let meta = bucket::META.as_bytes();
    edit.put(meta, meta_key::CONSISTENT_INDEX, &cluster.last_index().to_be_bytes())?;
    edit.put(meta, meta_key::TERM, &BOOTSTRAP_TERM.to_be_bytes())?;
    edit.put(meta, meta_key::CONF_STATE, cluster.conf_state().to_json().as_bytes())?;
    Ok(())
}

/// The row with an empty value raises the revision on servers that look at rows only, and tells this history from the old one.
fn put_bump<S: WriteAt>(edit: &mut Edit<S>, target: Revision, mark_compacted: bool) -> Result<(), Error> {
    let key = RowKey::put(target, 0).encode();
    edit.put(bucket::KEY.as_bytes(), &key, &[])?;
    if mark_compacted {
        edit.put(bucket::META.as_bytes(), meta_key::SCHEDULED_COMPACT, &key)?;
    }
    Ok(())
}

fn drop_versions<S: WriteAt>(edit: &mut Edit<S>, report: &mut EditReport) -> Result<(), Error> {
    for (name, key, text) in [
        (bucket::META, meta_key::STORAGE_VERSION, "storageVersion"),
        (bucket::CLUSTER, cluster_key::CLUSTER_VERSION, "clusterVersion"),
        (bucket::CLUSTER, cluster_key::DOWNGRADE, "downgrade"),
    ] {
        if edit.delete(name.as_bytes(), key)? {
            report.versions_dropped.push(text);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
