//! The operations of [`Dir`] by path.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use crate::dir::{Dir, Entry, Kind};

/// Why two names could not be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The filesystem or kernel has no exchange (`renameat2` `EXCHANGE`); nothing was changed.
    #[error("the filesystem cannot exchange two names in one step")]
    Unsupported,
    /// It failed; nothing was changed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// How deep [`remove_dir_all`] and [`sync_tree`] go: far above any tree of ours, far below a stack overflow.
const MAX_DEPTH: usize = 128;

/// The directory that holds the last component, and that component.
pub(crate) fn split(path: &Path) -> io::Result<(Dir, OsString)> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path has no last component"))?;
    let dir = Dir::open(path.parent().unwrap_or(Path::new("")))?;
    Ok((dir, name.to_os_string()))
}

/// Creates a directory with exactly these permission bits. Not durable before its parent is synced.
///
/// # Errors
/// `AlreadyExists`; the system's.
pub fn create_dir(path: impl AsRef<Path>, mode: u32) -> io::Result<()> {
    let (dir, name) = split(path.as_ref())?;
    dir.create_dir(name, mode)
}

/// Creates a directory and those above it that are missing, and syncs the parent of each one it created, so that the path is
/// durable when it returns. One that exists is left as it is.
///
/// # Errors
/// `NotADirectory` or `AlreadyExists` if something else is in the way; the system's.
pub fn create_dir_all(path: impl AsRef<Path>, mode: u32) -> io::Result<()> {
    let path = path.as_ref();
    let mut missing = Vec::new();
    let mut at = path;
    while !at.as_os_str().is_empty() && !at.is_dir() {
        missing.push(at);
        let Some(parent) = at.parent() else { break };
        at = parent;
    }
    for path in missing.into_iter().rev() {
        let (dir, name) = split(path)?;
        match dir.create_dir(&name, mode) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.kind(&name)? == Kind::Dir => {}
            other => other?,
        }
        dir.sync()?;
    }
    Ok(())
}

/// Renames, replacing a file at the target. Not durable before both parents are synced.
///
/// # Errors
/// The system's.
pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    let ((from, from_name), (to, to_name)) = (split(from.as_ref())?, split(to.as_ref())?);
    from.rename(from_name, &to, to_name)
}

/// Renames to a name that must not exist; see [`Dir::rename_no_replace`].
///
/// # Errors
/// `AlreadyExists`; `Unsupported`; the system's.
pub fn rename_no_replace(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    let ((from, from_name), (to, to_name)) = (split(from.as_ref())?, split(to.as_ref())?);
    from.rename_no_replace(from_name, &to, to_name)
}

/// Exchanges two existing names (files or directories) in one step. Not durable before both parents are synced.
///
/// # Errors
/// [`ExchangeError`].
pub fn exchange(a: impl AsRef<Path>, b: impl AsRef<Path>) -> Result<(), ExchangeError> {
    let ((a, a_name), (b, b_name)) = (split(a.as_ref())?, split(b.as_ref())?);
    a.exchange(a_name, &b, b_name)
}

/// Gives a file a further name, which must not exist. Not durable before the new name's parent is synced.
///
/// # Errors
/// `AlreadyExists`; the system's.
pub fn hard_link(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    let ((from, from_name), (to, to_name)) = (split(from.as_ref())?, split(to.as_ref())?);
    from.hard_link(from_name, &to, to_name)
}

/// Removes a file or symbolic link. Not durable before its parent is synced.
///
/// # Errors
/// `NotFound`; `IsADirectory`; the system's.
pub fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    let (dir, name) = split(path.as_ref())?;
    dir.remove_file(name)
}

/// Removes an empty directory. Not durable before its parent is synced.
///
/// # Errors
/// `NotFound`; `DirectoryNotEmpty`; the system's.
pub fn remove_dir(path: impl AsRef<Path>) -> io::Result<()> {
    let (dir, name) = split(path.as_ref())?;
    dir.remove_dir(name)
}

/// Removes a directory and everything below it; symbolic links are removed, not followed. Syncs nothing.
///
/// # Errors
/// The system's; what was removed before stays removed.
pub fn remove_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    let (dir, name) = split(path.as_ref())?;
    remove_content(&dir.open_dir(&name)?, 0)?;
    dir.remove_dir(name)
}

fn remove_content(dir: &Dir, depth: usize) -> io::Result<()> {
    check_depth(depth)?;
    for Entry { name, kind } in dir.entries()? {
        if kind == Kind::Dir {
            remove_content(&dir.open_dir(&name)?, depth + 1)?;
            dir.remove_dir(&name)?;
        } else {
            dir.remove_file(&name)?;
        }
    }
    Ok(())
}

/// Makes the names in a directory durable; see [`Dir::sync`].
///
/// # Errors
/// The system's.
pub fn sync_dir(path: impl AsRef<Path>) -> io::Result<()> {
    Dir::open(path)?.sync()
}

/// Makes every regular file and every directory at and below `path` durable, content first. Not `path`'s own name: sync its parent.
///
/// # Errors
/// The system's.
pub fn sync_tree(path: impl AsRef<Path>) -> io::Result<()> {
    sync_below(&Dir::open(path)?, 0)
}

fn sync_below(dir: &Dir, depth: usize) -> io::Result<()> {
    check_depth(depth)?;
    for Entry { name, kind } in dir.entries()? {
        match kind {
            Kind::Dir => sync_below(&dir.open_dir(&name)?, depth + 1)?,
            Kind::File => dir.open_file(&name)?.sync()?,
            Kind::Other => {}
        }
    }
    dir.sync()
}

fn check_depth(depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other("directories are nested too deeply"));
    }
    Ok(())
}

/// The entries of a directory, sorted by name.
///
/// # Errors
/// The system's.
pub fn list_dir(path: impl AsRef<Path>) -> io::Result<Vec<Entry>> {
    Dir::open(path)?.entries()
}
