//! Keys and transactions.

use etcd_store::id::Revision;

use super::{Client, method};
use crate::error::Error;
use crate::pb;
use crate::types::{
    DeleteRequest, DeleteResponse, Header, KeyRange, PutRequest, PutResponse, RangeRequest, RangeResponse, Txn, TxnResponse, Unexpected,
};

impl Client {
    /// Reads keys. Answers up to [`crate::limits::MESSAGE_MAX`] are accepted; page with `limit` beyond that.
    ///
    /// # Errors
    /// [`Compacted`](crate::ErrorKind::Compacted) and [`FutureRevision`](crate::ErrorKind::FutureRevision) for the
    /// revision asked for, and what any call may return.
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        let answer = self.call(&method::RANGE, pb::RangeRequest::from(request)).await?;
        self.expected(&method::RANGE, RangeResponse::from_wire(answer))
    }

    /// The cheapest read that the quorum has confirmed: cluster id, and a revision not below any write finished before.
    ///
    /// # Errors
    /// [`NoLeader`](crate::ErrorKind::NoLeader), [`Unavailable`](crate::ErrorKind::Unavailable) or
    /// [`Timeout`](crate::ErrorKind::Timeout) without a quorum.
    pub async fn linearizable_read(&self) -> Result<Header, Error> {
        let request = RangeRequest { limit: 1, count_only: true, ..RangeRequest::new(KeyRange::single(&b"\0"[..])) };
        Ok(self.range(request).await?.header)
    }

    /// Writes a key.
    ///
    /// # Errors
    /// [`NoSpace`](crate::ErrorKind::NoSpace), [`LeaseNotFound`](crate::ErrorKind::LeaseNotFound), and what any call may
    /// return. After a lost connection or a time-out it may still have taken effect.
    pub async fn put(&self, request: PutRequest) -> Result<PutResponse, Error> {
        let answer = self.call(&method::PUT, pb::PutRequest::from(request)).await?;
        self.expected(&method::PUT, PutResponse::from_wire(answer))
    }

    /// Deletes keys.
    ///
    /// # Errors
    /// What any call may return; see [`Self::put`] for lost answers.
    pub async fn delete_range(&self, request: DeleteRequest) -> Result<DeleteResponse, Error> {
        let request = pb::DeleteRangeRequest::from(request);
        let answer = self.call(&method::DELETE_RANGE, request).await?;
        self.expected(&method::DELETE_RANGE, DeleteResponse::from_wire(answer))
    }

    /// Runs a transaction.
    ///
    /// # Errors
    /// What any call may return; see [`Self::put`] for lost answers.
    pub async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error> {
        let answer = self.call(&method::TXN, pb::TxnRequest::from(txn)).await?;
        self.expected(&method::TXN, TxnResponse::from_wire(answer))
    }

    /// Compacts the history up to a revision, for the whole cluster. `physical` waits until this member has removed the
    /// old rows from its file.
    ///
    /// # Errors
    /// [`Compacted`](crate::ErrorKind::Compacted) if that is done already,
    /// [`FutureRevision`](crate::ErrorKind::FutureRevision), and what any call may return.
    pub async fn compact(&self, revision: Revision, physical: bool) -> Result<Header, Error> {
        let request = pb::CompactionRequest { revision: revision.0, physical };
        let answer: pb::CompactionResponse = self.call(&method::COMPACT, request).await?;
        self.expected(&method::COMPACT, Header::from_wire(answer.header))
    }

    pub(crate) fn expected<T>(&self, method: &method::Method, answer: Result<T, Unexpected>) -> Result<T, Error> {
        answer.map_err(|Unexpected(fact)| self.error(method, crate::ErrorKind::Protocol(fact.to_owned())))
    }
}
