//! Removing what the policy does not keep (design part 4, "Deleting").
//!
//! What is due is worked out by [`vault::retention`]. Here it becomes a [`Plan`], and the plan is carried out so that no single mistake loses a backup:
//!
//! - A backup goes in two runs at least [`PRUNE_GRACE`] apart. The first writes a tombstone; the second, where the policy still finds it due and the
//!   tombstone is the pruner's own ([`Pruner`]), removes it. A tombstone of somebody else, or one from before a pin was taken off, starts no grace.
//! - Right before each removal everything that could speak against it is looked at again: a pin, a tag, a new history. Whatever is new has the catalog
//!   read and the plan made anew.
//! - The manifest goes first: from then on the backup is not listed. Then its signature, then the data. A run that ends anywhere leaves listed backups
//!   that are whole, and data without a manifest, which a later run removes.
//! - Ages go by ids and marks, never by what a store says of an object's time; and none is applied while the clock cannot be believed.
//!
//! A lease keeps two pruners from double work; nothing is correct because of it. `.tmp-` files that a killed upload left in a `file://` store are no
//! objects, so they are not seen here.

mod execute;
mod plan;
mod pruner;
mod superseded;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use vault::key;
use vault::name::ClusterName;
use vault::repository::{Catalog, Repository};
use vault::retention::Policy;
use vault::sign::SigningKey;

use crate::config::{Keep, bytes, span};
use crate::failure::{Failure, Outcome};
use crate::place::{self, PlaceOptions};
use crate::select;

pub use crate::limits::PRUNE_GRACE;
pub use execute::{Refused, Removed, Report, execute};
pub use plan::{Plan, Stray, Target, plan};
pub use pruner::Pruner;

/// A pruning as it was asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The repository.
    pub place: PlaceOptions,
    /// The cluster; the only one there, where it is not given.
    pub cluster: Option<ClusterName>,
    /// What is kept.
    pub policy: Policy,
    /// The minisign secret key that signs the tombstones.
    pub signing_key: Option<std::path::PathBuf>,
    /// Where this host keeps the id by which it knows its own tombstones.
    pub state: Option<std::path::PathBuf>,
    /// Nothing will be carried out: neither a key nor an id is needed.
    pub dry_run: bool,
}

/// Everything a pruning needs, found out and planned; nothing is changed yet.
#[derive(Debug)]
pub struct Prepared {
    /// How the repository is reached.
    pub place: PlaceOptions,
    /// The repository.
    pub repository: Repository,
    /// What was read.
    pub catalog: Catalog,
    /// Who prunes.
    pub pruner: Pruner,
    /// What is to be done.
    pub plan: Plan,
}

/// The policy that a `keep` section says.
///
/// # Errors
/// A usage failure for one that keeps nothing, and for what cannot be read.
pub fn policy(keep: &Keep) -> Outcome<Policy> {
    if keep.is_empty() {
        return Err(Failure::usage("the policy has no rule that keeps anything, so nothing was done")
            .cause("an empty policy would remove every backup; name at least one of last, hourly, daily, weekly, monthly, yearly, within and tags")
            .again_with(["--keep-within", "30d"]));
    }
    let tag = |text: &String| text.parse().map_err(|error| Failure::usage(format!("'{text}' is not a tag: {error}")).again());
    Ok(Policy {
        last: keep.last.unwrap_or(0),
        hourly: keep.hourly.unwrap_or(0),
        daily: keep.daily.unwrap_or(0),
        weekly: keep.weekly.unwrap_or(0),
        monthly: keep.monthly.unwrap_or(0),
        yearly: keep.yearly.unwrap_or(0),
        within: keep.within.as_deref().map(span).transpose()?,
        tags: keep.tags.iter().map(tag).collect::<Outcome<_>>()?,
        max_bytes: keep.max_bytes.as_deref().map(bytes).transpose()?,
    })
}

/// Reads the repository and makes the plan.
///
/// # Errors
/// What opening and reading a repository give; a usage failure where trusted signers are configured and no key of theirs is given, unless nothing is to be
/// carried out.
pub async fn prepare(request: &Request, now: Timestamp) -> Outcome<Prepared> {
    let signing: Option<SigningKey> = request.signing_key.as_deref().map(place::signing_key).transpose()?;
    let found = select::load(&request.place, request.cluster.as_ref()).await?;
    let pruner = Pruner::new(found.repository.signers(), signing, request.state.as_deref(), request.dry_run)?;
    let mut plan = plan(&found.catalog, &request.policy, &pruner, now)?;
    if plan.hold.is_none() {
        let left = found.repository.store().unfinished(&key::snapshots_prefix(&plan.cluster)).await;
        let left = left.map_err(|error| place::failure(&request.place, "the repository cannot be listed", &error.into()))?;
        plan.unfinished = plan::abandoned(left, &plan.cluster, now);
    }
    Ok(Prepared { place: request.place.clone(), repository: found.repository, catalog: found.catalog, pruner, plan })
}
