//! A store in memory, for tests of what is above.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use disk::crash;

use super::{ObjectInfo, Store, StoreError, Upload, keys, settle};

#[derive(Debug)]
struct Stored {
    bytes: Bytes,
    version: u64,
}

#[derive(Debug, Default)]
struct Objects {
    by_key: BTreeMap<String, Stored>,
    writes: u64,
}

/// Objects in memory. Clones share them.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    objects: Arc<Mutex<Objects>>,
    root: String,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self { objects: Arc::default(), root: "memory://".to_owned() }
    }

    /// Puts bytes under a key whatever is there, to play damage.
    pub fn overwrite(&self, key: &str, bytes: impl Into<Bytes>) {
        self.lock().insert(key, bytes.into());
    }

    fn lock(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Objects {
    fn insert(&mut self, key: &str, bytes: Bytes) -> ObjectInfo {
        self.writes += 1;
        let stored = Stored { bytes, version: self.writes };
        let info = info(key, &stored);
        self.by_key.insert(key.to_owned(), stored);
        info
    }

    fn find(&self, key: &str) -> Result<&Stored, StoreError> {
        self.by_key.get(key).ok_or_else(|| StoreError::NotFound { key: key.to_owned() })
    }

    fn create(&mut self, key: &str, bytes: Bytes) -> Result<ObjectInfo, StoreError> {
        match self.by_key.get(key) {
            None => Ok(self.insert(key, bytes)),
            Some(there) if there.bytes == bytes => Ok(info(key, there)),
            Some(_) => Err(StoreError::AlreadyExists { key: key.to_owned() }),
        }
    }
}

fn info(key: &str, stored: &Stored) -> ObjectInfo {
    ObjectInfo { key: key.to_owned(), size: stored.bytes.len() as u64, etag: Some(format!("v{}", stored.version)) }
}

struct MemoryUpload {
    store: MemoryStore,
    key: String,
    bytes: BytesMut,
}

#[async_trait]
impl Upload for MemoryUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    async fn complete(self: Box<Self>) -> Result<ObjectInfo, StoreError> {
        crash::point(&format!("complete {}", self.key));
        let info = self.store.lock().create(&self.key, self.bytes.freeze())?;
        crash::point(&format!("completed {}", self.key));
        Ok(info)
    }

    async fn abort(self: Box<Self>) {}
}

#[async_trait]
impl Store for MemoryStore {
    fn root(&self) -> &str {
        &self.root
    }

    async fn create(&self, key: &str, bytes: Bytes) -> Result<ObjectInfo, StoreError> {
        keys::check(key)?;
        settle::check_small(key, &bytes)?;
        crash::point(&format!("put {key}"));
        let info = self.lock().create(key, bytes)?;
        crash::point(&format!("put done {key}"));
        Ok(info)
    }

    async fn replace(&self, key: &str, bytes: Bytes, etag: Option<&str>) -> Result<ObjectInfo, StoreError> {
        keys::check(key)?;
        settle::check_small(key, &bytes)?;
        crash::point(&format!("replace {key}"));
        let mut objects = self.lock();
        let there = objects.by_key.get(key).and_then(|there| info(key, there).etag);
        if there.as_deref() != etag {
            return Err(StoreError::Changed { key: key.to_owned() });
        }
        Ok(objects.insert(key, bytes))
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        keys::check(key)?;
        crash::point(&format!("delete {key}"));
        self.lock().by_key.remove(key);
        Ok(())
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>, StoreError> {
        keys::check(key)?;
        Ok(Box::new(MemoryUpload { store: self.clone(), key: key.to_owned(), bytes: BytesMut::new() }))
    }

    async fn get(&self, key: &str, limit: u64) -> Result<(ObjectInfo, Bytes), StoreError> {
        keys::check(key)?;
        let objects = self.lock();
        let stored = objects.find(key)?;
        let info = info(key, stored);
        if info.size > limit {
            return Err(StoreError::Corrupt { key: key.to_owned(), detail: format!("{} bytes, at most {limit} are expected", info.size) });
        }
        Ok((info, stored.bytes.clone()))
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        keys::check(key)?;
        let objects = self.lock();
        let stored = objects.find(key)?;
        super::check_range(key, &range, stored.bytes.len() as u64)?;
        // Both ends are at most the length of bytes in memory.
        Ok(stored.bytes.slice(range.start as usize..range.end as usize))
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo, StoreError> {
        keys::check(key)?;
        Ok(info(key, self.lock().find(key)?))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        keys::check_prefix(prefix)?;
        let objects = self.lock();
        let below = objects.by_key.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        Ok(below.map(|(key, stored)| info(key, stored)).collect())
    }

    async fn list_shallow(&self, prefix: &str) -> Result<(Vec<ObjectInfo>, Vec<String>), StoreError> {
        let (mut here, mut below) = (Vec::new(), Vec::new());
        for object in self.list(prefix).await? {
            match object.key[prefix.len()..].split_once('/') {
                None => here.push(object),
                Some((part, _)) => below.push(format!("{prefix}{part}")),
            }
        }
        below.sort();
        below.dedup();
        Ok((here, below))
    }
}
