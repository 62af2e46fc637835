//! Frames: 4 MiB of the file, compressed on their own.

use bytes::Bytes;
use zstd::zstd_safe::CParameter;

use super::SealError;
use crate::limits;

/// zstd's level for snapshots.
pub const LEVEL: i32 = 3;

/// One frame as it goes into the sealed stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompressedFrame {
    /// Its bytes.
    pub bytes: Bytes,
    /// The length of what it was made from, in bytes.
    pub raw: u32,
    /// CRC-32C of its bytes.
    pub crc: u32,
    /// Whether it is a zstd frame, or raw bytes.
    pub compressed: bool,
}

/// Makes frames, one after the other, with the same state: one per worker.
///
/// Holds about 6 MiB: room for the largest result, and zstd's state for level 3.
pub struct FrameCompressor {
    zstd: Option<zstd::bulk::Compressor<'static>>,
    scratch: Vec<u8>,
}

impl std::fmt::Debug for FrameCompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameCompressor").field("zstd", &self.zstd.is_some()).finish()
    }
}

pub(super) fn zstd_error(error: std::io::Error) -> SealError {
    SealError::Zstd { detail: error.to_string() }
}

impl FrameCompressor {
    /// Makes zstd frames at level 3, each with its content size and a checksum.
    pub fn zstd() -> Result<Self, SealError> {
        let mut compressor = zstd::bulk::Compressor::new(LEVEL).map_err(zstd_error)?;
        compressor.set_parameter(CParameter::ContentSizeFlag(true)).map_err(zstd_error)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true)).map_err(zstd_error)?;
        Ok(Self { zstd: Some(compressor), scratch: Vec::with_capacity(limits::FRAME_COMPRESSED) })
    }

    /// Makes frames that are the raw bytes, where compression was turned off.
    pub fn stored() -> Self {
        Self { zstd: None, scratch: Vec::new() }
    }

    /// Makes a frame of `raw`, `1..=`[`limits::FRAME_RAW`] bytes. Every frame of an object but the last has exactly that many.
    pub fn compress(&mut self, raw: &[u8]) -> Result<CompressedFrame, SealError> {
        if raw.is_empty() || raw.len() > limits::FRAME_RAW {
            return Err(SealError::Unwritable {
                detail: format!("{} bytes of raw data, 1 to {} are allowed", raw.len(), limits::FRAME_RAW),
            });
        }
        let bytes = match &mut self.zstd {
            Some(zstd) => {
                self.scratch.clear();
                zstd.compress_to_buffer(raw, &mut self.scratch).map_err(zstd_error)?;
                // Copied to its own size: frames wait in queues, and a queue of half-empty 4 MiB buffers would be most of the memory.
                Bytes::copy_from_slice(&self.scratch)
            }
            None => Bytes::copy_from_slice(raw),
        };
        let crc = crc_fast::crc32_iscsi(&bytes);
        // At most FRAME_RAW, which is 2^22.
        Ok(CompressedFrame { bytes, raw: raw.len() as u32, crc, compressed: self.zstd.is_some() })
    }
}
