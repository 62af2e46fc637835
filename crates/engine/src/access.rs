//! How a cluster is reached: over etcd's own client API, or over the API of the Talos nodes it runs on.

use std::borrow::Cow;

use crate::failure::Outcome;
use crate::source::SourceOptions;
use crate::talos::{self, TalosOptions};

/// The way to a cluster.
#[derive(Clone, Debug)]
pub enum Access {
    /// etcd's client API.
    Etcd(SourceOptions),
    /// The API of Talos nodes.
    Talos(TalosOptions),
}

impl Default for Access {
    fn default() -> Self {
        Self::Etcd(SourceOptions::default())
    }
}

impl Access {
    /// How etcd's client API is reached, where this way has one: itself, or for Talos with `direct` the client certificate that is made for it (once;
    /// later calls answer from memory).
    ///
    /// # Errors
    /// What making the certificate fails with.
    pub async fn etcd(&self) -> Outcome<Option<Cow<'_, SourceOptions>>> {
        match self {
            Self::Etcd(options) => Ok(Some(Cow::Borrowed(options))),
            Self::Talos(options) if options.direct => talos::direct::options(options).await.map(|options| Some(Cow::Owned(options))),
            Self::Talos(_) => Ok(None),
        }
    }

    /// The Talos side, where there is one.
    #[must_use]
    pub fn talos(&self) -> Option<&TalosOptions> {
        match self {
            Self::Etcd(_) => None,
            Self::Talos(options) => Some(options),
        }
    }

    /// The member that is meant where a verb is about one and none is named: the only endpoint, or the only node.
    #[must_use]
    pub fn only_member(&self) -> Option<&str> {
        let list = match self {
            Self::Etcd(options) => &options.endpoints,
            Self::Talos(options) => &options.nodes,
        };
        if let [only] = &list[..] { Some(only) } else { None }
    }

    /// The same way with Talos's own API alone.
    #[must_use]
    pub fn without_direct(&self) -> Self {
        match self {
            Self::Talos(options) => Self::Talos(TalosOptions { direct: false, ..options.clone() }),
            etcd @ Self::Etcd(_) => etcd.clone(),
        }
    }
}
