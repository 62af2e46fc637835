//! What Kubernetes does to etcd, in small and always the same for the same seed.

mod objects;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use etcd_api::{Client, DeleteRequest, KeyRange, PutRequest, Txn, TxnOp};
use etcd_store::id::{LeaseId, Revision};
use futures::stream::{self, StreamExt};

use crate::random::Random;
use objects::Maker;
pub use objects::{KUBE_SYSTEM_UID_LEN, Object};

/// Most operations etcd takes in one transaction by default (`--max-txn-ops`).
pub const TXN_OPS: usize = 128;
/// Close to the largest value etcd takes by default (`--max-request-bytes` 1.5 MiB).
pub const BIG_VALUE: usize = 1_500_000;
/// Transactions in flight while filling.
const IN_FLIGHT: usize = 4;
/// A transaction of the filler stays below this many bytes.
const FILL_TXN: usize = 900_000;

/// How much of what. The same numbers and seed give the same keys, values, leases and order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Decides everything that looks random.
    pub seed: u64,
    /// Objects created at first; namespaces, nodes and `kube-system` come on top.
    pub objects: usize,
    /// Single changes after that: updates, deletes, new objects, events with leases.
    pub changes: usize,
    /// Transactions of 128 operations.
    pub transactions: usize,
    /// Values of 1.5 MB.
    pub big_values: usize,
    /// Compactions in between, each to somewhere in the last tenth of the history.
    pub compactions: usize,
}

impl Workload {
    /// About 150 keys in a few hundred revisions: a second or so.
    #[must_use]
    pub fn small(seed: u64) -> Self {
        Self { seed, objects: 120, changes: 300, transactions: 2, big_values: 1, compactions: 1 }
    }

    /// About two thousand keys and some thousand revisions.
    #[must_use]
    pub fn medium(seed: u64) -> Self {
        Self { seed, objects: 2000, changes: 3000, transactions: 10, big_values: 4, compactions: 3 }
    }

    /// The same without compactions, so that every revision stays readable.
    #[must_use]
    pub fn without_compactions(mut self) -> Self {
        self.compactions = 0;
        self
    }

    /// The operations, in order.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation> {
        Plan::new(self).operations()
    }

    /// Does it to a cluster, one operation after the other, and returns what the cluster must now hold.
    pub async fn apply(&self, client: &Client) -> Applied {
        let mut applied = Applied::default();
        for operation in self.operations() {
            applied.apply(client, operation).await;
        }
        applied
    }
}

/// One request to etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Write a key, possibly under a lease.
    Put(Object, Option<LeaseId>),
    /// Delete a key.
    Delete(Bytes),
    /// Writes and deletes in one revision; no key twice.
    Txn(Vec<Change>),
    /// A lease with an id of our choice.
    Grant(LeaseId, Duration),
    /// End a lease, and its keys.
    Revoke(LeaseId),
    /// Forget what is older than this share (in percent) of the newest revision.
    Compact(i64),
}

/// Part of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Write.
    Put(Object),
    /// Delete.
    Delete(Bytes),
}

/// What a workload left behind, as far as the client can know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// The last revision it made.
    pub revision: i64,
    /// The last compaction it asked for; 0 for none.
    pub compact_revision: i64,
    /// Live keys and values.
    pub live: BTreeMap<Bytes, Bytes>,
    /// Live leases with their keys.
    pub leases: BTreeMap<i64, BTreeSet<Bytes>>,
}

impl Applied {
    /// Does one operation and keeps account of it.
    pub async fn apply(&mut self, client: &Client, operation: Operation) {
        match operation {
            Operation::Put(object, lease) => {
                let lease = lease.unwrap_or(LeaseId(0));
                let request = PutRequest { lease, ..PutRequest::new(object.key.clone(), object.value.clone()) };
                self.revision = client.put(request).await.expect("put").header.revision.0;
                self.written(object, lease);
            }
            Operation::Delete(key) => {
                let answer = client.delete_range(DeleteRequest::new(KeyRange::single(key.clone()))).await.expect("delete");
                self.revision = answer.header.revision.0;
                self.deleted(&key);
            }
            Operation::Txn(changes) => {
                let then = changes.iter().map(Change::request).collect();
                let answer = client.txn(Txn { then, ..Txn::default() }).await.expect("txn");
                self.revision = answer.header.revision.0;
                for change in changes {
                    match change {
                        Change::Put(object) => self.written(object, LeaseId(0)),
                        Change::Delete(key) => self.deleted(&key),
                    }
                }
            }
            Operation::Grant(id, ttl) => {
                let granted = client.lease_grant(ttl, Some(id)).await.expect("lease grant");
                assert_eq!(granted.id, id);
                self.leases.insert(id.0, BTreeSet::new());
            }
            Operation::Revoke(id) => {
                client.lease_revoke(id).await.expect("lease revoke");
                for key in self.leases.remove(&id.0).unwrap_or_default() {
                    self.live.remove(&key);
                }
                self.revision = client.linearizable_read().await.expect("read").revision.0;
            }
            Operation::Compact(percent) => {
                let target = (self.revision * percent / 100).max(self.compact_revision + 1);
                if target <= self.revision {
                    client.compact(Revision(target), true).await.expect("compact");
                    self.compact_revision = target;
                }
            }
        }
    }

    fn written(&mut self, object: Object, lease: LeaseId) {
        for keys in self.leases.values_mut() {
            keys.remove(&object.key);
        }
        if let Some(keys) = self.leases.get_mut(&lease.0) {
            keys.insert(object.key.clone());
        }
        self.live.insert(object.key, object.value);
    }

    fn deleted(&mut self, key: &Bytes) {
        self.live.remove(key);
        for keys in self.leases.values_mut() {
            keys.remove(key);
        }
    }
}

impl Change {
    fn request(&self) -> TxnOp {
        match self {
            Self::Put(object) => TxnOp::Put(PutRequest::new(object.key.clone(), object.value.clone())),
            Self::Delete(key) => TxnOp::Delete(DeleteRequest::new(KeyRange::single(key.clone()))),
        }
    }
}

/// Writes new objects worth `bytes` of values as fast as the cluster takes them; for tests and benchmarks that need size rather than variety.
/// Returns how many objects there are. The set of keys is always the same for the same seed and size; their revisions are not.
pub async fn fill(client: &Client, seed: u64, bytes: u64) -> u64 {
    let mut maker = Maker::new(Random::new(seed));
    let mut left = bytes;
    let mut count = 0;
    let batches = std::iter::from_fn(|| {
        let (mut batch, mut size) = (Vec::new(), 0);
        while left > 0 && batch.len() < TXN_OPS && size < FILL_TXN {
            let object = maker.any();
            size += object.value.len();
            left = left.saturating_sub(object.value.len() as u64);
            batch.push(Change::Put(object));
        }
        count += batch.len() as u64;
        (!batch.is_empty()).then_some(batch)
    });
    stream::iter(batches)
        .for_each_concurrent(IN_FLIGHT, |batch| async move {
            let then = batch.iter().map(Change::request).collect();
            client.txn(Txn { then, ..Txn::default() }).await.expect("txn");
        })
        .await;
    count
}

/// Turns the numbers of a [`Workload`] into operations.
struct Plan<'a> {
    spec: &'a Workload,
    random: Random,
    maker: Maker,
    keys: Vec<Bytes>,
    leases: Vec<LeaseId>,
    operations: Vec<Operation>,
}

/// Kubernetes gives events an hour; long enough that none ends during a test.
const EVENT_TTL: Duration = Duration::from_secs(3600);

impl<'a> Plan<'a> {
    fn new(spec: &'a Workload) -> Self {
        let mut random = Random::new(spec.seed);
        let maker = Maker::new(random.split());
        Self { spec, random, maker, keys: Vec::new(), leases: Vec::new(), operations: Vec::new() }
    }

    fn operations(mut self) -> Vec<Operation> {
        for object in self.maker.cluster() {
            self.operations.push(Operation::Put(object, None));
        }
        for _ in 0..self.spec.objects {
            self.create();
        }
        let changes = self.spec.changes.max(1);
        let due = |count: usize, step: usize| count > 0 && (step * count) / changes != ((step + 1) * count) / changes;
        for step in 0..self.spec.changes {
            self.change();
            if due(self.spec.transactions, step) {
                self.transaction();
            }
            if due(self.spec.big_values, step) {
                let object = self.maker.big(BIG_VALUE);
                self.keys.push(object.key.clone());
                self.operations.push(Operation::Put(object, None));
            }
            if due(self.spec.compactions, step) {
                self.operations.push(Operation::Compact(90 + self.random.below(10) as i64));
            }
        }
        self.operations
    }

    fn create(&mut self) {
        let object = self.maker.any();
        self.keys.push(object.key.clone());
        self.operations.push(Operation::Put(object, None));
    }

    fn change(&mut self) {
        match self.random.below(100) {
            0..=54 => {
                if let Some(key) = self.some_key() {
                    let object = self.maker.update(&key);
                    self.operations.push(Operation::Put(object, None));
                }
            }
            55..=69 => self.delete(),
            70..=84 => self.create(),
            85..=96 => self.event(),
            _ if self.leases.len() > 2 => {
                let lease = self.leases.remove(0);
                self.operations.push(Operation::Revoke(lease));
            }
            _ => self.create(),
        }
    }

    fn delete(&mut self) {
        if self.keys.len() > 10 {
            let at = self.random.below(self.keys.len() as u64) as usize;
            let key = self.keys.swap_remove(at);
            self.operations.push(Operation::Delete(key));
        }
    }

    /// The API server reuses one lease for events of about a minute.
    fn event(&mut self) {
        if self.leases.is_empty() || self.random.below(4) == 0 {
            let id = LeaseId(((self.random.next() >> 1) | 1 << 60).cast_signed());
            self.leases.push(id);
            self.operations.push(Operation::Grant(id, EVENT_TTL));
        }
        let lease = self.leases.last().copied();
        let event = self.maker.event();
        self.operations.push(Operation::Put(event, lease));
    }

    fn transaction(&mut self) {
        let mut changes = Vec::new();
        let mut used = BTreeSet::new();
        while changes.len() < TXN_OPS {
            if changes.len() % 8 == 7
                && self.keys.len() > 20
                && let Some(key) = self.some_key().filter(|key| !used.contains(key))
            {
                self.keys.retain(|other| *other != key);
                used.insert(key.clone());
                changes.push(Change::Delete(key));
            } else {
                let object = self.maker.any();
                if used.insert(object.key.clone()) {
                    self.keys.push(object.key.clone());
                    changes.push(Change::Put(object));
                }
            }
        }
        // A key deleted here must not have been chosen after it was made here.
        self.operations.push(Operation::Txn(changes));
    }

    fn some_key(&mut self) -> Option<Bytes> {
        let count = self.keys.len() as u64;
        (count > 0).then(|| self.keys[self.random.below(count) as usize].clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_operations() {
        let spec = Workload::small(7);
        assert_eq!(spec.operations(), spec.operations());
        assert_ne!(spec.operations(), Workload::small(8).operations());
    }

    #[test]
    fn there_is_some_of_everything() {
        let operations = Workload::small(1).operations();
        let count = |wanted: fn(&Operation) -> bool| operations.iter().filter(|operation| wanted(operation)).count();
        assert!(count(|operation| matches!(operation, Operation::Delete(_))) > 10);
        assert!(count(|operation| matches!(operation, Operation::Put(_, Some(_)))) > 10);
        assert!(count(|operation| matches!(operation, Operation::Revoke(_))) > 0);
        assert_eq!(count(|operation| matches!(operation, Operation::Compact(_))), 1);
        assert_eq!(count(|operation| matches!(operation, Operation::Txn(changes) if changes.len() == TXN_OPS)), 2);
        assert_eq!(count(|operation| matches!(operation, Operation::Put(object, _) if object.value.len() >= BIG_VALUE)), 1);
        let distinct = |changes: &[Change]| {
            let keys: BTreeSet<&Bytes> = changes
                .iter()
                .map(|change| match change {
                    Change::Put(object) => &object.key,
                    Change::Delete(key) => key,
                })
                .collect();
            keys.len() == changes.len()
        };
        assert!(operations.iter().all(|operation| !matches!(operation, Operation::Txn(changes) if !distinct(changes))));
    }
}
