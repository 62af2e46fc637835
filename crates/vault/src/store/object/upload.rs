//! A big object written in parts (Azure: blocks); one that fits into a single part is written at once.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use disk::crash;
use object_store::MultipartId;
use object_store::multipart::PartId;
use object_store::path::Path;
use tokio::task::JoinSet;

use super::super::limits::{ABORT_TIMEOUT, MAX_PARTS, PART_SIZE, PARTS_IN_FLIGHT};
use super::super::{ObjectInfo, StoreError, Upload};
use super::{BucketStore, persist};

/// What a finished task brings: the number of the part, and what the store calls it.
type Sent = Result<(usize, PartId), StoreError>;

pub(super) struct PartsUpload {
    store: BucketStore,
    key: String,
    path: Path,
    /// The multipart upload, from the first full part on until it is completed or given up.
    id: Option<MultipartId>,
    filling: BytesMut,
    under_way: JoinSet<Sent>,
    parts: Vec<Option<PartId>>,
    size: u64,
}

impl PartsUpload {
    pub(super) fn new(store: BucketStore, key: &str, path: Path) -> Self {
        let (filling, under_way, parts) = (BytesMut::new(), JoinSet::new(), Vec::new());
        Self { store, key: key.to_owned(), path, id: None, filling, under_way, parts, size: 0 }
    }

    async fn id(&mut self) -> Result<MultipartId, StoreError> {
        if let Some(id) = &self.id {
            return Ok(id.clone());
        }
        let bucket = &self.store.bucket;
        // An upload whose id was lost on the way stays without parts; nobody sees it.
        let made = || async { bucket.clients.small.create_multipart(&self.path).await.map_err(|error| bucket.error(&self.key, error)) };
        let id = persist(made).await?;
        self.id = Some(id.clone());
        Ok(id)
    }

    async fn send(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let number = self.parts.len();
        if number >= MAX_PARTS {
            let detail = format!("larger than {MAX_PARTS} parts of {PART_SIZE} bytes");
            return Err(StoreError::Other { key: self.key.clone(), detail });
        }
        let id = self.id().await?;
        while self.under_way.len() >= PARTS_IN_FLIGHT {
            self.collect_one().await?;
        }
        self.parts.push(None);
        let (bucket, key, path) = (std::sync::Arc::clone(&self.store.bucket), self.key.clone(), self.path.clone());
        self.under_way.spawn(async move {
            crash::point(&format!("put part {number} of {key}"));
            // The same part may be sent any number of times.
            let sent = || async {
                let sent = bucket.clients.write.put_part(&path, &id, number, bytes.clone().into()).await;
                sent.map_err(|error| bucket.error(&key, error))
            };
            Ok((number, persist(sent).await?))
        });
        Ok(())
    }

    async fn collect_one(&mut self) -> Result<(), StoreError> {
        match self.under_way.join_next().await {
            None => Ok(()),
            Some(Ok(Ok((number, part)))) => {
                self.parts[number] = Some(part);
                Ok(())
            }
            Some(Ok(Err(error))) => Err(error),
            Some(Err(error)) => Err(StoreError::Other { key: self.key.clone(), detail: format!("sending a part did not finish: {error}") }),
        }
    }

    async fn finish(&mut self) -> Result<ObjectInfo, StoreError> {
        if self.id.is_none() {
            let bytes = self.filling.split().freeze();
            return self.store.create_settled(&self.key, &bytes).await;
        }
        if !self.filling.is_empty() {
            let bytes = self.filling.split().freeze();
            self.send(bytes).await?;
        }
        while !self.under_way.is_empty() {
            self.collect_one().await?;
        }
        let id = self.id().await?;
        let parts: Option<Vec<PartId>> = self.parts.drain(..).collect();
        let missing = || StoreError::Other { key: self.key.clone(), detail: "a part was not sent".to_owned() };
        let parts = parts.ok_or_else(missing)?;
        let bucket = &self.store.bucket;
        let completed = bucket.clients.write.complete_multipart(&self.path, &id, parts).await;
        // Looked at in any case: an error may hide a success (a second try finds the upload gone), and a success may lie.
        let there = bucket.head(&self.key).await;
        match (completed, there) {
            (_, Ok(info)) if info.size == self.size => {
                self.id = None;
                Ok(info)
            }
            (Ok(_), Ok(info)) => {
                let detail = format!("{} bytes were sent, the store has {}", self.size, info.size);
                Err(StoreError::Corrupt { key: self.key.clone(), detail })
            }
            (Ok(_), Err(StoreError::NotFound { .. })) => Err(StoreError::Corrupt {
                key: self.key.clone(),
                detail: "the store said that it is complete, and does not have it".to_owned(),
            }),
            (Ok(_), Err(error)) => Err(error),
            (Err(error), _) => Err(match bucket.error(&self.key, error) {
                // Not the object is missing, but the upload.
                StoreError::NotFound { key } => StoreError::Other { key, detail: "the store does not know the upload any more".to_owned() },
                error => error,
            }),
        }
    }
}

/// Removes the parts of an upload, as well as one can: lifecycle rules of the bucket are for the rest.
async fn abandon(store: BucketStore, path: Path, id: MultipartId) {
    let _ = tokio::time::timeout(ABORT_TIMEOUT, store.bucket.clients.small.abort_multipart(&path, &id)).await;
}

#[async_trait]
impl Upload for PartsUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.size += bytes.len() as u64;
        let mut rest = &bytes[..];
        while self.filling.len() + rest.len() > PART_SIZE {
            // A full part is sent only when more follows, so that an object of exactly one part needs no multipart upload.
            let (now, later) = rest.split_at(PART_SIZE - self.filling.len());
            self.filling.extend_from_slice(now);
            rest = later;
            let part = std::mem::replace(&mut self.filling, BytesMut::with_capacity(PART_SIZE)).freeze();
            self.send(part).await?;
        }
        self.filling.extend_from_slice(rest);
        Ok(())
    }

    async fn complete(mut self: Box<Self>) -> Result<ObjectInfo, StoreError> {
        crash::point(&format!("complete {}", self.key));
        match self.finish().await {
            Ok(info) => {
                crash::point(&format!("completed {}", self.key));
                Ok(info)
            }
            Err(error) => {
                self.abort().await;
                Err(error)
            }
        }
    }

    async fn abort(mut self: Box<Self>) {
        // A part that arrives after the abort would stay, so the tasks are ended first.
        self.under_way.shutdown().await;
        if let Some(id) = self.id.take() {
            let store = BucketStore { bucket: std::sync::Arc::clone(&self.store.bucket) };
            abandon(store, self.path.clone(), id).await;
        }
    }
}

impl Drop for PartsUpload {
    fn drop(&mut self) {
        // Somebody returned early without `abort`; ask for it beside, if the runtime still runs.
        if let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current()) {
            self.under_way.abort_all();
            let store = BucketStore { bucket: std::sync::Arc::clone(&self.store.bucket) };
            runtime.spawn(abandon(store, self.path.clone(), id));
        }
    }
}
