//! Which repository a directory held when this host used it last. A disk that is not mounted leaves an empty directory behind, and a new repository in it would
//! look like a cluster that was never backed up, fill the wrong disk, and vanish when the disk comes back.
//!
//! What is remembered lies in the state directory, one small file per place. Without a state directory nothing is remembered, and nothing refused.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vault::digest::Sha256;
use vault::name::RepositoryId;

use crate::failure::{Code, Failure};

/// What is remembered of a place.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
struct Remembered {
    url: String,
    repository: RepositoryId,
}

/// A directory that held a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    remembered: Remembered,
    file: PathBuf,
}

impl Known {
    /// Why nothing new is begun there.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let Remembered { url, repository } = &self.remembered;
        Failure::new(
            Code::NoRepository,
            format!("repository {repository} was here when this host used the place last, and now there is nothing"),
        )
        .object(url)
        .cause(format!(
            "is its disk mounted? Nothing new is begun beside what is missing; where it was emptied on purpose, remove {}",
            self.file.display()
        ))
        .again()
    }
}

/// Only directories come and go with a mount.
fn file(state: Option<&Path>, url: &str) -> Option<PathBuf> {
    let url = url.trim_end_matches('/');
    let name = Sha256::of(url.as_bytes()).to_string();
    url.starts_with("file://").then_some(())?;
    Some(state?.join("stores").join(format!("{}.json", name.get(..16)?)))
}

/// What is remembered of a place. What cannot be read is not remembered: this is a second lock, never the only one.
#[must_use]
pub fn of(state: Option<&Path>, url: &str) -> Option<Known> {
    let file = file(state, url)?;
    let remembered: Remembered = serde_json::from_slice(&std::fs::read(&file).ok()?).ok()?;
    (remembered.url == url.trim_end_matches('/')).then_some(Known { remembered, file })
}

/// Remembers what a place holds.
pub fn remember(state: Option<&Path>, url: &str, repository: &RepositoryId) {
    let Some(file) = file(state, url) else { return };
    let remembered = Remembered { url: url.trim_end_matches('/').to_owned(), repository: *repository };
    if of(state, url).is_some_and(|known| known.remembered == remembered) {
        return;
    }
    let Ok(text) = serde_json::to_vec(&remembered) else { return };
    let made = file.parent().map(std::fs::create_dir_all);
    // A state directory that cannot be written to costs this lock, and nothing else.
    if matches!(made, Some(Ok(()))) {
        let _ = disk::publish_replace(&file, &text, 0o600);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_directory_is_remembered_and_a_bucket_is_not() {
        let state = tempfile::tempdir().unwrap();
        let state = Some(state.path());
        let (one, two) = (RepositoryId::new(Timestamp::now()).unwrap(), RepositoryId::new(Timestamp::now()).unwrap());
        assert_eq!(of(state, "file:///mnt/a"), None);
        remember(state, "file:///mnt/a/", &one);
        let failure = of(state, "file:///mnt/a").unwrap().failure();
        assert!(failure.code == Code::NoRepository && failure.what.contains(&one.to_string()), "{failure}");
        assert_eq!(of(state, "file:///mnt/b"), None);
        remember(state, "file:///mnt/a", &two);
        assert!(of(state, "file:///mnt/a").unwrap().failure().what.contains(&two.to_string()));
        remember(state, "s3://a/b", &one);
        assert_eq!(of(state, "s3://a/b"), None);
        remember(None, "file:///mnt/a", &one);
        assert_eq!(of(None, "file:///mnt/a"), None);
    }
}
