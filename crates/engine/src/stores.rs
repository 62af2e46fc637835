//! Several stores of one repository: what is there, whether they belong together, which one is read.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::join_all;
use vault::backup_id::BackupId;
use vault::mark::Statement;
use vault::name::{ClusterName, RepositoryId};
use vault::repository::{Backup, Catalog, Place, Repository, RepositoryError};
use vault::store::Store;

use crate::config::{self, Policy};
use crate::exclusion::state_directory;
use crate::failure::{Code, Failure, Outcome};
use crate::known_stores;
use crate::limits::{STORE_ANSWERS_WITHIN, STORE_OPENS_WITHIN};
use crate::place::{self, PlaceOptions};
use crate::status::StoreBehind;

/// A store by the name that people call it.
#[derive(Clone, Debug, Default)]
pub struct NamedPlace {
    /// Its name in the configuration; its URL where it has none.
    pub name: String,
    /// How it is reached.
    pub options: PlaceOptions,
}

impl NamedPlace {
    /// A store that only has a URL.
    #[must_use]
    pub fn unnamed(options: PlaceOptions) -> Self {
        Self { name: options.url.clone(), options }
    }

    /// A store of the configuration. Whose signatures count is the configuration's to say too.
    #[must_use]
    pub fn configured(name: &str, store: &config::Store, trusted_signers: &[String], allow_unsigned: bool) -> Self {
        let options = PlaceOptions {
            url: store.url.clone(),
            region: store.region.clone(),
            endpoint: store.endpoint.clone(),
            credentials_file: store.credentials_file.clone(),
            trusted_signers: trusted_signers.to_vec(),
            allow_unsigned,
        };
        Self { name: name.to_owned(), options }
    }

    /// Name and URL, for a sentence.
    #[must_use]
    pub fn described(&self) -> String {
        if self.name == self.options.url { self.name.clone() } else { format!("'{}' ({})", self.name, self.options.url) }
    }
}

/// The stores of a cluster as its policy names them, in that order.
#[must_use]
pub fn of_policy(policy: &Policy, trusted_signers: &[String], allow_unsigned: bool) -> Vec<NamedPlace> {
    policy.stores.iter().map(|(name, store)| NamedPlace::configured(name, store, trusted_signers, allow_unsigned)).collect()
}

/// The command that brings to one store what it lacks of another: a command to be shown, which needs no configuration.
#[must_use]
pub fn copy_command(from: &PlaceOptions, to: &PlaceOptions, cluster: Option<&ClusterName>) -> Vec<String> {
    let mut command = vec!["lifeboat".to_owned(), "copy".to_owned()];
    for (end, options) in [("from", from), ("to", to)] {
        // The flags of a place, with the end they belong to in their names.
        command.extend(options.flags().into_iter().map(|word| match word.strip_prefix("--") {
            Some("repo") => format!("--{end}"),
            Some(flag) if flag.starts_with("s3-") || flag.starts_with("store-") => format!("--{end}-{flag}"),
            _ => word,
        }));
    }
    command.extend(cluster.iter().flat_map(|cluster| ["--cluster".to_owned(), cluster.to_string()]));
    command
}

/// What is at one of several stores.
#[derive(Debug)]
pub enum There {
    /// The repository.
    Repository(Repository),
    /// Nothing yet.
    Empty(Arc<dyn Store>),
    /// Nothing that can be used now, and why.
    Out(Failure),
}

/// Looks at one store. Nothing is written, but for the root of a `file://` store with `create_root`. With that, an empty place that held a repository when
/// this host used it last is [`There::Out`]: its disk may not be mounted.
///
/// # Errors
/// [`Code::Usage`] alone: options that no store could be reached with. Everything else is an answer.
pub async fn look(options: &PlaceOptions, create_root: bool) -> Outcome<There> {
    // A file server that is gone answers nothing at all.
    let Ok(there) = tokio::time::timeout(STORE_OPENS_WITHIN, look_once(options, create_root)).await else {
        return Ok(There::Out(Failure::new(Code::StoreUnreachable, "the store does not answer in time").object(&options.url).again()));
    };
    there
}

async fn look_once(options: &PlaceOptions, create_root: bool) -> Outcome<There> {
    let signers = place::signers(options)?;
    let known = known_stores::of(state_directory().as_deref(), &options.url).filter(|_| create_root);
    let store = match place::reach(options, create_root && known.is_none()).await {
        Ok(store) => store,
        Err(failure) if failure.code == Code::Usage => return Err(failure),
        Err(failure) if failure.code == Code::NoRepository => return Ok(There::Out(known.map_or(failure, |known| known.failure()))),
        Err(failure) => return Ok(There::Out(failure)),
    };
    let wrong = |error| place::failure(options, "the repository cannot be opened", &error);
    Ok(match Repository::look(Arc::clone(&store)).await {
        Ok(Place::Repository(repository)) => There::Repository(repository.with_signers(signers)),
        Ok(Place::Empty) => known.map_or(There::Empty(store), |known| There::Out(known.failure())),
        Ok(Place::Other) => There::Out(wrong(RepositoryError::NoRepository { root: store.root().to_owned(), empty: false })),
        Err(error) => There::Out(wrong(error)),
    })
}

/// Looks at all of them at once.
///
/// # Errors
/// As [`look`].
pub async fn look_at_all(places: &[NamedPlace], create_root: bool) -> Outcome<Vec<There>> {
    join_all(places.iter().map(|place| look(&place.options, create_root))).await.into_iter().collect()
}

/// Refuses stores that hold different repositories: one of them is a slip of the pen, and nobody can tell which.
///
/// # Errors
/// [`Code::WrongCluster`], naming the first store that differs from the first repository.
pub fn one_repository(places: &[NamedPlace], there: &[There]) -> Outcome<()> {
    let mut known: Option<(&NamedPlace, RepositoryId)> = None;
    for (place, there) in places.iter().zip(there) {
        let There::Repository(repository) = there else { continue };
        match known {
            None => known = Some((place, *repository.id())),
            Some((_, id)) if id == *repository.id() => {}
            Some((first, id)) => return Err(other_repository(first, &id, place, repository.id())),
        }
    }
    Ok(())
}

/// The failure for two stores that do not belong together.
#[must_use]
pub fn other_repository(first: &NamedPlace, id: &RepositoryId, second: &NamedPlace, other: &RepositoryId) -> Failure {
    Failure::new(Code::WrongCluster, format!("store {} holds another repository than store {}", second.described(), first.described()))
        .object(&second.options.url)
        .cause(format!("their ids are {other} and {id}; a repository has one id on all its stores, and copies go between those alone"))
        .again()
}

/// The first of several stores that holds the repository and can be reached, and what is wrong with those before it. One store alone is not looked at.
///
/// # Errors
/// That of the first store, when none can be read.
pub async fn first_readable(places: &[NamedPlace]) -> Outcome<(usize, Vec<String>)> {
    if places.len() == 1 {
        return Ok((0, Vec::new()));
    }
    let mut notes = Vec::new();
    let mut first_failure = None;
    for (at, place) in places.iter().enumerate() {
        let failure = match look(&place.options, false).await? {
            There::Repository(_) => {
                if at > 0 {
                    notes.push(format!("reading from store {}", place.described()));
                }
                return Ok((at, notes));
            }
            There::Empty(store) => {
                let error = RepositoryError::NoRepository { root: store.root().to_owned(), empty: true };
                place::failure(&place.options, "the repository cannot be opened", &error)
            }
            There::Out(failure) => failure,
        };
        notes.push(format!("store {} is passed over: {}", place.described(), reason(&failure)));
        first_failure.get_or_insert(failure);
    }
    Err(first_failure.unwrap_or_else(|| Failure::usage("no repository is named")))
}

/// Which of several stores lack backups that another one of them holds, or cannot be read. `catalog` is that of the store at the URL `read`, which may be the
/// one that is behind.
pub async fn behind(places: &[NamedPlace], read: &str, catalog: &Catalog) -> Vec<StoreBehind> {
    if places.len() < 2 {
        return Vec::new();
    }
    let others = places.iter().filter(|place| place.options.url != read);
    let others: Vec<&NamedPlace> = others.collect();
    let read = join_all(others.iter().map(|place| read_one(place, &catalog.cluster))).await;
    let others: Vec<(&NamedPlace, Outcome<Option<Catalog>>)> = others.into_iter().zip(read).collect();
    let of = |place: &NamedPlace| match others.iter().find(|(other, _)| other.name == place.name) {
        None => Ok(Some(catalog)),
        Some((_, Ok(there))) => Ok(there.as_ref()),
        Some((_, Err(failure))) => Err(failure),
    };
    let known: Vec<&Catalog> = places.iter().filter_map(|place| of(place).ok().flatten()).collect();
    let wanted = wanted(&known);
    let lacking = |place: &NamedPlace| match of(place) {
        Ok(there) => {
            let has =
                |there: &Catalog, id: &BackupId| there.backup(id).is_some_and(|backup| !backup.incomplete && backup.proof.failed.is_none());
            let lacks = wanted.iter().filter(|id| !there.is_some_and(|there| has(there, id))).count();
            (lacks > 0).then(|| StoreBehind { store: place.name.clone(), lacks: Some(lacks), why: None })
        }
        Err(failure) => Some(StoreBehind { store: place.name.clone(), lacks: None, why: Some(reason(failure)) }),
    };
    places.iter().filter_map(lacking).collect()
}

/// What every store should hold: what can be `latest` anywhere, but for what is about to be removed, for each store is pruned by itself.
fn wanted(known: &[&Catalog]) -> BTreeSet<BackupId> {
    let is_due = |id: BackupId| {
        let mut marks = known.iter().flat_map(|catalog| &catalog.marks);
        marks.any(|entry| matches!(&entry.mark.statement, Statement::Tombstone(backup, _) if *backup == id))
    };
    let is_pinned = |id: BackupId| known.iter().filter_map(|catalog| catalog.backup(&id)).any(|backup| !backup.pins.is_empty());
    known.iter().flat_map(|catalog| catalog.eligible()).map(Backup::id).filter(|id| is_pinned(*id) || !is_due(*id)).collect()
}

/// What a store holds of a cluster; nothing where it is empty.
async fn read_one(place: &NamedPlace, cluster: &ClusterName) -> Outcome<Option<Catalog>> {
    let there = async {
        match look(&place.options, false).await? {
            There::Repository(repository) => place::catalog(&repository, &place.options, cluster).await.map(Some),
            There::Empty(_) => Ok(None),
            There::Out(failure) => Err(failure),
        }
    };
    let there = tokio::time::timeout(STORE_ANSWERS_WITHIN, there).await;
    there.unwrap_or_else(|_| Err(Failure::new(Code::StoreUnreachable, "it does not answer in time")))
}

/// A failure in one line.
#[must_use]
pub fn reason(failure: &Failure) -> String {
    match &failure.cause {
        Some(cause) => format!("{} ({cause})", failure.what),
        None => failure.what.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use jiff::Timestamp;

    use super::*;

    fn at(directory: &std::path::Path, name: &str) -> NamedPlace {
        let url = format!("file://{}", directory.join(name).display());
        NamedPlace { name: name.to_owned(), options: PlaceOptions { url, ..PlaceOptions::default() } }
    }

    async fn make(place: &NamedPlace) -> Repository {
        Repository::init(place::open_store(&place.options, true).unwrap(), Timestamp::now()).await.unwrap()
    }

    #[test]
    fn the_command_that_catches_a_store_up_has_both_ends() {
        let from = PlaceOptions { url: "file:///a".to_owned(), ..PlaceOptions::default() };
        let to = PlaceOptions { url: "s3://b/c".to_owned(), endpoint: Some("http://h:1".to_owned()), ..PlaceOptions::default() };
        let cluster = "prod".parse().unwrap();
        let command = copy_command(&from, &to, Some(&cluster)).join(" ");
        assert_eq!(command, "lifeboat copy --from file:///a --to s3://b/c --to-s3-endpoint http://h:1 --cluster prod");
        let to = PlaceOptions { url: "az://b/c".to_owned(), ..to };
        let command = copy_command(&from, &to, Some(&cluster)).join(" ");
        assert_eq!(command, "lifeboat copy --from file:///a --to az://b/c --to-store-endpoint http://h:1 --cluster prod");
    }

    #[tokio::test]
    async fn the_first_that_holds_the_repository_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let places = [at(directory.path(), "gone"), at(directory.path(), "empty"), at(directory.path(), "there")];
        std::fs::create_dir(directory.path().join("empty")).unwrap();
        let failure = first_readable(&places).await.unwrap_err();
        assert_eq!(failure.code, Code::NoRepository, "{failure}");
        make(&places[2]).await;
        let (which, notes) = first_readable(&places).await.unwrap();
        assert_eq!(which, 2);
        assert!(notes.len() == 3 && notes[0].contains("'gone'") && notes[2].contains("reading from store 'there'"), "{notes:?}");
        make(&places[0]).await;
        assert_eq!(first_readable(&places).await.unwrap(), (0, Vec::new()));
    }

    #[tokio::test]
    async fn two_repositories_are_not_one() {
        let directory = tempfile::tempdir().unwrap();
        let places = [at(directory.path(), "empty"), at(directory.path(), "a"), at(directory.path(), "b")];
        let a = make(&places[1]).await;
        let there = look_at_all(&places, true).await.unwrap();
        one_repository(&places, &there).unwrap();
        let seeded = a.seed(place::open_store(&places[2].options, true).unwrap()).await.unwrap();
        assert_eq!(seeded.marker(), a.marker());
        one_repository(&places, &look_at_all(&places, false).await.unwrap()).unwrap();
        for name in ["lifeboat.json", "RESTORE.txt"] {
            let read = |place: &str| std::fs::read(directory.path().join(place).join(name)).unwrap();
            assert_eq!(read("a"), read("b"));
        }
        make(&places[0]).await;
        let failure = one_repository(&places, &look_at_all(&places, false).await.unwrap()).unwrap_err();
        assert!(failure.code == Code::WrongCluster && failure.to_string().contains("'a'"), "{failure}");
    }
}
