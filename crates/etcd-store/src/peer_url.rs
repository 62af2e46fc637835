//! Peer URLs in the form that etcd hashes into member ids.
//!
//! Source: etcd `client/pkg/types/urls.go` and Go's `net/url` (`URL.String`). The text matters to the byte: a member's id is a
//! SHA-1 over it.

use std::fmt;
use std::str::FromStr;

/// One peer URL, checked, in Go's `URL.String()` form: lower-case scheme, host and port as given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerUrl(String);

/// Why text is not a peer URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerUrlError {
    /// No `scheme://`.
    #[error("peer URL '{0}' has no scheme: http://host:port or https://host:port is expected")]
    NoScheme(String),
    /// A scheme other than http, https, unix and unixs.
    #[error("peer URL '{0}' has another scheme than http, https, unix or unixs")]
    Scheme(String),
    /// No port, or no host.
    #[error("peer URL '{0}' does not have the form host:port")]
    HostPort(String),
    /// Something after the port, even a single slash.
    #[error("peer URL '{0}' must end after the port: no path, not even '/', no query, no fragment")]
    Path(String),
    /// A user or password.
    #[error("peer URL '{0}' must not contain a user or password")]
    User(String),
    /// A character that does not belong into a URL.
    #[error("peer URL '{url}' contains {character:?}, which is not allowed there")]
    Character {
        /// The text as given.
        url: String,
        /// The first offending character.
        character: char,
    },
}

impl PeerUrl {
    /// The URL's text, as it is stored and hashed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PeerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PeerUrl {
    type Err = PeerUrlError;

    /// Parses one URL; white space around it is ignored, as etcd does.
    fn from_str(text: &str) -> Result<Self, PeerUrlError> {
        let url = text.trim();
        let (scheme, rest) = url.split_once("://").ok_or_else(|| PeerUrlError::NoScheme(url.to_owned()))?;
        match scheme.to_ascii_lowercase().as_str() {
            scheme @ ("http" | "https") => network_url(url, scheme, rest),
            scheme @ ("unix" | "unixs") => socket_url(url, scheme, rest),
            _ => Err(PeerUrlError::Scheme(url.to_owned())),
        }
    }
}

fn network_url(url: &str, scheme: &str, rest: &str) -> Result<PeerUrl, PeerUrlError> {
    if rest.contains(['/', '?', '#']) {
        return Err(PeerUrlError::Path(url.to_owned()));
    }
    if rest.contains('@') {
        return Err(PeerUrlError::User(url.to_owned()));
    }
    let no_host_port = || PeerUrlError::HostPort(url.to_owned());
    let (host, port) = rest.rsplit_once(':').ok_or_else(no_host_port)?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let stray = if bracketed { &host[1..host.len() - 1] } else { host };
    let sound_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if stray.is_empty() || !sound_port || stray.contains(['[', ']']) || (!bracketed && host.contains(':')) {
        return Err(no_host_port());
    }
    let allowed = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "-._~!$&'()*+;=:".contains(c);
    // "%25" introduces the zone of an IPv6 address; Go prints it back as it was.
    let plain = if bracketed { stray.replacen("%25", "", 1) } else { stray.to_owned() };
    if let Some(character) = plain.chars().find(|&c| !allowed(c)) {
        return Err(PeerUrlError::Character { url: url.to_owned(), character });
    }
    let mut form = format!("{scheme}://");
    for character in rest.chars() {
        if character.is_ascii() {
            form.push(character);
        } else {
            // Go's URL.String escapes the bytes of a host that are not ASCII.
            let mut utf8 = [0; 4];
            for byte in character.encode_utf8(&mut utf8).bytes() {
                form.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    Ok(PeerUrl(form))
}

fn socket_url(url: &str, scheme: &str, rest: &str) -> Result<PeerUrl, PeerUrlError> {
    // Only characters that Go prints back unchanged, so that the id is certain.
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~$&+=:/".contains(c);
    if let Some(character) = rest.chars().find(|&c| !allowed(c)) {
        return Err(PeerUrlError::Character { url: url.to_owned(), character });
    }
    let authority = rest.split('/').next().unwrap_or_default();
    let sound_port = authority.rsplit_once(':').is_none_or(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    if rest.is_empty() || !sound_port {
        return Err(PeerUrlError::HostPort(url.to_owned()));
    }
    Ok(PeerUrl(format!("{scheme}://{rest}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn form(text: &str) -> Result<String, PeerUrlError> {
        text.parse::<PeerUrl>().map(|url| url.0)
    }

    #[test]
    fn sound_urls_take_gos_form() {
        for (text, expected) in [
            ("http://127.0.0.1:2380", "http://127.0.0.1:2380"),
            ("  HTTPS://Node-1.example:2380 ", "https://Node-1.example:2380"),
            ("http://[::1]:2380", "http://[::1]:2380"),
            ("http://[fe80::1%25eth0]:2380", "http://[fe80::1%25eth0]:2380"),
            ("http://ä.example:1", "http://%C3%A4.example:1"),
            ("unix:///run/etcd.sock", "unix:///run/etcd.sock"),
            ("unixs://localhost:1", "unixs://localhost:1"),
        ] {
            assert_eq!(form(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_etcd_refuses_is_refused() {
        for text in [
            "",
            "127.0.0.1:2380",
            "://127.0.0.1:2379",
            "mailto://127.0.0.1:2379",
            "http://127.0.0.1",
            "http://:",
            "http://::1:2380",
            "http://host:port",
            "http://127.0.0.1:2379/",
            "http://127.0.0.1:2379/path",
            "http://127.0.0.1:2379?x=1",
            "http://root:secret@127.0.0.1:2379",
            "http://ho st:1",
            "http://ho%41:1",
            "http://[::1:1",
            "unix://localhost:m1",
            "unix://",
        ] {
            assert!(form(text).is_err(), "{text}");
        }
    }
}
