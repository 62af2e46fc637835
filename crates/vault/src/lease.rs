//! `lease.json`: who works on a cluster now, so that two hosts do not do the same work twice.
//!
//! The only mutable object. Nothing is ever correct because of it: two writers make two backups with two ids, and both are sound. A store or
//! credentials that cannot replace objects simply offer no lease. It is replaced under its etag and never deleted, so that a late writer cannot
//! remove what another one holds.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::canonical::{self, Object};
use crate::key::Key;
use crate::limits;
use crate::manifest::plain_text;
use crate::name::ClusterName;
use crate::store::{Store, StoreError};

/// The object `<cluster>/lease.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// The cluster, equal to the one in its key.
    pub cluster: ClusterName,
    /// Who holds it: host and process, for people and to know one's own.
    pub owner: String,
    /// Counted up by one each time it changes hands.
    pub generation: u64,
    /// What is being done.
    pub verb: String,
    /// When it was taken.
    pub acquired: Timestamp,
    /// When it ends if it is not renewed.
    pub expires: Timestamp,
    /// Given back: anybody may take it.
    pub released: bool,
}

impl Object for LeaseRecord {
    const SCHEMA: &'static str = "lifeboat.lease/1";
    const LIMIT: usize = limits::SMALL_JSON_BYTES;
}

/// A lease that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    record: LeaseRecord,
    etag: Option<String>,
}

/// What came of asking for a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// It is held now.
    Held(Lease),
    /// Somebody else holds it.
    Busy(LeaseRecord),
    /// This store, or these credentials, cannot hold leases. Work goes on without one.
    NotOffered(String),
}

/// A lease that was held is not any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// Somebody else took it after it had expired.
    #[error("the lease of cluster {cluster} was lost to another writer")]
    Lost {
        /// The cluster.
        cluster: ClusterName,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The record cannot be written.
    #[error(transparent)]
    Encode(#[from] canonical::EncodeError),
}

impl Lease {
    /// What is stored.
    pub fn record(&self) -> &LeaseRecord {
        &self.record
    }
}

fn expiry(now: Timestamp, ttl: SignedDuration) -> Timestamp {
    let bounded = ttl.clamp(SignedDuration::from_secs(1), SignedDuration::from_secs(limits::LEASE_SECONDS));
    now.checked_add(bounded).unwrap_or(Timestamp::MAX)
}

fn in_force(record: &LeaseRecord, now: Timestamp) -> bool {
    // A clock far ahead must not lock everybody out: nobody is granted more than this.
    let longest = expiry(now, SignedDuration::from_secs(limits::LEASE_SECONDS));
    !record.released && record.expires > now && record.expires <= longest
}

/// Reads the lease: its etag, and its record where that is sound.
async fn read(store: &dyn Store, key: &str) -> Result<Option<(Option<String>, Option<LeaseRecord>)>, StoreError> {
    match store.get(key, limits::SMALL_JSON_BYTES as u64).await {
        Ok((info, bytes)) => Ok(Some((info.etag, canonical::decode(&bytes).ok()))),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes the lease of `cluster` for `ttl` (at most an hour) if nobody else holds it; one's own is taken over.
///
/// A damaged record counts as nobody's. Losing the race for it is [`Acquired::Busy`] with the winner.
pub async fn acquire(
    store: &dyn Store,
    cluster: &ClusterName,
    owner: &str,
    verb: &str,
    ttl: SignedDuration,
    now: Timestamp,
) -> Result<Acquired, LeaseError> {
    let key = Key::Lease(cluster.clone()).to_string();
    let found = match read(store, &key).await {
        Ok(found) => found,
        Err(StoreError::Denied { detail, .. }) => return Ok(Acquired::NotOffered(detail)),
        Err(error) => return Err(error.into()),
    };
    let (etag, record) = match found {
        Some((None, _)) => return Ok(Acquired::NotOffered("the store gives no etags".to_owned())),
        Some((etag, record)) => (etag, record.filter(|record| record.cluster == *cluster)),
        None => (None, None),
    };
    let owner = plain_text(owner);
    match record {
        Some(record) if record.owner != owner && in_force(&record, now) => return Ok(Acquired::Busy(record)),
        _ => {}
    }
    let generation = record.map_or(1, |record| record.generation.saturating_add(1));
    let (acquired, expires) = (now, expiry(now, ttl));
    let wanted = LeaseRecord { cluster: cluster.clone(), owner, generation, verb: plain_text(verb), acquired, expires, released: false };
    match replace(store, &key, wanted, etag.as_deref()).await {
        Ok(lease) => Ok(Acquired::Held(lease)),
        Err(LeaseError::Lost { .. }) => match read(store, &key).await? {
            Some((_, Some(winner))) => Ok(Acquired::Busy(winner)),
            _ => Err(LeaseError::Lost { cluster: cluster.clone() }),
        },
        Err(LeaseError::Store(StoreError::Denied { detail, .. })) => Ok(Acquired::NotOffered(detail)),
        Err(error) => Err(error),
    }
}

async fn replace(store: &dyn Store, key: &str, record: LeaseRecord, etag: Option<&str>) -> Result<Lease, LeaseError> {
    let bytes = canonical::encode(&record)?;
    match store.replace(key, bytes.into(), etag).await {
        Ok(info) => Ok(Lease { record, etag: info.etag }),
        Err(StoreError::Changed { .. } | StoreError::AlreadyExists { .. } | StoreError::NotFound { .. }) => {
            Err(LeaseError::Lost { cluster: record.cluster })
        }
        Err(error) => Err(error.into()),
    }
}

/// Holds a lease for another `ttl` from `now`.
pub async fn renew(store: &dyn Store, lease: &Lease, ttl: SignedDuration, now: Timestamp) -> Result<Lease, LeaseError> {
    let key = Key::Lease(lease.record.cluster.clone()).to_string();
    let record = LeaseRecord { expires: expiry(now, ttl), ..lease.record.clone() };
    replace(store, &key, record, lease.etag.as_deref()).await
}

/// Gives a lease back. One that was lost meanwhile is left to its new owner.
pub async fn release(store: &dyn Store, lease: Lease, now: Timestamp) -> Result<(), LeaseError> {
    let key = Key::Lease(lease.record.cluster.clone()).to_string();
    let record = LeaseRecord { expires: now, released: true, ..lease.record };
    match replace(store, &key, record, lease.etag.as_deref()).await {
        Ok(_) | Err(LeaseError::Lost { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::MemoryStore;

    const MINUTE: SignedDuration = SignedDuration::from_secs(60);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    async fn ask(store: &MemoryStore, owner: &str, second: i64) -> Acquired {
        acquire(store, &"prod".parse().unwrap(), owner, "backup", MINUTE, at(second)).await.unwrap()
    }

    fn held(acquired: Acquired) -> Lease {
        match acquired {
            Acquired::Held(lease) => lease,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn one_at_a_time() {
        let store = MemoryStore::new();
        let lease = held(ask(&store, "a", 0).await);
        assert!(matches!(ask(&store, "b", 59).await, Acquired::Busy(record) if record.owner == "a"));
        release(&store, lease, at(30)).await.unwrap();
        assert_eq!(held(ask(&store, "b", 31).await).record().generation, 2);
    }

    #[tokio::test]
    async fn an_expired_lease_is_taken_and_its_owner_notices() {
        let store = MemoryStore::new();
        let old = held(ask(&store, "a", 0).await);
        let new = held(ask(&store, "b", 60).await);
        assert!(matches!(renew(&store, &old, MINUTE, at(61)).await, Err(LeaseError::Lost { .. })));
        release(&store, old, at(62)).await.unwrap();
        let renewed = renew(&store, &new, MINUTE, at(63)).await.unwrap();
        assert_eq!(renewed.record().expires, at(123));
    }

    #[tokio::test]
    async fn ones_own_lease_is_taken_over() {
        let store = MemoryStore::new();
        held(ask(&store, "a", 0).await);
        assert_eq!(held(ask(&store, "a", 1).await).record().generation, 2);
    }

    #[tokio::test]
    async fn damage_and_mad_clocks_lock_nobody_out() {
        let store = MemoryStore::new();
        store.overwrite("prod/lease.json", &b"junk"[..]);
        held(ask(&store, "a", 0).await);
        let store = MemoryStore::new();
        held(ask(&store, "a", 100_000_000).await);
        held(ask(&store, "b", 0).await);
    }

    #[tokio::test]
    async fn a_record_of_another_cluster_is_nobodys() {
        let store = MemoryStore::new();
        held(acquire(&store, &"other".parse().unwrap(), "a", "backup", MINUTE, at(0)).await.unwrap());
        let (_, moved) = store.get("other/lease.json", 1 << 16).await.unwrap();
        store.overwrite("prod/lease.json", moved);
        held(ask(&store, "b", 1).await);
    }
}
