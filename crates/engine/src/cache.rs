//! What this host remembers of its last backup: the counts per Kubernetes resource. They would say too much of a cluster in a clear manifest, and are
//! only needed to say what changed, so they stay here, readable by their owner alone. Losing them costs a comparison, nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vault::name::{ClusterName, RepositoryId};

/// A cache larger than this is not one.
const MAX_CACHE: u64 = 1 << 20;

/// `/var/lib/lifeboat/cache` for root, else `lifeboat` in the XDG cache directory; none where neither is known.
#[must_use]
pub fn default_directory() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/lifeboat/cache"));
    }
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))?;
    Some(cache.join("lifeboat"))
}

/// The counts of one backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The backup they belong to.
    pub id: String,
    /// Live objects of each resource.
    pub resources: BTreeMap<String, u64>,
}

fn path(directory: &Path, repository: &RepositoryId, cluster: &ClusterName) -> PathBuf {
    directory.join(format!("counts-{repository}-{cluster}.json"))
}

/// What is remembered of a cluster, if anything sound is.
#[must_use]
pub fn recall(directory: &Path, repository: &RepositoryId, cluster: &ClusterName) -> Option<Remembered> {
    let path = path(directory, repository, cluster);
    let size = std::fs::metadata(&path).ok()?.len();
    if size > MAX_CACHE {
        return None;
    }
    serde_json::from_slice(&std::fs::read(&path).ok()?).ok()
}

/// Remembers. A cache that cannot be written is no reason to fail a backup; the reason is returned for a word.
pub fn remember(directory: &Path, repository: &RepositoryId, cluster: &ClusterName, counts: &Remembered) -> Result<(), String> {
    let bytes = serde_json::to_vec(counts).map_err(|error| error.to_string())?;
    disk::create_dir_all(directory, 0o700).map_err(|error| format!("{}: {error}", directory.display()))?;
    let path = path(directory, repository, cluster);
    disk::publish_replace(&path, &bytes, 0o600).map_err(|error| format!("{}: {error}", path.display()))
}
