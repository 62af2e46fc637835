//! Alarms, quota, and how much of the files is in use.

use etcd_api::AlarmKind;
use etcd_store::id::MemberId;

use super::{Finding, WHO_FILLS_IT};
use crate::care::size;
use crate::care::view::{ClusterView, MemberView};
use crate::limits::{ADVISED_SIZE, DEFAULT_QUOTA, IN_USE_ADVICE, IN_USE_ALERT, IN_USE_FROM, QUOTA_ADVICE, QUOTA_ALERT, WORTH_FREEING};

pub(super) fn alarms(view: &ClusterView) -> Vec<Finding> {
    const CHECK: &str = "alarms";
    let Some(alarms) = &view.alarms else { return from_errors(view) };
    if alarms.is_empty() {
        return vec![Finding::healthy(CHECK, "none")];
    }
    let finding = |alarm: &etcd_api::Alarm| {
        let label = if alarm.member == MemberId(0) {
            "nobody in particular".to_owned()
        } else {
            view.member(alarm.member).map_or_else(|| alarm.member.to_string(), MemberView::label)
        };
        match alarm.kind {
            AlarmKind::NoSpace => Finding::alert(CHECK, "NOSPACE", "the database reached its quota: the whole cluster refuses every write but deletions, until space is made and the alarm is disarmed")
                .mend("lifeboat etcd nospace"),
            AlarmKind::Corrupt => Finding::alert(CHECK, "CORRUPT", "members hold different data under the same revision: every call but Snapshot fails. Find the odd one before anything is disarmed")
                .mend("lifeboat etcd hashkv"),
            AlarmKind::Other(kind) => Finding::alert(CHECK, format!("alarm {kind}"), "an alarm this version does not know").mend("lifeboat etcd alarm list"),
        }
        .of(label)
    };
    alarms.iter().map(finding).collect()
}

/// Without a quorum nobody lists the alarms; each member still says in its status which ones it knows of.
fn from_errors(view: &ClusterView) -> Vec<Finding> {
    const CHECK: &str = "alarms";
    let mut findings = Vec::new();
    for (member, answer) in view.answering() {
        for error in answer.status.errors.iter().filter(|error| error.contains("alarm:")) {
            findings.push(
                Finding::alert(
                    CHECK,
                    format!("says: {}", error.trim()),
                    "an alarm was raised before the quorum was lost; it is seen to when there is one again",
                )
                .mend("lifeboat etcd alarm list")
                .of(member.label()),
            );
        }
    }
    if findings.is_empty() {
        findings.push(Finding::unknown(CHECK, "nobody lists the alarms without a quorum; the members' statuses name none"));
    }
    findings
}

/// The quota of a member in bytes, and whether it said so itself; etcd's default where it did not. `None` for one that does not answer.
#[must_use]
pub fn quota_of(member: &MemberView) -> Option<(u64, bool)> {
    let status = member.status()?;
    match status.db_size_quota {
        Some(quota) if quota > 0 => Some((quota, true)),
        _ => Some((DEFAULT_QUOTA, false)),
    }
}

pub(super) fn quota(view: &ClusterView) -> Vec<Finding> {
    const CHECK: &str = "quota";
    let mut findings = Vec::new();
    let mut largest: Option<(f64, String)> = None;
    for member in &view.members {
        let (Some(status), Some((quota, told))) = (member.status(), quota_of(member)) else { continue };
        let share = status.db_size as f64 / quota as f64;
        let said = if told { "its quota" } else { "etcd's default quota (before 3.6 a member does not tell its own)" };
        let says = format!("{} of {}, {:.0} % of {said}", size(status.db_size), size(quota), share * 100.0);
        let means = "when the file reaches the quota the whole cluster refuses writes (NOSPACE)";
        // A quota that was only assumed may be far larger in truth: it is never more than advice.
        if told && share >= QUOTA_ALERT {
            findings.push(Finding::alert(CHECK, says, means).mend("lifeboat etcd nospace").of(member.label()));
        } else if share >= QUOTA_ADVICE {
            // What is in use is not given back by a defragmentation: then the question is who fills it.
            let free = status.db_size.saturating_sub(status.db_size_in_use) as f64;
            let mend = if free >= status.db_size as f64 * WORTH_FREEING { "lifeboat etcd defrag --all" } else { WHO_FILLS_IT };
            findings.push(Finding::advice(CHECK, says, means).mend(mend).of(member.label()));
        } else if largest.as_ref().is_none_or(|(most, _)| share > *most) {
            largest = Some((share, format!("{}: {says}", member.label())));
        }
        if status.db_size > ADVISED_SIZE {
            findings.push(
                Finding::advice(
                    CHECK,
                    format!("its file has {}", size(status.db_size)),
                    "etcd is not made for more than 8 GiB: starting, snapshots and recovery take long",
                )
                .mend("lifeboat etcd top")
                .of(member.label()),
            );
        }
    }
    if let (true, Some((_, says))) = (findings.is_empty(), largest) {
        findings.push(Finding::healthy(CHECK, format!("at most {says}")));
    }
    findings
}

pub(super) fn in_use(view: &ClusterView) -> Vec<Finding> {
    const CHECK: &str = "in-use";
    let mut findings = Vec::new();
    let mut least = 1.0f64;
    for member in &view.members {
        let Some(status) = member.status().filter(|status| status.db_size > 0) else { continue };
        let share = status.db_size_in_use as f64 / status.db_size as f64;
        if status.db_size < IN_USE_FROM {
            continue;
        }
        least = least.min(share);
        let says = format!("{:.0} % of {} in use", share * 100.0, size(status.db_size));
        let means = "the rest is free pages that only a defragmentation gives back; they count against the quota and are in every snapshot";
        let finding = if share < IN_USE_ALERT {
            Finding::alert(CHECK, says, means)
        } else if share < IN_USE_ADVICE {
            Finding::advice(CHECK, says, means)
        } else {
            continue;
        };
        findings.push(finding.mend("lifeboat etcd defrag").of(member.label()));
    }
    if findings.is_empty() {
        let says =
            if least < 1.0 { format!("{:.0} % or more everywhere", least * 100.0) } else { "every file is small or full".to_owned() };
        findings.push(Finding::healthy(CHECK, says));
    }
    findings
}
