//! Roles: what a client certificate allows its holder.
//!
//! Source: Talos `internal/app/machined/pkg/system/services/machined.go` (which call wants which role) and
//! `pkg/machinery/role/role.go` (their names). The roles are the Organization entries of the certificate's subject.

use std::fmt;

/// One role.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `os:etcd:backup`: snapshots, and since Talos 1.9.6, 1.10.1 and 1.11 etcd's status, members and alarms.
    EtcdBackup,
    /// `os:reader`: everything that reads and is no secret.
    Reader,
    /// `os:operator`: reader, and what an operator does daily: snapshots, defragmentation, disarming, rebooting.
    Operator,
    /// `os:admin`: everything.
    Admin,
    /// Any other, by its name.
    Other(String),
}

impl Role {
    /// From the text in a certificate.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        match name {
            "os:etcd:backup" => Self::EtcdBackup,
            "os:reader" => Self::Reader,
            "os:operator" => Self::Operator,
            "os:admin" => Self::Admin,
            other => Self::Other(grpc_link::tame(other)),
        }
    }

    /// As Talos writes it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::EtcdBackup => "os:etcd:backup",
            Self::Reader => "os:reader",
            Self::Operator => "os:operator",
            Self::Admin => "os:admin",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The roles of one certificate, or those that a call wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles(Vec<Role>);

impl Roles {
    /// From a list; the least first, each once.
    #[must_use]
    pub fn new(mut roles: Vec<Role>) -> Self {
        roles.sort();
        roles.dedup();
        Self(roles)
    }

    /// Every role, the least first.
    #[must_use]
    pub fn as_slice(&self) -> &[Role] {
        &self.0
    }

    /// Whether this role is among them.
    #[must_use]
    pub fn has(&self, role: &Role) -> bool {
        self.0.contains(role)
    }

    /// Whether one of `wanted` is among them.
    #[must_use]
    pub fn suffice(&self, wanted: &[Role]) -> bool {
        wanted.iter().any(|role| self.has(role))
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no role");
        }
        for (index, role) in self.0.iter().enumerate() {
            write!(f, "{}{role}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
