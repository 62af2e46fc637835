//! What nodes answer, in Lifeboat's own types. Members, alarms and their kinds are those of etcd-api.

pub(crate) mod etcd;
pub(crate) mod machine;
pub(crate) mod resource;

pub use etcd_api::{Alarm, AlarmKind, Member};

pub use self::etcd::EtcdStatus;
pub use self::machine::{Memory, Mount, ResetRequest, Service, ServiceEvent, ServiceHealth, Version};
pub use self::resource::{
    ClusterMember, Diagnostic, EtcdSpec, MachineConfig, MachineStage, MachineStatus, MachineType, TimeStatus, Volume, VolumeType,
};

/// An answer that Talos never gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unexpected(pub(crate) &'static str);
