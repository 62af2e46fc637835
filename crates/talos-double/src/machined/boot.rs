//! How etcd comes up on a node: from its data, by joining the others, or by a bootstrap.
//!
//! Source: reference Talos `internal/app/machined/pkg/system/services/etcd.go` (PreFunc, argsForControlPlane, join loop).

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use crate::etcd::{Cluster, Intent, POLL, Place, peer_url};
use crate::world::{NodeState, World};

/// Time for one attempt: etcd waits as long as its caller for a change that was lost with a leader.
const ATTEMPT: Duration = Duration::from_secs(5);

/// Begins to bring etcd up, in the background.
pub(crate) async fn boot(world: &Arc<World>, index: usize) {
    let Some(node) = world.nodes.get(index) else { return };
    node.halt_boot().await;
    let mut etcd = node.etcd.lock().await;
    // Another boot may have begun while this one waited for the service.
    node.halt_boot().await;
    etcd.end_tool();
    etcd.enter("Preparing", "Running pre state");
    let task = tokio::spawn(bring_up(Arc::clone(world), index));
    *node.booting.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
}

/// Ends everything that lives in a node's memory and begins anew from its disk.
pub(crate) async fn reboot(world: &Arc<World>, index: usize) {
    let Some(node) = world.nodes.get(index) else { return };
    node.up.send_replace(false);
    node.halt_boot().await;
    {
        let mut etcd = node.etcd.lock().await;
        etcd.intent = None;
        etcd.stop("Finished", "Service finished successfully");
        etcd.events.clear();
    }
    new_boot_id(node);
    node.up.send_replace(true);
    if node.kind == crate::world::Kind::ControlPlane {
        boot(world, index).await;
    }
}

/// Another id each time a node starts, as the kernel has it.
pub(crate) fn new_boot_id(node: &NodeState) {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_else(|_| "no kernel told an id\n".to_owned());
    std::fs::write(node.boot_id(), id).unwrap();
}

/// What there is to start from.
enum Way {
    Data,
    Bootstrap(Intent),
    /// By a member that answers, as one more of this cluster.
    Join(etcd_api::Client, Cluster),
}

async fn bring_up(world: Arc<World>, index: usize) {
    let Some(node) = world.nodes.get(index) else { return };
    let way = loop {
        if let Some(way) = way(&world, node).await {
            break way;
        }
        tokio::time::sleep(POLL).await;
    };
    let failed = match way {
        Way::Data => node.etcd.lock().await.start(&Cluster::Data).await.err(),
        Way::Bootstrap(intent) => bootstrap(&world, node, intent).await.err(),
        Way::Join(client, cluster) => join(node, &client, cluster).await.err(),
    };
    if let Some(why) = failed {
        node.etcd.lock().await.enter("Failed", why);
    }
}

async fn way(world: &World, node: &NodeState) -> Option<Way> {
    {
        let mut etcd = node.etcd.lock().await;
        if let Some(intent) = etcd.intent.take() {
            return Some(Way::Bootstrap(intent));
        }
        if etcd.place.has_data() {
            return Some(Way::Data);
        }
        if world.is_init(node) {
            return Some(Way::Bootstrap(Intent { recover: false, skip_hash_check: false }));
        }
    }
    for other in world.control_planes().filter(|other| other.index != node.index) {
        let place = other.etcd.lock().await.place.clone();
        if place.is_healthy().await
            && let Ok(client) = place.client().await
        {
            // Refused while another learner is in the way, or the cluster not ready for a change: tried again from the start.
            let own = node.etcd.lock().await.place.clone();
            let why = match timeout(ATTEMPT, announce(&own, &client)).await {
                Ok(Ok(cluster)) => return Some(Way::Join(client, cluster)),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            node.etcd.lock().await.note(format!("cannot join yet: {why}"));
            return None;
        }
    }
    None
}

async fn bootstrap(world: &World, node: &NodeState, intent: Intent) -> Result<(), String> {
    if intent.recover {
        restore(world, node, intent.skip_hash_check).await.map_err(|why| format!("Failed to run pre stage: {why}"))?;
        return node.etcd.lock().await.start(&Cluster::Data).await;
    }
    {
        let mut etcd = node.etcd.lock().await;
        let cluster = Cluster::New(etcd.place.pair());
        etcd.start(&cluster).await
    }
}

/// Runs etcd's tool on what was uploaded. The service is not held meanwhile: a reboot can strike at any moment.
async fn restore(world: &World, node: &NodeState, skip_hash_check: bool) -> Result<(), String> {
    let takes = node.switches().restore_takes;
    tokio::time::sleep(takes).await;
    {
        let mut etcd = node.etcd.lock().await;
        if !etcd.place.recovery.is_file() {
            return Err("error verifying snapshot: stat /var/lib/etcd.snapshot: no such file or directory".to_owned());
        }
        let urls: Vec<String> = world.advertised(node).into_iter().map(peer_url).collect();
        let name = &etcd.place.hostname;
        // Before 1.10.5 the addresses were joined behind one name, which etcd takes apart at the wrong places. Later ones have the
        // name before each; the double's etcd has the first one alone.
        let (cluster, peers) = match world.options.profile.restores_many_addresses() {
            true => (etcd.place.pair(), etcd.place.peer_url()),
            false => (format!("{name}={}", urls.join(",")), urls.join(",")),
        };
        etcd.begin_restore(skip_hash_check, &cluster, &peers);
    }
    loop {
        if let Some(restored) = node.etcd.lock().await.restored() {
            return restored.map_err(|why| format!("error recovering from the snapshot: {why}"));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Makes the node a learner of the cluster, unless an attempt before this one did; the cluster it then is one of.
async fn announce(own: &Place, client: &etcd_api::Client) -> Result<Cluster, etcd_api::Error> {
    let mut members = client.members(true).await?.members;
    if !members.iter().any(|member| is_own(member, own)) {
        members = client.member_add(vec![own.peer_url()], true).await?.list.members;
    }
    let name = |member: &etcd_api::Member| if is_own(member, own) { own.hostname.clone() } else { member.name.clone() };
    let pairs = |member: &etcd_api::Member| member.peer_urls.iter().map(|url| format!("{}={url}", name(member))).collect::<Vec<_>>();
    Ok(Cluster::Existing(members.iter().flat_map(pairs).collect::<Vec<_>>().join(",")))
}

fn is_own(member: &etcd_api::Member, own: &Place) -> bool {
    member.peer_urls.contains(&own.peer_url())
}

/// Starts as a learner and promotes itself when it has caught up.
async fn join(node: &NodeState, client: &etcd_api::Client, cluster: Cluster) -> Result<(), String> {
    let own = node.etcd.lock().await.place.clone();
    node.etcd.lock().await.start(&cluster).await?;
    loop {
        // Refused before it has caught up; no answer while a leader is elected.
        if let Ok(Ok(list)) = timeout(ATTEMPT, client.members(true)).await {
            let Some(member) = list.members.into_iter().find(|member| is_own(member, &own)) else {
                return Err("the member was removed before it was promoted".to_owned());
            };
            let promoting = member.is_learner && !node.switches().never_promote;
            if !member.is_learner || promoting && matches!(timeout(ATTEMPT, client.member_promote(member.id)).await, Ok(Ok(_))) {
                return Ok(());
            }
        }
        tokio::time::sleep(POLL * 4).await;
    }
}
