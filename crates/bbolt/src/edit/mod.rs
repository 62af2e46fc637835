//! Changes to a database that exists, made without overwriting what it uses.

mod tree;

use std::collections::BTreeMap;

use crate::append::{Appender, NewItem, check_sizes, write};
use crate::bucket::Root;
use crate::database::Database;
use crate::error::Error;
use crate::meta::{Meta, PageId};
use crate::page::{BucketValue, LEAF_FLAG};
use crate::source::WriteAt;
use tree::{Change, Tree};

/// A set of changes to a database, held in memory until [`Edit::commit`].
///
/// Nothing is written before `commit`. That writes new pages at and after the high-water mark, makes them durable, then
/// writes the meta page that is not the current one and makes it durable: after a crash at any point the file is the old
/// state or the new one, and the old state stays readable through the old meta page until the next edit by anyone.
/// Bytes behind the high-water mark (the SHA-256 trailer of an etcd snapshot) are overwritten; the caller cuts the
/// file or renews the trailer, if it wants one.
///
/// **Free list.** The new state has none stored, whatever the old one had. A stored list would have to name every page
/// that this edit makes free, else bbolt's check calls these lost; the old list's page cannot be taken over, and
/// writing a new one would cost time and memory for the whole database. Without one, bbolt (1.3 and later) finds the
/// free pages by a scan when it opens the file, and its check holds; opened without `NoFreelistSync` it stores the list
/// in an empty transaction of its own at once. Only boltdb from before 2017 (etcd 3.2 and older) cannot do that.
///
/// Memory: the changes, plus one leaf and the branches above the leaves that are changed.
#[derive(Debug)]
pub struct Edit<S: WriteAt> {
    database: Database<S>,
    buckets: BTreeMap<Vec<u8>, BucketEdit>,
}

/// What an edit does to one top-level bucket.
#[derive(Debug)]
struct BucketEdit {
    /// The bucket as it is in the file; `None` when the edit made it, or cleared it.
    base: Option<Root>,
    sequence: u64,
    /// Whether the bucket's header changes even if no key does.
    rooted: bool,
    /// `None` takes the key away.
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl BucketEdit {
    fn is_empty(&self) -> bool {
        !self.rooted && self.changes.is_empty()
    }
}

impl<S: WriteAt> Edit<S> {
    /// Begins an edit of the database's current state.
    ///
    /// # Errors
    /// None today; it may come to refuse states that cannot be edited.
    pub fn begin(database: Database<S>) -> Result<Self, Error> {
        Ok(Self { database, buckets: BTreeMap::new() })
    }

    /// The state the edit began with.
    pub fn database(&self) -> &Database<S> {
        &self.database
    }

    /// Sets a key of an existing top-level bucket, or one this edit has made.
    ///
    /// # Errors
    /// [`Error::NoBucket`], [`Error::KeySize`], [`Error::ValueSize`]; those of reading.
    pub fn put(&mut self, bucket: &[u8], key: &[u8], value: &[u8]) -> Result<(), Error> {
        check_sizes(key, value)?;
        self.existing(bucket)?.changes.insert(key.to_vec(), Some(value.to_vec()));
        Ok(())
    }

    /// Takes a key out of a top-level bucket; `false` when it was not there.
    ///
    /// # Errors
    /// [`Error::NoBucket`]; [`Error::IsBucket`] when the key names a nested bucket; those of reading.
    pub fn delete(&mut self, bucket: &[u8], key: &[u8]) -> Result<bool, Error> {
        let in_file = self.in_file(bucket, key)?;
        let changes = &mut self.existing(bucket)?.changes;
        let there = changes.get(key).map_or(in_file, Option::is_some);
        if in_file {
            changes.insert(key.to_vec(), None);
        } else {
            changes.remove(key);
        }
        Ok(there)
    }

    /// The value of a key as it will be after the commit.
    ///
    /// # Errors
    /// [`Error::NoBucket`]; those of reading.
    pub fn get(&mut self, bucket: &[u8], key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let edit = self.existing(bucket)?;
        if let Some(value) = edit.changes.get(key) {
            return Ok(value.clone());
        }
        match edit.base.clone() {
            Some(root) => crate::Bucket::new(&self.database, root, 0).get(key),
            None => Ok(None),
        }
    }

    /// Makes a top-level bucket, unless it is there already.
    ///
    /// # Errors
    /// [`Error::KeySize`] for a name that is empty or too long; those of reading.
    pub fn create_bucket(&mut self, name: &[u8]) -> Result<(), Error> {
        check_sizes(name, &[])?;
        match self.existing(name) {
            Err(Error::NoBucket { name }) => {
                let edit = BucketEdit { base: None, sequence: 0, rooted: true, changes: BTreeMap::new() };
                self.buckets.insert(name, edit);
                Ok(())
            }
            other => other.map(|_| ()),
        }
    }

    /// Takes everything out of a top-level bucket, nested buckets too, and keeps its sequence number. Costs nothing,
    /// whatever the bucket's size.
    ///
    /// # Errors
    /// [`Error::NoBucket`]; those of reading.
    pub fn clear_bucket(&mut self, name: &[u8]) -> Result<(), Error> {
        let edit = self.existing(name)?;
        edit.base = None;
        edit.rooted = true;
        edit.changes.clear();
        Ok(())
    }

    /// Writes the new state and opens it. Without any change nothing is written.
    ///
    /// An edited bucket has a root page of its own afterwards, even where bbolt would have stored it inline.
    ///
    /// # Errors
    /// [`Error::IsBucket`] when a key that was put names a nested bucket; [`Error::Damaged`] for pages on the way that
    /// contradict the format; [`Error::Write`], [`Error::Sync`]; those of reading. Unless the failure is that of the
    /// very last sync, the old state is the current one still.
    pub fn commit(self) -> Result<Database<S>, Error> {
        let Self { database, buckets } = self;
        let meta = database.meta().clone();
        let mut pages = Appender::new(database.source(), meta.page_size, meta.high_water_mark);
        let mut tree = Tree::new(&database, &mut pages);
        let mut headers = Vec::new();
        for (name, edit) in buckets.into_iter().filter(|(_, edit)| !edit.is_empty()) {
            let changes: Vec<_> = edit.changes.iter().map(|(key, value)| Change::value(key, value.as_deref())).collect();
            let root = match &edit.base {
                Some(Root::Page(page)) => tree.apply(*page, &changes)?,
                Some(Root::Inline { page, count, place }) => tree.apply_inline(page, *count, *place, &changes)?,
                None => tree.build(&changes)?,
            };
            headers.push((name, BucketValue::encode(root, edit.sequence)));
        }
        if headers.is_empty() {
            return Ok(database);
        }
        let changes: Vec<_> = headers.iter().map(|(name, header)| Change::bucket(name, header)).collect();
        let root = tree.apply(meta.root, &changes)?;
        pages.flush()?;
        let high_water_mark = pages.high_water_mark();
        let source = database.into_source();
        publish(&source, &[successor(&meta, root, high_water_mark)?])?;
        Database::open(source)
    }

    fn existing(&mut self, name: &[u8]) -> Result<&mut BucketEdit, Error> {
        // Looked up twice because a borrow that is returned from one arm only would last through the others.
        if !self.buckets.contains_key(name) {
            let Some(bucket) = self.database.bucket(name)? else {
                return Err(Error::NoBucket { name: name.to_vec() });
            };
            let edit =
                BucketEdit { base: Some(bucket.root().clone()), sequence: bucket.sequence(), rooted: false, changes: BTreeMap::new() };
            self.buckets.insert(name.to_vec(), edit);
        }
        self.buckets.get_mut(name).ok_or_else(|| Error::NoBucket { name: name.to_vec() })
    }

    /// Whether the file has the key, as far as the edit has not cleared its bucket.
    fn in_file(&mut self, bucket: &[u8], key: &[u8]) -> Result<bool, Error> {
        let Some(root) = self.existing(bucket)?.base.clone() else { return Ok(false) };
        let bucket = crate::Bucket::new(&self.database, root, 0);
        let mut cursor = bucket.cursor();
        if !cursor.seek_exact(key)? {
            return Ok(false);
        }
        if cursor.is_bucket() {
            return Err(Error::IsBucket { key: key.to_vec() });
        }
        Ok(true)
    }
}

/// The meta of the state after `meta`, for the page that `meta` is not in.
///
/// bbolt writes transaction `n` to page `n % 2`, so the id must have the page's parity, else bbolt's next commit would
/// overwrite this very meta. After `Tx.WriteTo` (an etcd snapshot) the current meta can be in the page of the other
/// parity; then the id moves by two.
fn successor(meta: &Meta, root: PageId, high_water_mark: PageId) -> Result<Meta, Error> {
    let page = PageId(1 - meta.page.0.min(1));
    let exhausted = Error::TransactionIds { txid: meta.txid };
    let next = if (meta.txid & 1) == meta.page.0 { 1 } else { 2 };
    let Some(txid) = meta.txid.checked_add(next) else { return Err(exhausted) };
    Ok(Meta { page, root, high_water_mark, txid, freelist: None, ..meta.clone() })
}

/// Makes the pages durable, then the meta pages that make them count.
pub(crate) fn publish<S: WriteAt>(sink: &S, metas: &[Meta]) -> Result<(), Error> {
    sink.sync().map_err(Error::Sync)?;
    for meta in metas {
        write(sink, &meta.encode(), meta.offset(meta.page))?;
    }
    sink.sync().map_err(Error::Sync)
}

/// An empty leaf, the root of a bucket without keys.
pub(crate) fn empty_leaf<S: WriteAt>(pages: &mut Appender<'_, S>) -> Result<PageId, Error> {
    let (id, _) = pages.page(LEAF_FLAG, 0, 0)?;
    Ok(id)
}

impl<'a> Change<'a> {
    fn value(key: &'a [u8], value: Option<&'a [u8]>) -> Self {
        Self { key, item: value.map(|value| NewItem { is_bucket: false, key, value }) }
    }

    fn bucket(name: &'a [u8], header: &'a [u8]) -> Self {
        Self { key: name, item: Some(NewItem { is_bucket: true, key: name, value: header }) }
    }
}
