//! From a stored object back to its bytes: workers fetch ranges side by side, decrypt and decompress them.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use vault::frames::FrameTable;
use vault::layers::Layers;
use vault::seal::{FrameDecoder, Identities, SealError, StreamDecoder, Unsealer};
use vault::store::Store;

use crate::failure::{Code, Failure, Outcome};
use crate::limits::{FRAME, FRAMES_PER_FETCH, MAX_WORKERS};
use crate::order::Order;
use crate::seal_pipeline::on_thread;
use crate::store_failure;

/// What is fetched.
#[derive(Clone)]
pub struct Object {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The object's key.
    pub key: String,
    /// How it is read.
    pub content: Content,
}

/// How an object is read.
#[derive(Clone)]
pub enum Content {
    /// In ranges, by several workers.
    Frames(Frames),
    /// From its beginning to its end, as `age -d | zstd -d` would: for an object whose frame table is missing or damaged.
    Stream {
        /// Its layers.
        layers: Layers,
        /// Its size in bytes.
        size: u64,
        /// What opens it.
        identities: Arc<Identities>,
    },
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Frames(frames) => f.debug_tuple("Frames").field(frames).finish(),
            Self::Stream { layers, size, .. } => {
                f.debug_struct("Stream").field("layers", layers).field("size", size).finish_non_exhaustive()
            }
        }
    }
}

/// What it takes to read in ranges.
#[derive(Clone, Debug)]
pub struct Frames {
    /// The opened object.
    pub unsealer: Unsealer,
    /// Its frame table, which was checked against the opened object.
    pub table: Arc<FrameTable>,
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Object").field("key", &self.key).finish_non_exhaustive()
    }
}

/// Takes bytes at their offset in the file, from several threads, in any order.
pub type At = Arc<dyn Fn(u64, &[u8]) -> Outcome<()> + Send + Sync>;

/// Takes bytes from one thread, in order.
pub type InOrder = Box<dyn FnMut(&[u8]) -> Outcome<()> + Send>;

/// Fetches a whole object. Every byte is given to `at` once, as soon as it is there, and to `in_order` once, in order.
pub async fn fetch(object: Object, at: At, in_order: InOrder) -> Outcome<()> {
    match object.content {
        Content::Frames(frames) => in_ranges(object.store, object.key, frames, at, in_order).await,
        Content::Stream { layers, size, identities } => {
            let reader = StoreReader {
                store: object.store,
                key: object.key.clone(),
                size,
                offset: 0,
                handle: Handle::current(),
                piece: Bytes::new(),
            };
            on_thread("fetch", move || stream(layers, reader, &object.key, &identities, &at, in_order)).await
        }
    }
}

async fn in_ranges(store: Arc<dyn Store>, key: String, frames: Frames, at: At, mut in_order: InOrder) -> Outcome<()> {
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(MAX_WORKERS);
    let shared = Arc::new(Shared {
        store,
        key,
        frames,
        at,
        next: AtomicUsize::new(0),
        order: Order::new(workers * FRAMES_PER_FETCH),
        spare: Mutex::default(),
    });
    let _ends = Ends(Arc::clone(&shared));
    let mut threads = Vec::new();
    for _ in 0..workers {
        let (shared, handle) = (Arc::clone(&shared), Handle::current());
        threads.push(on_thread("fetch", move || shared.work(&handle)));
    }
    let digesting = {
        let shared = Arc::clone(&shared);
        on_thread("digest", move || {
            while let Some(frame) = shared.order.next() {
                in_order(&frame)?;
                shared.recycle(frame);
            }
            if shared.order.is_aborted() { Err(Failure::failed("fetching was given up")) } else { Ok(()) }
        })
    };
    let fetching = async {
        futures::future::try_join_all(threads).await?;
        shared.order.complete();
        Ok(())
    };
    tokio::try_join!(fetching, digesting)?;
    Ok(())
}

/// Ends the threads whatever way `fetch` is left.
struct Ends(Arc<Shared>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.order.abort();
        self.0.next.store(usize::MAX / 2, Ordering::Relaxed);
    }
}

struct Shared {
    store: Arc<dyn Store>,
    key: String,
    frames: Frames,
    at: At,
    /// The first frame of the next run that no worker took yet.
    next: AtomicUsize,
    order: Order<Vec<u8>>,
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Shared {
    fn take_run(&self) -> Option<Range<usize>> {
        let start = self.next.fetch_add(FRAMES_PER_FETCH, Ordering::Relaxed);
        let frames = self.frames.table.frames().len();
        (start < frames).then(|| start..frames.min(start + FRAMES_PER_FETCH))
    }

    fn work(&self, handle: &Handle) -> Outcome<()> {
        let mut decoder = FrameDecoder::new().map_err(|error| damage(&self.key, &error))?;
        while let Some(run) = self.take_run() {
            let stored = self.read(&run, handle)?;
            let mut index = run.start as u64;
            let decoded = decoder.decode_run(&self.frames.unsealer, &self.frames.table, run, stored, |offset, bytes| {
                (self.at)(offset, bytes).map_err(Stop::Here)?;
                let mut copy = self.buffer();
                copy.extend_from_slice(bytes);
                if !self.order.put(index, copy) {
                    return Err(Stop::GivenUp);
                }
                index += 1;
                Ok(())
            });
            match decoded {
                Ok(()) => {}
                Err(Stop::GivenUp) => return Ok(()),
                Err(Stop::Here(failure)) => return Err(failure),
                Err(Stop::Damage(error)) => return Err(damage(&self.key, &error)),
            }
        }
        Ok(())
    }

    fn read(&self, run: &Range<usize>, handle: &Handle) -> Outcome<BytesMut> {
        let failed = |error: SealError| damage(&self.key, &error);
        let outside = || Failure::new(Code::Unproven, "the frame table names frames that it does not have").object(&self.key);
        let stream = self.frames.table.run_range(run).ok_or_else(outside)?;
        let range = self.frames.unsealer.stored_range(&stream).map_err(failed)?;
        let bytes: Bytes = handle
            .block_on(self.store.get_range(&self.key, range))
            .map_err(|error| store_failure::failure("the backup cannot be read", &error))?;
        Ok(bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..])))
    }

    fn buffer(&self) -> Vec<u8> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| Vec::with_capacity(FRAME))
    }

    fn recycle(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

/// Reads an object from a store piece by piece, on a thread that may block.
struct StoreReader {
    store: Arc<dyn Store>,
    key: String,
    size: u64,
    offset: u64,
    handle: Handle,
    piece: Bytes,
}

impl Read for StoreReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() && self.offset < self.size {
            let end = self.size.min(self.offset + FRAME as u64);
            self.piece = self.handle.block_on(self.store.get_range(&self.key, self.offset..end)).map_err(io::Error::other)?;
            self.offset = end;
        }
        let length = buffer.len().min(self.piece.len());
        buffer[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

fn stream(layers: Layers, reader: StoreReader, key: &str, identities: &Identities, at: &At, mut in_order: InOrder) -> Outcome<()> {
    let mut decoder = StreamDecoder::open(layers, reader, identities).map_err(|error| damage(key, &error))?;
    let unreadable =
        |error: io::Error| Failure::new(Code::Unproven, "the stored backup cannot be read to its end").object(key).cause(error).again();
    let mut buffer = vec![0; FRAME];
    let mut offset = 0;
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match decoder.read(&mut buffer[filled..]).map_err(unreadable)? {
                0 => break,
                length => filled += length,
            }
        }
        if filled == 0 {
            return Ok(());
        }
        at(offset, &buffer[..filled])?;
        in_order(&buffer[..filled])?;
        offset += filled as u64;
    }
}

/// Why a run was not finished.
enum Stop {
    GivenUp,
    Here(Failure),
    Damage(SealError),
}

impl From<SealError> for Stop {
    fn from(error: SealError) -> Self {
        Self::Damage(error)
    }
}

/// A failure for stored bytes that do not open.
pub(crate) fn damage(key: &str, error: &SealError) -> Failure {
    let code = if matches!(error, SealError::NoKey) { Code::NoKey } else { Code::Unproven };
    let failure = Failure::new(code, if code == Code::NoKey { "the backup cannot be opened" } else { "the stored backup is damaged" });
    failure.object(key).cause(error).again()
}
