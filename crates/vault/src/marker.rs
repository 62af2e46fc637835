//! `lifeboat.json`: says that this place is a repository, and which.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::canonical::{DecodeError, Object};
use crate::limits;
use crate::name::RepositoryId;

/// The format version this release reads and writes.
pub const FORMAT: u32 = 1;

/// The marker. Written once by `init`, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The version of the whole layout. A reader refuses a higher one.
    pub format: u32,
    /// The repository's id, the same on every store that holds a copy.
    pub repository: RepositoryId,
    /// When it was made.
    pub created: Timestamp,
}

impl Object for Marker {
    const SCHEMA: &'static str = "lifeboat.repository/1";
    const LIMIT: usize = limits::SMALL_JSON_BYTES;
}

impl Marker {
    /// Reads a marker; a format this release does not know is an error.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let marker: Self = crate::canonical::decode(bytes)?;
        if marker.format != FORMAT {
            let detail = format!("the repository has format {}, this release knows format {FORMAT}", marker.format);
            return Err(DecodeError::Invalid { detail });
        }
        Ok(marker)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn marker(format: u32) -> Vec<u8> {
        let repository = "01D39ZY06FGSCTVN4T2V9PKHFZ".parse().unwrap();
        let created = "2026-11-21T02:00:04Z".parse().unwrap();
        crate::canonical::encode(&Marker { format, repository, created }).unwrap()
    }

    #[test]
    fn a_later_format_is_refused() {
        assert!(Marker::decode(&marker(1)).is_ok());
        assert!(Marker::decode(&marker(2)).is_err());
    }

    #[test]
    fn every_flipped_byte_is_found() {
        let bytes = marker(1);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert!(Marker::decode(&damaged).is_err(), "byte {at}");
        }
    }
}
