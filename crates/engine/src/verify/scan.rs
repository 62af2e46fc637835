//! One pass over one stored object: every byte is hashed, and the same bytes go to whoever opens the object, so that nothing is fetched twice.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures::StreamExt;
use tokio::sync::mpsc;
use vault::digest::{Sha256, Sha256Hasher};
use vault::store::{Store, StoreError};

use crate::failure::Outcome;
use crate::limits::VERIFY_READ_AHEAD;
use crate::seal_pipeline::on_thread;
use crate::store_failure;
use crate::stored::{BLOCK, Hashed};

/// Blocks that wait for the thread that hashes, or for the one that opens, at most.
const WAITING: usize = 1;

/// Opens an object while it is read, on a thread of its own. It may stop early: hashing goes on without it.
pub(super) type Opener<T> = Box<dyn FnOnce(Blocks) -> Outcome<T> + Send>;

/// What a pass gave.
#[derive(Debug)]
pub(super) enum Scanned<T> {
    /// The object was read to its end.
    Whole {
        /// Its digests.
        hashed: Hashed,
        /// What the opener made of it.
        opened: Option<T>,
    },
    /// The store holds less than the manifest states, or finds the object damaged itself; in words.
    Broken(String),
}

/// Reads an object of `size` bytes in blocks of 8 MiB, a few of them ahead. Holds five blocks at most. `tell` is called with the bytes read so far.
///
/// A store that cannot be reached, or denies, is a failure of the run: nothing was found out about the object.
pub(super) async fn scan<T: Send + 'static>(
    store: &Arc<dyn Store>,
    key: &str,
    size: u64,
    opener: Option<Opener<T>>,
    mut tell: impl FnMut(u64),
) -> Outcome<Scanned<T>> {
    let (hash_in, hash_out) = mpsc::channel(WAITING);
    let hashing = on_thread("hash", move || Ok(hash(hash_out)));
    let (mut open_in, opening) = match opener {
        None => (None, None),
        Some(opener) => {
            let (open_in, blocks) = mpsc::channel(WAITING);
            (Some(open_in), Some(on_thread("open", move || opener(Blocks::new(blocks)))))
        }
    };
    let mut blocks = futures::stream::iter(ranges(size)).map(|range| store.get_range(key, range)).buffered(VERIFY_READ_AHEAD);
    let mut done = 0;
    while let Some(block) = blocks.next().await {
        let block = match block {
            Ok(block) => block,
            Err(error) => return damage(&error).map(Scanned::Broken),
        };
        done += block.len() as u64;
        // A thread ends early only by failing, which its own result tells.
        let _ = hash_in.send(block.clone()).await;
        if let Some(sender) = &open_in
            && sender.send(block).await.is_err()
        {
            open_in = None;
        }
        tell(done);
    }
    drop((hash_in, open_in));
    let hashed = hashing.await?;
    let opened = match opening {
        Some(opening) => Some(opening.await?),
        None => None,
    };
    Ok(Scanned::Whole { hashed, opened })
}

/// What an error says of the object, in words; one that says something of the store only is a failure.
pub(super) fn damage(error: &StoreError) -> Outcome<String> {
    match error {
        StoreError::NotFound { .. } => Ok("missing, although the manifest names it".to_owned()),
        StoreError::Corrupt { detail, .. } => Ok(detail.clone()),
        other => Err(store_failure::failure("the stored object cannot be read", other)),
    }
}

fn ranges(size: u64) -> impl Iterator<Item = Range<u64>> {
    (0..size.div_ceil(BLOCK)).map(move |index| {
        let start = index * BLOCK;
        start..size.min(start.saturating_add(BLOCK))
    })
}

fn hash(mut blocks: mpsc::Receiver<Bytes>) -> Hashed {
    let mut whole = Sha256Hasher::new();
    let mut digests = Vec::new();
    while let Some(block) = blocks.blocking_recv() {
        whole.update(&block);
        digests.push(Sha256::of(&block));
    }
    Hashed { whole: whole.finish(), blocks: digests }
}

/// The bytes of an object as they come, for the thread that opens it.
pub(super) struct Blocks {
    source: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Blocks {
    fn new(source: mpsc::Receiver<Bytes>) -> Self {
        Self { source, current: Bytes::new() }
    }

    /// The next block; waits for it. None at the end.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        self.source.blocking_recv()
    }

    /// Bytes that are there already.
    #[cfg(test)]
    pub(super) fn of(bytes: &[u8], block: usize) -> Self {
        let pieces: Vec<Bytes> = bytes.chunks(block).map(Bytes::copy_from_slice).collect();
        let (sender, source) = mpsc::channel(pieces.len().max(1));
        pieces.into_iter().for_each(|piece| sender.try_send(piece).unwrap());
        Self::new(source)
    }
}

impl Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.current.has_remaining() {
            match self.next() {
                Some(block) => self.current = block,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.current.remaining());
        self.current.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// Neighbouring blocks whose digests differ, as byte ranges of an object of `size` bytes.
pub(super) fn differing(found: &[Sha256], stated: &[Sha256], size: u64) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for (index, (found, stated)) in found.iter().zip(stated).enumerate() {
        if found == stated {
            continue;
        }
        let block = vault::frames::FrameTable::block_range(index, size);
        match ranges.last_mut() {
            Some(last) if last.end == block.start => last.end = block.end,
            _ => ranges.push(block),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use vault::store::MemoryStore;

    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn hashes_whole_and_by_block_while_another_reads() {
        let bytes: Vec<u8> = (0..BLOCK + 100).map(|n| (n % 251) as u8).collect();
        let memory = MemoryStore::new();
        memory.overwrite("a", bytes.clone());
        let store: Arc<dyn Store> = Arc::new(memory);
        let opener: Opener<u64> = Box::new(|mut blocks| {
            let mut read = Vec::new();
            blocks.read_to_end(&mut read).unwrap();
            Ok(read.len() as u64)
        });
        let mut told = 0;
        let scanned = run(scan(&store, "a", bytes.len() as u64, Some(opener), |done| told = done)).unwrap();
        let Scanned::Whole { hashed, opened } = scanned else { panic!("{scanned:?}") };
        assert_eq!((opened, told), (Some(bytes.len() as u64), bytes.len() as u64));
        assert_eq!(hashed.whole, Sha256::of(&bytes));
        assert_eq!(hashed.blocks, [Sha256::of(&bytes[..BLOCK as usize]), Sha256::of(&bytes[BLOCK as usize..])]);
    }

    #[test]
    fn an_opener_that_gives_up_does_not_stop_the_hashing() {
        let bytes = vec![7_u8; 5 * BLOCK as usize];
        let memory = MemoryStore::new();
        memory.overwrite("a", bytes.clone());
        let store: Arc<dyn Store> = Arc::new(memory);
        let opener: Opener<()> = Box::new(|_| Ok(()));
        let scanned = run(scan(&store, "a", bytes.len() as u64, Some(opener), |_| {})).unwrap();
        assert!(matches!(scanned, Scanned::Whole { hashed, .. } if hashed.whole == Sha256::of(&bytes)));
    }

    #[test]
    fn what_is_missing_or_short_is_said_of_the_object() {
        let memory = MemoryStore::new();
        memory.overwrite("a", vec![1_u8; 10]);
        let store: Arc<dyn Store> = Arc::new(memory);
        for (key, size) in [("b", 10), ("a", 11)] {
            let scanned = run(scan::<()>(&store, key, size, None, |_| {})).unwrap();
            assert!(matches!(scanned, Scanned::Broken(_)), "{scanned:?}");
        }
    }

    #[test]
    fn damaged_blocks_that_touch_are_one_range() {
        let [a, b] = [Sha256::of(b"a"), Sha256::of(b"b")];
        let stated = [a; 5];
        let size = 4 * BLOCK + 9;
        assert_eq!(differing(&stated, &stated, size), vec![]);
        assert_eq!(differing(&[a, b, b, a, b], &stated, size), vec![BLOCK..3 * BLOCK, 4 * BLOCK..size]);
    }
}
