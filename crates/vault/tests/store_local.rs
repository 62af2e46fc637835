//! The stores that need no server: in memory, in a directory, and the one that fails on demand.

#![allow(clippy::unwrap_used, missing_docs)]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use vault::store::conformance::conformance;
use vault::store::fault::{Fault, FaultKind, FaultStore, Op};
use vault::store::{FileStore, Finding, MemoryStore, Store, StoreError, StoreOptions, Unfinished, open_store, probe};

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn directory() -> (tempfile::TempDir, FileStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::open(dir.path(), "file:///test", false).unwrap();
    (dir, store)
}

#[tokio::test]
async fn memory_conforms() {
    conformance(&MemoryStore::new()).await;
}

#[tokio::test]
async fn a_directory_conforms() {
    let (dir, store) = directory();
    // What others keep there is neither listed nor touched.
    std::fs::create_dir(dir.path().join("lost+found")).unwrap();
    std::fs::write(dir.path().join(".tmp-12-3-abc"), "left by a crash").unwrap();
    conformance(&store).await;
    let mut left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, [".lock", ".tmp-12-3-abc", "lost+found"]);
}

#[tokio::test]
async fn a_healthy_fault_store_conforms() {
    conformance(&FaultStore::new(Arc::new(MemoryStore::new()))).await;
}

#[tokio::test]
async fn a_missing_root_is_said_and_made_only_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}/a/b", dir.path().display());
    let missing = open_store(&url, &StoreOptions::default());
    assert!(matches!(missing, Err(StoreError::NoRoot { root }) if root == url));
    let store = open_store(&url, &StoreOptions { create_root: true, ..StoreOptions::default() }).unwrap();
    store.create("lifeboat.json", text("{}")).await.unwrap();
    std::fs::remove_dir_all(dir.path().join("a")).unwrap();
    // A root that disappears (an unmounted disk) is never made again by a write.
    assert!(matches!(store.create("x", text("x")).await, Err(StoreError::NoRoot { .. })));
    assert!(matches!(store.list("").await, Err(StoreError::NoRoot { .. })));
    assert!(matches!(store.head("x").await, Err(StoreError::NoRoot { .. })));
    assert!(matches!(store.upload("x").await, Err(StoreError::NoRoot { .. })));
    assert!(matches!(probe(store.as_ref()).await, Err(StoreError::NoRoot { .. })));
    std::fs::write(dir.path().join("a"), "a file").unwrap();
    assert!(matches!(open_store(&url, &StoreOptions::default()), Err(StoreError::NoRoot { .. })));
}

#[tokio::test]
async fn links_below_the_root_are_refused() {
    let (dir, store) = directory();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "outside").unwrap();
    store.create("prod/real", text("inside")).await.unwrap();
    symlink(outside.path().join("secret"), dir.path().join("prod/link")).unwrap();
    symlink(outside.path(), dir.path().join("linked")).unwrap();
    for key in ["prod/link", "linked/secret"] {
        assert!(matches!(store.get(key, 100).await, Err(StoreError::Corrupt { .. })), "{key}");
        assert!(matches!(store.get_range(key, 0..1).await, Err(StoreError::Corrupt { .. })), "{key}");
        assert!(matches!(store.head(key).await, Err(StoreError::Corrupt { .. })), "{key}");
    }
    assert!(store.create("prod/link", text("outside")).await.is_err(), "not even when what the link leads to has the same bytes");
    for result in [store.create("linked/new", text("x")).await.err(), store.upload("linked/new").await.err()] {
        assert!(matches!(result, Some(StoreError::Corrupt { .. })), "{result:?}");
    }
    assert!(matches!(store.delete("linked/secret").await, Err(StoreError::Corrupt { .. })));
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    // A listing that left objects out without a word would be worse than none.
    assert!(matches!(store.list("").await, Err(StoreError::Corrupt { key, .. }) if key == "linked"));
    assert!(matches!(store.list_shallow("prod/").await, Err(StoreError::Corrupt { key, .. }) if key == "prod/link"));
    assert!(matches!(store.list("linked/").await, Err(StoreError::Corrupt { .. })));
}

#[tokio::test]
async fn files_belong_to_the_writer_alone() {
    let (dir, store) = directory();
    store.create("prod/x", text("x")).await.unwrap();
    let mode = |name: &str| dir.path().join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("prod"), mode("prod/x")), (0o700, 0o600));
}

#[tokio::test]
async fn empty_directories_are_not_listed_and_go_with_their_last_object() {
    let (dir, store) = directory();
    std::fs::create_dir_all(dir.path().join("empty/deep")).unwrap();
    store.create("prod/snapshots/1/db", text("x")).await.unwrap();
    store.create("prod/y", text("y")).await.unwrap();
    assert_eq!(store.list_shallow("").await.unwrap().1, ["prod"]);
    store.delete("prod/snapshots/1/db").await.unwrap();
    assert!(!dir.path().join("prod/snapshots").exists());
    assert!(dir.path().join("prod/y").exists());
}

#[tokio::test]
async fn an_upload_that_is_given_up_leaves_no_file() {
    let (dir, store) = directory();
    let mut upload = store.upload("a/b").await.unwrap();
    upload.write(vec![1; 3 << 20].into()).await.unwrap();
    drop(upload);
    let mut upload = store.upload("a/b").await.unwrap();
    upload.write(vec![1; 3 << 20].into()).await.unwrap();
    upload.abort().await;
    assert!(!dir.path().join("a").exists());
    store.create("a/b", text("there")).await.unwrap();
    let mut upload = store.upload("a/b").await.unwrap();
    upload.write(text("other")).await.unwrap();
    assert!(matches!(upload.complete().await, Err(StoreError::AlreadyExists { .. })));
    assert_eq!(std::fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
    assert_eq!(store.get("a/b", 10).await.unwrap().1, text("there"));
}

#[tokio::test]
async fn what_a_crash_left_is_found_and_goes_without_touching_an_object() {
    let (dir, store) = directory();
    store.create("prod/snapshots/one/db", text("an object")).await.unwrap();
    let left = dir.path().join("prod/snapshots/two");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join(".tmp-12-3-abc"), "left by a crash").unwrap();
    std::fs::write(dir.path().join("prod/.tmp-1"), "elsewhere").unwrap();
    let found = store.unfinished("prod/snapshots/").await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].key.as_str(), found[0].size), ("prod/snapshots/two/.tmp-12-3-abc", 15));
    assert!(found[0].changed.elapsed().unwrap() < std::time::Duration::from_secs(600));
    for _ in 0..2 {
        store.discard(&found[0]).await.unwrap();
    }
    assert!(!left.exists() && dir.path().join("prod/.tmp-1").exists());
    for key in ["prod/snapshots/one/db", "prod/../.tmp-1", ".tmp-1/../../x", "prod/snapshots/one/.tmp-/x"] {
        let wrong = Unfinished { key: key.to_owned(), ..found[0].clone() };
        assert!(store.discard(&wrong).await.is_err(), "{key}");
    }
    assert_eq!(store.list("").await.unwrap().len(), 1);
    assert!(store.unfinished("nothing/here/").await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replacements_of_one_key_do_not_overtake_each_other() {
    let (_dir, store) = directory();
    store.replace("lease", text("0"), None).await.unwrap();
    let store = Arc::new(store);
    let count = |store: Arc<FileStore>| async move {
        let mut done = 0;
        while done < 20 {
            let (info, bytes) = store.get("lease", 10).await.unwrap();
            let next = String::from_utf8(bytes.to_vec()).unwrap().parse::<u32>().unwrap() + 1;
            match store.replace("lease", text(&next.to_string()), info.etag.as_deref()).await {
                Ok(_) => done += 1,
                Err(StoreError::Changed { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    let writers: Vec<_> = (0..4).map(|_| tokio::spawn(count(Arc::clone(&store)))).collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(store.get("lease", 10).await.unwrap().1, text("80"));
}

#[tokio::test]
async fn the_probe_tells_what_the_store_does_and_leaves_nothing() {
    let (_dir, file) = directory();
    let memory = MemoryStore::new();
    for store in [&file as &dyn Store, &memory] {
        let report = probe(store).await.unwrap();
        assert!(report.is_usable(), "{report:?}");
        assert_eq!([&report.create_only, &report.conditional_replace, &report.delete], [&Finding::Yes; 3]);
        assert_eq!(report.left_behind, [] as [String; 0]);
        assert_eq!(store.list("").await.unwrap(), []);
    }
    assert!(probe(&file).await.unwrap().clock_ahead_seconds.unwrap().abs() <= 2);
}

#[tokio::test]
async fn the_probe_sees_what_does_not_work() {
    let store = FaultStore::new(Arc::new(MemoryStore::new()));
    store.inject(Fault::new(FaultKind::Deny).on(Op::Delete));
    store.inject(Fault::new(FaultKind::Deny).on(Op::Replace));
    let report = probe(&store).await.unwrap();
    assert!(report.is_usable(), "credentials that cannot delete are good ones");
    assert!(matches!(report.delete, Finding::Denied(_)) && matches!(report.conditional_replace, Finding::Denied(_)), "{report:?}");
    assert_eq!(report.left_behind.len(), 3);
    assert!(report.left_behind.iter().all(|key| key.starts_with("PROBE-")));

    for (fault, op) in
        [(FaultKind::Flip(4), Op::GetRange), (FaultKind::Hide, Op::List), (FaultKind::Flip(0), Op::Get), (FaultKind::Deny, Op::Complete)]
    {
        let store = FaultStore::new(Arc::new(MemoryStore::new()));
        store.inject(Fault::new(fault).on(op));
        let report = probe(&store).await.unwrap();
        assert!(!report.is_usable(), "{op:?}: {report:?}");
    }
    let store = FaultStore::new(Arc::new(MemoryStore::new()));
    store.inject(Fault::new(FaultKind::Deny).on(Op::Create));
    assert!(matches!(probe(&store).await.unwrap().create, Finding::Denied(_)));
    store.heal();
    store.inject(Fault::new(FaultKind::FailBefore));
    assert!(matches!(probe(&store).await, Err(StoreError::Unreachable { .. })));
}

#[tokio::test(start_paused = true)]
async fn faults_happen_where_they_are_asked_for() {
    let memory = MemoryStore::new();
    let store = FaultStore::new(Arc::new(memory.clone()));
    store.inject(Fault::new(FaultKind::FailAfter).on(Op::Create).key("manifest").nth(1));
    store.create("a/manifest.json", text("1")).await.unwrap();
    store.create("a/other", text("1")).await.unwrap();
    assert!(matches!(store.create("b/manifest.json", text("2")).await, Err(StoreError::Unreachable { .. })));
    assert!(memory.head("b/manifest.json").await.is_ok(), "it was written all the same");
    store.inject(Fault::new(FaultKind::FailBefore).on(Op::Create).first(1));
    assert!(store.create("c", text("3")).await.is_err());
    assert!(memory.head("c").await.is_err());
    store.create("c", text("0123456789")).await.unwrap();
    store.inject(Fault::new(FaultKind::Truncate(4)).key("c"));
    assert_eq!(store.head("c").await.unwrap().size, 4);
    assert_eq!(store.get("c", 100).await.unwrap().1, text("0123"));
    assert!(matches!(store.get_range("c", 2..6).await, Err(StoreError::Corrupt { .. })));
    assert_eq!(store.get_range("c", 2..4).await.unwrap(), text("23"));
    store.heal();
    store.inject(Fault::new(FaultKind::Slow(Duration::from_secs(60))).on(Op::Complete));
    let begun = tokio::time::Instant::now();
    store.upload("d").await.unwrap().complete().await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_secs(60));
    store.inject(Fault::new(FaultKind::Full).on(Op::Write));
    let mut upload = store.upload("e").await.unwrap();
    assert!(matches!(upload.write(text("x")).await, Err(StoreError::Full { .. })));
    assert_eq!((store.count(Op::Write), store.count(Op::Complete)), (1, 1));
    assert_eq!(store.log()[0], (Op::Create, "a/manifest.json".to_owned()));
}
