//! The agent's bad days: cut off, out of room, with certificates whose time is over, before a cluster that somebody emptied. It says so, harms nothing, and
//! goes on by itself when the trouble is over.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::time::Duration;

use lifeboat_tests::job::CLUSTER;
use lifeboat_tests::proxy::Toxics;
use lifeboat_tests::{Agent, EtcdCluster, Finished, Job, Options, Proxy, S3Server, Tls, peers};

/// A backup is due every minute, and what failed is tried again after half a minute and later: time for several of either.
const LIMIT: Duration = Duration::from_secs(240);

const SUCCEEDED: &str = "lifeboat_backups_succeeded_total{cluster=\"prod\"}";
const FAILED: &str = "lifeboat_backups_failed_total{cluster=\"prod\"}";

fn newest(name: &str) -> Option<peers::EtcdVersion> {
    let version = lifeboat_tests::versions().into_iter().next_back();
    if version.is_none() {
        peers::skipped(format_args!("agent in trouble, {name}: no etcd"));
    }
    version
}

/// A backup every minute of one cluster.
fn configure(job: &Job, store: &str, etcd: &str, more: &str) {
    let text = format!(
        "stores: {{main: {store}}}\nkeys: {{recipients: [{}]}}\nspool: {{directory: {}, reserve: '0'}}\nagent: {{listen: '127.0.0.1:0', look_every: 1s, stop_within: 20s}}\ndefaults:\n  backup: {{every: 1m}}\n{more}clusters: {{prod: {{etcd: {etcd}}}}}\n",
        job.recipient(),
        job.dir().join("spool").display(),
    );
    std::fs::write(job.dir().join("lifeboat.yaml"), text).unwrap();
}

fn told(job: &Job, verb: &[&str]) -> Finished {
    job.lifeboat.cmd(verb).arg("--config").arg(job.dir().join("lifeboat.yaml")).args(["-o", "json"]).run()
}

fn ids(job: &Job) -> Vec<String> {
    let listed = told(job, &["list"]).ok().json();
    let backups = listed["clusters"][0]["backups"].as_array().cloned().unwrap_or_default();
    backups.iter().map(|backup| backup["id"].as_str().unwrap().to_owned()).collect()
}

fn more_than(agent: &Agent, name: &str, before: f64) -> bool {
    agent.metric(name).is_some_and(|now| now > before)
}

#[test]
fn cut_off_from_the_store_from_etcd_and_from_both() {
    let Some(version) = newest("cut off") else { return };
    let Some(server) = S3Server::versitygw("lifeboat-bucket") else {
        return peers::skipped("agent in trouble, cut off: no versitygw");
    };
    let etcd = EtcdCluster::single(version);
    let to_etcd = Proxy::to(etcd.endpoint(0).rsplit(':').next().unwrap().parse().unwrap());
    let to_store = Proxy::to(server.port());
    let cut = |proxy: &Proxy, is_cut: bool| {
        proxy.set(Toxics { refuse: is_cut, ..Toxics::default() });
        proxy.cut_all();
    };
    let job = Job::new();
    let store = format!("{{url: '{}', region: us-east-1, endpoint: 'http://127.0.0.1:{}'}}", server.url("etcd"), to_store.port());
    configure(&job, &store, &format!("{{endpoints: ['http://127.0.0.1:{}']}}", to_etcd.port()), "");
    let mut run = job.lifeboat.cmd(["agent", "--config"]).arg(job.dir().join("lifeboat.yaml"));
    for (name, value) in server.env().into_iter().filter(|(name, _)| *name != "AWS_ENDPOINT_URL") {
        run = run.env(name, value);
    }
    cut(&to_etcd, true);
    cut(&to_store, true);
    let mut agent = Agent::start(run);
    agent.wait_within(LIMIT, "nothing answers", |agent| {
        more_than(agent, FAILED, 0.0) && agent.metric("lifeboat_etcd_reachable{cluster=\"prod\"}") == Some(0.0) && agent.is("unknown")
    });
    assert_eq!(agent.get("/readyz").0, 503);
    assert_eq!(agent.get("/healthz").0, 200, "it is well itself");

    // The store alone: now it is known that there never was a backup.
    cut(&to_store, false);
    agent.wait_within(LIMIT, "the store answers", |agent| agent.is("never-ran"));
    cut(&to_etcd, false);
    agent.wait_within(LIMIT, "both answer", |agent| more_than(agent, SUCCEEDED, 0.0) && agent.is("protected"));
    assert_eq!(agent.get("/readyz").0, 200);

    // etcd alone.
    let (errors, failed) = (agent.metric("lifeboat_store_errors_total{cluster=\"prod\"}").unwrap(), agent.metric(FAILED).unwrap());
    cut(&to_store, true);
    agent.wait_within(LIMIT, "the store is missed", |agent| {
        more_than(agent, FAILED, failed)
            && more_than(agent, "lifeboat_store_errors_total{cluster=\"prod\"}", errors)
            && agent.is("unknown")
            && agent.metric("lifeboat_etcd_reachable{cluster=\"prod\"}") == Some(1.0)
    });
    let succeeded = agent.metric(SUCCEEDED).unwrap();
    cut(&to_store, false);
    agent.wait_within(LIMIT, "all is well again", |agent| more_than(agent, SUCCEEDED, succeeded) && agent.is("protected"));
    drop(agent.end());
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_store_without_room_is_said_and_leaves_nothing_half_done() {
    let Some(version) = newest("full disk") else { return };
    let job = Job::new();
    let small = job.dir().join("small");
    std::fs::create_dir(&small).unwrap();
    let mount = |options: &str| {
        let mut command = std::process::Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&small).status().is_ok_and(|status| status.success())
    };
    if !mount("size=1m") {
        return peers::skipped("agent in trouble, full disk: a tmpfs cannot be mounted here");
    }
    let unmount = Unmount(&small);
    let etcd = EtcdCluster::single(version);
    lifeboat_tests::matrix::block_on(async { lifeboat_tests::workload::fill(&etcd.client(0).await, 67, 12 << 20).await });
    configure(
        &job,
        &format!("{{url: 'file://{}'}}", small.join("repository").display()),
        &format!("{{endpoints: ['{}']}}", etcd.endpoint(0)),
        "",
    );
    let mut agent = Agent::of(&job);
    agent.wait_within(LIMIT, "there is no room", |agent| more_than(agent, FAILED, 0.0) && agent.is("never-ran"));
    assert!(agent.running.stderr().contains("no space left in the store"), "{}", agent.running.stderr());
    assert!(!small.join("repository/prod/snapshots").exists(), "what was begun is gone");
    assert!(ids(&job).is_empty());
    let told_of = told(&job, &["status"]).exit(23);
    assert_eq!(told_of.json()["clusters"][0]["backups"], 0, "{told_of}");
    assert!(mount("remount,size=256m"));
    agent.wait_within(LIMIT, "there is room", |agent| more_than(agent, SUCCEEDED, 0.0) && agent.is("protected"));
    drop(agent.end());
    assert_eq!(told(&job, &["status"]).ok().json()["state"], "protected");
    drop(told(&job, &["verify", "--read"]).ok());
    drop(unmount);
}

#[test]
fn certificates_whose_time_is_over_are_told_of_and_new_ones_are_taken_without_a_word() {
    let Some(version) = newest("certificates") else { return };
    let etcd = EtcdCluster::start(version, Options::default().tls(Tls::ClientAuth));
    let tls = etcd.tls().unwrap();
    let job = Job::new();
    let (cert, key) = (job.dir().join("client.pem"), job.dir().join("client-key.pem"));
    let install = |pair: &lifeboat_tests::tls::Pair| {
        std::fs::copy(&pair.cert, &cert).unwrap();
        std::fs::copy(&pair.key, &key).unwrap();
    };
    install(&tls.expired_client);
    let access =
        format!("{{endpoints: ['{}'], cacert: {}, cert: {}, key: {}}}", etcd.endpoint(0), tls.ca.display(), cert.display(), key.display());
    configure(&job, &format!("{{url: '{}'}}", job.url()), &access, "");
    let mut agent = Agent::of(&job);
    agent.wait_within(LIMIT, "nobody lets it in", |agent| {
        more_than(agent, FAILED, 0.0) && agent.metric("lifeboat_etcd_reachable{cluster=\"prod\"}") == Some(0.0)
    });
    assert!(agent.running.stderr().contains("expired"), "it is said why: {}", agent.running.stderr());
    install(&tls.client);
    agent.wait_within(LIMIT, "the new ones are taken", |agent| {
        more_than(agent, SUCCEEDED, 0.0) && agent.metric("lifeboat_etcd_reachable{cluster=\"prod\"}") == Some(1.0) && agent.is("protected")
    });
    agent.wait("their end is told", |agent| {
        agent.metric("lifeboat_certificate_expires_timestamp_seconds{cluster=\"prod\"}").is_some_and(|end| end > 4e9)
    });
    drop(agent.end());
}

#[test]
fn an_emptied_cluster_under_the_same_name_takes_nobodys_place() {
    let Some(version) = newest("emptied") else { return };
    let job = Job::new();
    let store = format!("{{url: '{}'}}", job.url());
    let of = |etcd: &EtcdCluster| format!("{{endpoints: ['{}']}}", etcd.endpoint(0));
    let keep = "  keep: {last: 1}\n";
    let full = EtcdCluster::start(version, Options::default().token("one"));
    lifeboat_tests::matrix::block_on(async { lifeboat_tests::workload::fill(&full.client(0).await, 71, 1 << 20).await });
    configure(&job, &store, &of(&full), keep);
    let mut agent = Agent::of(&job);
    agent.wait("a backup", |agent| agent.is("protected"));
    drop(agent.end());
    let good = ids(&job).pop().unwrap();
    drop(full);

    let empty = EtcdCluster::start(version, Options::default().token("two"));
    configure(&job, &store, &of(&empty), keep);
    let mut agent = Agent::of(&job);
    agent.wait_within(LIMIT, "two backups of what nobody knows", |agent| {
        more_than(agent, SUCCEEDED, 1.0) && agent.metric("lifeboat_unconfirmed_lineages{cluster=\"prod\"}") == Some(1.0)
    });
    agent.wait_within(LIMIT, "they do not count", |agent| agent.is("stale"));
    assert_eq!(agent.metric("lifeboat_retention_deleted_total{cluster=\"prod\"}"), Some(0.0));
    let standing = told(&job, &["status"]).exit(22);
    let cluster = &standing.json()["clusters"][0];
    assert_eq!(
        (cluster["newest"]["id"].as_str(), cluster["unconfirmed"].as_array().map(Vec::len)),
        (Some(good.as_str()), Some(1)),
        "{standing}"
    );
    drop(agent.end());
    let latest = told(&job, &["show", "latest", "--cluster", CLUSTER]).ok().json();
    assert_eq!(latest["manifest"]["id"], good.as_str(), "{latest}");
    let planned = told(&job, &["prune", "--dry-run", "--cluster", CLUSTER]).ok().json();
    let action = |id: &str| planned["backups"].as_array().unwrap().iter().find(|backup| backup["id"] == id).unwrap()["action"].clone();
    assert_eq!(action(&good), "keep", "{planned}");

    // It was meant: from now on the new history counts.
    let lineage = cluster["unconfirmed"][0].as_str().unwrap().to_owned();
    drop(told(&job, &["lineage", "accept", &lineage, "--cluster", CLUSTER, "--confirm", CLUSTER]).ok());
    let mut agent = Agent::of(&job);
    agent.wait_within(LIMIT, "they count", |agent| {
        agent.is("protected") && agent.metric("lifeboat_unconfirmed_lineages{cluster=\"prod\"}") == Some(0.0)
    });
    drop(agent.end());
}
