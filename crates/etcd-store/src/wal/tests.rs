#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;
use crate::cluster::{ClusterSpec, parse_initial_cluster};
use crate::id::MemberId;
use crate::limits::MAX_WAL_RECORD_BYTES;

fn three() -> ClusterSpec {
    let text = "m1=http://127.0.0.1:41791,m2=http://127.0.0.1:41793,m3=http://127.0.0.1:41795";
    ClusterSpec::new("tok", parse_initial_cluster(text).unwrap()).unwrap()
}

fn first_segment() -> Vec<u8> {
    let cluster = three();
    bootstrap(&cluster, cluster.member("m1").unwrap().id)
}

fn read_all(bytes: &[u8]) -> Result<Vec<(u64, Record)>, WalError> {
    let mut reader = Reader::new(bytes);
    let mut records = Vec::new();
    loop {
        let offset = reader.offset();
        match reader.next_record()? {
            Some(record) => records.push((offset, record)),
            None => return Ok(records),
        }
    }
}

/// The running CRCs, read without the reader.
fn stored_crcs(bytes: &[u8]) -> Vec<u32> {
    let mut at = 0;
    let mut crcs = Vec::new();
    while at < bytes.len() {
        let field = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let length = (field & 0x00ff_ffff_ffff_ffff) as usize;
        let record = &bytes[at + 8..at + 8 + length];
        let crc = record[3..].iter().take_while(|&&b| b >= 0x80).count();
        crcs.push((0..=crc).fold(0, |sum, i| sum | u32::from(record[3 + i] & 0x7f) << (7 * i)));
        at += 8 + length.next_multiple_of(8);
    }
    crcs
}

#[test]
fn the_bytes_of_the_reference_are_met() {
    let bytes = first_segment();
    assert_eq!(bytes.len(), 536);
    assert_eq!(bytes[..16], [4, 0, 0, 0, 0, 0, 0, 0x84, 8, 4, 0x10, 0, 0, 0, 0, 0]);
    let metadata = "080110dac5bcc2041a1608c79182e0feccdfa0b30110a9808afea7d2899a9e01";
    let hex: String = bytes[24..24 + metadata.len() / 2].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, metadata);
    let crcs = [0, 0x484f_22da, 0xa540_9eb1, 0xc870_59bb, 0x4b51_d393, 0x9cd8_9381, 0x6c2a_7763, 0xb12f_3595];
    assert_eq!(stored_crcs(&bytes), crcs);
    let offsets: Vec<u64> = read_all(&bytes).unwrap().iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, [0, 16, 56, 80, 200, 320, 440, 472]);
    assert_eq!(segment_name(0, 0), "0000000000000000-0000000000000000.wal");
}

#[test]
fn the_reader_gives_back_what_was_written() {
    let cluster = three();
    let records: Vec<Record> = read_all(&first_segment()).unwrap().into_iter().map(|(_, record)| record).collect();
    let m1 = cluster.member("m1").unwrap().id;
    assert_eq!(records[0], Record::Crc(0));
    assert_eq!(records[1], Record::Metadata { node: m1, cluster: cluster.id() });
    assert_eq!(records[2], Record::Snapshot { index: 0, term: 0, conf_state: None });
    assert!(matches!(&records[5], Record::Entry(entry) if (entry.kind, entry.term, entry.index) == (1, 1, 3)));
    let lowest = cluster.members()[0].id;
    assert_eq!(records[6], Record::HardState(HardState { term: 1, vote: lowest, commit: 3 }));
    assert_eq!(records[7], Record::Snapshot { index: 3, term: 1, conf_state: Some(cluster.conf_state()) });
}

#[test]
fn preallocated_zeros_end_a_segment() {
    let mut bytes = first_segment();
    bytes.resize(4096, 0);
    assert_eq!(read_all(&bytes).unwrap().len(), 8);
}

#[test]
fn every_cut_is_torn_or_a_frame_boundary() {
    let bytes = first_segment();
    let boundaries = [0, 16, 56, 80, 200, 320, 440, 472, 536];
    for cut in 0..=bytes.len() {
        match read_all(&bytes[..cut]) {
            Ok(records) => assert_eq!(boundaries[records.len()], cut),
            Err(WalError::Torn { offset }) => assert!((offset as usize) < cut && boundaries.contains(&(offset as usize))),
            Err(other) => panic!("cut at {cut}: {other}"),
        }
    }
}

#[test]
fn a_zeroed_sector_in_the_last_record_is_torn() {
    let mut bytes = first_segment();
    // The last record lies across the boundary at byte 512.
    bytes[512..].fill(0);
    assert!(matches!(read_all(&bytes), Err(WalError::Torn { offset: 472 })));
}

#[test]
fn a_flipped_bit_is_noticed() {
    let bytes = first_segment();
    let sound = read_all(&bytes).unwrap();
    // The checksum covers a record's data. Its type, the frame's tenth byte, nothing covers.
    let types: Vec<usize> = sound.iter().map(|(offset, _)| *offset as usize + 9).collect();
    for at in (0..bytes.len()).filter(|at| !types.contains(at)) {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            if let Ok(records) = read_all(&damaged) {
                // Padding and the CRC record's own head are not covered; the content must be the same then.
                let same = records.iter().map(|(_, record)| record).zip(&sound).all(|(a, (_, b))| a == b);
                assert!(same, "byte {at} bit {bit}");
            }
        }
    }
}

#[test]
fn an_absurd_length_is_refused() {
    let bytes = (MAX_WAL_RECORD_BYTES + 1).to_le_bytes();
    assert!(matches!(read_all(&bytes), Err(WalError::TooLong { offset: 0, .. })));
}

#[test]
fn a_directory_is_read_in_order_and_gaps_are_found() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(summarize(dir.path()), Err(WalError::NoSegment(_))));
    std::fs::write(dir.path().join(segment_name(0, 0)), first_segment()).unwrap();
    std::fs::write(dir.path().join("0.tmp"), b"x").unwrap();
    let summary = summarize(dir.path()).unwrap();
    assert_eq!((summary.segments, summary.entries, summary.snapshot), (1, 3, Some((3, 1))));
    // A second segment must continue the first one's CRC.
    let mut second = vec![];
    let record = [&[8, 4, 0x10][..], &[0x95, 0xeb, 0xbc, 0x89, 0x0b]].concat();
    second.extend((record.len() as u64).to_le_bytes());
    second.extend(&record);
    std::fs::write(dir.path().join(segment_name(1, 4)), &second).unwrap();
    assert_eq!(summarize(dir.path()).unwrap().segments, 2);
    second[11] ^= 1;
    std::fs::write(dir.path().join(segment_name(1, 4)), &second).unwrap();
    assert!(matches!(summarize(dir.path()), Err(WalError::Crc { .. })));
    std::fs::rename(dir.path().join(segment_name(1, 4)), dir.path().join(segment_name(2, 4))).unwrap();
    assert!(matches!(summarize(dir.path()), Err(WalError::Gap { missing: 1, .. })));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let _ = read_all(&bytes);
    }

    #[test]
    fn a_log_of_any_member_comes_back(id: u64) {
        let cluster = three();
        let bytes = bootstrap(&cluster, MemberId(id));
        let records = read_all(&bytes).unwrap();
        prop_assert_eq!(&records[1].1, &Record::Metadata { node: MemberId(id), cluster: cluster.id() });
    }
}
