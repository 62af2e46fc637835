//! Where a server listens.

use std::fmt;

use url::Host;

/// Whether a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain HTTP/2 with prior knowledge.
    Http,
    /// HTTP/2 over TLS.
    Https,
}

impl Scheme {
    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    pub(crate) fn spoken(self) -> &'static str {
        match self {
            Self::Http => "plain http",
            Self::Https => "https",
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Http => Self::Https,
            Self::Https => Self::Http,
        }
    }
}

/// Scheme, host and port of one server.
///
/// Two addresses are equal exactly when their canonical texts are: host names in lower case, IPv6 in its shortest form
/// in brackets, the port always there, nothing after it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    scheme: Scheme,
    host: Host<String>,
    port: u16,
}

impl Address {
    /// From its parts; an IPv6 address stands in brackets. `None` when the host is neither a name nor an address.
    #[must_use]
    pub fn new(scheme: Scheme, host: &str, port: u16) -> Option<Self> {
        Some(Self { scheme, host: Host::parse(host).ok()?, port })
    }

    /// Whether the connection is protected.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The host without brackets, as name lookup and certificate checks want it.
    #[must_use]
    pub fn host(&self) -> String {
        match &self.host {
            Host::Domain(name) => name.clone(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme.as_str(), self.host, self.port)
    }
}
