//! Drills, one after the other, and what came of each written down.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_store::version::{Fit, Version, version_fit};
use jiff::Timestamp;
use vault::manifest::{Manifest, Rung};
use vault::mark::{Outcome as Ending, Statement};
use vault::repository::{Backup, Catalog};
use vault::seal::Identities;

use super::choose::{self, Chosen, Extent, Why};
use super::compare::{Check, Stated, compare, verdict};
use super::{Drilled, Report, Request, ask, count, identity};
use crate::failure::{Code, Failure, Outcome};
use crate::opening::{self, Opening};
use crate::place::{self, Which};
use crate::progress::Progress;
use crate::seal_pipeline::on_thread;
use crate::select;
use crate::try_etcd::{self, Binary, NotServed, Proof, Scratch};
use crate::verify::{self, How, Marks};

/// The name of the only member.
const MEMBER: &str = "lifeboat-drill";

/// Drills, and writes down what came of it.
///
/// Dropping the future ends etcd and removes what was restored.
///
/// # Errors
/// What keeps every drill from beginning: no repository, nothing to choose, an identity that cannot be read, none at all for a sealed backup.
pub async fn run(request: Request, progress: Arc<dyn Progress>) -> Outcome<Report> {
    let begun = Instant::now();
    let signing = request.signing_key.as_deref().map(place::signing_key).transpose()?;
    let loaded = select::load(&request.place, request.cluster.as_ref()).await?;
    let catalog = &loaded.catalog;
    let (chosen, extent, mut warnings) = choose(catalog, &request)?;
    let binary = try_etcd::find(request.etcd.as_deref(), &request.search).await;
    let mut drilled = Vec::new();
    if !request.dry_run {
        let opening = opening(&request).await?;
        let identities = Arc::new(opening.read()?);
        let backups = || chosen.iter().filter_map(|chosen| Some((chosen, catalog.backup(&chosen.id)?)));
        let sealed = backups().find(|(_, backup)| backup.manifest.layers.age);
        if let (Some((_, backup)), true) = (sealed, identities.is_empty()) {
            return Err(opening::nothing_given(&backup.manifest.sealing, backup.id(), "; a drill opens the backup"));
        }
        let mut marks = Marks::new(&loaded.repository, catalog, signing);
        let bench = Bench { request: &request, loaded: &loaded, opening, identities, binary: binary.as_ref(), progress: &progress };
        let mut done: Vec<(u64, Duration)> = Vec::new();
        for (chosen, backup) in backups() {
            if !choose::fits(&done, begun.elapsed(), extent, chosen.bytes) {
                break;
            }
            let since = Instant::now();
            let mut outcome = bench.drill(*chosen, backup).await;
            let now = Timestamp::now();
            outcome.recorded = marks.write(Statement::Drill(chosen.id, outcome.mark(now)), now).await;
            done.push((chosen.bytes, since.elapsed()));
            drilled.push(outcome);
        }
        warnings.extend(marks.warning());
    }
    let etcd = binary.map(|binary| (binary.path, binary.version.to_string())).map_err(|failure| words(&failure));
    let cluster = catalog.cluster.clone();
    let (repository, place, dry_run) = (request.place.url.clone(), request.place, request.dry_run);
    Ok(Report { repository, cluster, etcd, chosen, drilled, dry_run, warnings, place })
}

fn choose(catalog: &Catalog, request: &Request) -> Outcome<(Vec<Chosen>, Extent, Vec<String>)> {
    let mut warnings = Vec::new();
    let all = request.budget.map_or(Extent::All, Extent::Within);
    if !request.which.is_empty() {
        let mut chosen: Vec<Chosen> = Vec::new();
        for text in &request.which {
            let found = select::find(catalog, &Which::Named(text.clone()), &request.place)
                .map_err(|failure| verify::lost(catalog, text, &request.place).unwrap_or(failure))?;
            warnings.extend(select::reach_words(&found));
            warnings.extend(select::usable(found.backup, &request.place)?);
            let one = Chosen { id: found.backup.id(), why: Why::Named, bytes: found.backup.manifest.snapshot.db_size };
            if !chosen.iter().any(|other| other.id == one.id) {
                chosen.push(one);
            }
        }
        return Ok((chosen, all, warnings));
    }
    if request.all {
        let (taken, left): (Vec<&Backup>, Vec<&Backup>) =
            catalog.backups.iter().partition(|backup| backup.counts || request.place.allow_unsigned);
        if !left.is_empty() {
            warnings.push(format!("{} backups are left out: not signed by a trusted signer", left.len()));
        }
        if !taken.is_empty() {
            return Ok((choose::order(&choose::candidates(catalog, &taken)), all, warnings));
        }
    }
    let _there_is_one = select::find(catalog, &Which::Named("latest".to_owned()), &request.place)?;
    let extent = request.budget.map_or(Extent::One, Extent::Within);
    let mut chosen = choose::order(&choose::candidates(catalog, &catalog.eligible()));
    if extent == Extent::One {
        chosen.truncate(1);
    }
    Ok((chosen, extent, warnings))
}

/// What opens the backups: what was given, and what the command prints.
pub(super) async fn opening(request: &Request) -> Outcome<Opening> {
    let mut opening = request.opening.clone();
    if !request.identity_command.is_empty() {
        opening.in_memory.push(identity::from_command(&request.identity_command).await?);
    }
    Ok(opening)
}

/// What and why, in one line.
pub(super) fn words(failure: &Failure) -> String {
    match &failure.cause {
        Some(cause) => format!("{}: {cause}", failure.what),
        None => failure.what.clone(),
    }
}

/// Why a drill does not get to its end.
struct Stop {
    result: Ending,
    failure: Failure,
}

impl Stop {
    fn failed(failure: Failure) -> Self {
        Self { result: Ending::Failed, failure }
    }

    fn hindered(failure: Failure) -> Self {
        Self { result: Ending::Inconclusive, failure }
    }
}

impl From<Failure> for Stop {
    /// Only what was found out about the backup itself fails it.
    fn from(failure: Failure) -> Self {
        if failure.code == Code::Unproven { Self::failed(failure) } else { Self::hindered(failure) }
    }
}

impl From<NotServed> for Stop {
    fn from(not_served: NotServed) -> Self {
        match not_served {
            NotServed::Refused(failure) => Self::failed(failure),
            NotServed::Hindered(failure) => Self::hindered(failure),
        }
    }
}

/// What all drills of one run share.
struct Bench<'a> {
    request: &'a Request,
    loaded: &'a select::Found,
    opening: Opening,
    identities: Arc<Identities>,
    binary: Result<&'a Binary, &'a Failure>,
    progress: &'a Arc<dyn Progress>,
}

impl Bench<'_> {
    async fn drill(&self, chosen: Chosen, backup: &Backup) -> Drilled {
        let manifest = &backup.manifest;
        self.progress.say(&format!(
            "drill: {} of '{}', taken {:.0}, revision {}: {}",
            chosen.id,
            manifest.cluster,
            manifest.moment(),
            manifest.revision,
            chosen.why.words()
        ));
        let mut drilled = Drilled {
            chosen,
            taken: manifest.moment(),
            revision: manifest.revision,
            keys: manifest.counts.live_keys,
            result: Ending::Inconclusive,
            detail: None,
            hindrance: None,
            etcd: None,
            restored_in: None,
            served_in: None,
            checks: Vec::new(),
            notes: Vec::new(),
            recorded: false,
        };
        match self.attempt(backup, &mut drilled).await {
            Ok(()) => {
                drilled.result = verdict(&drilled.checks);
                let speaks = |check: &&Check| check.result == drilled.result && check.result != Ending::Passed;
                drilled.detail = drilled.checks.iter().find(speaks).map(|check| format!("{}: {}", check.what, check.words));
            }
            Err(Stop { result, failure }) => {
                (drilled.result, drilled.detail) = (result, Some(words(&failure)));
                drilled.hindrance = (result == Ending::Inconclusive).then_some(failure);
            }
        }
        drilled
    }

    async fn attempt(&self, backup: &Backup, drilled: &mut Drilled) -> Result<(), Stop> {
        let binary = self.binary.map_err(|failure| Stop::hindered(failure.clone()))?;
        fits(&backup.manifest, binary).map_err(Stop::hindered)?;
        self.check(backup, drilled).await?;
        let begun = Instant::now();
        let laid = try_etcd::lay(self.scratch(backup), binary.clone(), self.progress).await?;
        drilled.restored_in = Some(begun.elapsed());
        // Before etcd has it open. Not a part of recovering.
        let database: PathBuf = laid.database();
        let counted = on_thread("count", move || count::count(&database)).await?;
        if counted.many {
            drilled
                .notes
                .push(format!("the keys have more than {} prefixes, so only the whole was counted", crate::limits::DRILL_PREFIXES));
        }
        let stated = Stated::new(&backup.manifest, counted, MEMBER);
        let scratch = laid.boot(self.progress.as_ref()).await?;
        (drilled.etcd, drilled.served_in) = (Some(scratch.binary.version.to_string()), Some(scratch.served_after));
        let compared = self.compare(&scratch, &stated, backup.manifest.snapshot.db_size).await;
        // Whatever came of it, it goes. That it could not go says nothing of the backup.
        if let Err(failure) = scratch.stop() {
            drilled.notes.push(words(&failure));
        }
        drilled.checks = compared?;
        Ok(())
    }

    /// The deep check: every stored byte, and everything the manifest claims.
    async fn check(&self, backup: &Backup, drilled: &mut Drilled) -> Result<(), Stop> {
        let how = How {
            rung: Rung::Deep,
            identities: Arc::clone(&self.identities),
            spool: self.request.spool.clone(),
            allow_unsigned: self.request.place.allow_unsigned,
        };
        let checked = verify::check(&self.loaded.repository, &self.loaded.catalog, backup, &how, self.progress).await?;
        drilled.notes.extend(checked.notes);
        if let Some(first) = checked.findings.first() {
            return Err(Stop::failed(Failure::new(Code::Unproven, "the backup is damaged").object(first.place()).cause(first)));
        }
        if checked.locked {
            return Err(Stop::hindered(opening::not_opened(&backup.manifest.sealing, backup.id(), "")));
        }
        Ok(())
    }

    fn scratch(&self, backup: &Backup) -> try_etcd::Request {
        let request = self.request;
        try_etcd::Request {
            place: request.place.clone(),
            cluster: Some(backup.manifest.cluster.clone()),
            which: Which::Named(backup.id().to_string()),
            opening: self.opening.clone(),
            etcd: request.etcd.clone(),
            search: request.search.clone(),
            base: request.directory.clone(),
            base_named: request.directory_named,
            name: MEMBER.to_owned(),
            credentials: request.credentials.clone(),
            tie: request.tie.clone(),
        }
    }

    async fn compare(&self, scratch: &Scratch, stated: &Stated, bytes: u64) -> Result<Vec<Check>, Stop> {
        let proof = match &scratch.proof {
            Proof::Match(words) => Check::new("hashkv", Ending::Passed, words),
            Proof::Inconclusive(words) => Check::new("hashkv", Ending::Inconclusive, words),
        };
        let mut checks = vec![proof];
        if scratch.open {
            let answered = ask::ask(&scratch.endpoint, self.request.credentials.clone(), stated, &self.request.canaries, bytes).await;
            checks.extend(compare(stated, &answered.map_err(Stop::hindered)?));
        }
        Ok(checks)
    }
}

/// An etcd older than the data proves nothing of the etcd that would run them: the data would have to be changed for it.
pub(super) fn fits(manifest: &Manifest, binary: &Binary) -> Outcome<()> {
    let versions = [&manifest.versions.storage, &manifest.versions.cluster];
    let data = versions.into_iter().flatten().filter_map(|text| text.parse::<Version>().ok()).max();
    match version_fit(data, binary.version) {
        Fit::Ok => Ok(()),
        Fit::Refuse(misfit) => Err(Failure::failed("this etcd cannot run the backup").object(binary.path.display()).cause(misfit).again()),
        Fit::DropVersions => Err(Failure::failed("this etcd is older than the backup's data")
            .object(binary.path.display())
            .cause(format!(
                "it is etcd {}, the data are of {}; name one that is not older with --etcd",
                binary.version,
                data.map_or_else(String::new, |data| data.to_string())
            ))
            .again()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An agent runs it beside other work.
    #[test]
    fn it_may_run_on_any_thread() {
        fn any_thread<F: Future + Send>(_: impl Fn(Request, Arc<dyn Progress>) -> F) {}
        any_thread(run);
        any_thread(super::super::rehearse::rehearse);
    }

    #[test]
    fn only_what_was_found_out_about_the_backup_fails_it() {
        let result = |failure: Failure| Stop::from(failure).result;
        assert_eq!(result(Failure::new(Code::Unproven, "damaged")), Ending::Failed);
        for code in [Code::Failed, Code::Usage, Code::NoKey, Code::StoreUnreachable, Code::SourceUnreachable] {
            assert_eq!(result(Failure::new(code, "in the way")), Ending::Inconclusive, "{code:?}");
        }
        assert_eq!(Stop::from(NotServed::Refused(Failure::failed("it ended"))).result, Ending::Failed);
        assert_eq!(Stop::from(NotServed::Hindered(Failure::failed("no port"))).result, Ending::Inconclusive);
    }
}
