//! The spool: where a snapshot lies between the stream and everything that is done with it.
//!
//! It is a file without a name, so nothing is left behind by a crash, and it is encrypted block by block with a key that only this process's memory
//! holds, so what reaches the disk under it can be read by nobody. AES-256-GCM; the nonce is the block's number, and each block is written once.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bbolt::ReadAt;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use crate::failure::{Failure, Outcome};
use crate::limits::{SPOOL_BLOCK, SPOOL_RESERVE, SPOOL_SHARE_OF_MEMORY};
use crate::memory;

const TAG: usize = 16;
const STORED_BLOCK: usize = SPOOL_BLOCK + TAG;
/// Blocks that one read or write call moves at most.
const BLOCKS_PER_CALL: usize = 32;

/// Where spools go and how much room they leave.
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    /// The directory, where the user named one; else [`default_directory`].
    pub directory: Option<PathBuf>,
    /// Bytes that stay free on its filesystem.
    pub reserve: u64,
    /// An etcd may live on the same disk: push written blocks to it in small steps where they would pile up, so that etcd does not wait behind one
    /// large flush.
    pub flush_gently: bool,
}

impl Default for SpoolOptions {
    fn default() -> Self {
        Self { directory: None, reserve: SPOOL_RESERVE, flush_gently: false }
    }
}

/// `/var/lib/lifeboat/spool` for root, else `lifeboat/spool` in the XDG cache directory.
#[must_use]
pub fn default_directory() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/lifeboat/spool");
    }
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .unwrap_or_else(std::env::temp_dir);
    cache.join("lifeboat/spool")
}

/// A spool being filled by one writer and read by many. What was appended can be read at once.
pub struct Spool {
    file: disk::File,
    directory: PathBuf,
    key: LessSafeKey,
    length: AtomicU64,
    flush_gently: AtomicBool,
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool").field("directory", &self.directory).field("length", &self.len()).finish_non_exhaustive()
    }
}

impl Spool {
    /// Opens an empty spool. A directory on tmpfs is refused unless it was named: a snapshot there would take the memory of the machine.
    pub fn create(options: &SpoolOptions) -> Outcome<Self> {
        let directory = options.directory.clone().unwrap_or_else(default_directory);
        let failed = |what: &str, error: io::Error| {
            Failure::failed(format!("{what}: {error}"))
                .object(directory.display())
                .cause("a directory on a disk that has room for the whole database is wanted: name another with --spool-dir")
                .again()
        };
        if !directory.is_dir() {
            disk::create_dir_all(&directory, 0o700).map_err(|error| failed("the spool directory cannot be made", error))?;
        }
        if options.directory.is_none() && disk::is_tmpfs(&directory).unwrap_or(false) {
            return Err(Failure::failed("the spool directory lies in memory (tmpfs), where a snapshot could exhaust the machine")
                .object(directory.display())
                .cause("the default directory is on tmpfs; a directory that you name is taken as it is")
                .again_with(["--spool-dir", &directory.to_string_lossy()]));
        }
        let file = disk::File::unnamed(&directory, 0o600).map_err(|error| failed("the spool cannot be opened", error))?;
        Ok(Self { file, directory, key: fresh_key()?, length: AtomicU64::new(0), flush_gently: AtomicBool::new(options.flush_gently) })
    }

    /// Makes room for `database_size` bytes beforehand (0 where nobody knows), and refuses when less than `reserve` would be left.
    pub fn reserve(&self, database_size: u64, reserve: u64) -> Outcome<()> {
        let blocks = database_size.div_ceil(SPOOL_BLOCK as u64);
        let stored = database_size + blocks * TAG as u64;
        let free = disk::free_space(&self.directory).map_err(|error| self.no_room(database_size, &error.to_string()))?;
        if stored.saturating_add(reserve) > free {
            let detail = format!("{free} bytes are free, {stored} are needed and {reserve} must stay free (--spool-reserve)");
            return Err(self.no_room(database_size, &detail));
        }
        if !piles_up(database_size, memory::available()) {
            self.flush_gently.store(false, Ordering::Relaxed);
        }
        self.file.allocate(stored).map_err(|error| self.no_room(database_size, &error.to_string()))
    }

    fn no_room(&self, database_size: u64, detail: &str) -> Failure {
        Failure::failed(format!("the spool has no room for a database of {database_size} bytes"))
            .object(self.directory.display())
            .cause(format!("{detail}: make room there, or name a directory with more with --spool-dir"))
            .again()
    }

    /// Appends bytes. Every call but the last must bring whole blocks ([`SPOOL_BLOCK`]), since a block is encrypted once.
    pub fn append(&self, bytes: &[u8]) -> Outcome<()> {
        let length = self.length.load(Ordering::Acquire);
        assert!(length.is_multiple_of(SPOOL_BLOCK as u64), "only the last append may end inside a block");
        let mut scratch = Vec::with_capacity(BLOCKS_PER_CALL * STORED_BLOCK);
        let mut index = length / SPOOL_BLOCK as u64;
        for run in bytes.chunks(BLOCKS_PER_CALL * SPOOL_BLOCK) {
            scratch.clear();
            let first = index;
            for block in run.chunks(SPOOL_BLOCK) {
                self.encrypt_onto(&mut scratch, block, index)?;
                index += 1;
            }
            let offset = first * STORED_BLOCK as u64;
            self.file.write_all_at(&scratch, offset).map_err(|error| self.no_room(length + bytes.len() as u64, &error.to_string()))?;
            if self.flush_gently.load(Ordering::Relaxed) {
                // Only a hint; a filesystem without it loses nothing but smoothness.
                self.file.sync_range(offset, scratch.len() as u64);
            }
        }
        self.length.store(length + bytes.len() as u64, Ordering::Release);
        Ok(())
    }

    fn encrypt_onto(&self, out: &mut Vec<u8>, block: &[u8], index: u64) -> Outcome<()> {
        let start = out.len();
        out.extend_from_slice(block);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(index), Aad::empty(), &mut out[start..])
            .map_err(|_| Failure::failed("a block of the spool cannot be encrypted"))?;
        out.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// Bytes appended so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    /// Whether nothing was appended yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads and decrypts the whole blocks that hold `range`, and shows them one after another with their first plain offset.
    fn for_blocks(&self, offset: u64, length: usize, show: &mut dyn FnMut(u64, &[u8])) -> io::Result<()> {
        let total = self.len();
        let end = offset.checked_add(length as u64).filter(|end| *end <= total).ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut index = offset / SPOOL_BLOCK as u64;
        let last = end.div_ceil(SPOOL_BLOCK as u64);
        let mut scratch = Vec::new();
        while index < last {
            let run = (last - index).min(BLOCKS_PER_CALL as u64);
            let plain = (run * SPOOL_BLOCK as u64).min(total - index * SPOOL_BLOCK as u64);
            let stored = plain + run * TAG as u64;
            scratch.resize(usize::try_from(stored).map_err(io::Error::other)?, 0);
            self.file.read_exact_at(&mut scratch, index * STORED_BLOCK as u64)?;
            for block in scratch.chunks_mut(STORED_BLOCK) {
                let opened = self
                    .key
                    .open_in_place(nonce(index), Aad::empty(), block)
                    .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("block {index} of the spool was changed on disk")))?;
                show(index * SPOOL_BLOCK as u64, opened);
                index += 1;
            }
        }
        Ok(())
    }
}

impl ReadAt for Spool {
    fn size(&self) -> u64 {
        self.len()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let wanted = buffer.len();
        self.for_blocks(offset, wanted, &mut |start, block| {
            let from = offset.max(start);
            let to = (offset + wanted as u64).min(start + block.len() as u64);
            let place = (from - offset) as usize..(to - offset) as usize;
            buffer[place].copy_from_slice(&block[(from - start) as usize..(to - start) as usize]);
        })
    }
}

/// Whether a spool of that size (0: unknown) would be written out in one large flush if nobody began earlier.
fn piles_up(size: u64, memory: Option<u64>) -> bool {
    size == 0 || memory.is_none_or(|memory| size > memory / SPOOL_SHARE_OF_MEMORY)
}

fn nonce(index: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[..8].copy_from_slice(&index.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn fresh_key() -> Outcome<LessSafeKey> {
    let mut key = [0; 32];
    SystemRandom::new().fill(&mut key).map_err(|_| Failure::failed("the system gives no random bytes"))?;
    let unbound = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| Failure::failed("the spool's key is refused"))?;
    Ok(LessSafeKey::new(unbound))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool() -> (tempfile::TempDir, Spool) {
        let directory = tempfile::tempdir().unwrap();
        let options = SpoolOptions { directory: Some(directory.path().to_owned()), reserve: 0, flush_gently: true };
        let spool = Spool::create(&options).unwrap();
        (directory, spool)
    }

    #[test]
    fn gives_back_any_range_of_what_was_appended() {
        let (_directory, spool) = spool();
        let bytes: Vec<u8> = (0..3 * SPOOL_BLOCK + 100).map(|n| (n * 31 % 251) as u8).collect();
        spool.append(&bytes[..2 * SPOOL_BLOCK]).unwrap();
        spool.append(&bytes[2 * SPOOL_BLOCK..]).unwrap();
        for (offset, length) in [(0, bytes.len()), (1, 1), (SPOOL_BLOCK - 1, 2), (3 * SPOOL_BLOCK, 100), (500, 2 * SPOOL_BLOCK)] {
            let mut read = vec![0; length];
            spool.read_exact_at(&mut read, offset as u64).unwrap();
            assert_eq!(read, bytes[offset..offset + length]);
        }
        let beyond = spool.read_exact_at(&mut [0; 2], bytes.len() as u64 - 1).unwrap_err();
        assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn leaves_no_name_and_no_plain_text() {
        let (directory, spool) = spool();
        let secret = vec![b'S'; SPOOL_BLOCK];
        spool.append(&secret).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let mut stored = vec![0; STORED_BLOCK];
        spool.file.read_exact_at(&mut stored, 0).unwrap();
        assert!(!stored.windows(8).any(|window| window == b"SSSSSSSS"));
    }

    #[test]
    fn notices_a_block_that_changed_on_disk() {
        let (_directory, spool) = spool();
        spool.append(&[7; SPOOL_BLOCK]).unwrap();
        let mut byte = [0];
        spool.file.read_exact_at(&mut byte, 100).unwrap();
        // Another one for certain: a fixed one may be what the cipher made anyway.
        spool.file.write_all_at(&[!byte[0]], 100).unwrap();
        let error = spool.read_exact_at(&mut [0; 16], 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn small_steps_are_taken_only_where_a_spool_would_pile_up() {
        let gib = 1 << 30;
        assert!(!piles_up(400 << 20, Some(20 * gib)), "gone before the system would write it");
        assert!(piles_up(400 << 20, Some(2 * gib)));
        assert!(piles_up(8 * gib, Some(20 * gib)));
        assert!(piles_up(0, Some(20 * gib)) && piles_up(1, None), "in doubt");

        let (_directory, spool) = spool();
        let gentle = |spool: &Spool| spool.flush_gently.load(Ordering::Relaxed);
        assert!(gentle(&spool), "until the size is known");
        spool.reserve(1, 0).unwrap();
        assert_eq!(gentle(&spool), memory::available().is_none());
    }

    #[test]
    fn refuses_when_the_reserve_would_be_touched() {
        let (_directory, spool) = spool();
        let failure = spool.reserve(4096, u64::MAX / 2).unwrap_err();
        assert!(failure.what.contains("no room"), "{failure}");
    }
}
