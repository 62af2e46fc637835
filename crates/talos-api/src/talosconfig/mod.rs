//! The talosconfig: where it is, what it says, and who its certificate makes us.
//!
//! It is read anew for every run: the one that Talos mounts for a Kubernetes service account is replaced while a program
//! runs, and its certificate lives six hours.
//!
//! Source: Talos `pkg/machinery/client/config/{config,path}.go`, `pkg/machinery/client/connection.go`.

mod access;
mod certificate;
mod place;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use self::access::{Access, Selection};
pub use self::certificate::{Identity, Remaining, certificate_identity};
pub use self::place::{Origin, Place, locate};
use crate::limits::TALOSCONFIG_MAX;
use crate::node::AddressError;

/// Why a talosconfig is of no use. None of them shows key bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// There is none anywhere.
    #[error("there is no talosconfig; looked for {}", listed(.0))]
    Nowhere(Vec<PathBuf>),
    /// It cannot be read.
    #[error("{}: {fact}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        fact: String,
    },
    /// It is no YAML, or not of a talosconfig's shape.
    #[error("not a talosconfig: {0}")]
    Shape(String),
    /// It says no context, and none was asked for.
    #[error("the talosconfig selects no context; it has {}", names(.0))]
    NoContext(Vec<String>),
    /// It has no context of that name.
    #[error("the talosconfig has no context '{name}'; it has {}", names(.known))]
    UnknownContext {
        /// The name.
        name: String,
        /// The names it has.
        known: Vec<String>,
    },
    /// The context names no endpoint, and none was given.
    #[error("context '{0}' has no endpoints")]
    NoEndpoints(String),
    /// An endpoint or a node that is none.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// More endpoints or nodes than a cluster has.
    #[error("{0} addresses are more than a cluster has")]
    TooMany(usize),
    /// Certificate, key or CA cannot be used.
    #[error("context '{context}', {field}: {fact}")]
    Material {
        /// The context.
        context: String,
        /// `ca`, `crt` or `key`.
        field: &'static str,
        /// What is wrong with it.
        fact: String,
    },
    /// The context signs its requests with a personal key, as Omni wants it.
    #[error("context '{0}' authenticates by SideroV1 (Omni), which Lifeboat does not speak")]
    SideroV1(String),
    /// The context goes through a proxy.
    #[error("context '{0}' has a proxy-url, which Lifeboat does not speak")]
    Proxy(String),
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn names(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// A talosconfig as it stands in its file. Fields that are not known are passed over: newer ones are added.
#[derive(Clone, Default, Deserialize)]
pub struct Talosconfig {
    #[serde(default)]
    context: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Context>,
}

/// One context, as written.
#[derive(Clone, Default, Deserialize)]
struct Context {
    /// The single endpoint of configs older than Talos 0.3.
    #[serde(default)]
    target: Option<String>,
    #[serde(default)]
    endpoints: Option<Vec<String>>,
    #[serde(default)]
    nodes: Option<Vec<String>>,
    #[serde(default)]
    ca: Option<String>,
    #[serde(default)]
    crt: Option<String>,
    #[serde(default)]
    key: Option<zeroize::Zeroizing<String>>,
    #[serde(default)]
    auth: Option<Auth>,
    #[serde(default)]
    cluster: Option<String>,
    #[serde(default, rename = "proxy-url")]
    proxy_url: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
struct Auth {
    #[serde(default)]
    basic: Option<Basic>,
    #[serde(default)]
    siderov1: Option<SideroV1>,
}

#[derive(Clone, Deserialize)]
struct Basic {
    username: String,
    password: zeroize::Zeroizing<String>,
}

#[derive(Clone, Deserialize)]
struct SideroV1 {}

impl Talosconfig {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`], also above [`TALOSCONFIG_MAX`], and as [`Self::parse`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let failed = |fact: String| ConfigError::Unreadable { path: path.to_owned(), fact };
        let mut bytes = zeroize::Zeroizing::new(Vec::new());
        let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
        file.take(TALOSCONFIG_MAX + 1).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
        if bytes.len() as u64 > TALOSCONFIG_MAX {
            return Err(failed(format!("over {TALOSCONFIG_MAX} bytes, which is no talosconfig")));
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| failed("not text".to_owned()))?;
        Self::parse(text)
    }

    /// Reads the text of one. An empty text is one without contexts, as talosctl leaves behind.
    ///
    /// # Errors
    /// [`ConfigError::Shape`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        // Only the place: the reader's own text quotes the lines around it, which hold keys.
        serde_saphyr::from_str(text).map_err(|error| ConfigError::Shape(place_only(&error)))
    }

    /// The names of its contexts, in order.
    #[must_use]
    pub fn contexts(&self) -> Vec<String> {
        self.contexts.keys().cloned().collect()
    }

    /// The context that holds where none is asked for.
    #[must_use]
    pub fn default_context(&self) -> Option<&str> {
        self.context.as_deref().filter(|name| !name.is_empty())
    }

    /// Takes one context apart: addresses, certificates, roles. Flags in `selection` beat what the context says.
    ///
    /// # Errors
    /// Every [`ConfigError`] but those of reading.
    pub fn select(&self, selection: &Selection) -> Result<Access, ConfigError> {
        let name = match (&selection.context, self.default_context()) {
            (Some(name), _) => name.as_str(),
            (None, Some(name)) => name,
            (None, None) => return Err(ConfigError::NoContext(self.contexts())),
        };
        let context =
            self.contexts.get(name).ok_or_else(|| ConfigError::UnknownContext { name: grpc_link::tame(name), known: self.contexts() })?;
        Access::new(name, context, selection)
    }
}

fn place_only(error: &serde_saphyr::Error) -> String {
    match error.location() {
        Some(at) => format!("not understood at line {}, column {}", at.line(), at.column()),
        None => "not understood".to_owned(),
    }
}

impl fmt::Debug for Talosconfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Talosconfig").field("context", &self.context).field("contexts", &self.contexts()).finish_non_exhaustive()
    }
}
