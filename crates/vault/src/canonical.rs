//! How every JSON object of the repository is written and read.
//!
//! An object is one JSON object, UTF-8, at most [`Object::LIMIT`] bytes. It names its `schema`, and carries `self_sha256`: the lower-case
//! hexadecimal SHA-256 of exactly the stored bytes in which these 64 characters are replaced by `0`. Those 64 characters occur in the object
//! once, so where the zeros go is never a question of JSON. Fields are added by later releases, never changed: unknown ones are skipped.
//! A name that occurs twice in one JSON object is refused, for two readers could see two different things in it.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::digest::Sha256;
use crate::limits;

/// A kind of JSON object. Its type leaves out `schema` and `self_sha256`, which [`encode`] and [`decode`] keep.
pub trait Object: Serialize + DeserializeOwned {
    /// The value of `schema`, `lifeboat.<kind>/<version>`.
    const SCHEMA: &'static str;
    /// The most bytes it may have.
    const LIMIT: usize;
}

/// Why bytes are not a sound JSON object of the kind expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Larger than the kind's limit.
    #[error("{size} bytes are more than the {limit} allowed")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Not JSON at all.
    #[error("not JSON: {detail}")]
    NotJson {
        /// The parser's words, with line and column.
        detail: String,
    },
    /// Nested deeper than [`limits::JSON_DEPTH`].
    #[error("nested deeper than {} levels", limits::JSON_DEPTH)]
    TooDeep,
    /// The same name twice in one JSON object.
    #[error("the name {name:?} occurs twice")]
    Duplicate {
        /// The name, cut to 100 characters.
        name: String,
    },
    /// Another kind, or a later version.
    #[error("schema {found:?} where {expected:?} is expected; a later Lifeboat may have written it")]
    WrongSchema {
        /// What was to be read.
        expected: &'static str,
        /// What it says, cut to 100 characters.
        found: String,
    },
    /// `self_sha256` is missing, not a digest, or occurs more than once.
    #[error("self_sha256 is missing or not a digest that occurs exactly once")]
    NoSelfDigest,
    /// `self_sha256` is not the digest of the bytes: they were changed.
    #[error("damaged: self_sha256 says {stated}, the bytes have {actual}")]
    SelfDigestMismatch {
        /// What it says.
        stated: Sha256,
        /// What the bytes have.
        actual: Sha256,
    },
    /// Sound JSON of the right schema, but a field is missing, of the wrong form, or contradicts another.
    #[error("{detail}")]
    Invalid {
        /// Which and how.
        detail: String,
    },
}

/// Why a value cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// Larger than the kind's limit.
    #[error("{size} bytes are more than the {limit} allowed for {schema}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
        /// The kind.
        schema: &'static str,
    },
    /// The value does not survive being written and read back.
    #[error("{schema} cannot be written: {detail}")]
    Unsound {
        /// The kind.
        schema: &'static str,
        /// What is wrong.
        detail: String,
    },
}

const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const DIGEST_CHARS: usize = ZEROS.len();

#[derive(Serialize)]
struct Envelope<'a, T> {
    schema: &'static str,
    self_sha256: &'static str,
    #[serde(flatten)]
    body: &'a T,
}

#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    schema: Option<String>,
    #[serde(default)]
    self_sha256: Option<String>,
}

/// Writes `object`: two-space indented, `schema` first, `self_sha256` second, one line feed at the end.
///
/// The bytes are read back by [`decode`] before they are returned, so what is written can be read.
pub fn encode<T: Object>(object: &T) -> Result<Vec<u8>, EncodeError> {
    let unsound = |detail: String| EncodeError::Unsound { schema: T::SCHEMA, detail };
    let envelope = Envelope { schema: T::SCHEMA, self_sha256: ZEROS, body: object };
    let mut bytes = serde_json::to_vec_pretty(&envelope).map_err(|e| unsound(e.to_string()))?;
    bytes.push(b'\n');
    if bytes.len() > T::LIMIT {
        return Err(EncodeError::TooLarge { size: bytes.len(), limit: T::LIMIT, schema: T::SCHEMA });
    }
    let digest = Sha256::of(&bytes).to_string();
    // The first one: `schema`, a constant without zeros in a row, is all that stands before it.
    let at = find(&bytes, ZEROS.as_bytes()).ok_or_else(|| unsound("no place for self_sha256".to_owned()))?;
    bytes[at..at + DIGEST_CHARS].copy_from_slice(digest.as_bytes());
    decode::<T>(&bytes).map_err(|e| unsound(e.to_string()))?;
    Ok(bytes)
}

/// Reads an object: size, depth, duplicates, schema, `self_sha256`, then the fields.
pub fn decode<T: Object>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > T::LIMIT {
        return Err(DecodeError::TooLarge { size: bytes.len(), limit: T::LIMIT });
    }
    scan(bytes)?;
    let head: Head = serde_json::from_slice(bytes).map_err(|e| DecodeError::Invalid { detail: e.to_string() })?;
    let schema = head.schema.unwrap_or_default();
    if schema != T::SCHEMA {
        return Err(DecodeError::WrongSchema { expected: T::SCHEMA, found: cut(&schema) });
    }
    check_self_digest(bytes, &head.self_sha256.unwrap_or_default())?;
    serde_json::from_slice(bytes).map_err(|e| DecodeError::Invalid { detail: e.to_string() })
}

fn check_self_digest(bytes: &[u8], stated: &str) -> Result<(), DecodeError> {
    let digest: Sha256 = stated.parse().map_err(|_| DecodeError::NoSelfDigest)?;
    let at = find(bytes, stated.as_bytes()).ok_or(DecodeError::NoSelfDigest)?;
    let end = at + DIGEST_CHARS;
    if find(&bytes[end..], stated.as_bytes()).is_some() {
        return Err(DecodeError::NoSelfDigest);
    }
    let mut hasher = crate::digest::Sha256Hasher::new();
    hasher.update(&bytes[..at]);
    hasher.update(ZEROS.as_bytes());
    hasher.update(&bytes[end..]);
    let actual = hasher.finish();
    if actual != digest {
        return Err(DecodeError::SelfDigestMismatch { stated: digest, actual });
    }
    Ok(())
}

/// The same bytes with `self_sha256` put right, for fuzzing: past a wrong digest nothing else would be looked at. `None` where the first
/// value of that name is not 64 bytes long.
pub(crate) fn with_valid_digest(bytes: &[u8]) -> Option<Vec<u8>> {
    const NAME: &[u8] = b"\"self_sha256\"";
    let name_end = find(bytes, NAME)? + NAME.len();
    let at = name_end + bytes[name_end..].iter().position(|byte| *byte == b'"')? + 1;
    let mut sound = bytes.to_vec();
    sound.get_mut(at..at + DIGEST_CHARS)?.copy_from_slice(ZEROS.as_bytes());
    let digest = Sha256::of(&sound).to_string();
    sound[at..at + DIGEST_CHARS].copy_from_slice(digest.as_bytes());
    Some(sound)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn cut(text: &str) -> String {
    text.chars().take(100).collect()
}

/// Walks the whole text once and keeps nothing of it.
fn scan(bytes: &[u8]) -> Result<(), DecodeError> {
    let fault = RefCell::new(None);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let walked = Scan { depth: 0, fault: &fault }.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match (fault.into_inner(), walked) {
        (Some(fault), _) => Err(fault),
        (None, Err(e)) => Err(DecodeError::NotJson { detail: e.to_string() }),
        (None, Ok(())) => Ok(()),
    }
}

#[derive(Clone, Copy)]
struct Scan<'a> {
    depth: usize,
    fault: &'a RefCell<Option<DecodeError>>,
}

impl Scan<'_> {
    fn deeper(self) -> Option<Self> {
        let deeper = Self { depth: self.depth + 1, ..self };
        if deeper.depth > limits::JSON_DEPTH {
            self.fault.replace(Some(DecodeError::TooDeep));
            return None;
        }
        Some(deeper)
    }
}

impl<'de> DeserializeSeed<'de> for Scan<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

macro_rules! scalars {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E>(self, _: $type) -> Result<(), E> {
            Ok(())
        })*
    };
}

impl<'de> Visitor<'de> for Scan<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    scalars!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        use serde::de::Error;
        let deeper = self.deeper().ok_or_else(|| A::Error::custom("too deep"))?;
        while seq.next_element_seed(deeper)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        use serde::de::Error;
        let deeper = self.deeper().ok_or_else(|| A::Error::custom("too deep"))?;
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if names.contains(&name) {
                self.fault.replace(Some(DecodeError::Duplicate { name: cut(&name) }));
                return Err(A::Error::custom("duplicate"));
            }
            names.insert(name);
            map.next_value_seed(deeper)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Note {
        text: String,
        number: i64,
    }

    impl Object for Note {
        const SCHEMA: &'static str = "lifeboat.note/1";
        const LIMIT: usize = 4096;
    }

    fn note() -> Note {
        Note { text: "hello".into(), number: -7 }
    }

    /// Gives JSON text its right self_sha256 where `@` stands.
    fn seal(text: &str) -> Vec<u8> {
        let digest = Sha256::of(text.replacen('@', ZEROS, 1).as_bytes()).to_string();
        text.replacen('@', &digest, 1).into_bytes()
    }

    #[test]
    fn the_digest_is_over_the_bytes_with_zeros() {
        let bytes = encode(&note()).unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap();
        let stated = text.split("\"self_sha256\": \"").nth(1).unwrap()[..64].to_owned();
        assert_eq!(Sha256::of(text.replace(&stated, ZEROS).as_bytes()).to_string(), stated);
        assert_eq!(decode::<Note>(&bytes).unwrap(), note());
    }

    #[test]
    fn every_flipped_byte_is_found() {
        let bytes = encode(&note()).unwrap();
        for at in 0..bytes.len() {
            for flip in [1, 0x20, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                assert!(decode::<Note>(&damaged).is_err(), "byte {at} ^ {flip:#x}");
            }
        }
        for end in 0..bytes.len() {
            assert!(decode::<Note>(&bytes[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn later_fields_are_skipped() {
        let bytes = seal(r#"{"new":{"x":[1,2.5,null,true]},"number":1,"self_sha256":"@","schema":"lifeboat.note/1","text":"t"}"#);
        assert_eq!(decode::<Note>(&bytes).unwrap(), Note { text: "t".into(), number: 1 });
    }

    #[test]
    fn duplicates_are_refused_at_any_depth() {
        let bytes = seal(r#"{"schema":"lifeboat.note/1","self_sha256":"@","number":1,"text":"t","new":[{"a":1,"\u0061":2}]}"#);
        assert_eq!(decode::<Note>(&bytes), Err(DecodeError::Duplicate { name: "a".into() }));
    }

    #[test]
    fn depth_is_limited() {
        let nest = |depth: usize| {
            let (open, close) = ("[".repeat(depth), "]".repeat(depth));
            seal(&format!(r#"{{"schema":"lifeboat.note/1","self_sha256":"@","number":1,"text":"t","new":{open}{close}}}"#))
        };
        assert!(decode::<Note>(&nest(limits::JSON_DEPTH - 1)).is_ok());
        assert_eq!(decode::<Note>(&nest(limits::JSON_DEPTH)), Err(DecodeError::TooDeep));
        assert_eq!(decode::<Note>("[".repeat(4000).as_bytes()), Err(DecodeError::TooDeep));
    }

    #[test]
    fn size_is_limited_both_ways() {
        let big = Note { text: "x".repeat(4096), number: 0 };
        assert!(matches!(encode(&big), Err(EncodeError::TooLarge { .. })));
        assert!(matches!(decode::<Note>(&[b' '; 4097]), Err(DecodeError::TooLarge { size: 4097, limit: 4096 })));
    }

    #[test]
    fn another_schema_says_so() {
        let bytes = seal(r#"{"schema":"lifeboat.note/2","self_sha256":"@","number":1,"text":"t"}"#);
        assert!(matches!(decode::<Note>(&bytes), Err(DecodeError::WrongSchema { .. })));
    }

    #[test]
    fn a_digest_written_with_escapes_or_twice_is_refused() {
        let escaped = r#"{"schema":"lifeboat.note/1","self_sha256":"\u0030@","number":1,"text":"t"}"#;
        assert!(decode::<Note>(&seal(escaped)).is_err());
        let once = String::from_utf8(encode(&note()).unwrap()).unwrap();
        let stated = once.split("\"self_sha256\": \"").nth(1).unwrap()[..64].to_owned();
        let twice = once.replace("hello", &stated);
        assert_eq!(decode::<Note>(twice.as_bytes()), Err(DecodeError::NoSelfDigest));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(text in "\\PC{0,200}", number in any::<i64>()) {
            let note = Note { text, number };
            prop_assert_eq!(decode::<Note>(&encode(&note).unwrap()).unwrap(), note);
        }

        #[test]
        fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode::<Note>(&bytes);
        }
    }
}
