//! A plan over a small world in memory, stopped at every byte of its journal.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::failure::{Code, Failure, Outcome};
use crate::progress::Silent;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Work {
    Save,
    Reset(String),
    Check,
}

impl Step for Work {
    fn name(&self) -> &'static str {
        match self {
            Self::Save => "save",
            Self::Reset(_) => "reset",
            Self::Check => "check",
        }
    }

    fn words(&self) -> String {
        format!("{self:?}")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Works {
    steps: Vec<Work>,
}

impl Plan for Works {
    type Step = Work;

    fn steps(&self) -> &[Work] {
        &self.steps
    }
}

fn works() -> Works {
    Works { steps: vec![Work::Save, Work::Reset("a".to_owned()), Work::Reset("b".to_owned()), Work::Check] }
}

fn facts(value: Value) -> Facts {
    value.as_object().cloned().unwrap_or_default()
}

/// What was done to each thing, and how often.
#[derive(Clone, Debug, Default)]
struct World {
    done: BTreeMap<String, u32>,
    /// Failures still to come, by step.
    fail: BTreeMap<usize, u32>,
    /// How often the check finds that a step has lost its effect.
    lost: u32,
}

impl World {
    fn thing(step: &Work) -> String {
        match step {
            Work::Reset(node) => format!("reset {node}"),
            other => other.name().to_owned(),
        }
    }
}

impl Driver<Works> for World {
    async fn already(&mut self, step: usize, journal: &Journal<Works>) -> Outcome<Option<Facts>> {
        let thing = Self::thing(&journal.plan().steps[step]);
        Ok(self.done.contains_key(&thing).then(|| facts(json!({"thing": thing}))))
    }

    async fn carry_out(&mut self, step: usize, notebook: &mut Notebook<'_, Works>) -> Outcome<Turn> {
        let work = notebook.plan().steps[step].clone();
        if let Some(left) = self.fail.get_mut(&step).filter(|left| **left > 0) {
            *left -= 1;
            return Err(Failure::failed("not now").cause("the network"));
        }
        if let Work::Reset(_) = work {
            // What an earlier step left is there, and what this one must remember is durable before the effect.
            assert_eq!(notebook.facts("save").unwrap()["thing"], "save");
            notebook.note(facts(json!({"boot": 7})))?;
            assert_eq!(notebook.notes().last().unwrap()["boot"], 7);
        }
        if work == Work::Check && self.lost > 0 {
            self.lost -= 1;
            self.done.remove("reset b");
            return Ok(Turn::BackTo { step: 2, reason: "b rebooted".to_owned() });
        }
        let thing = Self::thing(&work);
        *self.done.entry(thing.clone()).or_default() += 1;
        Ok(Turn::Done(facts(json!({"thing": thing}))))
    }
}

fn drive(journal: &mut Journal<Works>, world: &mut World) -> Outcome<()> {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(journal, world, &Silent))
}

fn desk(directory: &Path) -> Desk {
    Journals::at(directory).hold("recover talos", "prod/1").unwrap()
}

fn everything() -> BTreeMap<String, u32> {
    ["save", "reset a", "reset b", "check"].map(|thing| (thing.to_owned(), 1)).into_iter().collect()
}

/// A journal that was driven to its end: its name and its bytes.
fn whole(directory: &Path) -> (std::path::PathBuf, Vec<u8>) {
    let mut journal = desk(directory).begin(works()).unwrap();
    let mut world = World::default();
    drive(&mut journal, &mut world).unwrap();
    assert_eq!(world.done, everything());
    let path = journal.path().to_owned();
    let bytes = std::fs::read(&path).unwrap();
    (path, bytes)
}

#[test]
fn a_run_that_was_killed_anywhere_goes_on_and_does_everything_once() {
    let directory = tempfile::tempdir().unwrap();
    let (path, bytes) = whole(directory.path());
    let head = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for length in head..bytes.len() {
        // Of the step under way it is not known whether it had its effect: both worlds are possible.
        for had_its_effect in [false, true] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let desk = desk(directory.path());
            let mut journal: Journal<Works> = desk.find().unwrap().expect("it is still open");
            let next = journal.next_step();
            let mut world = World::default();
            for (at, step) in works().steps.iter().enumerate() {
                let under_way = next == Some(at) && had_its_effect && *journal.standing(at) == Standing::Begun;
                if next.is_none_or(|next| at < next) || under_way {
                    world.done.insert(World::thing(step), 1);
                }
            }
            drive(&mut journal, &mut world).unwrap();
            assert_eq!(world.done, everything(), "cut at byte {length}");
            assert!(!journal.is_open());
            drop(journal);
            assert!(desk.find::<Works>().unwrap().is_none(), "a finished plan is not found again");
        }
    }
}

#[test]
fn a_failed_step_is_tried_again_by_the_next_run() {
    let directory = tempfile::tempdir().unwrap();
    let desk = desk(directory.path());
    let mut journal = desk.begin(works()).unwrap();
    let mut world = World { fail: BTreeMap::from([(1, 2)]), ..World::default() };
    for _ in 0..2 {
        assert_eq!(drive(&mut journal, &mut world).unwrap_err().what, "not now");
        drop(journal);
        journal = desk.find().unwrap().unwrap();
        assert_eq!(*journal.standing(1), Standing::Failed("not now: the network".to_owned()));
    }
    drive(&mut journal, &mut world).unwrap();
    assert_eq!(world.done, everything());
}

#[test]
fn an_effect_that_was_lost_is_brought_about_again() {
    let directory = tempfile::tempdir().unwrap();
    let desk = desk(directory.path());
    let mut journal = desk.begin(works()).unwrap();
    let mut world = World { lost: 3, ..World::default() };
    drive(&mut journal, &mut world).unwrap();
    assert_eq!((world.done, journal.returns()), (everything(), 3));
    let mut endless = World { lost: u32::MAX, ..World::default() };
    let failure = drive(&mut desk.begin(works()).unwrap(), &mut endless).unwrap_err();
    assert!(failure.what.contains("does not come to its end"), "{failure}");
}

#[test]
fn one_process_drives_and_the_kernel_frees() {
    let directory = tempfile::tempdir().unwrap();
    let journals = Journals::at(directory.path());
    let held = journals.hold("nospace", "a").unwrap();
    let journal = held.begin(works()).unwrap();
    drop(held);
    // The journal keeps the lock.
    let taken = journals.hold("nospace", "a").unwrap_err();
    assert!(taken.code == Code::Failed && taken.what.contains("another 'lifeboat nospace'"), "{taken}");
    drop(journals.hold("nospace", "b").unwrap());
    drop(journals.hold("recover", "a").unwrap());
    drop(journal);
    let held = journals.hold("nospace", "a").unwrap();
    assert!(held.find::<Works>().unwrap().is_some());
}

#[test]
fn only_the_open_journal_of_the_same_verb_and_cluster_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let journals = Journals::at(directory.path().join("deep/journal"));
    drop(journals.hold("nospace", "a").unwrap().begin(works()).unwrap());
    drop(journals.hold("recover", "b").unwrap().begin(works()).unwrap());
    std::fs::write(directory.path().join("deep/journal/notes.jsonl"), "mine").unwrap();
    let desk = journals.hold("nospace", "b").unwrap();
    assert!(desk.find::<Works>().unwrap().is_none());
    let journal = desk.begin(works()).unwrap();
    assert_eq!((journal.head().verb.as_str(), journal.head().cluster.as_str()), ("nospace", "b"));
    journal.abandon().unwrap();
    assert!(desk.find::<Works>().unwrap().is_none(), "an abandoned plan is not found again");
    let two = [desk.begin(works()).unwrap(), desk.begin(works()).unwrap()];
    let failure = desk.find::<Works>().unwrap_err();
    assert!(failure.cause.unwrap().contains(&two[0].path().display().to_string()));
}

#[test]
fn a_garbled_line_is_named_and_never_a_panic() {
    let directory = tempfile::tempdir().unwrap();
    let (path, bytes) = whole(directory.path());
    let desk = desk(directory.path());
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    for (at, line) in lines.iter().enumerate() {
        for garbage in
            [&b"{\n"[..], b"\xff\xfe\n", b"{\"at\":\"2026-01-01T00:00:00Z\",\"event\":\"begun\",\"step\":99,\"name\":\"x\"}\n", b"\n"]
        {
            let garbled = [&lines[..at].concat(), garbage, &lines[at + 1..].concat()].concat();
            std::fs::write(&path, garbled).unwrap();
            let failure = desk.find::<Works>().unwrap_err();
            assert_eq!(failure.object, Some(format!("{}, line {}", path.display(), at + 1)), "{failure}");
            assert!(failure.next.unwrap().to_string().starts_with("mv "));
        }
        // A line that is gone, or there twice, is noticed by what follows or by the end.
        let twice = [&lines[..=at].concat(), *line, &lines[at + 1..].concat()].concat();
        std::fs::write(&path, twice).unwrap();
        let found = desk.find::<Works>();
        let is_harmless = at > 0 && line.windows(7).any(|part| part == b"\"begun\"" || part == b"\"noted\"");
        assert!(found.is_err() || is_harmless, "line {} twice: {found:?}", at + 1);
    }
    for at in 0..bytes.len() {
        for flip in [1, 0x20, 0x80] {
            let mut flipped = bytes.clone();
            flipped[at] ^= flip;
            std::fs::write(&path, flipped).unwrap();
            let _ = desk.find::<Works>();
        }
    }
}

#[test]
fn what_is_no_journal_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (path, bytes) = whole(directory.path());
    let desk = desk(directory.path());
    let text = String::from_utf8(bytes).unwrap();
    let refused = |content: &str, says: &str| {
        std::fs::write(&path, content).unwrap();
        let failure = desk.find::<Works>().unwrap_err();
        let cause = failure.cause.clone().unwrap();
        assert!(cause.contains(says), "{failure}");
    };
    refused("", "no whole first line");
    refused("{\"schema\"", "no whole first line");
    refused(&text.replace("lifeboat.journal/1", "lifeboat.journal/9"), "lifeboat.journal/9");
    refused(&text.replace("[\"save\"", "[\"dance\""), "its plan is none");
    refused(&format!("{}\n", "x".repeat(MAX_LINE + 1)), "more than a line ever has");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(crate::limits::MAX_JOURNAL_BYTES + 1).unwrap();
    assert!(desk.find::<Works>().unwrap_err().cause.unwrap().contains("more than a journal ever has"));
}

const MAX_LINE: usize = crate::limits::MAX_JOURNAL_LINE;

#[test]
fn the_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let journals = Journals::at(directory.path().join("journal"));
    let journal = journals.hold("v", "c").unwrap().begin(works()).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(journal.path()), mode(&directory.path().join("journal"))), (0o600, 0o700));
}
