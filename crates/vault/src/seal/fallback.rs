//! Reading a stored object in order, without a frame table: what `age -d | zstd -d` does.
//!
//! A backup whose `frames.bin` is missing or damaged restores all the same, and so does one that another tool compressed in one frame.

use std::io::{self, BufReader, Read};

use super::stream::{CHUNK, PayloadKey, STORED_CHUNK};
use super::unseal::open_head;
use super::{Identities, SealError};
use crate::layers::Layers;
use crate::limits;

/// Reads the file out of a stored object, in order. An error of kind `InvalidData` means damage; an end that was not announced (a cut object) is
/// such an error too.
pub struct StreamDecoder<R: Read>(Inner<R>);

enum Inner<R: Read> {
    Plain(R),
    Age(ChunkReader<R>),
    Zstd(zstd::stream::read::Decoder<'static, BufReader<R>>),
    Both(zstd::stream::read::Decoder<'static, BufReader<ChunkReader<R>>>),
}

impl<R: Read> std::fmt::Debug for StreamDecoder<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StreamDecoder")
    }
}

fn decompress<R: Read>(reader: R) -> Result<zstd::stream::read::Decoder<'static, BufReader<R>>, SealError> {
    let failed = |e: io::Error| SealError::Zstd { detail: e.to_string() };
    let mut decoder = zstd::stream::read::Decoder::new(reader).map_err(failed)?;
    decoder.window_log_max(limits::ZSTD_WINDOW_LOG).map_err(failed)?;
    Ok(decoder)
}

impl<R: Read> StreamDecoder<R> {
    /// Opens an object. With the age layer its header is read and the file key unwrapped here.
    pub fn open(layers: Layers, reader: R, identities: &Identities) -> Result<Self, SealError> {
        Ok(Self(match (layers.age, layers.zstd) {
            (false, false) => Inner::Plain(reader),
            (false, true) => Inner::Zstd(decompress(reader)?),
            (true, false) => Inner::Age(open_age(reader, identities)?),
            (true, true) => Inner::Both(decompress(open_age(reader, identities)?)?),
        }))
    }
}

impl<R: Read> Read for StreamDecoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Plain(reader) => reader.read(buffer),
            Inner::Age(reader) => reader.read(buffer),
            Inner::Zstd(reader) => reader.read(buffer),
            Inner::Both(reader) => reader.read(buffer),
        }
    }
}

/// Opens the age layer of a stream.
pub(super) fn open_age<R: Read>(mut reader: R, identities: &Identities) -> Result<ChunkReader<R>, SealError> {
    let mut head = Vec::with_capacity(limits::AGE_HEADER_BYTES);
    let read = (&mut reader).take(limits::AGE_HEADER_BYTES as u64).read_to_end(&mut head);
    read.map_err(|e| SealError::Header { detail: e.to_string() })?;
    let (key, end) = open_head(&head, identities)?;
    // What was read beyond the header belongs to the first chunks.
    head.drain(..end);
    Ok(ChunkReader { source: reader, key, chunk: 0, stored: head, plain: Vec::new(), at: 0, ended: false })
}

/// Decrypts chunk after chunk. Holds three chunks of 64 KiB.
pub(super) struct ChunkReader<R> {
    source: R,
    key: PayloadKey,
    chunk: u64,
    /// Bytes read but not decrypted yet.
    stored: Vec<u8>,
    plain: Vec<u8>,
    at: usize,
    ended: bool,
}

fn damaged(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

impl<R: Read> ChunkReader<R> {
    fn next_chunk(&mut self) -> io::Result<()> {
        // One byte more than a chunk tells whether it is the last.
        let wanted = STORED_CHUNK as usize + 1;
        if let Some(missing) = wanted.checked_sub(self.stored.len()) {
            (&mut self.source).take(missing as u64).read_to_end(&mut self.stored)?;
        }
        let last = self.stored.len() < wanted;
        let length = self.stored.len().min(STORED_CHUNK as usize);
        self.plain.clear();
        self.plain.extend_from_slice(&self.stored[..length]);
        let opened = self.key.open_chunk(self.chunk, last, &mut self.plain, 0);
        let opened = opened.ok_or_else(|| damaged(format!("damaged: chunk {} does not decrypt, or the object is cut off", self.chunk)))?;
        if opened == 0 && self.chunk > 0 {
            return Err(damaged(format!("damaged: chunk {} is empty", self.chunk)));
        }
        self.plain.truncate(opened);
        self.stored.drain(..length);
        (self.at, self.ended) = (0, last);
        self.chunk = self.chunk.checked_add(1).ok_or_else(|| damaged("too many chunks".to_owned()))?;
        Ok(())
    }
}

impl<R: Read> Read for ChunkReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.plain.len() && !self.ended {
            self.next_chunk()?;
        }
        let length = buffer.len().min(self.plain.len() - self.at);
        buffer[..length].copy_from_slice(&self.plain[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

const _: () = assert!(CHUNK < STORED_CHUNK);
