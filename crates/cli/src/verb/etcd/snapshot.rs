//! `lifeboat etcd snapshot`: what `talosctl etcd snapshot` does, with the digest compared and the structure proven.

use std::path::PathBuf;

use engine::{Code, Outcome};

use super::ClusterArgs;
use crate::args::GlobalArgs;
use crate::verb::snapshot::save;

/// Arguments of `lifeboat etcd snapshot`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The file; - means standard output [default: etcd-<cluster id or Talos context>-<UTC>.db]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Do not prove the database's structure before the file gets its name
    #[arg(long, env = "LIFEBOAT_NO_CHECK")]
    no_check: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Runs `lifeboat etcd snapshot`.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Outcome<Code> {
    let access = args.cluster.access(global)?;
    save::from(global, access, args.file.as_deref(), !args.no_check)
}
