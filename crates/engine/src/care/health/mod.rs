//! Judging a cluster by what was seen of it. Pure: from a [`ClusterView`] (and an earlier one, where there is one) to findings.
//!
//! Each check gives at least one [`Finding`], so that nothing passes by not being looked at. Each finding that is not well says what it means and the
//! command that mends it.

mod membership;
mod service;
mod storage;
mod talos;
mod thresholds;

pub use self::storage::quota_of;
pub use self::thresholds::quota_reached;
use super::talos_facts::TalosFacts;
use super::trend::Growth;
use super::view::ClusterView;

/// The command that shows what fills the database.
const WHO_FILLS_IT: &str = "lifeboat etcd snapshot now.db && lifeboat etcd top now.db";

/// How bad a finding is. The worst one is the verdict in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Healthy,
    /// Not looked at, with the reason: the source does not offer it, or nobody answers.
    Unknown,
    /// Should be seen to in working hours.
    Advice,
    /// Should be seen to now.
    Alert,
}

impl Severity {
    /// As reports say it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unknown => "unknown",
            Self::Advice => "advice",
            Self::Alert => "alert",
        }
    }
}

/// One check's result on the cluster or on one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The check, a stable word.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The member concerned, by its name or id; `None` for the whole cluster.
    pub member: Option<String>,
    /// What was seen.
    pub says: String,
    /// What that means, where it is not well.
    pub means: Option<String>,
    /// The command that mends it, where it is not well and a command can.
    pub mend: Option<String>,
}

impl Finding {
    fn healthy(check: &'static str, says: impl Into<String>) -> Self {
        Self { check, severity: Severity::Healthy, member: None, says: says.into(), means: None, mend: None }
    }

    fn unknown(check: &'static str, says: impl Into<String>) -> Self {
        Self { severity: Severity::Unknown, ..Self::healthy(check, says) }
    }

    fn advice(check: &'static str, says: impl Into<String>, means: impl Into<String>) -> Self {
        Self { severity: Severity::Advice, means: Some(means.into()), ..Self::healthy(check, says) }
    }

    fn alert(check: &'static str, says: impl Into<String>, means: impl Into<String>) -> Self {
        Self { severity: Severity::Alert, means: Some(means.into()), ..Self::healthy(check, says) }
    }

    fn of(mut self, member: impl Into<String>) -> Self {
        self.member = Some(member.into());
        self
    }

    fn mend(mut self, command: impl Into<String>) -> Self {
        self.mend = Some(command.into());
        self
    }
}

/// What only one who connects can know, beside the view.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    /// Whose certificate, and when it ends.
    pub ends: Vec<(String, jiff::Timestamp)>,
}

/// Every check on a view. `earlier` is a view of the same cluster some time before.
#[must_use]
pub fn examine(view: &ClusterView, earlier: Option<&ClusterView>, certificates: &Certificates) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(membership::quorum(view));
    findings.extend(membership::one_cluster(view));
    findings.extend(membership::leader(view));
    findings.extend(membership::lists(view));
    findings.extend(membership::peers(view));
    findings.extend(membership::learners(view));
    findings.extend(service::leader_changes(view, earlier));
    findings.extend(service::lag(view));
    findings.extend(storage::alarms(view));
    findings.extend(storage::quota(view));
    findings.extend(storage::in_use(view));
    findings.extend(service::versions(view));
    findings.extend(service::certificates(view, certificates));
    findings.extend(service::latency(view));
    findings
}

/// What the configuration asks to be told of, and whether the quota comes near. Nothing where neither is the case.
#[must_use]
pub fn examine_thresholds(view: &ClusterView, alert: &crate::config::Alert, growth: Option<&Growth>, now: jiff::Timestamp) -> Vec<Finding> {
    let mut findings = thresholds::configured(view, alert);
    findings.extend(thresholds::trend(view, growth, now));
    findings
}

/// Every check on the machines of a Talos cluster.
#[must_use]
pub fn examine_machines(view: &ClusterView, facts: &TalosFacts) -> Vec<Finding> {
    talos::examine(view, facts)
}

/// The worst of the findings.
#[must_use]
pub fn verdict(findings: &[Finding]) -> Severity {
    let known = findings.iter().map(|finding| finding.severity).filter(|severity| *severity != Severity::Unknown);
    known.max().unwrap_or(Severity::Unknown)
}

#[cfg(test)]
pub(crate) mod tests;
