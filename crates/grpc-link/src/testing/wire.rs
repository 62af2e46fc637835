//! Protobuf and gRPC framing by hand, so that a double shares nothing with the client it tests.
//!
//! Wire format: protocol buffers encoding (varint, length-delimited) and gRPC over HTTP/2 (one flag byte, big-endian length).

use bytes::{BufMut, Bytes, BytesMut};

/// Writes one message, field by field. Zero and empty fields are left out, as proto3 does.
#[derive(Clone, Debug, Default)]
pub struct Encoder(Vec<u8>);

impl Encoder {
    /// An empty message.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// A number; negative ones as etcd sends them, in two's complement.
    #[must_use]
    pub fn number(mut self, field: u32, value: u64) -> Self {
        if value != 0 {
            self.raw_varint(u64::from(field) << 3);
            self.raw_varint(value);
        }
        self
    }

    /// A signed number.
    #[must_use]
    pub fn signed(self, field: u32, value: i64) -> Self {
        self.number(field, value.cast_unsigned())
    }

    /// A truth value.
    #[must_use]
    pub fn flag(self, field: u32, value: bool) -> Self {
        self.number(field, u64::from(value))
    }

    /// Bytes or text.
    #[must_use]
    pub fn bytes(self, field: u32, value: impl AsRef<[u8]>) -> Self {
        if value.as_ref().is_empty() {
            return self;
        }
        self.element(field, value)
    }

    /// An element of a repeated field, written even when empty.
    #[must_use]
    pub fn element(mut self, field: u32, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.raw_varint(u64::from(field) << 3 | 2);
        self.raw_varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// A message within this one.
    #[must_use]
    pub fn message(self, field: u32, inner: Self) -> Self {
        self.element(field, inner.0)
    }

    /// The encoded message.
    #[must_use]
    pub fn finish(self) -> Bytes {
        self.0.into()
    }
}

/// Puts the gRPC prefix before a message.
#[must_use]
pub fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

/// A request, decoded just enough to answer it.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<(u32, Value)>);

#[derive(Clone, Debug)]
enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

impl Fields {
    /// Decodes a message; what is not understood ends it, as these requests come from our own tests.
    #[must_use]
    pub fn decode(mut rest: &[u8]) -> Self {
        let mut fields = Vec::new();
        while let Some(key) = take_varint(&mut rest) {
            let field = u32::try_from(key >> 3).unwrap_or(0);
            let value = match key & 7 {
                0 => take_varint(&mut rest).map(Value::Number),
                2 => {
                    take_varint(&mut rest).and_then(|length| rest.split_at_checked(usize::try_from(length).ok()?)).map(|(bytes, after)| {
                        rest = after;
                        Value::Bytes(bytes.to_vec())
                    })
                }
                _ => None,
            };
            let Some(value) = value else { break };
            fields.push((field, value));
        }
        Self(fields)
    }

    /// The last number of this field; zero without.
    #[must_use]
    pub fn number(&self, field: u32) -> u64 {
        let found = self.0.iter().rev().find_map(|(number, value)| match value {
            Value::Number(value) if *number == field => Some(*value),
            _ => None,
        });
        found.unwrap_or(0)
    }

    /// The last bytes of this field; empty without.
    #[must_use]
    pub fn bytes(&self, field: u32) -> &[u8] {
        let found = self.0.iter().rev().find_map(|(number, value)| match value {
            Value::Bytes(value) if *number == field => Some(value.as_slice()),
            _ => None,
        });
        found.unwrap_or_default()
    }

    /// All bytes of a repeated field, in order.
    pub fn each(&self, field: u32) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter_map(move |(number, value)| match value {
            Value::Bytes(value) if *number == field => Some(value.as_slice()),
            _ => None,
        })
    }

    /// The message in this field; an empty one without.
    #[must_use]
    pub fn message(&self, field: u32) -> Self {
        Self::decode(self.bytes(field))
    }

    /// The last text of this field; empty without.
    #[must_use]
    pub fn text(&self, field: u32) -> String {
        String::from_utf8_lossy(self.bytes(field)).into_owned()
    }
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
