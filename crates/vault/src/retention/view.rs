//! What retention looks at, out of the catalog.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::backup_id::BackupId;
use crate::lineage::LineageName;
use crate::manifest::{HashKvVerdict, Rung, Source};
use crate::name::Tag;
use crate::repository::Catalog;
use crate::repository::catalog::{Backup, NotLatest};

/// One backup, as retention sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: BackupId,
    /// Its lineage.
    pub lineage: LineageName,
    /// Its revision.
    pub revision: i64,
    /// Whether its history and its fingerprint are accepted.
    pub confirmed: bool,
    /// Whether its signature counts.
    pub counts: bool,
    /// Whether it holds rescued data.
    pub is_rescue: bool,
    /// What the members said of it.
    pub hashkv: HashKvVerdict,
    /// A check of it failed, or objects of it are missing.
    pub failed: bool,
    /// The highest rung it passed.
    pub rung: Rung,
    /// Its stored bytes.
    pub stored: u64,
    /// Its tags.
    pub tags: BTreeSet<Tag>,
    /// Whether it is pinned.
    pub pinned: bool,
}

impl Entry {
    /// What a catalog says of a backup.
    #[must_use]
    pub fn of(backup: &Backup) -> Self {
        let manifest = &backup.manifest;
        Self {
            id: backup.id(),
            lineage: manifest.lineage,
            revision: manifest.revision,
            confirmed: backup.unconfirmed.is_none(),
            counts: backup.counts,
            is_rescue: manifest.source == Source::Rescue,
            hashkv: manifest.hashkv.verdict,
            failed: backup.proof.failed.is_some() || backup.incomplete,
            rung: backup.proof.rung,
            stored: manifest.objects.iter().map(|object| object.size).fold(0, u64::saturating_add),
            tags: backup.tags.clone(),
            pinned: !backup.pins.is_empty(),
        }
    }

    /// When its attempt began, by its id: the only time that retention goes by.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.id.start()
    }

    /// Why it takes no place of a rule; none when it is good. The same as what can be `latest`.
    #[must_use]
    pub fn not_good(&self) -> Option<NotLatest> {
        if !self.counts {
            Some(NotLatest::Untrusted)
        } else if !self.confirmed {
            Some(NotLatest::Unconfirmed)
        } else if self.is_rescue {
            Some(NotLatest::Rescue)
        } else if !self.hashkv.may_be_latest() {
            Some(NotLatest::HashKv)
        } else if self.failed {
            Some(NotLatest::Failed)
        } else {
            None
        }
    }
}

/// Everything of one cluster that retention goes by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Its backups, in any order.
    pub entries: Vec<Entry>,
    /// Histories that have backups which count and are unconfirmed, each with its parent, where it tells one.
    pub unconfirmed: Vec<(LineageName, Option<LineageName>)>,
}

impl View {
    /// What a catalog says.
    #[must_use]
    pub fn of(catalog: &Catalog) -> Self {
        let doubtful = catalog.backups.iter().filter(|backup| backup.counts && backup.unconfirmed.is_some());
        let names: BTreeSet<LineageName> = doubtful.map(|backup| backup.manifest.lineage).collect();
        let unconfirmed = names.into_iter().map(|name| {
            let entry = catalog.lineages.get(&name);
            let parent = match entry {
                // Another cluster's snapshots were put into an accepted history: that history is what must not go.
                Some(entry) if entry.standing.is_accepted() => Some(name),
                Some(entry) => entry.lineage.parent,
                None => None,
            };
            (name, parent)
        });
        Self { entries: catalog.backups.iter().map(Entry::of).collect(), unconfirmed: unconfirmed.collect() }
    }

    /// The unconfirmed history because of which nothing of `lineage` goes. One that does not tell its parent could have come out of any.
    #[must_use]
    pub fn held_by(&self, lineage: LineageName) -> Option<LineageName> {
        let holds = |(_, parent): &&(LineageName, Option<LineageName>)| parent.is_none_or(|parent| parent == lineage);
        self.unconfirmed.iter().find(holds).map(|(name, _)| *name)
    }
}
