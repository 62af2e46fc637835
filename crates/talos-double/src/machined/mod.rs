//! machined: judges roles and answers, from a real etcd and a state of its own.
//!
//! Source of the methods' behaviour: reference Talos `internal/app/machined/internal/server/v1alpha1/v1alpha1_server.go`,
//! 1.8 to 1.14. Errors without a status of their own are code Unknown, as Go makes them.

mod boot;
mod etcd;
mod failure;
mod files;
mod machine;
mod recover;
mod resources;
mod restart;
pub(crate) mod rules;
mod snapshot;

use std::sync::Arc;

use bytes::Bytes;
use grpc_link::testing::{Encoder, Failure, Fields, Gone, Messages};
use tokio::sync::mpsc;

pub(crate) use self::boot::{boot, new_boot_id, reboot};
use crate::message::{answer, code};
use crate::world::{Call, Kind, NodeState, World};

/// A request.
pub(crate) enum Incoming {
    /// The one message of a call.
    One(Bytes),
    /// Messages as they come.
    Stream(Messages),
}

/// Where the messages of an answer go.
pub(crate) struct Out(mpsc::Sender<Bytes>);

impl Out {
    pub(crate) fn new(sender: mpsc::Sender<Bytes>) -> Self {
        Self(sender)
    }

    pub(crate) async fn send(&self, message: Encoder) -> Result<(), Gone> {
        self.0.send(message.finish()).await.map_err(|_| Gone)
    }

    /// Waits until nobody reads any more.
    pub(crate) async fn gone(&self) {
        self.0.closed().await;
    }
}

/// How a call ends.
#[derive(Debug)]
pub(crate) enum Ending {
    /// Status OK.
    Ok,
    /// Another status.
    Fail(Failure),
    /// The connection drops.
    Disconnect,
    /// Nothing more comes.
    Hang,
}

/// What a method finds: messages sent already, and the end.
type Served = Result<Ending, Failure>;

/// Serves one call on one node, whoever passed it on.
pub(crate) async fn serve(world: Arc<World>, path: String, call: Call, incoming: Incoming, out: Out) -> Ending {
    let name = call.name.clone();
    let roles = call.roles.clone();
    let index = call.node;
    world.record(call);
    let Some(node) = world.nodes.get(index) else { return Ending::Fail(Failure::new(code::INTERNAL, "no such node")) };
    if let Err(failure) = admit(&world, node, &path, &name, &roles) {
        return Ending::Fail(failure);
    }
    let delay = node.switches().delay.get(&name).copied();
    if let Some(delay) = delay {
        tokio::time::sleep(delay).await;
    }
    dispatch(&world, node, &path, &roles, incoming, &out).await.unwrap_or_else(Ending::Fail)
}

/// Judges a call before it is served: known, allowed, on a node that serves it, not switched to fail.
fn admit(world: &World, node: &NodeState, path: &str, name: &str, roles: &[String]) -> Result<(), Failure> {
    let profile = world.options.profile;
    let mut switches = node.switches();
    let unknown = || {
        let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or(("", path));
        Failure::new(code::UNIMPLEMENTED, format!("unknown method {method} for service {service}"))
    };
    // Roles are judged by an interceptor, and Go's server runs none for a method it does not know.
    if switches.unimplemented.contains(name) || !rules::known(path, profile) {
        return Err(unknown());
    }
    let allowed = rules::roles(path, profile);
    if switches.denied.contains(name) || !roles.iter().any(|role| allowed.contains(&role.as_str())) {
        return Err(Failure::new(code::PERMISSION_DENIED, "not authorized"));
    }
    if let Some(failure) = switches.fail.get(name) {
        return Err(failure.clone());
    }
    if let Some((left, failure)) = switches.fail_first.get_mut(name)
        && *left > 0
    {
        *left -= 1;
        return Err(failure.clone());
    }
    match rules::control_plane_only(name) {
        Some(what) if node.kind == Kind::Worker => {
            Err(Failure::new(code::UNIMPLEMENTED, format!("{what} is only available on control plane nodes")))
        }
        _ => Ok(()),
    }
}

async fn dispatch(world: &Arc<World>, node: &NodeState, path: &str, roles: &[String], incoming: Incoming, out: &Out) -> Served {
    let request = match incoming {
        Incoming::One(message) => Fields::decode(&message),
        Incoming::Stream(messages) => return recover::upload(node, messages, out).await,
    };
    let state = |name: &str| path.strip_prefix("/cosi.resource.State/") == Some(name);
    if state("List") {
        return resources::list(world, node, roles, &request, out).await;
    }
    if state("Get") {
        let found = resources::get(world, node, roles, &request).await?;
        let _gone = out.send(found).await;
        return Ok(Ending::Ok);
    }
    let one = match path.strip_prefix("/machine.MachineService/").unwrap_or(path) {
        "EtcdSnapshot" => return snapshot::serve(node, out).await,
        "Logs" => return files::logs(node, &request, out).await,
        "Read" => return files::read(node, &request, out).await,
        "List" => return files::list(node, &request, out).await,
        "EtcdStatus" => answer(etcd::status(world, node).await?),
        "EtcdMemberList" => answer(etcd::members(world, node, &request).await?),
        "EtcdAlarmList" => answer(etcd::alarms(node).await?),
        "EtcdAlarmDisarm" => answer(etcd::disarm(node).await?),
        "EtcdDefragment" => answer(etcd::defragment(node).await?),
        "EtcdForfeitLeadership" => answer(etcd::forfeit(world, node).await?),
        "EtcdLeaveCluster" => answer(etcd::leave(world, node).await?),
        "EtcdRemoveMemberByID" => answer(etcd::remove(world, &request).await?),
        "Bootstrap" => answer(recover::bootstrap(world, node, &request).await?),
        "Reset" => answer(restart::reset(world, node, &request)?),
        "Reboot" => answer(restart::reboot(world, node)?),
        "Version" => answer(machine::version(world)),
        "Hostname" => answer(machine::hostname(node)),
        "Memory" => answer(machine::memory()),
        "Mounts" => answer(machine::mounts(world, node)),
        "ServiceList" => answer(machine::services(node).await),
        other => return Err(Failure::new(code::UNIMPLEMENTED, format!("the double does not serve {other}"))),
    };
    // Whoever has gone needs no answer.
    let _gone = out.send(one).await;
    Ok(Ending::Ok)
}
