//! Kubernetes objects as etcd holds them.
//!
//! What this crate is for: telling from a key and a value which Kubernetes resource they are, without any schema of Kubernetes; reading the few
//! fields of `ObjectMeta` that a backup needs; and noticing values that are encrypted at rest.
//!
//! What it never does: talk to anything, decode whole objects, or guess. A key that is not laid out as the API server does it has no resource.
//!
//! Invariants: every function takes bytes from outside, never panics, never recurses and never allocates more than its input is long.
//!
//! Facts: the key layout is that of `k8s.io/apiserver` (`--etcd-prefix`, default `/registry`; OpenShift uses `/kubernetes.io` and `/openshift.io`); the
//! storage encoding is `k8s\0` followed by the protobuf message `runtime.Unknown` {1 typeMeta, 2 raw}; every top-level kind has its `ObjectMeta` at
//! field 1, and `uid` is field 5 of that.

mod census;
mod key;
mod wire;

pub use census::{Census, ResourceCounts};
pub use key::{KUBE_SYSTEM_KEYS, Resource, is_kubernetes_key, resource_of};

/// The bytes with which the API server marks a value it encrypted (`k8s.io/apiserver` storage/value: `k8s:enc:<provider>:v1:<key>:`).
pub const ENCRYPTED_AT_REST: &[u8] = b"k8s:enc:";

/// Whether the API server encrypted this value before it gave it to etcd.
#[must_use]
pub fn is_encrypted_at_rest(value: &[u8]) -> bool {
    value.starts_with(ENCRYPTED_AT_REST)
}

/// The UID in an object's metadata, whether it is stored as protobuf or as JSON; `None` where there is none or the value is in another form.
///
/// A UID is at most 64 bytes of letters, digits and dashes; anything else is taken as none.
#[must_use]
pub fn object_uid(value: &[u8]) -> Option<String> {
    let uid = if let Some(unknown) = value.strip_prefix(b"k8s\0") {
        let object = wire::bytes_field(unknown, 2)?;
        let metadata = wire::bytes_field(object, 1)?;
        String::from_utf8(wire::bytes_field(metadata, 5)?.to_vec()).ok()?
    } else if value.first() == Some(&b'{') {
        json_uid(value)?
    } else {
        return None;
    };
    let sound = (1..=64).contains(&uid.len()) && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    sound.then_some(uid)
}

fn json_uid(value: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Object {
        metadata: Metadata,
    }
    #[derive(serde::Deserialize)]
    struct Metadata {
        uid: String,
    }
    // serde_json limits the depth of nesting itself, so hostile input cannot exhaust the stack.
    serde_json::from_slice::<Object>(value).ok().map(|object| object.metadata.uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap_or(0)];
        out.extend_from_slice(bytes);
        out
    }

    fn stored(uid: &[u8]) -> Vec<u8> {
        let metadata = [field(1, b"kube-system"), field(5, uid)].concat();
        let object = field(1, &metadata);
        let unknown = [field(1, b"\x0a\x02v1"), field(2, &object)].concat();
        [b"k8s\0".as_slice(), &unknown].concat()
    }

    #[test]
    fn reads_the_uid_from_protobuf_and_json() {
        let uid = "0b9c7a7e-3a2f-4b58-8f0f-0a8a2f3c1d2e";
        assert_eq!(object_uid(&stored(uid.as_bytes())).as_deref(), Some(uid));
        let json = format!(r#"{{"kind":"Namespace","metadata":{{"name":"x","uid":"{uid}"}}}}"#);
        assert_eq!(object_uid(json.as_bytes()).as_deref(), Some(uid));
    }

    #[test]
    fn takes_a_uid_of_another_form_as_none() {
        assert_eq!(object_uid(&stored(b"../../etc")), None);
        assert_eq!(object_uid(b"k8s:enc:aescbc:v1:key1:xyz"), None);
        assert_eq!(object_uid(b""), None);
        assert_eq!(object_uid(br#"{"metadata":{}}"#), None);
    }

    #[test]
    fn never_panics_on_a_flipped_or_cut_value() {
        let whole = stored(b"0b9c7a7e-3a2f-4b58-8f0f-0a8a2f3c1d2e");
        for cut in 0..whole.len() {
            let _ = object_uid(&whole[..cut]);
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[cut] ^= 1 << bit;
                let _ = object_uid(&flipped);
            }
        }
    }
}
