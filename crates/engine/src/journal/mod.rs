//! The journal of long plans, and their executor: stopped anywhere (killed, lost network, closed laptop), a run goes on where it was.
//!
//! A plan is a value, made before anything is changed; `--dry-run` prints the very value that [`run()`] carries out. It is written into a file of its own,
//! `<state directory>/journal/<ulid>.jsonl`, before its first step, and then one line before and after each step. Every line is durable before what it
//! announces begins, and a step is only taken for done when its line says so:
//!
//! - A step that was begun and not done may or may not have had its effect. [`Driver::already`] looks, and the step is carried out again only where it has
//!   not. So steps must be idempotent.
//! - What a step must remember of the world while it works ([`Notebook::note`]: the boot id before a reboot, the name a file will get) is durable when that
//!   returns, and is there again when the step is resumed.
//! - A step may find that an earlier one has lost its effect ([`Turn::BackTo`]: a node that rebooted in between); then that one is done again.
//!
//! One journal is driven by one process at a time: a lock file for each verb and cluster, which the kernel frees however a process ends. A journal ends by
//! its last step or by `--abandon`; it is never deleted, for it tells what was done.
//!
//! Format: JSON lines in UTF-8. The first is `{"schema": "lifeboat.journal/1", "id", "verb", "cluster", "created", "tool", "plan"}`, each other one
//! `{"at", "event", …}` with an [`Event`]. A last line without a line feed was cut off by a crash and counts for nothing. Secrets have no place here.

mod desk;
mod file;
mod run;
#[cfg(test)]
mod tests;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use desk::{Desk, Journals};
pub use file::{Head, Journal, Standing};
pub use run::{Driver, Notebook, Turn, run, run_before};

/// What the first line of every journal says it is.
pub const SCHEMA: &str = "lifeboat.journal/1";

/// What a step found out or left behind, by name. Later steps and later runs read it.
pub type Facts = Map<String, Value>;

/// A long plan: a value that says all that will be done.
pub trait Plan: Serialize + DeserializeOwned {
    /// One step of it.
    type Step: Step;

    /// The steps, one after the other.
    fn steps(&self) -> &[Self::Step];
}

/// One step of a plan.
pub trait Step {
    /// A stable word for what it does, as the journal has it.
    fn name(&self) -> &'static str;

    /// What it does, for a person, as an order: `defragment m1`.
    fn words(&self) -> String;
}

/// What happened, as a line of the journal says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A step is about to be carried out.
    Begun {
        /// Its place in the plan, from 0.
        step: usize,
        /// Its name, for whoever reads the file.
        name: String,
    },
    /// A step under way wants this remembered.
    Noted {
        /// The step.
        step: usize,
        /// What it wants remembered.
        facts: Facts,
    },
    /// A step has had its effect.
    Done {
        /// The step.
        step: usize,
        /// What it left behind.
        facts: Facts,
    },
    /// A step was given up for now.
    Failed {
        /// The step.
        step: usize,
        /// Why.
        reason: String,
    },
    /// The effect of a step is lost: it and all after it are to be done again.
    Undone {
        /// The step.
        step: usize,
        /// Why.
        reason: String,
    },
    /// Every step is done.
    Finished,
    /// Somebody decided that this plan is not carried out any further.
    Abandoned,
}
