//! `lifeboat snapshot restore`.

use std::path::PathBuf;
use std::sync::Arc;

use engine::snapshot_file::{RestoreRequest, Restored};
use engine::{Code, Failure, Outcome};
use etcd_store::schema::AlarmKind;

use crate::args::GlobalArgs;
use crate::output;
use crate::progress::Teller;
use crate::signals;

#[derive(clap::Args, Debug)]
pub(super) struct RestoreArgs {
    /// The snapshot file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Data directory to make; absent or empty [default: <name>.etcd]
    #[arg(long, value_name = "DIR", env = "LIFEBOAT_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Directory for the log, where it is not in the data directory; absent or empty
    #[arg(long, value_name = "DIR", env = "LIFEBOAT_WAL_DIR")]
    wal_dir: Option<PathBuf>,
    /// Name of this member
    #[arg(long, value_name = "NAME", default_value = "default", env = "LIFEBOAT_NAME", help_heading = "Member")]
    name: String,
    /// All members, as name=url,name=url
    #[arg(
        long,
        value_name = "NAME=URL,…",
        default_value = "default=http://localhost:2380",
        env = "LIFEBOAT_INITIAL_CLUSTER",
        help_heading = "Member"
    )]
    initial_cluster: String,
    /// Token of the new cluster
    #[arg(long, value_name = "TOKEN", default_value = etcd_store::cluster::DEFAULT_TOKEN, env = "LIFEBOAT_INITIAL_CLUSTER_TOKEN", help_heading = "Member")]
    initial_cluster_token: String,
    /// This member's peer URLs
    #[arg(
        long,
        value_name = "URL,…",
        default_value = "http://localhost:2380",
        env = "LIFEBOAT_INITIAL_ADVERTISE_PEER_URLS",
        help_heading = "Member"
    )]
    initial_advertise_peer_urls: String,
    /// Take a file without SHA-256 trailer (copied from a data directory)
    // No environment variables for these three: they are decided for one run, by a person who looks.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_name = "BOOL", hide_default_value = true, hide_possible_values = true)]
    skip_hash_check: bool,
    /// Move the revision this far beyond the last one
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    bump_revision: u64,
    /// Mark everything up to the new revision as compacted (goes with --bump-revision)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_name = "BOOL", hide_default_value = true, hide_possible_values = true)]
    mark_compacted: bool,
    // Nothing is mapped into memory here.
    #[arg(long, hide = true)]
    initial_memory_map_size: Option<u64>,
}

pub(super) fn run(global: &GlobalArgs, args: RestoreArgs) -> Outcome<Code> {
    if (args.bump_revision > 0) != args.mark_compacted {
        return Err(Failure::usage("--mark-compacted required if --bump-revision > 0, and disallowed otherwise")
            .cause("clients that saw revisions of the lost future are safe only when those count as compacted")
            .again());
    }
    let data_dir = args.data_dir.unwrap_or_else(|| PathBuf::from(format!("{}.etcd", args.name)));
    let request = RestoreRequest {
        snapshot: args.file.clone(),
        data_dir: data_dir.clone(),
        wal_dir: args.wal_dir,
        name: args.name.clone(),
        initial_cluster: args.initial_cluster,
        token: args.initial_cluster_token,
        advertise: args.initial_advertise_peer_urls,
        skip_hash_check: args.skip_hash_check,
        bump: (args.bump_revision > 0).then_some(args.bump_revision),
    };
    let restored = signals::run(engine::snapshot_file::restore(request, Arc::new(Teller::new(global))))?;
    for warning in warnings(&restored) {
        output::say(&format!("warning: {warning}"));
    }
    if !global.quiet {
        let moved = if restored.revision == restored.revision_before {
            String::new()
        } else {
            format!(", bumped from {}", restored.revision_before)
        };
        output::say(&format!(
            "restored {} to {}: member '{}' ({}) of cluster {}, revision {}{moved}",
            args.file.display(),
            data_dir.display(),
            args.name,
            restored.member,
            restored.cluster,
            restored.revision
        ));
    }
    Ok(Code::Ok)
}

fn warnings(restored: &Restored) -> Vec<String> {
    let mut warnings = Vec::new();
    if restored.kubernetes_keys > 0 && restored.revision == restored.revision_before {
        warnings.push(format!(
            "this is Kubernetes' data ({} keys under /registry), and revisions were not bumped: controllers that saw later revisions will miss changes; \
             restore with --bump-revision 1000000000 --mark-compacted, or with `lifeboat restore`, which bumps by itself",
            restored.kubernetes_keys
        ));
    }
    if !restored.alarms.is_empty() {
        let kinds: Vec<String> =
            restored.alarms.iter().map(|alarm| format!("{} of member {}", alarm_word(alarm.kind), alarm.member)).collect();
        warnings.push(format!(
            "alarms of the old cluster are still raised ({}), as after etcdutl's restore: `etcdctl alarm disarm` once etcd runs",
            kinds.join(", ")
        ));
    }
    if restored.missing_leases > 0 {
        warnings.push(format!(
            "{} lease(s) that keys refer to are not in the snapshot; `put --ignore-lease` to such a key ends etcd; `lifeboat restore` adds them",
            restored.missing_leases
        ));
    }
    for leftover in &restored.leftovers {
        warnings.push(format!("left from before, and untouched: {}", leftover.display()));
    }
    warnings
}

/// An alarm as etcdctl names it.
fn alarm_word(kind: AlarmKind) -> String {
    match kind {
        AlarmKind::NoSpace => "NOSPACE".to_owned(),
        AlarmKind::Corrupt => "CORRUPT".to_owned(),
        AlarmKind::Other(number) => format!("alarm {number}"),
    }
}
