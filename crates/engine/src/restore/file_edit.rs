//! The edits of a restore, on a database that another tool will restore; and what edits changed, in words.

use std::io;
use std::path::Path;

use etcd_store::Inspection;
use etcd_store::restore::EditReport;
use vault::digest::Sha256Hasher;

use super::build;
use super::plan::RestorePlan;
use crate::failure::{Failure, Outcome};

/// What is read, hashed and written in one step.
const STEP: usize = 1 << 20;
/// A database in a snapshot file has a multiple of these bytes.
const SECTOR: u64 = 512;

/// A file that was edited.
#[derive(Debug)]
pub(crate) struct Edited {
    /// What was changed.
    pub(crate) report: EditReport,
    /// Leases that were added.
    pub(crate) leases_added: u64,
    /// What the file held before.
    pub(crate) inspection: Inspection,
    /// Its size now, in bytes, trailer included.
    pub(crate) size: u64,
}

/// Refuses a plan whose edits do not go together, before anything is written.
pub(crate) fn check(plan: &RestorePlan) -> Outcome<()> {
    if plan.for_talos && plan.target_revision.is_none() {
        return Err(Failure::usage("Talos's own keys cannot be dropped where revisions stay as they were")
            .cause("the newest revision could go with them, and the restored cluster would hand it out a second time")
            .again_without("--no-bump"));
    }
    Ok(())
}

/// Edits a database file without trailer by the plan, its members left as they are, and gives it the trailer that fits. The trailer, other
/// than the edits, is not durable yet.
pub(crate) fn edit(path: &Path, plan: &RestorePlan) -> Outcome<Edited> {
    let (report, leases_added, inspection) = build::edit(path, plan, None)?;
    let size = append_trailer(path)?;
    Ok(Edited { report, leases_added, inspection, size })
}

/// Appends the SHA-256 of a file to it, and returns its size. What etcd takes for a trailer are the 32 bytes behind a multiple of 512, so a file
/// of another length (a copy that was padded oddly) is filled with zeros first.
fn append_trailer(path: &Path) -> Outcome<u64> {
    let failed = |error: io::Error| Failure::failed(format!("the trailer cannot be written: {error}")).object(path.display()).again();
    let file = disk::File::open_read_write(path).map_err(failed)?;
    let found = file.len().map_err(failed)?;
    let length = found.next_multiple_of(SECTOR);
    if length != found {
        file.set_len(length).map_err(failed)?;
    }
    let mut hasher = Sha256Hasher::new();
    let mut buffer = vec![0; STEP];
    let mut offset = 0;
    while offset < length {
        let now = usize::try_from(length - offset).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact_at(&mut buffer[..now], offset).map_err(failed)?;
        hasher.update(&buffer[..now]);
        offset += now as u64;
    }
    let trailer = hasher.finish().0;
    file.write_all_at(&trailer, length).map_err(failed)?;
    Ok(length + trailer.len() as u64)
}

/// Makes a complete file durable and gives it its name, which nobody may have.
pub(crate) fn publish(temporary: &Path, path: &Path) -> Outcome<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let put = || {
        disk::File::open_read_write(temporary)?.sync()?;
        disk::rename_no_replace(temporary, path)?;
        disk::sync_dir(directory)
    };
    put().map_err(|error: io::Error| {
        Failure::failed(format!("the snapshot file cannot be put in place: {error}")).object(path.display()).again()
    })
}

/// What edits changed, in words.
pub(crate) fn words(edits: &EditReport, leases_added: u64, plan: &RestorePlan) -> Vec<String> {
    let mut words = Vec::new();
    if plan.target_revision.is_some() {
        words.push(format!(
            "revision {} → {}, everything before counts as compacted, so that every watch relists",
            edits.revision_before, edits.revision_after
        ));
    }
    if plan.for_talos {
        words.push(format!(
            "{} of Talos's own keys were dropped, with {} rows: its locks, of sessions that are gone",
            edits.keys_dropped, edits.rows_dropped
        ));
    }
    if !edits.alarms_cleared.is_empty() {
        words.push(format!("{} alarm(s) of the lost cluster were cleared", edits.alarms_cleared.len()));
    }
    if !edits.versions_dropped.is_empty() {
        words.push(format!("recorded versions were dropped: {}", edits.versions_dropped.join(", ")));
    }
    if leases_added > 0 {
        words.push(format!("{leases_added} lease(s) that keys refer to were missing and got {} s to live", plan.unknown_lease_ttl));
    }
    words
}
