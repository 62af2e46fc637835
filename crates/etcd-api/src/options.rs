//! How to connect: TLS material, user, time limits.

use std::fmt;
use std::time::Duration;

use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::limits;

/// TLS material as PEM text in memory. The caller reads the files, so that errors can name them.
#[derive(Clone, Default)]
pub struct TlsOptions {
    /// Certificates of the CA that signs members' certificates. Without it the system's roots are trusted. Keys of members may
    /// be RSA, ECDSA P-256/P-384 or Ed25519, not P-521.
    pub ca_pem: Option<Vec<u8>>,
    /// Client certificate, then any intermediates.
    pub cert_pem: Option<Vec<u8>>,
    /// Private key of the client certificate: PKCS#8, PKCS#1 or SEC1; RSA, ECDSA P-256/P-384 or Ed25519.
    pub key_pem: Option<Zeroizing<Vec<u8>>>,
    /// Name or address that the member's certificate must carry, when it is not the endpoint's host (a tunnel, say).
    pub server_name: Option<String>,
    /// Accept any server certificate. The connection is then only as trustworthy as the network.
    pub insecure_skip_verify: bool,
}

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions")
            .field("ca_pem", &self.ca_pem.is_some())
            .field("cert_pem", &self.cert_pem.is_some())
            .field("key_pem", &self.key_pem.is_some())
            .field("server_name", &self.server_name)
            .field("insecure_skip_verify", &self.insecure_skip_verify)
            .finish()
    }
}

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
