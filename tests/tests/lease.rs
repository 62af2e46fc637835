//! The lease of a repository (design part 4): who works now. Nothing is correct because of it, so nobody waits for a person because of it either.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use lifeboat_tests::matrix::block_on;
use lifeboat_tests::proxy::Toxics;
use lifeboat_tests::{EtcdCluster, Job, Proxy, Running, S3Server, workload};
use rustix::process::Signal;
use vault::lease::{Acquired, Claim, LeaseRecord};
use vault::store::{FileStore, StoreOptions, open_store};

/// For conditions that come at once on a machine that has nothing else to do.
const LIMIT: Duration = Duration::from_secs(60);

fn single(name: &str) -> Option<EtcdCluster> {
    let Some(version) = lifeboat_tests::versions().into_iter().next_back() else {
        lifeboat_tests::peers::skipped(format_args!("lease, {name}: no etcd"));
        return None;
    };
    Some(EtcdCluster::single(version))
}

/// The lease as it is stored.
fn stored(job: &Job) -> Option<LeaseRecord> {
    let bytes = std::fs::read(job.repository().join("prod/lease.json")).ok()?;
    Some(vault::canonical::decode(&bytes).unwrap())
}

fn is_held(job: &Job) -> bool {
    stored(job).is_some_and(|lease| !lease.released)
}

/// A backup that holds the lease and takes its time: its stream is slow.
fn at_work(job: &Job, cluster: &EtcdCluster) -> (Running, Proxy) {
    block_on(async { workload::fill(&cluster.client(0).await, 71, 8 << 20).await });
    let port: u16 = cluster.endpoint(0).rsplit(':').next().unwrap().parse().unwrap();
    let proxy = Proxy::to(port);
    proxy.set(Toxics { rate: Some(256 << 10), ..Toxics::default() });
    let mut running = job.backup_cmd(&[format!("--endpoints=http://127.0.0.1:{}", proxy.port())]).start();
    let deadline = Instant::now() + LIMIT;
    while !is_held(job) {
        assert!(running.process().running() && Instant::now() < deadline, "{}{}", running.stdout(), running.stderr());
        std::thread::sleep(Duration::from_millis(5));
    }
    (running, proxy)
}

#[test]
fn two_backups_at_once_are_two_sound_backups_or_one_by_wish() {
    let Some(cluster) = single("two at once") else { return };
    let job = Job::new();
    let (first, proxy) = at_work(&job, &cluster);
    let insisting = job.backup_cmd(&cluster.client_flags()).arg("--require-lease").run().exit(11);
    assert!(insisting.err().contains("lease.json") && insisting.err().contains("next:"), "{insisting}");
    assert!(job.list().is_empty());
    let beside = job.backup_cmd(&cluster.client_flags()).run().ok();
    assert!(beside.err().contains("works on 'prod' since"), "{beside}");
    assert!(is_held(&job), "the first has it still");
    proxy.set(Toxics::default());
    drop(first.finish().ok());
    assert!(!is_held(&job));
    let listed = job.list();
    assert!(listed.len() == 2 && listed.iter().all(|backup| backup["hashkv"] == "match"), "{listed:?}");
    let after = job.backup_cmd(&cluster.client_flags()).arg("--require-lease").run().ok();
    assert!(!after.err().contains("note:"), "{after}");
    assert_eq!(stored(&job).unwrap().generation, 2);
}

#[test]
fn a_killed_backup_holds_nobody_up() {
    let Some(cluster) = single("killed") else { return };
    let job = Job::new();
    let (first, _proxy) = at_work(&job, &cluster);
    drop(first.signal(Signal::KILL));
    assert!(is_held(&job), "a process that was killed gives nothing back");
    drop(job.backup_cmd(&cluster.client_flags()).arg("--require-lease").run().ok());
    assert!(!is_held(&job));

    // Of another host nobody knows more than the time at which the lease ends.
    let store = FileStore::open(&job.repository(), job.url(), false).unwrap();
    let claim = Claim { owner: "elsewhere process 7 (boot world 1)", verb: "backup", is_gone: &|_| false, proven: false };
    let cluster_name = "prod".parse().unwrap();
    let held = |seconds: i64| {
        let taken = vault::lease::acquire(&store, &cluster_name, &claim, SignedDuration::from_secs(seconds), Timestamp::now());
        assert!(matches!(block_on(taken).unwrap(), Acquired::Held(_)));
    };
    held(600);
    drop(job.backup_cmd(&cluster.client_flags()).arg("--require-lease").run().exit(11));
    held(1);
    let deadline = Instant::now() + LIMIT;
    while job.backup_cmd(&cluster.client_flags()).arg("--require-lease").run().code() != Some(0) {
        assert!(Instant::now() < deadline, "the lease does not end");
    }
    assert_eq!(job.list().len(), 2);
}

#[test]
fn whoever_is_asked_to_end_gives_the_lease_back() {
    let Some(cluster) = single("signals") else { return };
    let job = Job::new();
    let (first, _proxy) = at_work(&job, &cluster);
    drop(first.signal(Signal::TERM).exit(143));
    assert!(!is_held(&job));
}

#[test]
fn without_a_lease_by_configuration_none_is_taken() {
    let Some(cluster) = single("off") else { return };
    let job = Job::new();
    let config = job.dir().join("lifeboat.yaml");
    let endpoint = cluster.endpoint(0);
    std::fs::write(
        &config,
        format!(
            "stores: {{main: {{url: '{}'}}}}\nkeys: {{recipients: [{}]}}\nspool: {{reserve: '0'}}\ndefaults: {{lease: off}}\nclusters: {{prod: {{etcd: {{endpoints: ['{endpoint}']}}}}}}\n",
            job.url(),
            job.recipient()
        ),
    )
    .unwrap();
    let backup = || job.lifeboat.cmd(["backup", "--config"]).arg(&config);
    drop(backup().run().ok());
    assert!(stored(&job).is_none());
    drop(backup().arg("--require-lease").run().ok());
    assert!(!is_held(&job) && stored(&job).is_some(), "a flag beats the configuration");
}

/// A store that does not replace objects under a condition, or not for us: backups go on and say so; who insists on a lease gets none.
#[test]
fn a_store_without_conditional_writes_offers_no_lease() {
    let Some(cluster) = single("not offered") else { return };
    let Some(server) = S3Server::versitygw("lifeboat-bucket") else { return lifeboat_tests::peers::skipped("lease: no versitygw") };
    for (status, code) in [("501 Not Implemented", "NotImplemented"), ("403 Forbidden", "AccessDenied")] {
        let refusing = Refusing::start(server.port(), "lease.json", status, code);
        let mut env = server.env();
        env.retain(|(name, _)| *name != "AWS_ENDPOINT_URL");
        env.push(("LIFEBOAT_S3_ENDPOINT", format!("http://127.0.0.1:{}", refusing.port)));
        let job = Job::at(server.url(&code.to_ascii_lowercase()), env);
        let done = job.backup_cmd(&cluster.client_flags()).run().ok();
        assert!(done.err().contains("offers no lease") && done.err().contains(code), "{done}");
        let insisting = job.backup_cmd(&cluster.client_flags()).arg("--require-lease").run().exit(1);
        assert!(insisting.err().contains("there is no lease to be had"), "{insisting}");
        let next = insisting.err().lines().find_map(|line| line.trim().strip_prefix("next:").map(str::to_owned)).unwrap();
        assert!(!next.contains("--require-lease"), "{insisting}");
        assert_eq!(job.list().len(), 1);
    }
    // The server itself does it.
    let mut env = server.env();
    env.push(("LIFEBOAT_S3_ENDPOINT", server.endpoint()));
    let job = Job::at(server.url("whole"), env);
    drop(job.backup_cmd(&cluster.client_flags()).arg("--require-lease").run().ok());
    let options = StoreOptions { endpoint: Some(server.endpoint()), credentials_file: Some(credentials(&job)), ..StoreOptions::default() };
    let store = open_store(&server.url("whole"), &options).unwrap();
    let (_, bytes) = block_on(store.get("prod/lease.json", 1 << 16)).unwrap();
    assert!(vault::canonical::decode::<LeaseRecord>(&bytes).unwrap().released);
}

fn credentials(job: &Job) -> std::path::PathBuf {
    let path = job.dir().join("s3.env");
    let (id, secret) = (lifeboat_tests::s3::ACCESS_KEY, lifeboat_tests::s3::SECRET_KEY);
    std::fs::write(&path, format!("AWS_ACCESS_KEY_ID={id}\nAWS_SECRET_ACCESS_KEY={secret}\n")).unwrap();
    path
}

/// Passes HTTP on, one request per connection as the server has it, but for writes of one object.
struct Refusing {
    port: u16,
    stopped: Arc<AtomicBool>,
}

impl Refusing {
    fn start(to: u16, object: &'static str, status: &'static str, code: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (port, stopped) = (listener.local_addr().unwrap().port(), Arc::new(AtomicBool::new(false)));
        let stop = Arc::clone(&stopped);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::spawn(move || answer(client, to, object, status, code));
            }
        });
        Self { port, stopped }
    }
}

impl Drop for Refusing {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _wakes_the_listener = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn answer(mut client: TcpStream, to: u16, object: &str, status: &str, code: &str) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match client.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let request = text.lines().next().unwrap_or_default();
    if request.starts_with("PUT ") && request.contains(object) {
        let length = text.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        let _ = client.read_exact(&mut body);
        let xml = format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>");
        let _ = write!(client, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{xml}", xml.len());
        return;
    }
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)) else { return };
    let _ = server.write_all(&head);
    let (mut from, mut towards) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut towards);
        let _ = towards.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut server, &mut client);
    let _ = client.shutdown(Shutdown::Both);
}
