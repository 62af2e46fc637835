//! Which backups are looked at, and which of the catalog's problems belong to none of them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use vault::backup_id::BackupId;
use vault::key::{Key, SnapshotObject};
use vault::repository::catalog::NotLatest;
use vault::repository::{Backup, Catalog, Problem, ProblemKind};
use vault::sign::Status;

use super::{Finding, Request};
use crate::failure::{Code, Failure, Outcome};
use crate::place::{PlaceOptions, Which};
use crate::select;

/// One thing to look at.
#[derive(Clone, Debug)]
pub(super) enum Target<'a> {
    /// A backup of the catalog.
    Backup(&'a Backup),
    /// A backup whose manifest is damaged, moved, or gone without a tombstone.
    Lost {
        /// Its id.
        id: BackupId,
        /// What is wrong.
        findings: Vec<Finding>,
    },
}

impl Target<'_> {
    fn id(&self) -> BackupId {
        match self {
            Self::Backup(backup) => backup.id(),
            Self::Lost { id, .. } => *id,
        }
    }
}

/// Problems that belong to no target.
#[derive(Clone, Debug, Default)]
pub(super) struct Rest {
    /// Those that make the run fail.
    pub(super) counting: Vec<Finding>,
    /// Those that are only told.
    pub(super) beside: Vec<Finding>,
}

/// What to look at.
#[derive(Clone, Debug)]
pub(super) struct Targets<'a> {
    /// Newest first.
    pub(super) targets: Vec<Target<'a>>,
    pub(super) rest: Rest,
    pub(super) warnings: Vec<String>,
}

/// Whether a problem with the object under `key` is one of this backup: an object of its set, or its lineage's.
pub(super) fn concerns(key: &str, backup: &Backup) -> bool {
    match key.parse() {
        Ok(Key::Snapshot(_, id, _)) => id == backup.id(),
        Ok(Key::Lineage(_, name)) => name == backup.manifest.lineage,
        _ => false,
    }
}

fn set_of(problem: &Problem) -> Option<(BackupId, SnapshotObject)> {
    match problem.key.parse() {
        Ok(Key::Snapshot(_, id, object)) => Some((id, object)),
        _ => None,
    }
}

/// Backups that cannot be listed any more because their manifest is damaged, moved or gone, with what is wrong.
fn all_lost(catalog: &Catalog) -> BTreeMap<BackupId, Vec<Finding>> {
    let mut lost: BTreeMap<BackupId, Vec<Finding>> = BTreeMap::new();
    for problem in &catalog.problems {
        if let Some((id, SnapshotObject::Manifest | SnapshotObject::ManifestSignature)) = set_of(problem)
            && catalog.backup(&id).is_none()
        {
            lost.entry(id).or_default().push(Finding::from(problem));
        }
    }
    lost
}

fn is_named(id: &BackupId, text: &str) -> bool {
    id.to_string().starts_with(text) || id.suffix() == text
}

/// Where `text` names a backup whose manifest cannot be read: the failure that says so.
#[must_use]
pub fn lost(catalog: &Catalog, text: &str, place: &PlaceOptions) -> Option<Failure> {
    let (id, findings) = all_lost(catalog).into_iter().find(|(id, _)| is_named(id, text))?;
    let first = findings.first()?;
    Some(
        Failure::new(Code::Unproven, format!("the manifest of backup {id} cannot be read"))
            .object(first.place())
            .cause(&first.what)
            .next(place.cluster_command(&["verify", id.suffix(), "--read"], &catalog.cluster)),
    )
}

/// Chooses.
pub(super) fn choose<'a>(catalog: &'a Catalog, request: &Request) -> Outcome<Targets<'a>> {
    let mut lost = all_lost(catalog);
    let mut warnings = Vec::new();
    let mut targets: Vec<Target<'a>> = Vec::new();
    if request.all {
        targets.extend(catalog.backups.iter().map(Target::Backup));
        targets.extend(std::mem::take(&mut lost).into_iter().map(|(id, findings)| Target::Lost { id, findings }));
        if targets.is_empty() && catalog.problems.is_empty() {
            return Err(latest(catalog, request).err().unwrap_or_else(|| Failure::failed("no backup was found")));
        }
    } else if request.which.is_empty() {
        targets = by_default(catalog, request, &mut lost, &mut warnings)?;
    } else {
        for text in &request.which {
            targets.push(named(catalog, request, text, &mut lost, &mut warnings)?);
        }
    }
    targets.sort_by_key(|target| std::cmp::Reverse(target.id()));
    targets.dedup_by_key(|target| target.id());
    let rest = rest(catalog, &targets, request.all);
    Ok(Targets { targets, rest, warnings })
}

fn latest<'a>(catalog: &'a Catalog, request: &Request) -> Outcome<&'a Backup> {
    select::find(catalog, &Which::Named("latest".to_owned()), &request.place).map(|resolved| resolved.backup)
}

fn named<'a>(
    catalog: &'a Catalog,
    request: &Request,
    text: &str,
    lost: &mut BTreeMap<BackupId, Vec<Finding>>,
    warnings: &mut Vec<String>,
) -> Outcome<Target<'a>> {
    match select::find(catalog, &Which::Named(text.to_owned()), &request.place) {
        Ok(resolved) => {
            warnings.extend(select::reach_words(&resolved));
            Ok(Target::Backup(resolved.backup))
        }
        Err(failure) => {
            let id = lost.keys().find(|id| is_named(id, text)).copied().ok_or(failure)?;
            Ok(Target::Lost { id, findings: lost.remove(&id).unwrap_or_default() })
        }
    }
}

/// `latest`, and every newer backup that would be it if it were whole: what is lost at the end must not go unnoticed because an older one is sound.
fn by_default<'a>(
    catalog: &'a Catalog,
    request: &Request,
    lost: &mut BTreeMap<BackupId, Vec<Finding>>,
    warnings: &mut Vec<String>,
) -> Outcome<Vec<Target<'a>>> {
    let chosen = match latest(catalog, request) {
        Ok(backup) => Some(backup),
        Err(failure) => {
            let newest = catalog.backups.last();
            if newest.is_none() && lost.is_empty() {
                return Err(failure);
            }
            if let Some(backup) = newest {
                let why = backup.not_latest().map_or_else(String::new, |why| format!(" ({why})"));
                warnings.push(format!("no backup can be 'latest', so the newest one, {}{why}, is checked", backup.id()));
            }
            newest
        }
    };
    let after = chosen.map(Backup::id);
    let is_newer = |id: BackupId| after.is_none_or(|after| id > after);
    let damaged: BTreeSet<BackupId> = catalog.problems.iter().filter_map(set_of).map(|(id, _)| id).collect();
    let mut targets: Vec<Target<'a>> = chosen.into_iter().map(Target::Backup).collect();
    let newer = catalog.backups.iter().filter(|backup| is_newer(backup.id()));
    let broken = newer.filter(|backup| damaged.contains(&backup.id()) || backup.not_latest() == Some(NotLatest::Failed));
    targets.extend(broken.map(Target::Backup));
    let gone: Vec<BackupId> = lost.keys().copied().filter(|id| is_newer(*id)).collect();
    for id in gone {
        targets.push(Target::Lost { id, findings: lost.remove(&id).unwrap_or_default() });
    }
    Ok(targets)
}

fn rest(catalog: &Catalog, targets: &[Target<'_>], all: bool) -> Rest {
    let belongs = |problem: &&Problem| {
        targets.iter().any(|target| match target {
            Target::Backup(backup) => concerns(&problem.key, backup),
            Target::Lost { id, .. } => set_of(problem).is_some_and(|(of, _)| of == *id),
        })
    };
    let mut rest = Rest::default();
    for problem in catalog.problems.iter().filter(|problem| !belongs(problem)) {
        // A stray file, or a mark of a signer that this reader does not know, harms nothing.
        let harmless = matches!(problem.kind, ProblemKind::UnknownKey | ProblemKind::Signature(Status::Untrusted(_)));
        if all && !harmless { &mut rest.counting } else { &mut rest.beside }.push(Finding::from(problem));
    }
    rest
}
