//! A store that fails on demand, for tests of what is above.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;

use super::{ObjectInfo, Store, StoreError, Upload, check_range};

/// An operation of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// [`Store::create`].
    Create,
    /// [`Store::replace`].
    Replace,
    /// [`Store::delete`].
    Delete,
    /// [`Store::upload`].
    Upload,
    /// [`Upload::write`].
    Write,
    /// [`Upload::complete`].
    Complete,
    /// [`Store::get`].
    Get,
    /// [`Store::get_range`].
    GetRange,
    /// [`Store::head`].
    Head,
    /// [`Store::list`] and [`Store::list_shallow`]; the key is the prefix.
    List,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Nothing happens, and the store is said to be out of reach.
    FailBefore,
    /// It happens, and the store is said to be out of reach: the ambiguous answer.
    FailAfter,
    /// Nothing happens; access is denied.
    Deny,
    /// Nothing happens; the store is full.
    Full,
    /// It happens after a while.
    Slow(Duration),
    /// For reads and looks: the object seems to end after this many bytes.
    Truncate(u64),
    /// For reads: the lowest bit of the byte at this offset of the object is the other one.
    Flip(u64),
    /// For reads, looks and listings: the object seems not to be there.
    Hide,
}

/// One rule: which operations go wrong, and how.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// Only this operation.
    pub op: Option<Op>,
    /// Only keys that contain this text.
    pub key: String,
    /// Among the operations that match, counted from 0, only these.
    pub nth: Range<u64>,
}

impl Fault {
    /// Every operation goes wrong this way.
    #[must_use]
    pub fn new(kind: FaultKind) -> Self {
        Self { kind, op: None, key: String::new(), nth: 0..u64::MAX }
    }

    /// Only this operation.
    #[must_use]
    pub fn on(self, op: Op) -> Self {
        Self { op: Some(op), ..self }
    }

    /// Only keys that contain `text`.
    #[must_use]
    pub fn key(self, text: &str) -> Self {
        Self { key: text.to_owned(), ..self }
    }

    /// Only the `nth` that matches, counted from 0.
    #[must_use]
    pub fn nth(self, nth: u64) -> Self {
        Self { nth: nth..nth + 1, ..self }
    }

    /// Only the first `count` that match.
    #[must_use]
    pub fn first(self, count: u64) -> Self {
        Self { nth: 0..count, ..self }
    }
}

#[derive(Debug, Default)]
struct State {
    faults: Vec<(Fault, u64)>,
    log: Vec<(Op, String)>,
}

/// Wraps a store and lets chosen operations go wrong. Clones share the rules.
#[derive(Clone, Debug)]
pub struct FaultStore {
    inner: Arc<dyn Store>,
    state: Arc<Mutex<State>>,
}

impl FaultStore {
    /// Wraps a store; nothing goes wrong yet.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, state: Arc::default() }
    }

    /// Adds a rule; the first that applies to an operation decides.
    pub fn inject(&self, fault: Fault) {
        self.lock().faults.push((fault, 0));
    }

    /// Removes all rules.
    pub fn heal(&self) {
        self.lock().faults.clear();
    }

    /// Every operation so far with its key, in order.
    #[must_use]
    pub fn log(&self) -> Vec<(Op, String)> {
        self.lock().log.clone()
    }

    /// How many operations of this kind were asked for so far.
    #[must_use]
    pub fn count(&self, op: Op) -> usize {
        self.lock().log.iter().filter(|(logged, _)| *logged == op).count()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decide(&self, op: Op, key: &str) -> Option<FaultKind> {
        let mut state = self.lock();
        state.log.push((op, key.to_owned()));
        let mut decided = None;
        for (fault, seen) in &mut state.faults {
            if fault.op.is_none_or(|only| only == op) && key.contains(&fault.key) {
                if fault.nth.contains(seen) && decided.is_none() {
                    decided = Some(fault.kind);
                }
                *seen += 1;
            }
        }
        decided
    }

    /// Lets `work` go wrong as decided, as far as that concerns whether it happens and what is answered.
    async fn apply<T>(
        &self,
        op: Op,
        key: &str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> (Option<FaultKind>, Result<T, StoreError>) {
        let fault = self.decide(op, key);
        let key = key.to_owned();
        let result = match fault {
            Some(FaultKind::FailBefore) => Err(StoreError::Unreachable { key, detail: "injected before".to_owned() }),
            Some(FaultKind::Deny) => Err(StoreError::Denied { key, detail: "injected".to_owned() }),
            Some(FaultKind::Full) => Err(StoreError::Full { key }),
            Some(FaultKind::FailAfter) => {
                let _ = work.await;
                Err(StoreError::Unreachable { key, detail: "injected after".to_owned() })
            }
            Some(FaultKind::Slow(pause)) => {
                tokio::time::sleep(pause).await;
                work.await
            }
            Some(FaultKind::Hide) if matches!(op, Op::Get | Op::GetRange | Op::Head) => Err(StoreError::NotFound { key }),
            Some(FaultKind::Hide | FaultKind::Truncate(_) | FaultKind::Flip(_)) | None => work.await,
        };
        (fault, result)
    }
}

fn shorten(fault: Option<FaultKind>, info: ObjectInfo) -> ObjectInfo {
    match fault {
        Some(FaultKind::Truncate(size)) => ObjectInfo { size: info.size.min(size), ..info },
        _ => info,
    }
}

fn flip(bytes: Bytes, begin: u64, offset: u64) -> Bytes {
    let mut bytes = bytes.to_vec();
    let at = offset.checked_sub(begin).and_then(|at| usize::try_from(at).ok());
    if let Some(byte) = at.and_then(|at| bytes.get_mut(at)) {
        *byte ^= 1;
    }
    bytes.into()
}

struct FaultUpload {
    inner: Box<dyn Upload>,
    store: FaultStore,
    key: String,
}

#[async_trait]
impl Upload for FaultUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let work = self.inner.write(bytes);
        self.store.apply(Op::Write, &self.key, work).await.1
    }

    async fn settle(&mut self) -> Result<(), StoreError> {
        self.inner.settle().await
    }

    async fn complete(self: Box<Self>) -> Result<ObjectInfo, StoreError> {
        let Self { inner, store, key } = *self;
        let (fault, result) = store.apply(Op::Complete, &key, inner.complete()).await;
        result.map(|info| shorten(fault, info))
    }

    async fn abort(self: Box<Self>) {
        self.inner.abort().await;
    }
}

#[async_trait]
impl Store for FaultStore {
    fn root(&self) -> &str {
        self.inner.root()
    }

    async fn create(&self, key: &str, bytes: Bytes) -> Result<ObjectInfo, StoreError> {
        self.apply(Op::Create, key, self.inner.create(key, bytes)).await.1
    }

    async fn replace(&self, key: &str, bytes: Bytes, etag: Option<&str>) -> Result<ObjectInfo, StoreError> {
        self.apply(Op::Replace, key, self.inner.replace(key, bytes, etag)).await.1
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.apply(Op::Delete, key, self.inner.delete(key)).await.1
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>, StoreError> {
        let inner = self.apply(Op::Upload, key, self.inner.upload(key)).await.1?;
        Ok(Box::new(FaultUpload { inner, store: self.clone(), key: key.to_owned() }))
    }

    async fn get(&self, key: &str, limit: u64) -> Result<(ObjectInfo, Bytes), StoreError> {
        let (fault, result) = self.apply(Op::Get, key, self.inner.get(key, limit)).await;
        let (info, bytes) = result?;
        let info = shorten(fault, info);
        Ok(match fault {
            // `bytes` is in memory, so a size that is not above its length fits.
            Some(FaultKind::Truncate(_)) => (info.clone(), bytes.slice(..info.size as usize)),
            Some(FaultKind::Flip(offset)) => (info, flip(bytes, 0, offset)),
            _ => (info, bytes),
        })
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let (fault, result) = self.apply(Op::GetRange, key, self.inner.get_range(key, range.clone())).await;
        if let Some(FaultKind::Truncate(size)) = fault {
            check_range(key, &range, size)?;
        }
        match fault {
            Some(FaultKind::Flip(offset)) => result.map(|bytes| flip(bytes, range.start, offset)),
            _ => result,
        }
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo, StoreError> {
        let (fault, result) = self.apply(Op::Head, key, self.inner.head(key)).await;
        result.map(|info| shorten(fault, info))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let (fault, result) = self.apply(Op::List, prefix, self.inner.list(prefix)).await;
        result.map(|listed| if fault == Some(FaultKind::Hide) { Vec::new() } else { listed })
    }

    async fn list_shallow(&self, prefix: &str) -> Result<(Vec<ObjectInfo>, Vec<String>), StoreError> {
        let (fault, result) = self.apply(Op::List, prefix, self.inner.list_shallow(prefix)).await;
        result.map(|listed| if fault == Some(FaultKind::Hide) { (Vec::new(), Vec::new()) } else { listed })
    }

    async fn written_at(&self, key: &str) -> Result<Option<SystemTime>, StoreError> {
        self.inner.written_at(key).await
    }
}
