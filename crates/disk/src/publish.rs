//! Whole small files that are there complete and durable, or not at all.

use std::hash::{BuildHasher, Hasher};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::dir::Dir;
use crate::ops::split;

/// What the name of every temporary file of ours begins with. A crash may leave one behind; whoever lists a directory skips them.
pub const TEMP_PREFIX: &str = ".tmp-";

/// A name for a temporary file that nobody else uses: prefix, process id, count, random.
#[must_use]
pub fn temp_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // RandomState is seeded from the system's randomness: enough against collisions between machines on one shared directory.
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!("{TEMP_PREFIX}{}-{count}-{random:016x}", std::process::id())
}

/// Writes a file that must not exist: temporary file in the same directory, sync, rename without replacing, sync of the directory.
/// When it returns `Ok` the file is complete and durable; after a crash it is complete or not there.
///
/// # Errors
/// `AlreadyExists` (nothing was changed); the system's (the file may be there, complete, if only the last sync failed).
pub fn publish_new(path: impl AsRef<Path>, bytes: &[u8], mode: u32) -> io::Result<()> {
    let (dir, name) = split(path.as_ref())?;
    publish(&dir, bytes, mode, |temp| dir.rename_no_replace(temp, &dir, &name))
}

/// Writes a file, replacing one that is there: as [`publish_new`], but readers and crashes see the old content or the new.
///
/// # Errors
/// The system's (the new content may be in place if only the last sync failed).
pub fn publish_replace(path: impl AsRef<Path>, bytes: &[u8], mode: u32) -> io::Result<()> {
    let (dir, name) = split(path.as_ref())?;
    publish(&dir, bytes, mode, |temp| dir.rename(temp, &dir, &name))
}

fn publish(dir: &Dir, bytes: &[u8], mode: u32, place: impl FnOnce(&str) -> io::Result<()>) -> io::Result<()> {
    let temp = temp_name();
    let file = dir.create_file(&temp, mode)?;
    let placed = file.write_all_at(bytes, 0).and_then(|()| file.sync()).and_then(|()| place(&temp));
    if let Err(error) = placed {
        // Best effort: the first error is the one that matters.
        let _ = dir.remove_file(&temp);
        return Err(error);
    }
    dir.sync()
}
