//! `frames.bin`: where each frame lies, and digests of the stored object by block. Format version 1, all numbers little-endian:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 8 | magic `LBFRAMES` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | number of frames, n |
//! | 16 | 20 n | per frame: offset in the unsealed stream u64, stored length u32, raw length u32, CRC-32C of the stored frame u32 |
//! | 16 + 20 n | 32 m | SHA-256 of each block of 8 MiB of the stored object, the last one shorter |
//!
//! The unsealed stream is what lies inside the age layer (or the whole object, where there is none). Frames follow each other without gaps from
//! offset 0. "Stored length" is the compressed length; without the zstd layer a frame is its raw bytes. The table is not needed to restore: it
//! allows to do it in parallel and names damage by range. Its own SHA-256 is in the manifest.

use std::ops::Range;

use crate::digest::Sha256;
use crate::limits;

const MAGIC: &[u8; 8] = b"LBFRAMES";
const VERSION: u32 = 1;
const HEADER: usize = 16;
const FRAME: usize = 20;
const DIGEST: usize = 32;

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where it begins in the unsealed stream, in bytes.
    pub offset: u64,
    /// Its length in the unsealed stream (compressed), in bytes, at least 1.
    pub stored: u32,
    /// Its length decompressed, in bytes, `1..=`[`limits::FRAME_RAW`].
    pub raw: u32,
    /// CRC-32C (Castagnoli) of its bytes in the unsealed stream.
    pub crc: u32,
}

impl Frame {
    /// Its bytes in the unsealed stream.
    pub fn range(&self) -> Range<u64> {
        // Cannot overflow: a table's frames were checked to lie one behind the other below u64::MAX.
        self.offset..self.offset.saturating_add(u64::from(self.stored))
    }
}

/// The whole table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrameTable {
    frames: Vec<Frame>,
    raw_offsets: Vec<u64>,
    blocks: Vec<Sha256>,
    end: u64,
    raw_end: u64,
}

/// Why bytes are not a sound frame table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameTableError {
    /// Not the digest that the manifest names.
    #[error("damaged: the manifest says SHA-256 {stated}, the bytes have {actual}")]
    Digest {
        /// What the manifest says.
        stated: Sha256,
        /// What the bytes have.
        actual: Sha256,
    },
    /// Larger than [`limits::FRAMES_BYTES`], when written or when read.
    #[error("{size} bytes are more than the {} allowed", limits::FRAMES_BYTES)]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
    /// Not the magic, or a version this release does not know.
    #[error("not a frame table of version {VERSION}")]
    NotAFrameTable,
    /// Its length does not fit its number of frames.
    #[error("{size} bytes do not hold {frames} frames and whole digests")]
    Length {
        /// Its size in bytes.
        size: usize,
        /// The number of frames it states.
        frames: u32,
    },
    /// A frame is out of bounds, or does not begin where the one before it ends.
    #[error("frame {index} does not fit: {frame:?}")]
    Frame {
        /// Which, from 0.
        index: usize,
        /// What it says.
        frame: Frame,
    },
    /// The number of digests does not fit the size of the stored object.
    #[error("{blocks} block digests do not cover {size} stored bytes")]
    Blocks {
        /// How many there are.
        blocks: usize,
        /// The size of the stored object.
        size: u64,
    },
}

impl FrameTable {
    /// Appends a frame.
    pub fn push(&mut self, stored: u32, raw: u32, crc: u32) -> Result<(), FrameTableError> {
        let frame = Frame { offset: self.end, stored, raw, crc };
        let bounds = (1..=limits::FRAME_COMPRESSED).contains(&(stored as usize)) && (1..=limits::FRAME_RAW).contains(&(raw as usize));
        let (end, raw_end) = (self.end.checked_add(u64::from(stored)), self.raw_end.checked_add(u64::from(raw)));
        let (true, Some(end), Some(raw_end)) = (bounds, end, raw_end) else {
            return Err(FrameTableError::Frame { index: self.frames.len(), frame });
        };
        self.frames.push(frame);
        self.raw_offsets.push(self.raw_end);
        (self.end, self.raw_end) = (end, raw_end);
        Ok(())
    }

    /// Appends the digest of the next block of the stored object.
    pub fn push_block(&mut self, digest: Sha256) {
        self.blocks.push(digest);
    }

    /// The frames, in order.
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// Where a frame's raw bytes begin in the snapshot file.
    pub fn raw_offset(&self, index: usize) -> Option<u64> {
        self.raw_offsets.get(index).copied()
    }

    /// The digests of the blocks of the stored object.
    pub fn blocks(&self) -> &[Sha256] {
        &self.blocks
    }

    /// The length of the unsealed stream, in bytes.
    pub fn stream_len(&self) -> u64 {
        self.end
    }

    /// The length of the snapshot file, in bytes.
    pub fn raw_len(&self) -> u64 {
        self.raw_end
    }

    /// Cuts the frames into runs of neighbours with at most `bytes` of unsealed stream each (at least one frame), for parallel workers.
    pub fn runs(&self, bytes: u64) -> Vec<Range<usize>> {
        let mut runs = Vec::new();
        let mut start = 0;
        let mut held = 0u64;
        for (index, frame) in self.frames.iter().enumerate() {
            if index > start && held + u64::from(frame.stored) > bytes {
                runs.push(start..index);
                (start, held) = (index, 0);
            }
            held += u64::from(frame.stored);
        }
        if start < self.frames.len() {
            runs.push(start..self.frames.len());
        }
        runs
    }

    /// The part of the unsealed stream that a run of frames takes.
    pub fn run_range(&self, run: &Range<usize>) -> Option<Range<u64>> {
        let frames = self.frames.get(run.clone())?;
        Some(frames.first()?.offset..frames.last()?.range().end)
    }

    /// The bytes to store.
    pub fn encode(&self) -> Result<Vec<u8>, FrameTableError> {
        let size = HEADER + FRAME * self.frames.len() + DIGEST * self.blocks.len();
        if size > limits::FRAMES_BYTES {
            return Err(FrameTableError::TooLarge { size });
        }
        let mut bytes = Vec::with_capacity(size);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        // Below u32::MAX: the size was just bounded.
        bytes.extend_from_slice(&(self.frames.len() as u32).to_le_bytes());
        for frame in &self.frames {
            bytes.extend_from_slice(&frame.offset.to_le_bytes());
            bytes.extend_from_slice(&frame.stored.to_le_bytes());
            bytes.extend_from_slice(&frame.raw.to_le_bytes());
            bytes.extend_from_slice(&frame.crc.to_le_bytes());
        }
        for block in &self.blocks {
            bytes.extend_from_slice(&block.0);
        }
        Ok(bytes)
    }

    /// Reads a table.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameTableError> {
        let size = bytes.len();
        if size > limits::FRAMES_BYTES {
            return Err(FrameTableError::TooLarge { size });
        }
        let (magic, rest) = bytes.split_first_chunk::<8>().ok_or(FrameTableError::NotAFrameTable)?;
        let (version, rest) = rest.split_first_chunk::<4>().ok_or(FrameTableError::NotAFrameTable)?;
        let (count, rest) = rest.split_first_chunk::<4>().ok_or(FrameTableError::NotAFrameTable)?;
        if magic != MAGIC || u32::from_le_bytes(*version) != VERSION {
            return Err(FrameTableError::NotAFrameTable);
        }
        let count = u32::from_le_bytes(*count);
        let wrong_length = FrameTableError::Length { size, frames: count };
        let split = (count as usize).checked_mul(FRAME).filter(|split| *split <= rest.len());
        let (frames, blocks) = rest.split_at(split.ok_or_else(|| wrong_length.clone())?);
        let (blocks, remainder) = blocks.as_chunks::<DIGEST>();
        if !remainder.is_empty() {
            return Err(wrong_length);
        }
        let mut table = Self::default();
        for (index, frame) in frames.as_chunks::<FRAME>().0.iter().enumerate() {
            let frame = read_frame(frame);
            if frame.offset != table.end {
                return Err(FrameTableError::Frame { index, frame });
            }
            table.push(frame.stored, frame.raw, frame.crc)?;
        }
        table.blocks = blocks.iter().map(|block| Sha256(*block)).collect();
        Ok(table)
    }

    /// Reads the table of a backup: its digest as the manifest states it, and as many blocks as the stored object of `size` bytes has.
    pub fn decode_checked(bytes: &[u8], stated: Sha256, size: u64) -> Result<Self, FrameTableError> {
        let actual = Sha256::of(bytes);
        if actual != stated {
            return Err(FrameTableError::Digest { stated, actual });
        }
        let table = Self::decode(bytes)?;
        let blocks = table.blocks.len();
        if size.div_ceil(limits::HASH_BLOCK) != blocks as u64 {
            return Err(FrameTableError::Blocks { blocks, size });
        }
        Ok(table)
    }

    /// The byte range of one block in a stored object of `size` bytes.
    pub fn block_range(index: usize, size: u64) -> Range<u64> {
        let start = (index as u64).saturating_mul(limits::HASH_BLOCK).min(size);
        start..start.saturating_add(limits::HASH_BLOCK).min(size)
    }
}

fn read_frame(bytes: &[u8; FRAME]) -> Frame {
    let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    Frame { offset: u64::from(u32_at(0)) | u64::from(u32_at(4)) << 32, stored: u32_at(8), raw: u32_at(12), crc: u32_at(16) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn table(frames: &[(u32, u32, u32)], blocks: usize) -> FrameTable {
        let mut table = FrameTable::default();
        for (stored, raw, crc) in frames {
            table.push(*stored, *raw, *crc).unwrap();
        }
        (0..blocks).for_each(|n| table.push_block(Sha256::of(&n.to_le_bytes())));
        table
    }

    #[test]
    fn the_bytes_are_as_documented() {
        let bytes = table(&[(0x0102, 0x0304, 0x0506_0708), (1, 2, 3)], 1).encode().unwrap();
        let mut expected = b"LBFRAMES\x01\0\0\0\x02\0\0\0".to_vec();
        expected.extend_from_slice(b"\0\0\0\0\0\0\0\0\x02\x01\0\0\x04\x03\0\0\x08\x07\x06\x05");
        expected.extend_from_slice(b"\x02\x01\0\0\0\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0");
        expected.extend_from_slice(&Sha256::of(&0usize.to_le_bytes()).0);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn every_flipped_byte_is_found() {
        let bytes = table(&[(100, 200, 7), (50, 60, 8)], 1).encode().unwrap();
        let (stated, size) = (Sha256::of(&bytes), 200);
        assert!(FrameTable::decode_checked(&bytes, stated, size).is_ok());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(FrameTable::decode_checked(&damaged, stated, size).is_err(), "byte {at}");
        }
        assert!(matches!(FrameTable::decode_checked(&bytes, stated, 9 << 20), Err(FrameTableError::Blocks { .. })));
    }

    #[test]
    fn hostile_tables_are_refused() {
        let good = table(&[(100, 200, 7)], 0).encode().unwrap();
        let with = |at: usize, value: &[u8]| {
            let mut bytes = good.clone();
            bytes[at..at + value.len()].copy_from_slice(value);
            FrameTable::decode(&bytes)
        };
        assert!(with(0, b"X").is_err());
        assert!(with(8, &2u32.to_le_bytes()).is_err(), "a later version");
        assert!(with(12, &u32::MAX.to_le_bytes()).is_err(), "more frames than bytes");
        assert!(with(16, &1u64.to_le_bytes()).is_err(), "a gap");
        assert!(with(24, &0u32.to_le_bytes()).is_err(), "an empty frame");
        assert!(with(24, &u32::MAX.to_le_bytes()).is_err(), "a frame above the bound");
        assert!(with(28, &(limits::FRAME_RAW as u32 + 1).to_le_bytes()).is_err(), "too much raw data");
        assert!(FrameTable::decode(&good[..good.len() - 1]).is_err());
        assert!(FrameTable::decode(&vec![0; limits::FRAMES_BYTES + 1]).is_err());
    }

    #[test]
    fn runs_cover_all_frames_once() {
        let table = table(&[(10, 1, 0), (10, 1, 0), (25, 1, 0), (5, 1, 0), (5, 1, 0)], 0);
        assert_eq!(table.runs(20), vec![0..2, 2..3, 3..5]);
        assert_eq!(table.run_range(&(3..5)), Some(45..55));
        assert_eq!(FrameTable::default().runs(20), vec![]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(frames in proptest::collection::vec((1u32..=4 << 20, 1u32..=4 << 20, any::<u32>()), 0..50), blocks in 0usize..9) {
            let table = table(&frames, blocks);
            prop_assert_eq!(FrameTable::decode(&table.encode().unwrap()).unwrap(), table);
        }

        #[test]
        fn junk_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), framed in any::<bool>()) {
            if framed && bytes.len() >= 12 {
                bytes[..12].copy_from_slice(b"LBFRAMES\x01\0\0\0");
            }
            if let Ok(table) = FrameTable::decode(&bytes) {
                prop_assert_eq!(table.encode().unwrap(), bytes);
            }
        }
    }
}
