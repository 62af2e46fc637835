//! Backing a cluster up: member → stream → spool → sealed upload, proof, commit (design part 3, "Backup").

pub(crate) mod attempt;
mod commit;
mod outlast;
mod parts;
mod prove;
mod rescue;
mod run;
mod shrink;
mod stores;

use std::path::PathBuf;
use std::time::Duration;

use etcd_store::id::MemberId;
use vault::manifest::{HashKvVerdict, Manifest};
use vault::name::{ClusterName, Tag};
use vault::seal::SecretString;

use crate::access::Access;
use crate::choice::Wish;
use crate::extra::Extra;
use crate::failure::Code;
use crate::lease;
use crate::opening::Person;
use crate::place::PlaceOptions;
use crate::spool::SpoolOptions;
use crate::stores::NamedPlace;

pub use rescue::{RescueRequest, rescue};
pub use run::run;
pub(crate) use shrink::shrank;

/// A backup as it was asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The cluster.
    pub source: Access,
    /// The repository; with several stores, the first of them.
    pub place: PlaceOptions,
    /// All stores of the repository, where there are several. Each gets the backup; the first that can be reached decides. Empty: `place` alone.
    pub stores: Vec<NamedPlace>,
    /// How many of them must hold the backup at the end.
    pub min_stores: usize,
    /// The cluster's name in the repository; the only one there, where it is not given.
    pub cluster: Option<ClusterName>,
    /// Which member, and how healthy it has to be.
    pub wish: Wish,
    /// Words to keep with the backup.
    pub tags: Vec<Tag>,
    /// Files and directories to keep beside it.
    pub extras: Vec<Extra>,
    /// age recipients of the snapshot. Empty only with `plain` or a passphrase.
    pub recipients: Vec<String>,
    /// The passphrase that opens the snapshot, in the place of recipients.
    pub passphrase: Option<SecretString>,
    /// Who answers a plugin's questions.
    pub person: Person,
    /// age recipients of the extras; those of the snapshot where empty.
    pub extra_recipients: Vec<String>,
    /// Do not encrypt.
    pub plain: bool,
    /// The minisign secret key that signs the manifest.
    pub signing_key: Option<PathBuf>,
    /// Where the snapshot lies meanwhile.
    pub spool: SpoolOptions,
    /// Time for all live HashKV questions together.
    pub hashkv_budget: Duration,
    /// One worker at low priority.
    pub gentle: bool,
    /// Read the stored object back in full before it is committed.
    pub read_back: bool,
    /// Whether the lease of the cluster is taken meanwhile.
    pub lease: lease::Mode,
    /// The share of keys whose loss pins the backup before it (`alert.content_shrinks_by`); none: no such look.
    pub content_shrinks_by: Option<f64>,
    /// Plan only.
    pub dry_run: bool,
    /// Where this host keeps what it remembers of the last backup.
    pub cache: Option<PathBuf>,
}

/// What became of one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreReport {
    /// Its name in the configuration; its URL where it has none.
    pub name: String,
    /// Its URL.
    pub url: String,
    /// Why it does not hold the backup; none when it does.
    pub why: Option<String>,
}

/// One backup that was committed.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Its manifest.
    pub manifest: Manifest,
    /// Size of the stored snapshot object in bytes.
    pub stored_size: u64,
    /// What it holds, per Kubernetes resource, with the change against this host's last backup where there is one.
    pub resources: Vec<ResourceLine>,
    /// How it compares with the members, in words.
    pub proof: Vec<String>,
    /// How long the members took to answer HashKV, one after another.
    pub hashkv_took: Duration,
}

/// One Kubernetes resource in a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceLine {
    /// Its plural name.
    pub resource: String,
    /// Live objects.
    pub count: u64,
    /// The change against the last backup this host remembers.
    pub change: Option<i64>,
}

/// What a run did.
#[derive(Clone, Debug)]
pub struct Report {
    /// [`Code::Ok`], [`Code::Warnings`] or [`Code::Unproven`].
    pub code: Code,
    /// The repository.
    pub place: PlaceOptions,
    /// The cluster's name there.
    pub cluster: ClusterName,
    /// What was committed: one, or one per state when members disagree. Empty after a dry run.
    pub committed: Vec<Committed>,
    /// Members that were tried, in order, with what came of it.
    pub plan: Vec<PlannedMember>,
    /// The stores: those that hold the backup (that would get it, after a dry run), then those that do not.
    pub stores: Vec<StoreReport>,
    /// What was not as it should be, in words.
    pub warnings: Vec<String>,
    /// The command that settles the first of them that one command settles.
    pub next: Option<Vec<String>>,
    /// Whether no failed run is on record that this one ends.
    pub last_run_was_fine: bool,
}

/// One member as the plan has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedMember {
    /// Its id.
    pub id: MemberId,
    /// Its name.
    pub name: String,
    /// Where it is reached.
    pub endpoint: String,
    /// Why it stands where it stands.
    pub reason: String,
}

/// The word for a verdict.
#[must_use]
pub fn verdict_word(verdict: HashKvVerdict) -> &'static str {
    match verdict {
        HashKvVerdict::Match => "match",
        HashKvVerdict::Disputed => "disputed",
        HashKvVerdict::Failed => "failed",
        HashKvVerdict::Inconclusive => "inconclusive",
        HashKvVerdict::NotOffered => "not-offered",
    }
}
