//! `lifeboat.yaml`: which stores, which keys, which clusters. Secrets are named by file, never written in it.

mod notify;
mod policy;
mod request;
mod schedule;
mod sections;
mod trust;
mod units;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::extra::Extra;
pub use crate::extra::MACHINE_CONFIG;
use crate::failure::{Failure, Outcome};
use crate::lease::Mode;

pub use notify::{Address, Channel, Event, Exec, Notifier, Ntfy, Smtp, Webhook};
pub use policy::{Policy, content_shrinks_by};
pub use schedule::{Schedule, Timing};
use sections::Sections;
pub use sections::{Agent, Alert, Backup, Defrag, Drill, Hook, Hooks, IfHookFails, Keep, Verify};
pub use units::{bytes, duration, share, span};

/// A configuration file larger than this is not one.
const MAX_CONFIG: u64 = 1 << 20;

/// The whole file. Unknown fields are errors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Places for backups, by a name of the user's choice.
    #[serde(default)]
    pub stores: BTreeMap<String, Store>,
    /// Who can open backups, and who signs them.
    #[serde(default)]
    pub keys: Keys,
    /// Where snapshots lie while they are worked on.
    #[serde(default)]
    pub spool: Spool,
    /// For every cluster; a section named in a cluster replaces it whole.
    #[serde(default)]
    pub defaults: Defaults,
    /// Who is told what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<Notifier>,
    /// The long-running side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
    /// The clusters, by the name they have in the repository.
    #[serde(default)]
    pub clusters: BTreeMap<String, Cluster>,
}

/// One place for backups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// `file:///path`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
    pub url: String,
    /// The region, for S3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The endpoint of a compatible store or an emulator; the cloud's own without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// A file with credentials; the cloud's usual ways without. See [`vault::store::StoreOptions::credentials_file`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
}

/// Keys, all named by file or by their public half.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// age recipients that backups are sealed to.
    #[serde(default)]
    pub recipients: Vec<String>,
    /// age recipients that extra files are sealed to; `recipients` without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_recipients: Vec<String>,
    /// The minisign secret key that signs manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_file: Option<PathBuf>,
    /// minisign public keys whose signatures count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_signers: Vec<String>,
    /// The age identity that opens backups, where this machine may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_file: Option<PathBuf>,
}

/// The spool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Spool {
    /// Its directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// Room it leaves on its filesystem: `2GiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve: Option<String>,
}

/// What holds for every cluster that does not say otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// Names of stores. A backup goes to all of them; the first one decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stores: Vec<String>,
    /// Files and directories kept beside each backup, sealed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra: Vec<PathBuf>,
    /// Time for all live HashKV questions of one backup: `2s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hashkv_budget: Option<String>,
    /// Whether the lease of the repository is taken while a backup runs: `auto` or `off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Mode>,
    /// How many of the stores a backup must reach to succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_stores: Option<usize>,
    /// When backups are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Backup>,
    /// What is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
    /// When backups are verified, and how deep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
    /// When a real etcd is booted from a backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<Drill>,
    /// When members are defragmented; never by the agent without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defrag: Option<Defrag>,
    /// What is worth a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert: Option<Alert>,
    /// Commands around each backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
}

/// One cluster: exactly one of `etcd`, `kubeadm` and `talos`, and what differs from the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// etcd by its client URLs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd: Option<Etcd>,
    /// This machine is a kubeadm control-plane node: the usual address and certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeadm: Option<Kubeadm>,
    /// Nodes of Talos Linux, as a talosconfig reaches them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub talos: Option<Talos>,
    /// Names of stores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stores: Option<Vec<String>>,
    /// Files and directories kept beside each backup, sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Vec<PathBuf>>,
    /// Time for all live HashKV questions of one backup: `2s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hashkv_budget: Option<String>,
    /// Whether the lease of the repository is taken while a backup runs: `auto` or `off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Mode>,
    /// How many of the stores a backup must reach to succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_stores: Option<usize>,
    /// When backups are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Backup>,
    /// What is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
    /// When backups are verified, and how deep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
    /// When a real etcd is booted from a backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<Drill>,
    /// When members are defragmented; never by the agent without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defrag: Option<Defrag>,
    /// What is worth a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert: Option<Alert>,
    /// Commands around each backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
}

/// etcd by its client URLs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Etcd {
    /// Client URLs. Only these are dialled, unless `discover` is set.
    pub endpoints: Vec<String>,
    /// The CA certificate of etcd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cacert: Option<PathBuf>,
    /// A client certificate that etcd accepts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// A user of etcd's own authentication; it needs the role root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The file that holds that user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Follow the member list to members that are not named.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub discover: bool,
}

/// Nodes of Talos Linux. What is not said is the talosconfig's to say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Talos {
    /// The talosconfig; talosctl's places without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_file: Option<PathBuf>,
    /// Its context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Where apid is dialled, in the place of the context's endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
    /// The nodes that are meant, in the place of the context's; every control plane node without any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Ask etcd itself for what Talos does not pass on, with a client certificate made for a day (os:admin).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub direct: bool,
}

/// A kubeadm control-plane node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Kubeadm {}

impl Kubeadm {
    /// The etcd of a kubeadm node as kubeadm sets it up: loopback, and the client certificate it makes for health checks.
    #[must_use]
    pub fn etcd(self) -> Etcd {
        let pki = |name: &str| Some(Path::new("/etc/kubernetes/pki/etcd").join(name));
        Etcd {
            endpoints: vec!["https://127.0.0.1:2379".to_owned()],
            cacert: pki("ca.crt"),
            cert: pki("healthcheck-client.crt"),
            key: pki("healthcheck-client.key"),
            ..Etcd::default()
        }
    }
}

/// Where a configuration is looked for when none is named, in order. The working directory is not among them.
#[must_use]
pub fn usual_places() -> Vec<PathBuf> {
    let mut places = vec![PathBuf::from("/etc/lifeboat/lifeboat.yaml")];
    places.extend(user_directory().map(|directory| directory.join("lifeboat.yaml")));
    places
}

/// `$XDG_CONFIG_HOME/lifeboat`, or `~/.config/lifeboat`.
#[must_use]
pub fn user_directory() -> Option<PathBuf> {
    let config = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")))?;
    Some(config.join("lifeboat"))
}

/// Reads and checks a configuration file. One that names commands must belong to root or to the caller, and nobody else may write to it.
///
/// # Errors
/// A usage failure.
pub fn load(path: &Path) -> Outcome<Config> {
    let check_again = ["lifeboat", "config", "check", "--config", &path.to_string_lossy()];
    let failed = |error: &dyn std::fmt::Display| {
        Failure::usage("the configuration cannot be read").object(path.display()).cause(error).next(check_again)
    };
    // One file for everything that follows: what is looked at is what is read.
    let mut file = std::fs::File::open(path).map_err(|error| failed(&error))?;
    let metadata = file.metadata().map_err(|error| failed(&error))?;
    if metadata.len() > MAX_CONFIG {
        return Err(failed(&format!("{} bytes are more than a configuration has", metadata.len())));
    }
    let mut text = String::new();
    std::io::Read::by_ref(&mut file).take(MAX_CONFIG).read_to_string(&mut text).map_err(|error| failed(&error))?;
    let config = parse(&text).map_err(|failure| failure.object(path.display()).next(check_again))?;
    match config.names_commands() {
        Some(what) => trust::check(path, &metadata, what).map(|()| config),
        None => Ok(config),
    }
}

/// Parses and checks the text of a configuration.
pub fn parse(text: &str) -> Outcome<Config> {
    let config: Config = serde_saphyr::from_str(text)
        .map_err(|error| Failure::usage("the configuration is not understood").cause(error.to_string().trim_end()))?;
    check(&config)?;
    Ok(config)
}

fn check(config: &Config) -> Outcome<()> {
    let wrong = |cause: String| Err(Failure::usage("the configuration is not sound").cause(cause));
    for (name, cluster) in &config.clusters {
        if let Err(error) = name.parse::<vault::name::ClusterName>() {
            return wrong(format!("clusters.{name}: {error}"));
        }
        match (&cluster.etcd, &cluster.kubeadm, &cluster.talos) {
            (Some(etcd), None, None) if etcd.endpoints.is_empty() => {
                return wrong(format!("clusters.{name}.etcd.endpoints: none is named"));
            }
            (Some(etcd), None, None) if etcd.cert.is_some() != etcd.key.is_some() => {
                return wrong(format!("clusters.{name}.etcd: cert and key go together"));
            }
            (None, None, Some(talos)) if talos.config_file.as_ref().is_some_and(|path| !path.is_absolute()) => {
                return wrong(format!("clusters.{name}.talos.config_file: an absolute path is expected"));
            }
            (Some(_), None, None) | (None, Some(_), None) | (None, None, Some(_)) => {}
            _ => return wrong(format!("clusters.{name}: exactly one of etcd, kubeadm and talos says where it is")),
        }
        let stores = cluster.stores.as_ref().unwrap_or(&config.defaults.stores);
        if let Some(missing) = stores.iter().find(|store| !config.stores.contains_key(*store)) {
            return wrong(format!("clusters.{name}: there is no store named '{missing}' under stores"));
        }
        if let Some(twice) = stores.iter().enumerate().find_map(|(at, store)| stores[..at].contains(store).then_some(store)) {
            return wrong(format!("clusters.{name}: the store '{twice}' is named twice"));
        }
        let min_stores = cluster.min_stores.or(config.defaults.min_stores);
        if let Some(min) = min_stores.filter(|min| *min == 0 || *min > stores.len().max(1)) {
            return wrong(format!("clusters.{name}: min_stores is {min}, and {} stores are named", stores.len().max(1)));
        }
        for extra in config.extra(cluster) {
            match Extra::of(extra) {
                Extra::MachineConfig if cluster.talos.is_none() => {
                    return wrong(format!("clusters.{name}.extra: machine-config is Talos's, and this cluster is not reached by talos"));
                }
                Extra::Path(path) if !path.is_absolute() => {
                    return wrong(format!("clusters.{name}.extra: '{}' is neither machine-config nor an absolute path", path.display()));
                }
                Extra::MachineConfig | Extra::Path(_) => {}
            }
        }
        if let Some(text) = cluster.hashkv_budget.as_ref().or(config.defaults.hashkv_budget.as_ref()) {
            duration(text)?;
        }
    }
    if let Some(reserve) = &config.spool.reserve {
        bytes(reserve)?;
    }
    config.defaults.check().map_err(|failure| within("defaults", failure))?;
    for (name, cluster) in &config.clusters {
        cluster.check().map_err(|failure| within(&format!("clusters.{name}"), failure))?;
    }
    for (at, notifier) in config.notify.iter().enumerate() {
        if let Some(unknown) = notifier.clusters.iter().find(|named| !config.clusters.contains_key(*named)) {
            return wrong(format!("notify[{at}].clusters: there is no cluster named '{unknown}' under clusters"));
        }
        notifier.check().map_err(|failure| within(&format!("notify[{at}]"), failure))?;
    }
    let mut names: Vec<&str> = config.notify.iter().filter_map(|notifier| notifier.name.as_deref()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return wrong(format!("notify: two receivers are called '{}'", twice[0]));
    }
    config.agent.as_ref().map_or(Ok(()), Agent::check).map_err(|failure| within("agent", failure))
}

/// Says in which section the failure is.
fn within(section: &str, failure: Failure) -> Failure {
    let cause = failure.cause.map(|cause| format!("; {cause}")).unwrap_or_default();
    Failure::usage("the configuration is not sound").cause(format!("{section}: {}{cause}", failure.what))
}

impl Defaults {
    fn check(&self) -> Outcome<()> {
        let Self { backup, keep, verify, drill, defrag, alert, hooks, .. } = self;
        sections::check(&Sections { backup, keep, verify, drill, defrag, alert, hooks })
    }
}

impl Cluster {
    fn check(&self) -> Outcome<()> {
        let Self { backup, keep, verify, drill, defrag, alert, hooks, .. } = self;
        sections::check(&Sections { backup, keep, verify, drill, defrag, alert, hooks })
    }
}

impl Config {
    /// The files kept beside each backup of a cluster.
    #[must_use]
    pub fn extra<'a>(&'a self, cluster: &'a Cluster) -> &'a [PathBuf] {
        cluster.extra.as_deref().unwrap_or(&self.defaults.extra)
    }

    /// The store of a cluster: the one it names, else the default one, else the only one.
    #[must_use]
    pub fn store_of(&self, cluster: &Cluster) -> Option<&Store> {
        let named = cluster.stores.as_ref().unwrap_or(&self.defaults.stores).first();
        match named {
            Some(name) => self.stores.get(name),
            None if self.stores.len() == 1 => self.stores.values().next(),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_shape_of_the_design() {
        let config = parse(
            "stores:\n  main: {url: 'file:///var/backups/etcd'}\nkeys:\n  recipients: [age1x]\ndefaults:\n  stores: [main]\nclusters:\n  prod:\n    kubeadm: {}\n    extra: [/etc/kubernetes/pki]\n",
        )
        .unwrap();
        let prod = &config.clusters["prod"];
        assert_eq!(config.store_of(prod).unwrap().url, "file:///var/backups/etcd");
        assert_eq!(config.extra(prod), [PathBuf::from("/etc/kubernetes/pki")]);
        assert_eq!(prod.kubeadm.unwrap().etcd().endpoints, ["https://127.0.0.1:2379"]);
    }

    #[test]
    fn a_section_of_a_cluster_replaces_that_of_the_defaults_whole() {
        let config = parse(
            "stores: {a: {url: x}, b: {url: y}}\ndefaults: {stores: [a, b], backup: {every: 1h, jitter: 5m}, keep: {last: 4, daily: 30}}\nclusters:\n  one: {kubeadm: {}}\n  two: {kubeadm: {}, stores: [b], backup: {cron: '@daily'}, keep: {within: 7d}}\n",
        )
        .unwrap();
        let one = config.policy(&config.clusters["one"]);
        assert_eq!((one.stores.len(), one.min_stores, one.keep.daily, one.jitter().as_secs()), (2, 1, Some(30), 300));
        let two = config.policy(&config.clusters["two"]);
        assert_eq!((two.stores[0].0.as_str(), two.keep.daily, two.jitter().as_secs()), ("b", None, 0));
        assert!(matches!(two.schedule().unwrap(), Schedule::Cron { .. }));
        let bare = Config::default().policy(&Cluster::default());
        assert_eq!((bare.backup.every.as_deref(), bare.keep.within.as_deref()), (Some("6h"), Some("30d")));
    }

    #[test]
    fn an_unknown_field_is_an_error_that_names_the_line() {
        let failure = parse("stores: {}\nclusters:\n  prod:\n    etc: {endpoints: [x]}\n").unwrap_err();
        let cause = failure.cause.unwrap();
        assert!(cause.contains("etc") && cause.contains('4'), "{cause}");
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for (text, word) in [
            ("clusters: {prod: {}}", "exactly one"),
            ("clusters: {prod: {etcd: {endpoints: []}}}", "none is named"),
            ("clusters: {'../x': {kubeadm: {}}}", "clusters.../x"),
            ("clusters: {prod: {kubeadm: {}, stores: [a]}}", "no store named"),
            ("clusters: {prod: {kubeadm: {}, extra: [pki]}}", "nor an absolute path"),
            ("clusters: {prod: {kubeadm: {}, extra: [machine-config]}}", "is Talos's"),
            ("clusters: {prod: {kubeadm: {}, talos: {}}}", "exactly one"),
            ("clusters: {prod: {talos: {config_file: x}}}", "absolute path"),
            ("clusters: {prod: {etcd: {endpoints: [a], cert: /c}}}", "go together"),
            ("defaults: {backup: {jitter: 5m}}", "neither every nor cron"),
            ("defaults: {backup: {every: 6h, cron: '@daily'}}", "one too many"),
            ("defaults: {keep: {}}", "no rule"),
            ("defaults: {keep: {last: 0}}", "no rule"),
            ("defaults: {keep: {within: never}}", "not a span"),
            ("defaults: {verify: {every: 1d, rung: booted}}", "stored, read or deep"),
            ("clusters: {prod: {kubeadm: {}, defrag: {cron: '0 3 * * *', window: 25h}}}", "clusters.prod: defrag: window"),
            ("clusters: {prod: {kubeadm: {}, defrag: {cron: '@daily', free_above: lots}}}", "clusters.prod: defrag: 'lots'"),
            ("clusters: {prod: {kubeadm: {}, alert: {content_shrinks_by: much}}}", "clusters.prod: alert: 'much' is not a share"),
            ("defaults: {hooks: {before: [{command: [sync]}]}}", "absolute path"),
            ("defaults: {hooks: {after: [{command: [/bin/sync], if_it_fails: abort}]}}", "before the backup"),
            ("notify: [{on: [failed]}]", "notify[0]: exactly one"),
            ("notify: [{slack: {url: x}}]", "neither https"),
            ("notify: [{slack: {url_file: /x}, ping: {url_file: /x}}]", "exactly one"),
            ("notify: [{ping: {url_file: /x}, remind: 1s}]", "remind"),
            ("notify: [{ping: {url_file: /x}, name: a}, {ping: {url_file: /y}, name: a}]", "two receivers"),
            ("notify: [{smtp: {server: 'smtp+plain://h', from: a, to: [b], user: u, password_file: /x}}]", "not encrypted"),
            ("defaults: {hooks: {before: [{command: [/bin/sync], environment: {LIFEBOAT_X: y}}]}}", "LIFEBOAT_X"),
            ("agent: {listen: everywhere}", "listen"),
            (
                "stores: {a: {url: x}, b: {url: y}}\ndefaults: {min_stores: 3, stores: [a, b]}\nclusters: {prod: {kubeadm: {}}}",
                "min_stores is 3",
            ),
            ("stores: {a: {url: x}}\nclusters: {prod: {kubeadm: {}, stores: [a, a]}}", "named twice"),
        ] {
            let cause = parse(text).unwrap_err().cause.unwrap();
            assert!(cause.contains(word), "{text}: {cause}");
        }
    }

    #[test]
    fn durations_and_sizes_are_written_as_people_do() {
        assert_eq!(duration("2s").unwrap(), std::time::Duration::from_secs(2));
        assert!(duration("soon").is_err());
        assert_eq!(bytes("2GiB").unwrap(), 2 << 30);
        assert_eq!(bytes("0").unwrap(), 0);
        assert!(bytes("99999999999999999999").is_err());
        assert!(bytes("2 bananas").is_err());
    }
}
