//! Where one member listens for clients.

use std::fmt;

use grpc_link::{Address, Scheme};

/// The address of exactly one member: scheme, host and port.
///
/// Two endpoints are equal exactly when their canonical texts are: host names in lower case, IPv6 in its shortest form
/// in brackets, the port always there, nothing after it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint(Address);

/// A text that is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not an etcd endpoint: {fact}")]
pub struct EndpointError {
    /// What was given; what stands before an `@` is left out, as it may be a password.
    pub text: String,
    /// What is wrong with it.
    pub fact: &'static str,
}

impl Endpoint {
    /// Reads `http://host:port`, `https://host:port` or `host:port`.
    ///
    /// Without a scheme it is https when `tls_material` (the caller holds a CA, a certificate or asked for TLS) and http
    /// otherwise, as etcdctl does. A scheme that is given always wins.
    ///
    /// # Errors
    /// [`EndpointError`] for another scheme, a missing or zero port, a path other than `/`, a query, or user information.
    pub fn parse(text: &str, tls_material: bool) -> Result<Self, EndpointError> {
        let refuse =
            |fact| EndpointError { text: text.rsplit_once('@').map_or_else(|| text.to_owned(), |(_, host)| format!("...@{host}")), fact };
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(_) => return Err(refuse("only http:// and https:// are served")),
            None if tls_material => (Scheme::Https, text),
            None => (Scheme::Http, text),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(refuse("a path or query has no meaning to etcd"));
        }
        if authority.contains('@') {
            return Err(refuse("a user name belongs in --user, not in the address"));
        }
        let (host, port) = authority
            .rsplit_once(':')
            .filter(|(host, _)| !host.is_empty() && (!host.contains(':') || host.ends_with(']')))
            .ok_or_else(|| refuse("host:port is expected (etcd listens for clients on 2379 by default)"))?;
        if !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(refuse("the port is not a number"));
        }
        let port = port.parse().ok().filter(|&port| port != 0).ok_or_else(|| refuse("the port is not within 1 to 65535"))?;
        let address = Address::new(scheme, host, port).ok_or_else(|| refuse("the host is neither a name nor an address"))?;
        Ok(Self(address))
    }

    /// Whether the connection is protected.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.0.scheme()
    }

    /// The port, never zero.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port()
    }

    /// The host without brackets, as name lookup and certificate checks want it.
    #[must_use]
    pub fn host(&self) -> String {
        self.0.host()
    }

    pub(crate) fn address(&self) -> &Address {
        &self.0
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::{Endpoint, Scheme};

    #[test]
    fn canonical_text_is_the_same_for_every_spelling() {
        for (text, tls, canonical) in [
            ("127.0.0.1:2379", false, "http://127.0.0.1:2379"),
            ("127.0.0.1:2379", true, "https://127.0.0.1:2379"),
            ("http://etcd-0:2379", true, "http://etcd-0:2379"),
            ("https://ETCD.Example:02379/", false, "https://etcd.example:2379"),
            ("https://[FD00:0::1]:2379", false, "https://[fd00::1]:2379"),
            ("https://etcd.example:443", false, "https://etcd.example:443"),
        ] {
            assert_eq!(Endpoint::parse(text, tls).unwrap().to_string(), canonical, "{text}");
        }
        let v6 = Endpoint::parse("[::1]:2379", false).unwrap();
        assert_eq!((v6.host().as_str(), v6.port(), v6.scheme()), ("::1", 2379, Scheme::Http));
    }

    #[test]
    fn what_is_no_endpoint_is_refused_with_the_reason() {
        for (text, fact) in [
            ("", "host:port"),
            ("etcd-0", "host:port"),
            ("https://etcd-0", "host:port"),
            ("fd00::1:2379", "host:port"),
            ("[::1]", "host:port"),
            (":2379", "host:port"),
            ("host:", "1 to 65535"),
            ("host:0", "1 to 65535"),
            ("host:70000", "1 to 65535"),
            ("host:+80", "not a number"),
            ("http://host:2379/v3", "path"),
            ("host:2379?x=1", "path"),
            ("https://root:secret@host:2379", "user name"),
            ("ftp://host:2379", "http://"),
            ("unix:///run/etcd.sock", "http://"),
            ("ho st:2379", "neither a name"),
        ] {
            let error = Endpoint::parse(text, false).unwrap_err();
            assert!(error.to_string().contains(fact), "{text}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
