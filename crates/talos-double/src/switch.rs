//! The traps, each with a switch. They are per node and can be changed while the double runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use grpc_link::testing::Failure;

/// How a snapshot goes wrong. `after` counts bytes of the snapshot file sent before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotFault {
    /// Reading from etcd fails: the stream ends, with status OK (reference: the chunker prints the error and closes).
    CutWithOk {
        /// Bytes before.
        after: usize,
    },
    /// An error within a message, then status OK, as apid ends a merged stream.
    ErrorInData {
        /// Bytes before.
        after: usize,
        /// The error.
        failure: Failure,
    },
    /// A status in the middle.
    Fail {
        /// Bytes before.
        after: usize,
        /// The status.
        failure: Failure,
    },
    /// The connection is dropped.
    Disconnect {
        /// Bytes before.
        after: usize,
    },
    /// Nothing more comes, and the stream stays open.
    Stall {
        /// Bytes before.
        after: usize,
    },
    /// One byte is damaged on the way.
    DamagedByte {
        /// Which.
        at: usize,
    },
}

/// What a node does otherwise than it should; nothing by default.
#[derive(Clone, Debug, Default)]
pub struct Switches {
    /// How snapshots go wrong.
    pub snapshot: Option<SnapshotFault>,
    /// Extra time that leaving takes, before anything has happened.
    pub slow_leave: Duration,
    /// Methods, by Talos' names, that this node's Talos does not know.
    pub unimplemented: BTreeSet<String>,
    /// Methods that are denied whatever the roles.
    pub denied: BTreeSet<String>,
    /// Methods that fail, with what.
    pub fail: BTreeMap<String, Failure>,
    /// Methods that fail the first so many times.
    pub fail_first: BTreeMap<String, (u32, Failure)>,
    /// Extra time before a method is answered.
    pub delay: BTreeMap<String, Duration>,
    /// Bootstrap answers OK and its intent is lost, as by a reboot right after it.
    pub forget_bootstrap: bool,
    /// What Talos itself finds wrong: name and text.
    pub diagnostics: Vec<(String, String)>,
    /// How many seconds its clock is ahead of this machine's; less than none, behind.
    pub clock_ahead: i64,
    /// Its clock is not in sync: TimeStatus says so, and Bootstrap is refused.
    pub time_unsynced: bool,
}
