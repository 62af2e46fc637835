//! A repository in a bucket or container of an object store, over the `object_store` crate: what `s3://`, `gs://` and `az://` share.
//!
//! What this layer adds to that crate: times that bound every operation, ambiguous answers settled by looking, parts of equal size and two
//! under way, reads continued where they broke off, and errors that tell a missing bucket from a missing key, wrong credentials from a wrong
//! address, and a silent store from a refusing one. What the clouds do differently is behind [`Dialect`].

pub(super) mod client;
pub(super) mod error;
mod read;
pub(super) mod settings;
mod upload;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use disk::crash;
use futures::StreamExt;
use object_store::path::Path;
use object_store::{GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, UpdateVersion};

use super::limits::{ATTEMPTS, LIST_BUDGET, MAX_LISTED, RETRY_BUDGET, RETRY_PAUSE};
use super::settle::{self, Settled};
use super::{ObjectInfo, Store, StoreError, Upload, keys};
use client::Clients;

/// A repository in a bucket or container.
pub(super) struct BucketStore {
    bucket: Arc<Bucket>,
}

/// What every operation needs.
pub(super) struct Bucket {
    pub(super) clients: Clients,
    dialect: Box<dyn Dialect>,
    prefix: String,
    root: String,
}

/// What one kind of cloud does in its own way.
#[async_trait]
pub(super) trait Dialect: Send + Sync {
    /// What this kind of store calls things; see [`error::map`].
    fn words(&self) -> &'static error::Words;

    /// Writes `bytes` over the object if its entity tag is still `etag`; [`StoreError::Changed`] or [`StoreError::NotFound`] if it is not.
    async fn update(&self, bucket: &Bucket, key: &str, bytes: &Bytes, etag: &str) -> Result<ObjectInfo, StoreError> {
        bucket.put(key, bytes, PutMode::Update(UpdateVersion { e_tag: Some(etag.to_owned()), version: None })).await
    }

    /// Removes one object; [`StoreError::NotFound`] where there is none is allowed.
    async fn delete(&self, bucket: &Bucket, key: &str) -> Result<(), StoreError> {
        bucket.clients.small.delete(&bucket.path(key)?).await.map_err(|error| bucket.error(key, error))
    }
}

// Clients hold credentials, and not all of those keep them out of their own `Debug`.
impl fmt::Debug for BucketStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketStore").field("root", &self.bucket.root).finish_non_exhaustive()
    }
}

impl BucketStore {
    /// Makes a store of the bucket that `place` names. Nothing is sent.
    ///
    /// # Errors
    /// [`StoreError::Other`] for a prefix that no key can begin with.
    pub(super) fn new(place: &Place<'_>, clients: Clients, dialect: Box<dyn Dialect>) -> Result<Self, StoreError> {
        let root = place.root();
        Path::parse(place.prefix).map_err(|error| StoreError::Other { key: root.clone(), detail: error.to_string() })?;
        Ok(Self { bucket: Arc::new(Bucket { clients, dialect, prefix: place.prefix.to_owned(), root }) })
    }
}

/// What a store's URL says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place<'a> {
    /// `s3`, `gs` or `az`.
    pub(super) scheme: &'static str,
    /// The bucket, or the container.
    pub(super) bucket: &'a str,
    /// Without slashes at its ends; may be empty.
    pub(super) prefix: &'a str,
}

impl Place<'_> {
    /// The URL without a slash at its end.
    pub(super) fn root(&self) -> String {
        let Self { scheme, bucket, prefix } = self;
        if prefix.is_empty() { format!("{scheme}://{bucket}") } else { format!("{scheme}://{bucket}/{prefix}") }
    }

    /// Says that the store cannot be opened as asked for.
    pub(super) fn refused(&self, detail: String) -> StoreError {
        StoreError::Other { key: self.root(), detail }
    }
}

impl Bucket {
    pub(super) fn path(&self, key: &str) -> Result<Path, StoreError> {
        let full = match (self.prefix.is_empty(), key.is_empty()) {
            (true, _) => key.to_owned(),
            (false, true) => self.prefix.clone(),
            (false, false) => format!("{}/{key}", self.prefix),
        };
        Path::parse(full).map_err(|error| StoreError::Corrupt { key: key.to_owned(), detail: error.to_string() })
    }

    /// The key of what the store calls `path`; `None` for what is not ours.
    fn key(&self, path: &Path) -> Option<String> {
        let path = path.as_ref();
        let key = if self.prefix.is_empty() { path } else { path.strip_prefix(self.prefix.as_str())?.strip_prefix('/')? };
        keys::is_key(key).then(|| key.to_owned())
    }

    pub(super) fn error(&self, key: &str, error: object_store::Error) -> StoreError {
        error::map(self.dialect.words(), key, &self.root, error)
    }

    fn listed(&self, meta: ObjectMeta) -> Option<ObjectInfo> {
        let key = self.key(&meta.location)?;
        Some(ObjectInfo { key, size: meta.size, etag: meta.e_tag.map(quoted) })
    }

    pub(super) async fn look(&self, key: &str) -> Result<ObjectMeta, StoreError> {
        let path = self.path(key)?;
        match self.clients.small.head(&path).await {
            // The answer to HEAD has no body that would tell a missing key from a missing bucket; the one to GET has.
            Err(object_store::Error::NotFound { .. }) => match self.clients.small.get_opts(&path, GetOptions::default()).await {
                Ok(found) => Ok(found.meta),
                Err(error) => Err(self.error(key, error)),
            },
            other => other.map_err(|error| self.error(key, error)),
        }
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo, StoreError> {
        let meta = self.look(key).await?;
        Ok(ObjectInfo { key: key.to_owned(), size: meta.size, etag: meta.e_tag })
    }

    pub(super) async fn put(&self, key: &str, bytes: &Bytes, mode: PutMode) -> Result<ObjectInfo, StoreError> {
        let path = self.path(key)?;
        let client = self.clients.for_write(bytes.len());
        let options = PutOptions::from(mode);
        let result = client.put_opts(&path, bytes.clone().into(), options).await.map_err(|error| self.error(key, error))?;
        Ok(ObjectInfo { key: key.to_owned(), size: bytes.len() as u64, etag: result.e_tag })
    }
}

/// An entity tag as headers have it (RFC 9110, section 8.8.3). Azure's listings leave the quotes out.
fn quoted(etag: String) -> String {
    if etag.ends_with('"') { etag } else { format!("\"{etag}\"") }
}

impl BucketStore {
    /// Creates an object of at most one part; see [`Store::create`].
    async fn create_settled(&self, key: &str, bytes: &Bytes) -> Result<ObjectInfo, StoreError> {
        let mut pause = RETRY_PAUSE;
        let mut attempt = 1;
        loop {
            let error = match self.bucket.put(key, bytes, PutMode::Create).await {
                Ok(info) => return Ok(info),
                Err(StoreError::AlreadyExists { .. }) => return settle::already_there(self, key, bytes).await,
                Err(error @ StoreError::Unreachable { .. }) => error,
                Err(error) => return Err(error),
            };
            match settle::look(self, key, bytes).await {
                Settled::Ours(info) => return Ok(info),
                Settled::Other => return Err(StoreError::AlreadyExists { key: key.to_owned() }),
                // The store answers and the object is not there: the write was lost on the way.
                Settled::Nothing if attempt < ATTEMPTS => tokio::time::sleep(pause).await,
                Settled::Nothing | Settled::Unknown => return Err(error),
            }
            pause *= 2;
            attempt += 1;
        }
    }

    async fn listing(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let path = self.bucket.path(prefix)?;
        let mut pages = self.bucket.clients.read.list(Some(&path));
        let mut found = Vec::new();
        while let Some(meta) = pages.next().await {
            found.extend(self.bucket.listed(meta.map_err(|error| self.bucket.error(prefix, error))?));
            if found.len() > MAX_LISTED {
                return Err(StoreError::Corrupt { key: prefix.to_owned(), detail: format!("more than {MAX_LISTED} objects") });
            }
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        found.dedup_by(|a, b| a.key == b.key);
        Ok(found)
    }
}

/// Does again, a few times, what may be done any number of times: a break in the middle of an answer is not tried again below this layer.
pub(super) async fn persist<T, F: Future<Output = Result<T, StoreError>>>(mut work: impl FnMut() -> F) -> Result<T, StoreError> {
    let begun = tokio::time::Instant::now();
    let mut attempt = 1;
    loop {
        match work().await {
            Err(StoreError::Unreachable { .. }) if attempt < ATTEMPTS && begun.elapsed() < RETRY_BUDGET => attempt += 1,
            other => return other,
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Bounds a listing: a store that always promises one more page would otherwise never end it.
async fn within<T>(budget: Duration, key: &str, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(budget, work).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::Unreachable { key: key.to_owned(), detail: format!("not finished within {} s", budget.as_secs()) }),
    }
}

#[async_trait]
impl Store for BucketStore {
    fn root(&self) -> &str {
        &self.bucket.root
    }

    async fn create(&self, key: &str, bytes: Bytes) -> Result<ObjectInfo, StoreError> {
        keys::check(key)?;
        settle::check_small(key, &bytes)?;
        crash::point(&format!("put {key}"));
        let info = self.create_settled(key, &bytes).await?;
        crash::point(&format!("put done {key}"));
        Ok(info)
    }

    async fn replace(&self, key: &str, bytes: Bytes, etag: Option<&str>) -> Result<ObjectInfo, StoreError> {
        keys::check(key)?;
        settle::check_small(key, &bytes)?;
        crash::point(&format!("replace {key}"));
        let written = match etag {
            Some(etag) => self.bucket.dialect.update(&self.bucket, key, &bytes, etag).await,
            None => self.bucket.put(key, &bytes, PutMode::Create).await,
        };
        match written {
            // A first try whose answer was lost makes the second one find the etag changed, by ourselves.
            Err(error @ (StoreError::AlreadyExists { .. } | StoreError::Changed { .. } | StoreError::Unreachable { .. })) => {
                match (settle::look(self, key, &bytes).await, error) {
                    (Settled::Ours(info), error) if info.etag.as_deref() != etag || matches!(error, StoreError::Unreachable { .. }) => {
                        Ok(info)
                    }
                    (_, error @ StoreError::Unreachable { .. }) => Err(error),
                    _ => Err(StoreError::Changed { key: key.to_owned() }),
                }
            }
            // Somebody has deleted what was to be replaced.
            Err(StoreError::NotFound { key }) => Err(StoreError::Changed { key }),
            other => other,
        }
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        keys::check(key)?;
        crash::point(&format!("delete {key}"));
        match self.bucket.dialect.delete(&self.bucket, key).await {
            Err(StoreError::NotFound { .. }) => Ok(()),
            other => other,
        }
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>, StoreError> {
        keys::check(key)?;
        let store = Self { bucket: Arc::clone(&self.bucket) };
        Ok(Box::new(upload::PartsUpload::new(store, key, self.bucket.path(key)?)))
    }

    async fn get(&self, key: &str, limit: u64) -> Result<(ObjectInfo, Bytes), StoreError> {
        keys::check(key)?;
        read::whole(&self.bucket, key, limit).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        keys::check(key)?;
        read::range(&self.bucket, key, range).await
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo, StoreError> {
        keys::check(key)?;
        self.bucket.head(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let below = keys::check_prefix(prefix)?;
        within(LIST_BUDGET, prefix, persist(|| self.listing(below))).await
    }

    async fn list_shallow(&self, prefix: &str) -> Result<(Vec<ObjectInfo>, Vec<String>), StoreError> {
        let path = self.bucket.path(keys::check_prefix(prefix)?)?;
        let pages = || async {
            let listed = self.bucket.clients.read.list_with_delimiter(Some(&path)).await;
            listed.map_err(|error| self.bucket.error(prefix, error))
        };
        let listed = within(LIST_BUDGET, prefix, persist(pages)).await?;
        let mut objects: Vec<_> = listed.objects.into_iter().filter_map(|meta| self.bucket.listed(meta)).collect();
        let mut below: Vec<_> = listed.common_prefixes.iter().filter_map(|path| self.bucket.key(path)).collect();
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        below.sort();
        Ok((objects, below))
    }

    async fn written_at(&self, key: &str) -> Result<Option<SystemTime>, StoreError> {
        keys::check(key)?;
        let meta = self.bucket.look(key).await?;
        let since = u64::try_from(meta.last_modified.timestamp_millis()).ok().filter(|millis| *millis > 0).map(Duration::from_millis);
        Ok(since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since)))
    }
}
