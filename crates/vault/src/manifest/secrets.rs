//! Fingerprints of a cluster's secrets: whether a machine config is of the cluster a backup was taken from can be told without holding either.

use ring::hmac;

use crate::digest::Sha256;
use crate::name::RepositoryId;

/// HMAC-SHA-256 with the repository's id as key, over the secret's name, a zero byte and its value: equal only for equal secrets of one repository, so
/// that nobody who reads two repositories learns that they hold the same cluster. The secrets are random and long (Talos makes them), so the value
/// cannot be searched for.
#[must_use]
pub fn secret_fingerprint(repository: &RepositoryId, name: &str, value: &[u8]) -> Sha256 {
    let key = hmac::Key::new(hmac::HMAC_SHA256, repository.to_string().as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(name.as_bytes());
    context.update(&[0]);
    context.update(value);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.sign().as_ref());
    Sha256(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn name_value_and_repository_all_count() {
        let here: RepositoryId = "01D39ZY06FGSCTVN4T2V9PKHFZ".parse().unwrap();
        let there: RepositoryId = "01D39ZY06FGSCTVN4T2V9PKHG0".parse().unwrap();
        let one = secret_fingerprint(&here, "etcd-ca-key", b"value");
        assert_eq!(one, secret_fingerprint(&here, "etcd-ca-key", b"value"));
        for other in [
            secret_fingerprint(&there, "etcd-ca-key", b"value"),
            secret_fingerprint(&here, "os-ca-key", b"value"),
            secret_fingerprint(&here, "etcd-ca-key", b"valu"),
            secret_fingerprint(&here, "etcd-ca-keyv", b"alue"),
        ] {
            assert_ne!(one, other);
        }
    }
}
