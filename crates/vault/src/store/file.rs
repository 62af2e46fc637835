//! `file://`: a repository in a directory, over the counted file layer, so that a crash at any write is tested.
//!
//! Below the root no symbolic link is followed: each directory is opened from the one above it, by one plain name. An object is written
//! to a temporary name beside its own, synced, and renamed without replacing; then every directory up to the root is synced. Whatever
//! does not match the grammar of keys (temporary files, `lost+found`) is not listed; a link or device that does is an error.

mod tree;
mod upload;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use disk::{Dir, File, Stat};

use super::{ObjectInfo, Store, StoreError, Unfinished, Upload, keys, settle};
use tree::{OBJECT_MODE, Tree, etag, io_error};

/// A repository in a directory.
#[derive(Debug)]
pub struct FileStore {
    tree: Arc<Tree>,
}

impl FileStore {
    /// Opens the directory `path`; `name` is what the user called it. With `create` a missing one is made, durably.
    ///
    /// # Errors
    /// [`StoreError::NoRoot`] if it is missing; [`StoreError::Denied`], [`StoreError::Other`] by what the system says.
    pub fn open(path: &Path, name: &str, create: bool) -> Result<Self, StoreError> {
        let tree = Tree { root: PathBuf::from(path), name: name.to_owned() };
        match tree.open_root() {
            Err(StoreError::NoRoot { .. }) if create => {
                disk::create_dir_all(path, tree::DIR_MODE).map_err(|error| io_error(name, &error))?;
            }
            other => drop(other?),
        }
        Ok(Self { tree: Arc::new(tree) })
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&Tree) -> Result<T, StoreError> + Send + 'static) -> Result<T, StoreError> {
        let tree = Arc::clone(&self.tree);
        blocking(move || work(&tree)).await
    }
}

/// Runs blocking file work beside the asynchronous threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, StoreError> + Send + 'static) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::Other { key: String::new(), detail: format!("file work did not finish: {error}") }),
    }
}

fn read(key: &str, file: &File, range: Range<u64>) -> Result<Bytes, StoreError> {
    let too_large = || StoreError::Other { key: key.to_owned(), detail: "too large for memory".to_owned() };
    let mut bytes = vec![0; usize::try_from(range.end - range.start).map_err(|_| too_large())?];
    file.read_exact_at(&mut bytes, range.start).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            StoreError::Corrupt { key: key.to_owned(), detail: "the file became shorter while it was read".to_owned() }
        }
        _ => io_error(key, &error),
    })?;
    Ok(bytes.into())
}

fn get(tree: &Tree, key: &str, limit: u64) -> Result<(ObjectInfo, Bytes), StoreError> {
    let file = tree.open_object(key)?;
    let stat = file.stat().map_err(|error| io_error(key, &error))?;
    if stat.size > limit {
        return Err(StoreError::Corrupt { key: key.to_owned(), detail: format!("{} bytes, at most {limit} are expected", stat.size) });
    }
    let bytes = read(key, &file, 0..stat.size)?;
    Ok((ObjectInfo { key: key.to_owned(), size: stat.size, etag: Some(etag(&stat)) }, bytes))
}

fn create(tree: &Tree, key: &str, bytes: &[u8]) -> Result<ObjectInfo, StoreError> {
    let placed = tree.write_beside(key, bytes, |dir, temp, name| dir.rename_no_replace(temp, dir, name));
    match placed {
        Err(StoreError::AlreadyExists { .. }) => {}
        other => return other,
    }
    match get(tree, key, bytes.len() as u64) {
        Ok((info, found)) if found == bytes => {
            // It may be there and not yet durable, from a run that ended in between.
            tree.open_object(key)?.sync().map_err(|error| io_error(key, &error))?;
            tree.sync_above(key)?;
            Ok(info)
        }
        Ok(_) | Err(StoreError::Corrupt { .. }) => Err(StoreError::AlreadyExists { key: key.to_owned() }),
        Err(error) => Err(error),
    }
}

fn replace(tree: &Tree, key: &str, bytes: &[u8], expected: Option<&str>) -> Result<ObjectInfo, StoreError> {
    let _lock = tree.lock(key)?;
    let there = match tree.head(key) {
        Ok(info) => info.etag,
        Err(StoreError::NotFound { .. }) => None,
        Err(error) => return Err(error),
    };
    if there.as_deref() != expected {
        return Err(StoreError::Changed { key: key.to_owned() });
    }
    tree.write_beside(key, bytes, |dir, temp, name| dir.rename(temp, dir, name))
}

fn written_at(tree: &Tree, key: &str) -> Result<Option<SystemTime>, StoreError> {
    let stat = tree.open_object(key)?.stat().map_err(|error| io_error(key, &error))?;
    Ok(changed(&stat))
}

fn changed(stat: &Stat) -> Option<SystemTime> {
    let since = u64::try_from(stat.modified_ns / 1_000_000).ok().map(Duration::from_millis);
    since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since))
}

#[async_trait]
impl Store for FileStore {
    fn root(&self) -> &str {
        &self.tree.name
    }

    async fn create(&self, key: &str, bytes: Bytes) -> Result<ObjectInfo, StoreError> {
        keys::check(key)?;
        settle::check_small(key, &bytes)?;
        let key = key.to_owned();
        self.run(move |tree| create(tree, &key, &bytes)).await
    }

    async fn replace(&self, key: &str, bytes: Bytes, etag: Option<&str>) -> Result<ObjectInfo, StoreError> {
        keys::check(key)?;
        settle::check_small(key, &bytes)?;
        let (key, etag) = (key.to_owned(), etag.map(str::to_owned));
        self.run(move |tree| replace(tree, &key, &bytes, etag.as_deref())).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        keys::check(key)?;
        let key = key.to_owned();
        self.run(move |tree| tree.delete(&key)).await
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>, StoreError> {
        keys::check(key)?;
        let (tree, key) = (Arc::clone(&self.tree), key.to_owned());
        let upload = blocking(move || upload::FileUpload::begin(tree, key)).await?;
        Ok(Box::new(upload))
    }

    async fn get(&self, key: &str, limit: u64) -> Result<(ObjectInfo, Bytes), StoreError> {
        keys::check(key)?;
        let key = key.to_owned();
        self.run(move |tree| get(tree, &key, limit)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        keys::check(key)?;
        let key = key.to_owned();
        self.run(move |tree| {
            let file = tree.open_object(&key)?;
            super::check_range(&key, &range, file.len().map_err(|error| io_error(&key, &error))?)?;
            read(&key, &file, range)
        })
        .await
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo, StoreError> {
        keys::check(key)?;
        let key = key.to_owned();
        self.run(move |tree| tree.head(&key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let prefix = keys::check_prefix(prefix)?.to_owned();
        self.run(move |tree| tree.list(&prefix)).await
    }

    async fn list_shallow(&self, prefix: &str) -> Result<(Vec<ObjectInfo>, Vec<String>), StoreError> {
        let prefix = keys::check_prefix(prefix)?.to_owned();
        self.run(move |tree| tree.list_shallow(&prefix)).await
    }

    async fn written_at(&self, key: &str) -> Result<Option<SystemTime>, StoreError> {
        keys::check(key)?;
        let key = key.to_owned();
        self.run(move |tree| written_at(tree, &key)).await
    }

    async fn unfinished(&self, prefix: &str) -> Result<Vec<Unfinished>, StoreError> {
        let prefix = keys::check_prefix(prefix)?.to_owned();
        self.run(move |tree| tree.unfinished(&prefix)).await
    }

    async fn discard(&self, unfinished: &Unfinished) -> Result<(), StoreError> {
        let key = unfinished.key.clone();
        self.run(move |tree| tree.discard(&key)).await
    }
}

/// Creates a temporary file in the directory of an object and returns it with its name.
fn temp_file(key: &str, dir: &Dir) -> Result<(File, String), StoreError> {
    let temp = disk::temp_name();
    let file = dir.create_file(&temp, OBJECT_MODE).map_err(|error| io_error(key, &error))?;
    Ok((file, temp))
}
