//! One call to many nodes (`nodes` metadata): answers are concatenated, errors become messages, the status is OK.
//!
//! Source: reference Talos `internal/app/apid/pkg/backend/apid.go` (`AppendInfo`, `BuildError`), siderolabs/grpc-proxy.

use std::sync::Arc;

use bytes::Bytes;
use grpc_link::testing::{Encoder, Failure, Fields, Gone, Sink};
use tokio::sync::mpsc;

use super::{QUEUE, appended};
use crate::machined::{self, Ending, Incoming, Out, rules};
use crate::message::{code, response};
use crate::world::{Call, World};

/// Asks every target and merges what they say.
pub(super) async fn many(
    world: &Arc<World>,
    path: &str,
    targets: Vec<(String, Result<Call, Failure>)>,
    message: Bytes,
    sink: &mut Sink,
) -> Result<(), Gone> {
    let streams = rules::answers_stream(path);
    let (sender, mut receiver) = mpsc::channel::<Bytes>(QUEUE);
    for (target, call) in targets {
        let (world, path, message, sender) = (Arc::clone(world), path.to_owned(), message.clone(), sender.clone());
        // Beside each other: messages of several nodes interleave.
        tokio::spawn(async move {
            let ending = match call {
                Ok(call) => one(world, &path, call, message, &target, streams, &sender).await,
                Err(failure) => Ending::Fail(failure),
            };
            let failure = match ending {
                Ending::Ok => return,
                Ending::Fail(failure) => failure,
                Ending::Disconnect | Ending::Hang => Failure::new(code::UNAVAILABLE, "error reading from server: EOF"),
            };
            let inner = appended(&target, Some(&failure));
            let whole = if streams { inner } else { Encoder::new().message(response::MESSAGES, inner) };
            let _gone = sender.send(whole.finish()).await;
        });
    }
    drop(sender);
    if streams {
        while let Some(message) = receiver.recv().await {
            sink.raw(&message).await?;
        }
    } else {
        // Concatenated answers are one answer with all their messages: that is what protobuf makes of it.
        let mut all = Vec::new();
        while let Some(message) = receiver.recv().await {
            all.extend_from_slice(&message);
        }
        sink.raw(&all).await?;
    }
    sink.finish(None, false)
}

async fn one(
    world: Arc<World>,
    path: &str,
    call: Call,
    message: Bytes,
    target: &str,
    streams: bool,
    sender: &mpsc::Sender<Bytes>,
) -> Ending {
    let (inner, mut answers) = mpsc::channel::<Bytes>(QUEUE);
    let work = tokio::spawn(machined::serve(world, path.to_owned(), call, Incoming::One(message), Out::new(inner)));
    let info = appended(target, None).finish();
    while let Some(answer) = answers.recv().await {
        let with_info = if streams {
            [answer.as_ref(), info.as_ref()].concat()
        } else {
            // The metadata go into the one message inside.
            let message = Fields::decode(&answer).bytes(response::MESSAGES).to_vec();
            Encoder::new().element(response::MESSAGES, [message.as_slice(), info.as_ref()].concat()).finish().to_vec()
        };
        if sender.send(with_info.into()).await.is_err() {
            break;
        }
    }
    work.await.unwrap_or_else(|error| Ending::Fail(Failure::new(code::INTERNAL, error.to_string())))
}
