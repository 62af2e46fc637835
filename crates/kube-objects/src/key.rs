//! Which resource a key belongs to.

/// The prefixes under which API servers keep their objects: the default of `--etcd-prefix`, and OpenShift's two.
const PREFIXES: [&[u8]; 3] = [b"/registry/", b"/kubernetes.io/", b"/openshift.io/"];

/// The keys under which the namespace `kube-system` may be stored. Its UID lives as long as the cluster and so tells clusters apart.
pub const KUBE_SYSTEM_KEYS: [&[u8]; 2] = [b"/registry/namespaces/kube-system", b"/kubernetes.io/namespaces/kube-system"];

/// Longest group, plural or resource name that is taken as one. Kubernetes allows 253 for a group (RFC 1123 subdomain).
const MAX_NAME: usize = 253;

/// A resource as found in a key: its plural name, and the API group where the key tells it (custom resources only).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Resource<'a> {
    /// The lower-case plural, `pods` for one.
    pub plural: &'a str,
    /// The group, `cert-manager.io` for one. Built-in kinds have none in their key, whatever their group.
    pub group: Option<&'a str>,
}

impl std::fmt::Display for Resource<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.plural)?;
        match self.group {
            Some(group) => write!(f, ".{group}"),
            None => Ok(()),
        }
    }
}

/// Whether a key lies where an API server would put it.
#[must_use]
pub fn is_kubernetes_key(key: &[u8]) -> bool {
    PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

/// The resource a key belongs to, or `None` for a key that is not laid out as the API server does it.
///
/// The few names in which keys differ from the API (`minions`, `services/specs` and so on) are translated.
#[must_use]
pub fn resource_of(key: &[u8]) -> Option<Resource<'_>> {
    let rest = PREFIXES.iter().find_map(|prefix| key.strip_prefix(*prefix))?;
    let mut parts = rest.split(|byte| *byte == b'/');
    let first = name(parts.next()?)?;
    let second = parts.next()?;
    if first.contains('.') {
        return Some(Resource { plural: name(second)?, group: Some(first) });
    }
    let plural = match (first, second) {
        ("minions", _) => "nodes",
        ("controllers", _) => "replicationcontrollers",
        ("ingress", _) => "ingresses",
        ("services", b"specs") => "services",
        ("services", b"endpoints") => "endpoints",
        _ => first,
    };
    Some(Resource { plural, group: None })
}

fn name(part: &[u8]) -> Option<&str> {
    let sound = (1..=MAX_NAME).contains(&part.len())
        && part.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(byte));
    if sound { std::str::from_utf8(part).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_resource_as_the_api_does() {
        for (key, expected) in [
            ("/registry/pods/default/web-0", Some("pods")),
            ("/registry/namespaces/kube-system", Some("namespaces")),
            ("/registry/minions/node-1", Some("nodes")),
            ("/registry/services/specs/default/kubernetes", Some("services")),
            ("/registry/services/endpoints/default/kubernetes", Some("endpoints")),
            ("/registry/cert-manager.io/certificates/ns/x", Some("certificates.cert-manager.io")),
            ("/registry/apiextensions.k8s.io/customresourcedefinitions/x", Some("customresourcedefinitions.apiextensions.k8s.io")),
            ("/kubernetes.io/pods/default/web-0", Some("pods")),
            ("compact_rev_key", None),
            ("/registry/", None),
            ("/registry/UPPER/x", None),
            ("/registry/pods", None),
        ] {
            let found = resource_of(key.as_bytes()).map(|resource| resource.to_string());
            assert_eq!(found.as_deref(), expected, "{key}");
        }
    }
}
