//! Building a member's data directory around a database that was just written: examine, edit, write log and raft snapshot, give away, put in place.

use std::path::{Path, PathBuf};

use bbolt::Database;
use etcd_store::cluster::ClusterSpec;
use etcd_store::id::Revision;
use etcd_store::restore::{EditReport, FileError, apply_edits, write_member_files};
use etcd_store::{DatabaseFile, Inspection};

use super::owner::Owner;
use super::plan::RestorePlan;
use super::target::Site;
use crate::failure::{Code, Failure, Outcome};

/// Rounds of adding leases at most: each adds as many as one inspection lists.
const MAX_LEASE_ROUNDS: usize = 64;

/// Which member, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The member's name, one of the plan's.
    pub name: String,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Its log, where that is elsewhere.
    pub wal_dir: Option<PathBuf>,
    /// Whether an old `member` is expected there and moved aside.
    pub replace: bool,
    /// Who owns the result; taken from the old `member`, else left to this process's user.
    pub owner: Option<Owner>,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct Built {
    /// Where the old data is now, if there was any.
    pub before: Option<PathBuf>,
    /// What was changed in the database.
    pub edits: EditReport,
    /// Leases that keys refer to and that the backup did not hold: they were added.
    pub leases_added: u64,
    /// What the database holds.
    pub inspection: Box<Inspection>,
}

/// Edits the database at [`Site::database`] by the plan and makes the rest of the member. The site is discarded when it fails.
pub fn build(site: Site, plan: &RestorePlan, cluster: &ClusterSpec, place: &Place) -> Outcome<Built> {
    match prepare(&site, plan, cluster, place) {
        Ok((edits, leases_added, inspection)) => {
            let before = site.put_in_place(place.replace)?;
            Ok(Built { before, edits, leases_added, inspection: Box::new(inspection) })
        }
        Err(failure) => {
            site.discard();
            Err(failure)
        }
    }
}

fn prepare(site: &Site, plan: &RestorePlan, cluster: &ClusterSpec, place: &Place) -> Outcome<(EditReport, u64, Inspection)> {
    let (edits, leases_added, inspection) = edit(&site.database(), plan, Some(cluster))?;
    write_member_files(&site.member(), cluster, &place.name, place.wal_dir.as_deref()).map_err(|error| file_failure(&error))?;
    let old = place.data_dir.join("member");
    if let Some(owner) = &place.owner {
        owner.give(&site.member())?;
        if let Some(wal_dir) = &place.wal_dir {
            owner.give(wal_dir)?;
        }
        if site.made_data_dir() {
            owner.give(&place.data_dir)?;
        }
    } else if old.is_dir() {
        super::owner::copy(&old, &site.member())?;
    }
    site.sync()?;
    Ok((edits, leases_added, inspection))
}

/// Applies a plan's edits to a database file, in as many commits as missing leases need; nearly always one.
pub fn edit(database: &Path, plan: &RestorePlan, cluster: Option<&ClusterSpec>) -> Outcome<(EditReport, u64, Inspection)> {
    let unsound = |error: &dyn std::fmt::Display| {
        Failure::new(Code::Unproven, "the restored database is not sound").object(database.display()).cause(error)
    };
    let open = || -> Outcome<Database<DatabaseFile>> {
        let file = DatabaseFile::open_for_edit(database).map_err(|error| unsound(&error))?;
        Database::open(file).map_err(|error| unsound(&error))
    };
    let inspect =
        |database: &Database<DatabaseFile>| etcd_store::inspect(database, &etcd_store::Options::default()).map_err(|error| unsound(&error));
    let opened = open()?;
    let inspection = inspect(&opened)?;
    let mut missing = inspection.missing_leases.clone();
    let edits = plan.edits(cluster.cloned(), &missing.items);
    if let Some(target) = edits.bump.filter(|target| *target <= inspection.revision) {
        return Err(bump_failure(target, inspection.revision));
    }
    let (mut opened, report) = apply_edits(opened, &edits).map_err(|error| match error {
        etcd_store::Error::TooManyDropped => too_many_of_talos(&error),
        _ => unsound(&error),
    })?;
    let mut added = report.leases_added;
    for _ in 0..MAX_LEASE_ROUNDS {
        if missing.total <= missing.items.len() as u64 {
            return Ok((report, added, inspection));
        }
        missing = inspect(&opened)?.missing_leases;
        let more = etcd_store::restore::Edits { add_leases: plan.edits(None, &missing.items).add_leases, ..Default::default() };
        let (again, round) = apply_edits(opened, &more).map_err(|error| unsound(&error))?;
        opened = again;
        added += round.leases_added;
    }
    Err(unsound(&"keys refer to more leases than can be added"))
}

fn bump_failure(target: Revision, revision: Revision) -> Failure {
    Failure::usage(format!("revision {target} is not beyond {revision}, where the backup ends"))
        .cause("a restored cluster must begin after everything that was ever handed out: choose a larger --bump-revision, or none")
        .again()
}

fn too_many_of_talos(error: &etcd_store::Error) -> Failure {
    Failure::failed("Talos's own keys cannot be dropped: there are more than Talos ever has")
        .cause(format!("{error}; with them the file can be restored all the same"))
        .again_without("--for")
}

fn file_failure(error: &FileError) -> Failure {
    let failure = Failure::failed("the member's files cannot be written").cause(error);
    match error {
        FileError::Cluster(_) => Failure { code: Code::Usage, ..failure }.again(),
        FileError::NotEmpty(path) => Failure::usage("the directory for the log must be empty").object(path.display()).again(),
        FileError::Io { path, .. } => failure.object(path.display()).again(),
    }
}
