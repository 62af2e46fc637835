//! Making one connection: lookup, TCP, TLS, all within the dial time-out.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::address::{Address, Scheme};
use crate::channel::{ChannelOptions, Keepalive};
use crate::fault::{Fate, LinkFault};
use crate::material::certificate_ends;
use crate::observe::{Observed, Wire};
use crate::tls::{self, TlsSetup};

/// Unanswered TCP probes after which the kernel gives a connection up.
const TCP_PROBES: u32 = 3;

/// Dials one address, as often as the channel asks.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    address: Address,
    tls: Option<TlsSetup>,
    limit: Duration,
    keepalive: Keepalive,
    fate: Fate,
}

impl Dialer {
    pub(crate) fn new(address: Address, tls: Option<TlsSetup>, options: &ChannelOptions, fate: Fate) -> Self {
        Self { address, tls, limit: options.dial_timeout, keepalive: options.keepalive, fate }
    }

    pub(crate) async fn dial(&self) -> Result<Observed, LinkFault> {
        let deadline = Instant::now() + self.limit;
        let tcp = self.tcp(deadline).await?;
        // Small requests and window updates must not wait for a delayed acknowledgement.
        tcp.set_nodelay(true).map_err(|error| LinkFault::Unreachable(format!("TCP_NODELAY: {error}")))?;
        if let Keepalive::Tcp { time, interval } = self.keepalive {
            probe(&tcp, time, interval).map_err(|error| LinkFault::Unreachable(format!("SO_KEEPALIVE: {error}")))?;
        }
        let Some(tls) = &self.tls else {
            return Ok(Observed::new(Wire::Plain(tcp), None, self.fate.clone()));
        };
        let handshake = TlsConnector::from(tls.config.clone()).connect(tls.server_name.clone(), tcp);
        let stream = timeout_at(deadline, handshake)
            .await
            .map_err(|_| LinkFault::Unreachable(format!("no TLS handshake within {:?}", self.limit)))?
            .map_err(|error| handshake_failed(&error, tls))?;
        let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        self.fate.shown(leaf.and_then(|leaf| certificate_ends(leaf)));
        Ok(Observed::new(Wire::Tls(Box::new(stream)), Some(tls.clone()), self.fate.clone()))
    }

    async fn tcp(&self, deadline: Instant) -> Result<TcpStream, LinkFault> {
        let lookup = tokio::net::lookup_host((self.address.host(), self.address.port()));
        let addresses: Vec<SocketAddr> = timeout_at(deadline, lookup)
            .await
            .map_err(|_| LinkFault::Unreachable(format!("name lookup took longer than {:?}", self.limit)))?
            .map_err(|error| LinkFault::Unreachable(format!("name lookup: {error}")))?
            .collect();
        let mut last = LinkFault::Unreachable("the name has no address".to_owned());
        for (index, address) in addresses.iter().enumerate() {
            // One address that swallows packets (IPv6 without a route) must leave time for the others.
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
            match tokio::time::timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => return Ok(tcp),
                Ok(Err(error)) => last = LinkFault::Unreachable(format!("{address}: {error}")),
                Err(_) => last = LinkFault::Unreachable(format!("{address}: no answer within {share:?}")),
            }
        }
        Err(last)
    }
}

fn probe(tcp: &TcpStream, time: Duration, interval: Duration) -> rustix::io::Result<()> {
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, time)?;
    sockopt::set_tcp_keepintvl(tcp, interval)?;
    sockopt::set_tcp_keepcnt(tcp, TCP_PROBES)
}

fn handshake_failed(error: &io::Error, tls: &TlsSetup) -> LinkFault {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(inner) = inner {
        return tls::classify(inner, &tls.server_name.to_str());
    }
    let closed = matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe);
    if closed {
        return LinkFault::SchemeMismatch {
            spoke: Scheme::Https,
            fact: "the server closed the connection instead of a TLS handshake".to_owned(),
        };
    }
    LinkFault::Unreachable(format!("TLS handshake: {error}"))
}
