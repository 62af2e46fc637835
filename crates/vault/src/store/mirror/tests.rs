#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::*;
use crate::store::MemoryStore;
use crate::store::fault::{Fault, FaultKind, FaultStore, Op};

const KEY: &str = "prod/snapshots/x/db";

struct Bench {
    memories: Vec<MemoryStore>,
    faults: Vec<FaultStore>,
    mirror: MirrorStore,
}

impl Bench {
    fn new(count: usize, least: usize) -> Self {
        let memories: Vec<MemoryStore> = (0..count).map(|_| MemoryStore::new()).collect();
        let faults: Vec<FaultStore> = memories.iter().map(|memory| FaultStore::new(Arc::new(memory.clone()))).collect();
        let mut stores = faults.iter().map(|store| Arc::new(store.clone()) as Arc<dyn Store>);
        let first = stores.next().unwrap();
        let mirror = MirrorStore::new(first, stores.collect(), least);
        Self { memories, faults, mirror }
    }

    fn inject(&self, at: usize, op: Op, kind: FaultKind) {
        self.faults[at].inject(Fault::new(kind).on(op));
    }

    fn out(&self) -> Vec<usize> {
        self.mirror.dropped().into_iter().map(|(at, _)| at).collect()
    }

    async fn holds(&self, at: usize, key: &str) -> Option<Bytes> {
        self.memories[at].get(key, 1 << 20).await.ok().map(|(_, bytes)| bytes)
    }

    /// Uploads four pieces; after the second, `between` happens.
    async fn upload(&self, between: impl AsyncFnOnce()) -> Result<ObjectInfo, StoreError> {
        let mut upload = self.mirror.upload(KEY).await?;
        let mut between = Some(between);
        for (n, piece) in ["one ", "two ", "three ", "four"].into_iter().enumerate() {
            if n == 2
                && let Some(between) = between.take()
            {
                between().await;
            }
            if let Err(error) = upload.write(Bytes::from_static(piece.as_bytes())).await {
                upload.abort().await;
                return Err(error);
            }
        }
        upload.settle().await?;
        upload.complete().await
    }
}

const WHOLE: &[u8] = b"one two three four";

#[tokio::test]
async fn of_one_store_it_is_that_store() {
    let bench = Bench::new(1, 1);
    crate::store::conformance::conformance(&bench.mirror).await;
    assert!(bench.mirror.dropped().is_empty());
}

#[tokio::test]
async fn a_lease_lies_in_the_first_store_alone() {
    let bench = Bench::new(2, 1);
    let made = bench.mirror.replace("lease", Bytes::from_static(b"1"), None).await.unwrap();
    bench.mirror.replace("lease", Bytes::from_static(b"2"), made.etag.as_deref()).await.unwrap();
    assert_eq!((bench.holds(0, "lease").await.as_deref(), bench.holds(1, "lease").await), (Some(&b"2"[..]), None));
    assert!(bench.out().is_empty());
}

#[tokio::test]
async fn an_object_reaches_every_store_byte_for_byte() {
    let bench = Bench::new(3, 3);
    assert_eq!(bench.upload(async || ()).await.unwrap().size, WHOLE.len() as u64);
    bench.mirror.create("a", Bytes::from_static(b"small")).await.unwrap();
    for at in 0..3 {
        assert_eq!(bench.holds(at, KEY).await.as_deref(), Some(WHOLE));
        assert_eq!(bench.holds(at, "a").await.as_deref(), Some(&b"small"[..]));
    }
}

/// Whichever store fails, and whenever: the others have the object, and the one that failed is out for good.
#[tokio::test]
async fn a_store_that_fails_drops_out_and_the_others_go_on() {
    for at in 0..3 {
        for op in [Op::Upload, Op::Write, Op::Complete] {
            for kind in [FaultKind::FailBefore, FaultKind::FailAfter, FaultKind::Deny, FaultKind::Full] {
                let bench = Bench::new(3, 1);
                bench.inject(at, op, kind);
                bench.upload(async || ()).await.unwrap();
                assert_eq!(bench.out(), [at], "{op:?} {kind:?}");
                bench.mirror.create("later", Bytes::from_static(b"x")).await.unwrap();
                for other in 0..3 {
                    assert!(bench.holds(other, KEY).await.is_some() || other == at, "{op:?} {kind:?}");
                    assert_eq!(bench.holds(other, "later").await.is_some(), other != at, "nothing more is written to it");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_store_that_fails_in_the_middle_shows_nothing() {
    let bench = Bench::new(2, 1);
    bench.upload(async || bench.inject(0, Op::Write, FaultKind::FailBefore)).await.unwrap();
    assert_eq!(bench.out(), [0]);
    assert_eq!(bench.holds(0, KEY).await, None);
    assert_eq!(bench.holds(1, KEY).await.as_deref(), Some(WHOLE));
    assert_eq!(bench.faults[0].count(Op::Write), 3, "it is not asked again");
}

#[tokio::test]
async fn below_the_least_nothing_is_written() {
    let bench = Bench::new(2, 2);
    let failed = bench.upload(async || bench.inject(1, Op::Write, FaultKind::Full)).await.unwrap_err();
    assert!(matches!(failed, StoreError::Full { .. }), "{failed}");
    for at in 0..2 {
        assert_eq!(bench.holds(at, KEY).await, None);
    }
    assert!(bench.mirror.create("a", Bytes::new()).await.is_err() && bench.mirror.enough().is_err());
    assert_eq!(bench.holds(0, "a").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stalls_drops_out_and_one_that_is_slow_does_not() {
    let bench = Bench::new(2, 1);
    bench.inject(1, Op::Write, FaultKind::Slow(Duration::from_secs(100)));
    bench.upload(async || ()).await.unwrap();
    assert!(bench.out().is_empty());
    assert_eq!(bench.holds(1, KEY).await.as_deref(), Some(WHOLE));

    let bench = Bench::new(2, 1);
    bench.inject(1, Op::Write, FaultKind::Slow(Duration::from_secs(1_000_000)));
    bench.upload(async || ()).await.unwrap();
    assert_eq!(bench.out(), [1]);
    assert_eq!((bench.holds(0, KEY).await.as_deref(), bench.holds(1, KEY).await), (Some(WHOLE), None));
}

/// The manifest's answer of one store is lost: the other one gets the same bytes, and the first is counted as missing.
#[tokio::test]
async fn an_ambiguous_answer_costs_the_store_and_not_the_object() {
    for at in 0..2 {
        let bench = Bench::new(2, 1);
        bench.inject(at, Op::Create, FaultKind::FailAfter);
        bench.mirror.create("m", Bytes::from_static(b"manifest")).await.unwrap();
        assert_eq!(bench.out(), [at]);
        for store in 0..2 {
            assert_eq!(bench.holds(store, "m").await.as_deref(), Some(&b"manifest"[..]));
        }
    }
}

#[tokio::test]
async fn another_object_in_the_first_store_keeps_all_others_clean() {
    let bench = Bench::new(2, 1);
    bench.memories[0].overwrite("m", "theirs");
    let refused = bench.mirror.create("m", Bytes::from_static(b"ours")).await;
    assert!(matches!(refused, Err(StoreError::AlreadyExists { .. })) && bench.out().is_empty());
    assert_eq!(bench.holds(1, "m").await, None);
    // In another one it is that store's trouble.
    bench.memories[1].overwrite("n", "theirs");
    bench.mirror.create("n", Bytes::from_static(b"ours")).await.unwrap();
    assert_eq!(bench.out(), [1]);
}

#[tokio::test]
async fn a_look_finds_the_store_that_lacks_something() {
    let bench = Bench::new(3, 1);
    for (at, bytes) in [(0, "12345"), (1, "123")] {
        bench.memories[at].overwrite("o", bytes);
    }
    assert_eq!(bench.mirror.head("o").await.unwrap().size, 5);
    assert_eq!(bench.out(), [1, 2]);
    assert!(matches!(bench.mirror.head("none").await, Err(StoreError::NotFound { .. })), "a plain answer takes nobody out");
}

#[tokio::test]
async fn reading_never_mixes_stores() {
    let bench = Bench::new(2, 1);
    bench.mirror.create("a", Bytes::from_static(b"x")).await.unwrap();
    bench.inject(0, Op::Get, FaultKind::FailBefore);
    assert!(matches!(bench.mirror.get("a", 9).await, Err(StoreError::Unreachable { .. })));
    assert!(bench.out().is_empty(), "whoever reads decides whether to begin again with the next one");
    bench.mirror.drop_out(0, StoreError::Full { key: "a".to_owned() });
    assert_eq!(bench.mirror.get("a", 9).await.unwrap().1, Bytes::from_static(b"x"));
    // A look is part of writing: it goes on with the next.
    let bench = Bench::new(2, 1);
    bench.mirror.create("a", Bytes::from_static(b"x")).await.unwrap();
    bench.inject(0, Op::Head, FaultKind::FailBefore);
    assert_eq!(bench.mirror.head("a").await.unwrap().size, 1);
    assert_eq!(bench.out(), [0]);
}
