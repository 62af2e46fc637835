//! The numbers etcd gives to things, as types that cannot be mixed up.

use std::fmt;
use std::str::FromStr;

/// A revision of the key space: the "main" part, counted up by one per transaction that writes.
///
/// An empty store is at revision 1 and the first write makes revision 2. Never negative in a sound file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub i64);

/// The id of one lease, as etcd hands it out. Zero means "no lease".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

/// The id of one member of a cluster. Zero means "none" (no leader, for one).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

/// The id of one logical cluster. A restore always makes a new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Text that was given as an id is not 1 to 16 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an id: 1 to 16 hexadecimal digits are expected")]
pub struct NotAnId(pub String);

fn parse_hex(text: &str) -> Result<u64, NotAnId> {
    let sound = (1..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    if !sound {
        return Err(NotAnId(text.to_owned()));
    }
    u64::from_str_radix(text, 16).map_err(|_| NotAnId(text.to_owned()))
}

macro_rules! hexadecimal_id {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:016x})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                parse_hex(text).map(Self)
            }
        }
    };
}

hexadecimal_id!(MemberId);
hexadecimal_id!(ClusterId);
