//! The beginning of a copy: an empty place becomes the same repository on another store.

use std::sync::Arc;

use super::{Place, Repository, RepositoryError};
use crate::store::{Store, StoreError};
use crate::{key, limits, restore_txt};

impl Repository {
    /// Makes an empty place the same repository: its `RESTORE.txt`, then its marker, byte for byte, each create-only. Read with the same signers.
    ///
    /// The same repository there already is success. Another one is [`RepositoryError::AlreadyThere`], and nothing was changed.
    pub async fn seed(&self, target: Arc<dyn Store>) -> Result<Self, RepositoryError> {
        let root = target.root().to_owned();
        match Self::look(Arc::clone(&target)).await? {
            Place::Repository(there) if there.id() == self.id() => return Ok(there.with_signers(self.signers.clone())),
            Place::Repository(there) => return Err(RepositoryError::AlreadyThere { root, id: *there.id() }),
            Place::Other => return Err(RepositoryError::NoRepository { root, empty: false }),
            Place::Empty => {}
        }
        // What a person is to read is of use even where the source has lost it.
        let text = match self.store.get(key::RESTORE_TEXT, limits::SMALL_JSON_BYTES as u64).await {
            Ok((_, bytes)) => bytes,
            Err(StoreError::NotFound { .. } | StoreError::Corrupt { .. }) => restore_txt::text().into(),
            Err(error) => return Err(error.into()),
        };
        let (_, marker) = self.store.get(key::MARKER, limits::SMALL_JSON_BYTES as u64).await?;
        for (key, bytes) in [(key::RESTORE_TEXT, text), (key::MARKER, marker)] {
            match target.create(key, bytes).await {
                Ok(_) | Err(StoreError::AlreadyExists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // Somebody else may have been faster with another one.
        let made = Self::open(target).await?;
        if made.id() != self.id() {
            return Err(RepositoryError::AlreadyThere { root, id: *made.id() });
        }
        Ok(made.with_signers(self.signers.clone()))
    }
}
