//! The payload of the age format, by random access.
//!
//! Fixed by version 1 of the format (C2SP `age.md`, "Payload"): behind the header come a nonce of 16 bytes and the chunks; each chunk is up to
//! 64 KiB of plain text under ChaCha20-Poly1305, 16 bytes longer when stored; the key is HKDF-SHA-256 of the file key with the nonce as salt and
//! "payload" as info; a chunk's nonce is its number as 11 bytes, big-endian, and one byte that is 1 for the last chunk only. Only the last chunk
//! may be shorter; it is empty only when the whole plain text is. So where a byte of the plain text lies in the stored object is arithmetic, and
//! a chunk decrypts without the ones before it.
//!
//! The header is the age crate's business (file key, stanzas, plugins, MAC). The payload is done here: the crate's reader owns its source, while
//! a restore wants many workers on one file key; and ring encrypts and decrypts in place, at twice the speed and without a copy.

use std::ops::Range;

use age::secrecy::ExposeSecret;
use age_core::format::FileKey;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};

use super::SealError;

/// Plain bytes in a full chunk.
pub(super) const CHUNK: u64 = 64 << 10;
/// Bytes of the authentication tag behind each chunk.
pub(super) const TAG: u64 = 16;
/// Stored bytes of a full chunk.
pub(super) const STORED_CHUNK: u64 = CHUNK + TAG;
/// Bytes of the nonce between header and chunks.
pub(super) const NONCE: usize = 16;

/// Where the plain text lies in one stored object of the age format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    header: u64,
    stored: u64,
    chunks: u64,
    plain: u64,
}

impl Geometry {
    /// For an object of `stored` bytes whose header and nonce take `header` bytes.
    pub fn new(header: u64, stored: u64) -> Result<Self, SealError> {
        let wrong = SealError::Size { size: stored, header };
        let Some(payload) = stored.checked_sub(header).filter(|payload| *payload >= TAG) else { return Err(wrong) };
        let chunks = payload.div_ceil(STORED_CHUNK);
        let last = payload - (chunks - 1) * STORED_CHUNK;
        // An empty chunk is allowed only as the only one.
        if last < TAG || (last == TAG && chunks > 1) {
            return Err(wrong);
        }
        Ok(Self { header, stored, chunks, plain: payload - chunks * TAG })
    }

    /// The length of the plain text, in bytes.
    pub fn plain_len(&self) -> u64 {
        self.plain
    }

    /// The length of the stored object, in bytes.
    pub fn stored_len(&self) -> u64 {
        self.stored
    }

    /// The number of chunks, at least 1.
    pub fn chunks(&self) -> u64 {
        self.chunks
    }

    /// The chunks that hold a range of the plain text; none for an empty range.
    pub fn chunks_of(&self, plain: &Range<u64>) -> Option<Range<u64>> {
        if plain.start > plain.end || plain.end > self.plain {
            return None;
        }
        if plain.is_empty() {
            return Some(0..0);
        }
        Some(plain.start / CHUNK..plain.end.div_ceil(CHUNK))
    }

    /// The stored bytes of one chunk.
    pub fn stored_chunk(&self, chunk: u64) -> Range<u64> {
        let start = self.header.saturating_add(chunk.saturating_mul(STORED_CHUNK)).min(self.stored);
        start..start.saturating_add(STORED_CHUNK).min(self.stored)
    }

    /// The stored bytes that must be read for a range of the plain text: whole chunks. `None` when the range is not inside.
    pub fn stored_range(&self, plain: &Range<u64>) -> Option<Range<u64>> {
        let chunks = self.chunks_of(plain)?;
        match chunks.end.checked_sub(1) {
            Some(last) => Some(self.stored_chunk(chunks.start).start..self.stored_chunk(last).end),
            None => Some(self.header..self.header),
        }
    }
}

/// The key of one payload.
#[derive(Debug)]
pub(super) struct PayloadKey(LessSafeKey);

impl PayloadKey {
    pub(super) fn new(file_key: &FileKey, nonce: &[u8; NONCE]) -> Result<Self, SealError> {
        let failed = |_| SealError::Age { detail: "the payload key cannot be derived".to_owned() };
        let pseudorandom = Salt::new(HKDF_SHA256, nonce).extract(file_key.expose_secret());
        let key = pseudorandom.expand(&[b"payload"], &CHACHA20_POLY1305).map_err(failed)?;
        Ok(Self(LessSafeKey::new(UnboundKey::from(key))))
    }

    /// Encrypts one chunk where it lies; answers its tag. Each chunk number is used once per key.
    pub(super) fn seal_chunk(&self, chunk: u64, last: bool, plain: &mut [u8]) -> Option<[u8; TAG as usize]> {
        let tag = self.0.seal_in_place_separate_tag(nonce(chunk, last), Aad::empty(), plain).ok()?;
        tag.as_ref().try_into().ok()
    }

    /// Decrypts one chunk whose stored bytes are `buffer[from..]`, to the beginning of `buffer`; answers the length of the plain text.
    pub(super) fn open_chunk(&self, chunk: u64, last: bool, buffer: &mut [u8], from: usize) -> Option<usize> {
        self.0.open_within(nonce(chunk, last), Aad::empty(), buffer, from..).ok().map(|plain| plain.len())
    }
}

fn nonce(chunk: u64, last: bool) -> Nonce {
    let mut nonce = [0; 12];
    nonce[3..11].copy_from_slice(&chunk.to_be_bytes());
    nonce[11] = u8::from(last);
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_arithmetic_of_the_format() {
        let one = Geometry::new(100, 100 + 16).unwrap();
        assert_eq!((one.chunks(), one.plain_len()), (1, 0));
        let full = Geometry::new(100, 100 + STORED_CHUNK).unwrap();
        assert_eq!((full.chunks(), full.plain_len()), (1, CHUNK));
        let two = Geometry::new(100, 100 + STORED_CHUNK + 17).unwrap();
        assert_eq!((two.chunks(), two.plain_len()), (2, CHUNK + 1));
        assert_eq!(two.stored_range(&(0..1)), Some(100..100 + STORED_CHUNK));
        assert_eq!(two.stored_range(&(CHUNK..CHUNK + 1)), Some(100 + STORED_CHUNK..100 + STORED_CHUNK + 17));
        assert_eq!(two.stored_range(&(CHUNK - 1..CHUNK + 1)), Some(100..100 + STORED_CHUNK + 17));
        assert_eq!(two.stored_range(&(0..CHUNK + 2)), None);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for stored in [0, 99, 100, 115, 100 + STORED_CHUNK + 1, 100 + STORED_CHUNK + 16] {
            assert!(Geometry::new(100, stored).is_err(), "{stored}");
        }
        assert!(Geometry::new(0, u64::MAX).is_ok());
    }

    proptest! {
        #[test]
        fn plain_and_stored_lengths_agree(plain in 0u64..1 << 40, header in 0u64..1 << 20) {
            let chunks = plain.div_ceil(CHUNK).max(1);
            let geometry = Geometry::new(header, header + plain + chunks * TAG).unwrap();
            prop_assert_eq!((geometry.plain_len(), geometry.chunks()), (plain, chunks));
            prop_assert_eq!(geometry.stored_range(&(0..plain)).unwrap().start, header);
        }
    }
}
