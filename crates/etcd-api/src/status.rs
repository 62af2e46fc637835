//! From a gRPC status to a typed error.
//!
//! etcd's own errors are told apart by their texts (api/v3rpc/rpctypes/error.go, 3.4 to 3.7), because one gRPC code stands for many of them.

use std::time::Duration;

use grpc_link::{Fate, LocalCause, local_cause, tame};
use tonic::{Code, Status};

use crate::error::ErrorKind;

/// Types a status. `limit` is the time the call was given, `fate` what the connection itself has seen.
pub(crate) fn classify(status: &Status, limit: Duration, fate: &Fate) -> ErrorKind {
    match local_cause(status, fate) {
        Some(LocalCause::Link(fault)) => ErrorKind::Link(fault),
        Some(LocalCause::TimedOut) => ErrorKind::Timeout(limit),
        Some(LocalCause::TooLarge(text)) => ErrorKind::MessageTooLarge(text),
        Some(LocalCause::Garbled(text)) => ErrorKind::Protocol(text),
        // A cause that a later version of grpc-link may add.
        Some(_) => ErrorKind::Protocol(tame(status.message())),
        None => classify_remote(status, limit),
    }
}

fn classify_remote(status: &Status, limit: Duration) -> ErrorKind {
    let text = status.message();
    if let Some(kind) = by_text(text) {
        return kind;
    }
    let message = tame(text);
    match status.code() {
        Code::Unauthenticated => ErrorKind::Unauthenticated(message),
        Code::PermissionDenied => ErrorKind::PermissionDenied(message),
        Code::Unimplemented => ErrorKind::Unimplemented(message),
        Code::Unavailable => ErrorKind::Unavailable(message),
        Code::DeadlineExceeded => ErrorKind::Timeout(limit),
        code => ErrorKind::Rpc { code, message },
    }
}

impl ErrorKind {
    /// Types an error by etcd's text for it, wherever that text was found: in a status, as the reason of a cancelled watch,
    /// within another server's error. `None` when it is none of etcd's.
    #[must_use]
    pub fn from_etcd_text(text: &str) -> Option<Self> {
        by_text(text)
    }
}

pub(crate) fn by_text(text: &str) -> Option<ErrorKind> {
    let has = |needle: &str| text.contains(needle);
    let kind = if has("required revision has been compacted") {
        ErrorKind::Compacted(None)
    } else if has("required revision is a future revision") {
        ErrorKind::FutureRevision
    } else if has("database space exceeded") {
        ErrorKind::NoSpace
    } else if has("corrupt cluster") {
        ErrorKind::Corrupt
    } else if has("rpc not supported for learner") {
        ErrorKind::LearnerUnsupported
    } else if has("in sync with leader") {
        ErrorKind::LearnerNotReady
    } else if has("too many learner members") {
        ErrorKind::TooManyLearners
    } else if has("cluster ID mismatch") {
        ErrorKind::ClusterIdMismatch
    } else if has("etcdserver: not leader") {
        ErrorKind::NotLeader
    } else if has("etcdserver: no leader") {
        ErrorKind::NoLeader
    } else if has("etcdserver: member not found") {
        ErrorKind::MemberNotFound
    } else if has("requested lease not found") {
        ErrorKind::LeaseNotFound
    } else if has("invalid user ID or password") {
        ErrorKind::AuthenticationFailed
    } else if cured_by_new_token(text) {
        ErrorKind::Unauthenticated(tame(text))
    } else if has(": permission denied") {
        // "etcdserver: permission denied"; Snapshot of 3.4 and 3.5 lets "auth: permission denied" through, as code Unknown.
        ErrorKind::PermissionDenied(tame(text))
    } else {
        return None;
    };
    Some(kind)
}

/// Whether a new token may cure the error: the old one expired or was made before users or roles changed, or the call
/// went out without one because authentication was off when we asked. etcd's own client renews on the same three.
pub(crate) fn cured_by_new_token(text: &str) -> bool {
    // "auth: revision in header is old" is the store's own text for the second, let through by calls of 3.4 and 3.5.
    ["invalid auth token", "revision of auth store is old", "revision in header is old", "user name is empty"]
        .iter()
        .any(|needle| text.contains(needle))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn every_etcd_text_of_the_reference_has_its_type() {
        let limit = Duration::from_secs(5);
        for (code, text, expected) in [
            (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted", ErrorKind::Compacted(None)),
            (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision", ErrorKind::FutureRevision),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", ErrorKind::NoSpace),
            (Code::DataLoss, "etcdserver: corrupt cluster", ErrorKind::Corrupt),
            (Code::FailedPrecondition, "etcdserver: rpc not supported for learner", ErrorKind::LearnerUnsupported),
            (Code::FailedPrecondition, "etcdserver: not leader", ErrorKind::NotLeader),
            (
                Code::FailedPrecondition,
                "etcdserver: can only promote a learner member which is in sync with leader",
                ErrorKind::LearnerNotReady,
            ),
            (Code::FailedPrecondition, "etcdserver: too many learner members in cluster", ErrorKind::TooManyLearners),
            (Code::FailedPrecondition, "etcdserver: cluster ID mismatch", ErrorKind::ClusterIdMismatch),
            (Code::Unavailable, "etcdserver: no leader", ErrorKind::NoLeader),
            (Code::Unavailable, "etcdserver: request timed out", ErrorKind::Unavailable("etcdserver: request timed out".into())),
            (Code::Unauthenticated, "etcdserver: invalid auth token", ErrorKind::Unauthenticated("etcdserver: invalid auth token".into())),
            (Code::PermissionDenied, "etcdserver: permission denied", ErrorKind::PermissionDenied("etcdserver: permission denied".into())),
            (Code::Unknown, "auth: permission denied", ErrorKind::PermissionDenied("auth: permission denied".into())),
            (Code::Unknown, "auth: invalid auth token", ErrorKind::Unauthenticated("auth: invalid auth token".into())),
            (Code::Unknown, "auth: revision in header is old", ErrorKind::Unauthenticated("auth: revision in header is old".into())),
            (Code::InvalidArgument, "etcdserver: user name is empty", ErrorKind::Unauthenticated("etcdserver: user name is empty".into())),
            (Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password", ErrorKind::AuthenticationFailed),
            (Code::NotFound, "etcdserver: member not found", ErrorKind::MemberNotFound),
            (Code::NotFound, "etcdserver: requested lease not found", ErrorKind::LeaseNotFound),
            (Code::DeadlineExceeded, "etcdserver: context deadline exceeded", ErrorKind::Timeout(limit)),
            (Code::Unimplemented, "unknown method X", ErrorKind::Unimplemented("unknown method X".into())),
            (Code::Aborted, "something new", ErrorKind::Rpc { code: Code::Aborted, message: "something new".into() }),
        ] {
            assert_eq!(classify(&Status::new(code, text), limit, &Fate::default()), expected, "{text}");
        }
    }
}
