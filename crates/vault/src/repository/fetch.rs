//! Reading many small objects at once.

use std::collections::HashMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use crate::limits;
use crate::store::{Store, StoreError};

/// What reading one small object gave.
#[derive(Clone, Debug)]
pub(super) enum Fetched {
    /// Its bytes.
    Bytes(Bytes),
    /// It is gone since it was listed.
    Gone,
    /// It is larger than allowed, or the store itself finds it damaged.
    Corrupt(String),
}

/// Reads objects, some at a time. A store that cannot be reached or denies is an error: a catalog must not look complete when it is not.
pub(super) async fn fetch(store: &dyn Store, wanted: Vec<(String, usize)>) -> Result<HashMap<String, Fetched>, StoreError> {
    futures::stream::iter(wanted)
        .map(|(key, limit)| async move {
            let fetched = match store.get(&key, limit as u64).await {
                Ok((_, bytes)) => Fetched::Bytes(bytes),
                Err(StoreError::NotFound { .. }) => Fetched::Gone,
                Err(StoreError::Corrupt { detail, .. }) => Fetched::Corrupt(detail),
                Err(error) => return Err(error),
            };
            Ok((key, fetched))
        })
        .buffer_unordered(limits::PARALLEL_READS)
        .try_collect()
        .await
}
