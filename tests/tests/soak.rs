//! The soak: an agent and one-shot runs on a real cluster under writes, stores that misbehave, members that restart, and kills at any moment. What is left at
//! the end is held against what was promised.
//!
//! Half a minute of trouble in the usual run; `--full` (LIFEBOAT_TEST_FULL) half an hour. The seed is printed, and LIFEBOAT_SOAK_SEED replays the same faults in the
//! same order; when they strike is the machine's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use etcd_api::{Client, ConnectOptions, DeleteRequest, Endpoint, KeyRange, PutRequest};
use lifeboat_tests::http_proxy::Misdeed;
use lifeboat_tests::matrix::block_on;
use lifeboat_tests::random::Random;
use lifeboat_tests::sampler::own_memory;
use lifeboat_tests::{EtcdCluster, HttpProxy, Job, Options, Run, Running, S3Server, peers};
use rustix::process::Signal;

const LIMIT: Duration = Duration::from_secs(120);
const METHODS: &[&str] = &["GET", "HEAD", "PUT", "POST", "DELETE"];
const MISDEEDS: &[Misdeed] = &[
    Misdeed::LoseRequest,
    Misdeed::LoseAnswer,
    Misdeed::SlowDown,
    Misdeed::InternalError,
    Misdeed::FailAfter,
    Misdeed::CutBody(50),
    Misdeed::Late(Duration::from_millis(300)),
];
/// An agent that needs more of its own than this leaks: it holds nothing but a few catalogs and a database's pages on their way.
const MEMORY_MOST: u64 = 300 << 20;

fn is_full() -> bool {
    std::env::var_os("LIFEBOAT_TEST_FULL").is_some()
}

/// Writes and deletes until it is told to stop; members may go while it does.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Writer {
    fn start(endpoints: Vec<String>, mut random: Random) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut written = 0;
            block_on(async {
                while !flag.load(Ordering::Relaxed) {
                    let at = random.pick(&endpoints).clone();
                    let short = Duration::from_secs(3);
                    let options = ConnectOptions { dial_timeout: short, request_timeout: short, ..ConnectOptions::default() };
                    let Ok(client) = Client::connect(Endpoint::parse(&at, false).unwrap(), &options).await else {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        continue;
                    };
                    for _ in 0..50 {
                        let key = format!("/registry/configmaps/soak/c{}", random.below(400));
                        let size = random.below(2_000) as usize;
                        let done = if random.below(5) == 0 {
                            client.delete_range(DeleteRequest::new(KeyRange::single(key))).await.map(drop)
                        } else {
                            client.put(PutRequest::new(key, random.bytes(size))).await.map(drop)
                        };
                        if done.is_err() || flag.load(Ordering::Relaxed) {
                            break;
                        }
                        written += 1;
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            });
            written
        });
        Self { stop, thread }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

struct Soak {
    job: Job,
    etcd: EtcdCluster,
    proxy: HttpProxy,
    server: S3Server,
    agent: Option<Running>,
    /// Every backup that anybody was told of.
    told: BTreeSet<String>,
}

impl Soak {
    fn new() -> Option<Self> {
        let Some(version) = lifeboat_tests::versions().into_iter().next_back() else {
            peers::skipped("soak: no etcd");
            return None;
        };
        let Some(server) = S3Server::versitygw("lifeboat-bucket") else {
            peers::skipped("soak: no versitygw");
            return None;
        };
        let etcd = EtcdCluster::start(version, Options::default().members(3));
        let proxy = HttpProxy::before(server.port());
        let soak = Self { job: Job::new(), etcd, proxy, server, agent: None, told: BTreeSet::new() };
        let endpoints: Vec<String> = soak.etcd.endpoints().iter().map(|endpoint| format!("'{endpoint}'")).collect();
        let text = format!(
            "stores:\n  main: {{url: '{}'}}\n  offsite: {{url: '{}', region: us-east-1, endpoint: '{}'}}\nkeys: {{recipients: [{}], identity_file: {}}}\nspool: {{reserve: '0', directory: {}}}\nagent: {{listen: '127.0.0.1:0', look_every: 1s, stop_within: 30s}}\ndefaults:\n  stores: [main, offsite]\n  backup: {{every: 1m, retry_window: 50s}}\n  verify: {{every: 1m, rung: deep}}\n  keep: {{within: 30d}}\nclusters: {{prod: {{etcd: {{endpoints: [{}]}}}}}}\n",
            soak.job.url(),
            soak.server.url("etcd"),
            soak.proxy.endpoint(),
            soak.job.recipient(),
            soak.job.identity().display(),
            soak.job.dir().join("spool").display(),
            endpoints.join(", "),
        );
        std::fs::write(soak.config(), text).unwrap();
        Some(soak)
    }

    fn config(&self) -> PathBuf {
        self.job.dir().join("lifeboat.yaml")
    }

    fn cmd(&self, verb: &str) -> Run {
        let mut run = self.job.lifeboat.cmd([verb, "--config"]).arg(self.config()).timeout(Duration::from_secs(1_200));
        for (name, value) in self.server.env().into_iter().filter(|(name, _)| *name != "AWS_ENDPOINT_URL") {
            run = run.env(name, value);
        }
        run
    }

    fn start_agent(&mut self) {
        self.agent = Some(self.cmd("agent").start());
    }

    /// Notes what the agent said it took, and how much memory it has.
    fn note(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        let said = agent.stderr();
        // "prod: backup ID at revision N, …", said once it is committed.
        let ids = said.lines().filter_map(|line| line.strip_prefix("prod: backup ")?.split(' ').next());
        self.told.extend(ids.filter(|id| id.contains('T')).map(str::to_owned));
        if let Some(memory) = own_memory(agent.process().pid()) {
            assert!(memory < MEMORY_MOST, "the agent has {memory} bytes of its own");
        }
    }

    fn kill_agent(&mut self) {
        self.note();
        if let Some(agent) = self.agent.take() {
            drop(agent.signal(Signal::KILL));
        }
    }

    fn metric(&mut self, name: &str) -> Option<f64> {
        let said = self.agent.as_ref()?.stderr();
        let port: u16 = said.split("http://127.0.0.1:").nth(1)?.split('/').next()?.parse().ok()?;
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// A run beside the agent: finished, or killed on its way.
    fn one_shot(&mut self, random: &mut Random) {
        let run = self.cmd("backup").args(["-o", "json", "--dial-timeout", "3s"]);
        if random.below(3) == 0 {
            drop(run.kill_after(Duration::from_millis(50 + random.below(1_500))).run());
            return;
        }
        let finished = run.run();
        // Whatever it came to, it is one of the codes that say what happened; 20 where too few members were there to confirm it.
        assert!([0, 3, 20, 30, 31, 1].contains(&finished.code().unwrap_or(-1)), "{finished}");
        if matches!(finished.code(), Some(0 | 3 | 20)) {
            for backup in finished.json()["backups"].as_array().unwrap() {
                let verdict = backup["manifest"]["hashkv"]["verdict"].as_str().unwrap();
                assert!(["match", "inconclusive"].contains(&verdict), "the members are sound: {finished}");
                self.told.insert(backup["id"].as_str().unwrap().to_owned());
            }
        }
    }

    fn trouble(&mut self, random: &mut Random) {
        match random.below(6) {
            0 => {
                self.kill_agent();
                self.start_agent();
            }
            1 => {
                let index = random.below(3) as usize;
                self.etcd.kill_member(index);
                std::thread::sleep(Duration::from_millis(random.below(2_000)));
                self.etcd.restart_member(index);
            }
            2 => self.proxy.misbehave_at_random(random.next(), 10 + random.below(40), METHODS, MISDEEDS),
            3 => self.proxy.behave(),
            _ => self.one_shot(random),
        }
        self.note();
    }

    fn listed(&self, store: &str) -> BTreeSet<String> {
        let listed = self.cmd("list").args(["-o", "json"]).args(if store == "main" { vec![] } else { vec!["--repo", store] });
        let listed = listed.run().ok().json();
        let backups = listed["clusters"][0]["backups"].as_array().cloned().unwrap_or_default();
        assert!(backups.iter().all(|backup| backup["incomplete"] == false), "{backups:?}");
        backups.iter().map(|backup| backup["id"].as_str().unwrap().to_owned()).collect()
    }
}

#[test]
fn what_was_promised_holds_after_everything_that_can_go_wrong_did() {
    let Some(mut soak) = Soak::new() else { return };
    let named = std::env::var("LIFEBOAT_SOAK_SEED").ok().map(|text| text.parse().expect("a number"));
    let seed = named.unwrap_or_else(|| if is_full() { std::process::id().into() } else { 5 });
    println!("seed: LIFEBOAT_SOAK_SEED={seed}");
    let mut random = Random::new(seed);
    let writer = Writer::start(soak.etcd.endpoints(), random.split());
    drop(soak.cmd("backup").run().ok());
    soak.start_agent();
    let begun = Instant::now();
    let (lasts, pause) = if is_full() { (Duration::from_secs(1_800), 5_000) } else { (Duration::from_secs(30), 1_000) };
    let mut troubles = 0;
    while begun.elapsed() < lasts {
        soak.trouble(&mut random);
        troubles += 1;
        std::thread::sleep(Duration::from_millis(random.below(pause)));
    }
    soak.proxy.behave();
    let written = writer.end();
    soak.etcd.wait_ready();

    // All is well again: the agent takes another backup, and the second store is caught up.
    soak.kill_agent();
    drop(soak.cmd("copy").args(["--from", "main", "--to", "offsite"]).run().ok());
    drop(soak.cmd("backup").run().ok());
    let main = soak.listed("main");
    println!("{troubles} troubles, {written} writes, {} backups, {} of them told", main.len(), soak.told.len());
    assert!(written > 100 && main.len() >= 3, "the soak has to have done something");

    // Nothing is lost that anybody was told of and the policy keeps.
    let lost: Vec<_> = soak.told.difference(&main).collect();
    assert!(lost.is_empty(), "told of and not there: {lost:?}");

    // The metrics tell what the repository says.
    soak.start_agent();
    let deadline = Instant::now() + LIMIT;
    while soak.metric("lifeboat_cluster_state{cluster=\"prod\",state=\"protected\"}") != Some(1.0) {
        assert!(Instant::now() < deadline, "{}", soak.agent.as_ref().unwrap().stderr());
        std::thread::sleep(Duration::from_millis(200));
    }
    let counted = soak.metric("lifeboat_store_backups{cluster=\"prod\"}").unwrap();
    assert_eq!(soak.metric("lifeboat_stores_behind{cluster=\"prod\"}"), Some(0.0));
    soak.kill_agent();
    let main = soak.listed("main");
    assert!(counted >= 3.0 && counted <= main.len() as f64, "{counted} of {}", main.len());

    // Each of them is whole and sound on both stores, and a real etcd serves from it exactly what was backed up.
    drop(soak.cmd("copy").args(["--from", "main", "--to", "offsite"]).run().ok());
    for repo in [soak.job.url().to_owned(), soak.server.url("etcd")] {
        let mut verify = soak.cmd("verify").args(["--all", "--deep", "--cluster", "prod", "--repo", &repo]);
        if repo.starts_with("s3://") {
            verify = verify.args(["--s3-endpoint", &soak.server.endpoint(), "--s3-region", "us-east-1"]);
        }
        drop(verify.run().ok());
    }
    let etcd = soak.etcd.version().etcd().to_owned();
    let drilled = soak.cmd("drill").args(["--all", "-o", "json", "--etcd"]).arg(&etcd).run().ok().json();
    let backups = drilled["backups"].as_array().unwrap();
    assert_eq!(backups.len(), main.len());
    assert!(backups.iter().all(|backup| backup["result"] == "passed"), "{drilled}");
}
