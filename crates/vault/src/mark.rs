//! Marks: small, create-only records beside the backups: pins, tags, proofs, restores, and what the last run did.
//!
//! `<cluster>/marks/<ulid>.json` is `{schema, self_sha256, id, repository, cluster, kind, target, data, prev}`; its signature object is written
//! first. A kind that this release does not know is kept as it is and has no effect. A mark never authorises a deletion by itself.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::backup_id::BackupId;
use crate::canonical::{DecodeError, Object};
use crate::digest::Sha256;
use crate::limits;
use crate::lineage::{Fingerprint, LineageName};
use crate::manifest::{HashKvVerdict, Rung};
use crate::name::{ClusterName, MarkId, RepositoryId, Tag};

/// A mark as stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Stored {
    id: MarkId,
    repository: RepositoryId,
    cluster: ClusterName,
    kind: String,
    target: Option<String>,
    data: Value,
    prev: Option<Previous>,
}

impl Object for Stored {
    const SCHEMA: &'static str = "lifeboat.mark/1";
    const LIMIT: usize = limits::SMALL_JSON_BYTES;
}

/// The newest mark its writer had seen: by the chain a missing mark is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// The mark.
    pub id: MarkId,
    /// The digest of its stored bytes.
    pub sha256: Sha256,
}

/// A mark.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Its id, equal to the one in its key.
    pub id: MarkId,
    /// The repository it belongs to.
    pub repository: RepositoryId,
    /// The cluster, equal to the one in its key.
    pub cluster: ClusterName,
    /// What it says of what.
    pub statement: Statement,
    /// The newest mark its writer had seen.
    pub prev: Option<Previous>,
}

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Passed.
    Passed,
    /// The backup is bad.
    Failed,
    /// Nothing was found out.
    Inconclusive,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunResult {
    /// A backup was committed.
    Ok,
    /// A backup was committed with warnings (exit 3).
    Warnings,
    /// None was committed.
    Failed,
}

/// Data of `pin`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Why, for people.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Data of `unpin`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpin {
    /// The pins it cancels; others stay.
    pub pins: Vec<MarkId>,
}

/// Data of `tag` and `untag`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tags {
    /// The tags.
    pub tags: Vec<Tag>,
}

/// Data of `tombstone`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// When a run of the pruner found the target due.
    pub due: Timestamp,
    /// The rule, for people.
    #[serde(default)]
    pub reason: Option<String>,
    /// Who prunes, where nobody signs.
    #[serde(default)]
    pub pruner: Option<String>,
}

/// Data of `accept`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    /// The fingerprint that is taken for this lineage, none for snapshots without one.
    #[serde(default)]
    pub fingerprint: Option<Fingerprint>,
}

/// Data of `verify`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verify {
    /// The rung that was tried.
    pub rung: Rung,
    /// What it came to.
    pub result: Outcome,
    /// When it was over.
    pub at: Timestamp,
    /// HashKV, where it was computed.
    #[serde(default)]
    pub hashkv: Option<HashKvVerdict>,
    /// What was found, for people.
    #[serde(default)]
    pub detail: Option<String>,
}

/// Data of `drill`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drill {
    /// What it came to.
    pub result: Outcome,
    /// When it was over.
    pub at: Timestamp,
    /// The etcd that booted.
    #[serde(default)]
    pub etcd: Option<String>,
    /// From the first byte read to the first request answered, in seconds.
    #[serde(default)]
    pub seconds: Option<u64>,
    /// What was found, for people.
    #[serde(default)]
    pub detail: Option<String>,
}

/// Data of `restore`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// The revision of the bump row: the epoch by which the restored cluster is recognised. The backup's own revision without a bump.
    pub target_revision: i64,
    /// Whether revisions were moved.
    pub bumped: bool,
    /// When the files were in place.
    pub at: Timestamp,
    /// The initial cluster token, where one was used.
    #[serde(default)]
    pub token: Option<String>,
}

/// Data of `run`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// What was run.
    pub verb: String,
    /// What it came to.
    pub result: RunResult,
    /// The exit code.
    pub exit: u8,
    /// When it was over.
    pub at: Timestamp,
    /// The error, for people.
    #[serde(default)]
    pub detail: Option<String>,
}

/// What a mark says of what.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    /// This backup does not expire.
    Pin(BackupId, Pin),
    /// These pins of this backup are cancelled.
    Unpin(BackupId, Unpin),
    /// This backup has these tags.
    Tag(BackupId, Tags),
    /// This backup does not have these tags any more.
    Untag(BackupId, Tags),
    /// A pruner found this backup due.
    Tombstone(BackupId, Tombstone),
    /// The operator takes this lineage for this cluster's.
    Accept(LineageName, Accept),
    /// This backup was verified.
    Verify(BackupId, Verify),
    /// A real etcd was booted from this backup.
    Drill(BackupId, Drill),
    /// This backup was restored.
    Restore(BackupId, Restore),
    /// A run was over.
    Run(Run),
    /// Of a kind that this release does not know. No effect.
    Other {
        /// The kind.
        kind: String,
        /// The target, as it stands.
        target: Option<String>,
        /// The data, as they stand.
        data: Value,
    },
}

impl Statement {
    /// The word for its kind.
    pub fn kind(&self) -> &str {
        match self {
            Self::Pin(..) => "pin",
            Self::Unpin(..) => "unpin",
            Self::Tag(..) => "tag",
            Self::Untag(..) => "untag",
            Self::Tombstone(..) => "tombstone",
            Self::Accept(..) => "accept",
            Self::Verify(..) => "verify",
            Self::Drill(..) => "drill",
            Self::Restore(..) => "restore",
            Self::Run(..) => "run",
            Self::Other { kind, .. } => kind,
        }
    }

    /// The backup it speaks of.
    pub fn backup(&self) -> Option<&BackupId> {
        match self {
            Self::Pin(id, _) | Self::Unpin(id, _) | Self::Tag(id, _) | Self::Untag(id, _) => Some(id),
            Self::Tombstone(id, _) | Self::Verify(id, _) | Self::Drill(id, _) | Self::Restore(id, _) => Some(id),
            Self::Accept(..) | Self::Run(_) | Self::Other { .. } => None,
        }
    }

    fn to_parts(&self) -> Result<(Option<String>, Value), serde_json::Error> {
        let of = |id: &BackupId| Some(id.to_string());
        Ok(match self {
            Self::Pin(id, data) => (of(id), serde_json::to_value(data)?),
            Self::Unpin(id, data) => (of(id), serde_json::to_value(data)?),
            Self::Tag(id, data) | Self::Untag(id, data) => (of(id), serde_json::to_value(data)?),
            Self::Tombstone(id, data) => (of(id), serde_json::to_value(data)?),
            Self::Accept(lineage, data) => (Some(lineage.to_string()), serde_json::to_value(data)?),
            Self::Verify(id, data) => (of(id), serde_json::to_value(data)?),
            Self::Drill(id, data) => (of(id), serde_json::to_value(data)?),
            Self::Restore(id, data) => (of(id), serde_json::to_value(data)?),
            Self::Run(data) => (None, serde_json::to_value(data)?),
            Self::Other { target, data, .. } => (target.clone(), data.clone()),
        })
    }

    fn from_parts(kind: String, target: Option<String>, data: Value) -> Result<Self, String> {
        fn target_of<T: std::str::FromStr<Err: std::fmt::Display>>(target: &Option<String>) -> Result<T, String> {
            target.as_deref().unwrap_or_default().parse().map_err(|e| format!("target: {e}"))
        }
        fn data_of<T: serde::de::DeserializeOwned>(data: Value) -> Result<T, String> {
            serde_json::from_value(data).map_err(|e| format!("data: {e}"))
        }
        Ok(match kind.as_str() {
            "pin" => Self::Pin(target_of(&target)?, data_of(data)?),
            "unpin" => Self::Unpin(target_of(&target)?, data_of(data)?),
            "tag" => Self::Tag(target_of(&target)?, data_of(data)?),
            "untag" => Self::Untag(target_of(&target)?, data_of(data)?),
            "tombstone" => Self::Tombstone(target_of(&target)?, data_of(data)?),
            "accept" => Self::Accept(target_of(&target)?, data_of(data)?),
            "verify" => Self::Verify(target_of(&target)?, data_of(data)?),
            "drill" => Self::Drill(target_of(&target)?, data_of(data)?),
            "restore" => Self::Restore(target_of(&target)?, data_of(data)?),
            "run" if target.is_none() => Self::Run(data_of(data)?),
            "run" => return Err("target: a run has none".to_owned()),
            _ => Self::Other { kind, target, data },
        })
    }
}

impl Mark {
    /// The bytes to store.
    pub fn encode(&self) -> Result<Vec<u8>, crate::canonical::EncodeError> {
        let unsound = |detail: String| crate::canonical::EncodeError::Unsound { schema: Stored::SCHEMA, detail };
        let (target, data) = self.statement.to_parts().map_err(|e| unsound(e.to_string()))?;
        let Self { id, repository, prev, .. } = *self;
        let kind = self.statement.kind().to_owned();
        crate::canonical::encode(&Stored { id, repository, cluster: self.cluster.clone(), kind, target, data, prev })
    }

    /// Reads the mark stored under the key of `cluster` and `id`.
    pub fn decode(bytes: &[u8], repository: &RepositoryId, cluster: &ClusterName, id: &MarkId) -> Result<Self, DecodeError> {
        let stored: Stored = crate::canonical::decode(bytes)?;
        if stored.id != *id || stored.cluster != *cluster || stored.repository != *repository {
            let Stored { repository, cluster, id, .. } = &stored;
            return Err(DecodeError::Invalid { detail: format!("it is mark {id} of cluster {cluster} in repository {repository}") });
        }
        let statement = Statement::from_parts(stored.kind, stored.target, stored.data).map_err(|detail| DecodeError::Invalid { detail })?;
        Ok(Self { id: stored.id, repository: stored.repository, cluster: stored.cluster, statement, prev: stored.prev })
    }
}

/// Reads the fields of a mark from arbitrary bytes, whatever its key.
pub(crate) fn decode_any(bytes: &[u8]) -> Option<Mark> {
    let stored: Stored = crate::canonical::decode(bytes).ok()?;
    Mark::decode(bytes, &stored.repository, &stored.cluster, &stored.id).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    pub(crate) fn every_statement() -> Vec<Statement> {
        let id: BackupId = "20261121T020004Z-7qk2m9".parse().unwrap();
        let at: Timestamp = "2026-11-21T03:00:00Z".parse().unwrap();
        let tags = || Tags { tags: vec!["a".parse().unwrap()] };
        vec![
            Statement::Pin(id, Pin { reason: Some("audit".into()) }),
            Statement::Unpin(id, Unpin { pins: vec!["01D39ZY06FGSCTVN4T2V9PKHFZ".parse().unwrap()] }),
            Statement::Tag(id, tags()),
            Statement::Untag(id, tags()),
            Statement::Tombstone(id, Tombstone { due: at, reason: None, pruner: None }),
            Statement::Accept("0002-talos-5".parse().unwrap(), Accept { fingerprint: "uid-1".parse().ok() }),
            Statement::Verify(
                id,
                Verify { rung: Rung::Deep, result: Outcome::Passed, at, hashkv: Some(HashKvVerdict::Match), detail: None },
            ),
            Statement::Drill(id, Drill { result: Outcome::Failed, at, etcd: Some("3.5.30".into()), seconds: Some(4), detail: None }),
            Statement::Restore(id, Restore { target_revision: 5_000_000_123, bumped: true, at, token: None }),
            Statement::Run(Run { verb: "backup".into(), result: RunResult::Failed, exit: 30, at, detail: Some("no route".into()) }),
            Statement::Other { kind: "later".into(), target: Some("x".into()), data: serde_json::json!({"a": [1]}) },
        ]
    }

    fn mark(statement: Statement) -> Mark {
        let id = "01D39ZY06FGSCTVN4T2V9PKHFZ".parse().unwrap();
        let repository = "01D39ZY06FGSCTVN4T2V9PKHFA".parse().unwrap();
        let prev = Some(Previous { id: "01D39ZY06FGSCTVN4T2V9PKHFY".parse().unwrap(), sha256: Sha256::of(b"p") });
        Mark { id, repository, cluster: "prod".parse().unwrap(), statement, prev }
    }

    fn decode(bytes: &[u8]) -> Result<Mark, DecodeError> {
        let expected = mark(Statement::Other { kind: String::new(), target: None, data: Value::Null });
        Mark::decode(bytes, &expected.repository, &expected.cluster, &expected.id)
    }

    #[test]
    fn every_kind_survives() {
        for statement in every_statement() {
            let mark = mark(statement);
            assert_eq!(decode(&mark.encode().unwrap()).unwrap(), mark);
        }
    }

    #[test]
    fn every_flipped_byte_is_found() {
        for statement in every_statement() {
            let bytes = mark(statement).encode().unwrap();
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0x10;
                assert!(decode(&damaged).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn a_mark_is_bound_to_its_key() {
        let moved = mark(every_statement().remove(0));
        let bytes = moved.encode().unwrap();
        let other = "staging".parse().unwrap();
        assert!(Mark::decode(&bytes, &moved.repository, &other, &moved.id).is_err());
        assert!(Mark::decode(&bytes, &moved.repository, &moved.cluster, &moved.prev.unwrap().id).is_err());
    }

    #[test]
    fn a_target_of_the_wrong_form_is_refused() {
        for (kind, target) in [("pin", None), ("pin", Some("latest")), ("accept", Some("20261121T020004Z-7qk2m9")), ("run", Some("x"))] {
            let result = Statement::from_parts(kind.into(), target.map(str::to_owned), serde_json::json!({}));
            assert!(result.is_err(), "{kind} {target:?}");
        }
    }
}
