//! Could I restore now? A list of what a recovery needs, looked at without changing anything and without booting anything.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use vault::backup_id::BackupId;
use vault::key::Key;
use vault::manifest::{Manifest, Rung};
use vault::mark::{Outcome as Ending, Statement};
use vault::name::ClusterName;
use vault::repository::{Backup, Catalog};
use vault::seal::Identities;

use super::{Request, run};
use crate::failure::{Code, Failure, Outcome};
use crate::place::Which;
use crate::progress::Progress;
use crate::verify::{self, How};
use crate::{restore, select, try_etcd};

/// Bytes that are fetched to find out how fast the store is.
const SAMPLE: u64 = 16 << 20;

/// How it stands with one thing that a recovery needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is there.
    Ready,
    /// A recovery goes without it, or it may not be what is wanted.
    Doubtful,
    /// A recovery fails without it.
    Missing,
}

/// One thing that a recovery needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What: `backup`, `proof`, `objects`, `key`, `room`, `etcd`, `time`. Stable.
    pub what: &'static str,
    /// How it stands.
    pub state: State,
    /// In words.
    pub words: String,
}

impl Item {
    fn new(what: &'static str, state: State, words: impl Into<String>) -> Self {
        Self { what, state, words: words.into() }
    }
}

/// What a recovery would rest on.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// The repository, as it was named.
    pub repository: String,
    /// The cluster.
    pub cluster: ClusterName,
    /// The backup that would be restored.
    pub backup: BackupId,
    /// When it was taken.
    pub taken: Timestamp,
    /// How long a recovery would take; none where that cannot be told.
    pub expected: Option<Duration>,
    /// The list.
    pub items: Vec<Item>,
    /// What keeps the backup from being opened.
    locked: Option<Failure>,
}

impl Rehearsal {
    /// Why the command does not end well; none when a recovery has all it needs.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        let missing: Vec<&Item> = self.items.iter().filter(|item| item.state == State::Missing).collect();
        let first = missing.first()?;
        if let (Some(locked), [_]) = (&self.locked, &missing[..]) {
            return Some(locked.clone());
        }
        let what = format!("a recovery would lack {} of {} things it needs", missing.len(), self.items.len());
        Some(Failure::failed(what).object(self.backup).cause(format!("{}: {}", first.what, first.words)).again())
    }
}

/// Looks. Of [`Request::which`] the first one counts. Nothing is written anywhere.
///
/// # Errors
/// The repository cannot be read, or there is no backup; an identity cannot be read.
pub async fn rehearse(request: Request, progress: Arc<dyn Progress>) -> Outcome<Rehearsal> {
    let loaded = select::load(&request.place, request.cluster.as_ref()).await?;
    let which = request.which.first().map_or("latest", String::as_str);
    let found = select::find(&loaded.catalog, &Which::Named(which.to_owned()), &request.place)?;
    let backup = found.backup;
    let manifest = &backup.manifest;
    let mut items = vec![age(manifest, Timestamp::now()), proof(backup)];
    let objects = objects(&request, &loaded, backup, &progress).await?;
    items.push(objects);
    let identities = Arc::new(run::opening(&request).await?.read()?);
    let locked = select::open(&loaded.repository, backup, &identities).await.err();
    items.push(key(manifest, locked.as_ref()));
    items.push(room(&request.directory, manifest));
    items.push(etcd(&request, manifest).await);
    let (expected, time) = match by_drills(&drills(&loaded.catalog), manifest.snapshot.db_size) {
        Some((expected, at)) => {
            (Some(expected), Item::new("time", State::Ready, format!("about {}, by the drill of {at:.0}", human(expected))))
        }
        None => by_sample(&loaded, manifest).await,
    };
    items.push(time);
    progress.done();
    let cluster = loaded.catalog.cluster.clone();
    let locked = locked.filter(|failure| failure.code == Code::NoKey);
    Ok(Rehearsal { repository: request.place.url, cluster, backup: backup.id(), taken: manifest.moment(), expected, items, locked })
}

fn age(manifest: &Manifest, now: Timestamp) -> Item {
    let old = now.duration_since(manifest.moment()).max(jiff::SignedDuration::ZERO);
    let old = Duration::try_from(old).unwrap_or_default();
    let words = format!(
        "{} of revision {}, taken {:.0}: what came in the {} since is lost",
        manifest.id,
        manifest.revision,
        manifest.moment(),
        human(old)
    );
    Item::new("backup", State::Ready, words)
}

fn proof(backup: &Backup) -> Item {
    let proof = &backup.proof;
    if let Some(failed) = &proof.failed {
        let words = format!("a check of it failed at {:.0}: {}", failed.at, failed.detail.as_deref().unwrap_or("damaged"));
        return Item::new("proof", State::Doubtful, words);
    }
    match (proof.rung, proof.at) {
        (Rung::Booted, Some(at)) => Item::new("proof", State::Ready, format!("an etcd was booted from it at {at:.0}")),
        (rung, Some(at)) => Item::new("proof", State::Doubtful, format!("{} at {at:.0}, and never drilled", rung.as_str())),
        (_, None) => Item::new("proof", State::Doubtful, "never checked, and never drilled"),
    }
}

async fn objects(request: &Request, loaded: &select::Found, backup: &Backup, progress: &Arc<dyn Progress>) -> Outcome<Item> {
    let how = How {
        rung: Rung::Stored,
        identities: Arc::new(Identities::new()),
        spool: request.spool.clone(),
        allow_unsigned: request.place.allow_unsigned,
    };
    let checked = verify::check(&loaded.repository, &loaded.catalog, backup, &how, progress).await?;
    Ok(match checked.findings.first() {
        Some(first) => Item::new("objects", State::Missing, first.to_string()),
        None => {
            let objects = &backup.manifest.objects;
            let bytes: u64 = objects.iter().map(|object| object.size).sum();
            Item::new("objects", State::Ready, format!("all {} are in the store, {bytes} bytes", objects.len()))
        }
    })
}

fn key(manifest: &Manifest, locked: Option<&Failure>) -> Item {
    match locked {
        Some(failure) => Item::new("key", State::Missing, run::words(failure)),
        None if manifest.layers.age => Item::new("key", State::Ready, "what was given opens it"),
        None => Item::new("key", State::Ready, "none is needed: it is not sealed"),
    }
}

fn room(directory: &Path, manifest: &Manifest) -> Item {
    let mut existing: PathBuf = directory.to_owned();
    while !existing.exists() && existing.pop() {}
    let needed = restore::room_needed(manifest);
    match disk::free_space(&existing) {
        Ok(free) if free >= needed => {
            Item::new("room", State::Ready, format!("{needed} bytes of {free} that are free in {}", directory.display()))
        }
        Ok(free) => Item::new("room", State::Missing, format!("{needed} bytes are needed in {}, {free} are free", directory.display())),
        Err(error) => Item::new("room", State::Missing, format!("it cannot be told for {}: {error}", directory.display())),
    }
}

async fn etcd(request: &Request, manifest: &Manifest) -> Item {
    let binary = match try_etcd::find(request.etcd.as_deref(), &request.search).await {
        Ok(binary) => binary,
        // Who names one means it; else a recovery may run elsewhere, in a container for one.
        Err(failure) => {
            let named = request.etcd.as_ref().map(|path| format!("{}: ", path.display()));
            let state = if named.is_some() { State::Missing } else { State::Doubtful };
            return Item::new("etcd", state, format!("{}{}", named.unwrap_or_default(), run::words(&failure)));
        }
    };
    match run::fits(manifest, &binary) {
        Ok(()) => Item::new("etcd", State::Ready, format!("{} at {}", binary.version, binary.path.display())),
        Err(failure) => Item::new("etcd", State::Doubtful, run::words(&failure)),
    }
}

/// A drill that passed: when, how many bytes its database had, and how long the recovery took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Took {
    at: Timestamp,
    bytes: u64,
    seconds: u64,
}

fn drills(catalog: &Catalog) -> Vec<Took> {
    let took = |statement: &Statement| match statement {
        Statement::Drill(id, data) if data.result == Ending::Passed => {
            Some(Took { at: data.at, bytes: catalog.backup(id)?.manifest.snapshot.db_size, seconds: data.seconds? })
        }
        _ => None,
    };
    catalog.marks.iter().filter(|entry| entry.counts).filter_map(|entry| took(&entry.mark.statement)).collect()
}

/// By the last drill. A larger backup takes longer in proportion; a smaller one is not assumed to be faster, for etcd has to start all the same.
fn by_drills(drills: &[Took], bytes: u64) -> Option<(Duration, Timestamp)> {
    let last = drills.iter().max_by_key(|took| took.at)?;
    let share = (bytes as f64 / last.bytes.max(1) as f64).clamp(1.0, LARGEST_SHARE);
    Some((Duration::from_secs(last.seconds).mul_f64(share), last.at))
}

/// Beyond this a proportion says nothing.
const LARGEST_SHARE: f64 = 1e6;

async fn by_sample(loaded: &select::Found, manifest: &Manifest) -> (Option<Duration>, Item) {
    let Some(data) = manifest.data() else { return (None, Item::new("time", State::Missing, "the backup has no snapshot object")) };
    let key = Key::Snapshot(manifest.cluster.clone(), manifest.id, data.name.clone()).to_string();
    let begun = Instant::now();
    match loaded.repository.store().get_range(&key, 0..data.size.min(SAMPLE)).await {
        Ok(bytes) => {
            let expected = begun.elapsed().mul_f64((data.size as f64 / bytes.len().max(1) as f64).clamp(1.0, LARGEST_SHARE));
            let words = format!("about {} to fetch it, by a sample; how long etcd takes only a drill tells", human(expected));
            (Some(expected), Item::new("time", State::Doubtful, words))
        }
        Err(error) => (None, Item::new("time", State::Missing, format!("a sample cannot be read: {error}"))),
    }
}

fn human(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_last_drill_tells_how_long_it_takes() {
        let took = |second, bytes, seconds| Took { at: Timestamp::from_second(second).unwrap(), bytes, seconds };
        let drills = [took(1, 100, 1), took(9, 100, 10), took(5, 100, 99)];
        let expect = |bytes| by_drills(&drills, bytes).map(|(expected, at)| (expected.as_secs(), at.as_second()));
        assert_eq!(expect(100), Some((10, 9)));
        assert_eq!(expect(300), Some((30, 9)));
        assert_eq!(expect(1), Some((10, 9)), "a small one is not faster than etcd starts");
        assert_eq!(by_drills(&[], 1), None);
        assert!(by_drills(&[took(1, 0, 10)], u64::MAX).is_some());
    }

    #[test]
    fn what_is_missing_is_said_first_and_a_doubt_is_no_failure() {
        let item = |what, state| Item::new(what, state, "why");
        let rehearsal = |items, locked| Rehearsal {
            repository: "file:///r".to_owned(),
            cluster: "prod".parse().unwrap(),
            backup: "20261121T020004Z-7qk2m9".parse().unwrap(),
            taken: Timestamp::UNIX_EPOCH,
            expected: None,
            items,
            locked,
        };
        let locked = Some(Failure::new(Code::NoKey, "locked"));
        assert!(rehearsal(vec![item("proof", State::Doubtful)], None).failure().is_none());
        assert_eq!(rehearsal(vec![item("key", State::Missing)], locked.clone()).failure().unwrap().code, Code::NoKey);
        let both = rehearsal(vec![item("key", State::Missing), item("room", State::Missing), item("etcd", State::Ready)], locked);
        let failure = both.failure().unwrap();
        assert_eq!((failure.code, failure.cause.as_deref()), (Code::Failed, Some("key: why")));
        assert!(failure.what.contains("2 of 3"), "{failure}");
    }

    #[test]
    fn times_are_for_people() {
        for (seconds, text) in [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7_200, "2 h"), (200_000, "2 days")] {
            assert_eq!(human(Duration::from_secs(seconds)), text);
        }
    }
}
