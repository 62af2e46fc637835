//! What can go wrong between Lifeboat and one member, as types.

use std::fmt;
use std::time::Duration;

use etcd_store::id::Revision;
use grpc_link::LinkFault;
pub use tonic::Code;

use crate::endpoint::Endpoint;
use crate::snapshot::SnapshotViolation;
use crate::watch::WatchViolation;

/// A failed connection or call. It always names the endpoint, and the call when one was made.
#[derive(Debug)]
pub struct Error(Box<Facts>);

#[derive(Debug)]
struct Facts {
    endpoint: Endpoint,
    call: Option<&'static str>,
    position: Option<Position>,
    kind: ErrorKind,
}

/// How far a snapshot had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Database bytes received.
    pub received: u64,
    /// Database bytes announced by the first message; `None` when none had arrived.
    pub expected: Option<u64>,
}

/// What went wrong. Texts that come from a server are cut to [`grpc_link::TEXT_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no connection, or no longer one. After a lost connection it is unknown whether a write took effect.
    #[error(transparent)]
    Link(#[from] LinkFault),
    /// No answer in time. Whether a write took effect is unknown.
    #[error("no answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// The call needs a user, or the token was refused even after a new one was fetched.
    #[error("not authenticated: {0}")]
    Unauthenticated(String),
    /// User or password is wrong.
    #[error("user name or password is wrong")]
    AuthenticationFailed,
    /// The user may not do this; snapshots, hashes, defragmentation and alarms need the role `root`.
    #[error("permission denied: {0}")]
    PermissionDenied(String),
    /// The wanted revision lies below the compacted one.
    #[error("the wanted revision has been compacted{}", .0.map(|r| format!(" (compacted up to {r})")).unwrap_or_default())]
    Compacted(Option<Revision>),
    /// The wanted revision has not happened yet on this member.
    #[error("the wanted revision lies in the future of this member")]
    FutureRevision,
    /// The member knows of no leader.
    #[error("the member has no leader")]
    NoLeader,
    /// The call must go to the leader.
    #[error("the member is not the leader")]
    NotLeader,
    /// The cluster could not serve the call now (leader change, overload, unhealthy). Worth a retry.
    #[error("temporarily unavailable: {0}")]
    Unavailable(String),
    /// Learners do not serve this call.
    #[error("the member is a learner and does not serve this call")]
    LearnerUnsupported,
    /// The cluster already has as many learners as it allows.
    #[error("the cluster has too many learners already")]
    TooManyLearners,
    /// The learner has not caught up with the leader.
    #[error("the learner is not yet in sync with the leader")]
    LearnerNotReady,
    /// The database is at its quota; only reads, deletes, compaction and maintenance are served.
    #[error("the database is full (alarm NOSPACE)")]
    NoSpace,
    /// The member or cluster is marked corrupt.
    #[error("the cluster is marked corrupt (alarm CORRUPT)")]
    Corrupt,
    /// The member belongs to another cluster than the caller said.
    #[error("cluster id mismatch")]
    ClusterIdMismatch,
    /// No member has this id.
    #[error("no such member")]
    MemberNotFound,
    /// No lease has this id.
    #[error("no such lease")]
    LeaseNotFound,
    /// The server does not know the call: too old, or not etcd.
    #[error("the server does not know this call: {0}")]
    Unimplemented(String),
    /// An answer was larger than the limit for its call.
    #[error("the answer is too large: {0}")]
    MessageTooLarge(String),
    /// The snapshot stream broke its rules; what was received is worthless.
    #[error("snapshot stream: {0}")]
    Snapshot(#[from] SnapshotViolation),
    /// The watch stream broke its rules.
    #[error("watch stream: {0}")]
    Watch(#[from] WatchViolation),
    /// The member ended the watch for the reason given.
    #[error("the member cancelled the watch: {0}")]
    WatchCanceled(String),
    /// An answer that etcd would not give.
    #[error("unexpected answer: {0}")]
    Protocol(String),
    /// Any other status the server returned.
    #[error("{code:?}: {message}")]
    Rpc {
        /// gRPC status code.
        code: Code,
        /// The server's text.
        message: String,
    },
}

/// What a caller does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The caller's own input is unusable: exit 2.
    Input,
    /// etcd cannot be reached or spoken to: exit 30.
    Unreachable,
    /// etcd is there and wants other credentials or rights.
    Denied,
    /// etcd answered and refuses because of the state it is in.
    Refused,
    /// etcd answered what it must not answer: distrust this member.
    Misbehaved,
}

impl Error {
    pub(crate) fn new(endpoint: &Endpoint, call: Option<&'static str>, kind: impl Into<ErrorKind>) -> Self {
        Self(Box::new(Facts { endpoint: endpoint.clone(), call, position: None, kind: kind.into() }))
    }

    pub(crate) fn at(mut self, position: Position) -> Self {
        self.0.position = Some(position);
        self
    }

    /// The member that was addressed.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// Name of the call that failed, as etcd names it ("Snapshot"); `None` while connecting.
    #[must_use]
    pub fn call(&self) -> Option<&'static str> {
        self.0.call
    }

    /// How far a snapshot had come; `None` for every other call.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.0.position
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        self.0.kind.class()
    }
}

impl ErrorKind {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Link(fault) if fault.is_input() => ErrorClass::Input,
            Self::Link(_) | Self::Timeout(_) => ErrorClass::Unreachable,
            Self::Unauthenticated(_) | Self::AuthenticationFailed | Self::PermissionDenied(_) => ErrorClass::Denied,
            Self::Compacted(_)
            | Self::FutureRevision
            | Self::NoLeader
            | Self::NotLeader
            | Self::Unavailable(_)
            | Self::LearnerUnsupported
            | Self::TooManyLearners
            | Self::LearnerNotReady
            | Self::NoSpace
            | Self::Corrupt
            | Self::ClusterIdMismatch
            | Self::MemberNotFound
            | Self::LeaseNotFound
            | Self::Unimplemented(_)
            | Self::WatchCanceled(_)
            | Self::Rpc { .. } => ErrorClass::Refused,
            Self::MessageTooLarge(_) | Self::Snapshot(_) | Self::Watch(_) | Self::Protocol(_) => ErrorClass::Misbehaved,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.0.endpoint)?;
        if let Some(call) = self.0.call {
            write!(f, "{call}: ")?;
        }
        write!(f, "{}", self.0.kind)?;
        match self.0.position {
            Some(Position { received, expected: Some(expected) }) => write!(f, ", after {received} of {expected} bytes"),
            Some(Position { received, expected: None }) => write!(f, ", after {received} bytes"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The kind is already part of our own text; its own cause, if any, is what a chain printer should add.
        std::error::Error::source(&self.0.kind)
    }
}
