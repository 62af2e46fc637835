//! The files beside the database: the write-ahead log and the raft snapshot.

use std::io;
use std::path::{Path, PathBuf};

use super::BOOTSTRAP_TERM;
use crate::cluster::{ClusterError, ClusterSpec};
use crate::raft_snapshot::{RaftSnapshot, file_name};
use crate::wal;

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Why a member's files could not be written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The member is not one of the cluster's.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The directory for the write-ahead log holds something: a server would start from that.
    #[error("{} is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// A file could not be written, or made durable.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Where a member's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberFiles {
    /// The raft snapshot.
    pub snap: PathBuf,
    /// The first segment of the write-ahead log.
    pub wal: PathBuf,
}

/// Writes the raft snapshot and the write-ahead log with which `own_name` starts as a member of `cluster`, and makes them and
/// every directory on the way durable.
///
/// `member_dir` is the directory etcd calls `member`, under whatever name it is being built; it and its `snap` are created
/// unless they are there. The log goes to `wal_dir`, else to `member_dir/wal`; it must not hold anything. Directories get mode
/// 0700, files 0600. The database at `member_dir/snap/db` is not touched.
///
/// The raft snapshot is durable before the log, which refers to it, gets its name.
///
/// # Errors
///
/// [`FileError`]; what was written so far stays, and no write-ahead log appears.
pub fn write_member_files(
    member_dir: &Path,
    cluster: &ClusterSpec,
    own_name: &str,
    wal_dir: Option<&Path>,
) -> Result<MemberFiles, FileError> {
    let own = cluster.member(own_name)?.id;
    let snap_dir = member_dir.join("snap");
    let wal_dir = wal_dir.map_or_else(|| member_dir.join("wal"), Path::to_owned);
    make_directory(member_dir)?;
    make_directory(&snap_dir)?;
    make_directory(&wal_dir)?;
    refuse_content(&wal_dir)?;

    let snap = snap_dir.join(file_name(BOOTSTRAP_TERM, cluster.last_index()));
    write_file(&snap, &RaftSnapshot::bootstrap(cluster).encode(), None)?;
    at(&snap_dir, disk::sync_dir(&snap_dir))?;

    let wal = wal_dir.join(wal::segment_name(0, 0));
    // etcd steps over files it does not know, so a crash before the rename leaves no log at all.
    let unfinished = wal_dir.join("0.tmp");
    write_file(&unfinished, &wal::bootstrap(cluster, own), Some(wal::SEGMENT_BYTES))?;
    at(&wal, disk::rename(&unfinished, &wal))?;
    at(&wal_dir, disk::sync_dir(&wal_dir))?;
    Ok(MemberFiles { snap, wal })
}

fn make_directory(path: &Path) -> Result<(), FileError> {
    at(path, disk::create_dir_all(path, DIRECTORY_MODE))
}

fn refuse_content(dir: &Path) -> Result<(), FileError> {
    let mut entries = at(dir, std::fs::read_dir(dir))?;
    // The root of a filesystem of its own has this directory.
    match entries.find(|entry| !matches!(entry, Ok(entry) if entry.file_name() == "lost+found")) {
        None => Ok(()),
        Some(entry) => {
            at(dir, entry)?;
            Err(FileError::NotEmpty(dir.to_owned()))
        }
    }
}

/// Writes a new file and makes its content durable; with `length` it is filled up with zeros for which room is reserved.
fn write_file(path: &Path, bytes: &[u8], length: Option<u64>) -> Result<(), FileError> {
    let file = at(path, disk::File::create_new(path, FILE_MODE))?;
    if let Some(length) = length {
        at(path, file.allocate(length))?;
    }
    at(path, file.write_all_at(bytes, 0))?;
    if let Some(length) = length {
        at(path, file.set_len(length))?;
    }
    at(path, file.sync())
}

fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, FileError> {
    result.map_err(|source| FileError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::cluster::parse_initial_cluster;

    fn cluster() -> ClusterSpec {
        ClusterSpec::new("t", parse_initial_cluster("a=http://a:1,b=http://b:1").unwrap()).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn files_are_private_complete_and_readable() {
        let dir = tempfile::tempdir().unwrap();
        let member = dir.path().join("member");
        let files = write_member_files(&member, &cluster(), "b", None).unwrap();
        assert_eq!(files.snap, member.join("snap/0000000000000001-0000000000000002.snap"));
        assert_eq!(files.wal, member.join("wal/0000000000000000-0000000000000000.wal"));
        for path in [&member, &member.join("snap"), &member.join("wal")] {
            assert_eq!(mode(path), 0o700);
        }
        assert_eq!((mode(&files.snap), mode(&files.wal)), (0o600, 0o600));
        assert_eq!(std::fs::metadata(&files.wal).unwrap().len(), wal::SEGMENT_BYTES);
        let summary = wal::summarize(&member.join("wal")).unwrap();
        assert_eq!(summary.node, Some(cluster().member("b").unwrap().id));
        assert_eq!((summary.cluster, summary.snapshot), (Some(cluster().id()), Some((2, 1))));
        let snapshot = RaftSnapshot::decode(&std::fs::read(&files.snap).unwrap()).unwrap();
        assert_eq!(snapshot, RaftSnapshot::bootstrap(&cluster()));
    }

    #[test]
    fn a_log_elsewhere_must_find_its_place_empty() {
        let dir = tempfile::tempdir().unwrap();
        let wal_dir = dir.path().join("elsewhere");
        std::fs::create_dir(&wal_dir).unwrap();
        std::fs::create_dir(wal_dir.join("lost+found")).unwrap();
        let files = write_member_files(&dir.path().join("m1"), &cluster(), "a", Some(&wal_dir)).unwrap();
        assert!(files.wal.starts_with(&wal_dir) && !dir.path().join("m1/wal").exists());
        let again = write_member_files(&dir.path().join("m2"), &cluster(), "a", Some(&wal_dir));
        assert!(matches!(again, Err(FileError::NotEmpty(path)) if path == wal_dir));
        let nobody = write_member_files(&dir.path().join("m3"), &cluster(), "c", None);
        assert!(matches!(nobody, Err(FileError::Cluster(_))));
        assert!(!dir.path().join("m3").exists());
    }
}
