//! Watching keys change.

pub(crate) mod check;

use std::fmt;

use etcd_store::id::Revision;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use self::check::Checker;
pub use self::check::WatchViolation;
use crate::auth::Token;
use crate::client::{Client, method};
use crate::error::{Error, ErrorKind};
use crate::types::{Header, KeyRange, KeyValue, Unexpected};
use crate::{limits, pb, status};

/// What to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    /// Which keys.
    pub keys: KeyRange,
    /// First revision wanted; `None` is from now on.
    pub start_revision: Option<Revision>,
    /// Let the member cut a big revision into several messages instead of failing to send it.
    pub fragment: bool,
    /// Ask for a notice when nothing happened for a while (10 min by default, a flag of the member).
    pub progress_notify: bool,
    /// Ask for what each event replaced.
    pub prev_kv: bool,
    /// End the watch when the member loses its leader, instead of waiting in silence.
    pub require_leader: bool,
}

impl WatchRequest {
    /// A watch from now on, with fragments, without notices.
    #[must_use]
    pub fn new(keys: KeyRange) -> Self {
        Self { keys, start_revision: None, fragment: true, progress_notify: false, prev_kv: false, require_leader: false }
    }

    fn to_wire(&self) -> pb::WatchRequest {
        let create = pb::WatchCreateRequest {
            key: self.keys.key().clone(),
            range_end: self.keys.end().clone(),
            start_revision: self.start_revision.map_or(0, |revision| revision.0),
            progress_notify: self.progress_notify,
            prev_kv: self.prev_kv,
            watch_id: 0,
            fragment: self.fragment,
        };
        pb::WatchRequest { request: Some(pb::watch_request::Request::Create(create)) }
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// The key was written.
    Put {
        /// The new version.
        kv: KeyValue,
        /// The version before, if asked for and there (not compacted).
        prev: Option<KeyValue>,
    },
    /// The key was deleted, or its lease ended.
    Delete {
        /// Only key and `mod_revision`, the revision of the deletion, are filled.
        kv: KeyValue,
        /// The version before, if asked for and there (not compacted).
        prev: Option<KeyValue>,
    },
}

impl WatchEvent {
    /// Key and revision of the change.
    #[must_use]
    pub fn kv(&self) -> &KeyValue {
        match self {
            Self::Put { kv, .. } | Self::Delete { kv, .. } => kv,
        }
    }
}

/// What a watch delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchMessage {
    /// Changes, ascending by revision. The last revision in it is complete unless `more` says otherwise.
    Events {
        /// Who answered. Its revision is the member's newest, not that of the events.
        header: Header,
        /// The changes; those of one revision in the order in which they were made.
        events: Vec<WatchEvent>,
        /// The next message continues the last revision of this one.
        more: bool,
    },
    /// Everything up to the header's revision has been delivered.
    Progress {
        /// Who answered, and how far.
        header: Header,
    },
}

/// One watch on its own stream. Dropping it cancels the watch at the member.
pub struct WatchStream {
    client: Client,
    requests: mpsc::Sender<pb::WatchRequest>,
    /// `None` once the watch has ended or failed.
    stream: Option<Streaming<pb::WatchResponse>>,
    checker: Checker,
    created: Header,
}

impl WatchStream {
    pub(crate) async fn open(client: &Client, request: WatchRequest) -> Result<Self, Error> {
        let limit = client.request_timeout();
        let (requests, stream, first) = client.with_token(&method::WATCH, limit, |token| start(client, &request, token)).await?;
        let mut checker = Checker::new(request.start_revision.unwrap_or(Revision(0)));
        checker.answer(&first).map_err(|violation| client.error(&method::WATCH, violation))?;
        let created = client.expected(&method::WATCH, Header::from_wire(first.header))?;
        if first.canceled {
            return Err(client.error(&method::WATCH, cancelled(&first)));
        }
        Ok(Self { client: client.clone(), requests, stream: Some(stream), checker, created })
    }

    /// The header with which the member confirmed the watch: a watch from now on delivers what comes after its revision.
    #[must_use]
    pub fn created(&self) -> Header {
        self.created
    }

    /// The next message; waits as long as it takes. A dead connection is found by keepalive probes. `None` when the
    /// member closed the stream in good order, as when it shuts down.
    ///
    /// # Errors
    /// [`ErrorKind::Compacted`] when the start, or what the watch had reached, is compacted: a gap that cannot be closed.
    /// [`ErrorKind::WatchCanceled`] and other kinds for other reasons given by the member, [`ErrorKind::Watch`] for broken
    /// rules, and those of a broken connection. After an error the watch is over.
    pub async fn next(&mut self) -> Result<Option<WatchMessage>, Error> {
        let Some(stream) = self.stream.as_mut() else {
            return Ok(None);
        };
        let answer = match stream.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => {
                self.stream = None;
                return match self.checker.end() {
                    Ok(()) => Ok(None),
                    Err(violation) => Err(self.fail(violation)),
                };
            }
            Err(status) => {
                let kind = self.client.classify(&status, self.client.request_timeout());
                return Err(self.fail(kind));
            }
        };
        if let Err(violation) = self.checker.answer(&answer) {
            return Err(self.fail(violation));
        }
        if answer.canceled {
            return Err(self.fail(cancelled(&answer)));
        }
        match message(answer) {
            Ok(message) => Ok(Some(message)),
            Err(Unexpected(fact)) => Err(self.fail(ErrorKind::Protocol(fact.to_owned()))),
        }
    }

    /// Asks for a progress notice now; it comes through [`Self::next`]. Returns false when the watch is over.
    ///
    /// Before 3.4.25 and 3.5.8 such a notice could overtake events (etcd issue 15220): do not trust it there.
    pub async fn request_progress(&self) -> bool {
        let request = pb::WatchRequest { request: Some(pb::watch_request::Request::Progress(pb::WatchProgressRequest {})) };
        self.stream.is_some() && self.requests.send(request).await.is_ok()
    }

    fn fail(&mut self, kind: impl Into<ErrorKind>) -> Error {
        self.stream = None;
        self.client.error(&method::WATCH, kind)
    }
}

type Started = (mpsc::Sender<pb::WatchRequest>, Streaming<pb::WatchResponse>, pb::WatchResponse);

/// Opens the stream and reads the confirmation. A refusal of the token is turned into the status it would have been,
/// so that one new token is tried: the member confirms and cancels such a watch in one message.
async fn start(client: &Client, request: &WatchRequest, token: Option<Token>) -> Result<Started, Status> {
    let (requests, queue) = mpsc::channel(limits::WATCH_REQUEST_QUEUE);
    // The queue is fresh and has room. It is filled first because the member answers only after it has read a request.
    requests.try_send(request.to_wire()).map_err(|_| Status::internal("protocol error: the request queue is full"))?;
    let limit = client.request_timeout();
    let opened = timeout(limit, async {
        let queue = ReceiverStream::new(queue);
        let mut stream = client.open_watch(queue, request.require_leader, token).await?;
        let first = stream.message().await?;
        Ok::<_, Status>((stream, first))
    });
    let (stream, first) = opened.await.map_err(|_| Status::deadline_exceeded("no answer in time"))??;
    match first {
        Some(first) if first.canceled && status::cured_by_new_token(&first.cancel_reason) => {
            Err(Status::unauthenticated(first.cancel_reason))
        }
        Some(first) => Ok((requests, stream, first)),
        None => Err(Status::unavailable("the stream ended before the watch was confirmed")),
    }
}

pub(crate) fn cancelled(answer: &pb::WatchResponse) -> ErrorKind {
    if answer.compact_revision > 0 {
        return ErrorKind::Compacted(Some(Revision(answer.compact_revision)));
    }
    status::by_text(&answer.cancel_reason).unwrap_or_else(|| ErrorKind::WatchCanceled(grpc_link::tame(&answer.cancel_reason)))
}

pub(crate) fn message(answer: pb::WatchResponse) -> Result<WatchMessage, Unexpected> {
    let header = Header::from_wire(answer.header)?;
    if answer.events.is_empty() && !answer.fragment {
        return Ok(WatchMessage::Progress { header });
    }
    let events = answer.events.into_iter().map(event).collect::<Result<_, _>>()?;
    Ok(WatchMessage::Events { header, events, more: answer.fragment })
}

fn event(event: pb::Event) -> Result<WatchEvent, Unexpected> {
    let kv = KeyValue::from(event.kv.ok_or(Unexpected("an event without its key"))?);
    let prev = event.prev_kv.map(KeyValue::from);
    match pb::EventType::try_from(event.r#type) {
        Ok(pb::EventType::Put) => Ok(WatchEvent::Put { kv, prev }),
        Ok(pb::EventType::Delete) => Ok(WatchEvent::Delete { kv, prev }),
        Err(_) => Err(Unexpected("an event of unknown type")),
    }
}

impl fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchStream").field("endpoint", self.client.endpoint()).field("checker", &self.checker).finish_non_exhaustive()
    }
}
