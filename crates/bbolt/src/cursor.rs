//! Moving over a bucket's keys in order.

use crate::bucket::Root;
use crate::database::Database;
use crate::error::{Error, Problem};
use crate::limits::MAX_TREE_DEPTH;
use crate::meta::PageId;
use crate::page::{Item, Leaf, Place};
use crate::reader::{BranchCopy, Budget, Kind, Loaded, PageReader};
use crate::source::ReadAt;

/// A key with its value, both parts of the cursor's page buffer.
pub type Pair<'c> = (&'c [u8], &'c [u8]);

/// A position in a bucket.
///
/// A cursor works on files nobody has checked: it never shows keys out of order, so a tree with cycles ends it with
/// an error instead of keeping it busy. A nested bucket shows as a key whose value is the bucket's raw bytes;
/// [`Cursor::is_bucket`] tells it apart.
///
/// Moving on past the last key leaves the cursor behind it, where [`Cursor::prev`] returns to the last; the same at
/// the other end.
#[derive(Debug)]
pub struct Cursor<'b, S: ReadAt> {
    database: &'b Database<S>,
    root: &'b Root,
    frames: Vec<Frame>,
    /// How many frames are in use; the rest keep their buffers.
    open: usize,
    leaf: At<'b>,
    index: usize,
    position: Position,
    reader: PageReader,
    budget: Budget,
    /// The key left last at the border of a page.
    edge: Vec<u8>,
    forward: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Nowhere,
    BeforeFirst,
    AtKey,
    AfterLast,
}

#[derive(Debug, Default)]
struct Frame {
    page: BranchCopy,
    index: usize,
}

/// The leaf the cursor is in.
#[derive(Clone, Copy, Debug)]
enum At<'b> {
    None,
    Page(Loaded),
    Inline { page: &'b [u8], count: u16, place: Place },
}

#[derive(Clone, Copy)]
enum Aim<'k> {
    First,
    Last,
    Key(&'k [u8]),
}

impl<'b, S: ReadAt> Cursor<'b, S> {
    pub(crate) fn new(database: &'b Database<S>, root: &'b Root) -> Self {
        Self {
            database,
            root,
            frames: Vec::new(),
            open: 0,
            leaf: At::None,
            index: 0,
            position: Position::Nowhere,
            reader: PageReader::default(),
            budget: Budget::default(),
            edge: Vec::new(),
            forward: false,
        }
    }

    /// Moves to the first key.
    ///
    /// # Errors
    /// Those of reading: [`Error::Read`], [`Error::Damaged`].
    pub fn first(&mut self) -> Result<Option<Pair<'_>>, Error> {
        self.go(Aim::First)?;
        self.item()
    }

    /// Moves to the last key.
    ///
    /// # Errors
    /// Those of reading: [`Error::Read`], [`Error::Damaged`].
    pub fn last(&mut self) -> Result<Option<Pair<'_>>, Error> {
        self.go(Aim::Last)?;
        self.item()
    }

    /// Moves to `key`, or to the first key above it; behind the last key when there is none.
    ///
    /// # Errors
    /// Those of reading: [`Error::Read`], [`Error::Damaged`].
    pub fn seek(&mut self, key: &[u8]) -> Result<Option<Pair<'_>>, Error> {
        self.seek_to(key)?;
        self.item()
    }

    /// Moves to the next key; to the first one when the cursor is at none yet.
    ///
    /// # Errors
    /// Those of reading: [`Error::Read`], [`Error::Damaged`].
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend its own buffer")]
    pub fn next(&mut self) -> Result<Option<Pair<'_>>, Error> {
        match self.position {
            Position::Nowhere | Position::BeforeFirst => self.go(Aim::First)?,
            Position::AfterLast => {}
            Position::AtKey => self.step_forward()?,
        }
        self.item()
    }

    /// Moves to the key before; to the last one when the cursor is at none yet.
    ///
    /// # Errors
    /// Those of reading: [`Error::Read`], [`Error::Damaged`].
    pub fn prev(&mut self) -> Result<Option<Pair<'_>>, Error> {
        match self.position {
            Position::Nowhere | Position::AfterLast => self.go(Aim::Last)?,
            Position::BeforeFirst => {}
            Position::AtKey => self.step_back()?,
        }
        self.item()
    }

    /// The key the cursor is at, without moving.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the element is malformed.
    pub fn item(&self) -> Result<Option<Pair<'_>>, Error> {
        Ok(self.element()?.map(|(_, _, item)| (item.key, item.value)))
    }

    /// Whether the key the cursor is at names a nested bucket.
    #[must_use]
    pub fn is_bucket(&self) -> bool {
        matches!(self.element(), Ok(Some((_, _, item))) if item.is_bucket)
    }

    pub(crate) fn seek_exact(&mut self, key: &[u8]) -> Result<bool, Error> {
        self.seek_to(key)?;
        Ok(self.item()?.is_some_and(|(found, _)| found == key))
    }

    pub(crate) fn element(&self) -> Result<Option<(Place, Leaf<'_>, Item<'_>)>, Error> {
        if self.position != Position::AtKey {
            return Ok(None);
        }
        let Some((place, leaf)) = self.leaf()? else { return Ok(None) };
        let item = leaf.item(self.index).map_err(|fault| place.damaged(fault))?;
        Ok(Some((place, leaf, item)))
    }

    fn leaf(&self) -> Result<Option<(Place, Leaf<'_>)>, Error> {
        let (place, bytes, count) = match self.leaf {
            At::None => return Ok(None),
            At::Page(loaded) => (loaded.place, self.reader.bytes(loaded), loaded.count),
            At::Inline { page, count, place } => (place, page, count),
        };
        Ok(Some((place, Leaf::new(bytes, count).map_err(|fault| place.damaged(fault))?)))
    }

    fn leaf_len(&self) -> Result<usize, Error> {
        Ok(self.leaf()?.map_or(0, |(_, leaf)| leaf.len()))
    }

    /// From the root to the key aimed at. In an empty bucket the cursor ends behind the last key.
    fn go(&mut self, aim: Aim<'_>) -> Result<(), Error> {
        self.position = Position::Nowhere;
        self.open = 0;
        self.forward = false;
        match self.root {
            Root::Page(page) => self.descend(*page, aim)?,
            Root::Inline { page, count, place } => {
                self.leaf = At::Inline { page, count: *count, place: *place };
                self.land(aim)?;
            }
        }
        self.position = if self.leaf_len()? == 0 { Position::AfterLast } else { Position::AtKey };
        Ok(())
    }

    fn seek_to(&mut self, key: &[u8]) -> Result<(), Error> {
        self.go(Aim::Key(key))?;
        if self.position == Position::AtKey && self.index == self.leaf_len()? {
            // The key lies in the gap between this leaf's last key and the next leaf's range.
            self.index -= 1;
            self.step_forward()?;
        }
        Ok(())
    }

    fn descend(&mut self, mut page: PageId, aim: Aim<'_>) -> Result<(), Error> {
        loop {
            let loaded = self.reader.load(self.database, page, self.ahead(page)?, &mut self.budget)?;
            if loaded.kind == Kind::Leaf {
                return self.arrive(loaded, aim);
            }
            if self.open + 1 == MAX_TREE_DEPTH {
                return Err(loaded.place.problem(Problem::TooDeep { limit: MAX_TREE_DEPTH }));
            }
            if self.frames.len() == self.open {
                self.frames.push(Frame::default());
            }
            let frame = &mut self.frames[self.open];
            let high_water_mark = self.database.meta().high_water_mark;
            frame.page.set(self.reader.bytes(loaded), loaded, high_water_mark, &mut self.budget)?;
            let branch = frame.page.branch()?;
            frame.index = match aim {
                Aim::First => 0,
                Aim::Last => branch.len() - 1,
                Aim::Key(key) => branch.child_for(key).map_err(|fault| loaded.place.damaged(fault))?,
            };
            page = branch.child(frame.index);
            self.open += 1;
        }
    }

    /// How many pages to read with `page`: more than one only while the cursor moves forward from leaf to leaf.
    fn ahead(&self, page: PageId) -> Result<u64, Error> {
        let page_size = self.database.meta().page_size;
        match self.open.checked_sub(1) {
            Some(top) if self.forward && !self.reader.holds(page, page_size) => {
                let frame = &self.frames[top];
                Ok(self.reader.ahead(&frame.page.branch()?, frame.index, page_size))
            }
            _ => Ok(1),
        }
    }

    fn arrive(&mut self, loaded: Loaded, aim: Aim<'_>) -> Result<(), Error> {
        if loaded.count == 0 && self.open > 0 {
            return Err(loaded.place.problem(Problem::Empty));
        }
        self.leaf = At::Page(loaded);
        self.land(aim)
    }

    fn land(&mut self, aim: Aim<'_>) -> Result<(), Error> {
        let Some((place, leaf)) = self.leaf()? else { return Ok(()) };
        self.index = match aim {
            Aim::First => 0,
            Aim::Last => leaf.len().saturating_sub(1),
            Aim::Key(key) => leaf.lower_bound(key).map_err(|fault| place.damaged(fault))?,
        };
        Ok(())
    }

    fn step_forward(&mut self) -> Result<(), Error> {
        if self.index + 1 < self.leaf_len()? {
            self.index += 1;
            return self.hold_order(|leaf, index| Ok(leaf.item(index - 1)?.key < leaf.item(index)?.key));
        }
        self.keep_edge()?;
        let turned = self.turn(|index, len| Some(index + 1).filter(|&next| next < len))?;
        let Some(page) = turned else {
            self.position = Position::AfterLast;
            return Ok(());
        };
        self.cross(page, Aim::First)?;
        let edge = std::mem::take(&mut self.edge);
        let ordered = self.hold_order(|leaf, index| Ok(edge.as_slice() < leaf.item(index)?.key));
        self.edge = edge;
        ordered
    }

    fn step_back(&mut self) -> Result<(), Error> {
        if self.index > 0 {
            self.index -= 1;
            return self.hold_order(|leaf, index| Ok(leaf.item(index)?.key < leaf.item(index + 1)?.key));
        }
        self.keep_edge()?;
        let Some(page) = self.turn(|index, _| index.checked_sub(1))? else {
            self.position = Position::BeforeFirst;
            return Ok(());
        };
        self.cross(page, Aim::Last)?;
        let edge = std::mem::take(&mut self.edge);
        let ordered = self.hold_order(|leaf, index| Ok(leaf.item(index)?.key < edge.as_slice()));
        self.edge = edge;
        ordered
    }

    fn keep_edge(&mut self) -> Result<(), Error> {
        let mut edge = std::mem::take(&mut self.edge);
        edge.clear();
        if let Some((key, _)) = self.item()? {
            edge.extend_from_slice(key);
        }
        self.edge = edge;
        Ok(())
    }

    /// Turns the innermost branch that has a child left to another one, chosen by `choose(index, len)`, and forgets
    /// the branches below. `None`, and nothing changed, when no branch has one.
    fn turn(&mut self, choose: impl Fn(usize, usize) -> Option<usize>) -> Result<Option<PageId>, Error> {
        for depth in (0..self.open).rev() {
            let frame = &mut self.frames[depth];
            if let Some(index) = choose(frame.index, frame.page.len()) {
                frame.index = index;
                self.open = depth + 1;
                return Ok(Some(frame.page.branch()?.child(index)));
            }
        }
        Ok(None)
    }

    /// Goes down to a leaf beside the one just left. A failure on the way leaves the cursor nowhere.
    fn cross(&mut self, page: PageId, aim: Aim<'_>) -> Result<(), Error> {
        self.position = Position::Nowhere;
        self.forward = matches!(aim, Aim::First);
        self.descend(page, aim)?;
        self.position = Position::AtKey;
        Ok(())
    }

    fn hold_order(&mut self, ordered: impl Fn(&Leaf<'_>, usize) -> Result<bool, crate::page::Fault>) -> Result<(), Error> {
        let Some((place, leaf)) = self.leaf()? else { return Ok(()) };
        let index = self.index;
        let error = match ordered(&leaf, index) {
            Ok(true) => return Ok(()),
            Ok(false) => match leaf.item(index) {
                Ok(item) => place.damaged(item.fault(Problem::KeyOrder { index })),
                Err(fault) => place.damaged(fault),
            },
            Err(fault) => place.damaged(fault),
        };
        self.position = Position::Nowhere;
        Err(error)
    }
}
