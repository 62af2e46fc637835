#![allow(clippy::unwrap_used)]

mod prepare;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bbolt::build::Builder;
use bbolt::{Database, Memory};
use etcd_store::id::Revision;
use etcd_store::row::RowKey;
use etcd_store::schema::bucket;
use etcd_store::{DatabaseFile, Options, inspect, wal};
use ring::digest::{SHA256, digest};

use super::*;
use crate::progress::Silent;

/// A row as etcd writes it: key, create and mod revision, version, value.
fn row(key: &str, revision: u8, lease: u8) -> Vec<u8> {
    let mut bytes = vec![0x0a, u8::try_from(key.len()).unwrap()];
    bytes.extend_from_slice(key.as_bytes());
    bytes.extend_from_slice(&[0x10, revision, 0x18, revision, 0x20, 1, 0x2a, 1, b'v']);
    if lease != 0 {
        bytes.extend_from_slice(&[0x30, lease]);
    }
    bytes
}

/// A database with rows from revision 2 on.
fn database(keys: &[&str]) -> Vec<u8> {
    let memory = Memory::default();
    let mut builder = Builder::new(&memory, 4096).unwrap();
    let mut names = bucket::ALL;
    names.sort_unstable();
    for name in names {
        builder.bucket(name.as_bytes(), 0).unwrap();
        if name == bucket::KEY {
            for (key, revision) in keys.iter().zip(2_u8..) {
                builder.item(&RowKey::put(Revision(i64::from(revision)), 0).encode(), &row(key, revision, 0)).unwrap();
            }
        }
    }
    builder.finish(false).unwrap();
    memory.into_bytes()
}

fn with_trailer(mut database: Vec<u8>) -> Vec<u8> {
    let trailer = digest(&SHA256, &database);
    database.extend_from_slice(trailer.as_ref());
    database
}

struct Place {
    dir: tempfile::TempDir,
    snapshot: PathBuf,
}

fn place(content: &[u8]) -> Place {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = dir.path().join("snapshot.db");
    std::fs::write(&snapshot, content).unwrap();
    Place { dir, snapshot }
}

impl Place {
    fn request(&self) -> RestoreRequest {
        RestoreRequest {
            snapshot: self.snapshot.clone(),
            data_dir: self.dir.path().join("etcd"),
            wal_dir: None,
            name: "default".to_owned(),
            initial_cluster: "default=http://localhost:2380".to_owned(),
            token: "etcd-cluster".to_owned(),
            advertise: "http://localhost:2380".to_owned(),
            skip_hash_check: false,
            bump: None,
        }
    }

    /// Every file and directory below, for "nothing is left".
    fn tree(&self) -> Vec<PathBuf> {
        fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                }
                found.push(path);
            }
        }
        let mut found = Vec::new();
        walk(self.dir.path(), &mut found);
        found.sort();
        found
    }
}

fn run(request: &RestoreRequest) -> crate::Outcome<Restored> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(restore(request.clone(), Arc::new(Silent)))
}

#[test]
fn status_tells_a_trailer_that_agrees_from_none_and_from_a_wrong_one() {
    let sound = database(&["a", "b", "a"]);
    let described = status(&place(&with_trailer(sound.clone())).snapshot).unwrap();
    assert_eq!((described.revision, described.live_keys, described.all_bucket_keys), (4, 2, 3));
    assert_eq!((described.total_size, described.trailer), (sound.len() as u64, Trailer::Matches));
    assert_eq!(status(&place(&sound).snapshot).unwrap(), Status { trailer: Trailer::Absent, ..described });

    let mut wrong = with_trailer(sound.clone());
    *wrong.last_mut().unwrap() ^= 1;
    let failure = status(&place(&wrong).snapshot).unwrap_err();
    assert_eq!(failure.code, Code::Unproven);
    let (is, says) = (digest::hex(&with_trailer(sound.clone())[sound.len()..]), digest::hex(&wrong[sound.len()..]));
    assert!(failure.cause.as_ref().is_some_and(|cause| cause.contains(&is) && cause.contains(&says)), "{failure}");
}

/// Byte 0x10000 is far behind the buckets' pages of a small file; page 2 on is what is in use.
fn damaged(mut image: Vec<u8>) -> Vec<u8> {
    image[2 * 4096 + 8] ^= 0xff;
    image
}

#[test]
fn damage_before_and_after_saving_are_told_apart() {
    let before = status(&place(&with_trailer(damaged(database(&["a"])))).snapshot).unwrap_err();
    assert!(before.cause.as_ref().is_some_and(|cause| cause.contains("damaged already")), "{before}");
    let after = status(&place(&damaged(with_trailer(database(&["a"])))).snapshot).unwrap_err();
    assert!(after.cause.as_ref().is_some_and(|cause| cause.contains("after it was saved")), "{after}");
    assert_eq!((before.code, after.code), (Code::Unproven, Code::Unproven));
}

#[test]
fn a_file_that_etcd_has_open_is_refused() {
    let place = place(&database(&["a"]));
    let running = disk::File::open_read_write(&place.snapshot).unwrap();
    assert!(running.try_lock_exclusive().unwrap());
    for failure in [status(&place.snapshot).unwrap_err(), hash_kv(&place.snapshot, Revision(0)).unwrap_err()] {
        assert!(failure.what.contains("in use"), "{failure}");
    }
}

#[test]
fn what_is_no_snapshot_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    assert!(status(&dir.path().join("none")).unwrap_err().what.contains("no such"));
    assert!(status(dir.path()).unwrap_err().what.contains("directory"));
    assert_eq!(status(&place(b"not a database").snapshot).unwrap_err().code, Code::Unproven);
    assert_eq!(status(&place(&[]).snapshot).unwrap_err().code, Code::Unproven);
}

#[test]
fn hash_kv_answers_as_a_server_would() {
    let place = place(&with_trailer(database(&["a", "b"])));
    let own = hash_kv(&place.snapshot, Revision(0)).unwrap();
    assert_eq!((own.revision, own.compact_revision), (Revision(3), -1));
    assert_eq!(hash_kv(&place.snapshot, Revision(3)).unwrap(), own);
    assert_ne!(hash_kv(&place.snapshot, Revision(2)).unwrap().hash, own.hash);
    assert_eq!(hash_kv(&place.snapshot, Revision(4)).unwrap_err().what, "mvcc: required revision is a future revision");
    assert_eq!(hash_kv(&place.snapshot, Revision(-1)).unwrap_err().code, Code::Usage);
}

#[test]
fn only_a_sound_database_of_etcd_is_proven() {
    prove(&database(&["a"])).unwrap();
    prove(&with_trailer(database(&["a"]))).unwrap();
    prove(&damaged(database(&["a"]))).unwrap_err();
    let memory = Memory::default();
    let mut builder = Builder::new(&memory, 4096).unwrap();
    builder.bucket(b"other", 0).unwrap();
    builder.finish(false).unwrap();
    assert!(matches!(prove(&memory).unwrap_err(), etcd_store::Error::NotEtcd));
}

#[test]
fn a_restored_member_is_whole_and_the_snapshot_untouched() {
    let content = with_trailer(database(&["a", "/registry/pods/x", "/registryless"]));
    let place = place(&content);
    let request = RestoreRequest { bump: Some(100), ..place.request() };
    let restored = run(&request).unwrap();
    assert_eq!((restored.revision_before, restored.revision), (Revision(4), Revision(104)));
    assert_eq!((restored.kubernetes_keys, restored.missing_leases), (1, 0));
    let member = request.data_dir.join("member");
    let file = DatabaseFile::open(member.join("snap/db")).unwrap();
    let inspection = inspect(&Database::open(&file).unwrap(), &Options::default()).unwrap();
    assert_eq!((inspection.revision, inspection.epoch), (Revision(104), Some(Revision(104))));
    assert_eq!(inspection.compact_revision, Some(Revision(104)));
    assert_eq!(inspection.members[0].id, restored.member);
    assert_eq!(wal::summarize(&member.join("wal")).unwrap().cluster, Some(restored.cluster));
    assert_eq!(std::fs::read_dir(&request.data_dir).unwrap().count(), 1);
    assert_eq!(std::fs::read(&place.snapshot).unwrap(), content);
}

#[test]
fn alarms_and_missing_leases_are_kept_and_told() {
    let memory = Memory::default();
    let mut builder = Builder::new(&memory, 4096).unwrap();
    builder.bucket(b"alarm", 0).unwrap();
    builder.item(&[0x08, 5, 0x10, 1], &[]).unwrap();
    builder.bucket(b"key", 0).unwrap();
    builder.item(&RowKey::put(Revision(2), 0).encode(), &row("a", 2, 9)).unwrap();
    for name in ["lease", "members", "members_removed", "meta"] {
        builder.bucket(name.as_bytes(), 0).unwrap();
    }
    builder.finish(false).unwrap();
    let place = place(&with_trailer(memory.into_bytes()));
    let restored = run(&place.request()).unwrap();
    assert_eq!((restored.alarms.len(), restored.missing_leases), (1, 1));
    let file = DatabaseFile::open(place.request().data_dir.join("member/snap/db")).unwrap();
    assert_eq!(inspect(&Database::open(&file).unwrap(), &Options::default()).unwrap().alarms, restored.alarms);
}

#[test]
fn a_log_elsewhere_leaves_none_in_the_member() {
    let place = place(&with_trailer(database(&["a"])));
    let request = RestoreRequest { wal_dir: Some(place.dir.path().join("wal")), ..place.request() };
    let restored = run(&request).unwrap();
    assert_eq!(wal::summarize(&place.dir.path().join("wal")).unwrap().node, Some(restored.member));
    assert!(!request.data_dir.join("member/wal").exists());
    // The usual place, said in words.
    let usual = place.dir.path().join("other");
    let request = RestoreRequest { wal_dir: Some(usual.join("member/wal")), data_dir: usual.clone(), ..request };
    run(&request).unwrap();
    assert!(usual.join("member/wal").is_dir());
}

#[test]
fn what_cannot_be_restored_leaves_nothing_behind() {
    let sound = with_trailer(database(&["a"]));
    let mut wrong = sound.clone();
    *wrong.last_mut().unwrap() ^= 1;
    let wal = |place: &Place| Some(place.dir.path().join("wal"));
    type Change = fn(RestoreRequest) -> RestoreRequest;
    let cases: [(&[u8], Change, Code, &str); 9] = [
        (&wrong, |request| request, Code::Unproven, "not what the member sent"),
        (&damaged(database(&["a"])), |request| RestoreRequest { skip_hash_check: true, ..request }, Code::Unproven, "sound"),
        (&database(&["a"]), |request| request, Code::Failed, "no SHA-256 trailer"),
        (&sound, |request| RestoreRequest { name: "m1".to_owned(), ..request }, Code::Failed, "do not fit"),
        (&sound, |request| RestoreRequest { advertise: "http://a:1".to_owned(), ..request }, Code::Failed, "do not fit"),
        (&sound, |request| RestoreRequest { advertise: "a:1".to_owned(), ..request }, Code::Failed, "do not fit"),
        (&sound, |request| RestoreRequest { initial_cluster: "default=".to_owned(), ..request }, Code::Failed, "do not fit"),
        (&sound, |request| RestoreRequest { bump: Some(u64::MAX), ..request }, Code::Failed, "cannot be moved"),
        (&sound, |request| RestoreRequest { wal_dir: Some(request.data_dir.join("member/log")), ..request }, Code::Usage, "is to be"),
    ];
    for (content, change, code, word) in cases {
        let place = place(content);
        let before = place.tree();
        let request = change(RestoreRequest { wal_dir: wal(&place), ..place.request() });
        let failure = run(&request).unwrap_err();
        assert!(failure.code == code && failure.what.contains(word), "{failure}");
        assert_eq!(place.tree(), before, "{word}");
    }
}

#[test]
fn targets_that_hold_something_are_refused_and_stay_as_they_are() {
    let place = place(&with_trailer(database(&["a"])));
    let request = RestoreRequest { wal_dir: Some(place.dir.path().join("wal")), ..place.request() };
    for occupied in [request.data_dir.join("member/snap/db"), request.data_dir.join("photos"), place.dir.path().join("wal/x.wal")] {
        std::fs::create_dir_all(occupied.parent().unwrap()).unwrap();
        std::fs::write(&occupied, "somebody's").unwrap();
        let before = place.tree();
        let failure = run(&request).unwrap_err();
        assert_eq!(failure.code, Code::Failed, "{failure}");
        assert_eq!(place.tree(), before);
        std::fs::remove_dir_all(occupied.parent().unwrap()).unwrap();
        let _ = std::fs::remove_dir_all(&request.data_dir);
    }
    // An empty directory, even with what a fresh filesystem has, is fine.
    std::fs::create_dir_all(request.data_dir.join("lost+found")).unwrap();
    std::fs::create_dir_all(place.dir.path().join("wal/lost+found")).unwrap();
    run(&request).unwrap();
}

#[test]
fn a_restore_that_is_dropped_takes_away_what_it_built() {
    let place = place(&with_trailer(database(&["a"])));
    let before = place.tree();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let outcome = runtime.block_on(async {
        // One poll begins the work; the other branch is ready at the second.
        let restoring = std::pin::pin!(restore(place.request(), Arc::new(Silent)));
        tokio::select! {
            biased;
            outcome = restoring => Some(outcome),
            () = std::future::ready(()) => None,
        }
    });
    // The thread either had put everything in place before the drop returned, or cannot any more.
    if outcome.is_none() {
        let left = place.tree();
        assert!(left == before || left.contains(&place.request().data_dir.join("member/snap/db")), "{left:?}");
        assert!(!left.iter().any(|path| path.to_string_lossy().contains(".lifeboat-")), "{left:?}");
    }
}
