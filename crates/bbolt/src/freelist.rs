//! The stored free list (bbolt `internal/freelist/shared.go`); files of etcd 3.3 and later have none.

use crate::database::Database;
use crate::error::{Error, Problem};
use crate::meta::PageId;
use crate::page::{FREELIST_FLAG, Fault, HEADER_SIZE, Header, Place, u64_at};
use crate::page_set::PageSet;
use crate::reader::check_overflow;
use crate::source::ReadAt;

/// In the header's count: the true count is the first number of the list.
pub(crate) const LONG_COUNT: u16 = 0xFFFF;

const ID_SIZE: u64 = 8;
const CHUNK: usize = 64 << 10;

/// The free list's own pages, and the pages it calls free.
pub(crate) struct Freelist {
    pub(crate) first: PageId,
    pub(crate) span: u64,
    pub(crate) free: PageSet,
}

impl Freelist {
    /// Reads the list in fixed steps, whatever its length.
    pub(crate) fn read<S: ReadAt>(database: &Database<S>, page: PageId) -> Result<Self, Error> {
        let meta = database.meta();
        let place = Place { page, offset: meta.offset(page) };
        let mut head = [0; HEADER_SIZE + ID_SIZE as usize];
        read(database, &mut head, place.offset)?;
        let header = Header::parse(&head).ok_or_else(|| place.problem(Problem::ElementTable { count: 0 }))?;
        if header.id != page.0 {
            return Err(place.problem(Problem::PageNumber { found: PageId(header.id) }));
        }
        if header.flags != FREELIST_FLAG {
            return Err(place.problem(Problem::PageType { flags: header.flags, expected: "free list" }));
        }
        check_overflow(database, place, header)?;
        let span = u64::from(header.overflow) + 1;
        let (skipped, count) = match header.count {
            LONG_COUNT => (ID_SIZE, u64_at(&head, HEADER_SIZE)),
            count => (0, u64::from(count)),
        };
        let start = HEADER_SIZE as u64 + skipped;
        let room = (span * u64::from(meta.page_size) - start) / ID_SIZE;
        if count > room {
            return Err(place.damaged(Fault { at: 10, problem: Problem::FreeCount { count } }));
        }
        let mut list = Self { first: page, span, free: PageSet::below(meta.high_water_mark) };
        list.read_ids(database, place, start, count)?;
        Ok(list)
    }

    fn read_ids<S: ReadAt>(&mut self, database: &Database<S>, place: Place, start: u64, count: u64) -> Result<(), Error> {
        let mut chunk = vec![0; CHUNK];
        let end = start + count * ID_SIZE;
        let mut at = start;
        while at < end {
            let part = &mut chunk[..CHUNK.min((end - at) as usize)];
            read(database, part, place.offset + at)?;
            for (index, id) in part.chunks_exact(ID_SIZE as usize).enumerate() {
                let target = PageId(u64_at(id, 0));
                let high_water_mark = database.meta().high_water_mark;
                let problem = if !database.meta().may_refer(target) {
                    Problem::Reference { target, high_water_mark }
                } else if !self.free.insert(target) {
                    Problem::FreeTwice(target)
                } else {
                    continue;
                };
                return Err(place.damaged(Fault { at: at as usize + index * ID_SIZE as usize, problem }));
            }
            at += part.len() as u64;
        }
        Ok(())
    }
}

fn read<S: ReadAt>(database: &Database<S>, buffer: &mut [u8], offset: u64) -> Result<(), Error> {
    let length = buffer.len();
    database.source().read_exact_at(buffer, offset).map_err(|source| Error::Read { offset, length, source })
}
