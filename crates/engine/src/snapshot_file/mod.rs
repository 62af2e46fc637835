//! Plain snapshot files, as etcdctl saves them and etcdutl describes, hashes and restores them. No repository and no configuration is needed.
//!
//! What differs from etcd's own tools is only what protects: the digest is compared while saving and before every use, the structure is proven before
//! a file gets its name, files appear complete and durable or not at all, and nothing but the result is ever written to.

mod copy;
mod digest;
mod facts;
mod hash;
mod prepare;
mod restore;
mod save;
mod status;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;

use bbolt::{Database, ReadAt};
use etcd_store::DatabaseFile;
use etcd_store::snapshot_file::SnapshotLayout;

use crate::failure::{Code, Failure, Outcome};

pub use digest::Trailer;
pub(crate) use digest::compare as compare_trailer;
pub use facts::{Facts, facts};
pub use hash::hash_kv;
pub use prepare::{PrepareRequest, Prepared, prepare};
pub use restore::{RestoreRequest, Restored, restore};
pub use save::{SaveRequest, Saved, Target, save};
pub use status::{Status, status};

/// Bytes that are read, hashed and written in one step.
const STEP: usize = 1 << 20;
/// Steps that may wait between two threads.
const STEPS_WAITING: usize = 4;

/// What helps against a file that is of no use.
const ANOTHER: &str = "put a whole copy of it there, or save another with 'lifeboat snapshot save'";

/// A snapshot file, open for reading. While it is open no etcd can start on it.
pub(crate) struct Opened {
    pub(crate) file: DatabaseFile,
    pub(crate) layout: SnapshotLayout,
}

impl Opened {
    /// Opens a file and finds out where its database ends. Refuses one that a running etcd works on: it changes while it is read.
    pub(crate) fn open(path: &Path) -> Outcome<Self> {
        let unreadable = |error: &io::Error| {
            let what = match error.kind() {
                io::ErrorKind::NotFound => "there is no such snapshot file".to_owned(),
                io::ErrorKind::IsADirectory => "a snapshot file is expected, and this is a directory".to_owned(),
                _ => format!("the snapshot file cannot be read: {error}"),
            };
            Failure::failed(what).object(path.display()).again()
        };
        let file = disk::File::open_read(path).map_err(|error| unreadable(&error))?;
        // Where there are no locks (some network filesystems) nobody else could hold one either.
        if matches!(file.try_lock_shared(), Ok(false)) {
            return Err(Failure::failed("the file is in use: etcd has it open, and it changes while it is read")
                .object(path.display())
                .cause("this is the database of a running etcd; a snapshot of it is consistent")
                .next(["lifeboat", "snapshot", "save"]));
        }
        let file = DatabaseFile::new(file).map_err(|error| unreadable(&error))?;
        let layout = SnapshotLayout::read(&file).map_err(|error| unreadable(&error))?;
        Ok(Self { file, layout })
    }

    /// The same, for a file that is to be restored: one without trailer is refused unless `skip_hash_check`, for nobody knows whether it is whole.
    pub(crate) fn open_whole(path: &Path, skip_hash_check: bool) -> Outcome<Self> {
        let opened = Self::open(path)?;
        if opened.layout.trailer.is_none() && !skip_hash_check {
            // A file that was cut shows it here already; to take it without its trailer would not help.
            Database::open(&opened.file).map_err(|error| unsound(path, &chain(&error)))?;
            return Err(Failure::failed("the snapshot has no SHA-256 trailer, so nobody knows whether it is whole")
                .object(path.display())
                .cause("it was copied from a data directory, or it was cut; --skip-hash-check takes it as it is")
                .again_with(["--skip-hash-check"]));
        }
        Ok(opened)
    }
}

/// The failure of a database whose content is not what etcd writes.
pub(crate) fn unsound(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Code::Unproven, "the snapshot is not a sound etcd database")
        .object(path.display())
        .cause(format!("{error}; {ANOTHER}"))
        .again()
}

/// An error with the causes beneath it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let beneath = error.to_string();
        // Transparent errors repeat what they wrap.
        if !text.ends_with(&beneath) {
            text.push_str(": ");
            text.push_str(&beneath);
        }
        source = error.source();
    }
    text
}

/// Proves that a file holds a database with a sound structure, and that it is etcd's.
fn prove<S: ReadAt>(source: &S) -> Result<(), etcd_store::Error> {
    let database = Database::open(source)?;
    database.check()?;
    match database.bucket(etcd_store::schema::bucket::KEY.as_bytes())? {
        Some(_) => Ok(()),
        None => Err(etcd_store::Error::NotEtcd),
    }
}
