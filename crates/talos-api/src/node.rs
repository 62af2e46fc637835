//! Addresses: the endpoints that are dialled, and the nodes that calls are about.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use grpc_link::{Address, Scheme};

use crate::limits::{APID_PORT, NODE_NAME_MAX};

/// Port of an endpoint that is a URL without one, as talosctl has it; Omni is reached so.
const HTTPS_PORT: u16 = 443;

/// A text that is no endpoint or no node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {what}: {fact}")]
pub struct AddressError {
    /// What was given.
    pub text: String,
    /// What it should have been.
    pub what: &'static str,
    /// What is wrong with it.
    pub fact: &'static str,
}

/// Where one apid listens. Always TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint(Address);

impl Endpoint {
    /// Reads `host`, `host:port`, `[v6]:port`, a bare IPv6 address, or `https://host[:port]`.
    ///
    /// Without a port it is 50000, for a URL 443 (talosctl does the same).
    ///
    /// # Errors
    /// [`AddressError`] for plain http, a path, user information, or what is neither a name nor an address.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let refuse = |fact| AddressError { text: shown(text), what: "a Talos endpoint", fact };
        let (rest, default) = match text.split_once("://") {
            Some(("https", rest)) => (rest.strip_suffix('/').unwrap_or(rest), HTTPS_PORT),
            Some(_) => return Err(refuse("Talos is only reached by https")),
            None => (text, APID_PORT),
        };
        if rest.contains(['/', '?', '#', '@', ',']) || rest.contains(char::is_whitespace) {
            return Err(refuse("a host, and a port if it is not 50000, is all it has"));
        }
        let (host, port) = match rest.rsplit_once(':') {
            Some(_) if rest.parse::<Ipv6Addr>().is_ok() => (format!("[{rest}]"), default),
            Some((host, port)) if !host.is_empty() => {
                let number = port.bytes().all(|b| b.is_ascii_digit()).then(|| port.parse().ok()).flatten();
                match (number, rest.ends_with(']')) {
                    (_, true) => (rest.to_owned(), default),
                    (Some(port), false) if port != 0 => (host.to_owned(), port),
                    _ => return Err(refuse("the port is not within 1 to 65535")),
                }
            }
            Some(_) => return Err(refuse("the host is missing")),
            None => (rest.to_owned(), default),
        };
        Address::new(Scheme::Https, &host, port).map(Self).ok_or_else(|| refuse("the host is neither a name nor an address"))
    }

    /// The host without brackets.
    #[must_use]
    pub fn host(&self) -> String {
        self.0.host()
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port()
    }

    /// The host, when it is an address and no name.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.0.host().parse().ok()
    }

    pub(crate) fn address(&self) -> &Address {
        &self.0
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        f.write_str(text.strip_prefix("https://").unwrap_or(&text))
    }
}

/// The machine a call is about: an address or a host name, as apid can dial it; never with a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(String);

impl NodeName {
    /// Reads a name or an address.
    ///
    /// # Errors
    /// [`AddressError`] when it is empty, too long, holds a port, or could not travel as metadata.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let refuse = |fact| AddressError { text: shown(text), what: "a Talos node", fact };
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.to_string()));
        }
        if text.is_empty() || text.len() > NODE_NAME_MAX {
            return Err(refuse("an address or a host name is expected"));
        }
        if text.contains("://") {
            return Err(refuse("an address or a host name is expected, no URL"));
        }
        if text.contains([':', '[', ']']) {
            return Err(refuse("a node is named without a port; endpoints (-e) may have one"));
        }
        // An underscore is no host name and yet seen in /etc/hosts.
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
            return Err(refuse("an address or a host name is expected"));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address, when it is one and no name.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.0.parse().ok()
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What was given, fit for a message; what stands before an `@` may be a password.
fn shown(text: &str) -> String {
    grpc_link::tame(&text.rsplit_once('@').map_or_else(|| text.to_owned(), |(_, host)| format!("...@{host}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn endpoints_are_read_as_talosctl_reads_them() {
        for (text, canonical) in [
            ("10.0.0.2", "10.0.0.2:50000"),
            ("10.0.0.2:50001", "10.0.0.2:50001"),
            ("CP-1.example", "cp-1.example:50000"),
            ("fd00::2", "[fd00::2]:50000"),
            ("[fd00::2]", "[fd00::2]:50000"),
            ("[fd00::2]:6443", "[fd00::2]:6443"),
            ("https://omni.example", "omni.example:443"),
            ("https://omni.example/", "omni.example:443"),
            ("https://omni.example:8443", "omni.example:8443"),
            ("https://[fd00::2]", "[fd00::2]:443"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().to_string(), canonical, "{text}");
        }
        for (text, fact) in [
            ("http://10.0.0.2", "https"),
            ("10.0.0.2:0", "1 to 65535"),
            ("10.0.0.2:x", "1 to 65535"),
            (":50000", "host is missing"),
            ("10.0.0.2/24", "is all it has"),
            ("10.0.0.2,10.0.0.3", "is all it has"),
            ("root:secret@10.0.0.2", "is all it has"),
            ("", "neither"),
        ] {
            let error = Endpoint::parse(text).unwrap_err().to_string();
            assert!(error.contains(fact) && !error.contains("secret"), "{text}: {error}");
        }
    }

    #[test]
    fn nodes_have_no_port() {
        for (text, canonical) in [("10.0.0.2", "10.0.0.2"), ("FD00:0::2", "fd00::2"), ("CP-1", "cp-1"), ("a_b.example", "a_b.example")] {
            assert_eq!(NodeName::parse(text).unwrap().as_str(), canonical);
        }
        for text in ["", "10.0.0.2:50000", "[fd00::2]", "https://10.0.0.2", "a,b", "a b", "ä", "a\nb", &"a".repeat(300)] {
            assert!(NodeName::parse(text).is_err(), "{text}");
        }
        assert!(NodeName::parse("10.0.0.2:50000").unwrap_err().to_string().contains("without a port"));
    }
}
