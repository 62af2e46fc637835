//! Finding out, changing nothing: every node of the control plane that anything tells of, asked directly.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use futures::future::join_all;
use talos_api::vip::{self, NodeAddress, Reason};
use talos_api::{Endpoint, MachineStage, MachineType, Node as Asked, NodeName, Role, VolumeType};
use tokio::net::TcpStream;
use tokio::time::timeout;
use vault::name::RepositoryId;

use super::evidence::{Etcd, Evidence, Facts, MemberFacts, Node, image_version};
use super::seen;
use crate::failure::{Failure, Outcome};
use crate::talos::secrets::Secrets;
use crate::talos::{Reached, TalosOptions, reach};

/// How long it is tried whether an address can be dialled from here.
const DIALLED_WITHIN: Duration = Duration::from_secs(3);
/// Most nodes of a control plane.
const NODES_MAX: usize = 64;

/// What is to be found out.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Nodes said to be gone: they are on the list, whether anything else tells of them or not.
    pub gone: Vec<String>,
    /// The repository under whose id secrets are compared.
    pub repository: Option<RepositoryId>,
    /// Take endpoints for one node each although no node has their address (address translation).
    pub endpoints_as_given: bool,
}

/// Looks at a cluster's control plane.
///
/// # Errors
/// Where nobody answers, our role is not os:admin, or the endpoints are no nodes (a load balancer, a virtual address).
pub async fn find_out(options: &TalosOptions, wanted: &Wanted) -> Outcome<Evidence> {
    // Where the looking begins is the talosconfig's word: a node that is named may be the very one that is dead.
    let reached = reach(&TalosOptions { nodes: Vec::new(), ..options.clone() }, true).await?;
    if !reached.client.roles().has(&Role::Admin) {
        return Err(Failure::failed("a recovery needs the role os:admin")
            .object(format!("context '{}'", reached.context))
            .cause(format!("this talosconfig has {}; it reads machine configs and resets nodes", reached.client.roles()))
            .again());
    }
    let (nodes, workers) = known(&reached, options, &wanted.gone).await;
    if nodes.len() > NODES_MAX {
        return Err(Failure::failed(format!("{} control plane nodes are more than a cluster has", nodes.len())).again());
    }
    let asked = join_all(nodes.iter().map(|(known, node)| ask(known, node, wanted))).await;
    let (nodes, named_workers) = distinct(asked, &options.nodes);
    let mut notes: Vec<String> = reached.notes.iter().filter(|note| !note.starts_with("endpoint ")).cloned().collect();
    let own = own_addresses(&nodes, &workers);
    let endpoints = endpoints(&reached, &nodes, &own, wanted, &mut notes).await?;
    let workers = workers.into_iter().map(|(name, addresses)| (name, addresses.first().map(ToString::to_string).unwrap_or_default()));
    let nodes = nodes.into_iter().map(|(node, _)| node).collect();
    Ok(Evidence { context: reached.context, nodes, workers: workers.collect(), named_workers, endpoints, notes })
}

/// What is known of a node before it is asked.
struct Known {
    name: String,
    addresses: BTreeSet<IpAddr>,
    is_control_plane: bool,
}

type Worker = (String, Vec<IpAddr>);

/// The control plane as far as anything tells: discovery, member lists, the talosconfig, the caller.
async fn known(reached: &Reached, options: &TalosOptions, gone: &[String]) -> (Vec<(Known, Asked)>, Vec<Worker>) {
    let mut all: Vec<(Known, Asked)> = Vec::new();
    let mut workers = Vec::new();
    for node in reached.everyone().await {
        if node.is_control_plane {
            all.push((Known { name: node.name, addresses: node.addresses, is_control_plane: node.is_discovered }, node.node));
        } else {
            workers.push((node.name, node.addresses.into_iter().collect()));
        }
    }
    let named = options.nodes.iter().filter_map(|name| NodeName::parse(name).ok());
    let own = reached.client.nodes().into_iter().filter_map(|node| node.name().cloned());
    // One that is said to be gone is asked as well: it may answer.
    let gone = gone.iter().filter_map(|name| NodeName::parse(name).ok());
    for name in named.chain(own).chain(gone) {
        let is_known = |known: &Known| known.name == name.as_str() || name.ip().is_some_and(|ip| known.addresses.contains(&ip));
        let is_worker = workers
            .iter()
            .any(|(worker, addresses): &Worker| worker == name.as_str() || name.ip().is_some_and(|ip| addresses.contains(&ip)));
        let is_named = options.nodes.iter().any(|named| named.eq_ignore_ascii_case(name.as_str()));
        if all.iter().all(|(known, _)| !is_known(known)) && (!is_worker || is_named) {
            let known = Known { name: name.to_string(), addresses: name.ip().into_iter().collect(), is_control_plane: false };
            all.push((known, reached.client.node(&name)));
        }
    }
    (all, workers)
}

/// A node with the addresses it holds at present.
type Told = (Node, Vec<NodeAddress>);

async fn ask(known: &Known, node: &Asked, wanted: &Wanted) -> (Told, bool) {
    let facts = facts(node, wanted).await;
    let held = if facts.is_ok() { node.addresses().await.unwrap_or_default() } else { Vec::new() };
    let mut addresses = known.addresses.clone();
    addresses.extend(held.iter().map(|address| address.ip).filter(|ip| !ip.is_loopback() || known.addresses.contains(ip)));
    let advertised = facts.iter().filter_map(|facts| facts.etcd.as_ref()).flat_map(|etcd| etcd.advertised.iter().copied());
    addresses.extend(advertised);
    let name = match (&facts, known.is_control_plane) {
        (Ok(facts), false) => facts.etcd.as_ref().map(|etcd| etcd.name.clone()).filter(|name| !name.is_empty()),
        _ => None,
    };
    let name = name.unwrap_or_else(|| known.name.clone());
    let is_worker = facts.as_ref().is_ok_and(|facts| facts.machine_type == MachineType::Worker);
    ((Node { name, address: node.to_string(), addresses, facts }, held), is_worker)
}

/// One entry for each machine; workers that the caller named apart.
fn distinct(asked: Vec<(Told, bool)>, named: &[String]) -> (Vec<Told>, Vec<String>) {
    let mut nodes: Vec<Told> = Vec::new();
    let mut workers = Vec::new();
    for ((node, held), is_worker) in asked {
        if is_worker {
            if named.iter().any(|name| node.is_called(name)) {
                workers.push(node.name);
            }
            continue;
        }
        let boot = node.told().map(|facts| facts.boot_id.clone());
        let same = |(other, _): &Told| {
            (boot.is_some() && other.told().map(|facts| facts.boot_id.clone()) == boot)
                || node.address.parse::<IpAddr>().is_ok_and(|ip| other.addresses.contains(&ip))
        };
        match nodes.iter_mut().find(|other| same(other)) {
            Some((other, _)) => other.addresses.extend(node.addresses),
            None => nodes.push((node, held)),
        }
    }
    nodes.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    (nodes, workers)
}

async fn facts(node: &Asked, wanted: &Wanted) -> Result<Facts, String> {
    let words = |error: talos_api::Error| error.kind().to_string();
    let version = node.version().await.map_err(words)?;
    let (machine_type, status, boot_id, clock, time) =
        tokio::join!(node.machine_type(), node.machine_status(), node.boot_id(), node.clock(), node.time_status());
    let now = SystemTime::now();
    let (spec, service, ephemeral, etcd_volume, mounts) =
        tokio::join!(node.etcd_spec(), node.service("etcd"), node.volume("EPHEMERAL"), node.volume("ETCD"), node.mounts());
    let (data, member, secrets) = tokio::join!(seen::data(node), member(node), secrets(node, wanted));
    let service = service.map_err(words)?;
    Ok(Facts {
        talos: version.tag,
        mode: version.mode,
        machine_type: machine_type.map_err(words)?,
        stage: status.map_err(words)?.map_or(MachineStage::Unknown, |status| status.stage),
        boot_id: boot_id.map_err(words)?,
        clock_ahead: clock.ok().map(|clock| ahead(clock, now)),
        time_synced: time.ok().flatten().map(|time| time.synced || time.sync_disabled),
        etcd: spec.map_err(words)?.map(|spec| Etcd {
            version: image_version(&spec.image),
            name: spec.name,
            advertised: spec.advertised_addresses,
        }),
        service: service.map(|service| {
            let event = service.events.last().map(|event| event.message.clone()).unwrap_or_default();
            (service.state, service.health, event)
        }),
        ephemeral: ephemeral.ok().flatten().map_or(0, |volume| volume.size),
        etcd_partition: etcd_volume.map_err(words)?.filter(|volume| volume.kind == VolumeType::Partition).map(|volume| volume.size),
        available: mounts.ok().and_then(|mounts| mounts.into_iter().find(|mount| mount.mounted_on == "/var")).map(|mount| mount.available),
        data,
        member,
        secrets,
    })
}

fn ahead(clock: SystemTime, now: SystemTime) -> i64 {
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    match clock.duration_since(now) {
        Ok(ahead) => seconds(ahead),
        Err(behind) => -seconds(behind.duration()),
    }
}

async fn member(node: &Asked) -> Option<MemberFacts> {
    let status = node.etcd_status().await.ok()?;
    let members = node.etcd_members(true).await.ok();
    Some(MemberFacts {
        id: status.member_id,
        leader: status.leader,
        applied: status.raft_applied_index,
        db_size: status.db_size,
        is_learner: status.is_learner,
        members,
    })
}

async fn secrets(node: &Asked, wanted: &Wanted) -> Result<BTreeMap<String, vault::digest::Sha256>, String> {
    let Some(repository) = &wanted.repository else { return Ok(BTreeMap::new()) };
    let config = node.machine_config().await.map_err(|error| error.kind().to_string())?;
    Ok(Secrets::read(&config)?.fingerprints(repository))
}

/// Every address that is one machine's own.
fn own_addresses(nodes: &[Told], workers: &[Worker]) -> BTreeSet<IpAddr> {
    let control_plane = nodes.iter().flat_map(|(node, _)| node.addresses.iter().copied());
    control_plane.chain(workers.iter().flat_map(|(_, addresses)| addresses.iter().copied())).collect()
}

/// Where apid is dialled from now on: the nodes' own addresses that can be reached from here, and those of the talosconfig that are one node each.
async fn endpoints(
    reached: &Reached,
    nodes: &[Told],
    own: &BTreeSet<IpAddr>,
    wanted: &Wanted,
    notes: &mut Vec<String>,
) -> Outcome<Vec<String>> {
    let mut chosen: Vec<String> = Vec::new();
    let tried = join_all(nodes.iter().map(|(node, _)| async move { (node.address.clone(), answers(&node.address).await) })).await;
    chosen.extend(tried.into_iter().filter(|(_, answers)| *answers).map(|(address, _)| address));
    let held: Vec<(&str, &[NodeAddress])> = nodes.iter().map(|(node, held)| (node.name.as_str(), &held[..])).collect();
    let mut foreign = Vec::new();
    for endpoint in reached.client.endpoints() {
        match alien(&endpoint, &held, own).await {
            None if chosen.iter().all(|chosen| *chosen != endpoint.host()) => chosen.push(endpoint.to_string()),
            None => {}
            Some(_) if wanted.endpoints_as_given => chosen.push(endpoint.to_string()),
            Some(why) => foreign.push((endpoint, why)),
        }
    }
    for (endpoint, why) in &foreign {
        notes.push(format!("endpoint {endpoint} is not one node ({why}); it is not used"));
    }
    // Only where nothing else was named is it refused: then it is the way the caller means to go.
    if foreign.len() == reached.client.endpoints().len()
        && let Some((endpoint, why)) = foreign.first()
    {
        let addresses: Vec<&str> = nodes.iter().map(|(node, _)| node.address.as_str()).collect();
        return Err(Failure::usage("the endpoint is not one node, so nothing is recovered through it")
            .object(endpoint)
            .cause(format!("{why}: it is gone when etcd is, or two calls through it reach two nodes. Name the nodes' own addresses; where these are only reached by translated addresses, --endpoints-as-given takes them for one node each"))
            .again_instead("-e", ["-e", &addresses.join(",")]));
    }
    Ok(chosen)
}

/// Whether apid can be dialled at an address from here.
async fn answers(address: &str) -> bool {
    let Ok(endpoint) = Endpoint::parse(address) else { return false };
    matches!(timeout(DIALLED_WITHIN, TcpStream::connect((endpoint.host(), endpoint.port()))).await, Ok(Ok(_)))
}

/// Why an endpoint is not one node; nothing where it is one, or nobody answers there.
async fn alien(endpoint: &Endpoint, held: &[(&str, &[NodeAddress])], own: &BTreeSet<IpAddr>) -> Option<String> {
    let addresses: Vec<IpAddr> = match endpoint.ip() {
        Some(ip) => vec![ip],
        None => timeout(DIALLED_WITHIN, tokio::net::lookup_host((endpoint.host(), endpoint.port())))
            .await
            .ok()
            .and_then(Result::ok)
            .map(|found| found.map(|address| address.ip()).collect())
            .unwrap_or_default(),
    };
    if addresses.len() > 1 && endpoint.ip().is_none() {
        return Some(format!("the name stands for {} addresses", addresses.len()));
    }
    let ip = *addresses.first()?;
    let bare = Endpoint::parse(&ip.to_string()).ok()?;
    match vip::suspects(&[bare], held).into_iter().next().map(|finding| finding.reason) {
        Some(Reason::Shared(nodes)) => Some(format!("it is an address of {}", nodes.join(" and of "))),
        Some(Reason::LooksVirtual(node)) => Some(format!("a virtual address, which {node} holds at present")),
        Some(Reason::Nobodys) if !own.contains(&ip) => {
            let there = timeout(DIALLED_WITHIN, TcpStream::connect((ip, endpoint.port()))).await;
            matches!(there, Ok(Ok(_))).then(|| "no node has this address: a load balancer, or a virtual address".to_owned())
        }
        _ => None,
    }
}
