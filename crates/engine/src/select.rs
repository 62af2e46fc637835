//! From what a person typed to one backup that may be used, in the words of an operator.

use vault::key::{Key, SnapshotObject};
use vault::repository::catalog::Backup;
use vault::repository::{Catalog, Reach, Repository, ResolveError, Resolved, Selector};
use vault::seal::Identities;
use vault::seal::decode::check_table;
use vault::seal::{SealError, Unsealer};

use std::sync::Arc;

use crate::failure::{Code, Failure, Outcome};
use crate::fetch::{self, Content, Frames, Object};
use crate::place::{PlaceOptions, Which};
use crate::{opening, place, store_failure};

/// Finds the backup that is meant.
pub fn find<'a>(catalog: &'a Catalog, which: &Which, options: &PlaceOptions) -> Outcome<Resolved<'a>> {
    let found = match which {
        Which::Named(text) => {
            let selector: Selector =
                text.parse().map_err(|error| Failure::usage(format!("{error}")).next(list_command(catalog, options)))?;
            catalog.resolve(&selector)
        }
        Which::At(moment) => catalog.at_moment(*moment),
    };
    found.map_err(|error| {
        let code = if matches!(error, ResolveError::Ambiguous { .. }) { Code::Usage } else { Code::Failed };
        Failure::new(code, "no backup was found")
            .object(format!("cluster '{}' in {}", catalog.cluster, options.url))
            .cause(error)
            .next(list_command(catalog, options))
    })
}

fn list_command(catalog: &Catalog, options: &PlaceOptions) -> Vec<String> {
    options.cluster_command(&["list"], &catalog.cluster)
}

/// How the backup found relates to what was asked for, where it is not simply that.
#[must_use]
pub fn reach_words(resolved: &Resolved<'_>) -> Option<String> {
    let manifest = &resolved.backup.manifest;
    match resolved.reach {
        Reach::Exact => None,
        Reach::Later { revisions } => {
            Some(format!("backup {} ends {revisions} revisions after the one asked for, and is taken as it is", manifest.id))
        }
        Reach::Earlier { revisions } => {
            Some(format!("backup {} ends {revisions} revisions before the one asked for; what came after is not in it", manifest.id))
        }
        Reach::Before { by } => {
            Some(format!("backup {} was taken {:#} before the moment asked for; what came after is not in it", manifest.id, by))
        }
    }
}

/// Refuses a backup that must not be used unless told: untrusted where signers are trusted, incomplete, failed.
pub fn usable(backup: &Backup, options: &PlaceOptions) -> Outcome<Vec<String>> {
    let mut warnings = Vec::new();
    if !backup.counts {
        if !options.allow_unsigned {
            return Err(Failure::new(Code::Failed, format!("backup {} is not used: {}", backup.id(), backup.signature))
                .cause("trusted signers are configured, and only what they signed counts; --allow-unsigned takes it all the same")
                .again_with(["--allow-unsigned"]));
        }
        warnings.push(format!("the backup is {}, and was taken because of --allow-unsigned", backup.signature));
    }
    if let Some(doubt) = &backup.unconfirmed {
        warnings.push(format!("the backup is unconfirmed: {doubt}"));
    }
    if !backup.manifest.hashkv.verdict.may_be_latest() {
        warnings
            .push(format!("members disagreed when it was taken: hashkv {}", crate::backup::verdict_word(backup.manifest.hashkv.verdict)));
    }
    if let Some(failed) = &backup.proof.failed {
        warnings.push(format!("a check of it failed at {}: {}", failed.at, failed.detail.as_deref().unwrap_or("damaged")));
    }
    Ok(warnings)
}

/// Opens the snapshot object of a backup. Without a sound frame table it is read in order, and the second answer says so: the table makes a restore
/// fast, it is not needed for one.
pub async fn open(repository: &Repository, backup: &Backup, identities: &Arc<Identities>) -> Outcome<(Object, Option<String>)> {
    let manifest = &backup.manifest;
    let key_of = |object: &SnapshotObject| Key::Snapshot(manifest.cluster.clone(), manifest.id, object.clone()).to_string();
    let missing = || Failure::new(Code::Unproven, "the backup has no snapshot object").object(manifest.id).again();
    let data = manifest.data().ok_or_else(missing)?;
    let store = repository.store();
    let key = key_of(&data.name);
    let head = store
        .get_range(&key, 0..data.size.min(vault::seal::unseal::HEAD))
        .await
        .map_err(|error| store_failure::failure("the backup cannot be read", &error))?;
    if manifest.layers.age && identities.is_empty() {
        return Err(opening::nothing_given(&manifest.sealing, &key, ""));
    }
    let unsealer = Unsealer::open(manifest.layers, data.size, &head, identities).map_err(|error| wrong_key(manifest, &key, &error))?;
    let (content, note) = match frame_table(repository, manifest, &key_of(&SnapshotObject::Frames), data.size, &unsealer).await {
        Ok(table) => (Content::Frames(Frames { unsealer, table: Arc::new(table) }), None),
        Err(why) => {
            let content = Content::Stream { layers: manifest.layers, size: data.size, identities: Arc::clone(identities) };
            (content, Some(format!("the frame table is of no use ({why}), so the backup is read in order, which takes longer")))
        }
    };
    Ok((Object { store: Arc::clone(store), key, content }, note))
}

async fn frame_table(
    repository: &Repository,
    manifest: &vault::manifest::Manifest,
    key: &str,
    size: u64,
    unsealer: &Unsealer,
) -> Result<vault::frames::FrameTable, String> {
    let stated = manifest.object(&SnapshotObject::Frames).ok_or("the manifest names none")?;
    let (_, bytes) = repository.store().get(key, vault::limits::FRAMES_BYTES as u64).await.map_err(|error| error.to_string())?;
    let table = vault::frames::FrameTable::decode_checked(&bytes, stated.sha256, size).map_err(|error| error.to_string())?;
    check_table(unsealer, &table).map_err(|error| error.to_string())?;
    Ok(table)
}

fn wrong_key(manifest: &vault::manifest::Manifest, key: &str, error: &SealError) -> Failure {
    if !matches!(error, SealError::NoKey) {
        return fetch::damage(key, error);
    }
    opening::not_opened(&manifest.sealing, key, "")
}

/// Opens the repository, reads the cluster and finds the backup: what every reading verb begins with.
pub struct Found {
    /// The repository.
    pub repository: Repository,
    /// The cluster's catalog.
    pub catalog: Catalog,
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Found").field("repository", &self.repository).finish_non_exhaustive()
    }
}

/// Opens the repository and reads the cluster that is meant.
pub async fn load(options: &PlaceOptions, cluster: Option<&vault::name::ClusterName>) -> Outcome<Found> {
    let repository = place::open(options).await?;
    let cluster = place::cluster(&repository, options, cluster).await?;
    let catalog = place::known_catalog(&repository, options, &cluster).await?;
    Ok(Found { repository, catalog })
}
