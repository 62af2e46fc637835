//! The one pass over a whole database that proves its structure and shows its items.

use std::mem;

use crate::database::Database;
use crate::error::{Error, Problem};
use crate::freelist::Freelist;
use crate::limits::{MAX_BUCKET_DEPTH, MAX_TREE_DEPTH};
use crate::meta::PageId;
use crate::page::{BUCKET_HEADER_SIZE, BucketRoot, BucketValue, HEADER_SIZE, Header, Item, Leaf, META_FLAG, Place};
use crate::page_set::PageSet;
use crate::reader::{BranchCopy, Budget, Kind, Loaded, PageReader};
use crate::source::ReadAt;

/// Sees a database's content during [`Database::walk`]. Every method does nothing by default; an error ends the walk.
///
/// Slices are parts of a page buffer: copy what must outlive the call.
pub trait Visitor {
    /// What the visitor stops with. [`Error`] itself will do.
    type Error: From<Error>;

    /// A top-level bucket begins; [`Visitor::item`] calls are about it until the next.
    ///
    /// # Errors
    /// Ends the walk.
    fn bucket(&mut self, name: &[u8], sequence: u64) -> Result<(), Self::Error> {
        let _ = (name, sequence);
        Ok(())
    }

    /// A key and its value in the top-level bucket announced last, in ascending order.
    ///
    /// # Errors
    /// Ends the walk.
    fn item(&mut self, key: &[u8], value: &[u8]) -> Result<(), Self::Error> {
        let _ = (key, value);
        Ok(())
    }

    /// A bucket inside another begins; `path` are the names from the top-level bucket to it. etcd has none.
    ///
    /// # Errors
    /// Ends the walk.
    fn nested(&mut self, path: &[Vec<u8>], sequence: u64) -> Result<(), Self::Error> {
        let _ = (path, sequence);
        Ok(())
    }

    /// A key and its value in the nested bucket at `path`, in ascending order within that bucket.
    ///
    /// # Errors
    /// Ends the walk.
    fn nested_item(&mut self, path: &[Vec<u8>], key: &[u8], value: &[u8]) -> Result<(), Self::Error> {
        let _ = (path, key, value);
        Ok(())
    }
}

/// What a walk that found nothing wrong has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Pages in all: the high-water mark.
    pub pages: u64,
    /// Pages in use: both meta pages, a stored free list, every page of every tree with its overflow.
    pub reachable: u64,
    /// Pages not in use.
    pub free: u64,
    /// Branch pages, each counted once whatever its overflow.
    pub branch_pages: u64,
    /// Leaf pages, each counted once whatever its overflow; inline buckets have none.
    pub leaf_pages: u64,
    /// Overflow pages of branches and leaves.
    pub overflow_pages: u64,
    /// Pages of a stored free list.
    pub freelist_pages: u64,
    /// Buckets at all levels, the bucket of buckets not counted.
    pub buckets: u64,
    /// Of these the ones stored inside their parent's page.
    pub inline_buckets: u64,
    /// Keys with values in all buckets.
    pub items: u64,
    /// Bytes of these keys and values.
    pub item_bytes: u64,
    /// Levels of the deepest single tree, the leaf included.
    pub depth: u32,
    /// `reachable` times the page size: what etcd calls "db size in use".
    pub bytes_in_use: u64,
}

pub(crate) fn walk<S: ReadAt, V: Visitor>(database: &Database<S>, visitor: &mut V) -> Result<CheckReport, V::Error> {
    let end = database.meta().high_water_mark;
    let mut walk = Walk {
        database,
        visitor,
        seen: PageSet::below(end),
        report: CheckReport { pages: end.0, ..CheckReport::default() },
        path: Vec::new(),
        levels: Vec::new(),
        budget: Budget::default(),
    };
    let freelist = walk.head()?;
    walk.tree(database.meta().root)?;
    if let Some(list) = freelist {
        walk.hold_against(&list.free)?;
    }
    let mut report = walk.report;
    report.reachable = walk.seen.len();
    report.free = end.0 - report.reachable;
    report.bytes_in_use = report.reachable * u64::from(database.meta().page_size);
    Ok(report)
}

struct Walk<'w, S: ReadAt, V> {
    database: &'w Database<S>,
    visitor: &'w mut V,
    seen: PageSet,
    report: CheckReport,
    /// Names from the top-level bucket to the one being walked; empty in the bucket of buckets.
    path: Vec<Vec<u8>>,
    /// Buffers per depth of bucket, kept for the next bucket at that depth.
    levels: Vec<Level>,
    budget: Budget,
}

/// The buffers that walking one bucket's tree takes.
#[derive(Debug, Default)]
struct Level {
    reader: PageReader,
    frames: Vec<Frame>,
}

/// A branch whose children are being visited.
#[derive(Debug, Default)]
struct Frame {
    page: BranchCopy,
    next: usize,
    /// The key that all keys below this branch must stay under: in the page of which frame, and where.
    upper: Option<(usize, usize, usize)>,
}

/// What a parent's keys allow in a page.
#[derive(Clone, Copy, Default)]
struct Bounds<'a> {
    lower: Option<&'a [u8]>,
    upper: Option<&'a [u8]>,
}

impl Bounds<'_> {
    fn hold_first(&self, key: &[u8]) -> Result<(), Problem> {
        if self.lower.is_some_and(|lower| key < lower) { Err(Problem::BelowParent) } else { Ok(()) }
    }

    fn hold_last(&self, key: &[u8]) -> Result<(), Problem> {
        if self.upper.is_some_and(|upper| key >= upper) { Err(Problem::AboveParent) } else { Ok(()) }
    }
}

impl<S: ReadAt, V: Visitor> Walk<'_, S, V> {
    /// The pages outside all trees: metas and free list.
    fn head(&mut self) -> Result<Option<Freelist>, Error> {
        let meta = self.database.meta();
        for page in [PageId(0), PageId(1)] {
            if self.database.damaged_meta() != Some(page) {
                self.meta_header(page)?;
            }
            self.mark(page, 1)?;
        }
        let Some(page) = meta.freelist else { return Ok(None) };
        let list = Freelist::read(self.database, page)?;
        self.mark(list.first, list.span)?;
        self.report.freelist_pages = list.span;
        Ok(Some(list))
    }

    fn meta_header(&self, page: PageId) -> Result<(), Error> {
        let place = Place { page, offset: self.database.meta().offset(page) };
        let mut bytes = [0; HEADER_SIZE];
        self.database.source().read_exact_at(&mut bytes, place.offset).map_err(|source| Error::Read {
            offset: place.offset,
            length: bytes.len(),
            source,
        })?;
        match Header::parse(&bytes) {
            Some(header) if header.id != page.0 => Err(place.problem(Problem::PageNumber { found: PageId(header.id) })),
            Some(header) if header.flags != META_FLAG => Err(place.problem(Problem::PageType { flags: header.flags, expected: "meta" })),
            _ => Ok(()),
        }
    }

    fn mark(&mut self, first: PageId, span: u64) -> Result<(), Error> {
        self.seen.insert_run(first, span).map_err(|page| self.page_problem(page, Problem::UsedTwice))
    }

    fn page_problem(&self, page: PageId, problem: Problem) -> Error {
        Place { page, offset: self.database.meta().offset(page) }.problem(problem)
    }

    fn hold_against(&self, free: &PageSet) -> Result<(), Error> {
        match self.seen.first_not_split(free, self.database.meta().high_water_mark) {
            Some(page) if free.contains(page) => Err(self.page_problem(page, Problem::FreeAndUsed)),
            Some(page) => Err(self.page_problem(page, Problem::Lost)),
            None => Ok(()),
        }
    }

    /// Walks one bucket's tree. Recursion through nested buckets is bounded by [`MAX_BUCKET_DEPTH`].
    fn tree(&mut self, root: PageId) -> Result<(), V::Error> {
        let depth = self.path.len();
        if self.levels.len() == depth {
            self.levels.push(Level::default());
        }
        let mut level = mem::take(&mut self.levels[depth]);
        let result = self.descend(&mut level, root);
        self.levels[depth] = level;
        result
    }

    fn descend(&mut self, level: &mut Level, root: PageId) -> Result<(), V::Error> {
        let page_size = self.database.meta().page_size;
        // Branches above the leaves' parents have their children far apart: reading ahead is for leaves only.
        let mut leaf_depth = None;
        let mut open = 0;
        let mut target = (root, 1, None);
        loop {
            let (page, ahead, upper) = target;
            let loaded = level.reader.load(self.database, page, ahead, &mut self.budget)?;
            self.mark(page, loaded.span())?;
            self.report.overflow_pages += loaded.span() - 1;
            if loaded.kind == Kind::Branch {
                self.push(level, open, loaded, upper)?;
                open += 1;
            } else {
                leaf_depth = Some(open);
                self.report.depth = self.report.depth.max(open as u32 + 1);
                let bounds = bounds(&level.frames[..open], upper)?;
                self.leaf_page(level.reader.bytes(loaded), loaded, bounds, open == 0)?;
            }
            while open > 0 && level.frames[open - 1].next == level.frames[open - 1].page.len() {
                open -= 1;
            }
            let Some(top) = open.checked_sub(1) else { return Ok(()) };
            let frame = &mut level.frames[top];
            let index = frame.next;
            frame.next += 1;
            let branch = frame.page.branch()?;
            let child = branch.child(index);
            let ahead = match leaf_depth {
                Some(depth) if depth == open && !level.reader.holds(child, page_size) => level.reader.ahead(&branch, index, page_size),
                _ => 1,
            };
            target = (child, ahead, upper_of(frame, top, index)?);
        }
    }

    /// Takes a branch page over into the frame at `depth`.
    fn push(&mut self, level: &mut Level, depth: usize, loaded: Loaded, upper: Option<(usize, usize, usize)>) -> Result<(), Error> {
        if depth + 1 == MAX_TREE_DEPTH {
            return Err(loaded.place.problem(Problem::TooDeep { limit: MAX_TREE_DEPTH }));
        }
        if level.frames.len() == depth {
            level.frames.push(Frame::default());
        }
        let (above, rest) = level.frames.split_at_mut(depth);
        let frame = &mut rest[0];
        let high_water_mark = self.database.meta().high_water_mark;
        frame.page.set(level.reader.bytes(loaded), loaded, high_water_mark, &mut self.budget)?;
        frame.next = 0;
        frame.upper = upper;
        let branch = frame.page.branch()?;
        let damaged = |fault| loaded.place.damaged(fault);
        let first = branch.entry(0).map_err(damaged)?;
        let last = branch.entry(branch.len() - 1).map_err(damaged)?;
        let bounds = bounds(above, upper)?;
        bounds.hold_first(first.key).and_then(|()| bounds.hold_last(last.key)).map_err(|problem| loaded.place.problem(problem))?;
        self.report.branch_pages += 1;
        Ok(())
    }

    fn leaf_page(&mut self, bytes: &[u8], loaded: Loaded, bounds: Bounds<'_>, is_root: bool) -> Result<(), V::Error> {
        if loaded.count == 0 && !is_root {
            return Err(loaded.place.problem(Problem::Empty).into());
        }
        self.report.leaf_pages += 1;
        self.leaf(bytes, loaded.count, loaded.place, bounds)
    }

    /// Shows a leaf's items while proving it. The bounds are held against the first and the last key, since the keys
    /// between are proven to ascend; the first one before it is shown, so that a visitor never sees keys descend.
    fn leaf(&mut self, bytes: &[u8], count: u16, place: Place, bounds: Bounds<'_>) -> Result<(), V::Error> {
        let leaf = Leaf::new(bytes, count).map_err(|fault| place.damaged(fault))?;
        let mut last: &[u8] = &[];
        for item in leaf.items() {
            let item = item.map_err(|fault| place.damaged(fault))?;
            if item.index == 0 {
                bounds.hold_first(item.key).map_err(|problem| place.problem(problem))?;
            }
            last = item.key;
            if item.is_bucket {
                self.sub_bucket(&leaf, &item, place)?;
                continue;
            }
            self.report.items += 1;
            self.report.item_bytes += (item.key.len() + item.value.len()) as u64;
            match self.path.len() {
                0 => {
                    return Err(place.damaged(item.fault(Problem::NotABucket { index: item.index })).into());
                }
                1 => self.visitor.item(item.key, item.value)?,
                _ => self.visitor.nested_item(&self.path, item.key, item.value)?,
            }
        }
        if leaf.len() > 0 {
            bounds.hold_last(last).map_err(|problem| place.problem(problem))?;
        }
        Ok(())
    }

    fn sub_bucket(&mut self, leaf: &Leaf<'_>, item: &Item<'_>, place: Place) -> Result<(), V::Error> {
        let damaged = |problem| place.damaged(item.fault(problem));
        if self.path.len() == MAX_BUCKET_DEPTH {
            return Err(damaged(Problem::TooDeep { limit: MAX_BUCKET_DEPTH }).into());
        }
        let bucket = BucketValue::parse(item).map_err(|fault| place.damaged(fault))?;
        self.path.push(item.key.to_vec());
        self.report.buckets += 1;
        match self.path.len() {
            1 => self.visitor.bucket(item.key, bucket.sequence)?,
            _ => self.visitor.nested(&self.path, bucket.sequence)?,
        }
        match bucket.root {
            BucketRoot::Inline { page, count } => {
                self.report.inline_buckets += 1;
                let inside = (leaf.value_offset(item) + BUCKET_HEADER_SIZE) as u64;
                let inner = Place { page: place.page, offset: place.offset + inside };
                let elements = Leaf::new(page, count).map_err(|fault| inner.damaged(fault))?;
                // bbolt never looks into inline buckets for pages in use, so it would take theirs for free ones.
                for element in elements.items() {
                    let element = element.map_err(|fault| inner.damaged(fault))?;
                    if element.is_bucket {
                        let index = element.index;
                        return Err(inner.damaged(element.fault(Problem::BucketValue { index })).into());
                    }
                }
                self.leaf(page, count, inner, Bounds::default())?;
            }
            BucketRoot::Page(root) if self.database.meta().may_refer(root) => self.tree(root)?,
            BucketRoot::Page(target) => {
                let high_water_mark = self.database.meta().high_water_mark;
                return Err(damaged(Problem::Reference { target, high_water_mark }).into());
            }
        }
        self.path.pop();
        Ok(())
    }
}

/// The range that the innermost open branch gives the child it turned to last.
fn bounds(frames: &[Frame], upper: Option<(usize, usize, usize)>) -> Result<Bounds<'_>, Error> {
    let lower = match frames.last() {
        Some(frame) => {
            let branch = frame.page.branch()?;
            let entry = branch.entry(frame.next - 1).map_err(|fault| frame.page.place().damaged(fault))?;
            Some(entry.key)
        }
        None => None,
    };
    Ok(Bounds { lower, upper: upper.map(|(frame, start, end)| &frames[frame].page.bytes()[start..end]) })
}

/// Where the key is that the child at `index` must stay below: the next child's, else what holds for the branch.
fn upper_of(frame: &Frame, depth: usize, index: usize) -> Result<Option<(usize, usize, usize)>, Error> {
    let branch = frame.page.branch()?;
    if index + 1 == branch.len() {
        return Ok(frame.upper);
    }
    let next = branch.entry(index + 1).map_err(|fault| frame.page.place().damaged(fault))?;
    let start = branch.key_offset(&next);
    Ok(Some((depth, start, start + next.key.len())))
}
