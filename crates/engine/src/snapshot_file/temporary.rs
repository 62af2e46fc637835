//! A large file that gets its name only when it is complete and durable.

use std::io;
use std::path::{Path, PathBuf};

use disk::Dir;

use crate::failure::{Failure, Outcome};

/// Names are at most this long on every filesystem that matters.
const NAME_MAX: usize = 255;

/// The place of a file to be, and the hidden name it has until then. Dropping it removes what has not got its name.
#[derive(Debug)]
pub(super) struct Temporary {
    dir: Dir,
    hidden: String,
    path: PathBuf,
    name: std::ffi::OsString,
    placed: bool,
}

impl Temporary {
    /// Makes an empty file with mode 0600 beside `path`. Whatever has that name stays as it is for now.
    pub(super) fn create(path: &Path) -> Outcome<(Self, disk::File)> {
        let Some(name) = path.file_name() else {
            return Err(Failure::usage("this cannot be the name of a file").object(path.display()).again());
        };
        let cannot = |error: &io::Error| {
            let failure = Failure::failed(format!("the file cannot be made: {error}")).object(path.display()).again();
            if error.kind() == io::ErrorKind::NotFound { failure.cause("the directory does not exist") } else { failure }
        };
        let dir = Dir::open(path.parent().unwrap_or(Path::new(""))).map_err(|error| cannot(&error))?;
        refuse_special(path)?;
        let unique = disk::temp_name();
        let mut hidden = format!(".{}.part{}", name.to_string_lossy(), unique.trim_start_matches(disk::TEMP_PREFIX));
        if hidden.len() > NAME_MAX {
            hidden = unique;
        }
        let file = dir.create_file(&hidden, 0o600).map_err(|error| cannot(&error))?;
        Ok((Self { dir, hidden, path: path.to_owned(), name: name.to_owned(), placed: false }, file))
    }

    /// Whether `needed` bytes have room, and reserves them.
    pub(super) fn reserve(&self, file: &disk::File, needed: u64) -> Outcome<()> {
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
    pub(super) fn place(mut self) -> Outcome<()> {
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
