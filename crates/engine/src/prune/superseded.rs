//! Records that nobody needs any more: they would say the same without them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use vault::backup_id::BackupId;
use vault::mark::{RunResult, Statement};
use vault::name::MarkId;
use vault::repository::proof::prove;
use vault::repository::{Catalog, MarkEntry};

use crate::limits::MARKS_KEPT;

/// The `verify` and `run` marks that count, are older than [`MARKS_KEPT`] and change nothing: without them every backup is as proven as with them, and
/// the newest run of each verb and result is still there. Sorted by id.
pub(super) fn superseded(catalog: &Catalog, now: Timestamp) -> Vec<MarkId> {
    let is_old = |entry: &&MarkEntry| now.duration_since(entry.mark.id.time()) > MARKS_KEPT;
    let counting = || catalog.marks.iter().filter(|entry| entry.counts);
    let mut checks: BTreeMap<BackupId, Vec<&MarkEntry>> = BTreeMap::new();
    let mut newest_runs: BTreeMap<(&str, u8), MarkId> = BTreeMap::new();
    for entry in counting() {
        match &entry.mark.statement {
            Statement::Verify(id, _) | Statement::Drill(id, _) => checks.entry(*id).or_default().push(entry),
            Statement::Run(run) => {
                newest_runs.insert((&run.verb, result(run.result)), entry.mark.id);
            }
            _ => {}
        }
    }
    let needed: BTreeSet<MarkId> = newest_runs.into_values().collect();
    let runs = counting().filter(is_old).filter(|entry| matches!(entry.mark.statement, Statement::Run(_)));
    let mut gone: Vec<MarkId> = runs.map(|entry| entry.mark.id).filter(|id| !needed.contains(id)).collect();
    for (id, mut entries) in checks {
        // Of one whose manifest cannot be read now nobody knows what its marks change.
        let Some(committed) = catalog.backup(&id).map(|backup| backup.manifest.proven) else { continue };
        let old: Vec<MarkId> = entries
            .iter()
            .copied()
            .filter(|entry| is_old(entry))
            .filter(|entry| matches!(entry.mark.statement, Statement::Verify(..)))
            .map(|entry| entry.mark.id)
            .collect();
        for mark in old {
            let of = |entries: &[&MarkEntry]| prove(&committed, entries.iter().map(|entry| &entry.mark.statement));
            let without: Vec<&MarkEntry> = entries.iter().copied().filter(|entry| entry.mark.id != mark).collect();
            if of(&without) == of(&entries) {
                gone.push(mark);
                entries = without;
            }
        }
    }
    gone.sort();
    gone
}

fn result(result: RunResult) -> u8 {
    match result {
        RunResult::Ok => 0,
        RunResult::Warnings => 1,
        RunResult::Failed => 2,
    }
}
