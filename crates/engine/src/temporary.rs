//! A large file that gets its name only when it is complete and durable.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use disk::Dir;

use crate::failure::{Failure, Outcome};
use crate::limits::LEFT_BEHIND_AFTER;

/// Names are at most this long on every filesystem that matters.
const NAME_MAX: usize = 255;

/// The place of a file to be, and the hidden name it has until then. Dropping it removes what has not got its name.
#[derive(Debug)]
pub(crate) struct Temporary {
    dir: Dir,
    hidden: String,
    path: PathBuf,
    name: std::ffi::OsString,
    placed: bool,
}

impl Temporary {
    /// Makes an empty file with mode 0600 beside `path`. Whatever has that name stays as it is for now.
    pub(crate) fn create(path: &Path) -> Outcome<(Self, disk::File)> {
        let Some(name) = path.file_name() else {
            return Err(Failure::usage("this cannot be the name of a file").object(path.display()).again());
        };
        let cannot = |error: &io::Error| {
            let failure = Failure::failed(format!("the file cannot be made: {error}")).object(path.display()).again();
            if error.kind() == io::ErrorKind::NotFound { failure.cause("the directory does not exist") } else { failure }
        };
        let dir = Dir::open(path.parent().unwrap_or(Path::new(""))).map_err(|error| cannot(&error))?;
        refuse_special(path)?;
        sweep(&dir, &prefix(name));
        let hidden = hidden_name(name);
        let file = dir.create_file(&hidden, 0o600).map_err(|error| cannot(&error))?;
        // Held as long as the file is open: nobody sweeps it. Where there are no locks nothing is swept at all.
        let _ = file.try_lock_exclusive();
        Ok((Self { dir, hidden, path: path.to_owned(), name: name.to_owned(), placed: false }, file))
    }

    /// Whether `needed` bytes have room, and reserves them.
    pub(crate) fn reserve(&self, file: &disk::File, needed: u64) -> Outcome<()> {
        let no_room = |detail: String| {
            Failure::failed(format!("there is no room for a snapshot of {needed} bytes")).object(self.path.display()).cause(detail).again()
        };
        let free = disk::free_space(self.dir.path()).map_err(|error| no_room(error.to_string()))?;
        if needed > free {
            return Err(no_room(format!("{free} bytes are free on this filesystem")));
        }
        file.allocate(needed).map_err(|error| no_room(error.to_string()))
    }

    /// Gives the file its name, in place of one that had it, and makes the name durable. The content must be durable already.
    pub(crate) fn place(mut self) -> Outcome<()> {
        let failed =
            |error: io::Error| Failure::failed(format!("the file cannot be given its name: {error}")).object(self.path.display()).again();
        self.dir.rename(&self.hidden, &self.dir, &self.name).map_err(failed)?;
        self.placed = true;
        self.dir.sync().map_err(|error| {
            Failure::failed(format!("the file is complete, but its name could not be made durable: {error}"))
                .object(self.path.display())
                .again()
        })
    }
}

/// A file under a hidden name beside its target, for work that goes by paths. Dropping it removes it, unless it was moved away.
#[derive(Debug)]
pub(crate) struct Hidden(PathBuf);

impl Hidden {
    /// Chooses the name, and sweeps what killed runs for the same target left. The file is not made.
    pub(crate) fn beside(path: &Path) -> Self {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().unwrap_or_default();
        if let Ok(dir) = Dir::open(directory) {
            sweep(&dir, &prefix(name));
        }
        Self(directory.join(hidden_name(name)))
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // Whatever way the work ended, Ctrl-C among them: what has not got its name is in the clear, and of no use.
        let _ = disk::remove_file(&self.0);
    }
}

fn hidden_name(name: &OsStr) -> String {
    let unique = disk::temp_name();
    let hidden = format!("{}{}", prefix(name), unique.trim_start_matches(disk::TEMP_PREFIX));
    if hidden.len() > NAME_MAX { unique } else { hidden }
}

/// What the hidden names for one target begin with.
fn prefix(name: &OsStr) -> String {
    format!(".{}.part", name.to_string_lossy())
}

/// Removes what earlier runs for the same target left when they were killed. Best effort: it is nobody's data, and the next run tries again.
fn sweep(dir: &Dir, prefix: &str) {
    for entry in dir.entries().unwrap_or_default() {
        if entry.name.to_str().and_then(|name| name.strip_prefix(prefix)).is_some_and(is_unique) && is_left_behind(dir, &entry.name) {
            let _ = dir.remove_file(&entry.name);
        }
    }
}

/// Whether this is the end of a name that [`disk::temp_name`] made: process id, count, random.
fn is_unique(end: &str) -> bool {
    let parts: Vec<&str> = end.split('-').collect();
    let of = |part: &str, is: fn(&u8) -> bool| !part.is_empty() && part.as_bytes().iter().all(is);
    matches!(parts[..], [process, count, random] if of(process, u8::is_ascii_digit) && of(count, u8::is_ascii_digit) && of(random, u8::is_ascii_hexdigit))
}

fn is_left_behind(dir: &Dir, name: &OsStr) -> bool {
    let Ok(stat) = dir.stat(name) else { return false };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| i128::try_from(now.as_nanos()).unwrap_or(0));
    let limit = i128::try_from(LEFT_BEHIND_AFTER.as_nanos()).unwrap_or(i128::MAX);
    if stat.kind != disk::Kind::File || now.saturating_sub(stat.modified_ns) < limit {
        return false;
    }
    dir.open_file(name).is_ok_and(|file| file.try_lock_exclusive().unwrap_or(false))
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.placed {
            // Best effort: the failure that led here is the one to be told.
            let _ = self.dir.remove_file(&self.hidden);
        }
    }
}

/// A rename would put a file in the place of a device, or fail on a directory after everything was downloaded.
fn refuse_special(path: &Path) -> Outcome<()> {
    let refuse = |what: &str| {
        Err(Failure::usage(format!("the target is {what}, not a file"))
            .object(path.display())
            .cause("name a file; '-' means standard output")
            .again())
    };
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => refuse("a directory"),
        Ok(metadata) if !metadata.is_file() => refuse("a device, pipe or socket"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        disk::list_dir(dir).unwrap().into_iter().map(|entry| entry.name.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_file_has_its_name_only_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.db");
        std::fs::write(&path, "old").unwrap();
        let (temporary, file) = Temporary::create(&path).unwrap();
        temporary.reserve(&file, 3).unwrap();
        file.write_all_at(b"new", 0).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert!(names(dir.path())[0].starts_with(".s.db.part"));
        file.sync().unwrap();
        temporary.place().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["s.db"]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_given_up_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(250));
        let (temporary, _file) = Temporary::create(&long).unwrap();
        assert_eq!(names(dir.path()).len(), 1);
        drop(temporary);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn what_a_killed_run_left_is_swept_by_the_next_one_for_the_same_target() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, age: std::time::Duration| {
            let file = std::fs::File::create(dir.path().join(name)).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        };
        let old = LEFT_BEHIND_AFTER + std::time::Duration::from_secs(60);
        let (dead, held, young, other, foreign) =
            (".s.db.part12-0-00ab", ".s.db.part13-0-00ab", ".s.db.part14-0-00ab", ".s.db2.part12-0-00ab", ".s.db.part-of-mine");
        for name in [dead, held, other, foreign] {
            write(name, old);
        }
        write(young, std::time::Duration::ZERO);
        let holder = disk::File::open_read_write(dir.path().join(held)).unwrap();
        assert!(holder.try_lock_exclusive().unwrap());
        drop(Temporary::create(&dir.path().join("s.db")).unwrap());
        let mut left = names(dir.path());
        left.sort();
        assert_eq!(left, [foreign, held, young, other].map(str::to_owned));
        drop(holder);
        drop(Temporary::create(&dir.path().join("s.db")).unwrap());
        assert!(!names(dir.path()).contains(&held.to_owned()));
    }

    #[test]
    fn a_hidden_file_is_gone_however_the_work_ended() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("s.db");
        let hidden = Hidden::beside(&target);
        std::fs::write(hidden.path(), "clear text").unwrap();
        assert!(names(dir.path())[0].starts_with(".s.db.part"));
        drop(hidden);
        assert!(names(dir.path()).is_empty());
        let hidden = Hidden::beside(&target);
        std::fs::write(hidden.path(), "whole").unwrap();
        std::fs::rename(hidden.path(), &target).unwrap();
        drop(hidden);
        assert_eq!(names(dir.path()), ["s.db"]);
    }

    #[test]
    fn no_room_is_found_out_beforehand() {
        let dir = tempfile::tempdir().unwrap();
        let (temporary, file) = Temporary::create(&dir.path().join("s.db")).unwrap();
        let failure = temporary.reserve(&file, u64::MAX / 2).unwrap_err();
        assert!(failure.what.contains("no room") && failure.cause.unwrap().contains("bytes are free"));
    }

    #[test]
    fn what_is_no_place_for_a_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (path, word) in [(Path::new("/dev/null"), "device"), (dir.path(), "directory"), (Path::new(".."), "name")] {
            let failure = Temporary::create(path).unwrap_err();
            assert!(failure.what.contains(word), "{failure}");
            assert_eq!(failure.code, crate::Code::Usage);
        }
        let failure = Temporary::create(&dir.path().join("none/s.db")).unwrap_err();
        assert_eq!(failure.cause.as_deref(), Some("the directory does not exist"));
    }
}
