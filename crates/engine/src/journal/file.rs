//! One journal: its file, and what its lines come to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use ulid::Ulid;

use super::{Event, Facts, Plan, SCHEMA, Step};
use crate::failure::{Failure, Outcome};
use crate::limits::{MAX_JOURNAL_BYTES, MAX_JOURNAL_LINE};

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// [`SCHEMA`].
    pub schema: String,
    /// The journal's ULID.
    pub id: String,
    /// The verb that carries the plan out.
    pub verb: String,
    /// The cluster, as the verb names it: an id or a name.
    pub cluster: String,
    /// When the plan was made.
    pub created: Timestamp,
    /// The version of Lifeboat that made it.
    pub tool: String,
    /// The plan.
    pub plan: Value,
}

#[derive(Serialize, Deserialize)]
struct Line {
    at: Timestamp,
    #[serde(flatten)]
    event: Event,
}

/// How far a step is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// Not begun.
    #[default]
    Waiting,
    /// Begun, and neither done nor failed: a run was stopped in it.
    Begun,
    /// Given up for now, with the reason.
    Failed(String),
    /// Done, with what it left behind.
    Done(Facts),
}

/// Everything that is known of a step.
#[derive(Clone, Debug, Default)]
struct Record {
    standing: Standing,
    notes: Vec<Facts>,
}

/// An open journal with its plan.
#[derive(Debug)]
pub struct Journal<P> {
    path: PathBuf,
    file: disk::File,
    /// Where the next line goes.
    end: u64,
    head: Head,
    plan: P,
    records: Vec<Record>,
    returns: usize,
    closed: Option<Event>,
    /// A line could not be written: what the file holds behind `end` is not known.
    broken: bool,
    _lock: Arc<disk::File>,
}

/// What is wrong with a line, in words.
fn garbled(path: &Path, line: usize, what: &str) -> Failure {
    Failure::failed("the journal of an earlier run cannot be read, so it is not known how far that came")
        .object(format!("{}, line {line}", path.display()))
        .cause(format!("{what}; look at what was done, move the file away, and the plan is made anew"))
        .next(["mv", &path.to_string_lossy(), &format!("{}.aside", path.to_string_lossy())])
}

fn read(path: &Path) -> Outcome<(disk::File, Vec<u8>)> {
    let wrong = |error: std::io::Error| Failure::failed(format!("the journal cannot be read: {error}")).object(path.display()).again();
    let file = disk::File::open_read_write(path).map_err(wrong)?;
    let length = file.len().map_err(wrong)?;
    if length > MAX_JOURNAL_BYTES {
        return Err(garbled(path, 1, &format!("the file has {length} bytes, more than a journal ever has")));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0).map_err(wrong)?;
    Ok((file, bytes))
}

/// The lines that were written to their end; what follows the last line feed was cut off by a crash.
fn whole_lines(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    (1..).zip(bytes.split_inclusive(|byte| *byte == b'\n')).filter(|(_, line)| line.last() == Some(&b'\n'))
}

fn parse_head(path: &Path, bytes: &[u8]) -> Outcome<Head> {
    // The first line appears with the file or not at all.
    let (_, line) = whole_lines(bytes).next().ok_or_else(|| garbled(path, 1, "it has no whole first line"))?;
    let head: Head = parse(path, 1, line)?;
    if head.schema != SCHEMA {
        return Err(garbled(path, 1, &format!("its schema is {:?}, and this version reads {SCHEMA:?}", head.schema)));
    }
    Ok(head)
}

fn parse<'a, T: Deserialize<'a>>(path: &Path, number: usize, line: &'a [u8]) -> Outcome<T> {
    if line.len() > MAX_JOURNAL_LINE {
        return Err(garbled(path, number, &format!("it has {} bytes, more than a line ever has", line.len())));
    }
    serde_json::from_slice(line).map_err(|error| garbled(path, number, &error.to_string()))
}

pub(super) fn read_head(path: &Path) -> Outcome<Head> {
    let (_, bytes) = read(path)?;
    parse_head(path, &bytes)
}

impl<P: Plan> Journal<P> {
    pub(super) fn create(path: &Path, id: Ulid, verb: &str, cluster: &str, plan: P, lock: Arc<disk::File>) -> Outcome<Self> {
        let wrong =
            |error: &dyn std::fmt::Display| Failure::failed(format!("the journal cannot be begun: {error}")).object(path.display()).again();
        let head = Head {
            schema: SCHEMA.to_owned(),
            id: id.to_string(),
            verb: verb.to_owned(),
            cluster: cluster.to_owned(),
            created: Timestamp::now(),
            tool: env!("CARGO_PKG_VERSION").to_owned(),
            plan: serde_json::to_value(&plan).map_err(|error| wrong(&error))?,
        };
        let mut line = serde_json::to_vec(&head).map_err(|error| wrong(&error))?;
        line.push(b'\n');
        if line.len() > MAX_JOURNAL_LINE {
            return Err(wrong(&"the plan is longer than a line may be"));
        }
        disk::publish_new(path, &line, 0o600).map_err(|error| wrong(&error))?;
        let file = disk::File::open_read_write(path).map_err(|error| wrong(&error))?;
        let records = vec![Record::default(); plan.steps().len()];
        let (path, end) = (path.to_owned(), line.len() as u64);
        Ok(Self { path, file, end, head, plan, records, returns: 0, closed: None, broken: false, _lock: lock })
    }

    pub(super) fn open(path: &Path, lock: Arc<disk::File>) -> Outcome<Self> {
        let (file, bytes) = read(path)?;
        let head = parse_head(path, &bytes)?;
        let plan: P = serde_json::from_value(head.plan.clone())
            .map_err(|error| garbled(path, 1, &format!("its plan is none that this version of Lifeboat carries out: {error}")))?;
        let records = vec![Record::default(); plan.steps().len()];
        let mut journal =
            Self { path: path.to_owned(), file, end: 0, head, plan, records, returns: 0, closed: None, broken: false, _lock: lock };
        for (number, line) in whole_lines(&bytes) {
            journal.end += line.len() as u64;
            if number > 1 {
                let line: Line = parse(path, number, line)?;
                journal.apply(line.event).map_err(|what| garbled(path, number, &what))?;
            }
        }
        Ok(journal)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its first line.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &P {
        &self.plan
    }

    /// Whether there is still something to do, or at least to conclude.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.closed.is_none()
    }

    /// How far a step is.
    #[must_use]
    pub fn standing(&self, step: usize) -> &Standing {
        self.records.get(step).map_or(&Standing::Waiting, |record| &record.standing)
    }

    /// The first step that is not done.
    #[must_use]
    pub fn next_step(&self) -> Option<usize> {
        self.records.iter().position(|record| !matches!(record.standing, Standing::Done(_)))
    }

    /// What the last step of this name left behind, if one is done.
    #[must_use]
    pub fn facts(&self, name: &str) -> Option<&Facts> {
        let steps = self.plan.steps().iter().zip(&self.records).rev();
        steps.filter(|(step, _)| step.name() == name).find_map(|(_, record)| match &record.standing {
            Standing::Done(facts) => Some(facts),
            _ => None,
        })
    }

    /// What every step of this name that is done left behind, in their order.
    #[must_use]
    pub fn all_facts(&self, name: &str) -> Vec<&Facts> {
        let steps = self.plan.steps().iter().zip(&self.records);
        let done = steps.filter(|(step, _)| step.name() == name).filter_map(|(_, record)| match &record.standing {
            Standing::Done(facts) => Some(facts),
            _ => None,
        });
        done.collect()
    }

    /// What a step wanted remembered since it was begun, in every run.
    #[must_use]
    pub fn notes(&self, step: usize) -> &[Facts] {
        self.records.get(step).map_or(&[], |record| &record.notes)
    }

    /// How often the plan went back to an earlier step.
    #[must_use]
    pub fn returns(&self) -> usize {
        self.returns
    }

    /// Ends the plan where it is.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn abandon(mut self) -> Outcome<()> {
        self.write(Event::Abandoned)
    }

    /// Writes what happened. It is durable when this returns.
    pub(super) fn write(&mut self, event: Event) -> Outcome<()> {
        let path = self.path.clone();
        let wrong = |error: &dyn std::fmt::Display| {
            Failure::failed(format!("the journal cannot be written: {error}"))
                .object(path.display())
                .cause("what cannot be recorded is not done; the same command goes on from here")
                .again()
        };
        if self.broken {
            return Err(wrong(&"an earlier line could not be written"));
        }
        let mut line = serde_json::to_vec(&Line { at: Timestamp::now(), event: event.clone() }).map_err(|error| wrong(&error))?;
        line.push(b'\n');
        let end = self.end + line.len() as u64;
        if line.len() > MAX_JOURNAL_LINE || end > MAX_JOURNAL_BYTES {
            return Err(wrong(&"it would become longer than a journal may be"));
        }
        self.apply(event).map_err(|what| wrong(&format!("{what}; this is a bug in Lifeboat")))?;
        let written = self.cut_tail().and_then(|()| self.file.write_all_at(&line, self.end)).and_then(|()| self.file.sync());
        self.broken = written.is_err();
        written.map_err(|error| wrong(&error))?;
        self.end = end;
        Ok(())
    }

    /// Removes what a crash left of a line: a shorter line over it would leave its end behind.
    fn cut_tail(&self) -> std::io::Result<()> {
        if self.file.len()? > self.end { self.file.set_len(self.end) } else { Ok(()) }
    }

    /// What an event changes. Refuses one that cannot follow on those before it.
    fn apply(&mut self, event: Event) -> Result<(), String> {
        if self.closed.is_some() {
            return Err("something follows the end of the plan".to_owned());
        }
        let steps = self.records.len();
        let next = self.next_step();
        let is_next = |step: usize| if next == Some(step) { Ok(()) } else { Err(format!("step {step} is not the one whose turn it is")) };
        let is_begun = |standing: &Standing| {
            if *standing == Standing::Begun { Ok(()) } else { Err("a step goes on that was not begun".to_owned()) }
        };
        match event {
            Event::Begun { step, name } => {
                is_next(step)?;
                let meant = self.plan.steps().get(step).map_or("", Step::name);
                if meant != name {
                    return Err(format!("step {step} is called {name:?}, and {meant:?} in the plan"));
                }
                self.records[step].standing = Standing::Begun;
            }
            Event::Noted { step, facts } => {
                is_next(step)?;
                is_begun(&self.records[step].standing)?;
                self.records[step].notes.push(facts);
            }
            Event::Done { step, facts } => {
                is_next(step)?;
                is_begun(&self.records[step].standing)?;
                self.records[step].standing = Standing::Done(facts);
            }
            Event::Failed { step, reason } => {
                is_next(step)?;
                self.records[step].standing = Standing::Failed(reason);
            }
            Event::Undone { step, .. } => {
                if step >= steps || next.is_some_and(|next| step > next) {
                    return Err(format!("step {step} cannot be undone: it was not done"));
                }
                self.records[step..].fill(Record::default());
                self.returns += 1;
            }
            Event::Finished if next.is_some() => return Err("the plan ends before its last step".to_owned()),
            Event::Finished | Event::Abandoned => self.closed = Some(event),
        }
        Ok(())
    }
}
