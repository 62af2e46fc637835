//! One object from store to store. It is whole in the target, or not there.

use std::sync::Arc;

use bytes::Bytes;
use vault::digest::{Sha256, Sha256Hasher};
use vault::store::{Store, StoreError};

use super::{Object, Refusal, Trouble};
use crate::failure::{Failure, Outcome};
use crate::store_failure;
use crate::stored::{self, BLOCK};

/// Objects up to this size go over in one piece.
const WHOLE: u64 = 1 << 20;

/// What became of an object: nothing, or why it is not in the target.
pub(super) type Verdict = Option<Refusal>;

/// Both ends, and somebody who counts the bytes that went over.
pub(super) struct Ends<'a> {
    pub(super) source: &'a Arc<dyn Store>,
    pub(super) target: &'a Arc<dyn Store>,
    pub(super) count: &'a (dyn Fn(u64) + Sync),
}

impl Ends<'_> {
    /// Brings an object over, or compares the one that is there.
    ///
    /// # Errors
    /// When a store fails: then nothing else would go better.
    pub(super) async fn bring(&self, object: &Object) -> Outcome<Verdict> {
        if object.there {
            return self.compare(object).await;
        }
        if object.size <= WHOLE { self.small(object).await } else { self.large(object).await }
    }

    async fn compare(&self, object: &Object) -> Outcome<Verdict> {
        let hashed = stored::hash(self.target, &object.key, object.size).await?;
        let same = hashed.whole == object.sha256;
        let why = "the target holds other bytes under this key than the manifest states; nothing is overwritten";
        Ok((!same).then(|| refusal(object, Trouble::Conflict, why)))
    }

    async fn small(&self, object: &Object) -> Outcome<Verdict> {
        let bytes = match self.source.get(&object.key, object.size).await {
            Ok((_, bytes)) => bytes,
            Err(error) => return unread(object, &error),
        };
        if bytes.len() as u64 != object.size || Sha256::of(&bytes) != object.sha256 {
            return Ok(Some(changed(object)));
        }
        match self.target.create(&object.key, bytes).await {
            Ok(_) => {
                (self.count)(object.size);
                Ok(None)
            }
            Err(error) => unwritten(&object.key, &error),
        }
    }

    /// Block by block; while one is written the next is read. Nothing is visible in the target before its digest was right.
    async fn large(&self, object: &Object) -> Outcome<Verdict> {
        let mut upload = match self.target.upload(&object.key).await {
            Ok(upload) => upload,
            Err(error) => return unwritten(&object.key, &error),
        };
        let verdict = self.stream(object, upload.as_mut()).await;
        if !matches!(verdict, Ok(None)) {
            upload.abort().await;
            return verdict;
        }
        match upload.complete().await {
            Ok(info) if info.size == object.size => Ok(None),
            Ok(info) => Ok(Some(refusal(object, Trouble::Conflict, &format!("the target holds {} bytes of it", info.size)))),
            Err(error) => unwritten(&object.key, &error),
        }
    }

    async fn stream(&self, object: &Object, upload: &mut dyn vault::store::Upload) -> Outcome<Verdict> {
        let mut hasher = Sha256Hasher::new();
        let mut offset = 0;
        let mut next = self.read(object, 0).await;
        while offset < object.size {
            let block = match next {
                Ok(block) => block,
                Err(error) => return unread(object, &error),
            };
            hasher.update(&block);
            offset += block.len() as u64;
            let length = block.len() as u64;
            let (written, read) = tokio::join!(upload.write(block), self.read(object, offset));
            if let Err(error) = written {
                return unwritten(&object.key, &error);
            }
            (self.count)(length);
            next = read;
        }
        Ok((hasher.finish() != object.sha256).then(|| changed(object)))
    }

    /// The block at `offset`; nothing at the end.
    async fn read(&self, object: &Object, offset: u64) -> Result<Bytes, StoreError> {
        let end = object.size.min(offset + BLOCK);
        if offset >= end {
            return Ok(Bytes::new());
        }
        let block = self.source.get_range(&object.key, offset..end).await?;
        if block.len() as u64 == end - offset {
            return Ok(block);
        }
        Err(StoreError::Corrupt { key: object.key.clone(), detail: format!("it ends before byte {end}") })
    }
}

fn refusal(object: &Object, trouble: Trouble, why: &str) -> Refusal {
    Refusal { object: object.key.clone(), trouble, why: why.to_owned() }
}

fn changed(object: &Object) -> Refusal {
    refusal(object, Trouble::Damaged, "its bytes are not those that the manifest states: sha256 differs")
}

/// An error of the source: damage of one object, or the store's own trouble.
fn unread(object: &Object, error: &StoreError) -> Outcome<Verdict> {
    match error {
        StoreError::NotFound { .. } | StoreError::Corrupt { .. } => Ok(Some(refusal(object, Trouble::Damaged, &error.to_string()))),
        error => Err(read_failure(error)),
    }
}

/// An error of the target: something else is there, or the store's own trouble.
pub(super) fn unwritten(key: &str, error: &StoreError) -> Outcome<Verdict> {
    match error {
        StoreError::AlreadyExists { .. } => {
            let why = "the target holds something else under this key; nothing is overwritten".to_owned();
            Ok(Some(Refusal { object: key.to_owned(), trouble: Trouble::Conflict, why }))
        }
        error => Err(write_failure(error)),
    }
}

/// The source fails.
pub(super) fn read_failure(error: &StoreError) -> Failure {
    store_failure::failure("the store copied from cannot be read; what was copied so far is whole, and the same command goes on", error)
}

/// The target fails.
pub(super) fn write_failure(error: &StoreError) -> Failure {
    store_failure::failure("the store copied to cannot be written; what was copied so far is whole, and the same command goes on", error)
}
