//! What a snapshot file holds, as `etcdutl snapshot status` says it.

use std::path::Path;
use std::thread;

use etcd_store::Inspection;

use super::digest::{self, Trailer};
use super::facts::inspect;
use super::{Opened, unsound};
use crate::failure::{Failure, Outcome};

/// What a snapshot file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// CRC-32C over all buckets' names, keys and values.
    pub hash: u32,
    /// The revision of the last row; 0 without rows.
    pub revision: i64,
    /// Live keys: what etcdutl 3.6 and later call total keys. The row that a revision bump leaves counts as one.
    pub live_keys: u64,
    /// Keys in all buckets, old revisions included: what etcdutl 3.5 and earlier call total keys.
    pub all_bucket_keys: u64,
    /// Bytes the database's pages take, free ones included, without the trailer.
    pub total_size: u64,
    /// The storage version the file itself records; 3.6 and later do.
    pub version: Option<String>,
    /// Whether these are the bytes the member sent.
    pub trailer: Trailer,
}

/// Proves a file's structure, compares its trailer if it has one, and describes it.
///
/// # Errors
/// [`crate::Code::Unproven`] for a damaged file; when it is missing, in use or unreadable.
pub fn status(path: &Path) -> Outcome<Status> {
    let opened = Opened::open(path)?;
    let (inspected, digest) = thread::scope(|scope| {
        // Hashing takes as long as all the rest: a second core makes it free.
        let digest = opened.layout.trailer.map(|_| scope.spawn(|| digest::sha256(&opened.file, opened.layout.database_len)));
        (inspect(&opened), digest.map(thread::ScopedJoinHandle::join))
    });
    let digest = match digest {
        None => None,
        Some(Ok(computed)) => Some(
            computed
                .map_err(|error| Failure::failed(format!("the snapshot file cannot be read: {error}")).object(path.display()).again())?,
        ),
        Some(Err(_)) => return Err(Failure::failed("the thread that hashes ended unexpectedly; this is a bug in Lifeboat")),
    };
    let compared = opened.layout.trailer.zip(digest);
    match (inspected, compared) {
        (Ok(inspection), None) => Ok(describe(&inspection, Trailer::Absent)),
        (Ok(inspection), Some((trailer, computed))) if trailer == computed => Ok(describe(&inspection, Trailer::Matches)),
        (Ok(_), Some((trailer, computed))) => Err(digest::mismatch(path, &trailer, &computed)),
        (Err(error), Some((trailer, computed))) if trailer == computed => {
            Err(unsound(path, &format!("{error}; the SHA-256 trailer agrees, so the member's own database was damaged already")))
        }
        (Err(error), Some(_)) => {
            Err(unsound(path, &format!("{error}; the SHA-256 trailer does not agree either: the file was damaged after it was saved")))
        }
        (Err(error), None) => Err(unsound(path, &error)),
    }
}

fn describe(inspection: &Inspection, trailer: Trailer) -> Status {
    Status {
        hash: inspection.status_hash,
        revision: inspection.last_main.0,
        live_keys: inspection.live_keys,
        all_bucket_keys: inspection.total_keys_all_buckets,
        total_size: inspection.total_size,
        version: inspection.meta.storage_version.map(|version| version.to_string()),
        trailer,
    }
}
