//! Keys, transactions and leases.

use std::time::Duration;

use bytes::Bytes;
use etcd_store::id::{LeaseId, Revision};

use super::{Header, Unexpected};
use crate::pb;

/// One version of one key, with all six fields that etcd stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key; never empty in etcd.
    pub key: Bytes,
    /// Revision at which the key came into being after its last deletion.
    pub create_revision: Revision,
    /// Revision of this version.
    pub mod_revision: Revision,
    /// 1 for the first version since creation; 0 in a deletion.
    pub version: i64,
    /// The value; empty when only keys were asked for.
    pub value: Bytes,
    /// The lease that holds the key; zero is none.
    pub lease: LeaseId,
}

impl From<pb::KeyValue> for KeyValue {
    fn from(kv: pb::KeyValue) -> Self {
        Self {
            key: kv.key,
            create_revision: Revision(kv.create_revision),
            mod_revision: Revision(kv.mod_revision),
            version: kv.version,
            value: kv.value,
            lease: LeaseId(kv.lease),
        }
    }
}

/// Which keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    key: Bytes,
    end: Bytes,
}

/// How etcd spells "no upper bound", and as a key the smallest one that can be asked for.
const ZERO_BYTE: Bytes = Bytes::from_static(&[0]);

impl KeyRange {
    /// Exactly one key.
    #[must_use]
    pub fn single(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), end: Bytes::new() }
    }

    /// Every key.
    #[must_use]
    pub fn all() -> Self {
        Self { key: ZERO_BYTE, end: ZERO_BYTE }
    }

    /// Every key from `start` on, `start` included.
    #[must_use]
    pub fn from(start: impl Into<Bytes>) -> Self {
        Self { key: non_empty(start.into()), end: ZERO_BYTE }
    }

    /// Every key at or above `start` and below `end`. Empty when `end` is not above `start`.
    #[must_use]
    pub fn between(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        let key = non_empty(start.into());
        // An empty end would mean "only the start"; an end equal to the start is an empty range to etcd.
        let end = end.into();
        let end = if end.is_empty() { key.clone() } else { end };
        Self { key, end }
    }

    /// Every key that begins with `prefix`; all keys for an empty one.
    #[must_use]
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let prefix = prefix.into();
        if prefix.is_empty() {
            return Self::all();
        }
        // The bound is the prefix with its last byte below 0xff raised by one and the rest cut off.
        let end = match prefix.iter().rposition(|&byte| byte != 0xff) {
            Some(last) => {
                let mut end = prefix.slice(..=last).to_vec();
                if let Some(byte) = end.last_mut() {
                    *byte = byte.saturating_add(1);
                }
                Bytes::from(end)
            }
            None => ZERO_BYTE,
        };
        Self { key: prefix, end }
    }

    /// First key, as it goes over the wire.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// etcd's `range_end`: empty for a single key, one zero byte for no bound, else the exclusive bound.
    #[must_use]
    pub fn end(&self) -> &Bytes {
        &self.end
    }
}

fn non_empty(key: Bytes) -> Bytes {
    if key.is_empty() { ZERO_BYTE } else { key }
}

/// A read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRequest {
    /// Which keys.
    pub keys: KeyRange,
    /// At which revision; `None` is the newest.
    pub revision: Option<Revision>,
    /// Most keys to return; 0 is no limit.
    pub limit: u32,
    /// Answer from the member's own state without asking the quorum: works without a leader and may be stale.
    pub serializable: bool,
    /// Leave values out.
    pub keys_only: bool,
    /// Only count.
    pub count_only: bool,
}

impl RangeRequest {
    /// A linearizable read of the newest revision.
    #[must_use]
    pub fn new(keys: KeyRange) -> Self {
        Self { keys, revision: None, limit: 0, serializable: false, keys_only: false, count_only: false }
    }
}

impl From<RangeRequest> for pb::RangeRequest {
    fn from(request: RangeRequest) -> Self {
        Self {
            key: request.keys.key,
            range_end: request.keys.end,
            limit: i64::from(request.limit),
            revision: request.revision.map_or(0, |revision| revision.0),
            serializable: request.serializable,
            keys_only: request.keys_only,
            count_only: request.count_only,
        }
    }
}

/// What a read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeResponse {
    /// Who answered; its revision is the newest of the member, whatever revision was read.
    pub header: Header,
    /// The keys found, ascending.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut some off.
    pub more: bool,
    /// How many keys the range holds, whatever the limit.
    pub count: i64,
}

impl RangeResponse {
    pub(crate) fn from_wire(answer: pb::RangeResponse) -> Result<Self, Unexpected> {
        Ok(Self {
            header: Header::from_wire(answer.header)?,
            kvs: answer.kvs.into_iter().map(KeyValue::from).collect(),
            more: answer.more,
            count: answer.count,
        })
    }
}

/// A write of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutRequest {
    /// The key, not empty.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The lease that is to hold the key; zero is none.
    pub lease: LeaseId,
    /// Return what was there before.
    pub prev_kv: bool,
}

impl PutRequest {
    /// A write without a lease.
    #[must_use]
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), value: value.into(), lease: LeaseId(0), prev_kv: false }
    }
}

impl From<PutRequest> for pb::PutRequest {
    fn from(request: PutRequest) -> Self {
        Self { key: request.key, value: request.value, lease: request.lease.0, prev_kv: request.prev_kv }
    }
}

/// The answer to a write; its header's revision is that of the write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutResponse {
    /// Who answered.
    pub header: Header,
    /// What was there before, if asked for and there.
    pub prev_kv: Option<KeyValue>,
}

impl PutResponse {
    pub(crate) fn from_wire(answer: pb::PutResponse) -> Result<Self, Unexpected> {
        Ok(Self { header: Header::from_wire(answer.header)?, prev_kv: answer.prev_kv.map(KeyValue::from) })
    }
}

/// A deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRequest {
    /// Which keys.
    pub keys: KeyRange,
    /// Return what was there before.
    pub prev_kv: bool,
}

impl DeleteRequest {
    /// A deletion that does not return what it deletes.
    #[must_use]
    pub fn new(keys: KeyRange) -> Self {
        Self { keys, prev_kv: false }
    }
}

impl From<DeleteRequest> for pb::DeleteRangeRequest {
    fn from(request: DeleteRequest) -> Self {
        Self { key: request.keys.key, range_end: request.keys.end, prev_kv: request.prev_kv }
    }
}

/// The answer to a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteResponse {
    /// Who answered.
    pub header: Header,
    /// How many keys are gone.
    pub deleted: i64,
    /// What was there before, if asked for.
    pub prev_kvs: Vec<KeyValue>,
}

impl DeleteResponse {
    pub(crate) fn from_wire(answer: pb::DeleteRangeResponse) -> Result<Self, Unexpected> {
        Ok(Self {
            header: Header::from_wire(answer.header)?,
            deleted: answer.deleted,
            prev_kvs: answer.prev_kvs.into_iter().map(KeyValue::from).collect(),
        })
    }
}

/// How a comparison compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareOp {
    /// Equal.
    Equal,
    /// The store's side is greater.
    Greater,
    /// The store's side is less.
    Less,
    /// Not equal.
    NotEqual,
}

/// What is compared, and with what. A key that does not exist has zero everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareTarget {
    /// The version count.
    Version(i64),
    /// The revision of creation.
    CreateRevision(Revision),
    /// The revision of the last change.
    ModRevision(Revision),
    /// The value.
    Value(Bytes),
    /// The lease.
    Lease(LeaseId),
}

/// One condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The key it is about.
    pub key: Bytes,
    /// How.
    pub op: CompareOp,
    /// What.
    pub target: CompareTarget,
}

impl Compare {
    /// The key does not exist.
    #[must_use]
    pub fn absent(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), op: CompareOp::Equal, target: CompareTarget::CreateRevision(Revision(0)) }
    }
}

impl From<Compare> for pb::Compare {
    fn from(compare: Compare) -> Self {
        use pb::compare::Operand;
        let result = match compare.op {
            CompareOp::Equal => pb::CompareResult::Equal,
            CompareOp::Greater => pb::CompareResult::Greater,
            CompareOp::Less => pb::CompareResult::Less,
            CompareOp::NotEqual => pb::CompareResult::NotEqual,
        };
        let (target, operand) = match compare.target {
            CompareTarget::Version(version) => (pb::CompareTarget::Version, Operand::Version(version)),
            CompareTarget::CreateRevision(at) => (pb::CompareTarget::Create, Operand::CreateRevision(at.0)),
            CompareTarget::ModRevision(at) => (pb::CompareTarget::Mod, Operand::ModRevision(at.0)),
            CompareTarget::Value(value) => (pb::CompareTarget::Value, Operand::Value(value)),
            CompareTarget::Lease(lease) => (pb::CompareTarget::Lease, Operand::Lease(lease.0)),
        };
        Self { result: result.into(), target: target.into(), key: compare.key, operand: Some(operand) }
    }
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnOp {
    /// Read.
    Range(RangeRequest),
    /// Write.
    Put(PutRequest),
    /// Delete.
    Delete(DeleteRequest),
}

impl From<TxnOp> for pb::RequestOp {
    fn from(op: TxnOp) -> Self {
        use pb::request_op::Request;
        let request = match op {
            TxnOp::Range(range) => Request::Range(range.into()),
            TxnOp::Put(put) => Request::Put(put.into()),
            TxnOp::Delete(delete) => Request::DeleteRange(delete.into()),
        };
        Self { request: Some(request) }
    }
}

/// A transaction: if every condition holds the first list is done, else the second, in one revision. etcd takes 128
/// steps per list by default and writes each key at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// The conditions.
    pub compare: Vec<Compare>,
    /// Steps if all hold.
    pub then: Vec<TxnOp>,
    /// Steps if one does not.
    pub or_else: Vec<TxnOp>,
}

impl From<Txn> for pb::TxnRequest {
    fn from(txn: Txn) -> Self {
        Self {
            compare: txn.compare.into_iter().map(pb::Compare::from).collect(),
            success: txn.then.into_iter().map(pb::RequestOp::from).collect(),
            failure: txn.or_else.into_iter().map(pb::RequestOp::from).collect(),
        }
    }
}

/// The answer to one step. The headers inside carry only a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnResult {
    /// What was read: keys, whether more exist, how many exist.
    Range {
        /// The keys found.
        kvs: Vec<KeyValue>,
        /// Whether the limit cut some off.
        more: bool,
        /// How many the range holds.
        count: i64,
    },
    /// What a write replaced, if asked for and there.
    Put(Option<KeyValue>),
    /// How many keys a deletion took, and which if asked for.
    Delete {
        /// How many.
        deleted: i64,
        /// Which.
        prev_kvs: Vec<KeyValue>,
    },
}

/// The answer to a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnResponse {
    /// Who answered; its revision is that of the transaction if it wrote.
    pub header: Header,
    /// Whether every condition held.
    pub succeeded: bool,
    /// One result per step that was done, in order.
    pub results: Vec<TxnResult>,
}

impl TxnResponse {
    pub(crate) fn from_wire(answer: pb::TxnResponse) -> Result<Self, Unexpected> {
        use pb::response_op::Response;
        let kvs = |kvs: Vec<pb::KeyValue>| kvs.into_iter().map(KeyValue::from).collect();
        let results = answer.responses.into_iter().map(|step| match step.response {
            Some(Response::Range(range)) => Ok(TxnResult::Range { kvs: kvs(range.kvs), more: range.more, count: range.count }),
            Some(Response::Put(put)) => Ok(TxnResult::Put(put.prev_kv.map(KeyValue::from))),
            Some(Response::DeleteRange(delete)) => Ok(TxnResult::Delete { deleted: delete.deleted, prev_kvs: kvs(delete.prev_kvs) }),
            None => Err(Unexpected("a step of the transaction has no answer")),
        });
        Ok(Self { header: Header::from_wire(answer.header)?, succeeded: answer.succeeded, results: results.collect::<Result<_, _>>()? })
    }
}

/// A lease that was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseGranted {
    /// Its id.
    pub id: LeaseId,
    /// Its time to live; the member may have raised the one asked for.
    pub ttl: Duration,
}

/// A lease as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseState {
    /// Its id.
    pub id: LeaseId,
    /// Time left; `None` if no such lease exists (any more).
    pub remaining: Option<Duration>,
    /// Time to live it was granted with.
    pub granted: Duration,
    /// The keys it holds, if asked for.
    pub keys: Vec<Bytes>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::KeyRange;

    #[test]
    fn prefixes_end_where_etcd_ends_them() {
        for (prefix, end) in [
            (&b"a"[..], &b"b"[..]),
            (b"/registry/", b"/registry0"),
            (b"a\xff", b"b"),
            (b"a\xff\xff", b"b"),
            (b"\xff", b"\0"),
            (b"\xff\xff", b"\0"),
        ] {
            let range = KeyRange::prefix(prefix);
            assert_eq!((&range.key()[..], &range.end()[..]), (prefix, end));
        }
        assert_eq!(KeyRange::prefix(""), KeyRange::all());
    }

    #[test]
    fn an_empty_bound_never_turns_into_another_meaning() {
        assert_eq!(KeyRange::from(""), KeyRange::all());
        let empty = KeyRange::between("b", "");
        assert_eq!(empty.key(), empty.end());
        assert!(KeyRange::single("k").end().is_empty());
    }
}
