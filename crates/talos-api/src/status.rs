//! From a gRPC status, or an error inside a message, to a typed error.
//!
//! Source of the texts: Talos `internal/app/apid/pkg/director/director.go`, `pkg/grpc/middleware/authz`,
//! `internal/app/machined/pkg/machinehelper`, `internal/app/machined/internal/server/v1alpha1/v1alpha1_server.go`, 1.8 to 1.14.

use std::time::Duration;

use grpc_link::{Fate, LocalCause, local_cause, tame};
use tonic::{Code, Status};

use crate::client::method::{Method, Widened};
use crate::error::ErrorKind;
use crate::pb;
use crate::role::Roles;

/// Texts of apid and machined that decide what a code means.
mod text {
    /// apid on a node without the key to reach others.
    pub(super) const NO_FORWARDING: &str = "no request forwarding";
    /// machined on a worker; before a node is configured the second.
    pub(super) const WORKER: [&str; 2] = ["only available on control plane nodes", "machine type is not set"];
    /// apid that cannot dial the node: gRPC's own text.
    pub(super) const SECOND_HOP: [&str; 2] = ["error while dialing", "name resolver error"];
    /// machined whose etcd does not answer.
    pub(super) const NO_ETCD: [&str; 3] = ["failed to create etcd client", "error building etcd client", ":2379: "];
    /// The resource server on a type or namespace this release does not have.
    pub(super) const NO_SUCH_RESOURCE: &str = "is not supported";
    /// gRPC's own text for a message over the limit, on the way from node to apid.
    pub(super) const TOO_LARGE: &str = "received message larger than max";
}

/// Everything that decides what a status means.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'static Method,
    pub(crate) limit: Duration,
    pub(crate) roles: &'a Roles,
}

impl Asked<'_> {
    /// Types a status. `fate` is what the connection itself has seen.
    pub(crate) fn classify(&self, status: &Status, fate: &Fate) -> ErrorKind {
        match local_cause(status, fate) {
            Some(LocalCause::Link(fault)) => ErrorKind::Link(fault),
            Some(LocalCause::TimedOut) => ErrorKind::Timeout(self.limit),
            Some(LocalCause::TooLarge(text)) => ErrorKind::TooLarge(text),
            Some(LocalCause::Garbled(text)) => ErrorKind::Protocol(text),
            // A cause that a later version of grpc-link may add.
            Some(_) => ErrorKind::Protocol(tame(status.message())),
            None => self.remote(status.code(), status.message()),
        }
    }

    /// Types the error in a message's metadata; `None` when there is none.
    pub(crate) fn in_metadata(&self, metadata: Option<&pb::Metadata>) -> Option<ErrorKind> {
        let metadata = metadata.filter(|metadata| !metadata.error.is_empty() || metadata.status.is_some())?;
        let (code, text) = match &metadata.status {
            Some(status) if status.code != 0 => (Code::from_i32(status.code), status.message.as_str()),
            Some(_) if metadata.error.is_empty() => return None,
            _ => (Code::Unknown, metadata.error.as_str()),
        };
        Some(self.remote(code, if text.is_empty() { &metadata.error } else { text }))
    }

    fn remote(&self, code: Code, text: &str) -> ErrorKind {
        let has = |needle: &str| text.contains(needle);
        let message = tame(text);
        match code {
            Code::PermissionDenied if has(text::NO_FORWARDING) => ErrorKind::NoForwarding,
            Code::PermissionDenied if has(text::NO_SUCH_RESOURCE) => ErrorKind::Unimplemented(message),
            Code::PermissionDenied => self.denied(),
            Code::Unauthenticated => ErrorKind::Unauthenticated(message),
            Code::Unimplemented if text::WORKER.into_iter().any(has) => ErrorKind::NotControlPlane(message),
            Code::Unimplemented => ErrorKind::Unimplemented(message),
            Code::ResourceExhausted if has(text::TOO_LARGE) => ErrorKind::TooLarge(message),
            _ => match by_text(text) {
                Some(kind) => kind,
                None => self.by_code(code, message),
            },
        }
    }

    fn by_code(&self, code: Code, message: String) -> ErrorKind {
        let lower = message.to_ascii_lowercase();
        match code {
            Code::Unavailable if text::SECOND_HOP.into_iter().any(|needle| lower.contains(needle)) => ErrorKind::NodeUnreachable(message),
            Code::Unavailable => ErrorKind::Unavailable(message),
            Code::DeadlineExceeded => ErrorKind::Timeout(self.limit),
            Code::NotFound => ErrorKind::NotFound(message),
            Code::AlreadyExists => ErrorKind::AlreadyExists(message),
            Code::FailedPrecondition => ErrorKind::NotReady(message),
            Code::InvalidArgument => ErrorKind::Invalid(message),
            code => ErrorKind::Rpc { code, message },
        }
    }

    fn denied(&self) -> ErrorKind {
        let had = self.roles.clone();
        let newer = |widened: &Widened| had.suffice(self.method.roles) && !had.suffice(widened.before);
        match self.method.widened.filter(newer) {
            Some(widened) => ErrorKind::Denied { needs: widened.before, had, newer: Some(widened.since) },
            None => ErrorKind::Denied { needs: self.method.roles, had, newer: None },
        }
    }
}

fn by_text(text: &str) -> Option<ErrorKind> {
    if text::NO_ETCD.iter().any(|needle| text.contains(needle)) {
        return Some(ErrorKind::EtcdSilent(tame(text)));
    }
    // etcd's texts only where etcd speaks: words like "permission denied" are also those of files.
    let etcd = text.contains("etcdserver: ") || text.contains("etcdclient: ");
    etcd.then(|| etcd_api::ErrorKind::from_etcd_text(text)).flatten().map(ErrorKind::Etcd)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::client::method;
    use crate::role::Role;

    fn typed(method: &'static Method, roles: &[Role], code: Code, text: &str) -> ErrorKind {
        let roles = Roles::new(roles.to_vec());
        Asked { method, limit: Duration::from_secs(5), roles: &roles }.classify(&Status::new(code, text), &Fate::default())
    }

    #[test]
    fn every_text_of_the_reference_has_its_type() {
        let plain = |code, text| typed(&method::ETCD_STATUS, &[Role::Admin], code, text);
        assert_eq!(plain(Code::PermissionDenied, "no request forwarding"), ErrorKind::NoForwarding);
        for text in ["etcd status is only available on control plane nodes", "machine type is not set yet"] {
            assert!(matches!(plain(Code::Unimplemented, text), ErrorKind::NotControlPlane(_)));
        }
        let unknown = "unknown method EtcdStatus for service machine.MachineService";
        assert_eq!(plain(Code::Unimplemented, unknown), ErrorKind::Unimplemented(unknown.to_owned()));
        let hop = "connection error: desc = \"transport: Error while dialing: dial tcp 10.0.0.9:50000: connect: no route to host\"";
        assert!(matches!(plain(Code::Unavailable, hop), ErrorKind::NodeUnreachable(_)));
        let silent = "failed to create etcd client: error building etcd client: context deadline exceeded";
        assert!(matches!(plain(Code::Unknown, silent), ErrorKind::EtcdSilent(_)));
        let refused = "failed to query etcd status: rpc error: code = Unavailable desc = connection error: desc = \
                       \"transport: Error while dialing: dial tcp [::1]:2379: connect: connection refused\"";
        assert!(matches!(plain(Code::Unavailable, refused), ErrorKind::EtcdSilent(_)));
        let unknown_type = "resource type \"VolumeStatuses.block.talos.dev\" is not supported";
        assert!(matches!(plain(Code::PermissionDenied, unknown_type), ErrorKind::Unimplemented(_)));
        let leaderless = "failed to query etcd status: etcdserver: no leader";
        assert_eq!(plain(Code::Unknown, leaderless), ErrorKind::Etcd(etcd_api::ErrorKind::NoLeader));
        assert_eq!(plain(Code::NotFound, "etcdserver: member not found"), ErrorKind::Etcd(etcd_api::ErrorKind::MemberNotFound));
        assert!(matches!(plain(Code::Unknown, "open /x: permission denied"), ErrorKind::Rpc { .. }));
        assert!(matches!(plain(Code::AlreadyExists, "etcd data directory is not empty"), ErrorKind::AlreadyExists(_)));
        assert!(matches!(plain(Code::FailedPrecondition, "time is not in sync yet"), ErrorKind::NotReady(_)));
        let huge = "grpc: received message larger than max (40000000 vs. 33554432)";
        assert!(matches!(plain(Code::ResourceExhausted, huge), ErrorKind::TooLarge(_)));
    }

    #[test]
    fn a_missing_role_is_explained_with_the_least_that_would_do() {
        let text = |method, had: &[Role]| typed(method, had, Code::PermissionDenied, "not authorized").to_string();
        assert_eq!(
            text(&method::ETCD_DEFRAGMENT, &[Role::Reader]),
            "the role os:operator is needed (or os:admin); this talosconfig has os:reader"
        );
        assert_eq!(text(&method::ETCD_LEAVE_CLUSTER, &[Role::Operator]), "the role os:admin is needed; this talosconfig has os:operator");
        assert_eq!(
            text(&method::ETCD_STATUS, &[Role::EtcdBackup]),
            "the role os:operator is needed (or os:admin); this talosconfig has os:etcd:backup, which is enough since Talos 1.9.6, 1.10.1 and 1.11"
        );
        assert_eq!(
            text(&method::ETCD_STATUS, &[Role::Admin]),
            "the role os:etcd:backup is needed (or os:reader, os:operator, os:admin); this talosconfig has os:admin, which would be \
             enough: something in front of Talos allows less"
        );
        assert_eq!(
            text(&method::ETCD_SNAPSHOT, &[]),
            "the role os:etcd:backup is needed (or os:operator, os:admin); this talosconfig has no role"
        );
    }

    #[test]
    fn an_error_in_metadata_is_an_error() {
        let roles = Roles::default();
        let asked = Asked { method: &method::ETCD_STATUS, limit: Duration::from_secs(5), roles: &roles };
        let mut metadata = pb::Metadata { hostname: "10.0.0.2".into(), ..Default::default() };
        assert_eq!(asked.in_metadata(None), None);
        assert_eq!(asked.in_metadata(Some(&metadata)), None);
        metadata.error = "it broke".into();
        assert_eq!(asked.in_metadata(Some(&metadata)), Some(ErrorKind::Rpc { code: Code::Unknown, message: "it broke".into() }));
        // Canceled and DeadlineExceeded end a stream without an error for talosctl; for us they are errors.
        metadata.status = Some(pb::RpcStatus { code: 4, message: "context deadline exceeded".into() });
        assert_eq!(asked.in_metadata(Some(&metadata)), Some(ErrorKind::Timeout(Duration::from_secs(5))));
        metadata.status = Some(pb::RpcStatus { code: 7, message: "not authorized".into() });
        assert!(matches!(asked.in_metadata(Some(&metadata)), Some(ErrorKind::Denied { .. })));
    }
}
