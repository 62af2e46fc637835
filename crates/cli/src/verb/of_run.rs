//! What surrounds a run of `lifeboat backup` that no agent made: whoever is to hear of it is told, what it came to is written down where that is news, and
//! metrics are left for a collector. None of it changes what the run came to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::observed::{Attempt, Cluster};
use agent::{Say, oneshot};
use engine::backup::{Report, Request, verdict_word};
use engine::config::Config;
use engine::place::{self, PlaceOptions};
use engine::status::{self, Standing};
use engine::{Code, Failure, Outcome, record};
use jiff::Timestamp;
use vault::name::ClusterName;

use crate::metrics_file;
use crate::output;

/// How long writing down what a run came to may take.
const RECORD_WITHIN: Duration = Duration::from_secs(10);
/// How long the repository may take to be read for the metrics.
const READ_WITHIN: Duration = Duration::from_secs(60);
/// How long telling may hold up the end.
const TELL_WITHIN: Duration = Duration::from_secs(30);

/// Whose run it is.
pub(super) struct OfRun {
    place: PlaceOptions,
    cluster: Option<ClusterName>,
    signing_key: Option<PathBuf>,
    dry_run: bool,
    config: Option<Config>,
    /// Whether the receivers of the configuration are told.
    tells: bool,
    metrics_file: Option<PathBuf>,
    say: Say,
}

impl OfRun {
    pub(super) fn of(request: &Request, config: Option<Config>, tells: bool, metrics_file: Option<PathBuf>) -> Self {
        let Request { place, cluster, signing_key, dry_run, .. } = request.clone();
        Self { place, cluster, signing_key, dry_run, config, tells: tells && !dry_run, metrics_file, say: Arc::new(output::say) }
    }

    /// Who is told, of which cluster.
    fn told<'a>(&'a self, cluster: Option<&'a ClusterName>) -> Option<(&'a Config, &'a str)> {
        let config = self.config.as_ref().filter(|config| self.tells && !config.notify.is_empty())?;
        Some((config, cluster?.as_str()))
    }

    /// Does the work, and everything around it.
    pub(super) async fn around(&self, work: impl Future<Output = Outcome<Report>>) -> Outcome<Report> {
        let (at, clock) = (Timestamp::now(), Instant::now());
        // Told beside the work: nothing waits for a receiver.
        let (outcome, ()) = futures::future::join(work, self.began()).await;
        if self.dry_run {
            return outcome;
        }
        let took = clock.elapsed();
        let is_change = self.record(&outcome).await;
        if tokio::time::timeout(TELL_WITHIN, self.ended(&outcome, is_change)).await.is_err() {
            output::say("note: not everybody could be told in time");
        }
        self.leave_metrics(&outcome, at, took).await;
        outcome
    }

    async fn began(&self) {
        if let Some((config, cluster)) = self.told(self.cluster.as_ref()) {
            oneshot::began(config, cluster, &self.say).await;
        }
    }

    /// The run was cut short by a signal: who waits for its end is told.
    pub(super) async fn stopped(&self) {
        if let Some((config, cluster)) = self.told(self.cluster.as_ref()) {
            let failure = Failure::new(Code::Interrupted, "it was stopped by a signal");
            oneshot::ended(config, cluster, Err(&failure), false, &self.say).await;
        }
    }

    fn cluster<'a>(&'a self, outcome: &'a Outcome<Report>) -> Option<&'a ClusterName> {
        self.cluster.as_ref().or_else(|| outcome.as_ref().ok().map(|report| &report.cluster))
    }

    /// Writes down what the run came to, where that is news: the next `status`, on whatever machine, tells a run that failed from one that never was. The
    /// answer is whether it is news, as far as is known.
    async fn record(&self, outcome: &Outcome<Report>) -> bool {
        let failure = outcome.as_ref().err();
        // What was not begun did not fail; and a mark that says so does not belong into what may be somebody else's repository.
        let is_no_run =
            failure.is_some_and(|failure| matches!(failure.code, Code::Usage | Code::LeaseHeld | Code::NoRepository | Code::WrongCluster));
        let was_fine = outcome.as_ref().is_ok_and(|report| report.code == Code::Ok && report.last_run_was_fine);
        if was_fine {
            return false;
        }
        let Some(cluster) = self.cluster(outcome).filter(|_| !is_no_run) else { return true };
        let run = record::of(outcome.as_ref().map(|report| report.code), Timestamp::now());
        let written = record::record(&self.place, cluster, run, self.signing_key.as_deref());
        // It must not hold up the answer, nor change it.
        match tokio::time::timeout(RECORD_WITHIN, written).await {
            Ok(Ok(is_change)) => is_change,
            // A failure that nobody could write down is told again each time; a success is not.
            _ => failure.is_some(),
        }
    }

    async fn ended(&self, outcome: &Outcome<Report>, is_change: bool) {
        let Some((config, cluster)) = self.told(self.cluster(outcome)) else { return };
        let result = outcome.as_ref().map(|report| {
            let of = |committed: &engine::backup::Committed| {
                let manifest = &committed.manifest;
                format!("backup {} at revision {}, hashkv {}", manifest.id, manifest.revision, verdict_word(manifest.hashkv.verdict))
            };
            let lines: Vec<String> =
                report.committed.iter().map(of).chain(report.warnings.iter().map(|word| format!("warning: {word}"))).collect();
            (report.code, lines.join("\n"))
        });
        oneshot::ended(config, cluster, result, is_change, &self.say).await;
    }

    async fn leave_metrics(&self, outcome: &Outcome<Report>, at: Timestamp, took: Duration) {
        let (Some(file), Some(cluster)) = (&self.metrics_file, self.cluster(outcome)) else { return };
        let attempt = Attempt {
            at,
            took,
            code: outcome.as_ref().map_or_else(|failure| failure.code, |report| report.code),
            failure: record::of(outcome.as_ref().map(|report| report.code), at).detail,
        };
        let standing = self.standing(cluster).await;
        let known = Cluster { attempt: Some(attempt), standing: Some(standing), ..Cluster::default() };
        if let Err(failure) = metrics_file::write(file, BTreeMap::from([(cluster.to_string(), known)]), Timestamp::now()) {
            output::say(&format!("note: {}", engine::stores::reason(&failure)));
        }
    }

    async fn standing(&self, cluster: &ClusterName) -> Standing {
        let read = async {
            let repository = place::open(&self.place).await?;
            place::catalog(&repository, &self.place, cluster).await
        };
        let read = tokio::time::timeout(READ_WITHIN, read).await;
        let policy = {
            let config = self.config.clone().unwrap_or_default();
            let section = config.clusters.get(cluster.as_str()).cloned().unwrap_or_default();
            config.policy(&section)
        };
        match read.unwrap_or_else(|_| Err(Failure::new(Code::StoreUnreachable, "the repository could not be read in time"))) {
            Ok(catalog) => status::judge(&catalog, &policy, Timestamp::now()),
            Err(failure) => Standing::unknown(cluster.clone(), &failure),
        }
    }
}
