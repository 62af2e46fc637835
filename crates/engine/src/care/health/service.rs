//! How the cluster serves: lag, elections, versions, certificates, latency.

use std::collections::BTreeSet;

use super::{Certificates, Finding};
use crate::care::view::ClusterView;
use crate::limits::{CERTIFICATE_ADVICE, CERTIFICATE_ALERT, LAG_ADVICE, LAG_ALERT, LATENCY_ADVICE};

pub(super) fn leader_changes(view: &ClusterView, earlier: Option<&ClusterView>) -> Vec<Finding> {
    const CHECK: &str = "leader-changes";
    let Some(earlier) = earlier else { return Vec::new() };
    let term = |view: &ClusterView| view.answering().map(|(_, answer)| answer.status.raft_term).max();
    let (Some(before), Some(now)) = (term(earlier), term(view)) else { return vec![Finding::unknown(CHECK, "no member answers")] };
    let seconds = view.taken.duration_since(earlier.taken).as_secs();
    match now.saturating_sub(before) {
        0 => vec![Finding::healthy(CHECK, format!("none in {seconds} s"))],
        elections => vec![Finding::alert(
            CHECK,
            format!("{elections} election(s) in {seconds} s"),
            "members lose sight of their leader: a slow disk, a slow network, or a machine without breath. Look at the disk's fsync times first",
        )
        .mend("lifeboat etcd health --watch")],
    }
}

pub(super) fn lag(view: &ClusterView) -> Vec<Finding> {
    const CHECK: &str = "raft-lag";
    let newest = view.answering().map(|(_, answer)| answer.status.raft_index).max().unwrap_or_default();
    let mut findings = Vec::new();
    for (member, answer) in view.answering().filter(|(member, _)| !member.is_learner) {
        let behind = newest.saturating_sub(answer.status.raft_applied_index);
        let says = format!("{behind} entries behind");
        let means = "it applies slower than the cluster writes: a slow disk, or it has just come back";
        if behind >= LAG_ALERT {
            findings.push(Finding::alert(CHECK, says, means).of(member.label()));
        } else if behind >= LAG_ADVICE {
            findings.push(Finding::advice(CHECK, says, means).of(member.label()));
        }
    }
    if findings.is_empty() && newest > 0 {
        findings.push(Finding::healthy(CHECK, format!("no voting member is {LAG_ADVICE} entries behind")));
    }
    findings
}

pub(super) fn versions(view: &ClusterView) -> Vec<Finding> {
    const CHECK: &str = "versions";
    let all: BTreeSet<&str> = view.answering().map(|(_, answer)| answer.status.version.as_str()).collect();
    let mut findings = Vec::new();
    let said = all.iter().copied().collect::<Vec<_>>().join(", ");
    if all.len() > 1 {
        findings.push(Finding::advice(
            CHECK,
            format!("the members run {said}"),
            "an upgrade is under way, or one was forgotten: features of the newer version stay off until all have it",
        ));
    }
    for version in &all {
        if let Some(advice) = known_bad(version) {
            findings.push(Finding::advice(CHECK, format!("etcd {version}"), advice));
        }
    }
    for (member, answer) in view.answering() {
        if let Some(downgrade) = answer.status.downgrade.as_ref().filter(|downgrade| downgrade.enabled) {
            findings.push(
                Finding::advice(
                    CHECK,
                    format!("a downgrade to {} is under way", downgrade.target_version),
                    "while it is, no member can be upgraded",
                )
                .of(member.label()),
            );
        }
    }
    if findings.is_empty() && !all.is_empty() {
        findings.push(Finding::healthy(CHECK, format!("every member runs {said}")));
    }
    findings
}

/// Releases with faults that harm data (reference: etcd's changelogs of 3.4, 3.5 and 3.6).
fn known_bad(version: &str) -> Option<&'static str> {
    let numbers: Vec<u64> = version.split(['.', '-']).map_while(|part| part.parse().ok()).collect();
    let &[major, minor, patch] = numbers.get(..3)? else { return None };
    match (major, minor, patch) {
        (3, 5, 0..=2) => Some("members can lose entries when they crash under load (etcd#13766): upgrade to the newest 3.5"),
        (3, 5, 3..=5) => {
            Some("a crash during a defragmentation can leave a member with another revision (etcd#14685): upgrade before defragmenting")
        }
        (3, 5, 6..=22) | (3, 6, 0..=4) | (3, 4, 0..=37) => Some(
            "a snapshot taken while a member catches up may be torn, with a right checksum (etcd#20271): Lifeboat checks the structure; upgrade all the same",
        ),
        _ => None,
    }
}

pub(super) fn certificates(view: &ClusterView, certificates: &Certificates) -> Vec<Finding> {
    const CHECK: &str = "certificates";
    if certificates.ends.is_empty() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let mut first: Option<(i64, &str)> = None;
    for (whose, ends) in &certificates.ends {
        let left = ends.duration_since(view.taken);
        let days = left.as_hours() / 24;
        let says = if left.is_negative() { format!("ended {} day(s) ago", -days) } else { format!("ends in {days} day(s), {ends:.0}") };
        let means = "when it has ended, nobody who checks it connects any more";
        if left < CERTIFICATE_ALERT {
            findings.push(Finding::alert(CHECK, says, means).of(whose));
        } else if left < CERTIFICATE_ADVICE {
            findings.push(Finding::advice(CHECK, says, means).of(whose));
        } else if first.is_none_or(|(least, _)| days < least) {
            first = Some((days, whose));
        }
    }
    if let (true, Some((days, whose))) = (findings.is_empty(), first) {
        findings.push(Finding::healthy(CHECK, format!("the first to end ({whose}) has {days} day(s)")));
    }
    findings
}

pub(super) fn latency(view: &ClusterView) -> Vec<Finding> {
    const CHECK: &str = "latency";
    let mut findings = Vec::new();
    let mut worst = std::time::Duration::ZERO;
    for (member, answer) in view.answering() {
        worst = worst.max(answer.took);
        if answer.took >= LATENCY_ADVICE {
            findings.push(
                Finding::advice(
                    CHECK,
                    format!("answered after {} ms", answer.took.as_millis()),
                    "a status costs a healthy member nothing: the network is slow, or the member is overloaded",
                )
                .of(member.label()),
            );
        }
    }
    if findings.is_empty() {
        findings.push(Finding::healthy(CHECK, format!("every status within {} ms", worst.as_millis().max(1))));
    }
    findings
}
