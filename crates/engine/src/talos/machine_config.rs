//! Every node's machine config, byte for byte, to be kept beside a backup: without the secrets in it a restored cluster cannot read its own Secrets,
//! and its nodes trust nobody.

use std::collections::BTreeMap;

use futures::future::join_all;
use talos_api::MachineConfig;
use vault::digest::Sha256;
use vault::name::RepositoryId;

use super::Reached;
use super::secrets::{ETCD_CA, Secrets};
use crate::failure::{Failure, Outcome};
use crate::feed::Feed;
use crate::limits::{MACHINE_CONFIG_BYTES_MAX, MACHINE_CONFIGS_AT_ONCE, MACHINE_CONFIGS_MAX};

/// What could be had.
#[derive(Debug)]
pub struct Gathered {
    /// Machine configs by the name of their node.
    pub configs: BTreeMap<String, MachineConfig>,
    /// Nodes whose config could not be had, with the reason.
    pub missing: Vec<String>,
    /// Fingerprints of the cluster's secrets, from a control plane node's config.
    pub secrets: BTreeMap<String, Sha256>,
    /// What was odd on the way.
    pub notes: Vec<String>,
}

/// Asks every node of the cluster, workers too, for its machine config. It takes os:admin.
///
/// # Errors
/// Where not a single config can be had: our role is another, or nobody answers.
pub async fn gather(reached: &Reached, repository: &RepositoryId) -> Outcome<Gathered> {
    let nodes = reached.everyone().await;
    if nodes.len() > MACHINE_CONFIGS_MAX {
        return Err(Failure::failed(format!("{} nodes are more than machine configs are kept of ({MACHINE_CONFIGS_MAX})", nodes.len())));
    }
    let mut notes = Vec::new();
    if nodes.iter().all(|known| !known.is_discovered) {
        notes.push("Talos' discovery knows no nodes: machine configs of the control plane nodes alone are kept".to_owned());
    }
    let mut gathered = Gathered { configs: BTreeMap::new(), missing: Vec::new(), secrets: BTreeMap::new(), notes };
    let mut first = None;
    for some in nodes.chunks(MACHINE_CONFIGS_AT_ONCE) {
        let asked = join_all(some.iter().map(|known| async move { (slug(&known.name), known.node.machine_config().await) })).await;
        for (name, answer) in asked {
            match answer {
                Ok(config) if config.0.is_empty() || config.0.len() > MACHINE_CONFIG_BYTES_MAX => {
                    gathered.missing.push(format!("{name}: a machine config of {} bytes is none", config.0.len()));
                }
                Ok(config) => {
                    let mut unique = name.clone();
                    while gathered.configs.contains_key(&unique) {
                        unique.push('+');
                    }
                    gathered.configs.insert(unique, config);
                }
                Err(error) => {
                    gathered.missing.push(format!("{name}: {}", error.kind()));
                    first = first.or(Some(error));
                }
            }
        }
    }
    if gathered.configs.is_empty() {
        return Err(match first {
            Some(error) => super::failure::failure("no node's machine config can be had", &error),
            None => Failure::failed("no node was asked for its machine config").again(),
        });
    }
    // The one that knows most: a worker's config holds few of them.
    let prints = gathered.configs.values().filter_map(|config| Some(Secrets::read(config).ok()?.fingerprints(repository)));
    gathered.secrets = prints.max_by_key(BTreeMap::len).unwrap_or_default();
    if !gathered.secrets.contains_key(ETCD_CA) {
        gathered.missing.push("no machine config that is kept holds etcd's CA: none of a control plane node could be read".to_owned());
    }
    Ok(gathered)
}

/// A node's name as the name of a file: names come from outside.
fn slug(name: &str) -> String {
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c } else { '-' }).take(200).collect();
    let plain = plain.trim_matches('.').to_owned();
    if plain.is_empty() { "node".to_owned() } else { plain }
}

/// Writes them as a tar, `machine-config/<node>.yaml` each, and completes the feed. Blocks; run it on a thread of its own.
///
/// # Errors
/// When the spool takes no more.
pub fn pack(configs: &BTreeMap<String, MachineConfig>, feed: &Feed) -> Outcome<()> {
    let wrong = |error: std::io::Error| Failure::failed(format!("the machine configs cannot be packed: {error}"));
    let mut archive = tar::Builder::new(crate::extra::FrameWriter::new(feed));
    for (name, config) in configs {
        let mut header = tar::Header::new_gnu();
        header.set_size(config.0.len() as u64);
        header.set_mode(0o600);
        archive.append_data(&mut header, format!("machine-config/{name}.yaml"), &config.0[..]).map_err(wrong)?;
    }
    archive.into_inner().and_then(crate::extra::FrameWriter::finish).map_err(wrong)?;
    feed.complete();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_name_is_no_path() {
        for (name, file) in
            [("cp-1.example", "cp-1.example"), ("../../etc/passwd", "-..-etc-passwd"), ("..", "node"), ("", "node"), ("a\nb", "a-b")]
        {
            assert_eq!(slug(name), file);
        }
        assert_eq!(slug(&"x".repeat(500)).len(), 200);
    }
}
