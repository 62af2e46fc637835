//! etcd's errors in an operator's words: the likely cause and what mends it.

use etcd_api::{Error, ErrorClass, ErrorKind, LinkFault};

use crate::failure::{Code, Failure};

/// A failure for an error of etcd's API. `what` did not happen is the caller's to say.
#[must_use]
pub fn failure(what: &str, error: &Error) -> Failure {
    let code = match error.class() {
        ErrorClass::Unreachable => Code::SourceUnreachable,
        ErrorClass::Input => Code::Usage,
        _ => Code::Failed,
    };
    let cause = match advice(error.kind()) {
        Some(advice) => format!("{}; {advice}", error.kind()),
        None => error.kind().to_string(),
    };
    Failure::new(code, what).object(error.endpoint()).cause(cause).again()
}

fn advice(kind: &ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::Link(LinkFault::Unreachable(_)) => {
            "etcd does not listen there, or a firewall is between: check --endpoints, and that etcd runs"
        }
        ErrorKind::Link(LinkFault::TlsCa(_)) => {
            "--cacert must name the CA of this etcd (kubeadm: /etc/kubernetes/pki/etcd/ca.crt, not /etc/kubernetes/pki/ca.crt)"
        }
        ErrorKind::Link(LinkFault::TlsServerCertificate(_)) => "the certificate of etcd itself has to be renewed",
        ErrorKind::Link(LinkFault::WrongServerName { .. }) => {
            "use an address that is in the certificate, or name one that is with --tls-server-name"
        }
        ErrorKind::Link(LinkFault::TlsClientCertificate(_)) => {
            "--cert and --key must name a client certificate of this etcd's CA that has not expired (kubeadm: /etc/kubernetes/pki/etcd/healthcheck-client.crt and .key)"
        }
        ErrorKind::Link(LinkFault::SchemeMismatch { .. }) => "write the endpoint with the other scheme",
        ErrorKind::Timeout(_) => {
            "the member is overloaded, stopped, or unreachable: look at its log, or give it more time with --command-timeout"
        }
        ErrorKind::Unauthenticated(_) => "this etcd has authentication on: give --user and --password-file, of a user with the role root",
        ErrorKind::AuthenticationFailed => "check --user and --password-file",
        ErrorKind::PermissionDenied(_) => "snapshots and HashKV need a user with the role root: etcdctl user grant-role NAME root",
        ErrorKind::TooManyLearners => {
            "etcd allows one at a time unless its --max-learners says otherwise: promote the one that is there, or remove it"
        }
        ErrorKind::NoLeader => "the cluster has lost its quorum: --degraded takes a backup of one member all the same",
        ErrorKind::Corrupt => "the cluster refuses to work because members disagree: --degraded takes a backup all the same",
        _ => return None,
    })
}
