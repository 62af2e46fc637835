//! What the releases of Talos differ in, as far as clients of etcd notice.

use std::fmt;

/// A release of Talos.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Profile {
    /// 1.8: etcd's status, members and alarms are closed to `os:etcd:backup`, status and alarms to `os:reader`; no storage
    /// version; no downgrade calls.
    V1_8,
    /// 1.10 (from 1.10.1): open to both.
    V1_10,
    /// 1.13: storage version in the status (1.11), etcd's extra flags as lists.
    V1_13,
    /// 1.14: etcd's data directory stays when it leaves; etcd may have a partition of its own
    /// ([`Options::etcd_partition`](crate::Options::etcd_partition)).
    V1_14,
}

impl Profile {
    /// All of them, oldest first.
    pub const ALL: [Self; 4] = [Self::V1_8, Self::V1_10, Self::V1_13, Self::V1_14];

    /// The tag it tells.
    #[must_use]
    pub fn tag(self) -> &'static str {
        match self {
            Self::V1_8 => "v1.8.4",
            Self::V1_10 => "v1.10.9",
            Self::V1_13 => "v1.13.9",
            Self::V1_14 => "v1.14.0-rc.1",
        }
    }

    /// By its minor version, like `1.13`.
    #[must_use]
    pub fn from_minor(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.to_string() == text)
    }

    /// Whether `os:reader` and `os:etcd:backup` may look at etcd (1.9.6, 1.10.1, 1.11).
    pub(crate) fn wide_roles(self) -> bool {
        self >= Self::V1_10
    }

    /// Whether the status tells a storage version, and downgrades are offered (1.11).
    pub(crate) fn storage_version(self) -> bool {
        self >= Self::V1_13
    }

    /// Whether etcd's extra flags are lists (1.13).
    pub(crate) fn flag_lists(self) -> bool {
        self >= Self::V1_13
    }

    /// Whether a snapshot is restored onto a node with several advertised addresses (1.10.5, 1.11).
    pub(crate) fn restores_many_addresses(self) -> bool {
        self >= Self::V1_10
    }

    /// Whether leaving keeps the data directory itself (1.14).
    pub(crate) fn keeps_directory(self) -> bool {
        self >= Self::V1_14
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_8 => "1.8",
            Self::V1_10 => "1.10",
            Self::V1_13 => "1.13",
            Self::V1_14 => "1.14",
        })
    }
}
