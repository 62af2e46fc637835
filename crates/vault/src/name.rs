//! The names that people and machines give: clusters, tags, extras; and the ids that Lifeboat makes: repository, mark.
//!
//! Every type here can only hold text of its grammar, so a key built from it stays inside the repository whatever an object says.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use ulid::Ulid;

use crate::random::{self, NoRandomness};

/// The longest name, in bytes.
pub const MAX_NAME: usize = 63;

/// Why text is not a name of the grammar `[a-z0-9][a-z0-9._-]{0,62}` without `..`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// There is no text.
    #[error("a name cannot be empty")]
    Empty,
    /// More than [`MAX_NAME`] bytes.
    #[error("a name has at most {MAX_NAME} characters, this one has {length}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// A character outside the grammar.
    #[error(
        "character {character:?} at position {position} is not allowed: a name is lower-case letters, digits, '.', '_' and '-', and begins with a letter or digit"
    )]
    BadCharacter {
        /// The character.
        character: char,
        /// Its place, counted in bytes from 0.
        position: usize,
    },
    /// Two dots in a row.
    #[error("a name cannot contain '..'")]
    DoubleDot,
    /// The name is taken by an object of the repository itself.
    #[error("'{name}' is the name of an object of the repository itself")]
    Reserved {
        /// The name.
        name: String,
    },
}

fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > MAX_NAME {
        return Err(NameError::TooLong { length: text.len() });
    }
    for (position, character) in text.char_indices() {
        let plain = character.is_ascii_lowercase() || character.is_ascii_digit();
        if !plain && (position == 0 || !matches!(character, '.' | '_' | '-')) {
            return Err(NameError::BadCharacter { character, position });
        }
    }
    if text.contains("..") {
        return Err(NameError::DoubleDot);
    }
    Ok(())
}

macro_rules! text_serde {
    ($name:ident) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use text_serde;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, reserved: [$($reserved:literal),*]) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text)?;
                let reserved: &[&str] = &[$($reserved),*];
                if reserved.contains(&text) {
                    return Err(NameError::Reserved { name: text.to_owned() });
                }
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        text_serde!($name);
    };
}

name! {
    /// The name of one protected cluster: the first part of all its keys.
    ///
    /// `lifeboat.json` fits the grammar but is the marker's key, so it is refused.
    ClusterName, reserved: ["lifeboat.json"]
}
name! {
    /// A word a person puts on a backup.
    Tag, reserved: []
}
name! {
    /// The name of one sealed extra. `machine-config` is the reserved word of part 10; all others are slugs of absolute paths.
    ExtraName, reserved: []
}

/// Text that was given as an id is not a ULID in its canonical form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a ULID: 26 characters of upper-case Crockford base32 are expected")]
pub struct NotAUlid;

fn parse_ulid(text: &str) -> Result<Ulid, NotAUlid> {
    let ulid = Ulid::from_string(text).map_err(|_| NotAUlid)?;
    // The decoder is lenient (lower case, look-alike letters); a name must have one form only.
    if ulid.to_string() == text { Ok(ulid) } else { Err(NotAUlid) }
}

macro_rules! ulid_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Ulid);

        impl $name {
            /// Makes a new one.
            pub fn new(now: Timestamp) -> Result<Self, NoRandomness> {
                random::ulid(now).map(Self)
            }
        }

        impl FromStr for $name {
            type Err = NotAUlid;

            fn from_str(text: &str) -> Result<Self, NotAUlid> {
                parse_ulid(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0.to_string())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.to_string())
            }
        }

        text_serde!($name);
    };
}

ulid_name! {
    /// The id of one repository. All copies of a repository, on whatever store, have the same one.
    RepositoryId
}
ulid_name! {
    /// The id of one mark. Marks made by one clock sort by time, to the millisecond.
    MarkId
}

impl MarkId {
    /// Makes a new one that sorts behind `seen`, the newest mark its writer had seen, so that what is said later is read later.
    ///
    /// A mark from more than an hour ahead of `now` is not followed: one mad clock must not pull all others along.
    pub fn after(seen: Option<&Self>, now: Timestamp) -> Result<Self, NoRandomness> {
        let new = Self::new(now)?;
        let near = |seen: &&Self| seen.time().duration_since(now) <= jiff::SignedDuration::from_hours(1);
        match seen.filter(near) {
            Some(seen) if *seen >= new => Ok(seen.0.increment().map_or(new, Self)),
            _ => Ok(new),
        }
    }

    /// When the mark was made, by its maker's clock. For people and for ages; never for the order of writes.
    pub fn time(&self) -> Timestamp {
        // 48 bits of milliseconds end in the year 10889, after jiff's last instant.
        i64::try_from(self.0.timestamp_ms()).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_follow_the_grammar() {
        for good in ["a", "prod", "0", "eu-1.prod_x", &"a".repeat(63), "a.b.c"] {
            assert_eq!(good.parse::<ClusterName>().unwrap().as_str(), good);
        }
        for bad in ["", "A", ".a", "-a", "_a", "a..b", "a/b", "a b", "é", "a\0", &"a".repeat(64), "..", "../x"] {
            assert!(bad.parse::<ClusterName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_cluster_cannot_take_the_markers_key() {
        assert_eq!("lifeboat.json".parse::<ClusterName>(), Err(NameError::Reserved { name: "lifeboat.json".into() }));
        assert!("lifeboat.json".parse::<Tag>().is_ok());
    }

    #[test]
    fn a_ulid_has_one_spelling() {
        let id = RepositoryId::new(Timestamp::from_second(1_700_000_000).unwrap()).unwrap();
        assert_eq!(id.to_string().parse::<RepositoryId>().unwrap(), id);
        assert!(id.to_string().to_lowercase().parse::<RepositoryId>().is_err());
        assert!("81D39ZY06FGSCTVN4T2V9PKHFZ".parse::<RepositoryId>().is_err(), "more than 128 bits");
        assert!("01D39ZY06FGSCTVN4T2V9PKHF".parse::<RepositoryId>().is_err());
    }

    #[test]
    fn a_mark_tells_its_time() {
        let now = Timestamp::from_millisecond(1_795_000_000_123).unwrap();
        assert_eq!(MarkId::new(now).unwrap().time(), now);
    }

    #[test]
    fn a_mark_sorts_behind_what_its_writer_had_seen() {
        let now = Timestamp::from_second(1_795_000_000).unwrap();
        let ahead = |seconds| MarkId::new(now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap()).unwrap();
        for seen in [ahead(0), ahead(1800), ahead(-5)] {
            assert!(MarkId::after(Some(&seen), now).unwrap() > seen);
        }
        assert!(MarkId::after(Some(&ahead(7200)), now).unwrap() < ahead(60), "a clock that is mad");
    }

    proptest! {
        #[test]
        fn whatever_parses_is_safe_in_a_key(text in ".{0,80}") {
            if let Ok(name) = text.parse::<ClusterName>() {
                prop_assert_eq!(name.to_string(), &text[..]);
                prop_assert!(!text.contains('/') && !text.contains("..") && !text.starts_with('.'));
            }
        }
    }
}
