//! What the configuration of a cluster wants a word about, and how it grows.

use jiff::Timestamp;

use super::storage::quota_of;
use super::{Finding, WHO_FILLS_IT};
use crate::care::size;
use crate::care::trend::Growth;
use crate::care::view::ClusterView;
use crate::config::{Alert, bytes, share};
use crate::limits::{QUOTA_REACHED_ADVICE, QUOTA_REACHED_ALERT};

/// The thresholds of `alert`. What the configuration does not name gives no finding.
pub(super) fn configured(view: &ClusterView, alert: &Alert) -> Vec<Finding> {
    let mut findings = Vec::new();
    let above = alert.db_size_above.as_deref().and_then(|text| bytes(text).ok());
    let below = alert.in_use_below.as_deref().and_then(|text| share(text).ok());
    for member in &view.members {
        let Some(status) = member.status() else { continue };
        if let Some(above) = above.filter(|above| status.db_size > *above) {
            let says = format!("its file has {}, and alert.db_size_above is {}", size(status.db_size), size(above));
            let finding = Finding::alert("db-size-above", says, "the configuration asks to be told");
            findings.push(finding.mend(WHO_FILLS_IT).of(member.label()));
        }
        let in_use = if status.db_size == 0 { 1.0 } else { status.db_size_in_use as f64 / status.db_size as f64 };
        if let Some(below) = below.filter(|below| in_use < *below) {
            let says = format!("{:.0} % of its file are in use, and alert.in_use_below is {:.0} %", in_use * 100.0, below * 100.0);
            findings.push(
                Finding::alert("in-use-below", says, "the configuration asks to be told").mend("lifeboat etcd defrag").of(member.label()),
            );
        }
    }
    findings
}

/// The first moment at which a member's quota is reached if the data grow as they do, and that member.
#[must_use]
pub fn quota_reached(view: &ClusterView, growth: &Growth) -> Option<(Timestamp, String)> {
    let of = |member: &crate::care::view::MemberView| Some((growth.reaches(quota_of(member)?.0)?, member.label()));
    view.members.iter().filter_map(of).min()
}

/// Whether the quota comes near.
pub(super) fn trend(view: &ClusterView, growth: Option<&Growth>, now: Timestamp) -> Vec<Finding> {
    const CHECK: &str = "growth";
    let Some(growth) = growth else { return Vec::new() };
    let Some((at, member)) = quota_reached(view, growth) else { return Vec::new() };
    let left = at.duration_since(now);
    let says = format!(
        "{} more in use each day; the quota is reached about {}",
        size(growth.bytes_per_day.max(0.0) as u64),
        at.strftime("%Y-%m-%d")
    );
    let means = "when the file reaches the quota the whole cluster refuses writes (NOSPACE), and a defragmentation gives nothing back of what is in use";
    let finding = if left <= QUOTA_REACHED_ALERT {
        Finding::alert(CHECK, says, means)
    } else if left <= QUOTA_REACHED_ADVICE {
        Finding::advice(CHECK, says, means)
    } else {
        return Vec::new();
    };
    vec![finding.mend(WHO_FILLS_IT).of(member)]
}
