//! The secrets of a cluster, as a control plane node's machine config holds them.
//!
//! Source: Talos `pkg/machinery/config/types/v1alpha1/v1alpha1_types.go` (`machine.ca`, `cluster.ca`, `cluster.etcd.ca`, `cluster.serviceAccount`, …).
//! Only the document of kind v1alpha1 is read, which has neither `apiVersion` nor `kind`; certificates and keys are base64 over PEM.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use talos_api::MachineConfig;
use vault::digest::Sha256;
use vault::manifest::secret_fingerprint;
use vault::name::RepositoryId;
use zeroize::Zeroizing;

/// The name of etcd's CA key among the fingerprints.
pub const ETCD_CA: &str = "etcd-ca-key";

/// The v1alpha1 document, as far as it matters here. Everything else is passed over.
#[derive(Default, Deserialize)]
struct Document {
    #[serde(default, rename = "apiVersion")]
    api_version: Option<String>,
    #[serde(default)]
    machine: Option<Machine>,
    #[serde(default)]
    cluster: Option<Cluster>,
}

#[derive(Default, Deserialize)]
struct Machine {
    #[serde(default)]
    ca: Option<Pair>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cluster {
    #[serde(default)]
    id: Option<Secret>,
    #[serde(default)]
    secret: Option<Secret>,
    #[serde(default)]
    aescbc_encryption_secret: Option<Secret>,
    #[serde(default)]
    secretbox_encryption_secret: Option<Secret>,
    #[serde(default)]
    ca: Option<Pair>,
    #[serde(default)]
    service_account: Option<Pair>,
    #[serde(default)]
    etcd: Option<Etcd>,
}

#[derive(Default, Deserialize)]
struct Etcd {
    #[serde(default)]
    ca: Option<Pair>,
}

#[derive(Default, Deserialize)]
struct Pair {
    #[serde(default)]
    crt: Option<Secret>,
    #[serde(default)]
    key: Option<Secret>,
}

type Secret = Zeroizing<String>;

/// The secrets of one machine config; wiped from memory when dropped, never printed.
#[derive(Default)]
pub struct Secrets {
    cluster: Cluster,
    machine: Machine,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(..)")
    }
}

/// A certificate authority as PEM.
pub struct Authority {
    /// Its certificate.
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(..)")
    }
}

impl Secrets {
    /// Reads a machine config.
    ///
    /// # Errors
    /// In words, without any of its text.
    pub fn read(config: &MachineConfig) -> Result<Self, String> {
        let text = std::str::from_utf8(&config.0).map_err(|_| "the machine config is not text".to_owned())?;
        let documents: Vec<Document> = serde_saphyr::from_multiple(text).map_err(|error| match error.location() {
            // Only the place: the reader's own text quotes the lines around it, which hold keys.
            Some(at) => format!("the machine config is not understood at line {}, column {}", at.line(), at.column()),
            None => "the machine config is not understood".to_owned(),
        })?;
        let main = documents.into_iter().find(|document| document.api_version.is_none() && document.cluster.is_some());
        let main = main.ok_or_else(|| "the machine config has no v1alpha1 document with a cluster".to_owned())?;
        Ok(Self { cluster: main.cluster.unwrap_or_default(), machine: main.machine.unwrap_or_default() })
    }

    /// The authority that etcd's members trust; there only on control plane nodes.
    ///
    /// # Errors
    /// In words.
    pub fn etcd_authority(&self) -> Result<Authority, String> {
        let pair = self.cluster.etcd.as_ref().and_then(|etcd| etcd.ca.as_ref());
        let part = |what: &str, text: Option<&Secret>| {
            let text =
                text.filter(|text| !text.trim().is_empty()).ok_or_else(|| format!("the machine config has no cluster.etcd.ca.{what}"))?;
            let compact: Secret = Zeroizing::new(text.split_whitespace().collect());
            STANDARD.decode(compact.as_bytes()).map(Zeroizing::new).map_err(|_| format!("cluster.etcd.ca.{what} is not base64"))
        };
        let certificate = part("crt", pair.and_then(|pair| pair.crt.as_ref()))?.to_vec();
        Ok(Authority { certificate, key: part("key", pair.and_then(|pair| pair.key.as_ref()))? })
    }

    /// Fingerprints of everything a restored cluster must have again as it was, by name. What the config does not hold is not there: a worker's holds
    /// little.
    #[must_use]
    pub fn fingerprints(&self, repository: &RepositoryId) -> BTreeMap<String, Sha256> {
        let pair = |pair: &Option<Pair>| pair.as_ref().and_then(|pair| pair.key.clone());
        let all = [
            ("cluster-id", self.cluster.id.clone()),
            ("cluster-secret", self.cluster.secret.clone()),
            ("aescbc-encryption-secret", self.cluster.aescbc_encryption_secret.clone()),
            ("secretbox-encryption-secret", self.cluster.secretbox_encryption_secret.clone()),
            (ETCD_CA, self.cluster.etcd.as_ref().and_then(|etcd| pair(&etcd.ca))),
            ("kubernetes-ca-key", pair(&self.cluster.ca)),
            ("service-account-key", pair(&self.cluster.service_account)),
            ("os-ca-key", pair(&self.machine.ca)),
        ];
        let held = all.into_iter().filter_map(|(name, secret)| {
            let compact: Secret = Zeroizing::new(secret?.split_whitespace().collect());
            (!compact.is_empty()).then(|| (name.to_owned(), secret_fingerprint(repository, name, compact.as_bytes())))
        });
        held.collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn config(text: &str) -> MachineConfig {
        MachineConfig(Zeroizing::new(text.as_bytes().to_vec()))
    }

    const CONTROL_PLANE: &str = "\
version: v1alpha1
machine: {type: controlplane, ca: {crt: aGk=, key: b3M=}, unknown: [1]}
cluster:
  id: aWQ=
  secretboxEncryptionSecret: c2VjcmV0Ym94
  etcd:
    ca:
      crt: Y2VydA==
      key: |
        a2
        V5
---
apiVersion: v1alpha1
kind: HostnameConfig
hostname: cp-1
";

    #[test]
    fn the_authority_and_the_fingerprints_come_from_the_main_document() {
        let secrets = Secrets::read(&config(CONTROL_PLANE)).unwrap();
        let authority = secrets.etcd_authority().unwrap();
        assert_eq!((&authority.certificate[..], &authority.key[..]), (&b"cert"[..], &b"key"[..]));
        let here: RepositoryId = "01D39ZY06FGSCTVN4T2V9PKHFZ".parse().unwrap();
        let prints = secrets.fingerprints(&here);
        let names: Vec<&str> = prints.keys().map(String::as_str).collect();
        assert_eq!(names, ["cluster-id", "etcd-ca-key", "os-ca-key", "secretbox-encryption-secret"]);
        assert_eq!(prints, secrets.fingerprints(&here));
        let elsewhere: RepositoryId = "01D39ZY06FGSCTVN4T2V9PKHG0".parse().unwrap();
        assert_ne!(prints["etcd-ca-key"], secrets.fingerprints(&elsewhere)["etcd-ca-key"], "not to be recognised in another repository");
        let text = format!("{prints:?}{secrets:?}{authority:?}");
        assert!(!text.contains("a2V5") && !text.contains("c2VjcmV0"), "{text}");
    }

    #[test]
    fn what_is_missing_is_named_and_nothing_is_quoted() {
        for (text, words) in [
            ("cluster: {}", "no cluster.etcd.ca.crt"),
            ("cluster: {etcd: {ca: {crt: '!'}}}", "crt is not base64"),
            ("cluster: {etcd: {ca: {crt: aGk=, key: ''}}}", "no cluster.etcd.ca.key"),
        ] {
            let error = Secrets::read(&config(text)).unwrap().etcd_authority().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        for (text, words) in [("", "no v1alpha1"), ("machine: {}", "no v1alpha1"), ("cluster: [hush", "line 1")] {
            let error = Secrets::read(&config(text)).unwrap_err();
            assert!(error.contains(words) && !error.contains("hush"), "{text}: {error}");
        }
        assert!(Secrets::read(&MachineConfig(Zeroizing::new(vec![0xff]))).unwrap_err().contains("not text"));
    }
}
