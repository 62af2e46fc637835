//! One attempt: one member's stream, or a file, into the spool, sealed and uploaded on the way, examined at the end. Nothing is visible in the store yet.

use std::path::PathBuf;
use std::sync::Arc;

use bbolt::Database;
use etcd_api::SnapshotSummary;
use etcd_store::{HashKv, Inspection};
use jiff::Timestamp;
use kube_objects::{Census, KUBE_SYSTEM_KEYS, ResourceCounts};
use vault::seal::SealedObject;
use vault::store::Upload;

use super::prove::Answers;
use super::rescue;
use crate::failure::{Failure, Outcome};
use crate::feed::Feed;
use crate::limits::FRAME;
use crate::member_link::MemberLink;
use crate::progress::Progress;
use crate::seal_pipeline::{self, SealPlan};
use crate::snapshot_file::Opened;
use crate::spool::{Spool, SpoolOptions};
use crate::store_failure;

/// Bytes of the SHA-256 trailer that etcd appends to a snapshot.
pub(super) const TRAILER: u64 = 32;

/// Why an attempt came to nothing, and whose fault it was.
#[derive(Debug)]
pub(super) enum AttemptError {
    /// This member's stream or file is bad: the next member is tried.
    Member(Failure),
    /// This machine or the store failed: another member would not help.
    Here(Failure),
}

impl AttemptError {
    /// The failure, whoever's fault it was.
    pub(super) fn into_failure(self) -> Failure {
        match self {
            Self::Member(failure) | Self::Here(failure) => failure,
        }
    }
}

impl From<Failure> for AttemptError {
    fn from(failure: Failure) -> Self {
        Self::Here(failure)
    }
}

/// A snapshot that arrived whole, lies in the spool, and is written to the store under a name that nobody knows yet.
pub(super) struct Taken {
    pub(super) answers: Answers,
    pub(super) spool: Arc<Spool>,
    pub(super) summary: SnapshotSummary,
    pub(super) sealed: SealedObject,
    pub(super) upload: Box<dyn Upload>,
    pub(super) examined: Examined,
    pub(super) stream_started: Timestamp,
    pub(super) stream_ended: Timestamp,
}

/// What the file itself says.
#[derive(Clone, Debug)]
pub(crate) struct Examined {
    pub(crate) inspection: Inspection,
    pub(crate) hash_kv: HashKv,
    pub(crate) resources: ResourceCounts,
    pub(crate) fingerprint: Option<String>,
}

/// The member a snapshot is taken from.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) link: &'a MemberLink,
    /// The size of its file as it told it.
    pub(super) size: Option<u64>,
}

/// Where a snapshot comes from.
#[derive(Clone)]
pub(super) enum Origin<'a> {
    /// A member, that streams it.
    Member(Source<'a>),
    /// A file, at this path.
    File(Arc<Opened>, PathBuf),
}

/// Takes a snapshot from one member, or from a file, and has the members asked about it as soon as it is examined, while the rest of it is still being sealed.
pub(super) async fn take(
    origin: Origin<'_>,
    spool_options: &SpoolOptions,
    plan: SealPlan,
    mut upload: Box<dyn Upload>,
    ask: impl AsyncFnOnce(&Examined) -> Answers,
    progress: &Arc<dyn Progress>,
) -> Result<Taken, AttemptError> {
    match stream_and_seal(origin, spool_options, plan, upload.as_mut(), ask, progress).await {
        Ok(streamed) => {
            let Streamed { answers, spool, summary, sealed, examined, stream_started, stream_ended } = streamed;
            Ok(Taken { answers, spool, summary, sealed, upload, examined, stream_started, stream_ended })
        }
        Err(error) => {
            upload.abort().await;
            Err(error)
        }
    }
}

struct Streamed {
    answers: Answers,
    spool: Arc<Spool>,
    summary: SnapshotSummary,
    sealed: SealedObject,
    examined: Examined,
    stream_started: Timestamp,
    stream_ended: Timestamp,
}

async fn stream_and_seal(
    origin: Origin<'_>,
    spool_options: &SpoolOptions,
    plan: SealPlan,
    upload: &mut dyn Upload,
    ask: impl AsyncFnOnce(&Examined) -> Answers,
    progress: &Arc<dyn Progress>,
) -> Result<Streamed, AttemptError> {
    let spool = Arc::new(Spool::create(spool_options)?);
    let feed = Arc::new(Feed::new(Arc::clone(&spool)));
    let sealing = async {
        let sealed = seal_pipeline::seal(Arc::clone(&feed), plan, &mut *upload).await?;
        // While the file is examined: making it durable and reading it back takes as long.
        upload.settle().await.map_err(|error| store_failure::failure("the snapshot cannot be stored", &error))?;
        Ok(sealed)
    };
    let receiving = async {
        let started = Timestamp::now();
        let summary = match origin {
            Origin::Member(member) => receive(member, &feed, &spool, spool_options.reserve, progress).await?,
            Origin::File(opened, path) => rescue::read(opened, path, &feed, &spool, spool_options.reserve, progress).await?,
        };
        let ended = Timestamp::now();
        progress.done();
        let examined = examine_spool(&spool, summary.database_size).await?;
        let answers = ask(&examined).await;
        Ok::<_, AttemptError>((answers, summary, examined, started, ended))
    };
    let (sealed, (answers, summary, examined, stream_started, stream_ended)) = tokio::try_join!(sealing, receiving)?;
    Ok(Streamed { answers, spool, summary, sealed, examined, stream_started, stream_ended })
}

async fn receive(
    member: Source<'_>,
    feed: &Arc<Feed>,
    spool: &Spool,
    reserve: u64,
    progress: &Arc<dyn Progress>,
) -> Result<SnapshotSummary, AttemptError> {
    let at_fault = AttemptError::Member;
    let mut stream = member.link.snapshot(member.size).await.map_err(at_fault)?;
    let expected = stream.expected_size();
    spool.reserve(expected.map_or(0, |size| size + TRAILER), reserve)?;
    let mut writer = FrameQueue::start(Arc::clone(feed));
    let mut frame = feed.buffer();
    while let Some(bytes) = stream.next().await.map_err(at_fault)? {
        let mut bytes = &bytes[..];
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(FRAME - frame.len()));
            frame.extend_from_slice(now);
            bytes = later;
            if frame.len() == FRAME {
                writer.push(std::mem::replace(&mut frame, feed.buffer())).await?;
                progress.bytes("snapshot", stream.received(), expected);
            }
        }
    }
    let summary = stream.finish().map_err(at_fault)?;
    // The trailer belongs to the file: what is stored is what `etcdutl snapshot restore` takes.
    if frame.len() + summary.sha256.len() > FRAME {
        let (now, later) = summary.sha256.split_at(FRAME - frame.len());
        frame.extend_from_slice(now);
        writer.push(std::mem::replace(&mut frame, feed.buffer())).await?;
        frame.extend_from_slice(later);
    } else {
        frame.extend_from_slice(&summary.sha256);
    }
    writer.push(frame).await?;
    writer.finish().await?;
    Ok(summary)
}

/// A thread that encrypts frames into the spool, so that the stream is read on meanwhile.
struct FrameQueue {
    frames: tokio::sync::mpsc::Sender<Vec<u8>>,
    end: std::pin::Pin<Box<dyn Future<Output = Outcome<()>> + Send>>,
    feed: Arc<Feed>,
}

impl FrameQueue {
    fn start(feed: Arc<Feed>) -> Self {
        let (frames, mut queue) = tokio::sync::mpsc::channel::<Vec<u8>>(1);
        let thread_feed = Arc::clone(&feed);
        let end = seal_pipeline::on_thread("spool", move || {
            while let Some(frame) = queue.blocking_recv() {
                thread_feed.push(frame)?;
            }
            Ok(())
        });
        Self { frames, end: Box::pin(end), feed }
    }

    async fn push(&mut self, frame: Vec<u8>) -> Outcome<()> {
        if self.frames.send(frame).await.is_ok() {
            return Ok(());
        }
        // The thread ends early only by failing, and says why.
        self.end.as_mut().await.and(Err(Failure::failed("the spool took no more")))
    }

    async fn finish(self) -> Outcome<()> {
        drop(self.frames);
        self.end.await?;
        self.feed.complete();
        Ok(())
    }
}

async fn examine_spool(spool: &Arc<Spool>, database_size: u64) -> Result<Examined, AttemptError> {
    let spool = Arc::clone(spool);
    let examined = seal_pipeline::on_thread("examine", move || {
        seal_pipeline::step_back();
        Ok(examine(spool.as_ref(), database_size))
    });
    examined.await?.map_err(AttemptError::Member)
}

/// Proves the structure of a database, and reads everything from it that a manifest says.
pub(crate) fn examine<S: bbolt::ReadAt>(source: &S, database_size: u64) -> Outcome<Examined> {
    let unsound =
        |error: &dyn std::fmt::Display| Failure::new(crate::Code::Unproven, "the snapshot is not a sound etcd database").cause(error);
    if source.size() < database_size {
        return Err(unsound(&format!("{} bytes of {database_size} are there", source.size())));
    }
    let database = Database::open(source).map_err(|error| unsound(&error))?;
    let census = Census::new();
    let classify = |key: &[u8], value: &[u8]| census.classify(key, value);
    let options = etcd_store::Options { classify: Some(&classify), capture: &KUBE_SYSTEM_KEYS };
    let (inspection, hash_kv) = etcd_store::inspect_and_hash(&database, &options).map_err(|error| unsound(&error))?;
    let fingerprint = inspection.captured.iter().flatten().find_map(|captured| kube_objects::object_uid(&captured.value));
    let resources = census.name_counts(inspection.classes.iter().map(|(class, count)| (*class, *count)));
    Ok(Examined { inspection, hash_kv, resources, fingerprint })
}
