//! `guard`: a verified backup, then the command, and the command's own exit code.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use etcd_api::PutRequest;
use lifeboat_tests::{EtcdCluster, Job, Run, etcd_matrix};
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(120);

fn guard(job: &Job, cluster: &EtcdCluster, flags: &[&str], command: &[&str]) -> Run {
    let spool = job.dir().join("spool");
    let run = job.cmd("guard").args(["--recipient", job.recipient(), "--spool-reserve", "0", "--spool-dir"]).arg(spool);
    run.args(cluster.client_flags()).args(flags).arg("--").args(command).timeout(PATIENCE)
}

etcd_matrix! {
    /// The command runs after the backup, knows its id, has our streams, and its exit code is ours.
    async fn the_command_runs_behind_a_verified_backup(etcd: EtcdVersion) {
        let cluster = EtcdCluster::single(etcd);
        drop(cluster.client(0).await.put(PutRequest::new("a", "1")).await.unwrap());
        let job = Job::new();
        let script = "cat; echo said; echo complained >&2; echo $LIFEBOAT_BACKUP";
        let done = guard(&job, &cluster, &[], &["sh", "-c", script]).stdin("from outside\n").run().ok();
        let listed = job.list();
        let id = listed[0]["id"].as_str().unwrap().to_owned();
        assert_eq!(done.out(), format!("from outside\nsaid\n{id}\n"), "nothing but the command's own output: {done}");
        assert!(done.err().contains("complained") && done.err().contains("is verified"), "{done}");
        assert_eq!(listed[0]["proven"]["rung"], "read", "{listed:?}");

        // It fails: its own code, and the command that goes back, which runs as it is printed.
        let failed = guard(&job, &cluster, &[], &["sh", "-c", "exit 7"]).run().exit(7);
        let next = failed.err().lines().find_map(|line| line.trim().strip_prefix("next:").map(|next| next.trim().to_owned())).unwrap();
        let taken = job.list().into_iter().map(|backup| backup["id"].as_str().unwrap().to_owned()).find(|other| *other != id).unwrap();
        assert!(failed.err().contains("exit code 7") && failed.err().contains(&taken), "{failed}");
        assert!(next.starts_with(&format!("lifeboat restore {} ", &taken[taken.len() - 6..])), "{failed}");
        let data_dir = job.dir().join("restored");
        let words = next.replace("IDENTITY", &job.identity().to_string_lossy()).replace("DIR", &data_dir.to_string_lossy());
        let words: Vec<&str> = words.split(' ').skip(1).collect();
        drop(job.lifeboat.cmd(&words).run().ok());
        assert!(data_dir.join("member/snap/db").is_file());
        drop(guard(&job, &cluster, &["-o", "json"], &["sh", "-c", "kill -9 $$"]).run().exit(137));
        drop(guard(&job, &cluster, &["--quiet"], &["true"]).run().ok());
    }
}

fn newest() -> Option<EtcdCluster> {
    let version = lifeboat_tests::versions().into_iter().next_back();
    if version.is_none() {
        lifeboat_tests::peers::skipped("guard: no etcd");
    }
    version.map(EtcdCluster::single)
}

/// A backup that may be of another cluster is no way back, and a report that nobody got is no success.
#[test]
fn an_unconfirmed_backup_guards_nothing() {
    let (Some(one), Some(other)) = (newest(), newest()) else { return };
    let job = Job::new();
    drop(job.backup(&one));
    let ran = job.dir().join("ran");
    let refused = guard(&job, &other, &[], &["touch", ran.to_str().unwrap()]).run().exit(1);
    assert!(refused.err().contains("unconfirmed") && refused.err().contains("lineage accept"), "{refused}");
    assert!(!ran.exists());
    drop(guard(&job, &one, &[], &["touch", ran.to_str().unwrap()]).run().ok());
    let lost = job.lifeboat.shell("lifeboat etcd logs --endpoints http://127.0.0.1:1 > /dev/full").run().exit(1);
    assert!(lost.err().contains("could not be written"), "{lost}");
}

/// Without a verified backup the command does not run, and what cannot run needs no backup.
#[test]
fn without_a_backup_nothing_runs() {
    let Some(mut cluster) = newest() else { return };
    let job = Job::new();
    let ran = job.dir().join("ran");
    let touch = ["touch", ran.to_str().unwrap()];
    drop(job.backup(&cluster));
    let planned = guard(&job, &cluster, &["--dry-run"], &touch).run().ok().out();
    assert!(planned.contains("Would back up") && planned.contains("and run: touch"), "{planned}");
    let unknown = guard(&job, &cluster, &[], &["no-such-program-anywhere"]).run().exit(2);
    assert!(unknown.err().contains("nothing was done"), "{unknown}");
    let none = job.cmd("guard").args(cluster.client_flags()).run().exit(2);
    assert!(none.err().contains("COMMAND"), "{none}");
    assert!(!ran.exists() && job.list().len() == 1);
    cluster.stop();
    let down = guard(&job, &cluster, &["--dial-timeout", "1s"], &touch).run().exit(1);
    assert!(down.err().contains("the command was not run"), "{down}");
    assert!(!ran.exists());
}

/// A signal sent to us reaches the command, which decides itself what to make of it; we wait for its end.
#[test]
fn signals_are_passed_on() {
    let Some(cluster) = newest() else { return };
    let job = Job::new();
    // What is waited for is not in the words of the script, which are shown.
    let script = "n=1; trap 'echo TERM-$n; exit 5' TERM; trap 'echo INT-$n' INT; echo ready-$n; while :; do sleep 0.05; done";
    let mut running = guard(&job, &cluster, &[], &["sh", "-c", script]).start();
    running.wait_for("ready-1", PATIENCE);
    running.process().signal(Signal::INT);
    running.wait_for("INT-1", PATIENCE);
    running.process().signal(Signal::TERM);
    let done = running.finish().exit(5);
    assert!(done.out().contains("TERM-1") && done.err().contains("exit code 5"), "{done}");

    let mut running = guard(&job, &cluster, &[], &["sh", "-c", "n=1; echo ready-$n; exec sleep 600"]).start();
    running.wait_for("ready-1", PATIENCE);
    running.process().signal(Signal::TERM);
    drop(running.finish().exit(143));
}
