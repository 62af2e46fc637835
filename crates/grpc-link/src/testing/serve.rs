//! Serving one HTTP/2 connection, call by call.

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::sink::{Order, Sink};

/// What Go's gRPC server closes a connection with that pings too often (debug data "too_many_pings").
pub const GOAWAY_TOO_MANY_PINGS: h2::Reason = h2::Reason::ENHANCE_YOUR_CALM;

/// Serves a connection until the client closes it or a call orders its end, one task per call.
///
/// Returns when all its calls have ended; they see that the client has gone.
pub async fn serve<S, H, F>(stream: S, mut handler: H)
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: FnMut(Request<RecvStream>, Sink) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let Ok(mut connection) = h2::server::Builder::new().handshake::<_, Bytes>(stream).await else {
        return;
    };
    let (orders, mut inbox) = mpsc::unbounded_channel();
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, response))) => {
                    calls.spawn(handler(request, Sink::new(response, orders.clone())));
                }
                Some(Err(_)) | None => break,
            },
            order = inbox.recv() => match order {
                Some(Order::GoAway) => connection.abrupt_shutdown(GOAWAY_TOO_MANY_PINGS),
                Some(Order::Cut) | None => break,
            },
        }
    }
    // The socket closes here; the calls then see that the client has gone.
    drop(connection);
    while calls.join_next().await.is_some() {}
}

/// The gRPC messages of a request, in order.
#[derive(Debug)]
pub struct Messages {
    body: RecvStream,
    buffer: BytesMut,
    ended: bool,
}

impl Messages {
    /// Reads from a request's body.
    #[must_use]
    pub fn new(body: RecvStream) -> Self {
        Self { body, buffer: BytesMut::new(), ended: false }
    }

    /// Whether the client has ended its stream, rather than gone or stopped within a message.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The next message; `None` when the client has no more, or has gone.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(&[_, a, b, c, d]) = self.buffer.first_chunk::<5>() {
                let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
                if self.buffer.len() >= 5 + length {
                    return Some(self.buffer.split_to(5 + length).freeze().slice(5..));
                }
            }
            let Some(data) = self.body.data().await else {
                self.ended = self.buffer.is_empty();
                return None;
            };
            let data = data.ok()?;
            self.body.flow_control().release_capacity(data.len()).ok()?;
            self.buffer.extend_from_slice(&data);
        }
    }
}
