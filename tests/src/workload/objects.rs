//! Keys and values as the API server writes them: protobuf behind `k8s\0` for built-in kinds, JSON for custom resources.
//!
//! Field numbers: `runtime.Unknown` {1 typeMeta {1 apiVersion, 2 kind}, 2 raw}; every kind {1 metadata, 2 spec, 3 status}; `ObjectMeta` {1 name,
//! 3 namespace, 5 uid, 8 creationTimestamp {1 seconds}, 11 labels, 12 annotations, 17 managedFields}. Below `spec` only the shape is right.

use bytes::Bytes;
use serde_json::json;

use crate::random::Random;

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// As in etcd, e.g. `/registry/pods/default/web-1`.
    pub key: Bytes,
    /// As in etcd.
    pub value: Bytes,
}

/// Length of the UID of every object, also of namespace `kube-system`.
pub const KUBE_SYSTEM_UID_LEN: usize = 36;

const NAMESPACES: [&str; 6] = ["default", "kube-system", "kube-public", "shop", "payments", "monitoring"];
const APPS: [&str; 8] = ["web", "api", "worker", "cache", "ingress-controller", "metrics-agent", "billing", "scheduler"];
/// Letters and digits Kubernetes puts at the end of generated names.
const NAME_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const CREATED: u64 = 1_760_000_000;

/// Makes objects, one after the other.
pub(super) struct Maker {
    random: Random,
    count: u64,
}

#[derive(Clone, Copy)]
struct Kind {
    api_version: &'static str,
    kind: &'static str,
    path: &'static str,
    namespaced: bool,
}

const fn kind(api_version: &'static str, kind: &'static str, path: &'static str, namespaced: bool) -> Kind {
    Kind { api_version, kind, path, namespaced }
}

const POD: Kind = kind("v1", "Pod", "pods", true);
const SECRET: Kind = kind("v1", "Secret", "secrets", true);
const CONFIG_MAP: Kind = kind("v1", "ConfigMap", "configmaps", true);
const SERVICE: Kind = kind("v1", "Service", "services/specs", true);
const DEPLOYMENT: Kind = kind("apps/v1", "Deployment", "deployments", true);
const REPLICA_SET: Kind = kind("apps/v1", "ReplicaSet", "replicasets", true);
const LEASE: Kind = kind("coordination.k8s.io/v1", "Lease", "leases", true);
const EVENT: Kind = kind("v1", "Event", "events", true);
const NAMESPACE: Kind = kind("v1", "Namespace", "namespaces", false);
const NODE: Kind = kind("v1", "Node", "minions", false);
/// A custom resource: stored as JSON below its group.
const CUSTOM: Kind = kind("shop.example.com/v1", "Order", "shop.example.com/orders", true);

const KINDS: [Kind; 7] = [POD, SECRET, CONFIG_MAP, SERVICE, DEPLOYMENT, REPLICA_SET, LEASE];

impl Maker {
    pub(super) fn new(random: Random) -> Self {
        Self { random, count: 0 }
    }

    /// What every cluster has first: its namespaces and nodes. The UID of `kube-system` is the cluster's fingerprint.
    pub(super) fn cluster(&mut self) -> Vec<Object> {
        let mut objects: Vec<Object> = NAMESPACES.iter().map(|name| self.make(NAMESPACE, "", name)).collect();
        objects.extend((1..=3).map(|number| self.make(NODE, "", &format!("node-{number}"))));
        objects
    }

    /// A new object of some kind under a name never used before.
    pub(super) fn any(&mut self) -> Object {
        self.count += 1;
        let namespace = *self.random.pick(&NAMESPACES);
        let name = format!("{}-{}-{}", self.random.pick(&APPS), self.count, self.random.text(NAME_ALPHABET, 5));
        if self.random.below(5) == 0 {
            return self.make(CUSTOM, namespace, &name);
        }
        let kind = *self.random.pick(&KINDS);
        self.make(kind, namespace, &name)
    }

    /// A new event, to be put under a lease.
    pub(super) fn event(&mut self) -> Object {
        self.count += 1;
        let namespace = *self.random.pick(&NAMESPACES);
        let name = format!("{}-{}.{}", self.random.pick(&APPS), self.count, self.random.hex(16));
        self.make(EVENT, namespace, &name)
    }

    /// A new value for a key that exists.
    pub(super) fn update(&mut self, key: &[u8]) -> Object {
        let text = String::from_utf8_lossy(key).into_owned();
        let path = text.strip_prefix("/registry/").unwrap_or(&text);
        let kinds = KINDS.iter().chain([&EVENT, &NAMESPACE, &NODE, &CUSTOM]);
        let kind = kinds.copied().find(|kind| path.strip_prefix(kind.path).is_some_and(|rest| rest.starts_with('/'))).unwrap_or(CONFIG_MAP);
        let mut rest = path[kind.path.len().min(path.len())..].trim_start_matches('/').split('/');
        let (namespace, name) = match (rest.next(), rest.next()) {
            (Some(namespace), Some(name)) => (namespace, name),
            (Some(name), None) => ("", name),
            _ => ("", ""),
        };
        Object { key: Bytes::copy_from_slice(key), ..self.make(kind, namespace, name) }
    }

    /// A config map with at least `size` bytes.
    pub(super) fn big(&mut self, size: usize) -> Object {
        self.count += 1;
        let name = format!("bundle-{}", self.count);
        let data = self.random.text(BASE64, 4096).repeat(size / 4096 + 1);
        let spec = string(1, &data[..size]);
        let value = self.stored(CONFIG_MAP, "default", &name, &spec);
        Object { key: format!("/registry/configmaps/default/{name}").into(), value }
    }

    fn make(&mut self, kind: Kind, namespace: &str, name: &str) -> Object {
        let key =
            if kind.namespaced { format!("/registry/{}/{namespace}/{name}", kind.path) } else { format!("/registry/{}/{name}", kind.path) };
        let value = if kind.path == CUSTOM.path { self.custom(namespace, name) } else { self.built_in(kind, namespace, name) };
        Object { key: key.into(), value }
    }

    fn built_in(&mut self, kind: Kind, namespace: &str, name: &str) -> Bytes {
        let spec = match kind.kind {
            "Pod" | "Deployment" | "ReplicaSet" => self.containers(name),
            "Secret" => {
                let entries = 1 + self.random.below(3) as usize;
                (0..entries).flat_map(|index| map_entry(2, &format!("key-{index}"), &self.random.text(BASE64, 1200))).collect()
            }
            "ConfigMap" => self.settings(name),
            "Event" => [
                string(3, "FailedScheduling"),
                string(4, &format!("0/3 nodes are available: {name} waits for a volume; preemption is not helpful for scheduling")),
                string(6, "default-scheduler"),
            ]
            .concat(),
            _ => self.conditions(),
        };
        self.stored(kind, namespace, name, &spec)
    }

    /// `k8s\0` and `runtime.Unknown` around the object.
    fn stored(&mut self, kind: Kind, namespace: &str, name: &str, spec: &[u8]) -> Bytes {
        let object = [bytes(1, &self.metadata(kind, namespace, name)), bytes(2, spec), bytes(3, &self.conditions())].concat();
        let type_meta = [string(1, kind.api_version), string(2, kind.kind)].concat();
        let unknown = [bytes(1, &type_meta), bytes(2, &object), string(3, ""), string(4, "")].concat();
        [b"k8s\0".as_slice(), &unknown].concat().into()
    }

    fn metadata(&mut self, kind: Kind, namespace: &str, name: &str) -> Vec<u8> {
        let created = number(1, CREATED + self.random.below(10_000_000));
        let uid = self.uid();
        let managed = format!(
            r#"{{"f:metadata":{{"f:annotations":{{".":{{}},"f:app.kubernetes.io/managed-by":{{}}}},"f:labels":{{".":{{}},"f:app.kubernetes.io/name":{{}},"f:app.kubernetes.io/instance":{{}}}}}},"f:spec":{{"f:{}":{{}},"f:progressDeadlineSeconds":{{}},"f:replicas":{{}},"f:revisionHistoryLimit":{{}},"f:selector":{{}},"f:template":{{"f:spec":{{"f:containers":{{"k:{{\"name\":\"main\"}}":{{".":{{}},"f:image":{{}},"f:imagePullPolicy":{{}},"f:name":{{}},"f:resources":{{}}}}}}}}}}}}}}"#,
            kind.path
        );
        let entry = [
            string(1, "kube-controller-manager"),
            string(2, "Update"),
            string(3, kind.api_version),
            string(6, "FieldsV1"),
            bytes(7, &string(1, &managed)),
        ];
        [
            string(1, name),
            string(2, ""),
            string(3, namespace),
            string(4, ""),
            string(5, &uid),
            string(6, ""),
            number(7, 0),
            bytes(8, &created),
            map_entry(11, "app.kubernetes.io/name", name.split('-').next().unwrap_or(name)),
            map_entry(11, "app.kubernetes.io/instance", name),
            map_entry(11, "pod-template-hash", &self.random.text(NAME_ALPHABET, 10)),
            map_entry(
                12,
                "kubernetes.io/config.seen",
                &format!(
                    "2026-11-{:02}T{:02}:00:00.{}Z",
                    1 + self.random.below(28),
                    self.random.below(24),
                    self.random.below(1_000_000_000)
                ),
            ),
            map_entry(12, "checksum/config", &self.random.hex(64)),
            bytes(17, &entry.concat()),
        ]
        .concat()
    }

    fn containers(&mut self, name: &str) -> Vec<u8> {
        let count = 1 + self.random.below(3);
        let mut spec = Vec::new();
        for index in 0..count {
            let image = format!("registry.example.com/shop/{}@sha256:{}", name.split('-').next().unwrap_or(name), self.random.hex(64));
            let mut container = [string(1, &format!("container-{index}")), string(2, &image), string(5, "/usr/share/app")].concat();
            for variable in ["POD_NAMESPACE", "POD_NAME", "LOG_LEVEL", "DATABASE_URL", "HTTP_PROXY", "FEATURE_FLAGS"] {
                container.extend(map_entry(7, variable, &format!("value-of-{}-for-{name}", variable.to_lowercase())));
            }
            for path in ["/healthz", "/readyz", "/startupz"] {
                container.extend(bytes(10, &[string(1, path), number(2, 8080), string(4, "HTTP"), number(5, 30)].concat()));
            }
            container.extend(string(13, "/dev/termination-log"));
            container.extend(string(14, "IfNotPresent"));
            spec.extend(bytes(2, &container));
        }
        spec.extend(string(3, "Always"));
        spec.extend(string(6, "ClusterFirst"));
        spec.extend(string(10, &format!("node-{}", 1 + self.random.below(3))));
        spec.extend(string(19, "default-scheduler"));
        for (key, operator) in [("node.kubernetes.io/not-ready", "Exists"), ("node.kubernetes.io/unreachable", "Exists")] {
            spec.extend(bytes(22, &[string(1, key), string(2, operator), string(4, "NoExecute"), number(5, 300)].concat()));
        }
        spec
    }

    fn settings(&mut self, name: &str) -> Vec<u8> {
        let mut text = String::new();
        for index in 0..20 + self.random.below(60) {
            text.push_str(&format!("service.{name}.setting-{index}.enabled = {}\n", self.random.below(2) == 0));
            text.push_str(&format!("service.{name}.setting-{index}.limit = {}\n", self.random.below(100_000)));
        }
        map_entry(2, "application.properties", &text)
    }

    fn conditions(&mut self) -> Vec<u8> {
        let mut status = string(1, "Running");
        for condition in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
            let at = number(1, CREATED + self.random.below(10_000_000));
            status.extend(bytes(2, &[string(1, condition), string(2, "True"), bytes(3, &at), bytes(4, &at)].concat()));
        }
        let address = format!("10.{}.{}.{}", self.random.below(256), self.random.below(256), self.random.below(256));
        status.extend(string(5, &address));
        status.extend(string(6, &address));
        status
    }

    fn custom(&mut self, namespace: &str, name: &str) -> Bytes {
        let items: Vec<_> = (0..3 + self.random.below(12))
            .map(|_| {
                json!({
                    "sku": format!("SKU-{}", self.random.hex(10)), "quantity": self.random.below(100), "currency": "EUR",
                    "unitPrice": self.random.below(100_000), "warehouse": format!("warehouse-{}", self.random.below(4)),
                    "taxCategory": "standard", "giftWrap": self.random.below(2) == 0
                })
            })
            .collect();
        let object = json!({
            "apiVersion": CUSTOM.api_version, "kind": CUSTOM.kind,
            "metadata": {
                "name": name, "namespace": namespace, "uid": self.uid(), "generation": 1 + self.random.below(9),
                "creationTimestamp": format!("2026-11-{:02}T12:00:00Z", 1 + self.random.below(28)),
                "labels": {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "order-operator"},
            },
            "spec": {"items": items, "customer": {"id": self.random.hex(24), "tier": "gold", "country": "DE"}},
            "status": {"phase": "Shipped", "conditions": [{"type": "Ready", "status": "True", "reason": "OrderShipped", "message": "the order left the warehouse"}]},
        });
        object.to_string().into()
    }

    fn uid(&mut self) -> String {
        let digits = self.random.hex(32);
        format!("{}-{}-4{}-a{}-{}", &digits[..8], &digits[8..12], &digits[13..16], &digits[17..20], &digits[20..])
    }
}

fn varint(mut value: u64, into: &mut Vec<u8>) {
    while value >= 0x80 {
        into.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

fn bytes(field: u64, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 6);
    varint(field << 3 | 2, &mut out);
    varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

fn string(field: u64, text: &str) -> Vec<u8> {
    bytes(field, text.as_bytes())
}

fn number(field: u64, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(field << 3, &mut out);
    varint(value, &mut out);
    out
}

fn map_entry(field: u64, key: &str, value: &str) -> Vec<u8> {
    bytes(field, &[string(1, key), string(2, value)].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::{peer, skipped};
    use crate::run::Run;

    #[test]
    fn names_never_repeat_and_updates_keep_their_key() {
        let mut maker = Maker::new(Random::new(3));
        let objects: Vec<Object> = (0..500).map(|_| maker.any()).collect();
        let mut keys: Vec<&Bytes> = objects.iter().map(|object| &object.key).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 500);
        let again = maker.update(&objects[0].key);
        assert_eq!(again.key, objects[0].key);
        assert_ne!(again.value, objects[0].value);
        assert!(objects.iter().any(|object| object.value.starts_with(b"k8s\0")));
        assert!(objects.iter().any(|object| object.value.starts_with(b"{\"apiVersion\"")));
    }

    #[test]
    fn values_compress_like_those_of_real_clusters() {
        let Some(zstd) = peer("zstd") else { return skipped("values_compress_like_those_of_real_clusters: no zstd") };
        let mut maker = Maker::new(Random::new(5));
        let mut all = Vec::new();
        for _ in 0..4000 {
            let object = maker.any();
            all.extend_from_slice(&object.key);
            all.extend_from_slice(&object.value);
        }
        let packed = Run::new(&zstd.path).args(["-3", "-c"]).stdin(all.clone()).run().ok().stdout.len();
        let ratio = all.len() as f64 / packed as f64;
        assert!((4.0..5.2).contains(&ratio), "{ratio:.2}, {} bytes an object", all.len() / 4000);
    }
}
