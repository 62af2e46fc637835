//! A real S3 server behind a proxy that loses requests and answers, refuses, cuts and stalls (design part 9, "Faults"): a backup is whole and listed once,
//! or not listed with an exit code that says so; what is listed restores; a bad network is never taken for damage (promises 1, 8 and 10).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::path::PathBuf;
use std::time::Duration;

use etcd_api::PutRequest;
use lifeboat_tests::http_proxy::Misdeed;
use lifeboat_tests::matrix::block_on;
use lifeboat_tests::random::Random;
use lifeboat_tests::{EtcdCluster, Finished, HttpProxy, Job, Options, S3Server, peers};

/// What a store does to single requests. Silence is tried apart: it takes its time.
const WAYS: [Misdeed; 8] = [
    Misdeed::LoseRequest,
    Misdeed::LoseAnswer,
    Misdeed::SlowDown,
    Misdeed::InternalError,
    Misdeed::FailAfter,
    Misdeed::CutBody(0),
    Misdeed::CutBody(60),
    Misdeed::Late(Duration::from_millis(150)),
];

/// How many of a hundred requests go wrong, one round after the other.
const SEVERITY: [u64; 5] = [10, 25, 40, 60, 90];

/// Everything, and every second round only what writes: else few backups would come as far as their commit.
const METHODS: [&[&str]; 2] = [&["GET", "HEAD", "PUT", "POST", "DELETE"], &["PUT", "POST"]];

const UNREACHABLE: i32 = 31;

fn seed() -> u64 {
    let seed = std::env::var("LIFEBOAT_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_121);
    println!("the seed is {seed} (LIFEBOAT_TEST_SEED)");
    seed
}

/// A cluster, and a repository on a server behind a proxy.
struct Bench {
    job: Job,
    cluster: EtcdCluster,
    proxy: HttpProxy,
    server: S3Server,
    changes: u32,
}

impl Bench {
    /// `values` values of 512 KiB that cannot be compressed: above sixteen the sealed snapshot goes by several parts.
    fn new(name: &str, server: Option<S3Server>, values: usize) -> Option<Self> {
        let (Some(server), Some(version)) = (server, lifeboat_tests::versions().into_iter().next_back()) else {
            peers::skipped(format_args!("{name}: no S3 server or no etcd"));
            return None;
        };
        let cluster = EtcdCluster::start(version, Options::default());
        block_on(async {
            let client = cluster.client(0).await;
            let mut random = Random::new(7);
            for n in 0..values {
                drop(client.put(PutRequest::new(format!("/registry/secrets/ns/s{n}"), random.bytes(512 << 10))).await.unwrap());
            }
        });
        let proxy = HttpProxy::before(server.port());
        let mut env = server.env();
        env.retain(|(variable, _)| *variable != "AWS_ENDPOINT_URL");
        env.push(("LIFEBOAT_S3_ENDPOINT", proxy.endpoint()));
        let job = Job::at(server.url("etcd"), env);
        let mut bench = Self { job, cluster, proxy, server, changes: 0 };
        drop(bench.backup().ok());
        Some(bench)
    }

    /// A backup of a cluster that has changed since the last one.
    fn backup(&mut self) -> Finished {
        self.changes += 1;
        let (cluster, value) = (&self.cluster, self.changes.to_string());
        block_on(async { drop(cluster.client(0).await.put(PutRequest::new("/registry/configmaps/ns/c", value)).await.unwrap()) });
        self.job.backup_cmd(&self.cluster.client_flags()).run()
    }

    /// The ids of what is listed, on a network that is well again.
    fn listed(&self) -> Vec<String> {
        self.proxy.behave();
        let listed = self.job.list();
        assert!(listed.iter().all(|backup| backup["incomplete"] == false && backup["counts"] == true), "{listed:?}");
        assert!(listed.iter().all(|backup| backup["proven"]["failed"] == false), "{listed:?}");
        listed.iter().map(|backup| backup["id"].as_str().unwrap().to_owned()).collect()
    }

    fn restore(&self, id: &str, name: &str) -> (Finished, PathBuf) {
        let out = self.job.dir().join(name);
        (self.job.restore_cmd().args([id, "--no-bump", "--snapshot-file"]).arg(&out).run(), out)
    }
}

/// The exit code fits a store that does not answer as it should, and there is something to do next.
fn assert_said(finished: &Finished) {
    assert_eq!(finished.code(), Some(UNREACHABLE), "{finished}");
    assert!(finished.err().contains("next"), "{finished}");
}

/// Backups while requests go wrong at random; then everything that is listed restores.
fn writes_at_random(name: &str, server: Option<S3Server>, values: usize) {
    let Some(mut bench) = Bench::new(name, server, values) else { return };
    let mut random = Random::new(seed());
    let rounds = if peers::full() { 60 } else { 10 };
    let mut listed = bench.listed();
    let (mut made, mut refused, mut spoilt) = (0, 0, 0);
    for round in 0..rounds {
        bench.proxy.misbehave_at_random(random.next(), SEVERITY[round % SEVERITY.len()], METHODS[round % 2], &WAYS);
        let finished = bench.backup();
        spoilt += bench.proxy.take_log().iter().filter(|exchange| exchange.misdeed.is_some()).count();
        let now = bench.listed();
        let new: Vec<&String> = now.iter().filter(|id| !listed.contains(id)).collect();
        assert!(listed.iter().all(|id| now.contains(id)) && new.len() <= 1, "round {round}: {listed:?}, then {now:?}: {finished}");
        if finished.code() == Some(0) {
            assert_eq!(new.len(), 1, "round {round}: {finished}");
            assert!(finished.out().contains(new[0].as_str()), "round {round}: {finished}");
            made += 1;
        } else {
            assert_said(&finished);
            // Listed all the same only where neither the commit's answer nor a look at it came through, and then it says so.
            assert!(new.is_empty() || finished.err().contains("may be there"), "round {round}: {new:?}: {finished}");
            refused += 1;
        }
        listed = now;
    }
    println!("{name}: {made} backups made, {refused} refused, {spoilt} requests spoilt");
    assert!(made > 0 && refused > 0 && spoilt > rounds);
    let verified = bench.job.cmd("verify").args(["--all", "--read"]).run().ok();
    assert!(verified.out().contains(&format!("{0} of {0} backups", listed.len())), "{verified}");
    for id in &listed {
        let (done, out) = bench.restore(id, &format!("{id}.db"));
        drop(done.ok());
        std::fs::remove_file(out).unwrap();
    }
    drop(bench.server);
}

#[test]
fn backups_while_versitygw_fails_at_random() {
    writes_at_random("versitygw", S3Server::versitygw("lifeboat-bucket"), 20);
}

#[test]
fn backups_while_moto_fails_at_random() {
    writes_at_random("moto", S3Server::moto("lifeboat-bucket"), 1);
}

/// Writes whose answers are lost or wrong, one kind of object after the other: the commit is settled by looking, and made once.
#[test]
fn ambiguous_answers_are_settled() {
    let Some(mut bench) = Bench::new("ambiguous_answers", S3Server::versitygw("lifeboat-bucket"), 20) else { return };
    let mut count = bench.listed().len();
    let objects: [&'static [&'static str]; 6] = [
        &["POST", "db.zst.age?uploads"],
        &["PUT", "db.zst.age", "partNumber=2"],
        &["POST", "db.zst.age", "uploadId="],
        &["PUT", "frames.bin"],
        &["PUT", "manifest.json"],
        &["HEAD", "db.zst.age"],
    ];
    for words in objects {
        for misdeed in [Misdeed::LoseAnswer, Misdeed::FailAfter, Misdeed::LoseRequest, Misdeed::SlowDown, Misdeed::CutBody(0)] {
            for times in if words.contains(&"manifest.json") { 1..=2 } else { 1..=1 } {
                bench.proxy.spoil(words, misdeed, times);
                let finished = bench.backup().ok();
                assert!(bench.proxy.take_log().iter().any(|exchange| exchange.misdeed.is_some()), "{words:?} {misdeed:?} is not met");
                let listed = bench.listed();
                count += 1;
                assert_eq!(listed.len(), count, "{words:?} {misdeed:?} {times}: {finished}");
            }
        }
    }
}

/// The commit is carried out, its answer is lost every time, and so is every look at it: nobody can know, and that is what is said.
#[test]
fn a_commit_that_cannot_be_settled_is_said_to_be_open() {
    let Some(mut bench) = Bench::new("open_commit", S3Server::versitygw("lifeboat-bucket"), 1) else { return };
    let count = bench.listed().len();
    bench.proxy.misbehave(|line| {
        let manifest = line.ends_with("manifest.json");
        // The manifests that are there already are read before.
        (manifest && line.starts_with("PUT")).then_some(Misdeed::LoseAnswer)
    });
    drop(bench.backup().ok());
    let mut committed = false;
    bench.proxy.misbehave(move |line| {
        let manifest = line.ends_with("manifest.json");
        committed |= manifest && line.starts_with("PUT");
        (manifest && committed).then_some(Misdeed::LoseAnswer)
    });
    let finished = bench.backup();
    assert_said(&finished);
    assert!(finished.err().contains("may be there") && finished.err().contains("lifeboat list"), "{finished}");
    let listed = bench.listed();
    assert_eq!(listed.len(), count + 2);
    drop(bench.restore(&listed[0], "open.db").0.ok());
    // Lost before it is carried out: the same words, for it looks the same; and nothing is listed.
    let mut committed = false;
    bench.proxy.misbehave(move |line| {
        let manifest = line.ends_with("manifest.json");
        committed |= manifest && line.starts_with("PUT");
        (manifest && committed).then_some(Misdeed::LoseRequest)
    });
    let finished = bench.backup();
    assert_said(&finished);
    assert!(finished.err().contains("may be there"), "{finished}");
    assert_eq!(bench.listed().len(), count + 2);
}

/// Reading while requests go wrong at random: each verb gives the truth, or says that the store does not answer. No backup is called damaged, no file is
/// left half written, and no mark states what is not so.
#[test]
fn reads_while_the_store_fails_at_random() {
    let Some(mut bench) = Bench::new("reads_at_random", S3Server::versitygw("lifeboat-bucket"), 24) else { return };
    drop(bench.backup().ok());
    let ids = bench.listed();
    let (done, whole) = bench.restore(&ids[0], "whole.db");
    drop(done.ok());
    let whole = std::fs::read(whole).unwrap();
    let mut random = Random::new(seed());
    let rounds = if peers::full() { 60 } else { 5 };
    let (mut well, mut refused) = (0, 0);
    for round in 0..rounds {
        let percent = SEVERITY[round % SEVERITY.len()];
        let mut misbehave = || bench.proxy.misbehave_at_random(random.next(), percent, METHODS[0], &WAYS);
        misbehave();
        let listed = bench.job.cmd("list").args(["-o", "json"]).run();
        misbehave();
        let verified = bench.job.cmd("verify").args(["--all", "--read"]).run();
        misbehave();
        let (restored, out) = bench.restore(&ids[0], &format!("{round}.db"));
        bench.proxy.behave();
        for finished in [&listed, &verified, &restored] {
            if finished.code() == Some(0) {
                well += 1;
            } else {
                assert_said(finished);
                refused += 1;
            }
        }
        if listed.code() == Some(0) {
            assert_eq!(listed.json()["clusters"][0]["backups"].as_array().map(Vec::len), Some(2), "round {round}: {listed}");
        }
        match std::fs::read(&out) {
            Ok(file) => assert!(file == whole && restored.code() == Some(0), "round {round}: {restored}"),
            Err(_) => assert_ne!(restored.code(), Some(0), "round {round}: {restored}"),
        }
        assert_eq!(bench.listed(), ids, "round {round}");
    }
    println!("{well} reads went well, {refused} were refused");
    assert!(well > 0 && refused > 0);
}

/// A store that falls silent in the middle: the request is given up in time and made again.
#[test]
fn a_silent_store_is_asked_again() {
    let Some(mut bench) = Bench::new("silence", S3Server::versitygw("lifeboat-bucket"), 1) else { return };
    let count = bench.listed().len();
    // The commit is carried out and nothing is said of it.
    bench.proxy.spoil(&["PUT", "manifest.json"], Misdeed::SilentAfter, 1);
    drop(bench.backup().ok());
    let listed = bench.listed();
    assert_eq!(listed.len(), count + 1);
    bench.proxy.spoil(&["GET", "db.zst.age"], Misdeed::Silent, 1);
    let (done, out) = bench.restore(&listed[0], "silent.db");
    drop(done.ok());
    assert!(std::fs::metadata(out).unwrap().len() > 512 << 10);
}
