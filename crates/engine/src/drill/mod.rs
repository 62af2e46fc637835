//! Drills: a real etcd is booted from a backup, and has to hold what was backed up (design promise 8, part 6).
//!
//! Each drill goes the whole way: the deep check of [`crate::verify`]; a restore without a bump into a private directory; an etcd on loopback; HashKV,
//! the revision, counts and canaries as that etcd answers them. What it came to is written down as a `drill` mark, and everything else is thrown away,
//! however the drill ends.
//!
//! `failed` is said only of the backup: damage, an etcd that does not run on it, another content. Whatever else is in the way (no etcd, no room, no key)
//! leaves the drill `inconclusive`, for a backup that failed is never `latest`.

mod ask;
pub mod choose;
pub mod compare;
pub mod count;
pub mod identity;
pub mod rehearse;
mod run;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use etcd_api::Credentials;
use jiff::Timestamp;
use vault::backup_id::BackupId;
use vault::manifest::plain_text;
use vault::mark::{Drill, Outcome as Ending};
use vault::name::ClusterName;

pub use choose::{Chosen, Why};
pub use compare::Check;
pub use run::run;

use crate::failure::{Code, Failure};
use crate::opening::Opening;
use crate::place::PlaceOptions;
use crate::spool::SpoolOptions;

/// A run of drills as it was asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The repository.
    pub place: PlaceOptions,
    /// The cluster; the only one there, where it is not given.
    pub cluster: Option<ClusterName>,
    /// Which backups, as part 6 of the design names them. Without any they are chosen by [`choose::order`] among those that can be `latest`.
    pub which: Vec<String>,
    /// Every backup of the cluster that counts.
    pub all: bool,
    /// Time for all drills together: the first one is done in any case, another one only if it fits. Without it, one is done, or all that were named.
    pub budget: Option<Duration>,
    /// What opens them.
    pub opening: Opening,
    /// A command that prints an identity, beside `opening`; empty for none.
    pub identity_command: Vec<String>,
    /// The etcd to run, where one was named.
    pub etcd: Option<PathBuf>,
    /// Directories in which `etcd` is looked for otherwise, in order.
    pub search: Vec<PathBuf>,
    /// Keys that must be there and not be empty.
    pub canaries: Vec<String>,
    /// A user of the backup's own authentication, where that is on.
    pub credentials: Option<Credentials>,
    /// The key that signs the marks.
    pub signing_key: Option<PathBuf>,
    /// The directory below which a private one is made for each drill.
    pub directory: PathBuf,
    /// Whether that directory was named; one that was not is refused when it lies in memory.
    pub directory_named: bool,
    /// Where the opened snapshot lies during the deep check.
    pub spool: SpoolOptions,
    /// A command that runs the command after it as [`crate::try_etcd::run_tied`] does; empty for none.
    pub tie: Vec<OsString>,
    /// Choose, and do nothing.
    pub dry_run: bool,
}

/// What came of one drill.
#[derive(Clone, Debug)]
pub struct Drilled {
    /// The backup, and why it was chosen.
    pub chosen: Chosen,
    /// When the backup was taken.
    pub taken: Timestamp,
    /// Its revision.
    pub revision: i64,
    /// Its live keys.
    pub keys: u64,
    /// What it came to.
    pub result: Ending,
    /// Why it did not pass, in words.
    pub detail: Option<String>,
    /// What kept it from a result; none where it has one.
    pub hindrance: Option<Failure>,
    /// The etcd that served.
    pub etcd: Option<String>,
    /// From opening the repository until the restored files were in place.
    pub restored_in: Option<Duration>,
    /// From the start of etcd until it answered its first linearizable read.
    pub served_in: Option<Duration>,
    /// What was compared.
    pub checks: Vec<Check>,
    /// What is worth knowing.
    pub notes: Vec<String>,
    /// Whether the repository has the result.
    pub recorded: bool,
}

impl Drilled {
    /// Time to recover: until the files were in place, and from the start of etcd until it answered. What was checked in between is no part of it.
    #[must_use]
    pub fn recovered_in(&self) -> Option<Duration> {
        Some(self.restored_in? + self.served_in?)
    }

    fn mark(&self, at: Timestamp) -> Drill {
        Drill {
            result: self.result,
            at,
            etcd: self.etcd.clone(),
            seconds: self.recovered_in().map(|took| took.as_secs() + u64::from(took.subsec_nanos() > 0)),
            detail: self.detail.as_deref().map(plain_text),
        }
    }
}

/// What came of a run of drills.
#[derive(Clone, Debug)]
pub struct Report {
    /// The repository, as it was named.
    pub repository: String,
    /// The cluster.
    pub cluster: ClusterName,
    /// The etcd that runs, as path and version; in words why there is none.
    pub etcd: Result<(PathBuf, String), String>,
    /// What was chosen, in the order of the drills.
    pub chosen: Vec<Chosen>,
    /// One per drill.
    pub drilled: Vec<Drilled>,
    /// Whether nothing was done.
    pub dry_run: bool,
    /// What is worth knowing beside the drills.
    pub warnings: Vec<String>,
    place: PlaceOptions,
}

impl Report {
    /// The chosen ones that were not drilled: the budget was used up.
    #[must_use]
    pub fn left(&self) -> &[Chosen] {
        self.chosen.get(self.drilled.len()..).unwrap_or_default()
    }

    /// Why the command does not end well; none when every drill passed.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        let failed: Vec<&Drilled> = self.drilled.iter().filter(|drilled| drilled.result == Ending::Failed).collect();
        if let Some(first) = failed.first() {
            let what = match failed.len() {
                1 => format!("the drill of backup {} failed", first.chosen.id),
                several => format!("{several} of {} drills failed", self.drilled.len()),
            };
            return Some(
                Failure::new(Code::DrillFailed, what)
                    .object(first.chosen.id)
                    .cause(first.detail.as_deref().unwrap_or("it is not what was backed up"))
                    .next(self.place.cluster_command(&["show", first.chosen.id.suffix()], &self.cluster)),
            );
        }
        let inconclusive = self.drilled.iter().find(|drilled| drilled.result == Ending::Inconclusive)?;
        let proved_nothing = || proved_nothing(inconclusive.chosen.id, inconclusive.detail.as_deref());
        // A key or a store that is missing has a code of its own.
        let own = |failure: &&Failure| matches!(failure.code, Code::NoKey | Code::StoreUnreachable);
        Some(inconclusive.hindrance.as_ref().filter(own).cloned().unwrap_or_else(proved_nothing))
    }
}

fn proved_nothing(id: BackupId, why: Option<&str>) -> Failure {
    let failure = Failure::failed(format!("the drill of backup {id} proved nothing")).object(id);
    why.map_or_else(|| failure.clone(), |why| failure.clone().cause(why)).again()
}
