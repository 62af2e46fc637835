//! The long-running side of Lifeboat: schedules, hooks, notifications, metrics.
//!
//! It decides when something is done, and tells people and machines what came of it; what is done is the crate `engine`'s. Decisions are pure functions
//! of a configuration, of what is known and of a time that is an argument; sockets, processes and clocks are at the rim.
//!
//! It never keeps a state that a new agent on another machine could not read from the repository; a broken cluster, store or receiver never stops the
//! others.

pub mod child;
pub mod hook;
pub mod hooked;
pub mod limits;
mod maintain;
pub mod metrics;
pub mod notify;
pub mod observed;
pub mod oneshot;
pub mod page;
pub mod plan;
pub mod run;
mod serve;
mod tell;
mod tend;
mod watch;

/// Takes lines for people: the command line prints them.
pub type Say = std::sync::Arc<dyn Fn(&str) + Send + Sync>;
