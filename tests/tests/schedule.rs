//! What `lifeboat schedule` makes is taken by what it is made for: systemd's own check of units and calendars.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use lifeboat_tests::{Job, Run};

fn systemd_analyze() -> bool {
    let found = Command::new("systemd-analyze").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        lifeboat_tests::peers::skipped("schedule: no systemd-analyze");
    }
    found
}

fn configure(job: &Job, backup: &str, clusters: &str) -> PathBuf {
    let path = job.dir().join("lifeboat.yaml");
    let text = format!(
        "stores: {{main: {{url: \"{}\"}}}}\nkeys: {{recipients: [\"{}\"]}}\ndefaults: {{stores: [main], backup: {{{backup}}}}}\nclusters: {{{clusters}}}\n",
        job.url(),
        job.recipient()
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn schedule(job: &Job, kind: &str) -> Run {
    job.lifeboat.cmd(["schedule", kind, "--config"]).arg(job.dir().join("lifeboat.yaml"))
}

fn installed(job: &Job, kind: &str) -> (PathBuf, Vec<PathBuf>) {
    let root = job.dir().join(format!("root-{kind}"));
    // systemd looks whether the program is there.
    let done = schedule(job, kind).args(["--install", "--program", "/bin/true", "-o", "json", "--root"]).arg(&root).run().ok();
    let files = done.json()["files"].as_array().unwrap().iter().map(|path| PathBuf::from(path.as_str().unwrap())).collect();
    (root, files)
}

fn verified(unit: &Path) {
    let checked = Run::new("systemd-analyze").args(["verify", "--man=no"]).arg(unit).run();
    // It reports what is wrong with other units of the machine as well.
    let name = unit.file_name().unwrap().to_string_lossy().into_owned();
    let about = format!("{}{}", checked.out(), checked.err());
    assert!(!about.lines().any(|line| line.contains(&name) || line.contains("Unknown")), "{about}");
}

#[test]
fn units_pass_systemds_own_check() {
    let job = Job::new();
    configure(&job, "every: 6h", "prod: {kubeadm: {}}");
    let (root, files) = installed(&job, "timer");
    assert_eq!(files.len(), 2);
    assert!(files.iter().all(|file| file.starts_with(&root) && file.is_file()), "{files:?}");
    let service = std::fs::read_to_string(&files[0]).unwrap();
    assert!(service.contains("ExecStart=/bin/true backup --config ") && service.contains("--cluster prod\n"), "{service}");
    let (_, agent) = installed(&job, "agent");
    if systemd_analyze() {
        for unit in files.iter().chain(&agent) {
            verified(unit);
        }
    }
}

#[test]
fn lines_of_cron_mean_the_same_to_systemd() {
    let job = Job::new();
    for (cron, calendar) in
        [("30 2 * * *", "*-*-* 02:30:00"), ("0 */6 * * *", "*-*-* 00/6:00:00"), ("15 4 * * 1-5", "Mon..Fri *-*-* 04:15:00")]
    {
        configure(&job, &format!("cron: \"{cron}\""), "prod: {kubeadm: {}}");
        let printed = schedule(&job, "timer").run().ok();
        let event = printed.out().lines().find_map(|line| line.strip_prefix("OnCalendar=").map(str::to_owned)).unwrap();
        if systemd_analyze() {
            let normal = Run::new("systemd-analyze").args(["calendar", &event]).run().ok();
            assert!(normal.out().contains(&format!("Normalized form: {calendar}")), "{cron}: {normal}");
        }
        let line = schedule(&job, "cron").run().ok();
        assert!(line.out().contains(&format!("{cron} root ")), "{line}");
    }
}

#[test]
fn what_cannot_be_made_is_refused_and_nothing_is_written() {
    let job = Job::new();
    configure(&job, "every: 7h", "prod: {kubeadm: {}}");
    let refused = schedule(&job, "cron").run().exit(2);
    assert!(refused.err().contains("cron cannot say 'every 7h'"), "{refused}");
    let in_a_pod = schedule(&job, "deployment").run().exit(2);
    assert!(in_a_pod.err().contains("a pod has no directory to keep backups in"), "{in_a_pod}");
    let zone = "cron: \"30 2 * * *\", timezone: Europe/Berlin";
    configure(&job, zone, "prod: {kubeadm: {}}");
    let by_the_clock = schedule(&job, "cron").run().exit(2);
    assert!(by_the_clock.err().contains("cron runs by the clock of its machine"), "{by_the_clock}");
    drop(schedule(&job, "timer").args(["--cluster", "nope"]).run().exit(13));
    let path = configure(&job, "every: 6h", "prod: {kubeadm: {}, keep: {last: 3}}");
    assert!(schedule(&job, "cron").run().ok().out().contains(" --cluster prod --prune\n"));
    let text = std::fs::read_to_string(&path).unwrap().replace(job.url(), "s3://lifeboat/etcd");
    std::fs::write(&path, text).unwrap();
    let printed = schedule(&job, "cronjob").run().ok();
    assert!(printed.out().contains("\"--prune\"") && printed.out().contains("| kubectl apply -f -"), "{printed}");
    let manifest = schedule(&job, "deployment").args(["--install", "--root"]).arg(job.dir().join("root")).run().exit(2);
    assert!(manifest.err().contains("kubectl apply") && !job.dir().join("root").exists(), "{manifest}");
    configure(&job, "every: 6h", "one: {kubeadm: {}}, two: {kubeadm: {}}");
    let which = schedule(&job, "timer").run().exit(2);
    assert!(which.err().contains("--cluster one"), "{which}");
    drop(schedule(&job, "agent").run().ok());
}
