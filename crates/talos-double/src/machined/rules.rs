//! Which calls there are, who may make them, and how they are shaped.
//!
//! Source: reference Talos `internal/app/machined/pkg/system/services/machined.go` (rules), `internal/app/apid/service.go`
//! (streamed calls) and `director.go` (services that can be merged).

use crate::profile::Profile;

const ADMIN: &[&str] = &["os:admin"];
const OPERATOR: &[&str] = &["os:admin", "os:operator"];
const READER: &[&str] = &["os:admin", "os:operator", "os:reader"];
const ALL: &[&str] = &["os:admin", "os:operator", "os:reader", "os:etcd:backup"];
const BACKUP: &[&str] = &["os:admin", "os:operator", "os:etcd:backup"];

/// The roles that may make a call; calls without a rule are the admin's.
pub(super) fn roles(path: &str, profile: Profile) -> &'static [&'static str] {
    let wide = profile.wide_roles();
    match path.trim_start_matches('/') {
        "machine.MachineService/EtcdSnapshot" => BACKUP,
        "machine.MachineService/EtcdStatus" | "machine.MachineService/EtcdAlarmList" => {
            if wide {
                ALL
            } else {
                OPERATOR
            }
        }
        "machine.MachineService/EtcdMemberList" => {
            if wide {
                ALL
            } else {
                READER
            }
        }
        "machine.MachineService/EtcdDefragment" | "machine.MachineService/EtcdAlarmDisarm" | "machine.MachineService/Reboot" => OPERATOR,
        "machine.MachineService/Version"
        | "machine.MachineService/Hostname"
        | "machine.MachineService/Memory"
        | "machine.MachineService/Mounts"
        | "machine.MachineService/List"
        | "machine.MachineService/Logs"
        | "machine.MachineService/ServiceList"
        | "cosi.resource.State/Get"
        | "cosi.resource.State/List" => READER,
        _ => ADMIN,
    }
}

/// Whether a release of Talos has the call at all.
pub(super) fn known(path: &str, profile: Profile) -> bool {
    match path.trim_start_matches("/machine.MachineService/") {
        "EtcdDowngradeValidate" | "EtcdDowngradeEnable" | "EtcdDowngradeCancel" => profile.storage_version(),
        _ => true,
    }
}

/// Calls that only control plane nodes serve, with the words of their refusal elsewhere.
pub(super) fn control_plane_only(name: &str) -> Option<&'static str> {
    Some(match name {
        "EtcdMemberList" => "member list",
        "EtcdRemoveMemberByID" => "etcd remove member",
        "EtcdLeaveCluster" => "etcd leave",
        "EtcdForfeitLeadership" => "etcd forfeit leadership",
        "EtcdSnapshot" => "etcd snapshot",
        "EtcdRecover" => "etcd recover",
        "EtcdAlarmList" => "etcd alarm list",
        "EtcdAlarmDisarm" => "etcd alarm disarm",
        "EtcdDefragment" => "etcd defragment",
        "EtcdStatus" => "etcd status",
        "Bootstrap" => "bootstrap",
        _ => return None,
    })
}

/// Whether apid asks several nodes at once for this service.
pub(crate) fn can_be_merged(path: &str) -> bool {
    ["/machine.MachineService/", "/cluster.ClusterService/", "/inspect.InspectService/", "/storage.StorageService/", "/time.TimeService/"]
        .iter()
        .any(|service| path.starts_with(service))
}

/// Whether the answer is a stream.
pub(crate) fn answers_stream(path: &str) -> bool {
    matches!(
        path.trim_start_matches('/'),
        "machine.MachineService/EtcdSnapshot"
            | "machine.MachineService/Logs"
            | "machine.MachineService/Read"
            | "machine.MachineService/List"
            | "cosi.resource.State/List"
    )
}

/// Whether the request is a stream.
pub(crate) fn takes_stream(path: &str) -> bool {
    path == "/machine.MachineService/EtcdRecover"
}
