//! The last steps of a backup: extras, frame table, lineage, signature, manifest.

use std::collections::BTreeMap;
use std::sync::Arc;

use bbolt::Database;
use etcd_store::id::Revision;
use etcd_store::row::RowKey;
use jiff::Timestamp;
use vault::backup_id::BackupId;
use vault::digest::{Sha256, Sha256Hasher};
use vault::key::{Key, SnapshotObject};
use vault::layers::Layers;
use vault::lineage::decide::{Because, Belongs, Decision, Observation, RowLookup, decide};
use vault::lineage::{Fingerprint, LineageCluster};
use vault::manifest::{
    HashKvVerdict, LastRow, Manifest, Proven, Role, Rung, Sealing, Source as ManifestSource, StoredObject, Times, Tool, plain_text,
};
use vault::name::{ClusterName, ExtraName};
use vault::repository::{Catalog, Repository, RepositoryError};
use vault::seal::{Recipients, SealedObject};
use vault::store::{Store, Upload};

use super::attempt::{Examined, Taken};
use super::run::{Judged, Keys, Remark};
use super::stores::Stores;
use super::{Committed, Request, ResourceLine, parts};
use crate::cache::{self, Remembered};
use crate::extra::{self, Extra};
use crate::failure::{Code, Failure, Outcome};
use crate::feed::Feed;
use crate::judge::Verdict;
use crate::limits::EXTRAS_LOOK_WITHIN;
use crate::place::PlaceOptions;
use crate::progress::Progress;
use crate::seal_pipeline::{self, SealPlan, on_thread};
use crate::source::Source;
use crate::spool::Spool;
use crate::talos::machine_config;
use crate::{place, store_failure, stored};

/// Tries at a lineage that another writer began at the same moment.
const LINEAGE_TRIES: usize = 3;

/// What holds for a whole run.
pub(super) struct Context<'a> {
    pub(super) request: &'a Request,
    /// On every store at once where there are several.
    pub(super) repository: &'a Repository,
    pub(super) stores: &'a Stores,
    pub(super) source: &'a Source,
    pub(super) cluster: ClusterName,
    pub(super) catalog: Catalog,
    pub(super) keys: Keys,
    /// What a linearizable read said before the stream, and when.
    pub(super) opening: Option<(Revision, Timestamp)>,
}

impl Context<'_> {
    pub(super) fn layers(&self) -> Layers {
        Layers { zstd: true, age: self.keys.recipients.is_some() }
    }

    pub(super) fn key(&self, id: BackupId, object: SnapshotObject) -> String {
        Key::Snapshot(self.cluster.clone(), id, object).to_string()
    }

    fn store(&self) -> &Arc<dyn Store> {
        self.repository.store()
    }

    fn failure(&self, what: &str, error: &vault::repository::RepositoryError) -> Failure {
        place::failure(&self.request.place, what, error)
    }
}

/// Commits one snapshot that was taken and judged.
pub(super) async fn commit(
    context: &Context<'_>,
    id: BackupId,
    started: Timestamp,
    judged: Judged,
    remarks: &mut Vec<Remark>,
    progress: &Arc<dyn Progress>,
) -> Outcome<Committed> {
    let Judged { from, taken, testimonies, judgement } = judged;
    let Taken { answers, spool, summary, sealed, upload, examined, stream_started, stream_ended } = taken;
    let data = SnapshotObject::Data(context.layers());
    let proven = complete_everywhere(context, upload, &context.key(id, data.clone()), &sealed, progress.as_ref()).await?;
    let mut objects = vec![StoredObject { name: data, role: Role::Snapshot, size: sealed.size, sha256: sealed.sha256 }];
    objects.push(write_frames(context.store(), &context.key(id, SnapshotObject::Frames), &sealed.frames).await?);
    let (extras, secrets) = write_extras(context, id, remarks).await?;
    objects.extend(extras);
    objects.sort_by_key(|object| object.name.to_string());

    let decision = settle_lineage(context, &spool, &examined, remarks).await?;
    // Giving its pages back takes the system a while, and nobody needs it any more.
    drop(std::thread::Builder::new().name("spool".to_owned()).spawn(move || drop(spool)));
    warn_of_encryption(context, &examined, remarks).await;
    let asked = &context.source.asked[from];
    let manifest = Manifest {
        repository: *context.repository.id(),
        cluster: context.cluster.clone(),
        id,
        lineage: decision.name(),
        lineage_check: decision.check,
        last_row_check: decision.row,
        older: matches!(decision.belongs, Belongs::Older { .. }),
        unconfirmed: decision.unconfirmed().cloned(),
        source: if context.source.is_talos_only() { ManifestSource::Talos } else { ManifestSource::Direct },
        clean: None,
        cluster_id: context.source.cluster_id,
        member: parts::member(asked),
        versions: parts::versions(asked, &examined.inspection),
        revision: examined.inspection.revision.0,
        compact_revision: parts::compact_revision(&examined.inspection),
        raft: parts::raft(&examined.inspection),
        epoch: decision.name().epoch(),
        last_row: parts::last_row(&examined.inspection),
        fingerprint: fingerprint(&examined),
        counts: parts::counts(&examined.inspection),
        snapshot: parts::snapshot_file(&summary, &examined.inspection),
        layers: context.layers(),
        sealing: sealing(context),
        objects,
        hashkv: parts::hash_kv(judgement.verdict, &examined, &testimonies),
        proven,
        cluster_state: parts::cluster_state(context.source),
        times: Times {
            started,
            opening_read: context.opening.map(|(_, at)| at),
            stream_started,
            stream_ended,
            committed: Timestamp::now(),
        },
        encryption_at_rest: Some(examined.resources.encrypted > 0),
        secrets,
        tool: Tool { version: env!("CARGO_PKG_VERSION").to_owned() },
        tags: context.request.tags.clone(),
        parents: context.catalog.parents(),
        signer: context.keys.signing.as_ref().map(|key| key.public().id()),
        warnings: remarks.iter().map(|remark| plain_text(&remark.text)).collect(),
    };
    let wrong = |error| not_committed(&context.request.place, &context.cluster, &error);
    // Before the commit: whoever is killed right behind it would leave the good one to age out. A pin too many is harmless.
    super::shrink::pin_predecessor(context, &manifest, remarks).await;
    context.stores.enough()?;
    context.repository.commit(&manifest, context.keys.signing.as_ref(), Timestamp::now()).await.map_err(wrong)?;
    let resources = remember(context, &manifest, &examined, progress);
    let proof = match judgement.verdict {
        Verdict::NotOffered => {
            vec!["Talos passes no HashKV on; the digest of the stream, the structure and the counts are proven".to_owned()]
        }
        _ => parts::proof_words(&testimonies),
    };
    Ok(Committed { stored_size: sealed.size, hashkv_took: answers.took, proof, resources, manifest })
}

/// Completes the upload on every store; reads it back from each where that was asked for.
async fn complete_everywhere(
    context: &Context<'_>,
    upload: Box<dyn Upload>,
    key: &str,
    sealed: &SealedObject,
    progress: &dyn Progress,
) -> Outcome<Proven> {
    let read_back = context.request.read_back;
    if context.stores.is_single() || !read_back {
        return complete(context.store(), upload, sealed, read_back, progress).await;
    }
    complete(context.store(), upload, sealed, false, progress).await?;
    context.stores.read_back(key, sealed, progress).await?;
    Ok(Proven { rung: Rung::Read, at: Some(Timestamp::now()) })
}

/// Completes the upload, and looks at what the store has now.
pub(super) async fn complete(
    store: &Arc<dyn Store>,
    upload: Box<dyn Upload>,
    sealed: &SealedObject,
    read_back: bool,
    progress: &dyn Progress,
) -> Outcome<Proven> {
    let info = upload.complete().await.map_err(|error| store_failure::failure("the snapshot cannot be stored", &error))?;
    if info.size != sealed.size {
        return Err(Failure::new(Code::Failed, "the store holds another number of bytes than was written")
            .object(&info.key)
            .cause(format!("{} bytes are there, {} were written", info.size, sealed.size))
            .again());
    }
    if !read_back {
        return Ok(Proven { rung: Rung::Stored, at: Some(Timestamp::now()) });
    }
    progress.say("reading the stored snapshot back");
    let hashed = stored::hash(store, &info.key, sealed.size).await?;
    if hashed.whole != sealed.sha256 {
        return Err(Failure::new(Code::Unproven, "the store gives back other bytes than were written").object(&info.key).again());
    }
    Ok(Proven { rung: Rung::Read, at: Some(Timestamp::now()) })
}

pub(super) fn not_committed(place: &PlaceOptions, cluster: &ClusterName, error: &RepositoryError) -> Failure {
    match error {
        RepositoryError::Unsettled { key, detail } => {
            Failure::new(Code::StoreUnreachable, "the store took the backup's manifest or not: it does not say, and cannot be asked")
                .object(key)
                .cause(format!("{detail}; the backup may be there, and then it is whole: look once the store answers again"))
                .next(["lifeboat", "list", "--repo", &place.url, "--cluster", &cluster.to_string()])
        }
        error => place::failure(place, "the backup cannot be committed", error),
    }
}

fn sealing(context: &Context<'_>) -> Sealing {
    let of = |recipients: &Option<Arc<Recipients>>| recipients.as_ref().map(|recipients| recipients.fingerprints()).unwrap_or_default();
    Sealing {
        recipients: of(&context.keys.recipients),
        passphrase: context.keys.recipients.as_ref().is_some_and(|recipients| recipients.is_passphrase()),
        extra_recipients: if context.request.extras.is_empty() { Vec::new() } else { of(&context.keys.extra_recipients) },
    }
}

pub(super) fn fingerprint(examined: &Examined) -> Option<Fingerprint> {
    examined.fingerprint.as_ref().and_then(|uid| uid.parse().ok())
}

pub(super) async fn write_frames(store: &Arc<dyn Store>, key: &str, table: &vault::frames::FrameTable) -> Outcome<StoredObject> {
    let bytes = table.encode().map_err(|error| Failure::failed(format!("the frame table cannot be written: {error}")))?;
    let object = StoredObject { name: SnapshotObject::Frames, role: Role::Frames, size: bytes.len() as u64, sha256: Sha256::of(&bytes) };
    store.create(key, bytes.into()).await.map_err(|error| store_failure::failure("the frame table cannot be stored", &error))?;
    Ok(object)
}

type Secrets = BTreeMap<String, Sha256>;

/// Seals and stores the extras. One that cannot be read costs a warning, not the backup. With fingerprints of the cluster's secrets, where machine
/// configs are among them.
async fn write_extras(context: &Context<'_>, id: BackupId, remarks: &mut Vec<Remark>) -> Outcome<(Vec<StoredObject>, Secrets)> {
    let (mut objects, mut secrets) = (Vec::new(), BTreeMap::new());
    for (name, extra) in extra::name_all(&context.request.extras)? {
        let packer: Packer = match &extra {
            Extra::Path(path) => {
                let path = path.clone();
                Box::new(move |feed: &Feed| extra::pack(&path, feed))
            }
            Extra::MachineConfig => match machine_configs(context, remarks).await {
                Ok(gathered) => {
                    secrets = gathered.secrets;
                    Box::new(move |feed: &Feed| machine_config::pack(&gathered.configs, feed))
                }
                Err(failure) => {
                    let cause = failure.cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
                    remarks.push(Remark::serious(format!("the extra {extra} was not kept: {}{cause}", failure.what)));
                    continue;
                }
            },
        };
        objects.extend(write_extra(context, id, (name, &extra), packer, remarks).await?);
    }
    Ok((objects, secrets))
}

type Packer = Box<dyn FnOnce(&Feed) -> Outcome<()> + Send>;

/// Seals and stores one; none where it could not be read.
async fn write_extra(
    context: &Context<'_>,
    id: BackupId,
    (name, extra): (ExtraName, &Extra),
    pack: Packer,
    remarks: &mut Vec<Remark>,
) -> Outcome<Option<StoredObject>> {
    let object = SnapshotObject::Extra(name);
    let key = context.key(id, object.clone());
    let feed = Arc::new(Feed::new(Arc::new(Spool::create(&context.request.spool)?)));
    let layers = Layers { zstd: false, age: true };
    let plan = SealPlan { layers, recipients: context.keys.extra_recipients.clone(), workers: 1, person: context.request.person };
    let mut upload = context.store().upload(&key).await.map_err(|error| store_failure::failure("an extra cannot be stored", &error))?;
    let packing = {
        let feed = Arc::clone(&feed);
        on_thread("extra", move || Ok(pack(&feed).inspect_err(|_| feed.abort())))
    };
    let (sealed, packed) = tokio::join!(seal_pipeline::seal(Arc::clone(&feed), plan, upload.as_mut()), packing);
    if let Err(failure) = packed? {
        upload.abort().await;
        remarks.push(Remark::serious(format!("the extra {extra} was not kept: {}", failure.what)));
        return Ok(None);
    }
    let sealed = sealed?;
    upload.complete().await.map_err(|error| store_failure::failure("an extra cannot be stored", &error))?;
    Ok(Some(StoredObject { name: object, role: Role::Extra, size: sealed.size, sha256: sealed.sha256 }))
}

async fn machine_configs(context: &Context<'_>, remarks: &mut Vec<Remark>) -> Outcome<machine_config::Gathered> {
    let talos = context
        .source
        .talos
        .as_ref()
        .ok_or_else(|| Failure::failed("machine configs are Talos's, and this cluster is reached by etcd's own API"))?;
    let gathered = machine_config::gather(talos, context.repository.id()).await?;
    remarks.extend(gathered.notes.iter().map(|note| Remark::note(note.clone())));
    if !gathered.missing.is_empty() {
        remarks.push(Remark::serious(format!("machine configs that could not be had: {}", gathered.missing.join("; "))));
    }
    Ok(gathered)
}

/// Finds the lineage the snapshot belongs to, and begins it where it is new.
async fn settle_lineage(context: &Context<'_>, spool: &Arc<Spool>, examined: &Examined, remarks: &mut Vec<Remark>) -> Outcome<Decision> {
    let observation = Observation {
        cluster: context.source.cluster_id.map_or(LineageCluster::Talos, LineageCluster::Id),
        epoch: examined.inspection.epoch.map_or(0, |revision| revision.0),
        revision: examined.inspection.revision.0,
        linearizable: context.opening.map(|(revision, _)| revision.0),
        fingerprint: fingerprint(examined),
    };
    let compact = examined.inspection.compact_revision.map_or(0, |revision| revision.0);
    let mut fresh: Option<Catalog> = None;
    for attempt in 1..=LINEAGE_TRIES {
        let catalog = fresh.as_ref().unwrap_or(&context.catalog);
        let histories = catalog.histories();
        let lookup = |row: &LastRow| look_up(spool, row, observation.revision, compact);
        let decision = decide(&histories, &observation, lookup)
            .map_err(|error| Failure::new(Code::WrongCluster, "the backup has no lineage").cause(error))?;
        if let Belongs::New { lineage, .. } = &decision.belongs {
            match context.repository.write_lineage(&context.cluster, lineage).await {
                Ok(()) => {}
                Err(vault::repository::RepositoryError::Conflict { .. }) if attempt < LINEAGE_TRIES => {
                    fresh = Some(place::catalog(context.repository, &context.request.place, &context.cluster).await?);
                    continue;
                }
                Err(error) => return Err(context.failure("the lineage cannot be written", &error)),
            }
        }
        remark_on_lineage(context, &decision, histories.known.is_empty(), remarks);
        return Ok(decision);
    }
    Err(Failure::new(Code::WrongCluster, "other writers keep beginning new lineages").again())
}

fn remark_on_lineage(context: &Context<'_>, decision: &Decision, first: bool, remarks: &mut Vec<Remark>) {
    if let Belongs::New { because, .. } = &decision.belongs
        && !first
    {
        remarks.push(Remark::note(format!("a new lineage begins, {}: {}", decision.name(), because_words(because))));
    }
    if let Belongs::Older { highest, .. } = &decision.belongs {
        remarks.push(Remark::serious(format!("the snapshot is older than what its lineage holds already (revision {highest})")));
    }
    if let Some(doubt) = decision.unconfirmed() {
        let cluster = &context.cluster;
        let mut accept = context.request.place.cluster_command(&["lineage", "accept", &decision.name().to_string()], cluster);
        accept.extend(["--confirm".to_owned(), cluster.to_string()]);
        let text = format!("UNCONFIRMED: {doubt}. This backup is kept but is never 'latest', until its lineage is accepted");
        remarks.push(Remark::serious(text).settled_by(accept));
    }
}

/// Looks an earlier backup's last row up in the new snapshot.
pub(super) fn look_up(spool: &Arc<Spool>, row: &LastRow, revision: i64, compact: i64) -> RowLookup {
    if row.main > revision {
        return RowLookup::Beyond;
    }
    let found = (|| {
        let database = Database::open(spool.as_ref()).ok()?;
        let bucket = database.bucket(b"key").ok()??;
        for tombstone in [false, true] {
            let key = RowKey { main: Revision(row.main), sub: row.sub, tombstone }.encode();
            if let Some(value) = bucket.get(&key).ok()? {
                let mut digest = Sha256Hasher::new();
                digest.update(&key);
                digest.update(&value);
                return Some(digest.finish());
            }
        }
        None
    })();
    match found {
        Some(digest) if digest == row.sha256 => RowLookup::Same,
        None if row.main <= compact => RowLookup::Compacted,
        _ => RowLookup::Different,
    }
}

async fn warn_of_encryption(context: &Context<'_>, examined: &Examined, remarks: &mut Vec<Remark>) {
    let encrypted = examined.resources.encrypted;
    if encrypted == 0 {
        return;
    }
    let extras = context.request.extras.clone();
    let looking = on_thread("extras", move || Ok(extras.iter().any(Extra::holds_encryption_key)));
    // A filesystem that does not answer must not hold the commit up.
    match tokio::time::timeout(EXTRAS_LOOK_WITHIN, looking).await {
        Ok(Ok(true)) => return,
        Ok(_) => {}
        Err(_) => {
            return remarks
                .push(Remark::note("whether an extra holds the key of the values encrypted at rest was not found out in time".to_owned()));
        }
    }
    remarks.push(Remark::note(format!(
        "{encrypted} values are encrypted at rest by the API server, and {}: without it nobody can read them after a restore",
        if context.source.talos.is_some() {
            "no machine config, which holds the key, is kept (extra: [machine-config])"
        } else {
            "no --extra holds its EncryptionConfiguration"
        }
    )));
}

/// Remembers the counts of this backup and compares them with the last one this host remembers.
fn remember(context: &Context<'_>, manifest: &Manifest, examined: &Examined, progress: &Arc<dyn Progress>) -> Vec<ResourceLine> {
    let counts = &examined.resources.by_resource;
    let last = context.request.cache.as_ref().and_then(|directory| cache::recall(directory, context.repository.id(), &context.cluster));
    let change = |resource: &str, count: u64| {
        let before = last.as_ref()?.resources.get(resource).copied().unwrap_or(0);
        i64::try_from(count).ok()?.checked_sub(i64::try_from(before).ok()?)
    };
    let mut lines: Vec<ResourceLine> = counts
        .iter()
        .map(|(resource, count)| ResourceLine { resource: resource.clone(), count: *count, change: change(resource, *count) })
        .collect();
    let gone = last.iter().flat_map(|last| &last.resources).filter(|(resource, _)| !counts.contains_key(*resource));
    lines.extend(gone.map(|(resource, before)| ResourceLine {
        resource: resource.clone(),
        count: 0,
        change: i64::try_from(*before).ok().map(|before| -before),
    }));
    lines.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.resource.cmp(&b.resource)));
    let judged_well = !matches!(manifest.hashkv.verdict, HashKvVerdict::Disputed | HashKvVerdict::Failed);
    if let Some(directory) = context.request.cache.as_ref().filter(|_| judged_well) {
        let counts = Remembered { id: manifest.id.to_string(), resources: counts.clone() };
        if let Err(error) = cache::remember(directory, context.repository.id(), &context.cluster, &counts) {
            progress.say(&format!("note: the counts of this backup cannot be remembered for a comparison: {error}"));
        }
    }
    lines
}

fn because_words(because: &Because) -> String {
    match because {
        Because::First => "there was none".to_owned(),
        Because::Unknown => "no lineage has this cluster id and epoch".to_owned(),
        Because::SetBack { read, highest } => {
            format!("the cluster answers with revision {read}, {highest} was backed up already: it was set back")
        }
        Because::Rewritten { revision } => {
            format!("revision {revision} holds something else than when it was backed up: history was rewritten")
        }
    }
}
