//! The whole of a restore, from choosing the backup to the report.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use etcd_store::version::{Fit, Version, version_fit};
use jiff::Timestamp;
use vault::digest::{Sha256, Sha256Hasher};
use vault::manifest::{Manifest, Source};
use vault::mark::{Restore as RestoreMark, Statement};
use vault::repository::catalog::Backup;
use vault::repository::{Catalog, Repository};
use vault::sign::SigningKey;

use super::build::{self, Built, Place};
use super::bump::{self, Sighting};
use super::file_edit::{self, Edited};
use super::plan::RestorePlan;
use super::target::{self, Found as TargetFound, Site};
use super::{BumpChoice, Goal, Report, Request};
use crate::failure::{Code, Failure, Outcome};
use crate::fetch::{self, Object};
use crate::place::{self, PlaceOptions, Which};
use crate::progress::Progress;
use crate::seal_pipeline::on_thread;
use crate::select;
use crate::temporary::Hidden;

/// Room that a restore leaves beside the database: log, raft snapshot, a little growth.
const ROOM_BESIDE: u64 = 256 << 20;

/// Restores a backup.
pub async fn run(request: Request, progress: Arc<dyn Progress>) -> Outcome<Report> {
    let given = request.plan.as_deref().map(RestorePlan::read).transpose()?;
    let loaded = select::load(&request.place, request.cluster.as_ref()).await?;
    let which = match (&given, &request.which) {
        (Some(plan), _) => Which::Named(planned_backup(plan, &loaded.repository)?),
        (None, Some(which)) => which.clone(),
        (None, None) => Which::Named("latest".to_owned()),
    };
    let resolved = select::find(&loaded.catalog, &which, &request.place)?;
    let backup = resolved.backup;
    let mut warnings = select::usable(backup, &request.place)?;
    warnings.extend(select::reach_words(&resolved));
    let manifest = &backup.manifest;
    progress.say(&format!(
        "backup: {} of '{}', taken {}, revision {}",
        manifest.id,
        manifest.cluster,
        manifest.moment(),
        manifest.revision
    ));
    let plan = match given {
        Some(plan) => check_plan(plan, manifest)?,
        None => make_plan(&request, &loaded.repository, &loaded.catalog, manifest)?,
    };
    file_edit::check(&plan)?;
    if let Some(path) = &request.plan_out {
        plan.write(path)?;
        return Ok(report(&request, manifest, &plan, path.clone(), warnings));
    }
    let survey = preflight(&request, &plan, manifest, &mut warnings)?;
    if request.dry_run {
        return Ok(report(&request, manifest, &plan, made(&request.goal), warnings));
    }
    let identities = Arc::new(request.opening.read()?);
    let (object, note) = select::open(&loaded.repository, backup, &identities).await?;
    warnings.extend(note);
    let mut outcome = report(&request, manifest, &plan, made(&request.goal), warnings);
    match &request.goal {
        Goal::DataDir { data_dir, .. } => {
            let built = restore_directory(&request, &plan, manifest, object, data_dir, survey, &progress).await?;
            outcome.before.clone_from(&built.before);
            outcome.keys = built.inspection.user_keys();
            outcome.revision_after = built.edits.revision_after.0;
            outcome.changes = changes(&built, &plan);
        }
        Goal::File(path) => {
            let edited = restore_file(&request, &plan, manifest, object, path, &progress).await?;
            if let Some(edited) = edited {
                outcome.revision_after = edited.report.revision_after.0;
                outcome.changes = file_edit::words(&edited.report, edited.leases_added, &plan);
            }
        }
    }
    if request.scratch {
        return Ok(outcome);
    }
    let signing = request.signing_key.as_deref().map(place::signing_key).transpose()?;
    write_mark(&loaded, manifest, &plan, outcome.revision_after, signing.as_ref(), &mut outcome.warnings).await;
    Ok(outcome)
}

fn planned_backup(plan: &RestorePlan, repository: &Repository) -> Outcome<String> {
    if plan.repository.as_deref() != Some(repository.id().to_string().as_str()) {
        return Err(Failure::new(Code::WrongCluster, "the plan is for another repository")
            .cause(format!("it names repository {}, this one is {}", plan.repository.as_deref().unwrap_or("none"), repository.id()))
            .again());
    }
    plan.backup.clone().ok_or_else(|| Failure::usage("the plan names no backup").again())
}

fn check_plan(plan: RestorePlan, manifest: &Manifest) -> Outcome<RestorePlan> {
    if plan.database_sha256 == manifest.snapshot.db_sha256.to_string() && plan.cluster.as_deref() == Some(manifest.cluster.as_str()) {
        return Ok(plan);
    }
    Err(Failure::new(Code::WrongCluster, "the plan was made for another content of this backup").object(manifest.id).again())
}

fn make_plan(request: &Request, repository: &Repository, catalog: &Catalog, manifest: &Manifest) -> Outcome<RestorePlan> {
    let random = random_fraction()?;
    let target_revision = match (request.bump, &request.goal) {
        (BumpChoice::None, _) => None,
        (BumpChoice::By(by), _) => {
            let target = i64::try_from(by).ok().and_then(|by| manifest.revision.checked_add(by));
            Some(target.ok_or_else(|| Failure::usage(format!("--bump-revision {by} is beyond what a revision can be")).again())?)
        }
        (BumpChoice::Safe, _) => Some(safe_target(catalog, manifest, random).0),
    };
    let (members, token) = match &request.goal {
        Goal::DataDir { members, token, .. } => {
            let fresh = format!("lifeboat-{}-{:06x}", manifest.id.suffix(), (random_fraction()? * f64::from(0x0100_0000)) as u32);
            (members.clone(), token.clone().unwrap_or(fresh))
        }
        Goal::File(_) => (Vec::new(), String::new()),
    };
    Ok(RestorePlan {
        repository: Some(repository.id().to_string()),
        cluster: Some(manifest.cluster.to_string()),
        backup: Some(manifest.id.to_string()),
        database_sha256: manifest.snapshot.db_sha256.to_string(),
        target_revision,
        token,
        members,
        clear_alarms: true,
        drop_versions: drop_versions(request, manifest)?,
        unknown_lease_ttl: request.unknown_lease_ttl,
        for_talos: request.for_talos,
    })
}

fn safe_target(catalog: &Catalog, manifest: &Manifest, random: f64) -> etcd_store::id::Revision {
    let seconds = |at: Timestamp| at.as_millisecond() as f64 / 1000.0;
    let seen = |manifest: &Manifest| Sighting { revision: etcd_store::id::Revision(manifest.revision), at: seconds(manifest.moment()) };
    let mut sightings: Vec<Sighting> = catalog.backups.iter().map(|backup| seen(&backup.manifest)).collect();
    // Restores hand out revisions too, whether or not a backup was taken since.
    for entry in &catalog.marks {
        if let Statement::Restore(_, mark) = &entry.mark.statement {
            sightings.push(Sighting { revision: etcd_store::id::Revision(mark.target_revision), at: seconds(mark.at) });
        }
    }
    // A rescue may be of another history, whose revisions tell no rate of this one.
    let of_it = |backup: &&Backup| backup.manifest.lineage == manifest.lineage && backup.manifest.source != Source::Rescue;
    let mut same: Vec<Sighting> = catalog.backups.iter().filter(of_it).map(|backup| seen(&backup.manifest)).collect();
    same.sort_by(|a, b| a.at.total_cmp(&b.at));
    let newest_two = if let [.., older, newer] = same[..] { Some((older, newer)) } else { None };
    bump::target(&sightings, newest_two, seconds(Timestamp::now()), random)
}

/// A random number in `0.0..1.0`.
pub(crate) fn random_fraction() -> Outcome<f64> {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0; 4];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| Failure::failed("the system gives no random bytes"))?;
    Ok(f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0))
}

fn drop_versions(request: &Request, manifest: &Manifest) -> Outcome<bool> {
    let Some(text) = &request.target_version else { return Ok(false) };
    let target = parse_version(text)?;
    let data = manifest.versions.storage.as_deref().map(parse_version).transpose()?;
    match version_fit(data, target) {
        Fit::Ok => Ok(false),
        Fit::DropVersions => Ok(true),
        Fit::Refuse(misfit) => {
            Err(Failure::failed(format!("the backup cannot be restored for etcd {text}")).object(manifest.id).cause(misfit).again())
        }
    }
}

fn parse_version(text: &str) -> Outcome<Version> {
    let full = if text.matches('.').count() == 1 { format!("{text}.0") } else { text.to_owned() };
    full.parse().map_err(|error| Failure::usage(format!("'{text}' is not a version of etcd")).cause(error).again())
}

/// Everything that can be refused is refused before anything is written.
fn preflight(request: &Request, plan: &RestorePlan, manifest: &Manifest, warnings: &mut Vec<String>) -> Outcome<Option<TargetFound>> {
    if plan.target_revision.is_none() && !request.scratch {
        warnings.push("revisions were left as they were (--no-bump): a client that saw later ones, and every Kubernetes controller did, goes on as if nothing had happened".to_owned());
    }
    if plan.target_revision.is_some_and(|target| target <= manifest.revision) {
        return Err(Failure::usage("the target revision is not beyond the backup's").again());
    }
    let parent = match &request.goal {
        Goal::File(path) => {
            if path.exists() {
                return Err(Failure::usage("the file exists already").object(path.display()).again());
            }
            room(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")), manifest)?;
            return Ok(None);
        }
        Goal::DataDir { data_dir, .. } => data_dir,
    };
    let Goal::DataDir { wal_dir, name, advertise, replace, .. } = &request.goal else { return Ok(None) };
    let cluster = plan.cluster_spec()?;
    let member =
        cluster.member(name).map_err(|error| Failure::usage("this member is not one of the restored cluster's").cause(error).again())?;
    if !advertise.is_empty() {
        let mut urls = Vec::new();
        for url in advertise {
            urls.push(url.parse().map_err(|error| Failure::usage(format!("'{url}' is not a peer URL")).cause(error).again())?);
        }
        cluster
            .check_advertised(&member.name, &urls)
            .map_err(|error| Failure::usage("the member's peer URLs do not fit").cause(error).again())?;
    }
    let survey = target::survey(parent)?;
    if survey.found == TargetFound::Member && !replace {
        return Err(Failure::usage("there is data of etcd already")
            .object(parent.display())
            .cause("--replace moves it aside, and wants the cluster's name")
            .again_with(["--replace", "--confirm", manifest.cluster.as_str()]));
    }
    if wal_dir.is_some() && (*replace || survey.found == TargetFound::Member) {
        return Err(Failure::usage("--replace does not go with --wal-dir: two directories cannot be exchanged in one step")
            .cause("move the old directories aside by hand; both targets must be empty")
            .again());
    }
    for leftover in &survey.leftovers {
        let what = if target::is_site(leftover) {
            "was left by a restore that did not end: half-made, or, if it ended while it exchanged them, the old data. Look before you remove it"
        } else {
            "is what an earlier restore set aside"
        };
        warnings.push(format!("{} {what}", leftover.display()));
    }
    let mut existing = parent.as_path();
    while !existing.exists() {
        existing = existing.parent().unwrap_or(Path::new("/"));
    }
    room(existing, manifest)?;
    Ok(Some(survey.found))
}

/// Bytes that a restore needs on its target.
pub(crate) fn room_needed(manifest: &Manifest) -> u64 {
    manifest.snapshot.db_size + ROOM_BESIDE.min(manifest.snapshot.db_size / 4 + (80 << 20))
}

fn room(directory: &Path, manifest: &Manifest) -> Outcome<()> {
    let free = disk::free_space(directory)
        .map_err(|error| Failure::failed(format!("the room on the target cannot be told: {error}")).object(directory.display()).again())?;
    let needed = room_needed(manifest);
    if free >= needed {
        return Ok(());
    }
    Err(Failure::failed("the target has no room for the backup")
        .object(directory.display())
        .cause(format!("{needed} bytes are needed, {free} are free: make room, or name another place"))
        .again())
}

fn made(goal: &Goal) -> PathBuf {
    match goal {
        Goal::DataDir { data_dir, .. } => data_dir.clone(),
        Goal::File(path) => path.clone(),
    }
}

fn report(request: &Request, manifest: &Manifest, plan: &RestorePlan, made: PathBuf, warnings: Vec<String>) -> Report {
    let new_cluster = plan.cluster_spec().ok().map(|cluster| (cluster.id().to_string(), plan.token.clone()));
    Report {
        id: manifest.id.to_string(),
        cluster: manifest.cluster.to_string(),
        taken: manifest.moment(),
        revision: manifest.revision,
        revision_after: plan.target_revision.unwrap_or(manifest.revision),
        keys: manifest.counts.live_keys,
        versions: manifest.versions.clone(),
        hashkv: manifest.hashkv.computed,
        made,
        before: None,
        new_cluster: if matches!(request.goal, Goal::DataDir { .. }) { new_cluster } else { None },
        changes: Vec::new(),
        warnings,
        dry_run: request.dry_run,
        plan_out: request.plan_out.clone(),
    }
}

async fn restore_directory(
    request: &Request,
    plan: &RestorePlan,
    manifest: &Manifest,
    object: Object,
    data_dir: &Path,
    found: Option<TargetFound>,
    progress: &Arc<dyn Progress>,
) -> Outcome<Built> {
    let Goal::DataDir { wal_dir, name, owner, .. } = &request.goal else { return Err(Failure::failed("a data directory was expected")) };
    let cluster = plan.cluster_spec()?;
    let site = Site::create(data_dir, manifest.id.suffix())?;
    let written = write_database(object, manifest, &request.place, &site.database(), false, progress).await;
    if let Err(failure) = written {
        site.discard();
        return Err(failure);
    }
    let place = Place {
        name: name.clone(),
        data_dir: data_dir.to_owned(),
        wal_dir: wal_dir.clone(),
        replace: found == Some(TargetFound::Member),
        owner: *owner,
    };
    let plan = plan.clone();
    on_thread("build", move || build::build(site, &plan, &cluster, &place)).await
}

/// Makes a snapshot file. Without anything to change it is the original, byte for byte.
async fn restore_file(
    request: &Request,
    plan: &RestorePlan,
    manifest: &Manifest,
    object: Object,
    path: &Path,
    progress: &Arc<dyn Progress>,
) -> Outcome<Option<Edited>> {
    let hidden = Hidden::beside(path);
    let untouched = plan.target_revision.is_none();
    write_database(object, manifest, &request.place, hidden.path(), untouched, progress).await?;
    let (plan, path) = (plan.clone(), path.to_owned());
    on_thread("finish", move || {
        let edited = if untouched { None } else { Some(file_edit::edit(hidden.path(), &plan)?) };
        file_edit::publish(hidden.path(), &path)?;
        Ok(edited)
    })
    .await
}

/// Fetches the database into a new file and compares its digest with the manifest and with its own trailer.
async fn write_database(
    object: Object,
    manifest: &Manifest,
    place: &PlaceOptions,
    path: &Path,
    with_trailer: bool,
    progress: &Arc<dyn Progress>,
) -> Outcome<()> {
    let cannot = {
        let path = path.to_owned();
        move |error: std::io::Error| Failure::failed(format!("the database cannot be written: {error}")).object(path.display()).again()
    };
    let file = Arc::new(disk::File::create_new(path, 0o600).map_err(&cannot)?);
    let database = manifest.snapshot.db_size;
    let kept = if with_trailer { manifest.snapshot.file_size } else { database };
    file.allocate(kept).map_err(&cannot)?;
    let at: fetch::At = {
        let (file, cannot) = (Arc::clone(&file), cannot.clone());
        // The system lets one thread at a time write to a file, and the others spin meanwhile: better they sleep, for there is other work.
        let one_at_a_time = Mutex::new(());
        Arc::new(move |offset, bytes| {
            let length = (kept.saturating_sub(offset)).min(bytes.len() as u64);
            let bytes = &bytes[..usize::try_from(length).unwrap_or(0)];
            if bytes.is_empty() {
                return Ok(());
            }
            let _turn = one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
            file.write_all_at(bytes, offset).map_err(&cannot)?;
            // Begins writing to the disk now, so that the sync at the end has little left to do.
            file.sync_range(offset, length);
            Ok(())
        })
    };
    let digest = Arc::new(Mutex::new(Digest { hasher: Sha256Hasher::new(), left: database, done: 0, trailer: Vec::new() }));
    let in_order: fetch::InOrder = {
        let (digest, progress, total) = (Arc::clone(&digest), Arc::clone(progress), manifest.snapshot.file_size);
        Box::new(move |bytes| {
            let done = digest.lock().unwrap_or_else(PoisonError::into_inner).take(bytes);
            progress.bytes("restore", done, Some(total));
            Ok(())
        })
    };
    fetch::fetch(object, at, in_order).await?;
    progress.done();
    let digest = std::mem::replace(&mut *digest.lock().unwrap_or_else(PoisonError::into_inner), Digest::empty());
    digest.check(manifest, place)?;
    file.set_len(kept).map_err(&cannot)
}

/// Hashes the database as it comes, and keeps what follows it.
struct Digest {
    hasher: Sha256Hasher,
    left: u64,
    done: u64,
    trailer: Vec<u8>,
}

impl Digest {
    fn empty() -> Self {
        Self { hasher: Sha256Hasher::new(), left: 0, done: 0, trailer: Vec::new() }
    }

    fn take(&mut self, bytes: &[u8]) -> u64 {
        let now = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        let (database, rest) = bytes.split_at(now);
        self.hasher.update(database);
        self.left -= now as u64;
        if self.trailer.len() + rest.len() <= 64 {
            self.trailer.extend_from_slice(rest);
        }
        self.done += bytes.len() as u64;
        self.done
    }

    fn check(self, manifest: &Manifest, place: &PlaceOptions) -> Outcome<()> {
        let stated = manifest.snapshot.db_sha256;
        let computed: Sha256 = self.hasher.finish();
        let whole = self.done == manifest.snapshot.file_size && self.left == 0;
        let trailer_fits = self.trailer.is_empty() || self.trailer == computed.0;
        if whole && computed == stated && trailer_fits {
            return Ok(());
        }
        Err(Failure::new(Code::Unproven, "the backup does not give the database that its manifest describes")
            .object(manifest.id)
            .cause(format!("{} of {} bytes, SHA-256 {computed} where {stated} is stated", self.done, manifest.snapshot.file_size))
            .next(place.cluster_command(&["verify", manifest.id.suffix(), "--read"], &manifest.cluster)))
    }
}

fn changes(built: &Built, plan: &RestorePlan) -> Vec<String> {
    let mut words = file_edit::words(&built.edits, built.leases_added, plan);
    words.push(format!("{} member(s) of the lost cluster were replaced by {}", built.edits.members_replaced, plan.members.len()));
    words
}

/// Records the restore, so that the restored cluster is known when it is backed up. A store that does not take it costs a warning.
async fn write_mark(
    loaded: &select::Found,
    manifest: &Manifest,
    plan: &RestorePlan,
    target_revision: i64,
    signing: Option<&SigningKey>,
    warnings: &mut Vec<String>,
) {
    let data = RestoreMark {
        target_revision,
        bumped: plan.target_revision.is_some(),
        at: Timestamp::now(),
        token: (!plan.token.is_empty()).then(|| plan.token.clone()),
    };
    let statement = Statement::Restore(manifest.id, data);
    let written = loaded.repository.write_mark(&manifest.cluster, statement, loaded.catalog.newest_mark(), signing, Timestamp::now()).await;
    if let Err(error) = written {
        warnings.push(format!("the restore could not be recorded in the repository: {error}"));
    }
}
