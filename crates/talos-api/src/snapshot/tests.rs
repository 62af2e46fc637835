#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use etcd_api::{SnapshotLimits, SnapshotSummary};
use proptest::prelude::*;
use ring::digest::{SHA256, digest};

use super::check::{Checker, StreamViolation};

/// A database of this many pages of 512 bytes, and its trailer.
fn file(pages: usize) -> Vec<u8> {
    let mut file: Vec<u8> = (0..pages * 512).map(|i| (i * 31 + i / 512) as u8).collect();
    let sum = digest(&SHA256, &file);
    file.extend_from_slice(sum.as_ref());
    file
}

/// Runs pieces through a checker; gives the bytes it called the database's, and its verdict.
fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Result<SnapshotSummary, StreamViolation>) {
    let mut checker = Checker::new(SnapshotLimits::default());
    let mut out = Vec::new();
    for piece in pieces {
        match checker.message(piece, Duration::ZERO) {
            Ok(proven) => {
                out.extend_from_slice(&proven.held);
                out.extend_from_slice(&piece[..proven.fresh]);
            }
            Err(violation) => return (out, Err(violation)),
        }
    }
    (out, checker.end())
}

#[test]
fn a_whole_stream_is_proven_and_its_trailer_held_back() {
    let file = file(8);
    let (out, verdict) = run(file.chunks(1024));
    let summary = verdict.unwrap();
    assert_eq!(out, file[..file.len() - 32]);
    assert_eq!(summary.database_size, 8 * 512);
    assert_eq!(summary.sha256, file[file.len() - 32..]);
    assert_eq!(summary.file_sha256, digest(&SHA256, &file).as_ref());
}

#[test]
fn a_stream_cut_anywhere_is_refused() {
    let file = file(6);
    for length in 0..file.len() {
        let (_, verdict) = run(file[..length].chunks(100));
        let violation = verdict.unwrap_err();
        let fits = matches!(violation, StreamViolation::EndedEmpty | StreamViolation::Cut { .. } | StreamViolation::WrongDigest { .. });
        assert!(fits, "{length}: {violation}");
    }
    // 32 bytes over a whole number of pages passes talosctl's only check.
    let (_, verdict) = run([&file[..4 * 512 + 32]]);
    assert!(matches!(verdict, Err(StreamViolation::WrongDigest { size: 2048, .. })), "{verdict:?}");
}

#[test]
fn a_damaged_byte_is_found_wherever_it_is() {
    let file = file(5);
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 1;
        assert!(matches!(run(damaged.chunks(1024)).1, Err(StreamViolation::WrongDigest { .. })));
    }
}

#[test]
fn empty_messages_end_it_and_so_does_standing_still() {
    let mut checker = Checker::new(SnapshotLimits::default());
    let many = (0..100).map(|_| checker.message(&[], Duration::ZERO)).find_map(Result::err);
    assert!(matches!(many, Some(StreamViolation::EmptyMessages { count: 17, .. })), "{many:?}");
    let mut checker = Checker::new(SnapshotLimits::default());
    let slow = (0..100).map(|_| checker.message(&[7; 10], Duration::from_secs(10))).find_map(Result::err);
    assert!(matches!(slow, Some(StreamViolation::NoProgress { .. })), "{slow:?}");
}

#[test]
fn limits_hold() {
    let limits = SnapshotLimits { max_blob: 100, max_database: 1000, ..SnapshotLimits::default() };
    let mut checker = Checker::new(limits);
    assert_eq!(checker.message(&[0; 101], Duration::ZERO), Err(StreamViolation::MessageTooLarge { size: 101, limit: 100 }));
    let mut checker = Checker::new(limits);
    let over = (0..20).map(|_| checker.message(&[0; 100], Duration::ZERO)).find_map(Result::err);
    assert_eq!(over, Some(StreamViolation::TooLarge { limit: 1000 }));
}

proptest! {
    #[test]
    fn the_pieces_do_not_matter(pages in 4_usize..12, cuts in proptest::collection::vec(0_usize..7000, 0..40)) {
        let file = file(pages);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % file.len()).chain([0, file.len()]).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &file[pair[0]..pair[1]]).collect();
        let (out, verdict) = run(pieces);
        prop_assert_eq!(out, &file[..file.len() - 32]);
        prop_assert_eq!(verdict.unwrap().database_size, (pages * 512) as u64);
    }
}
