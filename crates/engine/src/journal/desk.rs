//! The directory of journals, and the lock under which one of them is driven.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ulid::Ulid;

use super::Plan;
use super::file::{self, Journal};
use crate::exclusion::state_directory;
use crate::failure::{Failure, Outcome};
use crate::limits::MAX_JOURNALS;

/// The end of a journal's name.
const EXTENSION: &str = "jsonl";

/// A directory with journals.
#[derive(Clone, Debug)]
pub struct Journals {
    directory: PathBuf,
}

/// The right to drive the journals of one verb on one cluster, until it and every journal from it are dropped.
#[derive(Debug)]
pub struct Desk {
    directory: PathBuf,
    verb: String,
    cluster: String,
    lock: Arc<disk::File>,
}

impl Journals {
    /// Those of this user on this machine: `$XDG_STATE_HOME/lifeboat/journal`, for root `/var/lib/lifeboat/journal`.
    ///
    /// # Errors
    /// Where neither `HOME` nor `XDG_STATE_HOME` is set.
    pub fn usual() -> Outcome<Self> {
        let state = state_directory().ok_or_else(|| {
            Failure::failed("there is no place for the journal of this plan")
                .cause("neither HOME nor XDG_STATE_HOME is set; a plan that could not be resumed is not begun")
                .again()
        })?;
        Ok(Self::at(state.join("journal")))
    }

    /// Those in a directory, which is made when the first one is begun.
    #[must_use]
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Takes the right to drive the journals of a verb on a cluster.
    ///
    /// # Errors
    /// Another process has it; the directory cannot be written.
    pub fn hold(&self, verb: &str, cluster: &str) -> Outcome<Desk> {
        let path = self.directory.join(format!("{}-{}.lock", plain(verb), plain(cluster)));
        let wrong = |error: std::io::Error| {
            Failure::failed(format!("the journal cannot be kept: {error}"))
                .object(path.display())
                .cause("a plan that could not be resumed is not begun")
                .again()
        };
        disk::create_dir_all(&self.directory, 0o700).map_err(wrong)?;
        let lock = match disk::File::create_new(&path, 0o600) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => disk::File::open_read_write(&path),
            made => made,
        }
        .map_err(wrong)?;
        if !lock.try_lock_exclusive().map_err(wrong)? {
            return Err(Failure::failed(format!("another 'lifeboat {verb}' works on this cluster from this machine"))
                .object(cluster)
                .cause("one plan is carried out by one process; wait until the other one has ended")
                .again());
        }
        let (verb, cluster) = (verb.to_owned(), cluster.to_owned());
        Ok(Desk { directory: self.directory.clone(), verb, cluster, lock: Arc::new(lock) })
    }
}

impl Desk {
    /// The journal of this verb on this cluster that neither finished nor was abandoned, if there is one.
    ///
    /// # Errors
    /// A journal that cannot be read: it could be the one, so nothing is begun beside it. More than one open journal.
    pub fn find<P: Plan>(&self) -> Outcome<Option<Journal<P>>> {
        let mut open = Vec::new();
        for path in self.paths()? {
            let head = file::read_head(&path)?;
            if head.verb != self.verb || head.cluster != self.cluster {
                continue;
            }
            let journal = Journal::open(&path, Arc::clone(&self.lock))?;
            if journal.is_open() {
                open.push(journal);
            }
        }
        if open.len() > 1 {
            let paths: Vec<String> = open.iter().map(|journal| journal.path().display().to_string()).collect();
            return Err(Failure::failed("more than one journal of this plan is open")
                .object(&self.cluster)
                .cause(format!("{}; this does not happen by itself: keep the one that is true, and move the others away", paths.join(", ")))
                .next(["mv", &paths[0], &format!("{}.aside", paths[0])]));
        }
        Ok(open.pop())
    }

    /// Begins a journal. The plan is durable when this returns.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn begin<P: Plan>(&self, plan: P) -> Outcome<Journal<P>> {
        let id = fresh_id()?;
        let path = self.directory.join(format!("{id}.{EXTENSION}"));
        Journal::create(&path, id, &self.verb, &self.cluster, plan, Arc::clone(&self.lock))
    }

    /// Every journal in the directory, the oldest first.
    fn paths(&self) -> Outcome<Vec<PathBuf>> {
        let wrong = |error: std::io::Error| {
            Failure::failed(format!("the journals cannot be listed: {error}")).object(self.directory.display()).again()
        };
        let entries = disk::list_dir(&self.directory).map_err(wrong)?;
        let is_journal = |name: &Path| {
            let stem = name.file_stem().and_then(|stem| stem.to_str());
            name.extension().is_some_and(|extension| extension == EXTENSION) && stem.is_some_and(|stem| Ulid::from_string(stem).is_ok())
        };
        let mut paths: Vec<PathBuf> = entries
            .into_iter()
            .filter(|entry| entry.kind == disk::Kind::File && is_journal(Path::new(&entry.name)))
            .map(|entry| self.directory.join(entry.name))
            .collect();
        paths.sort();
        if paths.len() > MAX_JOURNALS {
            return Err(Failure::failed(format!("there are {} journals here, more than are read", paths.len()))
                .object(self.directory.display())
                .cause("move the old ones away")
                .next(["ls", &self.directory.to_string_lossy()]));
        }
        Ok(paths)
    }
}

fn fresh_id() -> Outcome<Ulid> {
    use ring::rand::SecureRandom as _;
    let mut random = [0; 16];
    ring::rand::SystemRandom::new().fill(&mut random).map_err(|_| Failure::failed("the system gives no random bytes"))?;
    let milliseconds = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
    Ok(Ulid::from_parts(milliseconds, u128::from_le_bytes(random)))
}

/// A part of a file name from any text: whatever is not plain becomes `%NN`.
fn plain(text: &str) -> String {
    let mut name = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"_.-".contains(&byte) {
            name.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(name, "%{byte:02x}");
        }
    }
    name
}
