//! Talos' errors in an operator's words: the likely cause and what mends it.

use etcd_api::LinkFault;
use talos_api::{Error, ErrorClass, ErrorKind};

use crate::failure::{Code, Failure};

/// A failure for an error of Talos' API. `what` did not happen is the caller's to say.
#[must_use]
pub fn failure(what: &str, error: &Error) -> Failure {
    let code = match error.class() {
        ErrorClass::Unreachable => Code::SourceUnreachable,
        ErrorClass::Input => Code::Usage,
        _ => Code::Failed,
    };
    let cause = match advice(error.kind()) {
        Some(advice) => format!("{}: {}; {advice}", error.call(), error.kind()),
        None => format!("{}: {}", error.call(), error.kind()),
    };
    let object = match (error.node(), error.endpoint()) {
        (Some(node), Some(endpoint)) if endpoint.host() == node.as_str() => Some(node.to_string()),
        (Some(node), Some(endpoint)) => Some(format!("{node} through {endpoint}")),
        (Some(node), None) => Some(node.to_string()),
        (None, endpoint) => endpoint.map(ToString::to_string),
    };
    let failure = Failure::new(code, what).cause(cause).again();
    match object {
        Some(object) => failure.object(object),
        None => failure,
    }
}

/// A failure for a talosconfig that cannot be used.
#[must_use]
pub fn of_config(error: &talos_api::ConfigError) -> Failure {
    Failure::usage("the talosconfig cannot be used").cause(error).again()
}

fn advice(kind: &ErrorKind) -> Option<String> {
    let text = match kind {
        ErrorKind::Link(LinkFault::Unreachable(_)) | ErrorKind::NoEndpoint(_) => {
            "apid listens on port 50000 of each control plane node: check the endpoints (-e), and that a firewall lets you through"
        }
        ErrorKind::Link(LinkFault::TlsClientCertificate(_)) | ErrorKind::Unauthenticated(_) => {
            "the talosconfig's certificate may have expired, or belong to another cluster"
        }
        ErrorKind::Link(LinkFault::TlsCa(_)) => "the talosconfig belongs to another cluster, or something else answers at this address",
        ErrorKind::NodeUnreachable(_) => "the node may be down; -n names nodes as the endpoint reaches them",
        ErrorKind::NoForwarding => "name the addresses of control plane nodes as endpoints (-e)",
        ErrorKind::Denied { needs, .. } => {
            let role = needs.first().map_or("os:admin", talos_api::Role::name);
            return Some(format!("a talosconfig with it: talosctl config new --roles {role} FILE, or spec.roles of the ServiceAccount"));
        }
        ErrorKind::NotControlPlane(_) => "name control plane nodes (-n)",
        ErrorKind::EtcdSilent(_) => "what etcd says: lifeboat etcd logs",
        _ => return None,
    };
    Some(text.to_owned())
}
