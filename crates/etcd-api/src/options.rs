//! How to connect: TLS material, user, time limits.

use std::time::Duration;

use grpc_link::{ChannelOptions, Keepalive, TlsOptions};
use secrecy::SecretString;

use crate::limits;

/// User and password of etcd's own authentication.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// User name.
    pub user: String,
    /// Password; never printed.
    pub password: SecretString,
}

/// Everything about a connection but its address.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Used for https endpoints only; `None` there means the system's roots and no client certificate.
    pub tls: Option<TlsOptions>,
    /// User of etcd's own authentication; ignored by clusters where it is off.
    pub credentials: Option<Credentials>,
    /// Limit for one attempt to connect, TLS included. Default 5 s.
    pub dial_timeout: Duration,
    /// Limit for each unary call that does not take its own. Default 5 s.
    pub request_timeout: Duration,
    /// Silence after which a connection with open streams is probed; raised to at least 10 s. Default 20 s.
    ///
    /// An idle connection is never probed: etcd answers that with GOAWAY (`PermitWithoutStream` is off in 3.4 to 3.7).
    pub keepalive_time: Duration,
    /// How long a probe may stay unanswered. Default 10 s.
    pub keepalive_timeout: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            tls: None,
            credentials: None,
            dial_timeout: limits::DIAL_TIMEOUT,
            request_timeout: limits::REQUEST_TIMEOUT,
            keepalive_time: limits::KEEPALIVE_TIME,
            keepalive_timeout: limits::KEEPALIVE_TIMEOUT,
        }
    }
}

impl ConnectOptions {
    pub(crate) fn channel(&self) -> ChannelOptions {
        ChannelOptions {
            dial_timeout: self.dial_timeout,
            // etcd runs with PermitWithoutStream off, and allows a ping every 5 s.
            keepalive: Keepalive::Http2 { time: self.keepalive_time.max(limits::KEEPALIVE_TIME_MIN), timeout: self.keepalive_timeout },
            stream_window: limits::STREAM_WINDOW,
            connection_window: limits::CONNECTION_WINDOW,
            frame_size: limits::FRAME_SIZE,
        }
    }
}
