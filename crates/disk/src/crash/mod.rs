//! Ending the process at a chosen one of its mutating calls, and forgetting what was not made durable.
//!
//! Everything here does something only with the feature `crash-points`; without it [`point`] and [`report`] are empty and every
//! other call of this crate is the plain system call.
//!
//! # Counting
//! Each of these is one point, counted from 1 over all threads: a write, set-length, sync of a named file; the creation, link,
//! removal, rename or exchange of a name; a sync of a directory; a change of owner or mode; and each call of [`point`] by which other
//! crates mark their own steps (`"put <key>"`, `"complete <key>"`). Writes to unnamed files are not points: nothing of them survives.
//!
//! | variable | meaning |
//! |---|---|
//! | `LIFEBOAT_CRASH_AT=N` | the process ends just before the Nth point is carried out |
//! | `LIFEBOAT_CRASH_AFTER=N` | … just after it |
//! | `LIFEBOAT_CRASH_FORGET=1` | first undoes all that is not durable by the model below (`content`, `names`: only the one kind) |
//! | `LIFEBOAT_CRASH_COUNT_FILE=path` | [`report`] writes the number of points there, in decimal |
//!
//! The process ends with code [`EXIT_CODE`], without unwinding or destructors, and names the point on stderr. A run in which the
//! Nth point does not occur ends as if nothing were set: that is how a test that counts N up from 1 knows that it is done.
//! Code [`MODEL_FAILED`] means that the forgetting itself failed; the test proves nothing then.
//!
//! # What is forgotten
//! The strictest reading of POSIX, stricter than ext4, XFS or Btrfs are:
//! - *Content*: bytes and length of a file go back to what they were at its last [`crate::File::sync`] (by any handle on the same
//!   inode), or when this process first changed it. A new file that was never synced is empty. Mode, owner and reserved space stay.
//! - *Names*: creation (file, directory, link), removal, rename and exchange are undone in reverse order unless **every** directory
//!   whose entries it changed was synced afterwards ([`crate::Dir::sync`]): one for a creation, both for a rename between two.
//!   Syncing a file never makes its name durable; syncing a directory makes no content durable, and not its own name in its parent.
//! - A directory whose creation is undone takes all below it along, synced or not.
//! - When a change is durable, so are the earlier ones of the same name in the same directory that it builds on.
//! - A rename or exchange happens wholly or not at all.
//!
//! With `content`, the names stay although the content is lost (a rename that reached the disk before the data), with `names` the
//! other way round. What was changed beside this crate (`std::fs`, other processes) is not known and stays.

#[cfg(feature = "crash-points")]
mod count;
#[cfg(feature = "crash-points")]
mod forget;

use std::ffi::OsStr;
use std::fmt;
use std::fs::File as StdFile;
use std::path::Path;

use crate::dir::Dir;

#[cfg(feature = "crash-points")]
pub(crate) use count::mutate;
#[cfg(feature = "crash-points")]
pub use count::{point, report};

/// The exit code of a process that ended at its point: that of one killed by signal 9, in a shell's words.
pub const EXIT_CODE: i32 = 137;

/// The exit code when what was not durable could not be undone.
pub const MODEL_FAILED: i32 = 99;

/// One name in one directory.
pub(crate) type Place<'a> = (&'a Dir, &'a OsStr);

/// What a call is about to change.
#[cfg_attr(not(feature = "crash-points"), expect(dead_code, reason = "only the counter looks inside"))]
pub(crate) enum Change<'a> {
    Write { file: &'a StdFile, path: &'a Path, offset: u64, len: u64 },
    SetLen { file: &'a StdFile, path: &'a Path, len: u64 },
    SyncFile { file: &'a StdFile, path: &'a Path },
    Attributes { path: &'a Path },
    SyncDir { dir: &'a Dir },
    Create { dir: &'a Dir, name: &'a OsStr },
    Remove { dir: &'a Dir, name: &'a OsStr },
    Rename { from: Place<'a>, to: Place<'a> },
    Exchange { a: Place<'a>, b: Place<'a> },
}

impl fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |(dir, name): &Place<'_>| dir.path().join(name).display().to_string();
        match self {
            Change::Write { path, offset, len, .. } => write!(f, "write {} {offset}+{len}", path.display()),
            Change::SetLen { path, len, .. } => write!(f, "set length {} {len}", path.display()),
            Change::SyncFile { path, .. } => write!(f, "sync {}", path.display()),
            Change::Attributes { path } => write!(f, "set attributes {}", path.display()),
            Change::SyncDir { dir } => write!(f, "sync directory {}", dir.path().display()),
            Change::Create { dir, name } => write!(f, "create {}", at(&(dir, name))),
            Change::Remove { dir, name } => write!(f, "remove {}", at(&(dir, name))),
            Change::Rename { from, to } => write!(f, "rename {} to {}", at(from), at(to)),
            Change::Exchange { a, b } => write!(f, "exchange {} and {}", at(a), at(b)),
        }
    }
}

/// Carries out a change.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub(crate) fn mutate<T>(_change: Change<'_>, run: impl FnOnce() -> std::io::Result<T>) -> std::io::Result<T> {
    run()
}

/// Marks a step of another layer at which the process may be ended; a no-op without the feature `crash-points`.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub fn point(_what: &str) {}

/// To be called where the process ends normally: writes the number of points to `LIFEBOAT_CRASH_COUNT_FILE`; a no-op without the
/// feature `crash-points`.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub fn report() {}
