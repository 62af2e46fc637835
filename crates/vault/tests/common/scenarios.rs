//! What every store behind a network has to survive, whichever it is.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use vault::store::conformance::conformance;
use vault::store::{Finding, Store, StoreError, probe};

use crate::proxy::{Break, Proxy};

pub(crate) const MIB: usize = 1 << 20;

pub(crate) fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// The suite, beside a neighbour in the same bucket that is never seen, and what a probe finds out. `store` is at `some/prefix`, `neighbour` at
/// `some/prefix-2`, `whole` at the bucket itself.
pub(crate) async fn conforms(store: &dyn Store, neighbour: &dyn Store, whole: &dyn Store) {
    neighbour.create("a", text("a")).await.unwrap();
    conformance(store).await;
    let keys: Vec<_> = whole.list("").await.unwrap().into_iter().map(|object| object.key).collect();
    assert_eq!(keys, ["some/prefix-2/a"]);
    let report = probe(store).await.unwrap();
    assert!(report.is_usable(), "{report:?}");
    assert_eq!([&report.create_only, &report.conditional_replace, &report.delete], [&Finding::Yes; 3]);
    assert!(report.clock_ahead_seconds.unwrap().abs() <= 2, "{report:?}");
    assert_eq!(store.list("").await.unwrap(), []);
}

/// Listings of more than one page are whole.
pub(crate) async fn lists_many(store: &dyn Store) {
    let keys: Vec<String> = (0..1105).map(|number| format!("c/s{number:04}/db")).collect();
    let made = futures::stream::iter(&keys).map(|key| store.create(key, text("x"))).buffer_unordered(8).collect::<Vec<_>>().await;
    assert!(made.iter().all(Result::is_ok));
    let listed: Vec<_> = store.list("c/").await.unwrap().into_iter().map(|object| object.key).collect();
    assert_eq!(listed, keys);
    let (objects, below) = store.list_shallow("c/").await.unwrap();
    assert_eq!((objects.len(), below.len()), (0, 1105));
    assert_eq!(below[1104], "c/s1104");
}

/// What every operation answers, in one line each.
pub(crate) async fn all_errors(store: &dyn Store) -> Vec<StoreError> {
    let upload = async |size: usize| {
        let mut upload = store.upload("k").await?;
        upload.write(vec![1; size].into()).await?;
        upload.complete().await
    };
    vec![
        store.create("k", text("x")).await.unwrap_err(),
        store.get("k", 10).await.unwrap_err(),
        store.get_range("k", 0..1).await.unwrap_err(),
        store.head("k").await.unwrap_err(),
        store.list("").await.unwrap_err(),
        store.list_shallow("").await.unwrap_err(),
        upload(10).await.unwrap_err(),
        upload(9 * MIB).await.unwrap_err(),
    ]
}

/// Answers that were lost are settled by looking. `store` is reached through the proxy, `direct` is the same one without it.
pub(crate) async fn settles_lost_answers(store: &dyn Store, direct: &dyn Store, proxy: &Proxy) {
    for (number, how) in [Break::LoseAnswer, Break::LoseRequest, Break::SlowDown].into_iter().enumerate() {
        for times in [1, 2] {
            let key = format!("create-{number}-{times}");
            proxy.inject(&format!("PUT {key}"), how, times);
            store.create(&key, text("mine")).await.unwrap_or_else(|error| panic!("{how:?} {times}: {error}"));
            assert_eq!(store.get(&key, 10).await.unwrap().1, text("mine"));
            assert!(matches!(store.create(&key, text("other")).await, Err(StoreError::AlreadyExists { .. })));
        }
    }
    // Somebody else's object stays, and is never taken for ours.
    direct.create("theirs", text("theirs")).await.unwrap();
    proxy.inject("PUT theirs", Break::LoseAnswer, 1);
    assert!(matches!(store.create("theirs", text("mine")).await, Err(StoreError::AlreadyExists { .. })));

    let one = store.replace("lease", text("one"), None).await.unwrap();
    proxy.inject("PUT lease", Break::LoseAnswer, 1);
    let two = store.replace("lease", text("two"), one.etag.as_deref()).await.unwrap();
    assert_eq!(proxy.left(), 0);
    // Where the tag is compared before anything is sent, this one is left over.
    proxy.inject("PUT lease", Break::LoseAnswer, 1);
    assert!(matches!(store.replace("lease", text("three"), one.etag.as_deref()).await, Err(StoreError::Changed { .. })));
    assert_eq!(store.head("lease").await.unwrap().etag, two.etag);
}

/// Uploads survive what can be survived, each of `breaks` (words of a request's first line, and what happens to it), and leave no parts. Nothing is
/// visible of one whose requests with the words of `hopeless` never succeed. `unfinished` counts what there is of unfinished uploads, where that
/// can be counted.
pub(crate) async fn uploads_survive(
    store: &dyn Store,
    proxy: &Proxy,
    breaks: &[(&str, Break)],
    hopeless: &str,
    countable: bool,
    unfinished: impl Fn() -> usize,
) {
    let bytes = Bytes::from((0..20 * MIB).map(|at| (at >> 8) as u8).collect::<Vec<_>>());
    let mut seen = 0;
    for (number, (words, how)) in breaks.iter().copied().enumerate() {
        let key = format!("up-{number}");
        proxy.inject(&format!("{words} {key}"), how, 1);
        let mut upload = store.upload(&key).await.unwrap();
        upload.write(bytes.clone()).await.unwrap();
        // Two parts are under way or there; that they can be seen makes the count of none below worth something.
        seen += unfinished();
        let info = upload.complete().await.unwrap_or_else(|error| panic!("{words} {how:?}: {error}"));
        assert_eq!(info.size, bytes.len() as u64);
        assert!(store.get(&key, info.size).await.unwrap().1 == bytes);
        assert_eq!(proxy.left(), 0, "{words} {how:?}");
    }
    assert_eq!((seen > 0, unfinished()), (countable, 0));
    // More than can be survived: nothing is visible, and nothing stays.
    proxy.inject(&format!("{hopeless} hopeless"), Break::SlowDown, 100);
    let mut upload = store.upload("hopeless").await.unwrap();
    let result = match upload.write(bytes.clone()).await {
        Ok(()) => upload.complete().await.map(drop),
        Err(error) => {
            upload.abort().await;
            Err(error)
        }
    };
    assert!(matches!(result, Err(StoreError::Unreachable { .. })), "{result:?}");
    assert!(matches!(store.head("hopeless").await, Err(StoreError::NotFound { .. })));
    assert_eq!(unfinished(), 0);
}

/// A listing that ends in the middle would hide backups; it is asked for again. `words` tell a request for a listing, whose
/// answer is longer than each of `cuts`.
pub(crate) async fn lists_again(store: &dyn Store, proxy: &Proxy, words: &str, cuts: [usize; 3]) {
    store.create("c/a", text("a")).await.unwrap();
    store.create("c/b/d", text("d")).await.unwrap();
    for cut in cuts {
        proxy.inject(words, Break::CutAnswer(cut), 2);
        assert_eq!(store.list("c/").await.unwrap().len(), 2, "{cut}");
        proxy.inject(words, Break::CutAnswer(cut), 2);
        let (objects, below) = store.list_shallow("c/").await.unwrap();
        assert_eq!((objects.len(), below.len()), (1, 1), "{cut}");
    }
    assert_eq!(proxy.left(), 0);
    proxy.inject(words, Break::CutAnswer(cuts[1]), 1000);
    assert!(matches!(store.list("c/").await, Err(StoreError::Unreachable { .. })));
}

/// Reads go on where they broke off.
pub(crate) async fn reads_go_on(store: &dyn Store, proxy: &Proxy) {
    let bytes = Bytes::from((0..3 * MIB).map(|at| (at >> 6) as u8).collect::<Vec<_>>());
    store.create("r", bytes.clone()).await.unwrap();
    for cut in [0, 10, 2000, MIB, 2 * MIB] {
        proxy.inject("GET /r", Break::CutAnswer(cut), 2);
        assert!(store.get("r", 10 << 20).await.unwrap().1 == bytes, "{cut}");
        proxy.inject("GET /r", Break::CutAnswer(cut), 1);
        assert!(store.get_range("r", 1000..2_500_000).await.unwrap() == bytes.slice(1000..2_500_000), "{cut}");
    }
    assert_eq!(proxy.left(), 0);
    proxy.inject("GET /r", Break::LoseAnswer, 1000);
    let begun = Instant::now();
    assert!(matches!(store.get_range("r", 0..10).await, Err(StoreError::Unreachable { .. })));
    assert!(begun.elapsed() < Duration::from_secs(40));
}

/// A store that never answers is unreachable in bounded time. For virtual time, which jumps to the next time-out whenever all wait.
pub(crate) async fn gives_up(store: &dyn Store) {
    let begun = tokio::time::Instant::now();
    assert!(matches!(store.head("k").await, Err(StoreError::Unreachable { .. })));
    assert!(begun.elapsed() <= Duration::from_secs(45), "{:?}", begun.elapsed());
    let begun = tokio::time::Instant::now();
    assert!(matches!(store.create("k", text("x")).await, Err(StoreError::Unreachable { .. })));
    assert!(begun.elapsed() <= Duration::from_secs(90), "{:?}", begun.elapsed());
    let begun = tokio::time::Instant::now();
    assert!(matches!(store.list("").await, Err(StoreError::Unreachable { .. })));
    assert!(begun.elapsed() <= Duration::from_secs(60), "{:?}", begun.elapsed());
}
