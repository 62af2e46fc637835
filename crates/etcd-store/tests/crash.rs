//! A restore's edits and files, ended at every write, sync, rename and creation in turn, with all forgotten that was not synced.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use bbolt::build::Builder;
use bbolt::{Database, ReadAt};
use etcd_store::cluster::{ClusterSpec, parse_initial_cluster};
use etcd_store::id::Revision;
use etcd_store::raft_snapshot::RaftSnapshot;
use etcd_store::restore::{Edits, apply_edits, write_member_files};
use etcd_store::row::{KeyValue, RowKey};
use etcd_store::{DatabaseFile, Inspection, Options, inspect, wal};

const DIR: &str = "ETCD_STORE_CRASH_DIR";
const TARGET: Revision = Revision(1_000_000);

fn cluster() -> ClusterSpec {
    ClusterSpec::new("t", parse_initial_cluster("a=http://a:1,b=http://b:1").unwrap()).unwrap()
}

fn make_database(path: &Path) {
    let file = DatabaseFile::new(disk::File::create_new(path, 0o600).unwrap()).unwrap();
    let mut builder = Builder::new(&file, 4096).unwrap();
    builder.bucket(b"key", 0).unwrap();
    for main in 2..500 {
        let key = main.to_string();
        let row = KeyValue { key: key.as_bytes(), create_revision: main, mod_revision: main, version: 1, value: &[7; 90], lease: 0 };
        builder.item(&RowKey::put(Revision(main), 0).encode(), &row.encode()).unwrap();
    }
    builder.bucket(b"members", 0).unwrap();
    builder.item(b"1", br#"{"id":1,"peerURLs":["http://old:1"]}"#).unwrap();
    builder.finish(false).unwrap();
}

fn restore(dir: &Path) {
    let member = dir.join("member");
    let database = Database::open(DatabaseFile::open_for_edit(member.join("snap/db")).unwrap()).unwrap();
    let edits = Edits { cluster: Some(cluster()), bump: Some(TARGET), mark_compacted: true, ..Edits::default() };
    apply_edits(database, &edits).unwrap();
    write_member_files(&member, &cluster(), "a", None).unwrap();
}

fn look(dir: &Path) -> Inspection {
    let database = Database::open(DatabaseFile::open(dir.join("member/snap/db")).unwrap()).unwrap();
    assert!(database.source().size() >= database.meta().high_water_mark.0 * 4096);
    inspect(&database, &Options::default()).unwrap()
}

/// What must hold after a crash anywhere; true when the write-ahead log is there, which makes the directory count.
fn judge(dir: &Path) -> bool {
    let after = look(dir);
    let edited = after.revision == TARGET;
    if edited {
        assert_eq!((after.user_keys(), after.epoch, after.members), (498, Some(TARGET), cluster().records()));
    } else {
        assert_eq!((after.members.len(), after.revision, after.live_keys), (1, Revision(499), 498));
    }
    let log = dir.join("member/wal").join(wal::segment_name(0, 0));
    if !log.exists() {
        return false;
    }
    assert!(edited, "a log beside a database that was not edited");
    let summary = wal::summarize(&dir.join("member/wal")).unwrap();
    assert_eq!((summary.snapshot, summary.torn_at), (Some((2, 1)), None));
    let snap = std::fs::read(dir.join("member/snap/0000000000000001-0000000000000002.snap")).unwrap();
    assert_eq!(RaftSnapshot::decode(&snap).unwrap(), RaftSnapshot::bootstrap(&cluster()));
    true
}

/// The process that is ended: this very test, started again by the other one.
#[test]
fn worker() {
    match std::env::var_os(DIR) {
        Some(dir) => restore(Path::new(&dir)),
        None => {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(dir.path().join("member/snap")).unwrap();
            make_database(&dir.path().join("member/snap/db"));
            assert!(!judge(dir.path()));
            restore(dir.path());
            assert!(judge(dir.path()));
        }
    }
}

#[test]
fn a_crash_at_any_point_leaves_the_old_database_or_the_new_member() {
    for forget in ["1", "content", "names"] {
        let mut points = 0;
        loop {
            points += 1;
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(dir.path().join("member/snap")).unwrap();
            make_database(&dir.path().join("member/snap/db"));
            let worker = Command::new(std::env::current_exe().unwrap())
                .args(["worker", "--exact", "--nocapture"])
                .env(DIR, dir.path())
                .env("LIFEBOAT_CRASH_AT", points.to_string())
                .env("LIFEBOAT_CRASH_FORGET", forget)
                .output()
                .unwrap();
            let complete = judge(dir.path());
            if worker.status.success() {
                assert!(complete);
                break;
            }
            let said = String::from_utf8_lossy(&worker.stderr);
            assert_eq!(worker.status.code(), Some(disk::crash::EXIT_CODE), "point {points}: {said}");
        }
        assert!(points > 15, "only {points} points with forget={forget}");
    }
}
