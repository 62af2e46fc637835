//! What is deployed beside the binary is true: alerting rules pass promtool's own check and tests, rules and dashboard name metrics that a real agent
//! has, every alert has its section in the documentation, every command in it exists, and Kubernetes' own types take the manifests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lifeboat_tests::job::CLUSTER;
use lifeboat_tests::{EtcdCluster, EtcdVersion, Job, Lifeboat, Peer, Run};
use rustix::process::Signal;

/// For what comes at once on a machine that has nothing else to do.
const LIMIT: Duration = Duration::from_secs(120);

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn rules() -> String {
    text("deploy/prometheus/lifeboat.rules.yaml")
}

/// Metrics that are told only where there is something to tell, which the cluster of the test has not: several days of backups, certificates, a window.
/// Each is in the documentation and in the agent's source.
const ONLY_WHERE_IT_IS_SO: &[&str] =
    &["lifeboat_etcd_quota_reached_timestamp_seconds", "lifeboat_certificate_expires_timestamp_seconds", "lifeboat_last_defrag_success"];

/// A program that some of these tests ask for another opinion; it is named where it is missing.
fn opinion(name: &str, what: &str) -> Option<&'static Peer> {
    let found = lifeboat_tests::peer(name);
    if found.is_none() {
        lifeboat_tests::peers::skipped(format_args!("{what}: no {name}"));
    }
    found
}

fn dashboard() -> serde_json::Value {
    serde_json::from_str(&text("deploy/grafana/lifeboat.json")).unwrap()
}

/// All expressions of the dashboard, with the dashboard's variable filled in.
fn dashboard_expressions() -> Vec<String> {
    let board = dashboard();
    let panels = board["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    targets.map(|target| target["expr"].as_str().unwrap().replace("$cluster", ".*")).collect()
}

/// The values of a field in the rules, which have one to a line.
fn values<'t>(rules: &'t str, field: &str) -> Vec<&'t str> {
    let start = format!("{field}: ");
    rules.lines().filter_map(|line| line.trim_start().trim_start_matches("- ").strip_prefix(&start)).collect()
}

/// The words of an expression that are metrics of ours.
fn metrics(expression: &str) -> impl Iterator<Item = &str> {
    expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("lifeboat_"))
}

/// The sections of a document at one level.
fn headings(document: &str, level: &str) -> BTreeSet<String> {
    document.lines().filter_map(|line| line.strip_prefix(level)?.strip_prefix(' ').map(str::to_owned)).collect()
}

#[test]
fn rules_pass_promtools_check_and_their_tests() {
    let Some(promtool) = opinion("promtool", "alerting rules") else { return };
    let dir = file("deploy/prometheus");
    drop(Run::new(&promtool.path).args(["check", "rules", "lifeboat.rules.yaml"]).dir(&dir).run().ok());
    let tested = Run::new(&promtool.path).args(["test", "rules", "lifeboat.rules.test.yaml"]).dir(&dir).run().ok();
    assert!(tested.out().contains("SUCCESS"), "{tested}");
}

#[test]
fn every_alert_has_a_severity_a_test_and_a_section_and_every_section_an_alert() {
    let (rules, tests, documented) = (rules(), text("deploy/prometheus/lifeboat.rules.test.yaml"), text("docs/alerts.md"));
    let alerts = values(&rules, "alert");
    assert!(!alerts.is_empty());
    for field in ["expr", "for", "labels", "summary", "description"] {
        assert_eq!(values(&rules, field).len(), alerts.len(), "each has one: {field}");
    }
    for labels in values(&rules, "labels") {
        assert!(["{severity: critical}", "{severity: warning}", "{severity: info}"].contains(&labels), "{labels}");
    }
    let anchors: Vec<String> = alerts.iter().map(|alert| format!("docs/alerts.md#{}", alert.to_lowercase())).collect();
    assert_eq!(values(&rules, "runbook"), anchors);
    assert_eq!(headings(&documented, "###"), alerts.iter().map(|alert| (*alert).to_owned()).collect());
    for alert in &alerts {
        let about = tests.split("\n  - name: ").filter(|test| test.lines().next().unwrap().split("  #").next() == Some(alert));
        let about = about.collect::<String>();
        assert!(about.contains("value: 1"), "{alert}: no test in which it fires");
        assert!(about.contains("cluster=\"good\"") || about.contains("exp_samples: []"), "{alert}: no test in which it does not");
    }
}

#[test]
fn every_command_that_an_alert_names_exists() {
    let lifeboat = Lifeboat::new();
    let rules = rules();
    let mut commands: BTreeSet<String> = BTreeSet::new();
    for description in values(&rules, "description") {
        let (_, command) = description.split_once(": lifeboat ").unwrap_or_else(|| panic!("no next command: {description}"));
        commands.insert(command.trim_end_matches('"').replace("{{ $labels.cluster }}", CLUSTER));
    }
    let documented = text("docs/alerts.md");
    let prose: String = documented.split("```").step_by(2).collect();
    commands.extend(prose.split('`').skip(1).step_by(2).filter_map(|code| code.strip_prefix("lifeboat ").map(str::to_owned)));
    assert!(commands.len() > 20, "{commands:?}");
    for command in commands {
        // Options are read from left to right: one that does not exist is refused before the last one is answered.
        let help = lifeboat.cmd(command.split(' ')).arg("--help").run().ok();
        assert!(help.out().contains("Usage: lifeboat"), "{command}: {help}");
    }
}

#[test]
fn the_dashboard_is_sound() {
    let board = dashboard();
    let variables = board["templating"]["list"].as_array().unwrap();
    assert!(variables.iter().any(|variable| variable["type"] == "datasource" && variable["name"] == "datasource"));
    let panels = board["panels"].as_array().unwrap();
    assert!(panels.iter().all(|panel| panel["datasource"]["uid"] == "${datasource}"));
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    for panel in panels {
        let place = |field: &str| panel["gridPos"][field].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24 && place("h") > 0, "{panel}");
    }
    let expressions = dashboard_expressions();
    assert!(expressions.iter().all(|expression| !expression.contains('$')), "{expressions:?}");
    let Some(promtool) = opinion("promtool", "expressions of the dashboard") else { return };
    // A recording rule holds an expression: what promtool takes as a rule, Prometheus takes as a query.
    let recorded: Vec<_> =
        expressions.iter().enumerate().map(|(n, expr)| serde_json::json!({"record": format!("panel:{n}"), "expr": expr})).collect();
    let wrapped = serde_json::json!({"groups": [{"name": "dashboard", "rules": recorded}]});
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("dashboard.yaml"), wrapped.to_string()).unwrap();
    drop(Run::new(&promtool.path).args(["check", "rules", "dashboard.yaml"]).dir(dir.path()).run().ok());
}

#[test]
fn the_example_of_a_configuration_is_sound() {
    let checked = Lifeboat::new().cmd(["config", "check", "--config"]).arg(file("deploy/lifeboat.example.yaml")).run().ok();
    assert!(checked.out().contains("sound") || checked.err().contains("sound"), "{checked}");
}

/// The page of metrics.
fn page(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Names that a real agent tells, once it has taken, verified and drilled a backup and looked at the members.
fn live(job: &Job, etcd: &EtcdCluster) -> BTreeSet<String> {
    let config = job.dir().join("lifeboat.yaml");
    let text = format!(
        "stores:\n  main: {{url: \"{}\"}}\nkeys: {{recipients: [\"{}\"]}}\nspool: {{directory: \"{}\", reserve: \"0\"}}\nagent: {{listen: \"127.0.0.1:0\", look_every: 1s}}\ndefaults:\n  stores: [main]\n  backup: {{every: 6h}}\n  verify: {{every: 1d, rung: read}}\n  keep: {{last: 3}}\n  drill: {{every: 30d, identity_file: \"{}\", etcd: \"{}\"}}\nclusters:\n  {CLUSTER}: {{etcd: {{endpoints: [\"{}\"]}}}}\n",
        job.url(),
        job.recipient(),
        job.dir().join("spool").display(),
        job.identity().display(),
        etcd.version().etcd().display(),
        etcd.endpoint(0)
    );
    std::fs::write(&config, text).unwrap();
    let mut agent = job.lifeboat.cmd(["agent", "--config"]).arg(config).timeout(Duration::from_secs(400)).start();
    agent.wait_for("at once", LIMIT);
    let said = agent.stderr();
    let port: u16 = said.split("http://127.0.0.1:").nth(1).and_then(|rest| rest.split('/').next()).unwrap().parse().unwrap();
    assert!(lifeboat_tests::net::listens(agent.process().pid(), port), "the listener is the agent's own");
    let deadline = Instant::now() + LIMIT;
    let complete =
        ["lifeboat_last_proof_timestamp_seconds{", "lifeboat_last_drill_success{", "lifeboat_member_up{", "lifeboat_last_attempt_exit{"];
    let mut told = page(port);
    while !complete.iter().all(|name| told.contains(name)) {
        assert!(Instant::now() < deadline, "{}\n{told}", agent.stderr());
        std::thread::sleep(Duration::from_millis(200));
        told = page(port);
    }
    drop(agent.signal(Signal::TERM).ok());
    let body = told.split_once("\r\n\r\n").unwrap().1;
    body.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(['{', ' ']).next().unwrap().to_owned()).collect()
}

#[test]
fn rules_and_dashboard_name_only_metrics_that_an_agent_has() {
    let Some(version) = lifeboat_tests::versions().into_iter().next_back() else {
        lifeboat_tests::peers::skipped("metrics in rules and dashboard: no etcd");
        return;
    };
    let (job, etcd) = (Job::new(), EtcdCluster::single(version));
    let mut there = live(&job, &etcd);
    if version < EtcdVersion::V3_6 {
        // Older ones do not tell it.
        there.insert("lifeboat_member_db_quota_bytes".to_owned());
    }
    let (documented, source) = (text("docs/metrics.md"), text("crates/agent/src/metrics.rs"));
    for name in ONLY_WHERE_IT_IS_SO {
        assert!(documented.contains(&format!("`{name}`")) && source.contains(&format!("\"{name}\"")), "{name}");
        there.insert((*name).to_owned());
    }
    let rules = rules();
    let mut wanted: BTreeSet<String> = values(&rules, "expr").into_iter().flat_map(metrics).map(str::to_owned).collect();
    wanted.extend(dashboard_expressions().iter().flat_map(|expression| metrics(expression)).map(str::to_owned));
    let variables = dashboard()["templating"].to_string();
    wanted.extend(metrics(&variables).map(str::to_owned));
    assert!(wanted.len() > 20, "{wanted:?}");
    let missing: Vec<_> = wanted.difference(&there).collect();
    assert!(missing.is_empty(), "no agent tells {missing:?}; it tells {there:?}");
}

#[test]
fn kubernetes_own_types_take_every_manifest() {
    let job = Job::new();
    let config = job.dir().join("lifeboat.yaml");
    for backup in ["every: 6h", "cron: \"30 2 * * *\", timezone: Europe/Berlin"] {
        let text = format!(
            "stores: {{main: {{url: \"{}\"}}}}\nkeys: {{recipients: [\"{}\"]}}\ndefaults: {{stores: [main], backup: {{{backup}}}}}\nclusters: {{prod: {{kubeadm: {{}}}}}}\n",
            "s3://lifeboat/etcd",
            job.recipient()
        );
        std::fs::write(&config, text).unwrap();
        for kind in ["cronjob", "deployment"] {
            for distribution in ["kubeadm", "k3s", "talos"] {
                let printed = job
                    .lifeboat
                    .cmd(["schedule", kind, "--distribution", distribution, "--namespace", "backup", "--config"])
                    .arg(&config)
                    .run()
                    .ok();
                let Some(strict) = opinion("kube-strict", "manifests") else { return };
                let check = |manifest: String| Run::new(&strict.path).arg("talos.dev/v1alpha1/ServiceAccount").stdin(manifest).run();
                let taken = check(printed.out()).ok();
                let (documents, talos) = (taken.out().lines().count(), usize::from(distribution == "talos"));
                assert_eq!(documents, 1 + talos, "{kind} {distribution}: {taken}");
                // It does look: one wrong letter is refused.
                let wrong = check(printed.out().replace("readOnlyRootFilesystem", "readonlyRootFilesystem")).exit(1);
                assert!(wrong.err().contains("unknown field") && wrong.err().contains("readonlyRootFilesystem"), "{wrong}");
            }
        }
    }
}
