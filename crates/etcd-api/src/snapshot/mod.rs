//! Draining a snapshot from a member, with every rule of the stream enforced.

pub(crate) mod check;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};
use tonic::{Status, Streaming};

use self::check::{Checker, Verdict};
pub use self::check::{Sha256, SnapshotLimits, SnapshotSummary, SnapshotViolation};
use crate::client::Client;
use crate::client::method::{self, Method};
use crate::error::{Error, ErrorKind, Position};
use crate::pb;

/// A snapshot on its way from one member.
///
/// It yields database bytes only, never the trailer. Dropping it cancels the stream at the member, which frees the read
/// transaction there; a stream that is held but not read stalls any defragmentation of that member, so read it fast.
pub struct SnapshotStream {
    client: Client,
    limits: SnapshotLimits,
    /// `None` once the stream has ended or failed.
    stream: Option<Streaming<pb::SnapshotResponse>>,
    checker: Checker,
    /// The first message's bytes, read while opening.
    first: Option<Bytes>,
    summary: Option<SnapshotSummary>,
}

impl SnapshotStream {
    const METHOD: &'static Method = &method::SNAPSHOT;

    /// Opens the stream and reads its first message. Some servers say that a token is stale only there.
    pub(crate) async fn open(client: &Client, limits: SnapshotLimits) -> Result<Self, Error> {
        let decode_limit = limits.max_blob.saturating_add(crate::limits::SNAPSHOT_ENVELOPE_MAX);
        let opened = client
            .with_token(Self::METHOD, limits.idle_timeout, |token| async move {
                let started = Instant::now();
                let open = client.open_snapshot(decode_limit, token);
                let mut stream = within(limits.idle_timeout, open).await??;
                let left = limits.idle_timeout.saturating_sub(started.elapsed());
                let first = within(left, stream.message()).await??;
                Ok::<_, Status>((stream, first, started.elapsed()))
            })
            .await;
        let (stream, first, waited) = match opened {
            Ok(opened) => opened,
            Err(error) if matches!(error.kind(), ErrorKind::Timeout(_)) => {
                let idle = SnapshotViolation::Idle { offset: 0, waited: limits.idle_timeout };
                return Err(client.error(Self::METHOD, idle));
            }
            Err(error) => return Err(error),
        };
        let mut opened =
            Self { client: client.clone(), limits, stream: Some(stream), checker: Checker::new(limits), first: None, summary: None };
        opened.first = opened.judge(first, waited)?;
        Ok(opened)
    }

    /// The next piece of the database, never empty; `None` after the proven end: every byte announced has arrived, the
    /// trailer equals our own digest, nothing followed it, and the server closed with status OK.
    ///
    /// # Errors
    /// [`ErrorKind::Snapshot`] for every broken rule, the kinds of a broken connection or server status otherwise, with
    /// [`Error::position`]. After an error everything received is worthless, and further calls fail.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        loop {
            if self.summary.is_some() {
                return Ok(None);
            }
            let Some(stream) = self.stream.as_mut() else {
                let received = self.checker.received();
                return Err(self.fail(SnapshotViolation::NotFinished { received }));
            };
            let started = Instant::now();
            let message = match timeout(self.limits.idle_timeout, stream.message()).await {
                Ok(Ok(message)) => message,
                Ok(Err(status)) => {
                    let kind = self.client.classify(&status, self.limits.idle_timeout);
                    return Err(self.fail(kind));
                }
                Err(_) => {
                    let idle = SnapshotViolation::Idle { offset: self.checker.received(), waited: started.elapsed() };
                    return Err(self.fail(idle));
                }
            };
            if let Some(blob) = self.judge(message, started.elapsed())? {
                return Ok(Some(blob));
            }
        }
    }

    /// Size of the database in bytes, from the first message. Always known here; optional because other sources of
    /// snapshots do not tell it.
    #[must_use]
    pub fn expected_size(&self) -> Option<u64> {
        self.checker.total()
    }

    /// Database bytes received so far, counting what [`Self::next`] has not yet handed out.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.checker.received()
    }

    /// Storage version of the database ("3.6.0"); told by 3.6 and later.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.checker.version()
    }

    /// The result of a stream that [`Self::next`] has read to its end.
    ///
    /// # Errors
    /// [`SnapshotViolation::NotFinished`] when `next` has not yet answered `None`.
    pub fn finish(mut self) -> Result<SnapshotSummary, Error> {
        match self.summary.take() {
            Some(summary) => Ok(summary),
            None => {
                let received = self.checker.received();
                Err(self.fail(SnapshotViolation::NotFinished { received }))
            }
        }
    }

    /// Judges a message or the end; gives the blob when it is database bytes.
    fn judge(&mut self, message: Option<pb::SnapshotResponse>, waited: Duration) -> Result<Option<Bytes>, Error> {
        let Some(message) = message else {
            return match self.checker.end() {
                Ok(summary) => {
                    self.summary = Some(summary);
                    self.stream = None;
                    Ok(None)
                }
                Err(violation) => Err(self.fail(violation)),
            };
        };
        let verdict = self.checker.message(message.remaining_bytes, &message.blob, &message.version, waited);
        match verdict {
            Ok(Verdict::Data) => Ok(Some(message.blob)),
            Ok(Verdict::Nothing | Verdict::Trailer) => Ok(None),
            Err(violation) => Err(self.fail(violation)),
        }
    }

    /// Drops the stream, which cancels it at the member, and makes the error.
    fn fail(&mut self, kind: impl Into<ErrorKind>) -> Error {
        self.stream = None;
        self.first = None;
        let position = Position { received: self.checker.received(), expected: self.checker.total() };
        self.client.error(Self::METHOD, kind).at(position)
    }
}

/// Runs a future under a limit; running out is the status a server would send for it.
async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Result<T, Status> {
    timeout(limit, future).await.map_err(|_| Status::deadline_exceeded("no answer in time"))
}

impl fmt::Debug for SnapshotStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotStream")
            .field("endpoint", self.client.endpoint())
            .field("checker", &self.checker)
            .field("done", &self.summary.is_some())
            .finish_non_exhaustive()
    }
}
