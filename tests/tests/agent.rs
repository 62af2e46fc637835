//! The agent: backups that happen, on real etcd, and that are missed when they do not (design promise 9).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::time::Duration;

use lifeboat_tests::job::CLUSTER;
use lifeboat_tests::{Agent, EtcdCluster, Job};
use rustix::process::Signal;

/// For what comes at once on a machine that has nothing else to do.
const LIMIT: Duration = Duration::from_secs(60);

fn single(name: &str) -> Option<EtcdCluster> {
    let Some(version) = lifeboat_tests::versions().into_iter().next_back() else {
        lifeboat_tests::peers::skipped(format_args!("agent, {name}: no etcd"));
        return None;
    };
    Some(EtcdCluster::single(version))
}

/// A configuration: sections of `defaults`, and clusters as YAML.
fn configure(job: &Job, defaults: &str, clusters: &str) -> PathBuf {
    let path = job.dir().join("lifeboat.yaml");
    let spool = job.dir().join("spool");
    let text = format!(
        "stores:\n  main: {{url: \"{}\"}}\n  broken: {{url: \"file:///proc/nowhere/repository\"}}\nkeys: {{recipients: [\"{}\"]}}\nspool: {{directory: \"{}\", reserve: \"0\"}}\nagent: {{listen: \"127.0.0.1:0\", look_every: 1s, stop_within: 20s}}\ndefaults:\n  stores: [main]\n{defaults}\nclusters:\n{clusters}\n",
        job.url(),
        job.recipient(),
        spool.display()
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn cluster(name: &str, etcd: &EtcdCluster, more: &str) -> String {
    format!("  {name}: {{etcd: {{endpoints: [\"{}\"]}}{more}}}\n", etcd.endpoint(0))
}

fn backups(job: &Job, cluster: &str) -> usize {
    let listed =
        job.lifeboat.cmd(["list", "-o", "json", "--config"]).arg(job.dir().join("lifeboat.yaml")).args(["--cluster", cluster]).run().ok();
    listed.json()["clusters"][0]["backups"].as_array().map_or(0, Vec::len)
}

fn status(job: &Job, code: i32) -> serde_json::Value {
    job.lifeboat.cmd(["status", "-o", "json", "--config"]).arg(job.dir().join("lifeboat.yaml")).run().exit(code).json()
}

#[test]
fn it_backs_up_verifies_tells_and_another_agent_goes_on_where_it_was() {
    let Some(etcd) = single("goes on") else { return };
    let job = Job::new();
    let binary = etcd.version().etcd();
    let drill = format!("  drill: {{every: 30d, identity_file: \"{}\", etcd: \"{}\"}}", job.identity().display(), binary.display());
    configure(
        &job,
        &format!("  backup: {{every: 6h}}\n  verify: {{every: 1d, rung: read}}\n  keep: {{last: 3}}\n{drill}"),
        &cluster(CLUSTER, &etcd, ""),
    );
    let never = status(&job, 23);
    assert_eq!((&never["state"], &never["clusters"][0]["backups"]), (&"never-ran".into(), &0.into()));
    let mut agent = Agent::of(&job);
    agent.wait("a verified backup", |agent| agent.metric("lifeboat_last_proof_timestamp_seconds{cluster=\"prod\"}").is_some());
    agent.wait("a drill", |agent| agent.metric("lifeboat_last_drill_success{cluster=\"prod\"}") == Some(1.0));
    assert_eq!(agent.get("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(agent.get("/readyz"), (200, "ready\n".to_owned()));
    assert_eq!(agent.metric("lifeboat_cluster_state{cluster=\"prod\",state=\"protected\"}"), Some(1.0));
    assert_eq!(agent.metric("lifeboat_backups_succeeded_total{cluster=\"prod\"}"), Some(1.0));
    agent.wait("the members are looked at", |agent| agent.metric("lifeboat_etcd_reachable{cluster=\"prod\"}") == Some(1.0));
    let documented = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md")).unwrap();
    for name in agent.get("/metrics").1.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(['{', ' ']).next().unwrap()) {
        assert!(documented.contains(&format!("`{name}`")), "{name} is not in docs/metrics.md");
    }
    assert!(agent.metric("lifeboat_member_up{cluster=\"prod\",member=\"m0\"}") == Some(1.0), "{}", agent.get("/metrics").1);
    let page: serde_json::Value = serde_json::from_str(&agent.get("/status").1).unwrap();
    let told = status(&job, 0);
    assert_eq!(page["clusters"][0]["newest"]["id"], told["clusters"][0]["newest"]["id"], "the page and the verb tell the same");
    assert_eq!((&told["clusters"][0]["newest"]["proven"], &told["schema"]), (&"booted".into(), &"lifeboat.status/1".into()));
    drop(agent.end());

    // Nothing but the repository is left of the first one.
    let mut again = Agent::of(&job);
    again.wait("it knows the backup", |agent| agent.metric("lifeboat_store_backups{cluster=\"prod\"}") == Some(1.0));
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(again.metric("lifeboat_backups_succeeded_total{cluster=\"prod\"}"), Some(0.0), "the next one is due in hours");
    drop(again.end());
    assert_eq!(backups(&job, CLUSTER), 1);
}

#[test]
fn what_fails_is_told_tried_again_and_over_when_it_is_over() {
    let Some(mut etcd) = single("fails") else { return };
    let job = Job::new();
    configure(&job, "  backup: {every: 1m, retry_window: 1s}", &cluster(CLUSTER, &etcd, ""));
    let mut agent = Agent::of(&job);
    agent.wait("a backup", |agent| agent.metric("lifeboat_backups_succeeded_total{cluster=\"prod\"}") == Some(1.0));
    etcd.stop_member(0);
    agent.wait("nobody answers", |agent| agent.metric("lifeboat_etcd_reachable{cluster=\"prod\"}") == Some(0.0));
    assert_eq!(status(&job, 0)["state"], "protected", "nothing is late yet");
    agent.wait("it is too old", |agent| agent.metric("lifeboat_cluster_state{cluster=\"prod\",state=\"stale\"}") == Some(1.0));
    let (code, why) = agent.get("/readyz");
    assert!(code == 503 && why.contains("prod: stale"), "{code} {why}");
    agent.wait("a failure", |agent| agent.metric("lifeboat_backups_failed_total{cluster=\"prod\"}").is_some_and(|failed| failed >= 1.0));
    agent.wait("it is on record", |_| {
        job.lifeboat.cmd(["status", "-o", "json", "--config"]).arg(job.dir().join("lifeboat.yaml")).run().out().contains("\"exit\":30")
    });
    let stale = status(&job, 22);
    assert!(stale["clusters"][0]["failed"]["detail"].as_str().unwrap().contains("does not answer"), "{stale}");
    etcd.restart_member(0);
    agent.wait("a second backup", |agent| agent.metric("lifeboat_backups_succeeded_total{cluster=\"prod\"}") == Some(2.0));
    agent.wait("all is well", |agent| agent.get("/readyz").0 == 200);
    assert!(status(&job, 0)["clusters"][0]["failed"].is_null());
    drop(agent.end());
}

#[test]
fn two_agents_on_one_cluster_take_one_backup() {
    let Some(etcd) = single("two agents") else { return };
    let job = Job::new();
    configure(&job, "  backup: {every: 6h}", &cluster(CLUSTER, &etcd, ""));
    let mut agents = [Agent::of(&job), Agent::of(&job)];
    for agent in &mut agents {
        agent.wait("both know it", |agent| agent.metric("lifeboat_cluster_state{cluster=\"prod\",state=\"protected\"}") == Some(1.0));
    }
    std::thread::sleep(Duration::from_secs(6));
    let took: f64 = agents.iter().map(|agent| agent.metric("lifeboat_backups_succeeded_total{cluster=\"prod\"}").unwrap()).sum();
    assert!((took - 1.0).abs() < f64::EPSILON, "{took} backups were taken");
    assert_eq!(backups(&job, CLUSTER), 1);
    for agent in agents {
        drop(agent.end());
    }
}

#[test]
fn a_broken_cluster_and_a_broken_store_stop_nobody() {
    let Some(etcd) = single("broken") else { return };
    let job = Job::new();
    let clusters = format!(
        "{}{}  gone: {{etcd: {{endpoints: [\"http://127.0.0.1:1\"]}}}}\n",
        cluster(CLUSTER, &etcd, ""),
        cluster("unstored", &etcd, ", stores: [broken]")
    );
    configure(&job, "  backup: {every: 6h}", &clusters);
    let mut agent = Agent::of(&job);
    agent.wait("the good one is protected", |agent| {
        agent.metric("lifeboat_cluster_state{cluster=\"prod\",state=\"protected\"}") == Some(1.0)
    });
    agent.wait("the one without etcd fails", |agent| {
        agent.metric("lifeboat_backups_failed_total{cluster=\"gone\"}").is_some_and(|failed| failed >= 1.0)
    });
    agent.wait("the one without a store fails", |agent| {
        agent.metric("lifeboat_backups_failed_total{cluster=\"unstored\"}").is_some_and(|failed| failed >= 1.0)
    });
    let worst = job.lifeboat.cmd(["status", "--config"]).arg(job.dir().join("lifeboat.yaml")).run().exit(23);
    assert!(worst.out().contains("prod") && worst.out().contains("NO BACKUP"), "{worst}");
    drop(agent.end());
}

#[test]
fn a_new_configuration_takes_effect_and_a_wrong_one_changes_nothing() {
    let Some(etcd) = single("reload") else { return };
    let job = Job::new();
    configure(&job, "  backup: {every: 6h}", &cluster(CLUSTER, &etcd, ""));
    let mut agent = Agent::of(&job);
    agent.wait("a backup", |agent| agent.metric("lifeboat_backups_succeeded_total{cluster=\"prod\"}") == Some(1.0));
    let path = configure(&job, "  backup: {every: 6h}\n  nonsense: 1", &cluster("other", &etcd, ""));
    agent.running.process().signal(Signal::HUP);
    agent.running.wait_for("the old one stays in force", LIMIT);
    assert_eq!(agent.metric("lifeboat_store_backups{cluster=\"prod\"}"), Some(1.0));
    std::fs::write(&path, std::fs::read_to_string(&path).unwrap().replace("  nonsense: 1", "")).unwrap();
    agent.running.process().signal(Signal::HUP);
    agent.wait("the new cluster is backed up", |agent| agent.metric("lifeboat_backups_succeeded_total{cluster=\"other\"}") == Some(1.0));
    assert_eq!(agent.metric("lifeboat_store_backups{cluster=\"prod\"}"), None, "the old one is no longer told of");
    drop(agent.end());
}

/// One-shot runs: `backup` writes down that it failed, and `status` tells that from never and from too old.
#[test]
fn a_failed_run_by_hand_shows_in_status_until_one_succeeds() {
    let Some(mut etcd) = single("by hand") else { return };
    let job = Job::new();
    configure(&job, "  backup: {every: 6h}", &cluster(CLUSTER, &etcd, ""));
    let backup = || job.lifeboat.cmd(["backup", "--config"]).arg(job.dir().join("lifeboat.yaml")).run();
    drop(backup().ok());
    assert_eq!(status(&job, 0)["state"], "protected");
    etcd.stop_member(0);
    drop(backup().exit(30));
    let failed = status(&job, 24);
    assert_eq!((&failed["state"], &failed["clusters"][0]["failed"]["exit"]), (&"last-run-failed".into(), &30.into()));
    let marks = || std::fs::read_dir(job.repository().join("prod/marks")).map_or(0, Iterator::count);
    let one = marks();
    drop(backup().exit(30));
    assert_eq!(marks(), one, "one mark per change of state");
    etcd.restart_member(0);
    drop(backup().ok());
    assert_eq!(status(&job, 0)["state"], "protected");
    assert_eq!(marks(), one + 1, "that it is over is a change");
}

/// The member is rewritten while its window is open, and by nobody before that.
#[test]
fn members_that_need_it_are_defragmented_in_their_window() {
    let Some(etcd) = single("window") else { return };
    let job = Job::new();
    lifeboat_tests::matrix::block_on(async {
        let client = etcd.client(0).await;
        for n in 0..24_u8 {
            drop(client.put(etcd_api::PutRequest::new("/big", vec![n; 1 << 20])).await.unwrap());
        }
        let revision = client.status().await.unwrap().header.revision;
        client.compact(revision, true).await.unwrap();
    });
    configure(
        &job,
        "  backup: {every: 6h}\n  defrag: {cron: '* * * * *', window: 1m, free_above: 8MiB}\n  alert: {db_size_above: 1KiB}",
        &cluster(CLUSTER, &etcd, ""),
    );
    let mut agent = Agent::of(&job);
    agent.wait("its members are looked at", |agent| {
        agent.metric("lifeboat_health_findings{cluster=\"prod\",severity=\"alert\"}").is_some_and(|alerts| alerts >= 1.0)
    });
    // Windows of a minute: time for four of them.
    agent.wait_within(LIMIT * 4, "a backup comes first, and then the member", |agent| {
        agent.metric("lifeboat_backups_succeeded_total{cluster=\"prod\"}") == Some(1.0)
            && agent.metric("lifeboat_defragmented_members_total{cluster=\"prod\"}") == Some(1.0)
    });
    agent.wait("what was free is gone", |agent| {
        let of = |name: &str| agent.metric(&format!("lifeboat_member_db_{name}_bytes{{cluster=\"prod\",member=\"m0\"}}"));
        of("size").zip(of("in_use")).is_some_and(|(size, in_use)| size - in_use < 8e6)
    });
    assert_eq!(agent.metric("lifeboat_last_defrag_success{cluster=\"prod\"}"), Some(1.0));
    drop(agent.end());
}
