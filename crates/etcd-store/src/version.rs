//! etcd's versions, and which data fit which server.

use std::fmt;
use std::str::FromStr;

/// A version as etcd writes it, like `3.6.0`; a suffix (`-rc.1`, `+git`) is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// 3 for every etcd with this file format.
    pub major: u32,
    /// The minor version, which decides the storage schema.
    pub minor: u32,
    /// The patch version; 0 in storage versions.
    pub patch: u32,
}

impl Version {
    /// The version `3.minor.0`.
    #[must_use]
    pub const fn minor(minor: u32) -> Self {
        Self { major: 3, minor, patch: 0 }
    }
}

/// Text is not a version like 3.6.0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a version like 3.6.0")]
pub struct NotAVersion(pub String);

impl FromStr for Version {
    type Err = NotAVersion;

    /// Parses `3.6`, `3.6.0`, `v3.6.0-rc.1+git`.
    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let fail = || NotAVersion(text.chars().take(64).collect());
        let plain = text.strip_prefix('v').unwrap_or(text);
        let plain = plain.split(['-', '+']).next().unwrap_or_default();
        let mut parts = plain.split('.').map(|part| {
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| part.parse::<u32>().ok()).flatten()
        });
        let mut next = || parts.next().map(|part| part.ok_or_else(fail)).transpose();
        let (major, minor, patch) = (next()?, next()?, next()?);
        match (major, minor, next()?) {
            (Some(major), Some(minor), None) => Ok(Self { major, minor, patch: patch.unwrap_or(0) }),
            _ => Err(fail()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The oldest minor whose data directories this crate writes.
pub const OLDEST_MINOR: u32 = 4;
/// The newest minor whose data this crate was proven with.
pub const NEWEST_MINOR: u32 = 7;

/// Whether data restores to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// As it is.
    Ok,
    /// After the versions in the data (`storageVersion`, `clusterVersion`, `downgrade`) are dropped: the server is older than the
    /// data and would refuse to start (3.6 does), or a later upgrade would be misled (3.4, 3.5).
    DropVersions,
    /// Not at all, as far as is known.
    Refuse(Misfit),
}

/// Why data do not restore to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// The server is older than 3.4, or not an etcd 3.
    #[error("restoring for etcd {0} is not supported; 3.4 is the oldest")]
    TargetTooOld(Version),
    /// The data come from a version nobody has proven to go back from.
    #[error("the data are of etcd {data}, newer than any known to restore to {target}; restore to {data} or newer")]
    UnknownNewer {
        /// The version of the data.
        data: Version,
        /// The version of the server.
        target: Version,
    },
    /// The data are not of an etcd 3.
    #[error("the data are of etcd {0}, which is not supported")]
    UnknownData(Version),
}

/// Whether data of version `data` (none when the file does not tell: 3.4 or older, or 3.5 whose guess is passed) restore to a
/// server of version `target`.
///
/// The matrix was measured with 3.4.23, 3.5.30, 3.6.14 and 3.7.1, every pair. `data` should be the higher one of storage version
/// and cluster version.
#[must_use]
pub fn version_fit(data: Option<Version>, target: Version) -> Fit {
    if target.major != 3 || target.minor < OLDEST_MINOR {
        return Fit::Refuse(Misfit::TargetTooOld(target));
    }
    let Some(data) = data else {
        return Fit::Ok;
    };
    if data.major != 3 {
        return Fit::Refuse(Misfit::UnknownData(data));
    }
    if data.minor <= target.minor {
        return Fit::Ok;
    }
    if data.minor > NEWEST_MINOR {
        return Fit::Refuse(Misfit::UnknownNewer { data, target });
    }
    Fit::DropVersions
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn versions_are_parsed_and_printed() {
        for (text, expected) in [("3.6.0", "3.6.0"), ("3.5", "3.5.0"), ("v3.7.1-rc.1+git", "3.7.1"), ("10.20.30", "10.20.30")] {
            assert_eq!(text.parse::<Version>().unwrap().to_string(), expected);
        }
        for text in ["", "3", "3.", "3.6.0.1", "a.b", "3.-6", "3.6.x", "3.99999999999", "+3.6"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_measured_matrix_is_met() {
        let fit = |data: u32, target: u32| version_fit(Some(Version::minor(data)), Version { patch: 9, ..Version::minor(target) });
        for data in OLDEST_MINOR..=NEWEST_MINOR {
            for target in OLDEST_MINOR..=NEWEST_MINOR {
                let expected = if data <= target { Fit::Ok } else { Fit::DropVersions };
                assert_eq!(fit(data, target), expected, "{data} to {target}");
            }
        }
        assert_eq!(version_fit(None, Version::minor(6)), Fit::Ok);
        assert_eq!(fit(8, 8), Fit::Ok);
        assert!(matches!(fit(8, 7), Fit::Refuse(Misfit::UnknownNewer { .. })));
        assert!(matches!(fit(6, 3), Fit::Refuse(Misfit::TargetTooOld(_))));
        assert!(matches!(version_fit(Some(Version { major: 4, minor: 0, patch: 0 }), Version::minor(6)), Fit::Refuse(_)));
    }
}
