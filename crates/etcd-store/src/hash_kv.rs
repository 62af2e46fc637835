//! HashKV, offline: the very number a live member answers for a revision.
//!
//! Source of the algorithm: etcd `server/storage/mvcc/{hash,kvstore,key_index}.go`; verified against 3.4.23, 3.5.30, 3.6.14 and
//! 3.7.1, before, during and after compactions.

use bbolt::{Database, ReadAt};

use crate::crc::Crc32c;
use crate::error::Error;
use crate::id::Revision;
use crate::scan::{KeyRows, Wanted, last_row};
use crate::schema::{Meta, bucket, for_each, read_meta};

/// What HashKV says of a store at a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// CRC-32C over the rows that count.
    pub hash: u32,
    /// The compact revision in force, -1 when there never was one, as etcd answers it.
    pub compact_revision: i64,
    /// The revision the hash is of.
    pub revision: Revision,
}

/// The revision of a store: beyond its last row when that row was compacted away.
pub(crate) fn store_revision(last_main: Option<Revision>, meta: &Meta) -> Revision {
    Revision(1).max(last_main.unwrap_or_default()).max(meta.compact_revision().unwrap_or_default())
}

/// Computes HashKV of the state at revision `at` (0: the file's own), as if the store were compacted at `compact`.
///
/// `compact` is what a live member answered as its compact revision (-1 for never), so that its hash can be compared; `None` takes
/// the file's own, the higher one of its scheduled and finished compaction.
///
/// The structure of the file is not proven on the way, see [`bbolt::Database::check`]. One or two passes over the rows up to `at`;
/// memory as for [`crate::inspect`].
///
/// # Errors
///
/// [`Error::Future`] and [`Error::Compacted`] as a server would answer; [`Error::HistoryGone`] when the file is compacted beyond
/// `compact`; rows that cannot be decoded; [`Error::Database`].
pub fn hash_kv<S: ReadAt>(database: &Database<S>, compact: Option<Revision>, at: Revision) -> Result<HashKv, Error> {
    let meta = read_meta(database)?;
    let last = last_row(database)?.map(|row| row.key.main);
    let revision = store_revision(last, &meta);
    let compact = effective_compaction(compact, &meta)?;
    let at = if at.0 == 0 { revision } else { at };
    if at > revision {
        return Err(Error::Future { at, revision });
    }
    if let Some(compact) = compact.filter(|&compact| at < compact) {
        return Err(Error::Compacted { at, compact });
    }
    let mut crc = Crc32c::new();
    let mut rows = KeyRows::new(at, compact, crc.value(), Wanted::default());
    for_each(database, bucket::KEY, |key, value| rows.row(key, value, &mut crc))?;
    rows.finish(database)?;
    Ok(answer(rows.hash(database)?, compact, at))
}

/// The compaction to hash as of: the one asked for, if the file still has what it takes.
fn effective_compaction(asked: Option<Revision>, meta: &Meta) -> Result<Option<Revision>, Error> {
    let own = meta.compact_revision();
    let Some(asked) = asked else {
        return Ok(own);
    };
    let asked = (asked.0 >= 0).then_some(asked);
    match own {
        Some(floor) if asked < own => Err(Error::HistoryGone { compact: asked.unwrap_or(Revision(-1)), floor }),
        _ => Ok(asked),
    }
}

pub(crate) fn answer(hash: u32, compact: Option<Revision>, revision: Revision) -> HashKv {
    HashKv { hash, compact_revision: compact.map_or(-1, |compact| compact.0), revision }
}
