//! Looking at the members of one cluster from time to time: sizes, alarms, leaders.

use std::sync::Arc;
use std::time::Duration;

use engine::care::health::{self, examine, examine_thresholds};
use engine::care::look::look;
use engine::config::{Config, duration};
use jiff::Timestamp;
use tokio::sync::watch::Receiver;
use tokio::time::{sleep, timeout};

use crate::observed::Observed;

/// How often members are looked at where nothing says otherwise.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A look that takes longer than this is given up.
const LOOK_WITHIN: Duration = Duration::from_secs(60);

/// Looks until the cluster is no longer configured.
pub(crate) async fn watch(name: String, mut config: Receiver<Arc<Config>>, observed: Arc<Observed>) {
    loop {
        let now = Arc::clone(&config.borrow_and_update());
        let Some(cluster) = now.clusters.get(&name) else { return };
        let looked = match cluster.access(|variable| std::env::var_os(variable)) {
            Ok(access) => match timeout(LOOK_WITHIN, look(&access)).await {
                Ok(Ok(looked)) => Ok((looked.certificates(&access), looked.view)),
                Ok(Err(failure)) => Err(failure),
                Err(_) => Err(engine::Failure::new(engine::Code::SourceUnreachable, "the members could not be looked at in time")),
            },
            Err(failure) => Err(failure),
        };
        observed.of(&name, |known| match looked {
            Ok((certificates, view)) => {
                let mut findings: Vec<health::Finding> = examine(&view, known.view.as_ref(), &certificates);
                let growth = known.standing.as_ref().and_then(|standing| standing.growth);
                findings.extend(examine_thresholds(&view, &now.policy(cluster).alert, growth.as_ref(), Timestamp::now()));
                known.certificate_ends = certificates.ends.iter().map(|(_, end)| *end).min();
                known.looked(view, findings);
            }
            Err(failure) => {
                known.count(&failure);
                known.unseen = Some(failure.what);
                known.looks_missed = known.looks_missed.saturating_add(1);
                known.view = None;
                known.findings = Vec::new();
            }
        });
        let every = now.agent.as_ref().and_then(|agent| agent.look_every.as_deref()).and_then(|text| duration(text).ok());
        tokio::select! {
            () = sleep(every.unwrap_or(LOOK_EVERY)) => {}
            changed = config.changed() => if changed.is_err() { return },
        }
    }
}
