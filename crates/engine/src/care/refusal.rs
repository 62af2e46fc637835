//! A call about a cluster's members that came to nothing, whichever API it went over.

use std::fmt;

use etcd_api::ErrorKind;

use crate::failure::Failure;
use crate::{source_failure, talos};

/// Why a call came to nothing.
#[derive(Debug)]
pub enum Refusal {
    /// etcd's word.
    Etcd(etcd_api::Error),
    /// Talos's word, or etcd's passed on by Talos.
    Talos(Box<talos_api::Error>),
    /// The way to the cluster has no such call.
    NotOffered(Box<Failure>),
}

impl Refusal {
    /// A call that Talos does not pass on.
    #[must_use]
    pub fn not_offered(what: &str) -> Self {
        Self::NotOffered(Box::new(talos::direct::not_offered(what)))
    }

    /// Whether asking again cannot help.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Etcd(error) => is_final(error.kind()),
            Self::Talos(error) => match error.kind() {
                talos_api::ErrorKind::Etcd(kind) => is_final(kind),
                talos_api::ErrorKind::Denied { .. }
                | talos_api::ErrorKind::Unauthenticated(_)
                | talos_api::ErrorKind::Unimplemented(_)
                | talos_api::ErrorKind::NotControlPlane(_)
                | talos_api::ErrorKind::Invalid(_)
                | talos_api::ErrorKind::NotFound(_) => true,
                talos_api::ErrorKind::Rpc { message, .. } => !message.contains("unhealthy cluster"),
                _ => false,
            },
            Self::NotOffered(_) => true,
        }
    }

    /// Whether no answer came in time: what was asked for may still happen.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::Etcd(error) => matches!(error.kind(), ErrorKind::Timeout(_)),
            Self::Talos(error) => matches!(error.kind(), talos_api::ErrorKind::Timeout(_)),
            Self::NotOffered(_) => false,
        }
    }

    /// As a failure. `what` did not happen is the caller's to say.
    #[must_use]
    pub fn failure(&self, what: &str) -> Failure {
        match self {
            Self::Etcd(error) => source_failure::failure(what, error),
            Self::Talos(error) => talos::failure::failure(what, error),
            Self::NotOffered(failure) => failure.as_ref().clone(),
        }
    }
}

fn is_final(kind: &ErrorKind) -> bool {
    match kind {
        ErrorKind::MemberNotFound
        | ErrorKind::TooManyLearners
        | ErrorKind::PermissionDenied(_)
        | ErrorKind::Unauthenticated(_)
        | ErrorKind::AuthenticationFailed
        | ErrorKind::Unimplemented(_)
        | ErrorKind::Corrupt => true,
        // "unhealthy cluster" is what etcd says for the first seconds after a member connected (server/etcdserver, HealthInterval).
        ErrorKind::Rpc { message, .. } => !message.contains("unhealthy cluster"),
        _ => false,
    }
}

impl From<etcd_api::Error> for Refusal {
    fn from(error: etcd_api::Error) -> Self {
        Self::Etcd(error)
    }
}

impl From<talos_api::Error> for Refusal {
    fn from(error: talos_api::Error) -> Self {
        Self::Talos(Box::new(error))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Etcd(error) => error.fmt(f),
            Self::Talos(error) => error.fmt(f),
            Self::NotOffered(failure) => f.write_str(&failure.what),
        }
    }
}
