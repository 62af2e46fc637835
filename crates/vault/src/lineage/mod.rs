//! A lineage: one history of revisions, its name and its object.
//!
//! A lineage is known by its cluster id (where the source tells it) and its epoch. The object `<cluster>/lineages/<name>.json` has only fields
//! that two writers who see the same thing fill the same way, so that "already exists with equal bytes" is success. Whether a lineage is
//! accepted is not written in it: [`standing`] works that out, the same for every reader. To which lineage a snapshot belongs is decided by
//! [`decide`].

pub mod decide;
pub mod standing;

use std::fmt;
use std::str::FromStr;

use etcd_store::id::ClusterId;
use serde::{Deserialize, Serialize};

use crate::canonical::{DecodeError, Object};
use crate::limits;
use crate::name::text_serde;

/// The cluster as a lineage's name tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LineageCluster {
    /// The source told its cluster id.
    Id(ClusterId),
    /// A Talos node without direct access to etcd: it does not tell.
    Talos,
    /// A bare file: it does not hold the id.
    File,
}

impl LineageCluster {
    /// Whether both could be the same cluster: an unknown id equals any.
    pub fn may_equal(self, other: Self) -> bool {
        match (self, other) {
            (Self::Id(a), Self::Id(b)) => a == b,
            _ => true,
        }
    }
}

impl fmt::Display for LineageCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Talos => f.write_str("talos"),
            Self::File => f.write_str("file"),
        }
    }
}

/// Text that was given as a lineage name does not have its exact form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a lineage name: the form is 0001-cdf818194e3a8c32-0, with 'talos' or 'file' where the cluster id is unknown")]
pub struct NotALineageName;

impl FromStr for LineageCluster {
    type Err = NotALineageName;

    fn from_str(text: &str) -> Result<Self, NotALineageName> {
        match text {
            "talos" => Ok(Self::Talos),
            "file" => Ok(Self::File),
            _ => {
                let id: ClusterId = text.parse().map_err(|_| NotALineageName)?;
                // One spelling only: 16 lower-case digits.
                if id.to_string() == text { Ok(Self::Id(id)) } else { Err(NotALineageName) }
            }
        }
    }
}

text_serde!(LineageCluster);

/// The name of a lineage: `<4-digit seq>-<cluster id, "talos" or "file">-<epoch>`.
///
/// Names sort by seq, then by their text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LineageName {
    seq: u16,
    cluster: LineageCluster,
    epoch: i64,
}

impl LineageName {
    /// The largest seq.
    pub const MAX_SEQ: u16 = 9999;

    /// Puts a name together; `None` when `seq` is not in `1..=9999` or `epoch` is negative.
    pub fn new(seq: u16, cluster: LineageCluster, epoch: i64) -> Option<Self> {
        let sound = (1..=Self::MAX_SEQ).contains(&seq) && epoch >= 0;
        sound.then_some(Self { seq, cluster, epoch })
    }

    /// Its place among the lineages of its cluster, from 1.
    pub fn seq(&self) -> u16 {
        self.seq
    }

    /// The cluster, as far as known.
    pub fn cluster(&self) -> LineageCluster {
        self.cluster
    }

    /// The revision of the newest empty-value row in etcd's `key` bucket, 0 where there is none.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }
}

impl Ord for LineageName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.seq.cmp(&other.seq).then_with(|| self.to_string().cmp(&other.to_string()))
    }
}

impl PartialOrd for LineageName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for LineageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{}-{}", self.seq, self.cluster, self.epoch)
    }
}

impl FromStr for LineageName {
    type Err = NotALineageName;

    fn from_str(text: &str) -> Result<Self, NotALineageName> {
        let mut parts = text.splitn(3, '-');
        let mut part = || parts.next().ok_or(NotALineageName);
        let (seq, cluster, epoch) = (part()?, part()?, part()?);
        let seq = seq.parse().map_err(|_| NotALineageName)?;
        let epoch = epoch.parse().map_err(|_| NotALineageName)?;
        let name = Self::new(seq, cluster.parse()?, epoch).ok_or(NotALineageName)?;
        // Signs and superfluous zeros parse as numbers; a name has one spelling only.
        if name.to_string() == text { Ok(name) } else { Err(NotALineageName) }
    }
}

text_serde!(LineageName);

/// What tells one Kubernetes cluster from another: the UID of its namespace `kube-system`, 1 to 64 letters, digits and dashes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(String);

/// Text is not of the form of a Kubernetes UID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a UID: 1 to 64 letters, digits and dashes are expected")]
pub struct NotAFingerprint;

impl FromStr for Fingerprint {
    type Err = NotAFingerprint;

    fn from_str(text: &str) -> Result<Self, NotAFingerprint> {
        let sound = (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if sound { Ok(Self(text.to_owned())) } else { Err(NotAFingerprint) }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_serde!(Fingerprint);

/// The object `<cluster>/lineages/<name>.json`. Never changed once written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// Its name, equal to the one in its key.
    pub name: LineageName,
    /// The cluster id, `talos` or `file`: what the name says.
    pub cluster_id: LineageCluster,
    /// The epoch: what the name says.
    pub epoch: i64,
    /// The lineage this history came out of; none for the first.
    pub parent: Option<LineageName>,
    /// The fingerprint of its first snapshot, where there was one.
    pub fingerprint: Option<Fingerprint>,
}

impl Object for Lineage {
    const SCHEMA: &'static str = "lifeboat.lineage/1";
    const LIMIT: usize = limits::SMALL_JSON_BYTES;
}

impl Lineage {
    /// A lineage's object from its name.
    pub fn new(name: LineageName, parent: Option<LineageName>, fingerprint: Option<Fingerprint>) -> Self {
        Self { name, cluster_id: name.cluster, epoch: name.epoch, parent, fingerprint }
    }

    /// Reads the object stored under the key of `name`.
    pub fn decode(bytes: &[u8], name: &LineageName) -> Result<Self, DecodeError> {
        let lineage: Self = crate::canonical::decode(bytes)?;
        let agrees = lineage.name == *name && lineage.cluster_id == name.cluster && lineage.epoch == name.epoch;
        // A lineage that descends from a later one, or from itself, could make a reader walk in a circle.
        let descends = lineage.parent.is_none_or(|parent| parent.seq < name.seq);
        if agrees && descends {
            return Ok(lineage);
        }
        Err(DecodeError::Invalid { detail: format!("the object under the name {name} contradicts it (it says {})", lineage.name) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_have_one_spelling() {
        for good in ["0001-cdf818194e3a8c32-0", "0042-talos-5000000123", "9999-file-9223372036854775807"] {
            assert_eq!(good.parse::<LineageName>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "0000-talos-0",
            "1-talos-0",
            "00001-talos-0",
            "+001-talos-0",
            "0001-Talos-0",
            "0001-CDF818194E3A8C32-0",
            "0001-cdf818194e3a8c3-0",
            "0001-talos-",
            "0001-talos--1",
            "0001-talos-00",
            "0001-talos-+1",
            "0001-talos-9223372036854775808",
            "0001-talos",
        ] {
            assert!(bad.parse::<LineageName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_unknown_cluster_id_equals_any() {
        let (a, b) = (LineageCluster::Id(ClusterId(1)), LineageCluster::Id(ClusterId(2)));
        assert!(a.may_equal(a) && !a.may_equal(b));
        assert!(a.may_equal(LineageCluster::Talos) && LineageCluster::File.may_equal(b));
        assert!(LineageCluster::File.may_equal(LineageCluster::Talos));
    }

    #[test]
    fn an_object_must_agree_with_its_key() {
        let name: LineageName = "0002-talos-5".parse().unwrap();
        let parent = "0001-talos-0".parse().ok();
        let bytes = crate::canonical::encode(&Lineage::new(name, parent, None)).unwrap();
        assert_eq!(Lineage::decode(&bytes, &name).unwrap().parent, parent);
        assert!(Lineage::decode(&bytes, &"0003-talos-5".parse().unwrap()).is_err());
        let own_parent = crate::canonical::encode(&Lineage::new(name, Some(name), None)).unwrap();
        assert!(Lineage::decode(&own_parent, &name).is_err());
    }

    #[test]
    fn two_writers_write_the_same_bytes() {
        let name: LineageName = "0001-cdf818194e3a8c32-0".parse().unwrap();
        let fingerprint = "6a1f2b3c-0000-4444-8888-123456789abc".parse().ok();
        let write = || crate::canonical::encode(&Lineage::new(name, None, fingerprint.clone())).unwrap();
        assert_eq!(write(), write());
    }
}
