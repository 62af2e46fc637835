//! A byte stream that remembers how it began and how it failed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::address::Scheme;
use crate::fault::{Fate, LinkFault};
use crate::tls::{self, TlsSetup};

/// The bytes below HTTP/2.
#[derive(Debug)]
pub(crate) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Passes bytes through and tells [`Fate`] why a connection ended before the server had proven to speak HTTP/2.
#[derive(Debug)]
pub(crate) struct Observed {
    wire: Wire,
    tls: Option<TlsSetup>,
    fate: Fate,
    proven: bool,
}

impl Observed {
    pub(crate) fn new(wire: Wire, tls: Option<TlsSetup>, fate: Fate) -> Self {
        Self { wire, tls, fate, proven: false }
    }

    fn first_bytes(&mut self, bytes: &[u8]) {
        match judge_first_bytes(bytes, self.spoke()) {
            Some(kind) => self.fate.failed(kind),
            None => {
                self.proven = true;
                self.fate.proven();
            }
        }
    }

    fn spoke(&self) -> Scheme {
        match self.wire {
            Wire::Plain(_) => Scheme::Http,
            Wire::Tls(_) => Scheme::Https,
        }
    }

    fn closed(&mut self) {
        if self.proven {
            return;
        }
        // An alert or foreign first bytes say more than the end that follows them.
        if self.fate.fault().is_none() {
            self.fate.failed(self.reason_of_silence());
        }
    }

    fn reason_of_silence(&self) -> LinkFault {
        match &self.tls {
            None => {
                LinkFault::SchemeMismatch { spoke: Scheme::Http, fact: "the server closed the connection before its first byte".to_owned() }
            }
            Some(tls) if tls.identity.was_asked() && !tls.identity.is_given() => {
                LinkFault::TlsClientCertificate("it asked for one, got none and hung up".to_owned())
            }
            Some(tls) if tls.identity.was_asked() => LinkFault::TlsClientCertificate("it asked for one and hung up".to_owned()),
            Some(_) => LinkFault::ConnectionLost("the server hung up right after the TLS handshake".to_owned()),
        }
    }

    fn broke(&mut self, error: &io::Error) {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match (inner, &self.tls) {
            (Some(inner), Some(tls)) => self.fate.failed(tls::classify(inner, &tls.server_name.to_str())),
            _ => self.closed(),
        }
    }

    /// Passes a write's outcome on. Before the server has proven itself a failed write waits for the server's last word
    /// (a TLS alert, say), which may not have been read yet and explains it. A socket that refuses writes is dead, so
    /// that its last word or its end is there to be read at once or within a moment.
    fn written<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if self.proven || !matches!(outcome, Poll::Ready(Err(_))) {
            return outcome;
        }
        let mut scratch = [0_u8; 512];
        let mut buffer = ReadBuf::new(&mut scratch);
        match Pin::new(&mut self.wire).poll_read(cx, &mut buffer) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(last)) => self.broke(&last),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => self.closed(),
            Poll::Ready(Ok(())) => self.first_bytes(buffer.filled()),
        }
        outcome
    }
}

/// What a server's first bytes say, when they are not HTTP/2: `None` for a SETTINGS frame (RFC 9113, 3.4).
fn judge_first_bytes(bytes: &[u8], spoke: Scheme) -> Option<LinkFault> {
    match bytes {
        // TLS record of type alert or handshake, major version 3.
        [0x15 | 0x16, 0x03, ..] if spoke == Scheme::Http => {
            Some(LinkFault::SchemeMismatch { spoke, fact: "the server answers in TLS".to_owned() })
        }
        [b'H', b'T', b'T', b'P', ..] => Some(LinkFault::NotGrpc("the server answers in HTTP/1; this is not a gRPC port".to_owned())),
        _ => None,
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Observed {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let has_room = buf.remaining() > 0;
        let polled = Pin::new(&mut this.wire).poll_read(cx, buf);
        match &polled {
            Poll::Ready(Ok(())) => {
                let fresh = buf.filled().get(before..).unwrap_or_default();
                if fresh.is_empty() {
                    // Nothing read into a full buffer is no end of stream.
                    if has_room {
                        this.closed();
                    }
                } else if !this.proven {
                    this.first_bytes(fresh);
                }
            }
            Poll::Ready(Err(error)) => this.broke(error),
            Poll::Pending => {}
        }
        polled
    }
}

impl AsyncWrite for Observed {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.wire).poll_write(cx, buf);
        this.written(cx, polled)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.wire).poll_write_vectored(cx, bufs);
        this.written(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.wire).poll_flush(cx);
        this.written(cx, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_shutdown(cx)
    }
}
