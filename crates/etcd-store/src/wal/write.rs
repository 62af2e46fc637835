//! The first segment of a restored member.

use super::{ALIGNMENT, kind};
use crate::cluster::ClusterSpec;
use crate::conf_state::ConfState;
use crate::crc::Crc32c;
use crate::id::MemberId;
use crate::proto::{put_bytes, put_number};
use crate::restore::BOOTSTRAP_TERM;

/// The name of segment number `sequence`, whose first entry has raft index `index`.
#[must_use]
pub fn segment_name(sequence: u64, index: u64) -> String {
    format!("{sequence:016x}-{index:016x}.wal")
}

/// The records with which a restored member of `cluster` starts, byte for byte as etcdutl 3.6 writes them: one configuration
/// change per member, all committed in term 1, and a snapshot record at the last of them.
///
/// The snapshot record promises a raft snapshot at that index, so the `.snap` file must be durable before this is.
#[must_use]
pub fn bootstrap(cluster: &ClusterSpec, own: MemberId) -> Vec<u8> {
    let mut segment = Segment { bytes: Vec::new(), crc: Crc32c::new() };
    segment.put_crc();
    segment.put(kind::METADATA, &metadata(cluster, own));
    segment.put(kind::SNAPSHOT, &snapshot(0, 0, None));
    for (index, member) in (1..).zip(cluster.records()) {
        segment.put(kind::ENTRY, &add_member(index, member.id, member.to_json().as_bytes()));
    }
    let lowest = cluster.members().first().map_or(MemberId(0), |member| member.id);
    segment.put(kind::STATE, &hard_state(lowest, cluster.last_index()));
    segment.put(kind::SNAPSHOT, &snapshot(cluster.last_index(), BOOTSTRAP_TERM, Some(&cluster.conf_state())));
    segment.bytes
}

struct Segment {
    bytes: Vec<u8>,
    crc: Crc32c,
}

impl Segment {
    /// The record a segment begins with: the CRC so far, and no data.
    fn put_crc(&mut self) {
        let mut record = Vec::new();
        put_number(&mut record, 1, kind::CRC);
        put_number(&mut record, 2, u64::from(self.crc.value()));
        self.put_frame(&record);
    }

    fn put(&mut self, kind: u64, data: &[u8]) {
        self.crc.update(data);
        let mut record = Vec::with_capacity(data.len() + 16);
        put_number(&mut record, 1, kind);
        put_number(&mut record, 2, u64::from(self.crc.value()));
        put_bytes(&mut record, 3, data);
        self.put_frame(&record);
    }

    fn put_frame(&mut self, record: &[u8]) {
        let padding = record.len().next_multiple_of(ALIGNMENT) - record.len();
        let mut length = record.len() as u64;
        if padding != 0 {
            length |= (0x80 | padding as u64) << 56;
        }
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(record);
        self.bytes.resize(self.bytes.len() + padding, 0);
    }
}

/// The records of a segment that may be damaged, each given the checksum it should have, for fuzzing. What is no frame is
/// kept as it is at the end.
pub(crate) fn with_valid_checksums(segment: &[u8]) -> Vec<u8> {
    let mut sound = Segment { bytes: Vec::new(), crc: Crc32c::new() };
    let mut rest = segment;
    while let Some((record, after)) = split_frame(rest) {
        match super::read::envelope(record) {
            Ok((kind::CRC, _, _)) => sound.put_crc(),
            Ok((kind, _, data)) => sound.put(kind, data),
            Err(_) => sound.put_frame(record),
        }
        rest = after;
    }
    sound.bytes.extend_from_slice(rest);
    sound.bytes
}

/// The record of the first frame, and what follows it.
fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<ALIGNMENT>()?;
    let field = u64::from_le_bytes(*head);
    let padding = if field >> 63 == 1 { (field >> 56 & 7) as usize } else { 0 };
    let length = usize::try_from(field & 0x00ff_ffff_ffff_ffff).ok().filter(|length| *length > 0)?;
    let (record, after) = rest.split_at_checked(length)?;
    Some((record, after.split_at_checked(padding)?.1))
}

fn metadata(cluster: &ClusterSpec, own: MemberId) -> Vec<u8> {
    let mut data = Vec::new();
    put_number(&mut data, 1, own.0);
    put_number(&mut data, 2, cluster.id().0);
    data
}

fn snapshot(index: u64, term: u64, conf_state: Option<&ConfState>) -> Vec<u8> {
    let mut data = Vec::new();
    put_number(&mut data, 1, index);
    put_number(&mut data, 2, term);
    if let Some(conf_state) = conf_state {
        let mut message = Vec::new();
        conf_state.encode_into(&mut message);
        put_bytes(&mut data, 3, &message);
    }
    data
}

fn add_member(index: u64, id: MemberId, json: &[u8]) -> Vec<u8> {
    let mut change = Vec::new();
    put_number(&mut change, 1, 0);
    // ConfChangeAddNode.
    put_number(&mut change, 2, 0);
    put_number(&mut change, 3, id.0);
    put_bytes(&mut change, 4, json);
    let mut entry = Vec::new();
    // EntryConfChange.
    put_number(&mut entry, 1, 1);
    put_number(&mut entry, 2, BOOTSTRAP_TERM);
    put_number(&mut entry, 3, index);
    put_bytes(&mut entry, 4, &change);
    entry
}

fn hard_state(vote: MemberId, commit: u64) -> Vec<u8> {
    let mut data = Vec::new();
    put_number(&mut data, 1, BOOTSTRAP_TERM);
    put_number(&mut data, 2, vote.0);
    put_number(&mut data, 3, commit);
    data
}
