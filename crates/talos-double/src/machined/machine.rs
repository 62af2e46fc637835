//! Version, name, memory, mounts, services.

use grpc_link::testing::Encoder;

use crate::message::{
    features_info, hostname as hostname_fields, mem_info, memory as memory_fields, mount_stat, mounts as mounts_fields, platform_info,
    service_event, service_events, service_health, service_info, service_list, timestamp, version as version_fields, version_info,
};
use crate::world::{Kind, NodeState, World};

pub(super) fn version(world: &World) -> Encoder {
    let version = Encoder::new()
        .bytes(version_info::TAG, world.options.profile.tag())
        .bytes(version_info::SHA, "double")
        .bytes(version_info::GO_VERSION, "none")
        .bytes(version_info::OS, "linux")
        .bytes(version_info::ARCH, "amd64");
    let platform =
        Encoder::new().bytes(platform_info::NAME, &world.options.platform_mode).bytes(platform_info::MODE, &world.options.platform_mode);
    Encoder::new()
        .message(version_fields::VERSION, version)
        .message(version_fields::PLATFORM, platform)
        .message(version_fields::FEATURES, Encoder::new().flag(features_info::RBAC, true))
}

pub(super) fn hostname(node: &NodeState) -> Encoder {
    Encoder::new().bytes(hostname_fields::HOSTNAME, &node.hostname)
}

/// The memory of a control plane node that is large enough: 4 GiB.
pub(super) fn memory() -> Encoder {
    let info =
        Encoder::new().number(mem_info::MEMTOTAL, 4 << 20).number(mem_info::MEMFREE, 1 << 20).number(mem_info::MEMAVAILABLE, 2 << 20);
    Encoder::new().message(memory_fields::MEMINFO, info)
}

/// `/var`, with the room that the double's own filesystem has, unless something else is wanted.
pub(super) fn mounts(world: &World, node: &NodeState) -> Encoder {
    let (size, free) = room(&node.root);
    let size = world.options.ephemeral_size.unwrap_or(size);
    let available = node.switches().available.unwrap_or(free.min(size));
    let var = Encoder::new()
        .bytes(mount_stat::FILESYSTEM, "/dev/vda6")
        .number(mount_stat::SIZE, size)
        .number(mount_stat::AVAILABLE, available)
        .bytes(mount_stat::MOUNTED_ON, "/var");
    Encoder::new().message(mounts_fields::STATS, var)
}

fn room(path: &std::path::Path) -> (u64, u64) {
    let output = std::process::Command::new("df").args(["-B1", "--output=size,avail"]).arg(path).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match numbers[..] {
        [size, available] => (size, available),
        _ => (0, 0),
    }
}

/// What a service's health check last found.
#[derive(Clone, Copy)]
enum Health {
    Unknown,
    Known { healthy: bool },
}

pub(super) async fn services(node: &NodeState) -> Encoder {
    let plain = |id: &str| service(id, "Running", Health::Known { healthy: true }, "", &[]);
    let own = ["apid", "containerd", "cri", "kubelet", "machined"];
    let list = own.iter().fold(Encoder::new(), |list, id| list.message(service_list::SERVICES, plain(id)));
    if node.kind == Kind::Worker {
        return list;
    }
    let (place, runs, state, events) = {
        let mut etcd = node.etcd.lock().await;
        let runs = etcd.runs();
        if !runs && etcd.state() == "Running" {
            etcd.enter("Failed", "Service etcd ended");
        }
        (etcd.place.clone(), runs, etcd.state(), etcd.events.clone())
    };
    let (health, word) = match runs {
        false => (Health::Unknown, ""),
        true if place.is_healthy().await => (Health::Known { healthy: true }, ""),
        true => (Health::Known { healthy: false }, "context deadline exceeded"),
    };
    list.message(service_list::SERVICES, service("etcd", state, health, word, &events))
}

fn service(id: &str, state: &str, health: Health, word: &str, events: &[crate::etcd::Event]) -> Encoder {
    let events = events.iter().fold(Encoder::new(), |all, event| {
        let one = Encoder::new()
            .bytes(service_event::MSG, &event.message)
            .bytes(service_event::STATE, event.state)
            .message(service_event::TS, timestamp(event.at));
        all.message(service_events::EVENTS, one)
    });
    let health = match health {
        Health::Unknown => Encoder::new().flag(service_health::UNKNOWN, true),
        Health::Known { healthy } => Encoder::new().flag(service_health::HEALTHY, healthy),
    };
    Encoder::new()
        .bytes(service_info::ID, id)
        .bytes(service_info::STATE, state)
        .message(service_info::EVENTS, events)
        .message(service_info::HEALTH, health.bytes(service_health::LAST_MESSAGE, word))
}
