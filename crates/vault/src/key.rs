//! The layout: the key of every object of a repository, built from names and parsed back exactly.
//!
//! ```text
//! lifeboat.json                                          marker
//! RESTORE.txt                                            the way out in plain words
//! <cluster>/lineages/<lineage>.json                      one per history
//! <cluster>/snapshots/<id>/db[.zst][.age]                the snapshot
//! <cluster>/snapshots/<id>/frames.bin                    frame table and block digests
//! <cluster>/snapshots/<id>/extra/<name>.age              sealed extras
//! <cluster>/snapshots/<id>/manifest.json.minisig         written before the manifest
//! <cluster>/snapshots/<id>/manifest.json                 the commit point
//! <cluster>/marks/<ulid>.json[.minisig]                  pins, verification records, …
//! <cluster>/lease.json                                   who works now
//! ```
//!
//! `<cluster>/log/` is kept free for log segments. A key that is not of this form is not an object of the repository.

use std::fmt;
use std::str::FromStr;

use crate::backup_id::BackupId;
use crate::layers::Layers;
use crate::lineage::LineageName;
use crate::name::{ClusterName, ExtraName, MarkId, text_serde};

/// The marker's key.
pub const MARKER: &str = "lifeboat.json";
/// The key of the instructions.
pub const RESTORE_TEXT: &str = "RESTORE.txt";

/// One object below `<cluster>/snapshots/<id>/`. Its text is the name a manifest uses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SnapshotObject {
    /// `db`, `db.zst`, `db.age` or `db.zst.age`.
    Data(Layers),
    /// `frames.bin`.
    Frames,
    /// `extra/<name>.age`.
    Extra(ExtraName),
    /// `manifest.json.minisig`.
    ManifestSignature,
    /// `manifest.json`.
    Manifest,
}

/// The key of one object of a repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// `lifeboat.json`.
    Marker,
    /// `RESTORE.txt`.
    RestoreText,
    /// `<cluster>/lineages/<name>.json`.
    Lineage(ClusterName, LineageName),
    /// `<cluster>/snapshots/<id>/…`.
    Snapshot(ClusterName, BackupId, SnapshotObject),
    /// `<cluster>/marks/<ulid>.json`.
    Mark(ClusterName, MarkId),
    /// `<cluster>/marks/<ulid>.json.minisig`.
    MarkSignature(ClusterName, MarkId),
    /// `<cluster>/lease.json`.
    Lease(ClusterName),
}

/// A key is not one of the layout.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{key}' is not the key of any object of a repository")]
pub struct NotAKey {
    /// The key as listed, cut to 200 characters.
    pub key: String,
}

impl NotAKey {
    fn new(key: &str) -> Self {
        Self { key: key.chars().take(200).collect() }
    }
}

/// `<cluster>/lineages/`
pub fn lineages_prefix(cluster: &ClusterName) -> String {
    format!("{cluster}/lineages/")
}

/// `<cluster>/snapshots/`
pub fn snapshots_prefix(cluster: &ClusterName) -> String {
    format!("{cluster}/snapshots/")
}

/// `<cluster>/snapshots/<id>/`
pub fn snapshot_prefix(cluster: &ClusterName, id: &BackupId) -> String {
    format!("{cluster}/snapshots/{id}/")
}

/// `<cluster>/marks/`
pub fn marks_prefix(cluster: &ClusterName) -> String {
    format!("{cluster}/marks/")
}

impl fmt::Display for SnapshotObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(layers) => f.write_str(layers.object_name()),
            Self::Frames => f.write_str("frames.bin"),
            Self::Extra(name) => write!(f, "extra/{name}.age"),
            Self::ManifestSignature => f.write_str("manifest.json.minisig"),
            Self::Manifest => f.write_str("manifest.json"),
        }
    }
}

impl FromStr for SnapshotObject {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        if let Some(layers) = Layers::from_object_name(text) {
            return Ok(Self::Data(layers));
        }
        let extra = || text.strip_prefix("extra/")?.strip_suffix(".age")?.parse().ok();
        match text {
            "frames.bin" => Ok(Self::Frames),
            "manifest.json" => Ok(Self::Manifest),
            "manifest.json.minisig" => Ok(Self::ManifestSignature),
            _ => extra().map(Self::Extra).ok_or_else(|| NotAKey::new(text)),
        }
    }
}

text_serde!(SnapshotObject);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Marker => f.write_str(MARKER),
            Self::RestoreText => f.write_str(RESTORE_TEXT),
            Self::Lineage(cluster, name) => write!(f, "{cluster}/lineages/{name}.json"),
            Self::Snapshot(cluster, id, object) => write!(f, "{cluster}/snapshots/{id}/{object}"),
            Self::Mark(cluster, id) => write!(f, "{cluster}/marks/{id}.json"),
            Self::MarkSignature(cluster, id) => write!(f, "{cluster}/marks/{id}.json.minisig"),
            Self::Lease(cluster) => write!(f, "{cluster}/lease.json"),
        }
    }
}

fn parse(key: &str) -> Option<Key> {
    let (cluster, rest) = key.split_once('/')?;
    let cluster: ClusterName = cluster.parse().ok()?;
    if rest == "lease.json" {
        return Some(Key::Lease(cluster));
    }
    let (directory, rest) = rest.split_once('/')?;
    match directory {
        "lineages" => Some(Key::Lineage(cluster, rest.strip_suffix(".json")?.parse().ok()?)),
        "snapshots" => {
            let (id, object) = rest.split_once('/')?;
            Some(Key::Snapshot(cluster, id.parse().ok()?, object.parse().ok()?))
        }
        "marks" => match rest.strip_suffix(".json.minisig") {
            Some(id) => Some(Key::MarkSignature(cluster, id.parse().ok()?)),
            None => Some(Key::Mark(cluster, rest.strip_suffix(".json")?.parse().ok()?)),
        },
        _ => None,
    }
}

impl FromStr for Key {
    type Err = NotAKey;

    fn from_str(key: &str) -> Result<Self, NotAKey> {
        match key {
            MARKER => Ok(Self::Marker),
            RESTORE_TEXT => Ok(Self::RestoreText),
            _ => parse(key).ok_or_else(|| NotAKey::new(key)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const ALL: &[&str] = &[
        "lifeboat.json",
        "RESTORE.txt",
        "prod/lineages/0001-cdf818194e3a8c32-0.json",
        "prod/lineages/0002-talos-5000000123.json",
        "prod/snapshots/20261121T020004Z-7qk2m9/db",
        "prod/snapshots/20261121T020004Z-7qk2m9/db.zst",
        "prod/snapshots/20261121T020004Z-7qk2m9/db.age",
        "prod/snapshots/20261121T020004Z-7qk2m9/db.zst.age",
        "prod/snapshots/20261121T020004Z-7qk2m9/frames.bin",
        "prod/snapshots/20261121T020004Z-7qk2m9/extra/machine-config.age",
        "prod/snapshots/20261121T020004Z-7qk2m9/manifest.json.minisig",
        "prod/snapshots/20261121T020004Z-7qk2m9/manifest.json",
        "prod/marks/01D39ZY06FGSCTVN4T2V9PKHFZ.json",
        "prod/marks/01D39ZY06FGSCTVN4T2V9PKHFZ.json.minisig",
        "prod/lease.json",
    ];

    #[test]
    fn every_key_of_the_layout_parses_to_itself() {
        for key in ALL {
            assert_eq!(&key.parse::<Key>().unwrap().to_string(), key);
        }
    }

    #[test]
    fn nothing_else_parses() {
        for bad in [
            "",
            "/",
            "prod",
            "prod/",
            "Prod/lease.json",
            "prod//lease.json",
            "prod/lease.json/",
            "../lease.json",
            "lifeboat.json/lease.json",
            "prod/snapshots/20261121T020004Z-7qk2m9",
            "prod/snapshots/20261121T020004Z-7qk2m9/",
            "prod/snapshots/20261121T020004Z-7qk2m9/db.gz",
            "prod/snapshots/20261121T020004Z-7qk2m9/extra/../db.age",
            "prod/snapshots/20261121T020004Z-7qk2m9/extra/.age",
            "prod/snapshots/20261121T020004Z-7qk2m9/extra/a/b.age",
            "prod/snapshots/latest/manifest.json",
            "prod/marks/01d39zy06fgsctvn4t2v9pkhfz.json",
            "prod/marks/01D39ZY06FGSCTVN4T2V9PKHFZ",
            "prod/lineages/1-talos-0.json",
            "restore.txt",
        ] {
            assert!(bad.parse::<Key>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_changed_key_is_another_key_or_none(which in 0..ALL.len(), at in any::<prop::sample::Index>(), flip in 1u8..128) {
            let mut bytes = ALL[which].as_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            if let Ok(text) = String::from_utf8(bytes)
                && let Ok(key) = text.parse::<Key>()
            {
                prop_assert_eq!(key.to_string(), text);
            }
        }
    }
}
