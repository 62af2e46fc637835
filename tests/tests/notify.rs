//! Hooks around a backup of a real etcd, and `lifeboat notify test` against real receivers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use lifeboat_tests::run::Run;
use lifeboat_tests::{EtcdCluster, Job};
use rustix::process::Signal;

const LIMIT: Duration = Duration::from_secs(60);

fn single(name: &str) -> Option<EtcdCluster> {
    let Some(version) = lifeboat_tests::versions().into_iter().next_back() else {
        lifeboat_tests::peers::skipped(format_args!("notify, {name}: no etcd"));
        return None;
    };
    Some(EtcdCluster::single(version))
}

/// A configuration for one cluster at an endpoint, with these hooks.
fn configured(job: &Job, endpoint: &str, hooks: &str) -> PathBuf {
    let config = job.dir().join("lifeboat.yaml");
    let text = format!(
        "stores: {{main: {{url: '{}'}}}}\nkeys: {{recipients: [{}]}}\nspool: {{reserve: '0'}}\nclusters:\n  prod:\n    etcd: {{endpoints: ['{endpoint}']}}\n    hooks:\n{hooks}",
        job.url(),
        job.recipient()
    );
    std::fs::write(&config, text).unwrap();
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).unwrap();
    config
}

fn backup(job: &Job, config: &Path) -> Run {
    job.lifeboat.cmd(["backup", "--config"]).arg(config).args(["--dial-timeout", "2s"])
}

/// One hook per moment, each of which writes down what it is told.
fn telling(file: &Path) -> String {
    let hook = |moment: &str| {
        format!(
            "      {moment}:\n        - command: [/bin/sh, -c, 'echo \"$LIFEBOAT_EVENT $LIFEBOAT_CLUSTER $MINE exit=$LIFEBOAT_EXIT id=$LIFEBOAT_BACKUP_ID revision=$LIFEBOAT_REVISION error=$LIFEBOAT_ERROR\" >> {}; echo said by {moment}']\n          environment: {{MINE: mine}}\n",
            file.display()
        )
    };
    ["before", "after", "failed", "finally"].map(hook).concat()
}

fn lines(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn is_soon_gone(pid: &str) -> bool {
    let begun = Instant::now();
    let stat = format!("/proc/{}/stat", pid.trim());
    while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
        if begun.elapsed() > LIMIT {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

#[test]
fn hooks_are_run_around_a_backup_and_told_what_came_of_it() {
    let Some(cluster) = single("order") else { return };
    let job = Job::new();
    let told = job.dir().join("told");
    let config = configured(&job, &cluster.endpoint(0), &telling(&told));

    drop(backup(&job, &config).arg("--no-hooks").run().ok());
    let plan = backup(&job, &config).args(["--dry-run", "-o", "json"]).run().ok().json();
    let events: Vec<&str> = plan["hooks"].as_array().unwrap().iter().map(|hook| hook["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["before", "after", "failed", "finally"]);
    assert!(backup(&job, &config).arg("--dry-run").run().ok().out().contains("hook, before: /bin/sh -c"));
    assert!(lines(&told).is_empty(), "neither a plan nor --no-hooks runs any");

    let earlier = job.list()[0]["id"].clone();
    let done = backup(&job, &config).run().ok();
    assert!(done.err().contains("said by before") && done.err().contains("said by finally"), "{done}");
    // Two of one second are in no order.
    let listed = job.list();
    let newest = listed.iter().find(|backup| backup["id"] != earlier).unwrap();
    let (id, revision) = (newest["id"].as_str().unwrap(), &newest["revision"]);
    let after = format!("mine exit=0 id={id} revision={revision} error=");
    assert_eq!(
        lines(&told),
        ["before prod mine exit= id= revision= error=".to_owned(), format!("after prod {after}"), format!("finally prod {after}")]
    );
}

#[test]
fn a_hook_before_a_backup_can_stop_it_and_the_others_hear_why() {
    let Some(cluster) = single("abort") else { return };
    let job = Job::new();
    let told = job.dir().join("told");
    let abort = telling(&told).replacen(
        "      before:\n",
        "      before:\n        - {command: [/bin/sh, -c, 'echo not now; exit 3'], if_it_fails: abort}\n",
        1,
    );
    let config = configured(&job, &cluster.endpoint(0), &abort);
    let stopped = backup(&job, &config).run().exit(1);
    assert!(stopped.err().contains("no backup is taken") && stopped.err().contains("exit status 3; its last words: not now"), "{stopped}");
    assert!(!job.repository().exists(), "nothing was begun");
    let heard = lines(&told);
    assert!(heard.len() == 2 && heard[0].starts_with("failed prod mine exit=1 id= ") && heard[1].starts_with("finally "), "{heard:?}");
    assert!(heard.iter().all(|line| line.contains("a hook before the backup failed") && line.ends_with("not now")), "{heard:?}");

    // A backup that fails by itself is told the same way.
    std::fs::remove_file(&told).unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = configured(&job, &format!("http://{closed}"), &telling(&told));
    drop(backup(&job, &config).run().exit(30));
    let heard = lines(&told);
    let words: Vec<&str> = heard.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(words, ["before", "failed", "finally"]);
    assert!(heard[1].contains("exit=30") && !heard[1].ends_with("error="), "{heard:?}");
}

#[test]
fn a_hook_that_takes_too_long_is_ended_with_what_it_started() {
    let Some(cluster) = single("timeout") else { return };
    let job = Job::new();
    let pid = job.dir().join("pid");
    let script = format!("sh -c \"trap true TERM; echo \\$\\$ > {}; while :; do sleep 1; done\" & wait", pid.display());
    let hook = format!("      before:\n        - {{command: [/bin/sh, -c, '{script}'], timeout: 3s}}\n");
    let done = backup(&job, &configured(&job, &cluster.endpoint(0), &hook)).run().ok();
    assert!(done.out().contains("warning: the hook") && done.out().contains("took longer than 3 s"), "{done}");
    assert_eq!(job.list().len(), 1, "a warning keeps no backup from being taken");
    assert!(is_soon_gone(&std::fs::read_to_string(pid).unwrap()));
}

#[test]
fn whoever_ends_a_backup_gets_the_last_hooks_all_the_same() {
    let Some(cluster) = single("signal") else { return };
    let job = Job::new();
    let (told, pid) = (job.dir().join("told"), job.dir().join("pid"));
    let slow =
        format!("      before:\n        - {{command: [/bin/sh, -c, 'echo $$ > {0}.new; mv {0}.new {0}; sleep 600']}}\n", pid.display());
    let config = configured(&job, &cluster.endpoint(0), &telling(&told).replacen("      before:\n", &slow, 1));
    let running = backup(&job, &config).start();
    let begun = Instant::now();
    while !pid.exists() {
        assert!(begun.elapsed() < LIMIT, "{}", running.stderr());
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(running.signal(Signal::TERM).exit(143));
    assert!(is_soon_gone(&std::fs::read_to_string(pid).unwrap()));
    let heard = lines(&told);
    assert!(heard.len() == 2 && heard[0].starts_with("failed ") && heard[1].starts_with("finally "), "{heard:?}");
    assert!(heard[0].contains("asked to end"), "{heard:?}");
}

#[test]
fn a_configuration_that_others_can_write_runs_nothing() {
    let job = Job::new();
    let told = job.dir().join("told");
    let config = configured(&job, "http://127.0.0.1:1", &telling(&told));
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o666)).unwrap();
    let refused = backup(&job, &config).run().exit(2);
    assert!(refused.err().contains("somebody else could change it") && refused.err().contains("chmod go-w"), "{refused}");
    assert!(lines(&told).is_empty());
}

/// A receiver that answers everything with one status, and hands over what it heard.
fn receiver(status: &'static str) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, heard) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut bytes = Vec::new();
            let mut piece = [0; 4096];
            while let Ok(len @ 1..) = stream.read(&mut piece) {
                bytes.extend_from_slice(&piece[..len]);
                let text = String::from_utf8_lossy(&bytes);
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
                if body.len() >= length.unwrap_or(0) {
                    break;
                }
            }
            let _ = asked.send(String::from_utf8_lossy(&bytes).into_owned());
            let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    (format!("http://{address}/services/VERYSECRETTOKEN"), heard)
}

#[test]
fn a_test_says_what_each_receiver_answered() {
    let job = Job::new();
    let config = job.dir().join("lifeboat.yaml");
    let nobody = job.lifeboat.cmd(["notify", "test", "--config"]).arg(&config);
    std::fs::write(&config, "stores: {}\n").unwrap();
    assert!(nobody.run().exit(2).err().contains("names nobody"));

    let (good, heard_good) = receiver("200 OK");
    let (bad, heard_bad) = receiver("403 Forbidden");
    let address = job.dir().join("slack.url");
    std::fs::write(&address, format!("{good}\n")).unwrap();
    let message = job.dir().join("message.json");
    let text = format!(
        "notify:\n  - slack: {{url_file: {}}}\n    on: [failed, stale, recovered]\n    remind: 4h\n  - ping: {{url: '{bad}'}}\n    name: switch\n  - exec: {{command: [/bin/sh, -c, 'cat > {}']}}\n",
        address.display(),
        message.display()
    );
    std::fs::write(&config, text).unwrap();
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).unwrap();
    let test = || job.lifeboat.cmd(["notify", "test", "--config"]).arg(&config);

    let table = test().run().exit(1);
    assert!(!table.out().contains("VERYSECRET") && !table.err().contains("VERYSECRET"), "{table}");
    assert!(table.out().contains("ok: 200 OK") && table.out().contains("FAILED: it answers 403 Forbidden"), "{table}");
    assert!(heard_good.recv_timeout(LIMIT).unwrap().contains("This is a test"));
    assert!(heard_bad.recv_timeout(LIMIT).unwrap().starts_with("POST /services/VERYSECRETTOKEN/log "));
    let read: serde_json::Value = serde_json::from_slice(&std::fs::read(&message).unwrap()).unwrap();
    assert_eq!((&read["event"], &read["schema"]), (&"test".into(), &"lifeboat.message/1".into()));

    let json = test().args(["-o", "json"]).run().exit(1).json();
    assert_eq!((&json["schema"], &json["event"]), (&"lifeboat.notify/1".into(), &"test".into()));
    let told: Vec<_> = json["receivers"].as_array().unwrap().iter().map(|line| (line["name"].clone(), line["ok"].clone())).collect();
    assert_eq!(told, [("slack".into(), true.into()), ("switch".into(), false.into()), ("exec".into(), true.into())]);

    drop(test().args(["--receiver", "slack", "--receiver", "3", "--event", "failed"]).run().ok());
    let read: serde_json::Value = serde_json::from_slice(&std::fs::read(&message).unwrap()).unwrap();
    assert_eq!((&read["event"], &read["facts"]["test"]), (&"failed".into(), &true.into()));
    assert!(test().args(["--receiver", "pager"]).run().exit(2).err().contains("slack, switch, exec"));
}
