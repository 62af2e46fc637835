//! What the repository says before members are rewritten: how young the newest backup is, and whether another host backs the cluster up now.

use engine::lease::{DEFRAG, Holder, Mode};
use engine::limits::{BACKUP_BEFORE_DEFRAG, REPOSITORY_ANSWERS_WITHIN};
use engine::place::{self, PlaceOptions};
use engine::progress::Progress;
use engine::{Code, Failure, Outcome};
use jiff::Timestamp;
use vault::name::ClusterName;

use crate::args::{GlobalArgs, RepositoryArgs};
use crate::resolve::Resolved;
use crate::signals;

/// The repository of a cluster, where there is one.
pub(super) struct Repository {
    known: Option<(PlaceOptions, ClusterName)>,
    /// How young the newest backup is, in words, with the command that takes one where it is old.
    pub(super) backup: String,
}

impl Repository {
    /// Looks it up: the one named, else the configured one. That it cannot be read is said, and hinders nobody.
    pub(super) fn of(global: &GlobalArgs, cluster: Option<&str>, repo: Option<&str>) -> Self {
        let named = RepositoryArgs { repo: repo.map(str::to_owned), cluster: cluster.map(str::to_owned), ..RepositoryArgs::default() };
        let resolved = Resolved::new(global, cluster, true).and_then(|resolved| Ok((resolved.place(&named)?, resolved.cluster)));
        let Ok((options, name)) = resolved else {
            let backup = "no repository is named (--repo or lifeboat.yaml), so it is not known whether there is a young backup".to_owned();
            return Self { known: None, backup };
        };
        match signals::run(within(newest(&options, name))) {
            Ok((name, newest)) => Self { backup: words(&name, newest, Timestamp::now()), known: Some((options, name)) },
            Err(failure) => {
                let cause = failure.cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
                Self { known: None, backup: format!("it is not known whether there is a young backup: {}{cause}", failure.what) }
            }
        }
    }

    /// Whether there is one that can be read.
    pub(super) fn is_known(&self) -> bool {
        self.known.is_some()
    }

    /// Takes the lease of the cluster, so that no other host begins a backup meanwhile.
    ///
    /// # Errors
    /// Somebody else has it.
    pub(super) async fn keep_others_away(&self, holder: &Holder, yes: bool, progress: &dyn Progress) -> Outcome<()> {
        let why = match &self.known {
            None => "no repository can be read, whose lease would tell".to_owned(),
            Some((options, name)) => {
                let repository = within(place::open(options)).await?;
                match holder.take(repository.store(), name, DEFRAG, Mode::Auto).await? {
                    None => return Ok(()),
                    Some(word) => word,
                }
            }
        };
        if yes || self.known.is_none() {
            progress.say(&format!("note: backups of other hosts are not seen: {why}"));
            return Ok(());
        }
        Err(Failure::usage("whether another host backs this cluster up cannot be known").cause(why).again_with(["--yes"]))
    }
}

async fn newest(options: &PlaceOptions, name: Option<ClusterName>) -> Outcome<(ClusterName, Option<Timestamp>)> {
    let repository = place::open(options).await?;
    let name = place::cluster(&repository, options, name.as_ref()).await?;
    let catalog = place::catalog(&repository, options, &name).await?;
    let newest = catalog.backups.iter().map(|backup| backup.manifest.moment()).max();
    Ok((name, newest))
}

async fn within<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    match tokio::time::timeout(REPOSITORY_ANSWERS_WITHIN, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::new(Code::StoreUnreachable, "the store does not answer")
            .cause(format!("waited {} s", REPOSITORY_ANSWERS_WITHIN.as_secs()))
            .again()),
    }
}

fn words(name: &ClusterName, newest: Option<Timestamp>, now: Timestamp) -> String {
    let Some(newest) = newest else { return format!("there is no backup of '{name}' yet; take one first: lifeboat backup") };
    let age = now.duration_since(newest);
    let minutes = age.as_mins().max(0);
    if age <= BACKUP_BEFORE_DEFRAG {
        return format!("the newest backup of '{name}' is {minutes} min old");
    }
    let old = if minutes < 48 * 60 { format!("{} h", minutes / 60) } else { format!("{} days", minutes / (24 * 60)) };
    format!("no backup of '{name}' is younger than an hour, the newest is {old} old; take one first: lifeboat backup")
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn a_backup_is_offered_where_none_is_young() {
        let name: ClusterName = "prod".parse().unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let said = |minutes: i64| words(&name, Some(now - SignedDuration::from_mins(minutes)), now);
        assert_eq!(said(59), "the newest backup of 'prod' is 59 min old");
        assert_eq!(said(-5), "the newest backup of 'prod' is 0 min old", "a clock that is ahead");
        assert!(said(61).contains("the newest is 1 h old; take one first: lifeboat backup"), "{}", said(61));
        assert!(said(60 * 24 * 3).contains("3 days old"));
        assert!(words(&name, None, now).contains("no backup of 'prod' yet"));
    }
}
