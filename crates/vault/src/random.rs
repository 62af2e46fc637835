//! Randomness from the operating system, for names.

use ring::rand::SecureRandom;

/// The operating system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct NoRandomness;

pub(crate) fn fill<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// A ULID (26 characters of upper-case Crockford base32: 48 bits of milliseconds, 80 random bits).
///
/// A clock before 1970 gives time zero: the name stays unique, only its place in a listing is wrong.
pub(crate) fn ulid(now: jiff::Timestamp) -> Result<ulid::Ulid, NoRandomness> {
    let random = u128::from_le_bytes(fill::<16>()?);
    let milliseconds = u64::try_from(now.as_millisecond()).unwrap_or(0);
    Ok(ulid::Ulid::from_parts(milliseconds & 0xffff_ffff_ffff, random))
}
