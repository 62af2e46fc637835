//! Carrying a copy out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use vault::backup_id::BackupId;
use vault::digest::Sha256;
use vault::key::{self, Key, SnapshotObject};
use vault::limits::{MANIFEST_BYTES, SIGNATURE_BYTES, SMALL_JSON_BYTES};
use vault::name::{ClusterName, MarkId};
use vault::repository::{Backup, MarkEntry, Repository, RepositoryError};
use vault::sign::{Binding, Role, Status};
use vault::store::{MemoryStore, Store, StoreError};

use super::object::{Ends, Verdict, read_failure, unwritten, write_failure};
use super::plan::{Object, Plan, Planned, Side, Step, plan};
use super::{ClusterReport, Fate, Outcome as One, Refusal, Report, Request, Trouble};
use crate::exclusion::state_directory;
use crate::failure::{Failure, Outcome};
use crate::place::{self, PlaceOptions, Which};
use crate::progress::Progress;
use crate::stores::{There, look, other_repository};
use crate::{known_stores, select, store_failure};

/// Copies what one store lacks of another.
///
/// # Errors
/// [`crate::Code::WrongCluster`] for a target with another repository; those of a store that fails on the way. Backups that cannot be copied are no
/// error of the run: see [`Report::failure`].
pub async fn run(request: Request, progress: Arc<dyn Progress>) -> Outcome<Report> {
    let (from, to) = (&request.from.options, &request.to.options);
    if from.url.trim_end_matches('/') == to.url.trim_end_matches('/') && from.endpoint == to.endpoint {
        return Err(Failure::usage("a store is not copied to itself").object(&to.url).cause("--from and --to name the same place").again());
    }
    let source = place::open(from).await?;
    let clusters = clusters(&request, &source).await?;
    let (target, made) = open_target(&request, &source).await?;
    between(&request, &source, &target, made, &clusters, progress.as_ref()).await
}

/// Copies between two open repositories with the same id.
///
/// # Errors
/// As [`run`].
pub async fn between(
    request: &Request,
    source: &Repository,
    target: &Repository,
    made: bool,
    clusters: &[ClusterName],
    progress: &dyn Progress,
) -> Outcome<Report> {
    let mut reports = Vec::new();
    for cluster in clusters {
        let work = Work { request, source, target, cluster, progress };
        reports.push(work.cluster().await?);
    }
    progress.done();
    Ok(Report {
        from: request.from.clone(),
        to: request.to.clone(),
        repository: *source.id(),
        made,
        dry_run: request.dry_run,
        clusters: reports,
    })
}

async fn clusters(request: &Request, source: &Repository) -> Outcome<Vec<ClusterName>> {
    let options = &request.from.options;
    match &request.cluster {
        Some(named) => {
            // A misspelt one is not an empty one.
            place::known_catalog(source, options, named).await?;
            Ok(vec![named.clone()])
        }
        None if !request.which.is_empty() => Ok(vec![place::cluster(source, options, None).await?]),
        None => source.clusters().await.map_err(|error| place::failure(options, "the repository cannot be listed", &error)),
    }
}

/// The target, and whether it was made now. A plan makes nothing: an empty target is played by memory.
async fn open_target(request: &Request, source: &Repository) -> Outcome<(Repository, bool)> {
    let options = &request.to.options;
    let seed = async |store: Arc<dyn Store>| match source.seed(store).await {
        Ok(made) => Ok((made, true)),
        Err(RepositoryError::AlreadyThere { id, .. }) => Err(other_repository(&request.from, source.id(), &request.to, &id)),
        Err(error) => Err(place::failure(options, "the target cannot be made the repository", &error)),
    };
    if request.dry_run && is_missing_directory(options) {
        return seed(Arc::new(MemoryStore::new())).await;
    }
    let opened = match look(options, !request.dry_run).await? {
        There::Repository(there) if there.id() == source.id() => Ok((there, false)),
        There::Repository(there) => Err(other_repository(&request.from, source.id(), &request.to, there.id())),
        There::Empty(_) if request.dry_run => seed(Arc::new(MemoryStore::new())).await,
        There::Empty(store) => seed(store).await,
        There::Out(failure) => Err(failure),
    };
    if !request.dry_run && opened.is_ok() {
        known_stores::remember(state_directory().as_deref(), &options.url, source.id());
    }
    opened
}

fn is_missing_directory(options: &PlaceOptions) -> bool {
    options.url.strip_prefix("file://").is_some_and(|path| !std::path::Path::new(path).exists())
}

/// One cluster's copy.
struct Work<'a> {
    request: &'a Request,
    source: &'a Repository,
    target: &'a Repository,
    cluster: &'a ClusterName,
    progress: &'a dyn Progress,
}

impl Work<'_> {
    async fn cluster(&self) -> Outcome<ClusterReport> {
        let source = self.side(self.source, &self.request.from.options).await?;
        let target = self.side(self.target, &self.request.to.options).await?;
        let selected = self.selected(&source)?;
        let plan = plan(&source, &target, selected.as_ref(), self.request.allow_unsigned);
        let (lineages, marks) = (plan.lineages.len(), plan.marks.len());
        let (refused, warnings) = (plan.refused.clone(), plan.warnings.clone());
        let mut report = ClusterReport { cluster: self.cluster.clone(), backups: Vec::new(), lineages, marks, refused, warnings };
        if self.request.dry_run {
            report.backups = plan.backups.into_iter().map(planned).collect();
            return Ok(report);
        }
        self.lineages(&plan).await?;
        report.backups = self.backups(&plan, &source).await?;
        report.marks = self.marks(&plan, &source, &mut report).await?;
        Ok(report)
    }

    async fn side(&self, repository: &Repository, options: &PlaceOptions) -> Outcome<Side> {
        let catalog = place::catalog(repository, options, self.cluster).await?;
        let mut sizes = BTreeMap::new();
        for prefix in [key::snapshots_prefix(self.cluster), key::lineages_prefix(self.cluster), key::marks_prefix(self.cluster)] {
            let listed = repository.store().list(&prefix).await;
            let listed = listed.map_err(|error| store_failure::failure("the repository cannot be listed", &error))?;
            sizes.extend(listed.into_iter().map(|object| (object.key, object.size)));
        }
        Ok(Side { catalog, sizes })
    }

    fn selected(&self, source: &Side) -> Outcome<Option<BTreeSet<BackupId>>> {
        if self.request.which.is_empty() {
            return Ok(None);
        }
        let named = self.request.which.iter().map(|text| {
            let found = select::find(&source.catalog, &Which::Named(text.clone()), &self.request.from.options)?;
            Ok(found.backup.id())
        });
        named.collect::<Outcome<BTreeSet<BackupId>>>().map(Some)
    }

    /// A small object of the source.
    async fn get(&self, key: &str, limit: usize) -> Outcome<Result<Bytes, Refusal>> {
        match self.source.store().get(key, limit as u64).await {
            Ok((_, bytes)) => Ok(Ok(bytes)),
            Err(error @ (StoreError::NotFound { .. } | StoreError::Corrupt { .. })) => {
                Ok(Err(Refusal { object: key.to_owned(), trouble: Trouble::Damaged, why: error.to_string() }))
            }
            Err(error) => Err(read_failure(&error)),
        }
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Outcome<Verdict> {
        match self.target.store().create(key, bytes).await {
            Ok(_) => Ok(None),
            Err(error) => unwritten(key, &error),
        }
    }

    /// What cannot be brought is found missing by the backups that need it.
    async fn lineages(&self, plan: &Plan) -> Outcome<()> {
        for name in &plan.lineages {
            let key = Key::Lineage(self.cluster.clone(), *name).to_string();
            if let Ok(bytes) = self.get(&key, SMALL_JSON_BYTES).await? {
                self.put(&key, bytes).await?;
            }
        }
        Ok(())
    }

    async fn backups(&self, plan: &Plan, source: &Side) -> Outcome<Vec<One>> {
        let total = plan.backups.iter().map(Planned::bytes).sum();
        let done = AtomicU64::new(0);
        let what = format!("copy {}", self.cluster);
        let count = |bytes: u64| self.progress.bytes(&what, done.fetch_add(bytes, Ordering::Relaxed) + bytes, Some(total));
        let ends = Ends { source: self.source.store(), target: self.target.store(), count: &count };
        let mut outcomes = Vec::new();
        for step in &plan.backups {
            let mut outcome = planned(step.clone());
            if let (Step::Copy(objects), Some(backup)) = (&step.step, source.catalog.backup(&step.id)) {
                match self.backup(backup, objects, &ends).await? {
                    None => self.progress.say(&format!("copied {} of '{}'", step.id, self.cluster)),
                    Some(refusal) => {
                        self.progress.say(&format!("not copied: {}: {refusal}", step.id));
                        outcome.fate = Fate::Refused(refusal);
                    }
                }
            }
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    /// Objects first, then a look at each, the signature, and the manifest last.
    async fn backup(&self, backup: &Backup, objects: &[Object], ends: &Ends<'_>) -> Outcome<Verdict> {
        for object in objects {
            if let Some(refusal) = ends.bring(object).await? {
                return Ok(Some(refusal));
            }
        }
        if let Some(refusal) = self.look(backup, objects).await? {
            return Ok(Some(refusal));
        }
        let key = |object| Key::Snapshot(self.cluster.clone(), backup.id(), object).to_string();
        let (manifest_key, signature_key) = (key(SnapshotObject::Manifest), key(SnapshotObject::ManifestSignature));
        let manifest = match self.get(&manifest_key, MANIFEST_BYTES).await? {
            Ok(bytes) => bytes,
            Err(refusal) => return Ok(Some(refusal)),
        };
        let signature = match &backup.signature {
            Status::Unsigned => None,
            _ => match self.get(&signature_key, SIGNATURE_BYTES).await? {
                Ok(bytes) => Some(bytes),
                Err(refusal) => return Ok(Some(refusal)),
            },
        };
        let binding = Binding { repository: self.source.id(), cluster: self.cluster, id: &backup.id(), role: Role::Manifest };
        let worth = self.source.signers().judge(&manifest, signature.as_deref(), &binding);
        if Sha256::of(&manifest) != backup.sha256 || worth != backup.signature {
            let why = "the manifest or its signature is not what it was when the source was read".to_owned();
            return Ok(Some(Refusal { object: manifest_key, trouble: Trouble::Damaged, why }));
        }
        for (key, bytes) in signature.map(|bytes| (signature_key, bytes)).into_iter().chain([(manifest_key, manifest)]) {
            if let Some(refusal) = self.put(&key, bytes).await? {
                return Ok(Some(refusal));
            }
        }
        // Whoever cleans the target up might have taken the data of an old backup for litter while it had no manifest.
        self.look(backup, objects).await
    }

    /// Whether the target has everything that the manifest names.
    async fn look(&self, backup: &Backup, objects: &[Object]) -> Outcome<Verdict> {
        let lineage = Key::Lineage(self.cluster.clone(), backup.manifest.lineage).to_string();
        let wanted = objects.iter().map(|object| (object.key.as_str(), Some(object.size))).chain([(lineage.as_str(), None)]);
        for (key, size) in wanted {
            let why = match self.target.store().head(key).await {
                Ok(info) if size.is_none_or(|size| size == info.size) => continue,
                Ok(info) => format!("the target holds {} bytes of it", info.size),
                Err(StoreError::NotFound { .. }) => "it is gone from the target again; run the copy once more".to_owned(),
                Err(error) => return Err(write_failure(&error)),
            };
            return Ok(Some(Refusal { object: key.to_owned(), trouble: Trouble::Conflict, why }));
        }
        Ok(None)
    }

    /// Copies marks, but those about backups that could not be copied. Gives the number of them.
    async fn marks(&self, plan: &Plan, source: &Side, report: &mut ClusterReport) -> Outcome<usize> {
        let refused: BTreeSet<BackupId> = report.refusals().filter_map(|(id, _)| id).collect();
        let by_id: BTreeMap<MarkId, &MarkEntry> = source.catalog.marks.iter().map(|entry| (entry.mark.id, entry)).collect();
        let mut copied = 0;
        for (id, about) in &plan.marks {
            let (Some(entry), false) = (by_id.get(id), about.is_some_and(|about| refused.contains(&about))) else { continue };
            match self.mark(entry).await? {
                None => copied += 1,
                Some(refusal) => report.refused.push(refusal),
            }
        }
        Ok(copied)
    }

    async fn mark(&self, entry: &MarkEntry) -> Outcome<Verdict> {
        let id = entry.mark.id;
        let key = Key::Mark(self.cluster.clone(), id).to_string();
        let bytes = match self.get(&key, SMALL_JSON_BYTES).await? {
            Ok(bytes) if Sha256::of(&bytes) == entry.sha256 => bytes,
            Ok(_) => {
                let why = "it is not what it was when the source was read".to_owned();
                return Ok(Some(Refusal { object: key, trouble: Trouble::Damaged, why }));
            }
            Err(refusal) => return Ok(Some(refusal)),
        };
        if entry.signature != Status::Unsigned {
            let signature_key = Key::MarkSignature(self.cluster.clone(), id).to_string();
            match self.get(&signature_key, SIGNATURE_BYTES).await? {
                Ok(signature) => {
                    if let Some(refusal) = self.put(&signature_key, signature).await? {
                        return Ok(Some(refusal));
                    }
                }
                Err(refusal) => return Ok(Some(refusal)),
            }
        }
        self.put(&key, bytes).await
    }
}

/// What a plan says will become of a backup.
fn planned(planned: Planned) -> One {
    let bytes = planned.bytes();
    let fate = match planned.step {
        Step::There => Fate::There,
        Step::Skip(why) => Fate::Skipped(why),
        Step::Refuse(refusal) => Fate::Refused(refusal),
        Step::Copy(_) => Fate::Copied(bytes),
    };
    One { id: planned.id, fate }
}
