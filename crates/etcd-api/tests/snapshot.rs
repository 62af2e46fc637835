//! Every way in which a snapshot stream can go wrong (reference: etcd 3.4 to 3.7, maintenance.go), one test each, against a
//! server that shares no code with the client.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::{Duration, Instant};

use common::{connect, database, drain, drain_from, quick};
use etcd_api::testing::{Behaviour, MisbehavingEtcd, Script};
use etcd_api::{Code, Error, ErrorClass, ErrorKind, LinkFault, SnapshotLimits, SnapshotViolation};

const UNITS: usize = 400;
const SIZE: u64 = UNITS as u64 * 512;

async fn failure(behaviour: Behaviour) -> Error {
    let (_double, drained) = drain(behaviour, Script::with_snapshot(database(UNITS))).await;
    drained.expect_err("the stream must be refused")
}

async fn violation(behaviour: Behaviour) -> SnapshotViolation {
    let error = failure(behaviour).await;
    assert_eq!(error.class(), ErrorClass::Misbehaved, "{error}");
    assert_eq!(error.call(), Some("Snapshot"));
    match error.kind() {
        ErrorKind::Snapshot(violation) => *violation,
        other => panic!("not a violation of the stream's rules: {other:?}"),
    }
}

#[tokio::test]
async fn a_sound_stream_arrives_whole() {
    let db = database(UNITS);
    let (double, drained) = drain(Behaviour::Sound, Script::with_snapshot(db.clone())).await;
    let (out, summary) = drained.unwrap();
    assert_eq!(out, db);
    assert_eq!(summary.database_size, SIZE);
    assert_eq!(summary.sha256[..], *ring::digest::digest(&ring::digest::SHA256, &db).as_ref());
    assert_eq!(summary.storage_version.as_deref(), Some("3.6.0"));
    assert_eq!(double.count("Snapshot"), 1);
}

#[tokio::test]
async fn a_server_of_3_4_or_3_5_tells_no_version_and_is_as_good() {
    let script = Script { storage_version: String::new(), ..Script::with_snapshot(database(UNITS)) };
    let (_double, drained) = drain(Behaviour::Sound, script).await;
    let (out, summary) = drained.unwrap();
    assert_eq!(out, database(UNITS));
    assert_eq!(summary.storage_version, None);
}

#[tokio::test]
async fn size_and_version_are_known_once_opened() {
    let script = Script::with_snapshot(database(UNITS));
    let double = MisbehavingEtcd::start(Behaviour::Sound, script).await.unwrap();
    let client = connect(&double).await;
    let mut stream = client.snapshot(quick()).await.unwrap();
    assert_eq!(stream.expected_size(), Some(SIZE));
    assert_eq!(stream.version(), Some("3.6.0"));
    assert_eq!(stream.received(), 32 << 10);
    assert_eq!(stream.next().await.unwrap().unwrap().len(), 32 << 10);
}

#[tokio::test]
async fn a_size_that_is_a_multiple_of_the_blob_ends_with_two_messages_of_zero_remaining() {
    let (_double, drained) = drain(Behaviour::Sound, Script::with_snapshot(database(128))).await;
    assert_eq!(drained.unwrap().0, database(128));
}

#[tokio::test]
async fn empty_blobs_without_end_are_recognised() {
    for after in [0, 64 << 10] {
        let violation = violation(Behaviour::EmptyBlobLoop { after }).await;
        assert_eq!(violation, SnapshotViolation::EmptyBlobs { offset: after, total: SIZE, count: 17 });
    }
}

#[tokio::test]
async fn a_wrong_trailer_is_refused_with_both_digests() {
    match violation(Behaviour::WrongTrailer).await {
        SnapshotViolation::WrongDigest { sent, computed } => {
            assert_eq!(sent.0, [0x5a; 32]);
            assert_eq!(computed.0[..], *ring::digest::digest(&ring::digest::SHA256, &database(UNITS)).as_ref());
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_flipped_bit_on_the_way_is_refused() {
    for at in [0, 100_000, SIZE - 1] {
        let violation = violation(Behaviour::CorruptByte { at }).await;
        assert!(matches!(violation, SnapshotViolation::WrongDigest { .. }), "{violation:?}");
    }
}

#[tokio::test]
async fn a_short_trailer_is_refused() {
    assert_eq!(violation(Behaviour::ShortTrailer).await, SnapshotViolation::BadTrailer { size: 31, remaining: 0 });
}

#[tokio::test]
async fn a_missing_trailer_is_refused_though_the_stream_ends_well() {
    assert_eq!(violation(Behaviour::MissingTrailer).await, SnapshotViolation::EndedWithoutTrailer { total: SIZE });
}

#[tokio::test]
async fn a_short_stream_is_refused_though_it_ends_well() {
    let after = 96 << 10;
    assert_eq!(violation(Behaviour::ShortStream { after }).await, SnapshotViolation::EndedShort { received: after, total: SIZE });
}

#[tokio::test]
async fn an_empty_stream_is_refused_though_it_ends_well() {
    assert_eq!(violation(Behaviour::ShortStream { after: 0 }).await, SnapshotViolation::EndedEmpty);
}

#[tokio::test]
async fn a_stalled_stream_is_given_up_and_cancelled_at_the_server() {
    let script = Script::with_snapshot(database(UNITS));
    let (double, drained) = drain(Behaviour::Stalled { after: 64 << 10 }, script).await;
    let error = drained.unwrap_err();
    match error.kind() {
        ErrorKind::Snapshot(SnapshotViolation::Idle { offset, waited }) => {
            assert_eq!(*offset, 64 << 10);
            assert!(*waited >= quick().idle_timeout);
        }
        other => panic!("{other:?}"),
    }
    let position = error.position().unwrap();
    assert_eq!((position.received, position.expected), (64 << 10, Some(SIZE)));
    let deadline = Instant::now() + Duration::from_secs(10);
    while double.cancelled() == 0 {
        assert!(Instant::now() < deadline, "the server still holds its read transaction");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    for behaviour in [Behaviour::Silent, Behaviour::Stalled { after: 0 }] {
        let violation = violation(behaviour).await;
        assert!(matches!(violation, SnapshotViolation::Idle { offset: 0, .. }), "{violation:?}");
    }
}

#[tokio::test]
async fn a_trickle_below_the_progress_rule_is_given_up() {
    let behaviour = Behaviour::Trickle { piece: 100, pause: Duration::from_millis(20) };
    let double = MisbehavingEtcd::start(behaviour, Script::with_snapshot(database(UNITS))).await.unwrap();
    let limits = SnapshotLimits { progress_window: Duration::from_millis(300), ..quick() };
    let error = drain_from(&connect(&double).await, limits).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Snapshot(SnapshotViolation::NoProgress { .. })), "{error}");
}

#[tokio::test]
async fn a_slow_reader_is_not_mistaken_for_a_slow_server() {
    let double = MisbehavingEtcd::start(Behaviour::Sound, Script::with_snapshot(database(UNITS))).await.unwrap();
    let client = connect(&double).await;
    let window = Duration::from_secs(1);
    let limits = SnapshotLimits { progress_window: window, ..quick() };
    let mut stream = client.snapshot(limits).await.unwrap();
    let mut received = 0;
    let mut pauses = 0..2;
    while let Some(piece) = stream.next().await.unwrap() {
        received += piece.len() as u64;
        if pauses.next().is_some() {
            tokio::time::sleep(window + window / 5).await;
        }
    }
    assert_eq!(received, SIZE);
    stream.finish().unwrap();
}

#[tokio::test]
async fn bytes_after_the_trailer_are_refused() {
    assert_eq!(violation(Behaviour::ExtraAfterTrailer).await, SnapshotViolation::AfterTrailer { size: 4 });
}

#[tokio::test]
async fn a_wrong_remaining_is_refused() {
    let after = 64 << 10;
    let expected = SIZE - after - (32 << 10);
    assert_eq!(
        violation(Behaviour::WrongRemaining { after }).await,
        SnapshotViolation::WrongRemaining { offset: after, blob: 32 << 10, said: expected - 1, expected }
    );
}

#[tokio::test]
async fn a_rising_remaining_is_refused() {
    let violation = violation(Behaviour::RemainingRising { after: 64 << 10 }).await;
    assert!(matches!(violation, SnapshotViolation::WrongRemaining { offset: 65_536, .. }), "{violation:?}");
}

#[tokio::test]
async fn a_huge_blob_is_refused_without_being_taken_into_memory() {
    let limit = SnapshotLimits::default().max_blob;
    let slightly = violation(Behaviour::HugeBlob { bytes: limit + 512 }).await;
    assert_eq!(slightly, SnapshotViolation::BlobTooLarge { offset: 0, size: limit + 512, limit });
    let error = failure(Behaviour::HugeBlob { bytes: limit + 4096 }).await;
    assert!(matches!(error.kind(), ErrorKind::MessageTooLarge(_)), "{error}");
    assert_eq!(error.class(), ErrorClass::Misbehaved);
}

#[tokio::test]
async fn a_size_no_bbolt_file_has_is_refused() {
    let violation = violation(Behaviour::OddSize).await;
    assert_eq!(violation, SnapshotViolation::ImplausibleSize { size: SIZE - 1, fact: "not a multiple of 512" });
}

#[tokio::test]
async fn a_database_over_the_limit_is_refused_at_its_first_message() {
    let double = MisbehavingEtcd::start(Behaviour::Sound, Script::with_snapshot(database(UNITS))).await.unwrap();
    let limits = SnapshotLimits { max_database: SIZE - 512, ..quick() };
    let error = connect(&double).await.snapshot(limits).await.unwrap_err();
    let expected = SnapshotViolation::ImplausibleSize { size: SIZE, fact: "over the limit" };
    assert_eq!(*error.kind(), ErrorKind::Snapshot(expected));
}

#[tokio::test]
async fn a_status_in_the_middle_is_an_error_for_every_code() {
    for code in 1..=16_u32 {
        let after = 64 << 10;
        let error = failure(Behaviour::FailMidway { after, code, message: format!("text {code}") }).await;
        let text = format!("text {code}");
        let expected = match Code::from_i32(code.cast_signed()) {
            Code::Unauthenticated => ErrorKind::Unauthenticated(text),
            Code::PermissionDenied => ErrorKind::PermissionDenied(text),
            Code::Unimplemented => ErrorKind::Unimplemented(text),
            Code::Unavailable => ErrorKind::Unavailable(text),
            Code::DeadlineExceeded => ErrorKind::Timeout(quick().idle_timeout),
            code => ErrorKind::Rpc { code, message: text },
        };
        assert_eq!(*error.kind(), expected);
        assert_eq!(error.position().unwrap().received, after);
    }
}

#[tokio::test]
async fn a_refusal_before_the_first_message_is_typed() {
    for late_status in [false, true] {
        let mut script = Script { late_status, ..Script::with_snapshot(database(UNITS)) };
        let denied = etcd_api::testing::Failure::new(7, "etcdserver: permission denied");
        script.fail.insert("Snapshot".to_owned(), denied);
        let (_double, drained) = drain(Behaviour::Sound, script).await;
        let error = drained.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::PermissionDenied(_)), "{error}");
        assert_eq!(error.class(), ErrorClass::Denied);
    }
}

#[tokio::test]
async fn a_connection_cut_in_the_middle_is_an_error() {
    let error = failure(Behaviour::CutMidway { after: 64 << 10 }).await;
    assert!(matches!(error.kind(), ErrorKind::Link(LinkFault::ConnectionLost(_))), "{error}");
    assert_eq!(error.class(), ErrorClass::Unreachable);
    assert!(error.to_string().contains("after 65536 of 204800 bytes"), "{error}");
}

#[tokio::test]
async fn a_stream_reset_in_the_middle_is_an_error_even_when_the_reset_looks_polite() {
    const NO_ERROR: u32 = 0;
    const INTERNAL_ERROR: u32 = 2;
    const CANCEL: u32 = 8;
    for reason in [NO_ERROR, INTERNAL_ERROR, CANCEL] {
        let error = failure(Behaviour::ResetMidway { after: 64 << 10, reason }).await;
        assert!(matches!(error.kind(), ErrorKind::Link(LinkFault::ConnectionLost(_))), "reason {reason}: {error}");
    }
}

#[tokio::test]
async fn a_goaway_in_the_middle_is_an_error() {
    let error = failure(Behaviour::GoAway { after: 64 << 10 }).await;
    assert!(matches!(error.kind(), ErrorKind::Link(LinkFault::ConnectionLost(_))), "{error}");
    assert_eq!(error.position().unwrap().received, 64 << 10);
}

#[tokio::test]
async fn an_end_without_a_status_is_an_error() {
    for after in [64 << 10, SIZE] {
        let error = failure(Behaviour::EndWithoutStatus { after }).await;
        assert!(matches!(error.kind(), ErrorKind::Link(LinkFault::ConnectionLost(_))), "{error}");
    }
}

#[tokio::test]
async fn a_stream_that_failed_gives_nothing_more_and_no_result() {
    let double = MisbehavingEtcd::start(Behaviour::WrongTrailer, Script::with_snapshot(database(UNITS))).await.unwrap();
    let mut stream = connect(&double).await.snapshot(quick()).await.unwrap();
    let failed = loop {
        match stream.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a wrong digest passed"),
            Err(error) => break error,
        }
    };
    assert!(matches!(failed.kind(), ErrorKind::Snapshot(SnapshotViolation::WrongDigest { .. })));
    let again = stream.next().await.unwrap_err();
    assert_eq!(*again.kind(), ErrorKind::Snapshot(SnapshotViolation::NotFinished { received: SIZE }));
    assert!(stream.finish().is_err());
}

#[tokio::test]
async fn there_is_no_result_before_the_end() {
    let double = MisbehavingEtcd::start(Behaviour::Sound, Script::with_snapshot(database(UNITS))).await.unwrap();
    let mut stream = connect(&double).await.snapshot(quick()).await.unwrap();
    stream.next().await.unwrap().unwrap();
    let error = stream.finish().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Snapshot(SnapshotViolation::NotFinished { .. })), "{error}");
}

#[tokio::test]
async fn a_dropped_stream_is_cancelled_and_the_client_goes_on_over_the_same_connection() {
    let script = Script::with_snapshot(database(UNITS));
    let double = MisbehavingEtcd::start(Behaviour::Stalled { after: 1 }, script).await.unwrap();
    let client = connect(&double).await;
    let stream = client.snapshot(quick()).await.unwrap();
    drop(stream);
    client.status().await.unwrap();
    double.set_behaviour(Behaviour::Sound);
    drain_from(&client, quick()).await.unwrap();
    assert_eq!(double.connections(), 1);
}

#[tokio::test]
async fn after_a_cut_the_next_call_connects_anew() {
    let script = Script::with_snapshot(database(UNITS));
    let double = MisbehavingEtcd::start(Behaviour::CutMidway { after: 1 }, script).await.unwrap();
    let client = connect(&double).await;
    drain_from(&client, quick()).await.unwrap_err();
    double.set_behaviour(Behaviour::Sound);
    drain_from(&client, quick()).await.unwrap();
    assert_eq!(double.connections(), 2);
}
