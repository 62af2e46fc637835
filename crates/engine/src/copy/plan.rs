//! What is to be copied, from what both sides hold. Pure.

use std::collections::{BTreeMap, BTreeSet};

use vault::backup_id::BackupId;
use vault::digest::Sha256;
use vault::key::{Key, SnapshotObject};
use vault::lineage::LineageName;
use vault::manifest::Rung;
use vault::mark::{Outcome as Ending, Statement};
use vault::name::{ClusterName, MarkId};
use vault::repository::{Backup, Catalog, MarkEntry, Problem, ProblemKind};
use vault::sign::Status;

use super::{Refusal, Trouble};

/// What one store holds of a cluster.
#[derive(Clone, Debug)]
pub struct Side {
    /// Everything it says.
    pub catalog: Catalog,
    /// Every key with its size.
    pub sizes: BTreeMap<String, u64>,
}

/// One object of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its key, the same in both stores.
    pub key: String,
    /// The size that the manifest states.
    pub size: u64,
    /// The digest that the manifest states.
    pub sha256: Sha256,
    /// Whether the target has an object of this size already: then that is read and compared, not written.
    pub there: bool,
}

/// What is done about one backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: the target has it, whole.
    There,
    /// Nothing, for a reason.
    Skip(String),
    /// Nothing, because something is wrong.
    Refuse(Refusal),
    /// Its objects, then its signature and manifest.
    Copy(Vec<Object>),
}

/// One backup, and what is done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The backup.
    pub id: BackupId,
    /// What is done.
    pub step: Step,
}

impl Planned {
    /// The bytes that go over.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match &self.step {
            Step::Copy(objects) => objects.iter().filter(|object| !object.there).map(|object| object.size).sum(),
            _ => 0,
        }
    }
}

/// What is done about one cluster, in this order: lineages, backups, marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Lineages that the target lacks.
    pub lineages: Vec<LineageName>,
    /// Backups, oldest first.
    pub backups: Vec<Planned>,
    /// Marks that the target lacks, oldest first, with the backup each is about.
    pub marks: Vec<(MarkId, Option<BackupId>)>,
    /// What else cannot be copied.
    pub refused: Vec<Refusal>,
    /// What is worth knowing.
    pub warnings: Vec<String>,
}

/// Works out what the target lacks. `selected`: these backups only.
#[must_use]
pub fn plan(source: &Side, target: &Side, selected: Option<&BTreeSet<BackupId>>, allow_unsigned: bool) -> Plan {
    let planner = Planner { source, target, allow_unsigned, tombstoned: tombstoned(target) };
    let (lineages, conflicts) = planner.lineages();
    let wanted = source.catalog.backups.iter().filter(|backup| selected.is_none_or(|ids| ids.contains(&backup.id())));
    let backups: Vec<Planned> =
        wanted.map(|backup| Planned { id: backup.id(), step: planner.backup(backup, &lineages, &conflicts) }).collect();
    let mut warnings = planner.unsigned(&backups);
    let marks = planner.marks(&backups, &mut warnings);
    let mut refused = if selected.is_none() { unreadable(&source.catalog.problems) } else { Vec::new() };
    refused.extend(conflicts.into_values());
    Plan { lineages: lineages.into_iter().collect(), backups, marks, refused, warnings }
}

/// Backups that a mark of the target which counts has given up. One of the source says nothing while the source still lists the backup: a tombstone is
/// written a day before anything goes, and may be a slip.
fn tombstoned(target: &Side) -> BTreeSet<BackupId> {
    let marks = target.catalog.marks.iter().filter(|entry| entry.counts);
    let ids = marks.filter_map(|entry| match &entry.mark.statement {
        Statement::Tombstone(id, _) => Some(*id),
        _ => None,
    });
    ids.collect()
}

/// Objects of the source that nobody can read.
fn unreadable(problems: &[Problem]) -> Vec<Refusal> {
    let is_lost = |problem: &&Problem| matches!(problem.kind, ProblemKind::Damaged(_) | ProblemKind::Unreadable(_) | ProblemKind::Moved(_));
    let refusal = |problem: &Problem| Refusal { object: problem.key.clone(), trouble: Trouble::Damaged, why: problem.kind.to_string() };
    problems.iter().filter(is_lost).map(refusal).collect()
}

struct Planner<'a> {
    source: &'a Side,
    target: &'a Side,
    allow_unsigned: bool,
    tombstoned: BTreeSet<BackupId>,
}

type Conflicts = BTreeMap<LineageName, Refusal>;

impl Planner<'_> {
    fn cluster(&self) -> &ClusterName {
        &self.source.catalog.cluster
    }

    fn in_target(&self, key: &str) -> Option<u64> {
        self.target.sizes.get(key).copied()
    }

    /// Lineages that the target lacks, and those under whose name it has something else.
    fn lineages(&self) -> (BTreeSet<LineageName>, Conflicts) {
        let (mut missing, mut conflicts) = (BTreeSet::new(), Conflicts::new());
        for (name, entry) in &self.source.catalog.lineages {
            let object = Key::Lineage(self.cluster().clone(), *name).to_string();
            if self.in_target(&object).is_none() {
                missing.insert(*name);
            } else if self.target.catalog.lineages.get(name).is_none_or(|there| there.lineage != entry.lineage) {
                let why = "the target holds another lineage under this name, or a damaged one; nothing is overwritten".to_owned();
                conflicts.insert(*name, Refusal { object, trouble: Trouble::Conflict, why });
            }
        }
        (missing, conflicts)
    }

    fn backup(&self, backup: &Backup, lineages: &BTreeSet<LineageName>, conflicts: &Conflicts) -> Step {
        let id = backup.id();
        let key = |object: SnapshotObject| Key::Snapshot(self.cluster().clone(), id, object).to_string();
        let manifest = key(SnapshotObject::Manifest);
        let refuse = |object: String, trouble, why: &str| Step::Refuse(Refusal { object, trouble, why: why.to_owned() });
        match self.target.catalog.backup(&id) {
            Some(there) if there.sha256 != backup.sha256 => {
                return refuse(manifest, Trouble::Conflict, "the target holds another manifest under this id");
            }
            Some(there) if !there.incomplete && (there.signature == backup.signature || backup.signature == Status::Unsigned) => {
                return Step::There;
            }
            // Whole objects are missing there: they are brought.
            Some(_) => {}
            None if self.in_target(&manifest).is_some() => {
                return refuse(manifest, Trouble::Conflict, "the target's own manifest is damaged; nothing is overwritten");
            }
            None if self.tombstoned.contains(&id) && backup.pins.is_empty() => {
                return Step::Skip("a tombstone says that it was given up".to_owned());
            }
            None => {}
        }
        if !backup.counts && !self.allow_unsigned {
            return refuse(manifest, Trouble::Untrusted, &format!("{}; --allow-unsigned copies it all the same", backup.signature));
        }
        if let Some(problem) = self.problem_of(backup) {
            return refuse(problem.key.clone(), Trouble::Damaged, &problem.kind.to_string());
        }
        let lineage = backup.manifest.lineage;
        let lineage_key = || Key::Lineage(self.cluster().clone(), lineage).to_string();
        if conflicts.contains_key(&lineage) {
            return refuse(lineage_key(), Trouble::Conflict, "the target holds another lineage under the name of this backup's");
        }
        if !lineages.contains(&lineage) && !self.target.catalog.lineages.contains_key(&lineage) {
            return refuse(lineage_key(), Trouble::Damaged, "its lineage is missing, or cannot be read");
        }
        let signature = key(SnapshotObject::ManifestSignature);
        if backup.signature == Status::Unsigned && self.in_target(&signature).is_some() {
            return refuse(signature, Trouble::Conflict, "the target holds a signature for it, and the source has none");
        }
        let mut objects = Vec::new();
        for stated in &backup.manifest.objects {
            let (key, size, sha256) = (key(stated.name.clone()), stated.size, stated.sha256);
            match self.in_target(&key) {
                Some(there) if there != size => {
                    let why = format!("the target holds {there} bytes under this key, the manifest says {size}; nothing is overwritten");
                    return refuse(key, Trouble::Conflict, &why);
                }
                there => objects.push(Object { key, size, sha256, there: there.is_some() }),
            }
        }
        Step::Copy(objects)
    }

    /// What the source's own listing says is wrong with a backup's objects.
    fn problem_of(&self, backup: &Backup) -> Option<&Problem> {
        let of_it = |problem: &&Problem| {
            let is_set = matches!(problem.key.parse(), Ok(Key::Snapshot(_, id, _)) if id == backup.id());
            is_set && matches!(problem.kind, ProblemKind::Missing | ProblemKind::Size { .. })
        };
        self.source.catalog.problems.iter().find(of_it)
    }

    fn unsigned(&self, backups: &[Planned]) -> Vec<String> {
        let copied = backups.iter().filter(|planned| matches!(planned.step, Step::Copy(_)));
        let untrusted = copied.filter_map(|planned| self.source.catalog.backup(&planned.id).filter(|backup| !backup.counts));
        untrusted
            .map(|backup| format!("backup {} is {}, and is copied because of --allow-unsigned", backup.id(), backup.signature))
            .collect()
    }

    /// Marks about nothing that is copied stay; so do tombstones of what the source still has: whoever prunes the target finds that out by itself.
    fn marks(&self, backups: &[Planned], warnings: &mut Vec<String>) -> Vec<(MarkId, Option<BackupId>)> {
        let in_target = |id: &BackupId| {
            let planned = backups.iter().any(|planned| planned.id == *id && matches!(planned.step, Step::Copy(_) | Step::There));
            planned || self.target.catalog.backup(id).is_some()
        };
        let is_copied = |id: &BackupId| backups.iter().any(|planned| planned.id == *id && matches!(planned.step, Step::Copy(_)));
        let is_wanted = |entry: &&MarkEntry| match &entry.mark.statement {
            Statement::Tombstone(id, _) => self.source.catalog.backup(id).is_none() && self.target.catalog.backup(id).is_none(),
            // What a check of the bytes there found says nothing of the bytes here, but where this copy brings those very bytes, hashed on the way.
            Statement::Verify(id, data) if data.rung < Rung::Deep => is_copied(id) && data.result != Ending::Failed,
            Statement::Verify(id, _) | Statement::Drill(id, _) => is_copied(id),
            statement => statement.backup().is_none_or(in_target),
        };
        let is_missing = |entry: &&MarkEntry| self.in_target(&Key::Mark(self.cluster().clone(), entry.mark.id).to_string()).is_none();
        let wanted = || self.source.catalog.marks.iter().filter(is_wanted).filter(is_missing);
        let left = wanted().filter(|entry| !entry.counts && !self.allow_unsigned).count();
        if left > 0 {
            warnings.push(format!("{left} marks were left: their signature does not count"));
        }
        let about = |entry: &MarkEntry| match &entry.mark.statement {
            Statement::Tombstone(..) => None,
            statement => statement.backup().copied(),
        };
        wanted().filter(|entry| entry.counts || self.allow_unsigned).map(|entry| (entry.mark.id, about(entry))).collect()
    }
}
