//! What a cluster's agent does for its stores: it removes what the policy does not keep, and brings each what it lacks of the others.

use std::time::Duration;

use engine::lease::{Holder, Mode};
use engine::{Code, Failure, Outcome, copy, exclusion, prune, stores};
use jiff::Timestamp;
use tokio::time::timeout;

use super::Tended;

/// How long bringing the stores what they lack may take. Each object that went over stays.
const LEVEL_WITHIN: Duration = Duration::from_secs(30 * 60);
/// How long pruning may take.
const PRUNE_WITHIN: Duration = Duration::from_secs(30 * 60);

impl Tended {
    /// Looks after the stores when a backup was taken. A store that was away may lack no backup and yet a pin: it gets what was said before anything is
    /// removed there.
    pub(super) async fn tidy(&mut self) {
        if self.policy.stores.len() > 1 && !self.level().await {
            self.say("nothing is pruned before every store that answers has what the others have");
            self.shared.observed.of(self.name.as_str(), |known| known.last_prune = Some((Timestamp::now(), false)));
            return;
        }
        if timeout(PRUNE_WITHIN, self.prune()).await.is_err() {
            self.say("note: pruning was not done in time; it goes on after the next backup");
        }
    }

    /// Removes what the policy does not keep, on every store by itself. That the configuration says what is kept is the consent; without it nothing goes.
    async fn prune(&self) {
        let Some(cluster) = self.config.clusters.get(self.name.as_str()) else { return };
        if cluster.keep.is_none() && self.config.defaults.keep.is_none() {
            return;
        }
        let mut all_well = true;
        for (store, _) in &self.policy.stores {
            match self.pruned(store).await {
                Ok(report) => {
                    all_well &= report.plan.hold.is_none() && report.failure().is_none();
                    if let Some(hold) = &report.plan.hold {
                        self.say(&format!("nothing is pruned at '{store}': {hold}"));
                    }
                    let (told, removed) = (report.tombstones.len(), report.removed.len());
                    if told + removed > 0 {
                        self.say(&format!("pruned at '{store}': {removed} backups removed, {told} told that they are due"));
                    }
                    self.shared.observed.of(self.name.as_str(), |known| known.pruned += removed as u64);
                    if let Some(failure) = report.failure() {
                        self.say(&format!("pruning at '{store}' did not end well: {}", failure.what));
                    }
                }
                // Somebody else works there; the next time it is done.
                Err(failure) if failure.code == Code::LeaseHeld => {}
                Err(failure) => {
                    all_well = false;
                    self.say(&format!("nothing is pruned at '{store}': {}", failure.what));
                    self.shared.observed.of(self.name.as_str(), |known| known.count(&failure));
                }
            }
        }
        self.shared.observed.of(self.name.as_str(), |known| known.last_prune = Some((Timestamp::now(), all_well)));
    }

    /// Brings every store what it lacks of the others: backups, and what was said of them. What is not done in time, or fails, is done the next time.
    async fn level(&self) -> bool {
        let away = self.away();
        let mut places = stores::of_policy(&self.policy, &self.config.keys.trusted_signers, false);
        places.retain(|place| !away.contains(&place.name));
        let mut pairs = Vec::new();
        for from in &places {
            pairs.extend(places.iter().filter(|to| to.name != from.name).map(|to| (from.clone(), to.clone())));
        }
        let all = async {
            let mut all_well = true;
            for (from, to) in pairs {
                let name = to.name.clone();
                let cluster = Some(self.name.clone());
                let request = copy::Request { from, to, cluster, which: Vec::new(), allow_unsigned: false, dry_run: false };
                let failure = copy::run(request, self.teller()).await.map_or_else(Some, |report| report.failure());
                if let Some(failure) = failure {
                    all_well = false;
                    self.trouble_at(&name, &failure);
                }
            }
            all_well
        };
        timeout(LEVEL_WITHIN, all).await.unwrap_or_else(|_| {
            self.say("note: bringing the stores what they lack was not done in time; it goes on after the next backup");
            false
        })
    }

    /// The stores that do not answer.
    fn away(&self) -> Vec<String> {
        let all = self.shared.observed.all();
        let standing = all.get(self.name.as_str()).and_then(|known| known.standing.as_ref());
        let behind = standing.into_iter().flat_map(|standing| &standing.behind);
        behind.filter(|behind| behind.lacks.is_none()).map(|behind| behind.store.clone()).collect()
    }

    fn trouble_at(&self, store: &str, failure: &Failure) {
        self.say(&format!("store '{store}' was not brought what it lacks: {}", engine::stores::reason(failure)));
        self.shared.observed.of(self.name.as_str(), |known| known.count(failure));
    }

    async fn pruned(&self, store: &str) -> Outcome<prune::Report> {
        let store = self.config.stores.get(store).ok_or_else(|| Failure::failed("the store is no longer configured"))?;
        let request = prune::Request {
            place: self.config.place(store),
            cluster: Some(self.name.clone()),
            policy: prune::policy(&self.policy.keep)?,
            signing_key: self.config.keys.signing_file.clone(),
            state: exclusion::state_directory(),
            dry_run: false,
        };
        let prepared = prune::prepare(&request, Timestamp::now()).await?;
        if prepared.plan.is_empty() {
            return Ok(prune::Report::of_nothing(prepared.plan));
        }
        let holder = Holder::default();
        prune::execute(&prepared, &holder, Mode::Yield, self.teller().as_ref()).await
    }
}
