//! The file layer over which everything of Lifeboat that must survive a crash is written.
//!
//! What it is for: positional file access ([`File`]), directory handles that are never fooled by symbolic links ([`Dir`]), the
//! same operations by path ([`create_dir_all`], [`rename`], [`exchange`], …), whole small files that appear complete or not at all
//! ([`publish_new`], [`publish_replace`]), and facts about places ([`free_space`], [`is_tmpfs`], [`is_mount_point`]). With the
//! feature `crash-points` every mutating call is counted and the process can be ended at any one of them, forgetting what was
//! not made durable: see [`crash`].
//!
//! What it never does: it knows nothing of what is in the files, never follows a symbolic link as the last component unless the
//! name of the function says so, never deletes what it was not told to delete, retries nothing but `EINTR`.
//!
//! Invariants:
//! - Writing is not durable before [`File::sync`]; a name (create, link, rename, remove, mkdir) is not durable before the
//!   directory that holds it is synced ([`Dir::sync`], [`sync_dir`]). `sync` of a new file says nothing about its name.
//! - Only what is named `publish_…`, `…_all` or `sync_…` syncs by itself; each says what.
//! - Modes are exact: the process's umask does not matter.
//! - Without `crash-points` each function is the plain system call.

pub mod crash;
mod dir;
mod file;
mod ops;
mod place;
mod publish;

pub use dir::{Dir, Entry, Kind, Stat};
pub use file::File;
pub use ops::{
    ExchangeError, create_dir, create_dir_all, exchange, hard_link, list_dir, remove_dir, remove_dir_all, remove_file, rename,
    rename_no_replace, sync_dir, sync_tree,
};
pub use place::{copy_ownership, copy_ownership_all, free_space, is_mount_point, is_tmpfs, same_filesystem, set_owner_all};
pub use publish::{TEMP_PREFIX, publish_new, publish_replace, temp_name};
