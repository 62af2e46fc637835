//! Is a cluster protected as its policy says? A pure judgement of what the repository holds and of the time.

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use vault::backup_id::BackupId;
use vault::lineage::LineageName;
use vault::manifest::{HashKvVerdict, Source};
use vault::mark::{Outcome as Ending, RunResult, Statement};
use vault::name::ClusterName;
use vault::repository::Catalog;
use vault::repository::catalog::Backup;
use vault::repository::proof::Proof;

use crate::care::size;
use crate::care::trend::Growth;
use crate::config::{Policy, Schedule};
use crate::failure::{Code, Failure};
use crate::limits::{CLOCKS_DIFFER, GROWTH_FROM};
use crate::record;

/// How well a cluster is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// There is a good backup, and it is as young as the policy wants it.
    Protected,
    /// There is one and it is young enough, and the last run failed.
    LastRunFailed,
    /// The newest good one is too old.
    Stale,
    /// There is none.
    NeverRan,
    /// Nobody knows: the store does not answer.
    Unknown,
}

impl State {
    /// The exit code it stands for.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Self::Protected => Code::Ok,
            Self::LastRunFailed => Code::LastRunFailed,
            Self::Stale => Code::Stale,
            Self::NeverRan => Code::NeverRan,
            Self::Unknown => Code::StoreUnreachable,
        }
    }

    /// The stable word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Protected => "protected",
            Self::LastRunFailed => "last-run-failed",
            Self::Stale => "stale",
            Self::NeverRan => "never-ran",
            Self::Unknown => "unknown",
        }
    }

    /// The worse of two: none at all, too old, nobody knows, the last run failed, protected.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        let rank = |state: Self| match state {
            Self::NeverRan => 4,
            Self::Stale => 3,
            Self::Unknown => 2,
            Self::LastRunFailed => 1,
            Self::Protected => 0,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Protected => "protected",
            Self::LastRunFailed => "LAST RUN FAILED",
            Self::Stale => "TOO OLD",
            Self::NeverRan => "NO BACKUP",
            Self::Unknown => "UNKNOWN",
        })
    }
}

/// The newest good backup.
#[derive(Clone, Debug, PartialEq)]
pub struct Newest {
    /// Its id.
    pub id: BackupId,
    /// The moment it stands for.
    pub moment: Timestamp,
    /// Its revision.
    pub revision: i64,
    /// Live keys in it.
    pub keys: u64,
    /// Bytes of its database.
    pub bytes: u64,
    /// Bytes as stored.
    pub stored_bytes: u64,
    /// How long it took.
    pub took: Duration,
    /// What the members said.
    pub hashkv: HashKvVerdict,
    /// How well it is proven.
    pub proof: Proof,
}

/// A run that failed and was not followed by one that did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRun {
    /// When the first one of the row failed like this.
    pub since: Timestamp,
    /// Its exit code.
    pub exit: u8,
    /// Why.
    pub detail: Option<String>,
}

/// How a cluster stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// The cluster.
    pub cluster: ClusterName,
    /// How well it is protected.
    pub state: State,
    /// The newest good backup.
    pub newest: Option<Newest>,
    /// After which moment it is too old.
    pub late_at: Option<Timestamp>,
    /// When the next one is due; a moment in the past where it is overdue, now where there never was one.
    pub next: Option<Timestamp>,
    /// The run that failed last, where none has succeeded since.
    pub failed: Option<FailedRun>,
    /// All backups.
    pub backups: usize,
    /// The objects that manifests name.
    pub objects: usize,
    /// Bytes of all objects that manifests name.
    pub stored_bytes: u64,
    /// Lineages that are not confirmed.
    pub unconfirmed: Vec<String>,
    /// When a verification was passed last.
    pub verified: Option<Timestamp>,
    /// When a drill was passed last.
    pub drilled: Option<Timestamp>,
    /// What came of the last drill.
    pub last_drill: Option<Ending>,
    /// Checks of the policy that nothing has passed for twice as long as it wants: `verify`, `drill`.
    pub overdue: Vec<&'static str>,
    /// How much the content of the newest backup differs from that of the one before it, where that is more than the policy allows, in words.
    pub changed: Vec<String>,
    /// Backups of which a check found that they are bad.
    pub damaged: Vec<BackupId>,
    /// How fast the data grow, where that can be told.
    pub growth: Option<Growth>,
    /// Stores that lack backups which others hold, or could not be read. Filled in by whoever looks at all of them.
    pub behind: Vec<StoreBehind>,
    /// What else is worth a word.
    pub warnings: Vec<String>,
}

/// A store that does not hold what the policy wants it to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreBehind {
    /// Its name in the configuration.
    pub store: String,
    /// How many of the backups that count it lacks; none where that is not known.
    pub lacks: Option<usize>,
    /// Why that is not known.
    pub why: Option<String>,
}

impl fmt::Display for StoreBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { store, lacks, why } = self;
        match (lacks, why) {
            (Some(lacks), _) => write!(f, "the store '{store}' lacks {lacks} backups"),
            (None, why) => write!(f, "the store '{store}' cannot be read: {}", why.as_deref().unwrap_or("no reason is known")),
        }
    }
}

impl Standing {
    /// Of a cluster whose repository cannot be read.
    #[must_use]
    pub fn unknown(cluster: ClusterName, failure: &Failure) -> Self {
        let cause = failure.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
        Self { state: State::Unknown, warnings: vec![format!("{}{cause}", failure.what)], ..Self::empty(cluster) }
    }

    /// As it is at this moment: a backup grows old without anything being read.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Self {
        let is_late = self.late_at.is_some_and(|late| late < now);
        let grows_old = matches!(self.state, State::Protected | State::LastRunFailed | State::Unknown);
        Self { state: if is_late && grows_old { State::Stale } else { self.state }, ..self }
    }

    /// Of a cluster that has no backup yet, nor even a repository.
    #[must_use]
    pub fn empty(cluster: ClusterName) -> Self {
        Self {
            cluster,
            state: State::NeverRan,
            newest: None,
            late_at: None,
            next: None,
            failed: None,
            backups: 0,
            objects: 0,
            stored_bytes: 0,
            unconfirmed: Vec::new(),
            verified: None,
            drilled: None,
            last_drill: None,
            overdue: Vec::new(),
            changed: Vec::new(),
            damaged: Vec::new(),
            growth: None,
            behind: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

/// After which moment a backup of `moment` is too old: the next one was due, had its jitter, and all its retries.
#[must_use]
pub fn late_at(schedule: &Schedule, policy: &Policy, moment: Timestamp) -> Option<Timestamp> {
    let grace = policy.jitter() + policy.retry_window(schedule, moment);
    schedule.next_after(moment)?.checked_add(SignedDuration::try_from(grace).ok()?).ok()
}

/// Judges a cluster.
#[must_use]
pub fn judge(catalog: &Catalog, policy: &Policy, now: Timestamp) -> Standing {
    let schedule = policy.schedule().ok();
    let ahead = catalog.eligible().into_iter().filter(|backup| is_taken(backup)).max_by_key(|backup| backup.manifest.moment());
    let ahead = ahead.map(|backup| backup.manifest.moment());
    // One of the future is of a wrong clock: how old it is, nobody knows.
    let newest = catalog.eligible().into_iter().filter(|backup| is_taken(backup) && is_past(backup.manifest.moment(), now));
    // What somebody still takes of an older history is not the cluster that runs now.
    let running = running(catalog);
    let newest = newest.filter(|backup| Some(backup.manifest.lineage) >= running).max_by_key(|backup| backup.manifest.moment());
    let moment = newest.map(|backup| backup.manifest.moment());
    let late = schedule.as_ref().zip(moment).and_then(|(schedule, moment)| late_at(schedule, policy, moment.min(now)));
    let failed = failed(catalog, now);
    let state = match (moment, late) {
        (None, _) => State::NeverRan,
        (Some(_), Some(late)) if late < now => State::Stale,
        _ if failed.is_some() => State::LastRunFailed,
        _ => State::Protected,
    };
    let unconfirmed = catalog.lineages.values().filter(|entry| !entry.standing.is_accepted());
    let of_objects = |backup: &Backup| backup.manifest.objects.iter().map(|object| object.size).sum::<u64>();
    let (verified, drilled, last_drill) = proofs(catalog, now);
    let overdue = overdue(catalog, policy, (verified, drilled), now);
    let changed = changed(catalog, policy);
    Standing {
        state,
        newest: newest.map(described),
        late_at: late,
        next: schedule.and_then(|schedule| last_moment(catalog, now).map_or(Some(now), |last| schedule.next_after(last.min(now)))),
        failed,
        backups: catalog.backups.len(),
        objects: catalog.backups.iter().map(|backup| backup.manifest.objects.len()).sum(),
        stored_bytes: catalog.backups.iter().map(of_objects).sum(),
        unconfirmed: unconfirmed.map(|entry| entry.lineage.name.to_string()).collect(),
        verified,
        drilled,
        last_drill,
        damaged: catalog.backups.iter().filter(|backup| backup.proof.failed.is_some() || backup.incomplete).map(Backup::id).collect(),
        growth: growth(catalog, now),
        warnings: warnings(catalog, &changed, &overdue, ahead, now),
        overdue,
        changed,
        ..Standing::empty(catalog.cluster.clone())
    }
}

/// When a backup of the running cluster was taken last, good or not, by somebody who counts: what the next one is counted from.
#[must_use]
pub fn last_moment(catalog: &Catalog, now: Timestamp) -> Option<Timestamp> {
    let taken = catalog.backups.iter().filter(|backup| backup.counts && is_taken(backup));
    // Those of an older history are taken by somebody else, of another cluster.
    let running = running(catalog);
    let taken = taken.filter(|backup| Some(backup.manifest.lineage) >= running);
    taken.map(|backup| backup.manifest.moment()).filter(|moment| is_past(*moment, now)).max()
}

/// Whether a moment is not to come, but for what two clocks may differ.
fn is_past(moment: Timestamp, now: Timestamp) -> bool {
    moment.duration_since(now) <= SignedDuration::try_from(CLOCKS_DIFFER).unwrap_or_default()
}

/// The newest history that is accepted and of which there are backups.
fn running(catalog: &Catalog) -> Option<LineageName> {
    catalog.eligible().first().map(|backup| backup.manifest.lineage)
}

/// Whether it was taken of the running cluster: a file that was brought in says nothing of how it is now.
fn is_taken(backup: &Backup) -> bool {
    matches!(backup.manifest.source, Source::Direct | Source::Talos)
}

fn described(backup: &Backup) -> Newest {
    let manifest = &backup.manifest;
    let took = manifest.times.committed.duration_since(manifest.times.started);
    Newest {
        id: manifest.id,
        moment: manifest.moment(),
        revision: manifest.revision,
        keys: manifest.counts.live_keys,
        bytes: manifest.snapshot.db_size,
        stored_bytes: manifest.objects.iter().map(|object| object.size).sum(),
        took: Duration::try_from(took).unwrap_or_default(),
        hashkv: manifest.hashkv.verdict,
        proof: backup.proof.clone(),
    }
}

/// The run that failed last, unless a backup was committed since, by whomever.
fn failed(catalog: &Catalog, now: Timestamp) -> Option<FailedRun> {
    let run = record::last(catalog).filter(|run| run.result == RunResult::Failed)?;
    let is_over = catalog.eligible().into_iter().any(|backup| {
        let committed = backup.manifest.times.committed;
        is_taken(backup) && committed > run.at && is_past(committed, now)
    });
    (!is_over).then(|| FailedRun { since: run.at, exit: run.exit, detail: run.detail.clone() })
}

/// When a verification and a drill were passed last, and what came of the last drill.
fn proofs(catalog: &Catalog, now: Timestamp) -> (Option<Timestamp>, Option<Timestamp>, Option<Ending>) {
    let mut verified = None;
    let mut drilled = None;
    let mut last: Option<(Timestamp, Ending)> = None;
    for entry in catalog.marks.iter().filter(|entry| entry.counts) {
        match &entry.mark.statement {
            // What a wrong clock wrote must not hide what is found out later.
            Statement::Verify(_, data) if data.result == Ending::Passed && is_past(data.at, now) => verified = verified.max(Some(data.at)),
            Statement::Drill(_, data) if is_past(data.at, now) => {
                if data.result == Ending::Passed {
                    drilled = drilled.max(Some(data.at));
                }
                if last.is_none_or(|(at, _)| data.at >= at) {
                    last = Some((data.at, data.result));
                }
            }
            _ => {}
        }
    }
    (verified, drilled, last.map(|(_, ending)| ending))
}

/// The bytes in use of the backups that count, by their moments.
fn growth(catalog: &Catalog, now: Timestamp) -> Option<Growth> {
    let taken = catalog.eligible().into_iter().filter(|backup| is_taken(backup) && is_past(backup.manifest.moment(), now));
    let points: Vec<_> = taken.map(|backup| (backup.manifest.moment(), in_use(backup))).collect();
    Growth::of(&points)
}

fn in_use(backup: &Backup) -> u64 {
    let snapshot = &backup.manifest.snapshot;
    snapshot.in_use.unwrap_or(snapshot.db_size)
}

/// Whether the newest backup is much larger than the one before it.
/// What is different in the newest backup, more than the policy allows.
fn changed(catalog: &Catalog, policy: &Policy) -> Vec<String> {
    let mut taken: Vec<&Backup> = catalog.eligible().into_iter().filter(|backup| is_taken(backup)).collect();
    taken.sort_unstable_by_key(|backup| std::cmp::Reverse(backup.manifest.moment()));
    let [newest, before, ..] = taken[..] else { return Vec::new() };
    let leap = policy.backup_grows_by().and_then(|grows_by| leap(newest, before, grows_by));
    leap.into_iter().chain(loss(newest, before, policy.content_shrinks_by())).collect()
}

fn loss(newest: &Backup, before: &Backup, shrinks_by: f64) -> Option<String> {
    let (now, then) = (newest.manifest.counts.live_keys, before.manifest.counts.live_keys);
    crate::backup::shrank(then, now, shrinks_by).then(|| {
        format!("the newest backup holds {now} keys, the one before it {then}: more are gone than alert.content_shrinks_by allows")
    })
}

fn leap(newest: &Backup, before: &Backup, grows_by: f64) -> Option<String> {
    let (now, then) = (in_use(newest), in_use(before));
    let is_leap = now >= GROWTH_FROM && now as f64 > then as f64 * (1.0 + grows_by);
    is_leap
        .then(|| format!("the newest backup holds {}, the one before it {}: more than alert.backup_grows_by allows", size(now), size(then)))
}

/// The checks that nothing has passed for twice as long as the policy wants, or ever, since there are backups.
fn overdue(catalog: &Catalog, policy: &Policy, passed: (Option<Timestamp>, Option<Timestamp>), now: Timestamp) -> Vec<&'static str> {
    let first = catalog.backups.iter().filter(|backup| is_taken(backup)).map(|backup| backup.manifest.moment()).min();
    let verify = policy.verify.as_ref().and_then(|verify| verify.timing().schedule().ok().flatten());
    let drill = policy.drill.as_ref().and_then(|drill| drill.timing().schedule().ok().flatten());
    let is_overdue = |schedule: Option<Schedule>, passed: Option<Timestamp>| {
        let (Some(schedule), Some(since)) = (schedule, passed.or(first)) else { return false };
        Duration::try_from(now.duration_since(since)).is_ok_and(|since| since > schedule.distance(now).saturating_mul(2))
    };
    let checks = [("verify", is_overdue(verify, passed.0)), ("drill", is_overdue(drill, passed.1))];
    checks.into_iter().filter(|(_, is_overdue)| *is_overdue).map(|(check, _)| check).collect()
}

fn warnings(catalog: &Catalog, changed: &[String], overdue: &[&str], newest: Option<Timestamp>, now: Timestamp) -> Vec<String> {
    let mut warnings = changed.to_vec();
    if !overdue.is_empty() {
        warnings.push(format!("overdue: nothing has passed {} for twice as long as the policy wants", overdue.join(" and ")));
    }
    if let Some(ahead) = newest.filter(|moment| !is_past(*moment, now)) {
        warnings.push(format!("the newest backup is of {ahead}, which is to come: the clock here or where it was taken is wrong"));
    }
    if !catalog.problems.is_empty() {
        warnings.push(format!("{} objects of the repository are not as they should be: lifeboat verify --all", catalog.problems.len()));
    }
    warnings
}

#[cfg(test)]
mod tests;
