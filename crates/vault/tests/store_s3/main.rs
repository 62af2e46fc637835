//! The S3 store against real servers over HTTP. `LIFEBOAT_TEST_S3_VERSITYGW` and `LIFEBOAT_TEST_S3_MOTO` name their programs.

#![allow(clippy::unwrap_used, missing_docs, clippy::print_stdout)]

mod server;

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use vault::store::conformance::conformance;
use vault::store::{Finding, PartChecksum, Store, StoreError, StoreOptions, open_store, probe};

use server::{BUCKET, Break, Kind, Proxy, Server, options};

const MIB: usize = 1 << 20;

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn conforms(kind: Kind, checksum: PartChecksum) {
    let Some(server) = Server::start(kind) else { return };
    let options = StoreOptions { checksum, ..server.options("testsecret") };
    let store = open_store(&format!("s3://{BUCKET}/some/prefix"), &options).unwrap();
    // A neighbour in the same bucket is never seen.
    let neighbour = open_store(&format!("s3://{BUCKET}/some/prefix-2"), &options).unwrap();
    neighbour.create("a", text("a")).await.unwrap();
    conformance(store.as_ref()).await;
    let whole = open_store(&format!("s3://{BUCKET}"), &options).unwrap();
    let keys: Vec<_> = whole.list("").await.unwrap().into_iter().map(|object| object.key).collect();
    assert_eq!(keys, ["some/prefix-2/a"]);
    let report = probe(store.as_ref()).await.unwrap();
    assert!(report.is_usable(), "{report:?}");
    assert_eq!([&report.create_only, &report.conditional_replace, &report.delete], [&Finding::Yes; 3]);
    assert!(report.clock_ahead_seconds.unwrap().abs() <= 2, "{report:?}");
    assert_eq!(store.list("").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn versitygw_conforms_with_sha256() {
    conforms(Kind::Versitygw, PartChecksum::Sha256).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versitygw_conforms_with_crc64() {
    conforms(Kind::Versitygw, PartChecksum::Crc64Nvme).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versitygw_conforms_without_checksums() {
    conforms(Kind::Versitygw, PartChecksum::Off).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moto_conforms() {
    conforms(Kind::Moto, PartChecksum::Sha256).await;
}

async fn lists_many(kind: Kind) {
    let Some(server) = Server::start(kind) else { return };
    let store = server.open(server.address, "many");
    let keys: Vec<String> = (0..1105).map(|number| format!("c/s{number:04}/db")).collect();
    let made = futures::stream::iter(&keys).map(|key| store.create(key, text("x"))).buffer_unordered(8).collect::<Vec<_>>().await;
    assert!(made.iter().all(Result::is_ok));
    let listed: Vec<_> = store.list("c/").await.unwrap().into_iter().map(|object| object.key).collect();
    assert_eq!(listed, keys);
    let (objects, below) = store.list_shallow("c/").await.unwrap();
    assert_eq!((objects.len(), below.len()), (0, 1105));
    assert_eq!(below[1104], "c/s1104");
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_of_more_than_one_page_are_whole() {
    lists_many(Kind::Versitygw).await;
    lists_many(Kind::Moto).await;
}

/// What every operation answers, in one line each.
async fn all_errors(store: &dyn Store) -> Vec<StoreError> {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket_is_not_a_missing_object() {
    for kind in [Kind::Versitygw, Kind::Moto] {
        let Some(server) = Server::start(kind) else { continue };
        let store = open_store("s3://no-such-bucket/x", &server.options("testsecret")).unwrap();
        for error in all_errors(store.as_ref()).await {
            assert!(matches!(&error, StoreError::NoRoot { root } if root == "s3://no-such-bucket/x"), "{kind:?}: {error:?}");
        }
        assert!(matches!(probe(store.as_ref()).await, Err(StoreError::NoRoot { .. })));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_denied_at_once() {
    let Some(server) = Server::start(Kind::Versitygw) else { return };
    let begun = Instant::now();
    let store = open_store(&format!("s3://{BUCKET}/x"), &server.options("wrong")).unwrap();
    let errors = all_errors(store.as_ref()).await;
    for error in &errors {
        assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
        assert!(!error.to_string().contains("wrong"), "{error}");
    }
    assert!(errors[0].to_string().contains("SignatureDoesNotMatch"), "{}", errors[0]);
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(matches!(probe(store.as_ref()).await.unwrap().create, Finding::Denied(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_there_is_unreachable_soon() {
    let dir = tempfile::tempdir().unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let store = open_store("s3://some-bucket/x", &options(dir.path(), closed, "testsecret")).unwrap();
    let begun = Instant::now();
    for error in all_errors(store.as_ref()).await {
        assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_trusted_only_when_named() {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let authority = params.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(params, authority_key);
    let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let [ca_file, cert, key_file] = ["ca.pem", "cert.pem", "key.pem"].map(|name| dir.path().join(name));
    std::fs::write(&ca_file, authority.pem()).unwrap();
    std::fs::write(&cert, leaf.pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let extra = ["--cert", cert.to_str().unwrap(), "--key", key_file.to_str().unwrap()];
    let Some(server) = Server::start_with(Kind::Versitygw, &extra) else { return };
    let url = format!("s3://{BUCKET}/tls");
    let options = StoreOptions { endpoint: Some(format!("https://{}", server.address)), ..server.options("testsecret") };
    let refused = open_store(&url, &options).unwrap().head("k").await.unwrap_err();
    assert!(matches!(&refused, StoreError::Unreachable { detail, .. } if detail.contains("certificate")), "{refused}");
    let store = open_store(&url, &StoreOptions { ca_file: Some(ca_file), ..options }).unwrap();
    store.create("k", text("over TLS")).await.unwrap();
    assert_eq!(store.get("k", 10).await.unwrap().1, text("over TLS"));
}

/// Time is virtual here: it jumps to the next time-out whenever all wait.
#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_is_unreachable_in_bounded_time() {
    let dir = tempfile::tempdir().unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let store = open_store("s3://some-bucket/x", &options(dir.path(), silent.local_addr().unwrap(), "testsecret")).unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_are_settled_by_looking() {
    let Some(server) = Server::start(Kind::Versitygw) else { return };
    let proxy = Proxy::before(server.address);
    let store = server.open(proxy.address, "p");
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
    server.open(server.address, "p").create("theirs", text("theirs")).await.unwrap();
    proxy.inject("PUT theirs", Break::LoseAnswer, 1);
    assert!(matches!(store.create("theirs", text("mine")).await, Err(StoreError::AlreadyExists { .. })));

    let one = store.replace("lease", text("one"), None).await.unwrap();
    proxy.inject("PUT lease", Break::LoseAnswer, 1);
    let two = store.replace("lease", text("two"), one.etag.as_deref()).await.unwrap();
    proxy.inject("PUT lease", Break::LoseAnswer, 1);
    assert!(matches!(store.replace("lease", text("three"), one.etag.as_deref()).await, Err(StoreError::Changed { .. })));
    assert_eq!(store.head("lease").await.unwrap().etag, two.etag);
    assert_eq!(proxy.left(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_survive_what_can_be_survived_and_leave_no_parts() {
    let Some(server) = Server::start(Kind::Versitygw) else { return };
    let proxy = Proxy::before(server.address);
    let store = server.open(proxy.address, "p");
    let bytes = Bytes::from((0..20 * MIB).map(|at| (at >> 8) as u8).collect::<Vec<_>>());
    let breaks = [
        ("PUT partNumber=1", Break::LoseAnswer),
        ("PUT partNumber=2", Break::LoseRequest),
        ("PUT partNumber=3", Break::SlowDown),
        ("POST uploadId=", Break::LoseAnswer),
        ("POST uploadId=", Break::LoseRequest),
        ("POST uploadId=", Break::SlowDown),
        ("POST uploads=", Break::SlowDown),
        ("PUT partNumber=2", Break::CutAnswer(30)),
        ("POST uploadId=", Break::CutAnswer(300)),
    ];
    let mut seen = 0;
    for (number, (words, how)) in breaks.into_iter().enumerate() {
        let key = format!("up-{number}");
        proxy.inject(&format!("{words} {key}"), how, 1);
        let mut upload = store.upload(&key).await.unwrap();
        upload.write(bytes.clone()).await.unwrap();
        // Two parts are under way or there; that they can be seen makes the count of none below worth something.
        seen += server.unfinished_uploads();
        let info = upload.complete().await.unwrap_or_else(|error| panic!("{words} {how:?}: {error}"));
        assert_eq!(info.size, bytes.len() as u64);
        assert!(store.get(&key, info.size).await.unwrap().1 == bytes);
        assert_eq!(proxy.left(), 0, "{words} {how:?}");
    }
    assert!(seen > 0);
    assert_eq!(server.unfinished_uploads(), 0);
    // The id of an upload is lost: another one is begun, and the first stays without parts.
    proxy.inject("POST uploads= lost-id", Break::CutAnswer(300), 1);
    let mut upload = store.upload("lost-id").await.unwrap();
    upload.write(bytes.clone()).await.unwrap();
    assert_eq!(upload.complete().await.unwrap().size, bytes.len() as u64);
    let left = server.unfinished_uploads();
    assert_eq!((proxy.left(), left > 0), (0, true));
    // More than can be survived: nothing is visible, and nothing stays.
    proxy.inject("PUT partNumber=2 hopeless", Break::SlowDown, 100);
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
    assert_eq!(server.unfinished_uploads(), left);
}

/// A listing that ends in the middle would hide backups; it is asked for again.
#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_breaks_off_is_asked_for_again() {
    let Some(server) = Server::start(Kind::Versitygw) else { return };
    let proxy = Proxy::before(server.address);
    let store = server.open(proxy.address, "p");
    store.create("c/a", text("a")).await.unwrap();
    store.create("c/b/d", text("d")).await.unwrap();
    for cut in [100, 400, 600] {
        proxy.inject("GET list-type=2", Break::CutAnswer(cut), 2);
        assert_eq!(store.list("c/").await.unwrap().len(), 2, "{cut}");
        proxy.inject("GET list-type=2", Break::CutAnswer(cut), 2);
        let (objects, below) = store.list_shallow("c/").await.unwrap();
        assert_eq!((objects.len(), below.len()), (1, 1), "{cut}");
    }
    assert_eq!(proxy.left(), 0);
    proxy.inject("GET list-type=2", Break::CutAnswer(400), 1000);
    assert!(matches!(store.list("c/").await, Err(StoreError::Unreachable { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_go_on_where_they_broke_off() {
    let Some(server) = Server::start(Kind::Versitygw) else { return };
    let proxy = Proxy::before(server.address);
    let store = server.open(proxy.address, "p");
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
