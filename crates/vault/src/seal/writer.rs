//! From frames to the stored object, in order.

use std::collections::VecDeque;

use age::Callbacks;
use bytes::{Bytes, BytesMut};

use super::stream::{CHUNK, NONCE, PayloadKey, STORED_CHUNK, TAG};
use super::{CompressedFrame, Recipients, SealError};
use crate::digest::{Sha256, Sha256Hasher};
use crate::frames::FrameTable;
use crate::layers::Layers;
use crate::limits;

/// Chunks of the age format in one piece that is handed out: 1 MiB and the tags.
const PIECE_CHUNKS: u64 = 16;
/// The most bytes in one piece of an encrypted object, beside the header in the first.
pub const PIECE: usize = (PIECE_CHUNKS * STORED_CHUNK) as usize;

/// What is known of an object once all of it was handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedObject {
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 of all its bytes.
    pub sha256: Sha256,
    /// The frame table, with the digests of its blocks.
    pub frames: FrameTable,
}

/// Hashes what is handed out, twice: as a whole for the manifest, by block for the frame table.
struct Sink {
    ready: VecDeque<Bytes>,
    size: u64,
    whole: Sha256Hasher,
    block: Sha256Hasher,
    in_block: u64,
    blocks: Vec<Sha256>,
}

impl Sink {
    fn new() -> Self {
        let (whole, block) = (Sha256Hasher::new(), Sha256Hasher::new());
        Self { ready: VecDeque::new(), size: 0, whole, block, in_block: 0, blocks: Vec::new() }
    }

    fn release(&mut self, piece: Bytes) {
        self.whole.update(&piece);
        self.size += piece.len() as u64;
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let room = usize::try_from(limits::HASH_BLOCK - self.in_block).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.block.update(now);
            self.in_block += now.len() as u64;
            if self.in_block == limits::HASH_BLOCK {
                self.end_block();
            }
            rest = later;
        }
        self.ready.push_back(piece);
    }

    fn end_block(&mut self) {
        self.blocks.push(std::mem::replace(&mut self.block, Sha256Hasher::new()).finish());
        self.in_block = 0;
    }
}

/// Cuts the stream into chunks and encrypts each where it lies in the piece.
struct Encryption {
    key: PayloadKey,
    chunk: u64,
    piece: BytesMut,
    /// Where the open chunk begins in `piece`.
    start: usize,
}

impl Encryption {
    fn begin(recipients: &Recipients, callbacks: impl Callbacks) -> Result<Self, SealError> {
        let (header, file_key) = recipients.wrap(callbacks)?;
        let nonce: &[u8; NONCE] = header.last_chunk().ok_or_else(|| SealError::Age { detail: "the header has no nonce".to_owned() })?;
        let key = PayloadKey::new(&file_key, nonce)?;
        let mut piece = BytesMut::with_capacity(header.len() + PIECE);
        piece.extend_from_slice(&header);
        Ok(Self { key, chunk: 0, start: piece.len(), piece })
    }

    fn write(&mut self, mut bytes: &[u8], sink: &mut Sink) -> Result<(), SealError> {
        while !bytes.is_empty() {
            let held = self.piece.len() - self.start;
            let room = CHUNK as usize - held;
            if room == 0 {
                // Only now is it sure that this chunk is not the last one.
                self.seal_chunk(false)?;
                self.hand_out(sink);
                continue;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.piece.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    fn seal_chunk(&mut self, last: bool) -> Result<(), SealError> {
        let failed = || SealError::Age { detail: format!("chunk {} cannot be encrypted", self.chunk) };
        let tag = self.key.seal_chunk(self.chunk, last, &mut self.piece[self.start..]).ok_or_else(failed)?;
        self.piece.extend_from_slice(&tag);
        self.start = self.piece.len();
        self.chunk = self.chunk.checked_add(1).ok_or_else(failed)?;
        Ok(())
    }

    fn hand_out(&mut self, sink: &mut Sink) {
        if self.chunk.is_multiple_of(PIECE_CHUNKS) {
            sink.release(self.piece.split().freeze());
            self.start = 0;
            self.piece.reserve(PIECE);
        }
    }

    fn finish(mut self, sink: &mut Sink) -> Result<(), SealError> {
        self.seal_chunk(true)?;
        sink.release(self.piece.freeze());
        Ok(())
    }
}

/// Takes frames in order, hands out the bytes of the stored object in order. One per object.
///
/// Holds one piece (1 MiB), the pieces not taken yet, and 52 bytes per 4 MiB of the file for the table: take the pieces after every frame.
pub struct SealWriter {
    layers: Layers,
    encryption: Option<Encryption>,
    sink: Sink,
    table: FrameTable,
}

impl std::fmt::Debug for SealWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealWriter").field("layers", &self.layers).field("frames", &self.table.frames().len()).finish()
    }
}

impl SealWriter {
    /// Begins an object. `recipients` are given exactly when `layers` has the age layer. Plugins run here; `callbacks` answer their questions.
    pub fn new(layers: Layers, recipients: Option<&Recipients>, callbacks: impl Callbacks) -> Result<Self, SealError> {
        let encryption = match (layers.age, recipients) {
            (true, Some(recipients)) => Some(Encryption::begin(recipients, callbacks)?),
            (false, None) => None,
            (true, None) => return Err(SealError::Recipients { detail: "there is none".to_owned() }),
            (false, Some(_)) => return Err(SealError::Recipients { detail: "encryption is turned off".to_owned() }),
        };
        Ok(Self { layers, encryption, sink: Sink::new(), table: FrameTable::default() })
    }

    /// Takes the next frame.
    pub fn push(&mut self, frame: CompressedFrame) -> Result<(), SealError> {
        if frame.compressed != self.layers.zstd {
            return Err(SealError::Unwritable { detail: format!("it is of other layers than {}", self.layers) });
        }
        let stored = u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX);
        self.table.push(stored, frame.raw, frame.crc).map_err(|e| SealError::Unwritable { detail: e.to_string() })?;
        match &mut self.encryption {
            Some(encryption) => encryption.write(&frame.bytes, &mut self.sink),
            None => {
                self.sink.release(frame.bytes);
                Ok(())
            }
        }
    }

    /// The next piece to upload, where one is ready. All pieces, with those of [`SealWriter::finish`], are the object.
    pub fn pop(&mut self) -> Option<Bytes> {
        self.sink.ready.pop_front()
    }

    /// Ends the object: the pieces not taken yet, and what is known of the whole.
    pub fn finish(mut self) -> Result<(Vec<Bytes>, SealedObject), SealError> {
        if let Some(encryption) = self.encryption.take() {
            encryption.finish(&mut self.sink)?;
        }
        if self.sink.in_block > 0 {
            self.sink.end_block();
        }
        let Sink { ready, size, whole, blocks, .. } = self.sink;
        blocks.into_iter().for_each(|block| self.table.push_block(block));
        Ok((ready.into(), SealedObject { size, sha256: whole.finish(), frames: self.table }))
    }
}

// A tag more or less would move every later chunk.
const _: () = assert!(STORED_CHUNK - CHUNK == TAG && PIECE as u64 == PIECE_CHUNKS * STORED_CHUNK);
