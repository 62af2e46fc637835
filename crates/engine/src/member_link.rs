//! A connection to one member, over etcd's API or over Talos's, and the snapshot stream that comes through it.

use bytes::Bytes;
use etcd_api::{Client, SnapshotLimits, SnapshotSummary};
use talos_api::Node;

use crate::failure::{Failure, Outcome};
use crate::{source_failure, talos};

/// A connection to one member. Cloning is cheap.
#[derive(Clone, Debug)]
pub enum MemberLink {
    /// etcd's client API.
    Etcd(Client),
    /// The Talos node the member runs on.
    Talos(Node),
}

impl MemberLink {
    /// etcd's own client, where this is one: what Talos does not pass on is asked of it.
    #[must_use]
    pub fn etcd(&self) -> Option<&Client> {
        match self {
            Self::Etcd(client) => Some(client),
            Self::Talos(_) => None,
        }
    }

    /// The Talos node, where this is one.
    #[must_use]
    pub fn talos(&self) -> Option<&Node> {
        match self {
            Self::Etcd(_) => None,
            Self::Talos(node) => Some(node),
        }
    }

    /// Where it leads, for messages.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Etcd(client) => client.endpoint().to_string(),
            Self::Talos(node) => node.to_string(),
        }
    }

    /// Opens a snapshot stream. `size` is what the member said of its file's size, for progress and for reserving room where the stream announces none.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn snapshot(&self, size: Option<u64>) -> Outcome<MemberStream> {
        let stream = match self {
            Self::Etcd(client) => client
                .snapshot(SnapshotLimits::default())
                .await
                .map(Stream::Etcd)
                .map_err(|error| source_failure::failure("the snapshot stream cannot be opened", &error))?,
            Self::Talos(node) => node
                .etcd_snapshot(SnapshotLimits::default())
                .await
                .map(Stream::Talos)
                .map_err(|error| talos::failure::failure("the snapshot stream cannot be opened", &error))?,
        };
        Ok(MemberStream { stream, size })
    }
}

/// A snapshot on its way from one member. It yields database bytes only, and ends only when the trailer's digest was equal to our own.
#[derive(Debug)]
pub struct MemberStream {
    stream: Stream,
    size: Option<u64>,
}

#[derive(Debug)]
enum Stream {
    Etcd(etcd_api::SnapshotStream),
    Talos(talos_api::SnapshotStream),
}

fn of_etcd(error: etcd_api::Error) -> Failure {
    source_failure::failure("the snapshot stream is of no use", &error)
}

fn of_talos(error: talos_api::Error) -> Failure {
    talos::failure::failure("the snapshot stream is of no use", &error)
}

impl MemberStream {
    /// Bytes of the database as announced, else as the member said of itself; the latter is nearly right.
    #[must_use]
    pub fn expected_size(&self) -> Option<u64> {
        let announced = match &self.stream {
            Stream::Etcd(stream) => stream.expected_size(),
            Stream::Talos(stream) => stream.expected_size(),
        };
        announced.or(self.size)
    }

    /// Bytes of the database received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        match &self.stream {
            Stream::Etcd(stream) => stream.received(),
            Stream::Talos(stream) => stream.received(),
        }
    }

    /// The next piece; `None` after the proven end.
    ///
    /// # Errors
    /// After one everything received is worthless.
    pub async fn next(&mut self) -> Outcome<Option<Bytes>> {
        match &mut self.stream {
            Stream::Etcd(stream) => stream.next().await.map_err(of_etcd),
            Stream::Talos(stream) => stream.next().await.map_err(of_talos),
        }
    }

    /// The result of a stream that was read to its end.
    ///
    /// # Errors
    /// When it was not.
    pub fn finish(self) -> Outcome<SnapshotSummary> {
        match self.stream {
            Stream::Etcd(stream) => stream.finish().map_err(of_etcd),
            Stream::Talos(stream) => stream.finish().map_err(of_talos),
        }
    }
}
