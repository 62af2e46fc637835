//! The little of protobuf's wire format that is needed to find one field.

/// The content of the first length-delimited field with this number, or `None` where the message is cut, malformed or has no such field.
pub(crate) fn bytes_field(mut message: &[u8], number: u64) -> Option<&[u8]> {
    while !message.is_empty() {
        let (tag, rest) = varint(message)?;
        message = rest;
        match tag & 7 {
            0 => message = varint(message)?.1,
            1 => message = message.get(8..)?,
            2 => {
                let (length, rest) = varint(message)?;
                let length = usize::try_from(length).ok()?;
                let content = rest.get(..length)?;
                if tag >> 3 == number {
                    return Some(content);
                }
                message = &rest[length..];
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    None
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}
