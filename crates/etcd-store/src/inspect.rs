//! Everything worth knowing about a snapshot file, in one pass.

use std::collections::{BTreeMap, BTreeSet};

use bbolt::{CheckReport, Database, ReadAt, Visitor};
use sha2::{Digest, Sha256};

use crate::crc::Crc32c;
use crate::error::{Bytes, Error};
use crate::hash_kv::{HashKv, answer, store_revision};
use crate::id::{LeaseId, MemberId, Revision};
use crate::limits::{MAX_CAPTURES, MAX_MISSING_LEASES};
use crate::member::MemberRecord;
pub use crate::scan::{Captured, Classifier, RowProblem, RowWarning};
use crate::scan::{KeyRows, LastRow, Wanted, last_row};
use crate::schema::{
    Alarm, Auth, ClusterVersions, Listing, Meta, bucket, for_each, parse_lease_key, read_alarms, read_auth, read_cluster_versions,
    read_leases, read_members, read_meta, read_removed_members,
};
use crate::version::Version;

/// What to find out beside what always is.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// Puts a live key, with its value, into a class; the result counts the keys of each class. Called for every row that is not a
    /// deletion, so it must be cheap.
    pub classify: Option<Classifier<'a>>,
    /// User keys whose live value is wanted, at most [`MAX_CAPTURES`]; more are ignored.
    pub capture: &'a [&'a [u8]],
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("classify", &self.classify.is_some()).field("capture", &self.capture.len()).finish()
    }
}

/// The last row of the `key` bucket: what tells one history from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastRowDigest {
    /// Its main revision.
    pub main: Revision,
    /// Its sub revision.
    pub sub: i64,
    /// SHA-256 over the row's key and value as stored, lower-case hex.
    pub sha256: String,
}

/// What [`inspect`] found.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The proof of the structure, with page counts.
    pub check: CheckReport,
    /// Page size, bytes.
    pub page_size: u32,
    /// What etcdutl prints as total size: high-water mark times page size, bytes.
    pub total_size: u64,
    /// What etcdutl prints as hash: CRC-32C over every bucket's name, keys and values.
    pub status_hash: u32,
    /// The store's revision: the highest of the last row, both compaction marks, and 1.
    pub revision: Revision,
    /// What etcdutl prints as revision: the main revision of the last row, 0 without rows.
    pub last_main: Revision,
    /// Rows in the `key` bucket, deletions included.
    pub rows: u64,
    /// Of these the deletions.
    pub tombstones: u64,
    /// Keys in all buckets: what etcdutl 3.4 and 3.5 print as total keys.
    pub total_keys_all_buckets: u64,
    /// Live keys by etcd's own count: what etcdutl 3.6 and later print as total keys. The row a bump leaves counts as one; see
    /// [`Inspection::user_keys`].
    pub live_keys: u64,
    /// What the `meta` bucket says: term, index, confState, both compaction marks, storage version.
    pub meta: Meta,
    /// The higher one of both compaction marks.
    pub compact_revision: Option<Revision>,
    /// True when a compaction was begun and not completed.
    pub mid_compaction: bool,
    /// Revision of the newest row with an empty value, which a bump leaves; none when no bump was ever made.
    pub epoch: Option<Revision>,
    /// The last row; none without rows.
    pub last_row: Option<LastRowDigest>,
    /// Number of leases.
    pub leases: u64,
    /// Leases that live rows refer to and that do not exist, ascending as unsigned numbers. On a server one `put --ignore-lease`
    /// to such a key is fatal.
    pub missing_leases: Listing<LeaseId>,
    /// Active alarms.
    pub alarms: Vec<Alarm>,
    /// Members as the file knows them.
    pub members: Vec<MemberRecord>,
    /// Members that were removed.
    pub removed_members: Vec<MemberId>,
    /// The cluster's version and a downgrade under way.
    pub versions: ClusterVersions,
    /// The version of the storage schema: as written down (3.6 and later), else guessed (3.5), else none (3.4).
    pub storage_version: Option<Version>,
    /// Users, roles, and whether authentication is on.
    pub auth: Auth,
    /// Live keys per class; empty without a classifier.
    pub classes: BTreeMap<u16, u64>,
    /// Live values, one for each key asked for, in that order.
    pub captured: Vec<Option<Captured>>,
    /// Rows no known etcd would write.
    pub warnings: Listing<RowWarning>,
}

impl Inspection {
    /// Live keys that users can see: without the one a bump leaves.
    #[must_use]
    pub fn user_keys(&self) -> u64 {
        self.live_keys.saturating_sub(u64::from(self.epoch.is_some()))
    }
}

/// Proves the structure of a snapshot and finds out everything about it in one pass.
///
/// Memory: about 24 bytes per live key and 8 per row that is not newer than the compact revision, whatever the values' size;
/// beyond [`crate::limits::MAX_TRACKED_KEYS`] keys further passes are made instead.
///
/// # Errors
///
/// [`Error::Database`] for a damaged structure; [`Error::NotEtcd`]; the first row or value that cannot be decoded. Rows that decode
/// and are odd are warnings.
pub fn inspect<S: ReadAt>(database: &Database<S>, options: &Options<'_>) -> Result<Inspection, Error> {
    examine(database, options, false).map(|(inspection, _)| inspection)
}

/// The same, with HashKV of the file's own revision and compaction; one more pass in rare cases.
///
/// # Errors
///
/// As [`inspect`].
pub fn inspect_and_hash<S: ReadAt>(database: &Database<S>, options: &Options<'_>) -> Result<(Inspection, HashKv), Error> {
    let (inspection, hash) = examine(database, options, true)?;
    let hash_kv = answer(hash, inspection.compact_revision, inspection.revision);
    Ok((inspection, hash_kv))
}

/// Sees every bucket.
struct Everything<'a> {
    crc: Crc32c,
    rows: Option<KeyRows<'a>>,
    prepared: Box<dyn Fn(u32) -> KeyRows<'a> + 'a>,
    in_rows: bool,
    keys: u64,
}

impl Visitor for Everything<'_> {
    type Error = Error;

    fn bucket(&mut self, name: &[u8], _sequence: u64) -> Result<(), Error> {
        self.crc.update(name);
        self.in_rows = name == bucket::KEY.as_bytes();
        if self.in_rows {
            self.rows = Some((self.prepared)(self.crc.value()));
        }
        Ok(())
    }

    fn item(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.keys += 1;
        match &mut self.rows {
            Some(rows) if self.in_rows => {
                // The file's revision was read before; a row beyond it was written since.
                if !rows.row(key, value, &mut self.crc)? {
                    return Err(Error::Changed);
                }
            }
            _ => {
                self.crc.update(key);
                self.crc.update(value);
            }
        }
        Ok(())
    }

    fn nested(&mut self, path: &[Vec<u8>], _sequence: u64) -> Result<(), Error> {
        Err(Error::Nested(Bytes::from(path.first().map_or(&[][..], Vec::as_slice))))
    }
}

fn examine<S: ReadAt>(database: &Database<S>, options: &Options<'_>, hash: bool) -> Result<(Inspection, u32), Error> {
    let meta = read_meta(database)?;
    let last = last_row(database)?;
    let last_main = last.as_ref().map(|row| row.key.main);
    let revision = store_revision(last_main, &meta);
    let compact_revision = meta.compact_revision();
    let capture = options.capture.get(..MAX_CAPTURES).unwrap_or(options.capture);
    let wanted = Wanted { classify: options.classify, capture };
    let mut all = Everything {
        crc: Crc32c::new(),
        rows: None,
        prepared: Box::new(move |crc| KeyRows::new(revision, compact_revision, crc, wanted)),
        in_rows: false,
        keys: 0,
    };
    let check = database.walk(&mut all)?;
    let mut rows = all.rows.ok_or(Error::NotEtcd)?;
    if rows.last_key() != last.as_ref().map(|row| row.key) {
        return Err(Error::Changed);
    }
    rows.finish(database)?;
    let hash_kv = if hash { rows.hash(database)? } else { 0 };
    let missing_leases = missing_leases(database, &mut rows)?;
    let page_size = database.meta().page_size;
    let inspection = Inspection {
        page_size,
        total_size: check.pages.saturating_mul(u64::from(page_size)),
        check,
        status_hash: all.crc.value(),
        revision,
        last_main: last_main.unwrap_or_default(),
        rows: rows.rows,
        tombstones: rows.tombstones,
        total_keys_all_buckets: all.keys,
        live_keys: rows.live_keys(),
        compact_revision,
        mid_compaction: meta.mid_compaction(),
        epoch: rows.epoch,
        last_row: last.as_ref().map(digest),
        leases: read_leases(database, 0)?.total,
        missing_leases,
        alarms: read_alarms(database)?,
        members: read_members(database)?,
        removed_members: read_removed_members(database)?,
        versions: read_cluster_versions(database)?,
        storage_version: meta.storage_version_guess(),
        auth: read_auth(database)?,
        classes: if options.classify.is_some() { rows.classes() } else { BTreeMap::new() },
        captured: rows.captured,
        warnings: rows.warnings,
        meta,
    };
    Ok((inspection, hash_kv))
}

fn digest(row: &LastRow) -> LastRowDigest {
    let mut hash = Sha256::new();
    hash.update(&row.key_bytes);
    hash.update(&row.value);
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    LastRowDigest { main: row.key.main, sub: row.key.sub, sha256 }
}

/// Compares the leases that live rows refer to with those that exist; both come in the same order.
fn missing_leases<S: ReadAt>(database: &Database<S>, rows: &mut KeyRows<'_>) -> Result<Listing<LeaseId>, Error> {
    let mut missing: BTreeSet<u64> = BTreeSet::new();
    let mut beyond = 0;
    rows.for_leases(database, |referred| {
        let mut note = |id: LeaseId| {
            if missing.len() < MAX_MISSING_LEASES {
                missing.insert(id.0.cast_unsigned());
            } else if !missing.contains(&id.0.cast_unsigned()) {
                beyond += 1;
            }
        };
        let mut waiting = referred.iter().copied().peekable();
        for_each(database, bucket::LEASE, |key, _| {
            let exists = parse_lease_key(key)?;
            while let Some(id) = waiting.next_if(|id| id.0.cast_unsigned() < exists.0.cast_unsigned()) {
                note(id);
            }
            waiting.next_if_eq(&exists);
            Ok(waiting.peek().is_some())
        })?;
        waiting.for_each(note);
        Ok(())
    })?;
    let total = missing.len() as u64 + beyond;
    Ok(Listing { items: missing.into_iter().map(|id| LeaseId(id.cast_signed())).collect(), total })
}
