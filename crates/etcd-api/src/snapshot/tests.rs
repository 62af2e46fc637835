#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use proptest::prelude::*;
use ring::digest;

use super::check::{Checker, SnapshotLimits, SnapshotViolation, Verdict};

type Message = (u64, Vec<u8>);

/// The messages of a sound server, cut at the given piece lengths.
fn sound(database: &[u8], piece: usize) -> Vec<Message> {
    let mut sent = 0_usize;
    let mut messages: Vec<Message> = database
        .chunks(piece)
        .map(|blob| {
            sent += blob.len();
            ((database.len() - sent) as u64, blob.to_vec())
        })
        .collect();
    let digest = digest::digest(&digest::SHA256, database);
    messages.push((0, digest.as_ref().to_vec()));
    messages
}

fn database(pages: usize) -> Vec<u8> {
    (0..pages * 512).map(|i| (i * 7 + i / 512) as u8).collect()
}

fn run(messages: &[Message]) -> Result<(Vec<u8>, u64), SnapshotViolation> {
    let mut checker = Checker::new(SnapshotLimits::default());
    let mut out = Vec::new();
    for (remaining, blob) in messages {
        if checker.message(*remaining, blob, "3.6.0", Duration::ZERO)? == Verdict::Data {
            out.extend_from_slice(blob);
        }
    }
    let summary = checker.end()?;
    assert_eq!(summary.storage_version.as_deref(), Some("3.6.0"));
    assert_eq!(summary.sha256[..], *digest::digest(&digest::SHA256, &out).as_ref());
    Ok((out, summary.database_size))
}

#[test]
fn a_sound_stream_gives_the_database_and_its_digest() {
    let db = database(130);
    let (out, size) = run(&sound(&db, 32 * 1024)).unwrap();
    assert_eq!((out, size), (db, 130 * 512));
}

#[test]
fn a_last_piece_of_32_bytes_is_data_and_not_the_trailer() {
    let db = database(8);
    let mut messages = sound(&db, db.len() - 32);
    assert_eq!(messages[1].1.len(), 32);
    assert_eq!(run(&messages).unwrap().0, db);
    messages.pop();
    assert_eq!(run(&messages), Err(SnapshotViolation::EndedWithoutTrailer { total: 4096 }));
}

#[test]
fn sizes_no_database_has_are_refused_at_the_first_message() {
    for (remaining, length, fact) in [
        (0, 0, "smaller"),
        (0, 32, "smaller"),
        (1536, 0, "smaller"),
        (4096, 1, "512"),
        ((1 << 40) + 512, 0, "limit"),
        (u64::MAX, 512, "limit"),
    ] {
        let mut checker = Checker::new(SnapshotLimits::default());
        let error = checker.message(remaining, &vec![0; length], "", Duration::ZERO).unwrap_err();
        assert!(matches!(error, SnapshotViolation::ImplausibleSize { .. }), "{error}");
        assert!(error.to_string().contains(fact), "{error}");
    }
}

#[test]
fn empty_blobs_are_tolerated_up_to_the_limit_and_counted_in_a_row() {
    let db = database(8);
    let pieces = sound(&db, 2048);
    let limit = SnapshotLimits::default().max_empty_blobs as usize;
    let mut tolerated = vec![(4096, Vec::new()); limit];
    tolerated.push(pieces[0].clone());
    tolerated.extend(vec![(2048, Vec::new()); limit]);
    tolerated.extend_from_slice(&pieces[1..]);
    assert_eq!(run(&tolerated).unwrap().0, db);

    let mut looping = vec![pieces[0].clone()];
    looping.extend(vec![(2048, Vec::new()); limit + 1]);
    assert_eq!(run(&looping), Err(SnapshotViolation::EmptyBlobs { offset: 2048, total: 4096, count: 17 }));
}

#[test]
fn a_trickle_is_no_progress_though_no_single_wait_is_long() {
    let limits = SnapshotLimits { progress_window: Duration::from_secs(60), progress_bytes: 1 << 20, ..SnapshotLimits::default() };
    let mut checker = Checker::new(limits);
    let total = 1 << 30;
    let mut sent = 0;
    let failed = (0..100).find_map(|_| {
        sent += 100;
        checker.message(total - sent, &[0; 100], "", Duration::from_secs(10)).err()
    });
    assert_eq!(failed, Some(SnapshotViolation::NoProgress { offset: 600, bytes: 700, waited: Duration::from_secs(70) }));
}

#[test]
fn slow_but_steady_is_progress() {
    let limits = SnapshotLimits { progress_window: Duration::from_secs(60), progress_bytes: 1024, ..SnapshotLimits::default() };
    let mut checker = Checker::new(limits);
    for i in 1..=1000_u64 {
        let verdict = checker.message(1_024_000 - i * 1024, &[0; 1024], "", Duration::from_secs(29));
        assert_eq!(verdict, Ok(Verdict::Data));
    }
}

#[test]
fn a_version_of_absurd_length_is_refused() {
    let mut checker = Checker::new(SnapshotLimits::default());
    let verdict = checker.message(4096, &[], &"3".repeat(65), Duration::ZERO);
    assert_eq!(verdict, Err(SnapshotViolation::VersionTooLong { size: 65 }));
}

/// One way to spoil a stream.
#[derive(Clone, Debug)]
enum Damage {
    Drop,
    Repeat,
    Swap,
    FlipBit(usize),
    Shorten,
    Lengthen,
    Remaining(u64),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        Just(Damage::Drop),
        Just(Damage::Repeat),
        Just(Damage::Swap),
        any::<usize>().prop_map(Damage::FlipBit),
        Just(Damage::Shorten),
        Just(Damage::Lengthen),
        any::<u64>().prop_map(Damage::Remaining),
    ]
}

fn spoil(messages: &mut Vec<Message>, at: usize, damage: &Damage) {
    match damage {
        Damage::Drop => {
            messages.remove(at);
        }
        Damage::Repeat => messages.insert(at, messages[at].clone()),
        Damage::Swap => {
            let next = (at + 1) % messages.len();
            messages.swap(at, next);
        }
        Damage::FlipBit(bit) => {
            let bits = messages[at].1.len() * 8;
            let bit = bit % bits;
            messages[at].1[bit / 8] ^= 1 << (bit % 8);
        }
        Damage::Shorten => {
            messages[at].1.pop();
        }
        Damage::Lengthen => messages[at].1.push(0),
        Damage::Remaining(value) => messages[at].0 = *value,
    }
}

proptest! {
    #[test]
    fn any_cut_of_a_sound_stream_passes(pages in 4_usize..40, piece in 1_usize..5000) {
        let db = database(pages);
        prop_assert_eq!(run(&sound(&db, piece)).unwrap().0, db);
    }

    #[test]
    fn any_single_damage_is_found_or_leaves_the_stream_as_it_was(
        pages in 4_usize..12, piece in 100_usize..3000, at in any::<prop::sample::Index>(), how in damage()
    ) {
        let db = database(pages);
        let sound = sound(&db, piece);
        let mut spoiled = sound.clone();
        let at = at.index(spoiled.len());
        spoil(&mut spoiled, at, &how);
        match run(&spoiled) {
            Ok((out, _)) => {
                prop_assert_eq!(&spoiled, &sound, "accepted a damaged stream");
                prop_assert_eq!(out, db);
            }
            Err(_) => prop_assert_ne!(&spoiled, &sound, "refused a sound stream"),
        }
    }

    #[test]
    fn arbitrary_messages_never_panic_and_never_pass_by_luck(
        messages in prop::collection::vec((any::<u64>(), prop::collection::vec(any::<u8>(), 0..64)), 0..20)
    ) {
        prop_assert!(run(&messages).is_err());
    }
}
