//! The sending half of one call, and the orders a call can give to its connection.

use std::fmt;
use std::future::poll_fn;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tokio::sync::mpsc;

use super::wire::{Encoder, frame};

/// A gRPC status to answer with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// gRPC status code.
    pub code: u32,
    /// Its text.
    pub message: String,
}

impl Failure {
    /// A status.
    #[must_use]
    pub fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// What a call asks of its connection.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// Drop the socket.
    Cut,
    /// Send GOAWAY and close.
    GoAway,
}

/// The client has gone, or the connection.
#[derive(Debug)]
pub struct Gone;

impl From<h2::Error> for Gone {
    fn from(_: h2::Error) -> Self {
        Self
    }
}

/// Sends one call's answer.
pub struct Sink {
    response: SendResponse<Bytes>,
    stream: Option<SendStream<Bytes>>,
    orders: mpsc::UnboundedSender<Order>,
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("opened", &self.stream.is_some()).finish_non_exhaustive()
    }
}

impl Sink {
    pub(super) fn new(response: SendResponse<Bytes>, orders: mpsc::UnboundedSender<Order>) -> Self {
        Self { response, stream: None, orders }
    }

    fn open(&mut self) -> Result<&mut SendStream<Bytes>, Gone> {
        if self.stream.is_none() {
            self.stream = Some(self.response.send_response(grpc_headers(), false)?);
        }
        self.stream.as_mut().ok_or(Gone)
    }

    /// Sends the response headers now.
    ///
    /// # Errors
    /// When the client has gone.
    pub fn headers(&mut self) -> Result<(), Gone> {
        self.open().map(|_| ())
    }

    /// Sends one message, no faster than the client takes it.
    ///
    /// # Errors
    /// When the client has gone.
    pub async fn message(&mut self, message: Encoder) -> Result<(), Gone> {
        self.raw(&message.finish()).await
    }

    /// Sends one message that is encoded already.
    ///
    /// # Errors
    /// When the client has gone.
    pub async fn raw(&mut self, message: &[u8]) -> Result<(), Gone> {
        let mut rest = frame(message);
        let stream = self.open()?;
        while !rest.is_empty() {
            stream.reserve_capacity(rest.len());
            let room = poll_fn(|cx| stream.poll_capacity(cx)).await.ok_or(Gone)??;
            let piece = rest.split_to(room.min(rest.len()));
            stream.send_data(piece, false)?;
        }
        Ok(())
    }

    /// Ends the call: trailers after messages, one block of headers otherwise, unless `late`.
    ///
    /// # Errors
    /// When the client has gone.
    pub fn finish(&mut self, failure: Option<&Failure>, late: bool) -> Result<(), Gone> {
        let trailers = trailers(failure);
        if self.stream.is_none() && failure.is_some() && !late {
            let mut response = grpc_headers();
            response.headers_mut().extend(trailers);
            self.stream = Some(self.response.send_response(response, true)?);
            return Ok(());
        }
        self.open()?.send_trailers(trailers)?;
        Ok(())
    }

    /// Ends the HTTP/2 stream without trailers.
    ///
    /// # Errors
    /// When the client has gone.
    pub fn end_without_status(&mut self) -> Result<(), Gone> {
        self.open()?.send_data(Bytes::new(), true)?;
        Ok(())
    }

    /// Resets the stream.
    ///
    /// # Errors
    /// When the client has gone.
    pub fn reset(&mut self, reason: u32) -> Result<(), Gone> {
        self.open()?.send_reset(Reason::from(reason));
        Ok(())
    }

    /// Waits until the client resets the stream or is gone.
    pub async fn cancelled(&mut self) {
        let _gone_either_way = match self.stream.as_mut() {
            Some(stream) => poll_fn(|cx| stream.poll_reset(cx)).await,
            None => poll_fn(|cx| self.response.poll_reset(cx)).await,
        };
    }

    /// Gives an order to the connection; without one it is closing already.
    pub fn order(&self, order: Order) {
        self.orders.send(order).unwrap_or_default();
    }
}

fn grpc_headers() -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

fn trailers(failure: Option<&Failure>) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    let code = failure.map_or(0, |failure| failure.code);
    trailers.insert("grpc-status", HeaderValue::from(code));
    let text = failure.and_then(|failure| HeaderValue::from_str(&percent_encoded(&failure.message)).ok());
    if let Some(text) = text {
        trailers.insert("grpc-message", text);
    }
    trailers
}

/// `grpc-message` as the protocol wants it: printable ASCII but `%` stands for itself, every other byte is `%XX`.
fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
