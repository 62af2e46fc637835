//! The catalog: everything a repository says of one cluster, read once, judged, with what is wrong beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;

use super::proof::Proof;
use crate::backup_id::BackupId;
use crate::canonical::DecodeError;
use crate::digest::Sha256;
use crate::limits;
use crate::lineage::decide::{Histories, Known};
use crate::lineage::standing::{Doubt, Standing, Vouchers};
use crate::lineage::{Lineage, LineageName};
use crate::manifest::{Manifest, Source};
use crate::mark::{Mark, Previous};
use crate::name::{ClusterName, MarkId, Tag};
use crate::sign::Status;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The object.
    pub key: String,
    /// What is wrong with it.
    pub kind: ProblemKind,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.kind)
    }
}

/// What is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProblemKind {
    /// Its key is not one of the layout.
    #[error("not the key of any object of a repository")]
    UnknownKey,
    /// It is damaged or of a form this release does not know.
    #[error("{0}")]
    Damaged(DecodeError),
    /// The store itself finds it damaged, or it is too large.
    #[error("{0}")]
    Unreadable(String),
    /// It is sound but belongs elsewhere.
    #[error("it was moved from elsewhere: {0}")]
    Moved(String),
    /// Its signature is wrong.
    #[error("{0}")]
    Signature(Status),
    /// A manifest names it and it is not there.
    #[error("missing, although the manifest names it")]
    Missing,
    /// It does not have the size its manifest states.
    #[error("it has {there} bytes, the manifest says {stated}")]
    Size {
        /// What the store says.
        there: u64,
        /// What the manifest says.
        stated: u64,
    },
    /// A later manifest had seen it, it is gone, and no tombstone says why.
    #[error("gone without a tombstone, although {child} names it as an earlier backup")]
    Vanished {
        /// The manifest that names it.
        child: BackupId,
    },
    /// A later manifest had seen another one under this id.
    #[error("it is not the manifest that {child} had seen")]
    Replaced {
        /// The manifest that had seen the other one.
        child: BackupId,
    },
    /// Manifests name the lineage and its object is not there.
    #[error("missing, although manifests name this lineage")]
    LineageMissing,
}

/// One backup.
#[derive(Clone, Debug, PartialEq)]
pub struct Backup {
    /// Its manifest.
    pub manifest: Manifest,
    /// The digest of the stored manifest.
    pub sha256: Sha256,
    /// What its signature is worth.
    pub signature: Status,
    /// Whether it counts for retention, proofs, lineages and `latest`: false for unsigned and foreign ones where signers are trusted.
    pub counts: bool,
    /// Why it is unconfirmed, if it is: its lineage is, or its fingerprint is not its lineage's.
    pub unconfirmed: Option<Doubt>,
    /// How well it is proven.
    pub proof: Proof,
    /// Its tags: the manifest's, with the marks applied.
    pub tags: BTreeSet<Tag>,
    /// The pins in force.
    pub pins: BTreeSet<MarkId>,
    /// Objects of the set that are missing or have another size: it cannot be restored as it is.
    pub incomplete: bool,
}

impl Backup {
    /// Its id.
    pub fn id(&self) -> BackupId {
        self.manifest.id
    }

    /// What orders backups by age: the second of the id, then the moment it stands for, then the id, whose end is chance.
    #[must_use]
    pub fn age_order(&self) -> (Timestamp, Timestamp, BackupId) {
        (self.id().start(), self.manifest.moment(), self.id())
    }

    /// Why it can never be `latest`; none when it can.
    pub fn not_latest(&self) -> Option<NotLatest> {
        let manifest = &self.manifest;
        if !self.counts {
            Some(NotLatest::Untrusted)
        } else if self.unconfirmed.is_some() {
            Some(NotLatest::Unconfirmed)
        } else if manifest.source == Source::Rescue {
            Some(NotLatest::Rescue)
        } else if !manifest.hashkv.verdict.may_be_latest() {
            Some(NotLatest::HashKv)
        } else if self.proof.failed.is_some() || self.incomplete {
            Some(NotLatest::Failed)
        } else {
            None
        }
    }
}

/// Why a backup can never be `latest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NotLatest {
    /// Not signed by a trusted signer.
    Untrusted,
    /// Its history or its fingerprint is unconfirmed.
    Unconfirmed,
    /// What was left of a data directory.
    Rescue,
    /// HashKV disputed or failed.
    HashKv,
    /// A check failed, or objects are missing.
    Failed,
}

impl fmt::Display for NotLatest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Untrusted => "not signed by a trusted signer",
            Self::Unconfirmed => "unconfirmed",
            Self::Rescue => "a rescue",
            Self::HashKv => "HashKV disputed or failed",
            Self::Failed => "verification failed",
        })
    }
}

/// A mark, judged.
#[derive(Clone, Debug, PartialEq)]
pub struct MarkEntry {
    /// The mark.
    pub mark: Mark,
    /// The digest of its stored bytes.
    pub sha256: Sha256,
    /// What its signature is worth.
    pub signature: Status,
    /// Whether it counts.
    pub counts: bool,
}

/// Objects under an id without a manifest: an attempt under way, cut off, or left by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uncommitted {
    /// The attempt.
    pub id: BackupId,
    /// How many objects.
    pub objects: u64,
    /// Their bytes together.
    pub bytes: u64,
}

/// A lineage, judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineageEntry {
    /// Its object.
    pub lineage: Lineage,
    /// Whether it is accepted.
    pub standing: Standing,
}

/// Everything a repository says of one cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalog {
    /// The cluster.
    pub cluster: ClusterName,
    /// Its backups, sorted by id.
    pub backups: Vec<Backup>,
    /// Its lineages.
    pub lineages: BTreeMap<LineageName, LineageEntry>,
    /// Its marks, sorted by id.
    pub marks: Vec<MarkEntry>,
    /// Attempts without a manifest, sorted by id.
    pub uncommitted: Vec<Uncommitted>,
    /// What is wrong, sorted by key.
    pub problems: Vec<Problem>,
    /// The highest seq of a lineage seen anywhere.
    pub highest_seq: u16,
    pub(super) vouchers: Vouchers,
}

impl Catalog {
    /// The backup with this id.
    pub fn backup(&self, id: &BackupId) -> Option<&Backup> {
        self.backups.binary_search_by_key(id, Backup::id).ok().and_then(|at| self.backups.get(at))
    }

    /// What [`crate::lineage::decide::decide`] rests on.
    pub fn histories(&self) -> Histories {
        let known = self.lineages.values().map(|entry| self.known(&entry.lineage)).collect();
        Histories { known, highest_seq: self.highest_seq, vouchers: self.vouchers.clone() }
    }

    fn known(&self, lineage: &Lineage) -> Known {
        let sound = |backup: &&Backup| match backup.not_latest() {
            None => true,
            // An unconfirmed history still has a newest row, against which its next snapshot is held.
            Some(NotLatest::Unconfirmed) => backup.manifest.hashkv.verdict.may_be_latest() && backup.manifest.source != Source::Rescue,
            // A check that failed later speaks of the stored bytes, not of what the manifest says of the row.
            Some(NotLatest::Failed) => true,
            Some(_) => false,
        };
        let backups = || self.backups.iter().filter(|backup| backup.manifest.lineage == lineage.name).filter(sound);
        let newest = backups().max_by_key(|backup| (backup.manifest.revision, backup.id()));
        Known {
            lineage: lineage.clone(),
            ids: backups().filter_map(|backup| backup.manifest.cluster_id).collect(),
            highest: newest.map(|backup| backup.manifest.revision),
            last_row: newest.and_then(|backup| backup.manifest.last_row),
        }
    }

    /// What marks that count vouch for.
    pub fn vouchers(&self) -> &Vouchers {
        &self.vouchers
    }

    /// The newest mark, for the next one's `prev`.
    pub fn newest_mark(&self) -> Option<Previous> {
        self.marks.last().map(|entry| Previous { id: entry.mark.id, sha256: entry.sha256 })
    }

    /// The newest manifest of each lineage that counts, for the next one's `parents`.
    pub fn parents(&self) -> Vec<crate::manifest::Parent> {
        let mut newest: BTreeMap<LineageName, &Backup> = BTreeMap::new();
        for backup in self.backups.iter().filter(|backup| backup.counts) {
            newest.insert(backup.manifest.lineage, backup);
        }
        let parents = newest.into_values().rev().take(limits::MANIFEST_LIST);
        parents.map(|backup| crate::manifest::Parent { id: backup.id(), sha256: backup.sha256 }).collect()
    }

    /// The highest revision in any backup, in whatever lineage and state: what a restore's bump must pass. 0 without a backup.
    pub fn highest_revision(&self) -> i64 {
        self.backups.iter().map(|backup| backup.manifest.revision).max().unwrap_or(0)
    }
}
