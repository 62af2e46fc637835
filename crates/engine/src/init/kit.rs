//! The recovery kit: what a person needs beside the identity when the cluster and its machines are gone. It holds nothing secret, and no time, so that
//! the same facts give the same file.

use std::path::Path;

use crate::config::{Config, Store};
use crate::failure::{Failure, Outcome};
use crate::next::{line, quoted};
use crate::place::PlaceOptions;
use crate::store_kind::StoreKind;

/// What the kit tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kit {
    /// Where the repository is, and how it is reached.
    pub store: Store,
    /// Its id.
    pub repository: String,
    /// The clusters it is about.
    pub clusters: Vec<String>,
    /// Whose signatures count, as minisign public keys.
    pub trusted_signers: Vec<String>,
    /// Who can open backups, with fingerprints.
    pub recipients: Vec<(String, String)>,
}

impl Kit {
    /// The kit of a configuration's first store.
    #[must_use]
    pub fn of(config: &Config, store: &Store, repository: String, recipients: Vec<(String, String)>) -> Self {
        Self {
            store: store.clone(),
            repository,
            clusters: config.clusters.keys().cloned().collect(),
            trusted_signers: config.keys.trusted_signers.clone(),
            recipients,
        }
    }

    /// The flags that lead to the repository.
    fn flags(&self, cluster: &str) -> String {
        let mut flags = repository_flags(&PlaceOptions {
            url: self.store.url.clone(),
            region: self.store.region.clone(),
            endpoint: self.store.endpoint.clone(),
            ..PlaceOptions::default()
        });
        flags.push_str(&format!(" --cluster {cluster}"));
        for signer in &self.trusted_signers {
            flags.push_str(&format!(" --trusted-signer {}", quoted(signer)));
        }
        flags
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::from(
            "RECOVERY KIT: how to get the backups of etcd back when the cluster is gone\n\n\
             Keep this page where it can be found without the cluster: printed, or in a password manager.\n\
             The recovery identity (AGE-SECRET-KEY-1…) opens the backups. It is NOT on this page. Write down where it is kept:\n\n\
             \x20   ______________________________________________________________\n\n",
        );
        let mut fact = |name: &str, value: &str| text.push_str(&format!("{name:<16}{value}\n"));
        fact("repository", &self.store.url);
        if let Some(endpoint) = &self.store.endpoint {
            fact("endpoint", endpoint);
        }
        if let Some(region) = &self.store.region {
            fact("region", region);
        }
        fact("repository id", &self.repository);
        fact("clusters", &self.clusters.join(", "));
        for signer in &self.trusted_signers {
            fact("trusted signer", &format!("{signer} (minisign)"));
        }
        for (recipient, fingerprint) in &self.recipients {
            fact("opened by", &format!("the identity of {recipient} (fingerprint {fingerprint})"));
        }
        let kind = StoreKind::of(&self.store.url);
        if kind.wants_credentials() {
            text.push_str(&format!(
                "\nThe store wants credentials that may read: {}, or {} FILE.\n",
                kind.credentials(),
                kind.credentials_flag()
            ));
        }
        for cluster in &self.clusters {
            let flags = self.flags(cluster);
            text.push_str(&format!(
                "\nWith Lifeboat, cluster '{cluster}', on any Linux machine; IDENTITY is a file with the identity:\n\n\
                 \x20   lifeboat list {flags}\n\
                 \x20   lifeboat key check -i IDENTITY {flags}\n\
                 \x20   lifeboat try latest -i IDENTITY {flags}\n\
                 \x20   lifeboat restore latest -i IDENTITY {flags} --data-dir /var/lib/etcd\n"
            ));
        }
        text.push_str(
            "\nWithout Lifeboat: RESTORE.txt at the root of the repository says it step by step. In short, with age, zstd and etcdutl:\n\n\
             \x20   age -d -i IDENTITY db.zst.age | zstd -d > snapshot.db\n\
             \x20   etcdutl snapshot restore snapshot.db --data-dir DIR --bump-revision 1000000000 --mark-compacted\n",
        );
        for signer in &self.trusted_signers {
            text.push_str(&format!("    minisign -V -P {signer} -m manifest.json -x manifest.json.minisig\n"));
        }
        text
    }

    /// Writes the kit to a new file. The same kit there already is success; the answer says whether it was written now.
    pub fn write(&self, path: &Path) -> Outcome<bool> {
        let failed = |error: std::io::Error| Failure::usage(format!("the kit cannot be written: {error}")).object(path.display()).again();
        let text = self.text();
        match disk::publish_new(path, text.as_bytes(), 0o644) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                if std::fs::read(path).map_err(failed)? == text.as_bytes() {
                    return Ok(false);
                }
                Err(Failure::usage("the kit is not written: there is a file already, with another content")
                    .object(path.display())
                    .cause("name another file with --kit")
                    .again())
            }
            Err(error) => Err(failed(error)),
        }
    }
}

/// The flags that lead to a repository without a configuration.
#[must_use]
pub fn repository_flags(place: &PlaceOptions) -> String {
    // A file with credentials lies on this machine only.
    line(PlaceOptions { credentials_file: None, ..place.clone() }.flags())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn kit() -> Kit {
        Kit {
            store: Store { url: "s3://bucket/a b".to_owned(), endpoint: Some("https://minio:9000".to_owned()), ..Store::default() },
            repository: "01ARZ3NDEKTSV4RRFFQ69G5FAV".to_owned(),
            clusters: vec!["prod".to_owned()],
            trusted_signers: vec!["RWQabc=".to_owned()],
            recipients: vec![("age1x".to_owned(), "0011223344556677".to_owned())],
        }
    }

    #[test]
    fn everything_but_the_identity_is_in_it() {
        let text = kit().text();
        for word in [
            "01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "RWQabc=",
            "0011223344556677",
            "lifeboat restore latest -i IDENTITY --repo 's3://bucket/a b' --s3-endpoint https://minio:9000 --cluster prod --trusted-signer RWQabc= --data-dir",
            "age -d -i IDENTITY",
        ] {
            assert!(text.contains(word), "{word}\n{text}");
        }
    }

    #[test]
    fn the_same_kit_twice_is_no_error_and_another_one_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kit.txt");
        assert!(kit().write(&path).unwrap());
        assert!(!kit().write(&path).unwrap());
        let other = Kit { repository: "x".to_owned(), ..kit() };
        assert_eq!(other.write(&path).unwrap_err().code, crate::Code::Usage);
    }
}
