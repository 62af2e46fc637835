//! The SHA-256 trailer of a snapshot file, compared with the content.

use std::io;
use std::path::Path;

use bbolt::ReadAt;
use ring::digest::{Context, SHA256};

use super::{ANOTHER, Opened, STEP};
use crate::failure::{Code, Failure, Outcome};

/// What comparing a file's content with its trailer showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trailer {
    /// They agree: these are the bytes the member sent.
    Matches,
    /// The file has none: it was copied from a data directory, or was cut.
    Absent,
    /// They do not agree, and the file was taken all the same because that was asked for.
    Differs,
}

/// Compares the digest of a file's database with the trailer, if it has one.
///
/// # Errors
/// [`crate::Code::Unproven`] where they do not agree, unless `skip_hash_check`.
pub(crate) fn compare(opened: &Opened, path: &Path, computed: &[u8; 32], skip_hash_check: bool) -> Outcome<Trailer> {
    match &opened.layout.trailer {
        None => Ok(Trailer::Absent),
        Some(trailer) if trailer == computed => Ok(Trailer::Matches),
        Some(_) if skip_hash_check => Ok(Trailer::Differs),
        Some(trailer) => Err(mismatch(path, trailer, computed)),
    }
}

/// SHA-256 over the first `length` bytes.
pub(super) fn sha256<S: ReadAt>(source: &S, length: u64) -> io::Result<[u8; 32]> {
    let mut hash = Context::new(&SHA256);
    let mut buffer = vec![0; STEP];
    let mut offset = 0;
    while offset < length {
        // A step is far below usize::MAX.
        let step = (length - offset).min(STEP as u64) as usize;
        source.read_exact_at(&mut buffer[..step], offset)?;
        hash.update(&buffer[..step]);
        offset += step as u64;
    }
    Ok(finish(hash))
}

pub(super) fn finish(hash: Context) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    digest
}

/// The failure of a file whose content is not what its trailer says.
pub(super) fn mismatch(path: &Path, trailer: &[u8; 32], computed: &[u8; 32]) -> Failure {
    Failure::new(Code::Unproven, "the snapshot file is not what the member sent")
        .object(path.display())
        .cause(format!(
            "its SHA-256 trailer is {}, its content has {}: it was changed, cut or damaged after it was saved; {ANOTHER}",
            hex(trailer),
            hex(computed)
        ))
        .again()
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
