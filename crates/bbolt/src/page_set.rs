//! A set of page numbers: one bit each.

use crate::meta::PageId;

/// Pages below a high-water mark.
#[derive(Debug)]
pub(crate) struct PageSet {
    words: Vec<u64>,
    len: u64,
}

impl PageSet {
    /// An empty set for pages below `end`, which is at most [`crate::limits::MAX_PAGES`]. The memory is zero pages of
    /// the operating system until bits are set.
    pub(crate) fn below(end: PageId) -> Self {
        Self { words: vec![0; end.0.div_ceil(64) as usize], len: 0 }
    }

    /// Adds one page; `false` when it was there already. `page` must be below the end.
    pub(crate) fn insert(&mut self, page: PageId) -> bool {
        let word = &mut self.words[(page.0 / 64) as usize];
        let bit = 1 << (page.0 % 64);
        let new = *word & bit == 0;
        *word |= bit;
        self.len += u64::from(new);
        new
    }

    /// Adds `count` pages from `first` on, or tells the first that was there already.
    pub(crate) fn insert_run(&mut self, first: PageId, count: u64) -> Result<(), PageId> {
        match (first.0..first.0 + count).map(PageId).find(|&page| !self.insert(page)) {
            Some(page) => Err(page),
            None => Ok(()),
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn contains(&self, page: PageId) -> bool {
        self.words.get((page.0 / 64) as usize).is_some_and(|word| word >> (page.0 % 64) & 1 == 1)
    }

    /// The lowest page below `end` that is in both sets, or in neither.
    pub(crate) fn first_not_split(&self, other: &Self, end: PageId) -> Option<PageId> {
        let equal = |(index, (one, other)): (usize, (&u64, &u64))| match !(one ^ other) {
            0 => None,
            same => Some(PageId(index as u64 * 64 + u64::from(same.trailing_zeros()))),
        };
        self.words.iter().zip(&other.words).enumerate().find_map(equal).filter(|&page| page < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_over_a_used_page_names_it() {
        let mut set = PageSet::below(PageId(200));
        assert_eq!(set.insert_run(PageId(60), 10), Ok(()));
        assert_eq!(set.insert_run(PageId(50), 20), Err(PageId(60)));
        assert_eq!(set.len(), 20);
        assert!(set.contains(PageId(69)) && !set.contains(PageId(70)) && !set.contains(PageId(100_000)));
    }

    #[test]
    fn two_sets_that_part_the_pages_have_no_first_difference() {
        let end = PageId(130);
        let (mut one, mut other) = (PageSet::below(end), PageSet::below(end));
        for page in (0..130).map(PageId) {
            if page.0 % 3 == 0 {
                one.insert(page)
            } else {
                other.insert(page)
            };
        }
        assert_eq!(one.first_not_split(&other, end), None);
        other.insert(PageId(129));
        assert_eq!(one.first_not_split(&other, end), Some(PageId(129)));
    }
}
