//! One context with the caller's flags applied: everything that is needed to connect.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use grpc_link::TlsOptions;
use zeroize::Zeroizing;

use super::certificate::{Identity, certificate_identity};
use super::{Basic, ConfigError, Context};
use crate::limits::ADDRESSES_MAX;
use crate::node::{Endpoint, NodeName};
use crate::role::Roles;

/// What the caller says beside the talosconfig. Empty fields leave its word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// `--context`.
    pub context: Option<String>,
    /// `-e`, `--endpoints`: replace those of the context.
    pub endpoints: Vec<String>,
    /// `-n`, `--nodes`: replace those of the context.
    pub nodes: Vec<String>,
    /// `--cluster` of talosctl: the cluster behind a proxy such as Omni.
    pub cluster: Option<String>,
}

/// Who we are, whom we dial and about whom we ask.
#[derive(Clone)]
pub struct Access {
    /// The context's name.
    pub context: String,
    /// Where apid is dialled; at least one.
    pub endpoints: Vec<Endpoint>,
    /// The nodes that are meant where nothing else is said. Often none: service accounts have none.
    pub nodes: Vec<NodeName>,
    /// Sent as `context` metadata, for a proxy in front of several clusters.
    pub cluster: Option<String>,
    /// What the client certificate says; `None` where there is none.
    pub identity: Option<Identity>,
    pub(crate) tls: TlsOptions,
    pub(crate) authorization: Option<Zeroizing<String>>,
}

impl Access {
    pub(super) fn new(name: &str, context: &Context, selection: &Selection) -> Result<Self, ConfigError> {
        if context.auth.as_ref().is_some_and(|auth| auth.siderov1.is_some()) {
            return Err(ConfigError::SideroV1(name.to_owned()));
        }
        if context.proxy_url.as_deref().is_some_and(|url| !url.is_empty()) {
            return Err(ConfigError::Proxy(name.to_owned()));
        }
        let endpoints = addresses(&selection.endpoints, context.endpoints.iter().flatten().chain(&context.target))?;
        let nodes = addresses(&selection.nodes, context.nodes.iter().flatten())?;
        if endpoints.is_empty() {
            return Err(ConfigError::NoEndpoints(name.to_owned()));
        }
        let field = |field: &'static str, text: Option<&str>| decoded(name, field, text);
        let crt = field("crt", context.crt.as_deref())?;
        let wrong = |fact| ConfigError::Material { context: name.to_owned(), field: "crt", fact };
        let identity = crt.as_deref().map(|pem| certificate_identity(pem)).transpose().map_err(wrong)?;
        let cluster = selection.cluster.clone().or_else(|| context.cluster.clone()).filter(|cluster| !cluster.is_empty());
        Ok(Self {
            context: name.to_owned(),
            endpoints: endpoints.iter().map(|text| Endpoint::parse(text)).collect::<Result<_, _>>()?,
            nodes: nodes.iter().map(|text| NodeName::parse(text)).collect::<Result<_, _>>()?,
            cluster,
            identity,
            tls: TlsOptions {
                ca_pem: field("ca", context.ca.as_deref())?.map(|pem| pem.to_vec()),
                cert_pem: crt.map(|pem| pem.to_vec()),
                key_pem: field("key", context.key.as_ref().map(|key| key.as_str()))?,
                server_name: None,
                insecure_skip_verify: false,
            },
            authorization: context.auth.as_ref().and_then(|auth| auth.basic.as_ref()).map(basic),
        })
    }

    /// The authority that signs the nodes' certificates, as PEM; none where the system's are trusted.
    #[must_use]
    pub fn authority(&self) -> Option<&[u8]> {
        self.tls.ca_pem.as_deref()
    }

    /// The roles of the client certificate; none without one.
    #[must_use]
    pub fn roles(&self) -> Roles {
        self.identity.as_ref().map(|identity| identity.roles.clone()).unwrap_or_default()
    }
}

/// Flags, where there are any, else the context's own; without empty ones and repetitions.
fn addresses<'a>(flags: &'a [String], own: impl Iterator<Item = &'a String>) -> Result<Vec<&'a str>, ConfigError> {
    let all: Vec<&String> = if flags.is_empty() { own.collect() } else { flags.iter().collect() };
    if all.len() > ADDRESSES_MAX {
        return Err(ConfigError::TooMany(all.len()));
    }
    let mut unique: Vec<&str> = Vec::new();
    for text in all.into_iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
        if !unique.contains(&text) {
            unique.push(text);
        }
    }
    Ok(unique)
}

/// A field of base64 over PEM. Line breaks in the base64 are let pass, as Go lets them.
fn decoded(context: &str, field: &'static str, text: Option<&str>) -> Result<Option<Zeroizing<Vec<u8>>>, ConfigError> {
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return Ok(None) };
    let compact: Zeroizing<String> = Zeroizing::new(text.chars().filter(|c| !c.is_ascii_whitespace()).collect());
    let pem = STANDARD.decode(compact.as_bytes()).map_err(|_| ConfigError::Material {
        context: context.to_owned(),
        field,
        fact: "not base64".to_owned(),
    })?;
    Ok(Some(Zeroizing::new(pem)))
}

fn basic(basic: &Basic) -> Zeroizing<String> {
    let pair = Zeroizing::new(format!("{}:{}", basic.username, basic.password.as_str()));
    Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())))
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("context", &self.context)
            .field("endpoints", &self.endpoints)
            .field("nodes", &self.nodes)
            .field("cluster", &self.cluster)
            .field("identity", &self.identity)
            .field("tls", &self.tls)
            .field("authorization", &self.authorization.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::talosconfig::Talosconfig;

    const TWO: &str = "\
context: prod
contexts:
  prod:
    endpoints: [10.0.0.2, '10.0.0.3:50001', 10.0.0.2]
    nodes: [10.0.0.2]
  old:
    target: 10.1.0.2
    endpoints:
    some-field-of-tomorrow: {a: 1}
  empty: {}
";

    fn select(text: &str, selection: &Selection) -> Result<Access, ConfigError> {
        Talosconfig::parse(text)?.select(selection)
    }

    fn in_context(context: &str) -> Selection {
        Selection { context: Some(context.to_owned()), ..Selection::default() }
    }

    #[test]
    fn the_default_context_holds_and_flags_beat_it() {
        let access = select(TWO, &Selection::default()).unwrap();
        assert_eq!(access.context, "prod");
        assert_eq!(access.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.2:50000", "10.0.0.3:50001"]);
        assert_eq!(access.nodes[0].as_str(), "10.0.0.2");
        let flags = Selection { endpoints: vec!["10.0.0.9".into()], nodes: vec!["cp-1".into(), "cp-2".into()], ..Selection::default() };
        let access = select(TWO, &flags).unwrap();
        assert_eq!(access.endpoints[0].to_string(), "10.0.0.9:50000");
        assert_eq!(access.nodes.len(), 2);
        let old = select(TWO, &in_context("old")).unwrap();
        assert_eq!(old.endpoints[0].host(), "10.1.0.2");
        assert!(old.nodes.is_empty() && old.identity.is_none() && old.roles().as_slice().is_empty());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (text, selection, part) in [
            (TWO, in_context("gone"), "no context 'gone'; it has empty, old, prod"),
            (TWO, in_context("empty"), "no endpoints"),
            ("contexts: {a: {}}", Selection::default(), "selects no context; it has a"),
            ("", Selection::default(), "it has none"),
            ("context: [", Selection::default(), "not understood"),
            ("context: a\ncontexts: {a: {endpoints: [x], crt: '!!!'}}", Selection::default(), "crt: not base64"),
            ("context: a\ncontexts: {a: {endpoints: [x], crt: aGFsbG8=}}", Selection::default(), "crt: no CERTIFICATE"),
            ("context: a\ncontexts: {a: {endpoints: [x], auth: {siderov1: {identity: a@b}}}}", Selection::default(), "Omni"),
            ("context: a\ncontexts: {a: {endpoints: [x], proxy-url: 'socks5://p'}}", Selection::default(), "proxy-url"),
            ("context: a\ncontexts: {a: {endpoints: ['http://x']}}", Selection::default(), "https"),
            ("context: a\ncontexts: {a: {endpoints: [x], nodes: ['x:1']}}", Selection::default(), "without a port"),
        ] {
            let error = select(text, &selection).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn secrets_reach_no_message() {
        let broken = "context: a\ncontexts: {a: {endpoints: [x], key: c2VjcmV0LWtleQ==, crt: [}}";
        let error = select(broken, &Selection::default()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("c2VjcmV0"), "{error:?}");
        let fine = "context: a\ncontexts: {a: {endpoints: [x], key: c2VjcmV0LWtleQ==, auth: {basic: {username: u, password: hush}}}}";
        let access = select(fine, &Selection::default()).unwrap();
        assert_eq!(access.authorization.as_ref().unwrap().as_str(), format!("Basic {}", STANDARD.encode("u:hush")));
        let printed = format!("{access:?} {:?}", Talosconfig::parse(fine).unwrap());
        assert!(!printed.contains("c2VjcmV0") && !printed.contains("hush") && !printed.contains("secret"), "{printed}");
    }
}
