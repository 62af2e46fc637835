//! A repository on one store: making it, opening it, writing lineages, manifests and marks in the right order.
//!
//! Order of writes: `RESTORE.txt`, the marker; lineage; data, frames and extras under a new id; the manifest's signature; the manifest. Readers go
//! the other way: manifests, then lineages, then marks. So whatever a reader sees, what it refers to was there before it.

pub mod catalog;
mod fetch;
mod load;
pub mod proof;
pub mod resolve;
mod seed;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

pub use catalog::{Backup, Catalog, MarkEntry, Problem, ProblemKind, Uncommitted};
pub use proof::Proof;
pub use resolve::{Reach, ResolveError, Resolved, Selector};

use crate::canonical::{self, DecodeError, EncodeError};
use crate::digest::Sha256;
use crate::key::{self, Key, SnapshotObject};
use crate::lineage::Lineage;
use crate::manifest::Manifest;
use crate::mark::{Mark, Previous, Statement};
use crate::marker::{FORMAT, Marker};
use crate::name::{ClusterName, MarkId, RepositoryId};
use crate::sign::{Binding, Role, SignError, SigningKey, TrustedSigners};
use crate::store::{Store, StoreError};
use crate::{limits, random, restore_txt};

/// Why something on a repository failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepositoryError {
    /// There is no marker (exit 10).
    #[error("{root}: there is no repository here ({})", if *.empty { "the place is empty" } else { "there are other things, but no lifeboat.json" })]
    NoRepository {
        /// The place.
        root: String,
        /// Whether nothing is there at all, so that `init` could make one.
        empty: bool,
    },
    /// There is one already, and another was to be made.
    #[error("{root}: there is a repository here already, with the id {id}")]
    AlreadyThere {
        /// The place.
        root: String,
        /// Its id.
        id: RepositoryId,
    },
    /// The marker cannot be read.
    #[error("{root}: lifeboat.json: {error}")]
    Marker {
        /// The place.
        root: String,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// A manifest, lineage or mark is not fit to be written; nothing was.
    #[error("{key} is not written: {detail}")]
    Unfit {
        /// The object's key.
        key: String,
        /// Why.
        detail: String,
    },
    /// Another writer wrote another object under this key.
    #[error("{key}: another writer was faster and wrote something else")]
    Conflict {
        /// The object's key.
        key: String,
    },
    /// The manifest was sent, and neither the store's answer nor a look at it came through: the backup may be listed or not.
    #[error("{key} was sent, and what became of it cannot be found out: {detail}")]
    Unsettled {
        /// The manifest's key.
        key: String,
        /// The last error's words.
        detail: String,
    },
    /// One object cannot be read.
    #[error("{0}")]
    Object(Problem),
    /// The value cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// It cannot be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// No random bytes for a name.
    #[error(transparent)]
    Random(#[from] random::NoRandomness),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is at a place.
#[derive(Debug)]
pub enum Place {
    /// A repository.
    Repository(Repository),
    /// Nothing (or only the `RESTORE.txt` of an `init` that was cut off): a repository can be made here.
    Empty,
    /// Other things, without a marker.
    Other,
}

/// What a commit left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The manifest as stored.
    pub bytes: Bytes,
    /// Its digest, for the `parents` of the next one.
    pub sha256: Sha256,
    /// Its signature as stored.
    pub signature: Option<Bytes>,
}

/// An open repository on one store.
#[derive(Clone)]
pub struct Repository {
    store: Arc<dyn Store>,
    marker: Marker,
    signers: TrustedSigners,
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Repository({} at {})", self.marker.repository, self.store.root())
    }
}

impl Repository {
    /// Looks what is at a place. A marker that cannot be read is an error, not an empty place.
    pub async fn look(store: Arc<dyn Store>) -> Result<Place, RepositoryError> {
        if let Some(there) = Self::marked(&store).await? {
            return Ok(Place::Repository(there));
        }
        let (objects, prefixes) = store.list_shallow("").await?;
        if prefixes.is_empty() && objects.iter().all(|object| object.key == key::RESTORE_TEXT) {
            return Ok(Place::Empty);
        }
        // What was listed may be a repository that somebody has begun since the marker was looked for.
        Ok(Self::marked(&store).await?.map_or(Place::Other, Place::Repository))
    }

    /// By its marker alone.
    async fn marked(store: &Arc<dyn Store>) -> Result<Option<Self>, RepositoryError> {
        let bytes = match store.get(key::MARKER, limits::SMALL_JSON_BYTES as u64).await {
            Ok((_, bytes)) => bytes,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let marker = Marker::decode(&bytes).map_err(|error| RepositoryError::Marker { root: store.root().to_owned(), error })?;
        Ok(Some(Self { store: Arc::clone(store), marker, signers: TrustedSigners::default() }))
    }

    /// Opens a repository.
    pub async fn open(store: Arc<dyn Store>) -> Result<Self, RepositoryError> {
        let root = store.root().to_owned();
        match Self::look(store).await? {
            Place::Repository(repository) => Ok(repository),
            Place::Empty => Err(RepositoryError::NoRepository { root, empty: true }),
            Place::Other => Err(RepositoryError::NoRepository { root, empty: false }),
        }
    }

    /// Makes a repository at an empty place.
    pub async fn init(store: Arc<dyn Store>, now: Timestamp) -> Result<Self, RepositoryError> {
        Self::init_as(store, RepositoryId::new(now)?, now).await
    }

    /// Opens the repository that is there, or makes one at an empty place. The second answer says that it was made here.
    ///
    /// Of several that begin at once one makes it, and it is the repository of all of them.
    pub async fn open_or_init(store: Arc<dyn Store>, now: Timestamp) -> Result<(Self, bool), RepositoryError> {
        if let Place::Repository(there) = Self::look(Arc::clone(&store)).await? {
            return Ok((there, false));
        }
        match Self::init(Arc::clone(&store), now).await {
            Err(RepositoryError::AlreadyThere { .. }) => Ok((Self::open(store).await?, false)),
            made => Ok((made?, true)),
        }
    }

    /// Makes a copy's beginning at an empty place: a repository with the id of another.
    ///
    /// Finding a repository with this id there is success: the same call was made before.
    pub async fn init_as(store: Arc<dyn Store>, id: RepositoryId, now: Timestamp) -> Result<Self, RepositoryError> {
        let root = store.root().to_owned();
        match Self::look(store.clone()).await? {
            Place::Repository(there) if there.marker.repository == id => return Ok(there),
            Place::Repository(there) => return Err(RepositoryError::AlreadyThere { root, id: there.marker.repository }),
            Place::Other => return Err(RepositoryError::NoRepository { root, empty: false }),
            Place::Empty => {}
        }
        // First, so that no backup can be in a place without it. Another release's text is as good.
        match store.create(key::RESTORE_TEXT, restore_txt::text().into()).await {
            Ok(_) | Err(StoreError::AlreadyExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let marker = Marker { format: FORMAT, repository: id, created: now };
        match store.create(key::MARKER, canonical::encode(&marker)?.into()).await {
            Ok(_) => Ok(Self { store, marker, signers: TrustedSigners::default() }),
            Err(StoreError::AlreadyExists { .. }) => match Self::open(store).await? {
                there if there.marker.repository == id => Ok(there),
                there => Err(RepositoryError::AlreadyThere { root, id: there.marker.repository }),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// The same repository, read with these trusted signers.
    #[must_use]
    pub fn with_signers(self, signers: TrustedSigners) -> Self {
        Self { signers, ..self }
    }

    /// Its id.
    pub fn id(&self) -> &RepositoryId {
        &self.marker.repository
    }

    /// Its marker.
    pub fn marker(&self) -> &Marker {
        &self.marker
    }

    /// The store it is on.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The signers it is read with.
    pub fn signers(&self) -> &TrustedSigners {
        &self.signers
    }

    /// The clusters that have anything in it, sorted. Directories whose name is no cluster's are left out.
    pub async fn clusters(&self) -> Result<Vec<ClusterName>, RepositoryError> {
        let (_, prefixes) = self.store.list_shallow("").await?;
        Ok(prefixes.iter().filter_map(|prefix| prefix.parse().ok()).collect())
    }

    /// Reads everything that is known of a cluster. Damage of single objects is in [`Catalog::problems`]; a store that does not answer is an error.
    pub async fn catalog(&self, cluster: &ClusterName) -> Result<Catalog, RepositoryError> {
        load::load(self, cluster).await
    }

    /// Writes a lineage's object. The same object there already is success; another one under its name is a conflict: decide again.
    pub async fn write_lineage(&self, cluster: &ClusterName, lineage: &Lineage) -> Result<(), RepositoryError> {
        let key = Key::Lineage(cluster.clone(), lineage.name).to_string();
        let bytes = canonical::encode(lineage)?;
        Lineage::decode(&bytes, &lineage.name).map_err(|e| RepositoryError::Unfit { key: key.clone(), detail: e.to_string() })?;
        create(&*self.store, &key, bytes.clone().into()).await?;
        // "Already exists" with the same bytes is success for the store, so nothing is left to compare.
        Ok(())
    }

    /// Commits a backup whose objects are all stored: looks at each (it must be there with the stated size), writes the signature, then the
    /// manifest, create-only. Before this returns the backup is not listed; after it, it is. After [`RepositoryError::Unsettled`] nobody knows.
    ///
    /// `signer` is given exactly when `manifest.signer` names it. An id older than 24 h by `now` is refused.
    pub async fn commit(&self, manifest: &Manifest, signer: Option<&SigningKey>, now: Timestamp) -> Result<Committed, RepositoryError> {
        let key = Key::Snapshot(manifest.cluster.clone(), manifest.id, SnapshotObject::Manifest).to_string();
        let unfit = |detail: String| RepositoryError::Unfit { key: key.clone(), detail };
        self.check_fit(manifest, signer, now).map_err(unfit)?;
        let bytes = Bytes::from(canonical::encode(manifest)?);
        Manifest::decode(&bytes).map_err(|e| unfit(e.to_string()))?;
        self.look_at_objects(manifest).await?;

        let binding = Binding { repository: self.id(), cluster: &manifest.cluster, id: &manifest.id, role: Role::Manifest };
        let signature = signer.map(|signer| signer.sign(&bytes, &binding)).transpose()?.map(Bytes::from);
        if let Some(signature) = &signature {
            let key = Key::Snapshot(manifest.cluster.clone(), manifest.id, SnapshotObject::ManifestSignature).to_string();
            create(&*self.store, &key, signature.clone()).await?;
        }
        create(&*self.store, &key, bytes.clone()).await.map_err(|error| match error {
            RepositoryError::Store(StoreError::Unreachable { key, detail }) => RepositoryError::Unsettled { key, detail },
            error => error,
        })?;
        Ok(Committed { sha256: Sha256::of(&bytes), bytes, signature })
    }

    fn check_fit(&self, manifest: &Manifest, signer: Option<&SigningKey>, now: Timestamp) -> Result<(), String> {
        manifest.check()?;
        if manifest.repository != *self.id() {
            return Err(format!("it is for repository {}, this one is {}", manifest.repository, self.id()));
        }
        if manifest.signer != signer.map(|signer| signer.public().id()) {
            return Err("the key it names as signer is not the one it is signed with".to_owned());
        }
        let age = now.duration_since(manifest.id.start()).as_secs();
        if age > limits::COMMIT_WITHIN_SECONDS {
            return Err(format!("its attempt began {} h ago; after 24 h its data may have been removed as left over", age / 3600));
        }
        Ok(())
    }

    async fn look_at_objects(&self, manifest: &Manifest) -> Result<(), RepositoryError> {
        let lineage = Key::Lineage(manifest.cluster.clone(), manifest.lineage).to_string();
        self.store.head(&lineage).await?;
        for object in &manifest.objects {
            let key = Key::Snapshot(manifest.cluster.clone(), manifest.id, object.name.clone()).to_string();
            let there = self.store.head(&key).await?.size;
            if there != object.size {
                let detail = format!("{} has {there} bytes in the store, {} were written", object.name, object.size);
                return Err(RepositoryError::Unfit { key, detail });
            }
        }
        Ok(())
    }

    /// Writes a mark: its signature first, where there is a key, then the mark. `prev` is the newest mark the caller has seen; the new one sorts
    /// behind it.
    pub async fn write_mark(
        &self,
        cluster: &ClusterName,
        statement: Statement,
        prev: Option<Previous>,
        signer: Option<&SigningKey>,
        now: Timestamp,
    ) -> Result<Mark, RepositoryError> {
        let mark = Mark {
            id: MarkId::after(prev.as_ref().map(|prev| &prev.id), now)?,
            repository: *self.id(),
            cluster: cluster.clone(),
            statement,
            prev,
        };
        let bytes = Bytes::from(mark.encode()?);
        if let Some(signer) = signer {
            let binding = Binding { repository: self.id(), cluster, id: &mark.id, role: Role::Mark };
            let signature = signer.sign(&bytes, &binding)?;
            create(&*self.store, &Key::MarkSignature(cluster.clone(), mark.id).to_string(), signature.into()).await?;
        }
        create(&*self.store, &Key::Mark(cluster.clone(), mark.id).to_string(), bytes).await?;
        Ok(mark)
    }
}

async fn create(store: &dyn Store, key: &str, bytes: Bytes) -> Result<(), RepositoryError> {
    match store.create(key, bytes).await {
        Ok(_) => Ok(()),
        Err(StoreError::AlreadyExists { key }) => Err(RepositoryError::Conflict { key }),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
