//! Directory handles: every operation names one component below an open directory, so that no symbolic link and no renamed
//! parent can lead it elsewhere.

use std::ffi::{OsStr, OsString};
use std::fs::File as StdFile;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::crash::{Change, mutate};
use crate::file::File;
use crate::ops::ExchangeError;

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link, device, FIFO or socket.
    Other,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name, one component.
    pub name: OsString,
    /// What it is; links are not followed.
    pub kind: Kind,
}

/// What is known of an entry without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// What it is; links are not followed.
    pub kind: Kind,
    /// Length in bytes; meaningful for files.
    pub size: u64,
    /// The time of the last change of content, in nanoseconds since 1970, by the clock of whoever holds the filesystem.
    pub modified_ns: i128,
    /// The inode number: a file that replaced another has a different one.
    pub inode: u64,
}

impl Stat {
    pub(crate) fn new(stat: &rustix::fs::Stat) -> Self {
        Self {
            kind: kind_of(FileType::from_raw_mode(stat.st_mode)),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified_ns: i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec),
            inode: stat.st_ino,
        }
    }
}

/// An open directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Dir {
    fd: Arc<OwnedFd>,
    path: PathBuf,
}

const OPEN_DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Refuses anything but one plain component: with `*at` calls a slash or `..` would escape the directory.
fn component(name: &OsStr) -> io::Result<&OsStr> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') || bytes.contains(&0) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file name"));
    }
    Ok(name)
}

impl Dir {
    /// Opens a directory by path; links are followed, since the path is the user's own.
    ///
    /// # Errors
    /// The system's; `NotADirectory`.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let fd = rustix::fs::open(path, OPEN_DIR, Mode::empty())?;
        Ok(Self { fd: Arc::new(fd), path: path.to_path_buf() })
    }

    /// The path it was opened by, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Opens a directory directly below; a symbolic link is refused (`NotADirectory` or `ELOOP`).
    ///
    /// # Errors
    /// The system's.
    pub fn open_dir(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let name = component(name.as_ref())?;
        let fd = rustix::fs::openat(&self.fd, name, OPEN_DIR | OFlags::NOFOLLOW, Mode::empty())?;
        Ok(Self { fd: Arc::new(fd), path: self.path.join(name) })
    }

    /// Opens a regular file directly below for reading; a symbolic link or anything else that is not a file is refused.
    ///
    /// # Errors
    /// The system's; `IsADirectory`; `InvalidInput` for a device, FIFO or socket.
    pub fn open_file(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        let name = component(name.as_ref())?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty())?;
        File::regular(StdFile::from(fd), self.path.join(name))
    }

    /// As [`File::create_new`], directly below.
    ///
    /// # Errors
    /// `AlreadyExists`; the system's.
    pub fn create_file(&self, name: impl AsRef<OsStr>, mode: u32) -> io::Result<File> {
        let name = component(name.as_ref())?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = mutate(Change::Create { dir: self, name }, || Ok(rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(mode))?))?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?;
        Ok(File::from_parts(StdFile::from(fd), self.path.join(name), true))
    }

    /// Creates a directory directly below with exactly these permission bits. Not durable before [`Dir::sync`] of `self`.
    ///
    /// # Errors
    /// `AlreadyExists`; the system's.
    pub fn create_dir(&self, name: impl AsRef<OsStr>, mode: u32) -> io::Result<()> {
        let name = component(name.as_ref())?;
        mutate(Change::Create { dir: self, name }, || Ok(rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode))?))?;
        let fd = rustix::fs::openat(&self.fd, name, OPEN_DIR | OFlags::NOFOLLOW, Mode::empty())?;
        Ok(rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?)
    }

    /// Gives the file `from` the further name `to_name` in `to`, which must not exist. Not durable before `to` is synced.
    ///
    /// # Errors
    /// `AlreadyExists`; `EPERM` or `EOPNOTSUPP` where the filesystem has no hard links; `CrossesDevices`.
    pub fn hard_link(&self, from: impl AsRef<OsStr>, to: &Dir, to_name: impl AsRef<OsStr>) -> io::Result<()> {
        let (from, to_name) = (component(from.as_ref())?, component(to_name.as_ref())?);
        mutate(Change::Create { dir: to, name: to_name }, || Ok(rustix::fs::linkat(&self.fd, from, &to.fd, to_name, AtFlags::empty())?))
    }

    /// Removes a file or link directly below.
    ///
    /// # Errors
    /// `NotFound`; `IsADirectory`; the system's.
    pub fn remove_file(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        let name = component(name.as_ref())?;
        mutate(Change::Remove { dir: self, name }, || Ok(rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())?))
    }

    /// Removes an empty directory directly below.
    ///
    /// # Errors
    /// `NotFound`; `DirectoryNotEmpty`; the system's.
    pub fn remove_dir(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        let name = component(name.as_ref())?;
        mutate(Change::Remove { dir: self, name }, || Ok(rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)?))
    }

    /// Renames, replacing a file (or an empty directory by a directory) at the target. Not durable before both directories are synced.
    ///
    /// # Errors
    /// The system's.
    pub fn rename(&self, from: impl AsRef<OsStr>, to: &Dir, to_name: impl AsRef<OsStr>) -> io::Result<()> {
        let (from, to_name) = (component(from.as_ref())?, component(to_name.as_ref())?);
        mutate(Change::Rename { from: (self, from), to: (to, to_name) }, || Ok(rustix::fs::renameat(&self.fd, from, &to.fd, to_name)?))
    }

    /// Renames to a name that must not exist (`renameat2` `NOREPLACE`; where the filesystem lacks it, a hard link and a removal,
    /// which is as safe for files and not possible for directories).
    ///
    /// # Errors
    /// `AlreadyExists`; `Unsupported` where neither works; the system's.
    pub fn rename_no_replace(&self, from: impl AsRef<OsStr>, to: &Dir, to_name: impl AsRef<OsStr>) -> io::Result<()> {
        let (from, to_name) = (component(from.as_ref())?, component(to_name.as_ref())?);
        let renamed = mutate(Change::Rename { from: (self, from), to: (to, to_name) }, || {
            Ok(rustix::fs::renameat_with(&self.fd, from, &to.fd, to_name, RenameFlags::NOREPLACE)?)
        });
        match renamed {
            Err(error) if is_unsupported(&error) => {}
            other => return other,
        }
        if self.kind(from)? == Kind::Dir {
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        }
        match self.hard_link(from, to, to_name) {
            Err(error) if is_unsupported(&error) || error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => {
                Err(io::Error::from(io::ErrorKind::Unsupported))
            }
            Err(error) => Err(error),
            Ok(()) => self.remove_file(from),
        }
    }

    /// Exchanges two existing names in one step. Not durable before both directories are synced.
    ///
    /// # Errors
    /// [`ExchangeError::Unsupported`] where the filesystem or kernel cannot; nothing was changed then.
    pub fn exchange(&self, a: impl AsRef<OsStr>, other: &Dir, b: impl AsRef<OsStr>) -> Result<(), ExchangeError> {
        let (a, b) = (component(a.as_ref())?, component(b.as_ref())?);
        mutate(Change::Exchange { a: (self, a), b: (other, b) }, || {
            Ok(rustix::fs::renameat_with(&self.fd, a, &other.fd, b, RenameFlags::EXCHANGE)?)
        })
        .map_err(|error| if is_unsupported(&error) { ExchangeError::Unsupported } else { ExchangeError::Io(error) })
    }

    /// Makes the names in this directory durable (`fsync`): files and directories created, linked, renamed and removed directly in
    /// it. Not the content of the files, not the names in directories below, and not this directory's own name in its parent.
    ///
    /// # Errors
    /// The system's.
    pub fn sync(&self) -> io::Result<()> {
        mutate(Change::SyncDir { dir: self }, || {
            match rustix::fs::fsync(&self.fd) {
                // Some network filesystems have no fsync on directories and are synchronous in names.
                Ok(()) | Err(Errno::INVAL) => Ok(()),
                Err(error) => Err(error.into()),
            }
        })
    }

    /// What has this name; links are not followed.
    ///
    /// # Errors
    /// `NotFound`; the system's.
    pub fn stat(&self, name: impl AsRef<OsStr>) -> io::Result<Stat> {
        Ok(Stat::new(&rustix::fs::statat(&self.fd, component(name.as_ref())?, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    /// The kind of what has this name; links are not followed.
    ///
    /// # Errors
    /// `NotFound`; the system's.
    pub fn kind(&self, name: impl AsRef<OsStr>) -> io::Result<Kind> {
        Ok(self.stat(name)?.kind)
    }

    /// The entries without `.` and `..`, sorted by name.
    ///
    /// # Errors
    /// The system's.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let name = OsString::from_vec(name.to_vec());
            let kind = match entry.file_type() {
                // Filesystems that do not put the type into the directory; the entry may be gone again by now.
                FileType::Unknown => match self.kind(&name) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    kind => kind?,
                },
                known => kind_of(known),
            };
            entries.push(Entry { name, kind });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }
}

fn kind_of(file_type: FileType) -> Kind {
    match file_type {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        _ => Kind::Other,
    }
}

/// What kernels and filesystems answer to a `renameat2` flag or a link that they do not have.
fn is_unsupported(error: &io::Error) -> bool {
    [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
