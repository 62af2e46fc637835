//! The directory tree of a repository: finding, placing, removing and listing its files.

use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use disk::{Dir, Entry, File, Kind, Stat, TEMP_PREFIX};

use super::super::keys::{is_key, is_part};
use super::super::limits::{ATTEMPTS, LOCK_PATIENCE, MAX_KEY_PARTS, MAX_LISTED};
use super::super::{ObjectInfo, StoreError, Unfinished};
use super::{changed, temp_file};

/// Permission bits of directories: whoever writes backups, and nobody else.
pub(super) const DIR_MODE: u32 = 0o700;
/// Permission bits of objects.
pub(super) const OBJECT_MODE: u32 = 0o600;

/// One file at the root that conditional replacements lock. Its name is no key, so it is never listed.
const LOCK: &str = ".lock";
const LOCK_PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct Tree {
    pub(super) root: PathBuf,
    /// The root as the user named it.
    pub(super) name: String,
}

/// Says in the store's terms what the system answered.
pub(super) fn io_error(key: &str, error: &io::Error) -> StoreError {
    let key = key.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => StoreError::NotFound { key },
        io::ErrorKind::AlreadyExists => StoreError::AlreadyExists { key },
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => StoreError::Full { key },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => StoreError::Denied { key, detail: error.to_string() },
        // ELOOP has no stable kind; O_NOFOLLOW on a link answers it, or ENOTDIR where a directory was wanted.
        io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory | io::ErrorKind::InvalidInput => in_the_way(key),
        _ if error.raw_os_error() == Some(ELOOP) => in_the_way(key),
        io::ErrorKind::StaleNetworkFileHandle | io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable => {
            StoreError::Unreachable { key, detail: error.to_string() }
        }
        _ => StoreError::Other { key, detail: error.to_string() },
    }
}

/// Linux's "too many symbolic links".
const ELOOP: i32 = 40;

fn in_the_way(key: String) -> StoreError {
    StoreError::Corrupt {
        key,
        detail: "a symbolic link, or something that is neither a file nor a directory of ours, is in the way".to_owned(),
    }
}

/// Changes whenever a file is replaced: replacing gives another inode, and the time helps when an inode number is used again.
pub(super) fn etag(stat: &Stat) -> String {
    format!("{:x}-{:x}-{:x}", stat.inode, stat.modified_ns, stat.size)
}

fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('/').unwrap_or(("", key))
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

impl Tree {
    pub(super) fn open_root(&self) -> Result<Dir, StoreError> {
        Dir::open(&self.root).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => StoreError::NoRoot { root: self.name.clone() },
            _ => io_error(&self.name, &error),
        })
    }

    /// Opens the directories from the root down to `path`, the root first. `make` creates missing ones.
    fn open_chain(&self, key: &str, path: &str, make: bool) -> Result<Vec<Dir>, StoreError> {
        let mut dir = self.open_root()?;
        let mut chain = vec![dir.clone()];
        for part in parts(path) {
            dir = match dir.open_dir(part) {
                Err(error) if make && error.kind() == io::ErrorKind::NotFound => {
                    match dir.create_dir(part, DIR_MODE) {
                        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io_error(key, &error)),
                        _ => {}
                    }
                    dir.open_dir(part)
                }
                other => other,
            }
            .map_err(|error| io_error(key, &error))?;
            chain.push(dir.clone());
        }
        Ok(chain)
    }

    fn open_dir(&self, key: &str, path: &str) -> Result<Dir, StoreError> {
        self.open_chain(key, path, false)?.pop().map_or_else(|| self.open_root(), Ok)
    }

    /// The directory in which `key` is to be written, made if it is missing.
    pub(super) fn make_dir(&self, key: &str) -> Result<Dir, StoreError> {
        self.open_chain(key, split(key).0, true)?.pop().map_or_else(|| self.open_root(), Ok)
    }

    /// Syncs every directory from that of `key` up to the root. All of them, not only those this call made: another run may have made
    /// one and ended before its sync.
    pub(super) fn sync_above(&self, key: &str) -> Result<(), StoreError> {
        for dir in self.open_chain(key, split(key).0, false)?.iter().rev() {
            dir.sync().map_err(|error| io_error(key, &error))?;
        }
        Ok(())
    }

    pub(super) fn open_object(&self, key: &str) -> Result<File, StoreError> {
        let (above, name) = split(key);
        self.open_dir(key, above)?.open_file(name).map_err(|error| match error.kind() {
            // An object store has no directories.
            io::ErrorKind::IsADirectory => StoreError::NotFound { key: key.to_owned() },
            _ => io_error(key, &error),
        })
    }

    pub(super) fn head(&self, key: &str) -> Result<ObjectInfo, StoreError> {
        let (above, name) = split(key);
        let stat = self.open_dir(key, above)?.stat(name).map_err(|error| io_error(key, &error))?;
        info(key, &stat)
    }

    /// Writes a temporary file beside `key`, syncs it, has `place` put it in place, and syncs the directories.
    pub(super) fn write_beside(
        &self,
        key: &str,
        bytes: &[u8],
        place: impl Fn(&Dir, &str, &str) -> io::Result<()>,
    ) -> Result<ObjectInfo, StoreError> {
        let name = split(key).1;
        let (dir, file, temp) = self.begin(key)?;
        let placed = file.write_all_at(bytes, 0).and_then(|()| file.sync()).and_then(|()| place(&dir, &temp, name));
        if let Err(error) = placed {
            // Best effort: the first error is the one that matters, and a temporary file is not listed.
            let _ = dir.remove_file(&temp);
            let _ = self.prune(key);
            return Err(io_error(key, &error));
        }
        self.sync_above(key)?;
        info(key, &file.stat().map_err(|error| io_error(key, &error))?)
    }

    /// A new temporary file in the directory of `key`. Tried again when the directory disappears at that moment, since whoever deletes
    /// the last object of a directory removes it.
    pub(super) fn begin(&self, key: &str) -> Result<(Dir, File, String), StoreError> {
        let mut attempt = 1;
        loop {
            let begun = self.make_dir(key).and_then(|dir| temp_file(key, &dir).map(|(file, temp)| (dir, file, temp)));
            match begun {
                Err(StoreError::NotFound { .. }) if attempt < ATTEMPTS => attempt += 1,
                other => return other,
            }
        }
    }

    /// Takes the lock of conditional replacements; it is held until the file is dropped.
    pub(super) fn lock(&self, key: &str) -> Result<File, StoreError> {
        let root = self.open_root()?;
        let file = match root.create_file(LOCK, OBJECT_MODE) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => File::open_read_write(self.root.join(LOCK)),
            other => other,
        }
        .map_err(|error| io_error(key, &error))?;
        let begun = Instant::now();
        while !file.try_lock_exclusive().map_err(|error| io_error(key, &error))? {
            if begun.elapsed() > LOCK_PATIENCE {
                return Err(StoreError::Unreachable {
                    key: key.to_owned(),
                    detail: "another process holds the lock of the repository".to_owned(),
                });
            }
            thread::sleep(LOCK_PAUSE);
        }
        Ok(file)
    }

    pub(super) fn delete(&self, key: &str) -> Result<(), StoreError> {
        let (above, name) = split(key);
        let chain = match self.open_chain(key, above, false) {
            Err(StoreError::NotFound { .. }) => return Ok(()),
            other => other?,
        };
        let Some(dir) = chain.last() else { return Ok(()) };
        match dir.remove_file(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.map_err(|error| io_error(key, &error))?,
        }
        dir.sync().map_err(|error| io_error(key, &error))?;
        self.prune(key)
    }

    /// Removes the directories above `key` that are empty, since an object store has no directories. One that is not empty, or is gone,
    /// ends it.
    pub(super) fn prune(&self, key: &str) -> Result<(), StoreError> {
        let above = split(key).0;
        let chain = self.open_chain(key, above, false)?;
        let names: Vec<&str> = parts(above).collect();
        for (parent, name) in chain.iter().zip(&names).rev() {
            if parent.remove_dir(name).is_err() {
                break;
            }
            parent.sync().map_err(|error| io_error(key, &error))?;
        }
        Ok(())
    }

    pub(super) fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let mut found = Vec::new();
        if let Some(dir) = self.open_listed(prefix)? {
            list_below(&dir, prefix, &mut found)?;
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    pub(super) fn list_shallow(&self, prefix: &str) -> Result<(Vec<ObjectInfo>, Vec<String>), StoreError> {
        let (mut objects, mut below) = (Vec::new(), Vec::new());
        if let Some(dir) = self.open_listed(prefix)? {
            for listed in entries(&dir, prefix)? {
                match listed {
                    Listed::Object(info) => objects.push(info),
                    Listed::Dir(key, dir) if has_object(&dir, &key)? => below.push(key),
                    Listed::Dir(..) => {}
                }
            }
        }
        Ok((objects, below))
    }

    /// Temporary files below a prefix: of writes under way, or left by a crash.
    pub(super) fn unfinished(&self, prefix: &str) -> Result<Vec<Unfinished>, StoreError> {
        let mut found = Vec::new();
        if let Some(dir) = self.open_listed(prefix)? {
            unfinished_below(&dir, prefix, &mut found)?;
        }
        Ok(found)
    }

    /// Removes a temporary file, and the directories that are empty without it.
    pub(super) fn discard(&self, key: &str) -> Result<(), StoreError> {
        let (above, name) = split(key);
        if !name.starts_with(TEMP_PREFIX) || name.contains('/') || !is_key(above) {
            return Err(StoreError::Other { key: key.to_owned(), detail: "it is no temporary file".to_owned() });
        }
        let removed = self.open_dir(key, above).and_then(|dir| dir.remove_file(name).map_err(|error| io_error(key, &error)));
        match removed {
            Err(StoreError::NotFound { .. }) => Ok(()),
            other => other.and_then(|()| self.prune(key)),
        }
    }

    fn open_listed(&self, prefix: &str) -> Result<Option<Dir>, StoreError> {
        match self.open_dir(prefix, prefix) {
            Err(StoreError::NotFound { .. }) => Ok(None),
            other => other.map(Some),
        }
    }
}

fn info(key: &str, stat: &Stat) -> Result<ObjectInfo, StoreError> {
    match stat.kind {
        Kind::File => Ok(ObjectInfo { key: key.to_owned(), size: stat.size, etag: Some(etag(stat)) }),
        // What others keep below is no object.
        Kind::Dir => Err(StoreError::NotFound { key: key.to_owned() }),
        Kind::Other => Err(in_the_way(key.to_owned())),
    }
}

enum Listed {
    Object(ObjectInfo),
    Dir(String, Dir),
}

/// What is directly in a directory and has a name that a key could have.
fn entries(dir: &Dir, prefix: &str) -> Result<Vec<Listed>, StoreError> {
    let mut listed = Vec::new();
    for Entry { name, kind } in dir.entries().map_err(|error| io_error(prefix, &error))? {
        let Some(name) = name.to_str().filter(|name| is_part(name)) else { continue };
        let key = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
        if !is_key(&key) {
            continue;
        }
        let entry = match kind {
            Kind::File => dir.stat(name).map_err(|error| io_error(&key, &error)).and_then(|stat| info(&key, &stat)).map(Listed::Object),
            Kind::Dir => dir.open_dir(name).map_err(|error| io_error(&key, &error)).map(|dir| Listed::Dir(key, dir)),
            Kind::Other => Err(in_the_way(key)),
        };
        match entry {
            // Removed since the directory was read.
            Err(StoreError::NotFound { .. }) => {}
            other => listed.push(other?),
        }
    }
    Ok(listed)
}

/// The depth is bounded by the grammar: `entries` passes over anything deeper than a key may be.
fn list_below(dir: &Dir, prefix: &str, found: &mut Vec<ObjectInfo>) -> Result<(), StoreError> {
    debug_assert!(parts(prefix).count() <= MAX_KEY_PARTS);
    for listed in entries(dir, prefix)? {
        match listed {
            Listed::Object(info) => found.push(info),
            Listed::Dir(key, dir) => list_below(&dir, &key, found)?,
        }
        if found.len() > MAX_LISTED {
            return Err(StoreError::Corrupt { key: prefix.to_owned(), detail: format!("more than {MAX_LISTED} objects") });
        }
    }
    Ok(())
}

/// As [`list_below`].
fn unfinished_below(dir: &Dir, prefix: &str, found: &mut Vec<Unfinished>) -> Result<(), StoreError> {
    for Entry { name, kind } in dir.entries().map_err(|error| io_error(prefix, &error))? {
        let Some(name) = name.to_str().filter(|name| kind == Kind::File && name.starts_with(TEMP_PREFIX)) else { continue };
        // It may have been completed, or given up, since the directory was read.
        let Ok(stat) = dir.stat(name) else { continue };
        let Some(changed) = changed(&stat) else { continue };
        found.push(Unfinished { key: format!("{prefix}/{name}"), size: stat.size, changed });
    }
    for listed in entries(dir, prefix)? {
        match listed {
            Listed::Dir(key, dir) if found.len() < MAX_LISTED => unfinished_below(&dir, &key, found)?,
            _ => {}
        }
    }
    Ok(())
}

fn has_object(dir: &Dir, prefix: &str) -> Result<bool, StoreError> {
    for listed in entries(dir, prefix)? {
        match listed {
            Listed::Object(_) => return Ok(true),
            Listed::Dir(key, dir) if has_object(&dir, &key)? => return Ok(true),
            Listed::Dir(..) => {}
        }
    }
    Ok(false)
}
