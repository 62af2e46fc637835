//! The S3 store against real servers over HTTP. `LIFEBOAT_TEST_S3_VERSITYGW` and `LIFEBOAT_TEST_S3_MOTO` name their programs.

#![allow(clippy::unwrap_used, missing_docs, clippy::print_stdout)]

#[path = "../common/proxy.rs"]
mod proxy;
#[path = "../common/scenarios.rs"]
mod scenarios;
mod server;

use std::time::{Duration, Instant};

use vault::store::{Finding, PartChecksum, StoreError, StoreOptions, open_store, probe};

use proxy::{Break, Proxy};
use scenarios::{MIB, all_errors, text};
use server::{BUCKET, Kind, Server, options};

async fn conforms(kind: Kind, checksum: PartChecksum) {
    let Some(server) = Server::start(kind) else { return };
    let options = StoreOptions { checksum, ..server.options("testsecret") };
    let store = open_store(&format!("s3://{BUCKET}/some/prefix"), &options).unwrap();
    let neighbour = open_store(&format!("s3://{BUCKET}/some/prefix-2"), &options).unwrap();
    let whole = open_store(&format!("s3://{BUCKET}"), &options).unwrap();
    scenarios::conforms(store.as_ref(), neighbour.as_ref(), whole.as_ref()).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn listings_of_more_than_one_page_are_whole() {
    for kind in [Kind::Versitygw, Kind::Moto] {
        let Some(server) = Server::start(kind) else { continue };
        scenarios::lists_many(server.open(server.address, "many").as_ref()).await;
    }
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

#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_is_unreachable_in_bounded_time() {
    let dir = tempfile::tempdir().unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let store = open_store("s3://some-bucket/x", &options(dir.path(), silent.local_addr().unwrap(), "testsecret")).unwrap();
    scenarios::gives_up(store.as_ref()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_are_settled_by_looking() {
    let Some(server) = Server::start(Kind::Versitygw) else { return };
    let proxy = Proxy::before(server.address);
    let (store, direct) = (server.open(proxy.address, "p"), server.open(server.address, "p"));
    scenarios::settles_lost_answers(store.as_ref(), direct.as_ref(), &proxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_survive_what_can_be_survived_and_leave_no_parts() {
    let Some(server) = Server::start(Kind::Versitygw) else { return };
    let proxy = Proxy::before(server.address);
    let store = server.open(proxy.address, "p");
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
    scenarios::uploads_survive(store.as_ref(), &proxy, &breaks, "PUT partNumber=2", true, || server.unfinished_uploads()).await;
    // The id of an upload is lost: another one is begun, and the first stays without parts.
    let before = proxy.left();
    proxy.inject("POST uploads= lost-id", Break::CutAnswer(300), 1);
    let mut upload = store.upload("lost-id").await.unwrap();
    upload.write(vec![7; 9 * MIB].into()).await.unwrap();
    assert_eq!(upload.complete().await.unwrap().size, 9 * MIB as u64);
    assert_eq!((proxy.left(), server.unfinished_uploads() > 0), (before, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_breaks_off_is_asked_for_again() {
    let Some(server) = Server::start(Kind::Versitygw) else { return };
    let proxy = Proxy::before(server.address);
    scenarios::lists_again(server.open(proxy.address, "p").as_ref(), &proxy, "GET list-type=2", [100, 400, 600]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_go_on_where_they_broke_off() {
    let Some(server) = Server::start(Kind::Versitygw) else { return };
    let proxy = Proxy::before(server.address);
    scenarios::reads_go_on(server.open(proxy.address, "p").as_ref(), &proxy).await;
}
