//! What a plan says of a snapshot file, found out without writing anything.

use std::path::Path;
use std::thread;

use bbolt::{Database, ReadAt};
use etcd_store::member::MemberRecord;
use etcd_store::schema::Alarm;
use etcd_store::{Inspection, Options};

use super::digest::{self, Trailer, hex};
use super::{Opened, chain, unsound};
use crate::failure::{Failure, Outcome};

/// What a snapshot file holds, as far as a restore goes by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Size of the file in bytes, trailer included.
    pub size: u64,
    /// SHA-256 of the database, without the trailer: 64 lower-case hexadecimal digits.
    pub database_sha256: String,
    /// Whether these are the bytes the member sent.
    pub trailer: Trailer,
    /// The store's revision, at least 1.
    pub revision: i64,
    /// The higher one of both compaction marks; none where nothing was ever compacted.
    pub compact_revision: Option<i64>,
    /// Revision of the newest row with an empty value in the `key` bucket, which a bump leaves; 0 without one. As in a lineage's name.
    pub epoch: i64,
    /// Live keys that users can see: without the one a bump leaves.
    pub live_keys: u64,
    /// The version of the storage schema, as the file records it (3.6 and later) or as its content tells (3.5).
    pub storage_version: Option<String>,
    /// The version that all members had in common, as the file records it.
    pub cluster_version: Option<String>,
    /// The members, as the `members` bucket has them.
    pub members: Vec<MemberRecord>,
    /// Active alarms.
    pub alarms: Vec<Alarm>,
    /// Raft's index applied last, of the `meta` bucket.
    pub consistent_index: Option<u64>,
    /// Its term, of the `meta` bucket; 3.5 and later.
    pub term: Option<u64>,
}

impl Facts {
    pub(super) fn of(inspection: Inspection, opened: &Opened, database_sha256: &[u8; 32], trailer: Trailer) -> Self {
        Self {
            size: opened.file.size(),
            database_sha256: hex(database_sha256),
            trailer,
            revision: inspection.revision.0,
            compact_revision: inspection.compact_revision.map(|revision| revision.0),
            epoch: inspection.epoch.map_or(0, |revision| revision.0),
            live_keys: inspection.user_keys(),
            storage_version: inspection.storage_version.map(|version| version.to_string()),
            cluster_version: inspection.versions.cluster_version.map(|version| version.to_string()),
            members: inspection.members,
            alarms: inspection.alarms,
            consistent_index: inspection.meta.consistent_index,
            term: inspection.meta.term,
        }
    }
}

/// Proves a file's structure, compares its trailer, and says what it holds. Blocks the calling thread while all of the file is read, twice side
/// by side.
///
/// # Errors
/// [`crate::Code::Unproven`] for a damaged file, also for one whose trailer does not agree, unless `skip_hash_check`; without that a file that has
/// no trailer is refused too. When it is missing, in use or unreadable.
pub fn facts(path: &Path, skip_hash_check: bool) -> Outcome<Facts> {
    let opened = Opened::open_whole(path, skip_hash_check)?;
    let (inspected, hashed) = thread::scope(|scope| {
        let hashed = scope.spawn(|| digest::sha256(&opened.file, opened.layout.database_len));
        (inspect(&opened), hashed.join())
    });
    let computed = hashed
        .map_err(|_| Failure::failed("the thread that hashes ended unexpectedly; this is a bug in Lifeboat"))?
        .map_err(|error| Failure::failed(format!("the snapshot file cannot be read: {error}")).object(path.display()).again())?;
    // Of a file that was damaged after it was saved the digest tells more than the first page that is wrong.
    let trailer = digest::compare(&opened, path, &computed, skip_hash_check)?;
    let inspection = inspected.map_err(|error| unsound(path, &error))?;
    Ok(Facts::of(inspection, &opened, &computed, trailer))
}

/// Proves the structure and reads everything; the error says what is wrong, in one line.
pub(super) fn inspect(opened: &Opened) -> Result<Inspection, String> {
    let database = Database::open(&opened.file).map_err(|error| chain(&error))?;
    etcd_store::inspect(&database, &Options::default()).map_err(|error| chain(&error))
}
