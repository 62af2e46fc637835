//! etcd's errors as Talos passes them on.

use etcd_api::{Error, ErrorKind};
use grpc_link::testing::Failure;

use crate::message::code;

/// The failure of a call in which `doing` failed (`fmt.Errorf("failed to …: %w", err)`): code Unknown for etcd's own errors,
/// Unavailable for a connection that does not come about, as Go's wrapping has it.
pub(super) fn wrapped(doing: &str, error: &Error) -> Failure {
    let bare = bare(error);
    Failure::new(bare.code, format!("{doing}: {}", bare.message))
}

/// The same where Talos returns the error as it is.
pub(super) fn bare(error: &Error) -> Failure {
    match error.kind() {
        ErrorKind::Link(_) => {
            let dial = "dial tcp [::1]:2379: connect: connection refused";
            let desc = format!("connection error: desc = \"transport: Error while dialing: {dial}\"");
            Failure::new(code::UNAVAILABLE, format!("rpc error: code = Unavailable desc = {desc}"))
        }
        kind => Failure::new(code::UNKNOWN, text(kind)),
    }
}

/// etcd's own text (api/v3rpc/rpctypes/error.go).
pub(super) fn text(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::NoLeader => "etcdserver: no leader".to_owned(),
        ErrorKind::NotLeader => "etcdserver: not leader".to_owned(),
        ErrorKind::MemberNotFound => "etcdserver: member not found".to_owned(),
        ErrorKind::NoSpace => "etcdserver: mvcc: database space exceeded".to_owned(),
        ErrorKind::Corrupt => "etcdserver: corrupt cluster".to_owned(),
        ErrorKind::LearnerUnsupported => "etcdserver: rpc not supported for learner".to_owned(),
        ErrorKind::Timeout(_) => "context deadline exceeded".to_owned(),
        ErrorKind::Unavailable(text) | ErrorKind::Rpc { message: text, .. } => text.clone(),
        other => other.to_string(),
    }
}
