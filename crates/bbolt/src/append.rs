//! New pages, laid out and written behind everything the database uses.

use std::ops::Range;

use crate::error::Error;
use crate::limits::{MAX_BRANCH_BYTES, MAX_KEY_SIZE, MAX_PAGE_BYTES, MAX_PAGES, WRITE_BUFFER};
use crate::meta::PageId;
use crate::page::{BRANCH_FLAG, BUCKET_ELEMENT, ELEMENT_SIZE, HEADER_SIZE, Header, LEAF_FLAG};
use crate::source::WriteAt;

/// Fewest items on a leaf that is not a bucket's only page.
pub(crate) const MIN_LEAF: usize = 1;

/// Fewest children of a branch. bbolt panics when it later deletes from a page whose parent has no other child
/// (`node.go`, `rebalance`: "parent must have at least 2 children").
pub(crate) const MIN_BRANCH: usize = 2;

/// A leaf element to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewItem<'a> {
    pub(crate) is_bucket: bool,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

impl NewItem<'_> {
    pub(crate) fn size(&self) -> usize {
        ELEMENT_SIZE + self.key.len() + self.value.len()
    }
}

/// A branch element to be written. bbolt finds a page in its parent by the page's first key
/// (`node.go`, `spill` and `childIndex`), so `key` must be exactly that.
#[derive(Clone, Debug)]
pub(crate) struct NewChild {
    pub(crate) key: Vec<u8>,
    pub(crate) page: PageId,
}

impl NewChild {
    pub(crate) fn size(&self) -> usize {
        ELEMENT_SIZE + self.key.len()
    }
}

/// Writes pages one behind the other from a high-water mark on, collected into large writes.
#[derive(Debug)]
pub(crate) struct Appender<'s, S> {
    sink: &'s S,
    page_size: usize,
    next: PageId,
    pending: Vec<u8>,
    pending_at: PageId,
}

impl<'s, S: WriteAt> Appender<'s, S> {
    pub(crate) fn new(sink: &'s S, page_size: u32, high_water_mark: PageId) -> Self {
        let page_size = page_size as usize;
        Self { sink, page_size, next: high_water_mark, pending: Vec::new(), pending_at: high_water_mark }
    }

    pub(crate) fn page_size(&self) -> usize {
        self.page_size
    }

    /// The page that the next call will write first.
    pub(crate) fn high_water_mark(&self) -> PageId {
        self.next
    }

    pub(crate) fn leaf<'a>(&mut self, items: impl ExactSizeIterator<Item = NewItem<'a>> + Clone) -> Result<PageId, Error> {
        let size = HEADER_SIZE + items.clone().map(|item| item.size()).sum::<usize>();
        let (id, page) = self.page(LEAF_FLAG, items.len(), size)?;
        encode_leaf(page, items);
        self.flush_when_full()?;
        Ok(id)
    }

    pub(crate) fn branch(&mut self, children: &[NewChild]) -> Result<PageId, Error> {
        let size = HEADER_SIZE + children.iter().map(NewChild::size).sum::<usize>();
        let (id, page) = self.page(BRANCH_FLAG, children.len(), size)?;
        let mut data = HEADER_SIZE + ELEMENT_SIZE * children.len();
        for (index, child) in children.iter().enumerate() {
            let at = HEADER_SIZE + ELEMENT_SIZE * index;
            page[at..at + 4].copy_from_slice(&((data - at) as u32).to_le_bytes());
            page[at + 4..at + 8].copy_from_slice(&(child.key.len() as u32).to_le_bytes());
            page[at + 8..at + 16].copy_from_slice(&child.page.0.to_le_bytes());
            page[data..data + child.key.len()].copy_from_slice(&child.key);
            data += child.key.len();
        }
        self.flush_when_full()?;
        Ok(id)
    }

    /// A page with nothing but its header yet, and room for `size` bytes.
    pub(crate) fn page(&mut self, flags: u16, count: usize, size: usize) -> Result<(PageId, &mut [u8]), Error> {
        let span = size.div_ceil(self.page_size).max(1);
        let id = self.reserve(span as u64)?;
        let start = self.pending.len();
        self.pending.resize(start + span * self.page_size, 0);
        let header = Header { id: id.0, flags, count: count as u16, overflow: (span - 1) as u32 };
        let page = &mut self.pending[start..];
        page[..HEADER_SIZE].copy_from_slice(&header.encode());
        Ok((id, page))
    }

    /// Leaves `count` pages out; their bytes are whatever the sink has there.
    pub(crate) fn skip(&mut self, count: u64) -> Result<PageId, Error> {
        self.flush()?;
        let first = self.reserve(count)?;
        self.pending_at = self.next;
        Ok(first)
    }

    fn reserve(&mut self, count: u64) -> Result<PageId, Error> {
        let first = self.next;
        let next = first.0.saturating_add(count);
        if next > MAX_PAGES {
            return Err(Error::TooManyPages { pages: next, limit: MAX_PAGES });
        }
        self.next = PageId(next);
        Ok(first)
    }

    fn flush_when_full(&mut self) -> Result<(), Error> {
        if self.pending.len() >= WRITE_BUFFER { self.flush() } else { Ok(()) }
    }

    /// Hands everything to the sink; not yet durable.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        write(self.sink, &self.pending, self.pending_at.0 * self.page_size as u64)?;
        self.pending.clear();
        self.pending_at = self.next;
        Ok(())
    }
}

pub(crate) fn write<S: WriteAt>(sink: &S, bytes: &[u8], offset: u64) -> Result<(), Error> {
    if bytes.is_empty() {
        return Ok(());
    }
    sink.write_all_at(bytes, offset).map_err(|source| Error::Write { offset, length: bytes.len(), source })
}

/// Lays the elements of a leaf out behind the header, which the page has already. `page` must have room.
pub(crate) fn encode_leaf<'a>(page: &mut [u8], items: impl ExactSizeIterator<Item = NewItem<'a>>) {
    let mut data = HEADER_SIZE + ELEMENT_SIZE * items.len();
    for (index, item) in items.enumerate() {
        let at = HEADER_SIZE + ELEMENT_SIZE * index;
        let flags = if item.is_bucket { BUCKET_ELEMENT } else { 0 };
        let numbers = [flags, (data - at) as u32, item.key.len() as u32, item.value.len() as u32];
        for (place, number) in page[at..at + ELEMENT_SIZE].chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let value = data + item.key.len();
        page[data..value].copy_from_slice(item.key);
        data = value + item.value.len();
        page[value..data].copy_from_slice(item.value);
    }
}

/// Cuts elements of the given sizes into pages: as many on each as fit, never fewer than `min` on any unless there
/// are fewer in all. A page that holds only its minimum may need overflow.
pub(crate) fn split(sizes: &[usize], page_size: usize, min: usize) -> Vec<Range<usize>> {
    let mut pages: Vec<Range<usize>> = Vec::new();
    let (mut start, mut size) = (0, HEADER_SIZE);
    for (index, &element) in sizes.iter().enumerate() {
        if index - start >= min && size + element > page_size {
            pages.push(start..index);
            (start, size) = (index, HEADER_SIZE);
        }
        size += element;
    }
    if sizes.len() - start < min
        && let Some(before) = pages.pop()
    {
        // The last page would have too few: it takes from its neighbour, or takes it over.
        let missing = min - (sizes.len() - start);
        if before.len() >= min + missing {
            pages.push(before.start..before.end - missing);
            start = before.end - missing;
        } else {
            start = before.start;
        }
    }
    if start < sizes.len() {
        pages.push(start..sizes.len());
    }
    pages
}

/// Refuses keys and values that no page may hold.
pub(crate) fn check_sizes(key: &[u8], value: &[u8]) -> Result<(), Error> {
    if key.is_empty() || key.len() > MAX_KEY_SIZE {
        return Err(Error::KeySize { size: key.len() });
    }
    let limit = MAX_PAGE_BYTES - (HEADER_SIZE + ELEMENT_SIZE + key.len()) as u64;
    if value.len() as u64 > limit {
        return Err(Error::ValueSize { size: value.len(), limit });
    }
    Ok(())
}

// Two or three of the longest keys always fit the largest branch.
const _: () = assert!(MAX_BRANCH_BYTES as usize > 4 * (MAX_KEY_SIZE + ELEMENT_SIZE) + HEADER_SIZE);

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_filled_and_cover_everything_in_order() {
        let sizes = [40; 10];
        assert_eq!(split(&sizes, 100, 1), [0..2, 2..4, 4..6, 6..8, 8..10]);
        assert_eq!(split(&[], 100, 1), []);
        assert_eq!(split(&[500, 20, 20, 500], 100, 1), [0..1, 1..3, 3..4]);
    }

    #[test]
    fn no_branch_has_a_single_child() {
        assert_eq!(split(&[30, 30, 30], 80, 2), [0..3]);
        assert_eq!(split(&[30, 30, 30, 30], 110, 2), [0..2, 2..4]);
        assert_eq!(split(&[900, 900, 900], 100, 2), [0..3]);
        assert_eq!(split(&[900], 100, 2), [0..1]);
    }
}
