//! Backup and defragmentation of one cluster keep out of each other's way on one host: while a member streams its database a
//! defragmentation of it stops everything it serves until the stream has ended (reference/etcd.md 1.4).
//!
//! A lock file per cluster id in the state directory. Backups share it, a defragmentation has it alone. The kernel frees it when a process ends, however
//! that ends. Hosts do not see each other's locks: across hosts the lease of the repository serves.

use std::path::{Path, PathBuf};

use etcd_store::id::ClusterId;

use crate::failure::{Failure, Outcome};

/// Held until dropped.
#[derive(Debug)]
pub struct Exclusion {
    _file: disk::File,
}

/// What came of asking.
#[derive(Debug)]
pub enum Asked {
    /// Nobody is in the way for as long as this is kept.
    Free(Exclusion),
    /// Somebody is.
    Taken,
    /// It cannot be known, with the reason: the state directory cannot be written, or has no locks.
    Unknown(String),
}

/// `LIFEBOAT_STATE_DIR` where that is set; `/var/lib/lifeboat` for root, else `lifeboat` in the XDG state directory; none where nothing of it is known.
#[must_use]
pub fn state_directory() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("LIFEBOAT_STATE_DIR").map(PathBuf::from).filter(|path| path.is_absolute()) {
        return Some(named);
    }
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/lifeboat"));
    }
    let state = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state")))?;
    Some(state.join("lifeboat"))
}

/// Asks to share a cluster with other backups.
#[must_use]
pub fn share(directory: Option<&Path>, cluster: ClusterId) -> Asked {
    ask(directory, cluster, false)
}

/// Asks to have a cluster alone.
#[must_use]
pub fn alone(directory: Option<&Path>, cluster: ClusterId) -> Asked {
    ask(directory, cluster, true)
}

fn ask(directory: Option<&Path>, cluster: ClusterId, alone: bool) -> Asked {
    let Some(directory) = directory else { return Asked::Unknown("there is no state directory: HOME is not set".to_owned()) };
    let locks = directory.join("locks");
    let path = locks.join(format!("{cluster}.lock"));
    let wrong = |error: std::io::Error| Asked::Unknown(format!("{}: {error}", path.display()));
    if let Err(error) = disk::create_dir_all(&locks, 0o700) {
        return wrong(error);
    }
    let file = match disk::File::open_read_write(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => match disk::File::create_new(&path, 0o600) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => disk::File::open_read_write(&path),
            made => made,
        },
        opened => opened,
    };
    let file = match file {
        Ok(file) => file,
        Err(error) => return wrong(error),
    };
    match if alone { file.try_lock_exclusive() } else { file.try_lock_shared() } {
        Ok(true) => Asked::Free(Exclusion { _file: file }),
        Ok(false) => Asked::Taken,
        Err(error) => wrong(error),
    }
}

/// For a backup: a defragmentation that runs is a reason not to begin; not to know is none.
///
/// # Errors
/// A defragmentation of this cluster runs on this host.
pub fn for_a_backup(cluster: ClusterId) -> Outcome<Option<Exclusion>> {
    match share(state_directory().as_deref(), cluster) {
        Asked::Free(exclusion) => Ok(Some(exclusion)),
        Asked::Unknown(_) => Ok(None),
        Asked::Taken => Err(Failure::failed("a defragmentation of this cluster runs on this machine")
            .object(cluster)
            .cause("a snapshot that is read from a member which is being defragmented stops everything that member serves; run the backup when it has ended")
            .again()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backups_share_and_a_defragmentation_is_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (at, cluster) = (Some(dir.path()), ClusterId(7));
        let first = share(at, cluster);
        let second = share(at, cluster);
        assert!(matches!((&first, &second), (Asked::Free(_), Asked::Free(_))));
        assert!(matches!(alone(at, cluster), Asked::Taken));
        assert!(matches!(alone(at, ClusterId(8)), Asked::Free(_)), "another cluster is not concerned");
        drop((first, second));
        let defrag = alone(at, cluster);
        assert!(matches!(defrag, Asked::Free(_)));
        assert!(matches!(share(at, cluster), Asked::Taken));
        assert!(matches!(alone(at, cluster), Asked::Taken));
        drop(defrag);
        assert!(matches!(share(at, cluster), Asked::Free(_)));
    }

    #[test]
    fn what_cannot_be_known_is_said() {
        assert!(matches!(share(None, ClusterId(7)), Asked::Unknown(_)));
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(alone(Some(file.path()), ClusterId(7)), Asked::Unknown(_)), "no directory can be made below a file");
    }
}
