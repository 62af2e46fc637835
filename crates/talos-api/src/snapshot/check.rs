//! The rules of Talos' snapshot stream, as a pure state machine: values in, verdict out.
//!
//! Source: Talos 1.8 to 1.14, `internal/app/machined/internal/server/v1alpha1/v1alpha1_server.go` (`EtcdSnapshot`) and
//! `pkg/chunker/stream/stream.go`. The server copies what etcd sends, database and 32-byte SHA-256 alike, into pieces of
//! 1 KiB; no size is announced, and when reading from etcd fails the stream just ends, with status OK. So the last 32 bytes
//! that ever arrive must be the digest of everything before them: they are held back until more bytes or the end come.

use std::fmt;
use std::time::Duration;

use etcd_api::limits::{SNAPSHOT_DATABASE_MIN, SNAPSHOT_GRANULE};
use etcd_api::snapshot::Sha256;
use etcd_api::{SnapshotLimits, SnapshotSummary};
use ring::digest;

/// Length of the trailer.
const DIGEST: usize = 32;

/// A rule of the stream that was broken. Sizes are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamViolation {
    /// Nothing came.
    #[error("the stream ended before its first byte")]
    EndedEmpty,
    /// What came cannot be a database and its digest: the stream was cut. Talos reports success all the same.
    #[error("the stream was cut: {received} bytes are no whole number of pages and a digest, though Talos reported success")]
    Cut {
        /// Bytes received, the supposed trailer included.
        received: u64,
    },
    /// The last 32 bytes are not the digest of those before: cut, or damaged on the way.
    #[error("the stream was cut or damaged: it ends in {sent}, its {size} bytes have the digest {computed}")]
    WrongDigest {
        /// Bytes before the supposed trailer.
        size: u64,
        /// The last 32 bytes.
        sent: Sha256,
        /// Over what arrived before them.
        computed: Sha256,
    },
    /// A message is larger than the limit.
    #[error("a message of {size} bytes is over the limit of {limit}")]
    MessageTooLarge {
        /// Its length.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The database is larger than the limit.
    #[error("the database is over the limit of {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// Too many empty messages in a row.
    #[error("{count} empty messages in a row after {received} bytes")]
    EmptyMessages {
        /// Database bytes received.
        received: u64,
        /// How many.
        count: u32,
    },
    /// No message within the idle time-out.
    #[error("no message for {:.1} s after {received} bytes", .waited.as_secs_f64())]
    Idle {
        /// Database bytes received.
        received: u64,
        /// How long we waited.
        waited: Duration,
    },
    /// Messages come, bytes hardly do.
    #[error("only {bytes} bytes in {:.1} s of waiting, after {received} bytes", .waited.as_secs_f64())]
    NoProgress {
        /// Database bytes received.
        received: u64,
        /// Bytes since the last mark.
        bytes: u64,
        /// Time spent waiting since then.
        waited: Duration,
    },
    /// The caller asked for the result of a stream that it did not read to its proven end.
    #[error("the stream was not read to its end ({received} bytes received)")]
    NotFinished {
        /// Database bytes received.
        received: u64,
    },
}

/// Which bytes a message has shown to be database bytes: first `held`, which was kept back before, then the first `fresh`
/// bytes of the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proven {
    pub(crate) held: Vec<u8>,
    pub(crate) fresh: usize,
}

/// The state machine. After an `Err` the stream is worthless and the checker must not be used again.
pub(crate) struct Checker {
    limits: SnapshotLimits,
    /// Database bytes, hashed.
    received: u64,
    /// The last bytes, at most 32: the trailer, unless more come.
    tail: Vec<u8>,
    hash: digest::Context,
    empty_run: u32,
    since_mark: u64,
    waited_since_mark: Duration,
}

impl Checker {
    pub(crate) fn new(limits: SnapshotLimits) -> Self {
        Self {
            limits,
            received: 0,
            tail: Vec::with_capacity(DIGEST),
            hash: digest::Context::new(&digest::SHA256),
            empty_run: 0,
            since_mark: 0,
            waited_since_mark: Duration::ZERO,
        }
    }

    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Judges the next message. `waited` is the time spent waiting for it, not the time the caller took before asking.
    pub(crate) fn message(&mut self, bytes: &[u8], waited: Duration) -> Result<Proven, StreamViolation> {
        if bytes.len() > self.limits.max_blob {
            return Err(StreamViolation::MessageTooLarge { size: bytes.len(), limit: self.limits.max_blob });
        }
        self.progress(bytes.len() as u64, waited)?;
        if bytes.is_empty() {
            self.empty_run = self.empty_run.saturating_add(1);
            if self.empty_run > self.limits.max_empty_blobs {
                return Err(StreamViolation::EmptyMessages { received: self.received, count: self.empty_run });
            }
            return Ok(Proven { held: Vec::new(), fresh: 0 });
        }
        self.empty_run = 0;
        // Of what was held and what came, all but the last 32 bytes are the database's.
        let surplus = (self.tail.len() + bytes.len()).saturating_sub(DIGEST);
        let from_tail = surplus.min(self.tail.len());
        let held: Vec<u8> = self.tail.drain(..from_tail).collect();
        let fresh = surplus - from_tail;
        let (proven, kept) = bytes.split_at(fresh);
        self.hash.update(&held);
        self.hash.update(proven);
        self.tail.extend_from_slice(kept);
        self.received = self.received.saturating_add(surplus as u64);
        if self.received > self.limits.max_database {
            return Err(StreamViolation::TooLarge { limit: self.limits.max_database });
        }
        Ok(Proven { held, fresh })
    }

    /// Judges the end of the stream, which the server closed with status OK.
    pub(crate) fn end(&self) -> Result<SnapshotSummary, StreamViolation> {
        let arrived = self.received + self.tail.len() as u64;
        if arrived == 0 {
            return Err(StreamViolation::EndedEmpty);
        }
        let Ok(sent) = <[u8; DIGEST]>::try_from(self.tail.as_slice()) else {
            return Err(StreamViolation::Cut { received: arrived });
        };
        if !self.received.is_multiple_of(SNAPSHOT_GRANULE) || self.received < SNAPSHOT_DATABASE_MIN {
            return Err(StreamViolation::Cut { received: arrived });
        }
        let computed = sum(self.hash.clone());
        if computed != sent {
            return Err(StreamViolation::WrongDigest { size: self.received, sent: Sha256(sent), computed: Sha256(computed) });
        }
        let mut file = self.hash.clone();
        file.update(&sent);
        Ok(SnapshotSummary { database_size: self.received, sha256: sent, file_sha256: sum(file), storage_version: None })
    }

    fn progress(&mut self, length: u64, waited: Duration) -> Result<(), StreamViolation> {
        self.since_mark = self.since_mark.saturating_add(length);
        self.waited_since_mark = self.waited_since_mark.saturating_add(waited);
        if self.since_mark >= self.limits.progress_bytes {
            self.since_mark = 0;
            self.waited_since_mark = Duration::ZERO;
        } else if self.waited_since_mark > self.limits.progress_window {
            return Err(StreamViolation::NoProgress { received: self.received, bytes: self.since_mark, waited: self.waited_since_mark });
        }
        Ok(())
    }
}

fn sum(hash: digest::Context) -> [u8; DIGEST] {
    let mut sum = [0; DIGEST];
    sum.copy_from_slice(hash.finish().as_ref());
    sum
}

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker").field("received", &self.received).field("held", &self.tail.len()).finish_non_exhaustive()
    }
}
