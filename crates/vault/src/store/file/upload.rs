//! A big object written to `file://`.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use disk::{Dir, File};
use ring::digest::{Context, Digest, SHA256};

use super::super::{ObjectInfo, StoreError, Upload};
use super::blocking;
use super::tree::{Tree, etag, io_error};

/// Bytes are gathered up to this before they are written: one change of threads costs more than writing a small piece.
const GATHER: usize = 1 << 20;
/// Bytes after which the system is asked to begin writing them out, so that the sync at the end has little left and an etcd on the same disk never
/// waits behind one large flush.
const WRITE_BEHIND: u64 = 8 << 20;

/// The file being written. Dropping it removes the temporary file.
struct Target {
    tree: Arc<Tree>,
    key: String,
    dir: Dir,
    file: File,
    temp: String,
    len: u64,
    hash: Context,
    /// Up to where writing out was begun.
    behind: u64,
    /// Durable, and read back since the last write.
    settled: bool,
    placed: bool,
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.placed {
            // Best effort; a temporary file that stays is never listed.
            let _ = self.dir.remove_file(&self.temp);
            let _ = self.tree.prune(&self.key);
        }
    }
}

impl Target {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all_at(bytes, self.len).map_err(|error| io_error(&self.key, &error))?;
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        self.settled = false;
        if self.len - self.behind >= WRITE_BEHIND {
            self.file.sync_range(self.behind, self.len - self.behind);
            self.behind = self.len;
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), StoreError> {
        self.file.sync().map_err(|error| io_error(&self.key, &error))?;
        let read = self.read_back()?;
        if read.as_ref() != self.hash.clone().finish().as_ref() {
            let detail = "what was read back is not what was written: the disk, its controller or the memory is faulty".to_owned();
            return Err(StoreError::Corrupt { key: self.key.clone(), detail });
        }
        self.settled = true;
        Ok(())
    }

    fn complete(mut self) -> Result<ObjectInfo, StoreError> {
        if !self.settled {
            self.settle()?;
        }
        let fail = |error| io_error(&self.key, &error);
        let name = self.key.rsplit('/').next().unwrap_or(&self.key);
        disk::crash::point(&format!("complete {}", self.key));
        self.dir.rename_no_replace(&self.temp, &self.dir, name).map_err(fail)?;
        self.placed = true;
        self.tree.sync_above(&self.key)?;
        disk::crash::point(&format!("completed {}", self.key));
        let stat = self.file.stat().map_err(|error| io_error(&self.key, &error))?;
        Ok(ObjectInfo { key: self.key.clone(), size: stat.size, etag: Some(etag(&stat)) })
    }

    /// Hashes what the file holds now, from the device where the system lets go of its copy in memory.
    fn read_back(&self) -> Result<Digest, StoreError> {
        self.file.sync_range(0, self.len);
        self.file.advise_sequential();
        let mut hash = Context::new(&SHA256);
        let mut buffer = vec![0; GATHER];
        let mut at = 0;
        loop {
            let count = self.file.read_at(&mut buffer, at).map_err(|error| io_error(&self.key, &error))?;
            if count == 0 {
                return Ok(hash.finish());
            }
            hash.update(&buffer[..count]);
            at += count as u64;
        }
    }
}

pub(super) struct FileUpload {
    /// Absent after an error: then nothing more is written.
    target: Option<Target>,
    key: String,
    gathered: BytesMut,
}

impl FileUpload {
    pub(super) fn begin(tree: Arc<Tree>, key: String) -> Result<Self, StoreError> {
        let (dir, file, temp) = tree.begin(&key)?;
        let target = Target {
            tree,
            key: key.clone(),
            dir,
            file,
            temp,
            len: 0,
            hash: Context::new(&SHA256),
            behind: 0,
            settled: false,
            placed: false,
        };
        Ok(Self { target: Some(target), key, gathered: BytesMut::new() })
    }

    fn take(&mut self) -> Result<Target, StoreError> {
        self.target.take().ok_or_else(|| StoreError::Other { key: self.key.clone(), detail: "the upload has failed before".to_owned() })
    }
}

#[async_trait]
impl Upload for FileUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.gathered.extend_from_slice(&bytes);
        if self.gathered.len() < GATHER {
            return Ok(());
        }
        let mut target = self.take()?;
        let gathered = self.gathered.split().freeze();
        self.target = Some(blocking(move || target.append(&gathered).map(|()| target)).await?);
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), StoreError> {
        let (mut target, gathered) = (self.take()?, self.gathered.split().freeze());
        let settled = blocking(move || {
            target.append(&gathered)?;
            target.settle().map(|()| target)
        });
        self.target = Some(settled.await?);
        Ok(())
    }

    async fn complete(mut self: Box<Self>) -> Result<ObjectInfo, StoreError> {
        let (mut target, gathered) = (self.take()?, self.gathered.split().freeze());
        blocking(move || {
            if !gathered.is_empty() {
                target.append(&gathered)?;
            }
            target.complete()
        })
        .await
    }

    async fn abort(self: Box<Self>) {
        // Dropping the target removes the temporary file; that is file work, so not on this thread.
        let _ = blocking(move || {
            drop(self);
            Ok(())
        })
        .await;
    }
}
