//! A snapshot file made ready for another tool to restore, such as `talosctl bootstrap --recover-from`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use etcd_store::snapshot_file::TRAILER_LENGTH;

use super::digest::hex;
use super::{Facts, Opened, copy, digest, unsound};
use crate::failure::{Code, Failure, Outcome};
use crate::progress::Progress;
use crate::restore::file_edit::{self, Edited};
use crate::restore::plan::RestorePlan;
use crate::seal_pipeline::on_thread;
use crate::temporary::Hidden;

/// Room for what the edits append.
const EDITS: u64 = 16 << 20;

/// A file to be made, and how.
#[derive(Clone, Debug)]
pub struct PrepareRequest {
    /// The snapshot file; it is only read.
    pub snapshot: PathBuf,
    /// The file to make. There must be none of that name.
    pub out: PathBuf,
    /// Move revisions to exactly this one, which must be beyond the file's own, and mark everything before as compacted. None leaves them.
    pub target_revision: Option<i64>,
    /// Drop Talos's own keys ([`crate::restore::plan::TALOS_KEYS`]); only with a target revision.
    pub for_talos: bool,
    /// Take a file without trailer (a database copied from a data directory), or with one that does not agree.
    pub skip_hash_check: bool,
    /// Seconds for leases that keys refer to and the file does not hold, at least 1.
    pub unknown_lease_ttl: i64,
}

/// A file that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// What the snapshot file held, before the edits.
    pub facts: Facts,
    /// Size of the file that was made, in bytes, trailer included.
    pub size: u64,
    /// The revision of the file that was made; the same as before without a target.
    pub revision_after: i64,
    /// Live keys in the file that was made, without the row a bump leaves.
    pub live_keys: u64,
    /// What was changed, in words.
    pub changes: Vec<String>,
}

/// Copies the snapshot, proves the copy, edits it (revisions, alarms, missing leases, Talos's own keys) and ends it with a trailer that fits. Its
/// members stay: whoever restores it names new ones. The file is durable, with its name, when this returns `Ok`, and is not there otherwise.
///
/// Dropping the future leaves nothing behind, or the complete file.
///
/// # Errors
/// [`Code::Usage`] for a request that contradicts itself or the file, and where `out` exists; [`Code::Unproven`] for a damaged snapshot; when there
/// is no room, or reading or writing fails.
pub async fn prepare(request: PrepareRequest, progress: Arc<dyn Progress>) -> Outcome<Prepared> {
    let plan = plan(&request)?;
    if request.out.symlink_metadata().is_ok() {
        return Err(Failure::usage("the file to be made exists already").object(request.out.display()).again());
    }
    let opened = Opened::open_whole(&request.snapshot, request.skip_hash_check)?;
    let pending = Pending(Arc::new(Mutex::new(Some(Hidden::beside(&request.out)))));
    let hidden = Arc::clone(&pending.0);
    on_thread("prepare", move || Work { request, plan, opened, hidden, progress }.run()).await
}

/// The edits as a plan of a restore; there is no repository and there are no members.
fn plan(request: &PrepareRequest) -> Outcome<RestorePlan> {
    if request.unknown_lease_ttl < 1 {
        return Err(Failure::usage("a lease has at least 1 s to live").again());
    }
    let plan = RestorePlan {
        repository: None,
        cluster: None,
        backup: None,
        database_sha256: String::new(),
        target_revision: request.target_revision,
        token: String::new(),
        members: Vec::new(),
        clear_alarms: true,
        drop_versions: false,
        unknown_lease_ttl: request.unknown_lease_ttl,
        for_talos: request.for_talos,
    };
    file_edit::check(&plan)?;
    Ok(plan)
}

/// The file under its hidden name, until it is complete. Whoever takes it out decides what becomes of it.
struct Pending(Arc<Mutex<Option<Hidden>>>);

impl Drop for Pending {
    fn drop(&mut self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

struct Work {
    request: PrepareRequest,
    plan: RestorePlan,
    opened: Opened,
    hidden: Arc<Mutex<Option<Hidden>>>,
    progress: Arc<dyn Progress>,
}

impl Work {
    fn run(mut self) -> Outcome<Prepared> {
        let (path, out) = self.create()?;
        let snapshot = &self.request.snapshot;
        let computed = copy::copy(&self.opened, snapshot, &out, "copy", self.progress.as_ref())?;
        let trailer = digest::compare(&self.opened, snapshot, &computed, self.request.skip_hash_check)?;
        drop(out);
        self.plan.database_sha256 = hex(&computed);
        let Edited { report, leases_added, inspection, size } =
            file_edit::edit(&path, &self.plan).map_err(|failure| match failure.code {
                // The copy has a name that is gone when this is read.
                Code::Unproven => unsound(snapshot, &failure.cause.as_deref().unwrap_or(&failure.what)),
                _ => failure.object(snapshot.display()),
            })?;
        let facts = Facts::of(inspection, &self.opened, &computed, trailer);
        self.publish()?;
        Ok(Prepared {
            size,
            revision_after: report.revision_after.0,
            live_keys: facts.live_keys.saturating_sub(report.keys_dropped),
            changes: file_edit::words(&report, leases_added, &self.plan),
            facts,
        })
    }

    /// Makes the file, with room for all of it. The lock is held, so that whoever gives the work up either finds it or keeps it from being made.
    fn create(&self) -> Outcome<(PathBuf, disk::File)> {
        let out = &self.request.out;
        let held = self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        let path = held.as_ref().ok_or_else(stopped)?.path().to_owned();
        let directory = path.parent().unwrap_or(Path::new("."));
        let needed = self.opened.layout.database_len.saturating_add(TRAILER_LENGTH).saturating_add(EDITS);
        // What cannot be found out beforehand shows when it is written.
        if let Some(free) = disk::free_space(directory).ok().filter(|free| *free < needed) {
            return Err(Failure::failed(format!("there is no room for a snapshot file of {needed} bytes"))
                .object(out.display())
                .cause(format!("{free} bytes are free on this filesystem"))
                .again());
        }
        let cannot = |error: std::io::Error| Failure::failed(format!("the file cannot be made: {error}")).object(out.display()).again();
        let file = disk::File::create_new(&path, 0o600).map_err(cannot)?;
        file.allocate(self.opened.layout.database_len).map_err(cannot)?;
        Ok((path, file))
    }

    fn publish(&self) -> Outcome<()> {
        let mut held = self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        let hidden = held.take().ok_or_else(stopped)?;
        file_edit::publish(hidden.path(), &self.request.out)
    }
}

fn stopped() -> Failure {
    Failure::failed("making the snapshot file was stopped")
}
