//! The counter, and the end of the process.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use super::forget::Forget;
use super::{Change, EXIT_CODE, MODEL_FAILED};

struct State {
    at: Option<u64>,
    after: Option<u64>,
    count_file: Option<PathBuf>,
    count: u64,
    forget: Option<Forget>,
}

static STATE: LazyLock<Mutex<State>> = LazyLock::new(|| Mutex::new(State::from_env()));

/// Ends the process for a mistake in the test's own set-up: going on would test nothing and look like success.
fn refuse(what: &str) -> ! {
    let _ = writeln!(io::stderr(), "crash points: {what}");
    std::process::exit(MODEL_FAILED)
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var_os(name)?;
    match text.to_str().and_then(|text| text.parse().ok()) {
        Some(number) if number > 0 => Some(number),
        _ => refuse(&format!("{name} must be a number from 1")),
    }
}

impl State {
    fn from_env() -> Self {
        let forget = std::env::var_os("LIFEBOAT_CRASH_FORGET").and_then(|text| match text.to_str() {
            Some("1") => Some(Forget::new(true, true)),
            Some("content") => Some(Forget::new(true, false)),
            Some("names") => Some(Forget::new(false, true)),
            Some("0" | "") => None,
            _ => refuse("LIFEBOAT_CRASH_FORGET must be 1, content or names"),
        });
        let (at, after) = (number("LIFEBOAT_CRASH_AT"), number("LIFEBOAT_CRASH_AFTER"));
        // Keeping what things were before costs memory and descriptors: only when it can be needed.
        let forget = forget.filter(|_| at.is_some() || after.is_some());
        Self { at, after, count_file: std::env::var_os("LIFEBOAT_CRASH_COUNT_FILE").map(PathBuf::from), count: 0, forget }
    }

    /// Counts one point and ends the process if it is the one before which to end.
    fn begin(&mut self, what: impl Fn() -> String) -> u64 {
        self.count += 1;
        if self.at == Some(self.count) {
            self.die(self.count, "before", &what());
        }
        self.count
    }

    fn end(&mut self, number: u64, what: impl Fn() -> String) {
        if self.after == Some(number) {
            self.die(number, "after", &what());
        }
    }

    fn die(&mut self, number: u64, when: &str, what: &str) -> ! {
        if let Some(forget) = self.forget.take()
            && let Err(error) = forget.undo()
        {
            refuse(&format!("cannot undo what was not durable {when} point {number} ({what}): {error}"));
        }
        let _ = writeln!(io::stderr(), "crash points: ended {when} point {number}: {what}");
        // The caller holds the lock for ever, so no other thread changes anything through this crate any more.
        std::process::exit(EXIT_CODE)
    }
}

fn lock() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn mutate<T>(change: Change<'_>, run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let mut state = lock();
    let number = state.begin(|| change.to_string());
    let result = if let Some(forget) = &mut state.forget {
        // Under the lock, so that the order in which changes are noted is the order in which they happen.
        let noted = match forget.before(&change) {
            Ok(noted) => noted,
            Err(error) => refuse(&format!("cannot note what was before {change}: {error}")),
        };
        let result = run();
        if result.is_ok() {
            forget.done(&change, noted);
        }
        result
    } else {
        drop(state);
        let result = run();
        state = lock();
        result
    };
    state.end(number, || change.to_string());
    result
}

/// Marks a step of another layer at which the process may be ended: one point, counted with the others. `LIFEBOAT_CRASH_AT` and
/// `LIFEBOAT_CRASH_AFTER` mean the same here; call it before and after a step that is to be cut on both sides.
pub fn point(what: &str) {
    let mut state = lock();
    let number = state.begin(|| what.to_string());
    state.end(number, || what.to_string());
}

/// To be called where the process ends normally: writes the number of points so far to `LIFEBOAT_CRASH_COUNT_FILE`, if set.
pub fn report() {
    let state = lock();
    if let Some(path) = &state.count_file
        && let Err(error) = std::fs::write(path, format!("{}\n", state.count))
    {
        refuse(&format!("cannot write {}: {error}", path.display()));
    }
}
