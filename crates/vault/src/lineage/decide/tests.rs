#![allow(clippy::unwrap_used)]

use etcd_store::id::ClusterId;

use super::*;
use crate::digest::Sha256;
use crate::lineage::standing::AcceptedBy;

const UID: &str = "uid-1";

fn id(n: u64) -> LineageCluster {
    LineageCluster::Id(ClusterId(n))
}

fn row(main: i64) -> LastRow {
    LastRow { main, sub: 0, sha256: Sha256::of(&main.to_le_bytes()) }
}

fn known(seq: u16, cluster: LineageCluster, epoch: i64, highest: i64) -> Known {
    let name = LineageName::new(seq, cluster, epoch).unwrap();
    let parent = (seq > 1).then(|| LineageName::new(1, id(0xa), 0).unwrap());
    let ids = match cluster {
        LineageCluster::Id(id) => [id].into(),
        LineageCluster::Talos | LineageCluster::File => Default::default(),
    };
    Known { lineage: Lineage::new(name, parent, UID.parse().ok()), ids, highest: Some(highest), last_row: Some(row(highest)) }
}

fn seen(cluster: LineageCluster, epoch: i64, revision: i64) -> Observation {
    Observation { cluster, epoch, revision, linearizable: Some(revision), fingerprint: UID.parse().ok() }
}

fn with(known: &[Known], vouchers: Vouchers) -> Histories {
    Histories { known: known.to_vec(), highest_seq: 0, vouchers }
}

fn run(known: &[Known], seen: &Observation, lookup: impl FnMut(&LastRow) -> RowLookup) -> Decision {
    decide(&with(known, Vouchers::default()), seen, lookup).unwrap()
}

fn because(decision: &Decision) -> &Because {
    match &decision.belongs {
        Belongs::New { because, .. } => because,
        other => panic!("no new lineage: {other:?}"),
    }
}

#[test]
fn the_first_backup_begins_the_first_lineage() {
    let decision = run(&[], &seen(id(0xa), 0, 100), |_| RowLookup::Same);
    assert_eq!(decision.name().to_string(), "0001-000000000000000a-0");
    assert_eq!(because(&decision), &Because::First);
    assert_eq!(decision.standing, Standing::Accepted(AcceptedBy::First));
    assert_eq!(decision.unconfirmed(), None);
}

#[test]
fn the_same_cluster_and_epoch_is_the_same_lineage() {
    let known = [known(1, id(0xa), 0, 100)];
    let decision = run(&known, &seen(id(0xa), 0, 200), |_| RowLookup::Same);
    assert_eq!(decision.belongs, Belongs::Existing(known[0].lineage.name));
    assert_eq!((decision.check, decision.row), (LineageCheck::Compared, RowCheck::Same));
}

#[test]
fn another_cluster_id_begins_a_lineage() {
    let decision = run(&[known(1, id(0xa), 0, 100)], &seen(id(0xb), 0, 200), |_| RowLookup::Same);
    assert_eq!(decision.name().to_string(), "0002-000000000000000b-0");
    assert_eq!(because(&decision), &Because::Unknown);
    assert!(decision.standing.is_accepted(), "same fingerprint: a restored cluster");
}

#[test]
fn another_epoch_begins_a_lineage() {
    let decision = run(&[known(1, id(0xa), 0, 100)], &seen(id(0xa), 5000, 5001), |_| RowLookup::Same);
    assert_eq!(decision.name().to_string(), "0002-000000000000000a-5000");
    assert_eq!(because(&decision), &Because::Unknown);
}

#[test]
fn a_lineage_that_began_without_an_id_is_of_the_cluster_that_told_one_later() {
    let mut known = known(1, LineageCluster::Talos, 0, 100);
    known.ids.insert(ClusterId(0xa));
    let same = run(std::slice::from_ref(&known), &seen(id(0xa), 0, 200), |_| RowLookup::Same);
    assert_eq!(same.belongs, Belongs::Existing(known.lineage.name));
    let untold = run(std::slice::from_ref(&known), &seen(LineageCluster::Talos, 0, 200), |_| RowLookup::Same);
    assert_eq!(untold.belongs, Belongs::Existing(known.lineage.name));
    let other = run(std::slice::from_ref(&known), &seen(id(0xb), 0, 200), |_| RowLookup::Same);
    assert_eq!(because(&other), &Because::Unknown);
}

#[test]
fn an_unknown_cluster_id_equals_any() {
    let known = [known(1, id(0xa), 0, 100)];
    for cluster in [LineageCluster::Talos, LineageCluster::File] {
        let decision = run(&known, &seen(cluster, 0, 200), |_| RowLookup::Same);
        assert_eq!(decision.belongs, Belongs::Existing(known[0].lineage.name));
    }
    let talos = [super::tests::known(1, LineageCluster::Talos, 0, 100)];
    let decision = run(&talos, &seen(id(0xb), 0, 200), |_| RowLookup::Same);
    assert_eq!(decision.belongs, Belongs::Existing(talos[0].lineage.name));
}

#[test]
fn a_read_below_the_highest_revision_is_a_cluster_set_back() {
    let decision = run(&[known(1, id(0xa), 0, 100)], &seen(id(0xa), 0, 99), |_| RowLookup::Beyond);
    assert_eq!(because(&decision), &Because::SetBack { read: 99, highest: 100 });
    assert_eq!(decision.name().to_string(), "0002-000000000000000a-0");
}

#[test]
fn a_lagging_member_is_older_not_set_back() {
    let known = [known(1, id(0xa), 0, 100)];
    let lagging = Observation { revision: 90, linearizable: Some(120), ..seen(id(0xa), 0, 90) };
    let decision = run(&known, &lagging, |_| RowLookup::Beyond);
    assert_eq!(decision.belongs, Belongs::Older { name: known[0].lineage.name, highest: 100 });
    assert_eq!(decision.row, RowCheck::NotComparable);
}

#[test]
fn an_equal_revision_is_not_older() {
    let known = [known(1, id(0xa), 0, 100)];
    assert_eq!(run(&known, &seen(id(0xa), 0, 100), |_| RowLookup::Same).belongs, Belongs::Existing(known[0].lineage.name));
}

#[test]
fn a_changed_last_row_is_a_rewritten_history() {
    let decision = run(&[known(1, id(0xa), 0, 100)], &seen(id(0xa), 0, 200), |_| RowLookup::Different);
    assert_eq!(because(&decision), &Because::Rewritten { revision: 100 });
    assert_eq!(decision.row, RowCheck::Different);
}

#[test]
fn a_compacted_last_row_is_no_evidence() {
    let known = [known(1, id(0xa), 0, 100)];
    let decision = run(&known, &seen(id(0xa), 0, 200), |_| RowLookup::Compacted);
    assert_eq!(decision.belongs, Belongs::Existing(known[0].lineage.name));
    assert_eq!(decision.row, RowCheck::NotComparable);
}

#[test]
fn a_source_that_cannot_be_asked_is_uncompared() {
    let known = [known(1, id(0xa), 0, 100)];
    let bare = Observation { linearizable: None, ..seen(LineageCluster::File, 0, 90) };
    let decision = run(&known, &bare, |_| RowLookup::Beyond);
    assert_eq!(decision.check, LineageCheck::Uncompared);
    assert_eq!(decision.belongs, Belongs::Older { name: known[0].lineage.name, highest: 100 });
}

#[test]
fn after_a_set_back_the_newest_lineage_goes_on() {
    // Both have the cluster id and the epoch: a restore without bump kept them.
    let known = [known(1, id(0xa), 0, 1000), known(2, id(0xa), 0, 700)];
    let decision = run(&known, &seen(id(0xa), 0, 800), |row| if row.main == 700 { RowLookup::Same } else { RowLookup::Beyond });
    assert_eq!(decision.belongs, Belongs::Existing(known[1].lineage.name));
}

#[test]
fn an_older_lineage_is_joined_only_on_proof() {
    let known = [known(1, id(0xa), 0, 1000), known(2, id(0xa), 0, 2000)];
    // Set back below lineage 2, above lineage 1.
    let decision = run(&known, &seen(id(0xa), 0, 1500), |_| RowLookup::Compacted);
    assert_eq!(because(&decision), &Because::SetBack { read: 1500, highest: 2000 });
    let decision = run(&known, &seen(id(0xa), 0, 1500), |row| if row.main == 1000 { RowLookup::Same } else { RowLookup::Beyond });
    assert_eq!(decision.belongs, Belongs::Existing(known[0].lineage.name));
}

#[test]
fn a_bare_file_goes_where_its_rows_are() {
    let known = [known(1, id(0xa), 0, 1000), known(2, id(0xb), 0, 700)];
    let bare = Observation { linearizable: None, ..seen(LineageCluster::File, 0, 1100) };
    let decision = run(&known, &bare, |row| if row.main == 1000 { RowLookup::Same } else { RowLookup::Compacted });
    assert_eq!(decision.belongs, Belongs::Existing(known[0].lineage.name));
}

#[test]
fn a_lineage_without_backups_is_joined() {
    let empty = [Known { highest: None, last_row: None, ..known(1, id(0xa), 0, 0) }];
    let decision = run(&empty, &seen(id(0xa), 0, 5), |_| panic!("there is no row to look up"));
    assert_eq!(decision.belongs, Belongs::Existing(empty[0].lineage.name));
}

#[test]
fn an_emptied_or_foreign_cluster_is_unconfirmed() {
    for fingerprint in [None, "uid-2".parse().ok()] {
        let foreign = Observation { fingerprint, ..seen(id(0xb), 0, 5) };
        let decision = run(&[known(1, id(0xa), 0, 100)], &foreign, |_| RowLookup::Beyond);
        assert!(decision.unconfirmed().is_some());
        assert_eq!(decision.name().seq(), 2);
    }
}

#[test]
fn a_cluster_emptied_in_place_is_unconfirmed_in_its_own_lineage() {
    let known = [known(1, id(0xa), 0, 100)];
    let emptied = Observation { fingerprint: None, ..seen(id(0xa), 0, 200) };
    let decision = run(&known, &emptied, |_| RowLookup::Same);
    assert_eq!(decision.belongs, Belongs::Existing(known[0].lineage.name));
    assert_eq!(decision.unconfirmed(), Some(&Doubt::NoFingerprint));
    let vouchers = Vouchers { fingerprints: [(known[0].lineage.name, None)].into(), ..Vouchers::default() };
    assert_eq!(decide(&with(&known, vouchers), &emptied, |_| RowLookup::Same).unwrap().unconfirmed(), None);
}

#[test]
fn a_cluster_without_kubernetes_goes_on_in_its_own_lineage() {
    let mut known = known(1, id(0xa), 0, 100);
    known.lineage.fingerprint = None;
    let plain = Observation { fingerprint: None, ..seen(id(0xa), 0, 200) };
    assert_eq!(run(&[known], &plain, |_| RowLookup::Same).unconfirmed(), None);
}

#[test]
fn the_target_of_a_trusted_restore_is_accepted() {
    let restored = Observation { fingerprint: None, ..seen(id(0xb), 5_000_000_123, 5_000_000_200) };
    let vouchers = Vouchers { restore_targets: [5_000_000_123].into(), ..Vouchers::default() };
    let decision = decide(&with(&[known(1, id(0xa), 0, 100)], vouchers), &restored, |_| RowLookup::Beyond).unwrap();
    assert_eq!(decision.standing, Standing::Accepted(AcceptedBy::Restore));
}

#[test]
fn two_writers_begin_the_same_lineage() {
    let known = [known(1, id(0xa), 0, 100)];
    let later = Observation { revision: 260, linearizable: Some(260), ..seen(id(0xb), 0, 250) };
    let a = run(&known, &seen(id(0xb), 0, 250), |_| RowLookup::Beyond);
    let b = run(&known, &later, |_| RowLookup::Beyond);
    assert_eq!(a.belongs, b.belongs);
}

#[test]
fn numbers_run_out_with_an_error() {
    let full = [known(9999, id(0xa), 0, 100)];
    assert_eq!(decide(&with(&full, Vouchers::default()), &seen(id(0xb), 0, 1), |_| RowLookup::Same), Err(NoSeqLeft));
}

#[test]
fn the_number_of_a_damaged_lineage_is_not_given_out_again() {
    let damaged = Histories { highest_seq: 4, ..with(&[known(1, id(0xa), 0, 100)], Vouchers::default()) };
    assert_eq!(decide(&damaged, &seen(id(0xb), 0, 1), |_| RowLookup::Same).unwrap().name().seq(), 5);
    let only = Histories { highest_seq: 1, ..Histories::default() };
    let decision = decide(&only, &seen(id(0xa), 0, 1), |_| RowLookup::Same).unwrap();
    assert_eq!((decision.name().seq(), because(&decision)), (2, &Because::Unknown));
    // Nothing sound was there before it, so nothing contradicts it either.
    assert!(decision.standing.is_accepted());
}
