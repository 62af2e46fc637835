//! Entry points for fuzzing: what a member may send. None of them may panic or allocate without bound, whatever arrives.

use std::time::Duration;

use etcd_store::id::Revision;
use prost::Message;
use ring::digest;

use crate::snapshot::check::{Checker, SnapshotLimits, Verdict};
use crate::types::{AlarmKind, DeleteResponse, HashKv, Header, MemberList, MemberStatus, PutResponse, RangeResponse, TxnResponse};
use crate::watch::{self, check};
use crate::{pb, status};

/// Most messages of one stream.
const MESSAGES: usize = 64;

/// An answer to a unary call; the first byte says to which. All of it as the text of a status, too.
pub fn answer(bytes: &[u8]) {
    status_text(bytes);
    let Some((call, bytes)) = bytes.split_first() else { return };
    match call % 10 {
        0 => decoded(bytes, |answer: pb::RangeResponse| drop(RangeResponse::from_wire(answer))),
        1 => decoded(bytes, |answer: pb::PutResponse| drop(PutResponse::from_wire(answer))),
        2 => decoded(bytes, |answer: pb::DeleteRangeResponse| drop(DeleteResponse::from_wire(answer))),
        3 => decoded(bytes, |answer: pb::TxnResponse| drop(TxnResponse::from_wire(answer))),
        4 => decoded(bytes, |answer: pb::MemberListResponse| drop(MemberList::from_wire(answer.header, answer.members))),
        5 => decoded(bytes, |answer: pb::StatusResponse| drop(MemberStatus::from_wire(answer))),
        6 => decoded(bytes, |answer: pb::HashKvResponse| drop(HashKv::from_wire(&answer))),
        7 => decoded(bytes, |answer: pb::AlarmResponse| {
            answer.alarms.iter().for_each(|alarm| assert_eq!(AlarmKind::from_number(alarm.alarm).to_wire(), alarm.alarm));
        }),
        8 => decoded(bytes, |answer: pb::LeaseTimeToLiveResponse| drop(Header::from_wire(answer.header))),
        _ => decoded(bytes, |answer: pb::CompactionResponse| drop(Header::from_wire(answer.header))),
    }
}

/// The text of a status, which decides what kind of failure it is and is shown to people.
fn status_text(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = (status::by_text(&text), status::cured_by_new_token(&text));
    let tame = grpc_link::tame(&text);
    assert!(!tame.chars().any(char::is_control), "a control character reaches the terminal");
}

/// A snapshot stream, as messages one after the other, each with its length in front (two bytes, little endian): as it is, then with
/// lengths and the digest put right, which no fuzzer would find by itself. What a stream that keeps every rule has delivered is what it announced.
pub fn snapshot_stream(bytes: &[u8]) {
    let messages: Vec<pb::SnapshotResponse> = messages(bytes);
    drain(&messages);
    drain(&with_right_numbers(messages));
}

/// A watch stream in the same form, behind eight bytes for the revision it was asked to begin at. Events never go back.
pub fn watch_stream(bytes: &[u8]) {
    let Some((start, bytes)) = bytes.split_first_chunk::<8>() else { return };
    let start = Revision(i64::from_le_bytes(*start));
    let mut checker = check::Checker::new(start);
    let mut last = i64::MIN;
    for answer in messages::<pb::WatchResponse>(bytes) {
        let (created, cancelled) = (answer.created, answer.canceled);
        if checker.answer(&answer).is_err() {
            return;
        }
        if cancelled {
            let _ = watch::cancelled(&answer);
            return;
        }
        if created {
            continue;
        }
        for event in answer.events.iter().filter_map(|event| event.kv.as_ref()) {
            assert!(event.mod_revision >= last.max(start.0), "an event of the past was let through");
            last = event.mod_revision;
        }
        let _ = watch::message(answer);
    }
    let _ = checker.end();
}

fn decoded<M: Message + Default>(bytes: &[u8], then: impl FnOnce(M)) {
    if let Ok(message) = M::decode(bytes) {
        then(message);
    }
}

fn messages<M: Message + Default>(mut bytes: &[u8]) -> Vec<M> {
    let mut messages = Vec::new();
    while messages.len() < MESSAGES
        && let Some((length, rest)) = bytes.split_first_chunk::<2>()
    {
        let (message, rest) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
        messages.extend(M::decode(message));
        bytes = rest;
    }
    messages
}

fn drain(messages: &[pb::SnapshotResponse]) {
    let mut checker = Checker::new(SnapshotLimits::default());
    let (mut data, mut announced) = (0, None);
    for message in messages {
        let verdict = checker.message(message.remaining_bytes, &message.blob, &message.version, Duration::from_millis(1));
        match verdict {
            Ok(Verdict::Data) => data += message.blob.len() as u64,
            Ok(Verdict::Nothing | Verdict::Trailer) => {}
            Err(_) => return,
        }
        announced = announced.or(checker.total());
    }
    if let Ok(summary) = checker.end() {
        assert_eq!((Some(data), summary.database_size), (announced, data), "an incomplete stream was taken as whole");
    }
}

/// The blobs as they are, the numbers of a sound server, and the digest at the end; the last blob is cut to fit the granule of a database.
fn with_right_numbers(mut messages: Vec<pb::SnapshotResponse>) -> Vec<pb::SnapshotResponse> {
    let total: usize = messages.iter().map(|message| message.blob.len()).sum();
    let granule = usize::try_from(crate::limits::SNAPSHOT_GRANULE).unwrap_or(512);
    let minimum = usize::try_from(crate::limits::SNAPSHOT_DATABASE_MIN).unwrap_or(0);
    // Filled up, so that a small input is a stream too.
    let wanted = total.next_multiple_of(granule).max(minimum);
    messages.push(pb::SnapshotResponse { blob: vec![0; wanted - total].into(), ..Default::default() });
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut left = wanted;
    for message in &mut messages {
        left -= message.blob.len();
        message.remaining_bytes = left as u64;
        hash.update(&message.blob);
    }
    let trailer = hash.finish().as_ref().to_vec();
    messages.push(pb::SnapshotResponse { blob: trailer.into(), ..Default::default() });
    messages
}
