//! What a run came to, written down: one `run` mark per change of state, by which a failure is known on another machine too (design part 10).
//!
//! A success after a success needs no mark: its manifest says it. Nothing here ever makes a run fail.

use jiff::Timestamp;
use vault::mark::{Run, RunResult, Statement};
use vault::name::ClusterName;
use vault::repository::Catalog;

use crate::failure::{Code, Failure, Outcome};
use crate::place::{self, PlaceOptions};

/// The longest text of a failure that is kept.
const DETAIL: usize = 500;

/// The verb whose runs are written down.
pub const BACKUP: &str = "backup";

/// The newest word on how runs of `lifeboat backup` end, of those that count.
#[must_use]
pub fn last(catalog: &Catalog) -> Option<&Run> {
    catalog.marks.iter().rev().filter(|entry| entry.counts).find_map(|entry| match &entry.mark.statement {
        Statement::Run(run) if run.verb == BACKUP => Some(run),
        _ => None,
    })
}

/// What a run came to.
#[must_use]
pub fn of(outcome: Result<Code, &Failure>, at: Timestamp) -> Run {
    let (result, exit, detail) = match outcome {
        Ok(Code::Ok) => (RunResult::Ok, Code::Ok, None),
        // Committed, and never to be relied on: the members differ, and no majority agrees.
        Ok(Code::Unproven) => (RunResult::Failed, Code::Unproven, Some("the members dispute the content".to_owned())),
        Ok(code) => (RunResult::Warnings, code, None),
        Err(failure) => (RunResult::Failed, failure.code, Some(words(failure))),
    };
    Run { verb: BACKUP.to_owned(), result, exit: exit as u8, at, detail }
}

fn words(failure: &Failure) -> String {
    let parts = [failure.object.as_ref().map(|object| format!(" ({object})")), failure.cause.as_ref().map(|cause| format!(": {cause}"))];
    let text = format!("{}{}", failure.what, parts.into_iter().flatten().collect::<String>());
    text.chars().filter(|character| !character.is_control()).take(DETAIL).collect()
}

/// Whether this run has to be written down after that one.
#[must_use]
pub fn is_change(before: Option<&Run>, run: &Run) -> bool {
    match before {
        None => run.result == RunResult::Failed,
        Some(before) => before.result != run.result || (run.result == RunResult::Failed && before.exit != run.exit),
    }
}

/// Writes a run down where it changes the state. Asks the store only where it may.
///
/// # Errors
/// The store cannot be reached or refuses, or the key cannot be read. The run itself is not touched by that.
pub async fn record(options: &PlaceOptions, cluster: &ClusterName, run: Run, signing: Option<&std::path::Path>) -> Outcome<bool> {
    let signing = signing.map(place::signing_key).transpose()?;
    let repository = place::open(options).await?;
    let catalog = place::catalog(&repository, options, cluster).await?;
    if !is_change(last(&catalog), &run) {
        return Ok(false);
    }
    let written = repository.write_mark(cluster, Statement::Run(run), catalog.newest_mark(), signing.as_ref(), Timestamp::now()).await;
    written.map(|_| true).map_err(|error| place::failure(options, "what the run came to cannot be written down", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(result: RunResult, exit: u8) -> Run {
        Run { verb: BACKUP.to_owned(), result, exit, at: Timestamp::UNIX_EPOCH, detail: None }
    }

    #[test]
    fn one_mark_per_change_of_state() {
        use RunResult::{Failed, Ok, Warnings};
        assert!(!is_change(None, &run(Ok, 0)), "the manifest says it");
        assert!(is_change(None, &run(Failed, 30)));
        assert!(!is_change(Some(&run(Failed, 30)), &run(Failed, 30)));
        assert!(is_change(Some(&run(Failed, 30)), &run(Failed, 31)), "it fails for another reason");
        assert!(is_change(Some(&run(Failed, 30)), &run(Ok, 0)));
        assert!(is_change(Some(&run(Ok, 0)), &run(Warnings, 3)));
        assert!(!is_change(Some(&run(Ok, 0)), &run(Ok, 0)));
    }

    #[test]
    fn a_failure_is_one_line_of_bounded_length() {
        let failure = Failure::new(Code::SourceUnreachable, "no member answers").object("https://a:2379").cause("line\nline ".repeat(200));
        let run = of(Err(&failure), Timestamp::UNIX_EPOCH);
        let detail = run.detail.unwrap();
        assert!(
            detail.starts_with("no member answers (https://a:2379): line") && detail.chars().count() == DETAIL && !detail.contains('\n')
        );
        assert_eq!((run.result, run.exit), (RunResult::Failed, 30));
    }
}
