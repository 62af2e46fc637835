//! A member as the `members` bucket, the WAL and the v2 store hold it.
//!
//! Source of the format: etcd `server/etcdserver/api/membership/member.go` (JSON) and `server/storage/schema/membership.go`.

use serde::{Deserialize, Serialize};

use crate::go_json;
use crate::id::MemberId;
use crate::limits::MAX_JSON_BYTES;

/// One member of the cluster the file comes from, or of the one to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRecord {
    /// The member's id.
    pub id: MemberId,
    /// Its name; empty when it never started.
    pub name: String,
    /// Peer URLs.
    pub peer_urls: Vec<String>,
    /// Client URLs; empty when it never started.
    pub client_urls: Vec<String>,
    /// True for a learner, which does not vote.
    pub is_learner: bool,
}

/// Why a value is not a member.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// More than [`MAX_JSON_BYTES`].
    #[error("{0} bytes of JSON, more than any member has")]
    TooLong(usize),
    /// Not the JSON of a member.
    #[error("not the JSON of a member: {0}")]
    Json(#[from] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
struct Json {
    id: u64,
    // Go writes null for a nil list.
    #[serde(rename = "peerURLs", default)]
    peer_urls: Option<Vec<String>>,
    #[serde(rename = "isLearner", default, skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(rename = "clientURLs", default, skip_serializing_if = "Option::is_none")]
    client_urls: Option<Vec<String>>,
}

#[derive(Serialize)]
struct RaftAttributes<'a> {
    #[serde(rename = "peerURLs")]
    peer_urls: &'a [String],
    #[serde(rename = "isLearner", skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
}

impl MemberRecord {
    /// Parses the JSON value of the `members` bucket. Ids above 2^53 are exact.
    ///
    /// # Errors
    ///
    /// [`MemberError`] for anything else.
    pub fn from_json(bytes: &[u8]) -> Result<Self, MemberError> {
        if bytes.len() > MAX_JSON_BYTES {
            return Err(MemberError::TooLong(bytes.len()));
        }
        let json: Json = serde_json::from_slice(bytes)?;
        Ok(Self {
            id: MemberId(json.id),
            name: json.name,
            peer_urls: json.peer_urls.unwrap_or_default(),
            client_urls: json.client_urls.unwrap_or_default(),
            is_learner: json.is_learner,
        })
    }

    /// The JSON etcd writes for this member, to the byte.
    #[must_use]
    pub fn to_json(&self) -> String {
        go_json::marshal(&Json {
            id: self.id.0,
            peer_urls: Some(self.peer_urls.clone()),
            is_learner: self.is_learner,
            name: self.name.clone(),
            client_urls: (!self.client_urls.is_empty()).then(|| self.client_urls.clone()),
        })
    }

    /// The part of the JSON that the v2 store keeps under `raftAttributes`.
    pub(crate) fn raft_attributes(&self) -> String {
        go_json::marshal(&RaftAttributes { peer_urls: &self.peer_urls, is_learner: self.is_learner })
    }
}

/// The member's key in the `members` bucket and its name in the v2 store: lower-case hex, not padded.
#[must_use]
pub fn member_key(id: MemberId) -> String {
    format!("{:x}", id.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn json_is_etcds() {
        let member = MemberRecord {
            id: MemberId(0xb341_7e67_ec00_88c7),
            name: "m1".into(),
            peer_urls: vec!["http://127.0.0.1:41791".into()],
            client_urls: Vec::new(),
            is_learner: false,
        };
        let json = r#"{"id":12916744191081482439,"peerURLs":["http://127.0.0.1:41791"],"name":"m1"}"#;
        assert_eq!(member.to_json(), json);
        assert_eq!(MemberRecord::from_json(json.as_bytes()).unwrap(), member);
        assert_eq!(member_key(MemberId(0x055b_1dee_cf87_799f)), "55b1deecf87799f");
        assert_eq!(member.raft_attributes(), r#"{"peerURLs":["http://127.0.0.1:41791"]}"#);
    }

    #[test]
    fn a_learner_and_nulls_are_read() {
        let learner = MemberRecord::from_json(br#"{"id":1,"peerURLs":null,"isLearner":true,"clientURLs":["a"],"new":[1]}"#).unwrap();
        assert!(learner.is_learner && learner.peer_urls.is_empty() && learner.client_urls == ["a"]);
    }

    #[test]
    fn damage_is_an_error() {
        for bytes in [&b"{}"[..], b"", b"null", br#"{"id":-1}"#, br#"{"id":1.5}"#, br#"{"id":18446744073709551616}"#] {
            assert!(MemberRecord::from_json(bytes).is_err());
        }
        assert!(matches!(MemberRecord::from_json(&vec![b' '; MAX_JSON_BYTES + 1]), Err(MemberError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn members_come_back(id: u64, name: String, peers: Vec<String>, clients: Vec<String>, is_learner: bool) {
            let member = MemberRecord { id: MemberId(id), name, peer_urls: peers, client_urls: clients, is_learner };
            prop_assert_eq!(MemberRecord::from_json(member.to_json().as_bytes()).unwrap(), member);
        }
    }
}
