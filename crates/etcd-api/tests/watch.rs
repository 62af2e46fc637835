//! Watches against scripted servers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::connect;
use etcd_api::testing::{Behaviour, Failure, MisbehavingEtcd, Script, ScriptEvent, WatchAnswer, WatchStep};
use etcd_api::{
    Client, Error, ErrorClass, ErrorKind, KeyRange, LinkFault, WatchEvent, WatchMessage, WatchRequest, WatchStream, WatchViolation,
};
use etcd_store::id::Revision;

fn created() -> WatchAnswer {
    WatchAnswer { created: true, revision: Some(40), ..WatchAnswer::default() }
}

fn put(revision: i64) -> ScriptEvent {
    ScriptEvent { kind: 0, key: b"/k".to_vec(), value: b"v".to_vec(), mod_revision: revision }
}

fn events(events: Vec<ScriptEvent>, fragment: bool) -> WatchAnswer {
    WatchAnswer { revision: Some(50), events, fragment, ..WatchAnswer::default() }
}

async fn watch(steps: Vec<WatchStep>) -> (MisbehavingEtcd, Client, Result<WatchStream, Error>) {
    let double = MisbehavingEtcd::start(Behaviour::Sound, Script { watch: steps, ..Script::default() }).await.unwrap();
    let client = connect(&double).await;
    let request = WatchRequest { start_revision: Some(Revision(41)), ..WatchRequest::new(KeyRange::all()) };
    let stream = client.watch(request).await;
    (double, client, stream)
}

/// The first error that a watch with these steps runs into.
async fn failure(steps: Vec<WatchStep>) -> Error {
    let (_double, _client, stream) = watch(steps).await;
    let mut stream = match stream {
        Ok(stream) => stream,
        Err(error) => return error,
    };
    loop {
        match stream.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the watch ended well"),
            Err(error) => {
                assert!(stream.next().await.unwrap().is_none(), "a failed watch is over");
                return error;
            }
        }
    }
}

#[tokio::test]
async fn events_fragments_and_progress_arrive_as_sent() {
    let deletion = ScriptEvent { kind: 1, value: vec![], ..put(42) };
    let steps = vec![
        created().step(),
        events(vec![put(41), put(42)], true).step(),
        events(vec![deletion], false).step(),
        WatchStep::ReadRequest,
        WatchAnswer { revision: Some(60), watch_id: -1, ..WatchAnswer::default() }.step(),
    ];
    let (_double, _client, stream) = watch(steps).await;
    let mut stream = stream.unwrap();
    assert_eq!(stream.created().revision, Revision(40));
    match stream.next().await.unwrap().unwrap() {
        WatchMessage::Events { header, events, more: true } => {
            assert_eq!(header.revision, Revision(50));
            let revisions: Vec<_> = events.iter().map(|event| event.kv().mod_revision.0).collect();
            assert_eq!(revisions, [41, 42]);
            assert!(matches!(&events[0], WatchEvent::Put { kv, prev: None } if kv.value == "v" && kv.key == "/k"));
        }
        other => panic!("{other:?}"),
    }
    match stream.next().await.unwrap().unwrap() {
        WatchMessage::Events { events, more: false, .. } => assert!(matches!(&events[..], [WatchEvent::Delete { .. }])),
        other => panic!("{other:?}"),
    }
    assert!(stream.request_progress().await);
    match stream.next().await.unwrap().unwrap() {
        WatchMessage::Progress { header } => assert_eq!(header.revision, Revision(60)),
        other => panic!("{other:?}"),
    }
    assert!(stream.next().await.unwrap().is_none());
    assert!(!stream.request_progress().await, "the watch is over");
}

#[tokio::test]
async fn a_compacted_start_is_typed_with_the_revision() {
    let compacted = WatchAnswer { canceled: true, compact_revision: 77, ..WatchAnswer::default() };
    let error = failure(vec![created().step(), compacted.step()]).await;
    assert_eq!(*error.kind(), ErrorKind::Compacted(Some(Revision(77))));
    assert_eq!(error.class(), ErrorClass::Refused);
}

#[tokio::test]
async fn a_watch_that_is_confirmed_and_cancelled_at_once_does_not_open() {
    let reason = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
    let refused = WatchAnswer { canceled: true, cancel_reason: reason.into(), ..created() };
    let (_double, _client, stream) = watch(vec![refused.step()]).await;
    let error = stream.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::PermissionDenied(_)), "{error}");
}

#[tokio::test]
async fn another_reason_of_the_member_is_passed_on() {
    let cancelled = WatchAnswer { canceled: true, cancel_reason: "because".into(), ..WatchAnswer::default() };
    let error = failure(vec![created().step(), cancelled.step()]).await;
    assert_eq!(*error.kind(), ErrorKind::WatchCanceled("because".into()));
    let error = failure(vec![created().step(), WatchStep::Fail(Failure::new(14, "etcdserver: no leader"))]).await;
    assert_eq!(*error.kind(), ErrorKind::NoLeader);
}

#[tokio::test]
async fn events_out_of_order_twice_or_of_another_watch_are_refused() {
    let foreign = WatchAnswer { watch_id: 5, ..events(vec![put(43)], false) };
    for (second, violation) in [
        (events(vec![put(42)], false), WatchViolation::OutOfOrder { after: Revision(42), got: Revision(42) }),
        (events(vec![put(41)], false), WatchViolation::OutOfOrder { after: Revision(42), got: Revision(41) }),
        (foreign, WatchViolation::ForeignWatch { expected: 0, got: 5 }),
    ] {
        let error = failure(vec![created().step(), events(vec![put(42)], false).step(), second.step()]).await;
        assert_eq!(*error.kind(), ErrorKind::Watch(violation));
        assert_eq!(error.class(), ErrorClass::Misbehaved);
    }
}

#[tokio::test]
async fn a_stream_that_ends_within_a_revision_is_an_error() {
    let error = failure(vec![created().step(), events(vec![put(42)], true).step()]).await;
    assert_eq!(*error.kind(), ErrorKind::Watch(WatchViolation::EndedWithinRevision { revision: Revision(42) }));
}

#[tokio::test]
async fn a_watch_that_is_not_confirmed_first_does_not_open() {
    let error = failure(vec![events(vec![put(42)], false).step()]).await;
    assert_eq!(*error.kind(), ErrorKind::Watch(WatchViolation::NotCreated));
}

#[tokio::test]
async fn an_answer_without_a_header_is_refused() {
    let headless = WatchAnswer { revision: None, ..events(vec![put(42)], false) };
    let error = failure(vec![created().step(), headless.step()]).await;
    assert!(matches!(error.kind(), ErrorKind::Protocol(_)), "{error}");
}

#[tokio::test]
async fn dropping_a_watch_cancels_it_at_the_server() {
    let (double, _client, stream) = watch(vec![created().step(), WatchStep::Hang]).await;
    drop(stream.unwrap());
    tokio::time::timeout(Duration::from_secs(10), async {
        while double.cancelled() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the server still holds the watch");
}

#[tokio::test]
async fn a_server_that_goes_away_ends_the_watch_with_an_error() {
    let (double, _client, stream) = watch(vec![created().step(), WatchStep::Hang]).await;
    let mut stream = stream.unwrap();
    drop(double);
    let error = stream.next().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Link(LinkFault::ConnectionLost(_))), "{error}");
}
