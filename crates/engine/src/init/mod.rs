//! From nothing to a configuration: what was found, what has to be made, and the order in which it is made.
//!
//! Each step is a function of its own, because a person may be asked between them; the command line asks. The order is: look at the cluster (nothing
//! is written); look at the store, make the repository, find out what the store does; the identity; the signing key; the configuration; the kit.
//! Whatever was made before a run ended is found by the next one, which goes on from it. Nothing that exists is ever overwritten, and a
//! configuration has its name only once it was read back and means what was intended.

pub mod cluster;
pub mod existing;
pub mod file;
pub mod here;
pub mod keys;
pub mod kit;
pub mod name;
pub mod store;

use std::path::{Path, PathBuf};

use crate::failure::{Failure, Outcome};

/// Refuses a file that could not be made there: no directory, or none that may be written to. Nothing is made.
pub fn check_writable(file: &Path, what: &str) -> Outcome<()> {
    let failed = |directory: &Path, cause: &dyn std::fmt::Display| {
        Failure::usage(format!("{what} cannot be made there"))
            .object(file.display())
            .cause(format!("{}: {cause}", directory.display()))
            .again()
    };
    let directory = nearest(file);
    let metadata = std::fs::metadata(&directory).map_err(|error| failed(&directory, &error))?;
    if !metadata.is_dir() {
        return Err(failed(&directory, &"not a directory"));
    }
    rustix::fs::access(&directory, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).map_err(|error| failed(&directory, &error))
}

/// As [`check_writable`], for a file whose directory must be there: a key is not put into a directory that came about by a slip of the pen.
pub fn check_directory(file: &Path, what: &str) -> Outcome<()> {
    let directory = file.parent().unwrap_or(Path::new("/"));
    if !directory.as_os_str().is_empty() && !directory.is_dir() {
        return Err(Failure::usage(format!("{what} cannot be made there"))
            .object(file.display())
            .cause(format!("there is no directory {}", directory.display()))
            .again());
    }
    check_writable(file, what)
}

/// The nearest thing above a file that exists.
fn nearest(file: &Path) -> PathBuf {
    file.ancestors()
        .skip(1)
        .map(|above| if above.as_os_str().is_empty() { Path::new(".") } else { above })
        .find(|above| above.symlink_metadata().is_ok())
        .unwrap_or(Path::new("/"))
        .to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_place_that_cannot_be_written_is_told_before_anything_is_done() {
        let directory = tempfile::tempdir().unwrap();
        check_writable(&directory.path().join("a/b/lifeboat.yaml"), "the configuration").unwrap();
        std::fs::write(directory.path().join("file"), "").unwrap();
        let failure = check_writable(&directory.path().join("file/lifeboat.yaml"), "the configuration").unwrap_err();
        assert_eq!(failure.code, crate::Code::Usage);
        assert!(failure.cause.unwrap().contains("not a directory"));
        check_directory(&directory.path().join("identity.txt"), "the identity").unwrap();
        let failure = check_directory(&directory.path().join("a/identity.txt"), "the identity").unwrap_err();
        assert!(failure.cause.unwrap().contains("there is no directory"));
    }
}
