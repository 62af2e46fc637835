//! Why a connection failed, as a type, carried past the layers that would turn it into "broken pipe".

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::address::Scheme;
use crate::material::MaterialError;

/// Why there is no connection, or no longer one. Texts that come from a server are cut to [`crate::TEXT_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkFault {
    /// The caller's certificates, key or server name cannot be used.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// No connection came about: name lookup, refusal, no route, nothing within the dial time-out.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// The server's certificate is not signed by the CA we trust.
    #[error("the server's certificate is not signed by the trusted CA ({0})")]
    TlsCa(String),
    /// The server's certificate is signed by the right CA and still unusable (expired, not yet valid, wrong purpose).
    #[error("the server's certificate is unusable ({0})")]
    TlsServerCertificate(String),
    /// The server's certificate does not carry the name we asked for.
    #[error("the server's certificate is not valid for '{expected}' ({fact})")]
    WrongServerName {
        /// Name or address that was looked for.
        expected: String,
        /// What the certificate carries, as far as known.
        fact: String,
    },
    /// The server does not accept our client certificate, or wants one and got none.
    #[error("the server does not accept our client certificate ({0})")]
    TlsClientCertificate(String),
    /// Any other failure of TLS.
    #[error("TLS failed ({0})")]
    Tls(String),
    /// We spoke TLS to a plain port or plain HTTP to a TLS port.
    #[error("{fact}; we spoke {}, try {}", .spoke.spoken(), .spoke.other().spoken())]
    SchemeMismatch {
        /// What we spoke.
        spoke: Scheme,
        /// What the server did.
        fact: String,
    },
    /// The server speaks something else than HTTP/2.
    #[error("{0}")]
    NotGrpc(String),
    /// The connection broke while a call was under way. Whether a write took effect is unknown.
    #[error("the connection was lost ({0})")]
    ConnectionLost(String),
}

impl LinkFault {
    /// Whether the caller's own input is at fault, so that no other server would help.
    #[must_use]
    pub fn is_input(&self) -> bool {
        matches!(self, Self::Material(_))
    }
}

/// A failed attempt to connect, as the error type of the dialler inside the gRPC library.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConnectFault(pub LinkFault);

/// What a client's connections have seen beside the calls; shared with their byte streams: the last typed failure after
/// they were dialled, and until when the server's certificate is valid.
///
/// A fault stays until a connection proves itself with its first HTTP/2 bytes, so that a call that fails while the
/// channel is already dialling anew still finds the reason.
#[derive(Clone, Debug, Default)]
pub struct Fate(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    fault: Option<LinkFault>,
    certificate_ends: Option<SystemTime>,
}

impl Fate {
    /// Until when the certificate is valid that the server showed last. `None` without TLS.
    #[must_use]
    pub fn certificate_ends(&self) -> Option<SystemTime> {
        self.seen().certificate_ends
    }

    pub(crate) fn fault(&self) -> Option<LinkFault> {
        self.seen().fault.clone()
    }

    pub(crate) fn failed(&self, fault: LinkFault) {
        self.seen().fault = Some(fault);
    }

    pub(crate) fn proven(&self) {
        self.seen().fault = None;
    }

    pub(crate) fn shown(&self, ends: Option<SystemTime>) {
        self.seen().certificate_ends = ends;
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
