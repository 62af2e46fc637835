//! The stores of Google and Azure against real emulators over HTTP: what `store_s3` does, on `gs://` and `az://`.
//! `LIFEBOAT_TEST_FAKE_GCS` and `LIFEBOAT_TEST_AZURITE` name their programs.
//!
//! What the emulators do not do, and how it is tested all the same:
//! - fake-gcs-server does not write by the XML API, the one that `object_store` writes by: a bridge says it in the JSON API's terms
//!   (`../common/gcs_bridge.rs`, where the rest of what it adds is told). The condition on the generation is the emulator's own.
//! - Neither knows retention policies or immutability: the proxy answers with the errors that the clouds document.
//! - Neither asks for a token: how one is got is tested as far as the settings go (unit tests beside the code).
//! - Azure's blocks of an unfinished upload cannot be counted from outside; that nothing of them is visible is tested.

#![allow(clippy::unwrap_used, missing_docs, clippy::print_stdout)]

#[path = "../common/azure_account.rs"]
mod azure_account;
#[path = "../common/gcs_bridge.rs"]
mod gcs_bridge;
#[path = "../../../../tests/src/net.rs"]
#[allow(dead_code, unreachable_pub, reason = "of the harness of the end-to-end tests; not all of it is used here")]
mod net;
#[path = "../common/proxy.rs"]
mod proxy;
#[path = "../common/scenarios.rs"]
mod scenarios;
mod server;

use std::time::{Duration, Instant};

use vault::store::{Finding, StoreError, open_store, probe};

use azure_account::{ACCOUNT, ACCOUNT_SAS};
use proxy::{Break, Proxy};
use scenarios::{MIB, all_errors, text};
use server::{BUCKET, Kind, Server};

const KINDS: [Kind; 2] = [Kind::Google, Kind::Azure];

/// Every emulator there is.
fn servers() -> impl Iterator<Item = Server> {
    KINDS.into_iter().filter_map(Server::start)
}

async fn conforms(kind: Kind) {
    let Some(server) = Server::start(kind) else { return };
    let [store, neighbour] = ["some/prefix", "some/prefix-2"].map(|prefix| server.open(server.address, prefix));
    let whole = open_store(&format!("{}://{BUCKET}", kind.scheme()), &server.options(server.address)).unwrap();
    scenarios::conforms(store.as_ref(), neighbour.as_ref(), whole.as_ref()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn google_conforms() {
    conforms(Kind::Google).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_conforms() {
    conforms(Kind::Azure).await;
}

/// More than one page: Google's have 1000 entries; of Azure's 5000 the emulator's listing is whole anyway.
#[tokio::test(flavor = "multi_thread")]
async fn listings_of_more_than_one_page_are_whole() {
    for server in servers() {
        scenarios::lists_many(server.open(server.address, "many").as_ref()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket_is_not_a_missing_object() {
    for server in servers() {
        let url = server.url("no-such-bucket", "x");
        let store = open_store(&url, &server.options(server.address)).unwrap();
        for error in all_errors(store.as_ref()).await {
            assert!(matches!(&error, StoreError::NoRoot { root } if *root == url), "{error:?}");
        }
        assert!(matches!(probe(store.as_ref()).await, Err(StoreError::NoRoot { .. })));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_denied_at_once_and_never_repeated() {
    let Some(server) = Server::start(Kind::Azure) else { return };
    let begun = Instant::now();
    let sas = "sv=2023-11-03&ss=b&srt=sco&sp=rwdlc&se=2099-01-01T00:00:00Z&sig=aHVudGVyMg%3D%3D";
    for (name, line) in [("wrong", "AZURE_STORAGE_ACCOUNT_KEY=aHVudGVyMg=="), ("sas", &format!("AZURE_STORAGE_SAS_TOKEN='{sas}'"))] {
        let options = server.options_with(server.address, name, line);
        let store = open_store(&server.url(BUCKET, "x"), &options).unwrap();
        let mut errors = all_errors(store.as_ref()).await;
        errors.push(store.delete("k").await.unwrap_err());
        for error in errors {
            assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
            assert!(!format!("{error:?}").contains("aHVudGVyMg"), "{error}");
        }
        assert!(!format!("{store:?}").contains("aHVudGVyMg"));
        assert!(matches!(probe(store.as_ref()).await.unwrap().create, Finding::Denied(_)));
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sas_is_enough() {
    let Some(server) = Server::start(Kind::Azure) else { return };
    let options = server.options_with(server.address, "sas", &format!("AZURE_STORAGE_SAS_TOKEN={ACCOUNT_SAS}\n"));
    let store = open_store(&server.url(BUCKET, "sas"), &options).unwrap();
    store.create("k", text("by a signature")).await.unwrap();
    assert!(matches!(store.create("k", text("other")).await, Err(StoreError::AlreadyExists { .. })));
    let mut upload = store.upload("big").await.unwrap();
    upload.write(vec![7; 9 * MIB].into()).await.unwrap();
    assert_eq!(upload.complete().await.unwrap().size, 9 * MIB as u64);
    assert_eq!(store.list("").await.unwrap().len(), 2);
    store.delete("k").await.unwrap();
    assert!(matches!(store.head("k").await, Err(StoreError::NotFound { .. })));
}

/// What forbids removal is a refusal with the cloud's word for it, whether it comes as 403 or as 409, and is not tried again.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_keeps_cannot_be_removed() {
    for server in servers() {
        let proxy = Proxy::before(server.address);
        let store = server.open(proxy.address, "p");
        store.create("kept", text("kept")).await.unwrap();
        let (status, code, body) = match server.kind {
            Kind::Google => (
                "403 Forbidden",
                "RetentionPolicyNotMet",
                "<Error><Code>RetentionPolicyNotMet</Code><Message>Object is subject to the bucket's retention policy.</Message></Error>",
            ),
            Kind::Azure => (
                "409 This operation is not permitted as the blob is immutable due to a policy.",
                "BlobImmutableDueToPolicy",
                "<Error><Code>BlobImmutableDueToPolicy</Code><Message>Not permitted.\nRequestId:1\nTime:2</Message></Error>",
            ),
        };
        proxy.inject("DELETE kept", Break::Answer(status, body), 2);
        let error = store.delete("kept").await.unwrap_err();
        assert!(matches!(&error, StoreError::Denied { key, detail } if key == "kept" && detail.starts_with(code)), "{error:?}");
        assert_eq!(proxy.left(), 1, "tried again");
        proxy.inject("DELETE other", Break::SlowDown, 1);
        store.delete("other").await.unwrap();
        assert_eq!(proxy.left(), 1);
        assert_eq!(store.get("kept", 10).await.unwrap().1, text("kept"));
        // The rest of a probe says so, too.
        proxy.inject("DELETE PROBE-", Break::Answer(status, body), 3);
        let report = probe(store.as_ref()).await.unwrap();
        assert!(report.is_usable() && matches!(&report.delete, Finding::Denied(detail) if detail.starts_with(code)), "{report:?}");
        assert_eq!(report.left_behind.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_there_is_unreachable_soon() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for server in servers() {
        let store = open_store(&server.url("some-bucket", "x"), &server.options(closed)).unwrap();
        let begun = Instant::now();
        for error in all_errors(store.as_ref()).await {
            assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_is_unreachable_in_bounded_time() {
    for server in servers() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        scenarios::gives_up(server.open(silent.local_addr().unwrap(), "x").as_ref()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_are_settled_by_looking() {
    for server in servers() {
        let proxy = Proxy::before(server.address);
        let (store, direct) = (server.open(proxy.address, "p"), server.open(server.address, "p"));
        scenarios::settles_lost_answers(store.as_ref(), direct.as_ref(), &proxy).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_survive_what_can_be_survived_and_leave_no_parts() {
    const GOOGLE: &[(&str, Break)] = &[
        ("PUT partNumber=1", Break::LoseAnswer),
        ("PUT partNumber=2", Break::LoseRequest),
        ("PUT partNumber=3", Break::SlowDown),
        ("POST uploadId=", Break::LoseAnswer),
        ("POST uploadId=", Break::LoseRequest),
        ("POST uploadId=", Break::SlowDown),
        ("POST uploads=", Break::SlowDown),
        ("PUT partNumber=2", Break::CutAnswer(30)),
        ("POST uploadId=", Break::CutAnswer(120)),
    ];
    // Blocks have random names, so the first to come is broken; a list of blocks that was taken once is refused the second time.
    const AZURE: &[(&str, Break)] = &[
        ("PUT comp=block&", Break::LoseAnswer),
        ("PUT comp=block&", Break::LoseRequest),
        ("PUT comp=block&", Break::SlowDown),
        ("PUT comp=block&", Break::CutAnswer(30)),
        ("PUT comp=blocklist", Break::LoseAnswer),
        ("PUT comp=blocklist", Break::LoseRequest),
        ("PUT comp=blocklist", Break::SlowDown),
        ("PUT comp=blocklist", Break::CutAnswer(120)),
    ];
    for server in servers() {
        let proxy = Proxy::before(server.address);
        let store = server.open(proxy.address, "p");
        let unfinished = || server.bridge.as_ref().map_or(0, gcs_bridge::Bridge::unfinished_uploads);
        let (breaks, hopeless) = match server.kind {
            Kind::Google => (GOOGLE, "PUT partNumber=2"),
            Kind::Azure => (AZURE, "PUT comp=block&"),
        };
        scenarios::uploads_survive(store.as_ref(), &proxy, breaks, hopeless, server.bridge.is_some(), unfinished).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_breaks_off_is_asked_for_again() {
    for server in servers() {
        let proxy = Proxy::before(server.address);
        let words = match server.kind {
            Kind::Google => "GET list-type=2".to_owned(),
            Kind::Azure => format!("GET /{ACCOUNT}/{BUCKET}? comp=list"),
        };
        scenarios::lists_again(server.open(proxy.address, "p").as_ref(), &proxy, &words, [30, 200, 300]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_go_on_where_they_broke_off() {
    for server in servers() {
        let proxy = Proxy::before(server.address);
        scenarios::reads_go_on(server.open(proxy.address, "p").as_ref(), &proxy).await;
    }
}
