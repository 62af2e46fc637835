//! The meta pages: where a database's state begins.

use std::fmt;

use crate::error::{Error, MetaProblem};
use crate::limits::{MAX_PAGE_SIZE, MAX_PAGES, MIN_PAGE_SIZE};
use crate::page::{HEADER_SIZE, Header, META_FLAG, u32_at, u64_at};
use crate::source::ReadAt;

/// Number of a page; page `n` begins at byte `n * page_size` of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId(pub u64);

impl fmt::Display for PageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const META_SIZE: usize = 64;
const CHECKED_SIZE: usize = 56;
const NO_FREELIST: u64 = u64::MAX;

/// Bytes of a meta page that mean something: the page header and the meta itself.
pub(crate) const META_PAGE_BYTES: usize = HEADER_SIZE + META_SIZE;

/// One state of the database, as its meta page names it (bbolt `internal/common/meta.go`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The meta page this was read from: 0 or 1.
    pub page: PageId,
    /// Bytes per page, a power of two from 1 KiB to 64 KiB.
    pub page_size: u32,
    /// Flags; bbolt writes 0 and ignores them.
    pub flags: u32,
    /// Root page of the bucket of buckets.
    pub root: PageId,
    /// Sequence number of the bucket of buckets; 0 in practice.
    pub sequence: u64,
    /// First page of the stored free list, or `None` when the free pages are whatever is not reachable (etcd 3.3 on).
    pub freelist: Option<PageId>,
    /// The first page never used: all pages are below.
    pub high_water_mark: PageId,
    /// The transaction that wrote this state; of two valid metas the higher one counts.
    pub txid: u64,
}

impl Meta {
    /// Bytes that all pages take together; at most the file's length.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.high_water_mark.0.saturating_mul(u64::from(self.page_size))
    }

    pub(crate) fn offset(&self, page: PageId) -> u64 {
        page.0.saturating_mul(u64::from(self.page_size))
    }

    /// Whether a tree may refer to `page`: not a meta page, and below the high-water mark.
    pub(crate) fn may_refer(&self, page: PageId) -> bool {
        page.0 >= 2 && page < self.high_water_mark
    }

    fn parse(page: PageId, bytes: &[u8; META_PAGE_BYTES]) -> Result<Self, MetaProblem> {
        let body = &bytes[HEADER_SIZE..];
        let magic = u32_at(body, 0);
        if magic != MAGIC {
            return Err(MetaProblem::Magic(magic));
        }
        let version = u32_at(body, 4);
        if version != VERSION {
            return Err(MetaProblem::Version(version));
        }
        if u64_at(body, CHECKED_SIZE) != fnv1a(&body[..CHECKED_SIZE]) {
            return Err(MetaProblem::Checksum);
        }
        Ok(Self::with_numbers_of(page, bytes))
    }

    /// The numbers in a meta page, whatever its checksum; `bytes` must have [`META_PAGE_BYTES`].
    pub(crate) fn with_numbers_of(page: PageId, bytes: &[u8]) -> Self {
        let body = &bytes[HEADER_SIZE..META_PAGE_BYTES];
        let freelist = u64_at(body, 32);
        Self {
            page,
            page_size: u32_at(body, 8),
            flags: u32_at(body, 12),
            root: PageId(u64_at(body, 16)),
            sequence: u64_at(body, 24),
            freelist: (freelist != NO_FREELIST).then_some(PageId(freelist)),
            high_water_mark: PageId(u64_at(body, 40)),
            txid: u64_at(body, 48),
        }
    }

    /// The bytes of this meta's page, header included; the rest of the page is not used.
    pub(crate) fn encode(&self) -> [u8; META_PAGE_BYTES] {
        let mut bytes = [0; META_PAGE_BYTES];
        let header = Header { id: self.page.0, flags: META_FLAG, count: 0, overflow: 0 };
        bytes[..HEADER_SIZE].copy_from_slice(&header.encode());
        let body = &mut bytes[HEADER_SIZE..];
        body[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        body[4..8].copy_from_slice(&VERSION.to_le_bytes());
        body[8..12].copy_from_slice(&self.page_size.to_le_bytes());
        body[12..16].copy_from_slice(&self.flags.to_le_bytes());
        body[16..24].copy_from_slice(&self.root.0.to_le_bytes());
        body[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        body[32..40].copy_from_slice(&self.freelist.map_or(NO_FREELIST, |page| page.0).to_le_bytes());
        body[40..48].copy_from_slice(&self.high_water_mark.0.to_le_bytes());
        body[48..56].copy_from_slice(&self.txid.to_le_bytes());
        let checksum = fnv1a(&body[..CHECKED_SIZE]);
        body[56..64].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Refuses what the checksum cannot: numbers that contradict each other or the length of the file.
    fn check(&self, size: u64) -> Result<(), Error> {
        if !is_page_size(self.page_size) {
            return Err(Error::PageSize { found: self.page_size });
        }
        let needed = self.size();
        if size < needed {
            return Err(Error::Truncated { size, needed });
        }
        if self.high_water_mark.0 > MAX_PAGES {
            return Err(Error::TooManyPages { pages: self.high_water_mark.0, limit: MAX_PAGES });
        }
        for (field, target) in [(16, Some(self.root)), (32, self.freelist)] {
            if let Some(target) = target.filter(|&target| !self.may_refer(target)) {
                return Err(Error::Damaged {
                    page: self.page,
                    offset: self.offset(self.page) + HEADER_SIZE as u64 + field,
                    problem: crate::Problem::Reference { target, high_water_mark: self.high_water_mark },
                });
            }
        }
        Ok(())
    }
}

/// Both meta pages, read: the state that counts, and whether the other page is usable.
pub(crate) struct Metas {
    pub(crate) current: Meta,
    pub(crate) damaged: Option<PageId>,
}

impl Metas {
    /// Chooses as bbolt does (`db.go`, `getPageSize` and `meta`): the page size from the first usable meta page, then
    /// the usable meta with the higher transaction id.
    pub(crate) fn read<S: ReadAt>(source: &S) -> Result<Self, Error> {
        let size = source.size();
        let first = read_one(source, size, PageId(0), 0)?;
        let second = match &first {
            Ok(meta) if !is_page_size(meta.page_size) => return Err(Error::PageSize { found: meta.page_size }),
            Ok(meta) => read_second(source, size, meta.page_size)?,
            Err(_) => probe_second(source, size)?,
        };
        let (current, damaged) = match (first, second) {
            (Ok(first), Ok(second)) if second.txid > first.txid => (second, None),
            (Ok(first), Ok(_)) => (first, None),
            (Ok(first), Err(_)) => (first, Some(PageId(1))),
            (Err(_), Ok(second)) => (second, Some(PageId(0))),
            (Err(first), Err(second)) => {
                let swapped = MetaProblem::Magic(MAGIC.swap_bytes());
                let big_endian = first == swapped || second == swapped;
                return Err(if big_endian { Error::BigEndian } else { Error::NoMeta { first, second } });
            }
        };
        current.check(size)?;
        Ok(Self { current, damaged })
    }
}

fn read_one<S: ReadAt>(source: &S, size: u64, page: PageId, offset: u64) -> Result<Result<Meta, MetaProblem>, Error> {
    let mut bytes = [0; META_PAGE_BYTES];
    if offset.saturating_add(bytes.len() as u64) > size {
        return Ok(Err(MetaProblem::Missing));
    }
    source.read_exact_at(&mut bytes, offset).map_err(|source| Error::Read { offset, length: bytes.len(), source })?;
    Ok(Meta::parse(page, &bytes))
}

fn read_second<S: ReadAt>(source: &S, size: u64, page_size: u32) -> Result<Result<Meta, MetaProblem>, Error> {
    let meta = read_one(source, size, PageId(1), u64::from(page_size))?;
    Ok(meta.and_then(|meta| if meta.page_size == page_size { Ok(meta) } else { Err(MetaProblem::PageSize(meta.page_size)) }))
}

/// Looks for meta page 1 wherever it could be, since only meta page 0 would have told.
fn probe_second<S: ReadAt>(source: &S, size: u64) -> Result<Result<Meta, MetaProblem>, Error> {
    let mut most_likely = MetaProblem::Missing;
    let mut page_size = MIN_PAGE_SIZE;
    while page_size <= MAX_PAGE_SIZE {
        match read_second(source, size, page_size)? {
            Ok(meta) => return Ok(Ok(meta)),
            Err(MetaProblem::Missing) => {}
            // A wrong magic number only says that the page size is another one.
            Err(problem) => {
                let blank = matches!(most_likely, MetaProblem::Missing | MetaProblem::Magic(_));
                let swapped = most_likely == MetaProblem::Magic(MAGIC.swap_bytes());
                if blank && !swapped {
                    most_likely = problem;
                }
            }
        }
        page_size *= 2;
    }
    Ok(Err(most_likely))
}

pub(crate) fn is_page_size(page_size: u32) -> bool {
    page_size.is_power_of_two() && (MIN_PAGE_SIZE..=MAX_PAGE_SIZE).contains(&page_size)
}

/// FNV-1a, 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
