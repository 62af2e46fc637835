//! The small part of the protocol buffer wire format that etcd's files need.
//!
//! Source of the format: the protocol buffer encoding guide. Hand-written because rows are decoded a million at a time, borrowed,
//! from hostile bytes, and must be encoded exactly as etcd's generators do.

/// Why bytes are not a protocol buffer message of the expected type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A number, or a length-delimited field, goes past the end.
    #[error("truncated at byte {0}")]
    Truncated(usize),
    /// A variable-length number takes more than 64 bits.
    #[error("a number of more than 64 bits at byte {0}")]
    Overlong(usize),
    /// Field number 0, or one above 2^29-1.
    #[error("an impossible field number at byte {0}")]
    FieldNumber(usize),
    /// A wire type that does not exist or that etcd never writes (groups).
    #[error("wire type {wire_type} of field {field} is not known")]
    WireType {
        /// The field's number.
        field: u32,
        /// The wire type found.
        wire_type: u8,
    },
    /// A known field came with another wire type than its own.
    #[error("field {0} has the wrong wire type")]
    WrongType(u32),
    /// A field is repeated more often than any sound file would.
    #[error("field {0} is repeated too often")]
    TooMany(u32),
}

/// One field's value, still borrowed from the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64,
    Bytes(&'a [u8]),
    Fixed32,
}

impl<'a> Value<'a> {
    pub(crate) fn varint(self, field: u32) -> Result<u64, Malformed> {
        match self {
            Self::Varint(number) => Ok(number),
            _ => Err(Malformed::WrongType(field)),
        }
    }

    /// An `int64` field: the same bits, read as two's complement.
    pub(crate) fn int64(self, field: u32) -> Result<i64, Malformed> {
        self.varint(field).map(u64::cast_signed)
    }

    pub(crate) fn bytes(self, field: u32) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed::WrongType(field)),
        }
    }
}

/// The fields of one message, in the order of the bytes.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next field with its number, or none at the end.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let start = self.at;
        let tag = self.varint()?;
        let field = u32::try_from(tag >> 3).ok().filter(|number| (1..1 << 29).contains(number)).ok_or(Malformed::FieldNumber(start))?;
        let wire_type = (tag & 7) as u8;
        let value = match wire_type {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let length = self.varint()?;
                let length = usize::try_from(length).map_err(|_| Malformed::Truncated(start))?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Value::Fixed32
            }
            _ => return Err(Malformed::WireType { field, wire_type }),
        };
        Ok(Some((field, value)))
    }

    /// The next bare number of a packed list, or none at the end.
    pub(crate) fn next_packed(&mut self) -> Result<Option<u64>, Malformed> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        self.varint().map(Some)
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let taken = self.at.checked_add(length).and_then(|end| self.bytes.get(self.at..end)).ok_or(Malformed::Truncated(self.at))?;
        self.at += length;
        Ok(taken)
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Malformed> {
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            Some(_) => self.long_varint(),
            None => Err(Malformed::Truncated(self.at)),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let start = self.at;
        let mut number = 0_u64;
        for shift in (0..70).step_by(7) {
            let &byte = self.bytes.get(self.at).ok_or(Malformed::Truncated(start))?;
            self.at += 1;
            // The tenth byte has room for one bit only.
            if shift == 63 && byte > 1 {
                return Err(Malformed::Overlong(start));
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed::Overlong(start))
    }
}

/// Appends `number` in variable length.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number as u8) | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a number field, also when it is zero (proto2 as etcd's generator writes it).
pub(crate) fn put_number(out: &mut Vec<u8>, field: u32, number: u64) {
    put_varint(out, u64::from(field) << 3);
    put_varint(out, number);
}

/// Appends a number field unless it is zero (proto3).
pub(crate) fn put_number_if_set(out: &mut Vec<u8>, field: u32, number: u64) {
    if number != 0 {
        put_number(out, field, number);
    }
}

/// Appends a length-delimited field, also when it is empty.
pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_varint(out, u64::from(field) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a length-delimited field unless it is empty (proto3).
pub(crate) fn put_bytes_if_set(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_bytes(out, field, bytes);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_of_every_length_come_back() {
        for shift in 0..64 {
            for number in [1_u64 << shift, (1_u64 << shift) - 1, u64::MAX >> shift] {
                let mut bytes = Vec::new();
                put_number(&mut bytes, 7, number);
                let mut fields = Fields::of(&bytes);
                assert_eq!(fields.next(), Ok(Some((7, Value::Varint(number)))));
                assert_eq!(fields.next(), Ok(None));
            }
        }
    }

    #[test]
    fn damage_is_an_error_with_its_place() {
        assert_eq!(Fields::of(&[0x80]).next(), Err(Malformed::Truncated(0)));
        assert_eq!(Fields::of(&[0x0a, 5, 1]).next(), Err(Malformed::Truncated(2)));
        assert_eq!(Fields::of(&[0x00, 1]).next(), Err(Malformed::FieldNumber(0)));
        assert_eq!(Fields::of(&[0x0b]).next(), Err(Malformed::WireType { field: 1, wire_type: 3 }));
        let mut overlong = vec![0x08];
        overlong.extend([0xff; 9]);
        overlong.push(2);
        assert_eq!(Fields::of(&overlong).next(), Err(Malformed::Overlong(1)));
        let huge = [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(Fields::of(&huge).next(), Err(Malformed::Truncated(11)));
    }

    #[test]
    fn unknown_fields_are_stepped_over() {
        let mut bytes = vec![0x09, 1, 2, 3, 4, 5, 6, 7, 8, 0x15, 1, 2, 3, 4];
        put_bytes(&mut bytes, 3, b"x");
        let mut fields = Fields::of(&bytes);
        assert_eq!(fields.next().unwrap(), Some((1, Value::Fixed64)));
        assert_eq!(fields.next().unwrap(), Some((2, Value::Fixed32)));
        assert_eq!(fields.next().unwrap(), Some((3, Value::Bytes(b"x"))));
    }
}
