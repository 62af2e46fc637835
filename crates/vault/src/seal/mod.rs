//! Sealing: the layers between a snapshot file and the object that is stored. CPU only, no I/O, no waiting.
//!
//! Writing: [`compress::FrameCompressor`] (one per worker, in parallel) turns 4 MiB of the file into a frame; [`writer::SealWriter`] (one per
//! object, in order) encrypts the frames and hands out the bytes to upload, with the digests. Reading: [`unseal::Unsealer`] unwraps the file key
//! once; any number of [`decode::FrameDecoder`]s then turn byte ranges of the stored object into ranges of the file, in parallel.
//! [`fallback::StreamDecoder`] does the same in order without a frame table.
//!
//! Nothing here is Lifeboat's own format: a stored object is a file of the age format around standard zstd frames, and
//! `age -d -i key db.zst.age | zstd -d` opens it.
//!
//! Memory: a compressing worker holds about 10 MiB (4 MiB raw, 4 MiB for the result, under 2 MiB of zstd state at level 3); the writer 1.1 MiB;
//! a restoring worker the stored range it was given (the caller's choice), 4 MiB raw and 0.2 MiB of zstd state.

pub mod compress;
pub mod decode;
pub mod fallback;
pub mod identities;
pub mod recipients;
mod stream;
pub mod unseal;
pub mod writer;

pub use age::secrecy::{ExposeSecret, SecretString};
pub use age::{Callbacks, NoCallbacks};
pub use compress::{CompressedFrame, FrameCompressor};
pub use decode::FrameDecoder;
pub use fallback::StreamDecoder;
pub use identities::Identities;
pub use recipients::{RecipientFingerprint, Recipients};
pub use stream::Geometry;
pub use unseal::Unsealer;
pub use writer::{SealWriter, SealedObject};

use crate::limits;

/// Why something could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// Text given as a recipient is none.
    #[error("'{text}' is not an age recipient (age1…)")]
    NotARecipient {
        /// The text, cut to 80 characters.
        text: String,
    },
    /// Recipients that cannot be used together, or too many, or none.
    #[error("these recipients cannot be used: {detail}")]
    Recipients {
        /// Why.
        detail: String,
    },
    /// Text given as an identity file holds none.
    #[error("{label}: {detail}")]
    Identity {
        /// The file as the user named it.
        label: String,
        /// What is wrong, without the text.
        detail: String,
    },
    /// None of the identities opens the object (exit 12).
    #[error("none of the keys given opens this backup")]
    NoKey,
    /// Opening with the passphrase would take more work than allowed.
    #[error("the passphrase's work factor is 2^{required}, at most 2^{} is accepted", limits::SCRYPT_LOG_N)]
    ExcessiveWork {
        /// The power of two that the object asks for.
        required: u8,
    },
    /// A plugin is missing or failed.
    #[error("age plugin: {detail}")]
    Plugin {
        /// Its words.
        detail: String,
    },
    /// The age header is not sound, was changed, or is too long.
    #[error("damaged: the age header is not sound ({detail})")]
    Header {
        /// What is wrong.
        detail: String,
    },
    /// The size of the stored object is impossible.
    #[error("damaged: {size} bytes cannot be a file of the age format with a header of {header} bytes")]
    Size {
        /// The size of the stored object.
        size: u64,
        /// The length of its header and nonce.
        header: u64,
    },
    /// A chunk of 64 KiB does not decrypt: the stored bytes were changed.
    #[error("damaged: chunk {chunk} (stored bytes {start} to {end}) does not decrypt")]
    Chunk {
        /// Which, from 0.
        chunk: u64,
        /// Its first byte in the stored object.
        start: u64,
        /// The byte behind its last one.
        end: u64,
    },
    /// A range outside the stream, or bytes that are not the range asked for.
    #[error("range {start} to {end} does not lie in a stream of {length} bytes, or {given} bytes are not what it takes")]
    Range {
        /// First byte.
        start: u64,
        /// The byte behind the last one.
        end: u64,
        /// The stream's length.
        length: u64,
        /// How many bytes were given.
        given: usize,
    },
    /// A frame's bytes do not have its CRC, or do not decompress to its length.
    #[error("damaged: frame {index} (stream bytes {start} to {end}): {detail}")]
    Frame {
        /// Which, from 0.
        index: usize,
        /// Its first byte in the unsealed stream.
        start: u64,
        /// The byte behind its last one.
        end: u64,
        /// What is wrong.
        detail: String,
    },
    /// The frame table is about another object.
    #[error("the frame table describes {table} bytes, the stream has {stream}")]
    Table {
        /// The length the table describes.
        table: u64,
        /// The length of the stream.
        stream: u64,
    },
    /// A frame was given that is not of the writer's layers, or is out of bounds.
    #[error("a frame cannot be written: {detail}")]
    Unwritable {
        /// Why.
        detail: String,
    },
    /// zstd failed.
    #[error("zstd: {detail}")]
    Zstd {
        /// The library's words.
        detail: String,
    },
    /// Writing the age format failed.
    #[error("age: {detail}")]
    Age {
        /// The library's words.
        detail: String,
    },
}

impl From<age::DecryptError> for SealError {
    fn from(error: age::DecryptError) -> Self {
        use age::DecryptError as E;
        match error {
            E::NoMatchingKeys | E::DecryptionFailed | E::KeyDecryptionFailed => Self::NoKey,
            E::ExcessiveWork { required, .. } => Self::ExcessiveWork { required },
            E::Plugin(_) | E::PluginResolve(_) => Self::Plugin { detail: error.to_string() },
            _ => Self::Header { detail: error.to_string() },
        }
    }
}

impl From<age::EncryptError> for SealError {
    fn from(error: age::EncryptError) -> Self {
        use age::EncryptError as E;
        match error {
            E::Plugin(_) | E::PluginResolve(_) => Self::Plugin { detail: error.to_string() },
            E::Io(_) => Self::Age { detail: error.to_string() },
            _ => Self::Recipients { detail: error.to_string() },
        }
    }
}

#[cfg(test)]
mod tests;
