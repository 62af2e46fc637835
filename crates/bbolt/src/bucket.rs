//! One bucket: keys with values, and perhaps further buckets.

use crate::cursor::Cursor;
use crate::database::Database;
use crate::error::{Error, Problem};
use crate::page::{BUCKET_HEADER_SIZE, BucketRoot, BucketValue, Place};
use crate::source::ReadAt;
use crate::{PageId, limits::MAX_BUCKET_DEPTH};

/// A bucket of a [`Database`], open for reading.
#[derive(Debug)]
pub struct Bucket<'d, S: ReadAt> {
    database: &'d Database<S>,
    root: Root,
    sequence: u64,
    depth: usize,
}

/// Where a bucket's items are; an inline page is a copy of the bytes in the parent.
#[derive(Clone, Debug)]
pub(crate) enum Root {
    Page(PageId),
    Inline { page: Vec<u8>, count: u16, place: Place },
}

impl<'d, S: ReadAt> Bucket<'d, S> {
    pub(crate) fn new(database: &'d Database<S>, root: Root, sequence: u64) -> Self {
        Self { database, root, sequence, depth: 0 }
    }

    /// The bucket's sequence number, which etcd does not use.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// A cursor over the bucket's keys, not yet at any of them.
    #[must_use]
    pub fn cursor(&self) -> Cursor<'_, S> {
        Cursor::new(self.database, &self.root)
    }

    /// The value of `key`; `None` when there is none, or when the key names a nested bucket.
    ///
    /// # Errors
    /// Those of reading: [`Error::Read`], [`Error::Damaged`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let mut cursor = self.cursor();
        if !cursor.seek_exact(key)? || cursor.is_bucket() {
            return Ok(None);
        }
        Ok(cursor.item()?.map(|(_, value)| value.to_vec()))
    }

    /// The nested bucket `name`; `None` when there is none, or when the name is that of a value.
    ///
    /// # Errors
    /// Those of reading: [`Error::Read`], [`Error::Damaged`].
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket<'d, S>>, Error> {
        let mut cursor = self.cursor();
        if !cursor.seek_exact(name)? || !cursor.is_bucket() {
            return Ok(None);
        }
        let Some((place, leaf, item)) = cursor.element()? else { return Ok(None) };
        let damaged = |problem| place.damaged(item.fault(problem));
        if self.depth == MAX_BUCKET_DEPTH {
            return Err(damaged(Problem::TooDeep { limit: MAX_BUCKET_DEPTH }));
        }
        let value = BucketValue::parse(&item).map_err(|fault| place.damaged(fault))?;
        let meta = self.database.meta();
        let root = match value.root {
            BucketRoot::Page(target) if !meta.may_refer(target) => {
                return Err(damaged(Problem::Reference { target, high_water_mark: meta.high_water_mark }));
            }
            BucketRoot::Page(page) => Root::Page(page),
            BucketRoot::Inline { page, count } => {
                let inside = (leaf.value_offset(&item) + BUCKET_HEADER_SIZE) as u64;
                let place = Place { page: place.page, offset: place.offset + inside };
                Root::Inline { page: page.to_vec(), count, place }
            }
        };
        Ok(Some(Bucket { database: self.database, root, sequence: value.sequence, depth: self.depth + 1 }))
    }

    pub(crate) fn root(&self) -> &Root {
        &self.root
    }
}
