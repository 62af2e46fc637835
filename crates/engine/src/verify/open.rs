//! Opening the snapshot object of a backup, frame by frame as a restore does, into a spool.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use vault::digest::{Sha256, Sha256Hasher};
use vault::frames::FrameTable;
use vault::layers::Layers;
use vault::manifest::SnapshotFile;
use vault::repository::proof::is_damage;
use vault::seal::decode::check_table;
use vault::seal::{FrameDecoder, Identities, SealError, Unsealer};

use super::scan::Blocks;
use crate::failure::{Failure, Outcome};
use crate::limits::{FRAMES_PER_FETCH, SPOOL_BLOCK};
use crate::spool::{Spool, SpoolOptions};

/// What it takes to open one snapshot object.
pub(super) struct Plan {
    pub(super) layers: Layers,
    /// Bytes of the stored object.
    pub(super) stored: u64,
    pub(super) table: FrameTable,
    /// What the manifest says of the file inside.
    pub(super) file: SnapshotFile,
    pub(super) identities: Arc<Identities>,
    pub(super) spool: SpoolOptions,
}

/// What came of opening.
#[derive(Debug)]
pub(super) enum Opened {
    /// It opened to its end.
    File(Contents),
    /// No identity opens it, or one cannot be used; in words.
    Locked(String),
    /// It does not open, or not to what the manifest describes.
    Damaged {
        /// The stored bytes concerned, where that can be told.
        range: Option<Range<u64>>,
        /// In words.
        what: String,
    },
}

/// The file that was inside.
#[derive(Debug)]
pub(super) struct Contents {
    /// The file, trailer included.
    pub(super) spool: Arc<Spool>,
    /// Its length.
    pub(super) length: u64,
    /// The digest of the database without the trailer.
    pub(super) database: Sha256,
    /// The digest of the whole file.
    pub(super) file: Sha256,
    /// What follows the database.
    pub(super) trailer: Vec<u8>,
}

enum Stop {
    Seal(SealError),
    Here(Failure),
    /// The object ended too early, which the pass that reads it tells better.
    Cut,
}

impl From<SealError> for Stop {
    fn from(error: SealError) -> Self {
        Self::Seal(error)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Here(failure)
    }
}

/// Opens an object from its bytes as they come. A failure is one of this machine (no room in the spool), never of the object.
pub(super) fn open(plan: &Plan, mut blocks: Blocks) -> Outcome<Opened> {
    // Before anything is made from numbers of outside: both are bounded by the table's own size.
    let (described, stated) = (plan.table.raw_len(), plan.file.file_size);
    if described != stated {
        let what = format!("the frame table describes a file of {described} bytes, the manifest one of {stated}");
        return Ok(Opened::Damaged { range: None, what });
    }
    let mut window = Window { bytes: BytesMut::new(), start: 0 };
    let Some(first) = blocks.next() else { return Ok(cut()) };
    let head = &first[..first.len().min(vault::seal::unseal::HEAD as usize)];
    let unsealer = match Unsealer::open(plan.layers, plan.stored, head, &plan.identities) {
        Ok(unsealer) => unsealer,
        Err(error) => return Ok(judge(&error, None)),
    };
    window.bytes.extend_from_slice(&first);
    match decode(plan, &unsealer, &mut window, &mut blocks) {
        Ok(contents) => Ok(Opened::File(contents)),
        Err(Stop::Seal(error)) => Ok(judge(&error, Some(&unsealer))),
        Err(Stop::Here(failure)) => Err(failure.again()),
        Err(Stop::Cut) => Ok(cut()),
    }
}

fn cut() -> Opened {
    Opened::Damaged { range: None, what: "it ends too early".to_owned() }
}

fn judge(error: &SealError, unsealer: Option<&Unsealer>) -> Opened {
    if !is_damage(error) {
        return Opened::Locked(error.to_string());
    }
    let range = match error {
        SealError::Chunk { start, end, .. } => Some(*start..*end),
        SealError::Frame { start, end, .. } => unsealer.and_then(|unsealer| unsealer.stored_range(&(*start..*end)).ok()),
        _ => None,
    };
    Opened::Damaged { range, what: error.to_string() }
}

/// The stored bytes that are held at the moment.
struct Window {
    bytes: BytesMut,
    /// Where they begin in the object.
    start: u64,
}

impl Window {
    /// A copy of `range`, which begins nowhere before the one asked for last. Forgets what lies before it.
    fn take(&mut self, range: &Range<u64>, blocks: &mut Blocks) -> Option<BytesMut> {
        loop {
            let behind = usize::try_from(range.start.checked_sub(self.start)?).ok()?;
            let skipped = behind.min(self.bytes.len());
            self.bytes.advance(skipped);
            self.start += skipped as u64;
            if self.start + self.bytes.len() as u64 >= range.end {
                let length = usize::try_from(range.end - range.start).ok()?;
                return self.bytes.get(..length).map(BytesMut::from);
            }
            self.bytes.extend_from_slice(&blocks.next()?);
        }
    }
}

fn decode(plan: &Plan, unsealer: &Unsealer, window: &mut Window, blocks: &mut Blocks) -> Result<Contents, Stop> {
    check_table(unsealer, &plan.table)?;
    let mut filling = Filling::begin(&plan.file, &plan.spool)?;
    let mut decoder = FrameDecoder::new()?;
    let frames = plan.table.frames().len();
    for start in (0..frames).step_by(FRAMES_PER_FETCH) {
        let run = start..frames.min(start + FRAMES_PER_FETCH);
        let stream = plan.table.run_range(&run).ok_or(Stop::Cut)?;
        let range = unsealer.stored_range(&stream)?;
        let stored = window.take(&range, blocks).ok_or(Stop::Cut)?;
        decoder.decode_run(unsealer, &plan.table, run, stored, |_, bytes| filling.take(bytes).map_err(Stop::Here))?;
    }
    Ok(filling.finish()?)
}

/// A spool being filled, with digests of what goes into it.
struct Filling {
    spool: Spool,
    /// What does not make a whole block of the spool yet.
    pending: Vec<u8>,
    database: Sha256Hasher,
    /// Bytes of the database that are still to come.
    left: u64,
    trailer: Vec<u8>,
    length: u64,
}

impl Filling {
    fn begin(file: &SnapshotFile, options: &SpoolOptions) -> Outcome<Self> {
        let spool = Spool::create(options)?;
        spool.reserve(file.file_size, options.reserve)?;
        Ok(Self { spool, pending: Vec::new(), database: Sha256Hasher::new(), left: file.db_size, trailer: Vec::new(), length: 0 })
    }

    /// Takes the next bytes of the file. Their sum is the length that the frame table states, which was compared with the manifest's.
    fn take(&mut self, bytes: &[u8]) -> Outcome<()> {
        let now = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        let (database, rest) = bytes.split_at(now);
        self.database.update(database);
        self.left -= now as u64;
        // The manifest was checked to leave room for a trailer or nothing behind the database.
        self.trailer.extend_from_slice(rest);
        self.length += bytes.len() as u64;
        self.pending.extend_from_slice(bytes);
        let whole = self.pending.len() - self.pending.len() % SPOOL_BLOCK;
        self.spool.append(&self.pending[..whole])?;
        self.pending.drain(..whole);
        Ok(())
    }

    fn finish(self) -> Outcome<Contents> {
        if !self.pending.is_empty() {
            self.spool.append(&self.pending)?;
        }
        let mut file = self.database.clone();
        file.update(&self.trailer);
        Ok(Contents {
            spool: Arc::new(self.spool),
            length: self.length,
            database: self.database.finish(),
            file: file.finish(),
            trailer: self.trailer,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bbolt::ReadAt;
    use vault::seal::{FrameCompressor, NoCallbacks, Recipients, SealWriter, SecretString};

    use super::*;

    /// A sealed object of frames that do not end at blocks of the spool, and its plan.
    fn sealed(file: &[u8], layers: Layers, passphrase: &str, directory: &std::path::Path) -> (Vec<u8>, Plan) {
        let recipients = Recipients::passphrase(SecretString::from(passphrase.to_owned())).with_work_factor(2);
        let mut writer = SealWriter::new(layers, layers.age.then_some(&recipients), NoCallbacks).unwrap();
        let mut compressor = if layers.zstd { FrameCompressor::zstd().unwrap() } else { FrameCompressor::stored() };
        for frame in file.chunks(100_000) {
            writer.push(compressor.compress(frame).unwrap()).unwrap();
        }
        let mut stored = Vec::new();
        while let Some(piece) = writer.pop() {
            stored.extend_from_slice(&piece);
        }
        let (rest, object) = writer.finish().unwrap();
        rest.iter().for_each(|piece| stored.extend_from_slice(piece));
        let mut identities = Identities::new();
        identities.add_passphrase(SecretString::from(passphrase.to_owned()));
        let database = &file[..file.len() - 32];
        let plan = Plan {
            layers,
            stored: stored.len() as u64,
            table: object.frames,
            file: SnapshotFile {
                db_size: database.len() as u64,
                db_sha256: Sha256::of(database),
                file_size: file.len() as u64,
                file_sha256: Sha256::of(file),
                in_use: None,
            },
            identities: Arc::new(identities),
            spool: SpoolOptions { directory: Some(directory.to_owned()), reserve: 0, flush_gently: false },
        };
        (stored, plan)
    }

    fn file() -> Vec<u8> {
        let mut state = 1_u32;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        noise.take(450_000).collect()
    }

    #[test]
    fn gives_back_the_file_whatever_the_blocks_are() {
        let directory = tempfile::tempdir().unwrap();
        let file = file();
        for layers in Layers::ALL {
            let (stored, plan) = sealed(&file, layers, "right", directory.path());
            for block in [70_000, 1 << 20] {
                let Opened::File(contents) = open(&plan, Blocks::of(&stored, block)).unwrap() else { panic!("{layers}") };
                let mut read = vec![0; file.len()];
                contents.spool.read_exact_at(&mut read, 0).unwrap();
                assert!(read == file, "{layers}");
                assert_eq!((contents.length, contents.file), (file.len() as u64, plan.file.file_sha256));
                assert_eq!((contents.database, &contents.trailer[..]), (plan.file.db_sha256, &file[file.len() - 32..]));
            }
        }
    }

    #[test]
    fn damage_is_named_by_the_stored_bytes_around_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = file();
        for layers in Layers::ALL {
            let (stored, plan) = sealed(&file, layers, "right", directory.path());
            let at = stored.len() - 1000;
            let mut damaged = stored.clone();
            damaged[at] ^= 1;
            let Opened::Damaged { range, .. } = open(&plan, Blocks::of(&damaged, 70_000)).unwrap() else { panic!("{layers}") };
            let range = range.unwrap();
            assert!(range.contains(&(at as u64)) && range.end - range.start < 110_000, "{layers}: {range:?}");
            let short = Blocks::of(&stored[..at], 70_000);
            assert!(matches!(open(&plan, short).unwrap(), Opened::Damaged { .. }), "{layers}");
        }
    }

    #[test]
    fn another_identity_is_not_damage() {
        let directory = tempfile::tempdir().unwrap();
        let file = file();
        let (stored, _) = sealed(&file, Layers::SEALED, "right", directory.path());
        let (_, other) = sealed(&file, Layers::SEALED, "wrong", directory.path());
        assert!(matches!(open(&other, Blocks::of(&stored, 1 << 20)).unwrap(), Opened::Locked(_)));
    }

    #[test]
    fn a_table_of_another_file_is_refused_before_the_spool_is_made() {
        let (stored, mut plan) = sealed(&file(), Layers::SEALED, "right", std::path::Path::new("/nonexistent/spool"));
        plan.file.file_size += 1;
        let Opened::Damaged { what, .. } = open(&plan, Blocks::of(&stored, 1 << 20)).unwrap() else { panic!("it opened") };
        assert!(what.contains("450001"), "{what}");
    }
}
