//! Facts about places in the file tree, and taking over owner, mode and label from what was there before.

use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, StatxAttributes, StatxFlags, Uid, XattrFlags};
use rustix::io::Errno;

use crate::crash::{Change, mutate};

/// Bytes that this process may still write on the filesystem of `path` (what is reserved for root is not counted).
///
/// # Errors
/// The system's.
pub fn free_space(path: impl AsRef<Path>) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path.as_ref())?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Whether two existing paths are on one filesystem, so that a rename between them can work. Bind mounts of one filesystem count as
/// one here although a rename between them fails with `CrossesDevices`.
///
/// # Errors
/// The system's.
pub fn same_filesystem(a: impl AsRef<Path>, b: impl AsRef<Path>) -> io::Result<bool> {
    Ok(rustix::fs::stat(a.as_ref())?.st_dev == rustix::fs::stat(b.as_ref())?.st_dev)
}

/// Whether the path is in memory (tmpfs or ramfs) and lost at a reboot.
///
/// # Errors
/// The system's.
pub fn is_tmpfs(path: impl AsRef<Path>) -> io::Result<bool> {
    // linux/magic.h TMPFS_MAGIC and RAMFS_MAGIC.
    const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
    let kind = rustix::fs::statfs(path.as_ref())?.f_type;
    Ok(IN_MEMORY.contains(&(kind.cast_unsigned() & 0xffff_ffff)))
}

/// Whether a directory is the root of a mount (bind mounts included where the kernel says so, Linux 5.8), so that it cannot be
/// renamed. A symbolic link is not one.
///
/// # Errors
/// The system's.
pub fn is_mount_point(path: impl AsRef<Path>) -> io::Result<bool> {
    let path = path.as_ref();
    match rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE) {
        Ok(stat) if stat.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) => {
            return Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
        }
        Ok(_) | Err(Errno::NOSYS | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let here = rustix::fs::lstat(path)?;
    let above = rustix::fs::lstat(path.join(".."))?;
    // The root directory is its own parent.
    Ok(here.st_dev != above.st_dev || here.st_ino == above.st_ino)
}

/// Gives `to` the owner, group, permission bits and (best effort) the SELinux label of `from`; neither may be a symbolic link.
/// For one file or directory, not for what is below it.
///
/// # Errors
/// The system's; `PermissionDenied` when only root may give a file away. Nothing to do is no error.
pub fn copy_ownership(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let want = rustix::fs::lstat(from)?;
    let have = rustix::fs::lstat(to)?;
    if [&want, &have].iter().any(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a symbolic link has no mode to copy"));
    }
    if want.st_uid != have.st_uid || want.st_gid != have.st_gid {
        mutate(Change::Attributes { path: to }, || {
            let (uid, gid) = (Uid::from_raw(want.st_uid), Gid::from_raw(want.st_gid));
            Ok(rustix::fs::chownat(CWD, to, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
        })?;
    }
    let mode = want.st_mode & 0o7777;
    // After the owner: chown clears set-id bits.
    if rustix::fs::lstat(to)?.st_mode & 0o7777 != mode {
        mutate(Change::Attributes { path: to }, || Ok(rustix::fs::chmodat(CWD, to, Mode::from_raw_mode(mode), AtFlags::empty())?))?;
    }
    copy_label(from, to);
    Ok(())
}

/// Gives everything below `to`, and `to` itself, the owner, group and (best effort) SELinux label of `from`, and `to` also its
/// permission bits. Symbolic links below are left alone.
///
/// # Errors
/// As [`copy_ownership`]; what was given away before stays so.
pub fn copy_ownership_all(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let want = rustix::fs::lstat(from)?;
    set_owner_all(to, want.st_uid, want.st_gid)?;
    for_tree(to, &mut |path| {
        copy_label(from, path);
        Ok(())
    })?;
    copy_ownership(from, to)
}

/// Gives a file, or a directory and everything below it, to a user and a group. Symbolic links below are left alone.
///
/// # Errors
/// The system's; `PermissionDenied` when only root may give a file away. Nothing to do is no error.
pub fn set_owner_all(path: impl AsRef<Path>, uid: u32, gid: u32) -> io::Result<()> {
    for_tree(path.as_ref(), &mut |path| {
        let have = rustix::fs::lstat(path)?;
        if have.st_uid == uid && have.st_gid == gid {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        mutate(Change::Attributes { path }, || Ok(rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?))
    })
}

/// Calls `act` for a file or directory and everything below it, links excepted.
fn for_tree(path: &Path, act: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let mut waiting = vec![path.to_owned()];
    while let Some(path) = waiting.pop() {
        let kind = std::fs::symlink_metadata(&path)?.file_type();
        if kind.is_symlink() {
            continue;
        }
        act(&path)?;
        if kind.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                waiting.push(entry?.path());
            }
        }
    }
    Ok(())
}

/// Copies `security.selinux`; where there is no SELinux, or no right to, the policy's default label stays.
fn copy_label(from: &Path, to: &Path) {
    const LABEL: &str = "security.selinux";
    // Labels are short text; the kernel's own limit for a context is a page.
    let mut label = vec![0u8; 4096];
    if let Ok(len) = rustix::fs::lgetxattr(from, LABEL, label.as_mut_slice()) {
        let _ = rustix::fs::lsetxattr(to, LABEL, &label[..len], XattrFlags::empty());
    }
}
