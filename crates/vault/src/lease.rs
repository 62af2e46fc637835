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

/// Who asks for a lease, and what for.
pub struct Claim<'a> {
    /// Host and process, for people and to know one's own.
    pub owner: &'a str,
    /// What is to be done.
    pub verb: &'a str,
    /// Whether an owner is certainly gone, so that what it holds is nobody's. In doubt: no.
    pub is_gone: &'a (dyn Fn(&str) -> bool + Sync),
    /// Make sure that the store replaces an object only if nobody has changed it, at the price of one more request. A store that does not
    /// would give the lease to everybody.
    pub proven: bool,
}

impl std::fmt::Debug for Claim<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim").field("owner", &self.owner).field("verb", &self.verb).finish_non_exhaustive()
    }
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

/// Who holds the lease of `cluster` now, if it is somebody else than `owner`, and not one who is gone. Only to be polite: it may change at once.
pub async fn held_by_another(
    store: &dyn Store,
    cluster: &ClusterName,
    owner: &str,
    is_gone: &(dyn Fn(&str) -> bool + Sync),
    now: Timestamp,
) -> Result<Option<LeaseRecord>, StoreError> {
    let found = read(store, &Key::Lease(cluster.clone()).to_string()).await?;
    let record = found.and_then(|(_, record)| record).filter(|record| record.cluster == *cluster);
    Ok(record.filter(|record| record.owner != plain_text(owner) && in_force(record, now) && !is_gone(&record.owner)))
}

/// Takes the lease of `cluster` for `ttl` (at most an hour) if nobody else holds it; one's own, and that of somebody who is gone, is taken over.
///
/// A damaged record counts as nobody's. Losing the race for it is [`Acquired::Busy`] with the winner.
pub async fn acquire(
    store: &dyn Store,
    cluster: &ClusterName,
    claim: &Claim<'_>,
    ttl: SignedDuration,
    now: Timestamp,
) -> Result<Acquired, LeaseError> {
    let key = Key::Lease(cluster.clone()).to_string();
    let found = match read(store, &key).await {
        Ok(found) => found,
        Err(error) => return refused(error.into()),
    };
    let (etag, record) = match found {
        Some((None, _)) => return Ok(Acquired::NotOffered("the store gives no etags".to_owned())),
        Some((etag, record)) => (etag, record.filter(|record| record.cluster == *cluster)),
        None => (None, None),
    };
    let owner = plain_text(claim.owner);
    match record {
        Some(record) if record.owner != owner && in_force(&record, now) && !(claim.is_gone)(&record.owner) => {
            return Ok(Acquired::Busy(record));
        }
        _ => {}
    }
    let generation = record.map_or(1, |record| record.generation.saturating_add(1));
    let (acquired, expires) = (now, expiry(now, ttl));
    let wanted =
        LeaseRecord { cluster: cluster.clone(), owner, generation, verb: plain_text(claim.verb), acquired, expires, released: false };
    match replace(store, &key, wanted, etag.as_deref()).await {
        Ok(lease) if claim.proven => prove(store, &key, lease, etag.as_deref()).await,
        Ok(lease) => Ok(Acquired::Held(lease)),
        Err(LeaseError::Lost { .. }) => match read(store, &key).await? {
            Some((_, Some(winner))) => Ok(Acquired::Busy(winner)),
            _ => Err(LeaseError::Lost { cluster: cluster.clone() }),
        },
        Err(error) => refused(error),
    }
}

/// Access denied, or a request that the store does not know: there are no leases here. Not so when it cannot be reached.
fn refused(error: LeaseError) -> Result<Acquired, LeaseError> {
    match error {
        LeaseError::Store(StoreError::Denied { detail, .. } | StoreError::Other { detail, .. }) => Ok(Acquired::NotOffered(detail)),
        error => Err(error),
    }
}

/// Tries to replace the lease once more as of the state before it was taken, which must fail.
async fn prove(store: &dyn Store, key: &str, lease: Lease, before: Option<&str>) -> Result<Acquired, LeaseError> {
    // Other bytes: a store's driver may take an object that holds what was to be written for a write that succeeded. And given back: where this
    // gets through, nobody is held up by it.
    let other = LeaseRecord { released: true, ..lease.record.clone() };
    match replace(store, key, other, before).await {
        Err(LeaseError::Lost { .. }) => Ok(Acquired::Held(lease)),
        Ok(_) => Ok(Acquired::NotOffered("the store replaces an object although somebody has changed it".to_owned())),
        Err(error) => refused(error),
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
    use std::ops::Range;
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::store::fault::{Fault, FaultKind, FaultStore, Op};
    use crate::store::{MemoryStore, ObjectInfo, Upload};

    const MINUTE: SignedDuration = SignedDuration::from_secs(60);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    async fn ask(store: &MemoryStore, owner: &str, second: i64) -> Acquired {
        let claim = Claim { owner, verb: "backup", is_gone: &|owner| owner == "gone", proven: true };
        acquire(store, &"prod".parse().unwrap(), &claim, MINUTE, at(second)).await.unwrap()
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
    async fn the_lease_of_one_who_is_gone_is_taken_over() {
        let store = MemoryStore::new();
        held(ask(&store, "gone", 0).await);
        assert_eq!(held(ask(&store, "b", 1).await).record().generation, 2);
        assert!(matches!(ask(&store, "c", 2).await, Acquired::Busy(record) if record.owner == "b"));
    }

    /// Where nothing is replaced, or everything, there are no leases, and that is no error.
    #[tokio::test]
    async fn stores_without_conditions_offer_no_lease() {
        let claim = |proven| Claim { owner: "a", verb: "backup", is_gone: &|_| false, proven };
        let cluster: ClusterName = "prod".parse().unwrap();
        let denying = FaultStore::new(Arc::new(MemoryStore::new()));
        denying.inject(Fault::new(FaultKind::Deny).on(Op::Replace));
        let acquired = acquire(&denying, &cluster, &claim(false), MINUTE, at(0)).await.unwrap();
        assert!(matches!(acquired, Acquired::NotOffered(_)), "{acquired:?}");
        let careless = Careless(MemoryStore::new());
        held(acquire(&careless, &cluster, &claim(false), MINUTE, at(0)).await.unwrap());
        let acquired = acquire(&careless, &cluster, &claim(true), MINUTE, at(1)).await.unwrap();
        assert!(matches!(&acquired, Acquired::NotOffered(why) if why.contains("somebody has changed it")), "{acquired:?}");
        let silent = FaultStore::new(Arc::new(MemoryStore::new()));
        silent.inject(Fault::new(FaultKind::FailBefore));
        let error = acquire(&silent, &cluster, &claim(false), MINUTE, at(0)).await.unwrap_err();
        assert!(matches!(error, LeaseError::Store(StoreError::Unreachable { .. })), "{error}");
    }

    /// Replaces whatever the etag is, as some compatible stores do.
    #[derive(Debug)]
    struct Careless(MemoryStore);

    #[async_trait::async_trait]
    impl Store for Careless {
        fn root(&self) -> &str {
            self.0.root()
        }

        async fn create(&self, key: &str, bytes: Bytes) -> Result<ObjectInfo, StoreError> {
            self.0.create(key, bytes).await
        }

        async fn replace(&self, key: &str, bytes: Bytes, _etag: Option<&str>) -> Result<ObjectInfo, StoreError> {
            self.0.overwrite(key, bytes);
            self.0.head(key).await
        }

        async fn delete(&self, key: &str) -> Result<(), StoreError> {
            self.0.delete(key).await
        }

        async fn upload(&self, key: &str) -> Result<Box<dyn Upload>, StoreError> {
            self.0.upload(key).await
        }

        async fn get(&self, key: &str, limit: u64) -> Result<(ObjectInfo, Bytes), StoreError> {
            self.0.get(key, limit).await
        }

        async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
            self.0.get_range(key, range).await
        }

        async fn head(&self, key: &str) -> Result<ObjectInfo, StoreError> {
            self.0.head(key).await
        }

        async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
            self.0.list(prefix).await
        }

        async fn list_shallow(&self, prefix: &str) -> Result<(Vec<ObjectInfo>, Vec<String>), StoreError> {
            self.0.list_shallow(prefix).await
        }
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
        let claim = Claim { owner: "a", verb: "backup", is_gone: &|_| false, proven: false };
        held(acquire(&store, &"other".parse().unwrap(), &claim, MINUTE, at(0)).await.unwrap());
        let (_, moved) = store.get("other/lease.json", 1 << 16).await.unwrap();
        store.overwrite("prod/lease.json", moved);
        held(ask(&store, "b", 1).await);
    }
}
