//! An open database: its current state, its buckets.

use crate::bucket::{Bucket, Root};
use crate::error::Error;
use crate::limits::{MAX_BUCKET_NAME_BYTES, MAX_BUCKET_NAMES};
use crate::meta::{Meta, Metas, PageId};
use crate::source::ReadAt;
use crate::walk::{self, CheckReport, Visitor};

/// A bbolt database as its newest usable meta page describes it.
///
/// Opening reads the two meta pages and nothing else; pages are checked when they are read. Only [`Database::check`]
/// and [`Database::walk`] prove the whole structure.
#[derive(Debug)]
pub struct Database<S: ReadAt> {
    source: S,
    meta: Meta,
    damaged: Option<PageId>,
}

impl<S: ReadAt> Database<S> {
    /// Opens the state of the valid meta page with the higher transaction id.
    ///
    /// One damaged meta page is what a crash leaves and is fine ([`Database::damaged_meta`]). Bytes after the
    /// high-water mark (preallocation, the SHA-256 trailer of an etcd snapshot) are ignored.
    ///
    /// # Errors
    /// [`Error::NoMeta`] when it is no database, [`Error::BigEndian`], [`Error::PageSize`], [`Error::Truncated`] when
    /// the source is shorter than the high-water mark says, [`Error::Damaged`] when the meta contradicts itself.
    pub fn open(source: S) -> Result<Self, Error> {
        let Metas { current, damaged } = Metas::read(&source)?;
        Ok(Self { source, meta: current, damaged })
    }

    /// The state that was opened.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The meta page that is not usable, if one is not.
    pub fn damaged_meta(&self) -> Option<PageId> {
        self.damaged
    }

    /// Where the bytes come from.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Gives the source back.
    pub fn into_source(self) -> S {
        self.source
    }

    /// Names of the top-level buckets in ascending order.
    ///
    /// # Errors
    /// [`Error::TooManyBuckets`] beyond [`crate::limits::MAX_BUCKET_NAMES`] names or
    /// [`crate::limits::MAX_BUCKET_NAME_BYTES`] bytes of them.
    pub fn bucket_names(&self) -> Result<Vec<Vec<u8>>, Error> {
        let root = self.root();
        let mut cursor = root.cursor();
        let mut names = Vec::new();
        let mut bytes = 0;
        let mut item = cursor.first()?;
        while let Some((name, _)) = item {
            bytes += name.len();
            if names.len() == MAX_BUCKET_NAMES || bytes > MAX_BUCKET_NAME_BYTES {
                return Err(Error::TooManyBuckets { limit: MAX_BUCKET_NAMES });
            }
            names.push(name.to_vec());
            if !cursor.is_bucket() {
                names.pop();
            }
            item = cursor.next()?;
        }
        Ok(names)
    }

    /// A top-level bucket, or `None` when there is none of that name.
    ///
    /// # Errors
    /// Those of reading: [`Error::Read`], [`Error::Damaged`].
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket<'_, S>>, Error> {
        self.root().bucket(name)
    }

    /// The bucket of buckets.
    pub(crate) fn root(&self) -> Bucket<'_, S> {
        Bucket::new(self, Root::Page(self.meta.root), self.meta.sequence)
    }

    /// Proves the whole structure; [`Database::walk`] without looking at the items.
    ///
    /// # Errors
    /// The first contradiction found, as [`Error::Damaged`]; [`Error::Read`].
    pub fn check(&self) -> Result<CheckReport, Error> {
        struct Nobody;
        impl Visitor for Nobody {
            type Error = Error;
        }
        self.walk(&mut Nobody)
    }

    /// In one pass proves the whole structure and shows every item of every bucket, in ascending order of keys.
    ///
    /// Proven is what bbolt's `Tx.Check` proves, and more: every page below the high-water mark is reachable exactly
    /// once, or free; pages carry their own number and a legal type; keys ascend strictly and lie in the range that
    /// the parent gives the page; every key and value lies inside its page, right behind the one before; a stored free list
    /// names no page twice, none that is in use, and misses none. Inline buckets are checked like pages.
    ///
    /// An item has been shown before the rest of its page is proven, so nothing shown may be trusted until this
    /// returns `Ok`.
    ///
    /// Memory: read buffers of some hundred KiB per level of nested buckets, one page per level of a tree, one bit per
    /// page; more only where single pages are larger.
    ///
    /// # Errors
    /// The first contradiction found, as [`Error::Damaged`]; [`Error::Read`]; whatever the visitor returns.
    pub fn walk<V: Visitor>(&self, visitor: &mut V) -> Result<CheckReport, V::Error> {
        walk::walk(self, visitor)
    }
}
