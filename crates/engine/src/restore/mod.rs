//! From a backup to a data directory, or to a snapshot file (design part 3, "Restore").

pub mod build;
pub mod bump;
pub(crate) mod file_edit;
pub mod owner;
pub mod plan;
mod run;
pub mod target;

use std::path::PathBuf;

use jiff::Timestamp;
use vault::manifest::{HashKvValue, Versions};

use crate::opening::Opening;
use crate::place::{PlaceOptions, Which};
use owner::Owner;
use plan::PlannedMember;

pub use run::run;
pub(crate) use run::{random_fraction, room_needed};

/// How far revisions move on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BumpChoice {
    /// Past everything that was ever recorded, by a wide and random margin.
    #[default]
    Safe,
    /// By this much beyond the backup's last row, as etcdutl does.
    By(u64),
    /// Not at all: only for a cluster that no client knew.
    None,
}

/// A restore as it was asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The repository.
    pub place: PlaceOptions,
    /// The cluster's name there; the only one where it is not given.
    pub cluster: Option<vault::name::ClusterName>,
    /// Which backup; `None` with a plan, which says it.
    pub which: Option<Which>,
    /// What opens it.
    pub opening: Opening,
    /// The minisign secret key that signs the record of the restore.
    pub signing_key: Option<PathBuf>,
    /// What to make.
    pub goal: Goal,
    /// How far revisions move on.
    pub bump: BumpChoice,
    /// The etcd that will run, as `3.5`; none keeps what the backup says.
    pub target_version: Option<String>,
    /// Seconds for leases that keys refer to and the backup does not hold.
    pub unknown_lease_ttl: i64,
    /// A Talos node restores the snapshot file: the keys of Talos's own (`talos:v1:…`) are dropped. Not with [`BumpChoice::None`].
    pub for_talos: bool,
    /// Carry out this plan file.
    pub plan: Option<PathBuf>,
    /// Write the plan to this file and do nothing else.
    pub plan_out: Option<PathBuf>,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
    /// The result is looked at and thrown away: the repository records no restore, and leaving revisions as they were harms nobody.
    pub scratch: bool,
}

/// What is made of a backup.
#[derive(Clone, Debug)]
pub enum Goal {
    /// A member's data directory.
    DataDir {
        /// The data directory.
        data_dir: PathBuf,
        /// The log's directory, where it is elsewhere.
        wal_dir: Option<PathBuf>,
        /// The member's name.
        name: String,
        /// All members.
        members: Vec<PlannedMember>,
        /// The member's own peer URLs, which must be those in `members`.
        advertise: Vec<String>,
        /// The token, where one was chosen.
        token: Option<String>,
        /// Move an old `member` aside.
        replace: bool,
        /// Who owns the result.
        owner: Option<Owner>,
    },
    /// A snapshot file.
    File(PathBuf),
}

/// What a restore did, or would do.
#[derive(Clone, Debug)]
pub struct Report {
    /// The backup.
    pub id: String,
    /// The cluster's name in the repository.
    pub cluster: String,
    /// When the backup was taken.
    pub taken: Timestamp,
    /// The backup's revision.
    pub revision: i64,
    /// The revision the restored cluster begins after.
    pub revision_after: i64,
    /// Live keys.
    pub keys: u64,
    /// What etcd and its data were when the backup was taken.
    pub versions: Versions,
    /// HashKV of the backup, as its manifest states it.
    pub hashkv: Option<HashKvValue>,
    /// What was made.
    pub made: PathBuf,
    /// Where the old data is now.
    pub before: Option<PathBuf>,
    /// The new cluster's id and token; none for a file.
    pub new_cluster: Option<(String, String)>,
    /// What was changed against the backup, in words.
    pub changes: Vec<String>,
    /// What was not as it should be, in words.
    pub warnings: Vec<String>,
    /// Whether nothing was done.
    pub dry_run: bool,
    /// The plan file that was written.
    pub plan_out: Option<PathBuf>,
}
