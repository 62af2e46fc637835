//! The calls of etcd's API that Lifeboat makes: name, path and the size of answer each may have.

use crate::limits::{MESSAGE_MAX, SMALL_MESSAGE_MAX};

/// One call.
#[derive(Debug)]
pub(crate) struct Method {
    /// As etcd names it; part of errors.
    pub(crate) name: &'static str,
    /// Path of the HTTP/2 request.
    pub(crate) path: &'static str,
    /// Largest answer accepted, in bytes.
    pub(crate) answer_max: usize,
}

macro_rules! methods {
    ($($constant:ident = $service:literal / $name:literal, $max:expr;)+) => {
        $(pub(crate) const $constant: Method = Method {
            name: $name,
            path: concat!("/etcdserverpb.", $service, "/", $name),
            answer_max: $max,
        };)+
    };
}

methods! {
    RANGE = "KV" / "Range", MESSAGE_MAX;
    PUT = "KV" / "Put", MESSAGE_MAX;
    DELETE_RANGE = "KV" / "DeleteRange", MESSAGE_MAX;
    TXN = "KV" / "Txn", MESSAGE_MAX;
    COMPACT = "KV" / "Compact", SMALL_MESSAGE_MAX;
    WATCH = "Watch" / "Watch", MESSAGE_MAX;
    LEASE_GRANT = "Lease" / "LeaseGrant", SMALL_MESSAGE_MAX;
    LEASE_REVOKE = "Lease" / "LeaseRevoke", SMALL_MESSAGE_MAX;
    // One lease may hold a great many keys, and one cluster a great many leases.
    LEASE_TIME_TO_LIVE = "Lease" / "LeaseTimeToLive", MESSAGE_MAX;
    LEASE_LEASES = "Lease" / "LeaseLeases", MESSAGE_MAX;
    MEMBER_LIST = "Cluster" / "MemberList", SMALL_MESSAGE_MAX;
    MEMBER_ADD = "Cluster" / "MemberAdd", SMALL_MESSAGE_MAX;
    MEMBER_REMOVE = "Cluster" / "MemberRemove", SMALL_MESSAGE_MAX;
    MEMBER_UPDATE = "Cluster" / "MemberUpdate", SMALL_MESSAGE_MAX;
    MEMBER_PROMOTE = "Cluster" / "MemberPromote", SMALL_MESSAGE_MAX;
    STATUS = "Maintenance" / "Status", SMALL_MESSAGE_MAX;
    ALARM = "Maintenance" / "Alarm", SMALL_MESSAGE_MAX;
    DEFRAGMENT = "Maintenance" / "Defragment", SMALL_MESSAGE_MAX;
    HASH_KV = "Maintenance" / "HashKV", SMALL_MESSAGE_MAX;
    // The stream's own limit follows from its blob limit; this one is never used for it.
    SNAPSHOT = "Maintenance" / "Snapshot", SMALL_MESSAGE_MAX;
    MOVE_LEADER = "Maintenance" / "MoveLeader", SMALL_MESSAGE_MAX;
    AUTHENTICATE = "Auth" / "Authenticate", SMALL_MESSAGE_MAX;
    AUTH_ENABLE = "Auth" / "AuthEnable", SMALL_MESSAGE_MAX;
    AUTH_DISABLE = "Auth" / "AuthDisable", SMALL_MESSAGE_MAX;
    USER_ADD = "Auth" / "UserAdd", SMALL_MESSAGE_MAX;
    USER_GRANT_ROLE = "Auth" / "UserGrantRole", SMALL_MESSAGE_MAX;
    ROLE_ADD = "Auth" / "RoleAdd", SMALL_MESSAGE_MAX;
}
