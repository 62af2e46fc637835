//! Scripted watches.

use bytes::Bytes;
use grpc_link::testing::{Encoder, Gone, Messages, Sink};

use super::script::WatchStep;

/// An event in a [`WatchAnswer`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScriptEvent {
    /// 0 for a write, 1 for a deletion.
    pub kind: u32,
    /// The key; left out when empty.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// Its revision.
    pub mod_revision: i64,
}

/// A WatchResponse to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchAnswer {
    /// Revision in the header; `None` leaves the header out.
    pub revision: Option<i64>,
    /// Id of the watch.
    pub watch_id: i64,
    /// Confirms the watch.
    pub created: bool,
    /// Ends the watch.
    pub canceled: bool,
    /// Compacted revision that ends the watch.
    pub compact_revision: i64,
    /// Why it ends.
    pub cancel_reason: String,
    /// More belongs to this one.
    pub fragment: bool,
    /// The events.
    pub events: Vec<ScriptEvent>,
}

impl Default for WatchAnswer {
    fn default() -> Self {
        Self {
            revision: Some(1),
            watch_id: 0,
            created: false,
            canceled: false,
            compact_revision: 0,
            cancel_reason: String::new(),
            fragment: false,
            events: Vec::new(),
        }
    }
}

impl WatchAnswer {
    /// As a step of a script.
    #[must_use]
    pub fn step(self) -> WatchStep {
        WatchStep::Answer(self.encode())
    }

    /// As bytes.
    #[must_use]
    pub fn encode(self) -> Bytes {
        let mut answer = Encoder::new();
        if let Some(revision) = self.revision {
            let header = Encoder::new().number(1, 0x0c1d).number(2, 0xa11).signed(3, revision);
            answer = answer.message(1, header);
        }
        let answer = answer
            .signed(2, self.watch_id)
            .flag(3, self.created)
            .flag(4, self.canceled)
            .signed(5, self.compact_revision)
            .bytes(6, &self.cancel_reason)
            .flag(7, self.fragment);
        let answer = self.events.iter().fold(answer, |answer, event| {
            let kv = Encoder::new().bytes(1, &event.key).signed(3, event.mod_revision).bytes(5, &event.value);
            answer.message(11, Encoder::new().number(1, u64::from(event.kind)).message(2, kv))
        });
        answer.finish()
    }
}

/// Plays the steps after the first request; true when the client cancelled while the double hung.
pub(super) async fn play(sink: &mut Sink, requests: &mut Messages, steps: &[WatchStep]) -> Result<bool, Gone> {
    if requests.next().await.is_none() {
        return Ok(false);
    }
    for step in steps {
        match step {
            WatchStep::Answer(message) => sink.raw(message).await?,
            WatchStep::ReadRequest => {
                if requests.next().await.is_none() {
                    return Ok(true);
                }
            }
            WatchStep::Fail(failure) => {
                sink.finish(Some(failure), false)?;
                return Ok(false);
            }
            WatchStep::Hang => {
                sink.headers()?;
                sink.cancelled().await;
                return Ok(true);
            }
        }
    }
    sink.finish(None, false)?;
    Ok(false)
}
