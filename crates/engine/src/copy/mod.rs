//! Copying backups from one store of a repository to another: sealed bytes, unopened, only what is missing (design part 4).
//!
//! What is copied is first read as any reader reads it, so nothing goes over that does not belong there: every object is held against the size and the
//! digest that its manifest states while it streams, a manifest against the digest by which it was listed. The order is that of a backup: lineages,
//! data, signature, and last, create-only and byte for byte, the manifest; then marks. So a copy that was stopped anywhere left nothing that is listed
//! and not whole, and the same command goes on.
//!
//! It never deletes and never overwrites, and brings nothing back that was removed with a tombstone.

mod object;
mod plan;
mod run;
#[cfg(test)]
mod tests;

use std::fmt;

use vault::backup_id::BackupId;
use vault::name::{ClusterName, RepositoryId};

pub use plan::{Object, Plan, Planned, Side, Step, plan};
pub use run::{between, run};

use crate::failure::{Code, Failure};
use crate::stores::NamedPlace;

/// A copy as it was asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The store that is read.
    pub from: NamedPlace,
    /// The store that gets what it lacks. An empty one becomes the same repository.
    pub to: NamedPlace,
    /// One cluster; every one of the source where it is not given.
    pub cluster: Option<ClusterName>,
    /// Which backups, as part 6 of the design names them; all of them where there is none.
    pub which: Vec<String>,
    /// Take backups and marks whose signature does not count.
    pub allow_unsigned: bool,
    /// Plan only.
    pub dry_run: bool,
}

/// Why something is not copied that should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Its signature does not count.
    Untrusted,
    /// It is damaged or incomplete in the source.
    Damaged,
    /// The target holds something else under its key.
    Conflict,
}

impl Trouble {
    /// The stable word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Damaged => "damaged",
            Self::Conflict => "conflict",
        }
    }
}

/// Something that is not copied although it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The key of the object.
    pub object: String,
    /// What kind of trouble it is.
    pub trouble: Trouble,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.why)
    }
}

/// What became of one backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was copied; after a dry run, it would be. With the bytes that went over.
    Copied(u64),
    /// The target had it already, whole.
    There,
    /// It was left out, and why.
    Skipped(String),
    /// It cannot be copied.
    Refused(Refusal),
}

/// One backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its id.
    pub id: BackupId,
    /// What became of it.
    pub fate: Fate,
}

/// One cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterReport {
    /// Its name.
    pub cluster: ClusterName,
    /// Its backups, oldest first.
    pub backups: Vec<Outcome>,
    /// Lineages that were copied.
    pub lineages: usize,
    /// Marks that were copied.
    pub marks: usize,
    /// What else is not copied although it should be.
    pub refused: Vec<Refusal>,
    /// What is worth knowing.
    pub warnings: Vec<String>,
}

impl ClusterReport {
    /// Everything that was refused, with the backup it belongs to where it is one's.
    pub fn refusals(&self) -> impl Iterator<Item = (Option<BackupId>, &Refusal)> {
        let of_backups = self.backups.iter().filter_map(|outcome| match &outcome.fate {
            Fate::Refused(refusal) => Some((Some(outcome.id), refusal)),
            _ => None,
        });
        of_backups.chain(self.refused.iter().map(|refusal| (None, refusal)))
    }

    /// How many backups were (or would be) copied, and their bytes.
    #[must_use]
    pub fn copied(&self) -> (usize, u64) {
        let bytes = self.backups.iter().filter_map(|outcome| match outcome.fate {
            Fate::Copied(bytes) => Some(bytes),
            _ => None,
        });
        bytes.fold((0, 0), |(count, sum), bytes| (count + 1, sum + bytes))
    }
}

/// What came of a copy.
#[derive(Clone, Debug)]
pub struct Report {
    /// The store that was read.
    pub from: NamedPlace,
    /// The store that was written.
    pub to: NamedPlace,
    /// The repository's id, on both.
    pub repository: RepositoryId,
    /// Whether the target was empty, and was made the repository.
    pub made: bool,
    /// Whether this is a plan.
    pub dry_run: bool,
    /// One per cluster.
    pub clusters: Vec<ClusterReport>,
}

impl Report {
    /// Why the command does not end well; none when everything that should be in the target is.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        let all = || self.clusters.iter().flat_map(|cluster| cluster.refusals().map(move |(id, refusal)| (cluster, id, refusal)));
        let (cluster, id, worst) = all().max_by_key(|(_, _, refusal)| refusal.trouble != Trouble::Untrusted)?;
        let more = all().count() - 1;
        let more = if more > 0 { format!("; {more} more in the report") } else { String::new() };
        let what = match id {
            Some(id) => format!("backup {id} was not copied"),
            None => "not everything was copied".to_owned(),
        };
        let code = if worst.trouble == Trouble::Untrusted { Code::Failed } else { Code::Unproven };
        let failure = Failure::new(code, what).object(&worst.object).cause(format!("{}{more}", worst.why));
        Some(match (worst.trouble, id) {
            (Trouble::Untrusted, _) => failure.again_with(["--allow-unsigned"]),
            (trouble, Some(id)) => {
                let place = if trouble == Trouble::Conflict { &self.to } else { &self.from };
                failure.next(place.options.cluster_command(&["verify", id.suffix(), "--read"], &cluster.cluster))
            }
            (_, None) => failure.next(self.from.options.cluster_command(&["verify", "--all"], &cluster.cluster)),
        })
    }
}
