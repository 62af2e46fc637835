//! Backup and defragmentation of one cluster keep out of each other's way on one host: while a member streams its database a
//! defragmentation of it stops everything it serves until the stream has ended (reference/etcd.md 1.4).
//!
//! A lock file per cluster in the state directory ([`Key`]). Backups share it, a defragmentation has it alone. The kernel frees it when a process ends, however
//! that ends. Hosts do not see each other's locks: across hosts the lease of the repository serves.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use etcd_store::id::{ClusterId, MemberId};

use crate::failure::{Failure, Outcome};
use crate::limits::LOOK_AGAIN_AFTER;
use crate::progress::Progress;
use crate::seal_pipeline::on_thread;

/// Held until dropped.
#[derive(Debug)]
pub struct Exclusion {
    _file: disk::File,
}

/// What a cluster is known by on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// Everything by which another process may know the same cluster: its id; and over Talos, which tells none, its least member id.
    #[must_use]
    pub fn of(cluster: Option<ClusterId>, talos_members: impl Iterator<Item = MemberId>) -> Vec<Self> {
        let member = talos_members.filter(|id| *id != MemberId(0)).min().map(|id| Self(format!("talos-{id}")));
        cluster.map(Self::from).into_iter().chain(member).collect()
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<ClusterId> for Key {
    fn from(cluster: ClusterId) -> Self {
        Self(cluster.to_string())
    }
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

/// `LIFEBOAT_STATE_DIR` where that is set; `lifeboat` in `XDG_STATE_HOME` where that is; else `/var/lib/lifeboat` for root, and `~/.local/state/lifeboat` for
/// others. None where HOME is not known either.
#[must_use]
pub fn state_directory() -> Option<PathBuf> {
    let named = |variable: &str| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(named) = named("LIFEBOAT_STATE_DIR") {
        return Some(named);
    }
    if let Some(state) = named("XDG_STATE_HOME") {
        return Some(state.join("lifeboat"));
    }
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/lifeboat"));
    }
    std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state/lifeboat"))
}

/// Asks to share a cluster with other backups.
#[must_use]
pub fn share(directory: Option<&Path>, cluster: &Key) -> Asked {
    ask(directory, cluster, false)
}

/// Asks to have a cluster alone.
#[must_use]
pub fn alone(directory: Option<&Path>, cluster: &Key) -> Asked {
    ask(directory, cluster, true)
}

fn ask(directory: Option<&Path>, Key(cluster): &Key, alone: bool) -> Asked {
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

/// For a backup: a defragmentation that runs is waited for; not to know is no reason not to begin.
///
/// # Errors
/// A defragmentation of this cluster still runs on this host after `patience`.
pub async fn for_a_backup(keys: Vec<Key>, patience: Duration, progress: &dyn Progress) -> Outcome<Vec<Exclusion>> {
    let until = Instant::now() + patience;
    let mut held = Vec::new();
    for key in keys {
        held.extend(wait_for(key, until, patience, progress).await?);
    }
    Ok(held)
}

async fn wait_for(key: Key, until: Instant, patience: Duration, progress: &dyn Progress) -> Outcome<Option<Exclusion>> {
    let mut told = false;
    loop {
        let asked = key.clone();
        match on_thread("lock", move || Ok(share(state_directory().as_deref(), &asked))).await? {
            Asked::Free(exclusion) => return Ok(Some(exclusion)),
            Asked::Unknown(_) => return Ok(None),
            Asked::Taken if Instant::now() >= until => {
                return Err(Failure::failed("a defragmentation of this cluster runs on this machine")
                    .object(&key.0)
                    .cause(format!(
                        "what is read from a member that is being defragmented holds up everything it serves; waited {} s for its end",
                        patience.as_secs()
                    ))
                    .again());
            }
            Asked::Taken => {
                if !std::mem::replace(&mut told, true) {
                    progress.say(&format!(
                        "a defragmentation of this cluster runs on this machine; waiting up to {} s for its end",
                        patience.as_secs()
                    ));
                }
                tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backups_share_and_a_defragmentation_is_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (at, cluster) = (Some(dir.path()), &Key::from(ClusterId(7)));
        let first = share(at, cluster);
        let second = share(at, cluster);
        assert!(matches!((&first, &second), (Asked::Free(_), Asked::Free(_))));
        assert!(matches!(alone(at, cluster), Asked::Taken));
        assert!(matches!(alone(at, &ClusterId(8).into()), Asked::Free(_)), "another cluster is not concerned");
        drop((first, second));
        let defrag = alone(at, cluster);
        assert!(matches!(defrag, Asked::Free(_)));
        assert!(matches!(share(at, cluster), Asked::Taken));
        assert!(matches!(alone(at, cluster), Asked::Taken));
        drop(defrag);
        assert!(matches!(share(at, cluster), Asked::Free(_)));
    }

    #[test]
    fn over_talos_a_cluster_is_known_by_its_least_member_and_by_its_id_where_that_is_known() {
        let members = || [MemberId(9), MemberId(0), MemberId(3)].into_iter();
        let over_talos = Key::of(None, members());
        assert_eq!(over_talos, [Key("talos-0000000000000003".to_owned())]);
        assert_eq!(Key::of(Some(ClusterId(7)), members()), [vec![Key::from(ClusterId(7))], over_talos].concat());
        assert_eq!(Key::of(None, std::iter::empty()), []);
    }

    #[test]
    fn what_cannot_be_known_is_said() {
        assert!(matches!(share(None, &ClusterId(7).into()), Asked::Unknown(_)));
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(alone(Some(file.path()), &ClusterId(7).into()), Asked::Unknown(_)), "no directory can be made below a file");
    }
}
