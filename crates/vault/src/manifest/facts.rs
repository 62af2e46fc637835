//! The parts of a manifest, one fact each.

use etcd_store::id::MemberId;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::hex_id;
use crate::digest::Sha256;
use crate::key::SnapshotObject;
use crate::layers::Layers;
use crate::seal::RecipientFingerprint;

/// Where a snapshot came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// An etcd member, over its client API.
    Direct,
    /// A Talos node, over its API.
    Talos,
    /// A snapshot file.
    File,
    /// Another tool's backup.
    Import,
    /// What was left of a data directory before it was replaced. Never `latest`.
    Rescue,
}

/// Whether a linearizable read of the source could be held against what the repository knows of its history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LineageCheck {
    /// It could.
    Compared,
    /// The source cannot be asked: a bare file, or Talos without direct access.
    Uncompared,
}

/// What comparing the newest earlier backup's last row with the same row of this snapshot gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RowCheck {
    /// The same content.
    Same,
    /// Another content: another history.
    Different,
    /// Compacted, not reached yet, or there is no earlier backup.
    NotComparable,
}

/// One etcd member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    #[serde(with = "hex_id")]
    pub id: MemberId,
    /// Its name; empty when it has not started yet.
    pub name: String,
}

/// Versions, as the source told them; none where it does not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The member's etcd.
    pub etcd: Option<String>,
    /// The cluster version.
    pub cluster: Option<String>,
    /// The storage version in the file (etcd 3.6 and later).
    pub storage: Option<String>,
    /// Talos.
    #[serde(default)]
    pub talos: Option<String>,
    /// Kubernetes.
    #[serde(default)]
    pub kubernetes: Option<String>,
}

/// The two records of compaction in etcd's `meta` bucket (`scheduledCompactRev`, `finishedCompactRev`), 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactRevision {
    /// Asked for.
    pub scheduled: i64,
    /// Done.
    pub finished: i64,
}

/// `term` and `consistent_index` of etcd's `meta` bucket, 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raft {
    /// The term.
    pub term: u64,
    /// The index of the last entry the database holds.
    pub index: u64,
}

/// The newest row of etcd's `key` bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRow {
    /// The revision.
    pub main: i64,
    /// The change within the revision.
    pub sub: i64,
    /// The digest of the row's key bytes followed by its value bytes, as the bucket holds them.
    pub sha256: Sha256,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows of the `key` bucket.
    pub rows: u64,
    /// Keys that exist at the snapshot's revision.
    pub live_keys: u64,
    /// Leases.
    pub leases: u64,
}

/// The snapshot file itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotFile {
    /// The database without the trailer, in bytes.
    pub db_size: u64,
    /// SHA-256 of the database without the trailer: what the trailer says.
    pub db_sha256: Sha256,
    /// The whole file as restored, with the trailer where the source sends one, in bytes.
    pub file_size: u64,
    /// SHA-256 of the whole file as restored: what `sha256sum snapshot.db` prints.
    pub file_sha256: Sha256,
    /// Bytes of the database that are in use (db_size less free pages), where known.
    pub in_use: Option<u64>,
}

impl SnapshotFile {
    /// The length of the trailer that etcd appends (SHA-256 of all bytes before it).
    pub const TRAILER: u64 = 32;
}

/// Who can open a backup. Public facts only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealing {
    /// Fingerprints of the recipients of the snapshot.
    pub recipients: Vec<RecipientFingerprint>,
    /// Whether a passphrase opens it; then it is the only recipient.
    #[serde(default)]
    pub passphrase: bool,
    /// Fingerprints of the recipients of the extras.
    #[serde(default)]
    pub extra_recipients: Vec<RecipientFingerprint>,
}

/// What an object of the set is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The snapshot.
    Snapshot,
    /// Frame table and block digests.
    Frames,
    /// A sealed extra.
    Extra,
}

impl Role {
    /// What an object of this name is for; none for the manifest and its signature, which do not name themselves.
    pub fn of(name: &SnapshotObject) -> Option<Self> {
        match name {
            SnapshotObject::Data(_) => Some(Self::Snapshot),
            SnapshotObject::Frames => Some(Self::Frames),
            SnapshotObject::Extra(_) => Some(Self::Extra),
            SnapshotObject::Manifest | SnapshotObject::ManifestSignature => None,
        }
    }
}

/// One object of the set, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredObject {
    /// Its name below the backup's directory.
    pub name: SnapshotObject,
    /// What it is for.
    pub role: Role,
    /// Its size in bytes, as stored.
    pub size: u64,
    /// SHA-256 of its stored bytes.
    pub sha256: Sha256,
}

impl Serialize for Layers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let names = [self.zstd.then_some("zstd"), self.age.then_some("age")];
        serializer.collect_seq(names.into_iter().flatten())
    }
}

impl<'de> Deserialize<'de> for Layers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        match names[..] {
            [] => Ok(Self { zstd: false, age: false }),
            ["zstd"] => Ok(Self { zstd: true, age: false }),
            ["age"] => Ok(Self { zstd: false, age: true }),
            ["zstd", "age"] => Ok(Self::SEALED),
            _ => Err(serde::de::Error::custom("layers are, from the inside, \"zstd\" and \"age\", each at most once")),
        }
    }
}

/// The verdict on the content of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HashKvVerdict {
    /// HashKV of the snapshot equals what a live member answered for that revision.
    Match,
    /// Members disagree and this snapshot is not with a strict majority of voters.
    Disputed,
    /// HashKV of the snapshot equals no member's answer.
    Failed,
    /// It was asked, but the answers cannot be compared, or the time budget was used up.
    Inconclusive,
    /// This source does not offer it.
    NotOffered,
}

impl HashKvVerdict {
    /// Whether a backup with it may be `latest`.
    pub fn may_be_latest(self) -> bool {
        !matches!(self, Self::Disputed | Self::Failed)
    }
}

/// HashKV of one state (etcd: CRC-32C over the rows up to a revision, from the compact revision on).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashKvValue {
    /// The hash.
    pub hash: u32,
    /// The revision up to which it goes.
    pub revision: i64,
    /// The compact revision at which it begins; hashes compare only when equal.
    pub compact_revision: i64,
}

/// What one member answered, or why it was not asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashKvAnswer {
    /// The member.
    #[serde(with = "hex_id")]
    pub member: MemberId,
    /// What it answered; none when it did not or was not asked.
    pub answer: Option<HashKvValue>,
    /// When it was asked.
    pub asked: Option<Timestamp>,
}

/// HashKV of the snapshot and of the live cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashKv {
    /// The verdict.
    pub verdict: HashKvVerdict,
    /// Computed from the snapshot file.
    pub computed: Option<HashKvValue>,
    /// As members answered.
    pub answers: Vec<HashKvAnswer>,
}

/// How far a backup has been proven. Each rung includes those below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rung {
    /// Not at all.
    None,
    /// Sizes, the store's checksums and signatures are right.
    Stored,
    /// Every stored byte was hashed.
    Read,
    /// Opened: structure, revision, counts and HashKV are right.
    Deep,
    /// A real etcd booted from it.
    Booted,
}

impl Rung {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Stored => "stored",
            Self::Read => "read",
            Self::Deep => "deep",
            Self::Booted => "booted",
        }
    }
}

/// The highest rung passed, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proven {
    /// The rung.
    pub rung: Rung,
    /// When; none for [`Rung::None`].
    pub at: Option<Timestamp>,
}

/// An alarm a member had raised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// The member.
    #[serde(with = "hex_id")]
    pub member: MemberId,
    /// etcd's name for it: `NOSPACE`, `CORRUPT`, or a number.
    pub alarm: String,
}

/// One member of the cluster as it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberState {
    /// Its id.
    #[serde(with = "hex_id")]
    pub id: MemberId,
    /// Its name; empty when it has not started yet.
    pub name: String,
    /// Whether it is a learner.
    pub learner: bool,
    /// Whether it answered.
    pub answered: bool,
}

/// What the cluster looked like when the snapshot was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    /// The leader, where one was known.
    #[serde(with = "hex_id::option")]
    pub leader: Option<MemberId>,
    /// The members, where the source tells them.
    pub members: Vec<MemberState>,
    /// The alarms.
    pub alarms: Vec<Alarm>,
}

/// When what happened, by the writer's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// The attempt began (the time in the id, with fractions).
    pub started: Timestamp,
    /// The linearizable read was answered: the snapshot is at least as new.
    pub opening_read: Option<Timestamp>,
    /// The stream began.
    pub stream_started: Timestamp,
    /// The stream ended.
    pub stream_ended: Timestamp,
    /// The manifest was written out.
    pub committed: Timestamp,
}

/// What wrote the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Lifeboat's version.
    pub version: String,
}
