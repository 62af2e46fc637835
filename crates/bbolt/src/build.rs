//! Writes a whole database from sorted keys, in one pass.

use crate::append::{Appender, MIN_BRANCH, MIN_LEAF, NewChild, NewItem, check_sizes, encode_leaf, split, write};
use crate::database::Database;
use crate::edit::{empty_leaf, publish};
use crate::error::Error;
use crate::freelist::LONG_COUNT;
use crate::limits::MAX_TREE_DEPTH;
use crate::meta::{Meta, PageId, is_page_size};
use crate::page::{BUCKET_HEADER_SIZE, BucketValue, FREELIST_FLAG, HEADER_SIZE, Header, LEAF_FLAG};
use crate::source::WriteAt;

/// Builds a fresh database: buckets in ascending order, in each the keys in ascending order. Pages are filled to the
/// last item that fits.
///
/// Memory: two pages per level of the tree, and the free pages' numbers when a free list is stored.
#[derive(Debug)]
pub struct Builder<'s, S> {
    sink: &'s S,
    page_size: u32,
    pages: Appender<'s, S>,
    inline: bool,
    skipped: Vec<(PageId, u64)>,
    root: Levels,
    bucket: Option<(Vec<u8>, u64, Levels)>,
}

/// The unfinished right edge of a tree: items not yet on a leaf, then per level the children not yet on a branch.
#[derive(Debug, Default)]
struct Levels {
    items: Vec<OwnedItem>,
    items_size: usize,
    branches: Vec<Level>,
    last_key: Vec<u8>,
}

#[derive(Debug)]
struct OwnedItem {
    is_bucket: bool,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl OwnedItem {
    fn as_new(&self) -> NewItem<'_> {
        NewItem { is_bucket: self.is_bucket, key: &self.key, value: &self.value }
    }
}

#[derive(Debug, Default)]
struct Level {
    children: Vec<NewChild>,
    size: usize,
}

impl<'s, S: WriteAt> Builder<'s, S> {
    /// A builder that writes to `sink` from offset 0 on; the sink should be empty.
    ///
    /// # Errors
    /// [`Error::PageSize`] unless `page_size` is a power of two from 1 KiB to 64 KiB.
    pub fn new(sink: &'s S, page_size: u32) -> Result<Self, Error> {
        if !is_page_size(page_size) {
            return Err(Error::PageSize { found: page_size });
        }
        Ok(Self {
            sink,
            page_size,
            pages: Appender::new(sink, page_size, PageId(2)),
            inline: false,
            skipped: Vec::new(),
            root: Levels::default(),
            bucket: None,
        })
    }

    /// Whether buckets that take at most a quarter of a page are stored in their parent's page, as bbolt does. Off at
    /// first.
    pub fn inline_small_buckets(&mut self, inline: bool) {
        self.inline = inline;
    }

    /// Begins the next top-level bucket; its name must be above the one before.
    ///
    /// # Errors
    /// [`Error::NotAscending`], [`Error::KeySize`]; those of writing.
    pub fn bucket(&mut self, name: &[u8], sequence: u64) -> Result<(), Error> {
        check_sizes(name, &[])?;
        self.end_bucket()?;
        if name <= self.root.last_key.as_slice() {
            return Err(Error::NotAscending);
        }
        self.bucket = Some((name.to_vec(), sequence, Levels::default()));
        Ok(())
    }

    /// Adds a key to the bucket begun last; it must be above the one before.
    ///
    /// # Errors
    /// [`Error::NotAscending`], also when no bucket has begun; [`Error::KeySize`], [`Error::ValueSize`]; those of
    /// writing.
    pub fn item(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        check_sizes(key, value)?;
        let Some((_, _, levels)) = &mut self.bucket else { return Err(Error::NotAscending) };
        levels.add(&mut self.pages, OwnedItem { is_bucket: false, key: key.to_vec(), value: value.to_vec() })
    }

    /// Leaves `count` pages unused at this point of the file, as deletions would.
    ///
    /// # Errors
    /// [`Error::TooManyPages`]; those of writing.
    pub fn skip_pages(&mut self, count: u64) -> Result<(), Error> {
        let first = self.pages.skip(count)?;
        self.skipped.push((first, count));
        Ok(())
    }

    /// Completes the file and makes it durable. With `store_freelist` the free pages are listed in the file, as
    /// bbolt does without `NoFreelistSync`.
    ///
    /// # Errors
    /// Those of writing.
    pub fn finish(mut self, store_freelist: bool) -> Result<Database<&'s S>, Error> {
        self.end_bucket()?;
        let root = self.root.finish(&mut self.pages)?;
        let freelist = if store_freelist { Some(self.freelist()?) } else { None };
        self.pages.flush()?;
        let meta = Meta {
            page: PageId(0),
            page_size: self.page_size,
            flags: 0,
            root,
            sequence: 0,
            freelist,
            high_water_mark: self.pages.high_water_mark(),
            txid: 0,
        };
        // Skipped pages at the end would leave the file short.
        let last = meta.size() - 1;
        if self.sink.size() <= last {
            write(self.sink, &[0], last)?;
        }
        let newer = Meta { page: PageId(1), txid: 1, ..meta.clone() };
        publish(self.sink, &[meta, newer])?;
        Database::open(self.sink)
    }

    fn end_bucket(&mut self) -> Result<(), Error> {
        let Some((name, sequence, mut levels)) = self.bucket.take() else { return Ok(()) };
        let quarter = self.page_size as usize / 4;
        let value = if self.inline && levels.branches.is_empty() && HEADER_SIZE + levels.items_size <= quarter {
            levels.inline(sequence)
        } else {
            BucketValue::encode(levels.finish(&mut self.pages)?, sequence).to_vec()
        };
        self.root.add(&mut self.pages, OwnedItem { is_bucket: true, key: name, value })
    }

    fn freelist(&mut self) -> Result<PageId, Error> {
        let count: u64 = self.skipped.iter().map(|&(_, count)| count).sum();
        let long = count >= u64::from(LONG_COUNT);
        let numbers = usize::try_from(count).unwrap_or(usize::MAX) + usize::from(long);
        let header_count = if long { usize::from(LONG_COUNT) } else { numbers };
        let (id, page) = self.pages.page(FREELIST_FLAG, header_count, HEADER_SIZE + numbers * 8)?;
        let ids = self.skipped.iter().flat_map(|&(first, count)| first.0..first.0 + count);
        let list = long.then_some(count).into_iter().chain(ids);
        for (place, number) in page[HEADER_SIZE..].chunks_exact_mut(8).zip(list) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        Ok(id)
    }
}

impl Levels {
    fn add<S: WriteAt>(&mut self, pages: &mut Appender<'_, S>, item: OwnedItem) -> Result<(), Error> {
        if item.key.as_slice() <= self.last_key.as_slice() {
            return Err(Error::NotAscending);
        }
        self.last_key.clone_from(&item.key);
        let size = item.as_new().size();
        if HEADER_SIZE + self.items_size + size > pages.page_size() && !self.items.is_empty() {
            self.leaf(pages)?;
        }
        self.items_size += size;
        self.items.push(item);
        Ok(())
    }

    /// Puts the collected items on a leaf.
    fn leaf<S: WriteAt>(&mut self, pages: &mut Appender<'_, S>) -> Result<(), Error> {
        debug_assert!(self.items.len() >= MIN_LEAF);
        let page = pages.leaf(self.items.iter().map(OwnedItem::as_new))?;
        let key = self.items.swap_remove(0).key;
        self.items.clear();
        self.items_size = 0;
        self.child(pages, 0, NewChild { key, page })
    }

    /// Hands a page to the level above it; two pages' worth of children let one page go for sure.
    fn child<S: WriteAt>(&mut self, pages: &mut Appender<'_, S>, depth: usize, child: NewChild) -> Result<(), Error> {
        debug_assert!(depth < MAX_TREE_DEPTH);
        if self.branches.len() == depth {
            self.branches.push(Level::default());
        }
        let level = &mut self.branches[depth];
        level.size += child.size();
        level.children.push(child);
        if level.size < 2 * pages.page_size() || level.children.len() < 2 * MIN_BRANCH {
            return Ok(());
        }
        let sizes: Vec<_> = level.children.iter().map(NewChild::size).collect();
        let Some(first) = split(&sizes, pages.page_size(), MIN_BRANCH).into_iter().next() else { return Ok(()) };
        if first.len() + MIN_BRANCH > sizes.len() {
            return Ok(());
        }
        let rest = level.children.split_off(first.end);
        let full = std::mem::replace(&mut level.children, rest);
        level.size = sizes[first.end..].iter().sum();
        let page = pages.branch(&full)?;
        self.child(pages, depth + 1, NewChild { key: full[0].key.clone(), page })
    }

    /// Writes what is left on every level and returns the root.
    fn finish<S: WriteAt>(&mut self, pages: &mut Appender<'_, S>) -> Result<PageId, Error> {
        if self.branches.is_empty() && self.items.is_empty() {
            return empty_leaf(pages);
        }
        if !self.items.is_empty() {
            self.leaf(pages)?;
        }
        let mut depth = 0;
        loop {
            let children = std::mem::take(&mut self.branches[depth].children);
            let top = depth + 1 == self.branches.len();
            if let ([only], true) = (children.as_slice(), top) {
                return Ok(only.page);
            }
            let sizes: Vec<_> = children.iter().map(NewChild::size).collect();
            for range in split(&sizes, pages.page_size(), MIN_BRANCH) {
                let key = children[range.start].key.clone();
                let page = pages.branch(&children[range])?;
                self.child(pages, depth + 1, NewChild { key, page })?;
            }
            depth += 1;
        }
    }

    /// The value of a bucket that lies inside its parent's page.
    fn inline(&self, sequence: u64) -> Vec<u8> {
        let mut value = BucketValue::encode(PageId(0), sequence).to_vec();
        value.resize(BUCKET_HEADER_SIZE + HEADER_SIZE + self.items_size, 0);
        let page = &mut value[BUCKET_HEADER_SIZE..];
        let header = Header { id: 0, flags: LEAF_FLAG, count: self.items.len() as u16, overflow: 0 };
        page[..HEADER_SIZE].copy_from_slice(&header.encode());
        encode_leaf(page, self.items.iter().map(OwnedItem::as_new));
        value
    }
}
