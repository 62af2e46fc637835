//! EtcdSnapshot: what etcd sends, in pieces of 1 KiB, database and digest alike; and its traps.

use bytes::{Bytes, BytesMut};
use etcd_api::{SnapshotLimits, SnapshotStream};
use grpc_link::testing::{Failure, Gone};

use super::failure::wrapped;
use super::{Ending, Out, Served};
use crate::message::{appended, code, data};
use crate::switch::SnapshotFault;
use crate::world::NodeState;

/// Talos' chunker reads this much at a time (`pkg/chunker/stream/stream.go`).
const PIECE: usize = 1024;

pub(super) async fn serve(node: &NodeState, out: &Out) -> Served {
    let fault = node.switches().snapshot.clone();
    let place = node.etcd.lock().await.place.clone();
    let client = place.client().await.map_err(|error| wrapped("failed reading etcd snapshot", &error))?;
    // What etcd itself answers is read by the chunker already: it prints it, and an empty stream ends with OK.
    let Ok(stream) = client.snapshot(SnapshotLimits::default()).await else { return Ok(Ending::Ok) };
    let mut sender = Sender { out, fault, sent: 0, host: node.ip.to_string() };
    match sender.drain(stream).await {
        Ok(Some(ending)) => Ok(ending),
        // Reading from etcd failed, or all was read: it looks the same from outside.
        Ok(None) => Ok(Ending::Ok),
        // The client has gone.
        Err(Gone) => Ok(Ending::Ok),
    }
}

struct Sender<'a> {
    out: &'a Out,
    fault: Option<SnapshotFault>,
    sent: usize,
    host: String,
}

impl Sender<'_> {
    /// Sends everything, trailer included; how it ended, when a switch ended it.
    async fn drain(&mut self, mut stream: SnapshotStream) -> Result<Option<Ending>, Gone> {
        let mut waiting = BytesMut::new();
        loop {
            match stream.next().await {
                Ok(Some(piece)) => waiting.extend_from_slice(&piece),
                Ok(None) => break,
                // Talos prints the error and closes the stream.
                Err(_) => return Ok(None),
            }
            while waiting.len() >= PIECE {
                if let Some(ending) = self.piece(waiting.split_to(PIECE).freeze()).await? {
                    return Ok(Some(ending));
                }
            }
        }
        let Ok(summary) = stream.finish() else { return Ok(None) };
        waiting.extend_from_slice(&summary.sha256);
        while !waiting.is_empty() {
            let length = waiting.len().min(PIECE);
            if let Some(ending) = self.piece(waiting.split_to(length).freeze()).await? {
                return Ok(Some(ending));
            }
        }
        Ok(None)
    }

    async fn piece(&mut self, piece: Bytes) -> Result<Option<Ending>, Gone> {
        let (begin, end) = (self.sent, self.sent + piece.len());
        let Some(fault) = self.fault.clone() else { return self.send(&piece).await.map(|()| None) };
        let after = match &fault {
            SnapshotFault::DamagedByte { at } => {
                let mut damaged = piece.to_vec();
                if (begin..end).contains(at) {
                    damaged[at - begin] ^= 1;
                }
                return self.send(&damaged).await.map(|()| None);
            }
            SnapshotFault::CutWithOk { after }
            | SnapshotFault::ErrorInData { after, .. }
            | SnapshotFault::Fail { after, .. }
            | SnapshotFault::Disconnect { after }
            | SnapshotFault::Stall { after } => *after,
        };
        if end <= after {
            return self.send(&piece).await.map(|()| None);
        }
        if after > begin {
            self.send(&piece[..after - begin]).await?;
        }
        self.strike(fault).await.map(Some)
    }

    async fn strike(&mut self, fault: SnapshotFault) -> Result<Ending, Gone> {
        Ok(match fault {
            SnapshotFault::Fail { failure, .. } => Ending::Fail(failure),
            SnapshotFault::Disconnect { .. } => Ending::Disconnect,
            SnapshotFault::Stall { .. } => Ending::Hang,
            SnapshotFault::ErrorInData { failure, .. } => {
                let error = Some((failure.code, failure.message.as_str()));
                self.out.send(appended(&self.host, error)).await?;
                Ending::Ok
            }
            SnapshotFault::CutWithOk { .. } => Ending::Ok,
            SnapshotFault::DamagedByte { .. } => Ending::Fail(Failure::new(code::INTERNAL, "handled before")),
        })
    }

    async fn send(&mut self, piece: &[u8]) -> Result<(), Gone> {
        self.sent += piece.len();
        self.out.send(data(piece)).await
    }
}
