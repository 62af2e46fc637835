//! Which backups the keys at hand open, and whether what this machine signs counts. Reads the beginnings of a few objects, writes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vault::backup_id::BackupId;
use vault::key::Key;
use vault::name::ClusterName;
use vault::repository::catalog::Backup;
use vault::repository::{Catalog, Repository};
use vault::seal::{Identities, RecipientFingerprint, SealError, Unsealer, unseal};
use vault::sign::KeyId;

use crate::failure::{Code, Outcome};
use crate::opening::Opening;
use crate::place::{self, PlaceOptions};

/// What was found.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Each cluster looked at.
    pub clusters: Vec<ClusterKeys>,
    /// The key that signs, where there is one.
    pub signing: Option<Signing>,
    /// Whether identities were given.
    pub tried: bool,
}

/// One cluster's backups by who can open them.
#[derive(Clone, Debug)]
pub struct ClusterKeys {
    /// The cluster.
    pub cluster: ClusterName,
    /// Backups sealed alike, the set of the newest backup first.
    pub sets: Vec<SealedAlike>,
}

/// Backups that are sealed to the same recipients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedAlike {
    /// The recipients' fingerprints; empty for a passphrase, and for backups that are not sealed.
    pub recipients: Vec<RecipientFingerprint>,
    /// Whether it is a passphrase.
    pub passphrase: bool,
    /// How many backups.
    pub backups: usize,
    /// The newest of them: the one whose header was opened.
    pub newest: BackupId,
    /// Whether the identities open it.
    pub opened: Opened,
}

/// Whether identities open a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// Its header was unwrapped with one of them.
    Yes,
    /// None of them opens it.
    No,
    /// None was given.
    NotTried,
    /// It is not sealed: whoever reads the store reads it.
    NotSealed,
    /// Its header cannot be read; in words.
    Unreadable(String),
}

/// The key that signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signing {
    /// Its file.
    pub file: PathBuf,
    /// Its id.
    pub id: KeyId,
    /// The public half, as `minisign -P` takes it.
    pub public: String,
    /// Whether it is among the trusted signers; none where there are none.
    pub trusted: Option<bool>,
}

impl Checked {
    /// What the process says at the end: 12 when a newest backup is not opened, 20 when one cannot be read, 1 when what this machine signs does not
    /// count.
    #[must_use]
    pub fn code(&self) -> Code {
        let newest = || self.clusters.iter().filter_map(|cluster| cluster.sets.first());
        if newest().any(|set| matches!(set.opened, Opened::No | Opened::NotTried)) {
            Code::NoKey
        } else if newest().any(|set| matches!(set.opened, Opened::Unreadable(_))) {
            Code::Unproven
        } else if self.signing.as_ref().is_some_and(|signing| signing.trusted == Some(false)) {
            Code::Failed
        } else {
            Code::Ok
        }
    }
}

/// Looks at one cluster, or at all of the repository.
pub async fn run(options: &PlaceOptions, cluster: Option<&ClusterName>, opening: &Opening, signing: Option<&Path>) -> Outcome<Checked> {
    let signing = signing.map(|file| look_at_signing(options, file)).transpose()?;
    let tried = !opening.is_empty();
    let identities = opening.read()?;
    let repository = place::open(options).await?;
    let names = match cluster {
        Some(name) => vec![name.clone()],
        None => repository.clusters().await.map_err(|error| place::failure(options, "the repository cannot be listed", &error))?,
    };
    let mut clusters = Vec::new();
    for name in names {
        let catalog = place::catalog(&repository, options, &name).await?;
        let mut sets = alike(&catalog);
        for set in &mut sets {
            if set.opened == Opened::NotTried && tried {
                set.opened = open(&repository, &catalog, &set.newest, &identities).await;
            }
        }
        clusters.push(ClusterKeys { cluster: name, sets });
    }
    Ok(Checked { clusters, signing, tried })
}

fn look_at_signing(options: &PlaceOptions, file: &Path) -> Outcome<Signing> {
    let key = place::signing_key(file)?;
    let trusted = place::signers(options)?;
    Ok(Signing {
        file: file.to_owned(),
        id: key.public().id(),
        public: key.public().to_line(),
        trusted: (!trusted.is_empty()).then(|| trusted.keys().contains(key.public())),
    })
}

/// Groups backups by who can open them, the newest backup's group first.
fn alike(catalog: &Catalog) -> Vec<SealedAlike> {
    let mut groups: BTreeMap<(bool, bool, Vec<RecipientFingerprint>), SealedAlike> = BTreeMap::new();
    for backup in &catalog.backups {
        let manifest = &backup.manifest;
        let mut recipients = manifest.sealing.recipients.clone();
        recipients.sort_unstable();
        let sealed = manifest.layers.age;
        let group = groups.entry((sealed, manifest.sealing.passphrase, recipients.clone())).or_insert_with(|| SealedAlike {
            recipients,
            passphrase: manifest.sealing.passphrase,
            backups: 0,
            newest: backup.id(),
            opened: if sealed { Opened::NotTried } else { Opened::NotSealed },
        });
        group.backups += 1;
        group.newest = group.newest.max(backup.id());
    }
    let mut sets: Vec<SealedAlike> = groups.into_values().collect();
    sets.sort_by_key(|set| std::cmp::Reverse(set.newest));
    sets
}

/// Unwraps the header of a backup's data object.
async fn open(repository: &Repository, catalog: &Catalog, id: &BackupId, identities: &Identities) -> Opened {
    let Some(Backup { manifest, .. }) = catalog.backup(id) else { return Opened::Unreadable("it is not listed".to_owned()) };
    let Some(data) = manifest.data() else { return Opened::Unreadable("its manifest names no data".to_owned()) };
    let key = Key::Snapshot(manifest.cluster.clone(), manifest.id, data.name.clone()).to_string();
    match repository.store().get_range(&key, 0..data.size.min(unseal::HEAD)).await {
        Err(error) => Opened::Unreadable(error.to_string()),
        Ok(head) => match Unsealer::open(manifest.layers, data.size, &head, identities) {
            Ok(_) => Opened::Yes,
            Err(SealError::NoKey) => Opened::No,
            Err(error) => Opened::Unreadable(error.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn set(opened: Opened) -> SealedAlike {
        SealedAlike { recipients: Vec::new(), passphrase: false, backups: 1, newest: "20261121T020004Z-7qk2m9".parse().unwrap(), opened }
    }

    fn checked(sets: Vec<SealedAlike>, trusted: Option<bool>) -> Checked {
        let signing = Signing { file: "/k".into(), id: KeyId(1), public: String::new(), trusted };
        Checked { clusters: vec![ClusterKeys { cluster: "prod".parse().unwrap(), sets }], signing: Some(signing), tried: true }
    }

    #[test]
    fn the_newest_backup_decides_and_then_the_signing_key() {
        assert_eq!(checked(vec![], Some(true)).code(), Code::Ok);
        assert_eq!(checked(vec![set(Opened::Yes), set(Opened::No)], None).code(), Code::Ok);
        assert_eq!(checked(vec![set(Opened::No), set(Opened::Yes)], None).code(), Code::NoKey);
        assert_eq!(checked(vec![set(Opened::NotTried)], None).code(), Code::NoKey);
        assert_eq!(checked(vec![set(Opened::Unreadable(String::new()))], None).code(), Code::Unproven);
        assert_eq!(checked(vec![set(Opened::NotSealed)], Some(false)).code(), Code::Failed);
    }
}
