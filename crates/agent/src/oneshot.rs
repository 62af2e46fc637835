//! Telling receivers of a run that no agent made: `lifeboat backup` under cron or a timer.
//!
//! Such a run remembers nothing. What changed is known from the run marks of the repository (`engine::record`), so that a row of failures is told once there
//! too; a run whose end could not be written down is told in any case. That a run never began nobody can tell but a dead man's switch (`ping`).

use engine::config::{Config, Event};
use engine::{Code, Failure};

use crate::Say;
use crate::notify::Receiver;
use crate::tell::{deliver, tell_run};

/// A run begins.
pub async fn began(config: &Config, cluster: &str, say: &Say) {
    tell_run(config, cluster, Event::Started, format!("{cluster}: a backup begins"), "a backup begins".to_owned(), say).await;
}

/// A run ended. `is_change` says whether the one before it ended otherwise, as far as is known.
pub async fn ended(config: &Config, cluster: &str, outcome: Result<(Code, String), &Failure>, is_change: bool, say: &Say) {
    let (of_run, of_state, text) = match outcome {
        Ok((Code::Ok, text)) => (Event::Succeeded, Event::Recovered, text),
        Ok((Code::Unproven, text)) => (Event::Failed, Event::Failed, text),
        Ok((_, text)) => (Event::Succeeded, Event::Warning, text),
        Err(failure) => (Event::Failed, Event::Failed, format!("the backup failed: {}", engine::stores::reason(failure))),
    };
    let title = format!("{cluster}: {}", text.lines().next().unwrap_or_default());
    let runs = tell_run(config, cluster, of_run, title.clone(), text.clone(), say);
    let hears = |receiver: &Receiver| is_change && receiver.hears_state(of_state, cluster);
    let states = deliver(config, cluster, of_state, title.clone(), text.clone(), say, &hears);
    futures::future::join(runs, states).await;
}
