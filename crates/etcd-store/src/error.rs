//! Why an etcd database could not be read, hashed or edited.

use std::fmt;

use crate::id::Revision;
use crate::proto::Malformed;
use crate::row::{RowKey, RowKeyError};

/// Why an etcd database could not be read, hashed or edited.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is damaged, truncated, or no bbolt database; or reading or writing it failed.
    #[error(transparent)]
    Database(#[from] bbolt::Error),
    /// The file has no bucket `key`, so it is some other program's bbolt database.
    #[error("there is no bucket \"key\": this is not an etcd database")]
    NotEtcd,
    /// A key of the `key` bucket is not one etcd writes.
    #[error("bucket \"key\", row {key}: not a revision key: {source}")]
    RowKey {
        /// The key as found.
        key: Bytes,
        /// What is wrong with it.
        source: RowKeyError,
    },
    /// A value of the `key` bucket cannot be decoded.
    #[error("bucket \"key\", row {key}: {source}")]
    RowValue {
        /// Which row.
        key: RowKey,
        /// What is wrong with it.
        source: Malformed,
    },
    /// A value elsewhere is not what etcd writes.
    #[error("bucket {bucket:?}, key {key}: {problem}")]
    Value {
        /// The bucket.
        bucket: &'static str,
        /// The key.
        key: Bytes,
        /// What is wrong with it.
        problem: ValueProblem,
    },
    /// A list is longer than this crate reads (see [`crate::limits`]).
    #[error("bucket {bucket:?} holds more than {limit} entries")]
    TooMany {
        /// The bucket.
        bucket: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A bucket inside a bucket, which etcd never has.
    #[error("there is a bucket inside bucket {0}, which etcd never has")]
    Nested(Bytes),
    /// Two reads of the same place differ: somebody writes to the file.
    #[error("the file changed while it was read")]
    Changed,
    /// HashKV was asked for a revision below the compaction: its history is gone.
    #[error("revision {at} has been compacted; the compact revision is {compact}")]
    Compacted {
        /// The revision asked for.
        at: Revision,
        /// The compact revision in force.
        compact: Revision,
    },
    /// HashKV was asked for a revision the file has not reached.
    #[error("revision {at} is beyond the file's own, {revision}")]
    Future {
        /// The revision asked for.
        at: Revision,
        /// The file's revision.
        revision: Revision,
    },
    /// HashKV was asked as of a compaction older than the file's: rows it would need may be gone.
    #[error("a hash as of compact revision {compact} cannot be computed: the file is compacted at {floor}")]
    HistoryGone {
        /// The compact revision asked for.
        compact: Revision,
        /// The file's own.
        floor: Revision,
    },
    /// A bump must go beyond every revision in the file.
    #[error("cannot move to revision {target}: the file is at {revision} already")]
    BumpNotAbove {
        /// The revision to move to.
        target: Revision,
        /// The file's revision.
        revision: Revision,
    },
    /// A lease to be added has the id 0 or a time to live that is not positive.
    #[error("lease {id} with {ttl} seconds cannot be added")]
    UnusableLease {
        /// The lease's id.
        id: crate::id::LeaseId,
        /// Its time to live, seconds.
        ttl: i64,
    },
    /// Keys are to be dropped, and revisions are not to move on.
    #[error("keys cannot be dropped unless the revision moves on: the newest one could go with them and be handed out twice")]
    DropWithoutBump,
    /// An empty prefix is every key's.
    #[error("keys cannot be dropped by an empty prefix")]
    EmptyPrefix,
    /// More rows are to be dropped than one edit takes.
    #[error("the keys to be dropped have more than {} rows", crate::limits::MAX_DROPPED_ROWS)]
    TooManyDropped,
}

/// What is wrong with a value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ValueProblem {
    /// Not as long as it must be.
    #[error("{found} bytes long; {expected} are expected")]
    Length {
        /// The length it has.
        found: usize,
        /// The length it must have.
        expected: usize,
    },
    /// Longer than anything sound.
    #[error("{0} bytes long")]
    TooLong(usize),
    /// Not the message it should be.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Not the JSON it should be.
    #[error("not the expected JSON: {0}")]
    Json(String),
    /// Not a version like 3.6.0.
    #[error("{0:?} is not a version")]
    Version(String),
    /// Not text.
    #[error("not text")]
    Text,
    /// Not a revision key.
    #[error("not a revision: {0}")]
    Revision(#[from] RowKeyError),
    /// The key and what is stored under it name different things.
    #[error("the value is about {0}, not about its key")]
    OtherId(String),
}

/// Bytes from a file, for messages: as text where they are, else in hexadecimal, never more than a line.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

const SHOWN: usize = 64;

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        // One more byte than is shown tells that there is more.
        Self(bytes.get(..=SHOWN).unwrap_or(bytes).to_vec())
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.get(..SHOWN).unwrap_or(&self.0);
        let more = if self.0.len() > SHOWN { "…" } else { "" };
        if !shown.is_empty() && shown.iter().all(|byte| (0x20..0x7f).contains(byte)) {
            return write!(f, "{:?}{more}", String::from_utf8_lossy(shown));
        }
        f.write_str("0x")?;
        for byte in shown {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(more)
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_on_one_short_line() {
        assert_eq!(Bytes::from(&b"ab c"[..]).to_string(), "\"ab c\"");
        assert_eq!(Bytes::from(&b"\n\xff"[..]).to_string(), "0x0aff");
        assert_eq!(Bytes::from(&b""[..]).to_string(), "0x");
        assert_eq!(Bytes::from(&[b'a'; 9999][..]).to_string().chars().count(), SHOWN + 3);
    }
}
