//! What every store must do, as one suite that each of them has to pass.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a suite that fails by panicking, for tests only")]

use bytes::Bytes;

use super::limits::PART_SIZE;
use super::{MAX_SMALL_OBJECT, ObjectInfo, Store, StoreError};

/// Runs the whole suite against an empty store that allows everything, and leaves it empty.
///
/// # Panics
/// At the first thing that the store does wrongly.
pub async fn conformance(store: &dyn Store) {
    assert_eq!(store.list("").await.unwrap(), [], "the suite needs an empty store");
    small_objects(store).await;
    create_only(store).await;
    replacing(store).await;
    ranges(store).await;
    keys(store).await;
    listing(store).await;
    uploads(store).await;
    race(store).await;
    assert_eq!(store.list("").await.unwrap(), []);
    assert_eq!(store.list_shallow("").await.unwrap(), (Vec::new(), Vec::new()));
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn names(objects: &[ObjectInfo]) -> Vec<&str> {
    objects.iter().map(|object| object.key.as_str()).collect()
}

async fn small_objects(store: &dyn Store) {
    let key = "prod/marks/one.json";
    assert!(matches!(store.get(key, 10).await, Err(StoreError::NotFound { key: found }) if found == key));
    assert!(matches!(store.head(key).await, Err(StoreError::NotFound { .. })));
    assert!(matches!(store.get_range(key, 0..1).await, Err(StoreError::NotFound { .. })));
    let created = store.create(key, text("hello")).await.unwrap();
    assert_eq!((created.key.as_str(), created.size), (key, 5));
    let (info, bytes) = store.get(key, 5).await.unwrap();
    assert_eq!((info.size, &bytes[..]), (5, &b"hello"[..]));
    let head = store.head(key).await.unwrap();
    assert_eq!((head.size, &head.etag), (5, &info.etag));
    assert!(created.etag.is_none() || created.etag == info.etag);
    assert!(matches!(store.get(key, 4).await, Err(StoreError::Corrupt { .. })), "larger than the limit");
    let large = Bytes::from(vec![7; MAX_SMALL_OBJECT as usize]);
    store.create("prod/large", large.clone()).await.unwrap();
    assert_eq!(store.get("prod/large", MAX_SMALL_OBJECT).await.unwrap().1, large);
    let beyond = Bytes::from(vec![7; MAX_SMALL_OBJECT as usize + 1]);
    assert!(store.create("prod/beyond", beyond).await.is_err());
    store.create("empty", Bytes::new()).await.unwrap();
    assert_eq!(store.get("empty", 0).await.unwrap().1, Bytes::new());
    for key in [key, "prod/large", "empty", "prod/beyond"] {
        store.delete(key).await.unwrap();
        store.delete(key).await.unwrap();
    }
    assert!(matches!(store.get(key, 10).await, Err(StoreError::NotFound { .. })));
}

async fn create_only(store: &dyn Store) {
    store.create("a/b", text("first")).await.unwrap();
    store.create("a/b", text("first")).await.expect("the same bytes are success");
    for other in ["other", "longer than the first", ""] {
        assert!(matches!(store.create("a/b", text(other)).await, Err(StoreError::AlreadyExists { key }) if key == "a/b"), "{other:?}");
    }
    assert_eq!(store.get("a/b", 100).await.unwrap().1, text("first"));
    store.delete("a/b").await.unwrap();
}

async fn replacing(store: &dyn Store) {
    let key = "prod/lease.json";
    let missing = store.replace(key, text("x"), Some("\"0123456789abcdef0123456789abcdef\"")).await;
    assert!(matches!(missing, Err(StoreError::Changed { .. })), "{missing:?}");
    store.replace(key, text("one"), None).await.unwrap();
    assert!(matches!(store.replace(key, text("other"), None).await, Err(StoreError::Changed { .. })));
    let one = store.head(key).await.unwrap().etag.unwrap();
    let two = store.replace(key, text("two"), Some(&one)).await.unwrap();
    assert!(matches!(store.replace(key, text("three"), Some(&one)).await, Err(StoreError::Changed { .. })));
    let (info, bytes) = store.get(key, 100).await.unwrap();
    assert_eq!(bytes, text("two"));
    assert!(two.etag.is_none() || two.etag == info.etag);
    store.replace(key, text("three"), info.etag.as_deref()).await.unwrap();
    store.delete(key).await.unwrap();
}

async fn ranges(store: &dyn Store) {
    store.create("r", text("0123456789")).await.unwrap();
    for range in [0..10, 0..1, 3..7, 9..10] {
        let want = &b"0123456789"[range.start as usize..range.end as usize];
        assert_eq!(&store.get_range("r", range).await.unwrap()[..], want);
    }
    assert_eq!(store.get_range("r", 4..4).await.unwrap(), Bytes::new());
    for range in [0..11, 5..100, 10..11, 11..12, 100..101, 11..11] {
        let found = store.get_range("r", range.clone()).await;
        assert!(matches!(found, Err(StoreError::Corrupt { .. })), "{range:?}: {found:?}");
    }
    store.delete("r").await.unwrap();
}

async fn keys(store: &dyn Store) {
    for bad in ["", "/a", "a/", "a//b", "../a", "a/../b", ".tmp-1", "a/.hidden", "a b", "a\0b", "ä", "a%2Fb", "-a"] {
        assert!(matches!(store.create(bad, text("x")).await, Err(StoreError::Corrupt { .. })), "{bad:?}");
        assert!(store.get(bad, 1).await.is_err(), "{bad:?}");
        assert!(store.get_range(bad, 0..1).await.is_err(), "{bad:?}");
        assert!(store.head(bad).await.is_err(), "{bad:?}");
        assert!(store.delete(bad).await.is_err(), "{bad:?}");
        assert!(store.replace(bad, text("x"), None).await.is_err(), "{bad:?}");
        assert!(store.upload(bad).await.is_err(), "{bad:?}");
    }
    for bad in ["a", "/", "../", "a//", ".hidden/"] {
        assert!(store.list(bad).await.is_err(), "{bad:?}");
        assert!(store.list_shallow(bad).await.is_err(), "{bad:?}");
    }
}

async fn listing(store: &dyn Store) {
    let all = [
        "a.json",
        "prod-2/x",
        "prod/lineages/0001.json",
        "prod/snapshots/1/db",
        "prod/snapshots/1/manifest.json",
        "prod/snapshots/2/db",
        "z",
    ];
    for key in all.iter().rev() {
        store.create(key, text(key)).await.unwrap();
    }
    let listed = store.list("").await.unwrap();
    assert_eq!(names(&listed), all);
    assert!(listed.iter().all(|object| object.size == object.key.len() as u64));
    assert_eq!(store.head("z").await.unwrap().etag, listed[6].etag);
    assert_eq!(names(&store.list("prod/").await.unwrap()), all[2..6]);
    assert_eq!(names(&store.list("prod/snapshots/1/").await.unwrap()), all[3..5]);
    assert_eq!(store.list("none/").await.unwrap(), []);
    assert_eq!(store.list("a.json/").await.unwrap_or_default(), []);
    let (objects, below) = store.list_shallow("").await.unwrap();
    assert_eq!((names(&objects), below), (vec!["a.json", "z"], vec!["prod".to_owned(), "prod-2".to_owned()]));
    let (objects, below) = store.list_shallow("prod/snapshots/").await.unwrap();
    assert_eq!((names(&objects), below), (vec![], vec!["prod/snapshots/1".to_owned(), "prod/snapshots/2".to_owned()]));
    assert_eq!(store.list_shallow("none/").await.unwrap(), (Vec::new(), Vec::new()));
    assert!(matches!(store.head("prod").await, Err(StoreError::NotFound { .. })), "a prefix is no object");
    assert!(matches!(store.get("prod/snapshots", 10).await, Err(StoreError::NotFound { .. })), "a prefix is no object");
    for key in all {
        store.delete(key).await.unwrap();
    }
}

/// Bytes that differ at every place that could be mixed up.
fn pattern(len: usize) -> Bytes {
    (0..len).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect::<Vec<_>>().into()
}

async fn upload_in(store: &dyn Store, key: &str, bytes: &Bytes, piece: usize) -> ObjectInfo {
    let mut upload = store.upload(key).await.unwrap();
    let mut at = 0;
    while at < bytes.len() {
        let end = (at + piece).min(bytes.len());
        upload.write(bytes.slice(at..end)).await.unwrap();
        at = end;
    }
    assert!(matches!(store.head(key).await, Err(StoreError::NotFound { .. })), "visible before it is complete");
    assert_eq!(store.list("").await.unwrap(), [], "listed before it is complete");
    upload.complete().await.unwrap()
}

async fn uploads(store: &dyn Store) {
    let key = "prod/snapshots/1/db.zst.age";
    let sizes = [0, 1, 1 << 20, PART_SIZE - 1, PART_SIZE, PART_SIZE + 1, 3 * PART_SIZE, 3 * PART_SIZE + 12345];
    for (size, piece) in sizes.into_iter().zip([1, 1, 1000, 1 << 20, PART_SIZE, 4_194_305, 20 << 20, 65_536]) {
        let bytes = pattern(size);
        let info = upload_in(store, key, &bytes, piece).await;
        assert_eq!((info.key.as_str(), info.size), (key, size as u64));
        assert_eq!(store.head(key).await.unwrap(), info);
        assert!(store.get(key, size as u64).await.unwrap().1 == bytes, "{size} bytes read back differ");
        if size > 100 {
            let middle = size as u64 / 2;
            assert_eq!(store.get_range(key, middle - 50..middle + 50).await.unwrap(), bytes.slice(size / 2 - 50..size / 2 + 50));
        }
        store.delete(key).await.unwrap();
    }
    for size in [10, 2 * PART_SIZE + 1] {
        let mut upload = store.upload(key).await.unwrap();
        upload.write(pattern(size)).await.unwrap();
        upload.abort().await;
        let mut upload = store.upload(key).await.unwrap();
        upload.write(pattern(size)).await.unwrap();
        drop(upload);
        assert!(matches!(store.head(key).await, Err(StoreError::NotFound { .. })));
    }
}

/// Of several writers that create one key with different bytes, exactly one succeeds.
async fn race(store: &dyn Store) {
    let writers = (0..8).map(|number| store.create("race", text(&format!("writer {number}"))));
    let results = futures::future::join_all(writers).await;
    let winners: Vec<usize> = results.iter().enumerate().filter(|(_, result)| result.is_ok()).map(|(number, _)| number).collect();
    assert_eq!(winners.len(), 1, "{results:?}");
    assert!(results.iter().all(|result| matches!(result, Ok(_) | Err(StoreError::AlreadyExists { .. }))), "{results:?}");
    assert_eq!(store.get("race", 100).await.unwrap().1, text(&format!("writer {}", winners[0])));
    store.delete("race").await.unwrap();
}
