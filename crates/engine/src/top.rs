//! Who fills the database: of a backup, a snapshot file, or the database of a member that does not run.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bbolt::{Database, ReadAt};
use etcd_store::usage::{self, BucketUse, By, Named, Question, Sums};
use kube_objects::Census;
use vault::digest::{Sha256, Sha256Hasher};
use vault::manifest::Manifest;

use crate::failure::{Code, Failure, Outcome};
use crate::fetch::{self, Object};
use crate::limits::SPOOL_BLOCK;
use crate::opening::Opening;
use crate::place::{PlaceOptions, Which};
use crate::progress::Progress;
use crate::seal_pipeline::on_thread;
use crate::spool::{Spool, SpoolOptions};
use crate::{select, snapshot_file};

/// How the lists are made.
#[derive(Clone, Debug)]
pub struct Lists {
    /// What they are ordered by.
    pub by: By,
    /// Lines of each at most.
    pub lines: usize,
    /// Only keys that begin with this.
    pub prefix: Vec<u8>,
    /// Parts of a prefix; what fits to `prefix` where it is not given.
    pub depth: Option<usize>,
}

impl Lists {
    /// Without a prefix `/registry/<resource>/`; else one part more than the prefix has.
    fn depth(&self) -> usize {
        let parts = self.prefix.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).count();
        self.depth.unwrap_or_else(|| (parts + 1).max(2))
    }
}

/// What is looked at.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A snapshot file, or a member's `db`.
    File(PathBuf),
    /// A backup.
    Backup(Box<OfBackup>),
}

/// A backup that is looked at.
#[derive(Clone, Debug)]
pub struct OfBackup {
    /// The repository.
    pub place: PlaceOptions,
    /// The cluster; the only one there, where it is not given.
    pub cluster: Option<vault::name::ClusterName>,
    /// Which backup.
    pub which: Which,
    /// What opens it.
    pub opening: Opening,
    /// Where it lies meanwhile.
    pub spool: SpoolOptions,
}

/// One Kubernetes resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceUse {
    /// Its plural name, with the group where the key tells it; `None` for keys that belong to no resource.
    pub resource: Option<String>,
    /// What it takes.
    pub sums: Sums,
}

/// Who fills a database.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was looked at: a path, or a backup's id.
    pub subject: String,
    /// What was asked.
    pub lists: Lists,
    /// Parts of a prefix in the list of prefixes.
    pub depth: usize,
    /// Bytes of the database: what etcd calls its size.
    pub total: u64,
    /// Bytes of free pages, which a defragmentation gives back.
    pub free: u64,
    /// Bytes of pages in use that hold no key and no value.
    pub overhead: u64,
    /// What each bucket holds.
    pub buckets: Vec<BucketUse>,
    /// Bytes of the file behind the database: the trailer.
    pub behind: u64,
    /// The store's revision.
    pub revision: i64,
    /// The last compaction; 0 where there was none.
    pub compact_revision: i64,
    /// All rows.
    pub all: Sums,
    /// Rows of the keys asked for.
    pub matched: Sums,
    /// All resources, the greatest first.
    pub resources: Vec<ResourceUse>,
    /// The greatest prefixes.
    pub prefixes: Vec<Named>,
    /// The greatest keys.
    pub keys: Vec<Named>,
    /// What is worth knowing, in words.
    pub notes: Vec<String>,
}

/// Finds out who fills a database.
///
/// # Errors
/// [`Code::Unproven`] for a damaged file or backup; what opening it fails with.
pub async fn run(subject: Subject, lists: Lists, progress: Arc<dyn Progress>) -> Outcome<Report> {
    match subject {
        Subject::File(path) => on_thread("top", move || of_file(&path, lists)).await,
        Subject::Backup(of_backup) => {
            let OfBackup { place, cluster, which, opening, spool } = *of_backup;
            let loaded = select::load(&place, cluster.as_ref()).await?;
            let resolved = select::find(&loaded.catalog, &which, &place)?;
            let mut notes = select::usable(resolved.backup, &place)?;
            notes.extend(select::reach_words(&resolved));
            let manifest = resolved.backup.manifest.clone();
            progress.say(&format!("backup: {} of '{}', taken {}", manifest.id, manifest.cluster, manifest.moment()));
            let identities = Arc::new(opening.read()?);
            let (object, note) = select::open(&loaded.repository, resolved.backup, &identities).await?;
            notes.extend(note);
            let spool = into_spool(object, &manifest, &place, &spool, &progress).await?;
            on_thread("top", move || {
                let damaged = |error: &etcd_store::Error| {
                    Failure::new(Code::Unproven, "the backup is not a sound etcd database").object(manifest.id).cause(error).again()
                };
                let mut report = of(spool.as_ref(), manifest.id.to_string(), lists).map_err(|error| damaged(&error))?;
                report.behind = manifest.snapshot.file_size.saturating_sub(manifest.snapshot.db_size);
                report.notes = notes;
                Ok(report)
            })
            .await
        }
    }
}

fn of_file(path: &Path, lists: Lists) -> Outcome<Report> {
    let opened = snapshot_file::Opened::open(path)?;
    let size = opened.file.size();
    let mut report =
        of(&opened.file, path.display().to_string(), lists).map_err(|error| snapshot_file::unsound(path, &snapshot_file::chain(&error)))?;
    report.behind = size.saturating_sub(report.total);
    Ok(report)
}

fn of<S: ReadAt>(source: &S, subject: String, lists: Lists) -> Result<Report, etcd_store::Error> {
    let database = Database::open(source)?;
    let census = Census::new();
    let classify = |key: &[u8]| census.classify(key, b"");
    let depth = lists.depth();
    let question = Question { by: lists.by, lines: lists.lines, prefix: &lists.prefix, depth, classify: Some(&classify) };
    let usage = usage::usage(&database, &question)?;
    let names = census.names();
    let mut resources: Vec<ResourceUse> =
        usage.classes.iter().map(|(class, sums)| ResourceUse { resource: names.get(class).cloned(), sums: *sums }).collect();
    resources.sort_by(|a, b| b.sums.compare(&a.sums, lists.by).then_with(|| a.resource.cmp(&b.resource)));
    Ok(Report {
        subject,
        depth,
        total: usage.total(),
        free: usage.free(),
        overhead: usage.overhead(),
        buckets: usage.buckets,
        behind: 0,
        revision: usage.revision.0,
        compact_revision: usage.compact_revision.map_or(0, |revision| revision.0),
        all: usage.all,
        matched: usage.matched,
        resources,
        prefixes: usage.prefixes,
        keys: usage.keys,
        notes: Vec::new(),
        lists,
    })
}

/// What has arrived and is not yet in the spool, which takes whole blocks only.
struct Filling {
    spool: Arc<Spool>,
    waiting: Vec<u8>,
    hasher: Sha256Hasher,
    /// Bytes of the database still to come; what follows is the trailer.
    left: u64,
    done: u64,
}

impl Filling {
    fn take(&mut self, bytes: &[u8]) -> Outcome<u64> {
        self.done += bytes.len() as u64;
        let database = &bytes[..usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len())];
        self.left -= database.len() as u64;
        self.hasher.update(database);
        self.waiting.extend_from_slice(database);
        let whole = self.waiting.len() - self.waiting.len() % SPOOL_BLOCK;
        if whole > 0 {
            self.spool.append(&self.waiting[..whole])?;
            self.waiting.drain(..whole);
        }
        Ok(self.done)
    }

    fn finish(mut self) -> Outcome<(Sha256, bool)> {
        if !self.waiting.is_empty() {
            self.spool.append(&std::mem::take(&mut self.waiting))?;
        }
        Ok((self.hasher.finish(), self.left == 0))
    }
}

/// Opens a backup into an encrypted spool, and compares the database's digest with the manifest.
async fn into_spool(
    object: Object,
    manifest: &Manifest,
    place: &PlaceOptions,
    options: &SpoolOptions,
    progress: &Arc<dyn Progress>,
) -> Outcome<Arc<Spool>> {
    let spool = Arc::new(Spool::create(options)?);
    spool.reserve(manifest.snapshot.db_size, options.reserve)?;
    let filling =
        Filling { spool: Arc::clone(&spool), waiting: Vec::new(), hasher: Sha256Hasher::new(), left: manifest.snapshot.db_size, done: 0 };
    let shared = Arc::new(Mutex::new(Some(filling)));
    let (taking, told, total) = (Arc::clone(&shared), Arc::clone(progress), manifest.snapshot.file_size);
    let in_order: fetch::InOrder = Box::new(move |bytes| {
        if let Some(filling) = taking.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            told.bytes("open", filling.take(bytes)?, Some(total));
        }
        Ok(())
    });
    fetch::fetch(object, Arc::new(|_, _| Ok(())), in_order).await?;
    progress.done();
    let filled = shared.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (digest, whole) = match filled {
        Some(filling) => filling.finish()?,
        None => return Err(Failure::failed("the backup was not opened to its end")),
    };
    if !whole || digest != manifest.snapshot.db_sha256 {
        return Err(Failure::new(Code::Unproven, "the backup does not give the database that its manifest describes")
            .object(manifest.id)
            .cause(format!("SHA-256 {digest} where {} is stated", manifest.snapshot.db_sha256))
            .next(place.cluster_command(&["verify", manifest.id.suffix(), "--read"], &manifest.cluster)));
    }
    Ok(spool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_one_part_deeper_than_what_was_asked_for() {
        let depth = |prefix: &str, depth| Lists { by: By::Bytes, lines: 1, prefix: prefix.as_bytes().to_vec(), depth }.depth();
        assert_eq!(depth("", None), 2);
        assert_eq!(depth("/registry/", None), 2);
        assert_eq!(depth("/registry/pods/", None), 3);
        assert_eq!(depth("/registry/pods/", Some(1)), 1);
    }

    #[test]
    fn whatever_the_pieces_are_the_spool_holds_the_database() {
        let directory = tempfile::tempdir().unwrap();
        let options = SpoolOptions { directory: Some(directory.path().to_owned()), reserve: 0, flush_gently: false };
        let bytes: Vec<u8> = (0..100_032_u32).map(|n| (n % 251) as u8).collect();
        let database = &bytes[..100_000];
        for piece in [1_000, SPOOL_BLOCK, 99_990, 100_032] {
            let spool = Arc::new(Spool::create(&options).unwrap());
            let mut filling =
                Filling { spool: Arc::clone(&spool), waiting: Vec::new(), hasher: Sha256Hasher::new(), left: 100_000, done: 0 };
            for piece in bytes.chunks(piece) {
                let _done = filling.take(piece).unwrap();
            }
            assert_eq!(filling.finish().unwrap(), (Sha256::of(database), true));
            let mut read = vec![0; database.len()];
            spool.read_exact_at(&mut read, 0).unwrap();
            assert!(spool.len() == 100_000 && read == database, "{piece}");
        }
    }
}
