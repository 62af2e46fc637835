//! What is known, as Prometheus and OpenMetrics read it. Names and labels are stable; `docs/metrics.md` has them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use engine::care::health::{Severity, quota_reached};
use engine::status::State;
use etcd_api::AlarmKind;
use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use vault::mark::Outcome;

use crate::observed::{Cluster, Observed};
use crate::page;

/// The content type of what [`text`] makes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const STATES: [State; 5] = [State::Protected, State::LastRunFailed, State::Stale, State::NeverRan, State::Unknown];
const SEVERITIES: [Severity; 2] = [Severity::Advice, Severity::Alert];

type Labels = Vec<(&'static str, String)>;

/// One metric with its values.
struct Family {
    name: &'static str,
    help: &'static str,
    is_counter: bool,
    values: Vec<(Labels, f64)>,
}

/// All of them, of one moment.
#[derive(Debug)]
struct Page {
    clusters: BTreeMap<String, Cluster>,
    now: Timestamp,
    /// Only what is as true after the process that says it has ended.
    lasting_only: bool,
}

/// The page of metrics.
///
/// # Errors
/// Only where the text cannot be written, which does not happen in memory.
pub fn text(observed: &Arc<Observed>, now: Timestamp) -> Result<String, fmt::Error> {
    Page { clusters: observed.at(now), now, lasting_only: false }.text()
}

/// What a run that no agent made knows, for the textfile collector of node_exporter: no counters, which a process that ends at once does not have.
///
/// # Errors
/// As [`text`].
pub fn textfile(clusters: BTreeMap<String, Cluster>, now: Timestamp) -> Result<String, fmt::Error> {
    // Of gauges alone the two text formats differ by the closing line, which this one does not have.
    let text = Page { clusters, now, lasting_only: true }.text()?;
    Ok(text.trim_end_matches("# EOF\n").to_owned())
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        // Whether something is done now nobody knows later.
        let is_meant = |family: &Family| !self.lasting_only || !family.is_counter && family.name != "lifeboat_busy";
        for family in self.families().into_iter().filter(|family| is_meant(family) && !family.values.is_empty()) {
            let kind = if family.is_counter { MetricType::Counter } else { MetricType::Gauge };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for (labels, value) in &family.values {
                let labelled = metric.encode_family(labels)?;
                if family.is_counter { ConstCounter::new(*value).encode(labelled)? } else { ConstGauge::new(*value).encode(labelled)? }
            }
        }
        Ok(())
    }
}

#[allow(clippy::cast_precision_loss, reason = "a metric is a double: above 2^53 the last digits are lost, as everywhere in Prometheus")]
fn number(value: u64) -> f64 {
    value as f64
}

fn alarm_word(kind: AlarmKind) -> String {
    match kind {
        AlarmKind::NoSpace => "NOSPACE".to_owned(),
        AlarmKind::Corrupt => "CORRUPT".to_owned(),
        AlarmKind::Other(number) => format!("alarm-{number}"),
    }
}

fn seconds(moment: Timestamp) -> f64 {
    moment.as_duration().as_secs_f64()
}

impl Page {
    fn text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }

    /// A gauge with at most one value per cluster.
    fn gauge(&self, name: &'static str, help: &'static str, of: impl Fn(&Cluster) -> Option<f64>) -> Family {
        let one = |(cluster, known): (&String, &Cluster)| Some((vec![("cluster", cluster.clone())], of(known)?));
        Family { name, help, is_counter: false, values: self.clusters.iter().filter_map(one).collect() }
    }

    fn counter(&self, name: &'static str, help: &'static str, of: impl Fn(&Cluster) -> u64) -> Family {
        Family { is_counter: true, ..self.gauge(name, help, |known| Some(number(of(known)))) }
    }

    /// A gauge with several values per cluster, each with labels of its own.
    fn gauges(&self, name: &'static str, help: &'static str, of: impl Fn(&Cluster) -> Vec<(Labels, f64)>) -> Family {
        let mut values = Vec::new();
        for (cluster, known) in &self.clusters {
            for (labels, value) in of(known) {
                let mut all = vec![("cluster", cluster.clone())];
                all.extend(labels);
                values.push((all, value));
            }
        }
        Family { name, help, is_counter: false, values }
    }

    fn families(&self) -> Vec<Family> {
        let mut families = vec![Family {
            name: "lifeboat_build_info",
            help: "The release that runs",
            is_counter: false,
            values: vec![(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0)],
        }];
        families.extend(self.of_protection());
        families.extend(self.of_the_newest());
        families.extend(self.of_runs());
        families.extend(self.of_the_repository());
        families.extend(self.of_members());
        families
    }

    fn of_protection(&self) -> Vec<Family> {
        vec![
            self.gauges("lifeboat_cluster_state", "1 for the state the cluster is in, 0 for the others", |known| {
                let Some(standing) = &known.standing else { return Vec::new() };
                STATES
                    .iter()
                    .map(|state| (vec![("state", state.word().to_owned())], f64::from(u8::from(standing.state == *state))))
                    .collect()
            }),
            self.gauge("lifeboat_last_success_timestamp_seconds", "The moment the newest good backup stands for", |known| {
                Some(seconds(known.standing.as_ref()?.newest.as_ref()?.moment))
            }),
            self.gauge("lifeboat_recovery_point_age_seconds", "How old the newest good backup is", |known| {
                Some((seconds(self.now) - seconds(known.standing.as_ref()?.newest.as_ref()?.moment)).max(0.0))
            }),
            self.gauge("lifeboat_backup_late_timestamp_seconds", "After which moment the newest good backup is too old", |known| {
                known.standing.as_ref()?.late_at.map(seconds)
            }),
            self.gauge("lifeboat_next_backup_timestamp_seconds", "When the next backup is due by the schedule", |known| {
                known.standing.as_ref()?.next.map(seconds)
            }),
            self.gauge("lifeboat_last_proof_timestamp_seconds", "When a verification was passed last", |known| {
                known.standing.as_ref()?.verified.map(seconds)
            }),
            self.gauge("lifeboat_last_drill_timestamp_seconds", "When a drill was passed last", |known| {
                known.standing.as_ref()?.drilled.map(seconds)
            }),
            self.gauge("lifeboat_last_drill_success", "1 where the last drill was passed, 0 where it was not", |known| {
                known.standing.as_ref()?.last_drill.map(|ending| f64::from(u8::from(ending == Outcome::Passed)))
            }),
            self.gauges("lifeboat_last_drill_result", "1 for what the last drill came to, 0 for the others", |known| {
                let Some(last) = known.standing.as_ref().and_then(|standing| standing.last_drill) else { return Vec::new() };
                let of = |result: Outcome| (vec![("result", page::ending(result).to_owned())], f64::from(u8::from(last == result)));
                [Outcome::Passed, Outcome::Failed, Outcome::Inconclusive].map(of).to_vec()
            }),
        ]
    }

    fn of_the_newest(&self) -> Vec<Family> {
        let newest = |known: &Cluster| known.standing.as_ref()?.newest.clone();
        vec![
            self.gauge("lifeboat_backup_duration_seconds", "How long the newest good backup took", move |known| {
                newest(known).map(|newest| newest.took.as_secs_f64())
            }),
            self.gauge("lifeboat_backup_bytes", "Bytes of the database in the newest good backup", move |known| {
                newest(known).map(|newest| number(newest.bytes))
            }),
            self.gauge("lifeboat_backup_stored_bytes", "Bytes that the newest good backup takes in the store", move |known| {
                newest(known).map(|newest| number(newest.stored_bytes))
            }),
            self.gauge("lifeboat_backup_revision", "Revision of the newest good backup", move |known| {
                newest(known).map(|newest| number(u64::try_from(newest.revision).unwrap_or_default()))
            }),
            self.gauge("lifeboat_backup_keys", "Live keys in the newest good backup", move |known| {
                newest(known).map(|newest| number(newest.keys))
            }),
        ]
    }

    fn of_runs(&self) -> Vec<Family> {
        vec![
            self.gauge("lifeboat_last_attempt_timestamp_seconds", "When this agent tried a backup last", |known| {
                Some(seconds(known.attempt.as_ref()?.at))
            }),
            self.gauge("lifeboat_last_attempt_success", "1 where that try committed a backup, 0 where it did not", |known| {
                Some(f64::from(u8::from(known.attempt.as_ref()?.failure.is_none())))
            }),
            self.gauge("lifeboat_last_attempt_duration_seconds", "How long that try took", |known| {
                Some(known.attempt.as_ref()?.took.as_secs_f64())
            }),
            self.gauge(
                "lifeboat_last_attempt_exit",
                "The exit code that try would have had: 0, 3 with warnings, 20 disputed, else failed",
                |known| Some(f64::from(known.attempt.as_ref()?.code as u8)),
            ),
            self.counter("lifeboat_backups_succeeded", "Tries of this agent that committed a backup", |known| known.succeeded),
            self.counter("lifeboat_backups_failed", "Tries of this agent that did not", |known| known.failed),
            self.counter("lifeboat_retention_deleted", "Backups that this agent removed by the policy, on all stores", |known| {
                known.pruned
            }),
            self.gauge(
                "lifeboat_last_prune_timestamp_seconds",
                "When this agent looked last for backups that the policy does not keep",
                |known| Some(seconds(known.last_prune?.0)),
            ),
            self.gauge("lifeboat_last_prune_success", "1 where that went well at every store, 0 where something held it up", |known| {
                Some(f64::from(u8::from(known.last_prune?.1)))
            }),
            self.counter("lifeboat_defragmented_members", "Members that this agent defragmented in their window", |known| {
                known.defragmented
            }),
            self.gauge("lifeboat_last_defrag_timestamp_seconds", "When this agent looked for members to defragment last", |known| {
                Some(seconds(known.last_defrag?.0))
            }),
            self.gauge(
                "lifeboat_last_defrag_success",
                "1 where that went well, 0 where it could not be begun or stopped half way",
                |known| Some(f64::from(u8::from(known.last_defrag?.1))),
            ),
            self.counter("lifeboat_store_errors", "Times the store did not answer or refused", |known| known.store_errors),
            self.counter("lifeboat_source_errors", "Times etcd or Talos could not be reached", |known| known.source_errors),
            self.gauge("lifeboat_busy", "1 while something is done for the cluster", |known| {
                Some(f64::from(u8::from(known.doing.is_some())))
            }),
        ]
    }

    fn of_the_repository(&self) -> Vec<Family> {
        let standing = |known: &Cluster| known.standing.clone();
        vec![
            self.gauge("lifeboat_store_backups", "Backups in the repository", move |known| {
                standing(known).map(|standing| number(standing.backups as u64))
            }),
            self.gauge("lifeboat_store_objects", "Objects of all backups there, beside manifests and marks", move |known| {
                standing(known).map(|standing| number(standing.objects as u64))
            }),
            self.gauge("lifeboat_store_bytes", "Bytes that all backups take there", move |known| {
                standing(known).map(|standing| number(standing.stored_bytes))
            }),
            self.gauges(
                "lifeboat_store_lacks_backups",
                "Backups that another store holds and this one lacks; only where that is so",
                |known| {
                    let behind = known.standing.iter().flat_map(|standing| &standing.behind);
                    behind.filter_map(|behind| Some((vec![("store", behind.store.clone())], number(behind.lacks? as u64)))).collect()
                },
            ),
            self.gauge("lifeboat_stores_behind", "Stores that lack backups or cannot be read", move |known| {
                standing(known).map(|standing| number(standing.behind.len() as u64))
            }),
            self.gauge("lifeboat_unconfirmed_lineages", "Histories that nobody has confirmed", move |known| {
                standing(known).map(|standing| number(standing.unconfirmed.len() as u64))
            }),
            self.gauge("lifeboat_checks_overdue", "Checks that nothing has passed for twice as long as the policy wants", move |known| {
                standing(known).map(|standing| number(standing.overdue.len() as u64))
            }),
            self.gauge(
                "lifeboat_content_changed",
                "1 where the newest backup differs from the one before it by more than alert allows",
                move |known| standing(known).map(|standing| f64::from(u8::from(!standing.changed.is_empty()))),
            ),
            self.gauge("lifeboat_damaged_backups", "Backups of which a check found that they are bad", move |known| {
                standing(known).map(|standing| number(standing.damaged.len() as u64))
            }),
        ]
    }

    fn of_members(&self) -> Vec<Family> {
        vec![
            self.of_each("lifeboat_member_up", "1 where the member answers, 0 where it does not", |member| {
                Some(f64::from(u8::from(member.answer.is_ok())))
            }),
            self.of_each("lifeboat_member_db_size_bytes", "Bytes of the member's database file", |member| {
                Some(number(member.status()?.db_size))
            }),
            self.of_each("lifeboat_member_db_in_use_bytes", "Bytes of it that are in use", |member| {
                Some(number(member.status()?.db_size_in_use))
            }),
            self.of_each("lifeboat_member_db_quota_bytes", "The size at which etcd refuses writes; etcd 3.6 and later tell it", |member| {
                member.status()?.db_size_quota.map(number)
            }),
            self.of_each("lifeboat_member_raft_lag", "Log entries that are committed and not applied yet", |member| {
                let status = member.status()?;
                Some(number(status.raft_index.saturating_sub(status.raft_applied_index)))
            }),
            self.of_each("lifeboat_member_is_leader", "1 for the leader", |member| {
                Some(f64::from(u8::from(member.status()?.leader == Some(member.id))))
            }),
            self.gauge("lifeboat_etcd_growth_bytes_per_day", "How many bytes more are in use each day, by the backups", |known| {
                Some(known.standing.as_ref()?.growth?.bytes_per_day)
            }),
            self.gauge(
                "lifeboat_etcd_quota_reached_timestamp_seconds",
                "When the quota is reached at that pace; only where it ever is",
                |known| {
                    let growth = known.standing.as_ref()?.growth?;
                    Some(seconds(quota_reached(known.view.as_ref()?, &growth)?.0))
                },
            ),
            self.gauge(
                "lifeboat_certificate_expires_timestamp_seconds",
                "When the first of the certificates that are in use ends",
                |known| known.certificate_ends.map(seconds),
            ),
            self.gauges("lifeboat_alarms", "Alarms that are raised, by kind", |known| {
                let Some(alarms) = known.view.as_ref().and_then(|view| view.alarms.as_ref()) else { return Vec::new() };
                let mut kinds: BTreeMap<String, f64> = BTreeMap::from([("NOSPACE".to_owned(), 0.0), ("CORRUPT".to_owned(), 0.0)]);
                for alarm in alarms {
                    *kinds.entry(alarm_word(alarm.kind)).or_default() += 1.0;
                }
                kinds.into_iter().map(|(kind, count)| (vec![("alarm", kind)], count)).collect()
            }),
            self.gauges("lifeboat_health_findings", "What is not well in etcd, by severity", |known| {
                if known.view.is_none() {
                    return Vec::new();
                }
                let count = |severity| known.findings.iter().filter(|finding| finding.severity == severity).count();
                SEVERITIES
                    .iter()
                    .map(|severity| (vec![("severity", severity.word().to_owned())], number(count(*severity) as u64)))
                    .collect()
            }),
            self.gauge("lifeboat_etcd_reachable", "1 where members could be looked at, 0 where none answered", |known| {
                if known.unseen.is_some() { Some(0.0) } else { known.view.as_ref().map(|_| 1.0) }
            }),
            self.counter("lifeboat_leader_changes", "Times the leader was another one than at the look before", |known| {
                known.leader_changes
            }),
        ]
    }

    fn of_each(&self, name: &'static str, help: &'static str, of: impl Fn(&engine::care::MemberView) -> Option<f64>) -> Family {
        self.gauges(name, help, |known| {
            let members = known.view.iter().flat_map(|view| &view.members);
            members.filter_map(|member| Some((vec![("member", member.label())], of(member)?))).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use engine::status::Standing;
    use engine::{Code, Failure};

    use super::*;
    use crate::observed::Attempt;

    #[test]
    fn what_is_not_known_has_no_value_and_what_is_has_one_line() {
        let observed = Arc::new(Observed::default());
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let failure = Failure::new(Code::StoreUnreachable, "the store does not answer");
        observed.begin("prod");
        observed.of("prod", |known| {
            known.standing = Some(Standing::unknown("prod".parse().unwrap(), &failure));
            known.count(&failure);
            known.failed = 3;
            known.attempt = Some(Attempt {
                at: now,
                took: std::time::Duration::from_millis(1500),
                code: Code::StoreUnreachable,
                failure: Some("x".to_owned()),
            });
        });
        let text = text(&observed, now).unwrap();
        for line in [
            "lifeboat_cluster_state{cluster=\"prod\",state=\"unknown\"} 1.0",
            "lifeboat_cluster_state{cluster=\"prod\",state=\"protected\"} 0.0",
            "lifeboat_backups_failed_total{cluster=\"prod\"} 3.0",
            "lifeboat_store_errors_total{cluster=\"prod\"} 1.0",
            "lifeboat_last_attempt_success{cluster=\"prod\"} 0.0",
            "lifeboat_last_attempt_duration_seconds{cluster=\"prod\"} 1.5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("lifeboat_last_success_timestamp_seconds{"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
