//! The resource server (COSI): what there is on a node, read-only.
//!
//! Source of types, ids and field numbers: reference Talos `pkg/machinery/resources/*`, `api/resource/definitions/*`,
//! `internal/app/resources/access.go` for who may read.

use grpc_link::testing::{Encoder, Failure, Fields};

use super::etcd::own_id;
use super::{Ending, Out, Served};
use crate::message::{
    arg_values, cluster_control_plane, cluster_member, code, diagnostic, entry, etcd_member, etcd_spec as etcd_spec_fields,
    hostname_status, machine_config as machine_config_fields, machine_status as machine_status_fields, machine_status_status,
    machine_type as machine_type_fields, net_ip, net_ip_prefix, node_addresses, resource as resource_fields, resource_metadata,
    resource_request, resource_response, resource_spec, time_status as time_status_fields, volume_status,
};
use crate::world::{Kind, NodeState, World};

/// One resource: its id and its spec.
type Found = (String, Encoder);

/// Numbers of the enumerations in specs.
const READY: u64 = 6;
const DIRECTORY: u64 = 3;
const BOOTING: u64 = 1;
const RUNNING: u64 = 4;
const RESETTING: u64 = 7;

const CONFIGS: &str = "MachineConfigs.config.talos.dev";

pub(super) async fn get(world: &World, node: &NodeState, roles: &[String], request: &Fields) -> Result<Encoder, Failure> {
    let (namespace, kind) = (request.text(resource_request::NAMESPACE), request.text(resource_request::TYPE));
    let id = request.text(resource_request::ID);
    let all = found(world, node, roles, &namespace, &kind).await?;
    match all.into_iter().find(|(found, _)| *found == id) {
        Some((id, spec)) => Ok(Encoder::new().message(resource_response::RESOURCE, resource(&namespace, &kind, &id, spec))),
        None => {
            let text = format!("resource {kind}({namespace}/{id}@undefined) doesn't exist");
            Err(Failure::new(code::NOT_FOUND, text))
        }
    }
}

pub(super) async fn list(world: &World, node: &NodeState, roles: &[String], request: &Fields, out: &Out) -> Served {
    let (namespace, kind) = (request.text(resource_request::NAMESPACE), request.text(resource_request::TYPE));
    for (id, spec) in found(world, node, roles, &namespace, &kind).await? {
        if out.send(Encoder::new().message(resource_response::RESOURCE, resource(&namespace, &kind, &id, spec))).await.is_err() {
            break;
        }
    }
    Ok(Ending::Ok)
}

fn resource(namespace: &str, kind: &str, id: &str, spec: Encoder) -> Encoder {
    let metadata = Encoder::new()
        .bytes(resource_metadata::NAMESPACE, namespace)
        .bytes(resource_metadata::TYPE, kind)
        .bytes(resource_metadata::ID, id)
        .bytes(resource_metadata::VERSION, "1")
        .bytes(resource_metadata::PHASE, "running");
    let spec = Encoder::new().bytes(resource_spec::PROTO_SPEC, spec.finish());
    Encoder::new().message(resource_fields::METADATA, metadata).message(resource_fields::SPEC, spec)
}

async fn found(world: &World, node: &NodeState, roles: &[String], namespace: &str, kind: &str) -> Result<Vec<Found>, Failure> {
    if kind == CONFIGS && !roles.iter().any(|role| role == "os:admin") {
        return Err(Failure::new(code::PERMISSION_DENIED, "not authorized"));
    }
    let one = |id: &str, spec: Encoder| vec![(id.to_owned(), spec)];
    let controls = node.kind == Kind::ControlPlane;
    Ok(match (namespace, kind) {
        ("config", "MachineTypes.config.talos.dev") => {
            one("machine-type", Encoder::new().number(machine_type_fields::MACHINE_TYPE, machine_type(world, node)))
        }
        ("config", CONFIGS) => one("v1alpha1", Encoder::new().bytes(machine_config_fields::YAML_MARSHALLED, machine_config(world, node))),
        ("cluster", "Members.cluster.talos.dev") => world.nodes.iter().map(|other| member(world, other)).collect(),
        ("etcd", "EtcdMembers.etcd.talos.dev") if controls => match own_id(node).await {
            Some(id) => one("local", Encoder::new().bytes(etcd_member::MEMBER_ID, id.to_string())),
            None => Vec::new(),
        },
        ("etcd", "EtcdSpecs.etcd.talos.dev") if controls => one("etcd", etcd_spec(world, node)),
        ("etcd", "EtcdMembers.etcd.talos.dev" | "EtcdSpecs.etcd.talos.dev") => Vec::new(),
        ("network", "NodeAddresses.net.talos.dev") => one("current", addresses(world, node)),
        ("network", "HostnameStatuses.net.talos.dev") => one("hostname", Encoder::new().bytes(hostname_status::HOSTNAME, &node.hostname)),
        ("runtime", "VolumeStatuses.block.talos.dev") => {
            volumes(world).iter().map(|volume| (volume.label.to_owned(), volume.spec())).collect()
        }
        ("runtime", "MachineStatuses.runtime.talos.dev") => one("machine", machine_status(node).await),
        ("runtime", "TimeStatuses.v1alpha1.talos.dev") => one("node", time_status(node)),
        ("runtime", "Diagnostics.runtime.talos.dev") => {
            let switches = node.switches();
            switches.diagnostics.iter().map(|(id, text)| (id.clone(), Encoder::new().bytes(diagnostic::MESSAGE, text))).collect()
        }
        (_, kind) => return Err(Failure::new(code::PERMISSION_DENIED, format!("resource type \"{kind}\" is not supported"))),
    })
}

fn machine_type(world: &World, node: &NodeState) -> u64 {
    match node.kind {
        Kind::ControlPlane if world.is_init(node) => 1,
        Kind::ControlPlane => 2,
        Kind::Worker => 3,
    }
}

fn member(world: &World, node: &NodeState) -> Found {
    let spec = Encoder::new()
        .bytes(cluster_member::NODE_ID, format!("node-{}", node.hostname))
        .message(cluster_member::ADDRESSES, net_ip(node.ip))
        .bytes(cluster_member::HOSTNAME, &node.hostname)
        .number(cluster_member::MACHINE_TYPE, machine_type(world, node))
        .bytes(cluster_member::OPERATING_SYSTEM, format!("Talos ({})", world.options.profile.tag()));
    let spec = match node.kind {
        Kind::ControlPlane => {
            spec.message(cluster_member::CONTROL_PLANE, Encoder::new().number(cluster_control_plane::API_SERVER_PORT, 6443))
        }
        Kind::Worker => spec,
    };
    (node.hostname.clone(), spec)
}

fn etcd_spec(world: &World, node: &NodeState) -> Encoder {
    let options = &world.options;
    let image = format!("registry.k8s.io/etcd:v{}", options.etcd.full());
    let spec = Encoder::new().bytes(etcd_spec_fields::NAME, &node.hostname).bytes(etcd_spec_fields::IMAGE, image);
    let advertised = world.advertised(node).into_iter();
    let spec = advertised.fold(spec, |spec, ip| spec.message(etcd_spec_fields::ADVERTISED_ADDRESSES, net_ip(ip)));
    let Some(quota) = options.quota else { return spec };
    let flag = Encoder::new().bytes(entry::KEY, "quota-backend-bytes");
    if options.profile.flag_lists() {
        let values = Encoder::new().element(arg_values::VALUES, quota.to_string());
        spec.message(etcd_spec_fields::EXTRA_ARGS, flag.message(entry::VALUE, values))
    } else {
        spec.message(etcd_spec_fields::EXTRA_ARGS_SINGLE, flag.bytes(entry::VALUE, quota.to_string()))
    }
}

/// A virtual address is a network of its own on its holder.
fn addresses(world: &World, node: &NodeState) -> Encoder {
    let spec = Encoder::new().message(node_addresses::ADDRESSES, net_ip_prefix(node.ip, 24));
    match world.virtual_ip.filter(|_| node.index == 0) {
        Some(ip) => spec.message(node_addresses::ADDRESSES, net_ip_prefix(ip, 32)),
        None => spec,
    }
}

/// A volume of a node.
pub(super) struct Volume {
    pub(super) label: &'static str,
    /// `None` for a directory on `EPHEMERAL`.
    pub(super) partition: Option<&'static str>,
    size: u64,
}

impl Volume {
    fn spec(&self) -> Encoder {
        let spec = Encoder::new().number(volume_status::PHASE, READY);
        match self.partition {
            Some(device) => spec.bytes(volume_status::LOCATION, device).number(volume_status::SIZE, self.size),
            None => spec.number(volume_status::TYPE, DIRECTORY).bytes(volume_status::PARENT_ID, "EPHEMERAL"),
        }
    }
}

/// The volumes of every node. `ETCD` is there since 1.11, as a directory or a partition.
pub(super) fn volumes(world: &World) -> Vec<Volume> {
    const GIB: u64 = 1 << 30;
    let options = &world.options;
    let volume = |label, partition, size| Volume { label, partition, size };
    vec![
        volume("EPHEMERAL", Some("/dev/vda6"), options.ephemeral_size.unwrap_or(20 * GIB)),
        volume("STATE", Some("/dev/vda5"), 100 << 20),
        volume("META", Some("/dev/vda4"), 1 << 20),
        volume("ETCD", options.etcd_partition.then_some("/dev/vda7"), options.etcd_size),
    ]
}

/// The boot of a control plane node ends when etcd is up for the first time (`StartAllServices` waits for every service to be up
/// or finished).
async fn machine_status(node: &NodeState) -> Encoder {
    let been_up = node.etcd.lock().await.events.iter().any(|event| matches!(event.state, "Running" | "Finished"));
    let stage = match (node.is_resetting(), node.kind) {
        (true, _) => RESETTING,
        (false, Kind::ControlPlane) if !been_up => BOOTING,
        (false, _) => RUNNING,
    };
    let status = Encoder::new().flag(machine_status_status::READY, stage == RUNNING);
    Encoder::new().number(machine_status_fields::STAGE, stage).message(machine_status_fields::STATUS, status)
}

/// A real node counts an epoch more each time its clock jumps; here it has jumped once.
fn time_status(node: &NodeState) -> Encoder {
    let synced = !node.switches().time_unsynced;
    let status = Encoder::new().flag(time_status_fields::SYNCED, synced).number(time_status_fields::EPOCH, 1);
    status.flag(time_status_fields::SYNC_DISABLED, false)
}

/// A machine config with the parts that matter here: both authorities with their keys, and secrets.
fn machine_config(world: &World, node: &NodeState) -> String {
    use base64::Engine;
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let kind = match node.kind {
        Kind::ControlPlane if world.is_init(node) => "init",
        Kind::ControlPlane => "controlplane",
        Kind::Worker => "worker",
    };
    let (os, etcd) = (&world.os.pair, &world.etcd.pair);
    let (os_key, etcd_part) = match node.kind {
        Kind::ControlPlane => (base64(&os.key), format!("    ca:\n      crt: {}\n      key: {}\n", base64(&etcd.cert), base64(&etcd.key))),
        Kind::Worker => (String::new(), String::new()),
    };
    format!(
        "version: v1alpha1\nmachine:\n  type: {kind}\n  ca:\n    crt: {}\n    key: {os_key}\n  network:\n    hostname: {}\n\
         cluster:\n  id: {}\n  secret: {}\n  secretboxEncryptionSecret: {}\n  etcd:\n{etcd_part}    advertisedSubnets: []\n\
         ---\napiVersion: v1alpha1\nkind: HostnameConfig\nhostname: {}\n",
        base64(&os.cert),
        node.hostname,
        base64("the cluster's id"),
        base64("the cluster's secret"),
        base64("0123456789abcdef0123456789abcdef"),
        node.hostname,
    )
}
