//! A database in a file, between the counted file layer and the bbolt format.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bbolt::{ReadAt, WriteAt};

/// A file that a [`bbolt::Database`] is read from, or edited in. All its writes and syncs go through [`disk::File`].
///
/// Locking is the caller's: a running etcd holds an exclusive lock on its database.
#[derive(Debug)]
pub struct DatabaseFile {
    file: disk::File,
    // ReadAt's size cannot fail, the system's answer can: it is asked for once and followed from there.
    size: AtomicU64,
}

impl DatabaseFile {
    /// Takes over an open file.
    ///
    /// # Errors
    ///
    /// When its length cannot be told.
    pub fn new(file: disk::File) -> io::Result<Self> {
        let size = AtomicU64::new(file.len()?);
        Ok(Self { file, size })
    }

    /// Opens a file for reading; the last component may be a symbolic link.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::new(disk::File::open_read(path)?)
    }

    /// Opens a file for an edit; a symbolic link is refused.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn open_for_edit(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::new(disk::File::open_read_write(path)?)
    }

    /// The file beneath.
    #[must_use]
    pub fn file(&self) -> &disk::File {
        &self.file
    }

    /// Gives the file back.
    #[must_use]
    pub fn into_file(self) -> disk::File {
        self.file
    }
}

impl ReadAt for DatabaseFile {
    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

impl WriteAt for DatabaseFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        self.file.write_all_at(bytes, offset)?;
        self.size.fetch_max(end, Ordering::AcqRel);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn size_follows_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let file = DatabaseFile::new(disk::File::create_new(&path, 0o600).unwrap()).unwrap();
        assert_eq!(file.size(), 0);
        file.write_all_at(b"abc", 10).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        file.sync().unwrap();
        assert_eq!(file.size(), 13);
        let again = DatabaseFile::open(&path).unwrap();
        let mut bytes = [0; 3];
        again.read_exact_at(&mut bytes, 10).unwrap();
        assert_eq!((again.size(), &bytes), (13, b"abc"));
        assert!(again.read_exact_at(&mut bytes, 11).is_err());
        assert_eq!(DatabaseFile::open_for_edit(&path).unwrap().into_file().len().unwrap(), 13);
    }
}
