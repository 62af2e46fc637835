//! The client, and a caller by hand, against the double in front of real etcd. One program, so that it is linked once.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod changes;
mod common;
mod disasters;
mod machine;
mod raw;
mod reads;
mod reboots;
mod recovery;
mod refusals;
mod routing;
mod setups;
mod talosctl;
mod traps;
