//! What the double is and says.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use grpc_link::testing::Failure;

/// How the double treats a Snapshot call. `after` counts database bytes sent before the fault.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Behaviour {
    /// As a healthy member.
    Sound,
    /// Sends empty blobs for ever, as a member does that cannot read its file.
    EmptyBlobLoop {
        /// Bytes before.
        after: u64,
    },
    /// A trailer of 32 bytes that is not the digest.
    WrongTrailer,
    /// One byte of the database flipped on the way, with the digest of the sound bytes.
    CorruptByte {
        /// Which byte.
        at: u64,
    },
    /// A trailer of 31 bytes.
    ShortTrailer,
    /// No trailer, then status OK.
    MissingTrailer,
    /// Ends early with status OK.
    ShortStream {
        /// Bytes before.
        after: u64,
    },
    /// Sends nothing more and keeps the stream open.
    Stalled {
        /// Bytes before.
        after: u64,
    },
    /// Never answers at all.
    Silent,
    /// Small pieces with pauses between.
    Trickle {
        /// Bytes per piece.
        piece: usize,
        /// Pause between two.
        pause: Duration,
    },
    /// Another message after the trailer.
    ExtraAfterTrailer,
    /// From `after` on, `remaining_bytes` is too small by one.
    WrongRemaining {
        /// Bytes before.
        after: u64,
    },
    /// From `after` on, `remaining_bytes` grows.
    RemainingRising {
        /// Bytes before.
        after: u64,
    },
    /// One blob of this many bytes, whatever the database.
    HugeBlob {
        /// Its length.
        bytes: usize,
    },
    /// The last byte of the database is left out, everything else is consistent.
    OddSize,
    /// A gRPC status in the middle.
    FailMidway {
        /// Bytes before.
        after: u64,
        /// gRPC status code.
        code: u32,
        /// Its text.
        message: String,
    },
    /// The TCP connection is dropped in the middle.
    CutMidway {
        /// Bytes before.
        after: u64,
    },
    /// The stream is reset in the middle (RST_STREAM).
    ResetMidway {
        /// Bytes before.
        after: u64,
        /// HTTP/2 error code.
        reason: u32,
    },
    /// The connection is closed by GOAWAY in the middle, as etcd does to those who ping too often.
    GoAway {
        /// Bytes before.
        after: u64,
    },
    /// Ends the HTTP/2 stream early without a gRPC status, as proxies do.
    EndWithoutStatus {
        /// Bytes before.
        after: u64,
    },
}

/// A member in the answer to MemberList.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScriptMember {
    /// Id.
    pub id: u64,
    /// Name.
    pub name: String,
    /// Peer URLs.
    pub peer_urls: Vec<String>,
    /// Client URLs.
    pub client_urls: Vec<String>,
    /// Learner or voter.
    pub is_learner: bool,
}

/// An answer to HashKV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScriptHash {
    /// The hash.
    pub hash: u32,
    /// The compacted revision it was made under.
    pub compact_revision: i64,
}

/// One step of a scripted watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchStep {
    /// Send this encoded WatchResponse.
    Answer(Bytes),
    /// Read one more request of the client before going on.
    ReadRequest,
    /// End with this status.
    Fail(Failure),
    /// Keep the stream open and send nothing.
    Hang,
}

/// Everything the double answers. Every value can be changed while it runs.
#[derive(Clone, Debug)]
pub struct Script {
    /// Cluster id in every header.
    pub cluster_id: u64,
    /// Member id in every header.
    pub member_id: u64,
    /// Revision in every header.
    pub revision: i64,
    /// Raft term in every header.
    pub raft_term: u64,
    /// Server version.
    pub version: String,
    /// Storage version, in Status and Snapshot; empty as before 3.6.
    pub storage_version: String,
    /// Database size in Status; `None` is the length of the snapshot.
    pub db_size: Option<i64>,
    /// In-use size in Status; `None` is the length of the snapshot.
    pub db_size_in_use: Option<i64>,
    /// Quota in Status.
    pub db_size_quota: i64,
    /// Leader in Status; 0 for none.
    pub leader: u64,
    /// Raft index in Status.
    pub raft_index: u64,
    /// Applied index in Status.
    pub raft_applied_index: u64,
    /// Complaints in Status.
    pub errors: Vec<String>,
    /// Whether Status says learner.
    pub is_learner: bool,
    /// Members; when empty, one of this double's id and address.
    pub members: Vec<ScriptMember>,
    /// Active alarms: member, number of the kind (1 NOSPACE, 2 CORRUPT).
    pub alarms: Vec<(u64, u32)>,
    /// Keys that Range finds; every one has the script's revision as its own.
    pub kvs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Answers to HashKV by revision.
    pub hash_kv: BTreeMap<i64, ScriptHash>,
    /// Answer to HashKV at revisions not listed; `None` answers "future" or "compacted".
    pub hash_kv_default: Option<ScriptHash>,
    /// The database that Snapshot sends, without the trailer.
    pub snapshot: Bytes,
    /// Largest blob; etcd's is 32 KiB.
    pub blob_size: usize,
    /// User and password; when set every other call wants a token.
    pub credentials: Option<(String, String)>,
    /// Refuse every token, even the newest.
    pub refuse_tokens: bool,
    /// Send response headers before an error, as etcd does behind TLS, instead of one block of headers.
    pub late_status: bool,
    /// Calls, by etcd's name for them, that fail.
    pub fail: BTreeMap<String, Failure>,
    /// Calls, by etcd's name for them, that wait before they answer.
    pub delay: BTreeMap<String, Duration>,
    /// What a watch does after its first request was read.
    pub watch: Vec<WatchStep>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            cluster_id: 0x0c1d_0c1d_0c1d_0c1d,
            member_id: 0xa11c_e000_0000_0001,
            revision: 1,
            raft_term: 2,
            version: "3.6.14".to_owned(),
            storage_version: "3.6.0".to_owned(),
            db_size: None,
            db_size_in_use: None,
            db_size_quota: 2 << 30,
            leader: 0xa11c_e000_0000_0001,
            raft_index: 10,
            raft_applied_index: 10,
            errors: Vec::new(),
            is_learner: false,
            members: Vec::new(),
            alarms: Vec::new(),
            kvs: BTreeMap::new(),
            hash_kv: BTreeMap::new(),
            hash_kv_default: None,
            snapshot: Bytes::new(),
            blob_size: 32 << 10,
            credentials: None,
            refuse_tokens: false,
            late_status: false,
            fail: BTreeMap::new(),
            delay: BTreeMap::new(),
            watch: Vec::new(),
        }
    }
}

impl Script {
    /// A script whose Snapshot sends this database.
    #[must_use]
    pub fn with_snapshot(database: impl Into<Bytes>) -> Self {
        Self { snapshot: database.into(), ..Self::default() }
    }
}
