//! The whole of Lifeboat against Talos: the double's nodes in front of real etcd (docs/talos-double.md).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod backup;
mod care;
mod common;
mod direct;
mod recover;
mod recover_docs;
mod recover_refused;
mod recover_stopped;
mod setup;
