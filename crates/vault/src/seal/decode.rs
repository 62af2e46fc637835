//! From stored bytes back to the file, frame by frame.

use std::ops::Range;

use bytes::BytesMut;
use zstd::zstd_safe::DParameter;

use super::compress::zstd_error;
use super::{SealError, Unsealer};
use crate::frames::{Frame, FrameTable};
use crate::limits;

/// Decodes frames, one after the other, with the same state: one per worker. Holds about 4.2 MiB once used.
pub struct FrameDecoder {
    zstd: zstd::bulk::Decompressor<'static>,
    raw: Vec<u8>,
}

impl std::fmt::Debug for FrameDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FrameDecoder")
    }
}

/// Checks that a frame table describes the stream that was opened, before any frame is read by it.
pub fn check_table(unsealer: &Unsealer, table: &FrameTable) -> Result<(), SealError> {
    let (described, stream) = (table.stream_len(), unsealer.stream_len());
    if described == stream { Ok(()) } else { Err(SealError::Table { table: described, stream }) }
}

impl FrameDecoder {
    /// A decoder with its own zstd state.
    pub fn new() -> Result<Self, SealError> {
        let mut zstd = zstd::bulk::Decompressor::new().map_err(zstd_error)?;
        zstd.set_parameter(DParameter::WindowLogMax(limits::ZSTD_WINDOW_LOG)).map_err(zstd_error)?;
        Ok(Self { zstd, raw: Vec::new() })
    }

    /// Decodes one frame from its bytes in the unsealed stream: CRC, then zstd to exactly its raw length. The answer is lent until the next call.
    pub fn decode(&mut self, unsealer: &Unsealer, index: usize, frame: &Frame, bytes: &[u8]) -> Result<&[u8], SealError> {
        let damaged = |detail: String| {
            let Range { start, end } = frame.range();
            SealError::Frame { index, start, end, detail }
        };
        let crc = crc_fast::crc32_iscsi(bytes);
        if crc != frame.crc || bytes.len() as u64 != u64::from(frame.stored) {
            return Err(damaged(format!("CRC-32C is {crc:08x} where {:08x} is expected", frame.crc)));
        }
        self.raw.clear();
        if !unsealer.layers().zstd {
            if frame.raw != frame.stored {
                return Err(damaged(format!("{} bytes uncompressed cannot be {} bytes", frame.stored, frame.raw)));
            }
            self.raw.extend_from_slice(bytes);
            return Ok(&self.raw);
        }
        let length = (frame.raw as usize).min(limits::FRAME_RAW);
        // One byte more than expected, so that a longer frame shows as one.
        self.raw.reserve(length + 1);
        let got = self.zstd.decompress_to_buffer(bytes, &mut self.raw).map_err(|e| damaged(e.to_string()))?;
        if got != frame.raw as usize {
            return Err(damaged(format!("it decompresses to {got} bytes, {} are expected", frame.raw)));
        }
        Ok(&self.raw)
    }

    /// Decodes a run of neighbouring frames out of `stored`: exactly the bytes of the stored object that
    /// `unsealer.stored_range(table.run_range(run))` names. `take` gets each frame's offset in the file and its bytes.
    pub fn decode_run<E: From<SealError>>(
        &mut self,
        unsealer: &Unsealer,
        table: &FrameTable,
        run: Range<usize>,
        stored: BytesMut,
        mut take: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let outside = || SealError::Range { start: run.start as u64, end: run.end as u64, length: table.frames().len() as u64, given: 0 };
        let stream = table.run_range(&run).ok_or_else(outside)?;
        let opened = unsealer.open_range(&stream, stored)?;
        let mut rest = &opened[..];
        for index in run.clone() {
            let (frame, offset) = table.frames().get(index).zip(table.raw_offset(index)).ok_or_else(outside)?;
            let (bytes, later) = rest.split_at_checked(frame.stored as usize).ok_or_else(outside)?;
            take(offset, self.decode(unsealer, index, frame, bytes)?)?;
            rest = later;
        }
        Ok(())
    }
}
