//! A backup that holds much less than the one before it: a mass deletion, perhaps, whose good predecessor must not age out.

use jiff::Timestamp;
use vault::manifest::Manifest;
use vault::mark::{Pin, Statement};
use vault::repository::Catalog;
use vault::repository::catalog::Backup;

use super::commit::Context;
use super::run::Remark;
use crate::label::Scribe;

/// The good backup against which the content is held: the newest of the same lineage, else the newest of the cluster.
fn predecessor<'a>(catalog: &'a Catalog, manifest: &Manifest) -> Option<&'a Backup> {
    let good = || catalog.backups.iter().rev().filter(|backup| backup.id() < manifest.id && backup.not_latest().is_none());
    good().find(|backup| backup.manifest.lineage == manifest.lineage).or_else(|| good().next())
}

/// Whether more than `share` of the keys are gone. Pure.
pub(crate) fn shrank(before: u64, now: u64, share: f64) -> bool {
    // Counts of keys are far below 2^52, where a float begins to lose whole numbers.
    now < before && (before - now) as f64 > before as f64 * share
}

/// Pins what was there before content was lost, and says so. Pinned again where it is pinned already: another store may not know of that pin.
pub(super) async fn pin_predecessor(context: &Context<'_>, manifest: &Manifest, remarks: &mut Vec<Remark>) {
    let Some(share) = context.request.content_shrinks_by else { return };
    let Some(before) = predecessor(&context.catalog, manifest) else { return };
    let (old, new) = (before.manifest.counts.live_keys, manifest.counts.live_keys);
    if !shrank(old, new, share) {
        return;
    }
    let what = format!("content shrank from {old} to {new} keys from backup {} to {}", before.id(), manifest.id);
    // Others may have written marks since the catalog was read; a pin names none of them.
    let newest = context.catalog.newest_mark();
    let mut scribe = Scribe::new(context.repository, &context.cluster, context.keys.signing.as_ref(), newest);
    let pin = Statement::Pin(before.id(), Pin { reason: Some(what.clone()) });
    remarks.push(match scribe.write(pin, Timestamp::now()).await {
        Ok(_) => Remark::note(format!(
            "{what}; {} is pinned, so that retention does not remove it, until 'lifeboat unpin {}'",
            before.id(),
            before.id().suffix()
        )),
        Err(error) => Remark::note(format!("{what}, and {} could not be pinned: {error}", before.id())),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_share_must_be_gone() {
        for (before, now, share, expected) in [
            (1_000, 699, 0.3, true),
            (1_000, 700, 0.3, false),
            (1_000, 2_000, 0.3, false),
            (1_000, 999, 0.0, true),
            (1_000, 1_000, 0.0, false),
            (0, 0, 0.3, false),
            (10, 0, 0.3, true),
        ] {
            assert_eq!(shrank(before, now, share), expected, "{before} {now} {share}");
        }
    }
}
