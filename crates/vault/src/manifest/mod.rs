//! The manifest: everything that is known of one backup, readable without any key; writing it commits the backup.
//!
//! It names no key and no value of the cluster. Fields are added by later releases, never changed; a reader skips those it does not know.

mod facts;
mod hex_id;
mod secrets;

pub use facts::*;
pub use secrets::secret_fingerprint;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::backup_id::BackupId;
use crate::canonical::{DecodeError, Object};
use crate::digest::Sha256;
use crate::key::SnapshotObject;
use crate::layers::Layers;
use crate::limits;
use crate::lineage::{Fingerprint, LineageName};
use crate::name::{ClusterName, RepositoryId, Tag};
use crate::sign::KeyId;
use etcd_store::id::ClusterId;

/// The object `<cluster>/snapshots/<id>/manifest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The repository it belongs to.
    pub repository: RepositoryId,
    /// The cluster, equal to the one in its key.
    pub cluster: ClusterName,
    /// The backup's id, equal to the one in its key.
    pub id: BackupId,
    /// The history it belongs to.
    pub lineage: LineageName,
    /// Whether a linearizable read could be held against that history.
    pub lineage_check: LineageCheck,
    /// What comparing the last row of the newest backup before it gave.
    pub last_row_check: RowCheck,
    /// Whether its lineage reached further already: an older file (exit 3).
    #[serde(default)]
    pub older: bool,
    /// Why it was unconfirmed when written. Readers work it out anew, for an `accept` mark may have come.
    pub unconfirmed: Option<crate::lineage::standing::Doubt>,

    /// Where the snapshot came from.
    pub source: Source,
    /// For `source: rescue`: whether etcd had been stopped in order. None otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clean: Option<bool>,
    /// The cluster id, where the source tells it.
    #[serde(with = "hex_id::option")]
    pub cluster_id: Option<ClusterId>,
    /// The member that was asked.
    pub member: Option<Member>,
    /// Versions of what was backed up.
    pub versions: Versions,

    /// The snapshot's revision.
    pub revision: i64,
    /// Below the larger of these no revision can be restored from it.
    pub compact_revision: CompactRevision,
    /// What the database says of raft.
    pub raft: Raft,
    /// Revision of the newest empty-value row in the `key` bucket, 0 without one.
    pub epoch: i64,
    /// The newest row of the `key` bucket.
    pub last_row: Option<LastRow>,
    /// UID of the namespace `kube-system`.
    pub fingerprint: Option<Fingerprint>,
    /// How many there are.
    pub counts: Counts,
    /// The snapshot file itself, before compression and encryption.
    pub snapshot: SnapshotFile,

    /// The layers around the snapshot.
    pub layers: Layers,
    /// Who can open it.
    pub sealing: Sealing,
    /// Every object of the set except the manifest and its signature, sorted by name.
    pub objects: Vec<StoredObject>,

    /// HashKV of the snapshot and as live members answered.
    pub hashkv: HashKv,
    /// The highest rung passed before the commit, `stored` at least where the stores were looked at.
    pub proven: Proven,
    /// What the cluster looked like.
    pub cluster_state: ClusterState,
    /// When what happened.
    pub times: Times,

    /// Whether values of Secrets are encrypted at rest, where that could be told.
    #[serde(default)]
    pub encryption_at_rest: Option<bool>,
    /// Fingerprints of the cluster's secrets by name ([`secret_fingerprint`]), where machine configs were kept with the backup.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, Sha256>,
    /// The release that wrote it.
    pub tool: Tool,
    /// Words given with the backup.
    pub tags: Vec<Tag>,
    /// The newest manifests seen before this one was written.
    pub parents: Vec<Parent>,
    /// The key it is signed with.
    pub signer: Option<KeyId>,
    /// What was not as it should be, in words for people.
    pub warnings: Vec<String>,
}

impl Object for Manifest {
    const SCHEMA: &'static str = "lifeboat.manifest/1";
    const LIMIT: usize = limits::MANIFEST_BYTES;
}

impl Manifest {
    /// Reads a manifest and checks that it does not contradict itself.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let manifest: Self = crate::canonical::decode(bytes)?;
        manifest.check().map_err(|detail| DecodeError::Invalid { detail })?;
        Ok(manifest)
    }

    /// Below this revision the snapshot holds no history: the larger of the scheduled and the finished compaction.
    pub fn floor(&self) -> i64 {
        self.compact_revision.scheduled.max(self.compact_revision.finished)
    }

    /// The data object.
    ///
    /// `None` cannot be for a manifest that [`Manifest::check`] passed.
    pub fn data(&self) -> Option<&StoredObject> {
        self.object(&SnapshotObject::Data(self.layers))
    }

    /// The object of the set with this name.
    pub fn object(&self, name: &SnapshotObject) -> Option<&StoredObject> {
        self.objects.iter().find(|object| object.name == *name)
    }

    /// The moment the backup stands for: when the snapshot began to stream (before it, where the source was asked, the opening read).
    pub fn moment(&self) -> Timestamp {
        self.times.opening_read.unwrap_or(self.times.stream_started)
    }

    /// Checks what the types do not: numbers, lists, and what one field says of another. The answer names the field.
    pub fn check(&self) -> Result<(), String> {
        self.check_numbers()?;
        self.check_objects()?;
        self.check_lists()
    }

    fn check_numbers(&self) -> Result<(), String> {
        let Self { revision, epoch, .. } = self;
        if *revision < 1 {
            return Err(format!("revision {revision} is below 1, the revision of an empty store"));
        }
        let compact = &self.compact_revision;
        // etcd writes -1 or 0 where nothing was compacted.
        if compact.scheduled < -1 || compact.finished < -1 || self.floor() > *revision {
            return Err(format!("compact_revision {}/{} does not fit revision {revision}", compact.scheduled, compact.finished));
        }
        // A rescue stands beside a history, whatever its own is.
        let is_lineages = *epoch == self.lineage.epoch() || self.source == Source::Rescue;
        if !(0..=*revision).contains(epoch) || !is_lineages {
            return Err(format!("epoch {epoch} does not fit revision {revision} and lineage {}", self.lineage));
        }
        let bare = self.last_row.as_ref().filter(|row| row.main < 1 || row.sub < 0 || row.main > *revision);
        if let Some(row) = bare {
            return Err(format!("last_row {}/{} does not fit revision {revision}", row.main, row.sub));
        }
        let snapshot = &self.snapshot;
        if snapshot.file_size.checked_sub(snapshot.db_size).is_none_or(|trailer| trailer != 0 && trailer != SnapshotFile::TRAILER) {
            return Err(format!("snapshot.file_size {} is not db_size {} with or without a trailer", snapshot.file_size, snapshot.db_size));
        }
        Ok(())
    }

    fn check_objects(&self) -> Result<(), String> {
        if self.data().is_none() {
            return Err(format!("objects does not name {}, the snapshot itself", self.layers));
        }
        let sorted = self.objects.windows(2).all(|pair| pair[0].name.to_string() < pair[1].name.to_string());
        if !sorted {
            return Err("objects are not sorted by name, or a name occurs twice".to_owned());
        }
        for object in &self.objects {
            let role = Role::of(&object.name).ok_or_else(|| format!("objects names {}, which is not part of the set", object.name))?;
            let other_data = role == Role::Snapshot && object.name != SnapshotObject::Data(self.layers);
            if role != object.role || other_data {
                return Err(format!("objects names {} with a role it does not have", object.name));
            }
        }
        let opened_by_nobody = self.sealing.recipients.is_empty() && !self.sealing.passphrase;
        if self.layers.age == opened_by_nobody || (self.sealing.passphrase && !self.sealing.recipients.is_empty()) {
            return Err("sealing does not fit the layers".to_owned());
        }
        Ok(())
    }

    fn check_lists(&self) -> Result<(), String> {
        let state = &self.cluster_state;
        let lists = [
            ("objects", self.objects.len()),
            ("sealing.recipients", self.sealing.recipients.len()),
            ("hashkv.answers", self.hashkv.answers.len()),
            ("cluster_state.members", state.members.len()),
            ("cluster_state.alarms", state.alarms.len()),
            ("tags", self.tags.len()),
            ("parents", self.parents.len()),
            ("warnings", self.warnings.len()),
            ("secrets", self.secrets.len()),
        ];
        for (name, length) in lists {
            if length > limits::MANIFEST_LIST {
                return Err(format!("{name} has {length} entries, {} are allowed", limits::MANIFEST_LIST));
            }
        }
        let versions =
            [&self.versions.etcd, &self.versions.cluster, &self.versions.storage, &self.versions.talos, &self.versions.kubernetes];
        let alarms = state.alarms.iter().map(|alarm| &alarm.alarm);
        let names = self.member.iter().map(|member| &member.name).chain(state.members.iter().map(|member| &member.name));
        let mut texts = versions
            .into_iter()
            .flatten()
            .chain(&self.warnings)
            .chain(alarms)
            .chain(names)
            .chain(self.secrets.keys())
            .chain([&self.tool.version]);
        // Names and versions come from members: text that would drive a terminal is not shown to anybody.
        match texts.find(|text| text.len() > limits::TEXT_BYTES || text.chars().any(char::is_control)) {
            Some(_) => Err("a text is too long or holds control characters".to_owned()),
            None => Ok(()),
        }
    }
}

/// A copy of `text` that a manifest takes: control characters become spaces, and it is cut to [`limits::TEXT_BYTES`].
pub fn plain_text(text: &str) -> String {
    let mut plain = String::new();
    for character in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if plain.len() + character.len_utf8() > limits::TEXT_BYTES {
            break;
        }
        plain.push(character);
    }
    plain
}

/// The newest manifests seen when a backup was written: by their digests nobody can remove one of them unnoticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The earlier backup.
    pub id: BackupId,
    /// The digest of its stored manifest, all bytes.
    pub sha256: Sha256,
}

#[cfg(test)]
pub(crate) mod tests;
