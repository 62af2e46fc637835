//! Checks 1 and 3 to 9 of `talosctl health` (Talos `pkg/cluster/check/default.go`; the second is the check `member-lists`), on what the machines told.

use std::net::IpAddr;

use talos_api::{MachineStage, Service};

use super::Finding;
use crate::care::talos_facts::{NodeFacts, TalosFacts};
use crate::care::view::ClusterView;
use crate::limits::{TALOS_DISK_LEAST, TALOS_MEMORY_CONTROL_PLANE, TALOS_MEMORY_WORKER};
use crate::talos::reach::host_of;

/// Every check on the machines.
pub(super) fn examine(view: &ClusterView, facts: &TalosFacts) -> Vec<Finding> {
    if let Some(why) = &facts.untold {
        return vec![Finding::unknown("machines", why.clone())];
    }
    let mut findings = Vec::new();
    findings.extend(apid(facts));
    findings.extend(service(facts, "talos-etcd", "etcd"));
    findings.extend(members(view, facts));
    findings.extend(each(facts, "talos-memory", memory, "every node has enough"));
    findings.extend(each(facts, "talos-disk", disk, "every node has enough"));
    findings.extend(each(facts, "talos-diagnostics", diagnostics, "Talos itself finds nothing wrong"));
    findings.extend(service(facts, "talos-kubelet", "kubelet"));
    findings.extend(each(facts, "talos-boot", boot, "every node has come up"));
    findings
}

/// Check 4: every node answers.
fn apid(facts: &TalosFacts) -> Vec<Finding> {
    const CHECK: &str = "talos-apid";
    let silent = facts.nodes.iter().filter_map(|node| Some((node, node.version.as_ref().err()?)));
    let findings: Vec<Finding> = silent
        .map(|(node, why)| {
            let (says, means) = (format!("does not answer: {why}"), "the machine is down, cut off, or still on its way up");
            let finding = if node.is_control_plane { Finding::alert(CHECK, says, means) } else { Finding::advice(CHECK, says, means) };
            finding.of(&node.name)
        })
        .collect();
    if findings.is_empty() { vec![Finding::healthy(CHECK, format!("all {} node(s) answer", facts.nodes.len()))] } else { findings }
}

/// Checks 1 and 8: a service runs and is well on each control plane node that answers.
fn service(facts: &TalosFacts, check: &'static str, id: &str) -> Vec<Finding> {
    let control_plane: Vec<&NodeFacts> = facts.nodes.iter().filter(|node| node.is_control_plane && node.version.is_ok()).collect();
    let mut findings = Vec::new();
    for node in &control_plane {
        let services = match &node.services {
            Ok(services) => services,
            Err(why) => {
                findings.push(Finding::unknown(check, format!("its services are not known: {why}")).of(&node.name));
                continue;
            }
        };
        let says = match services.iter().find(|service| service.id == id) {
            Some(service) if service.is_well() => continue,
            Some(service) => unwell(service),
            None => format!("the service {id} is not there"),
        };
        let means = if id == "etcd" { "this member does not serve" } else { "no workload runs there, the API server included" };
        findings.push(Finding::alert(check, says, means).of(&node.name).mend(format!("talosctl -n {} service {id}", target(node))));
    }
    if findings.is_empty() {
        return vec![Finding::healthy(check, format!("{id} runs and is well on {} control plane node(s)", control_plane.len()))];
    }
    findings
}

fn unwell(service: &Service) -> String {
    let last = service.events.last().map(|event| event.message.as_str()).filter(|message| !message.is_empty());
    let why = if service.last_message.is_empty() { last.unwrap_or_default() } else { &service.last_message };
    let why: String = why.chars().filter(|c| !c.is_control()).take(300).collect();
    format!("the service {} is {}{}", service.id, service.state, if why.is_empty() { String::new() } else { format!(": {why}") })
}

/// Check 3: every member is at an address of a control plane node.
fn members(view: &ClusterView, facts: &TalosFacts) -> Vec<Finding> {
    const CHECK: &str = "talos-members"; // Only what Talos itself knows: nodes that the member list led to would prove the list by itself.
    let discovered = facts.nodes.iter().filter(|node| node.is_control_plane && node.is_discovered);
    let known: Vec<IpAddr> = discovered.flat_map(|node| node.addresses.iter().copied()).collect();
    if known.is_empty() {
        return vec![Finding::unknown(
            CHECK,
            "Talos' discovery knows no control plane node, so there is nothing to compare the members with",
        )];
    }
    let mut findings = Vec::new();
    for member in view.members.iter().filter(|member| member.is_listed) {
        let foreign =
            member.peer_urls.iter().find(|url| !host_of(url).and_then(|host| host.parse().ok()).is_some_and(|ip| known.contains(&ip)));
        if let Some(url) = foreign {
            findings.push(
                Finding::alert(
                    CHECK,
                    format!("its peer URL {url} is no control plane node's"),
                    "the node is gone or has another address, and its member was left behind: it counts against the quorum",
                )
                .of(member.label())
                .mend(format!("lifeboat etcd remove-member {}", member.id)),
            );
        }
    }
    if findings.is_empty() {
        findings.push(Finding::healthy(CHECK, "every member is a control plane node"));
    }
    findings
}

/// One check on every node that answers.
fn each(facts: &TalosFacts, check: &'static str, judge: impl Fn(&'static str, &NodeFacts) -> Option<Finding>, well: &str) -> Vec<Finding> {
    let answering = facts.nodes.iter().filter(|node| node.version.is_ok());
    let findings: Vec<Finding> = answering.filter_map(|node| Some(judge(check, node)?.of(&node.name))).collect();
    if findings.is_empty() { vec![Finding::healthy(check, well)] } else { findings }
}

/// Check 5. A container has its host's.
fn memory(check: &'static str, node: &NodeFacts) -> Option<Finding> {
    let memory = match &node.memory {
        Ok(memory) => memory,
        Err(why) => return Some(Finding::unknown(check, format!("not known: {why}"))),
    };
    let is_container = node.version.as_ref().is_ok_and(|version| version.mode == "container");
    let least = if node.is_control_plane { TALOS_MEMORY_CONTROL_PLANE } else { TALOS_MEMORY_WORKER };
    (!is_container && memory.total < least).then(|| {
        let says = format!("{} MiB of memory, {} MiB are the least for its part", memory.total >> 20, least >> 20);
        Finding::advice(check, says, "it may run out of memory, and etcd with it")
    })
}

/// Check 6. Where the volume is no partition of its own there is nothing to measure.
fn disk(check: &'static str, node: &NodeFacts) -> Option<Finding> {
    match &node.ephemeral {
        Ok(Some(size)) if *size < TALOS_DISK_LEAST => {
            let says = format!("EPHEMERAL has {} MiB, {} MiB are the least", size >> 20, TALOS_DISK_LEAST >> 20);
            Some(Finding::advice(check, says, "etcd, images and logs share it: it may run full"))
        }
        Ok(_) => None,
        Err(why) => Some(Finding::unknown(check, format!("not known: {why}"))),
    }
}

/// Check 7.
fn diagnostics(check: &'static str, node: &NodeFacts) -> Option<Finding> {
    match &node.diagnostics {
        Ok(found) => {
            let plain = |text: &str| text.chars().filter(|c| !c.is_control()).take(300).collect::<String>();
            let says: Vec<String> = found.iter().map(|one| format!("{}: {}", plain(&one.id), plain(&one.message))).collect();
            (!says.is_empty()).then(|| {
                Finding::advice(check, says.join("; "), "Talos itself says so of this node")
                    .mend(format!("talosctl -n {} get diagnostics", target(node)))
            })
        }
        Err(why) => Some(Finding::unknown(check, format!("not known: {why}"))),
    }
}

/// Check 9.
fn boot(check: &'static str, node: &NodeFacts) -> Option<Finding> {
    match &node.status {
        Ok(Some(status)) if status.stage != MachineStage::Running => {
            let unmet: Vec<String> = status.unmet.iter().map(|(name, reason)| format!("{name} ({reason})")).collect();
            let waits = if unmet.is_empty() { String::new() } else { format!(", waiting for {}", unmet.join(", ")) };
            let says: String = format!("{:?}{waits}", status.stage).chars().filter(|c| !c.is_control()).take(400).collect();
            Some(Finding::alert(check, says, "the machine has not come up"))
        }
        Ok(_) => None,
        Err(why) => Some(Finding::unknown(check, format!("not known: {why}"))),
    }
}

/// How a command names a node.
fn target(node: &NodeFacts) -> String {
    node.addresses.first().map_or_else(|| crate::next::quoted(&node.name), ToString::to_string)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use talos_api::{Diagnostic, MachineStatus, Memory, ServiceHealth, Version};

    use super::*;
    use crate::care::health::Severity;
    use crate::care::health::tests::cluster;

    fn service(id: &str, state: &str, health: ServiceHealth) -> Service {
        Service { id: id.into(), state: state.into(), health, last_message: String::new(), events: Vec::new() }
    }

    fn node(number: u8) -> NodeFacts {
        NodeFacts {
            name: format!("cp-{number}"),
            addresses: [IpAddr::from([10, 0, 0, number])].into(),
            is_control_plane: true,
            is_discovered: true,
            version: Ok(Version { tag: "v1.13.9".into(), arch: "amd64".into(), platform: "metal".into(), mode: "metal".into() }),
            services: Ok(vec![service("etcd", "Running", ServiceHealth::Healthy), service("kubelet", "Running", ServiceHealth::Healthy)]),
            memory: Ok(Memory { total: 4 << 30, available: 1 << 30 }),
            ephemeral: Ok(Some(20 << 30)),
            diagnostics: Ok(Vec::new()),
            status: Ok(Some(MachineStatus { stage: MachineStage::Running, ready: true, unmet: Vec::new() })),
        }
    }

    fn facts(change: impl FnOnce(&mut NodeFacts)) -> TalosFacts {
        let mut nodes: Vec<NodeFacts> = (1..=3).map(node).collect();
        change(&mut nodes[1]);
        TalosFacts { nodes, untold: None }
    }

    fn view() -> ClusterView {
        let mut view = cluster(3);
        for (at, member) in view.members.iter_mut().enumerate() {
            member.peer_urls = vec![format!("https://10.0.0.{}:2380", at + 1)];
        }
        view
    }

    fn odd(facts: &TalosFacts) -> Vec<(&'static str, Severity)> {
        examine(&view(), facts)
            .into_iter()
            .filter(|finding| finding.severity != Severity::Healthy)
            .map(|finding| (finding.check, finding.severity))
            .collect()
    }

    #[test]
    fn machines_that_are_well_give_one_finding_each_check() {
        let findings = examine(&view(), &facts(|_| {}));
        assert_eq!(findings.len(), 8);
        assert!(findings.iter().all(|finding| finding.severity == Severity::Healthy), "{findings:?}");
    }

    #[test]
    fn each_thing_that_is_wrong_is_found_by_its_own_check() {
        type Change = fn(&mut NodeFacts);
        let cases: [(Change, &str, Severity); 8] = [
            (|node| node.version = Err("down".into()), "talos-apid", Severity::Alert),
            (
                |node| {
                    node.services =
                        Ok(vec![service("etcd", "Failed", ServiceHealth::Unknown), service("kubelet", "Running", ServiceHealth::Healthy)])
                },
                "talos-etcd",
                Severity::Alert,
            ),
            (|node| node.services = Ok(vec![service("etcd", "Running", ServiceHealth::Healthy)]), "talos-kubelet", Severity::Alert),
            (|node| node.addresses = [IpAddr::from([10, 9, 9, 9])].into(), "talos-members", Severity::Alert),
            (|node| node.memory = Ok(Memory { total: 1 << 30, available: 0 }), "talos-memory", Severity::Advice),
            (|node| node.ephemeral = Ok(Some(1 << 30)), "talos-disk", Severity::Advice),
            (
                |node| {
                    node.diagnostics = Ok(vec![Diagnostic { id: "address-overlap".into(), message: "pods".into(), details: Vec::new() }])
                },
                "talos-diagnostics",
                Severity::Advice,
            ),
            (
                |node| node.status = Ok(Some(MachineStatus { stage: MachineStage::Rebooting, ready: false, unmet: Vec::new() })),
                "talos-boot",
                Severity::Alert,
            ),
        ];
        for (change, check, severity) in cases {
            assert_eq!(odd(&facts(change)), [(check, severity)]);
        }
    }

    #[test]
    fn members_are_not_compared_with_nodes_that_their_own_list_led_to() {
        let facts = facts(|_| {});
        let by_the_list =
            TalosFacts { nodes: facts.nodes.into_iter().map(|node| NodeFacts { is_discovered: false, ..node }).collect(), untold: None };
        assert_eq!(odd(&by_the_list), [("talos-members", Severity::Unknown)]);
    }

    #[test]
    fn a_container_has_its_hosts_memory_and_no_disk_of_its_own() {
        let container = facts(|node| {
            node.version.as_mut().unwrap().mode = "container".into();
            (node.memory, node.ephemeral) = (Ok(Memory { total: 1 << 20, available: 0 }), Ok(None));
        });
        assert_eq!(odd(&container), []);
    }

    #[test]
    fn what_our_role_may_not_ask_is_said_and_nothing_more() {
        let untold = TalosFacts { nodes: Vec::new(), untold: Some("this talosconfig has os:etcd:backup".into()) };
        assert_eq!(odd(&untold), [("machines", Severity::Unknown)]);
    }
}
