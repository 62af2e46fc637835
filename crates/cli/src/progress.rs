//! Progress on standard error: words as lines, bytes as one bar at a terminal.

use std::sync::Mutex;

use engine::progress::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::GlobalArgs;
use crate::output;

/// Tells a person what happens, or nobody with `--quiet`.
pub(crate) struct Teller {
    quiet: bool,
    watched: bool,
    bar: Mutex<Option<(String, ProgressBar)>>,
}

impl Teller {
    pub(crate) fn new(global: &GlobalArgs) -> Self {
        Self { quiet: global.quiet, watched: output::is_watched(), bar: Mutex::new(None) }
    }

    fn with_bar(&self, change: impl FnOnce(&mut Option<(String, ProgressBar)>)) {
        if let Ok(mut bar) = self.bar.lock() {
            change(&mut bar);
        }
    }
}

impl Progress for Teller {
    fn say(&self, line: &str) {
        if self.quiet {
            return;
        }
        self.with_bar(|bar| match bar {
            Some((_, bar)) => bar.suspend(|| output::say(line)),
            None => output::say(line),
        });
    }

    fn bytes(&self, what: &str, done: u64, total: Option<u64>) {
        if self.quiet || !self.watched {
            return;
        }
        self.with_bar(|bar| {
            if bar.as_ref().is_none_or(|(name, _)| name != what) {
                let fresh = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(5));
                let form = if total.is_some() {
                    "{msg} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} left"
                } else {
                    "{msg} {bytes} {binary_bytes_per_sec}"
                };
                if let Ok(style) = ProgressStyle::with_template(form) {
                    fresh.set_style(style);
                }
                fresh.set_message(what.to_owned());
                if let Some((_, old)) = bar.replace((what.to_owned(), fresh)) {
                    old.finish_and_clear();
                }
            }
            if let Some((_, bar)) = bar {
                bar.set_position(done);
            }
        });
    }

    fn done(&self) {
        self.with_bar(|bar| {
            if let Some((_, bar)) = bar.take() {
                bar.finish_and_clear();
            }
        });
    }
}
