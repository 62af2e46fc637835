//! Bringing a cluster back: finding out first, a plan, and its execution by the journal ([`crate::journal`]).

pub mod talos;
