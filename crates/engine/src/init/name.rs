//! A name for the cluster where none was given. Pure.

use etcd_store::id::ClusterId;
use vault::name::ClusterName;

/// What names of machines say of the machine's part and not of the cluster.
const ROLES: [&str; 17] = [
    "control-plane",
    "controlplane",
    "controller",
    "control",
    "master",
    "ctrl",
    "cp",
    "etcd",
    "node",
    "server",
    "member",
    "host",
    "vm",
    "ip",
    "k8s",
    "kube",
    "worker",
];
/// Names that say nothing. `kubernetes` is what kubeadm calls every cluster.
const EMPTY: [&str; 8] = ["kubernetes", "localhost", "default", "cluster", "debian", "ubuntu", "linux", "container"];
/// A host name of at least so many hexadecimal digits is a container's id.
const CONTAINER_ID: usize = 12;

/// What a name can be made of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// The name of this machine.
    pub hostname: Option<&'a str>,
    /// Whether the cluster runs on it.
    pub here: bool,
    /// The cluster's id.
    pub id: Option<ClusterId>,
    /// The talosconfig's context, which `talosctl gen config` names after the cluster.
    pub context: Option<&'a str>,
}

/// A proposal: from the talosconfig's context; from the name of this machine where the cluster runs on it; else from the cluster's id.
#[must_use]
pub fn propose(known: &Known<'_>) -> Option<ClusterName> {
    let of_context = known.context.and_then(of_context).and_then(|text| text.parse().ok());
    let of_host = || known.hostname.filter(|_| known.here).and_then(of_host).and_then(|text| text.parse().ok());
    of_context.or_else(of_host).or_else(|| known.id.and_then(of_id))
}

/// A context's name as a cluster's; none where it says nothing (`default` is what service accounts have).
fn of_context(context: &str) -> Option<String> {
    // A context that was merged beside one of the same name gets a number; talosctl's kubeconfigs write admin@NAME.
    let name = context.rsplit_once('@').map_or(context, |(_, name)| name).to_ascii_lowercase();
    let plain: String = name.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }).collect();
    let plain = plain.trim_matches('-');
    (!plain.is_empty() && !EMPTY.contains(&plain)).then(|| plain.to_owned())
}

/// `etcd-` and the first eight digits of the cluster's id.
#[must_use]
pub fn of_id(id: ClusterId) -> Option<ClusterName> {
    let digits: String = id.to_string().chars().take(8).collect();
    format!("etcd-{digits}").parse().ok()
}

/// `prod` of `prod-cp-1.example.com`; none where nothing is left that could be the cluster's name.
fn of_host(hostname: &str) -> Option<String> {
    let label = hostname.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let plain: String = label.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }).collect();
    let plain = plain.trim_matches('-');
    let is_container = plain.len() >= CONTAINER_ID && plain.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_address = plain.strip_prefix("ip-").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-'));
    if is_container || is_address {
        return None;
    }
    let numberless = plain.trim_end_matches(|c: char| c.is_ascii_digit());
    let mut rest = numberless.trim_end_matches('-');
    while let Some(shorter) = without_role(rest) {
        rest = shorter;
    }
    if rest.is_empty() || EMPTY.contains(&rest) {
        return None;
    }
    // A number right behind a word, as in `edge1`, is more likely the cluster's than the machine's.
    Some(if rest == numberless { plain } else { rest }.to_owned())
}

fn without_role(text: &str) -> Option<&str> {
    ROLES.iter().find_map(|role| match text.strip_suffix(role)? {
        "" => Some(""),
        shorter => shorter.ends_with('-').then(|| shorter.trim_end_matches('-')),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_talos_context_is_named_after_its_cluster() {
        let known = |context| Known { context: Some(context), ..Known::default() };
        assert_eq!(propose(&known("edge")).unwrap().as_str(), "edge");
        assert_eq!(propose(&known("admin@Edge_7")).unwrap().as_str(), "edge-7");
        assert!(propose(&known("default")).is_none(), "a service account's context says nothing, and there is no id");
    }

    #[test]
    fn the_machines_part_is_taken_off() {
        for (hostname, expected) in [
            ("prod-cp-1.example.com", Some("prod")),
            ("kind-control-plane", Some("kind")),
            ("Edge_7-master02", Some("edge-7")),
            ("prod-k8s-master-0", Some("prod")),
            ("prod-1", Some("prod")),
            ("homelab", Some("homelab")),
            ("edge1", Some("edge1")),
            ("ip-10-0-0-1", None),
            ("control-plane", None),
            ("kubernetes", None),
            ("kubernetes-master-0", None),
            ("localhost", None),
            ("3f2a9c1b7d4e", None),
            ("", None),
        ] {
            assert_eq!(of_host(hostname).as_deref(), expected, "{hostname}");
        }
    }

    #[test]
    fn a_cluster_elsewhere_is_named_by_its_id() {
        let id = ClusterId(0x1a2b_3c4d_5e6f_7081);
        let propose = |hostname, here, id| propose(&Known { hostname, here, id: Some(id), context: None });
        assert_eq!(propose(Some("prod-cp-1"), false, id).unwrap().as_str(), "etcd-1a2b3c4d");
        assert_eq!(propose(Some("prod-cp-1"), true, id).unwrap().as_str(), "prod");
        assert_eq!(propose(None, true, id).unwrap().as_str(), "etcd-1a2b3c4d");
        assert_eq!(propose(Some("kubernetes"), true, ClusterId(7)).unwrap().as_str(), "etcd-00000000");
    }
}
