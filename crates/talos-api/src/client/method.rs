//! The calls of Talos' API that Lifeboat makes: name, path, roles, and whether a repetition does harm.
//!
//! Source of the roles: Talos `internal/app/machined/pkg/system/services/machined.go` (1.11 and later), and its history for
//! what they were before.

use crate::role::Role;

/// A call that was opened to more roles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Widened {
    /// The releases since which all of [`Method::roles`] are enough.
    pub(crate) since: &'static str,
    /// What was enough before, the least first.
    pub(crate) before: &'static [Role],
}

/// One call.
#[derive(Debug)]
pub(crate) struct Method {
    /// As Talos names it; part of errors.
    pub(crate) name: &'static str,
    /// Path of the HTTP/2 request.
    pub(crate) path: &'static str,
    /// Roles any of which is enough, the least first.
    pub(crate) roles: &'static [Role],
    /// How it was before, where fewer roles were enough once.
    pub(crate) widened: Option<Widened>,
    /// Whether it changes nothing, so that it can be asked again after a lost answer.
    pub(crate) reads: bool,
}

const ADMIN: &[Role] = &[Role::Admin];
const OPERATOR: &[Role] = &[Role::Operator, Role::Admin];
const READER: &[Role] = &[Role::Reader, Role::Operator, Role::Admin];
const BACKUP: &[Role] = &[Role::EtcdBackup, Role::Operator, Role::Admin];
const ANY: &[Role] = &[Role::EtcdBackup, Role::Reader, Role::Operator, Role::Admin];

/// When `os:reader` and `os:etcd:backup` were allowed to look at etcd.
const SINCE: &str = "1.9.6, 1.10.1 and 1.11";
const FROM_OPERATOR: Option<Widened> = Some(Widened { since: SINCE, before: OPERATOR });
const FROM_READER: Option<Widened> = Some(Widened { since: SINCE, before: READER });

macro_rules! methods {
    ($($constant:ident = $service:literal / $name:literal, $roles:expr, $widened:expr, $reads:expr;)+) => {
        $(pub(crate) const $constant: Method = Method {
            name: $name,
            path: concat!("/", $service, "/", $name),
            roles: $roles,
            widened: $widened,
            reads: $reads,
        };)+

        /// All of them.
        #[cfg(test)]
        pub(crate) const ALL: &[&Method] = &[$(&$constant),+];
    };
}

methods! {
    VERSION = "machine.MachineService" / "Version", READER, None, true;
    HOSTNAME = "machine.MachineService" / "Hostname", READER, None, true;
    MEMORY = "machine.MachineService" / "Memory", READER, None, true;
    MOUNTS = "machine.MachineService" / "Mounts", READER, None, true;
    SERVICE_LIST = "machine.MachineService" / "ServiceList", READER, None, true;
    LOGS = "machine.MachineService" / "Logs", READER, None, true;
    LIST = "machine.MachineService" / "List", READER, None, true;
    READ = "machine.MachineService" / "Read", ADMIN, None, true;
    BOOTSTRAP = "machine.MachineService" / "Bootstrap", ADMIN, None, false;
    RESET = "machine.MachineService" / "Reset", ADMIN, None, false;
    REBOOT = "machine.MachineService" / "Reboot", OPERATOR, None, false;
    ETCD_MEMBER_LIST = "machine.MachineService" / "EtcdMemberList", ANY, FROM_READER, true;
    ETCD_STATUS = "machine.MachineService" / "EtcdStatus", ANY, FROM_OPERATOR, true;
    ETCD_ALARM_LIST = "machine.MachineService" / "EtcdAlarmList", ANY, FROM_OPERATOR, true;
    ETCD_ALARM_DISARM = "machine.MachineService" / "EtcdAlarmDisarm", OPERATOR, None, false;
    ETCD_DEFRAGMENT = "machine.MachineService" / "EtcdDefragment", OPERATOR, None, false;
    ETCD_FORFEIT_LEADERSHIP = "machine.MachineService" / "EtcdForfeitLeadership", ADMIN, None, false;
    ETCD_LEAVE_CLUSTER = "machine.MachineService" / "EtcdLeaveCluster", ADMIN, None, false;
    ETCD_REMOVE_MEMBER_BY_ID = "machine.MachineService" / "EtcdRemoveMemberByID", ADMIN, None, false;
    ETCD_SNAPSHOT = "machine.MachineService" / "EtcdSnapshot", BACKUP, None, true;
    ETCD_RECOVER = "machine.MachineService" / "EtcdRecover", ADMIN, None, false;
    RESOURCE_GET = "cosi.resource.State" / "Get", READER, None, true;
    RESOURCE_LIST = "cosi.resource.State" / "List", READER, None, true;
}

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn the_least_role_comes_first() {
        for method in ALL {
            assert!(method.roles.is_sorted(), "{}", method.name);
            assert!(!method.roles.is_empty() && method.path.ends_with(method.name));
        }
    }
}
