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
    /// After a Bootstrap that was answered OK, the node reboots by itself this long after the answer, the first so many times.
    pub reboot_after_bootstrap: Option<(u32, Duration)>,
    /// Extra time that a restore takes, before etcd's tool begins; the upload is still there meanwhile.
    pub restore_takes: Duration,
    /// The node joins as a learner and stays one, until this is taken back.
    pub never_promote: bool,
    /// Reset answers OK, and the node reboots without anything wiped, the first so many times.
    pub ignore_reset: u32,
    /// What Mounts tells as available on `/var`, in bytes; by default what the filesystem has.
    pub available: Option<u64>,
    /// What Talos itself finds wrong: name and text.
    pub diagnostics: Vec<(String, String)>,
    /// How many seconds its clock is ahead of this machine's; less than none, behind.
    pub clock_ahead: i64,
    /// Its clock is not in sync: TimeStatus says so, and Bootstrap is refused.
    pub time_unsynced: bool,
}

impl Switches {
    /// The pause before a reboot that the Bootstrap just answered brings; one fewer is left.
    pub(crate) fn take_reboot(&mut self) -> Option<Duration> {
        let (left, pause) = self.reboot_after_bootstrap.as_mut()?;
        *left = left.checked_sub(1)?;
        Some(*pause)
    }

    /// Whether this reset is not carried out; one fewer is left.
    pub(crate) fn take_ignored_reset(&mut self) -> bool {
        let ignored = self.ignore_reset > 0;
        self.ignore_reset = self.ignore_reset.saturating_sub(1);
        ignored
    }
}
