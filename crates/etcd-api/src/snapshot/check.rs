//! The rules of the snapshot stream, as a pure state machine: values in, verdict out.
//!
//! Source: etcd 3.4 to 3.7, `server/etcdserver/api/v3rpc/maintenance.go` (3.4: `etcdserver/api/v3rpc/maintenance.go`).
//! The server reads the database in pieces of at most 32 KiB and sends each with the number of bytes still to come; after
//! the last piece it sends one message whose blob is the SHA-256 of everything, with zero bytes to come. Both the last
//! piece and the trailer say zero, so they can only be told apart by counting.

use std::fmt;
use std::time::Duration;

use ring::digest;

use crate::limits;

/// Length of the trailer.
const DIGEST: usize = 32;

/// How much is asked of one snapshot stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotLimits {
    /// Longest wait for one message. Default 30 s.
    pub idle_timeout: Duration,
    /// Within this much time spent waiting on the server ... Default 120 s.
    pub progress_window: Duration,
    /// ... at least this many database bytes must arrive. Default 1 MiB.
    pub progress_bytes: u64,
    /// Most empty messages in a row while bytes are missing. Default 16.
    pub max_empty_blobs: u32,
    /// Largest blob, in bytes. Default 4 MiB; servers send 32 KiB.
    pub max_blob: usize,
    /// Largest database, in bytes. Default 1 TiB.
    pub max_database: u64,
}

impl Default for SnapshotLimits {
    fn default() -> Self {
        Self {
            idle_timeout: limits::SNAPSHOT_IDLE_TIMEOUT,
            progress_window: limits::SNAPSHOT_PROGRESS_WINDOW,
            progress_bytes: limits::SNAPSHOT_PROGRESS_BYTES,
            max_empty_blobs: limits::SNAPSHOT_EMPTY_BLOBS_MAX,
            max_blob: limits::SNAPSHOT_BLOB_MAX,
            max_database: limits::SNAPSHOT_DATABASE_MAX,
        }
    }
}

/// A SHA-256 digest; prints as lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256(pub [u8; DIGEST]);

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A rule of the stream that was broken. Offsets count database bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotViolation {
    /// The first message announces a size no etcd database has.
    #[error("a database of {size} bytes is announced: {fact}")]
    ImplausibleSize {
        /// Announced size.
        size: u64,
        /// Why it cannot be.
        fact: &'static str,
    },
    /// A blob is larger than the limit.
    #[error("a blob of {size} bytes at offset {offset} is over the limit of {limit}")]
    BlobTooLarge {
        /// Where it would have gone.
        offset: u64,
        /// Its length.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// `remaining_bytes` did not fall by exactly the length of the blob.
    #[error("at offset {offset} a blob of {blob} bytes says {said} bytes remain, {expected} would be right")]
    WrongRemaining {
        /// Where the blob begins.
        offset: u64,
        /// Its length.
        blob: usize,
        /// What it says.
        said: u64,
        /// What would be right.
        expected: u64,
    },
    /// More database bytes than the first message announced.
    #[error("a blob of {blob} bytes at offset {offset} goes past the announced {total} bytes")]
    TooManyBytes {
        /// Where the blob begins.
        offset: u64,
        /// Its length.
        blob: usize,
        /// What the first message announced.
        total: u64,
    },
    /// Too many empty messages in a row while bytes were missing: the member cannot read its own database file.
    #[error("{count} empty blobs in a row at offset {offset} of {total}: the member cannot read its database file")]
    EmptyBlobs {
        /// Where it stopped.
        offset: u64,
        /// What the first message announced.
        total: u64,
        /// How many.
        count: u32,
    },
    /// The message after the last database byte is not a 32-byte digest.
    #[error("the trailer has {size} bytes and {remaining} remaining, 32 and 0 would be right")]
    BadTrailer {
        /// Its length.
        size: usize,
        /// The `remaining_bytes` it carries.
        remaining: u64,
    },
    /// The bytes that arrived are not those the member hashed.
    #[error("the member sent digest {sent}, the received bytes have {computed}")]
    WrongDigest {
        /// The trailer.
        sent: Sha256,
        /// Over what arrived.
        computed: Sha256,
    },
    /// A message after the trailer.
    #[error("a message with a blob of {size} bytes follows the trailer")]
    AfterTrailer {
        /// Length of its blob.
        size: usize,
    },
    /// The version text is longer than the limit.
    #[error("the storage version has {size} bytes")]
    VersionTooLong {
        /// Its length.
        size: usize,
    },
    /// The stream ended, with status OK, before the first message.
    #[error("the stream ended before its first message")]
    EndedEmpty,
    /// The stream ended, with status OK, before the last database byte.
    #[error("the stream ended after {received} of {total} bytes")]
    EndedShort {
        /// Bytes received.
        received: u64,
        /// What the first message announced.
        total: u64,
    },
    /// The stream ended, with status OK, before the trailer.
    #[error("the stream ended without the digest after {total} bytes")]
    EndedWithoutTrailer {
        /// What the first message announced.
        total: u64,
    },
    /// No message within the idle time-out.
    #[error("no message for {:.1} s at offset {offset}", .waited.as_secs_f64())]
    Idle {
        /// Where it stopped.
        offset: u64,
        /// How long we waited.
        waited: Duration,
    },
    /// Messages come, bytes hardly do.
    #[error("only {bytes} bytes in {:.1} s of waiting at offset {offset}", .waited.as_secs_f64())]
    NoProgress {
        /// Where it stopped.
        offset: u64,
        /// Bytes since the last mark.
        bytes: u64,
        /// Time spent waiting since then.
        waited: Duration,
    },
    /// The caller asked for the result of a stream that it did not read to its proven end.
    #[error("the stream was not read to its end ({received} bytes received)")]
    NotFinished {
        /// Bytes received.
        received: u64,
    },
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Its blob is the next piece of the database.
    Data,
    /// It carries nothing; tolerated a few times.
    Nothing,
    /// It is the trailer, and it matches.
    Trailer,
}

/// What a stream that kept every rule has delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotSummary {
    /// Length of the database in bytes, trailer not counted.
    pub database_size: u64,
    /// SHA-256 of the database; equal to the trailer the member sent. It protects the transport only: the member
    /// computes it over bytes it has just read and cannot know whether those were sound.
    pub sha256: [u8; DIGEST],
    /// SHA-256 of the snapshot file: the database followed by the trailer.
    pub file_sha256: [u8; DIGEST],
    /// Storage version of the database; told by 3.6 and later.
    pub storage_version: Option<String>,
}

/// The state machine. After an `Err` the stream is worthless and the checker must not be used again.
pub(crate) struct Checker {
    limits: SnapshotLimits,
    total: Option<u64>,
    received: u64,
    empty_run: u32,
    since_mark: u64,
    waited_since_mark: Duration,
    hash: digest::Context,
    trailer: Option<Sha256>,
    version: Option<String>,
}

impl Checker {
    pub(crate) fn new(limits: SnapshotLimits) -> Self {
        Self {
            limits,
            total: None,
            received: 0,
            empty_run: 0,
            since_mark: 0,
            waited_since_mark: Duration::ZERO,
            hash: digest::Context::new(&digest::SHA256),
            trailer: None,
            version: None,
        }
    }

    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    pub(crate) fn total(&self) -> Option<u64> {
        self.total
    }

    pub(crate) fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Judges the next message. `waited` is the time spent waiting for it, not the time the caller took before asking.
    pub(crate) fn message(&mut self, remaining: u64, blob: &[u8], version: &str, waited: Duration) -> Result<Verdict, SnapshotViolation> {
        if self.trailer.is_some() {
            return Err(SnapshotViolation::AfterTrailer { size: blob.len() });
        }
        if blob.len() > self.limits.max_blob {
            return Err(SnapshotViolation::BlobTooLarge { offset: self.received, size: blob.len(), limit: self.limits.max_blob });
        }
        let length = u64::try_from(blob.len()).unwrap_or(u64::MAX);
        let total = match self.total {
            Some(total) => total,
            None => self.first(remaining, length, version)?,
        };
        if self.received == total {
            return self.take_trailer(remaining, blob);
        }
        self.progress(length, waited)?;
        self.data(remaining, blob, length, total)
    }

    /// Judges the end of the stream, which the server must have closed with status OK.
    pub(crate) fn end(&self) -> Result<SnapshotSummary, SnapshotViolation> {
        match (self.total, self.trailer) {
            (None, _) => Err(SnapshotViolation::EndedEmpty),
            (Some(total), Some(digest)) => {
                let mut file = self.hash.clone();
                file.update(&digest.0);
                let mut file_sha256 = [0; DIGEST];
                file_sha256.copy_from_slice(file.finish().as_ref());
                Ok(SnapshotSummary { database_size: total, sha256: digest.0, file_sha256, storage_version: self.version.clone() })
            }
            (Some(total), None) if self.received == total => Err(SnapshotViolation::EndedWithoutTrailer { total }),
            (Some(total), None) => Err(SnapshotViolation::EndedShort { received: self.received, total }),
        }
    }

    fn first(&mut self, remaining: u64, length: u64, version: &str) -> Result<u64, SnapshotViolation> {
        let size = length.saturating_add(remaining);
        let implausible = |fact| SnapshotViolation::ImplausibleSize { size, fact };
        if size < limits::SNAPSHOT_DATABASE_MIN {
            return Err(implausible("smaller than an empty database"));
        }
        if size > self.limits.max_database {
            return Err(implausible("over the limit"));
        }
        if !size.is_multiple_of(limits::SNAPSHOT_GRANULE) {
            return Err(implausible("not a multiple of 512"));
        }
        if version.len() > limits::SNAPSHOT_VERSION_MAX {
            return Err(SnapshotViolation::VersionTooLong { size: version.len() });
        }
        self.version = (!version.is_empty()).then(|| version.to_owned());
        self.total = Some(size);
        Ok(size)
    }

    fn data(&mut self, remaining: u64, blob: &[u8], length: u64, total: u64) -> Result<Verdict, SnapshotViolation> {
        let offset = self.received;
        let expected = total
            .checked_sub(offset)
            .and_then(|missing| missing.checked_sub(length))
            .ok_or(SnapshotViolation::TooManyBytes { offset, blob: blob.len(), total })?;
        if remaining != expected {
            return Err(SnapshotViolation::WrongRemaining { offset, blob: blob.len(), said: remaining, expected });
        }
        if blob.is_empty() {
            self.empty_run = self.empty_run.saturating_add(1);
            if self.empty_run > self.limits.max_empty_blobs {
                return Err(SnapshotViolation::EmptyBlobs { offset, total, count: self.empty_run });
            }
            return Ok(Verdict::Nothing);
        }
        self.empty_run = 0;
        self.hash.update(blob);
        // Cannot overflow: `expected` above proved that it stays within the total.
        self.received = total - expected;
        Ok(Verdict::Data)
    }

    fn take_trailer(&mut self, remaining: u64, blob: &[u8]) -> Result<Verdict, SnapshotViolation> {
        let bad = SnapshotViolation::BadTrailer { size: blob.len(), remaining };
        let sent = Sha256(blob.try_into().map_err(|_| bad)?);
        if remaining != 0 {
            return Err(bad);
        }
        let finished = self.hash.clone().finish();
        let computed = Sha256(finished.as_ref().try_into().map_err(|_| bad)?);
        if sent != computed {
            return Err(SnapshotViolation::WrongDigest { sent, computed });
        }
        self.trailer = Some(sent);
        Ok(Verdict::Trailer)
    }

    fn progress(&mut self, length: u64, waited: Duration) -> Result<(), SnapshotViolation> {
        self.since_mark = self.since_mark.saturating_add(length);
        self.waited_since_mark = self.waited_since_mark.saturating_add(waited);
        if self.since_mark >= self.limits.progress_bytes {
            self.since_mark = 0;
            self.waited_since_mark = Duration::ZERO;
        } else if self.waited_since_mark > self.limits.progress_window {
            return Err(SnapshotViolation::NoProgress { offset: self.received, bytes: self.since_mark, waited: self.waited_since_mark });
        }
        Ok(())
    }
}

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker")
            .field("total", &self.total)
            .field("received", &self.received)
            .field("trailer", &self.trailer)
            .finish_non_exhaustive()
    }
}
