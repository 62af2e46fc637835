//! The Snapshot call in all its ways of going wrong.

use std::time::Duration;

use bytes::Bytes;
use grpc_link::testing::{Encoder, Failure, Gone, Order, Sink};
use ring::digest;

use super::script::{Behaviour, Script};

/// Time for what was sent to leave before the connection is ended from below it.
const FLUSH: Duration = Duration::from_millis(50);

/// Whether the call ended by the client's doing.
pub(super) enum Ending {
    ByServer,
    Cancelled,
}

/// Plays the whole call.
pub(super) async fn play(sink: &mut Sink, behaviour: &Behaviour, script: &Script) -> Result<Ending, Gone> {
    let mut player = Player {
        database: script.snapshot.clone(),
        version: script.storage_version.clone(),
        blob_size: script.blob_size.max(1),
        sent: 0,
        sink,
    };
    player.play(behaviour).await
}

struct Player<'a> {
    database: Bytes,
    version: String,
    blob_size: usize,
    sent: usize,
    sink: &'a mut Sink,
}

impl Player<'_> {
    async fn play(&mut self, behaviour: &Behaviour) -> Result<Ending, Gone> {
        match behaviour {
            Behaviour::Silent => {
                self.sink.cancelled().await;
                return Ok(Ending::Cancelled);
            }
            Behaviour::Stalled { after } => {
                self.until(*after).await?;
                self.sink.headers()?;
                self.sink.cancelled().await;
                return Ok(Ending::Cancelled);
            }
            Behaviour::EmptyBlobLoop { after } => {
                self.until(*after).await?;
                while self.message(self.missing(), &[]).await.is_ok() {
                    tokio::task::yield_now().await;
                }
                return Ok(Ending::Cancelled);
            }
            Behaviour::CutMidway { after } => {
                self.until(*after).await?;
                tokio::time::sleep(FLUSH).await;
                self.sink.order(Order::Cut);
            }
            Behaviour::GoAway { after } => {
                self.until(*after).await?;
                tokio::time::sleep(FLUSH).await;
                self.sink.order(Order::GoAway);
            }
            Behaviour::ResetMidway { after, reason } => {
                self.until(*after).await?;
                tokio::time::sleep(FLUSH).await;
                self.sink.reset(*reason)?;
            }
            Behaviour::EndWithoutStatus { after } => {
                self.until(*after).await?;
                self.sink.end_without_status()?;
            }
            Behaviour::FailMidway { after, code, message } => {
                self.until(*after).await?;
                self.sink.finish(Some(&Failure::new(*code, message.clone())), false)?;
            }
            behaviour => {
                self.clean_ending(behaviour).await?;
                self.sink.finish(None, false)?;
            }
        }
        Ok(Ending::ByServer)
    }

    /// The ways that end with status OK.
    async fn clean_ending(&mut self, behaviour: &Behaviour) -> Result<(), Gone> {
        let sound_digest = digest::digest(&digest::SHA256, &self.database);
        let mut trailer = sound_digest.as_ref().to_vec();
        match behaviour {
            Behaviour::ShortStream { after } => return self.until(*after).await,
            Behaviour::MissingTrailer => return self.rest().await,
            Behaviour::HugeBlob { bytes } => return self.message(0, &vec![0; *bytes]).await,
            Behaviour::WrongTrailer => trailer.fill(0x5a),
            Behaviour::ShortTrailer => trailer.truncate(31),
            Behaviour::CorruptByte { at } => self.corrupt(*at),
            Behaviour::OddSize => {
                self.database.truncate(self.database.len().saturating_sub(1));
                trailer = digest::digest(&digest::SHA256, &self.database).as_ref().to_vec();
            }
            Behaviour::WrongRemaining { after } => {
                self.until(*after).await?;
                self.spoiled(|missing| missing.wrapping_sub(1)).await?;
            }
            Behaviour::RemainingRising { after } => {
                self.until(*after).await?;
                self.spoiled(|missing| missing + 1_000_000).await?;
            }
            Behaviour::Trickle { piece, pause } => {
                self.blob_size = (*piece).max(1);
                while self.missing() > 0 {
                    self.piece().await?;
                    tokio::time::sleep(*pause).await;
                }
            }
            _ => {}
        }
        self.rest().await?;
        self.message(0, &trailer).await?;
        if *behaviour == Behaviour::ExtraAfterTrailer {
            self.message(0, b"more").await?;
        }
        Ok(())
    }

    fn missing(&self) -> u64 {
        self.database.len().saturating_sub(self.sent) as u64
    }

    fn corrupt(&mut self, at: u64) {
        let mut bytes = self.database.to_vec();
        if let Some(byte) = usize::try_from(at).ok().and_then(|at| bytes.get_mut(at)) {
            *byte ^= 1;
        }
        self.database = bytes.into();
    }

    async fn until(&mut self, after: u64) -> Result<(), Gone> {
        while (self.sent as u64) < after && self.missing() > 0 {
            self.piece().await?;
        }
        Ok(())
    }

    async fn rest(&mut self) -> Result<(), Gone> {
        self.until(u64::MAX).await
    }

    async fn piece(&mut self) -> Result<(), Gone> {
        let end = self.database.len().min(self.sent + self.blob_size);
        let blob = self.database.slice(self.sent..end);
        self.sent = end;
        self.message(self.missing(), &blob).await
    }

    /// One piece whose `remaining_bytes` is not the right one.
    async fn spoiled(&mut self, remaining: impl Fn(u64) -> u64) -> Result<(), Gone> {
        let end = self.database.len().min(self.sent + self.blob_size);
        let blob = self.database.slice(self.sent..end);
        self.sent = end;
        self.message(remaining(self.missing()), &blob).await
    }

    async fn message(&mut self, remaining: u64, blob: &[u8]) -> Result<(), Gone> {
        let message = Encoder::new().number(2, remaining).bytes(3, blob).bytes(4, &self.version);
        self.sink.message(message).await
    }
}
