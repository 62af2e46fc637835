//! Verifying: is what is listed there, whole, and what it claims to be? (design parts 6 and 10)
//!
//! The rungs, each with those below it: **stored** looks at every object of the set and at the signature; **read** hashes every stored byte, which
//! needs no key and names damage by object and byte range; **deep** opens the snapshot as a restore does and reads everything from it that the
//! manifest claims, HashKV included. An object is fetched once, whatever the rung.
//!
//! The outcome is written down as a `verify` mark. A backup that only lacks a trusted signature gets none: whose signature counts is for each reader to
//! say, and a reader with a wrong list must not spoil the backup for all others.

mod check;
mod content;
mod extra;
mod open;
mod scan;
mod targets;

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use vault::backup_id::BackupId;
use vault::manifest::{HashKvVerdict, Rung, Sealing, plain_text};
use vault::mark::{Outcome as Ending, Previous, Statement, Verify};
use vault::name::ClusterName;
use vault::repository::{Catalog, Problem, Repository, RepositoryError};
use vault::seal::Identities;
use vault::sign::SigningKey;

pub use check::check;
pub use targets::lost;

use crate::failure::{Code, Failure, Outcome};
use crate::opening::Opening;
use crate::place::PlaceOptions;
use crate::progress::Progress;
use crate::spool::SpoolOptions;
use crate::{opening, place, select};
use targets::{Target, Targets};

/// A verification as it was asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The repository.
    pub place: PlaceOptions,
    /// The cluster; the only one there, where it is not given.
    pub cluster: Option<ClusterName>,
    /// Which backups, as part 6 of the design names them; `latest` where there is none.
    pub which: Vec<String>,
    /// Every backup of the cluster, and everything else that is kept of it.
    pub all: bool,
    /// How far: [`Rung::Stored`], [`Rung::Read`] or [`Rung::Deep`].
    pub rung: Rung,
    /// What opens them, for [`Rung::Deep`].
    pub opening: Opening,
    /// The key that signs the marks.
    pub signing_key: Option<PathBuf>,
    /// Where an opened snapshot lies meanwhile.
    pub spool: SpoolOptions,
}

/// How one backup is checked.
#[derive(Clone, Debug)]
pub struct How {
    /// How far. A rung above [`Rung::Deep`] is taken as that, one below [`Rung::Stored`] as that.
    pub rung: Rung,
    /// What opens it.
    pub identities: Arc<Identities>,
    /// Where it lies meanwhile.
    pub spool: SpoolOptions,
    /// Take a backup whose signature does not count.
    pub allow_unsigned: bool,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The key of the object.
    pub object: String,
    /// The bytes of it; none where it is the object as a whole.
    pub range: Option<Range<u64>>,
    /// What is wrong.
    pub what: String,
}

impl Finding {
    /// The object and the bytes of it.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.range {
            Some(range) => format!("{}, bytes {} to {}", self.object, range.start, range.end),
            None => self.object.clone(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place(), self.what)
    }
}

impl From<&Problem> for Finding {
    fn from(problem: &Problem) -> Self {
        Self { object: problem.key.clone(), range: None, what: problem.kind.to_string() }
    }
}

/// What came of one backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The backup.
    pub id: BackupId,
    /// The rung asked for.
    pub tried: Rung,
    /// The highest rung passed.
    pub reached: Rung,
    /// The lowest rung at which damage was found.
    pub failed_at: Option<Rung>,
    /// Its signature does not count, and that was not allowed.
    pub untrusted: bool,
    /// No identity opens it.
    pub locked: bool,
    /// The manifest's verdict; below it what the members' recorded answers came to when they were held against the file again. None for a lost manifest.
    pub hashkv: Option<HashKvVerdict>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What is worth knowing and is not wrong.
    pub notes: Vec<String>,
    /// Stored bytes that were read.
    pub bytes: u64,
}

impl Checked {
    /// What it came to.
    #[must_use]
    pub fn result(&self) -> Ending {
        if !self.findings.is_empty() {
            Ending::Failed
        } else if self.reached < self.tried {
            Ending::Inconclusive
        } else {
            Ending::Passed
        }
    }

    /// Whether the members dispute what it holds, where that was looked at.
    #[must_use]
    pub fn disputed(&self) -> bool {
        self.tried >= Rung::Deep && self.hashkv.is_some_and(|verdict| !verdict.may_be_latest())
    }

    /// The mark's content; none where nothing was found out about the stored bytes.
    fn mark(&self, at: Timestamp) -> Option<Verify> {
        let (rung, result, detail) = match (self.failed_at, self.reached) {
            (Some(rung), _) => (rung, Ending::Failed, self.findings.first().map(|finding| plain_text(&finding.to_string()))),
            (None, Rung::None) => return None,
            (None, _) if self.untrusted => return None,
            (None, rung) => (rung, Ending::Passed, None),
        };
        Some(Verify { rung, result, at, hashkv: self.hashkv.filter(|_| rung >= Rung::Deep), detail })
    }
}

/// What came of a verification.
#[derive(Clone, Debug)]
pub struct Report {
    /// The repository, as it was named.
    pub repository: String,
    /// The cluster.
    pub cluster: ClusterName,
    /// One per backup, newest first.
    pub checked: Vec<Checked>,
    /// What is wrong beside these backups, and counts.
    pub problems: Vec<Finding>,
    /// What is worth knowing.
    pub warnings: Vec<String>,
    /// How the repository is reached.
    place: PlaceOptions,
    /// How the first backup is sealed that nothing given opens.
    locked: Option<Sealing>,
}

impl Report {
    /// Why the command does not end well; none when everything passed.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        let failed: Vec<&Checked> = self.checked.iter().filter(|checked| checked.result() == Ending::Failed).collect();
        let findings: Vec<&Finding> = failed.iter().flat_map(|checked| &checked.findings).chain(&self.problems).collect();
        let list = self.place.cluster_command(&["list"], &self.cluster);
        if let Some(first) = findings.first() {
            let what = match &failed[..] {
                [] => "what is kept beside the backups is not sound".to_owned(),
                [only] if only.untrusted && only.failed_at.is_none() => format!("backup {} is not taken", only.id),
                [only] => format!("backup {} is damaged", only.id),
                several => format!("{} of {} backups did not pass", several.len(), self.checked.len()),
            };
            let more = if findings.len() > 1 { format!("; {} more in the report", findings.len() - 1) } else { String::new() };
            return Some(Failure::new(Code::Unproven, what).object(first.place()).cause(format!("{}{more}", first.what)).next(list));
        }
        if let Some(disputed) = self.checked.iter().find(|checked| checked.disputed()) {
            return Some(
                Failure::new(Code::Unproven, "the members dispute what the backup holds")
                    .object(disputed.id)
                    .cause("it is whole, but when it was taken the members held different things; it is never 'latest'")
                    .next(list),
            );
        }
        let locked = self.checked.iter().find(|checked| checked.locked)?;
        Some(opening::not_opened(self.locked.as_ref()?, locked.id, ", so it was only read"))
    }
}

/// Verifies, and writes down what came of it.
pub async fn run(request: Request, progress: Arc<dyn Progress>) -> Outcome<Report> {
    let signing = request.signing_key.as_deref().map(place::signing_key).transpose()?;
    let deep = request.rung >= Rung::Deep;
    let identities = Arc::new(if deep { request.opening.read()? } else { Identities::new() });
    let loaded = select::load(&request.place, request.cluster.as_ref()).await?;
    let catalog = &loaded.catalog;
    let Targets { targets, rest, mut warnings } = targets::choose(catalog, &request)?;
    let sealed = targets.iter().find_map(|target| match target {
        Target::Backup(backup) if backup.manifest.layers.age => Some(backup),
        _ => None,
    });
    if let (true, true, Some(backup)) = (deep, identities.is_empty(), sealed) {
        return Err(opening::nothing_given(&backup.manifest.sealing, backup.id(), "; --deep opens the backup, --read needs no key"));
    }
    let how = How { rung: request.rung, identities, spool: request.spool.clone(), allow_unsigned: request.place.allow_unsigned };
    let mut marks = Marks::new(&loaded.repository, catalog, signing);
    let mut checked = Vec::new();
    let mut locked = None;
    for target in &targets {
        let outcome = match target {
            Target::Lost { id, findings } => lost_checked(*id, request.rung, findings),
            Target::Backup(backup) => {
                let outcome = check(&loaded.repository, catalog, backup, &how, &progress).await?;
                if outcome.locked && locked.is_none() {
                    locked = Some(backup.manifest.sealing.clone());
                }
                outcome
            }
        };
        let now = Timestamp::now();
        if let Some(data) = outcome.mark(now) {
            let _written = marks.write(Statement::Verify(outcome.id, data), now).await;
        }
        checked.push(outcome);
    }
    warnings.extend(marks.warning());
    let (mut problems, beside): (Vec<Finding>, Vec<Finding>) = (rest.counting, rest.beside);
    if request.all {
        problems.extend(way_out(&loaded.repository).await?);
    }
    warnings.extend(beside.iter().map(ToString::to_string));
    let cluster = catalog.cluster.clone();
    Ok(Report { repository: request.place.url.clone(), cluster, checked, problems, warnings, place: request.place, locked })
}

fn lost_checked(id: BackupId, tried: Rung, findings: &[Finding]) -> Checked {
    Checked {
        id,
        tried,
        reached: Rung::None,
        failed_at: Some(Rung::Stored),
        untrusted: false,
        locked: false,
        hashkv: None,
        findings: findings.to_vec(),
        notes: Vec::new(),
        bytes: 0,
    }
}

/// Without the instructions at its root a repository still opens, but only who knows how can tell.
async fn way_out(repository: &Repository) -> Outcome<Option<Finding>> {
    let key = vault::key::RESTORE_TEXT;
    match repository.store().head(key).await {
        Ok(_) => Ok(None),
        Err(error) => {
            scan::damage(&error)?;
            let what = "missing: the instructions for a restore without Lifeboat".to_owned();
            Ok(Some(Finding { object: key.to_owned(), range: None, what }))
        }
    }
}

/// Writes the marks of one run, each after the one before it.
pub(crate) struct Marks<'a> {
    repository: &'a Repository,
    cluster: &'a ClusterName,
    signing: Option<SigningKey>,
    newest: Option<Previous>,
    refused: Option<RepositoryError>,
}

impl<'a> Marks<'a> {
    /// After the newest mark of the catalog.
    pub(crate) fn new(repository: &'a Repository, catalog: &'a Catalog, signing: Option<SigningKey>) -> Self {
        Self { repository, cluster: &catalog.cluster, signing, newest: catalog.newest_mark(), refused: None }
    }

    /// Writes one down. A store that takes no mark costs a warning, and is not asked again. The answer is whether it is written.
    pub(crate) async fn write(&mut self, statement: Statement, now: Timestamp) -> bool {
        if self.refused.is_some() {
            return false;
        }
        let written = self.repository.write_mark(self.cluster, statement, self.newest, self.signing.as_ref(), now).await;
        match written.and_then(|mark| Ok((mark.id, mark.encode()?))) {
            Ok((id, bytes)) => {
                self.newest = Some(Previous { id, sha256: vault::digest::Sha256::of(&bytes) });
                true
            }
            Err(error) => {
                self.refused = Some(error);
                false
            }
        }
    }

    /// The warning.
    pub(crate) fn warning(&self) -> Option<String> {
        self.refused.as_ref().map(|error| format!("the result could not be recorded in the repository: {error}"))
    }
}

#[cfg(test)]
mod tests;
