//! Which lineages are accepted: a pure function of the lineage objects and of what trusted marks vouch for.
//!
//! Every reader comes to the same answer. The rules, in order, for lineages in the order of their seq:
//!
//! 1. An `accept` mark names it: accepted.
//! 2. It is the first: lowest seq, without a parent, and no other is so (or all others that are have the same fingerprint): accepted.
//! 3. A `restore` mark's target revision is its epoch: a cluster that Lifeboat restored: accepted.
//! 4. Its fingerprint is that of an accepted lineage: the same cluster, restored by whatever means: accepted; except that a lineage whose
//!    cluster id is unknown (a bare file, Talos without direct access) and whose epoch is below that of an accepted lineage is an older
//!    history, not a newer one.
//! 5. Else it is unconfirmed. No fingerprint never matches.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Fingerprint, Lineage, LineageCluster, LineageName};

/// What marks vouch for. Put in only what marks say whose signature counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vouchers {
    /// Lineages that an `accept` mark names.
    pub accepted: BTreeSet<LineageName>,
    /// Target revisions of `restore` marks.
    pub restore_targets: BTreeSet<i64>,
    /// Fingerprints that an `accept` mark took for its lineage beside the lineage's own.
    pub fingerprints: BTreeSet<(LineageName, Option<Fingerprint>)>,
}

/// Why a lineage is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcceptedBy {
    /// The operator said so.
    Mark,
    /// Nothing was there before it.
    First,
    /// Its epoch is the target of a restore that Lifeboat made.
    Restore,
    /// Its fingerprint is that of this accepted lineage.
    SameFingerprint(LineageName),
}

/// Why a lineage, or a backup in one, is not confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Doubt {
    /// The snapshot holds no `kube-system` namespace, so nothing says which cluster it is.
    NoFingerprint,
    /// The fingerprint is none of an accepted lineage: another cluster, an emptied one, or a wrong context.
    OtherFingerprint,
    /// Two histories claim to be the first and do not have the same fingerprint.
    SeveralFirst,
    /// The lineage's own object is missing or damaged.
    LineageMissing,
    /// A bare history whose epoch is below that of an accepted one: older, not newer.
    OlderHistory,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoFingerprint => "nothing in the snapshot says which cluster it is (no kube-system namespace)",
            Self::OtherFingerprint => "the snapshot is of another cluster than the backups before it (other UID of kube-system)",
            Self::SeveralFirst => "several histories claim to be this cluster's first",
            Self::LineageMissing => "the object of its lineage is missing or damaged",
            Self::OlderHistory => "a history from before the one that is backed up now",
        })
    }
}

/// Whether a lineage is accepted, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its backups can be `latest`.
    Accepted(AcceptedBy),
    /// Its backups are kept and shown, but never `latest`, until `lifeboat lineage accept`.
    Unconfirmed(Doubt),
}

impl Standing {
    /// Whether it is accepted.
    pub fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepted(_))
    }
}

/// The standing of every lineage.
pub fn standings<'a>(lineages: impl IntoIterator<Item = &'a Lineage>, vouchers: &Vouchers) -> BTreeMap<LineageName, Standing> {
    let sorted: BTreeMap<LineageName, &Lineage> = lineages.into_iter().map(|lineage| (lineage.name, lineage)).collect();
    let firsts = firsts(&sorted);
    let mut accepted: Vec<&Lineage> = Vec::new();
    let mut standings = BTreeMap::new();
    for (name, lineage) in &sorted {
        let standing = judge(lineage, &firsts, &accepted, vouchers);
        if standing.is_accepted() {
            accepted.push(lineage);
        }
        standings.insert(*name, standing);
    }
    standings
}

/// The lineages that claim to be the first.
fn firsts<'a>(sorted: &BTreeMap<LineageName, &'a Lineage>) -> Vec<&'a Lineage> {
    let Some(lowest) = sorted.keys().next().map(LineageName::seq) else { return Vec::new() };
    sorted.values().filter(|lineage| lineage.name.seq() == lowest && lineage.parent.is_none()).copied().collect()
}

fn judge(lineage: &Lineage, firsts: &[&Lineage], accepted: &[&Lineage], vouchers: &Vouchers) -> Standing {
    if vouchers.accepted.contains(&lineage.name) {
        return Standing::Accepted(AcceptedBy::Mark);
    }
    if firsts.iter().any(|first| first.name == lineage.name) {
        let alone = firsts.len() == 1;
        let agreed = lineage.fingerprint.is_some() && firsts.iter().all(|first| first.fingerprint == lineage.fingerprint);
        return if alone || agreed { Standing::Accepted(AcceptedBy::First) } else { Standing::Unconfirmed(Doubt::SeveralFirst) };
    }
    if lineage.epoch > 0 && vouchers.restore_targets.contains(&lineage.epoch) {
        return Standing::Accepted(AcceptedBy::Restore);
    }
    let Some(fingerprint) = &lineage.fingerprint else {
        return Standing::Unconfirmed(Doubt::NoFingerprint);
    };
    let Some(same) = accepted.iter().rev().find(|known| known.fingerprint.as_ref() == Some(fingerprint)) else {
        return Standing::Unconfirmed(Doubt::OtherFingerprint);
    };
    let bare = !matches!(lineage.cluster_id, LineageCluster::Id(_));
    if bare && accepted.iter().any(|known| known.epoch > lineage.epoch) {
        return Standing::Unconfirmed(Doubt::OlderHistory);
    }
    Standing::Accepted(AcceptedBy::SameFingerprint(same.name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn lineage(name: &str, parent: Option<&str>, fingerprint: Option<&str>) -> Lineage {
        let parse = |name: &str| name.parse().unwrap();
        Lineage::new(parse(name), parent.map(parse), fingerprint.map(|f| f.parse().unwrap()))
    }

    fn of(lineages: &[Lineage], vouchers: &Vouchers, name: &str) -> Standing {
        standings(lineages, vouchers).remove(&name.parse::<LineageName>().unwrap()).unwrap()
    }

    const A: &str = "0001-000000000000000a-0";
    const B: &str = "0002-000000000000000b-0";

    #[test]
    fn the_first_is_accepted_even_without_a_fingerprint() {
        let all = [lineage(A, None, None)];
        assert_eq!(of(&all, &Vouchers::default(), A), Standing::Accepted(AcceptedBy::First));
    }

    #[test]
    fn the_same_fingerprint_is_a_restored_cluster() {
        let all = [lineage(A, None, Some("uid-1")), lineage(B, Some(A), Some("uid-1"))];
        assert_eq!(of(&all, &Vouchers::default(), B), Standing::Accepted(AcceptedBy::SameFingerprint(A.parse().unwrap())));
    }

    #[test]
    fn another_or_no_fingerprint_is_unconfirmed() {
        let all = [lineage(A, None, Some("uid-1")), lineage(B, Some(A), Some("uid-2"))];
        assert_eq!(of(&all, &Vouchers::default(), B), Standing::Unconfirmed(Doubt::OtherFingerprint));
        let all = [lineage(A, None, Some("uid-1")), lineage(B, Some(A), None)];
        assert_eq!(of(&all, &Vouchers::default(), B), Standing::Unconfirmed(Doubt::NoFingerprint));
    }

    #[test]
    fn none_never_matches_none() {
        let all = [lineage(A, None, None), lineage(B, Some(A), None)];
        assert_eq!(of(&all, &Vouchers::default(), B), Standing::Unconfirmed(Doubt::NoFingerprint));
    }

    #[test]
    fn an_unconfirmed_lineage_vouches_for_no_other() {
        let c = "0003-000000000000000c-0";
        let all = [lineage(A, None, Some("uid-1")), lineage(B, Some(A), Some("uid-2")), lineage(c, Some(B), Some("uid-2"))];
        assert_eq!(of(&all, &Vouchers::default(), c), Standing::Unconfirmed(Doubt::OtherFingerprint));
    }

    #[test]
    fn the_operator_accepts() {
        let all = [lineage(A, None, Some("uid-1")), lineage(B, Some(A), None)];
        let vouchers = Vouchers { accepted: [B.parse().unwrap()].into(), ..Vouchers::default() };
        assert_eq!(of(&all, &vouchers, B), Standing::Accepted(AcceptedBy::Mark));
    }

    #[test]
    fn a_restore_that_lifeboat_made_is_known_by_its_target() {
        let bumped = "0002-000000000000000b-5000000123";
        let all = [lineage(A, None, None), lineage(bumped, Some(A), None)];
        let vouchers = Vouchers { restore_targets: [5_000_000_123].into(), ..Vouchers::default() };
        assert_eq!(of(&all, &vouchers, bumped), Standing::Accepted(AcceptedBy::Restore));
        // Epoch 0 is "no bump"; a mark with target 0 must not let everything in.
        let all = [lineage(A, None, None), lineage(B, Some(A), None)];
        let vouchers = Vouchers { restore_targets: [0].into(), ..Vouchers::default() };
        assert!(!of(&all, &vouchers, B).is_accepted());
    }

    #[test]
    fn two_firsts_that_disagree_are_both_unconfirmed() {
        let other = "0001-000000000000000b-0";
        let all = [lineage(A, None, Some("uid-1")), lineage(other, None, Some("uid-2"))];
        assert_eq!(of(&all, &Vouchers::default(), A), Standing::Unconfirmed(Doubt::SeveralFirst));
        assert_eq!(of(&all, &Vouchers::default(), other), Standing::Unconfirmed(Doubt::SeveralFirst));
        let all = [lineage(A, None, Some("uid-1")), lineage("0001-talos-0", None, Some("uid-1"))];
        assert!(standings(&all, &Vouchers::default()).values().all(Standing::is_accepted));
    }

    #[test]
    fn an_old_bare_file_does_not_become_the_newest_history() {
        let now = "0001-000000000000000a-9000";
        let old = "0002-file-1000";
        let all = [lineage(now, None, Some("uid-1")), lineage(old, Some(now), Some("uid-1"))];
        assert_eq!(of(&all, &Vouchers::default(), old), Standing::Unconfirmed(Doubt::OlderHistory));
        let newer = "0002-file-10000";
        let all = [lineage(now, None, Some("uid-1")), lineage(newer, Some(now), Some("uid-1"))];
        assert!(of(&all, &Vouchers::default(), newer).is_accepted());
    }

    #[test]
    fn a_lineage_whose_parent_is_gone_is_not_the_first() {
        let all = [lineage(B, Some(A), Some("uid-1"))];
        assert_eq!(of(&all, &Vouchers::default(), B), Standing::Unconfirmed(Doubt::OtherFingerprint));
    }
}
