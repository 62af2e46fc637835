//! To which lineage a snapshot belongs: a pure function of what is known and what was observed.

use std::collections::BTreeSet;

use etcd_store::id::ClusterId;

use super::standing::{Doubt, Standing, Vouchers, standings};
use super::{Fingerprint, Lineage, LineageCluster, LineageName};
use crate::manifest::{LastRow, LineageCheck, RowCheck};

/// One lineage of the repository, with what its backups say. Only backups count whose signature counts and which are neither disputed, failed
/// nor a rescue, for a wrong one would send every later backup into a lineage of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The lineage's object.
    pub lineage: Lineage,
    /// Cluster ids that its backups told. A lineage that began without one (Talos) is of the cluster whose id is told later, and of no other.
    pub ids: BTreeSet<ClusterId>,
    /// The highest revision of any of its backups, none when it has no backup.
    pub highest: Option<i64>,
    /// `last_row` of the newest of its backups (highest revision, then newest id).
    pub last_row: Option<LastRow>,
}

impl Known {
    fn may_be_of(&self, cluster: LineageCluster) -> bool {
        let told = match cluster {
            LineageCluster::Id(id) => self.ids.is_empty() || self.ids.contains(&id),
            LineageCluster::Talos | LineageCluster::File => true,
        };
        told && self.lineage.cluster_id.may_equal(cluster)
    }
}

/// Everything a decision rests on beside the snapshot itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histories {
    /// The lineages whose objects are sound.
    pub known: Vec<Known>,
    /// The highest seq that was seen anywhere, in the name of a damaged object or in a manifest too: it is not given out again.
    pub highest_seq: u16,
    /// What marks vouch for.
    pub vouchers: Vouchers,
}

impl Histories {
    fn lineages(&self) -> impl Iterator<Item = &Lineage> {
        self.known.iter().map(|known| &known.lineage)
    }
}

/// What was seen of the source and of its snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The cluster id, as far as the source tells it.
    pub cluster: LineageCluster,
    /// Revision of the newest empty-value row in the snapshot's `key` bucket, 0 without one.
    pub epoch: i64,
    /// The snapshot's own revision.
    pub revision: i64,
    /// The revision that a linearizable read answered before the snapshot was taken, where the source can be asked.
    pub linearizable: Option<i64>,
    /// UID of `kube-system` in the snapshot.
    pub fingerprint: Option<Fingerprint>,
}

/// What looking up an earlier backup's `last_row` in the new snapshot file gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowLookup {
    /// The row is there with the same digest: the same history up to it.
    Same,
    /// The row is there with another digest, or is missing although nothing compacted it: another history.
    Different,
    /// The revision is at or below the file's compact revision and the row is gone: not comparable.
    Compacted,
    /// The revision is above the file's own: not comparable.
    Beyond,
}

/// Why a new lineage begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Because {
    /// There is none.
    First,
    /// None has this cluster id and epoch.
    Unknown,
    /// The cluster answered with a revision below one that was backed up: it was set back.
    SetBack {
        /// The linearizable read.
        read: i64,
        /// The lineage's highest revision.
        highest: i64,
    },
    /// A row that was backed up has another content now: history was rewritten.
    Rewritten {
        /// The row's revision.
        revision: i64,
    },
}

/// To which lineage the snapshot belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Belongs {
    /// To this one, as its newest.
    Existing(LineageName),
    /// To this one, but its backups reach further: the file is older (exit 3).
    Older {
        /// The lineage.
        name: LineageName,
        /// The highest revision already backed up.
        highest: i64,
    },
    /// To one that is to be written.
    New {
        /// The object to write.
        lineage: Lineage,
        /// Why it begins.
        because: Because,
    },
}

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// To which lineage the snapshot belongs.
    pub belongs: Belongs,
    /// Whether that lineage is accepted.
    pub standing: Standing,
    /// Why this backup is unconfirmed although its lineage is accepted: its fingerprint is not the lineage's.
    pub doubt: Option<Doubt>,
    /// Whether a linearizable read could be held against what is known (part 10 of the design, `lineage_check`).
    pub check: LineageCheck,
    /// What comparing the newest `last_row` gave.
    pub row: RowCheck,
}

impl Decision {
    /// The lineage's name.
    pub fn name(&self) -> LineageName {
        match &self.belongs {
            Belongs::Existing(name) | Belongs::Older { name, .. } => *name,
            Belongs::New { lineage, .. } => lineage.name,
        }
    }

    /// Why the backup is unconfirmed, if it is (exit 3, never `latest`).
    pub fn unconfirmed(&self) -> Option<&Doubt> {
        match &self.standing {
            Standing::Unconfirmed(doubt) => Some(doubt),
            Standing::Accepted(_) => self.doubt.as_ref(),
        }
    }
}

/// No name is left: 9999 lineages exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this cluster has {} lineages, no number is left for another", LineageName::MAX_SEQ)]
pub struct NoSeqLeft;

struct Candidate<'a> {
    known: &'a Known,
    lookup: Option<RowLookup>,
    against: Option<Because>,
}

/// Decides. `lookup` compares an earlier backup's last row with the new snapshot file; it is asked once per lineage that could be the one.
///
/// With a linearizable read, the newest lineage of this cluster id and epoch is the one, unless the read is below its highest revision or its
/// last row differs; then an older one only when its last row is found unchanged. Without a read, a lineage whose last row is found unchanged
/// goes before a newer one that cannot be compared.
pub fn decide(histories: &Histories, seen: &Observation, mut lookup: impl FnMut(&LastRow) -> RowLookup) -> Result<Decision, NoSeqLeft> {
    let mut candidates: Vec<Candidate<'_>> = histories
        .known
        .iter()
        .filter(|known| known.lineage.epoch == seen.epoch && known.may_be_of(seen.cluster))
        .map(|known| examine(known, seen, &mut lookup))
        .collect();
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.known.lineage.name));

    let check = if seen.linearizable.is_some() { LineageCheck::Compared } else { LineageCheck::Uncompared };
    let row = row_check(candidates.first());
    if let Some(chosen) = choose(&candidates, seen) {
        return Ok(join(chosen, histories, seen, check));
    }
    let because = match candidates.first().and_then(|newest| newest.against.clone()) {
        Some(because) => because,
        None if histories.known.is_empty() && histories.highest_seq == 0 => Because::First,
        None => Because::Unknown,
    };
    begin(histories, seen, because).map(|(belongs, standing)| Decision { belongs, standing, doubt: None, check, row })
}

fn examine<'a>(known: &'a Known, seen: &Observation, lookup: &mut impl FnMut(&LastRow) -> RowLookup) -> Candidate<'a> {
    let found = known.last_row.as_ref().map(lookup);
    let set_back = match (seen.linearizable, known.highest) {
        (Some(read), Some(highest)) if read < highest => Some(Because::SetBack { read, highest }),
        _ => None,
    };
    let rewritten = match (found, &known.last_row) {
        (Some(RowLookup::Different), Some(row)) => Some(Because::Rewritten { revision: row.main }),
        _ => None,
    };
    Candidate { known, lookup: found, against: set_back.or(rewritten) }
}

fn row_check(candidate: Option<&Candidate<'_>>) -> RowCheck {
    match candidate.and_then(|candidate| candidate.lookup) {
        Some(RowLookup::Same) => RowCheck::Same,
        Some(RowLookup::Different) => RowCheck::Different,
        Some(RowLookup::Compacted | RowLookup::Beyond) | None => RowCheck::NotComparable,
    }
}

fn choose<'a, 'b>(candidates: &'b [Candidate<'a>], seen: &Observation) -> Option<&'b Candidate<'a>> {
    let fits = |candidate: &&Candidate<'_>| candidate.against.is_none();
    let proven = || candidates.iter().filter(fits).find(|candidate| candidate.lookup == Some(RowLookup::Same));
    let newest = || candidates.first().filter(fits);
    if seen.linearizable.is_some() { newest().or_else(proven) } else { proven().or_else(newest) }
}

fn join(chosen: &Candidate<'_>, histories: &Histories, seen: &Observation, check: LineageCheck) -> Decision {
    let lineage = &chosen.known.lineage;
    let belongs = match chosen.known.highest {
        Some(highest) if seen.revision < highest => Belongs::Older { name: lineage.name, highest },
        _ => Belongs::Existing(lineage.name),
    };
    let mut standings = standings(histories.lineages(), &histories.vouchers);
    let standing = standings.remove(&lineage.name).unwrap_or(Standing::Unconfirmed(Doubt::OtherFingerprint));
    let doubt = doubt(lineage, seen.fingerprint.as_ref(), &histories.vouchers);
    Decision { belongs, standing, doubt, check, row: row_check(Some(chosen)) }
}

/// Whether a backup's fingerprint contradicts its lineage's. A lineage without one has nothing to contradict.
pub fn doubt(lineage: &Lineage, fingerprint: Option<&Fingerprint>, vouchers: &Vouchers) -> Option<Doubt> {
    let recorded = lineage.fingerprint.as_ref()?;
    if fingerprint == Some(recorded) || vouchers.fingerprints.contains(&(lineage.name, fingerprint.cloned())) {
        return None;
    }
    Some(if fingerprint.is_some() { Doubt::OtherFingerprint } else { Doubt::NoFingerprint })
}

fn begin(histories: &Histories, seen: &Observation, because: Because) -> Result<(Belongs, Standing), NoSeqLeft> {
    let highest = histories.lineages().map(|lineage| lineage.name.seq()).max().unwrap_or(0).max(histories.highest_seq);
    let name = highest.checked_add(1).and_then(|seq| LineageName::new(seq, seen.cluster, seen.epoch.max(0))).ok_or(NoSeqLeft)?;
    let lineage = Lineage::new(name, parent(histories, seen), seen.fingerprint.clone());
    let mut standings = standings(histories.lineages().chain([&lineage]), &histories.vouchers);
    let standing = standings.remove(&name).unwrap_or(Standing::Unconfirmed(Doubt::OtherFingerprint));
    Ok((Belongs::New { lineage, because }, standing))
}

/// The newest accepted lineage with the same fingerprint, else the newest accepted, else the newest.
fn parent(histories: &Histories, seen: &Observation) -> Option<LineageName> {
    let standings = standings(histories.lineages(), &histories.vouchers);
    let accepted = |lineage: &&Lineage| standings.get(&lineage.name).is_some_and(Standing::is_accepted);
    let same = |lineage: &&Lineage| lineage.fingerprint.is_some() && lineage.fingerprint == seen.fingerprint;
    let lineages = || histories.lineages();
    let newest = lineages().filter(accepted).filter(same).map(|lineage| lineage.name).max();
    newest
        .or_else(|| lineages().filter(accepted).map(|lineage| lineage.name).max())
        .or_else(|| lineages().map(|lineage| lineage.name).max())
}

#[cfg(test)]
mod tests;
