//! `s3://`: a repository in a bucket of S3 or a compatible store, over the `object_store` crate.
//!
//! What this layer adds to that crate: times that bound every operation, ambiguous answers settled by looking, parts of equal size with a
//! checksum each and two under way, reads continued where they broke off, and errors that tell a missing bucket from a missing key, wrong
//! credentials from a wrong region, and a silent store from a refusing one.

mod client;
mod credentials;
mod error;
mod read;
mod upload;

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
use super::open::StoreOptions;
use super::settle::{self, Settled};
use super::{ObjectInfo, Store, StoreError, Upload, keys};
use client::Clients;

/// A repository in a bucket.
#[derive(Debug)]
pub struct S3Store {
    bucket: Arc<Bucket>,
}

/// What every operation needs.
#[derive(Debug)]
struct Bucket {
    clients: Clients,
    prefix: String,
    root: String,
}

impl S3Store {
    /// Makes a store of `bucket` and `prefix` (without slashes at its ends; may be empty). Nothing is sent yet.
    ///
    /// # Errors
    /// [`StoreError::Other`] for a setting that cannot be, or a credentials or certificate file that cannot be read.
    pub fn new(bucket: &str, prefix: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let root = if prefix.is_empty() { format!("s3://{bucket}") } else { format!("s3://{bucket}/{prefix}") };
        Path::parse(prefix).map_err(|error| StoreError::Other { key: root.clone(), detail: error.to_string() })?;
        let clients = Clients::new(bucket, options).map_err(|detail| StoreError::Other { key: root.clone(), detail })?;
        Ok(Self { bucket: Arc::new(Bucket { clients, prefix: prefix.to_owned(), root }) })
    }
}

impl Bucket {
    fn path(&self, key: &str) -> Result<Path, StoreError> {
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

    fn error(&self, key: &str, error: object_store::Error) -> StoreError {
        error::map(key, &self.root, error)
    }

    fn listed(&self, meta: ObjectMeta) -> Option<ObjectInfo> {
        let key = self.key(&meta.location)?;
        Some(ObjectInfo { key, size: meta.size, etag: meta.e_tag })
    }

    async fn look(&self, key: &str) -> Result<ObjectMeta, StoreError> {
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

    async fn put(&self, key: &str, bytes: &Bytes, mode: PutMode) -> Result<ObjectInfo, StoreError> {
        let path = self.path(key)?;
        let client = self.clients.for_write(bytes.len());
        let options = PutOptions::from(mode);
        let result = client.put_opts(&path, bytes.clone().into(), options).await.map_err(|error| self.error(key, error))?;
        Ok(ObjectInfo { key: key.to_owned(), size: bytes.len() as u64, etag: result.e_tag })
    }
}

impl S3Store {
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
async fn persist<T, F: Future<Output = Result<T, StoreError>>>(mut work: impl FnMut() -> F) -> Result<T, StoreError> {
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
impl Store for S3Store {
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
        let mode = match etag {
            Some(etag) => PutMode::Update(UpdateVersion { e_tag: Some(etag.to_owned()), version: None }),
            None => PutMode::Create,
        };
        match self.bucket.put(key, &bytes, mode).await {
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
        let path = self.bucket.path(key)?;
        match self.bucket.clients.small.delete(&path).await.map_err(|error| self.bucket.error(key, error)) {
            Err(StoreError::NotFound { .. }) => Ok(()),
            other => other,
        }
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>, StoreError> {
        keys::check(key)?;
        let store = Self { bucket: Arc::clone(&self.bucket) };
        Ok(Box::new(upload::S3Upload::new(store, key, self.bucket.path(key)?)))
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
