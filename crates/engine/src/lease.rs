//! Who works on a cluster now: taking the lease of the repository, holding it while work runs, giving it back.
//!
//! Nothing is correct because of it (design part 4): two backups at once are two sound backups. It saves a member from sending its database
//! twice, and tells a second host that there is a first.
//!
//! A run that was killed gives nothing back. Its lease ends by itself after [`LEASE_FOR`], and at once for whoever can see that the process is gone.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::Mutex;
use vault::lease::{self, Acquired, Claim, Lease, LeaseError, LeaseRecord};
use vault::name::ClusterName;
use vault::store::Store;

use crate::failure::{Code, Failure, Outcome};
use crate::limits::{LEASE_FOR, LEASE_RENEWED_EVERY};
use crate::progress::Progress;
use crate::{init::here, store_failure};

/// What a lease says its holder does while members are rewritten: a backup does not begin beside that.
pub const DEFRAG: &str = "defrag";

/// Whether a lease is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Where the store offers one; who does not get it says so and works all the same.
    #[default]
    Auto,
    /// Nobody is asked.
    Off,
    /// Where the store offers one; who does not get it because somebody else has it does nothing. The agent's way: it looks again later.
    #[serde(skip)]
    Yield,
    /// Without it nothing is done. Only a flag says so.
    #[serde(skip)]
    Required,
}

/// What came of asking, in words for the report; nothing where the lease is held, or none was wanted.
pub type Word = Option<String>;

/// A lease, or none. It is given back by [`Holder::release`] alone: whoever drops the work may still do that.
#[derive(Default)]
pub struct Holder {
    held: Mutex<Option<Held>>,
}

struct Held {
    store: Arc<dyn Store>,
    cluster: ClusterName,
    /// None while an answer of the store is awaited: whoever was stopped then does not know what is stored.
    lease: Option<Lease>,
}

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Holder")
    }
}

impl Holder {
    /// Asks for the lease of a cluster.
    ///
    /// # Errors
    /// A defragmentation has it, or somebody has it whom a defragmentation would disturb. Else only with [`Mode::Required`]: [`Code::LeaseHeld`] when somebody else has it; when the store offers none or cannot
    /// be reached.
    pub async fn take(&self, store: &Arc<dyn Store>, cluster: &ClusterName, verb: &str, mode: Mode) -> Outcome<Word> {
        if mode == Mode::Off {
            return Ok(None);
        }
        let is_required = mode == Mode::Required;
        let owner = Owner::this().to_string();
        let is_gone = |text: &str| Owner::parse(text).is_some_and(|owner| owner.is_gone());
        let claim = Claim { owner: &owner, verb, is_gone: &is_gone, proven: is_required };
        *self.held.lock().await = Some(Held { store: Arc::clone(store), cluster: cluster.clone(), lease: None });
        let acquired = lease::acquire(store.as_ref(), cluster, &claim, LEASE_FOR, Timestamp::now()).await;
        let mut held = self.held.lock().await;
        if let (Ok(Acquired::Held(lease)), Some(held)) = (&acquired, held.as_mut()) {
            held.lease = Some(lease.clone());
            return Ok(None);
        }
        *held = None;
        match acquired {
            Ok(Acquired::Held(_)) => Ok(None),
            Ok(Acquired::Busy(record)) if record.verb == DEFRAG && verb != DEFRAG => Err(Failure::failed("a defragmentation of this cluster runs")
                .object(cluster)
                .cause(format!(
                    "{}; what is read from a member that is being defragmented holds up everything it serves. Its lease ends at {} unless it is renewed",
                    at_work(&record),
                    record.expires
                ))
                .again()),
            Ok(Acquired::Busy(record)) if verb == DEFRAG => Err(Failure::failed("somebody else works on this cluster now")
                .object(cluster)
                .cause(format!("{}; its lease ends at {} unless it is renewed", at_work(&record), record.expires))
                .again()),
            Ok(Acquired::Busy(record)) if is_required || mode == Mode::Yield => Err(busy(store.as_ref(), cluster, &record)),
            Ok(Acquired::Busy(record)) => Ok(Some(format!("{}; this goes on beside it", at_work(&record)))),
            Ok(Acquired::NotOffered(why)) if is_required => Err(Failure::failed("there is no lease to be had")
                .object(store.root())
                .cause(format!("{why}; without --require-lease the work goes on without one"))
                .again_without("--require-lease")),
            Ok(Acquired::NotOffered(why)) => Ok(Some(format!("the store offers no lease ({why}); others at work are not seen"))),
            Err(error) if is_required => Err(lost(error)),
            Err(error) => Ok(Some(format!("the lease cannot be taken ({error}); others at work are not seen"))),
        }
    }

    /// Renews the lease for ever; for running beside the work. One that is lost, or cannot be renewed, is told once and given up.
    pub async fn keep(&self, progress: &dyn Progress) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(LEASE_RENEWED_EVERY).await;
            let mut held = self.held.lock().await;
            let Some(Held { store, lease, .. }) = held.as_mut() else { return std::future::pending().await };
            let Some(old) = lease.take() else { continue };
            match lease::renew(store.as_ref(), &old, LEASE_FOR, Timestamp::now()).await {
                Ok(renewed) => *lease = Some(renewed),
                // It may be reached again before the lease ends.
                Err(LeaseError::Store(error)) => {
                    *lease = Some(old);
                    progress.say(&format!("note: the lease cannot be renewed now: {error}"));
                }
                Err(error) => {
                    progress.say(&format!("note: {error}; this goes on beside it"));
                    *held = None;
                }
            }
        }
    }

    /// Gives the lease back, if it is held. When that fails it ends by itself.
    pub async fn release(&self) {
        let Some(Held { store, cluster, lease }) = self.held.lock().await.take() else { return };
        let lease = match lease {
            Some(lease) => Some(lease),
            None => own(store.as_ref(), &cluster).await,
        };
        if let Some(lease) = lease {
            let _ = lease::release(store.as_ref(), lease, Timestamp::now()).await;
        }
    }
}

/// Who else works on a cluster now, in words; none where nobody does, or where that cannot be told.
pub async fn somebody(store: &Arc<dyn Store>, cluster: &ClusterName) -> Word {
    let is_gone = |text: &str| Owner::parse(text).is_some_and(|owner| owner.is_gone());
    let found = lease::held_by_another(store.as_ref(), cluster, &Owner::this().to_string(), &is_gone, Timestamp::now()).await;
    found.ok().flatten().map(|record| at_work(&record))
}

/// The lease of this process, whatever became of the request that was cut short: one's own is taken over.
async fn own(store: &dyn Store, cluster: &ClusterName) -> Option<Lease> {
    const TRIES: usize = 3;
    let owner = Owner::this().to_string();
    let claim = Claim { owner: &owner, verb: "goodbye", is_gone: &|_| false, proven: false };
    for _ in 0..TRIES {
        match lease::acquire(store, cluster, &claim, LEASE_FOR, Timestamp::now()).await {
            Ok(Acquired::Held(lease)) => return Some(lease),
            // The request that was cut short came through in between.
            Ok(Acquired::Busy(record)) if record.owner == owner => {}
            _ => return None,
        }
    }
    None
}

fn at_work(record: &LeaseRecord) -> String {
    format!("{} works on '{}' since {} ({})", record.owner, record.cluster, record.acquired, record.verb)
}

fn busy(store: &dyn Store, cluster: &ClusterName, record: &LeaseRecord) -> Failure {
    let key = vault::key::Key::Lease(cluster.clone());
    Failure::new(Code::LeaseHeld, format!("somebody else works on '{cluster}' now, and --require-lease wants nobody else to"))
        .object(format!("{}/{key}", store.root().trim_end_matches('/')))
        .cause(format!("{}; its lease ends at {} unless it is renewed", at_work(record), record.expires))
        .again()
}

fn lost(error: LeaseError) -> Failure {
    match error {
        LeaseError::Store(error) => store_failure::failure("the lease cannot be taken", &error),
        other => Failure::new(Code::LeaseHeld, "the lease was not got").cause(other).again(),
    }
}

/// A process, as a lease names it: what a person wants to know, and what tells whether it still lives.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    host: String,
    pid: i32,
    /// Which boot of which machine; empty where that is not known.
    boot: String,
    /// Which world of process ids: containers on one machine have different ones.
    world: String,
    /// When the process began, in the kernel's own ticks: an id that was given to another process is not the owner.
    began: u64,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, pid, boot, world, began } = self;
        write!(f, "{host} process {pid} ({boot} {world} {began})")
    }
}

impl Owner {
    fn this() -> Self {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let text = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let world = std::fs::read_link("/proc/self/ns/pid").map(|link| link.to_string_lossy().replace(' ', "")).unwrap_or_default();
        Self {
            host: here::hostname().unwrap_or_else(|| "localhost".to_owned()).replace(char::is_whitespace, "-"),
            pid,
            boot: text("/proc/sys/kernel/random/boot_id"),
            world,
            began: began(pid).unwrap_or(0),
        }
    }

    /// Reads what [`fmt::Display`] wrote. Nothing for what another release, or somebody else, wrote.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let owner = Self {
            host: words.next()?.to_owned(),
            pid: words.next().filter(|word| *word == "process").and_then(|_| words.next())?.parse().ok()?,
            boot: words.next()?.strip_prefix('(')?.to_owned(),
            world: words.next()?.to_owned(),
            began: words.next()?.strip_suffix(')')?.parse().ok()?,
        };
        words.next().is_none().then_some(owner)
    }

    /// Whether this is certain: it ran where we can see it, and it does not run any more.
    fn is_gone(&self) -> bool {
        let here = Self::this();
        let can_see = !here.boot.is_empty() && !here.world.is_empty() && here.boot == self.boot && here.world == self.world;
        can_see && !self.lives()
    }

    fn lives(&self) -> bool {
        let Some(pid) = rustix::process::Pid::from_raw(self.pid) else { return false };
        let is_there = !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH));
        is_there && began(self.pid).is_none_or(|began| began == self.began)
    }
}

/// When a process began (proc(5), field 22 of `stat`). None where that is hidden from us.
fn began(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; after it comes field 3.
    stat.rsplit_once(')')?.1.split_whitespace().nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as StdMutex;

    use jiff::SignedDuration;
    use vault::store::FileStore;

    use super::*;

    #[derive(Default)]
    struct Told(StdMutex<Vec<String>>);

    impl Progress for Told {
        fn say(&self, line: &str) {
            self.0.lock().unwrap().push(line.to_owned());
        }
        fn bytes(&self, _: &str, _: u64, _: Option<u64>) {}
        fn done(&self) {}
    }

    fn store() -> (tempfile::TempDir, Arc<dyn Store>) {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path(), "file:///r", false).unwrap();
        (dir, Arc::new(store))
    }

    fn prod() -> ClusterName {
        "prod".parse().unwrap()
    }

    async fn read(store: &Arc<dyn Store>) -> LeaseRecord {
        let (_, bytes) = store.get("prod/lease.json", 1 << 16).await.unwrap();
        vault::canonical::decode(&bytes).unwrap()
    }

    async fn of_others(store: &Arc<dyn Store>, owner: &str) -> Lease {
        let claim = Claim { owner, verb: "backup", is_gone: &|_| false, proven: false };
        match lease::acquire(store.as_ref(), &prod(), &claim, LEASE_FOR, Timestamp::now()).await.unwrap() {
            Acquired::Held(lease) => lease,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_owner_is_read_back_and_known_to_live() {
        let this = Owner::this();
        assert_eq!(Owner::parse(&this.to_string()), Some(this.clone()));
        assert!(!this.is_gone());
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let other = Owner { pid, began: began(pid).unwrap(), ..this.clone() };
        assert!(!other.is_gone());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(other.is_gone());
        assert!(Owner { began: 1, ..this.clone() }.is_gone(), "another process has the id now");
        for elsewhere in [Owner { boot: "other".to_owned(), ..other.clone() }, Owner { world: "other".to_owned(), ..other.clone() }] {
            assert!(!elsewhere.is_gone(), "nobody can tell");
        }
        for text in ["", "host", "host process x (a b 1)", "host process 1 (a b 1) more", "host process 1"] {
            assert_eq!(Owner::parse(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn a_lease_is_held_and_given_back() {
        let (_dir, store) = store();
        let holder = Holder::default();
        assert_eq!(holder.take(&store, &prod(), "backup", Mode::Required).await.unwrap(), None);
        assert!(!read(&store).await.released);
        holder.release().await;
        assert!(read(&store).await.released);
        assert_eq!(holder.take(&store, &prod(), "backup", Mode::Off).await.unwrap(), None);
        assert!(read(&store).await.released);
    }

    #[tokio::test]
    async fn somebody_elses_lease_is_a_word_or_a_refusal() {
        let (_dir, store) = store();
        of_others(&store, "elsewhere").await;
        let holder = Holder::default();
        let word = holder.take(&store, &prod(), "backup", Mode::Auto).await.unwrap().unwrap();
        assert!(word.contains("elsewhere works on 'prod'"), "{word}");
        let failure = holder.take(&store, &prod(), "backup", Mode::Required).await.unwrap_err();
        assert_eq!(failure.code, Code::LeaseHeld);
        assert!(failure.object.unwrap().ends_with("prod/lease.json"));
        holder.release().await;
        assert_eq!(read(&store).await.owner, "elsewhere");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_renewed_while_work_runs_and_its_loss_is_told() {
        let (_dir, store) = store();
        let holder = Holder::default();
        holder.take(&store, &prod(), "backup", Mode::Auto).await.unwrap();
        let first = read(&store).await.expires;
        let told = Told::default();
        let begun = tokio::time::Instant::now();
        let work = async {
            while read(&store).await.expires == first {
                tokio::time::sleep(LEASE_RENEWED_EVERY / 4).await;
            }
            assert!(begun.elapsed() >= LEASE_RENEWED_EVERY && begun.elapsed() < LEASE_RENEWED_EVERY * 2);
            let record = LeaseRecord { owner: "elsewhere".to_owned(), ..read(&store).await };
            let etag = store.head("prod/lease.json").await.unwrap().etag;
            store.replace("prod/lease.json", vault::canonical::encode(&record).unwrap().into(), etag.as_deref()).await.unwrap();
            while told.0.lock().unwrap().is_empty() {
                tokio::time::sleep(LEASE_RENEWED_EVERY / 4).await;
            }
        };
        tokio::select! { () = work => {}, never = holder.keep(&told) => match never {} }
        assert!(told.0.lock().unwrap()[0].contains("was lost"), "{:?}", told.0);
        holder.release().await;
        assert!(!read(&store).await.released, "it is not ours to give back");
    }

    #[tokio::test]
    async fn a_lease_is_given_back_by_one_who_was_stopped_while_asking() {
        let (_dir, store) = store();
        let owner = Owner::this().to_string();
        of_others(&store, &owner).await;
        let holder = Holder { held: Mutex::new(Some(Held { store: Arc::clone(&store), cluster: prod(), lease: None })) };
        holder.release().await;
        assert!(read(&store).await.released);
    }

    #[test]
    fn a_lease_outlives_two_renewals_that_fail() {
        assert!(LEASE_FOR >= SignedDuration::try_from(LEASE_RENEWED_EVERY * 3).unwrap());
    }
}
