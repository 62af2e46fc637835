//! Making one connection: lookup, TCP, TLS, all within the dial time-out.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::fault::Fate;
use super::observe::{Observed, Wire};
use super::tls::{self, TlsSetup};
use crate::endpoint::{Endpoint, Scheme};
use crate::error::ErrorKind;

/// Dials one endpoint, as often as the channel asks.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    endpoint: Endpoint,
    tls: Option<TlsSetup>,
    limit: Duration,
    fate: Fate,
}

impl Dialer {
    pub(super) fn new(endpoint: Endpoint, tls: Option<TlsSetup>, limit: Duration, fate: Fate) -> Self {
        Self { endpoint, tls, limit, fate }
    }

    pub(super) async fn dial(&self) -> Result<Observed, ErrorKind> {
        let deadline = Instant::now() + self.limit;
        let tcp = self.tcp(deadline).await?;
        // Small requests and window updates must not wait for a delayed acknowledgement.
        tcp.set_nodelay(true).map_err(|error| ErrorKind::Unreachable(format!("TCP_NODELAY: {error}")))?;
        let Some(tls) = &self.tls else {
            return Ok(Observed::new(Wire::Plain(tcp), None, self.fate.clone()));
        };
        let handshake = TlsConnector::from(tls.config.clone()).connect(tls.server_name.clone(), tcp);
        let stream = timeout_at(deadline, handshake)
            .await
            .map_err(|_| ErrorKind::Unreachable(format!("no TLS handshake within {:?}", self.limit)))?
            .map_err(|error| handshake_failed(&error, tls))?;
        Ok(Observed::new(Wire::Tls(Box::new(stream)), Some(tls.clone()), self.fate.clone()))
    }

    async fn tcp(&self, deadline: Instant) -> Result<TcpStream, ErrorKind> {
        let lookup = tokio::net::lookup_host((self.endpoint.host(), self.endpoint.port()));
        let addresses: Vec<SocketAddr> = timeout_at(deadline, lookup)
            .await
            .map_err(|_| ErrorKind::Unreachable(format!("name lookup took longer than {:?}", self.limit)))?
            .map_err(|error| ErrorKind::Unreachable(format!("name lookup: {error}")))?
            .collect();
        let mut last = ErrorKind::Unreachable("the name has no address".to_owned());
        for (index, address) in addresses.iter().enumerate() {
            // One address that swallows packets (IPv6 without a route) must leave time for the others.
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
            match tokio::time::timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => return Ok(tcp),
                Ok(Err(error)) => last = ErrorKind::Unreachable(format!("{address}: {error}")),
                Err(_) => last = ErrorKind::Unreachable(format!("{address}: no answer within {share:?}")),
            }
        }
        Err(last)
    }
}

fn handshake_failed(error: &io::Error, tls: &TlsSetup) -> ErrorKind {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(inner) = inner {
        return tls::classify(inner, &tls.server_name.to_str());
    }
    let closed = matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe);
    if closed {
        return ErrorKind::SchemeMismatch {
            spoke: Scheme::Https,
            fact: "the server closed the connection instead of a TLS handshake".to_owned(),
        };
    }
    ErrorKind::Unreachable(format!("TLS handshake: {error}"))
}
