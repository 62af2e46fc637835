//! Ids of etcd as JSON strings of exactly 16 lower-case hexadecimal digits, for JSON numbers lose bits above 2^53.

use std::fmt::Display;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serializer};

fn exact<T: Display + FromStr, E: serde::de::Error>(text: &str) -> Result<T, E> {
    let wrong = || E::custom("not an id: 16 lower-case hexadecimal digits are expected");
    let id: T = text.parse().map_err(|_| wrong())?;
    // etcd-store's parser takes what people type: upper case, and fewer digits.
    if id.to_string() == text { Ok(id) } else { Err(wrong()) }
}

pub(super) fn serialize<T: Display, S: Serializer>(id: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

pub(super) fn deserialize<'de, T: Display + FromStr, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    exact(&String::deserialize(deserializer)?)
}

pub(super) mod option {
    use super::*;

    pub(in crate::manifest) fn serialize<T: Display, S: Serializer>(id: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => serializer.collect_str(id),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::manifest) fn deserialize<'de, T: Display + FromStr, D: Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
        Option::<String>::deserialize(d)?.map(|text| exact(&text)).transpose()
    }
}
