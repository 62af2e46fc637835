//! From an address and options to a channel of the gRPC library.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::address::{Address, Scheme};
use crate::dial::Dialer;
use crate::fault::{ConnectFault, Fate, LinkFault};
use crate::status::{LocalCause, local_cause};
use crate::tls::{TlsOptions, TlsSetup};

/// How much later than we a server gives a call up. Told the very same moment it may be the first, and reset a stream whose
/// end then looks like a lost connection.
pub const DEADLINE_GRACE: Duration = Duration::from_secs(1);

/// How a dead peer is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keepalive {
    /// By HTTP/2 pings while a call is open; an idle connection is never pinged.
    Http2 {
        /// Silence after which to probe.
        time: Duration,
        /// How long a probe may stay unanswered.
        timeout: Duration,
    },
    /// By the kernel's TCP probes, for servers that close connections on HTTP/2 pings.
    Tcp {
        /// Silence after which to probe; whole seconds.
        time: Duration,
        /// Time between two probes; whole seconds. After three unanswered ones the connection is dead.
        interval: Duration,
    },
}

/// Everything about a channel but its address and certificates.
#[derive(Clone, Debug)]
pub struct ChannelOptions {
    /// Limit for one attempt to connect: name lookup, TCP and TLS together.
    pub dial_timeout: Duration,
    /// How a dead peer is noticed.
    pub keepalive: Keepalive,
    /// HTTP/2 receive window of one stream, in bytes.
    pub stream_window: u32,
    /// HTTP/2 receive window of the connection, in bytes.
    pub connection_window: u32,
    /// Largest HTTP/2 frame we offer to take, in bytes: 16 KiB to 16 MiB.
    pub frame_size: u32,
}

/// Connects and returns the channel. The channel reconnects by itself when the connection breaks later.
///
/// `tls` is used for https only; `None` there means the system's roots and no client certificate. `fate` learns why a
/// connection failed after it was made; give the same one to [`local_cause`].
///
/// # Errors
/// Why there is no connection. With TLS 1.3 a server that refuses our client certificate says so only after the handshake,
/// so that [`LinkFault::TlsClientCertificate`] may come from the first call instead.
pub async fn connect(address: &Address, tls: Option<&TlsOptions>, options: &ChannelOptions, fate: &Fate) -> Result<Channel, LinkFault> {
    let tls = match address.scheme() {
        Scheme::Http => None,
        Scheme::Https => Some(TlsSetup::new(address, tls)?),
    };
    let builder = builder(address, options)?;
    let dialer = Dialer::new(address.clone(), tls, options, fate.clone());
    let connector = tower::service_fn(move |_: Uri| {
        let dialer = dialer.clone();
        async move { dialer.dial().await.map(TokioIo::new).map_err(ConnectFault) }
    });
    builder.connect_with_connector(connector).await.map_err(|error| match local_cause(&Status::from_error(Box::new(error)), fate) {
        Some(LocalCause::Link(fault)) => fault,
        Some(LocalCause::TimedOut) | None => LinkFault::Unreachable(format!("nothing within {:?}", options.dial_timeout)),
        Some(LocalCause::TooLarge(text) | LocalCause::Garbled(text)) => LinkFault::NotGrpc(text),
    })
}

fn builder(address: &Address, options: &ChannelOptions) -> Result<Endpoint, LinkFault> {
    let not_a_uri = |error: &dyn std::fmt::Display| LinkFault::Unreachable(format!("the address is no URI: {error}"));
    let text = address.to_string();
    let authority = text.split_once("://").map_or(text.as_str(), |(_, rest)| rest);
    // The library must take every address for a plain one: TLS is the dialler's business, and an https address is
    // refused when another crate of the build turns the library's own TLS on.
    let plain = Endpoint::from_shared(format!("http://{authority}")).map_err(|e| not_a_uri(&e))?;
    let origin: Uri = text.parse().map_err(|e| not_a_uri(&e))?;
    let agent = concat!("lifeboat/", env!("CARGO_PKG_VERSION"));
    let common = plain
        .origin(origin)
        .user_agent(agent)
        .map_err(|e| not_a_uri(&e))?
        .initial_stream_window_size(options.stream_window)
        .initial_connection_window_size(options.connection_window)
        .max_frame_size(options.frame_size)
        // Measuring the window costs a ping per burst, and Go's servers count pings as strikes.
        .http2_adaptive_window(false)
        // Go's servers end an idle connection that is pinged with GOAWAY too_many_pings, unless told otherwise.
        .keep_alive_while_idle(false);
    Ok(match options.keepalive {
        Keepalive::Http2 { time, timeout } => common.http2_keep_alive_interval(time).keep_alive_timeout(timeout),
        Keepalive::Tcp { .. } => common,
    })
}
