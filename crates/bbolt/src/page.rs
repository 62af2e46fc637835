//! The layout of one logical page: header, element table, keys and values (bbolt `internal/common/page.go`).
//!
//! Nothing here trusts a byte: every element is checked against the page it claims to lie in.

use crate::error::{Error, Problem};
use crate::limits::MAX_KEY_SIZE;
use crate::meta::PageId;

pub(crate) const HEADER_SIZE: usize = 16;
pub(crate) const ELEMENT_SIZE: usize = 16;
pub(crate) const BUCKET_HEADER_SIZE: usize = 16;

pub(crate) const BRANCH_FLAG: u16 = 0x01;
pub(crate) const LEAF_FLAG: u16 = 0x02;
pub(crate) const META_FLAG: u16 = 0x04;
pub(crate) const FREELIST_FLAG: u16 = 0x10;

/// Set on a leaf element whose value is a bucket.
pub(crate) const BUCKET_ELEMENT: u32 = 1;

/// Panics when fewer than four bytes follow `at`; for slices whose length is fixed by their type or a check.
#[inline]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Panics when fewer than eight bytes follow `at`; for slices whose length is fixed by their type or a check.
#[inline]
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// The first 16 bytes of every page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) id: u64,
    pub(crate) flags: u16,
    pub(crate) count: u16,
    pub(crate) overflow: u32,
}

impl Header {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<HEADER_SIZE>()?;
        Some(Self {
            id: u64_at(bytes, 0),
            flags: u16::from_le_bytes([bytes[8], bytes[9]]),
            count: u16::from_le_bytes([bytes[10], bytes[11]]),
            overflow: u32_at(bytes, 12),
        })
    }

    pub(crate) fn encode(self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        bytes[0..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.flags.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.overflow.to_le_bytes());
        bytes
    }
}

/// Where a logical page lies in the file, so that a fault inside it can be named.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) page: PageId,
    /// Offset in the file of the page's first byte; an inline page's begins inside another page.
    pub(crate) offset: u64,
}

impl Place {
    pub(crate) fn damaged(self, fault: Fault) -> Error {
        let offset = self.offset.saturating_add(fault.at as u64);
        Error::Damaged { page: self.page, offset, problem: fault.problem }
    }

    pub(crate) fn problem(self, problem: Problem) -> Error {
        self.damaged(Fault { at: 0, problem })
    }
}

/// What is wrong, and how far into the page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) at: usize,
    pub(crate) problem: Problem,
}

/// One key of a leaf, with its value or bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item<'a> {
    pub(crate) index: usize,
    pub(crate) is_bucket: bool,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

impl Item<'_> {
    /// Offset of this item's element in its page.
    pub(crate) fn at(&self) -> usize {
        element_at(self.index)
    }

    pub(crate) fn fault(&self, problem: Problem) -> Fault {
        Fault { at: self.at(), problem }
    }
}

/// One child of a branch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) child: PageId,
}

fn element_at(index: usize) -> usize {
    HEADER_SIZE + ELEMENT_SIZE * index
}

/// The element table and the data behind it, for both kinds of page.
#[derive(Clone, Copy, Debug)]
struct Table<'a> {
    page: &'a [u8],
    count: usize,
}

impl<'a> Table<'a> {
    fn new(page: &'a [u8], count: u16) -> Result<Self, Fault> {
        if element_at(usize::from(count)) > page.len() {
            return Err(Fault { at: 10, problem: Problem::ElementTable { count } });
        }
        Ok(Self { page, count: usize::from(count) })
    }

    fn element(&self, index: usize) -> &'a [u8] {
        debug_assert!(index < self.count);
        &self.page[element_at(index)..element_at(index + 1)]
    }

    /// The bytes of an element's key and value, which lie behind each other `pos` bytes after the element itself.
    #[inline]
    fn data(&self, index: usize, pos: u32, key: u32, value: u32) -> Result<(&'a [u8], &'a [u8]), Problem> {
        if key == 0 || key as usize > MAX_KEY_SIZE {
            return Err(Problem::KeySize { index, size: key });
        }
        let start = element_at(index) as u64 + u64::from(pos);
        let end = start + u64::from(key) + u64::from(value);
        if start < element_at(self.count) as u64 || end > self.page.len() as u64 {
            return Err(Problem::Element { index });
        }
        // Both are at most the page's length now.
        Ok(self.page[start as usize..end as usize].split_at(key as usize))
    }

    /// Offset in the page of `part`, which must be a slice of it.
    fn offset_of(&self, part: &[u8]) -> usize {
        (part.as_ptr() as usize).wrapping_sub(self.page.as_ptr() as usize)
    }
}

/// A leaf page's elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaf<'a>(Table<'a>);

impl<'a> Leaf<'a> {
    pub(crate) fn new(page: &'a [u8], count: u16) -> Result<Self, Fault> {
        Table::new(page, count).map(Self)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.count
    }

    /// The item at `index`, which must be below the length. Says nothing about its neighbours.
    #[inline]
    pub(crate) fn item(&self, index: usize) -> Result<Item<'a>, Fault> {
        let element = self.0.element(index);
        let fault = |problem| Fault { at: element_at(index), problem };
        let flags = u32_at(element, 0);
        if flags & !BUCKET_ELEMENT != 0 {
            return Err(fault(Problem::ElementFlags { index, flags }));
        }
        let (key, value) = self.0.data(index, u32_at(element, 4), u32_at(element, 8), u32_at(element, 12)).map_err(fault)?;
        Ok(Item { index, is_bucket: flags == BUCKET_ELEMENT, key, value })
    }

    /// All items, proving on the way that keys ascend, and that the data lies behind the table without a gap or an
    /// overlap: every writer since boltdb packs it so (`node.write`, now `WriteInodeToPage`), hence a changed length
    /// or position shows.
    pub(crate) fn items(&self) -> Items<'a> {
        Items { leaf: *self, next: 0, previous: &[], data_end: element_at(self.len()) }
    }

    /// Offset in the page of an item's value.
    pub(crate) fn value_offset(&self, item: &Item<'_>) -> usize {
        self.0.offset_of(item.value)
    }

    /// The position of the first item whose key is not below `key`.
    pub(crate) fn lower_bound(&self, key: &[u8]) -> Result<usize, Fault> {
        partition_point(self.len(), |index| Ok(self.item(index)?.key < key))
    }
}

/// See [`Leaf::items`].
#[derive(Debug)]
pub(crate) struct Items<'a> {
    leaf: Leaf<'a>,
    next: usize,
    previous: &'a [u8],
    data_end: usize,
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, Fault>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.leaf.len() {
            return None;
        }
        let item = match self.leaf.item(self.next) {
            Ok(item) => item,
            Err(fault) => return Some(Err(fault)),
        };
        let start = self.leaf.0.offset_of(item.key);
        if start != self.data_end {
            return Some(Err(item.fault(Problem::Element { index: item.index })));
        }
        // Keys are never empty, so the first one is greater than the empty slice this starts with.
        if item.key <= self.previous {
            return Some(Err(item.fault(Problem::KeyOrder { index: item.index })));
        }
        self.data_end = start + item.key.len() + item.value.len();
        self.previous = item.key;
        self.next += 1;
        Some(Ok(item))
    }
}

/// A branch page's elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Branch<'a>(Table<'a>);

impl<'a> Branch<'a> {
    /// Fails on a page without children as well: a branch always has one.
    pub(crate) fn new(page: &'a [u8], count: u16) -> Result<Self, Fault> {
        if count == 0 {
            return Err(Fault { at: 10, problem: Problem::Empty });
        }
        Table::new(page, count).map(Self)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.count
    }

    /// The child at `index`, which must be below the length. Says nothing about its neighbours.
    #[inline]
    pub(crate) fn entry(&self, index: usize) -> Result<Entry<'a>, Fault> {
        let element = self.0.element(index);
        let (key, _) =
            self.0.data(index, u32_at(element, 0), u32_at(element, 4), 0).map_err(|problem| Fault { at: element_at(index), problem })?;
        Ok(Entry { key, child: PageId(u64_at(element, 8)) })
    }

    /// Only the page number of the child at `index`, which must be below the length.
    pub(crate) fn child(&self, index: usize) -> PageId {
        PageId(u64_at(self.0.element(index), 8))
    }

    /// Proves that the keys ascend, that they are packed as [`Leaf::items`] says, and that every child can exist.
    pub(crate) fn validate(&self, high_water_mark: PageId) -> Result<(), Fault> {
        let mut previous: &[u8] = &[];
        let mut data_end = element_at(self.len());
        for index in 0..self.len() {
            let entry = self.entry(index)?;
            let fault = |problem| Fault { at: element_at(index), problem };
            let start = self.0.offset_of(entry.key);
            if start != data_end {
                return Err(fault(Problem::Element { index }));
            }
            if entry.key <= previous {
                return Err(fault(Problem::KeyOrder { index }));
            }
            if entry.child.0 < 2 || entry.child >= high_water_mark {
                return Err(fault(Problem::Reference { target: entry.child, high_water_mark }));
            }
            data_end = start + entry.key.len();
            previous = entry.key;
        }
        Ok(())
    }

    /// Offset in the page of an entry's key.
    pub(crate) fn key_offset(&self, entry: &Entry<'_>) -> usize {
        self.0.offset_of(entry.key)
    }

    /// The position of the child whose range holds `key`: the last with a key not above it, else the first.
    pub(crate) fn child_for(&self, key: &[u8]) -> Result<usize, Fault> {
        let above = partition_point(self.len(), |index| Ok(self.entry(index)?.key <= key))?;
        Ok(above.saturating_sub(1))
    }
}

/// The number of leading positions for which `before` holds, by bisection.
fn partition_point(len: usize, before: impl Fn(usize) -> Result<bool, Fault>) -> Result<usize, Fault> {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// Where a bucket's items are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BucketRoot<'a> {
    /// In a tree of its own pages.
    Page(PageId),
    /// In a leaf page inside the bucket's own value.
    Inline { page: &'a [u8], count: u16 },
}

/// A leaf element's value that is a bucket (bbolt `internal/common/bucket.go`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct BucketValue<'a> {
    pub(crate) root: BucketRoot<'a>,
    pub(crate) sequence: u64,
}

impl<'a> BucketValue<'a> {
    /// The root page's number is not checked against the high-water mark here.
    pub(crate) fn parse(item: &Item<'a>) -> Result<Self, Fault> {
        let malformed = item.fault(Problem::BucketValue { index: item.index });
        let (header, page) = item.value.split_at_checked(BUCKET_HEADER_SIZE).ok_or(malformed)?;
        let sequence = u64_at(header, 8);
        let root = match u64_at(header, 0) {
            0 => {
                let header = Header::parse(page).ok_or(malformed)?;
                if header.id != 0 || header.flags != LEAF_FLAG || header.overflow != 0 {
                    return Err(malformed);
                }
                BucketRoot::Inline { page, count: header.count }
            }
            root => BucketRoot::Page(PageId(root)),
        };
        Ok(Self { root, sequence })
    }

    /// The value of a bucket with its own root page.
    pub(crate) fn encode(root: PageId, sequence: u64) -> [u8; BUCKET_HEADER_SIZE] {
        let mut bytes = [0; BUCKET_HEADER_SIZE];
        bytes[..8].copy_from_slice(&root.0.to_le_bytes());
        bytes[8..].copy_from_slice(&sequence.to_le_bytes());
        bytes
    }
}
