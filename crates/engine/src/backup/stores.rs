//! The stores that a backup goes to: opened together, written together, and what became of each.

use std::sync::Arc;

use jiff::Timestamp;
use vault::backup_id::BackupId;
use vault::key;
use vault::limits::SMALL_JSON_BYTES;
use vault::name::ClusterName;
use vault::repository::{Catalog, Repository, RepositoryError};
use vault::seal::SealedObject;
use vault::store::{MirrorStore, Store, StoreError};

use super::{Request, StoreReport};
use crate::exclusion::state_directory;
use crate::failure::{Code, Failure, Outcome};
use crate::place::PlaceOptions;
use crate::progress::Progress;
use crate::stores::{self, NamedPlace, There, copy_command, look, look_at_all, one_repository, reason};
use crate::{known_stores, place, store_failure, stored};

/// The stores of one run. The first of `members` decides what there is already: lineages, earlier backups, the cluster's name, the lease.
pub(super) struct Stores {
    /// The repository, on all of `members` at once where there are several.
    pub(super) repository: Repository,
    members: Vec<NamedPlace>,
    mirror: Option<MirrorStore>,
    missing: Vec<(NamedPlace, Failure)>,
    least: usize,
}

impl Stores {
    /// Opens every store of the request. An empty one becomes the same repository; where none holds one yet, the first is made one.
    ///
    /// # Errors
    /// [`Code::WrongCluster`] for stores that hold different repositories; that of a store that is missing, when fewer are there than are needed.
    pub(super) async fn open(request: &Request, progress: &dyn Progress) -> Outcome<Self> {
        // An empty place becomes a repository only when it is said who could open what is put there (design part 6).
        let is_said = !request.recipients.is_empty() || request.passphrase.is_some() || request.plain;
        let may_make = !request.dry_run && is_said;
        if request.stores.len() < 2 {
            return Self::open_one(request, may_make, progress).await;
        }
        let there = look_at_all(&request.stores, may_make).await?;
        one_repository(&request.stores, &there)?;
        Opened::sort(request.stores.clone(), there).finish(request, may_make, progress).await
    }

    async fn open_one(request: &Request, may_make: bool, progress: &dyn Progress) -> Outcome<Self> {
        let repository = if may_make { Self::open_or_make(&request.place, progress).await? } else { place::open(&request.place).await? };
        if !request.dry_run {
            known_stores::remember(state_directory().as_deref(), &request.place.url, repository.id());
        }
        let place = request.stores.first().cloned().unwrap_or_else(|| NamedPlace::unnamed(request.place.clone()));
        let members = vec![NamedPlace { options: request.place.clone(), ..place }];
        Ok(Self { repository, members, mirror: None, missing: Vec::new(), least: 1 })
    }

    async fn open_or_make(options: &PlaceOptions, progress: &dyn Progress) -> Outcome<Repository> {
        let store = match look(options, true).await? {
            There::Repository(repository) => return Ok(repository),
            There::Out(failure) => return Err(failure),
            There::Empty(store) => store,
        };
        let opened = Repository::open_or_init(store, Timestamp::now()).await;
        let (repository, made) = opened.map_err(|error| place::failure(options, "the repository cannot be opened", &error))?;
        if made {
            progress.say(&format!("made a new repository at {} (id {})", options.url, repository.id()));
        }
        Ok(repository.with_signers(place::signers(options)?))
    }

    /// The store that decides, alone.
    pub(super) fn deciding(&self) -> Arc<dyn Store> {
        let first = self.mirror.as_ref().and_then(|mirror| mirror.stores_in().into_iter().next());
        first.map_or_else(|| Arc::clone(self.repository.store()), |(_, store)| store)
    }

    /// Reads what is known of the cluster from the store that decides; where it fails, from the next one, which decides from then on.
    ///
    /// # Errors
    /// That of the last store that may be given up, and those that another store would not mend.
    pub(super) async fn catalog(&self, named: Option<&ClusterName>) -> Outcome<(ClusterName, Catalog)> {
        loop {
            let options = &self.holder().options;
            let read = async {
                let cluster = place::cluster(&self.repository, options, named).await?;
                let catalog = place::catalog(&self.repository, options, &cluster).await?;
                Ok::<_, Failure>((cluster, catalog))
            };
            match read.await {
                Err(failure) if failure.code == Code::StoreUnreachable && self.give_up_first(&failure) => {}
                answer => return answer,
            }
        }
    }

    /// Takes the deciding store out. False where it is needed.
    fn give_up_first(&self, failure: &Failure) -> bool {
        let Some(mirror) = &self.mirror else { return false };
        let inside = mirror.stores_in();
        let (Some((at, _)), true) = (inside.first(), inside.len() > self.least) else { return false };
        let key = self.members[*at].options.url.clone();
        mirror.drop_out(*at, StoreError::Unreachable { key, detail: reason(failure) });
        true
    }

    /// Whether there is one store only, now.
    pub(super) fn is_single(&self) -> bool {
        self.mirror.is_none()
    }

    /// Brings every other store the lineages that the deciding one has: what is committed there may refer to any of them.
    pub(super) async fn bring_lineages(&self, cluster: &ClusterName) -> Outcome<()> {
        let Some(mirror) = &self.mirror else { return Ok(()) };
        let prefix = key::lineages_prefix(cluster);
        let failed = |error: &StoreError| store_failure::failure("the lineages cannot be read", error);
        let mut objects = Vec::new();
        let deciding = self.deciding();
        for object in deciding.list(&prefix).await.map_err(|error| failed(&error))? {
            match deciding.get(&object.key, SMALL_JSON_BYTES as u64).await {
                Ok((_, bytes)) => objects.push((object.key, bytes)),
                // The catalog names it.
                Err(StoreError::NotFound { .. } | StoreError::Corrupt { .. }) => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        for (at, store) in mirror.stores_in().into_iter().skip(1) {
            for (key, bytes) in &objects {
                if let Err(error) = store.create(key, bytes.clone()).await {
                    mirror.drop_out(at, error);
                    break;
                }
            }
        }
        self.enough()
    }

    /// Reads a stored object back from every store. One that gives other bytes drops out.
    pub(super) async fn read_back(&self, key: &str, sealed: &SealedObject, progress: &dyn Progress) -> Outcome<()> {
        let Some(mirror) = &self.mirror else { return Ok(()) };
        for (at, store) in mirror.stores_in() {
            progress.say(&format!("reading the stored snapshot back from store {}", self.members[at].described()));
            let detail = match stored::hash(&store, key, sealed.size).await {
                Ok(hashed) if hashed.whole == sealed.sha256 => continue,
                Ok(_) => "it gives back other bytes than were written".to_owned(),
                Err(failure) => reason(&failure),
            };
            mirror.drop_out(at, StoreError::Corrupt { key: key.to_owned(), detail });
        }
        self.enough()
    }

    /// Refuses to go on with fewer stores than are needed.
    pub(super) fn enough(&self) -> Outcome<()> {
        let Some(mirror) = &self.mirror else { return Ok(()) };
        if mirror.enough().is_ok() {
            return Ok(());
        }
        Err(too_few(&self.missing(), self.least, self.members.len() + self.missing.len()))
    }

    /// The stores without what was committed, and why.
    pub(super) fn missing(&self) -> Vec<(NamedPlace, Failure)> {
        let dropped = self.mirror.iter().flat_map(MirrorStore::dropped);
        let dropped = dropped.map(|(at, error)| (self.members[at].clone(), store_failure::failure("it dropped out on the way", &error)));
        self.missing.iter().cloned().chain(dropped).collect()
    }

    /// The first store that is in: it decides, and holds what was committed.
    pub(super) fn holder(&self) -> &NamedPlace {
        let first = self.mirror.as_ref().and_then(|mirror| mirror.stores_in().first().map(|(at, _)| *at));
        &self.members[first.unwrap_or(0)]
    }

    /// What became of each store, those that hold the backup first.
    pub(super) fn report(&self) -> Vec<StoreReport> {
        let missing = self.missing();
        let holds = self.members.iter().filter(|member| !missing.iter().any(|(place, _)| place.name == member.name));
        let report =
            |place: &NamedPlace, why: Option<String>| StoreReport { name: place.name.clone(), url: place.options.url.clone(), why };
        holds.map(|place| report(place, None)).chain(missing.iter().map(|(place, failure)| report(place, Some(reason(failure))))).collect()
    }

    /// Says that a backup was committed and is nevertheless on too few stores.
    pub(super) fn committed_everywhere_needed(&self, ids: &[BackupId], cluster: &ClusterName) -> Outcome<()> {
        let Some(mirror) = &self.mirror else { return Ok(()) };
        let inside = mirror.stores_in().len();
        let missing = self.missing();
        let (Some((place, failure)), true) = (missing.first(), inside < self.least) else { return Ok(()) };
        let ids = ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let what = format!("backup {ids} is whole on {inside} store(s), and min_stores asks for {}", self.least);
        Err(Failure::new(Code::StoreUnreachable, what).object(&place.options.url).cause(reason(failure)).next(copy_command(
            &self.holder().options,
            &place.options,
            Some(cluster),
        )))
    }
}

/// The failure for fewer stores than are needed.
fn too_few(missing: &[(NamedPlace, Failure)], least: usize, asked: usize) -> Failure {
    let there = asked - missing.len().min(asked);
    let causes: Vec<String> = missing.iter().map(|(place, failure)| format!("{}: {}", place.described(), reason(failure))).collect();
    let first = missing.first();
    Failure::new(
        first.map_or(Code::StoreUnreachable, |(_, failure)| failure.code),
        format!("{there} of {asked} stores can be written to, and min_stores asks for {least}"),
    )
    .object(first.map_or("", |(place, _)| place.options.url.as_str()))
    .cause(causes.join("; "))
    .again()
}

/// The stores by what is there.
#[derive(Default)]
struct Opened {
    repositories: Vec<(NamedPlace, Repository)>,
    empty: Vec<(NamedPlace, Arc<dyn Store>)>,
    missing: Vec<(NamedPlace, Failure)>,
}

impl Opened {
    fn sort(places: Vec<NamedPlace>, there: Vec<There>) -> Self {
        let mut sorted = Self::default();
        for (place, there) in places.into_iter().zip(there) {
            match there {
                There::Repository(repository) => sorted.repositories.push((place, repository)),
                There::Empty(store) => sorted.empty.push((place, store)),
                There::Out(failure) => sorted.missing.push((place, failure)),
            }
        }
        sorted
    }

    async fn finish(mut self, request: &Request, may_make: bool, progress: &dyn Progress) -> Outcome<Stores> {
        let asked = self.repositories.len() + self.empty.len() + self.missing.len();
        let writable = self.repositories.len() + self.empty.len();
        if writable < request.min_stores.max(1) {
            return Err(too_few(&self.missing, request.min_stores.max(1), asked));
        }
        // Who does not answer may hold it: a second repository beside it would stop every backup once it answers again.
        if self.repositories.is_empty() && !self.missing.is_empty() {
            return Err(too_few(&self.missing, asked, asked));
        }
        // One that already holds the repository decides, even where it is not named first: an empty one knows no history. Where none does, everybody who
        // begins now begins with the same one, in whatever order he names them.
        let all_empty = self.repositories.is_empty();
        let mut empty = std::mem::take(&mut self.empty);
        if all_empty {
            empty.sort_by(|(one, _), (other, _)| one.options.url.cmp(&other.options.url));
        }
        for (place, store) in empty {
            if may_make {
                self.make(place, store, progress).await?;
            } else if self.repositories.is_empty() {
                let error = RepositoryError::NoRepository { root: store.root().to_owned(), empty: true };
                return Err(place::failure(&place.options, "the repository cannot be opened", &error));
            } else {
                let failure = Failure::new(Code::NoRepository, "it is empty, and the first backup makes it the repository");
                self.missing.push((place, failure));
            }
        }
        let Self { mut repositories, missing, .. } = self;
        if all_empty {
            let at = |place: &NamedPlace| request.stores.iter().position(|named| named.name == place.name);
            repositories.sort_by_key(|(place, _)| at(place));
        }
        if repositories.is_empty() || (may_make && repositories.len() < request.min_stores.max(1)) {
            return Err(too_few(&missing, request.min_stores.max(1), asked));
        }
        for (place, failure) in &missing {
            progress.say(&format!("note: store {} is left out: {}", place.described(), reason(failure)));
        }
        for (place, repository) in repositories.iter().filter(|_| !request.dry_run) {
            known_stores::remember(state_directory().as_deref(), &place.options.url, repository.id());
        }
        let (members, repositories): (Vec<NamedPlace>, Vec<Repository>) = repositories.into_iter().unzip();
        let all: Vec<Arc<dyn Store>> = repositories.iter().map(|repository| Arc::clone(repository.store())).collect();
        let signers = place::signers(&members[0].options)?;
        let mirror = (all.len() > 1).then(|| MirrorStore::new(Arc::clone(&all[0]), all[1..].to_vec(), request.min_stores));
        let on: Arc<dyn Store> = match &mirror {
            Some(mirror) => Arc::new(mirror.clone()),
            None => Arc::clone(&all[0]),
        };
        let opened = Repository::open(on).await;
        let repository = opened.map_err(|error| place::failure(&members[0].options, "the repository cannot be opened", &error))?;
        Ok(Stores { repository: repository.with_signers(signers), members, mirror, missing, least: request.min_stores.max(1) })
    }

    /// Makes an empty store the repository that is known, or a new one where none is.
    ///
    /// # Errors
    /// Another repository was begun there meanwhile; the first one of all cannot be made: it may be there all the same, and a second one elsewhere would stop
    /// every backup.
    async fn make(&mut self, place: NamedPlace, store: Arc<dyn Store>, progress: &dyn Progress) -> Outcome<()> {
        let made = match self.repositories.first() {
            Some((_, known)) => known.seed(store).await.map(|repository| (repository, true)),
            // Another cluster's first backup may make it at this moment.
            None => Repository::open_or_init(store, Timestamp::now()).await,
        };
        match made {
            Ok((repository, is_new)) => {
                if is_new {
                    progress.say(&format!("made the repository at {} (id {})", place.options.url, repository.id()));
                }
                self.repositories.push((place, repository));
            }
            Err(RepositoryError::AlreadyThere { id, .. }) if !self.repositories.is_empty() => {
                let (first, known) = &self.repositories[0];
                return Err(stores::other_repository(first, known.id(), &place, &id));
            }
            Err(error) => {
                let failure = place::failure(&place.options, "the repository cannot be made", &error);
                if self.repositories.is_empty() {
                    return Err(failure);
                }
                self.missing.push((place, failure));
            }
        }
        Ok(())
    }
}

/// The sentence that a store is missing, with the command that catches it up.
pub(super) fn catch_up(stores: &Stores, cluster: &ClusterName) -> Vec<(String, Vec<String>)> {
    let from = &stores.holder().options;
    let one = |(place, failure): &(NamedPlace, Failure)| {
        let text = format!("the backup is not on store {}: {}", place.described(), stores::reason(failure));
        (text, copy_command(from, &place.options, Some(cluster)))
    };
    stores.missing().iter().map(one).collect()
}
