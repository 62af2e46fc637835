//! Uploading a snapshot for a recovery.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tonic::Status;
use tonic_prost::ProstCodec;

use super::Node;
use super::call::{Merged, Via, grpc};
use super::method::{self, Method};
use crate::error::{Error, ErrorKind};
use crate::limits::UPLOAD_PIECE;
use crate::pb;

/// Pieces that may wait to be sent.
const QUEUE: usize = 4;

/// A snapshot on its way to a node. It counts only after [`Upload::finish`]; dropped before, the node throws it away.
pub struct Upload {
    node: Node,
    via: Via,
    /// `None` is the end of the file.
    pieces: mpsc::Sender<Option<pb::Data>>,
    answer: JoinHandle<Result<pb::EtcdRecoverResponse, Status>>,
    sent: u64,
}

/// The request's side of the upload. It ends only when told so: an upload that is given up must not look complete.
struct Pieces(mpsc::Receiver<Option<pb::Data>>);

impl Stream for Pieces {
    type Item = pb::Data;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<pb::Data>> {
        match ready!(self.0.poll_recv(cx)) {
            Some(piece) => Poll::Ready(piece),
            // Given up: the call is about to be cancelled.
            None => Poll::Pending,
        }
    }
}

impl Upload {
    const METHOD: &'static Method = &method::ETCD_RECOVER;

    /// Sends bytes of the snapshot file, in order, in pieces the node takes.
    ///
    /// # Errors
    /// [`ErrorKind::NotReady`] when the node is not ready for a recovery; [`ErrorKind::Timeout`] when it takes nothing;
    /// what any call may return. Afterwards the upload is worth nothing.
    pub async fn send(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        let limit = self.node.request_timeout();
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(UPLOAD_PIECE));
            let length = piece.len() as u64;
            let sending = self.pieces.send(Some(pb::Data { metadata: None, bytes: piece }));
            match tokio::time::timeout(limit, sending).await {
                Ok(Ok(())) => self.sent += length,
                // The node has ended the call; its status says why.
                Ok(Err(_)) => return Err(self.outcome().await.err().unwrap_or_else(|| self.ended_early())),
                Err(_) => return Err(self.error(ErrorKind::Timeout(limit))),
            }
        }
        Ok(())
    }

    /// Ends the upload and waits until the node has it on its disk. The node compares nothing yet.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn finish(mut self) -> Result<(), Error> {
        // When the node has ended the call already, its status says why.
        let _received = self.pieces.send(None).await;
        let answer = self.outcome().await?;
        let mut messages = answer.messages();
        let limit = self.node.request_timeout();
        let kind = messages.pop().and_then(|one| self.node.asked(Self::METHOD, limit).in_metadata(one.metadata.as_ref()));
        kind.map_or(Ok(()), |kind| Err(self.error(kind)))
    }

    async fn outcome(&mut self) -> Result<pb::EtcdRecoverResponse, Error> {
        let limit = self.node.request_timeout();
        match tokio::time::timeout(limit, &mut self.answer).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(status))) => {
                let kind = self.node.classify(Self::METHOD, self.via, limit, &status);
                Err(self.error(kind))
            }
            Ok(Err(_)) => Err(self.error(ErrorKind::Protocol("the upload was ended by this program".to_owned()))),
            Err(_) => Err(self.error(ErrorKind::Timeout(limit))),
        }
    }

    fn ended_early(&self) -> Error {
        self.error(ErrorKind::Protocol("the node answered before the upload had ended".to_owned()))
    }

    fn error(&self, kind: ErrorKind) -> Error {
        self.node.error(Self::METHOD, Some(self.via), kind).at(self.sent)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.answer.abort();
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("node", &self.node).field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl Node {
    /// Begins the upload of a snapshot file, trailer included, for [`Self::bootstrap`] to recover from.
    ///
    /// Two at once on one node would clobber each other: Talos has one place for them.
    ///
    /// # Errors
    /// What any call may return while connecting; the rest shows in [`Upload::send`] and [`Upload::finish`].
    pub async fn etcd_recover(&self) -> Result<Upload, Error> {
        const METHOD: &Method = &method::ETCD_RECOVER;
        // Which endpoint works is found by a call that does nothing: a stream of requests cannot be begun anew elsewhere.
        let (via, channel) = self.through(METHOD, self.request_timeout(), |channel| async move { Ok(channel) }).await?;
        let (pieces, queue) = mpsc::channel(QUEUE);
        let request = self.request(Pieces(queue));
        let answer = tokio::spawn(async move {
            let mut grpc = grpc(channel);
            grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
            let path = PathAndQuery::from_static(METHOD.path);
            let codec = ProstCodec::<pb::Data, pb::EtcdRecoverResponse>::default();
            grpc.client_streaming(request, path, codec).await.map(tonic::Response::into_inner)
        });
        Ok(Upload { node: self.clone(), via, pieces, answer, sent: 0 })
    }
}
