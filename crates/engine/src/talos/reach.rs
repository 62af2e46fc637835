//! From options to nodes that can be asked: the talosconfig read anew, the control plane found from one node.

use std::time::SystemTime;

use etcd_api::Member;
use futures::future::{join_all, select_ok};
use talos_api::vip::{self, NodeAddress, Reason};
use talos_api::{Access as Context, Client, ClusterMember, ErrorClass, Node, NodeName, Options, Remaining, Role, Selection, Talosconfig};

use super::TalosOptions;
use super::failure::{failure, of_config};
use crate::failure::{Failure, Outcome};
use crate::limits::{MAX_MEMBERS, TALOSCONFIG_WARN, TALOSCONFIG_WARN_SHARE};

/// A cluster's nodes, ready to be asked.
#[derive(Clone, Debug)]
pub struct Reached {
    /// The connections.
    pub client: Client,
    /// Name of the talosconfig's context.
    pub context: String,
    /// The nodes that are asked about etcd: at least one.
    pub nodes: Vec<Node>,
    /// The member list that led to them, where one was asked for.
    pub members: Vec<Member>,
    /// Until when our certificate is valid.
    pub certificate_ends: Option<SystemTime>,
    /// What was odd on the way, in words.
    pub notes: Vec<String>,
}

impl Reached {
    /// Every node of the cluster, workers too, as Talos' discovery has them; none where it is off or our role may not ask.
    pub async fn discovered(&self) -> Vec<ClusterMember> {
        for node in &self.nodes {
            if let Ok(found) = node.cluster_members().await
                && !found.is_empty()
            {
                return found;
            }
        }
        Vec::new()
    }
}

/// Reads the talosconfig and finds the nodes: those that the caller names; else, and with `all`, every control plane node, to which the talosconfig's
/// own nodes and endpoints lead.
///
/// # Errors
/// A talosconfig that cannot be used, an expired certificate among them; a cluster in which nobody answers who could say where the members are.
pub async fn reach(options: &TalosOptions, all: bool) -> Outcome<Reached> {
    let mut notes = Vec::new();
    let context = context(options, &mut notes)?;
    let client = Client::new(&context, limits(options));
    let named = !options.nodes.is_empty() && !all;
    let (nodes, members) = find_nodes(&client, named, !options.nodes.is_empty(), &mut notes).await?;
    notes.extend(virtual_addresses(&client, &nodes).await);
    let certificate_ends = context.identity.as_ref().map(|identity| identity.not_after);
    Ok(Reached { client, context: context.context.clone(), nodes, members, certificate_ends, notes })
}

fn limits(options: &TalosOptions) -> Options {
    let mut limits = Options::default();
    if !options.dial_timeout.is_zero() {
        limits.dial_timeout = options.dial_timeout;
    }
    if !options.request_timeout.is_zero() {
        limits.request_timeout = options.request_timeout;
    }
    limits
}

/// A client with these options as they stand. Nothing is dialled, and no node is looked for.
///
/// # Errors
/// A talosconfig that cannot be used.
pub fn client(options: &TalosOptions) -> Outcome<Client> {
    Ok(Client::new(&context(options, &mut Vec::new())?, limits(options)))
}

/// What a cluster is known by whether or not its etcd lives: the authority that its nodes' API trusts; with the name of the context.
///
/// # Errors
/// A talosconfig that cannot be used.
pub fn identity(options: &TalosOptions) -> Outcome<(String, String)> {
    let context = context(options, &mut Vec::new())?;
    let known = match context.authority() {
        Some(pem) => format!("talos-{}", &vault::digest::Sha256::of(pem).to_string()[..16]),
        None => format!("talos-context-{}", context.context),
    };
    Ok((context.context, known))
}

/// That the talosconfig can be used as it stands. Nothing is dialled.
///
/// # Errors
/// What is wrong with it.
pub fn check(options: &TalosOptions) -> Outcome<()> {
    context(options, &mut Vec::new()).map(drop)
}

fn context(options: &TalosOptions, notes: &mut Vec<String>) -> Outcome<Context> {
    let path = options.config_file.as_path();
    let config = Talosconfig::read(path).map_err(|error| of_config(&error).object(path.display()))?;
    let selection =
        Selection { context: options.context.clone(), endpoints: options.endpoints.clone(), nodes: options.nodes.clone(), cluster: None };
    let context = config.select(&selection).map_err(|error| of_config(&error).object(path.display()))?;
    if let Some(identity) = &context.identity {
        match identity.remaining(SystemTime::now()) {
            Remaining::Over(over) => {
                return Err(Failure::usage(format!("the talosconfig's certificate expired {} ago", days(over)))
                    .object(format!("context '{}' of {}", context.context, path.display()))
                    .cause("nobody is let in with it; a new one is made from the secrets bundle or a control plane node's machine config")
                    .again());
            }
            Remaining::NotYet(early) => {
                notes.push(format!("the talosconfig's certificate begins only in {}: the clock here is likely wrong", days(early)));
            }
            // Six hours are the whole life of a service account's certificate, so "soon" is a share of it, and a month at most.
            Remaining::Left(left) if left < TALOSCONFIG_WARN.min(identity.lifetime() / TALOSCONFIG_WARN_SHARE) => {
                notes.push(format!(
                    "the talosconfig's certificate expires in {}: make a new one while it still can (talosctl config new)",
                    days(left)
                ));
            }
            Remaining::Left(_) => {}
        }
    }
    Ok(context)
}

fn days(time: std::time::Duration) -> String {
    let hours = time.as_secs() / 3600;
    match hours {
        0 => format!("{} minutes", time.as_secs() / 60),
        1..48 => format!("{hours} hours"),
        _ => format!("{} days", hours / 24),
    }
}

/// The nodes that are named; else every node the member list leads to; else, without a quorum to give one, every node that can be thought of.
async fn find_nodes(client: &Client, only_named: bool, by_caller: bool, notes: &mut Vec<String>) -> Outcome<(Vec<Node>, Vec<Member>)> {
    let named = client.nodes();
    if only_named {
        return Ok((named, Vec::new()));
    }
    // Nodes that the caller names are where the looking begins, and nowhere else.
    let more = if by_caller { Vec::new() } else { client.at_endpoints() };
    let askable: Vec<Node> = named.iter().cloned().chain(more).collect();
    // At once: one that is frozen says nothing for as long as anybody waits.
    let asking: Vec<_> = askable.iter().map(|node| Box::pin(member_list(node))).collect();
    let why = match select_ok(asking).await {
        Ok((members, _)) => match nodes_of(client, &members) {
            nodes if nodes.len() == members.len() => return Ok((nodes, members)),
            nodes => format!("{} of {} members have no address in it", members.len() - nodes.len(), members.len()),
        },
        Err(Unlisted::Call(error)) if by_caller && is_no_member(&error) => {
            return Err(failure("the nodes that are named are of no use", &error));
        }
        // Nothing to go on with: the talosconfig itself is the trouble.
        Err(Unlisted::Call(error)) if error.class() == ErrorClass::Input => return Err(failure("Talos cannot be reached", &error)),
        Err(Unlisted::Call(error)) => error.to_string(),
        Err(Unlisted::Size(size)) => format!("it has {size} members"),
    };
    let nodes = conceivable(client, named, &askable).await;
    let asked: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    notes.push(format!("the member list cannot be had ({why}): {} are asked; others can be named with -n", asked.join(", ")));
    if let Some(loose) = nodes.iter().find(|node| !node.is_pinned()) {
        notes.push(format!("{loose} is a name: one call through it may reach another node than the next"));
    }
    Ok((nodes, Vec::new()))
}

/// Whether the node itself is the trouble, and not the etcd on it.
fn is_no_member(error: &talos_api::Error) -> bool {
    use talos_api::ErrorKind;
    matches!(error.kind(), ErrorKind::NodeUnreachable(_) | ErrorKind::NotControlPlane(_) | ErrorKind::NoForwarding)
}

/// Why a node gave no member list that can be used.
enum Unlisted {
    Call(talos_api::Error),
    Size(usize),
}

async fn member_list(node: &Node) -> Result<Vec<Member>, Unlisted> {
    let members = node.etcd_members(false).await.map_err(Unlisted::Call)?;
    if members.is_empty() || members.len() > MAX_MEMBERS { Err(Unlisted::Size(members.len())) } else { Ok(members) }
}

/// The control plane as Talos' own discovery has it, where our role may ask; else the nodes that the talosconfig names and the addresses it dials; else
/// whatever answers at its endpoints.
async fn conceivable(client: &Client, named: Vec<Node>, askable: &[Node]) -> Vec<Node> {
    if client.roles().suffice(&[Role::Reader, Role::Operator, Role::Admin]) {
        let asking: Vec<_> = askable.iter().map(|node| Box::pin(node.cluster_members())).collect();
        if let Ok((members, _)) = select_ok(asking).await {
            let control_plane = members.iter().filter(|member| member.machine_type.has_etcd());
            let nodes: Vec<Node> = control_plane
                .filter_map(|member| Some(client.node(&NodeName::parse(&member.addresses.first()?.to_string()).ok()?)))
                .collect();
            if !nodes.is_empty() {
                return nodes;
            }
        }
    }
    let mut nodes = named;
    for address in client.endpoints().iter().filter_map(|endpoint| endpoint.ip()) {
        if let Ok(name) = NodeName::parse(&address.to_string())
            && nodes.iter().all(|node| node.name() != Some(&name))
        {
            nodes.push(client.node(&name));
        }
    }
    if nodes.is_empty() { client.at_endpoints() } else { nodes }
}

/// A node for each member, by the address at which it advertises itself: Talos runs etcd on the node's own.
fn nodes_of(client: &Client, members: &[Member]) -> Vec<Node> {
    members.iter().filter_map(|member| Some(client.node(&address(member)?))).collect()
}

/// The node a member runs on.
#[must_use]
pub fn address(member: &Member) -> Option<NodeName> {
    let urls = member.client_urls.iter().chain(&member.peer_urls);
    urls.filter_map(|url| NodeName::parse(host_of(url)?).ok()).next()
}

/// The host of a URL, without brackets.
#[must_use]
pub fn host_of(url: &str) -> Option<&str> {
    let rest = url.split_once("://")?.1.split('/').next()?;
    match rest.strip_prefix('[') {
        Some(inner) => inner.split(']').next(),
        None => rest.rsplit_once(':').map_or(Some(rest), |(host, _)| Some(host)),
    }
}

/// Endpoints that are no node's own address. Only asked where our role may.
async fn virtual_addresses(client: &Client, nodes: &[Node]) -> Vec<String> {
    if !client.roles().suffice(&[Role::Reader, Role::Operator, Role::Admin]) {
        return Vec::new();
    }
    let asked = join_all(nodes.iter().map(|node| async move { (node.to_string(), node.addresses().await.unwrap_or_default()) })).await;
    let complete = asked.iter().all(|(_, addresses)| !addresses.is_empty());
    // A node whose etcd left is one all the same.
    let discovered = match nodes.first() {
        Some(node) => node.cluster_members().await.unwrap_or_default(),
        None => Vec::new(),
    };
    let is_a_nodes =
        |endpoint: &talos_api::Endpoint| endpoint.ip().is_some_and(|ip| discovered.iter().any(|member| member.addresses.contains(&ip)));
    let known: Vec<(&str, &[NodeAddress])> = asked.iter().map(|(name, addresses)| (name.as_str(), &addresses[..])).collect();
    let mut words = Vec::new();
    for finding in vip::suspects(&client.endpoints(), &known) {
        let why = match &finding.reason {
            Reason::Shared(nodes) => format!("it is an address of {}", nodes.join(" and of ")),
            Reason::LooksVirtual(node) => format!("it looks like a virtual address, which {node} holds at present"),
            Reason::Nobodys if is_a_nodes(&finding.endpoint) => continue,
            Reason::Nobodys if complete && nodes.len() > 1 => {
                "no control plane node has this address: a virtual one, or a load balancer".to_owned()
            }
            Reason::Nobodys => continue,
        };
        words.push(format!(
            "endpoint {} is not one node ({why}); it is gone when etcd is, which is when you need it: name the nodes' own addresses",
            finding.endpoint
        ));
    }
    words
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use etcd_store::id::MemberId;

    use super::*;

    #[test]
    fn a_members_node_is_where_it_advertises_itself() {
        let member = |client: &str, peer: &str| Member {
            id: MemberId(1),
            name: "cp-1".into(),
            peer_urls: vec![peer.into()],
            client_urls: if client.is_empty() { Vec::new() } else { vec![client.into()] },
            is_learner: false,
        };
        for (client, peer, node) in [
            ("https://10.0.0.2:2379", "https://10.0.0.3:2380", Some("10.0.0.2")),
            ("", "https://10.0.0.3:2380", Some("10.0.0.3")),
            ("https://[fd00::2]:2379", "", Some("fd00::2")),
            ("https://cp-1.example:2379", "", Some("cp-1.example")),
            ("nonsense", "", None),
            ("https://a b:1", "unix:///x", None),
        ] {
            assert_eq!(address(&member(client, peer)).map(|node| node.to_string()).as_deref(), node, "{client} {peer}");
        }
    }
}
