//! etcd's own authentication: tokens are fetched, sent, renewed once, and by one task at a time.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{database, drain_from, endpoint, quick};
use etcd_api::testing::{Behaviour, MisbehavingEtcd, Script, WatchAnswer};
use etcd_api::{Client, ConnectOptions, Credentials, ErrorClass, ErrorKind, KeyRange, WatchRequest};

fn credentials(user: &str, password: &str) -> ConnectOptions {
    let credentials = Credentials { user: user.into(), password: password.to_owned().into() };
    ConnectOptions { credentials: Some(credentials), ..ConnectOptions::default() }
}

fn script() -> Script {
    Script { credentials: Some(("root".into(), "secret".into())), ..Script::with_snapshot(database(100)) }
}

async fn double() -> MisbehavingEtcd {
    MisbehavingEtcd::start(Behaviour::Sound, script()).await.unwrap()
}

async fn connect(double: &MisbehavingEtcd, options: &ConnectOptions) -> Client {
    Client::connect(endpoint(double.endpoint()), options).await.unwrap()
}

#[tokio::test]
async fn a_token_is_fetched_once_and_sent_with_every_call() {
    let double = double().await;
    let client = connect(&double, &credentials("root", "secret")).await;
    client.status().await.unwrap();
    client.members(true).await.unwrap();
    drain_from(&client.clone(), quick()).await.unwrap();
    let tokens: Vec<_> = double.calls().into_iter().map(|call| (call.name, call.token)).collect();
    let token = Some("token.1".to_owned());
    let expected = [("Authenticate", None), ("Status", token.clone()), ("MemberList", token.clone()), ("Snapshot", token)];
    assert_eq!(tokens, expected.map(|(name, token)| (name.to_owned(), token)));
}

#[tokio::test]
async fn an_expired_token_is_renewed_once_and_the_call_repeated() {
    for late_status in [false, true] {
        let double = double().await;
        double.change(|script| script.late_status = late_status);
        let client = connect(&double, &credentials("root", "secret")).await;
        client.status().await.unwrap();
        double.expire_tokens();
        client.status().await.unwrap();
        assert_eq!((double.count("Authenticate"), double.count("Status")), (2, 3));
        assert_eq!(double.calls().last().unwrap().token.as_deref(), Some("token.2"));
    }
}

#[tokio::test]
async fn opening_a_snapshot_renews_an_expired_token_too() {
    for late_status in [false, true] {
        let double = double().await;
        double.change(|script| script.late_status = late_status);
        let client = connect(&double, &credentials("root", "secret")).await;
        client.status().await.unwrap();
        double.expire_tokens();
        let (out, _) = drain_from(&client, quick()).await.unwrap();
        assert_eq!(out, database(100));
        assert_eq!((double.count("Authenticate"), double.count("Snapshot")), (2, 2));
    }
}

#[tokio::test]
async fn opening_a_watch_renews_an_expired_token_too() {
    let double = double().await;
    double.change(|script| script.watch = vec![WatchAnswer { created: true, ..WatchAnswer::default() }.step()]);
    let client = connect(&double, &credentials("root", "secret")).await;
    client.status().await.unwrap();
    double.expire_tokens();
    client.watch(WatchRequest::new(KeyRange::all())).await.unwrap();
    assert_eq!((double.count("Authenticate"), double.count("Watch")), (2, 2));
}

#[tokio::test]
async fn a_token_refused_again_is_an_error_and_no_loop() {
    let double = double().await;
    double.change(|script| script.refuse_tokens = true);
    let client = connect(&double, &credentials("root", "secret")).await;
    let error = client.status().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unauthenticated(_)), "{error}");
    assert_eq!(error.class(), ErrorClass::Denied);
    assert_eq!((double.count("Authenticate"), double.count("Status")), (2, 2));
}

#[tokio::test]
async fn many_callers_with_an_expired_token_fetch_one_new_one() {
    let double = double().await;
    let client = connect(&double, &credentials("root", "secret")).await;
    client.status().await.unwrap();
    double.expire_tokens();
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.status().await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(double.count("Authenticate"), 2);
}

#[tokio::test]
async fn a_wrong_password_is_said_as_such_and_not_printed() {
    let double = double().await;
    let options = credentials("root", "hunter2");
    let client = connect(&double, &options).await;
    let error = client.status().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::AuthenticationFailed);
    assert_eq!((error.class(), error.call()), (ErrorClass::Denied, Some("Authenticate")));
    assert!(!format!("{error} {error:?} {options:?} {client:?}").contains("hunter2"));
}

#[tokio::test]
async fn credentials_on_a_cluster_without_authentication_are_no_error() {
    let double = MisbehavingEtcd::start(Behaviour::Sound, Script::default()).await.unwrap();
    let client = connect(&double, &credentials("root", "secret")).await;
    client.status().await.unwrap();
    client.status().await.unwrap();
    assert_eq!(double.count("Authenticate"), 1);
    // Authentication is turned on while we are connected.
    double.change(|script| script.credentials = Some(("root".into(), "secret".into())));
    client.status().await.unwrap();
    assert_eq!(double.calls().last().unwrap().token.as_deref(), Some("token.1"));
}

#[tokio::test]
async fn no_credentials_on_a_cluster_that_wants_them_is_denied() {
    let double = double().await;
    let client = connect(&double, &ConnectOptions::default()).await;
    let error = client.status().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unauthenticated(_)), "{error}");
    let error = client.snapshot(quick()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unauthenticated(_)), "{error}");
}
