//! The `.snap` file: raft's own snapshot, which for etcd up to 3.6 carries the member list in the form of the old v2 store.
//!
//! Sources of the format: etcd `server/etcdserver/api/snap/{snapshotter.go,snappb/snap.proto}`, `v2store/store.go` (its JSON),
//! raft `raftpb/raft.proto`. A restored member without this file boots and looks healthy, but a member added later gets an EMPTY
//! key space: it is never left out.

use serde::Serialize;
use std::collections::BTreeMap;

use crate::cluster::ClusterSpec;
use crate::conf_state::ConfState;
use crate::crc::checksum;
use crate::go_json;
use crate::limits::MAX_SNAP_FILE_BYTES;
use crate::member::member_key;
use crate::proto::{Fields, Malformed, put_bytes, put_number};
use crate::restore::BOOTSTRAP_TERM;

/// The file's name for a snapshot at this term and index.
#[must_use]
pub fn file_name(term: u64, index: u64) -> String {
    format!("{term:016x}-{index:016x}.snap")
}

/// Why bytes are not a raft snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RaftSnapshotError {
    /// More than [`MAX_SNAP_FILE_BYTES`].
    #[error("a raft snapshot of {0} bytes")]
    TooLong(u64),
    /// No checksum or no content: etcd calls this an empty snapshot.
    #[error("the raft snapshot is empty")]
    Empty,
    /// The content does not fit its checksum.
    #[error("the raft snapshot has CRC {stored:08x}, computed {computed:08x}")]
    Crc {
        /// The checksum in the file.
        stored: u32,
        /// The checksum of the content.
        computed: u32,
    },
    /// Not the message it should be.
    #[error("the raft snapshot is malformed: {0}")]
    Malformed(#[from] Malformed),
}

/// A raft snapshot as a `.snap` file holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftSnapshot {
    /// The application's state; for etcd up to 3.6 the v2 store in JSON.
    pub data: Vec<u8>,
    /// Who votes at that index.
    pub conf_state: ConfState,
    /// The raft index it stands for.
    pub index: u64,
    /// The term of that index.
    pub term: u64,
}

impl RaftSnapshot {
    /// The snapshot with which every member of a restored cluster starts.
    #[must_use]
    pub fn bootstrap(cluster: &ClusterSpec) -> Self {
        Self { data: v2_store(cluster).into_bytes(), conf_state: cluster.conf_state(), index: cluster.last_index(), term: BOOTSTRAP_TERM }
    }

    /// The whole file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut conf_state = Vec::new();
        self.conf_state.encode_into(&mut conf_state);
        let mut metadata = Vec::new();
        put_bytes(&mut metadata, 1, &conf_state);
        put_number(&mut metadata, 2, self.index);
        put_number(&mut metadata, 3, self.term);
        let mut snapshot = Vec::new();
        put_bytes(&mut snapshot, 1, &self.data);
        put_bytes(&mut snapshot, 2, &metadata);
        let mut file = Vec::with_capacity(snapshot.len() + 16);
        put_number(&mut file, 1, u64::from(checksum(&snapshot)));
        put_bytes(&mut file, 2, &snapshot);
        file
    }

    /// Reads a whole file and proves its checksum.
    ///
    /// # Errors
    ///
    /// [`RaftSnapshotError`].
    pub fn decode(file: &[u8]) -> Result<Self, RaftSnapshotError> {
        if file.len() as u64 > MAX_SNAP_FILE_BYTES {
            return Err(RaftSnapshotError::TooLong(file.len() as u64));
        }
        let (mut stored, mut content) = (0, &[][..]);
        let mut fields = Fields::of(file);
        while let Some((field, value)) = fields.next()? {
            match field {
                1 => stored = value.varint(field)? as u32,
                2 => content = value.bytes(field)?,
                _ => {}
            }
        }
        if stored == 0 || content.is_empty() {
            return Err(RaftSnapshotError::Empty);
        }
        let computed = checksum(content);
        if computed != stored {
            return Err(RaftSnapshotError::Crc { stored, computed });
        }
        Ok(Self::content(content)?)
    }

    fn content(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut snapshot = Self { data: Vec::new(), conf_state: ConfState::default(), index: 0, term: 0 };
        let mut fields = Fields::of(bytes);
        while let Some((field, value)) = fields.next()? {
            match field {
                1 => snapshot.data = value.bytes(field)?.to_vec(),
                2 => snapshot.metadata(value.bytes(field)?)?,
                _ => {}
            }
        }
        Ok(snapshot)
    }

    fn metadata(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let mut fields = Fields::of(bytes);
        while let Some((field, value)) = fields.next()? {
            match field {
                1 => self.conf_state = ConfState::decode(value.bytes(field)?)?,
                2 => self.index = value.varint(field)?,
                3 => self.term = value.varint(field)?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// The same content with the checksum it should have, for fuzzing; all of `file` is the content where it has none.
pub(crate) fn with_valid_checksum(file: &[u8]) -> Vec<u8> {
    let mut content = file;
    let mut fields = Fields::of(file);
    while let Ok(Some((field, value))) = fields.next() {
        if field == 2 {
            content = value.bytes(field).unwrap_or(file);
        }
    }
    let mut sound = Vec::with_capacity(content.len() + 16);
    put_number(&mut sound, 1, u64::from(checksum(content)));
    put_bytes(&mut sound, 2, content);
    sound
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Store {
    root: Node,
    current_index: u64,
    current_version: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    path: String,
    created_index: u64,
    modified_index: u64,
    expire_time: &'static str,
    value: String,
    /// Absent (null) marks a file, present a directory.
    children: Option<BTreeMap<String, Node>>,
}

/// Go's zero time: never expires.
const NEVER: &str = "0001-01-01T00:00:00Z";

fn node(path: &str, value: String, children: Option<Vec<Node>>) -> Node {
    let name = |child: &Node| child.path.rsplit('/').next().unwrap_or_default().to_owned();
    let children = children.map(|nodes| nodes.into_iter().map(|child| (name(&child), child)).collect());
    Node { path: path.to_owned(), created_index: 0, modified_index: 0, expire_time: NEVER, value, children }
}

/// The v2 store with nothing but the member list, which is all etcd 3.4 to 3.6 look at.
fn v2_store(cluster: &ClusterSpec) -> String {
    let directory = |path: &str, children| node(path, String::new(), Some(children));
    let members = cluster.records().into_iter().map(|member| {
        let path = format!("/0/members/{}", member_key(member.id));
        let attributes = node(&format!("{path}/raftAttributes"), member.raft_attributes(), None);
        directory(&path, vec![attributes])
    });
    let members = directory("/0/members", members.collect());
    let root = directory("/", vec![directory("/0", vec![members]), directory("/1", Vec::new())]);
    go_json::marshal(&Store { root, current_index: cluster.last_index(), current_version: 2 })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cluster::parse_initial_cluster;
    use proptest::prelude::*;

    fn one() -> ClusterSpec {
        ClusterSpec::new("etcd-cluster", parse_initial_cluster("m=http://127.0.0.1:2380").unwrap()).unwrap()
    }

    #[test]
    fn the_store_holds_the_members_and_nothing_else() {
        let store: serde_json::Value = serde_json::from_str(&v2_store(&one())).unwrap();
        let member = &store["Root"]["Children"]["0"]["Children"]["members"]["Children"]["b71f75320dc06a6c"];
        assert_eq!(member["Path"], "/0/members/b71f75320dc06a6c");
        let attributes = &member["Children"]["raftAttributes"];
        assert_eq!(attributes["Value"], r#"{"peerURLs":["http://127.0.0.1:2380"]}"#);
        assert_eq!(attributes["Children"], serde_json::Value::Null);
        assert_eq!(store["Root"]["Children"]["1"]["Children"], serde_json::json!({}));
        assert_eq!((&store["CurrentIndex"], &store["CurrentVersion"]), (&1.into(), &2.into()));
    }

    #[test]
    fn the_file_comes_back_and_damage_is_noticed() {
        let snapshot = RaftSnapshot::bootstrap(&one());
        let file = snapshot.encode();
        assert_eq!(RaftSnapshot::decode(&file).unwrap(), snapshot);
        assert_eq!(file_name(1, 3), "0000000000000001-0000000000000003.snap");
        for at in 8..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 0x20;
            assert!(RaftSnapshot::decode(&damaged).is_err(), "byte {at}");
        }
        for cut in 0..file.len() {
            assert!(RaftSnapshot::decode(&file[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(RaftSnapshot::decode(b""), Err(RaftSnapshotError::Empty));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = RaftSnapshot::decode(&bytes);
        }
    }
}
