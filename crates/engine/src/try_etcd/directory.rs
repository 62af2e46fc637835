//! The private directory of one scratch etcd. It holds the cluster's data in the clear, so only its owner may enter it, and it does not outlive the run.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::failure::{Failure, Outcome};

/// What the names of these directories begin with.
const PREFIX: &str = "try-";
/// The file that the owner keeps locked.
const OWNER: &str = "owner";
/// How often removing is tried: threads that were told to stop, and a process that was killed, may still write for a moment.
const REMOVALS: usize = 100;
const BETWEEN_REMOVALS: Duration = Duration::from_millis(20);

/// A directory that is removed when it is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _owner: disk::File,
}

impl Directory {
    /// Makes one below `base`, which is made too where it is missing. Without having been `named`, a base in memory is refused.
    pub(super) fn create(base: &Path, named: bool) -> Outcome<Self> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Failure::failed(format!("{what}: {error}")).object(base.display()).cause("name another directory with --dir").again()
        };
        if !base.is_dir() {
            disk::create_dir_all(base, 0o700).map_err(|error| failed("the directory for scratch data cannot be made", &error))?;
        }
        if !named && disk::is_tmpfs(base).unwrap_or(false) {
            return Err(Failure::failed(
                "the directory for scratch data lies in memory (tmpfs), where a database could exhaust the machine",
            )
            .object(base.display())
            .cause("a directory that you name with --dir is taken as it is")
            .again_with(["--dir", &base.to_string_lossy()]));
        }
        let path = base.join(disk::temp_name().replacen(disk::TEMP_PREFIX, PREFIX, 1));
        disk::create_dir(&path, 0o700).map_err(|error| failed("the directory for scratch data cannot be made", &error))?;
        match own(&path) {
            Ok(owner) => Ok(Self { path, _owner: owner }),
            Err(error) => {
                let _ = disk::remove_dir_all(&path);
                Err(failed("the directory for scratch data cannot be locked", &error))
            }
        }
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// etcd's data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// etcd's database file.
    pub(super) fn database(&self) -> PathBuf {
        database(&self.path)
    }

    /// The file that etcd logs to.
    pub(super) fn log(&self) -> PathBuf {
        self.path.join("etcd.log")
    }

    /// Removes it, and says so when that fails.
    pub(super) fn remove(self) -> Outcome<()> {
        remove(&self.path).map_err(|error| {
            Failure::failed(format!("the scratch data could not be removed: {error}"))
                .object(self.path.display())
                .cause("it holds the cluster's data in the clear")
                .next(["rm", "-r", &self.path.to_string_lossy()])
        })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Whoever wants to know calls `remove`.
        let _ = remove(&self.path);
    }
}

fn database(directory: &Path) -> PathBuf {
    directory.join("data/member/snap/db")
}

/// Locks before the file has its name, so that nobody ever sees a name that is not locked while its owner lives.
fn own(path: &Path) -> io::Result<disk::File> {
    let unnamed = path.join(disk::temp_name());
    let owner = disk::File::create_new(&unnamed, 0o600)?;
    if !owner.try_lock_exclusive()? {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    disk::rename_no_replace(&unnamed, path.join(OWNER))?;
    Ok(owner)
}

fn remove(path: &Path) -> io::Result<()> {
    let mut last = Ok(());
    for _ in 0..REMOVALS {
        last = match disk::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.exists() => return Ok(()),
            other => other,
        };
        // Gone for good only when it is still gone a moment later.
        std::thread::sleep(BETWEEN_REMOVALS);
    }
    last
}

/// Removes directories whose owner was killed, and says which.
pub(super) fn sweep(base: &Path) -> Vec<PathBuf> {
    let entries = disk::list_dir(base).unwrap_or_default();
    let ours = entries.into_iter().filter(|entry| entry.kind == disk::Kind::Dir && entry.name.to_string_lossy().starts_with(PREFIX));
    ours.map(|entry| base.join(entry.name))
        .filter(|path| {
            let Some(_owner) = lock(&path.join(OWNER)) else { return false };
            // An etcd that outlived its owner still has its database locked.
            let database = database(path);
            (!database.exists() || lock(&database).is_some()) && remove(path).is_ok()
        })
        .collect()
}

fn lock(path: &Path) -> Option<disk::File> {
    let file = disk::File::open_read_write(path).ok()?;
    file.try_lock_exclusive().ok()?.then_some(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_its_owner_may_enter_and_nothing_stays() {
        let base = tempfile::tempdir().unwrap();
        let directory = Directory::create(base.path(), true).unwrap();
        let mode = std::fs::metadata(directory.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        std::fs::create_dir_all(directory.database()).unwrap();
        drop(directory);
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_run_left_is_swept_and_what_is_in_use_is_not() {
        let base = tempfile::tempdir().unwrap();
        let used = Directory::create(base.path(), true).unwrap();
        let killed = base.path().join("try-1-0-abc");
        std::fs::create_dir_all(killed.join("data/member/snap")).unwrap();
        std::fs::write(killed.join("data/member/snap/db"), "x").unwrap();
        std::fs::write(killed.join(OWNER), "").unwrap();
        let foreign = base.path().join("try-it-yourself");
        std::fs::create_dir(&foreign).unwrap();
        let held = disk::File::open_read_write(killed.join("data/member/snap/db")).unwrap();
        assert!(held.try_lock_exclusive().unwrap());
        assert_eq!(sweep(base.path()), Vec::<PathBuf>::new(), "its etcd still runs");
        drop(held);
        assert_eq!(sweep(base.path()), [killed]);
        assert!(used.path().exists() && foreign.exists());
        used.remove().unwrap();
    }
}
