//! What was not made durable, and how to put it back. The model is described in the parent module.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File as StdFile;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Uid};
use rustix::io::Errno;

use super::{Change, Place};
use crate::dir::Dir;

/// Device and inode number. Whatever is noted is held open, so that the number is not given to another file meanwhile.
type Inode = (u64, u64);

fn inode(fd: impl AsFd) -> io::Result<Inode> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// A file's content as far as it is not durable.
struct Content {
    handle: StdFile,
    durable_len: u64,
    /// Offsets and bytes overwritten or cut off below `durable_len`, oldest first.
    overwritten: Vec<(u64, Vec<u8>)>,
}

/// What a removed or replaced name stood for.
enum Kept {
    File(StdFile),
    Dir { inode: Inode, mode: u32, _held: Dir },
    Link(OsString),
}

/// How to take a change of names back.
enum Undo {
    Remove { dir: Dir, name: OsString },
    Restore { dir: Dir, name: OsString, kept: Kept },
    RenameBack { from: (Dir, OsString), to: (Dir, OsString), replaced: Option<Kept> },
    ExchangeBack { a: (Dir, OsString), b: (Dir, OsString) },
}

/// A change of names that is not durable yet.
struct Pending {
    undo: Undo,
    /// Directories not synced since.
    waits: Vec<Inode>,
    /// The names it changed.
    touches: Vec<(Inode, OsString)>,
}

/// What has to be known before a change is carried out.
pub(super) struct Noted(Option<Pending>);

pub(super) struct Forget {
    content: bool,
    names: bool,
    files: HashMap<Inode, Content>,
    pending: Vec<Pending>,
}

impl Forget {
    pub(super) fn new(content: bool, names: bool) -> Self {
        Self { content, names, files: HashMap::new(), pending: Vec::new() }
    }

    /// Notes what is there before `change`.
    pub(super) fn before(&mut self, change: &Change<'_>) -> io::Result<Noted> {
        match change {
            // Content is noted at once, not in `done`: a write that fails may have written a part.
            Change::Write { file, offset, len, .. } => self.note_content(file, *offset, offset.saturating_add(*len))?,
            Change::SetLen { file, len, .. } => self.note_content(file, *len, u64::MAX)?,
            Change::SyncFile { .. } | Change::SyncDir { .. } | Change::Attributes { .. } => {}
            _ if !self.names => {}
            Change::Create { dir, name } => {
                return pending(&[(dir, name)], Undo::Remove { dir: (*dir).clone(), name: (*name).to_owned() });
            }
            Change::Remove { dir, name } => {
                let Some(kept) = keep(dir, name)? else { return Ok(Noted(None)) };
                return pending(&[(dir, name)], Undo::Restore { dir: (*dir).clone(), name: (*name).to_owned(), kept });
            }
            Change::Rename { from, to } => {
                let replaced = keep(to.0, to.1)?;
                return pending(&[*from, *to], Undo::RenameBack { from: owned(from), to: owned(to), replaced });
            }
            Change::Exchange { a, b } => return pending(&[*a, *b], Undo::ExchangeBack { a: owned(a), b: owned(b) }),
        }
        Ok(Noted(None))
    }

    /// Notes that `change` succeeded.
    pub(super) fn done(&mut self, change: &Change<'_>, noted: Noted) {
        self.pending.extend(noted.0);
        match change {
            Change::SyncFile { file, .. } => {
                if let Ok(inode) = inode(file) {
                    self.files.remove(&inode);
                }
            }
            Change::SyncDir { dir } => {
                if let Ok(inode) = inode(dir.fd()) {
                    self.dir_synced(inode);
                }
            }
            _ => {}
        }
    }

    /// Keeps the durable bytes in `from..to` of a file that is about to be changed there.
    fn note_content(&mut self, file: &StdFile, from: u64, to: u64) -> io::Result<()> {
        if !self.content {
            return Ok(());
        }
        let len = file.metadata()?.len();
        let content = match self.files.entry(inode(file)?) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(Content { handle: reopen(file)?, durable_len: len, overwritten: Vec::new() })
            }
        };
        let to = to.min(len).min(content.durable_len);
        if from < to {
            let count = usize::try_from(to - from).map_err(|_| io::Error::other("too large to keep in memory"))?;
            let mut bytes = vec![0; count];
            file.read_exact_at(&mut bytes, from)?;
            content.overwritten.push((from, bytes));
        }
        Ok(())
    }

    fn dir_synced(&mut self, inode: Inode) {
        let mut settled = HashSet::new();
        let mut left = Vec::new();
        // Newest first: a durable change settles the older ones of the same name that it builds on.
        for mut change in std::mem::take(&mut self.pending).into_iter().rev() {
            change.waits.retain(|dir| *dir != inode);
            if change.waits.is_empty() || change.touches.iter().any(|name| settled.contains(name)) {
                settled.extend(change.touches);
            } else {
                left.push(change);
            }
        }
        left.reverse();
        self.pending = left;
    }

    /// Puts everything back that is not durable: content first, since a removed file may have to be copied back.
    pub(super) fn undo(self) -> io::Result<()> {
        for content in self.files.into_values() {
            for (offset, bytes) in content.overwritten.into_iter().rev() {
                content.handle.write_all_at(&bytes, offset)?;
            }
            content.handle.set_len(content.durable_len)?;
        }
        let mut restored = HashMap::new();
        for change in self.pending.into_iter().rev() {
            change.undo.carry_out(&mut restored)?;
        }
        Ok(())
    }
}

fn owned((dir, name): &Place<'_>) -> (Dir, OsString) {
    ((*dir).clone(), (*name).to_owned())
}

fn pending(places: &[Place<'_>], undo: Undo) -> io::Result<Noted> {
    let mut touches = Vec::new();
    for (dir, name) in places {
        touches.push((inode(dir.fd())?, (*name).to_owned()));
    }
    let waits = touches.iter().map(|(dir, _)| *dir).collect();
    Ok(Noted(Some(Pending { undo, waits, touches })))
}

/// Opens a file once more for writing. Not a duplicate, which would keep an advisory lock alive after the owner closed the file.
fn reopen(file: &StdFile) -> io::Result<StdFile> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(format!("/proc/self/fd/{}", file.as_raw_fd()), flags, Mode::empty()) {
        Ok(fd) => Ok(fd.into()),
        Err(_) => file.try_clone(),
    }
}

/// What `name` stands for, held so that it can be put back; `None` if it is not there.
fn keep(dir: &Dir, name: &OsStr) -> io::Result<Option<Kept>> {
    let stat = match rustix::fs::statat(dir.fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(None),
        stat => stat?,
    };
    Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let held = dir.open_dir(name)?;
            Kept::Dir { inode: (stat.st_dev, stat.st_ino), mode: stat.st_mode & 0o7777, _held: held }
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(dir.fd(), name, Vec::new())?;
            Kept::Link(std::os::unix::ffi::OsStringExt::from_vec(target.into_bytes()))
        }
        _ => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            Kept::File(rustix::fs::openat(dir.fd(), name, flags, Mode::empty())?.into())
        }
    }))
}

/// Directories that had to be made anew, by the inode of the one they stand for.
type Restored = HashMap<Inode, Dir>;

/// The directory in which to take a change back; `None` if it is gone for good, and with it every name in it.
fn live(dir: &Dir, restored: &Restored) -> io::Result<Option<Dir>> {
    let stat = rustix::fs::fstat(dir.fd())?;
    if let Some(dir) = restored.get(&(stat.st_dev, stat.st_ino)) {
        return Ok(Some(dir.clone()));
    }
    Ok((stat.st_nlink > 0).then(|| dir.clone()))
}

impl Undo {
    fn carry_out(self, restored: &mut Restored) -> io::Result<()> {
        match self {
            Undo::Remove { dir, name } => {
                let Some(dir) = live(&dir, restored)? else { return Ok(()) };
                match rustix::fs::unlinkat(dir.fd(), &name, AtFlags::empty()) {
                    // What is below goes along, whatever it is.
                    Err(Errno::ISDIR) => std::fs::remove_dir_all(format!("/proc/self/fd/{}/{}", dir.fd().as_raw_fd(), text(&name)?)),
                    other => Ok(other?),
                }
            }
            Undo::Restore { dir, name, kept } => match live(&dir, restored)? {
                Some(dir) => kept.restore(&dir, &name, restored),
                None => Ok(()),
            },
            Undo::RenameBack { from: (from, from_name), to: (to, to_name), replaced } => {
                let (Some(from), Some(to)) = (live(&from, restored)?, live(&to, restored)?) else { return Ok(()) };
                rustix::fs::renameat(to.fd(), &to_name, from.fd(), &from_name)?;
                match replaced {
                    Some(kept) => kept.restore(&to, &to_name, restored),
                    None => Ok(()),
                }
            }
            Undo::ExchangeBack { a: (a, a_name), b: (b, b_name) } => {
                let (Some(a), Some(b)) = (live(&a, restored)?, live(&b, restored)?) else { return Ok(()) };
                Ok(rustix::fs::renameat_with(a.fd(), &a_name, b.fd(), &b_name, RenameFlags::EXCHANGE)?)
            }
        }
    }
}

fn text(name: &OsStr) -> io::Result<&str> {
    name.to_str().ok_or_else(|| io::Error::other("a name that is not UTF-8"))
}

impl Kept {
    fn restore(self, dir: &Dir, name: &OsStr, restored: &mut Restored) -> io::Result<()> {
        match self {
            Kept::Link(target) => Ok(rustix::fs::symlinkat(&target, dir.fd(), name)?),
            Kept::Dir { inode, mode, .. } => {
                rustix::fs::mkdirat(dir.fd(), name, Mode::from_raw_mode(0o700))?;
                let made = dir.open_dir(name)?;
                rustix::fs::fchmod(made.fd(), Mode::from_raw_mode(mode))?;
                restored.insert(inode, made);
                Ok(())
            }
            Kept::File(file) => {
                let meta = file.metadata()?;
                if meta.nlink() > 0 {
                    let held = format!("/proc/self/fd/{}", file.as_raw_fd());
                    return Ok(rustix::fs::linkat(CWD, held, dir.fd(), name, AtFlags::SYMLINK_FOLLOW)?);
                }
                // The last name is gone, and Linux gives such an inode no new one: a copy stands for it.
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let mut copy = StdFile::from(rustix::fs::openat(dir.fd(), name, flags, Mode::from_raw_mode(0o600))?);
                io::copy(&mut &file, &mut copy)?;
                rustix::fs::fchown(&copy, Some(Uid::from_raw(meta.uid())), Some(Gid::from_raw(meta.gid())))?;
                Ok(rustix::fs::fchmod(&copy, Mode::from_raw_mode(meta.mode() & 0o7777))?)
            }
        }
    }
}
