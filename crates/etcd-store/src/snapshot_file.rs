//! The snapshot file as etcd's client saves it: the database, then 32 bytes of SHA-256 over it.
//!
//! Source of the format: etcd `etcdutl/snapshot/v3_snapshot.go`. A file copied out of a data directory has no trailer. The digest
//! itself is computed by callers, who read the bytes anyway.

use std::io;

use bbolt::ReadAt;

/// Length of the SHA-256 trailer.
pub const TRAILER_LENGTH: u64 = 32;
/// A database's length is a multiple of this, whatever its page size.
const SECTOR: u64 = 512;

/// How a file divides into database and trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotLayout {
    /// Bytes of the database, from the start of the file.
    pub database_len: u64,
    /// The SHA-256 that the server computed over the database; none in a file copied from a data directory.
    pub trailer: Option<[u8; 32]>,
}

/// True when a file of `size` bytes ends in a trailer, by etcd's own rule (`size % 512 == 32`).
#[must_use]
pub fn has_trailer(size: u64) -> bool {
    size % SECTOR == TRAILER_LENGTH
}

impl SnapshotLayout {
    /// Reads the layout of a whole file.
    ///
    /// # Errors
    ///
    /// What reading the trailer fails with. Whether the rest is a database is not looked at.
    pub fn read(file: &impl ReadAt) -> io::Result<Self> {
        let size = file.size();
        if !has_trailer(size) {
            return Ok(Self { database_len: size, trailer: None });
        }
        let database_len = size - TRAILER_LENGTH;
        let mut trailer = [0; 32];
        file.read_exact_at(&mut trailer, database_len)?;
        Ok(Self { database_len, trailer: Some(trailer) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_rule_is_etcds() {
        assert!(has_trailer(20480 + 32));
        assert!(has_trailer(32));
        assert!(!has_trailer(20480));
        assert!(!has_trailer(20480 + 64));
        assert!(!has_trailer(0));
    }

    #[test]
    fn a_trailer_is_read_and_its_absence_said() {
        let mut file = vec![1_u8; 1024];
        assert_eq!(SnapshotLayout::read(&file).unwrap(), SnapshotLayout { database_len: 1024, trailer: None });
        file.extend([9; 32]);
        assert_eq!(SnapshotLayout::read(&file).unwrap(), SnapshotLayout { database_len: 1024, trailer: Some([9; 32]) });
    }
}
