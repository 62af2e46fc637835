//! Talos as a way to etcd: which talosconfig, which nodes, and what they will not tell.
//!
//! Talos passes on a snapshot, each member's status, the member list and the alarms. It passes on no HashKV, no cluster id, no read and no compaction;
//! with `direct` ([`direct`]) etcd itself is asked for those.

pub mod direct;
pub mod everyone;
pub mod failure;
pub mod machine_config;
pub mod reach;
pub mod secrets;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;

use crate::failure::Outcome;
use crate::source::SourceOptions;

pub use reach::{Reached, reach};

/// How Talos nodes are reached. Empty fields leave the talosconfig's word.
#[derive(Clone, Debug, Default)]
pub struct TalosOptions {
    /// The talosconfig. It is read anew whenever nodes are reached: those of service accounts live six hours.
    pub config_file: PathBuf,
    /// Its context.
    pub context: Option<String>,
    /// Where apid is dialled.
    pub endpoints: Vec<String>,
    /// The nodes that are meant, and no others. None: every control plane node the member list leads to, found through the talosconfig's own.
    pub nodes: Vec<String>,
    /// Ask etcd itself for what Talos does not pass on (os:admin).
    pub direct: bool,
    /// Time to connect; talos-api's default when zero.
    pub dial_timeout: Duration,
    /// Time for one answer; talos-api's default when zero.
    pub request_timeout: Duration,
    /// The certificate for etcd, once it was made.
    pub minted: Arc<OnceCell<SourceOptions>>,
}

/// The talosconfig that is meant: the one named, else the first that is there in talosctl's order (`$TALOSCONFIG`, `~/.talos/config`, a service
/// account's mount). `variable` is the environment. With a word where `$TALOSCONFIG` names a file that is not there.
///
/// # Errors
/// Where none is there.
pub fn locate(named: Option<&Path>, variable: impl Fn(&str) -> Option<OsString>) -> Outcome<(PathBuf, Option<String>)> {
    let place = talos_api::talosconfig::locate(named, variable).map_err(|error| failure::of_config(&error))?;
    let path = place.path;
    let passed_over = place.passed_over;
    let word = passed_over.map(|passed| format!("TALOSCONFIG names {}, which is not there; {} is used", passed.display(), path.display()));
    Ok((path, word))
}

/// The talosconfig that looking round finds, if it has a context; one that talosctl left behind empty is none.
///
/// # Errors
/// Where there is one that cannot be read: whoever looks round is not to pass it over in silence.
pub fn found(variable: impl Fn(&str) -> Option<OsString>) -> Outcome<Option<PathBuf>> {
    let Ok(place) = talos_api::talosconfig::locate(None, variable) else { return Ok(None) };
    let config = talos_api::Talosconfig::read(&place.path).map_err(|error| failure::of_config(&error).object(place.path.display()))?;
    Ok((!config.contexts().is_empty()).then_some(place.path))
}
