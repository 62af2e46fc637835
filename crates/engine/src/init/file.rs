//! The configuration that `init` writes: for a person to read and change, and proven to mean what was intended.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use vault::name::ClusterName;

use crate::config::{self, Cluster, Config, Defaults, Etcd, Keys, Store, Talos};
use crate::failure::{Failure, Outcome};
use crate::store_kind::{STORE_URLS, StoreKind};

/// What the agent, timers and `status` go by, for taking the signs off.
const SCHEDULE: &str =
    "  # When backups are taken, by `lifeboat agent` or what `lifeboat schedule` writes; `lifeboat status` judges by it. docs/agent.md
  # backup: {every: 6h, jitter: 10m}
  # What is kept; where it is not said the agent removes nothing. docs/retention.md
  # keep: {hourly: 24, daily: 14, weekly: 8, monthly: 12}
  # verify: {every: 1d, rung: read}
  # A real etcd booted from a backup, only on a machine that may open backups. docs/drills.md
  # drill: {every: 7d, identity_file: /path/to/identity.txt}

";

/// Who is told.
const NOTIFY: &str = "
# Who is told when something is wrong, and when it is over; try it: lifeboat notify test. docs/notifications.md
# notify:
#   - ntfy: {url_file: /etc/lifeboat/ntfy.url}
#   - ping: {url_file: /etc/lifeboat/ping.url}
";

/// The name that the store gets.
const STORE: &str = "main";
/// Everybody may read it: it names secrets, and holds none.
const MODE: u32 = 0o644;

/// What the configuration shall say.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// Which etcd it is, in words, for the comment.
    pub described: String,
    /// Where it is.
    pub section: Cluster,
    /// Client URLs of its members that are not among the endpoints.
    pub others: Vec<String>,
    /// The store.
    pub store: Store,
    /// Who can open backups.
    pub recipients: Vec<String>,
    /// The key that signs.
    pub signing_file: PathBuf,
    /// Whose signatures count, as minisign public keys.
    pub trusted_signers: Vec<String>,
    /// The release that writes it.
    pub release: &'static str,
    /// The day on which it is written.
    pub date: String,
}

impl Draft {
    /// What the text must mean when it is read.
    fn intended(&self) -> Config {
        Config {
            stores: BTreeMap::from([(STORE.to_owned(), self.store.clone())]),
            keys: Keys {
                recipients: self.recipients.clone(),
                signing_file: Some(self.signing_file.clone()),
                trusted_signers: self.trusted_signers.clone(),
                ..Keys::default()
            },
            defaults: Defaults { stores: vec![STORE.to_owned()], ..Defaults::default() },
            clusters: BTreeMap::from([(self.cluster.to_string(), self.section.clone())]),
            ..Config::default()
        }
    }

    /// The text. Every value is quoted as JSON quotes it, which YAML reads as it is.
    fn text(&self, path: &Path) -> String {
        let mut text = format!(
            "# Lifeboat's configuration, made by `lifeboat init` {} on {} for {}.\n\
             # After a change: lifeboat config check --config {}\n\
             # There are no secrets in this file, only the names of files that hold them.\n\n",
            self.release,
            self.date,
            comment(&self.described),
            comment(&path.display().to_string())
        );
        self.stores(&mut text);
        self.keys(&mut text);
        text.push_str(
            "# Where a snapshot lies, encrypted, while it is worked on, and how much room that leaves free.\n\
             # spool: {directory: /var/lib/lifeboat/spool, reserve: 2GiB}\n\n\
             # For every cluster below; what a cluster says itself beats it.\n\
             defaults:\n",
        );
        let _ = writeln!(text, "  stores: [{STORE}]");
        text.push_str(
            "  # Time for asking members for HashKV, all together; the question holds up a member's writes.\n  # hashkv_budget: 2s\n  # A note in the store says who backs a cluster up now; hosts that see it say so. `off`: no note.\n  # lease: auto\n",
        );
        text.push_str(SCHEDULE);
        self.cluster(&mut text);
        text.push_str(NOTIFY);
        text
    }

    fn stores(&self, text: &mut String) {
        let _ = writeln!(text, "# Where backups go: {STORE_URLS}. Best away from the cluster's machines.\nstores:");
        let _ = writeln!(text, "  {STORE}:\n    url: {}", quoted(&self.store.url));
        let optional = [("region", &self.store.region), ("endpoint", &self.store.endpoint)];
        for (name, value) in optional {
            if let Some(value) = value {
                let _ = writeln!(text, "    {name}: {}", quoted(value));
            }
        }
        match &self.store.credentials_file {
            Some(file) => {
                let _ = writeln!(text, "    credentials_file: {}", path(file));
            }
            None => {
                if let Some((holds, file)) = StoreKind::of(&self.store.url).credentials_file() {
                    let _ = writeln!(
                        text,
                        "    # {holds}; without it: the environment, or the machine's role.\n    # credentials_file: {file}"
                    );
                }
            }
        }
        text.push('\n');
    }

    fn keys(&self, text: &mut String) {
        text.push_str(
            "keys:\n  # Who can open backups. The private half (the recovery identity) does not belong on this machine.\n  recipients:\n",
        );
        for recipient in &self.recipients {
            let _ = writeln!(text, "    - {}", quoted(recipient));
        }
        text.push_str("  # What vouches for the backups of this machine. Losing it costs nothing but a new one.\n");
        let _ = writeln!(text, "  signing_file: {}", path(&self.signing_file));
        text.push_str(
            "  # Whose signatures count: unsigned and foreign backups are never `latest`, and restore refuses them.\n  trusted_signers:\n",
        );
        for signer in &self.trusted_signers {
            let _ = writeln!(text, "    - {}", quoted(signer));
        }
        text.push_str(
            "  # Only on a machine that may open backups, such as one that restores:\n  # identity_file: /path/to/identity.txt\n\n",
        );
    }

    fn cluster(&self, text: &mut String) {
        let _ = writeln!(text, "# The clusters, by the names they have in the store.\nclusters:\n  {}:", quoted(self.cluster.as_str()));
        match (&self.section.etcd, &self.section.talos) {
            (Some(etcd), _) => endpoints(text, etcd, &self.others),
            (None, Some(section)) => talos(text, section),
            (None, None) => {
                text.push_str("    # kubeadm's etcd on this machine: https://127.0.0.1:2379 with the certificates of /etc/kubernetes/pki/etcd.\n    kubeadm: {}\n");
                if !self.others.is_empty() {
                    let _ = writeln!(
                        text,
                        "    # Other members: {}. One machine's backup covers the whole cluster; setting Lifeboat up on a\n    # second one as well covers the loss of this one.",
                        comment(&self.others.join(", "))
                    );
                }
            }
        }
        let extras: Vec<String> = self.section.extra.iter().flatten().map(|extra| path(extra)).collect();
        if self.section.talos.is_some() {
            text.push_str("    # Every node's machine config beside each backup, sealed as it is; it takes os:admin. A cluster cannot be rebuilt without them.\n");
        } else {
            text.push_str("    # Files and directories to keep beside each backup, sealed as it is. A control plane cannot be rebuilt without its own:\n");
        }
        let example = if self.section.talos.is_some() { config::MACHINE_CONFIG } else { "/etc/kubernetes/pki" };
        let _ = match extras.is_empty() {
            true => writeln!(text, "    # extra: [{example}]"),
            false => writeln!(text, "    extra: [{}]", extras.join(", ")),
        };
    }

    /// Writes the configuration, which must not exist: under another name first, read back, compared with what was intended, then given its name.
    pub fn write(&self, file: &Path) -> Outcome<()> {
        let failed =
            |error: std::io::Error| Failure::usage(format!("the configuration cannot be written: {error}")).object(file.display()).again();
        let directory = file.parent().ok_or_else(|| failed(std::io::ErrorKind::InvalidInput.into()))?;
        disk::create_dir_all(directory, 0o755).map_err(failed)?;
        let temporary = directory.join(disk::temp_name());
        let written = self.write_as(&temporary, file).and_then(|()| {
            disk::rename_no_replace(&temporary, file).and_then(|()| disk::sync_dir(directory)).map_err(|error| match error.kind() {
                std::io::ErrorKind::AlreadyExists => {
                    Failure::usage("there is a configuration meanwhile, and it is not overwritten").object(file.display()).again()
                }
                _ => failed(error),
            })
        });
        if written.is_err() {
            let _ = disk::remove_file(&temporary);
        }
        written
    }

    fn write_as(&self, temporary: &Path, file: &Path) -> Outcome<()> {
        let failed =
            |error: std::io::Error| Failure::usage(format!("the configuration cannot be written: {error}")).object(file.display()).again();
        let opened = disk::File::create_new(temporary, MODE).map_err(failed)?;
        opened.write_all_at(self.text(file).as_bytes(), 0).and_then(|()| opened.sync()).map_err(failed)?;
        let read = config::load(temporary)?;
        if read == self.intended() {
            return Ok(());
        }
        Err(Failure::failed("the configuration would not mean what it should; this is a bug in Lifeboat").object(file.display()))
    }
}

fn endpoints(text: &mut String, etcd: &Etcd, others: &[String]) {
    text.push_str("    etcd:\n      # Client URLs; only these are dialled.\n      endpoints:\n");
    for endpoint in &etcd.endpoints {
        let _ = writeln!(text, "        - {}", quoted(endpoint));
    }
    if !others.is_empty() && !etcd.discover {
        text.push_str("      # Its other members. With them, a backup can be taken while one is down, and is compared with all:\n");
        for other in others {
            let _ = writeln!(text, "        # - {}", comment(&quoted(other)));
        }
    }
    let files = [("cacert", &etcd.cacert), ("cert", &etcd.cert), ("key", &etcd.key)];
    for (name, file) in files {
        if let Some(file) = file {
            let _ = writeln!(text, "      {name}: {}", path(file));
        }
    }
    if let Some(user) = &etcd.user {
        let _ = writeln!(text, "      user: {}", quoted(user));
    }
    if let Some(file) = &etcd.password_file {
        let _ = writeln!(text, "      password_file: {}", path(file));
    }
    if etcd.discover {
        text.push_str("      # Follow the member list to members that are not named.\n      discover: true\n");
    }
}

fn talos(text: &mut String, section: &Talos) {
    text.push_str("    # The talosconfig is read anew on every run. The role os:etcd:backup is enough for backups.\n    talos:\n");
    if let Some(file) = &section.config_file {
        let _ = writeln!(text, "      config_file: {}", path(file));
    }
    if let Some(context) = &section.context {
        let _ = writeln!(text, "      context: {}", quoted(context));
    }
    for (name, list) in [("endpoints", &section.endpoints), ("nodes", &section.nodes)] {
        if !list.is_empty() {
            let quoted: Vec<String> = list.iter().map(|one| quoted(one)).collect();
            let _ = writeln!(text, "      {name}: [{}]", quoted.join(", "));
        }
    }
    text.push_str(
        "      # Ask etcd itself for what Talos does not pass on (HashKV, learners, compaction), with a client certificate that is made\n      # for a day from the machine config's etcd CA, in memory alone. It takes os:admin.\n",
    );
    let _ = writeln!(text, "      {}direct: true", if section.direct { "" } else { "# " });
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// Text that stays inside its comment, whatever is in it.
fn comment(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn draft() -> Draft {
        Draft {
            cluster: "prod".parse().unwrap(),
            described: "etcd 3.6.16, cluster 1a2b\nclusters: {evil: {}}".to_owned(),
            section: Cluster {
                etcd: Some(Etcd { endpoints: vec!["http://127.0.0.1:2379".to_owned()], ..Etcd::default() }),
                ..Cluster::default()
            },
            others: vec!["http://10.0.0.2:2379".to_owned()],
            store: Store { url: "file:///var/backups/it's \"here\": yes".to_owned(), ..Store::default() },
            recipients: vec!["age1x".to_owned(), "age1y".to_owned()],
            signing_file: "/etc/lifeboat/sign.key".into(),
            trusted_signers: vec!["RWQx".to_owned()],
            release: "0.1.0",
            date: "2026-11-21".to_owned(),
        }
    }

    #[test]
    fn the_text_means_what_was_intended_whatever_the_values_are() {
        let mut full = draft();
        full.section.etcd = Some(Etcd {
            endpoints: vec!["https://a:2379".to_owned(), "https://b:2379".to_owned()],
            cacert: Some("/etc/#1: ca.crt".into()),
            cert: Some("/c".into()),
            key: Some("/k".into()),
            user: Some("root".to_owned()),
            password_file: Some("/pw".into()),
            discover: true,
        });
        full.store = Store {
            url: "s3://bucket/prefix".to_owned(),
            region: Some("eu-central-1".to_owned()),
            endpoint: Some("https://minio:9000".to_owned()),
            credentials_file: Some("/etc/lifeboat/s3.env".into()),
        };
        let mut kubeadm = draft();
        kubeadm.section = Cluster { kubeadm: Some(config::Kubeadm {}), ..Cluster::default() };
        let mut talos = draft();
        let bare = Talos { config_file: Some("/etc/lifeboat/talosconfig".into()), ..Talos::default() };
        talos.section = Cluster { talos: Some(bare.clone()), ..Cluster::default() };
        let mut talos_full = draft();
        talos_full.section = Cluster {
            talos: Some(Talos {
                context: Some("a: #b".to_owned()),
                endpoints: vec!["10.0.0.2".to_owned(), "[fd00::2]:50000".to_owned()],
                nodes: vec!["10.0.0.2".to_owned()],
                direct: true,
                ..bare
            }),
            extra: Some(vec!["machine-config".into(), "/etc/x".into()]),
            ..Cluster::default()
        };
        for draft in [draft(), full, kubeadm, talos, talos_full] {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("lifeboat/lifeboat.yaml");
            draft.write(&file).unwrap();
            assert_eq!(config::load(&file).unwrap(), draft.intended());
            assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
        }
    }

    #[test]
    fn a_configuration_that_is_there_is_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lifeboat.yaml");
        std::fs::write(&file, "mine").unwrap();
        assert_eq!(draft().write(&file).unwrap_err().code, crate::Code::Usage);
        assert_eq!(std::fs::read(&file).unwrap(), b"mine");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_could_not_be_read_back_gets_no_name() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lifeboat.yaml");
        let mut wrong = draft();
        wrong.section.etcd = Some(Etcd::default());
        assert!(wrong.write(&file).is_err());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
