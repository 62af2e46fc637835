//! One member's snapshot into a file or a stream, as `etcdctl snapshot save` takes it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use etcd_api::{Client, Endpoint, SnapshotSummary};
use etcd_store::DatabaseFile;
use etcd_store::snapshot_file::TRAILER_LENGTH;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::sync::mpsc;

use super::digest::hex;
use super::{STEP, STEPS_WAITING, chain, prove};
use crate::access::Access;
use crate::choice::{Wish, choose};
use crate::exclusion;
use crate::failure::{Code, Failure, Outcome};
use crate::limits::BACKUP_WAITS_FOR_DEFRAG;
use crate::member_link::{MemberLink, MemberStream};
use crate::progress::Progress;
use crate::seal_pipeline::on_thread;
use crate::source::{Source, SourceOptions, connect_options};
use crate::source_failure::failure;
use crate::temporary::Temporary;

/// Where a snapshot goes.
pub enum Target {
    /// Into this file, which is replaced in one step.
    File(PathBuf),
    /// Into a file of this directory, named after the cluster and the time.
    In(PathBuf),
    /// To whoever reads on. The trailer comes last, and only when everything before it was right.
    Stream(Box<dyn Write + Send>),
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::In(path) => f.debug_tuple("In").field(path).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// A snapshot as it was asked for.
#[derive(Debug)]
pub struct SaveRequest {
    /// How the member is reached: exactly one endpoint of etcd's; over Talos the best of the nodes that are meant.
    pub source: Access,
    /// Silence after which the connection is probed; etcd-api's default when none.
    pub keepalive_time: Option<Duration>,
    /// How long a probe may stay unanswered; etcd-api's default when none.
    pub keepalive_timeout: Option<Duration>,
    /// Time for everything; without one the stream's own limits alone hold.
    pub timeout: Option<Duration>,
    /// Where the snapshot goes.
    pub target: Target,
    /// Prove the structure before the file gets its name.
    pub check: bool,
}

/// A snapshot that was saved.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The file; none for a stream.
    pub path: Option<PathBuf>,
    /// The member's endpoint.
    pub endpoint: String,
    /// Storage version, as the member told it; 3.6 and later do.
    pub version: Option<String>,
    /// Bytes of the database, without the trailer.
    pub database_size: u64,
    /// SHA-256 of the database, lower-case hex: the trailer, and what arrived.
    pub sha256: String,
    /// Whether the structure was proven.
    pub checked: bool,
    /// How long it took.
    pub took: Duration,
}

/// Takes a snapshot. The digest is always compared with what arrived; a file is durable, with its name, when this returns `Ok`, and
/// after any failure what had the name before has it still.
///
/// # Errors
/// [`Code::Usage`] unless there is exactly one endpoint; [`Code::SourceUnreachable`]; [`Code::Unproven`] for a database that is damaged on the
/// member; when the stream or the writing fails.
pub async fn save(request: SaveRequest, progress: Arc<dyn Progress>) -> Outcome<Saved> {
    let Some(limit) = request.timeout else { return save_untimed(request, progress).await };
    match tokio::time::timeout(limit, save_untimed(request, progress)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::failed(format!("the snapshot was not complete within {} s", limit.as_secs_f64()))
            .cause("the time that --command-timeout gives is for the whole snapshot")
            .again()),
    }
}

async fn save_untimed(request: SaveRequest, progress: Arc<dyn Progress>) -> Outcome<Saved> {
    let started = Instant::now();
    let from = connect(&request, progress.as_ref()).await?;
    let endpoint = from.link.name();
    let _no_defrag = exclusion::for_a_backup(from.known_by().await, BACKUP_WAITS_FOR_DEFRAG, progress.as_ref()).await?;
    let target = match request.target {
        Target::In(directory) => Target::File(directory.join(default_name(&from).await?)),
        other => other,
    };
    let (summary, path) = match target {
        Target::File(path) => (to_file(&from, &path, request.check, &progress).await?, Some(path)),
        Target::Stream(out) => (to_stream(&from, out, &progress).await?, None),
        Target::In(_) => return Err(Failure::failed("a default name leads to no file; this is a bug in Lifeboat")),
    };
    Ok(Saved {
        checked: request.check && path.is_some(),
        path,
        endpoint,
        version: summary.storage_version,
        database_size: summary.database_size,
        sha256: hex(&summary.sha256),
        took: started.elapsed(),
    })
}

/// The member a snapshot is saved from.
struct From {
    link: MemberLink,
    /// What its file's size is, as far as it was told.
    size: Option<u64>,
    /// Name of the Talos context, where there is one.
    context: Option<String>,
    /// What the cluster is known by, as far as the way to it told.
    keys: Vec<exclusion::Key>,
}

impl From {
    async fn known_by(&self) -> Vec<exclusion::Key> {
        match &self.link {
            // A member that does not tell its status still gives its snapshot, as it does to etcdctl.
            MemberLink::Etcd(client) if self.keys.is_empty() => {
                client.status().await.map(|status| vec![status.header.cluster_id.into()]).unwrap_or_default()
            }
            _ => self.keys.clone(),
        }
    }
}

async fn connect(request: &SaveRequest, progress: &dyn Progress) -> Outcome<From> {
    match &request.source {
        Access::Etcd(options) => {
            Ok(From { link: MemberLink::Etcd(connect_to_etcd(options, request).await?), size: None, context: None, keys: Vec::new() })
        }
        access @ Access::Talos(_) => choose_one(access, progress).await,
    }
}

/// A healthy follower's node, as a backup would take it.
async fn choose_one(access: &Access, progress: &dyn Progress) -> Outcome<From> {
    let source = Source::connect(access).await?;
    for note in &source.notes {
        progress.say(&format!("note: {note}"));
    }
    let choices = choose(&source.candidates(), &Wish { degraded: true, ..Wish::default() })?;
    for choice in choices {
        let asked = &source.asked[choice.candidate];
        if let (Some(link), Ok(state)) = (&asked.link, &asked.candidate.state) {
            progress.say(&format!("member: {}: {}", asked.candidate.endpoint, choice.reason));
            let context = source.talos.as_ref().map(|talos| talos.context.clone());
            return Ok(From { link: link.clone(), size: Some(state.db_size).filter(|size| *size > 0), context, keys: source.known_by() });
        }
    }
    Err(Failure::new(Code::SourceUnreachable, "no node gives a snapshot").again())
}

async fn connect_to_etcd(source: &SourceOptions, request: &SaveRequest) -> Outcome<Client> {
    let [text] = &source.endpoints[..] else {
        return Err(Failure::usage(format!("a snapshot is taken from one selected member, not from {}", source.endpoints.len()))
            .object(source.endpoints.join(","))
            .cause("every member has its own state: name the endpoint of one member")
            .again());
    };
    let mut options = connect_options(source)?;
    options.keepalive_time = request.keepalive_time.unwrap_or(options.keepalive_time);
    options.keepalive_timeout = request.keepalive_timeout.unwrap_or(options.keepalive_timeout);
    let endpoint = Endpoint::parse(text, options.tls.is_some()).map_err(|error| {
        Failure::usage(format!("'{text}' is not an endpoint: {error}"))
            .cause("a client URL of etcd is expected, such as https://10.0.0.1:2379")
            .again()
    })?;
    Client::connect(endpoint, &options).await.map_err(|error| failure("the snapshot cannot be saved", &error))
}

/// `etcd-<cluster id>-<UTC>.db`; without an id the name of the Talos context.
async fn default_name(from: &From) -> Outcome<String> {
    let cluster = match (&from.link, &from.context) {
        (MemberLink::Etcd(client), None) => {
            let status = client.status().await;
            status
                .map_err(|error| failure("the cluster's id, for the name of the file, cannot be had", &error))?
                .header
                .cluster_id
                .to_string()
        }
        (_, context) => {
            let name = context.as_deref().unwrap_or("talos");
            name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' }).take(80).collect()
        }
    };
    let now = Timestamp::now().to_zoned(TimeZone::UTC);
    Ok(format!("etcd-{cluster}-{}.db", now.strftime("%Y%m%dT%H%M%SZ")))
}

async fn to_file(from: &From, path: &Path, check: bool, progress: &Arc<dyn Progress>) -> Outcome<SnapshotSummary> {
    let (temporary, file) = Temporary::create(path)?;
    let stream = from.link.snapshot(from.size).await?;
    if let Some(size) = stream.expected_size() {
        temporary.reserve(&file, size.saturating_add(TRAILER_LENGTH))?;
    }
    let for_messages = path.to_owned();
    let write = move |mut queue: mpsc::Receiver<Vec<u8>>| {
        let mut offset = 0;
        while let Some(step) = queue.blocking_recv() {
            file.write_all_at(&step, offset).map_err(|error| {
                Failure::failed(format!("the snapshot cannot be written: {error}")).object(for_messages.display()).again()
            })?;
            offset += step.len() as u64;
        }
        Ok(file)
    };
    let (file, summary) = receive(stream, write, progress).await?;
    let place = path.to_owned();
    on_thread("check", move || settle(file, &place, check)).await?;
    temporary.place()?;
    Ok(summary)
}

async fn to_stream(from: &From, mut out: Box<dyn Write + Send>, progress: &Arc<dyn Progress>) -> Outcome<SnapshotSummary> {
    let stream = from.link.snapshot(from.size).await?;
    let write = move |mut queue: mpsc::Receiver<Vec<u8>>| {
        let mut written: u64 = 0;
        let failed = |written: u64, error: io::Error| {
            if error.kind() == io::ErrorKind::BrokenPipe {
                return Failure::failed(format!("whoever read the snapshot went away after {written} bytes; what it has is incomplete"))
                    .object("standard output")
                    .again();
            }
            Failure::failed(format!("the snapshot cannot be written after {written} bytes: {error}")).object("standard output").again()
        };
        while let Some(step) = queue.blocking_recv() {
            out.write_all(&step).map_err(|error| failed(written, error))?;
            written += step.len() as u64;
        }
        out.flush().map_err(|error| failed(written, error))
    };
    let ((), summary) = receive(stream, write, progress).await?;
    Ok(summary)
}

/// Hands a stream, and after its proven end the trailer, to a thread that writes, so that the member is read as fast as it sends.
async fn receive<T: Send + 'static>(
    mut stream: MemberStream,
    write: impl FnOnce(mpsc::Receiver<Vec<u8>>) -> Outcome<T> + Send + 'static,
    progress: &Arc<dyn Progress>,
) -> Outcome<(T, SnapshotSummary)> {
    let (steps, queue) = mpsc::channel(STEPS_WAITING);
    let mut written = std::pin::pin!(on_thread("write", move || write(queue)));
    let expected = stream.expected_size();
    let mut step = Vec::with_capacity(STEP);
    let received = async {
        while let Some(bytes) = stream.next().await? {
            if step.len() + bytes.len() > STEP {
                if steps.send(std::mem::replace(&mut step, Vec::with_capacity(STEP))).await.is_err() {
                    return Ok(None);
                }
                progress.bytes("snapshot", stream.received(), expected);
            }
            step.extend_from_slice(&bytes);
        }
        let summary = stream.finish()?;
        step.extend_from_slice(&summary.sha256);
        let taken = steps.send(step).await.is_ok();
        Ok::<_, Failure>(taken.then_some(summary))
    }
    .await;
    progress.done();
    drop(steps);
    // A thread that takes no more has failed, and says why; if it did not, the stream did.
    match received? {
        Some(summary) => Ok((written.await?, summary)),
        None => Err(written
            .as_mut()
            .await
            .err()
            .unwrap_or_else(|| Failure::failed("the snapshot was not taken to its end; this is a bug in Lifeboat"))),
    }
}

/// Makes a file durable and proves it; both at once, since they wait for different things.
fn settle(file: disk::File, path: &Path, check: bool) -> Outcome<()> {
    let cannot = |error: io::Error| Failure::failed(format!("the snapshot cannot be made durable: {error}")).object(path.display()).again();
    let database = DatabaseFile::new(file).map_err(cannot)?;
    let (synced, proven) = thread::scope(|scope| {
        let synced = scope.spawn(|| database.file().sync());
        let proven = if check { prove(&database) } else { Ok(()) };
        (synced.join(), proven)
    });
    proven.map_err(|error| {
        Failure::new(Code::Unproven, "the member's database is damaged; nothing was saved")
            .object(path.display())
            .cause(format!("{}; take another member's snapshot, or keep this one as it is with --no-check", chain(&error)))
            .again_with(["--no-check"])
    })?;
    match synced {
        Ok(synced) => synced.map_err(cannot),
        Err(_) => Err(Failure::failed("the thread that writes ended unexpectedly; this is a bug in Lifeboat")),
    }
}
