//! Who belongs to the cluster, and do they agree on it?

use std::collections::{BTreeMap, BTreeSet};

use etcd_api::Member;
use etcd_store::id::MemberId;

use super::Finding;
use crate::care::quorum::Quorum;
use crate::care::view::{ClusterView, MemberView};
use crate::next::quoted;

/// How a command names a member.
fn word(member: &MemberView) -> String {
    quoted(&member.label())
}

pub(super) fn quorum(view: &ClusterView) -> Vec<Finding> {
    let mut findings = if view.cluster_ids().len() > 1 {
        vec![Finding::unknown("quorum", "not counted: the members that answer belong to different clusters")]
    } else {
        vec![enough(view)]
    };
    findings.extend(answers(view));
    findings
}

/// Whether enough voting members work, and how many more may be lost.
fn enough(view: &ClusterView) -> Finding {
    let quorum = Quorum::of(view);
    let words = quorum.words();
    if !quorum.holds() {
        Finding::alert("quorum", words, "nothing can be written, and nothing read that must be up to date; start the members that do not answer. If a majority is gone for good, only a restore brings the cluster back")
            .mend("lifeboat backup --degraded")
    } else if quorum.voters == 1 {
        Finding::advice("quorum", words, "one member is no cluster: what destroys it destroys the data; only backups stand between")
            .mend(more_members(view))
    } else if quorum.spare() == 0 && quorum.working < quorum.voters {
        let dead = view.voters().find(|member| !member.is_working_voter());
        Finding::alert(
            "quorum",
            words,
            "the next member that fails takes the whole cluster with it; start the one that is missing; only one that is gone for good is removed (remove-member) and replaced",
        )
        .mend(dead.map_or_else(|| "lifeboat etcd status".to_owned(), |member| look_at(view, member)))
    } else if quorum.voters.is_multiple_of(2) {
        Finding::advice("quorum", words, format!("{} voting members survive no more losses than {} do", quorum.voters, quorum.voters - 1))
            .mend(more_members(view))
    } else {
        Finding::healthy("quorum", words)
    }
}

/// What tells more of a member that does not answer; one that never started is taken back.
fn look_at(view: &ClusterView, member: &MemberView) -> String {
    match member.client_urls.first() {
        _ if view.over_talos => format!("lifeboat etcd logs {}", word(member)),
        Some(url) => format!("lifeboat etcd status --endpoints {}", quoted(url)),
        None => format!("lifeboat etcd remove-member {}", member.id),
    }
}

/// How a cluster gets more members: a Talos node joins by itself as it boots.
fn more_members(view: &ClusterView) -> &'static str {
    if view.over_talos { "talosctl get members" } else { "lifeboat etcd add-member --learner --help" }
}

/// Who does not answer.
fn answers(view: &ClusterView) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (member, silence) in view.silent() {
        let (says, means) = (
            format!("does not answer: {}", silence.reason),
            if member.name.is_empty() {
                "it was added and has never started: start it, or take it back"
            } else {
                "it is down, cut off, or its certificate is not trusted"
            },
        );
        let finding = if member.is_learner { Finding::advice("answers", says, means) } else { Finding::alert("answers", says, means) };
        findings.push(finding.of(member.label()).mend(look_at(view, member)));
    }
    for (endpoint, silence) in &view.strangers {
        findings.push(
            Finding::advice(
                "answers",
                format!("does not answer: {}", silence.reason),
                "the endpoint was named, and no member list holds it: a member that was removed, or a wrong address",
            )
            .of(endpoint),
        );
    }
    if view.silent().next().is_none() && view.strangers.is_empty() {
        findings.push(Finding::healthy("answers", format!("all {} member(s) answer", view.members.len())));
    }
    findings
}

pub(super) fn one_cluster(view: &ClusterView) -> Vec<Finding> {
    const CHECK: &str = "cluster-id";
    let mut by_id: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for (member, answer) in view.answering() {
        if let Some(id) = answer.cluster_id {
            by_id.entry(id).or_default().push(member.label());
        }
    }
    let says: Vec<String> = by_id.iter().map(|(id, members)| format!("{id}: {}", members.join(", "))).collect();
    match by_id.len() {
        0 => vec![Finding::unknown(CHECK, "the cluster's id is not offered by this source")],
        1 => vec![Finding::healthy(CHECK, says.join("; "))],
        _ => vec![Finding::alert(CHECK, format!("SPLIT: {}", says.join("; ")), "members of different clusters: one was restored or started anew by itself, or endpoints of two clusters were mixed. Both take writes, and what one takes the other never sees; decide which is right, keep a backup of the other, and let its members join anew")
            .mend(format!("lifeboat backup --degraded --endpoints {}", outnumbered(view)))],
    }
}

/// An endpoint of the cluster with the fewest members: what it alone holds is what a repair may lose.
fn outnumbered(view: &ClusterView) -> String {
    let mut by_id: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for (member, answer) in view.answering() {
        by_id.entry(answer.cluster_id).or_default().push(&member.endpoint);
    }
    by_id.into_values().min_by_key(Vec::len).and_then(|endpoints| endpoints.first().map(|url| (*url).to_owned())).unwrap_or_default()
}

pub(super) fn leader(view: &ClusterView) -> Vec<Finding> {
    const CHECK: &str = "leader";
    let mut findings = Vec::new();
    let leaders = view.leaders();
    let terms: BTreeSet<u64> = view.answering().map(|(_, answer)| answer.status.raft_term).collect();
    for (member, answer) in view.answering() {
        if answer.status.leader.is_none() {
            findings
                .push(Finding::alert(CHECK, "knows of no leader", "it is cut off from the majority, or there is none").of(member.label()));
        }
    }
    let name = |id: &MemberId| view.member(*id).map_or_else(|| id.to_string(), |member| member.label());
    if leaders.len() > 1 {
        let names: Vec<String> = leaders.iter().map(name).collect();
        findings.push(
            Finding::alert(
                CHECK,
                format!("SPLIT: several leaders: {}", names.join(", ")),
                "an election was under way at this moment, or these are several clusters: look again",
            )
            .mend("lifeboat etcd status"),
        );
    } else if let Some(leader) = leaders.first().filter(|_| findings.is_empty()) {
        let term = terms.last().copied().unwrap_or_default();
        if terms.len() > 1 {
            findings.push(
                Finding::advice(
                    CHECK,
                    format!("{} leads; terms {terms:?}", name(leader)),
                    "the members are not in the same term: an election was under way at this moment, or one is cut off; look again",
                )
                .mend("lifeboat etcd status"),
            );
        } else {
            findings.push(Finding::healthy(CHECK, format!("{} leads, term {term}, as every member says", name(leader))));
        }
    }
    findings
}

pub(super) fn lists(view: &ClusterView) -> Vec<Finding> {
    const CHECK: &str = "member-lists";
    let mut findings = Vec::new();
    let mut lists: BTreeMap<Vec<Listed>, Vec<String>> = BTreeMap::new();
    for (member, answer) in view.answering() {
        match &answer.listed {
            Ok(list) => lists.entry(comparable(list)).or_default().push(member.label()),
            Err(reason) => findings.push(Finding::unknown(CHECK, format!("its member list cannot be had: {reason}")).of(member.label())),
        }
        if !member.is_listed && answer.listed.is_ok() {
            findings.push(
                Finding::alert(
                    CHECK,
                    "answers, and no member list holds it",
                    "it was removed from the cluster and still runs, or it belongs to another one: stop it",
                )
                .of(member.label()),
            );
        }
    }
    if lists.len() > 1 {
        let says: Vec<String> =
            lists.iter().map(|(list, members)| format!("{} list(s) {} member(s)", members.join(" and "), list.len())).collect();
        findings.push(Finding::alert(CHECK, format!("the members hold different member lists: {}", says.join("; ")), "a change of the membership has not reached every member: one is behind or cut off; when it stays, that member must be replaced").mend("lifeboat etcd members"));
    }
    for list in lists.keys() {
        let ids: BTreeSet<MemberId> = list.iter().map(|(id, ..)| *id).collect();
        let urls: Vec<&String> = list.iter().flat_map(|(_, _, urls, _)| urls).collect();
        if ids.len() < list.len() || urls.iter().collect::<BTreeSet<_>>().len() < urls.len() {
            findings.push(
                Finding::alert(CHECK, "an id or a peer URL is listed twice", "two members cannot be told apart; remove one of them")
                    .mend("lifeboat etcd members"),
            );
        }
    }
    if findings.is_empty() && lists.len() == 1 {
        findings.push(Finding::healthy(CHECK, "every member that answers holds the same list"));
    }
    findings
}

/// A member as a list has it, without what may differ from list to list: id, name, peer URLs in order, whether it is a learner.
type Listed = (MemberId, String, Vec<String>, bool);

fn comparable(list: &[Member]) -> Vec<Listed> {
    let mut list: Vec<_> = list
        .iter()
        .map(|member| {
            let mut urls = member.peer_urls.clone();
            urls.sort();
            (member.id, member.name.clone(), urls, member.is_learner)
        })
        .collect();
    list.sort();
    list
}

pub(super) fn peers(view: &ClusterView) -> Vec<Finding> {
    const CHECK: &str = "peer-addresses";
    let mut findings = Vec::new();
    let several = view.members.iter().filter(|member| member.is_listed).count() > 1;
    for member in view.members.iter().filter(|member| member.is_listed) {
        let local: Vec<&String> = member.peer_urls.iter().filter(|url| is_local(url)).collect();
        if member.peer_urls.is_empty() {
            findings.push(Finding::alert(CHECK, "has no peer URL", "the others cannot reach it").of(member.label()));
        } else if several
            && local.len() == member.peer_urls.len()
            && view.members.iter().any(|other| other.peer_urls.iter().any(|url| !is_local(url)))
        {
            findings.push(
                Finding::alert(
                    CHECK,
                    format!("is reached by the others only at {}", local[0]),
                    "the other machines reach themselves there; it was restored or started with a wrong peer URL",
                )
                .of(member.label()),
            );
        }
    }
    if findings.is_empty() {
        findings.push(Finding::healthy(CHECK, "every member has one that the others can dial"));
    }
    findings
}

/// Whether a URL leads to the machine that dials it.
fn is_local(url: &str) -> bool {
    let host = url.split("://").nth(1).unwrap_or(url);
    host.starts_with("127.") || host.starts_with("localhost") || host.starts_with("[::1]")
}

pub(super) fn learners(view: &ClusterView) -> Vec<Finding> {
    const CHECK: &str = "learners";
    let newest = view.answering().map(|(_, answer)| answer.status.raft_index).max().unwrap_or_default();
    let mut findings = Vec::new();
    for member in view.members.iter().filter(|member| member.is_learner) {
        let Some(status) = member.status() else { continue };
        let behind = newest.saturating_sub(status.raft_applied_index);
        // etcd promotes from 90 % of the leader's index on (server/etcdserver/server.go, readyPercentThreshold).
        let ready = status.raft_applied_index as f64 >= newest as f64 * 0.9;
        let finding = if ready {
            Finding::advice(
                CHECK,
                format!("is a learner, {behind} entries behind: it can be promoted"),
                "it has no vote: it does not help the cluster to survive a loss",
            )
            .mend(format!("lifeboat etcd promote {}", word(member)))
        } else {
            Finding::advice(
                CHECK,
                format!("is a learner, {behind} entries behind: it catches up"),
                "it can be promoted at 90 % of the leader's log",
            )
        };
        findings.push(finding.of(member.label()));
    }
    if findings.is_empty() {
        findings.push(Finding::healthy(CHECK, "none waits to be promoted"));
    }
    findings
}
