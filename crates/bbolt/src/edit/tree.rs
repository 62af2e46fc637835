//! One bucket's tree with changes applied: changed leaves and the branches above them are written anew, the rest of the
//! tree is referred to as it is.

use crate::append::{Appender, MIN_BRANCH, MIN_LEAF, NewChild, NewItem, split};
use crate::database::Database;
use crate::edit::empty_leaf;
use crate::error::{Error, Problem};
use crate::limits::MAX_TREE_DEPTH;
use crate::meta::PageId;
use crate::page::{Branch, Leaf, Place};
use crate::reader::{Budget, Kind, Loaded, PageReader};
use crate::source::{ReadAt, WriteAt};

/// One key's new item, or its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) item: Option<NewItem<'a>>,
}

/// A child of a branch that is being made.
#[derive(Debug)]
struct Entry {
    key: Vec<u8>,
    link: Link,
}

#[derive(Debug)]
enum Link {
    /// A page that is in the file, old or new.
    Page(PageId),
    /// A branch not yet written, since it may still have to join a neighbour.
    Branch(Vec<Entry>),
}

/// What a page becomes.
enum Changed {
    /// Any number of leaves, written.
    Leaves(Vec<Entry>),
    /// The children of one branch, not written.
    Branch(Vec<Entry>),
}

/// Applies changes to trees of one database.
pub(super) struct Tree<'t, 's, S: ReadAt> {
    database: &'t Database<S>,
    pages: &'t mut Appender<'s, S>,
    reader: PageReader,
    budget: Budget,
}

impl<'t, 's, S: WriteAt> Tree<'t, 's, S> {
    pub(super) fn new(database: &'t Database<S>, pages: &'t mut Appender<'s, S>) -> Self {
        Self { database, pages, reader: PageReader::default(), budget: Budget::default() }
    }

    /// The new root of the tree at `root`. The changes must ascend strictly by key.
    pub(super) fn apply(&mut self, root: PageId, changes: &[Change<'_>]) -> Result<PageId, Error> {
        let entries = match self.change(root, changes, 0)? {
            Changed::Leaves(entries) | Changed::Branch(entries) => entries,
        };
        self.finish(entries)
    }

    /// The root page for what was an inline bucket.
    pub(super) fn apply_inline(&mut self, page: &[u8], count: u16, place: Place, changes: &[Change<'_>]) -> Result<PageId, Error> {
        let entries = write_leaves(self.pages, &merge(page, count, place, changes)?)?;
        self.finish(entries)
    }

    /// The root of a tree that holds nothing but the changes.
    pub(super) fn build(&mut self, changes: &[Change<'_>]) -> Result<PageId, Error> {
        let items: Vec<_> = changes.iter().filter_map(|change| change.item).collect();
        let entries = write_leaves(self.pages, &items)?;
        self.finish(entries)
    }

    fn load(&mut self, page: PageId) -> Result<Loaded, Error> {
        self.reader.load(self.database, page, 1, &mut self.budget)
    }

    /// Recursion is bounded by [`MAX_TREE_DEPTH`].
    fn change(&mut self, page: PageId, changes: &[Change<'_>], depth: usize) -> Result<Changed, Error> {
        let loaded = self.load(page)?;
        match loaded.kind {
            Kind::Leaf => {
                let items = merge(self.reader.bytes(loaded), loaded.count, loaded.place, changes)?;
                Ok(Changed::Leaves(write_leaves(self.pages, &items)?))
            }
            Kind::Branch if depth + 1 < MAX_TREE_DEPTH => self.change_branch(loaded, changes, depth),
            Kind::Branch => Err(loaded.place.problem(Problem::TooDeep { limit: MAX_TREE_DEPTH })),
        }
    }

    fn change_branch(&mut self, loaded: Loaded, changes: &[Change<'_>], depth: usize) -> Result<Changed, Error> {
        let old = self.entries(loaded)?;
        let mut new = Vec::with_capacity(old.len());
        let mut rest = changes;
        let mut old = old.into_iter().peekable();
        while let Some(Entry { key, link }) = old.next() {
            let mine = match old.peek() {
                Some(next) => rest.partition_point(|change| change.key < next.key.as_slice()),
                None => rest.len(),
            };
            let (mine, others) = rest.split_at(mine);
            rest = others;
            match link {
                Link::Page(page) if !mine.is_empty() => match self.change(page, mine, depth + 1)? {
                    Changed::Leaves(leaves) => new.extend(leaves),
                    Changed::Branch(entries) => new.extend(unwritten(entries)),
                },
                link => new.push(Entry { key, link }),
            }
        }
        self.join(&mut new)?;
        Ok(Changed::Branch(new))
    }

    /// A branch's children as they are in the file.
    fn entries(&self, loaded: Loaded) -> Result<Vec<Entry>, Error> {
        let damaged = |fault| loaded.place.damaged(fault);
        let branch = Branch::new(self.reader.bytes(loaded), loaded.count).map_err(damaged)?;
        branch.validate(self.database.meta().high_water_mark).map_err(damaged)?;
        let entry = |index| {
            let entry = branch.entry(index).map_err(damaged)?;
            Ok(Entry { key: entry.key.to_vec(), link: Link::Page(entry.child) })
        };
        (0..branch.len()).map(entry).collect()
    }

    /// Lets unwritten branches with too few children join a neighbour; one without a neighbour is left to the level
    /// above. Each joining takes one branch away, and recursion goes one level down each time.
    fn join(&mut self, entries: &mut Vec<Entry>) -> Result<(), Error> {
        let mut index = 0;
        while index < entries.len() && entries.len() > 1 {
            match &entries[index].link {
                Link::Branch(children) if children.len() < MIN_BRANCH => {}
                _ => {
                    index += 1;
                    continue;
                }
            }
            let left = index.saturating_sub(1);
            let right = entries.remove(left + 1);
            let right_children = self.children(right.link)?;
            let taken = std::mem::replace(&mut entries[left].link, Link::Branch(Vec::new()));
            let mut children = self.children(taken)?;
            children.extend(right_children);
            self.join(&mut children)?;
            if let Some(first) = children.first() {
                entries[left].key.clone_from(&first.key);
            }
            entries[left].link = Link::Branch(children);
            index = left;
        }
        Ok(())
    }

    fn children(&mut self, link: Link) -> Result<Vec<Entry>, Error> {
        match link {
            Link::Branch(children) => Ok(children),
            Link::Page(page) => {
                let loaded = self.load_new_or_old(page)?;
                if loaded.kind != Kind::Branch {
                    return Err(loaded.place.problem(Problem::Unbalanced));
                }
                self.entries(loaded)
            }
        }
    }

    /// Only leaves are written before the end, and a leaf beside an unwritten branch means an unbalanced tree.
    fn load_new_or_old(&mut self, page: PageId) -> Result<Loaded, Error> {
        let meta = self.database.meta();
        if !meta.may_refer(page) {
            return Err(Place { page, offset: meta.offset(page) }.problem(Problem::Unbalanced));
        }
        self.load(page)
    }

    /// Writes the branches that are left and puts one root above them.
    fn finish(&mut self, mut entries: Vec<Entry>) -> Result<PageId, Error> {
        while entries.len() == 1 {
            match entries.remove(0).link {
                Link::Page(page) => return Ok(page),
                Link::Branch(children) => entries = children,
            }
        }
        if entries.is_empty() {
            return empty_leaf(self.pages);
        }
        let mut level = self.written(entries)?;
        while level.len() > 1 {
            level = self.write_branches(&level)?;
        }
        match level.pop() {
            Some(root) => Ok(root.page),
            None => empty_leaf(self.pages),
        }
    }

    /// Writes every unwritten branch below; recursion is bounded by the depth of the tree.
    fn written(&mut self, entries: Vec<Entry>) -> Result<Vec<NewChild>, Error> {
        let mut level = Vec::with_capacity(entries.len());
        for Entry { key, link } in entries {
            match link {
                Link::Page(page) => level.push(NewChild { key, page }),
                Link::Branch(children) => {
                    let children = self.written(children)?;
                    level.extend(self.write_branches(&children)?);
                }
            }
        }
        Ok(level)
    }

    fn write_branches(&mut self, children: &[NewChild]) -> Result<Vec<NewChild>, Error> {
        let sizes: Vec<_> = children.iter().map(NewChild::size).collect();
        let mut level = Vec::new();
        for range in split(&sizes, self.pages.page_size(), MIN_BRANCH) {
            let key = children[range.start].key.clone();
            level.push(NewChild { key, page: self.pages.branch(&children[range])? });
        }
        Ok(level)
    }
}

/// A branch that is known by its first child's key, if it has any child.
fn unwritten(children: Vec<Entry>) -> Option<Entry> {
    let key = children.first()?.key.clone();
    Some(Entry { key, link: Link::Branch(children) })
}

/// A leaf's items with the changes applied.
fn merge<'a>(page: &'a [u8], count: u16, place: Place, changes: &[Change<'a>]) -> Result<Vec<NewItem<'a>>, Error> {
    let damaged = |fault| place.damaged(fault);
    let leaf = Leaf::new(page, count).map_err(damaged)?;
    let mut merged = Vec::with_capacity(leaf.len() + changes.len());
    let mut changes = changes.iter().peekable();
    for item in leaf.items() {
        let item = item.map_err(damaged)?;
        while let Some(change) = changes.next_if(|change| change.key < item.key) {
            merged.extend(change.item);
        }
        match changes.next_if(|change| change.key == item.key) {
            Some(change) if item.is_bucket != change.item.is_some_and(|new| new.is_bucket) => {
                return Err(Error::IsBucket { key: item.key.to_vec() });
            }
            Some(change) => merged.extend(change.item),
            None => merged.push(NewItem { is_bucket: item.is_bucket, key: item.key, value: item.value }),
        }
    }
    merged.extend(changes.filter_map(|change| change.item));
    Ok(merged)
}

fn write_leaves<S: WriteAt>(pages: &mut Appender<'_, S>, items: &[NewItem<'_>]) -> Result<Vec<Entry>, Error> {
    let sizes: Vec<_> = items.iter().map(NewItem::size).collect();
    let mut leaves = Vec::new();
    for range in split(&sizes, pages.page_size(), MIN_LEAF) {
        let key = items[range.start].key.to_vec();
        let page = pages.leaf(items[range].iter().copied())?;
        leaves.push(Entry { key, link: Link::Page(page) });
    }
    Ok(leaves)
}
