//! Draining a snapshot from the member on a node, with the proof that Talos does not give.

pub(crate) mod check;
#[cfg(test)]
mod tests;

use std::fmt;

use bytes::{Bytes, BytesMut};
use etcd_api::{SnapshotLimits, SnapshotSummary};
use tokio::time::{Instant, timeout};
use tonic::Streaming;

use self::check::Checker;
pub use self::check::StreamViolation;
use crate::client::Node;
use crate::client::Via;
use crate::client::method::{self, Method};
use crate::error::{Error, ErrorKind};
use crate::limits::SNAPSHOT_PIECE;
use crate::pb;

/// A snapshot on its way from one node.
///
/// It yields database bytes only, never the trailer, in pieces of about [`SNAPSHOT_PIECE`]. Dropping it cancels the stream
/// at the node, which frees the read transaction there; a stream that is held but not read stalls any defragmentation of
/// that member, so read it fast.
pub struct SnapshotStream {
    node: Node,
    via: Via,
    limits: SnapshotLimits,
    /// `None` once the stream has ended or failed.
    stream: Option<Streaming<pb::Data>>,
    /// The first message, read while opening.
    first: Option<pb::Data>,
    checker: Checker,
    summary: Option<SnapshotSummary>,
}

impl SnapshotStream {
    const METHOD: &'static Method = &method::ETCD_SNAPSHOT;

    /// Opens the stream and reads its first message, where a refusal shows.
    pub(crate) async fn open(node: &Node, limits: SnapshotLimits) -> Result<Self, Error> {
        let request = pb::EtcdSnapshotRequest {};
        let (via, stream, first) = match node.open::<_, pb::Data>(Self::METHOD, request, limits.idle_timeout).await {
            Ok(opened) => opened,
            Err(error) if matches!(error.kind(), ErrorKind::Timeout(_)) => {
                let idle = StreamViolation::Idle { received: 0, waited: limits.idle_timeout };
                return Err(node.error(Self::METHOD, None, idle));
            }
            Err(error) => return Err(error),
        };
        let mut opened =
            Self { node: node.clone(), via, limits, stream: Some(stream), first: None, checker: Checker::new(limits), summary: None };
        match first {
            Some(message) => opened.first = Some(opened.without_error(message)?),
            // Ended before it began, with status OK.
            None => opened.end()?,
        }
        Ok(opened)
    }

    /// The next piece of the database, never empty; `None` after the proven end: the last 32 bytes equal our own digest of
    /// everything before them, and the size is one a database has.
    ///
    /// # Errors
    /// [`ErrorKind::Snapshot`] for every broken rule, the kinds of a broken connection or server status otherwise, with
    /// [`Error::position`]. After an error everything received is worthless, and further calls fail.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let mut piece = BytesMut::new();
        while self.summary.is_none() && piece.len() < SNAPSHOT_PIECE {
            let started = Instant::now();
            let Some(message) = self.message().await? else {
                self.end()?;
                break;
            };
            match self.checker.message(&message.bytes, started.elapsed()) {
                Ok(proven) => {
                    if piece.is_empty() {
                        piece.reserve(SNAPSHOT_PIECE + message.bytes.len());
                    }
                    piece.extend_from_slice(&proven.held);
                    piece.extend_from_slice(message.bytes.get(..proven.fresh).unwrap_or_default());
                }
                Err(violation) => return Err(self.fail(violation)),
            }
        }
        Ok((!piece.is_empty()).then(|| piece.freeze()))
    }

    /// Always `None`: Talos announces no size. Ask [`Node::etcd_status`] for one that is nearly right.
    #[must_use]
    pub fn expected_size(&self) -> Option<u64> {
        None
    }

    /// Database bytes received so far. The last 32 bytes received are never counted: they may be the trailer.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.checker.received()
    }

    /// The result of a stream that [`Self::next`] has read to its end. Its storage version is `None`: Talos tells none.
    ///
    /// # Errors
    /// [`StreamViolation::NotFinished`] when `next` has not yet answered `None`.
    pub fn finish(mut self) -> Result<SnapshotSummary, Error> {
        match self.summary.take() {
            Some(summary) => Ok(summary),
            None => {
                let received = self.checker.received();
                Err(self.fail(StreamViolation::NotFinished { received }))
            }
        }
    }

    async fn message(&mut self) -> Result<Option<pb::Data>, Error> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let limit = self.limits.idle_timeout;
        let Some(stream) = self.stream.as_mut() else {
            let received = self.checker.received();
            return Err(self.fail(StreamViolation::NotFinished { received }));
        };
        match timeout(limit, stream.message()).await {
            Ok(Ok(Some(message))) => self.without_error(message).map(Some),
            Ok(Ok(None)) => Ok(None),
            Ok(Err(status)) => {
                let kind = self.node.classify(Self::METHOD, self.via, limit, &status);
                Err(self.fail(kind))
            }
            Err(_) => {
                let idle = StreamViolation::Idle { received: self.checker.received(), waited: limit };
                Err(self.fail(idle))
            }
        }
    }

    /// An error within a message, as apid puts it there when it merges streams. The status that follows would be OK.
    fn without_error(&mut self, message: pb::Data) -> Result<pb::Data, Error> {
        let kind = self.node.asked(Self::METHOD, self.limits.idle_timeout).in_metadata(message.metadata.as_ref());
        match kind {
            Some(kind) => Err(self.fail(kind)),
            None => Ok(message),
        }
    }

    /// Judges the end, which the server closed with status OK, truncated or not.
    fn end(&mut self) -> Result<(), Error> {
        match self.checker.end() {
            Ok(summary) => {
                self.summary = Some(summary);
                self.stream = None;
                Ok(())
            }
            Err(violation) => Err(self.fail(violation)),
        }
    }

    /// Drops the stream, which cancels it at the node, and makes the error.
    fn fail(&mut self, kind: impl Into<ErrorKind>) -> Error {
        self.stream = None;
        self.first = None;
        self.node.error(Self::METHOD, Some(self.via), kind).at(self.checker.received())
    }
}

impl fmt::Debug for SnapshotStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotStream")
            .field("node", &self.node)
            .field("checker", &self.checker)
            .field("done", &self.summary.is_some())
            .finish_non_exhaustive()
    }
}
