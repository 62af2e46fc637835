//! One row of the `key` bucket: its revision key and its `KeyValue`.
//!
//! Sources of the formats: etcd `server/storage/mvcc/revision.go` (the key) and `api/mvccpb/kv.proto` (the value). Encoding gives
//! the very bytes etcd writes, so a row rebuilt from a watch event has the same CRC as the one in a member's file.

use std::fmt;

use crate::id::{LeaseId, Revision};
use crate::proto::{Fields, Malformed, put_bytes_if_set, put_number_if_set};

/// Length of the key of a row that puts a value.
const PUT_KEY_LENGTH: usize = 17;
/// Length of the key of a row that deletes.
const TOMBSTONE_KEY_LENGTH: usize = 18;
const SEPARATOR: u8 = b'_';
const TOMBSTONE_MARK: u8 = b't';

/// The key of one row: which transaction, which change within it, and whether that change is a deletion.
///
/// Ordered exactly as the encoded bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey {
    /// The transaction's revision, 0 or more.
    pub main: Revision,
    /// Index of the change in its transaction, 0 or more.
    pub sub: i64,
    /// True for a deletion.
    pub tombstone: bool,
}

/// Why bytes are not the key of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowKeyError {
    /// Neither 17 nor 18 bytes.
    #[error("{0} bytes long; 17 or 18 are expected")]
    Length(usize),
    /// The ninth byte is not `_`.
    #[error("byte 8 is {0:#04x}; '_' is expected")]
    Separator(u8),
    /// An 18th byte that is not the tombstone mark `t`.
    #[error("byte 17 is {0:#04x}; 't' is expected")]
    Mark(u8),
    /// A revision below zero.
    #[error("negative revision {main}/{sub}")]
    Negative {
        /// Main revision as found.
        main: i64,
        /// Sub revision as found.
        sub: i64,
    },
}

impl RowKey {
    /// The key of the row that puts a value as change number `sub` of transaction `main`.
    #[must_use]
    pub fn put(main: Revision, sub: i64) -> Self {
        Self { main, sub, tombstone: false }
    }

    /// Parses the key of a row.
    ///
    /// # Errors
    ///
    /// [`RowKeyError`] when the bytes are not 17 or 18 bytes of the form etcd writes, or a revision is negative.
    pub fn parse(bytes: &[u8]) -> Result<Self, RowKeyError> {
        let (revision, tombstone) = match bytes {
            [revision @ .., mark] if bytes.len() == TOMBSTONE_KEY_LENGTH => {
                if *mark != TOMBSTONE_MARK {
                    return Err(RowKeyError::Mark(*mark));
                }
                (revision, true)
            }
            _ => (bytes, false),
        };
        let Some((&main, [separator, sub @ ..])) = revision.split_first_chunk::<8>() else {
            return Err(RowKeyError::Length(bytes.len()));
        };
        let Ok(sub) = <[u8; 8]>::try_from(sub) else {
            return Err(RowKeyError::Length(bytes.len()));
        };
        if *separator != SEPARATOR {
            return Err(RowKeyError::Separator(*separator));
        }
        let (main, sub) = (i64::from_be_bytes(main), i64::from_be_bytes(sub));
        if main < 0 || sub < 0 {
            return Err(RowKeyError::Negative { main, sub });
        }
        Ok(Self { main: Revision(main), sub, tombstone })
    }

    /// The key as etcd stores it.
    #[must_use]
    pub fn encode(&self) -> RowKeyBytes {
        let mut bytes = [TOMBSTONE_MARK; TOMBSTONE_KEY_LENGTH];
        bytes[..8].copy_from_slice(&self.main.0.to_be_bytes());
        bytes[8] = SEPARATOR;
        bytes[9..PUT_KEY_LENGTH].copy_from_slice(&self.sub.to_be_bytes());
        let length = if self.tombstone { TOMBSTONE_KEY_LENGTH } else { PUT_KEY_LENGTH };
        RowKeyBytes { bytes, length }
    }
}

impl fmt::Display for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.tombstone { " (deletion)" } else { "" };
        write!(f, "{}/{}{mark}", self.main, self.sub)
    }
}

/// An encoded [`RowKey`], on the stack.
#[derive(Clone, Copy, Debug)]
pub struct RowKeyBytes {
    bytes: [u8; TOMBSTONE_KEY_LENGTH],
    length: usize,
}

impl std::ops::Deref for RowKeyBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl AsRef<[u8]> for RowKeyBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// The value of one row (`mvccpb.KeyValue`), borrowed from the bytes it was read from.
///
/// A deletion's row has only `key` set. The row that a revision bump leaves is zero bytes long and decodes to all defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyValue<'a> {
    /// The user's key. Empty only in the row of a revision bump.
    pub key: &'a [u8],
    /// Revision at which the key was last created.
    pub create_revision: i64,
    /// Revision of this change; equals the row key's main revision.
    pub mod_revision: i64,
    /// Number of changes since creation, 1 at creation.
    pub version: i64,
    /// The user's value.
    pub value: &'a [u8],
    /// Lease the key is attached to; 0 for none.
    pub lease: i64,
}

impl<'a> KeyValue<'a> {
    /// Decodes a row's value. Fields this version does not know are stepped over; of a repeated field the last one counts.
    ///
    /// # Errors
    ///
    /// [`Malformed`] with the place of the damage.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut row = Self::default();
        let mut fields = Fields::of(bytes);
        while let Some((field, value)) = fields.next()? {
            match field {
                1 => row.key = value.bytes(field)?,
                2 => row.create_revision = value.int64(field)?,
                3 => row.mod_revision = value.int64(field)?,
                4 => row.version = value.int64(field)?,
                5 => row.value = value.bytes(field)?,
                6 => row.lease = value.int64(field)?,
                _ => {}
            }
        }
        Ok(row)
    }

    /// Appends the row's value to `out` as etcd writes it.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        put_bytes_if_set(out, 1, self.key);
        put_number_if_set(out, 2, self.create_revision.cast_unsigned());
        put_number_if_set(out, 3, self.mod_revision.cast_unsigned());
        put_number_if_set(out, 4, self.version.cast_unsigned());
        put_bytes_if_set(out, 5, self.value);
        put_number_if_set(out, 6, self.lease.cast_unsigned());
    }

    /// The row's value as etcd writes it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.key.len() + self.value.len() + 64);
        self.encode_into(&mut out);
        out
    }

    /// The value of the row that deletes `key`: a `KeyValue` with nothing but the key.
    #[must_use]
    pub fn tombstone(key: &'a [u8]) -> Self {
        Self { key, ..Self::default() }
    }

    /// The lease the key is attached to, if any.
    #[must_use]
    pub fn lease(&self) -> Option<LeaseId> {
        (self.lease != 0).then_some(LeaseId(self.lease))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_row_of_the_reference_is_met_byte_for_byte() {
        let key = RowKey::put(Revision(2), 0);
        let stored = b"\0\0\0\0\0\0\0\x02_\0\0\0\0\0\0\0\0";
        assert_eq!(&*key.encode(), stored);
        assert_eq!(RowKey::parse(stored), Ok(key));
        let value = b"\x0a\x02k1\x10\x02\x18\x02\x20\x01\x2a\x02v1";
        let row = KeyValue { key: b"k1", create_revision: 2, mod_revision: 2, version: 1, value: b"v1", lease: 0 };
        assert_eq!(row.encode(), value);
        assert_eq!(KeyValue::decode(value), Ok(row));
    }

    #[test]
    fn malformed_keys_say_what_is_wrong() {
        let sound = RowKey::put(Revision(7), 1).encode();
        assert_eq!(RowKey::parse(&sound[..16]), Err(RowKeyError::Length(16)));
        assert_eq!(RowKey::parse(b""), Err(RowKeyError::Length(0)));
        assert_eq!(RowKey::parse(&[b'_'; 19]), Err(RowKeyError::Length(19)));
        let mut separator = sound.to_vec();
        separator[8] = b'-';
        assert_eq!(RowKey::parse(&separator), Err(RowKeyError::Separator(b'-')));
        let mut mark = sound.to_vec();
        mark.push(b'x');
        assert_eq!(RowKey::parse(&mark), Err(RowKeyError::Mark(b'x')));
        let mut negative = sound.to_vec();
        negative[0] = 0x80;
        assert!(matches!(RowKey::parse(&negative), Err(RowKeyError::Negative { sub: 1, .. })));
    }

    #[test]
    fn an_empty_value_is_the_row_of_a_bump() {
        assert_eq!(KeyValue::decode(b""), Ok(KeyValue::default()));
        assert!(KeyValue::default().encode().is_empty());
    }

    #[test]
    fn a_known_field_of_another_type_is_refused() {
        assert_eq!(KeyValue::decode(&[0x08, 1]), Err(Malformed::WrongType(1)));
        assert_eq!(KeyValue::decode(&[0x12, 1, 0]), Err(Malformed::WrongType(2)));
    }

    proptest! {
        #[test]
        fn keys_come_back_and_keep_their_order(a in (0..=i64::MAX, 0..=i64::MAX, any::<bool>()), b in (0..=i64::MAX, 0..=i64::MAX, any::<bool>())) {
            let make = |(main, sub, tombstone)| RowKey { main: Revision(main), sub, tombstone };
            let (a, b) = (make(a), make(b));
            prop_assert_eq!(RowKey::parse(&a.encode()), Ok(a));
            prop_assert_eq!(a.cmp(&b), a.encode().cmp(&*b.encode()));
        }

        #[test]
        fn values_come_back(key: Vec<u8>, value: Vec<u8>, numbers: [i64; 4]) {
            let row = KeyValue { key: &key, create_revision: numbers[0], mod_revision: numbers[1], version: numbers[2], value: &value, lease: numbers[3] };
            let bytes = row.encode();
            prop_assert_eq!(KeyValue::decode(&bytes), Ok(row));
            // A later version's field must not disturb.
            let mut longer = bytes;
            crate::proto::put_bytes(&mut longer, 99, b"new");
            prop_assert_eq!(KeyValue::decode(&longer), Ok(row));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = RowKey::parse(&bytes);
            if let Ok(row) = KeyValue::decode(&bytes) {
                let again = row.encode();
                prop_assert_eq!(KeyValue::decode(&again), Ok(row));
            }
        }
    }
}
