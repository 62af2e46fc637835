//! A member's data directory from a snapshot file, as `etcdutl snapshot restore` makes it.
//!
//! The result is etcdutl's, row for row, but for one value: `confState` names the new members. What etcdutl leaves behind is left here too (alarms,
//! leases, users, versions) and told; `lifeboat restore` mends it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bbolt::Database;
use etcd_store::cluster::{ClusterSpec, parse_initial_cluster};
use etcd_store::id::{ClusterId, MemberId, Revision};
use etcd_store::peer_url::PeerUrl;
use etcd_store::restore::{Bump, Edits, apply_edits, write_member_files};
use etcd_store::schema::Alarm;
use etcd_store::{DatabaseFile, Inspection, Options, wal};

use super::{Opened, chain, copy, digest, unsound};
use crate::failure::{Code, Failure, Outcome};
use crate::progress::Progress;
use crate::restore::target::{Found, Site, survey};
use crate::seal_pipeline::on_thread;

/// What Kubernetes keeps everything under.
const KUBERNETES: &[u8] = b"/registry/";
/// The class that such keys are counted in.
const KUBERNETES_CLASS: u16 = 1;
/// Room for what the edits append.
const EDITS: u64 = 1 << 20;

/// A restore as it was asked for, in etcdutl's terms.
#[derive(Clone, Debug)]
pub struct RestoreRequest {
    /// The snapshot file; it is only read.
    pub snapshot: PathBuf,
    /// The data directory to make: absent or empty.
    pub data_dir: PathBuf,
    /// The log's directory, where it is elsewhere: absent or empty.
    pub wal_dir: Option<PathBuf>,
    /// This member's name.
    pub name: String,
    /// All members, as `name=url,name=url`.
    pub initial_cluster: String,
    /// The token that goes into the ids.
    pub token: String,
    /// This member's peer URLs, comma separated.
    pub advertise: String,
    /// Take a file without trailer, or with one that does not agree.
    pub skip_hash_check: bool,
    /// Move the revision this far beyond the last row, and mark everything before as compacted.
    pub bump: Option<u64>,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The new cluster.
    pub cluster: ClusterId,
    /// This member's id in it.
    pub member: MemberId,
    /// The revision the snapshot is at.
    pub revision_before: Revision,
    /// The revision the restored member is at.
    pub revision: Revision,
    /// Live keys of Kubernetes.
    pub kubernetes_keys: u64,
    /// Alarms of the old cluster, which are still raised in the new one.
    pub alarms: Vec<Alarm>,
    /// Leases that keys refer to and that do not exist.
    pub missing_leases: u64,
    /// What earlier restores left in the data directory: old data set aside, building sites of runs that were cut short.
    pub leftovers: Vec<PathBuf>,
}

/// Restores. What is built is put in place in one step, after all of it was made durable; with a log elsewhere the log comes first.
///
/// Dropping the future before that step removes what was built.
///
/// # Errors
/// As etcdutl for arguments and targets that do not fit; [`crate::Code::Unproven`] for a damaged file. Nothing is left behind then.
pub async fn restore(request: RestoreRequest, progress: Arc<dyn Progress>) -> Outcome<Restored> {
    let cluster = cluster(&request)?;
    let leftovers = check_data_dir(&request.data_dir)?;
    let wal_dir = check_wal_dir(&request)?;
    let opened = Opened::open_whole(&request.snapshot, request.skip_hash_check)?;
    let building = Building::begin(&request.data_dir, wal_dir)?;
    let site = Arc::clone(&building.0);
    let restored = on_thread("restore", move || {
        let work = Work { request: &request, cluster: &cluster, progress: progress.as_ref() };
        work.run(&opened, &site)
    })
    .await?;
    Ok(Restored { leftovers, ..restored })
}

fn cluster(request: &RestoreRequest) -> Outcome<ClusterSpec> {
    let unfit = |error: &dyn std::fmt::Display| Failure::failed("the members of the restored cluster do not fit").cause(error).again();
    let advertised: Result<Vec<PeerUrl>, _> = request.advertise.split(',').map(str::parse).collect();
    let advertised = advertised.map_err(|error| unfit(&format!("--initial-advertise-peer-urls: {error}")))?;
    let members = parse_initial_cluster(&request.initial_cluster).map_err(|error| unfit(&format!("--initial-cluster: {error}")))?;
    let cluster = ClusterSpec::new(&request.token, members).map_err(|error| unfit(&format!("--initial-cluster: {error}")))?;
    cluster.check_advertised(&request.name, &advertised).map_err(|error| unfit(&error))?;
    Ok(cluster)
}

/// Refuses a data directory that holds anything; what restores cut short left there is no content.
fn check_data_dir(data_dir: &Path) -> Outcome<Vec<PathBuf>> {
    let survey = survey(data_dir).map_err(|failure| Failure { code: Code::Failed, ..failure })?;
    if survey.found == Found::Member {
        return Err(Failure::failed("the data directory is not empty: it holds a member of etcd")
            .object(data_dir.display())
            .cause("a snapshot is restored beside the old data, never over it: name another directory, or move the old data away")
            .next(["mv", &data_dir.join("member").to_string_lossy(), &data_dir.join("member.before-restore").to_string_lossy()]));
    }
    Ok(survey.leftovers)
}

/// The log's directory where it is not the usual one.
fn check_wal_dir(request: &RestoreRequest) -> Outcome<Option<PathBuf>> {
    let member = request.data_dir.join("member");
    let Some(wal_dir) = request.wal_dir.clone().filter(|dir| *dir != member.join("wal")) else { return Ok(None) };
    if wal_dir.starts_with(&member) {
        return Err(Failure::usage("the log's directory lies where the member itself is to be").object(wal_dir.display()).again());
    }
    let content = match disk::list_dir(&wal_dir) {
        Ok(entries) => entries.into_iter().find(|entry| entry.name != "lost+found"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            return Err(Failure::failed(format!("the directory for the log cannot be read: {error}")).object(wal_dir.display()).again());
        }
    };
    match content {
        None => Ok(Some(wal_dir)),
        Some(entry) => Err(Failure::failed(format!("the directory for the log is not empty: it holds '{}'", entry.name.to_string_lossy()))
            .object(wal_dir.display())
            .cause("etcd would start from the log that is there")
            .again()),
    }
}

/// What was begun, until it is put in place. Whoever takes it out decides what becomes of it.
struct Building(Arc<Mutex<Option<Begun>>>);

struct Begun {
    site: Site,
    wal_dir: Option<PathBuf>,
    made_wal_dir: bool,
}

impl Building {
    fn begin(data_dir: &Path, wal_dir: Option<PathBuf>) -> Outcome<Self> {
        let id = disk::temp_name();
        let site = Site::create(data_dir, id.trim_start_matches(disk::TEMP_PREFIX))?;
        let made_wal_dir = wal_dir.as_ref().is_some_and(|dir| !dir.exists());
        Ok(Self(Arc::new(Mutex::new(Some(Begun { site, wal_dir, made_wal_dir })))))
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        if let Some(begun) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            begun.discard();
        }
    }
}

impl Begun {
    /// Removes what was built. Best effort: the failure that led here is the one to be told.
    fn discard(self) {
        if let Some(dir) = &self.wal_dir {
            let _ = if self.made_wal_dir { disk::remove_dir_all(dir) } else { disk::remove_file(dir.join(wal::segment_name(0, 0))) };
        }
        self.site.discard();
    }
}

struct Work<'a> {
    request: &'a RestoreRequest,
    cluster: &'a ClusterSpec,
    progress: &'a dyn Progress,
}

impl Work<'_> {
    fn run(&self, opened: &Opened, begun: &Mutex<Option<Begun>>) -> Outcome<Restored> {
        let own = self.cluster.member(&self.request.name).map_err(|error| Failure::failed(error.to_string()).again())?.id;
        // Whoever is stopped takes everything away, so nothing may make a name meanwhile: the lock is held around all that does.
        let held = || begun.lock().unwrap_or_else(PoisonError::into_inner);
        let stopped = || Failure::failed("the restore was stopped");
        let out = self.create(&held().as_ref().ok_or_else(stopped)?.site.database(), opened.layout.database_len)?;
        let computed = copy::copy(opened, &self.request.snapshot, &out, "restore", self.progress)?;
        digest::compare(opened, &self.request.snapshot, &computed, self.request.skip_hash_check)?;
        let (inspection, revision) = self.edit(out)?;
        let mut begun = held();
        if let Err(failure) = self.complete(begun.as_ref().ok_or_else(stopped)?) {
            begun.take().into_iter().for_each(Begun::discard);
            return Err(failure);
        }
        begun.take().ok_or_else(stopped)?.site.put_in_place(false)?;
        Ok(Restored {
            cluster: self.cluster.id(),
            member: own,
            revision_before: inspection.revision,
            revision,
            kubernetes_keys: inspection.classes.get(&KUBERNETES_CLASS).copied().unwrap_or(0),
            alarms: inspection.alarms,
            missing_leases: inspection.missing_leases.total,
            leftovers: Vec::new(),
        })
    }

    /// The files beside the database; everything durable.
    fn complete(&self, begun: &Begun) -> Outcome<()> {
        let member = begun.site.member();
        write_member_files(&member, self.cluster, &self.request.name, begun.wal_dir.as_deref())
            .map_err(|error| Failure::failed("the member's files cannot be written").object(member.display()).cause(error).again())?;
        begun.site.sync()
    }

    /// Makes the database's file, with room for all of it.
    fn create(&self, place: &Path, length: u64) -> Outcome<disk::File> {
        let cannot = |error: io::Error| Failure::failed(format!("the database cannot be written: {error}")).object(place.display()).again();
        self.check_room(place, length)?;
        let out = disk::File::create_new(place, 0o600).map_err(cannot)?;
        out.allocate(length).map_err(cannot)?;
        Ok(out)
    }

    fn check_room(&self, place: &Path, length: u64) -> Outcome<()> {
        let directory = place.parent().unwrap_or(place);
        let needed = length.saturating_add(wal::SEGMENT_BYTES).saturating_add(EDITS);
        match disk::free_space(directory) {
            Ok(free) if free < needed => Err(Failure::failed(format!("there is no room for a member of {needed} bytes"))
                .object(self.request.data_dir.display())
                .cause(format!("{free} bytes are free on this filesystem"))
                .again()),
            // What cannot be found out beforehand shows when it is written.
            _ => Ok(()),
        }
    }

    /// Proves the copy and makes it the new member's. Returns what it held before and the revision it is at now.
    fn edit(&self, file: disk::File) -> Outcome<(Inspection, Revision)> {
        let path = &self.request.snapshot;
        let file = DatabaseFile::new(file).map_err(|error| unsound(path, &error))?;
        let (inspected, synced) = thread::scope(|scope| {
            // The commit has to wait for the disk; it waits less when all this was written out meanwhile.
            let synced = scope.spawn(|| file.file().sync_data());
            (inspect(&file), synced.join())
        });
        let inspection = inspected.map_err(|error| unsound(path, &error))?;
        // Linux tells of a lost page once: whoever drops this error never hears of it again.
        match synced {
            Ok(synced) => synced.map_err(|error| {
                Failure::failed(format!("the database cannot be made durable: {error}")).object(self.request.data_dir.display()).again()
            })?,
            Err(_) => return Err(Failure::failed("the thread that writes ended unexpectedly; this is a bug in Lifeboat")),
        }
        let bump = self.request.bump.map(|delta| Bump::By(delta).target(inspection.last_main, inspection.revision));
        let bump = bump.transpose().map_err(|error| {
            Failure::failed("the revision cannot be moved as asked for")
                .object(path.display())
                .cause(format!("--bump-revision: {error}"))
                .again()
        })?;
        let edits = Edits { cluster: Some(self.cluster.clone()), bump, mark_compacted: bump.is_some(), ..Edits::default() };
        let database = Database::open(file).map_err(|error| unsound(path, &chain(&error)))?;
        let (_, report) = apply_edits(database, &edits)
            .map_err(|error| Failure::failed("the database cannot be edited").object(path.display()).cause(chain(&error)).again())?;
        Ok((inspection, report.revision_after))
    }
}

fn inspect(file: &DatabaseFile) -> Result<Inspection, String> {
    let database = Database::open(file).map_err(|error| chain(&error))?;
    let classify = |key: &[u8], _: &[u8]| if key.starts_with(KUBERNETES) { KUBERNETES_CLASS } else { 0 };
    let options = Options { classify: Some(&classify), capture: &[] };
    etcd_store::inspect(&database, &options).map_err(|error| chain(&error))
}
