//! Everything a cluster can still be asked about its keys, for comparison before and after.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use etcd_api::{Client, KeyRange, KeyValue, RangeRequest, WatchEvent, WatchMessage, WatchRequest};
use etcd_store::id::{LeaseId, Revision};

/// Keys per page.
const PAGE: u32 = 500;
/// Silence after which a watch is taken to have told everything; checked against the live keys afterwards.
const QUIET: Duration = Duration::from_secs(3);
const HASH_LIMIT: Duration = Duration::from_secs(60);

/// The whole readable state of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dump {
    /// The newest revision.
    pub revision: i64,
    /// The compacted revision; 0 when there was no compaction.
    pub compact_revision: i64,
    /// Every live key with all its fields, in key order.
    pub live: Vec<KeyValue>,
    /// Every key as it was at the compacted revision.
    pub base: Vec<KeyValue>,
    /// Every change since, in order.
    pub changes: Vec<WatchEvent>,
    /// Every lease: granted time to live in seconds, keys in order. What remains of it is left out, as it changes by itself.
    pub leases: BTreeMap<i64, (u64, Vec<Bytes>)>,
}

/// Reads everything from one member. The cluster must be quiet meanwhile.
pub async fn dump_all(client: &Client) -> Dump {
    let hash = client.hash_kv(None, HASH_LIMIT).await.expect("HashKV");
    // Without any compaction some releases say -1.
    let compact_revision = hash.compact_revision.0.max(0);
    let revision = client.linearizable_read().await.expect("a linearizable read").revision;
    let live = keys_at(client, revision).await;
    let base = if compact_revision > 0 { keys_at(client, Revision(compact_revision)).await } else { Vec::new() };
    let changes = changes(client, compact_revision + 1, revision.0).await;
    let dump = Dump { revision: revision.0, compact_revision, live, base, changes, leases: leases(client).await };
    dump.check_itself();
    dump
}

impl Dump {
    /// Insists that both clusters hold the same live keys, field by field, whatever their revision and history. This is what a restore past a
    /// bumped revision must keep.
    pub fn assert_same_live(&self, other: &Self) {
        assert_same("live keys", &self.live, &other.live);
    }

    /// Insists that both clusters give the same answer to every question about revisions up to the older one's newest.
    pub fn assert_same_history(&self, other: &Self) {
        assert_eq!(self.compact_revision, other.compact_revision, "compacted revisions differ");
        assert_same("keys at the compacted revision", &self.base, &other.base);
        let until = self.revision.min(other.revision);
        let upto = |dump: &Self| -> Vec<WatchEvent> {
            dump.changes.iter().filter(|change| change.kv().mod_revision.0 <= until).cloned().collect()
        };
        assert_same("changes", &upto(self), &upto(other));
        if self.revision == other.revision {
            self.assert_same_live(other);
        }
    }

    /// Insists on the same leases with the same keys and granted times.
    pub fn assert_same_leases(&self, other: &Self) {
        assert_eq!(self.leases, other.leases);
    }

    /// The live value of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&KeyValue> {
        self.live.iter().find(|kv| kv.key == key)
    }

    /// Key to value of everything live.
    #[must_use]
    pub fn values(&self) -> BTreeMap<Bytes, Bytes> {
        self.live.iter().map(|kv| (kv.key.clone(), kv.value.clone())).collect()
    }

    /// The state at a revision that is not compacted, computed from the history alone.
    #[must_use]
    pub fn at(&self, revision: i64) -> Vec<KeyValue> {
        assert!((self.compact_revision..=self.revision).contains(&revision), "revision {revision} cannot be told");
        let mut state: BTreeMap<Bytes, KeyValue> = self.base.iter().map(|kv| (kv.key.clone(), kv.clone())).collect();
        for change in self.changes.iter().take_while(|change| change.kv().mod_revision.0 <= revision) {
            match change {
                WatchEvent::Put { kv, .. } => state.insert(kv.key.clone(), kv.clone()),
                WatchEvent::Delete { kv, .. } => state.remove(&kv.key),
            };
        }
        state.into_values().collect()
    }

    /// History and present are read by different calls; they must tell the same story, else a truncated history could pass for a short one.
    fn check_itself(&self) {
        assert_same("history replayed and live keys", &self.at(self.revision), &self.live);
    }
}

fn assert_same<T: PartialEq + std::fmt::Debug>(what: &str, one: &[T], other: &[T]) {
    if let Some(index) = (0..one.len().max(other.len())).find(|&index| one.get(index) != other.get(index)) {
        let show = |item: Option<&T>| format!("{item:?}").chars().take(400).collect::<String>();
        panic!(
            "{what}: {} and {} entries; the first difference is number {index}:\n{}\n{}",
            one.len(),
            other.len(),
            show(one.get(index)),
            show(other.get(index))
        );
    }
}

async fn keys_at(client: &Client, revision: Revision) -> Vec<KeyValue> {
    let mut all = Vec::new();
    let mut keys = KeyRange::all();
    loop {
        let request = RangeRequest { revision: Some(revision), limit: PAGE, ..RangeRequest::new(keys) };
        let page = client.range(request).await.unwrap_or_else(|error| panic!("keys at {revision}: {error:?}"));
        all.extend(page.kvs);
        if !page.more {
            return all;
        }
        let mut next = all.last().map(|kv: &KeyValue| kv.key.to_vec()).expect("a page that has a successor is not empty");
        next.push(0);
        keys = KeyRange::from(next);
    }
}

async fn changes(client: &Client, from: i64, until: i64) -> Vec<WatchEvent> {
    let mut all = Vec::new();
    if from > until {
        return all;
    }
    let request = WatchRequest { start_revision: Some(Revision(from)), ..WatchRequest::new(KeyRange::all()) };
    let mut watch = client.watch(request).await.unwrap_or_else(|error| panic!("watch from {from}: {error:?}"));
    loop {
        // The newest revision need not have an event: a bumped one has none.
        let Ok(message) = tokio::time::timeout(QUIET, watch.next()).await else { return all };
        match message.unwrap_or_else(|error| panic!("watch from {from}: {error:?}")) {
            Some(WatchMessage::Events { events, more, .. }) => {
                all.extend(events);
                let reached = all.last().is_some_and(|last: &WatchEvent| last.kv().mod_revision.0 >= until);
                if reached && !more {
                    return all;
                }
            }
            Some(WatchMessage::Progress { .. }) => {}
            None => panic!("watch from {from}: the member ended it"),
        }
    }
}

async fn leases(client: &Client) -> BTreeMap<i64, (u64, Vec<Bytes>)> {
    let mut all = BTreeMap::new();
    for LeaseId(id) in client.leases().await.expect("the list of leases") {
        let state = client.lease_time_to_live(LeaseId(id), true).await.expect("a lease");
        // It may have ended between the two calls.
        if state.remaining.is_some() {
            let mut keys = state.keys;
            keys.sort();
            all.insert(id, (state.granted.as_secs(), keys));
        }
    }
    all
}
