//! Raft's configuration state: who votes. As JSON in the `meta` bucket, as a message in the WAL and the raft snapshot.
//!
//! Source of the formats: raft `raftpb/raft.proto` (`ConfState`), etcd `server/storage/schema/confstate.go`.

use serde::{Deserialize, Serialize};

use crate::go_json;
use crate::id::MemberId;
use crate::limits::{MAX_CONF_STATE_IDS, MAX_JSON_BYTES};
use crate::proto::{Fields, Malformed, Value, put_number};

/// Who votes and who learns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// Members that vote.
    pub voters: Vec<MemberId>,
    /// Members that only follow.
    pub learners: Vec<MemberId>,
    /// Voters of the old configuration during a joint change.
    pub voters_outgoing: Vec<MemberId>,
    /// Voters that become learners when the joint change ends.
    pub learners_next: Vec<MemberId>,
    /// Whether the joint change ends by itself.
    pub auto_leave: bool,
}

#[derive(Serialize, Deserialize)]
struct Json {
    #[serde(default, skip_serializing_if = "is_empty")]
    voters: Option<Vec<u64>>,
    #[serde(default, skip_serializing_if = "is_empty")]
    learners: Option<Vec<u64>>,
    #[serde(default, skip_serializing_if = "is_empty")]
    voters_outgoing: Option<Vec<u64>>,
    #[serde(default, skip_serializing_if = "is_empty")]
    learners_next: Option<Vec<u64>>,
    #[serde(default)]
    auto_leave: bool,
}

fn is_empty(list: &Option<Vec<u64>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

/// Why bytes are not a `ConfState` in JSON.
#[derive(Debug, thiserror::Error)]
pub enum ConfStateError {
    /// More than [`MAX_JSON_BYTES`].
    #[error("{0} bytes of JSON, more than any confState has")]
    TooLong(usize),
    /// Not the JSON of a confState.
    #[error("not the JSON of a confState: {0}")]
    Json(#[from] serde_json::Error),
}

impl ConfState {
    /// Parses the value of `confState` in the `meta` bucket.
    ///
    /// # Errors
    ///
    /// [`ConfStateError`] for anything else.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ConfStateError> {
        if bytes.len() > MAX_JSON_BYTES {
            return Err(ConfStateError::TooLong(bytes.len()));
        }
        let json: Json = serde_json::from_slice(bytes)?;
        let ids = |list: Option<Vec<u64>>| list.unwrap_or_default().into_iter().map(MemberId).collect();
        Ok(Self {
            voters: ids(json.voters),
            learners: ids(json.learners),
            voters_outgoing: ids(json.voters_outgoing),
            learners_next: ids(json.learners_next),
            auto_leave: json.auto_leave,
        })
    }

    /// The JSON etcd writes.
    #[must_use]
    pub fn to_json(&self) -> String {
        let numbers = |ids: &[MemberId]| Some(ids.iter().map(|id| id.0).collect());
        go_json::marshal(&Json {
            voters: numbers(&self.voters),
            learners: numbers(&self.learners),
            voters_outgoing: numbers(&self.voters_outgoing),
            learners_next: numbers(&self.learners_next),
            auto_leave: self.auto_leave,
        })
    }

    /// Appends the message as etcd 3.5 and 3.6 write it (proto2: `auto_leave` always present).
    pub(crate) fn encode_into(&self, out: &mut Vec<u8>) {
        for (field, ids) in [(1, &self.voters), (2, &self.learners), (3, &self.voters_outgoing), (4, &self.learners_next)] {
            for id in ids {
                put_number(out, field, id.0);
            }
        }
        put_number(out, 5, u64::from(self.auto_leave));
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut state = Self::default();
        let mut fields = Fields::of(bytes);
        while let Some((field, value)) = fields.next()? {
            match field {
                1 => push(&mut state.voters, field, value)?,
                2 => push(&mut state.learners, field, value)?,
                3 => push(&mut state.voters_outgoing, field, value)?,
                4 => push(&mut state.learners_next, field, value)?,
                5 => state.auto_leave = value.varint(field)? != 0,
                _ => {}
            }
        }
        Ok(state)
    }
}

/// One id, or several packed into one field, as newer generators may write them.
fn push(ids: &mut Vec<MemberId>, field: u32, value: Value<'_>) -> Result<(), Malformed> {
    match value {
        Value::Bytes(packed) => {
            let mut at = Fields::of(packed);
            while let Some(id) = at.next_packed()? {
                push(ids, field, Value::Varint(id))?;
            }
            Ok(())
        }
        single => {
            if ids.len() >= MAX_CONF_STATE_IDS {
                return Err(Malformed::TooMany(field));
            }
            ids.push(MemberId(single.varint(field)?));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn state(voters: &[u64], learners: &[u64]) -> ConfState {
        let ids = |ids: &[u64]| ids.iter().copied().map(MemberId).collect();
        ConfState { voters: ids(voters), learners: ids(learners), ..ConfState::default() }
    }

    #[test]
    fn json_is_etcds_and_exact_above_2_to_53() {
        let three = state(&[u64::MAX, (1 << 53) + 1, 3], &[]);
        let json = r#"{"voters":[18446744073709551615,9007199254740993,3],"auto_leave":false}"#;
        assert_eq!(three.to_json(), json);
        assert_eq!(ConfState::from_json(json.as_bytes()).unwrap(), three);
        let with_learner = state(&[1], &[2]);
        assert_eq!(with_learner.to_json(), r#"{"voters":[1],"learners":[2],"auto_leave":false}"#);
        assert_eq!(ConfState::from_json(br#"{"voters":null}"#).unwrap(), ConfState::default());
        assert!(ConfState::from_json(b"[").is_err());
    }

    #[test]
    fn messages_come_back_packed_or_not() {
        let states = state(&[1, u64::MAX], &[5]);
        let mut bytes = Vec::new();
        states.encode_into(&mut bytes);
        assert_eq!(ConfState::decode(&bytes).unwrap(), states);
        assert_eq!(ConfState::decode(&[0x0a, 3, 1, 0xac, 0x02]).unwrap(), state(&[1, 300], &[]));
        assert_eq!(ConfState::decode(&[0x0a, 1, 0x80]), Err(Malformed::Truncated(0)));
        let many = [0x08, 0x01].repeat(MAX_CONF_STATE_IDS + 1);
        assert_eq!(ConfState::decode(&many), Err(Malformed::TooMany(1)));
    }
}
