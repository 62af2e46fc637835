//! What the file layer promises without crashes.

#![allow(clippy::unwrap_used, missing_docs)]

use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use disk::{Dir, ExchangeError, File, Kind};

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn names(dir: &std::path::Path) -> Vec<String> {
    disk::list_dir(dir).unwrap().into_iter().map(|entry| entry.name.into_string().unwrap()).collect()
}

#[test]
fn create_new_is_exclusive_and_has_the_exact_mode() {
    let dir = temp();
    let path = dir.path().join("a");
    for mode in [0o600, 0o666, 0o777] {
        let path = dir.path().join(format!("m{mode:o}"));
        File::create_new(&path, mode).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, mode);
    }
    let file = File::create_new(&path, 0o640).unwrap();
    assert_eq!(file.ownership().unwrap().0, 0o640);
    assert_eq!(File::create_new(&path, 0o600).unwrap_err().kind(), ErrorKind::AlreadyExists);
    symlink("nowhere", dir.path().join("dangling")).unwrap();
    assert_eq!(File::create_new(dir.path().join("dangling"), 0o600).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert!(!dir.path().join("nowhere").exists());
}

#[test]
fn reads_and_writes_at_offsets() {
    let dir = temp();
    let file = File::create_new(dir.path().join("a"), 0o600).unwrap();
    file.write_all_at(b"world", 6).unwrap();
    file.write_all_at(b"hello ", 0).unwrap();
    assert_eq!(file.len().unwrap(), 11);
    let mut all = [0; 11];
    file.read_exact_at(&mut all, 0).unwrap();
    assert_eq!(&all, b"hello world");
    let mut more = [0; 8];
    assert_eq!(file.read_at(&mut more, 6).unwrap(), 5);
    assert_eq!(file.read_at(&mut more, 11).unwrap(), 0);
    assert_eq!(file.read_exact_at(&mut more, 6).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    file.allocate(1 << 20).unwrap();
    assert_eq!(file.len().unwrap(), 11);
    file.set_len(5).unwrap();
    file.sync_range(0, 5);
    file.sync().unwrap();
    assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"hello");
}

#[test]
fn opening_refuses_links_and_what_is_no_file() {
    let dir = temp();
    let path = dir.path();
    std::fs::write(path.join("real"), "x").unwrap();
    symlink("real", path.join("link")).unwrap();
    std::fs::create_dir(path.join("sub")).unwrap();
    symlink("sub", path.join("sublink")).unwrap();
    assert_eq!(File::open_read(path.join("link")).unwrap().len().unwrap(), 1);
    assert!(File::open_read_nofollow(path.join("link")).is_err());
    assert!(File::open_read_write(path.join("link")).is_err());
    assert_eq!(File::open_read(path.join("sub")).unwrap_err().kind(), ErrorKind::IsADirectory);
    assert!(File::open_read("/dev/null").is_err());
    let handle = Dir::open(path).unwrap();
    assert!(handle.open_file("link").is_err());
    assert!(handle.open_dir("sublink").is_err());
    assert!(handle.open_dir("sub").is_ok());
    for bad in ["", ".", "..", "sub/x", "../x"] {
        assert_eq!(handle.open_file(bad).unwrap_err().kind(), ErrorKind::InvalidInput, "{bad:?}");
        assert_eq!(handle.create_file(bad, 0o600).unwrap_err().kind(), ErrorKind::InvalidInput, "{bad:?}");
    }
    let kinds: Vec<_> = handle.entries().unwrap().into_iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [Kind::Other, Kind::File, Kind::Dir, Kind::Other]);
}

#[test]
fn unnamed_files_leave_no_name() {
    let dir = temp();
    let file = File::unnamed(dir.path(), 0o600).unwrap();
    file.write_all_at(b"secret", 0).unwrap();
    file.sync_data().unwrap();
    let mut back = [0; 6];
    file.read_exact_at(&mut back, 0).unwrap();
    assert_eq!(&back, b"secret");
    assert!(names(dir.path()).is_empty());
    // /dev/shm is a tmpfs wherever it exists.
    assert!(disk::is_tmpfs("/dev/shm").unwrap());
    assert!(!disk::is_tmpfs("/proc").unwrap());
}

#[test]
fn renames_without_replacing_and_exchanges() {
    let dir = temp();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    std::fs::write(&a, "a").unwrap();
    std::fs::create_dir(&b).unwrap();
    assert_eq!(disk::rename_no_replace(&a, &b).unwrap_err().kind(), ErrorKind::AlreadyExists);
    disk::exchange(&a, &b).unwrap();
    assert!(a.is_dir());
    assert_eq!(std::fs::read(&b).unwrap(), b"a");
    assert!(matches!(disk::exchange(&a, dir.path().join("none")), Err(ExchangeError::Io(error)) if error.kind() == ErrorKind::NotFound));
    disk::rename_no_replace(&b, dir.path().join("c")).unwrap();
    disk::hard_link(dir.path().join("c"), &b).unwrap();
    assert_eq!(disk::hard_link(dir.path().join("c"), &b).unwrap_err().kind(), ErrorKind::AlreadyExists);
    disk::rename(&b, dir.path().join("d")).unwrap();
    assert_eq!(names(dir.path()), ["a", "c", "d"]);
}

#[test]
fn trees_are_made_synced_and_removed() {
    let dir = temp();
    let deep = dir.path().join("x/y/z");
    disk::create_dir_all(&deep, 0o700).unwrap();
    disk::create_dir_all(&deep, 0o755).unwrap();
    assert_eq!(deep.metadata().unwrap().mode() & 0o7777, 0o700);
    std::fs::write(deep.join("f"), "x").unwrap();
    let outside = dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("precious"), "x").unwrap();
    symlink(&outside, deep.join("link")).unwrap();
    disk::sync_tree(dir.path().join("x")).unwrap();
    disk::remove_dir_all(dir.path().join("x")).unwrap();
    assert!(!dir.path().join("x").exists());
    assert!(outside.join("precious").exists());
    std::fs::write(dir.path().join("file"), "x").unwrap();
    assert!(disk::create_dir_all(dir.path().join("file/sub"), 0o700).is_err());
}

#[test]
fn publishing_is_all_or_nothing_and_leaves_no_temporary_file() {
    let dir = temp();
    let path = dir.path().join("state");
    disk::publish_new(&path, b"one", 0o600).unwrap();
    assert_eq!(disk::publish_new(&path, b"two", 0o600).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(&path).unwrap(), b"one");
    disk::publish_replace(&path, b"three", 0o644).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"three");
    assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o644);
    assert_eq!(names(dir.path()), ["state"]);
}

#[test]
fn locks_exclude_other_handles() {
    let dir = temp();
    let path = dir.path().join("lock");
    let one = File::create_new(&path, 0o600).unwrap();
    let two = File::open_read_write(&path).unwrap();
    assert!(one.try_lock_exclusive().unwrap());
    assert!(!two.try_lock_exclusive().unwrap());
    assert!(!two.try_lock_shared().unwrap());
    drop(one);
    assert!(two.try_lock_exclusive().unwrap());
}

#[test]
fn places_tell_the_truth() {
    let dir = temp();
    assert!(disk::free_space(dir.path()).unwrap() > 0);
    assert!(disk::same_filesystem(dir.path(), dir.path()).unwrap());
    assert!(!disk::same_filesystem(dir.path(), "/proc").unwrap());
    assert!(disk::is_mount_point("/").unwrap());
    assert!(disk::is_mount_point("/proc").unwrap());
    assert!(!disk::is_mount_point(dir.path()).unwrap());
    assert_eq!(disk::free_space(dir.path().join("none")).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn ownership_is_copied() {
    let dir = temp();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    std::fs::create_dir(&from).unwrap();
    std::fs::set_permissions(&from, std::fs::Permissions::from_mode(0o2751)).unwrap();
    // Giving a file away needs root; as anybody else the test covers the mode alone.
    let is_root = std::os::unix::fs::chown(&from, Some(1234), Some(5678)).is_ok();
    std::fs::set_permissions(&from, std::fs::Permissions::from_mode(0o2751)).unwrap();
    std::fs::create_dir(&to).unwrap();
    disk::copy_ownership(&from, &to).unwrap();
    let meta = to.metadata().unwrap();
    assert_eq!(meta.mode() & 0o7777, 0o2751);
    assert_eq!((meta.uid(), meta.gid()), (from.metadata().unwrap().uid(), from.metadata().unwrap().gid()));
    assert_eq!(is_root, meta.uid() == 1234);
    symlink("to", dir.path().join("link")).unwrap();
    assert!(disk::copy_ownership(&from, dir.path().join("link")).is_err());
}
