//! Looking at what lies in a store, byte by byte, without opening it.

use std::sync::Arc;

use vault::digest::{Sha256, Sha256Hasher};
use vault::store::Store;

use crate::failure::Outcome;
use crate::store_failure;

/// Bytes read at a time; the blocks whose digests `frames.bin` holds.
pub const BLOCK: u64 = vault::limits::HASH_BLOCK;

/// What reading an object in full gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// The digest of all bytes.
    pub whole: Sha256,
    /// The digests of its blocks of 8 MiB.
    pub blocks: Vec<Sha256>,
}

/// Reads an object of `size` bytes in full and hashes it. Holds one block.
pub async fn hash(store: &Arc<dyn Store>, key: &str, size: u64) -> Outcome<Hashed> {
    let mut whole = Sha256Hasher::new();
    let mut blocks = Vec::new();
    let mut offset = 0;
    while offset < size {
        let end = size.min(offset + BLOCK);
        let bytes =
            store.get_range(key, offset..end).await.map_err(|error| store_failure::failure("the stored object cannot be read", &error))?;
        whole.update(&bytes);
        blocks.push(Sha256::of(&bytes));
        offset = end;
    }
    Ok(Hashed { whole: whole.finish(), blocks })
}
