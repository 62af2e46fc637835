//! One connection to one member: dialling, TLS, and what the byte stream tells about a failure.
//!
//! The dialler is ours rather than the gRPC library's because the library cannot skip verification, override the server
//! name, read every key format, or say *why* a connection failed: with TLS 1.3 a refused client certificate only shows
//! after the handshake, as a broken pipe under the first call.

mod dial;
mod fault;
mod material;
mod observe;
mod tls;
mod verifier;

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Uri};

pub use self::material::{Material, MaterialError};

pub(crate) use self::dial::Dialer;
pub(crate) use self::fault::{ConnectFault, Fate};
use crate::endpoint::{Endpoint, Scheme};
use crate::error::ErrorKind;
use crate::limits;
use crate::options::ConnectOptions;

/// Connects and returns the channel. The channel reconnects by itself when the connection breaks later.
pub(crate) async fn connect(endpoint: &Endpoint, options: &ConnectOptions, fate: &Fate) -> Result<Channel, ErrorKind> {
    let tls = match endpoint.scheme() {
        Scheme::Http => None,
        Scheme::Https => Some(tls::TlsSetup::new(endpoint, options.tls.as_ref())?),
    };
    let dialer = Dialer::new(endpoint.clone(), tls, options.dial_timeout, fate.clone());
    let builder = channel_builder(endpoint, options)?;
    let connector = tower::service_fn(move |_: Uri| {
        let dialer = dialer.clone();
        async move { dialer.dial().await.map(TokioIo::new).map_err(ConnectFault) }
    });
    builder.connect_with_connector(connector).await.map_err(|error| {
        let status = tonic::Status::from_error(Box::new(error));
        crate::status::classify(&status, options.dial_timeout, fate)
    })
}

fn channel_builder(endpoint: &Endpoint, options: &ConnectOptions) -> Result<tonic::transport::Endpoint, ErrorKind> {
    let not_a_uri = |error: &dyn std::fmt::Display| ErrorKind::Unreachable(format!("the address is no URI: {error}"));
    let authority = endpoint.to_string();
    let authority = authority.split_once("://").map_or(authority.as_str(), |(_, rest)| rest);
    // The library must take every address for a plain one: TLS is the dialler's business, and an https address is
    // refused when another crate of the build turns the library's own TLS on.
    let plain = tonic::transport::Endpoint::from_shared(format!("http://{authority}")).map_err(|e| not_a_uri(&e))?;
    let origin: Uri = endpoint.to_string().parse().map_err(|e| not_a_uri(&e))?;
    let agent = concat!("lifeboat/", env!("CARGO_PKG_VERSION"));
    Ok(plain
        .origin(origin)
        .user_agent(agent)
        .map_err(|e| not_a_uri(&e))?
        .initial_stream_window_size(limits::STREAM_WINDOW)
        .initial_connection_window_size(limits::CONNECTION_WINDOW)
        .max_frame_size(limits::FRAME_SIZE)
        // Measuring the window costs a ping per burst, and etcd counts pings as strikes.
        .http2_adaptive_window(false)
        .http2_keep_alive_interval(options.keepalive_time.max(limits::KEEPALIVE_TIME_MIN))
        .keep_alive_timeout(options.keepalive_timeout)
        // etcd runs with PermitWithoutStream off: pings on an idle connection end in GOAWAY too_many_pings.
        .keep_alive_while_idle(false))
}
