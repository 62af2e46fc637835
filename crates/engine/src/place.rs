//! Where backups are: opening a repository, and saying which backup is meant.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use vault::name::ClusterName;
use vault::repository::{Catalog, Repository, RepositoryError};
use vault::sign::{PublicKey, SigningKey, TrustedSigners};
use vault::store::{Store, StoreOptions};

use crate::failure::{Code, Failure, Outcome};
use crate::limits::NEW_CLUSTER;
use crate::seal_pipeline::on_thread;
use crate::store_failure;
use crate::store_kind::StoreKind;

/// Which repository, and whose signatures count.
#[derive(Clone, Debug, Default)]
pub struct PlaceOptions {
    /// `file:///path`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
    pub url: String,
    /// The region, for S3.
    pub region: Option<String>,
    /// The endpoint of a compatible store or an emulator; the cloud's own without.
    pub endpoint: Option<String>,
    /// A file with credentials.
    pub credentials_file: Option<PathBuf>,
    /// minisign public keys, as text or as the name of a file.
    pub trusted_signers: Vec<String>,
    /// Take backups whose signature does not count.
    pub allow_unsigned: bool,
}

impl PlaceOptions {
    /// The flags that lead here without a configuration, word by word. Whose signatures count is not among them.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        let mut words = vec!["--repo".to_owned(), self.url.clone()];
        let credentials = self.credentials_file.as_ref().map(|path| path.to_string_lossy().into_owned());
        let kind = StoreKind::of(&self.url);
        let more = [(kind.endpoint_flag(), &self.endpoint), ("--s3-region", &self.region), (kind.credentials_flag(), &credentials)];
        for (flag, value) in more {
            words.extend(value.iter().flat_map(|value| [flag.to_owned(), value.clone()]));
        }
        words
    }

    /// `lifeboat`, these words, and the flags that lead here: a command to be shown.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Vec<String> {
        let mut command = vec!["lifeboat".to_owned()];
        command.extend(words.iter().map(|word| (*word).to_owned()));
        command.extend(self.flags());
        command
    }

    /// As [`PlaceOptions::command`], for one cluster.
    #[must_use]
    pub fn cluster_command(&self, words: &[&str], cluster: &ClusterName) -> Vec<String> {
        let mut command = self.command(words);
        command.extend(["--cluster".to_owned(), cluster.to_string()]);
        command
    }
}

/// Opens the store alone.
pub fn open_store(options: &PlaceOptions, create_root: bool) -> Outcome<Arc<dyn Store>> {
    let store = StoreOptions {
        create_root,
        region: options.region.clone(),
        endpoint: options.endpoint.clone(),
        credentials_file: options.credentials_file.clone(),
        ..StoreOptions::default()
    };
    vault::store::open_store(&options.url, &store)
        .map_err(|error| store_failure::failure_at(&options.url, "the store cannot be opened", &error))
}

/// Opens the store alone, on a thread of its own: the root of a directory that hangs (a file server that is gone) must not hold up everything else.
///
/// # Errors
/// As [`open_store`].
pub async fn reach(options: &PlaceOptions, create_root: bool) -> Outcome<Arc<dyn Store>> {
    let options = options.clone();
    on_thread("open", move || open_store(&options, create_root)).await
}

/// The signers whose signatures count.
pub fn signers(options: &PlaceOptions) -> Outcome<TrustedSigners> {
    let mut keys = Vec::new();
    for text in &options.trusted_signers {
        let content = match text.parse::<PublicKey>() {
            Ok(key) => {
                keys.push(key);
                continue;
            }
            Err(_) => std::fs::read_to_string(text).map_err(|error| {
                Failure::usage("a trusted signer is neither a minisign public key nor a file with one").object(text).cause(error).again()
            })?,
        };
        keys.push(
            content.parse().map_err(|error| Failure::usage("the file holds no minisign public key").object(text).cause(error).again())?,
        );
    }
    Ok(TrustedSigners::new(keys))
}

/// Opens a repository that is there.
pub async fn open(options: &PlaceOptions) -> Outcome<Repository> {
    let signers = signers(options)?;
    let store = reach(options, false).await?;
    let repository = Repository::open(store).await.map_err(|error| failure(options, "the repository cannot be opened", &error))?;
    Ok(repository.with_signers(signers))
}

/// Opens a repository, or makes one where nothing is at all. The second answer says that it was made.
pub async fn open_or_init(options: &PlaceOptions) -> Outcome<(Repository, bool)> {
    let signers = signers(options)?;
    let store = reach(options, true).await?;
    let opened = Repository::open_or_init(store, Timestamp::now()).await;
    let (repository, made) = opened.map_err(|error| failure(options, "the repository cannot be opened", &error))?;
    Ok((repository.with_signers(signers), made))
}

/// The cluster that is meant: the one named, else the only one of the repository.
pub async fn cluster(repository: &Repository, options: &PlaceOptions, named: Option<&ClusterName>) -> Outcome<ClusterName> {
    if let Some(name) = named {
        return Ok(name.clone());
    }
    let clusters = repository.clusters().await.map_err(|error| failure(options, "the repository cannot be listed", &error))?;
    match &clusters[..] {
        [only] => Ok(only.clone()),
        [] => Err(Failure::usage("the cluster has no name yet")
            .object(&options.url)
            .cause("the repository holds no cluster; give it a name with --cluster")
            .again_with(["--cluster", NEW_CLUSTER])),
        several => {
            let flags: Vec<String> = several.iter().map(|name| format!("--cluster {name}")).collect();
            Err(Failure::usage("the repository holds several clusters, and one must be named")
                .object(&options.url)
                .cause(format!("name one of: {}", flags.join(", ")))
                .again_with(["--cluster", several[0].as_str()]))
        }
    }
}

/// Reads everything that is known of a cluster.
pub async fn catalog(repository: &Repository, options: &PlaceOptions, cluster: &ClusterName) -> Outcome<Catalog> {
    repository.catalog(cluster).await.map_err(|error| failure(options, "the repository cannot be read", &error))
}

/// Reads everything that is known of a cluster that somebody named. One that the repository does not know, while it knows others, is a misspelt one.
pub async fn known_catalog(repository: &Repository, options: &PlaceOptions, cluster: &ClusterName) -> Outcome<Catalog> {
    let catalog = catalog(repository, options, cluster).await?;
    if !catalog.backups.is_empty() || !catalog.problems.is_empty() {
        return Ok(catalog);
    }
    let names = repository.clusters().await.map_err(|error| failure(options, "the repository cannot be listed", &error))?;
    if names.is_empty() || names.contains(cluster) {
        return Ok(catalog);
    }
    let held: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    Err(Failure::new(Code::WrongCluster, format!("the repository knows no cluster '{cluster}'"))
        .object(&options.url)
        .cause(format!("it holds backups of {}", held.join(", ")))
        .again_with(["--cluster", names[0].as_str()]))
}

/// Reads a signing key.
pub fn signing_key(path: &Path) -> Outcome<SigningKey> {
    let failed = |cause: &dyn std::fmt::Display| Failure::usage("the signing key cannot be read").object(path.display()).cause(cause);
    let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => failed(&error).next(["lifeboat", "key", "new", "--signing-out", &path.to_string_lossy()]),
        _ => failed(&error).again(),
    })?;
    SigningKey::from_file_text(&text).map_err(|error| failed(&error).again())
}

/// A repository's error in words.
pub fn failure(options: &PlaceOptions, what: &str, error: &RepositoryError) -> Failure {
    match error {
        RepositoryError::Store(error) => at_root(options, store_failure::failure_at(&options.url, what, error)),
        RepositoryError::NoRepository { root, empty: true } => Failure::new(Code::NoRepository, "there is no repository here")
            .object(root)
            .cause("the place is empty; check --repo, or make a repository there")
            .next(options.command(&["init"])),
        RepositoryError::NoRepository { root, empty: false } => Failure::new(Code::NoRepository, "there is no repository here")
            .object(root)
            .cause("the place holds other things and no lifeboat.json; check --repo")
            .again(),
        other => Failure::failed(what).object(&options.url).cause(other).again(),
    }
}

/// A key alone does not say where it is.
fn at_root(options: &PlaceOptions, mut failure: Failure) -> Failure {
    if let Some(key) = failure.object.as_mut().filter(|key| !key.contains("://")) {
        *key = format!("{}/{key}", options.url.trim_end_matches('/'));
    }
    failure
}

/// Which backup is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// As part 6 of the design names them: id, unique prefix, last six characters, `latest`, `latest~N`, `@<revision>`.
    Named(String),
    /// The newest one not later than this.
    At(Timestamp),
}

impl Which {
    /// Reads what a person wrote. `at` beats `which`.
    pub fn parse(which: &str, at: Option<&str>) -> Outcome<Self> {
        match at {
            Some(at) => moment(at, Timestamp::now(), &jiff::tz::TimeZone::system()).map(Self::At),
            None => Ok(Self::Named(which.to_owned())),
        }
    }
}

/// A moment as people write it: RFC 3339, local time (`2026-11-21 14:30`), `2h`, `2 hours ago`. Pure.
fn moment(text: &str, now: Timestamp, zone: &jiff::tz::TimeZone) -> Outcome<Timestamp> {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(timestamp);
    }
    if let Ok(local) = text.parse::<jiff::civil::DateTime>()
        && let Ok(zoned) = local.to_zoned(zone.clone())
    {
        return Ok(zoned.timestamp());
    }
    if let Ok(span) = text.trim_end_matches(" ago").parse::<jiff::Span>()
        && let Ok(moment) = now.to_zoned(zone.clone()).checked_sub(span.abs())
    {
        return Ok(moment.timestamp());
    }
    Err(Failure::usage(format!("'{text}' is not a moment"))
        .cause("write it as 2026-11-21T14:30:00Z, as local time 2026-11-21T14:30, or as '2 hours ago'")
        .again())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_people_do() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(1));
        for (text, expected) in [
            ("2026-11-20T02:00:00Z", "2026-11-20T02:00:00Z"),
            ("2026-11-20 02:00", "2026-11-20T01:00:00Z"),
            ("2026-11-20T02:00:30", "2026-11-20T01:00:30Z"),
            ("2h", "2026-11-21T10:00:00Z"),
            ("2 hours ago", "2026-11-21T10:00:00Z"),
            ("1 day ago", "2026-11-20T12:00:00Z"),
        ] {
            assert_eq!(moment(text, now, &zone).unwrap(), expected.parse().unwrap(), "{text}");
        }
        assert!(moment("yesterday-ish", now, &zone).is_err());
    }
}
