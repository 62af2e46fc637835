//! Reads logical pages into one reusable buffer, several neighbours at a time where that pays.

use crate::database::Database;
use crate::error::{Error, Problem};
use crate::limits::{KEEP_BUFFER, MAX_BRANCH_BYTES, MAX_HELD_BYTES, MAX_PAGE_BYTES, READ_AHEAD, READ_STEP};
use crate::meta::PageId;
use crate::page::{BRANCH_FLAG, Branch, HEADER_SIZE, Header, LEAF_FLAG, Place};
use crate::source::ReadAt;

/// Counts what all buffers of one operation hold, so that no file can make it use more than
/// [`MAX_HELD_BYTES`].
#[derive(Debug, Default)]
pub(crate) struct Budget {
    held: u64,
}

impl Budget {
    fn change(&mut self, from: usize, to: usize, place: Place) -> Result<(), Error> {
        let held = self.held.saturating_sub(from as u64).saturating_add(to as u64);
        if held > MAX_HELD_BYTES {
            return Err(place.problem(Problem::TooBig { bytes: held, limit: MAX_HELD_BYTES }));
        }
        self.held = held;
        Ok(())
    }
}

/// What a page of a tree can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Branch,
    Leaf,
}

/// A logical page in a [`PageReader`]'s buffer; valid until the next one is loaded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loaded {
    pub(crate) place: Place,
    pub(crate) kind: Kind,
    pub(crate) count: u16,
    overflow: u32,
    start: usize,
    end: usize,
}

impl Loaded {
    /// Physical pages it spans, itself included.
    pub(crate) fn span(&self) -> u64 {
        u64::from(self.overflow) + 1
    }
}

/// One buffer over a contiguous range of the file.
#[derive(Debug, Default)]
pub(crate) struct PageReader {
    buffer: Vec<u8>,
    first: u64,
    valid: usize,
    last_span: u64,
}

impl PageReader {
    /// Whether the page's beginning is in the buffer already.
    pub(crate) fn holds(&self, page: PageId, page_size: u32) -> bool {
        page.0.checked_sub(self.first).is_some_and(|index| index < self.valid as u64 / u64::from(page_size))
    }

    pub(crate) fn bytes(&self, loaded: Loaded) -> &[u8] {
        &self.buffer[loaded.start..loaded.end]
    }

    /// How many pages to read at once for the child at `index`, judging by the page numbers of the children after it:
    /// as far as they ascend without holes that are wider than pages are long here.
    pub(crate) fn ahead(&self, branch: &Branch<'_>, index: usize, page_size: u32) -> u64 {
        let start = branch.child(index).0;
        let most = (READ_AHEAD / u64::from(page_size)).max(1);
        let widest = self.last_span.max(1) * 2;
        let mut last = start;
        for next in index + 1..branch.len() {
            let next = branch.child(next).0;
            if next <= last || next - last > widest || next - start >= most {
                break;
            }
            last = next;
        }
        (last - start + self.last_span.max(1)).min(most)
    }

    /// Loads the logical page `page` whole, checking its header: number, type, and that its overflow fits the
    /// database. Reads `ahead` pages (at least 1) when the page is not in the buffer.
    ///
    /// `page` must be below the high-water mark.
    pub(crate) fn load<S: ReadAt>(
        &mut self,
        database: &Database<S>,
        page: PageId,
        ahead: u64,
        budget: &mut Budget,
    ) -> Result<Loaded, Error> {
        let meta = database.meta();
        let page_size = meta.page_size as usize;
        let place = Place { page, offset: meta.offset(page) };
        if !self.holds(page, meta.page_size) {
            let pages = ahead.clamp(1, (meta.high_water_mark.0.saturating_sub(page.0)).max(1));
            self.first = page.0;
            self.valid = 0;
            self.fill(database, pages as usize * page_size, place, budget)?;
        }
        let mut start = (page.0 - self.first) as usize * page_size;
        let header = Header::parse(&self.buffer[start..self.valid]).ok_or_else(|| place.problem(Problem::ElementTable { count: 0 }))?;
        let (kind, bytes) = check_header(database, place, header)?;
        // The overflow was held against the high-water mark, hence the file's real length.
        let length = bytes as usize;
        if start + length > self.valid {
            self.buffer.copy_within(start..self.valid, 0);
            self.valid -= start;
            self.first = page.0;
            start = 0;
            self.fill(database, length, place, budget)?;
        }
        self.last_span = u64::from(header.overflow) + 1;
        Ok(Loaded { place, kind, count: header.count, overflow: header.overflow, start, end: start + length })
    }

    /// Reads on until `length` bytes from the buffer's first page are there.
    fn fill<S: ReadAt>(&mut self, database: &Database<S>, length: usize, place: Place, budget: &mut Budget) -> Result<(), Error> {
        if self.buffer.len() > KEEP_BUFFER && length <= KEEP_BUFFER && self.valid == 0 {
            budget.change(self.buffer.len(), 0, place)?;
            self.buffer = Vec::new();
        }
        while self.valid < length {
            // Doubling: each step is backed by as many bytes that the source really gave.
            let end = length.min((self.valid * 2).max(READ_STEP));
            if end > self.buffer.len() {
                budget.change(self.buffer.len(), end, place)?;
                self.buffer.reserve_exact(end - self.buffer.len());
                self.buffer.resize(end, 0);
            }
            let offset = database.meta().offset(PageId(self.first)) + self.valid as u64;
            let part = &mut self.buffer[self.valid..end];
            let length = part.len();
            database.source().read_exact_at(part, offset).map_err(|source| Error::Read { offset, length, source })?;
            self.valid = end;
        }
        Ok(())
    }
}

/// What a page is and the bytes it takes with its overflow, after checking that it may.
fn check_header<S: ReadAt>(database: &Database<S>, place: Place, header: Header) -> Result<(Kind, u64), Error> {
    let meta = database.meta();
    if header.id != place.page.0 {
        return Err(place.problem(Problem::PageNumber { found: PageId(header.id) }));
    }
    let (kind, limit) = match header.flags {
        BRANCH_FLAG => (Kind::Branch, MAX_BRANCH_BYTES),
        LEAF_FLAG => (Kind::Leaf, MAX_PAGE_BYTES),
        flags => return Err(place.problem(Problem::PageType { flags, expected: "branch or leaf" })),
    };
    check_overflow(database, place, header)?;
    let bytes = (u64::from(header.overflow) + 1) * u64::from(meta.page_size);
    if bytes > limit {
        return Err(place.problem(Problem::TooBig { bytes, limit }));
    }
    debug_assert!(bytes >= HEADER_SIZE as u64);
    Ok((kind, bytes))
}

pub(crate) fn check_overflow<S: ReadAt>(database: &Database<S>, place: Place, header: Header) -> Result<(), Error> {
    let high_water_mark = database.meta().high_water_mark;
    let left = high_water_mark.0.saturating_sub(place.page.0);
    if u64::from(header.overflow) >= left {
        return Err(place.problem(Problem::Overflow { overflow: header.overflow, high_water_mark }));
    }
    Ok(())
}

/// A branch page kept while its children are visited, in a buffer that is reused at the same depth.
#[derive(Debug, Default)]
pub(crate) struct BranchCopy {
    bytes: Vec<u8>,
    count: u16,
    place: Option<Place>,
}

impl BranchCopy {
    /// Takes the page over after proving it well-formed in itself.
    pub(crate) fn set(&mut self, bytes: &[u8], loaded: Loaded, high_water_mark: PageId, budget: &mut Budget) -> Result<(), Error> {
        let damaged = |fault| loaded.place.damaged(fault);
        Branch::new(bytes, loaded.count).map_err(damaged)?.validate(high_water_mark).map_err(damaged)?;
        budget.change(self.bytes.capacity(), self.bytes.capacity().max(bytes.len()), loaded.place)?;
        self.bytes.clear();
        self.bytes.reserve_exact(bytes.len());
        self.bytes.extend_from_slice(bytes);
        self.count = loaded.count;
        self.place = Some(loaded.place);
        Ok(())
    }

    pub(crate) fn place(&self) -> Place {
        self.place.unwrap_or(Place { page: PageId(0), offset: 0 })
    }

    /// The elements; proven well-formed by [`BranchCopy::set`].
    pub(crate) fn branch(&self) -> Result<Branch<'_>, Error> {
        Branch::new(&self.bytes, self.count).map_err(|fault| self.place().damaged(fault))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.count)
    }
}
