//! The agent as a whole: every cluster of the configuration is tended and watched, until a signal ends it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use engine::config::{self, Config};
use engine::limits::GOODBYE_WITHIN;
use engine::{Failure, Outcome};
use futures::future::join_all;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};
use vault::name::ClusterName;

use crate::observed::Observed;
use crate::tend::{Shared, Teller, tend};
use crate::{Say, serve, tell, watch as members};

/// How many clusters are worked on at once where nothing says otherwise.
const PARALLEL: usize = 2;
/// How often the service manager is told that all is well, where it does not ask for it.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// What the agent runs on.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration's file, read anew on SIGHUP.
    pub path: PathBuf,
    /// What it said at the start.
    pub config: Config,
    /// A command that runs the command after it and ends it with this process, for drills; empty for none.
    pub tie: Vec<std::ffi::OsString>,
}

/// The signals that mean something to it.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

/// The two sides of one cluster.
struct Pair {
    tended: JoinHandle<()>,
    watched: JoinHandle<()>,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// A usage failure for a configuration without clusters; where the address cannot be listened at. Nothing later: a cluster that fails is told of, and
/// tried again.
pub async fn run(options: Options, say: Say) -> Outcome<()> {
    if options.config.clusters.is_empty() {
        return Err(Failure::usage("the configuration names no cluster").object(options.path.display()).next(["lifeboat", "init"]));
    }
    let mut signals = Signals::listen()?;
    let observed = Arc::new(Observed::default());
    let own = options.config.agent.clone().unwrap_or_default();
    let listener = match own.address()? {
        Some(address) => Some(serve::listen(address).await?),
        None => None,
    };
    let served = listener.map(|listener| {
        let where_to = listener.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string());
        say(&format!("metrics and status: http://{where_to}/metrics, /status, /readyz, /healthz"));
        tokio::spawn(serve::serve(listener, Arc::clone(&observed)))
    });
    let (stop, stopping) = watch::channel(false);
    let (change, changes) = watch::channel(Arc::new(options.config.clone()));
    let parallel = own.parallel.unwrap_or(PARALLEL);
    let shared = Shared {
        observed,
        turns: Arc::new(Semaphore::new(parallel)),
        stopping,
        say: Arc::clone(&say),
        tie: options.tie.clone(),
        owed: Arc::default(),
    };
    let telling = tokio::spawn(tell::tell(Arc::clone(&shared.observed), changes.clone(), Arc::clone(&say)));
    let mut pairs = BTreeMap::new();
    begin_new(&mut pairs, &options.config, &changes, &shared);
    say(&format!("agent: {} clusters, {parallel} at once", pairs.len()));
    tell_manager(&[NotifyState::Ready]);
    let mut heart = interval(sd_notify::watchdog_enabled().map_or(HEARTBEAT, |limit| limit / 3));
    loop {
        tokio::select! {
            _ = heart.tick() => {
                tell_manager(&[NotifyState::Watchdog]);
                let config = Arc::clone(&change.borrow());
                begin_new(&mut pairs, &config, &changes, &shared);
                // Without them nobody would hear that something is wrong: the service manager begins anew.
                if telling.is_finished() || served.as_ref().is_some_and(JoinHandle::is_finished) {
                    return Err(Failure::failed("a part of the agent ended unexpectedly; this is a bug in Lifeboat"));
                }
            }
            _ = signals.hang_up.recv() => reload(&options, &change, &changes, &mut pairs, &shared),
            _ = signals.interrupt.recv() => break,
            _ = signals.terminate.recv() => break,
        }
    }
    tell_manager(&[NotifyState::Stopping]);
    let limit = change.borrow().agent.clone().unwrap_or_default().stop_within();
    stop.send_replace(true);
    end(pairs, limit, &mut signals, &say).await;
    let owed = std::mem::take(&mut *shared.owed());
    join_all(owed.into_iter().map(|(cluster, owed)| {
        let teller = Teller { cluster, say: Arc::clone(&say) };
        async move { owed.say_goodbye(&teller).await }
    }))
    .await;
    telling.abort();
    if let Some(served) = served {
        served.abort();
    }
    say("agent: ended");
    Ok(())
}

impl Signals {
    fn listen() -> Outcome<Self> {
        let on = |kind| signal(kind).map_err(|error| Failure::failed(format!("signals cannot be listened to: {error}")));
        Ok(Self { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())?, hang_up: on(SignalKind::hangup())? })
    }
}

/// Without a service manager nobody hears it, which is no error.
fn tell_manager(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}

/// Begins with every cluster that is not tended: the new ones, and those whose task ended although nobody told it to.
fn begin_new(pairs: &mut BTreeMap<String, Pair>, config: &Config, changes: &watch::Receiver<Arc<Config>>, shared: &Shared) {
    for name in config.clusters.keys() {
        shared.observed.begin(name);
        // One that was taken out and put in again while it worked goes on: two at once would not know of each other.
        if pairs.get(name).is_some_and(|pair| !pair.tended.is_finished() && !pair.watched.is_finished()) {
            continue;
        }
        if let Some(ended) = pairs.remove(name) {
            if !ended.tended.is_finished() {
                let watched = tokio::spawn(members::watch(name.clone(), changes.clone(), Arc::clone(&shared.observed)));
                pairs.insert(name.clone(), Pair { watched, ..ended });
                continue;
            }
            ended.watched.abort();
            (shared.say)(&format!(
                "{name}: its task ended and begins anew; unless it was just taken out of the configuration this is a bug in Lifeboat"
            ));
            shared.observed.of(name, |known| known.doing = None);
        }
        // A configuration that was checked has no other names.
        let Ok(cluster) = name.parse::<ClusterName>() else { continue };
        let tended = tokio::spawn(tend(cluster, changes.clone(), shared.clone()));
        let watched = tokio::spawn(members::watch(name.clone(), changes.clone(), Arc::clone(&shared.observed)));
        pairs.insert(name.clone(), Pair { tended, watched });
    }
}

/// Reads the configuration again. One that is not sound changes nothing.
fn reload(
    options: &Options,
    change: &watch::Sender<Arc<Config>>,
    changes: &watch::Receiver<Arc<Config>>,
    pairs: &mut BTreeMap<String, Pair>,
    shared: &Shared,
) {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell_manager(&[NotifyState::Reloading, now]);
    }
    match config::load(&options.path) {
        Ok(config) if config.clusters.is_empty() => (shared.say)("the new configuration names no cluster; the old one stays in force"),
        Ok(config) => {
            let gone: Vec<String> = pairs.keys().filter(|name| !config.clusters.contains_key(*name)).cloned().collect();
            change.send_replace(Arc::new(config.clone()));
            for name in gone {
                // What is under way is finished, and then the pair ends by itself. Until then it is remembered.
                if pairs.get(&name).is_some_and(|pair| pair.tended.is_finished()) {
                    pairs.remove(&name);
                }
                shared.observed.forget(&name);
                (shared.say)(&format!("{name}: no longer configured"));
            }
            begin_new(pairs, &config, changes, shared);
            (shared.say)(&format!("agent: the configuration was read again; {} clusters", config.clusters.len()));
        }
        Err(failure) => {
            let cause = failure.cause.map(|cause| format!(": {cause}")).unwrap_or_default();
            (shared.say)(&format!("the new configuration is not sound{cause}; the old one stays in force"));
        }
    }
    tell_manager(&[NotifyState::Ready]);
}

/// Waits for work under way; a second signal, or the limit, cuts it off, which leaves nothing half-done listed.
async fn end(pairs: BTreeMap<String, Pair>, limit: Duration, signals: &mut Signals, say: &Say) {
    let busy = pairs.values().filter(|pair| !pair.tended.is_finished()).count();
    let mut tended = Vec::new();
    for (_, pair) in pairs {
        pair.watched.abort();
        tended.push(pair.tended);
    }
    let aborts: Vec<_> = tended.iter().map(JoinHandle::abort_handle).collect();
    if busy > 0 {
        say(&format!("agent: ending; work under way has {} s", limit.as_secs()));
    }
    let mut all = join_all(tended);
    let finished = tokio::select! {
        finished = timeout(limit, &mut all) => finished.is_ok(),
        _ = signals.interrupt.recv() => false,
        _ = signals.terminate.recv() => false,
    };
    if !finished {
        say("agent: work under way was cut off; nothing half-done counts");
        aborts.iter().for_each(tokio::task::AbortHandle::abort);
        // What they hold (the files of a drill, processes, sockets) is let go of when they are dropped.
        let _ = timeout(GOODBYE_WITHIN, all).await;
    }
}
