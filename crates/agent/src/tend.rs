//! One cluster's work: backups and verifications as its schedule says, one at a time.

mod keep;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use engine::config::{Config, Event, Policy};
use engine::lease::{self, Holder, Mode};
use engine::limits::GOODBYE_WITHIN;
use engine::progress::Progress;
use engine::status::{self, Standing, State};
use engine::{Code, Failure, Outcome, backup, drill, place, record, stores, verify};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Semaphore;
use tokio::sync::watch::Receiver;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use vault::mark::{Outcome as Ending, Statement};
use vault::name::ClusterName;
use vault::repository::Catalog;

use crate::Say;
use crate::hooked::Hooked;
use crate::maintain;
use crate::observed::{Attempt, Observed};
use crate::plan::{self, Job, Memory};
use crate::tell::tell_run;

/// The longest sleep: a machine that slept, or a clock that was set, is noticed after it.
const TICK: Duration = Duration::from_secs(5);
/// How often the repository is read where nothing is done: another machine may work on it too.
const READ_EVERY: Duration = Duration::from_secs(3_600);
/// How often it is asked whether it is still there.
const ASK_EVERY: Duration = Duration::from_secs(60);
/// How soon it is read again where it could not be read.
const READ_AGAIN: Duration = Duration::from_secs(60);
/// How long reading a repository may take.
const READ_WITHIN: Duration = Duration::from_secs(300);
/// How long somebody else who backs the cluster up is waited for before it is looked whether he did.
const WAIT_FOR_OTHERS: SignedDuration = SignedDuration::from_secs(60);
/// How long somebody else is given the time in all: he may hang.
const YIELD_AT_MOST: Duration = Duration::from_secs(3_600);
/// How long a backup may take in any case: one of 8 GiB takes minutes.
const BACKUP_MAY_TAKE: Duration = Duration::from_secs(3_600);
/// How long one piece of work may take.
const JOB_WITHIN: Duration = Duration::from_secs(12 * 3_600);
/// How long writing down what a run came to may take.
const RECORD_WITHIN: Duration = Duration::from_secs(60);
/// After which time a defragmentation that could not be begun is tried again, while its window is open.
const DEFRAG_AGAIN_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// What all clusters share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) observed: Arc<Observed>,
    /// So many clusters are worked on at once.
    pub(crate) turns: Arc<Semaphore>,
    /// Set when the agent ends: nothing new begins.
    pub(crate) stopping: Receiver<bool>,
    pub(crate) say: Say,
    /// A command that runs the command after it and ends it with this process; empty for none.
    pub(crate) tie: Vec<OsString>,
    /// Backups under way, by their clusters: what is owed where one is cut off.
    pub(crate) owed: Arc<Mutex<BTreeMap<String, Arc<Owed>>>>,
}

impl Shared {
    /// Held shortly: nothing waits meanwhile.
    pub(crate) fn owed(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Owed>>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a backup that was cut off owes: its last hooks, and its lease.
#[derive(Debug)]
pub(crate) struct Owed {
    hooked: Hooked,
    holder: Holder,
}

impl Owed {
    pub(crate) async fn say_goodbye(&self, progress: &dyn Progress) {
        let limit = GOODBYE_WITHIN + self.hooked.goodbye_within();
        let all = async {
            let _ = timeout(GOODBYE_WITHIN, self.holder.release()).await;
            self.hooked.goodbye(progress).await;
        };
        let _ = timeout(limit, all).await;
    }
}

/// Tells what a run tells, with the cluster's name before it.
pub(crate) struct Teller {
    pub(crate) cluster: String,
    pub(crate) say: Say,
}

impl Progress for Teller {
    fn say(&self, line: &str) {
        (self.say)(&format!("{}: {line}", self.cluster));
    }

    fn bytes(&self, _: &str, _: u64, _: Option<u64>) {}

    fn done(&self) {}
}

/// One cluster.
struct Tended {
    name: ClusterName,
    config: Arc<Config>,
    policy: Policy,
    shared: Shared,
    memory: Memory,
    /// When the repository was read last, and whether it could be.
    read: Option<(Instant, bool)>,
    /// The state that was told last.
    told: Option<State>,
    /// When this agent took a backup last.
    taken: Option<Timestamp>,
    /// Since when somebody else is given the time to take the backup.
    yielding: Option<Instant>,
    /// When it was asked last whether the repository is still there.
    asked: Option<Instant>,
    /// Whether the stores are to be looked after: a backup was taken.
    tidies: bool,
    /// The telling of a run that was begun last.
    telling: Option<JoinHandle<()>>,
}

/// Tends a cluster until it is no longer configured or the agent ends.
pub(crate) async fn tend(name: ClusterName, mut config: Receiver<Arc<Config>>, mut shared: Shared) {
    let now = Arc::clone(&config.borrow_and_update());
    let Some(policy) = now.clusters.get(name.as_str()).map(|cluster| now.policy(cluster)) else { return };
    let mut tended = Tended {
        name,
        config: now,
        policy,
        shared: shared.clone(),
        memory: Memory::default(),
        read: None,
        told: None,
        taken: None,
        yielding: None,
        asked: None,
        tidies: false,
        telling: None,
    };
    while !*shared.stopping.borrow() {
        let pause = tended.step().await;
        tokio::select! {
            () = sleep(pause) => {}
            _ = shared.stopping.changed() => {}
            changed = config.changed() => {
                let now = Arc::clone(&config.borrow_and_update());
                let policy = now.clusters.get(tended.name.as_str()).map(|cluster| now.policy(cluster));
                let (Ok(()), Some(policy)) = (changed, policy) else { return };
                // Another place holds another past.
                if policy.stores != tended.policy.stores {
                    (tended.memory, tended.taken, tended.told, tended.asked) = (Memory::default(), None, None, None);
                }
                (tended.config, tended.policy, tended.read) = (now, policy, None);
            }
        }
    }
}

impl Tended {
    /// Does what is due; the answer is how long there is nothing to do.
    async fn step(&mut self) -> Duration {
        let is_old = |(at, could): (Instant, bool)| at.elapsed() > if could { READ_EVERY } else { READ_AGAIN };
        if self.read.is_none_or(is_old) || !self.is_still_there().await {
            self.look().await;
        }
        let now = Timestamp::now();
        let next = plan::next(self.name.as_str(), &self.policy, &self.memory, now);
        let has_given_up = plan::has_given_up(self.name.as_str(), &self.policy, &self.memory, now);
        self.shared.observed.of(self.name.as_str(), |known| (known.next, known.has_given_up) = (next, has_given_up));
        self.judge_age(now);
        let Some((job, at)) = next else { return TICK };
        if at > now {
            return Duration::try_from(at.duration_since(now)).unwrap_or(TICK).min(TICK);
        }
        if job == Job::Backup && !self.is_still_due().await {
            return Duration::ZERO;
        }
        let turns = Arc::clone(&self.shared.turns);
        let mut stopping = self.shared.stopping.clone();
        let turn = tokio::select! {
            turn = turns.acquire_owned() => turn,
            _ = stopping.changed() => return Duration::ZERO,
        };
        // It is never closed; were it, everybody would have a turn.
        let turn = turn.ok();
        let limit = self.limit(job, now);
        let work = async {
            match job {
                Job::Backup => self.back_up().await,
                Job::Verify => self.verify().await,
                Job::Drill => self.drill().await,
                Job::Defrag => self.defrag().await,
            }
        };
        // Whatever hangs must not hold a turn for ever that others wait for.
        if timeout(limit, work).await.is_err() {
            self.gave_out(job, now, limit).await;
        }
        // It may take long, and is part of no run.
        drop(turn);
        if std::mem::take(&mut self.tidies) {
            self.tidy().await;
            self.look().await;
        }
        self.shared.observed.of(self.name.as_str(), |known| known.doing = None);
        Duration::ZERO
    }

    /// Whether the repository that was read is still there: asked more often than it is read, for a disk that is gone must not look well for an hour.
    async fn is_still_there(&mut self) -> bool {
        let is_known = self.read.is_some_and(|(_, could)| could) && self.memory.last_backup.is_some();
        if !is_known || self.asked.is_some_and(|asked| asked.elapsed() < ASK_EVERY) {
            return true;
        }
        self.asked = Some(Instant::now());
        let open = async {
            let options = self.config.readable_place(&self.policy).await?;
            place::open(&options).await.map(drop)
        };
        matches!(timeout(READ_WITHIN, open).await, Ok(Ok(())))
    }

    /// How long a piece of work may take: a backup not longer than until the one after it, but for an hour in any case.
    fn limit(&self, job: Job, now: Timestamp) -> Duration {
        let schedule = self.policy.schedule().ok().filter(|_| job == Job::Backup);
        schedule.map_or(JOB_WITHIN, |schedule| schedule.distance(now).clamp(BACKUP_MAY_TAKE, JOB_WITHIN))
    }

    /// A piece of work hung, and was dropped.
    async fn gave_out(&mut self, job: Job, began: Timestamp, limit: Duration) {
        let failure = Failure::failed(format!("{} was not done within {} min and was given up", job.word(), limit.as_secs() / 60));
        self.say(&failure.what);
        let now = Timestamp::now();
        match job {
            Job::Backup => {
                let window = self.policy.schedule().map(|schedule| self.policy.retry_window(&schedule, began)).unwrap_or_default();
                self.memory.failed(began, now, window);
                let attempt = Attempt { at: began, took: limit, code: failure.code, failure: Some(failure.what.clone()) };
                self.shared.observed.of(self.name.as_str(), |known| {
                    known.attempt = Some(attempt);
                    known.failed += 1;
                });
                self.say_goodbye().await;
                self.tell_run(Event::Failed, failure.what.clone());
                self.record(record::of(Err(&failure), now)).await;
            }
            Job::Verify => self.memory.last_verify = Some(now),
            Job::Drill => self.memory.last_drill = Some(now),
            Job::Defrag => self.memory.last_defrag = Some(now),
        }
    }

    fn say(&self, line: &str) {
        (self.shared.say)(&format!("{}: {line}", self.name));
    }

    /// Reads the repository: how the cluster stands, and what was done when.
    async fn look(&mut self) {
        let read = match timeout(READ_WITHIN, self.catalog()).await {
            Ok(read) => read,
            Err(_) => Err(Failure::new(Code::StoreUnreachable, "the repository could not be read in time")),
        };
        let now = Timestamp::now();
        // Where nothing was found it is looked again soon, too: a disk may be mounted.
        self.read = Some((Instant::now(), matches!(read, Ok(Some(_)))));
        let standing = match &read {
            Ok(Some((catalog, read))) => {
                // A store that can be read and not written to does not know what another one has got.
                self.memory.last_backup = status::last_moment(catalog, now).max(self.taken.filter(|taken| *taken <= now));
                let (verify, drill) = last_checks(catalog, now);
                self.memory.last_verify = plan::last_of(self.memory.last_verify, verify, now);
                self.memory.last_drill = plan::last_of(self.memory.last_drill, drill, now);
                let places = stores::of_policy(&self.policy, &self.config.keys.trusted_signers, false);
                Standing { behind: stores::behind(&places, read, catalog).await, ..status::judge(catalog, &self.policy, now) }
            }
            Ok(None) => Standing { next: Some(now), ..Standing::empty(self.name.clone()) },
            Err(failure) => {
                self.shared.observed.of(self.name.as_str(), |known| known.count(failure));
                Standing::unknown(self.name.clone(), failure)
            }
        };
        self.stand(standing);
    }

    /// Everything the repository says, and the URL of the store that says it; nothing where there is none yet.
    async fn catalog(&self) -> Outcome<Option<(Catalog, String)>> {
        // The first backup makes it.
        let none_yet = |failure: Failure| if failure.code == Code::NoRepository { Ok(None) } else { Err(failure) };
        let options = match self.config.readable_place(&self.policy).await {
            Ok(options) => options,
            Err(failure) => return none_yet(failure),
        };
        match place::open(&options).await {
            Ok(repository) => place::catalog(&repository, &options, &self.name).await.map(|catalog| Some((catalog, options.url))),
            Err(failure) => none_yet(failure),
        }
    }

    /// A backup grows old without anything being read.
    fn judge_age(&mut self, now: Timestamp) {
        let known = self.shared.observed.all().get(self.name.as_str()).and_then(|known| known.standing.clone());
        let Some(mut standing) = known else { return };
        let is_late = standing.late_at.is_some_and(|late| late < now);
        if is_late && matches!(standing.state, State::Protected | State::LastRunFailed) {
            standing.state = State::Stale;
            self.stand(standing);
        }
    }

    fn stand(&mut self, standing: Standing) {
        if self.told != Some(standing.state) {
            self.say(&format!("{}{}", standing.state, standing.warnings.first().map(|word| format!(" ({word})")).unwrap_or_default()));
            self.told = Some(standing.state);
        }
        self.shared.observed.of(self.name.as_str(), |known| known.stands(standing, Timestamp::now()));
    }

    fn begin(&self, job: Job, at: Timestamp) {
        self.shared.observed.of(self.name.as_str(), |known| known.doing = Some((job, at)));
    }

    fn teller(&self) -> Arc<dyn Progress> {
        Arc::new(Teller { cluster: self.name.to_string(), say: Arc::clone(&self.shared.say) })
    }

    /// Looks whether somebody else has taken the backup meanwhile, or is about to. It takes no turn: a store that hangs must not hold up the others. Asked before
    /// hooks are run and receivers told; who comes in between is found out by the lease.
    async fn is_still_due(&mut self) -> bool {
        let before = self.memory.last_backup;
        self.look().await;
        if self.memory.last_backup > before {
            self.yielding = None;
            return false;
        }
        let Some(who) = self.somebody().await else { return true };
        self.yield_to(&who, Timestamp::now());
        false
    }

    async fn back_up(&mut self) {
        let began = Timestamp::now();
        let yielding = self.yielding.take();
        let clock = Instant::now();
        self.begin(Job::Backup, began);
        self.tell_run(Event::Started, "a backup begins".to_owned());
        let outcome = self.backed_up().await;
        if let Err(failure) = &outcome
            && failure.code == Code::LeaseHeld
        {
            self.yielding = yielding;
            self.yield_to("somebody else took the lease", began);
            return;
        }
        let run = record::of(outcome.as_ref().map(|report| report.code), Timestamp::now());
        self.tell(&outcome, clock.elapsed());
        let attempt = Attempt {
            at: began,
            took: clock.elapsed(),
            code: outcome.as_ref().map_or_else(|failure| failure.code, |report| report.code),
            failure: run.detail.clone(),
        };
        self.shared.observed.of(self.name.as_str(), |known| {
            known.attempt = Some(attempt);
            match &outcome {
                Ok(report) => {
                    known.store_errors += report.stores.iter().filter(|store| store.why.is_some()).count() as u64;
                    match report.code {
                        Code::Unproven => known.failed += 1,
                        _ => known.succeeded += 1,
                    }
                }
                Err(failure) => {
                    known.failed += 1;
                    known.count(failure);
                }
            }
        });
        match &outcome {
            Ok(_) => {
                self.taken = Some(began);
                self.memory.succeeded(began);
            }
            Err(_) => {
                let window = self.policy.schedule().map(|schedule| self.policy.retry_window(&schedule, began)).unwrap_or_default();
                self.memory.failed(began, Timestamp::now(), window);
            }
        }
        self.record(run).await;
        self.look().await;
        self.tidies |= outcome.is_ok();
    }

    /// Somebody else is at it: soon it is looked whether he has taken the backup.
    fn yield_to(&mut self, who: &str, now: Timestamp) {
        self.yielding.get_or_insert_with(Instant::now);
        self.say(&format!("it waits: {who}"));
        self.memory.busy_until = now.checked_add(WAIT_FOR_OTHERS).ok();
    }

    /// Whether the lease is asked for, and not worked without. Whoever holds it and never gets done must not keep everybody else from it for ever.
    fn yields(&self) -> bool {
        let lease = self.config.clusters.get(self.name.as_str()).map(|cluster| self.config.lease(cluster));
        let is_patient = self.yielding.is_none_or(|since| since.elapsed() < YIELD_AT_MOST);
        lease == Some(Mode::Auto) && is_patient && !matches!(self.told, Some(State::Stale))
    }

    /// Who else works on the cluster now, in words, as far as the lease tells.
    async fn somebody(&self) -> Option<String> {
        if !self.yields() {
            return None;
        }
        let look = async {
            let options = self.config.readable_place(&self.policy).await.ok()?;
            let repository = place::open(&options).await.ok()?;
            lease::somebody(repository.store(), &self.name).await
        };
        timeout(RECORD_WITHIN, look).await.ok().flatten()
    }

    async fn backed_up(&self) -> Outcome<backup::Report> {
        let cluster = self.config.clusters.get(self.name.as_str()).ok_or_else(|| Failure::failed("the cluster is no longer configured"))?;
        let mut request = self.config.backup_request(&self.name, cluster, |variable| std::env::var_os(variable))?;
        if self.yields() {
            request.lease = Mode::Yield;
        }
        let owed = Arc::new(Owed {
            hooked: Hooked::new(self.policy.hooks.clone(), self.name.as_str(), &request.place.url),
            holder: Holder::default(),
        });
        self.shared.owed().insert(self.name.to_string(), Arc::clone(&owed));
        let outcome = owed.hooked.backup(request, &owed.holder, self.teller()).await;
        self.shared.owed().remove(self.name.as_str());
        outcome
    }

    /// Runs the hooks that a backup owes that was cut off, and gives its lease back.
    async fn say_goodbye(&self) {
        let owed = self.shared.owed().remove(self.name.as_str());
        if let Some(owed) = owed {
            owed.say_goodbye(self.teller().as_ref()).await;
        }
    }

    /// Tells who hears of runs, without waiting for them; one after the other, for a start that is heard after its end would be another one.
    fn tell_run(&mut self, event: Event, text: String) {
        let (config, say, name) = (Arc::clone(&self.config), Arc::clone(&self.shared.say), self.name.to_string());
        let title = format!("{name}: {}", text.lines().next().unwrap_or_default());
        let before = self.telling.take();
        self.telling = Some(tokio::spawn(async move {
            if let Some(before) = before {
                let _ = before.await;
            }
            tell_run(&config, &name, event, title, text, &say).await;
        }));
    }

    fn tell(&mut self, outcome: &Outcome<backup::Report>, took: Duration) {
        match outcome {
            Ok(report) => {
                for committed in &report.committed {
                    let manifest = &committed.manifest;
                    let proof = backup::verdict_word(manifest.hashkv.verdict);
                    let line =
                        format!("backup {} at revision {}, hashkv {proof}, in {:.1} s", manifest.id, manifest.revision, took.as_secs_f64());
                    self.say(&line);
                    self.tell_run(if report.code == Code::Unproven { Event::Failed } else { Event::Succeeded }, line);
                }
                report.warnings.iter().for_each(|warning| self.say(&format!("warning: {warning}")));
            }
            Err(failure) => {
                let cause = failure.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
                let line = format!("the backup failed: {}{cause}", failure.what);
                self.say(&line);
                self.tell_run(Event::Failed, line);
            }
        }
    }

    /// Writes down what a run came to, where that is news.
    async fn record(&self, run: vault::mark::Run) {
        let key = self.config.keys.signing_file.as_deref();
        let writing = async {
            let options = self.config.readable_place(&self.policy).await?;
            record::record(&options, &self.name, run, key).await
        };
        let written = timeout(RECORD_WITHIN, writing).await;
        match written {
            Ok(Ok(_)) => {}
            Ok(Err(failure)) => self.say(&format!("note: {}", failure.what)),
            Err(_) => self.say("note: what the run came to could not be written down in time"),
        }
    }

    async fn drill(&mut self) {
        let began = Timestamp::now();
        self.begin(Job::Drill, began);
        let Some(cluster) = self.config.clusters.get(self.name.as_str()) else { return };
        let outcome = match self.config.drill_request(&self.name, cluster, &self.shared.tie).await {
            Ok(request) => drill::run(request, self.teller()).await,
            Err(failure) => Err(failure),
        };
        let wait = match &outcome {
            Ok(report) if report.drilled.iter().any(|drilled| drilled.result == Ending::Inconclusive) => Some(plan::INCONCLUSIVE_WAIT),
            Ok(_) => None,
            Err(_) => Some(plan::CHECKS_WAIT),
        };
        self.done_or_later(Job::Drill, began, wait);
        match outcome.map(|report| report.failure()) {
            Ok(None) => self.say("drill: passed"),
            Ok(Some(failure)) | Err(failure) => {
                self.shared.observed.of(self.name.as_str(), |known| known.count(&failure));
                let cause = failure.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
                self.say(&format!("the drill did not pass: {}{cause}", failure.what));
            }
        }
        self.look().await;
    }

    async fn defrag(&mut self) {
        let began = Timestamp::now();
        self.begin(Job::Defrag, began);
        let Some(cluster) = self.config.clusters.get(self.name.as_str()) else { return };
        let Some(window) = &self.policy.defrag else { return };
        let until = Instant::now() + plan::window_left(window, began);
        let outcome = maintain::defragment(&self.config, &self.name, cluster, &self.policy, until, self.teller().as_ref()).await;
        match outcome {
            Ok(ran) => {
                self.memory.last_defrag = Some(began);
                for turn in &ran.turns {
                    self.say(&format!("defragmented {}: {} bytes, {} before", turn.label, turn.after, turn.before));
                }
                if let Some(failure) = &ran.stopped {
                    self.say(&failure.what);
                }
                self.shared.observed.of(self.name.as_str(), |known| {
                    known.defragmented += ran.turns.len() as u64;
                    known.last_defrag = Some((began, ran.stopped.is_none()));
                });
            }
            // Somebody else is at it, or a member is away: the window is still open for a while.
            Err(failure) => {
                self.memory.defrag_not_before = began.checked_add(DEFRAG_AGAIN_AFTER).ok();
                self.say(&format!("nobody is defragmented: {}", engine::stores::reason(&failure)));
                self.shared.observed.of(self.name.as_str(), |known| {
                    known.count(&failure);
                    known.last_defrag = Some((began, false));
                });
            }
        }
    }

    /// What was found out is found out: the next one is due by the schedule. What could not be done is tried again after `wait`.
    fn done_or_later(&mut self, job: Job, began: Timestamp, wait: Option<Duration>) {
        let not_before = wait.and_then(|wait| began.checked_add(SignedDuration::try_from(wait).ok()?).ok());
        let (last, later) = match job {
            Job::Verify => (&mut self.memory.last_verify, &mut self.memory.verify_not_before),
            Job::Drill => (&mut self.memory.last_drill, &mut self.memory.drill_not_before),
            Job::Backup | Job::Defrag => return,
        };
        *later = not_before;
        if wait.is_none() {
            *last = Some(began);
        }
    }

    async fn verify(&mut self) {
        let began = Timestamp::now();
        self.begin(Job::Verify, began);
        let Some(cluster) = self.config.clusters.get(self.name.as_str()) else { return };
        let outcome = match self.config.verify_request(&self.name, cluster).await {
            Ok(request) => verify::run(request, self.teller()).await,
            Err(failure) => Err(failure),
        };
        self.done_or_later(Job::Verify, began, outcome.is_err().then_some(plan::CHECKS_WAIT));
        match outcome.map(|report| report.failure()) {
            Ok(None) => self.say("verified: passed"),
            Ok(Some(failure)) | Err(failure) => {
                self.shared.observed.of(self.name.as_str(), |known| known.count(&failure));
                self.say(&format!("the verification did not pass: {}", failure.what));
            }
        }
        self.look().await;
    }
}

/// When a backup was verified last, and when one was drilled last, whatever came of it.
fn last_checks(catalog: &Catalog, now: Timestamp) -> (Option<Timestamp>, Option<Timestamp>) {
    let (mut verify, mut drill) = (None, None);
    for entry in catalog.marks.iter().filter(|entry| entry.counts) {
        match &entry.mark.statement {
            Statement::Verify(_, data) => verify = plan::last_of(verify, Some(data.at), now),
            // One that found nothing out is to be done again.
            Statement::Drill(_, data) if data.result != Ending::Inconclusive => drill = plan::last_of(drill, Some(data.at), now),
            _ => {}
        }
    }
    (verify, drill)
}
