//! The id of one attempt at a backup: `20261121T020004Z-7qk2m9`.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::name::text_serde;
use crate::random::{self, NoRandomness};

/// The alphabet of the suffix: Crockford's base32 in lower case (no i, l, o, u), in ASCII order.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Characters in the random suffix: 30 bits.
pub const SUFFIX: usize = 6;
/// Characters in a whole id.
pub const LENGTH: usize = 16 + 1 + SUFFIX;

/// The id of one attempt: its start in UTC to the second, and six random characters of lower-case Crockford base32.
///
/// Ids sort as their text does. Time in it is for people: order within a lineage is by revision. Every attempt has a new one, so that no
/// data key is ever used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId {
    start: Timestamp,
    suffix: [u8; SUFFIX],
}

/// Text that was given as a backup id does not have its exact form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a backup id: the form is 20261121T020004Z-7qk2m9")]
pub struct NotABackupId;

impl BackupId {
    /// Makes the id of an attempt that begins at `start`; parts below a second are dropped.
    ///
    /// A clock outside the years 0 to 9999 cannot be written; it is cut to that range.
    pub fn new(start: Timestamp) -> Result<Self, NoRandomness> {
        let random = random::fill::<SUFFIX>()?;
        let suffix = random.map(|byte| ALPHABET[usize::from(byte & 31)]);
        let second = start.as_second().clamp(FIRST_SECOND, LAST_SECOND);
        Ok(Self { start: Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH), suffix })
    }

    /// When the attempt began, by the writer's clock.
    pub fn start(&self) -> Timestamp {
        self.start
    }

    /// The six random characters, by which a person may name the backup.
    pub fn suffix(&self) -> &str {
        // Only characters of ALPHABET get in.
        str::from_utf8(&self.suffix).unwrap_or_default()
    }
}

/// 0000-01-01T00:00:00Z and 9999-12-30T22:00:00Z (jiff's last instant, to the second), as seconds since 1970.
const FIRST_SECOND: i64 = -62_167_219_200;
const LAST_SECOND: i64 = 253_402_207_200;

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = TimeZone::UTC.to_datetime(self.start);
        let (year, month, day) = (at.year(), at.month(), at.day());
        let (hour, minute, second) = (at.hour(), at.minute(), at.second());
        write!(f, "{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z-{}", self.suffix())
    }
}

impl fmt::Debug for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackupId({self})")
    }
}

fn digits<T: FromStr>(text: &[u8]) -> Option<T> {
    // The number parser of the standard library takes a sign.
    let plain = text.iter().all(u8::is_ascii_digit);
    plain.then(|| str::from_utf8(text).ok()?.parse().ok()).flatten()
}

fn parse(text: &[u8]) -> Option<BackupId> {
    let text: &[u8; LENGTH] = text.try_into().ok()?;
    let suffix: [u8; SUFFIX] = text[17..].try_into().ok()?;
    let framed = text[8] == b'T' && text[15] == b'Z' && text[16] == b'-';
    if !framed || !suffix.iter().all(|c| ALPHABET.contains(c)) {
        return None;
    }
    let (year, month, day) = (digits(&text[..4])?, digits(&text[4..6])?, digits(&text[6..8])?);
    let (hour, minute, second) = (digits(&text[9..11])?, digits(&text[11..13])?, digits(&text[13..15])?);
    let at = DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    Some(BackupId { start: TimeZone::UTC.to_timestamp(at).ok()?, suffix })
}

impl FromStr for BackupId {
    type Err = NotABackupId;

    fn from_str(text: &str) -> Result<Self, NotABackupId> {
        parse(text.as_bytes()).ok_or(NotABackupId)
    }
}

text_serde!(BackupId);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_the_format() {
        let id: BackupId = "20261121T020004Z-7qk2m9".parse().unwrap();
        assert_eq!(id.to_string(), "20261121T020004Z-7qk2m9");
        assert_eq!(id.start(), "2026-11-21T02:00:04Z".parse().unwrap());
        assert_eq!(id.suffix(), "7qk2m9");
    }

    #[test]
    fn every_deviation_is_refused() {
        for bad in [
            "",
            "20261121T020004Z-7qk2m",
            "20261121T020004Z-7qk2m99",
            "20261121t020004Z-7qk2m9",
            "20261121T020004z-7qk2m9",
            "20261121T020004Z_7qk2m9",
            "20261121T020004Z-7QK2M9",
            "20261121T020004Z-7qk2mi",
            "20261121T020004Z-7qk2mu",
            "20261321T020004Z-7qk2m9",
            "20260230T020004Z-7qk2m9",
            "20261121T240004Z-7qk2m9",
            "20261121T020060Z-7qk2m9",
            "+0261121T020004Z-7qk2m9",
            "2026112+T020004Z-7qk2m9",
            "20261121T020004Z-7qk2é",
        ] {
            assert!(bad.parse::<BackupId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn attempts_in_the_same_second_differ() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        assert_ne!(BackupId::new(now).unwrap(), BackupId::new(now).unwrap());
    }

    #[test]
    fn clocks_out_of_their_mind_still_make_names() {
        for clock in [Timestamp::MIN, Timestamp::MAX] {
            let id = BackupId::new(clock).unwrap();
            assert_eq!(id.to_string().parse::<BackupId>().unwrap(), id);
        }
    }

    proptest! {
        #[test]
        fn ids_sort_as_their_text(a in FIRST_SECOND..LAST_SECOND, b in FIRST_SECOND..LAST_SECOND) {
            let a = BackupId::new(Timestamp::from_second(a).unwrap()).unwrap();
            let b = BackupId::new(Timestamp::from_second(b).unwrap()).unwrap();
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
            prop_assert_eq!(a.to_string().parse::<BackupId>().unwrap(), a);
        }
    }
}
