//! What a write did whose answer does not tell: found out by looking.

use bytes::Bytes;

use super::{ObjectInfo, Store, StoreError};

/// What is under the key after a write that may or may not have happened.
pub(super) enum Settled {
    /// The bytes that were to be written.
    Ours(ObjectInfo),
    /// Something else.
    Other,
    /// Nothing.
    Nothing,
    /// It cannot be told.
    Unknown,
}

/// Looks at what is under the key.
pub(super) async fn look(store: &dyn Store, key: &str, bytes: &Bytes) -> Settled {
    match store.get(key, bytes.len() as u64).await {
        Ok((info, found)) if found == *bytes => Settled::Ours(info),
        // `get` answers `Corrupt` for an object that is larger than what we wrote.
        Ok(_) | Err(StoreError::Corrupt { .. }) => Settled::Other,
        Err(StoreError::NotFound { .. }) => Settled::Nothing,
        Err(_) => Settled::Unknown,
    }
}

/// The outcome of a create-only write that found something there: the same bytes are success, since the first try of the same write, or
/// another writer of the same deterministic object, has put them there.
pub(super) async fn already_there(store: &dyn Store, key: &str, bytes: &Bytes) -> Result<ObjectInfo, StoreError> {
    match look(store, key, bytes).await {
        Settled::Ours(info) => Ok(info),
        Settled::Other | Settled::Nothing | Settled::Unknown => Err(StoreError::AlreadyExists { key: key.to_owned() }),
    }
}

/// Refuses a small object that is not small.
pub(super) fn check_small(key: &str, bytes: &Bytes) -> Result<(), StoreError> {
    if bytes.len() as u64 > super::MAX_SMALL_OBJECT {
        return Err(StoreError::Other { key: key.to_owned(), detail: format!("{} bytes are too many for one small object", bytes.len()) });
    }
    Ok(())
}
