//! Several stores written as one: an object reaches all of them from one pass over its bytes.
//!
//! A store that fails a write drops out and stays out, so whatever is written later can rest on what was written before in every store that is still
//! in. Nothing is repaired here: what a store lacks, a copy brings later.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;

use super::limits::{ABORT_TIMEOUT, MIRROR_COMPLETE_WITHIN, MIRROR_WRITE_WITHIN};
use super::{ObjectInfo, Store, StoreError, Upload, keys, settle};

/// Several stores as one. Reads ask the first that is in, and no other when it fails: what is read in several steps must come from one store. Writes go
/// to all that are in. Clones share which those are.
///
/// Leases are kept in the first one that is in alone. Once fewer than `least` are in, nothing more is written anywhere.
#[derive(Clone, Debug)]
pub struct MirrorStore {
    members: Arc<Vec<Arc<dyn Store>>>,
    least: usize,
    out: Arc<Mutex<BTreeMap<usize, StoreError>>>,
}

impl MirrorStore {
    /// The stores in order: the first one decides what there is already. At least one store is always needed.
    #[must_use]
    pub fn new(first: Arc<dyn Store>, others: Vec<Arc<dyn Store>>, least: usize) -> Self {
        let members = std::iter::once(first).chain(others).collect();
        Self { members: Arc::new(members), least: least.max(1), out: Arc::default() }
    }

    /// The stores that are in, with their place in the order.
    #[must_use]
    pub fn stores_in(&self) -> Vec<(usize, Arc<dyn Store>)> {
        let out = self.lock();
        self.members.iter().cloned().enumerate().filter(|(at, _)| !out.contains_key(at)).collect()
    }

    /// The stores that dropped out, with what went wrong first.
    #[must_use]
    pub fn dropped(&self) -> Vec<(usize, StoreError)> {
        self.lock().iter().map(|(at, error)| (*at, error.clone())).collect()
    }

    /// Takes a store out: nothing more is written to it.
    pub fn drop_out(&self, at: usize, error: StoreError) {
        self.lock().entry(at).or_insert(error);
    }

    /// Whether so many stores are in as are needed.
    ///
    /// # Errors
    /// What went wrong with one of those that are out.
    pub fn enough(&self) -> Result<(), StoreError> {
        let out = self.lock();
        match out.values().next() {
            Some(error) if self.members.len() - out.len() < self.least => Err(error.clone()),
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, StoreError>> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_in(&self, at: usize) -> bool {
        !self.lock().contains_key(&at)
    }

    fn nobody(&self, key: &str) -> StoreError {
        let first = self.lock().values().next().cloned();
        first.unwrap_or_else(|| StoreError::Other { key: key.to_owned(), detail: "there is no store".to_owned() })
    }

    fn first_in(&self, key: &str) -> Result<Arc<dyn Store>, StoreError> {
        self.stores_in().into_iter().next().map(|(_, store)| store).ok_or_else(|| self.nobody(key))
    }

    /// The look of the first store that answers. One that does not drops out.
    async fn first_head(&self, key: &str) -> Result<ObjectInfo, StoreError> {
        for (at, store) in self.stores_in() {
            match store.head(key).await {
                Err(error) if !is_answer(&error) => self.drop_out(at, error),
                answer => return answer,
            }
        }
        Err(self.nobody(key))
    }
}

/// Whether the store did answer: then another one is not asked.
fn is_answer(error: &StoreError) -> bool {
    use StoreError as E;
    matches!(error, E::NotFound { .. } | E::AlreadyExists { .. } | E::Changed { .. } | E::Corrupt { .. })
}

/// Waits for one of several stores, not forever.
async fn within<T>(limit: Option<Duration>, key: &str, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let Some(limit) = limit else { return work.await };
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        let detail = format!("it took nothing for {} s, while other stores waited for it", limit.as_secs());
        Err(StoreError::Unreachable { key: key.to_owned(), detail })
    })
}

/// One object on its way to one store.
struct Lane {
    at: usize,
    upload: Box<dyn Upload>,
}

/// One object on its way to every store that is in.
struct MirrorUpload {
    mirror: MirrorStore,
    key: String,
    lanes: Vec<Lane>,
    written: u64,
}

impl MirrorUpload {
    /// One store alone is waited for as long as ever.
    fn patience(&self, limit: Duration) -> Option<Duration> {
        (self.lanes.len() > 1).then_some(limit)
    }

    /// Takes the lanes out that failed, in the order of the lanes, and those whose stores dropped out elsewhere meanwhile.
    async fn sort_out(&mut self, results: Vec<Result<(), StoreError>>) -> Result<(), StoreError> {
        for (lane, result) in self.lanes.iter().zip(results) {
            if let Err(error) = result {
                self.mirror.drop_out(lane.at, error);
            }
        }
        let (stay, go) = std::mem::take(&mut self.lanes).into_iter().partition(|lane| self.mirror.is_in(lane.at));
        self.lanes = stay;
        abort(go).await;
        if self.lanes.is_empty() {
            return Err(self.mirror.nobody(&self.key));
        }
        self.mirror.enough()
    }
}

async fn abort(lanes: Vec<Lane>) {
    let aborts = lanes.into_iter().map(|lane| tokio::time::timeout(ABORT_TIMEOUT, lane.upload.abort()));
    // Best effort: what stays is litter under a name that nobody knows.
    drop(join_all(aborts).await);
}

#[async_trait]
impl Upload for MirrorUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let patience = self.patience(MIRROR_WRITE_WITHIN);
        let key = &self.key;
        // In place, not by value: a write that is dropped half-way must leave something to abort.
        let writes = self.lanes.iter_mut().map(|lane| within(patience, key, lane.upload.write(bytes.clone())));
        let results = join_all(writes).await;
        self.written += bytes.len() as u64;
        self.sort_out(results).await
    }

    async fn settle(&mut self) -> Result<(), StoreError> {
        let patience = self.patience(MIRROR_COMPLETE_WITHIN);
        let key = &self.key;
        let settles = self.lanes.iter_mut().map(|lane| within(patience, key, lane.upload.settle()));
        let results = join_all(settles).await;
        self.sort_out(results).await
    }

    async fn complete(self: Box<Self>) -> Result<ObjectInfo, StoreError> {
        let patience = self.patience(MIRROR_COMPLETE_WITHIN);
        let Self { mirror, key, lanes, written } = *self;
        let (stay, go): (Vec<Lane>, Vec<Lane>) = lanes.into_iter().partition(|lane| mirror.is_in(lane.at));
        abort(go).await;
        let completes = stay.into_iter().map(|Lane { at, upload }| {
            let key = &key;
            async move { (at, within(patience, key, upload.complete()).await) }
        });
        let mut first = None;
        for (at, result) in join_all(completes).await {
            match result {
                Ok(info) if info.size == written => {
                    first.get_or_insert(info);
                }
                Ok(info) => {
                    let detail = format!("{} bytes are there, {written} were written", info.size);
                    mirror.drop_out(at, StoreError::Corrupt { key: key.clone(), detail });
                }
                Err(error) => mirror.drop_out(at, error),
            }
        }
        mirror.enough()?;
        first.ok_or_else(|| mirror.nobody(&key))
    }

    async fn abort(self: Box<Self>) {
        abort(self.lanes).await;
    }
}

#[async_trait]
impl Store for MirrorStore {
    fn root(&self) -> &str {
        self.members.first().map_or("", |first| first.root())
    }

    async fn create(&self, key: &str, bytes: Bytes) -> Result<ObjectInfo, StoreError> {
        keys::check(key)?;
        settle::check_small(key, &bytes)?;
        self.enough()?;
        let mut rest = self.stores_in().into_iter();
        let mut made = None;
        // The first one alone: where it has another object under this key, no other store must get this one.
        for (at, store) in rest.by_ref() {
            match store.create(key, bytes.clone()).await {
                Ok(info) => {
                    made = Some(info);
                    break;
                }
                Err(error @ StoreError::AlreadyExists { .. }) => return Err(error),
                Err(error) => self.drop_out(at, error),
            }
        }
        let Some(made) = made else { return Err(self.nobody(key)) };
        let creates = rest.map(|(at, store)| {
            let bytes = bytes.clone();
            async move { (at, store.create(key, bytes).await) }
        });
        for (at, result) in join_all(creates).await {
            if let Err(error) = result {
                self.drop_out(at, error);
            }
        }
        Ok(made)
    }

    async fn replace(&self, key: &str, bytes: Bytes, etag: Option<&str>) -> Result<ObjectInfo, StoreError> {
        self.first_in(key)?.replace(key, bytes, etag).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let deletes = self.stores_in().into_iter().map(|(_, store)| async move { store.delete(key).await });
        join_all(deletes).await.into_iter().collect()
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>, StoreError> {
        keys::check(key)?;
        self.enough()?;
        let begins = self.stores_in().into_iter().map(|(at, store)| async move { (at, store.upload(key).await) });
        let mut lanes = Vec::new();
        for (at, begun) in join_all(begins).await {
            match begun {
                Ok(upload) => lanes.push(Lane { at, upload }),
                Err(error) => self.drop_out(at, error),
            }
        }
        if let Err(error) = self.enough() {
            abort(lanes).await;
            return Err(error);
        }
        Ok(Box::new(MirrorUpload { mirror: self.clone(), key: key.to_owned(), lanes, written: 0 }))
    }

    async fn get(&self, key: &str, limit: u64) -> Result<(ObjectInfo, Bytes), StoreError> {
        self.first_in(key)?.get(key, limit).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.first_in(key)?.get_range(key, range).await
    }

    /// Looks in every store that is in. One that lacks what the first one has, or has it with another size, drops out.
    async fn head(&self, key: &str) -> Result<ObjectInfo, StoreError> {
        let first = self.first_head(key).await?;
        let heads = self.stores_in().into_iter().skip(1).map(|(at, store)| async move { (at, store.head(key).await) });
        for (at, result) in join_all(heads).await {
            match result {
                Ok(info) if info.size == first.size => {}
                Ok(info) => {
                    let detail = format!("it has {} bytes here and {} in another store", info.size, first.size);
                    self.drop_out(at, StoreError::Corrupt { key: key.to_owned(), detail });
                }
                Err(error) => self.drop_out(at, error),
            }
        }
        Ok(first)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.first_in(prefix)?.list(prefix).await
    }

    async fn list_shallow(&self, prefix: &str) -> Result<(Vec<ObjectInfo>, Vec<String>), StoreError> {
        self.first_in(prefix)?.list_shallow(prefix).await
    }

    async fn written_at(&self, key: &str) -> Result<Option<SystemTime>, StoreError> {
        self.first_in(key)?.written_at(key).await
    }
}

#[cfg(test)]
mod tests;
