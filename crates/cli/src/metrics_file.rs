//! Metrics of a run that no agent made, as a file for the textfile collector of Prometheus's node_exporter.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use agent::metrics;
use agent::observed::Cluster;
use engine::{Failure, Outcome};
use jiff::Timestamp;

/// Where metrics go, if anywhere.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct MetricsArgs {
    /// Also write metrics for the textfile collector of node_exporter; the name must end in .prom
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_METRICS_FILE")]
    pub(crate) metrics_file: Option<PathBuf>,
}

/// Writes the file, whole or not at all: the collector may read it at any moment.
///
/// # Errors
/// The file cannot be written. Whatever was done before is done.
pub(crate) fn write(file: &Path, clusters: BTreeMap<String, Cluster>, now: Timestamp) -> Outcome<()> {
    let wrong = |cause: String| Failure::failed("the metrics cannot be written").object(file.display()).cause(cause);
    let text = metrics::textfile(clusters, now).map_err(|error| wrong(error.to_string()))?;
    // The collector reads what ends in .prom, so what is half-written must not.
    let beside = file.with_extension(format!("{}.tmp", std::process::id()));
    let written = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, file));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&beside);
        wrong(error.to_string())
    })
}

/// Refuses a name that the collector would never read, before anything is done.
///
/// # Errors
/// A usage failure.
pub(crate) fn check(args: &MetricsArgs) -> Outcome<()> {
    match &args.metrics_file {
        Some(file) if file.extension().is_none_or(|extension| extension != "prom") => {
            Err(Failure::usage("the collector reads only files whose names end in .prom")
                .object(file.display())
                .again_without("--metrics-file"))
        }
        _ => Ok(()),
    }
}
