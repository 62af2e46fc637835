//! The worst day on Talos Linux: what `bootstrap --recover-from` and a page of caveats are, as one plan.
//!
//! - [`look`] finds out and changes nothing: an [`Evidence`], a plain value.
//! - [`diagnosis`] (pure) says what state this is, what each way out loses, and the command for each.
//! - [`checks`] (pure) hold the evidence against a backup: every trap is one check with a verdict of its own.
//! - [`plan`] (pure) makes a [`Plan`] of it, or refuses.
//! - [`drive`] carries it out. No answer of Talos counts by itself: each step waits for its effect, and a step whose effect was lost (a reboot between
//!   Bootstrap and the restore, a node that came back with old data) is done again.
//!
//! Invariants: nothing is wiped before its database lies in a rescue file, and before the file that replaces it is complete, proven and on this machine's
//! disk; etcd is bootstrapped on one node only, the same in every run; no node is bootstrapped while another one that answers still holds old data.
//!
//! Sources: Talos `internal/app/machined/pkg/system/services/etcd.go`, `internal/app/machined/internal/server/v1alpha1/v1alpha1_server.go` (Bootstrap,
//! EtcdRecover, Reset), and its documentation "Disaster Recovery".

mod bootstrap;
pub mod checks;
pub mod diagnosis;
pub mod drive;
mod evidence;
mod guard;
mod join;
pub mod look;
pub mod plan;
mod proof;
mod rescue;
mod reset;
mod seen;
#[cfg(test)]
mod tests;

pub use checks::{Check, Verdict};
pub use diagnosis::{Diagnosis, State, Way};
pub use drive::{Prepare, Recovery};
pub use evidence::{Data, Etcd, Evidence, Facts as NodeFacts, MemberFacts, Node};
pub use plan::{Goal, Plan, Source, Step};

/// The verb, as the journal has it.
pub const VERB: &str = "recover talos";
