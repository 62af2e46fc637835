//! From a feed to a stored object: workers compress frames side by side, one thread seals them in order, the upload goes on meanwhile.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use vault::layers::Layers;
use vault::seal::{CompressedFrame, FrameCompressor, Recipients, SealError, SealWriter, SealedObject};
use vault::store::Upload;

use crate::failure::{Failure, Outcome};
use crate::feed::Feed;
use crate::limits::{MAX_WORKERS, SEALED_AHEAD};
use crate::opening::Person;
use crate::order::Order;
use crate::store_failure;

/// Pieces between the sealing thread and the upload at most.
const PIECES_WAITING: usize = 2;
/// How much a backup steps back (nice) behind an etcd on the same machine, whose writes somebody waits for.
const BEHIND_ETCD: i32 = 10;
/// How much everything steps back in a gentle run, and what has nothing to do with the stream in any.
const LAST: i32 = 19;

/// How an object is sealed.
#[derive(Clone)]
pub struct SealPlan {
    /// The layers.
    pub layers: Layers,
    /// Who can open it; none when it is left plain.
    pub recipients: Option<Arc<Recipients>>,
    /// Compression workers.
    pub workers: usize,
    /// Who answers a plugin's questions.
    pub person: Person,
}

impl std::fmt::Debug for SealPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealPlan").field("layers", &self.layers).field("workers", &self.workers).finish()
    }
}

/// One worker per core, at most [`MAX_WORKERS`]; one when gentle.
#[must_use]
pub fn workers(gentle: bool) -> usize {
    if gentle {
        return 1;
    }
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(MAX_WORKERS)
}

/// Seals everything that goes through the feed, until it is complete, into the upload, which the caller then completes or aborts.
///
/// When it fails, or is dropped, the feed is aborted and the threads end.
pub async fn seal(feed: Arc<Feed>, plan: SealPlan, upload: &mut dyn Upload) -> Outcome<SealedObject> {
    let order = Arc::new(Order::new(plan.workers.max(1) * SEALED_AHEAD));
    let _ends = EndsThreads { feed: Arc::clone(&feed), order: Arc::clone(&order) };
    let mut ends = Vec::new();
    for _ in 0..plan.workers.max(1) {
        let (feed, order, plan) = (Arc::clone(&feed), Arc::clone(&order), plan.clone());
        ends.push(on_thread("compress", move || compress(&feed, &order, &plan)));
    }
    let (pieces_in, mut pieces) = mpsc::channel::<Bytes>(PIECES_WAITING);
    let sealer = {
        let order = Arc::clone(&order);
        on_thread("seal", move || seal_in_order(&order, &plan, &pieces_in))
    };
    let all_compressed = {
        let order = Arc::clone(&order);
        async move {
            for end in ends {
                end.await?;
            }
            order.complete();
            Ok::<(), Failure>(())
        }
    };
    let uploaded = async {
        while let Some(piece) = pieces.recv().await {
            upload.write(piece).await.map_err(|error| store_failure::failure("the snapshot cannot be stored", &error))?;
        }
        Ok::<(), Failure>(())
    };
    let ((), object, ()) = tokio::try_join!(all_compressed, sealer, uploaded)?;
    Ok(object)
}

/// Ends the threads whatever way `seal` is left.
struct EndsThreads {
    feed: Arc<Feed>,
    order: Arc<Order<CompressedFrame>>,
}

impl Drop for EndsThreads {
    fn drop(&mut self) {
        self.order.abort();
        // A complete feed has nothing to give any more; only one that is still growing has workers to end.
        self.feed.abort();
    }
}

/// Runs blocking work on a thread of its own; a panic there becomes a failure here.
pub(crate) fn on_thread<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> impl Future<Output = Outcome<T>> {
    let (done, result) = oneshot::channel();
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _ = done.send(work());
    });
    async move {
        spawned.map_err(|error| Failure::failed(format!("a thread cannot be started: {error}")))?;
        result.await.map_err(|_| Failure::failed(format!("the thread '{name}' ended unexpectedly; this is a bug in Lifeboat")))?
    }
}

/// Lowers the priority of the calling thread and of every thread that it starts afterwards (on Linux `nice` is per thread). For the beginning of a
/// process whose only work is a backup. Not being allowed to is no reason to fail.
pub fn step_back_behind_etcd(gentle: bool) {
    let _ = rustix::process::nice(if gentle { LAST } else { BEHIND_ETCD });
}

/// Lowers the calling thread's priority as far as it goes: for work that the stream does not wait for.
pub(crate) fn step_back() {
    let _ = rustix::process::nice(LAST);
}

fn compress(feed: &Feed, order: &Order<CompressedFrame>, plan: &SealPlan) -> Outcome<()> {
    step_back();
    let mut compressor =
        if plan.layers.zstd { FrameCompressor::zstd().map_err(|error| seal_failure(&error))? } else { FrameCompressor::stored() };
    while let Some(frame) = feed.take()? {
        let index = frame.index;
        let compressed = compressor.compress(&frame.bytes);
        feed.recycle(frame.bytes);
        if !order.put(index, compressed.map_err(|error| seal_failure(&error))?) {
            break;
        }
    }
    Ok(())
}

fn seal_in_order(order: &Order<CompressedFrame>, plan: &SealPlan, pieces: &mpsc::Sender<Bytes>) -> Outcome<SealedObject> {
    step_back();
    let failed = |error: SealError| seal_failure(&error);
    let mut writer = SealWriter::new(plan.layers, plan.recipients.as_deref(), plan.person).map_err(failed)?;
    let send = |piece: Bytes| pieces.blocking_send(piece).map_err(|_| Failure::failed("the upload ended before the snapshot was sealed"));
    while let Some(frame) = order.next() {
        writer.push(frame).map_err(failed)?;
        while let Some(piece) = writer.pop() {
            send(piece)?;
        }
    }
    if order.is_aborted() {
        return Err(Failure::failed("sealing was given up"));
    }
    let (rest, object) = writer.finish().map_err(failed)?;
    for piece in rest {
        send(piece)?;
    }
    Ok(object)
}

/// A failure of sealing in words.
pub(crate) fn seal_failure(error: &SealError) -> Failure {
    Failure::failed("the snapshot cannot be sealed").cause(error.to_string()).again()
}
