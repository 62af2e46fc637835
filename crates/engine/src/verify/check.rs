//! One backup, rung by rung.

use std::sync::Arc;

use vault::frames::FrameTable;
use vault::key::{Key, SnapshotObject};
use vault::manifest::{HashKvVerdict, Manifest, Role, Rung, StoredObject};
use vault::repository::{Backup, Catalog, Repository};
use vault::sign::Status;
use vault::store::Store;

use super::open::{self, Plan};
use super::scan::{Opener, Scanned, damage, differing, scan};
use super::{Checked, Finding, How, content, extra, targets};
use crate::backup::verdict_word;
use crate::failure::Outcome;
use crate::progress::Progress;
use crate::seal_pipeline::on_thread;

/// Checks one backup of the catalog. Writes nothing.
///
/// # Errors
///
/// What says nothing of the backup: a store that cannot be reached or denies, a spool without room.
pub async fn check(
    repository: &Repository,
    catalog: &Catalog,
    backup: &Backup,
    how: &How,
    progress: &Arc<dyn Progress>,
) -> Outcome<Checked> {
    let manifest = &backup.manifest;
    let mut run = Run {
        store: repository.store(),
        manifest,
        how,
        tried: how.rung.clamp(Rung::Stored, Rung::Deep),
        progress,
        total: manifest.objects.iter().map(|object| object.size).fold(0, u64::saturating_add),
        found: Vec::new(),
        notes: Vec::new(),
        locked: false,
        hashkv: manifest.hashkv.verdict,
        bytes: 0,
    };
    run.look(catalog, backup).await?;
    let untrusted = run.trust(backup);
    if run.tried >= Rung::Read {
        run.read().await?;
    }
    progress.done();
    Ok(run.conclude(untrusted))
}

struct Run<'a> {
    store: &'a Arc<dyn Store>,
    manifest: &'a Manifest,
    how: &'a How,
    tried: Rung,
    progress: &'a Arc<dyn Progress>,
    /// Bytes of the whole set.
    total: u64,
    /// What is wrong, with the rung at which it was found.
    found: Vec<(Rung, Finding)>,
    notes: Vec<String>,
    locked: bool,
    hashkv: HashKvVerdict,
    bytes: u64,
}

impl Run<'_> {
    fn key(&self, object: &SnapshotObject) -> String {
        Key::Snapshot(self.manifest.cluster.clone(), self.manifest.id, object.clone()).to_string()
    }

    fn find(&mut self, rung: Rung, object: String, range: Option<std::ops::Range<u64>>, what: String) {
        self.found.push((rung, Finding { object, range, what }));
    }

    fn is_found(&self, key: &str) -> bool {
        self.found.iter().any(|(_, finding)| finding.object == key)
    }

    /// The rung `stored`: what the catalog says of the backup, and each object's size as the store tells it.
    async fn look(&mut self, catalog: &Catalog, backup: &Backup) -> Outcome<()> {
        let concerns = catalog.problems.iter().filter(|problem| targets::concerns(&problem.key, backup));
        self.found.extend(concerns.map(|problem| (Rung::Stored, Finding::from(problem))));
        for object in &self.manifest.objects {
            let key = self.key(&object.name);
            // The listing has told already what is missing or of another size.
            if self.is_found(&key) {
                continue;
            }
            match self.store.head(&key).await {
                Ok(info) if info.size == object.size => {}
                Ok(info) => {
                    let what = format!("it has {} bytes, the manifest says {}", info.size, object.size);
                    self.find(Rung::Stored, key, None, what);
                }
                Err(error) => {
                    let what = damage(&error)?;
                    self.find(Rung::Stored, key, None, what);
                }
            }
        }
        Ok(())
    }

    /// What the signature is worth. Answers whether the backup is not taken for it.
    fn trust(&mut self, backup: &Backup) -> bool {
        if let Some(doubt) = &backup.unconfirmed {
            self.notes.push(format!("unconfirmed: {doubt}"));
        }
        if !backup.manifest.hashkv.verdict.may_be_latest() {
            self.notes.push(format!("hashkv {}: members disagreed when it was taken", verdict_word(backup.manifest.hashkv.verdict)));
        }
        // A wrong signature is among the catalog's problems.
        let foreign = !backup.counts && !matches!(backup.signature, Status::Invalid(_));
        if foreign && self.how.allow_unsigned {
            self.notes.push(format!("{}, and taken because of --allow-unsigned", backup.signature));
        }
        foreign && !self.how.allow_unsigned
    }

    /// The rungs `read` and `deep`, in one pass over each object that is there.
    async fn read(&mut self) -> Outcome<()> {
        let manifest = self.manifest;
        let objects: Vec<&StoredObject> = manifest.objects.iter().filter(|object| !self.is_found(&self.key(&object.name))).collect();
        let mut table = None;
        for object in objects.iter().filter(|object| object.role == Role::Frames) {
            table = self.frames(object).await?;
        }
        for object in objects {
            match object.role {
                Role::Frames => {}
                Role::Snapshot => self.snapshot(object, table.take()).await?,
                Role::Extra => self.extra(object).await?,
            }
        }
        Ok(())
    }

    async fn frames(&mut self, object: &StoredObject) -> Outcome<Option<FrameTable>> {
        let key = self.key(&object.name);
        let decoded = match self.store.get(&key, vault::limits::FRAMES_BYTES as u64).await {
            Ok((_, bytes)) => {
                self.bytes += bytes.len() as u64;
                let data = self.manifest.data().map_or(0, |data| data.size);
                FrameTable::decode_checked(&bytes, object.sha256, data).map_err(|error| error.to_string())
            }
            Err(error) => Err(damage(&error)?),
        };
        match decoded {
            Ok(table) => Ok(Some(table)),
            Err(what) => {
                self.find(Rung::Read, key, Some(0..object.size), what);
                self.notes.push("a restore does without the frame table, and takes longer".to_owned());
                Ok(None)
            }
        }
    }

    /// Reads one object, and has it opened on the way where there is an opener.
    async fn scan<T: Send + 'static>(&mut self, object: &StoredObject, opener: Option<Opener<T>>) -> Outcome<Scanned<T>> {
        let (progress, before, total) = (Arc::clone(self.progress), self.bytes, self.total);
        let tell = move |done| progress.bytes("verify", before + done, Some(total));
        let scanned = scan(self.store, &self.key(&object.name), object.size, opener, tell).await?;
        self.bytes += object.size;
        Ok(scanned)
    }

    async fn snapshot(&mut self, object: &StoredObject, table: Option<FrameTable>) -> Outcome<()> {
        let key = self.key(&object.name);
        let blocks = table.as_ref().map(|table| table.blocks().to_vec()).unwrap_or_default();
        let opener: Option<Opener<open::Opened>> = match table {
            Some(table) if self.tried >= Rung::Deep => {
                let plan = Plan {
                    layers: self.manifest.layers,
                    stored: object.size,
                    table,
                    file: self.manifest.snapshot,
                    identities: Arc::clone(&self.how.identities),
                    spool: self.how.spool.clone(),
                };
                Some(Box::new(move |blocks| open::open(&plan, blocks)))
            }
            _ => None,
        };
        let (hashed, opened) = match self.scan(object, opener).await? {
            Scanned::Whole { hashed, opened } => (hashed, opened),
            Scanned::Broken(what) => {
                self.find(Rung::Read, key, Some(0..object.size), what);
                return Ok(());
            }
        };
        let sound = hashed.whole == object.sha256;
        if !sound {
            let mut ranges = differing(&hashed.blocks, &blocks, object.size);
            if ranges.is_empty() {
                ranges.push(0..object.size);
            }
            for range in ranges {
                self.find(Rung::Read, key.clone(), Some(range), "these are not the bytes that were written (SHA-256 differs)".to_owned());
            }
        }
        match opened {
            None => {}
            Some(open::Opened::File(contents)) => self.content(key, contents).await?,
            Some(open::Opened::Damaged { range, what }) => self.find(Rung::Deep, key, range, what),
            // A changed header looks like a wrong key; the digest tells which it is.
            Some(open::Opened::Locked(why)) if sound => {
                self.locked = true;
                self.notes.push(format!("it was not opened: {why}"));
            }
            Some(open::Opened::Locked(_)) => {}
        }
        Ok(())
    }

    async fn content(&mut self, key: String, contents: open::Contents) -> Outcome<()> {
        let manifest = self.manifest.clone();
        let content = on_thread("examine", move || content::compare(&manifest, &contents)).await?;
        for what in content.wrong {
            self.find(Rung::Deep, key.clone(), None, what);
        }
        if let Some(verdict) = content.hashkv {
            self.hashkv = verdict;
            let (compared, recorded) = (content.answers_compared, self.manifest.hashkv.answers.len());
            self.notes.push(format!("HashKV computed anew; {compared} of {recorded} recorded answers of members held against it"));
        }
        Ok(())
    }

    async fn extra(&mut self, object: &StoredObject) -> Outcome<()> {
        let key = self.key(&object.name);
        let opener: Option<Opener<extra::Opened>> = (self.tried >= Rung::Deep).then(|| {
            let identities = Arc::clone(&self.how.identities);
            Box::new(move |blocks| extra::open(blocks, &identities)) as Opener<extra::Opened>
        });
        let (hashed, opened) = match self.scan(object, opener).await? {
            Scanned::Whole { hashed, opened } => (hashed, opened),
            Scanned::Broken(what) => {
                self.find(Rung::Read, key, Some(0..object.size), what);
                return Ok(());
            }
        };
        if hashed.whole != object.sha256 {
            let what = "these are not the bytes that were written (SHA-256 differs)".to_owned();
            self.find(Rung::Read, key, Some(0..object.size), what);
            return Ok(());
        }
        match opened {
            None | Some(extra::Opened::Tar) => {}
            Some(extra::Opened::Locked(why)) => self.notes.push(format!("{} was read and not opened: {why}", object.name)),
            Some(extra::Opened::Damaged(what)) => self.find(Rung::Deep, key, None, what),
        }
        Ok(())
    }

    fn conclude(self, untrusted: bool) -> Checked {
        let failed_at = self.found.iter().map(|(rung, _)| *rung).min();
        let disputed = !self.hashkv.may_be_latest();
        let passed = |rung: Rung| {
            let opened = rung < Rung::Deep || (!self.locked && !disputed);
            rung <= self.tried && failed_at.is_none_or(|failed| rung < failed) && opened
        };
        let reached = [Rung::Deep, Rung::Read, Rung::Stored].into_iter().find(|rung| passed(*rung)).unwrap_or(Rung::None);
        let manifest_key = self.key(&SnapshotObject::Manifest);
        let mut findings: Vec<Finding> = self.found.into_iter().map(|(_, finding)| finding).collect();
        if untrusted {
            let what = "it is not signed by a trusted signer, and only what they signed counts (--allow-unsigned takes it all the same)";
            findings.push(Finding { object: manifest_key, range: None, what: what.to_owned() });
        }
        Checked {
            id: self.manifest.id,
            tried: self.tried,
            reached: if untrusted { Rung::None } else { reached },
            failed_at,
            untrusted,
            locked: self.locked,
            hashkv: Some(self.hashkv),
            findings,
            notes: self.notes,
            bytes: self.bytes,
        }
    }
}
