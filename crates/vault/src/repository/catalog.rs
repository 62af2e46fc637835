//! The catalog: everything a repository says of one cluster, read once, judged, with what is wrong beside it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use super::fetch::{Fetched, fetch};
use super::proof::{Proof, prove};
use super::{Repository, RepositoryError};
use crate::backup_id::BackupId;
use crate::canonical::DecodeError;
use crate::digest::Sha256;
use crate::key::{self, Key, SnapshotObject};
use crate::limits;
use crate::lineage::decide::{self, Histories, Known};
use crate::lineage::standing::{Doubt, Standing, Vouchers, standings};
use crate::lineage::{Lineage, LineageName};
use crate::manifest::{Manifest, Source};
use crate::mark::{Mark, Previous, Statement};
use crate::name::{ClusterName, MarkId, Tag};
use crate::sign::{Binding, Role, Status, TrustedSigners};
use crate::store::ObjectInfo;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The object.
    pub key: String,
    /// What is wrong with it.
    pub kind: ProblemKind,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.kind)
    }
}

/// What is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProblemKind {
    /// Its key is not one of the layout.
    #[error("not the key of any object of a repository")]
    UnknownKey,
    /// It is damaged or of a form this release does not know.
    #[error("{0}")]
    Damaged(DecodeError),
    /// The store itself finds it damaged, or it is too large.
    #[error("{0}")]
    Unreadable(String),
    /// It is sound but belongs elsewhere.
    #[error("it was moved from elsewhere: {0}")]
    Moved(String),
    /// Its signature is wrong.
    #[error("{0}")]
    Signature(Status),
    /// A manifest names it and it is not there.
    #[error("missing, although the manifest names it")]
    Missing,
    /// It does not have the size its manifest states.
    #[error("it has {there} bytes, the manifest says {stated}")]
    Size {
        /// What the store says.
        there: u64,
        /// What the manifest says.
        stated: u64,
    },
    /// A later manifest had seen it, it is gone, and no tombstone says why.
    #[error("gone without a tombstone, although {child} names it as an earlier backup")]
    Vanished {
        /// The manifest that names it.
        child: BackupId,
    },
    /// A later manifest had seen another one under this id.
    #[error("it is not the manifest that {child} had seen")]
    Replaced {
        /// The manifest that had seen the other one.
        child: BackupId,
    },
    /// Manifests name the lineage and its object is not there.
    #[error("missing, although manifests name this lineage")]
    LineageMissing,
}

/// One backup.
#[derive(Clone, Debug, PartialEq)]
pub struct Backup {
    /// Its manifest.
    pub manifest: Manifest,
    /// The digest of the stored manifest.
    pub sha256: Sha256,
    /// What its signature is worth.
    pub signature: Status,
    /// Whether it counts for retention, proofs, lineages and `latest`: false for unsigned and foreign ones where signers are trusted.
    pub counts: bool,
    /// Why it is unconfirmed, if it is: its lineage is, or its fingerprint is not its lineage's.
    pub unconfirmed: Option<Doubt>,
    /// How well it is proven.
    pub proof: Proof,
    /// Its tags: the manifest's, with the marks applied.
    pub tags: BTreeSet<Tag>,
    /// The pins in force.
    pub pins: BTreeSet<MarkId>,
    /// Objects of the set that are missing or have another size: it cannot be restored as it is.
    pub incomplete: bool,
}

impl Backup {
    /// Its id.
    pub fn id(&self) -> BackupId {
        self.manifest.id
    }

    /// Why it can never be `latest`; none when it can.
    pub fn not_latest(&self) -> Option<NotLatest> {
        let manifest = &self.manifest;
        if !self.counts {
            Some(NotLatest::Untrusted)
        } else if self.unconfirmed.is_some() {
            Some(NotLatest::Unconfirmed)
        } else if manifest.source == Source::Rescue {
            Some(NotLatest::Rescue)
        } else if !manifest.hashkv.verdict.may_be_latest() {
            Some(NotLatest::HashKv)
        } else if self.proof.failed.is_some() || self.incomplete {
            Some(NotLatest::Failed)
        } else {
            None
        }
    }
}

/// Why a backup can never be `latest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NotLatest {
    /// Not signed by a trusted signer.
    Untrusted,
    /// Its history or its fingerprint is unconfirmed.
    Unconfirmed,
    /// What was left of a data directory.
    Rescue,
    /// HashKV disputed or failed.
    HashKv,
    /// A check failed, or objects are missing.
    Failed,
}

impl fmt::Display for NotLatest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Untrusted => "not signed by a trusted signer",
            Self::Unconfirmed => "unconfirmed",
            Self::Rescue => "a rescue",
            Self::HashKv => "HashKV disputed or failed",
            Self::Failed => "verification failed",
        })
    }
}

/// A mark, judged.
#[derive(Clone, Debug, PartialEq)]
pub struct MarkEntry {
    /// The mark.
    pub mark: Mark,
    /// The digest of its stored bytes.
    pub sha256: Sha256,
    /// What its signature is worth.
    pub signature: Status,
    /// Whether it counts.
    pub counts: bool,
}

/// Objects under an id without a manifest: an attempt under way, cut off, or left by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uncommitted {
    /// The attempt.
    pub id: BackupId,
    /// How many objects.
    pub objects: u64,
    /// Their bytes together.
    pub bytes: u64,
}

/// A lineage, judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineageEntry {
    /// Its object.
    pub lineage: Lineage,
    /// Whether it is accepted.
    pub standing: Standing,
}

/// Everything a repository says of one cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalog {
    /// The cluster.
    pub cluster: ClusterName,
    /// Its backups, sorted by id.
    pub backups: Vec<Backup>,
    /// Its lineages.
    pub lineages: BTreeMap<LineageName, LineageEntry>,
    /// Its marks, sorted by id.
    pub marks: Vec<MarkEntry>,
    /// Attempts without a manifest, sorted by id.
    pub uncommitted: Vec<Uncommitted>,
    /// What is wrong, sorted by key.
    pub problems: Vec<Problem>,
    /// The highest seq of a lineage seen anywhere.
    pub highest_seq: u16,
    vouchers: Vouchers,
}

impl Catalog {
    /// The backup with this id.
    pub fn backup(&self, id: &BackupId) -> Option<&Backup> {
        self.backups.binary_search_by_key(id, Backup::id).ok().and_then(|at| self.backups.get(at))
    }

    /// What [`decide::decide`] rests on.
    pub fn histories(&self) -> Histories {
        let known = self.lineages.values().map(|entry| self.known(&entry.lineage)).collect();
        Histories { known, highest_seq: self.highest_seq, vouchers: self.vouchers.clone() }
    }

    fn known(&self, lineage: &Lineage) -> Known {
        let sound = |backup: &&Backup| match backup.not_latest() {
            None => true,
            // An unconfirmed history still has a newest row, against which its next snapshot is held.
            Some(NotLatest::Unconfirmed) => backup.manifest.hashkv.verdict.may_be_latest() && backup.manifest.source != Source::Rescue,
            // A check that failed later speaks of the stored bytes, not of what the manifest says of the row.
            Some(NotLatest::Failed) => true,
            Some(_) => false,
        };
        let backups = || self.backups.iter().filter(|backup| backup.manifest.lineage == lineage.name).filter(sound);
        let newest = backups().max_by_key(|backup| (backup.manifest.revision, backup.id()));
        Known {
            lineage: lineage.clone(),
            highest: newest.map(|backup| backup.manifest.revision),
            last_row: newest.and_then(|backup| backup.manifest.last_row),
        }
    }

    /// What marks that count vouch for.
    pub fn vouchers(&self) -> &Vouchers {
        &self.vouchers
    }

    /// The newest mark, for the next one's `prev`.
    pub fn newest_mark(&self) -> Option<Previous> {
        self.marks.last().map(|entry| Previous { id: entry.mark.id, sha256: entry.sha256 })
    }

    /// The newest manifest of each lineage that counts, for the next one's `parents`.
    pub fn parents(&self) -> Vec<crate::manifest::Parent> {
        let mut newest: BTreeMap<LineageName, &Backup> = BTreeMap::new();
        for backup in self.backups.iter().filter(|backup| backup.counts) {
            newest.insert(backup.manifest.lineage, backup);
        }
        let parents = newest.into_values().rev().take(limits::MANIFEST_LIST);
        parents.map(|backup| crate::manifest::Parent { id: backup.id(), sha256: backup.sha256 }).collect()
    }

    /// The highest revision in any backup, in whatever lineage and state: what a restore's bump must pass. 0 without a backup.
    pub fn highest_revision(&self) -> i64 {
        self.backups.iter().map(|backup| backup.manifest.revision).max().unwrap_or(0)
    }
}

/// Reads the catalog. Manifests are listed first, then lineages, then marks: what a manifest refers to is older than it, and so is found.
pub(super) async fn load(repository: &Repository, cluster: &ClusterName) -> Result<Catalog, RepositoryError> {
    let store = &**repository.store();
    let mut listing = Listing::default();
    for prefix in [key::snapshots_prefix(cluster), key::lineages_prefix(cluster), key::marks_prefix(cluster)] {
        listing.sort_in(store.list(&prefix).await?, cluster);
    }
    let fetched = fetch(store, listing.wanted(cluster)).await?;
    let mut loader = Loader { repository, cluster, fetched, problems: std::mem::take(&mut listing.problems) };
    let marks = loader.marks(&listing);
    let lineages = loader.lineages(&listing);
    let manifests = loader.manifests(&listing);
    let parts = Parts { manifests, lineages, marks, problems: loader.problems };
    Ok(parts.assemble(cluster, listing, repository.signers()))
}

/// The keys of a cluster, by kind.
#[derive(Default)]
struct Listing {
    sets: BTreeMap<BackupId, BTreeMap<SnapshotObject, u64>>,
    lineages: BTreeSet<LineageName>,
    marks: BTreeSet<MarkId>,
    signed_marks: BTreeSet<MarkId>,
    problems: Vec<Problem>,
}

impl Listing {
    fn sort_in(&mut self, objects: Vec<ObjectInfo>, cluster: &ClusterName) {
        for ObjectInfo { key, size, .. } in objects {
            match key.parse() {
                Ok(Key::Snapshot(of, id, object)) if of == *cluster => {
                    self.sets.entry(id).or_default().insert(object, size);
                }
                Ok(Key::Lineage(of, name)) if of == *cluster => {
                    self.lineages.insert(name);
                }
                Ok(Key::Mark(of, id)) if of == *cluster => {
                    self.marks.insert(id);
                }
                Ok(Key::MarkSignature(of, id)) if of == *cluster => {
                    self.signed_marks.insert(id);
                }
                _ => self.problems.push(Problem { key, kind: ProblemKind::UnknownKey }),
            }
        }
    }

    fn committed(&self) -> impl Iterator<Item = (&BackupId, &BTreeMap<SnapshotObject, u64>)> {
        self.sets.iter().filter(|(_, set)| set.contains_key(&SnapshotObject::Manifest))
    }

    fn wanted(&self, cluster: &ClusterName) -> Vec<(String, usize)> {
        let mut wanted = Vec::new();
        for (id, set) in self.committed() {
            let key = |object| Key::Snapshot(cluster.clone(), *id, object).to_string();
            wanted.push((key(SnapshotObject::Manifest), limits::MANIFEST_BYTES));
            if set.contains_key(&SnapshotObject::ManifestSignature) {
                wanted.push((key(SnapshotObject::ManifestSignature), limits::SIGNATURE_BYTES));
            }
        }
        wanted.extend(self.lineages.iter().map(|name| (Key::Lineage(cluster.clone(), *name).to_string(), limits::SMALL_JSON_BYTES)));
        wanted.extend(self.marks.iter().map(|id| (Key::Mark(cluster.clone(), *id).to_string(), limits::SMALL_JSON_BYTES)));
        let signed = self.marks.intersection(&self.signed_marks);
        wanted.extend(signed.map(|id| (Key::MarkSignature(cluster.clone(), *id).to_string(), limits::SIGNATURE_BYTES)));
        wanted
    }
}

struct Loader<'a> {
    repository: &'a Repository,
    cluster: &'a ClusterName,
    fetched: HashMap<String, Fetched>,
    problems: Vec<Problem>,
}

struct Read<T> {
    value: T,
    sha256: Sha256,
    signature: Status,
}

impl Loader<'_> {
    fn problem(&mut self, key: String, kind: ProblemKind) {
        self.problems.push(Problem { key, kind });
    }

    /// The bytes of an object; none when it is gone, or when it cannot be read, which is noted.
    fn take(&mut self, key: &str) -> Option<bytes::Bytes> {
        match self.fetched.remove(key)? {
            Fetched::Bytes(bytes) => Some(bytes),
            Fetched::Gone => None,
            Fetched::Corrupt(detail) => {
                self.problem(key.to_owned(), ProblemKind::Unreadable(detail));
                None
            }
        }
    }

    fn judge(&mut self, key: &str, bytes: &[u8], id: &dyn fmt::Display, role: Role) -> Status {
        let signature_key = format!("{key}.minisig");
        let unreadable = matches!(self.fetched.get(&signature_key), Some(Fetched::Corrupt(_)));
        let signature = self.take(&signature_key);
        let binding = Binding { repository: self.repository.id(), cluster: self.cluster, id, role };
        let status = match unreadable {
            true => Status::Invalid("it cannot be read".to_owned()),
            false => self.repository.signers().judge(bytes, signature.as_deref(), &binding),
        };
        // Of a mark nothing is shown that does not count, so a foreign one is named here; a backup shows what its signature is worth.
        let foreign = role == Role::Mark && matches!(status, Status::Untrusted(_)) && !self.repository.signers().counts(&status);
        if foreign || matches!(status, Status::Invalid(_)) {
            self.problem(signature_key, ProblemKind::Signature(status.clone()));
        }
        status
    }

    fn manifests(&mut self, listing: &Listing) -> Vec<Read<Manifest>> {
        let mut manifests = Vec::new();
        for (id, _) in listing.committed() {
            let key = Key::Snapshot(self.cluster.clone(), *id, SnapshotObject::Manifest).to_string();
            let Some(bytes) = self.take(&key) else { continue };
            let signature = self.judge(&key, &bytes, id, Role::Manifest);
            match Manifest::decode(&bytes) {
                Ok(manifest) => match self.belongs(&manifest, id) {
                    Ok(()) => manifests.push(Read { value: manifest, sha256: Sha256::of(&bytes), signature }),
                    Err(detail) => self.problem(key, ProblemKind::Moved(detail)),
                },
                Err(error) => self.problem(key, ProblemKind::Damaged(error)),
            }
        }
        manifests
    }

    fn belongs(&self, manifest: &Manifest, id: &BackupId) -> Result<(), String> {
        let Manifest { repository, cluster, id: own, .. } = manifest;
        if repository == self.repository.id() && cluster == self.cluster && own == id {
            return Ok(());
        }
        Err(format!("it is the manifest of backup {own} of cluster {cluster} in repository {repository}"))
    }

    fn lineages(&mut self, listing: &Listing) -> Vec<Lineage> {
        let mut lineages = Vec::new();
        for name in &listing.lineages {
            let key = Key::Lineage(self.cluster.clone(), *name).to_string();
            let Some(bytes) = self.take(&key) else { continue };
            match Lineage::decode(&bytes, name) {
                Ok(lineage) => lineages.push(lineage),
                Err(error) => self.problem(key, ProblemKind::Damaged(error)),
            }
        }
        lineages
    }

    fn marks(&mut self, listing: &Listing) -> Vec<MarkEntry> {
        let mut marks = Vec::new();
        for id in &listing.marks {
            let key = Key::Mark(self.cluster.clone(), *id).to_string();
            let Some(bytes) = self.take(&key) else { continue };
            let signature = self.judge(&key, &bytes, id, Role::Mark);
            match Mark::decode(&bytes, self.repository.id(), self.cluster, id) {
                Ok(mark) => {
                    let counts = self.repository.signers().counts(&signature);
                    marks.push(MarkEntry { mark, sha256: Sha256::of(&bytes), signature, counts });
                }
                Err(error) => self.problem(key, ProblemKind::Damaged(error)),
            }
        }
        marks
    }
}

fn vouchers(marks: &[MarkEntry]) -> Vouchers {
    let mut vouchers = Vouchers::default();
    for statement in counting(marks) {
        match statement {
            Statement::Accept(lineage, data) => {
                vouchers.accepted.insert(*lineage);
                vouchers.fingerprints.insert((*lineage, data.fingerprint.clone()));
            }
            Statement::Restore(_, data) if data.bumped => {
                vouchers.restore_targets.insert(data.target_revision);
            }
            _ => {}
        }
    }
    vouchers
}

fn counting(marks: &[MarkEntry]) -> impl Iterator<Item = &Statement> {
    marks.iter().filter(|entry| entry.counts).map(|entry| &entry.mark.statement)
}

/// What was read, each object by itself.
struct Parts {
    manifests: Vec<Read<Manifest>>,
    lineages: Vec<Lineage>,
    marks: Vec<MarkEntry>,
    problems: Vec<Problem>,
}

impl Parts {
    /// Judges each object in the light of the others.
    fn assemble(self, cluster: &ClusterName, listing: Listing, signers: &TrustedSigners) -> Catalog {
        let Self { manifests, lineages, marks, mut problems } = self;
        let vouchers = vouchers(&marks);
        let mut standings = standings(&lineages, &vouchers);
        let judged = lineages.into_iter().filter_map(|lineage| {
            let standing = standings.remove(&lineage.name)?;
            Some((lineage.name, LineageEntry { lineage, standing }))
        });
        let lineages: BTreeMap<LineageName, LineageEntry> = judged.collect();
        let named: BTreeSet<LineageName> = manifests.iter().map(|manifest| manifest.value.lineage).collect();
        for name in named.difference(&listing.lineages) {
            problems.push(Problem { key: Key::Lineage(cluster.clone(), *name).to_string(), kind: ProblemKind::LineageMissing });
        }
        let highest_seq = named.union(&listing.lineages).map(LineageName::seq).max().unwrap_or(0);

        // By target, for a catalog has many of both.
        let mut about: BTreeMap<BackupId, Vec<&MarkEntry>> = BTreeMap::new();
        for entry in marks.iter().filter(|entry| entry.counts) {
            if let Some(id) = entry.mark.statement.backup() {
                about.entry(*id).or_default().push(entry);
            }
        }
        let backups = manifests.into_iter().map(|read| {
            let damage = set_problems(cluster, &read.value, listing.sets.get(&read.value.id));
            let incomplete = !damage.is_empty();
            problems.extend(damage);
            let unconfirmed = unconfirmed(&read.value, &lineages, &vouchers);
            let marks = about.get(&read.value.id).map_or(&[][..], Vec::as_slice);
            let counts = signers.counts(&read.signature);
            judge_backup(read, marks, unconfirmed, counts, incomplete)
        });
        let backups: Vec<Backup> = backups.collect();
        problems.extend(parent_problems(cluster, &backups, &marks));
        problems.sort_by(|a, b| a.key.cmp(&b.key));
        let uncommitted = uncommitted(&listing);
        Catalog { cluster: cluster.clone(), backups, lineages, marks, uncommitted, problems, highest_seq, vouchers }
    }
}

fn judge_backup(read: Read<Manifest>, marks: &[&MarkEntry], unconfirmed: Option<Doubt>, counts: bool, incomplete: bool) -> Backup {
    let Read { value: manifest, sha256, signature } = read;
    Backup {
        proof: prove(&manifest.proven, marks.iter().map(|entry| &entry.mark.statement)),
        tags: tags(&manifest, marks),
        pins: pins(marks),
        unconfirmed,
        counts,
        incomplete,
        manifest,
        sha256,
        signature,
    }
}

/// Earlier backups that a backup which counts had seen and that are gone without a trusted tombstone, or are not the same any more.
fn parent_problems(cluster: &ClusterName, backups: &[Backup], marks: &[MarkEntry]) -> Vec<Problem> {
    let tombstoned: BTreeSet<&BackupId> = counting(marks)
        .filter_map(|statement| match statement {
            Statement::Tombstone(id, _) => Some(id),
            _ => None,
        })
        .collect();
    let there: BTreeMap<BackupId, Sha256> = backups.iter().map(|backup| (backup.id(), backup.sha256)).collect();
    let mut problems: BTreeMap<BackupId, ProblemKind> = BTreeMap::new();
    for backup in backups.iter().filter(|backup| backup.counts) {
        let child = backup.id();
        for parent in &backup.manifest.parents {
            match there.get(&parent.id) {
                Some(sha256) if *sha256 == parent.sha256 => {}
                Some(_) => {
                    problems.insert(parent.id, ProblemKind::Replaced { child });
                }
                None if tombstoned.contains(&parent.id) => {}
                None => {
                    problems.entry(parent.id).or_insert(ProblemKind::Vanished { child });
                }
            }
        }
    }
    let key = |id| Key::Snapshot(cluster.clone(), id, SnapshotObject::Manifest).to_string();
    problems.into_iter().map(|(id, kind)| Problem { key: key(id), kind }).collect()
}

fn set_problems(cluster: &ClusterName, manifest: &Manifest, set: Option<&BTreeMap<SnapshotObject, u64>>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for object in &manifest.objects {
        let key = || Key::Snapshot(cluster.clone(), manifest.id, object.name.clone()).to_string();
        match set.and_then(|set| set.get(&object.name)) {
            None => problems.push(Problem { key: key(), kind: ProblemKind::Missing }),
            Some(there) if *there != object.size => {
                problems.push(Problem { key: key(), kind: ProblemKind::Size { there: *there, stated: object.size } });
            }
            Some(_) => {}
        }
    }
    problems
}

fn unconfirmed(manifest: &Manifest, lineages: &BTreeMap<LineageName, LineageEntry>, vouchers: &Vouchers) -> Option<Doubt> {
    let Some(entry) = lineages.get(&manifest.lineage) else { return Some(Doubt::LineageMissing) };
    match &entry.standing {
        Standing::Unconfirmed(doubt) => Some(doubt.clone()),
        Standing::Accepted(_) => decide::doubt(&entry.lineage, manifest.fingerprint.as_ref(), vouchers),
    }
}

fn tags(manifest: &Manifest, marks: &[&MarkEntry]) -> BTreeSet<Tag> {
    let mut tags: BTreeSet<Tag> = manifest.tags.iter().cloned().collect();
    for entry in marks {
        match &entry.mark.statement {
            Statement::Tag(_, data) => tags.extend(data.tags.iter().cloned()),
            Statement::Untag(_, data) => tags.retain(|tag| !data.tags.contains(tag)),
            _ => {}
        }
    }
    tags
}

fn pins(marks: &[&MarkEntry]) -> BTreeSet<MarkId> {
    let (mut pins, mut cancelled) = (BTreeSet::new(), BTreeSet::new());
    for entry in marks {
        match &entry.mark.statement {
            Statement::Pin(..) => {
                pins.insert(entry.mark.id);
            }
            Statement::Unpin(_, data) => cancelled.extend(data.pins.iter().copied()),
            _ => {}
        }
    }
    // By name, not by order: an unpin cannot cancel a pin its writer had not seen.
    pins.difference(&cancelled).copied().collect()
}

fn uncommitted(listing: &Listing) -> Vec<Uncommitted> {
    let open = listing.sets.iter().filter(|(_, set)| !set.contains_key(&SnapshotObject::Manifest));
    open.map(|(id, set)| Uncommitted { id: *id, objects: set.len() as u64, bytes: set.values().copied().fold(0, u64::saturating_add) })
        .collect()
}
