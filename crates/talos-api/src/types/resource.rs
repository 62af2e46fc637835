//! Talos' resources (COSI) that say what a node is and in which state.
//!
//! Source: Talos `api/resource/definitions/*/*.proto` for the specs, `pkg/machinery/resources/*` for namespaces, types and ids.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use etcd_store::id::MemberId;
use prost::Message;
use zeroize::Zeroizing;

use crate::pb;
use crate::vip::NodeAddress;

/// A kind of resource: where it is, and how its spec is read.
pub(crate) trait Kind: Sized {
    const NAMESPACE: &'static str;
    const TYPE: &'static str;

    /// `None` when the spec is not of this kind.
    fn read(id: &str, spec: &[u8]) -> Option<Self>;
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MachineType {
    /// A control plane node; etcd runs on it.
    ControlPlane,
    /// A control plane node of the old kind that bootstraps by itself; recovery does not work with it.
    Init,
    /// A worker.
    Worker,
    /// Not configured yet, or a type of tomorrow.
    Unknown,
}

impl MachineType {
    fn from_number(number: i32) -> Self {
        match number {
            1 => Self::Init,
            2 => Self::ControlPlane,
            3 => Self::Worker,
            _ => Self::Unknown,
        }
    }

    /// Whether etcd runs on it.
    #[must_use]
    pub fn has_etcd(self) -> bool {
        matches!(self, Self::ControlPlane | Self::Init)
    }
}

impl Kind for MachineType {
    const NAMESPACE: &'static str = "config";
    const TYPE: &'static str = "MachineTypes.config.talos.dev";

    fn read(_id: &str, spec: &[u8]) -> Option<Self> {
        Some(Self::from_number(pb::MachineTypeSpec::decode(spec).ok()?.machine_type))
    }
}

/// A node's whole configuration: every document, byte for byte. It holds every secret of the cluster; it is wiped from
/// memory when dropped and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct MachineConfig(pub Zeroizing<Vec<u8>>);

impl fmt::Debug for MachineConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MachineConfig({} bytes)", self.0.len())
    }
}

impl Kind for MachineConfig {
    const NAMESPACE: &'static str = "config";
    const TYPE: &'static str = "MachineConfigs.config.talos.dev";

    fn read(_id: &str, spec: &[u8]) -> Option<Self> {
        Some(Self(Zeroizing::new(pb::MachineConfigSpec::decode(spec).ok()?.yaml_marshalled.to_vec())))
    }
}

/// A node of the cluster, as discovery knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterMember {
    /// Its name among the members.
    pub id: String,
    /// Its host name.
    pub hostname: String,
    /// Its addresses; the first is the one Kubernetes knows it by.
    pub addresses: Vec<IpAddr>,
    /// What it is.
    pub machine_type: MachineType,
    /// Like "Talos (v1.13.9)".
    pub operating_system: String,
}

impl Kind for ClusterMember {
    const NAMESPACE: &'static str = "cluster";
    const TYPE: &'static str = "Members.cluster.talos.dev";

    fn read(id: &str, spec: &[u8]) -> Option<Self> {
        let spec = pb::ClusterMemberSpec::decode(spec).ok()?;
        Some(Self {
            id: id.to_owned(),
            hostname: spec.hostname,
            addresses: spec.addresses.iter().filter_map(|address| ip(&address.ip)).collect(),
            machine_type: MachineType::from_number(spec.machine_type),
            operating_system: spec.operating_system,
        })
    }
}

/// The id of the etcd member on a node; there only while its etcd is healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LocalMember(pub(crate) MemberId);

impl Kind for LocalMember {
    const NAMESPACE: &'static str = "etcd";
    const TYPE: &'static str = "EtcdMembers.etcd.talos.dev";

    fn read(_id: &str, spec: &[u8]) -> Option<Self> {
        Some(Self(pb::EtcdMemberSpec::decode(spec).ok()?.member_id.parse().ok()?))
    }
}

/// How etcd is run on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdSpec {
    /// Name of the member: the host name.
    pub name: String,
    /// Addresses it gives to others. Talos before 1.10.5 restores no snapshot onto a node with more than one.
    pub advertised_addresses: Vec<IpAddr>,
    /// The container image, version included; the configuration may have changed it.
    pub image: String,
    /// Flags beyond Talos' own, without dashes.
    pub extra_args: BTreeMap<String, Vec<String>>,
}

impl EtcdSpec {
    /// The quota of the database in bytes, where a flag sets it; etcd's default is 2 GiB.
    #[must_use]
    pub fn quota(&self) -> Option<u64> {
        self.extra_args.get("quota-backend-bytes")?.last()?.parse().ok().filter(|&quota| quota != 0)
    }
}

impl Kind for EtcdSpec {
    const NAMESPACE: &'static str = "etcd";
    const TYPE: &'static str = "EtcdSpecs.etcd.talos.dev";

    fn read(_id: &str, spec: &[u8]) -> Option<Self> {
        let spec = pb::EtcdSpecSpec::decode(spec).ok()?;
        let single = spec.extra_args_single.into_iter().map(|(flag, value)| (flag, vec![value]));
        let extra_args = single.chain(spec.extra_args.into_iter().map(|(flag, values)| (flag, values.values))).collect();
        Some(Self {
            name: spec.name,
            advertised_addresses: spec.advertised_addresses.iter().filter_map(|address| ip(&address.ip)).collect(),
            image: spec.image,
            extra_args,
        })
    }
}

/// The addresses of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeAddresses(pub(crate) Vec<NodeAddress>);

impl Kind for NodeAddresses {
    const NAMESPACE: &'static str = "network";
    const TYPE: &'static str = "NodeAddresses.net.talos.dev";

    fn read(_id: &str, spec: &[u8]) -> Option<Self> {
        let spec = pb::NodeAddressSpec::decode(spec).ok()?;
        let address = |of: &pb::NetIpPrefix| Some(NodeAddress { ip: ip(&of.ip)?, prefix: u8::try_from(of.prefix_length).ok()? });
        Some(Self(spec.addresses.iter().filter_map(address).collect()))
    }
}

/// What a volume is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VolumeType {
    /// A partition of its own: a reset must name it.
    Partition,
    /// A directory on another volume: it goes with that.
    Directory,
    /// Anything else, by its number.
    Other(i32),
}

/// A volume of a node: `EPHEMERAL`, `ETCD`, `STATE` and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its label.
    pub id: String,
    /// What it is on.
    pub kind: VolumeType,
    /// Its size in bytes; 0 where it has none of its own.
    pub size: u64,
    /// The volume it is on, when it is a directory.
    pub parent: Option<String>,
    /// What is wrong with it; empty when nothing is.
    pub error: String,
}

impl Kind for Volume {
    const NAMESPACE: &'static str = "runtime";
    const TYPE: &'static str = "VolumeStatuses.block.talos.dev";

    fn read(id: &str, spec: &[u8]) -> Option<Self> {
        let spec = pb::VolumeStatusSpec::decode(spec).ok()?;
        let kind = match spec.r#type {
            0 => VolumeType::Partition,
            3 => VolumeType::Directory,
            other => VolumeType::Other(other),
        };
        let parent = Some(spec.parent_id).filter(|parent| !parent.is_empty());
        Some(Self { id: id.to_owned(), kind, size: spec.size, parent, error: spec.error_message })
    }
}

/// How far a machine has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MachineStage {
    /// On its way up.
    Booting,
    /// Being installed.
    Installing,
    /// Waiting for a configuration.
    Maintenance,
    /// Up.
    Running,
    /// On its way down to come up again.
    Rebooting,
    /// On its way down.
    ShuttingDown,
    /// Being wiped.
    Resetting,
    /// Being upgraded.
    Upgrading,
    /// Not known, or a stage of tomorrow.
    Unknown,
}

/// The state of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineStatus {
    /// How far it has come.
    pub stage: MachineStage,
    /// Whether everything it waits for is there.
    pub ready: bool,
    /// What it waits for, and why that is not there.
    pub unmet: Vec<(String, String)>,
}

impl Kind for MachineStatus {
    const NAMESPACE: &'static str = "runtime";
    const TYPE: &'static str = "MachineStatuses.runtime.talos.dev";

    fn read(_id: &str, spec: &[u8]) -> Option<Self> {
        let spec = pb::MachineStatusSpec::decode(spec).ok()?;
        let stage = match spec.stage {
            1 => MachineStage::Booting,
            2 => MachineStage::Installing,
            3 => MachineStage::Maintenance,
            4 => MachineStage::Running,
            5 => MachineStage::Rebooting,
            6 => MachineStage::ShuttingDown,
            7 => MachineStage::Resetting,
            8 => MachineStage::Upgrading,
            _ => MachineStage::Unknown,
        };
        let status = spec.status.unwrap_or_default();
        let unmet = status.unmet_conditions.into_iter().map(|condition| (condition.name, condition.reason)).collect();
        Some(Self { stage, ready: status.ready, unmet })
    }
}

/// Whether the clock of a machine is right, as far as Talos knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeStatus {
    /// It is in sync with a time server; also told where nobody is asked.
    pub synced: bool,
    /// No time server is asked: the configuration turned that off.
    pub sync_disabled: bool,
}

impl Kind for TimeStatus {
    const NAMESPACE: &'static str = "runtime";
    const TYPE: &'static str = "TimeStatuses.v1alpha1.talos.dev";

    fn read(_id: &str, spec: &[u8]) -> Option<Self> {
        let spec = pb::TimeStatusSpec::decode(spec).ok()?;
        Some(Self { synced: spec.synced, sync_disabled: spec.sync_disabled })
    }
}

/// Something Talos itself finds wrong with a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its name.
    pub id: String,
    /// In words.
    pub message: String,
    /// More words.
    pub details: Vec<String>,
}

impl Kind for Diagnostic {
    const NAMESPACE: &'static str = "runtime";
    const TYPE: &'static str = "Diagnostics.runtime.talos.dev";

    fn read(id: &str, spec: &[u8]) -> Option<Self> {
        let spec = pb::DiagnosticSpec::decode(spec).ok()?;
        Some(Self { id: id.to_owned(), message: spec.message, details: spec.details })
    }
}

/// An address of 4 or 16 bytes; a zone's text may follow the latter.
fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(four));
    }
    bytes.first_chunk::<16>().map(|sixteen| IpAddr::from(*sixteen))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_of_both_families_are_read() {
        assert_eq!(ip(&[10, 0, 0, 2]), Some("10.0.0.2".parse().unwrap()));
        let mut with_zone = [0_u8; 16].to_vec();
        with_zone[0] = 0xfe;
        with_zone[1] = 0x80;
        with_zone.extend(b"eth0");
        assert_eq!(ip(&with_zone), Some("fe80::".parse().unwrap()));
        assert_eq!(ip(&[1, 2, 3]), None);
    }

    #[test]
    fn flags_of_old_and_new_talos_are_read_alike() {
        let old =
            pb::EtcdSpecSpec { extra_args_single: [("quota-backend-bytes".into(), "8589934592".into())].into(), ..Default::default() };
        let new = pb::EtcdSpecSpec {
            extra_args: [("quota-backend-bytes".into(), pb::ArgValues { values: vec!["8589934592".into()] })].into(),
            ..Default::default()
        };
        for spec in [old, new] {
            assert_eq!(EtcdSpec::read("etcd", &spec.encode_to_vec()).unwrap().quota(), Some(8 << 30));
        }
        assert_eq!(EtcdSpec::read("etcd", &[]).unwrap().quota(), None);
    }

    #[test]
    fn a_machine_config_is_never_printed() {
        let spec = pb::MachineConfigSpec { yaml_marshalled: b"secret: hush".as_slice().into() };
        let config = MachineConfig::read("v1alpha1", &spec.encode_to_vec()).unwrap();
        assert_eq!(config.0.as_slice(), b"secret: hush");
        assert_eq!(format!("{config:?}"), "MachineConfig(12 bytes)");
    }

    proptest! {
        #[test]
        fn no_spec_makes_a_reader_panic(spec in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _either = (EtcdSpec::read("a", &spec), ClusterMember::read("a", &spec), Volume::read("a", &spec));
            let _either = (MachineStatus::read("a", &spec), Diagnostic::read("a", &spec), NodeAddresses::read("a", &spec));
            let _either = (LocalMember::read("a", &spec), MachineConfig::read("a", &spec), MachineType::read("a", &spec));
            let _either = TimeStatus::read("a", &spec);
        }
    }
}
