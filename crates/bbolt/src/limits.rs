//! Every limit of this crate, in one place. Bytes from outside can never make it use more.

/// Smallest page size that is accepted, bytes. bbolt itself probes from here (`db.go`, `getPageSizeFromSecondMeta`).
pub const MIN_PAGE_SIZE: u32 = 1 << 10;

/// Largest page size that is accepted, bytes: the largest page an operating system that runs etcd uses.
pub const MAX_PAGE_SIZE: u32 = 1 << 16;

/// Most pages below a high-water mark: 8 TiB of 4 KiB pages, of which the bitmap of reachable pages takes 256 MiB of
/// address space (touched only where pages are).
pub const MAX_PAGES: u64 = 1 << 31;

/// Longest key, bytes (bbolt `MaxKeySize`).
pub const MAX_KEY_SIZE: usize = 32_768;

/// Largest leaf page with its overflow pages, bytes. bbolt allows values up to 2 GiB; etcd's requests end at 1.5 MiB
/// by default and 10 MiB in practice, and bbolt keeps at most four such values on one page.
pub const MAX_PAGE_BYTES: u64 = 512 << 20;

/// Largest branch page with its overflow pages, bytes. bbolt splits at one page or four keys of 32 KiB.
pub const MAX_BRANCH_BYTES: u64 = 16 << 20;

/// Most bytes that all page buffers of one walk, cursor or edit may take together.
pub const MAX_HELD_BYTES: u64 = 768 << 20;

/// Most levels of one bucket's tree. 8 TiB of the worst case (two keys a branch) is 31.
pub const MAX_TREE_DEPTH: usize = 48;

/// Most buckets inside each other.
pub const MAX_BUCKET_DEPTH: usize = 16;

/// Most names [`crate::Database::bucket_names`] returns.
pub const MAX_BUCKET_NAMES: usize = 65_536;

/// Most bytes of names [`crate::Database::bucket_names`] returns.
pub const MAX_BUCKET_NAME_BYTES: usize = 16 << 20;

/// Adjacent pages are read together up to this many bytes. It fits a core's L2 cache beside the page cache's lines.
pub(crate) const READ_AHEAD: u64 = 256 << 10;

/// A page bigger than this is read in steps that begin at this size and double, so that memory is only taken for
/// bytes that exist.
pub(crate) const READ_STEP: usize = 8 << 20;

/// A buffer that grew beyond this for one big page is given back when small pages follow.
pub(crate) const KEEP_BUFFER: usize = 8 << 20;

/// New pages are collected up to this many bytes and written together.
pub(crate) const WRITE_BUFFER: usize = 1 << 20;
