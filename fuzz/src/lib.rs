//! Fuzz targets: every parser of bytes that come from outside, with sound inputs to begin with.
//!
//! The targets themselves are the `fuzzing` modules of the crates, so that the crates' own tests call them on stable too; what is put together here
//! is the table of them and their seeds. Two runners use it: `fuzz` (libFuzzer, guided by coverage, nightly) and `mutate` (the same functions over
//! seeds and mutations of them, any toolchain). `cargo xtask fuzz` builds and runs whichever can be had.
#![deny(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

use std::str::FromStr;

pub mod mutation;
mod seeds;

/// One function over outside bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it looks at, in one line.
    pub covers: &'static str,
    /// Longest input worth trying, in bytes.
    pub max_len: usize,
    /// The function. It returns, or panics on what it finds.
    pub run: fn(&[u8]),
    /// Sound inputs, made by the product's own writers where it has one.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

macro_rules! targets {
    ($($name:ident: $covers:literal, $max_len:expr, $run:expr, $seeds:expr;)+) => {
        /// Every target.
        pub const TARGETS: &[Target] =
            &[$(Target { name: stringify!($name), covers: $covers, max_len: $max_len, run: $run, seeds: $seeds },)+];
    };
}

targets! {
    bbolt_read: "open, check, cursors both ways, lookups of any file; metas with fitting checksums too", 32 << 10, bbolt::fuzzing::read, seeds::databases;
    bbolt_edit: "edits of any file: a sound one stays sound and holds what was put", 32 << 10, bbolt::fuzzing::edit, seeds::edits;
    bbolt_model: "random edits and commits beside an ordered map: check, cursors, seeks and lookups agree", 2 << 10, bbolt::fuzzing::model, seeds::models;
    store_inspect: "a snapshot file: layout, structure, rows, leases, counts, HashKV", 32 << 10, etcd_store::fuzzing::inspect, seeds::snapshots;
    store_hash_kv: "HashKV at any revision of any file", 32 << 10, etcd_store::fuzzing::hash_kv, seeds::hash_kv;
    store_edits: "a restore's edits of any file: a sound one stays sound", 32 << 10, etcd_store::fuzzing::edits, seeds::snapshots;
    store_values: "any key and value in the small buckets of a sound file: leases, alarms, members, versions, auth, meta", 4 << 10, etcd_store::fuzzing::values, seeds::values;
    store_records: "one row, one JSON value, one initial-cluster text", 4 << 10, records, seeds::records;
    store_wal: "segments of a write-ahead log, with fitting checksums too", 8 << 10, etcd_store::fuzzing::wal, seeds::wal;
    store_raft_snapshot: "a raft .snap file, with a fitting checksum too", 8 << 10, etcd_store::fuzzing::raft_snapshot, seeds::raft_snapshots;
    api_answer: "a member's answer to each unary call, and the text of its status", 4 << 10, etcd_api::fuzzing::answer, seeds::answers;
    api_snapshot_stream: "a snapshot stream, with fitting numbers and digest too", 8 << 10, etcd_api::fuzzing::snapshot_stream, seeds::snapshot_streams;
    api_watch_stream: "a watch stream: nothing of the past is let through", 4 << 10, etcd_api::fuzzing::watch_stream, seeds::watch_streams;
    vault_manifest: "a manifest, with a fitting digest too; what is read is written and read as the same", 16 << 10, vault::fuzzing::manifest, seeds::manifests;
    vault_mark: "a mark of every kind, with a fitting digest too", 8 << 10, vault::fuzzing::mark, seeds::marks;
    vault_lineage: "a lineage, the marker, the lease, lineage names", 8 << 10, vault::fuzzing::lineage, seeds::lineages;
    vault_key: "keys of a listing, ids, selectors, recipients", 1 << 10, vault::fuzzing::key, seeds::keys;
    vault_frames: "a frame table; what is read is written as the same bytes", 8 << 10, vault::fuzzing::frames, seeds::frames;
    vault_signature: "a signature, a signer's key, a signing key file: nothing forged counts", 2 << 10, vault::fuzzing::signature, seeds::signatures;
    vault_unseal: "a stored object of all layers, in order and by its frame table; an age identity file", 16 << 10, vault::fuzzing::unseal, seeds::sealed;
    engine_config: "lifeboat.yaml", 8 << 10, config, seeds::configs;
    engine_plan: "a restore plan, with a fitting digest too", 4 << 10, plan, seeds::plans;
    engine_machine_config: "a Talos machine config: secrets, fingerprints, and a client certificate from the authority in it", 8 << 10, machine_config, seeds::machine_configs;
    engine_journal: "a journal that an earlier run left, with its plan", 8 << 10, journal, seeds::journals;
    talos_config: "a talosconfig, and each of its contexts taken apart", 8 << 10, talos_api::fuzzing::talosconfig, seeds::talosconfigs;
    talos_answer: "a node's answer to each call, its resources, and the text of its status", 4 << 10, talos_api::fuzzing::answer, seeds::talos_answers;
    talos_snapshot_stream: "a snapshot stream of Talos, whole and cut anywhere, with a fitting digest too", 8 << 10, talos_api::fuzzing::snapshot_stream, seeds::talos_streams;
    kube_object: "resource, UID and encryption of a Kubernetes key and value", 4 << 10, kube, seeds::objects;
}

/// The target of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

fn records(bytes: &[u8]) {
    etcd_store::fuzzing::row(bytes);
    etcd_store::fuzzing::json(bytes);
    etcd_store::fuzzing::initial_cluster(bytes);
}

/// A configuration, and what is looked up in one that passes its checks.
fn config(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Ok(config) = engine::config::parse(text) else { return };
    for cluster in config.clusters.values() {
        let _ = (config.store_of(cluster), config.extra(cluster));
    }
}

fn plan(bytes: &[u8]) {
    vault::fuzzing::with_digest(bytes, |bytes| {
        let Ok(plan) = vault::canonical::decode::<engine::restore::plan::RestorePlan>(bytes) else { return };
        let cluster = plan.cluster_spec().ok();
        let _ = plan.edits(cluster, &[]);
    });
}

/// A machine config, and everything that is made of one that can be read. Nothing of it is in an error.
fn machine_config(bytes: &[u8]) {
    let config = talos_api::MachineConfig(bytes.to_vec().into());
    let Ok(secrets) = engine::talos::secrets::Secrets::read(&config) else { return };
    let repository = vault::name::RepositoryId::from_str("01D39ZY06FGSCTVN4T2V9PKHFZ").expect("a ULID");
    let _ = secrets.fingerprints(&repository);
    if let Ok(authority) = secrets.etcd_authority() {
        let _ = engine::talos::direct::mint(&authority, std::time::SystemTime::UNIX_EPOCH);
    }
}

/// A journal as a file, found as a run finds it.
fn journal(bytes: &[u8]) {
    let directory = tempfile::tempdir().expect("a directory for one journal");
    let file = directory.path().join("01D39ZY06FGSCTVN4T2V9PKHFZ.jsonl");
    std::fs::write(&file, bytes).expect("a journal is written");
    let Ok(desk) = engine::journal::Journals::at(directory.path()).hold("etcd nospace", "1a2b") else { return };
    if let Ok(Some(journal)) = desk.find::<engine::care::nospace::Plan>() {
        let steps = engine::care::nospace::progress(&journal);
        assert_eq!(steps.len(), journal.plan().steps.len());
        let _ = engine::care::nospace::Outcomes::of(&journal);
    }
}

fn kube(bytes: &[u8]) {
    let (key, value) = bytes.iter().position(|byte| *byte == 0).map_or((bytes, bytes), |at| (&bytes[..at], &bytes[at + 1..]));
    let census = kube_objects::Census::new();
    let class = census.classify(key, value);
    let counts = census.name_counts([(class, 1)]);
    assert!(counts.by_resource.len() <= 1 && counts.encrypted <= 1);
    if let Some(uid) = kube_objects::object_uid(value) {
        assert!(uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "a UID that is none");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_seeds_that_it_survives() {
        for target in TARGETS {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty(), "{} has no seed", target.name);
            for seed in seeds {
                assert!(seed.len() <= target.max_len, "a seed of {} has {} bytes", target.name, seed.len());
                (target.run)(&seed);
            }
        }
    }
}
