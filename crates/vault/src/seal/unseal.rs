//! Opening a stored object: the file key is unwrapped once, then any range can be decrypted, by any number of workers.

use std::io::Cursor;
use std::ops::Range;
use std::sync::Arc;

use age::Decryptor;
use bytes::BytesMut;

use super::stream::{CHUNK, Geometry, NONCE, PayloadKey, STORED_CHUNK};
use super::{Identities, SealError};
use crate::layers::Layers;
use crate::limits;

#[derive(Clone, Debug)]
struct Age {
    geometry: Geometry,
    key: Arc<PayloadKey>,
}

/// An opened object: knows where each byte of its stream lies, and decrypts ranges. Cheap to clone; shared by all workers.
#[derive(Clone, Debug)]
pub struct Unsealer {
    layers: Layers,
    stored: u64,
    age: Option<Age>,
}

/// How much of an object is read first, to open it: its header, or all of a smaller one, in bytes.
pub const HEAD: u64 = limits::AGE_HEADER_BYTES as u64;

/// Unwraps the file key from the first bytes of an object; answers the key and the length of header and nonce.
pub(super) fn open_head(head: &[u8], identities: &Identities) -> Result<(PayloadKey, usize), SealError> {
    let bounded = &head[..head.len().min(limits::AGE_HEADER_BYTES)];
    let mut cursor = Cursor::new(bounded);
    let decryptor = Decryptor::new_buffered(&mut cursor)?;
    let file_key = identities.unwrap(decryptor)?;
    let end = usize::try_from(cursor.position()).unwrap_or(usize::MAX).min(bounded.len());
    let nonce: &[u8; NONCE] = bounded[..end].last_chunk().ok_or_else(|| SealError::Header { detail: "it has no nonce".to_owned() })?;
    Ok((PayloadKey::new(&file_key, nonce)?, end))
}

impl Unsealer {
    /// Opens an object of `stored` bytes from its first bytes (`head`: [`HEAD`] of them, or all). Without the age layer `head` and `identities`
    /// are not looked at. Asks plugins and runs scrypt, so it may take seconds; it is done once per object.
    pub fn open(layers: Layers, stored: u64, head: &[u8], identities: &Identities) -> Result<Self, SealError> {
        let age = match layers.age {
            true => {
                let (key, header) = open_head(head, identities)?;
                Some(Age { geometry: Geometry::new(header as u64, stored)?, key: Arc::new(key) })
            }
            false => None,
        };
        Ok(Self { layers, stored, age })
    }

    /// The layers.
    pub fn layers(&self) -> Layers {
        self.layers
    }

    /// The length of the unsealed stream, in bytes.
    pub fn stream_len(&self) -> u64 {
        self.age.as_ref().map_or(self.stored, |age| age.geometry.plain_len())
    }

    /// The bytes of the stored object that hold a range of the unsealed stream: what to fetch for [`Unsealer::open_range`].
    pub fn stored_range(&self, stream: &Range<u64>) -> Result<Range<u64>, SealError> {
        let inside = match &self.age {
            Some(age) => age.geometry.stored_range(stream),
            None => (stream.start <= stream.end && stream.end <= self.stored).then(|| stream.clone()),
        };
        inside.ok_or_else(|| self.outside(stream, 0))
    }

    fn outside(&self, stream: &Range<u64>, given: usize) -> SealError {
        SealError::Range { start: stream.start, end: stream.end, length: self.stream_len(), given }
    }

    /// Decrypts a range of the unsealed stream out of `stored`, exactly the bytes of [`Unsealer::stored_range`], in place.
    pub fn open_range(&self, stream: &Range<u64>, mut stored: BytesMut) -> Result<BytesMut, SealError> {
        let expected = self.stored_range(stream)?;
        if stored.len() as u64 != expected.end - expected.start {
            return Err(self.outside(stream, stored.len()));
        }
        let Some(age) = &self.age else { return Ok(stored) };
        let Some(chunks) = age.geometry.chunks_of(stream).filter(|chunks| !chunks.is_empty()) else {
            return Ok(BytesMut::new());
        };
        let plain = age.open_chunks(&chunks, &mut stored)?;
        // The chunks hold at most 64 KiB more than was asked for at either end.
        let skip = usize::try_from(stream.start - chunks.start * CHUNK).unwrap_or(usize::MAX);
        let length = usize::try_from(stream.end - stream.start).unwrap_or(usize::MAX);
        if skip.checked_add(length).is_none_or(|end| end > plain) {
            return Err(self.outside(stream, stored.len()));
        }
        let mut opened = stored.split_off(skip);
        opened.truncate(length);
        Ok(opened)
    }
}

impl Age {
    /// Decrypts neighbouring chunks and closes the gaps that the tags leave; answers the length of the plain text.
    fn open_chunks(&self, chunks: &Range<u64>, stored: &mut [u8]) -> Result<usize, SealError> {
        let mut written = 0;
        let mut read = 0;
        for chunk in chunks.clone() {
            let end = stored.len().min(read + STORED_CHUNK as usize);
            let last = chunk + 1 == self.geometry.chunks();
            let opened = stored.get_mut(written..end).and_then(|buffer| self.key.open_chunk(chunk, last, buffer, read - written));
            let Some(length) = opened else {
                let Range { start, end } = self.geometry.stored_chunk(chunk);
                return Err(SealError::Chunk { chunk, start, end });
            };
            written += length;
            read = end;
        }
        Ok(written)
    }
}
