//! Carrying a plan out, one object after the other.

use std::collections::BTreeSet;
use std::fmt;

use vault::backup_id::BackupId;
use vault::key::{self, Key, SnapshotObject};
use vault::mark::{Statement, Tombstone};
use vault::name::MarkId;
use vault::repository::Catalog;
use vault::store::{Store, StoreError, Unfinished};

use super::Prepared;
use super::plan::{Plan, Stray, Target, plan};
use crate::failure::{Failure, Outcome};
use crate::label::Scribe;
use crate::lease::{Holder, Mode};
use crate::progress::Progress;
use crate::{place, store_failure};

/// What was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The backup, or the attempt.
    pub id: BackupId,
    /// Its stored bytes.
    pub bytes: u64,
}

/// What a store did not let go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The backup.
    pub id: BackupId,
    /// Its manifest stayed, so it is listed as before; else it is not listed any more, and data of it stayed.
    pub is_listed: bool,
    /// The store's words.
    pub why: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, why, .. } = self;
        match self.is_listed {
            true => write!(f, "the store does not let backup {id} go, and it stays listed: {why}"),
            false => write!(f, "backup {id} is not listed any more, and the store does not let its data go: {why}"),
        }
    }
}

/// What a run did.
#[derive(Debug)]
pub struct Report {
    /// The plan, as it was when the run began.
    pub plan: Plan,
    /// Backups that were told that they are due.
    pub tombstones: Vec<BackupId>,
    /// Backups that were removed.
    pub removed: Vec<Removed>,
    /// Data without a manifest that was removed.
    pub strays: Vec<Removed>,
    /// Files of writes that were cut off that were removed.
    pub unfinished: Vec<Unfinished>,
    /// Records that were removed.
    pub marks: Vec<MarkId>,
    /// Backups that were to be removed and stay, because of what was found right before.
    pub spared: Vec<BackupId>,
    /// What the store did not let go.
    pub refused: Vec<Refused>,
    /// What ended the run early.
    pub error: Option<Failure>,
}

impl Report {
    /// Of a plan in which there is nothing to do.
    #[must_use]
    pub fn of_nothing(plan: Plan) -> Self {
        Self {
            plan,
            tombstones: Vec::new(),
            removed: Vec::new(),
            strays: Vec::new(),
            unfinished: Vec::new(),
            marks: Vec::new(),
            spared: Vec::new(),
            refused: Vec::new(),
            error: None,
        }
    }

    /// Why the run does not end well; none when everything planned was done, or rightly left.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        if let Some(error) = &self.error {
            return Some(error.clone());
        }
        let first = self.refused.first()?;
        Some(
            Failure::failed(format!("the store does not let {} backup(s) go that are due", self.refused.len()))
                .object(first.id)
                .cause(format!("{}; prune with credentials that may delete, or wait until the store's own lock ends", first.why))
                .again(),
        )
    }
}

/// Carries a plan out. `holder` gets the lease, and has it still when this is dropped: release it then.
///
/// # Errors
/// Nothing was changed: the lease is wanted and not to be had. Whatever goes wrong later is in the report.
pub async fn execute(prepared: &Prepared, holder: &Holder, lease: Mode, progress: &dyn Progress) -> Outcome<Report> {
    let taken = holder.take(prepared.repository.store(), &prepared.plan.cluster, "prune", lease).await?;
    if let Some(word) = taken {
        progress.say(&format!("note: {word}"));
    }
    let report = tokio::select! {
        report = Run::new(prepared, progress).all() => report,
        never = holder.keep(progress) => match never {},
    };
    holder.release().await;
    Ok(report)
}

struct Run<'a> {
    prepared: &'a Prepared,
    progress: &'a dyn Progress,
    report: Report,
    /// Keys that could speak against a removal and were taken into account.
    known: BTreeSet<String>,
    /// What may still go.
    plan: Plan,
}

impl<'a> Run<'a> {
    fn new(prepared: &'a Prepared, progress: &'a dyn Progress) -> Self {
        let plan = prepared.plan.clone();
        let report = Report {
            plan: plan.clone(),
            tombstones: Vec::new(),
            removed: Vec::new(),
            strays: Vec::new(),
            unfinished: Vec::new(),
            marks: Vec::new(),
            spared: Vec::new(),
            refused: Vec::new(),
            error: None,
        };
        Self { prepared, progress, report, known: BTreeSet::new(), plan }
    }

    async fn all(mut self) -> Report {
        if let Err(failure) = self.steps().await {
            self.report.error = Some(failure);
        }
        self.report
    }

    async fn steps(&mut self) -> Outcome<()> {
        self.tell().await?;
        for target in self.prepared.plan.removals.clone() {
            self.look_again().await?;
            if !self.plan.removals.iter().any(|still| still.id == target.id) {
                self.report.spared.push(target.id);
                continue;
            }
            self.remove(&target).await?;
        }
        for stray in self.prepared.plan.strays.clone() {
            self.look_again().await?;
            if self.plan.strays.iter().any(|still| still.id == stray.id) {
                self.sweep(&stray).await?;
            }
        }
        self.discard().await?;
        self.forget().await
    }

    /// Removes the files of writes that were cut off. They are part of no backup, so nothing can be said for them.
    async fn discard(&mut self) -> Outcome<()> {
        for file in &self.prepared.plan.unfinished {
            match self.store().discard(file).await {
                Ok(()) => self.report.unfinished.push(file.clone()),
                Err(StoreError::Denied { .. }) => return Ok(()),
                Err(error) => return Err(wrong("what a write left that was cut off cannot be removed", &error)),
            }
        }
        Ok(())
    }

    fn store(&self) -> &dyn Store {
        self.prepared.repository.store().as_ref()
    }

    /// Writes the tombstones. Whatever was said meanwhile, they delete nothing.
    async fn tell(&mut self) -> Outcome<()> {
        let Prepared { repository, catalog, pruner, place, .. } = self.prepared;
        let mut scribe = Scribe::new(repository, &catalog.cluster, pruner.signing.as_ref(), catalog.newest_mark());
        for target in &self.prepared.plan.tombstones {
            let data = Tombstone { due: self.plan.now, reason: Some(target.expiry.to_string()), pruner: pruner.host().map(str::to_owned) };
            let written = scribe.write(Statement::Tombstone(target.id, data), self.plan.now).await;
            written.map_err(|error| place::failure(place, "what is due cannot be written down", &error))?;
            self.report.tombstones.push(target.id);
        }
        Ok(())
    }

    /// Looks whether anything was written that could speak against a removal; then the catalog is read and the plan made anew.
    async fn look_again(&mut self) -> Outcome<()> {
        let now = self.words().await?;
        // Empty at first: between the plan and its execution somebody was asked, and that may have taken a while.
        if !self.known.is_empty() && now.is_subset(&self.known) {
            return Ok(());
        }
        let catalog = self.read().await?;
        self.plan = plan(&catalog, &self.prepared.plan.policy, &self.prepared.pruner, self.prepared.plan.now)?;
        if let Some(hold) = &self.plan.hold {
            self.progress.say(&format!("note: nothing more is removed: {hold}"));
        }
        self.known = now;
        Ok(())
    }

    async fn read(&self) -> Outcome<Catalog> {
        place::catalog(&self.prepared.repository, &self.prepared.place, &self.prepared.plan.cluster).await
    }

    /// The keys of all marks, lineages and manifests.
    async fn words(&self) -> Outcome<BTreeSet<String>> {
        let cluster = &self.prepared.plan.cluster;
        let mut words = BTreeSet::new();
        for prefix in [key::snapshots_prefix(cluster), key::lineages_prefix(cluster), key::marks_prefix(cluster)] {
            let listed = self.store().list(&prefix).await.map_err(|error| wrong("the repository cannot be listed", &error))?;
            let is_word =
                |key: &String| matches!(key.parse(), Ok(Key::Mark(..) | Key::Lineage(..) | Key::Snapshot(_, _, SnapshotObject::Manifest)));
            words.extend(listed.into_iter().map(|object| object.key).filter(is_word));
        }
        Ok(words)
    }

    /// Removes a backup: the manifest, then its signature, then everything else under its id.
    async fn remove(&mut self, target: &Target) -> Outcome<()> {
        let manifest = self.manifest(target.id);
        match self.store().delete(&manifest).await {
            Ok(()) => {}
            Err(StoreError::Denied { detail, .. }) => {
                self.report.refused.push(Refused { id: target.id, is_listed: true, why: detail });
                return Ok(());
            }
            Err(error) => return Err(wrong("a backup that is due cannot be removed", &error)),
        }
        match self.sweep_objects(target.id).await? {
            None => {
                self.progress.say(&format!("removed backup {}: {}", target.id, target.expiry));
                self.report.removed.push(Removed { id: target.id, bytes: target.stored });
            }
            Some(why) => self.report.refused.push(Refused { id: target.id, is_listed: false, why }),
        }
        Ok(())
    }

    /// Removes data without a manifest. One that has got a manifest meanwhile is a backup.
    async fn sweep(&mut self, stray: &Stray) -> Outcome<()> {
        match self.store().head(&self.manifest(stray.id)).await {
            Err(StoreError::NotFound { .. }) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(wrong("data without a manifest cannot be looked at", &error)),
        }
        match self.sweep_objects(stray.id).await? {
            None => self.report.strays.push(Removed { id: stray.id, bytes: stray.bytes }),
            Some(why) => self.report.refused.push(Refused { id: stray.id, is_listed: false, why }),
        }
        Ok(())
    }

    /// Removes everything under an id but a manifest, the signature first. The store's words where it forbids that.
    async fn sweep_objects(&self, id: BackupId) -> Outcome<Option<String>> {
        let cluster = &self.prepared.plan.cluster;
        let listed = self.store().list(&key::snapshot_prefix(cluster, &id)).await;
        let listed = listed.map_err(|error| wrong("the data of a removed backup cannot be listed", &error))?;
        let mut objects: Vec<(bool, String)> = Vec::new();
        for object in listed {
            // What is not of the layout is not ours.
            let Ok(Key::Snapshot(_, _, name)) = object.key.parse() else { continue };
            if name != SnapshotObject::Manifest {
                objects.push((name != SnapshotObject::ManifestSignature, object.key));
            }
        }
        objects.sort();
        for (_, object) in objects {
            match self.store().delete(&object).await {
                Ok(()) => {}
                Err(StoreError::Denied { detail, .. }) => return Ok(Some(detail)),
                Err(error) => return Err(wrong("the data of a removed backup cannot be removed", &error)),
            }
        }
        Ok(None)
    }

    /// Removes records that change nothing any more; a store that forbids it keeps them, and that is no harm.
    async fn forget(&mut self) -> Outcome<()> {
        let cluster = &self.prepared.plan.cluster;
        if self.plan.hold.is_some() {
            return Ok(());
        }
        for mark in self.prepared.plan.marks.clone() {
            // In this order: a mark without its signature would be another one.
            for object in [Key::Mark(cluster.clone(), mark), Key::MarkSignature(cluster.clone(), mark)] {
                match self.store().delete(&object.to_string()).await {
                    Ok(()) => {}
                    Err(StoreError::Denied { .. }) => return Ok(()),
                    Err(error) => return Err(wrong("an old record cannot be removed", &error)),
                }
            }
            self.report.marks.push(mark);
        }
        Ok(())
    }

    fn manifest(&self, id: BackupId) -> String {
        Key::Snapshot(self.prepared.plan.cluster.clone(), id, SnapshotObject::Manifest).to_string()
    }
}

fn wrong(what: &str, error: &StoreError) -> Failure {
    store_failure::failure(what, error)
}
