//! A rescue: what was left of a cluster, as a file, kept as a backup before something is done to it.
//!
//! It goes the way of every backup (spool, seal, upload, manifest last), and is listed, opened, verified and restored as any other. It stands beside
//! the history: it is never `latest`, is not looked at when lineages are decided, and begins none (docs/format.md, part 4).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bbolt::ReadAt;
use etcd_api::SnapshotSummary;
use jiff::Timestamp;
use ring::digest::{Context as Hash, SHA256};
use vault::backup_id::BackupId;
use vault::key::{Key, SnapshotObject};
use vault::layers::Layers;
use vault::lineage::decide::{Belongs, Observation, decide};
use vault::lineage::{LineageCluster, LineageName};
use vault::manifest::{
    ClusterState, LineageCheck, Manifest, Member, Role, RowCheck, Sealing, SnapshotFile, Source, StoredObject, Times, Tool, Versions,
};
use vault::name::{ClusterName, Tag};
use vault::repository::{Catalog, Repository};
use vault::seal::{Recipients, SecretString};
use vault::sign::SigningKey;

use super::attempt::{self, Examined, Origin, TRAILER, Taken};
use super::commit::{complete, fingerprint, look_up, not_committed, write_frames};
use super::prove::Answers;
use super::run::recipients;
use super::{Committed, ResourceLine, parts};
use crate::failure::{Code, Failure, Outcome};
use crate::feed::Feed;
use crate::judge::Verdict;
use crate::limits::FRAME;
use crate::opening::Person;
use crate::place::{self, PlaceOptions};
use crate::progress::Progress;
use crate::seal_pipeline::{self, SealPlan, on_thread};
use crate::snapshot_file::{Opened, compare_trailer};
use crate::spool::{Spool, SpoolOptions};
use crate::store_failure;

/// A rescue to be kept, as it was asked for.
#[derive(Clone, Debug)]
pub struct RescueRequest {
    /// The file: a snapshot, or a database copied from a data directory, which has no trailer. It is only read, and kept byte for byte.
    pub file: PathBuf,
    /// Whether etcd had been stopped in order before it was taken.
    pub clean: bool,
    /// The member it was taken from, where that is known.
    pub member: Option<Member>,
    /// The version of etcd there, where that is known.
    pub etcd: Option<String>,
    /// The version of Talos there; says that it is a cluster of Talos's.
    pub talos: Option<String>,
    /// The repository. It must know the cluster already.
    pub place: PlaceOptions,
    /// The cluster's name in the repository; the only one there, where it is not given.
    pub cluster: Option<ClusterName>,
    /// Words to keep with it.
    pub tags: Vec<Tag>,
    /// age recipients. Empty only with `plain` or a passphrase.
    pub recipients: Vec<String>,
    /// The passphrase that opens it, in the place of recipients.
    pub passphrase: Option<SecretString>,
    /// Who answers a plugin's questions.
    pub person: Person,
    /// Do not encrypt.
    pub plain: bool,
    /// The minisign secret key that signs the manifest.
    pub signing_key: Option<PathBuf>,
    /// Where it lies meanwhile, encrypted.
    pub spool: SpoolOptions,
    /// Read the stored object back in full before it is committed.
    pub read_back: bool,
}

/// Commits a local file into a repository as a backup with `source: rescue`. When this returns `Ok` the manifest is there; else, and when the future is
/// dropped before that, nothing is listed.
///
/// # Errors
/// [`Code::Usage`] without recipients; [`Code::NoRepository`]; [`Code::WrongCluster`] where the repository holds no history of the cluster, which a
/// rescue does not begin: keep the file then. [`Code::Unproven`] for a file that is damaged or is not etcd's; when the store fails.
pub async fn rescue(request: RescueRequest, progress: Arc<dyn Progress>) -> Outcome<Committed> {
    let signing = request.signing_key.as_deref().map(place::signing_key).transpose()?;
    let recipients = sealed_to(&request)?;
    let opened = Arc::new(Opened::open_whole(&request.file, true)?);
    let repository = place::open(&request.place).await?;
    let cluster = place::cluster(&repository, &request.place, request.cluster.as_ref()).await?;
    let catalog = place::catalog(&repository, &request.place, &cluster).await?;
    let rescuing = Rescuing { signing, recipients, repository, cluster, catalog, opened, request };
    rescuing.newest_lineage()?;
    rescuing.run(&progress).await
}

fn sealed_to(request: &RescueRequest) -> Outcome<Option<Arc<Recipients>>> {
    if request.plain {
        return Ok(None);
    }
    match recipients(&request.recipients, request.passphrase.as_ref())? {
        Some(recipients) => Ok(Some(recipients)),
        None => Err(Failure::usage("nobody is named who could open the rescued data").cause("name a recipient").again()),
    }
}

struct Rescuing {
    request: RescueRequest,
    signing: Option<SigningKey>,
    recipients: Option<Arc<Recipients>>,
    repository: Repository,
    cluster: ClusterName,
    catalog: Catalog,
    opened: Arc<Opened>,
}

/// Where a rescue stands.
struct Place {
    lineage: LineageName,
    row: RowCheck,
    older: bool,
}

impl Rescuing {
    async fn run(&self, progress: &Arc<dyn Progress>) -> Outcome<Committed> {
        let started = Timestamp::now();
        let id = BackupId::new(started).map_err(|error| Failure::failed(error.to_string()))?;
        let plan = SealPlan {
            layers: self.layers(),
            recipients: self.recipients.clone(),
            workers: seal_pipeline::workers(false),
            person: self.request.person,
        };
        let key = self.key(id, SnapshotObject::Data(self.layers()));
        let upload = self.repository.store().upload(&key).await;
        let upload = upload.map_err(|error| store_failure::failure("the rescued data cannot be stored", &error))?;
        let origin = Origin::File(Arc::clone(&self.opened), self.request.file.clone());
        let nobody = async |_: &Examined| Answers::default();
        let taken = attempt::take(origin, &self.request.spool, plan, upload, nobody, progress).await;
        self.commit(id, started, taken.map_err(attempt::AttemptError::into_failure)?, progress.as_ref()).await
    }

    async fn commit(&self, id: BackupId, started: Timestamp, taken: Taken, progress: &dyn Progress) -> Outcome<Committed> {
        let Taken { answers: _, spool, summary, sealed, upload, examined, stream_started, stream_ended } = taken;
        let store = self.repository.store();
        let proven = complete(store, upload, &sealed, self.request.read_back, progress).await?;
        let data = SnapshotObject::Data(self.layers());
        let snapshot = StoredObject { name: data, role: Role::Snapshot, size: sealed.size, sha256: sealed.sha256 };
        let mut objects = vec![snapshot, write_frames(store, &self.key(id, SnapshotObject::Frames), &sealed.frames).await?];
        objects.sort_by_key(|object| object.name.to_string());
        let stands = self.stand(&spool, &examined)?;
        let inspection = &examined.inspection;
        let manifest = Manifest {
            repository: *self.repository.id(),
            cluster: self.cluster.clone(),
            id,
            lineage: stands.lineage,
            lineage_check: LineageCheck::Uncompared,
            last_row_check: stands.row,
            older: stands.older,
            unconfirmed: None,
            source: Source::Rescue,
            clean: Some(self.request.clean),
            cluster_id: None,
            member: self.request.member.clone(),
            versions: self.versions(&examined),
            revision: inspection.revision.0,
            compact_revision: parts::compact_revision(inspection),
            raft: parts::raft(inspection),
            epoch: inspection.epoch.map_or(0, |revision| revision.0),
            last_row: parts::last_row(inspection),
            fingerprint: fingerprint(&examined),
            counts: parts::counts(inspection),
            snapshot: SnapshotFile { file_size: self.opened.file.size(), ..parts::snapshot_file(&summary, inspection) },
            layers: self.layers(),
            sealing: self.sealing(),
            objects,
            hashkv: parts::hash_kv(Verdict::NotOffered, &examined, &[]),
            proven,
            cluster_state: ClusterState { leader: None, members: Vec::new(), alarms: Vec::new() },
            times: Times { started, opening_read: None, stream_started, stream_ended, committed: Timestamp::now() },
            encryption_at_rest: Some(examined.resources.encrypted > 0),
            secrets: Default::default(),
            tool: Tool { version: env!("CARGO_PKG_VERSION").to_owned() },
            tags: self.request.tags.clone(),
            parents: self.catalog.parents(),
            signer: self.signing.as_ref().map(|key| key.public().id()),
            warnings: Vec::new(),
        };
        let committed = self.repository.commit(&manifest, self.signing.as_ref(), Timestamp::now()).await;
        committed.map_err(|error| not_committed(&self.request.place, &self.cluster, &error))?;
        Ok(Committed {
            stored_size: sealed.size,
            resources: resources(&examined),
            proof: vec!["there is no member to compare it with; its digest, the structure and the counts are proven".to_owned()],
            hashkv_took: Duration::ZERO,
            manifest,
        })
    }

    /// The lineage it would belong to, going by the file alone; where that would be a new one, the newest there is. So it changes nothing of what a
    /// reader takes for the cluster's history.
    fn stand(&self, spool: &Arc<Spool>, examined: &Examined) -> Outcome<Place> {
        let compact = examined.inspection.compact_revision.map_or(0, |revision| revision.0);
        let observation = Observation {
            cluster: LineageCluster::File,
            epoch: examined.inspection.epoch.map_or(0, |revision| revision.0),
            revision: examined.inspection.revision.0,
            linearizable: None,
            fingerprint: fingerprint(examined),
        };
        let decided = decide(&self.catalog.histories(), &observation, |row| look_up(spool, row, observation.revision, compact));
        match decided.map(|decision| (decision.belongs, decision.row)) {
            Ok((Belongs::Existing(lineage), row)) => Ok(Place { lineage, row, older: false }),
            Ok((Belongs::Older { name, .. }, row)) => Ok(Place { lineage: name, row, older: true }),
            Ok((Belongs::New { .. }, row)) => Ok(Place { lineage: self.newest_lineage()?, row, older: false }),
            Err(_) => Ok(Place { lineage: self.newest_lineage()?, row: RowCheck::NotComparable, older: false }),
        }
    }

    /// The newest accepted lineage, else the newest.
    fn newest_lineage(&self) -> Outcome<LineageName> {
        let lineages = || self.catalog.lineages.values();
        let accepted = lineages().filter(|entry| entry.standing.is_accepted()).map(|entry| entry.lineage.name).max();
        accepted.or_else(|| lineages().map(|entry| entry.lineage.name).max()).ok_or_else(|| {
            Failure::new(Code::WrongCluster, "the repository holds no history of this cluster that rescued data could stand beside")
                .object(&self.cluster)
                .cause("no backup of it was ever made there, or --cluster is another's; the rescued file itself is as it was: keep it")
                .next(self.request.place.command(&["list"]))
        })
    }

    fn versions(&self, examined: &Examined) -> Versions {
        let inspection = &examined.inspection;
        Versions {
            etcd: self.request.etcd.as_deref().map(vault::manifest::plain_text),
            cluster: inspection.versions.cluster_version.map(|version| version.to_string()),
            storage: inspection.storage_version.map(|version| version.to_string()),
            talos: self.request.talos.as_deref().map(vault::manifest::plain_text),
            kubernetes: None,
        }
    }

    fn layers(&self) -> Layers {
        Layers { zstd: true, age: self.recipients.is_some() }
    }

    fn key(&self, id: BackupId, object: SnapshotObject) -> String {
        Key::Snapshot(self.cluster.clone(), id, object).to_string()
    }

    fn sealing(&self) -> Sealing {
        Sealing {
            recipients: self.recipients.as_ref().map(|recipients| recipients.fingerprints()).unwrap_or_default(),
            passphrase: self.recipients.as_ref().is_some_and(|recipients| recipients.is_passphrase()),
            extra_recipients: Vec::new(),
        }
    }
}

fn resources(examined: &Examined) -> Vec<ResourceLine> {
    let counts = examined.resources.by_resource.iter();
    let mut lines: Vec<ResourceLine> =
        counts.map(|(resource, count)| ResourceLine { resource: resource.clone(), count: *count, change: None }).collect();
    lines.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.resource.cmp(&b.resource)));
    lines
}

/// Reads the whole file into the feed, and compares its trailer, if it has one.
pub(super) async fn read(
    opened: Arc<Opened>,
    path: PathBuf,
    feed: &Arc<Feed>,
    spool: &Spool,
    reserve: u64,
    progress: &Arc<dyn Progress>,
) -> Outcome<SnapshotSummary> {
    spool.reserve(opened.layout.database_len + TRAILER, reserve)?;
    let (feed, progress) = (Arc::clone(feed), Arc::clone(progress));
    on_thread("read", move || {
        let summary = read_frames(&opened, &path, &feed, progress.as_ref())?;
        compare_trailer(&opened, &path, &summary.sha256, false)?;
        feed.complete();
        Ok(summary)
    })
    .await
}

fn read_frames(opened: &Opened, path: &std::path::Path, feed: &Feed, progress: &dyn Progress) -> Outcome<SnapshotSummary> {
    let (size, database_size) = (opened.file.size(), opened.layout.database_len);
    let mut hash = Hash::new(&SHA256);
    let mut sha256 = None;
    let mut offset = 0;
    opened.file.file().advise_sequential();
    while offset < size {
        // A frame is far below usize::MAX.
        let length = (size - offset).min(FRAME as u64) as usize;
        let mut frame = feed.buffer();
        frame.resize(length, 0);
        opened
            .file
            .read_exact_at(&mut frame, offset)
            .map_err(|error| Failure::failed(format!("the rescued file cannot be read: {error}")).object(path.display()).again())?;
        let (database, trailer) = frame.split_at(database_size.saturating_sub(offset).min(length as u64) as usize);
        hash.update(database);
        offset += length as u64;
        if offset >= database_size && sha256.is_none() {
            sha256 = Some(hash.clone());
        }
        hash.update(trailer);
        feed.push(frame)?;
        progress.bytes("rescue", offset, Some(size));
    }
    let digest = |hash: Hash| {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hash.finish().as_ref());
        bytes
    };
    Ok(SnapshotSummary {
        database_size,
        sha256: digest(sha256.unwrap_or_else(|| hash.clone())),
        file_sha256: digest(hash),
        storage_version: None,
    })
}
