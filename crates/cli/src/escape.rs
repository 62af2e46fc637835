//! Bytes from outside as text that cannot do anything to a terminal, and back.

use std::fmt::Write as _;

/// Letters, digits, signs and spaces as they are; a backslash as `\\`; everything else, byte by byte, as `\xNN`.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '\\' => text.push_str("\\\\"),
                ' '..='~' => text.push(char),
                // Other scripts are read; what only steers a terminal or the direction of text is not among the letters.
                char if !char.is_ascii() && char.is_alphanumeric() => text.push(char),
                char => char.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| hex(&mut text, byte)),
            }
        }
        chunk.invalid().iter().for_each(|byte| hex(&mut text, *byte));
    }
    text
}

fn hex(text: &mut String, byte: u8) {
    // Writing to a string cannot fail.
    let _ = write!(text, "\\x{byte:02x}");
}

/// What [`shown`] made back into bytes. Text without a backslash is taken as it is.
pub(crate) fn read(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        rest = if let Some(rest) = escaped.strip_prefix('\\') {
            bytes.push(b'\\');
            rest
        } else {
            let digits = escaped.strip_prefix('x').and_then(|hex| hex.get(..2)).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
            let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            bytes.push(byte.ok_or("after a backslash comes another one, or x and two hexadecimal digits")?);
            &escaped[3..]
        };
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_steer_a_terminal_is_shown_as_bytes() {
        assert_eq!(shown(b"/registry/pods/a b~"), "/registry/pods/a b~");
        assert_eq!(shown(b"\x1b[31m\n\xff\0\\"), "\\x1b[31m\\x0a\\xff\\x00\\\\");
        assert_eq!(shown("ключ\u{202e}".as_bytes()), "ключ\\xe2\\x80\\xae");
    }

    #[test]
    fn everything_comes_back() {
        for bytes in [&b"\x1b[\xff\\x41\\\\n\0"[..], "ключ\u{202e}é\u{301}".as_bytes(), b""] {
            assert_eq!(read(&shown(bytes)).unwrap(), bytes);
        }
        for wrong in ["\\", "\\n", "\\x4", "\\xé", "\\x+1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
