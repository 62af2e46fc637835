//! etcd's own command-line tools.

use std::ffi::OsStr;
use std::path::Path;

use super::plan::ClusterPlan;
use crate::peers::EtcdVersion;
use crate::run::{Finished, Run};

/// `etcdctl` of a version, with a clean environment; endpoints and credentials are the caller's (or see [`super::EtcdCluster::etcdctl`]).
#[must_use]
pub fn etcdctl<A: AsRef<OsStr>>(version: EtcdVersion, args: impl IntoIterator<Item = A>) -> Run {
    // More time than by default (2 s and 5 s) on a busy machine; of a flag that is given twice the later one counts, so the caller may say otherwise.
    let patient = ["--dial-timeout=20s", "--command-timeout=60s"];
    // 3.4 defaults to the API of etcd 2.
    clean(Run::new(version.etcdctl())).env("ETCDCTL_API", "3").args(patient).args(args)
}

/// `etcdutl` of a version; for 3.4, which has none, `etcdctl`, whose `snapshot status` and `snapshot restore` take the same arguments.
#[must_use]
pub fn etcdutl<A: AsRef<OsStr>>(version: EtcdVersion, args: impl IntoIterator<Item = A>) -> Run {
    match version.etcdutl() {
        Some(path) => clean(Run::new(path)).args(args),
        None => etcdctl(version, args),
    }
}

fn clean(run: Run) -> Run {
    let run = run.clear_env();
    match std::env::var_os("PATH") {
        Some(path) => run.env("PATH", path),
        None => run,
    }
}

/// Restores a snapshot with etcd's own tool into every data directory of a plan; what Lifeboat's restore is compared with.
pub fn restore_with_etcd(version: EtcdVersion, snapshot: &Path, plan: &ClusterPlan, extra: &[&str]) -> Vec<Finished> {
    plan.members()
        .iter()
        .map(|member| {
            etcdutl(version, ["snapshot", "restore"])
                .arg(snapshot)
                .args(["--name", &member.name, "--initial-cluster", &plan.initial_cluster()])
                .args(["--initial-cluster-token", plan.cluster_token(), "--initial-advertise-peer-urls", &member.peer_url()])
                .arg("--data-dir")
                .arg(&member.data_dir)
                .args(extra)
                .run()
                .ok()
        })
        .collect()
}
