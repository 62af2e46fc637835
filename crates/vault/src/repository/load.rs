//! Reading a catalog: list, fetch, check each object by itself, then judge each in the light of the others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use super::catalog::{Backup, Catalog, LineageEntry, MarkEntry, Problem, ProblemKind, Uncommitted};
use super::fetch::{Fetched, fetch};
use super::proof::prove;
use super::{Repository, RepositoryError};
use crate::backup_id::BackupId;
use crate::digest::Sha256;
use crate::key::{self, Key, SnapshotObject};
use crate::limits;
use crate::lineage::decide;
use crate::lineage::standing::{Doubt, Standing, Vouchers, standings};
use crate::lineage::{Lineage, LineageName};
use crate::manifest::Manifest;
use crate::mark::{Mark, Statement};
use crate::name::{ClusterName, MarkId, Tag};
use crate::sign::{Binding, Role, Status, TrustedSigners};
use crate::store::ObjectInfo;

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

    fn judge(&mut self, key: &str, bytes: &[u8], id: &(dyn fmt::Display + Sync), role: Role) -> Status {
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
            // Listed and not there: an old record that was just forgotten, or a store in trouble; it may be a pin.
            if matches!(self.fetched.get(&key), Some(Fetched::Gone)) {
                self.problem(key.clone(), ProblemKind::Unreadable("it is listed, and cannot be read".to_owned()));
            }
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
