//! Talos' messages by their field numbers: the double's own table, from the reference, not from the client under test.
//!
//! Every unary answer of Talos' own services is one field 1 (`messages`); the message inside has its metadata as field 1, so
//! that the fields below begin with 2 where a message is an answer.
//!
//! Source: Talos `api/{machine/machine,common/common,resource/…}.proto`, cosi-project/specification `proto/v1alpha1/*.proto`.

use std::net::Ipv4Addr;

use grpc_link::testing::Encoder;

/// One module per message, one constant per field. What is never used does not compile without a warning.
macro_rules! table {
    ($($(#[$about:meta])* $message:ident { $($field:ident = $number:literal),+ $(,)? })+) => {
        $($(#[$about])* pub(crate) mod $message {
            $(pub(crate) const $field: u32 = $number;)+
        })+
    };
}

table! {
    /// Every `XResponse`.
    response { MESSAGES = 1 }
    /// What every message that apid can merge begins with.
    merged { METADATA = 1 }
    /// common.Metadata.
    metadata_fields { HOSTNAME = 1, ERROR = 2, STATUS = 3 }
    /// google.rpc.Status.
    rpc_status { CODE = 1, MESSAGE = 2 }
    /// common.Data.
    data_fields { BYTES = 2 }
    /// google.protobuf.Timestamp.
    timestamp_fields { SECONDS = 1 }
    /// common.NetIP and common.NetIPPrefix.
    address { IP = 1, PREFIX_LENGTH = 2 }

    /// machine.EtcdMemberListRequest.
    member_list_request { QUERY_LOCAL = 1 }
    /// machine.EtcdMembers.
    members { LEGACY_MEMBERS = 2, MEMBERS = 3 }
    /// machine.EtcdMember.
    member { ID = 2, HOSTNAME = 3, PEER_URLS = 4, CLIENT_URLS = 5, IS_LEARNER = 6 }
    /// machine.EtcdStatus.
    status { MEMBER_STATUS = 2 }
    /// machine.EtcdMemberStatus; `STORAGE_VERSION` since 1.11.
    member_status {
        PROTOCOL_VERSION = 1, DB_SIZE = 2, DB_SIZE_IN_USE = 3, LEADER = 4, RAFT_INDEX = 5, RAFT_TERM = 6, RAFT_APPLIED_INDEX = 7,
        ERRORS = 8, IS_LEARNER = 9, MEMBER_ID = 10, STORAGE_VERSION = 11,
    }
    /// machine.EtcdAlarm and machine.EtcdAlarmDisarm.
    alarms { MEMBER_ALARMS = 2 }
    /// machine.EtcdMemberAlarm; the alarm is 1 NOSPACE, 2 CORRUPT, 0 for anything else.
    member_alarm { MEMBER_ID = 1, ALARM = 2 }
    /// machine.EtcdRemoveMemberByIDRequest.
    remove_member_request { MEMBER_ID = 1 }
    /// machine.EtcdForfeitLeadership: the new leader's name.
    forfeit_leadership { MEMBER = 2 }

    /// machine.BootstrapRequest.
    bootstrap_request { RECOVER_ETCD = 1, RECOVER_SKIP_HASH_CHECK = 2 }
    /// machine.ResetRequest.
    reset_request { GRACEFUL = 1, REBOOT = 2, SYSTEM_PARTITIONS_TO_WIPE = 3 }
    /// machine.ResetPartitionSpec.
    reset_partition { LABEL = 1 }
    /// machine.Reset.
    reset { ACTOR_ID = 2 }
    /// machine.Reboot.
    reboot { ACTOR_ID = 2 }

    /// machine.LogsRequest.
    logs_request { NAMESPACE = 1, ID = 2, FOLLOW = 4, TAIL_LINES = 5 }
    /// machine.ReadRequest.
    read_request { PATH = 1 }
    /// machine.ListRequest.
    list_request { ROOT = 1, RECURSE = 2, RECURSION_DEPTH = 3 }
    /// machine.FileInfo.
    file_info { NAME = 2, SIZE = 3, MODE = 4, MODIFIED = 5, IS_DIR = 6, RELATIVE_NAME = 9 }

    /// machine.Version.
    version { VERSION = 2, PLATFORM = 3, FEATURES = 4 }
    /// machine.VersionInfo.
    version_info { TAG = 1, SHA = 2, GO_VERSION = 4, OS = 5, ARCH = 6 }
    /// machine.PlatformInfo.
    platform_info { NAME = 1, MODE = 2 }
    /// machine.FeaturesInfo.
    features_info { RBAC = 1 }
    /// machine.Hostname.
    hostname { HOSTNAME = 2 }
    /// machine.Memory.
    memory { MEMINFO = 2 }
    /// machine.MemInfo, in KiB.
    mem_info { MEMTOTAL = 1, MEMFREE = 2, MEMAVAILABLE = 3 }
    /// machine.Mounts.
    mounts { STATS = 2 }
    /// machine.MountStat, in bytes.
    mount_stat { FILESYSTEM = 1, SIZE = 2, AVAILABLE = 3, MOUNTED_ON = 4 }
    /// machine.ServiceList.
    service_list { SERVICES = 2 }
    /// machine.ServiceInfo.
    service_info { ID = 1, STATE = 2, EVENTS = 3, HEALTH = 4 }
    /// machine.ServiceEvents.
    service_events { EVENTS = 1 }
    /// machine.ServiceEvent.
    service_event { MSG = 1, STATE = 2, TS = 3 }
    /// machine.ServiceHealth.
    service_health { UNKNOWN = 1, HEALTHY = 2, LAST_MESSAGE = 3 }

    /// cosi.resource.GetRequest; ListRequest has the first two.
    resource_request { NAMESPACE = 1, TYPE = 2, ID = 3 }
    /// cosi.resource.GetResponse and ListResponse.
    resource_response { RESOURCE = 1 }
    /// cosi.resource.Resource.
    resource { METADATA = 1, SPEC = 2 }
    /// cosi.resource.Metadata.
    resource_metadata { NAMESPACE = 1, TYPE = 2, ID = 3, VERSION = 4, PHASE = 6 }
    /// cosi.resource.Spec.
    resource_spec { PROTO_SPEC = 1 }

    /// resource.config.MachineTypeSpec: 1 init, 2 control plane, 3 worker.
    machine_type { MACHINE_TYPE = 1 }
    /// resource.config.MachineConfigSpec.
    machine_config { YAML_MARSHALLED = 1 }
    /// talos.resource.definitions.cluster.MemberSpec.
    cluster_member { NODE_ID = 1, ADDRESSES = 2, HOSTNAME = 3, MACHINE_TYPE = 4, OPERATING_SYSTEM = 5, CONTROL_PLANE = 6 }
    /// talos.resource.definitions.cluster.ControlPlane.
    cluster_control_plane { API_SERVER_PORT = 1 }
    /// talos.resource.definitions.etcd.MemberSpec: sixteen hexadecimal digits.
    etcd_member { MEMBER_ID = 1 }
    /// talos.resource.definitions.etcd.SpecSpec; the flags are field 4 before 1.13 and 7 since.
    etcd_spec { NAME = 1, ADVERTISED_ADDRESSES = 2, IMAGE = 3, EXTRA_ARGS_SINGLE = 4, EXTRA_ARGS = 7 }
    /// An entry of a map.
    entry { KEY = 1, VALUE = 2 }
    /// talos.resource.definitions.etcd.ArgValues.
    arg_values { VALUES = 1 }
    /// talos.resource.definitions.network.NodeAddressSpec.
    node_addresses { ADDRESSES = 1 }
    /// talos.resource.definitions.network.HostnameStatusSpec.
    hostname_status { HOSTNAME = 1 }
    /// talos.resource.definitions.block.VolumeStatusSpec; the phase 6 is ready, the type 0 a partition, 3 a directory.
    volume_status { PHASE = 1, LOCATION = 2, SIZE = 9, TYPE = 16, PARENT_ID = 19 }
    /// talos.resource.definitions.runtime.MachineStatusSpec; the stage 1 is booting, 4 running, 7 resetting.
    machine_status { STAGE = 1, STATUS = 2 }
    /// talos.resource.definitions.runtime.MachineStatusStatus.
    machine_status_status { READY = 1 }
    /// talos.resource.definitions.time.StatusSpec.
    time_status { SYNCED = 1, EPOCH = 2, SYNC_DISABLED = 3 }
    /// talos.resource.definitions.runtime.DiagnosticSpec.
    diagnostic { MESSAGE = 1 }
}

/// `XResponse` around one message.
pub(crate) fn answer(message: Encoder) -> Encoder {
    Encoder::new().message(response::MESSAGES, message)
}

/// common.Data.
pub(crate) fn data(bytes: &[u8]) -> Encoder {
    Encoder::new().bytes(data_fields::BYTES, bytes)
}

/// What apid appends to a message: common.Empty with the target's name and perhaps its error.
pub(crate) fn appended(hostname: &str, error: Option<(u32, &str)>) -> Encoder {
    Encoder::new().message(merged::METADATA, metadata(hostname, error))
}

fn metadata(hostname: &str, error: Option<(u32, &str)>) -> Encoder {
    let metadata = Encoder::new().bytes(metadata_fields::HOSTNAME, hostname);
    match error {
        None => metadata,
        Some((code, text)) => {
            let shown = format!("rpc error: code = {} desc = {text}", code_name(code));
            let status = Encoder::new().number(rpc_status::CODE, u64::from(code)).bytes(rpc_status::MESSAGE, text);
            metadata.bytes(metadata_fields::ERROR, shown).message(metadata_fields::STATUS, status)
        }
    }
}

/// google.protobuf.Timestamp.
pub(crate) fn timestamp(seconds: u64) -> Encoder {
    Encoder::new().number(timestamp_fields::SECONDS, seconds)
}

/// common.NetIP.
pub(crate) fn net_ip(ip: Ipv4Addr) -> Encoder {
    Encoder::new().bytes(address::IP, ip.octets())
}

/// common.NetIPPrefix.
pub(crate) fn net_ip_prefix(ip: Ipv4Addr, length: u8) -> Encoder {
    net_ip(ip).number(address::PREFIX_LENGTH, u64::from(length))
}

/// gRPC's codes.
pub(crate) mod code {
    pub(crate) const CANCELED: u32 = 1;
    pub(crate) const UNKNOWN: u32 = 2;
    pub(crate) const INVALID_ARGUMENT: u32 = 3;
    pub(crate) const DEADLINE_EXCEEDED: u32 = 4;
    pub(crate) const NOT_FOUND: u32 = 5;
    pub(crate) const ALREADY_EXISTS: u32 = 6;
    pub(crate) const PERMISSION_DENIED: u32 = 7;
    pub(crate) const FAILED_PRECONDITION: u32 = 9;
    pub(crate) const UNIMPLEMENTED: u32 = 12;
    pub(crate) const INTERNAL: u32 = 13;
    pub(crate) const UNAVAILABLE: u32 = 14;
}

/// A code as Go prints it.
fn code_name(code: u32) -> &'static str {
    match code {
        code::CANCELED => "Canceled",
        code::INVALID_ARGUMENT => "InvalidArgument",
        code::DEADLINE_EXCEEDED => "DeadlineExceeded",
        code::NOT_FOUND => "NotFound",
        code::ALREADY_EXISTS => "AlreadyExists",
        code::PERMISSION_DENIED => "PermissionDenied",
        code::FAILED_PRECONDITION => "FailedPrecondition",
        code::UNIMPLEMENTED => "Unimplemented",
        code::INTERNAL => "Internal",
        code::UNAVAILABLE => "Unavailable",
        _ => "Unknown",
    }
}
