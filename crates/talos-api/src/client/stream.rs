//! Streams of bytes: logs and files.

use std::fmt;

use bytes::Bytes;
use prost::Message;
use tokio::time::timeout;
use tonic::Streaming;

use super::Node;
use super::call::Via;
use super::method::{self, Method};
use crate::error::{Error, ErrorKind};
use crate::limits::FOLLOW_TIMEOUT;
use crate::pb;

/// How the kernel calls a missing file, in Go's words.
const MISSING: &str = "no such file or directory";

/// Bytes on their way from a node. Dropping it ends them at the node.
pub struct DataStream {
    node: Node,
    method: &'static Method,
    via: Via,
    /// `None` once it has ended or failed.
    stream: Option<Streaming<pb::Data>>,
    first: Option<pb::Data>,
    /// Whether silence is normal, as with a log that is followed.
    patient: bool,
    received: u64,
}

impl DataStream {
    pub(super) async fn open<Q>(node: &Node, method: &'static Method, request: Q, patient: bool) -> Result<Self, Error>
    where
        Q: Message + Clone + 'static,
    {
        // Not even the headers of an answer come before its first message.
        let limit = if patient { FOLLOW_TIMEOUT } else { node.request_timeout() };
        let (via, stream, first) = node.open::<Q, pb::Data>(method, request, limit).await?;
        // Nothing at all is an empty file or log.
        let stream = first.is_some().then_some(stream);
        Ok(Self { node: node.clone(), method, via, stream, first, patient, received: 0 })
    }

    /// The next piece, never empty; `None` at the end.
    ///
    /// # Errors
    /// What any call may return, with [`Error::position`]; afterwards the stream has ended. Talos does not say how long a
    /// file is: a file that could not be read to its end may end early with success.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let Some(message) = self.message().await? else { return Ok(None) };
            let limit = self.node.request_timeout();
            if let Some(kind) = self.node.asked(self.method, limit).in_metadata(message.metadata.as_ref()) {
                return Err(self.fail(kind));
            }
            if !message.bytes.is_empty() {
                self.received = self.received.saturating_add(message.bytes.len() as u64);
                return Ok(Some(message.bytes));
            }
        }
    }

    /// Everything up to the end.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] beyond `limit` bytes, and as [`Self::next`].
    pub async fn collect(mut self, limit: usize) -> Result<Vec<u8>, Error> {
        let mut all = Vec::new();
        while let Some(piece) = self.next().await? {
            if all.len() + piece.len() > limit {
                return Err(self.fail(ErrorKind::TooLarge(format!("more than {limit} bytes"))));
            }
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    async fn message(&mut self) -> Result<Option<pb::Data>, Error> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let Some(stream) = self.stream.as_mut() else { return Ok(None) };
        let limit = self.node.request_timeout();
        let answer = if self.patient {
            stream.message().await
        } else {
            match timeout(limit, stream.message()).await {
                Ok(answer) => answer,
                Err(_) => return Err(self.fail(ErrorKind::Timeout(limit))),
            }
        };
        match answer {
            Ok(Some(message)) => Ok(Some(message)),
            Ok(None) => {
                self.stream = None;
                Ok(None)
            }
            Err(status) => {
                let kind = self.node.classify(self.method, self.via, limit, &status);
                Err(self.fail(kind))
            }
        }
    }

    fn fail(&mut self, kind: ErrorKind) -> Error {
        self.stream = None;
        self.node.error(self.method, Some(self.via), kind).at(self.received)
    }
}

impl fmt::Debug for DataStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataStream").field("node", &self.node).field("call", &self.method.name).field("received", &self.received).finish()
    }
}

/// One entry of a directory listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Path relative to the directory asked for.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Whether it is a directory.
    pub is_directory: bool,
}

impl Node {
    /// The entries of a directory, itself not counted, `depth` levels deep; at most
    /// [`RESOURCES_MAX`](crate::limits::RESOURCES_MAX).
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such directory, [`ErrorKind::TooLarge`] for too many entries, and what any
    /// call may return.
    pub async fn list(&self, directory: &str, depth: u16) -> Result<Vec<FileEntry>, Error> {
        const METHOD: &Method = &method::LIST;
        let limit = self.request_timeout();
        let request = pb::ListRequest { root: directory.to_owned(), recurse: depth > 1, recursion_depth: i32::from(depth) };
        // A directory that is not there ends the call with code Unknown (Talos `internal/app/machined/internal/server/v1alpha1`, List).
        let opened = self.open::<_, pb::FileInfo>(METHOD, request, limit).await.map_err(|error| match error.kind() {
            ErrorKind::Rpc { message, .. } if message.contains(MISSING) => {
                Error::new(error.call(), error.node(), error.endpoint(), ErrorKind::NotFound(message.clone()))
            }
            _ => error,
        });
        let (via, mut stream, mut next) = opened?;
        let mut entries = Vec::new();
        while let Some(info) = next {
            if let Some(kind) = self.asked(METHOD, limit).in_metadata(info.metadata.as_ref()) {
                return Err(self.error(METHOD, Some(via), kind));
            }
            if !info.error.is_empty() {
                return Err(self.error(METHOD, Some(via), entry_error(&info.error)));
            }
            // The directory itself is the first entry, under the name ".".
            if !matches!(info.relative_name.as_str(), "." | "") {
                let size = u64::try_from(info.size).unwrap_or(0);
                entries.push(FileEntry { name: info.relative_name, size, is_directory: info.is_dir });
            }
            if entries.len() > crate::limits::RESOURCES_MAX {
                return Err(self.error(METHOD, Some(via), ErrorKind::TooLarge("too many files".to_owned())));
            }
            next = match timeout(limit, stream.message()).await {
                Ok(Ok(next)) => next,
                Ok(Err(status)) => return Err(self.error(METHOD, Some(via), self.classify(METHOD, via, limit, &status))),
                Err(_) => return Err(self.error(METHOD, Some(via), ErrorKind::Timeout(limit))),
            };
        }
        Ok(entries)
    }
}

fn entry_error(text: &str) -> ErrorKind {
    let message = grpc_link::tame(text);
    if text.contains(MISSING) { ErrorKind::NotFound(message) } else { ErrorKind::Rpc { code: tonic::Code::Unknown, message } }
}
