//! The narrow face of an object store that the repository needs, and nothing more.
//!
//! Keys are relative to the repository's root, use `/` between parts, never begin with one, and consist of parts that match
//! `[A-Za-z0-9][A-Za-z0-9._-]*` without `..`. An implementation refuses any other key before it touches the store.

pub mod authorities;
mod azure;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
#[cfg(any(test, feature = "testing"))]
pub mod fault;
mod file;
mod gcs;
mod keys;
pub mod limits;
mod memory;
mod mirror;
mod object;
mod open;
mod probe;
mod s3;
mod settle;

use std::fmt;
use std::ops::Range;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;

pub use file::FileStore;
pub use memory::MemoryStore;
pub use mirror::MirrorStore;
pub use open::{PartChecksum, StoreOptions, is_store_url, open_store};
pub use probe::{Finding, ProbeReport, probe};

/// What a store says of one stored object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The key relative to the repository's root.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// The store's entity tag, where it has one. Opaque.
    pub etag: Option<String>,
}

/// Why a store did not do what was asked. Every variant says whether the state of the store is known.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No object has this key.
    #[error("{key}: not found")]
    NotFound {
        /// The key asked for.
        key: String,
    },
    /// A create-only write found an object there; nothing was changed.
    #[error("{key}: already exists")]
    AlreadyExists {
        /// The key that was to be created.
        key: String,
    },
    /// A conditional replacement found another version there; nothing was changed.
    #[error("{key}: was changed by somebody else")]
    Changed {
        /// The key that was to be replaced.
        key: String,
    },
    /// The bucket, container or root directory itself does not exist.
    #[error("{root}: no such bucket or directory")]
    NoRoot {
        /// The root as the user named it.
        root: String,
    },
    /// The store knows the caller and says no, or does not know the credentials.
    #[error("{key}: access denied: {detail}")]
    Denied {
        /// The key, or the root for a listing.
        key: String,
        /// The store's own words.
        detail: String,
    },
    /// The store cannot be reached or did not answer in time, after all retries; nothing is known of a write.
    #[error("{key}: the store cannot be reached: {detail}")]
    Unreachable {
        /// The key, or the root for a listing.
        key: String,
        /// The last error's words.
        detail: String,
    },
    /// No room is left.
    #[error("{key}: no space left in the store")]
    Full {
        /// The key being written.
        key: String,
    },
    /// What the store holds or answers breaks its own contract (size, range, checksum), or a key or object is not of an allowed form.
    #[error("{key}: {detail}")]
    Corrupt {
        /// The key.
        key: String,
        /// What is wrong.
        detail: String,
    },
    /// Anything else, with the cause.
    #[error("{key}: {detail}")]
    Other {
        /// The key, or the root.
        key: String,
        /// What happened.
        detail: String,
    },
}

/// What a write that was cut off left behind. It is no object: no listing shows it, and no read finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Where it lies, written as a key would be; for [`Store::discard`] and for people.
    pub key: String,
    /// Its bytes.
    pub size: u64,
    /// When it was written to last, by the clock of whoever holds the files.
    pub changed: SystemTime,
}

/// One object being written in order, of a size not known beforehand.
///
/// Nothing is visible under the key before [`Upload::complete`] returns `Ok`. Dropping an upload without completing it leaves nothing visible;
/// call [`Upload::abort`] where one can, so that no parts are left behind.
#[async_trait]
pub trait Upload: Send {
    /// Appends bytes. Buffers at most two parts (16 MiB); waits while that many are under way.
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError>;

    /// Does as much of [`Upload::complete`] beforehand as leaves nothing visible, once everything was written: the sync and the reading back of
    /// `file://`. Nothing may be written after it. Optional: `complete` does what was not done.
    async fn settle(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Finishes, makes the object durable and visible, then looks at it (size and etag; `file://` reads it back in full and compares a digest).
    async fn complete(self: Box<Self>) -> Result<ObjectInfo, StoreError>;

    /// Gives up and removes the parts sent so far, as well as one can.
    async fn abort(self: Box<Self>);
}

/// An object store with one repository's root.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync {
    /// The root as the user named it, without credentials: `file:///path`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
    fn root(&self) -> &str;

    /// Writes a small object (at most [`MAX_SMALL_OBJECT`]) under a key that must not exist, durably.
    ///
    /// An ambiguous answer (a time-out, a dropped connection, "already exists" after a retry) is settled by reading: the same bytes there are success.
    async fn create(&self, key: &str, bytes: Bytes) -> Result<ObjectInfo, StoreError>;

    /// Replaces a small mutable object if its etag is still `etag` (`None`: must not exist). For leases only.
    async fn replace(&self, key: &str, bytes: Bytes, etag: Option<&str>) -> Result<ObjectInfo, StoreError>;

    /// Removes an object; one that is not there is success. For leases, probes and (later) the pruner only.
    async fn delete(&self, key: &str) -> Result<(), StoreError>;

    /// Begins a big object under a key that nobody else uses.
    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>, StoreError>;

    /// Reads a whole object; one larger than `limit` bytes is [`StoreError::Corrupt`] and is not read.
    async fn get(&self, key: &str, limit: u64) -> Result<(ObjectInfo, Bytes), StoreError>;

    /// Reads `range` of an object, which must lie inside it; a short answer is continued, then an error.
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// Looks at an object without reading it.
    async fn head(&self, key: &str) -> Result<ObjectInfo, StoreError>;

    /// All objects below `prefix` (a whole part path ending in `/`, or empty), sorted by key. A missing prefix is an empty list.
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError>;

    /// The names directly below `prefix`, without their content: (objects, sub-prefixes without the trailing slash), sorted.
    async fn list_shallow(&self, prefix: &str) -> Result<(Vec<ObjectInfo>, Vec<String>), StoreError>;

    /// When the object was written by the store's own clock, where it says so: for telling how far the clocks are apart, never for a
    /// decision about the object.
    async fn written_at(&self, _key: &str) -> Result<Option<SystemTime>, StoreError> {
        Ok(None)
    }

    /// What writes below `prefix` left that are under way or were cut off, where the store can tell: `file://` does. Buckets drop theirs by a rule of their
    /// own.
    async fn unfinished(&self, _prefix: &str) -> Result<Vec<Unfinished>, StoreError> {
        Ok(Vec::new())
    }

    /// Removes what [`Store::unfinished`] showed. A write that is still under way fails then. One that is gone is success.
    async fn discard(&self, _unfinished: &Unfinished) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Refuses a range that does not lie inside an object of `size` bytes.
fn check_range(key: &str, range: &Range<u64>, size: u64) -> Result<(), StoreError> {
    if range.start > range.end || range.end > size {
        let detail = format!("bytes {} to {} of an object of {size} bytes", range.start, range.end);
        return Err(StoreError::Corrupt { key: key.to_owned(), detail });
    }
    Ok(())
}

/// The largest object that [`Store::create`] and [`Store::replace`] take, in bytes.
pub const MAX_SMALL_OBJECT: u64 = 8 << 20;
