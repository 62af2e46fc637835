//! A file with positional access, counted.

use std::fs::File as StdFile;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::crash::{Change, mutate};
use crate::dir::{Dir, Stat};
use crate::ops::split;
use crate::publish::temp_name;

/// An open regular file, read and written at offsets through `&self`.
///
/// Nothing written is durable before [`File::sync`], and the file's name is not durable before its directory is synced.
#[derive(Debug)]
pub struct File {
    inner: StdFile,
    path: PathBuf,
    // An unnamed file cannot outlive the process, so a crash at one of its writes is no different from a crash beside it:
    // its writes are not counted.
    named: bool,
}

impl File {
    pub(crate) fn from_parts(inner: StdFile, path: PathBuf, named: bool) -> Self {
        Self { inner, path, named }
    }

    /// Creates a file that must not exist (`O_EXCL | O_NOFOLLOW`), for reading and writing, with exactly the permission bits
    /// `mode` whatever the umask.
    ///
    /// # Errors
    /// `AlreadyExists` if anything has this name, a dangling symbolic link included.
    pub fn create_new(path: impl AsRef<Path>, mode: u32) -> io::Result<Self> {
        let (dir, name) = split(path.as_ref())?;
        dir.create_file(&name, mode)
    }

    /// Opens for reading; a symbolic link as the last component is followed.
    ///
    /// # Errors
    /// The system's; `IsADirectory` for a directory.
    pub fn open_read(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::open_path(path.as_ref(), OFlags::RDONLY)
    }

    /// Opens for reading; a symbolic link as the last component is refused (`ELOOP`).
    ///
    /// # Errors
    /// The system's; `IsADirectory` for a directory.
    pub fn open_read_nofollow(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::open_path(path.as_ref(), OFlags::RDONLY | OFlags::NOFOLLOW)
    }

    /// Opens an existing file for reading and writing, without truncating it; a symbolic link as the last component is refused.
    ///
    /// # Errors
    /// The system's; `IsADirectory` for a directory.
    pub fn open_read_write(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::open_path(path.as_ref(), OFlags::RDWR | OFlags::NOFOLLOW)
    }

    fn open_path(path: &Path, flags: OFlags) -> io::Result<Self> {
        // O_NONBLOCK: opening a FIFO that somebody put there must not hang; it means nothing for regular files.
        let fd = rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
        Self::regular(StdFile::from(fd), path.to_path_buf())
    }

    pub(crate) fn regular(inner: StdFile, path: PathBuf) -> io::Result<Self> {
        let kind = inner.metadata()?;
        if kind.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        if !kind.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Self::from_parts(inner, path, true))
    }

    /// Creates a file without a name in `dir`, which disappears with the process (`O_TMPFILE`; where the filesystem has none, a
    /// file created and removed at once).
    ///
    /// # Errors
    /// The system's.
    pub fn unnamed(dir: impl AsRef<Path>, mode: u32) -> io::Result<Self> {
        let dir = Dir::open(dir)?;
        let path = dir.path().join("(unnamed)");
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        match rustix::fs::openat(dir.fd(), ".", flags, Mode::from_raw_mode(mode)) {
            Ok(fd) => {
                rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?;
                Ok(Self::from_parts(StdFile::from(fd), path, false))
            }
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {
                let name = temp_name();
                let file = dir.create_file(&name, mode)?;
                dir.remove_file(&name)?;
                Ok(Self::from_parts(file.inner, path, false))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The path it was opened by, for messages; ends in `(unnamed)` for an unnamed file. Not updated by renames.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The length in bytes.
    ///
    /// # Errors
    /// The system's.
    pub fn len(&self) -> io::Result<u64> {
        Ok(self.inner.metadata()?.len())
    }

    /// Whether the length is 0.
    ///
    /// # Errors
    /// The system's.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads at most `buf.len()` bytes at `offset`; fewer only at the end of the file (0 there or beyond).
    ///
    /// # Errors
    /// The system's.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.inner.read_at(&mut buf[filled..], offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before; then the content of `buf` is unspecified.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_exact_at(buf, offset)
    }

    /// Writes all of `bytes` at `offset`, beyond the end too (the gap reads as zeros). One counted call.
    ///
    /// # Errors
    /// The system's; a part of the bytes may have been written.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let run = || self.inner.write_all_at(bytes, offset);
        if !self.named {
            return run();
        }
        mutate(Change::Write { file: &self.inner, path: &self.path, offset, len: bytes.len() as u64 }, run)
    }

    /// Cuts or extends (with zeros) to `len` bytes.
    ///
    /// # Errors
    /// The system's.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        let run = || self.inner.set_len(len);
        if !self.named {
            return run();
        }
        mutate(Change::SetLen { file: &self.inner, path: &self.path, len }, run)
    }

    /// Reserves room for the first `len` bytes, without changing the length, so that later writes there do not meet a full disk
    /// and lie together. Where the filesystem cannot do that it does nothing and succeeds.
    ///
    /// # Errors
    /// `StorageFull` if there is not that much room; the system's otherwise.
    pub fn allocate(&self, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        loop {
            return match rustix::fs::fallocate(&self.inner, FallocateFlags::KEEP_SIZE, 0, len) {
                Err(Errno::INTR) => continue,
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
                Err(error) => Err(error.into()),
            };
        }
    }

    /// Makes the content, length, mode and owner durable (`fsync`). Says nothing about the name: sync the directory for that.
    ///
    /// # Errors
    /// The system's. After an error nothing is known of what was written since the last success, and a second call that succeeds
    /// proves nothing (Linux reports a lost page once): write again to a new file.
    pub fn sync(&self) -> io::Result<()> {
        let run = || self.inner.sync_all();
        if !self.named {
            return run();
        }
        mutate(Change::SyncFile { file: &self.inner, path: &self.path }, run)
    }

    /// Like [`File::sync`] for content and length only (`fdatasync`).
    ///
    /// # Errors
    /// As [`File::sync`].
    pub fn sync_data(&self) -> io::Result<()> {
        let run = || self.inner.sync_data();
        if !self.named {
            return run();
        }
        mutate(Change::SyncFile { file: &self.inner, path: &self.path }, run)
    }

    /// Asks the system to begin writing this range out without waiting, so that dirty pages do not pile up into one long flush
    /// that stalls others on the device. A hint: makes nothing durable, and errors are ignored.
    ///
    /// `POSIX_FADV_DONTNEED` is what Linux offers for this to safe code: it starts the write-out of dirty pages in the range and
    /// drops the clean ones (mm/fadvise.c `generic_fadvise`). Call it again for a range to free its memory after the write-out.
    pub fn sync_range(&self, offset: u64, len: u64) {
        if let Some(len) = NonZeroU64::new(len) {
            let _ = rustix::fs::fadvise(&self.inner, offset, Some(len), Advice::DontNeed);
        }
    }

    /// Tells the system that the file will be read from front to back. A hint.
    pub fn advise_sequential(&self) {
        let _ = rustix::fs::fadvise(&self.inner, 0, None, Advice::Sequential);
    }

    /// Takes an exclusive lock (`flock`, what bbolt takes on an etcd database) if nobody has one: `false` if somebody has. Held
    /// until the file is closed; not inherited by path.
    ///
    /// # Errors
    /// The system's (`ENOLCK`, filesystems without locks).
    pub fn try_lock_exclusive(&self) -> io::Result<bool> {
        self.try_lock(FlockOperation::NonBlockingLockExclusive)
    }

    /// Takes a shared lock if nobody has an exclusive one: `false` if somebody has.
    ///
    /// # Errors
    /// As [`File::try_lock_exclusive`].
    pub fn try_lock_shared(&self) -> io::Result<bool> {
        self.try_lock(FlockOperation::NonBlockingLockShared)
    }

    fn try_lock(&self, operation: FlockOperation) -> io::Result<bool> {
        match rustix::fs::flock(&self.inner, operation) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Kind, length, time of change and inode.
    ///
    /// # Errors
    /// The system's.
    pub fn stat(&self) -> io::Result<Stat> {
        Ok(Stat::new(&rustix::fs::fstat(&self.inner)?))
    }

    /// The permission bits, owner and group.
    ///
    /// # Errors
    /// The system's.
    pub fn ownership(&self) -> io::Result<(u32, u32, u32)> {
        let stat = rustix::fs::fstat(&self.inner)?;
        Ok((stat.st_mode & 0o7777, stat.st_uid, stat.st_gid))
    }
}
