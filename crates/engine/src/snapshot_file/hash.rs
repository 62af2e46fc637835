//! HashKV of a file, as `etcdutl hashkv` computes it; but the file is only read.

use std::path::Path;

use bbolt::Database;
use etcd_store::id::Revision;
use etcd_store::{Error, HashKv};

use super::{Opened, chain, unsound};
use crate::failure::{Failure, Outcome};

/// Computes HashKV of the file at a revision; 0 is the file's own.
///
/// # Errors
/// For a revision that the file has not reached or has compacted, in etcd's own words; for a file that cannot be read.
pub fn hash_kv(path: &Path, revision: Revision) -> Outcome<HashKv> {
    if revision.0 < 0 {
        return Err(Failure::usage(format!("{revision} is not a revision")).cause("--rev wants 0 (the file's own) or more").again());
    }
    let opened = Opened::open(path)?;
    let database = Database::open(&opened.file).map_err(|error| unsound(path, &chain(&error)))?;
    etcd_store::hash_kv(&database, None, revision).map_err(|error| match error {
        Error::Future { .. } => Failure::failed("mvcc: required revision is a future revision").object(path.display()).cause(error).again(),
        Error::Compacted { .. } => {
            Failure::failed("mvcc: required revision has been compacted").object(path.display()).cause(error).again()
        }
        _ => unsound(path, &chain(&error)),
    })
}
