//! The write-ahead log of a member: the first segment of a restored one, and a reader.
//!
//! Sources of the format: etcd `server/storage/wal/{encoder,decoder,wal}.go`, `wal/walpb/record.proto`, raft `raftpb/raft.proto`.
//! A segment is a row of frames: a little-endian u64 with the record's length (and, in the top byte, the padding), the record,
//! zeros up to a multiple of eight. Every record carries the CRC-32C of all data so far.

mod read;
mod write;

pub use read::{Entry, HardState, Reader, Record, Summary, WalError, summarize};
pub(crate) use write::with_valid_checksums;
pub use write::{bootstrap, segment_name};

/// Length to which etcd preallocates a segment.
pub const SEGMENT_BYTES: u64 = 64_000_000;

/// Frames begin at multiples of this.
const ALIGNMENT: usize = 8;
/// Granularity at which a write can be torn.
const SECTOR: u64 = 512;

/// Types of records.
mod kind {
    pub(super) const METADATA: u64 = 1;
    pub(super) const ENTRY: u64 = 2;
    pub(super) const STATE: u64 = 3;
    pub(super) const CRC: u64 = 4;
    pub(super) const SNAPSHOT: u64 = 5;
}

#[cfg(test)]
mod tests;
