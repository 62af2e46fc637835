//! The whole client against real etcd servers, each test on each minor that is there.
//!
//! `ETCD_BIN=/path/to/etcd cargo test -p etcd-api --test real_etcd` runs it on one server; `LIFEBOAT_PEERS`, the list that
//! `cargo xtask test` makes, on all of them. A test whose server is not there says `SKIPPED:` and ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{drain_from, endpoint};
use etcd_api::{
    Alarm, AlarmKind, Client, Code, Compare, CompareOp, CompareTarget, ConnectOptions, Credentials, DeleteRequest, ErrorKind, KeyRange,
    LinkFault, PutRequest, RangeRequest, Scheme, SnapshotLimits, TlsOptions, Txn, TxnOp, TxnResult, WatchEvent, WatchMessage, WatchRequest,
};
use etcd_store::id::{LeaseId, MemberId, Revision};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use zeroize::Zeroizing;

/// A server program.
#[derive(Clone, Debug)]
struct Program {
    path: String,
    minor: &'static str,
}

/// The server of this minor, if it is there.
fn program(minor: &'static str) -> Option<Program> {
    if let Ok(path) = std::env::var("ETCD_BIN") {
        let said = Command::new(&path).arg("--version").output().unwrap().stdout;
        let said = String::from_utf8(said).unwrap();
        return said.contains(&format!("etcd Version: {minor}.")).then_some(Program { path, minor });
    }
    let text = std::fs::read_to_string(std::env::var_os("LIFEBOAT_PEERS")?).unwrap();
    let peers: serde_json::Value = serde_json::from_str(&text).unwrap();
    let path = peers.get(format!("etcd-{minor}"))?.get("path")?.as_str()?.to_owned();
    Some(Program { path, minor })
}

/// Runs a test on one minor. `MATRIX:` lines are counted by `cargo xtask test`.
async fn on<F: Future<Output = ()>>(minor: &'static str, name: &str, body: fn(Program) -> F) {
    match program(minor) {
        Some(program) => {
            body(program).await;
            println!("MATRIX: {minor} {name} ok");
        }
        None if std::env::var_os("ETCD_BIN").is_none() => println!("SKIPPED: ETCD_BIN not set ({name} on etcd {minor})"),
        None => println!("SKIPPED: {name} on etcd {minor}: ETCD_BIN is another version"),
    }
}

/// Makes one test per minor out of each function.
macro_rules! on_each_etcd {
    ($($name:ident)+) => {
        $(mod $name {
            use super::on;

            #[tokio::test]
            async fn etcd_3_4() {
                on("3.4", stringify!($name), super::$name).await;
            }

            #[tokio::test]
            async fn etcd_3_5() {
                on("3.5", stringify!($name), super::$name).await;
            }

            #[tokio::test]
            async fn etcd_3_6() {
                on("3.6", stringify!($name), super::$name).await;
            }

            #[tokio::test]
            async fn etcd_3_7() {
                on("3.7", stringify!($name), super::$name).await;
            }
        })+
    };
}

on_each_etcd! {
    keys_transactions_and_compaction
    leases
    watches_with_fragments_progress_and_compaction
    status_hashes_alarms_defragmentation_and_snapshot
    membership_with_a_learner
    authentication_and_expiring_tokens
    mutual_tls_and_everything_that_can_be_wrong_with_it
    tls_to_a_plain_member
    certificates_that_etcd_makes_for_itself
}

/// It sleeps for long, and the rule is the same in all minors.
#[tokio::test]
async fn an_idle_connection_is_kept_and_a_quiet_watch_too() {
    on("3.6", "an_idle_connection_is_kept_and_a_quiet_watch_too", idle_and_quiet).await;
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// A running member; killed when dropped.
struct Etcd {
    child: Child,
    client_url: String,
    peer_url: String,
    name: String,
    _dir: tempfile::TempDir,
}

impl Etcd {
    fn start(program: &Program, name: &str, scheme: &str, cluster: &[&Etcd], extra: &[String]) -> Self {
        for _ in 0..5 {
            let dir = tempfile::tempdir().unwrap();
            let (client, peer) = (free_port(), free_port());
            let (client_url, peer_url) = (format!("{scheme}://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
            let mut etcd = Self::start_at(program, name, client_url, peer_url, cluster, extra, dir);
            if etcd.takes([client, peer]) {
                return etcd;
            }
        }
        panic!("etcd does not start");
    }

    /// Waits until its ports are open; false when it ended, as where another test's process was faster to take one.
    fn takes(&mut self, ports: [u16; 2]) -> bool {
        let open = |port: &u16| TcpStream::connect(("127.0.0.1", *port)).is_ok();
        for _ in 0..600 {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if ports.iter().all(open) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        // A listener may be the other one's: then it ends at once.
        std::thread::sleep(Duration::from_millis(200));
        self.child.try_wait().unwrap().is_none()
    }

    fn start_at(
        program: &Program,
        name: &str,
        client_url: String,
        peer_url: String,
        cluster: &[&Etcd],
        extra: &[String],
        dir: tempfile::TempDir,
    ) -> Self {
        let mut initial = vec![format!("{name}={peer_url}")];
        initial.extend(cluster.iter().map(|member| format!("{}={}", member.name, member.peer_url)));
        let state = if cluster.is_empty() { "new" } else { "existing" };
        let child = Command::new(&program.path)
            .args(["--name", name, "--initial-cluster-state", state, "--log-level", "error", "--unsafe-no-fsync"])
            .args(["--initial-cluster", &initial.join(","), "--initial-advertise-peer-urls", &peer_url])
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url, "--listen-peer-urls", &peer_url])
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .args(extra)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, client_url, peer_url, name: name.to_owned(), _dir: dir }
    }

    /// Connects once the member serves.
    async fn client(&self, options: &ConnectOptions) -> Client {
        for _ in 0..600 {
            if let Ok(client) = Client::connect(endpoint(&self.client_url), options).await
                && client.status().await.is_ok_and(|status| status.leader.is_some())
            {
                return client;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("etcd did not start at {}", self.client_url);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().unwrap();
    }
}

async fn single(program: &Program, extra: &[&str]) -> (Etcd, Client) {
    let extra: Vec<String> = extra.iter().map(ToString::to_string).collect();
    let etcd = Etcd::start(program, "one", "http", &[], &extra);
    let client = etcd.client(&ConnectOptions::default()).await;
    (etcd, client)
}

async fn keys_transactions_and_compaction(program: Program) {
    let (_etcd, client) = single(&program, &[]).await;
    assert_eq!(client.linearizable_read().await.unwrap().revision, Revision(1));
    let put = client.put(PutRequest::new("/a", "1")).await.unwrap();
    assert_eq!(put.header.revision, Revision(2));
    let replaced = client.put(PutRequest { prev_kv: true, ..PutRequest::new("/a", "2") }).await.unwrap();
    assert_eq!(replaced.prev_kv.unwrap().value, "1");

    let txn = Txn {
        compare: vec![
            Compare { key: "/a".into(), op: CompareOp::Equal, target: CompareTarget::Value("2".into()) },
            Compare { key: "/a".into(), op: CompareOp::Greater, target: CompareTarget::Version(1) },
            Compare { key: "/a".into(), op: CompareOp::Less, target: CompareTarget::ModRevision(Revision(9)) },
            Compare { key: "/a".into(), op: CompareOp::Equal, target: CompareTarget::Lease(LeaseId(0)) },
            Compare { key: "/a".into(), op: CompareOp::NotEqual, target: CompareTarget::CreateRevision(Revision(9)) },
            Compare::absent("/b"),
        ],
        then: vec![
            TxnOp::Put(PutRequest::new("/b", "x")),
            TxnOp::Range(RangeRequest::new(KeyRange::prefix("/"))),
            TxnOp::Delete(DeleteRequest { prev_kv: true, ..DeleteRequest::new(KeyRange::single("/a")) }),
        ],
        or_else: vec![],
    };
    let done = client.txn(txn.clone()).await.unwrap();
    assert!(done.succeeded);
    assert_eq!((done.header.revision, done.results.len()), (Revision(4), 3));
    assert!(matches!(&done.results[1], TxnResult::Range { kvs, count: 2, .. } if kvs.len() == 2));
    assert!(matches!(&done.results[2], TxnResult::Delete { deleted: 1, prev_kvs } if prev_kvs[0].value == "2"));
    assert!(!client.txn(txn).await.unwrap().succeeded);

    let old = client.range(RangeRequest { revision: Some(Revision(2)), ..RangeRequest::new(KeyRange::single("/a")) }).await.unwrap();
    assert_eq!((old.kvs[0].value.as_ref(), old.kvs[0].version, old.header.revision), (&b"1"[..], 1, Revision(4)));
    let gone = client.delete_range(DeleteRequest { prev_kv: true, ..DeleteRequest::new(KeyRange::prefix("/")) }).await.unwrap();
    assert_eq!((gone.deleted, gone.prev_kvs.len()), (1, 1));

    client.compact(Revision(3), true).await.unwrap();
    let read = |revision| RangeRequest { revision: Some(Revision(revision)), ..RangeRequest::new(KeyRange::all()) };
    assert_eq!(*client.range(read(2)).await.unwrap_err().kind(), ErrorKind::Compacted(None));
    assert_eq!(*client.range(read(99)).await.unwrap_err().kind(), ErrorKind::FutureRevision);
    assert_eq!(*client.compact(Revision(3), false).await.unwrap_err().kind(), ErrorKind::Compacted(None));
}

async fn leases(program: Program) {
    let (_etcd, client) = single(&program, &[]).await;
    let lease = client.lease_grant(Duration::from_secs(600), Some(LeaseId(0x77))).await.unwrap();
    assert_eq!((lease.id, lease.ttl), (LeaseId(0x77), Duration::from_secs(600)));
    let error = client.lease_grant(Duration::from_secs(600), Some(LeaseId(0x77))).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Rpc { code: Code::FailedPrecondition, .. }), "{error}");
    let chosen = client.lease_grant(Duration::from_secs(30), None).await.unwrap();
    client.put(PutRequest { lease: lease.id, ..PutRequest::new("/leased", "v") }).await.unwrap();
    let kv = client.range(RangeRequest::new(KeyRange::single("/leased"))).await.unwrap().kvs.remove(0);
    assert_eq!(kv.lease, LeaseId(0x77));
    let state = client.lease_time_to_live(lease.id, true).await.unwrap();
    assert_eq!((state.granted, state.keys), (Duration::from_secs(600), vec!["/leased".into()]));
    assert!(state.remaining.unwrap() > Duration::from_secs(500));
    let mut all = client.leases().await.unwrap();
    all.sort_unstable();
    assert!(all.len() == 2 && all.contains(&chosen.id));
    client.lease_revoke(lease.id).await.unwrap();
    assert_eq!(client.lease_time_to_live(lease.id, true).await.unwrap().remaining, None);
    assert_eq!(*client.lease_revoke(lease.id).await.unwrap_err().kind(), ErrorKind::LeaseNotFound);
    let orphan = PutRequest { lease: LeaseId(0x99), ..PutRequest::new("/x", "") };
    assert_eq!(*client.put(orphan).await.unwrap_err().kind(), ErrorKind::LeaseNotFound);
}

async fn watches_with_fragments_progress_and_compaction(program: Program) {
    let (_etcd, client) = single(&program, &["--max-request-bytes=8192"]).await;
    let request = WatchRequest { start_revision: Some(Revision(2)), prev_kv: true, ..WatchRequest::new(KeyRange::all()) };
    let mut stream = client.watch(request.clone()).await.unwrap();
    client.put(PutRequest::new("/a", "1")).await.unwrap();
    client.put(PutRequest::new("/a", "2")).await.unwrap();
    client.delete_range(DeleteRequest::new(KeyRange::single("/a"))).await.unwrap();
    let mut events = Vec::new();
    while events.len() < 3 {
        match stream.next().await.unwrap().unwrap() {
            WatchMessage::Events { events: more, .. } => events.extend(more),
            WatchMessage::Progress { .. } => panic!("not asked for"),
        }
    }
    assert!(matches!(&events[1], WatchEvent::Put { kv, prev: Some(prev) } if kv.value == "2" && prev.value == "1"));
    assert!(matches!(&events[2], WatchEvent::Delete { kv, prev: Some(_) } if kv.mod_revision == Revision(4)));
    assert!(stream.request_progress().await);
    match stream.next().await.unwrap().unwrap() {
        WatchMessage::Progress { header } => assert_eq!(header.revision, Revision(4)),
        other => panic!("{other:?}"),
    }

    // One revision larger than a message (limit for requests + 512 KiB, watch.go): the deletion of 100 keys, each with what
    // it replaced. It must come in fragments that join to the whole.
    for at in 0..100 {
        client.put(PutRequest::new(format!("/big/{at:02}"), vec![b'v'; 7000])).await.unwrap();
    }
    client.delete_range(DeleteRequest::new(KeyRange::prefix("/big/"))).await.unwrap();
    let mut late = client.watch(WatchRequest { start_revision: Some(Revision(5)), ..request }).await.unwrap();
    let (mut seen, mut fragments) = (Vec::new(), 0);
    while seen.len() < 200 {
        if let WatchMessage::Events { events, more, .. } = late.next().await.unwrap().unwrap() {
            seen.extend(events.iter().map(|event| event.kv().mod_revision.0));
            fragments += usize::from(more && seen.last() == Some(&105));
        }
    }
    assert_eq!(seen, (5..105).chain([105; 100]).collect::<Vec<_>>());
    assert!(fragments > 0, "nothing was cut");

    client.compact(Revision(30), true).await.unwrap();
    let below = WatchRequest { start_revision: Some(Revision(10)), ..WatchRequest::new(KeyRange::all()) };
    let error = client.watch(below).await.unwrap().next().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Compacted(Some(Revision(30))));
}

async fn status_hashes_alarms_defragmentation_and_snapshot(program: Program) {
    let (_etcd, client) = single(&program, &["--quota-backend-bytes=4000000"]).await;
    let status = client.status().await.unwrap();
    assert_eq!(status.leader, Some(status.header.member_id));
    assert!(status.db_size > 0 && status.raft_applied_index > 0 && status.errors.is_empty());
    for at in 0..20 {
        client.put(PutRequest::new(format!("/k{at}"), vec![7; 100_000])).await.unwrap();
    }
    let limit = Duration::from_secs(10);
    let newest = client.hash_kv(None, limit).await.unwrap();
    let asked = client.hash_kv(Some(newest.header.revision), limit).await.unwrap();
    assert_eq!((newest.hash, newest.compact_revision), (asked.hash, asked.compact_revision));

    let (database, summary) = drain_from(&client, SnapshotLimits::default()).await.unwrap();
    assert_eq!(summary.database_size, database.len() as u64);
    // Magic of the first meta page (bbolt page.go): 0xED0CDAED, little-endian, after the 16-byte page header.
    assert_eq!(database[16..20], [0xed, 0xda, 0x0c, 0xed]);
    assert_eq!(status.storage_version, summary.storage_version);

    let full = loop {
        match client.put(PutRequest::new("/fill", vec![1; 1_000_000])).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(*full.kind(), ErrorKind::NoSpace);
    let alarms = raised(&client).await;
    assert_eq!((alarms.len(), alarms[0].kind, alarms[0].member), (1, AlarmKind::NoSpace, status.header.member_id));
    assert!(client.status().await.unwrap().errors.iter().any(|error| error.contains("NOSPACE")));
    drain_from(&client, SnapshotLimits::default()).await.unwrap();
    let revision = client.linearizable_read().await.unwrap().revision;
    client.delete_range(DeleteRequest::new(KeyRange::all())).await.unwrap();
    client.compact(Revision(revision.0 + 1), true).await.unwrap();
    client.defragment(Duration::from_secs(30)).await.unwrap();
    assert_eq!(client.disarm(alarms[0].member, alarms[0].kind).await.unwrap(), alarms);
    assert!(client.alarms().await.unwrap().is_empty());
    client.put(PutRequest::new("/again", "v")).await.unwrap();
    assert_eq!(*client.hash_kv(Some(Revision(2)), limit).await.unwrap_err().kind(), ErrorKind::Compacted(None));
    assert_eq!(*client.hash_kv(Some(Revision(9999)), limit).await.unwrap_err().kind(), ErrorKind::FutureRevision);
}

/// The alarms once there are any: where the quota is found exceeded only while the write is applied, the refusal comes before the alarm.
async fn raised(client: &Client) -> Vec<Alarm> {
    for _ in 0..300 {
        let alarms = client.alarms().await.unwrap();
        if !alarms.is_empty() {
            return alarms;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no alarm was raised");
}

async fn membership_with_a_learner(program: Program) {
    let (one, client) = single(&program, &[]).await;
    let peer_url = format!("http://127.0.0.1:{}", free_port());
    let added = client.member_add(vec![peer_url.clone()], true).await.unwrap();
    assert!(added.member.is_learner && !added.member.has_started());
    assert_eq!((added.list.members.len(), &added.member.peer_urls), (2, &vec![peer_url.clone()]));
    let error = client.member_add(vec!["http://127.0.0.1:1".into()], true).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::TooManyLearners);
    assert_eq!(*client.member_promote(added.member.id).await.unwrap_err().kind(), ErrorKind::LearnerNotReady);
    assert_eq!(*client.member_remove(MemberId(1)).await.unwrap_err().kind(), ErrorKind::MemberNotFound);

    let client_url = format!("http://127.0.0.1:{}", free_port());
    let dir = tempfile::tempdir().unwrap();
    let two = Etcd::start_at(&program, "two", client_url, peer_url, &[&one], &[], dir);
    let learner = two.client(&ConnectOptions::default()).await;
    assert!(learner.status().await.unwrap().is_learner);
    assert_eq!(*learner.linearizable_read().await.unwrap_err().kind(), ErrorKind::LearnerUnsupported);
    // From 3.5 on a learner streams snapshots: a source of backups without a vote.
    match drain_from(&learner, SnapshotLimits::default()).await {
        Ok(_) => assert_ne!(program.minor, "3.4"),
        Err(error) => assert_eq!((program.minor, error.kind()), ("3.4", &ErrorKind::LearnerUnsupported)),
    }
    let mut promoted = client.member_promote(added.member.id).await;
    for _ in 0..300 {
        if promoted.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        promoted = client.member_promote(added.member.id).await;
    }
    assert!(promoted.unwrap().members.iter().all(|member| !member.is_learner));
    // The leader knows of the promotion first; a member that does not ignores the leader's request to take over.
    for _ in 0..300 {
        if !learner.status().await.unwrap().is_learner {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(*learner.move_leader(added.member.id).await.unwrap_err().kind(), ErrorKind::NotLeader);
    client.move_leader(added.member.id).await.unwrap();
    assert_eq!(learner.status().await.unwrap().leader, Some(added.member.id));
    assert_eq!(client.members(true).await.unwrap().members.len(), 2);
    drop(two);
    let error = client.linearizable_read().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Timeout(_) | ErrorKind::Unavailable(_) | ErrorKind::NoLeader), "{error}");
    drain_from(&client, SnapshotLimits::default()).await.unwrap();
}

async fn authentication_and_expiring_tokens(program: Program) {
    let (etcd, open) = single(&program, &["--auth-token-ttl=1"]).await;
    for user in ["root", "reader"] {
        open.user_add(user, &format!("{user}-password").into()).await.unwrap();
    }
    open.role_add("root").await.unwrap();
    open.user_grant_role("root", "root").await.unwrap();
    open.auth_enable().await.unwrap();

    let error = open.linearizable_read().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unauthenticated(_)), "{error}");
    let login = |user: &str, password: &str| {
        let credentials = Credentials { user: user.into(), password: password.to_owned().into() };
        ConnectOptions { credentials: Some(credentials), ..ConnectOptions::default() }
    };
    let wrong = Client::connect(endpoint(&etcd.client_url), &login("root", "no")).await.unwrap();
    assert_eq!(*wrong.linearizable_read().await.unwrap_err().kind(), ErrorKind::AuthenticationFailed);
    let reader = Client::connect(endpoint(&etcd.client_url), &login("reader", "reader-password")).await.unwrap();
    let error = reader.snapshot(SnapshotLimits::default()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::PermissionDenied(_)), "{error}");
    let error = reader.watch(WatchRequest::new(KeyRange::all())).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::PermissionDenied(_)), "{error}");

    let root = Client::connect(endpoint(&etcd.client_url), &login("root", "root-password")).await.unwrap();
    root.put(PutRequest::new("/a", "1")).await.unwrap();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(2500)).await;
        drain_from(&root, SnapshotLimits::default()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(2500)).await;
    root.watch(WatchRequest::new(KeyRange::all())).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    root.user_add("another", &"pw".to_owned().into()).await.unwrap();
    root.linearizable_read().await.unwrap();
    root.auth_disable().await.unwrap();
    open.linearizable_read().await.unwrap();
}

struct Pki {
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "etcd-ca");
        let key = KeyPair::generate().unwrap();
        let ca_pem = params.self_signed(&key).unwrap().pem();
        Self { ca_pem, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn options(&self, client: Option<(String, String)>) -> ConnectOptions {
        let (cert, key) = client.unzip();
        let tls = TlsOptions {
            ca_pem: Some(self.ca_pem.clone().into_bytes()),
            cert_pem: cert.map(String::into_bytes),
            key_pem: key.map(|key| Zeroizing::new(key.into_bytes())),
            ..TlsOptions::default()
        };
        ConnectOptions { tls: Some(tls), ..ConnectOptions::default() }
    }
}

async fn failure(url: &str, options: &ConnectOptions) -> ErrorKind {
    match Client::connect(endpoint(url), options).await {
        Err(error) => error.kind().clone(),
        Ok(client) => client.status().await.expect_err("must not be served").kind().clone(),
    }
}

async fn mutual_tls_and_everything_that_can_be_wrong_with_it(program: Program) {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let (cert, key) = pki.issue("127.0.0.1");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
    let extra = [
        flag("cert-file", &write("cert", &cert)),
        flag("key-file", &write("key", &key)),
        flag("trusted-ca-file", &write("ca", &pki.ca_pem)),
        "--client-cert-auth".to_owned(),
    ];
    let etcd = Etcd::start(&program, "one", "https", &[], &extra);
    let client = etcd.client(&pki.options(Some(pki.issue("client")))).await;
    client.put(PutRequest::new("/a", vec![1; 1 << 20])).await.unwrap();
    drain_from(&client, SnapshotLimits::default()).await.unwrap();

    for _ in 0..5 {
        let kind = failure(&etcd.client_url, &pki.options(None)).await;
        assert!(matches!(kind, ErrorKind::Link(LinkFault::TlsClientCertificate(_))), "{kind:?}");
        let foreign = Pki::new().issue("client");
        let kind = failure(&etcd.client_url, &pki.options(Some(foreign))).await;
        assert!(matches!(kind, ErrorKind::Link(LinkFault::TlsClientCertificate(_))), "{kind:?}");
    }
    let kind = failure(&etcd.client_url, &Pki::new().options(None)).await;
    assert!(matches!(kind, ErrorKind::Link(LinkFault::TlsCa(_))), "{kind:?}");
    let by_name = etcd.client_url.replace("127.0.0.1", "localhost");
    let kind = failure(&by_name, &pki.options(Some(pki.issue("client")))).await;
    assert!(matches!(kind, ErrorKind::Link(LinkFault::WrongServerName { .. })), "{kind:?}");
    let plain = etcd.client_url.replace("https", "http");
    let kind = failure(&plain, &ConnectOptions::default()).await;
    assert!(matches!(kind, ErrorKind::Link(LinkFault::SchemeMismatch { spoke: Scheme::Http, .. })), "{kind:?}");
}

async fn tls_to_a_plain_member(program: Program) {
    let (etcd, _client) = single(&program, &[]).await;
    let kind = failure(&etcd.client_url.replace("http", "https"), &Pki::new().options(None)).await;
    assert!(matches!(kind, ErrorKind::Link(LinkFault::SchemeMismatch { spoke: Scheme::Https, .. })), "{kind:?}");
}

async fn certificates_that_etcd_makes_for_itself(program: Program) {
    let etcd = Etcd::start(&program, "one", "https", &[], &["--auto-tls".to_owned()]);
    let skip = TlsOptions { insecure_skip_verify: true, ..TlsOptions::default() };
    let client = etcd.client(&ConnectOptions { tls: Some(skip), ..ConnectOptions::default() }).await;
    drain_from(&client, SnapshotLimits::default()).await.unwrap();
    // Its key is P-521, which cannot be checked: the error must say what to look for.
    let kind = failure(&etcd.client_url, &Pki::new().options(None)).await;
    assert!(matches!(&kind, ErrorKind::Link(LinkFault::Tls(fact)) if fact.contains("P-521")), "{kind:?}");
}

async fn idle_and_quiet(program: Program) {
    let (etcd, _) = single(&program, &[]).await;
    let client = etcd.client(&ConnectOptions { keepalive_time: Duration::ZERO, ..ConnectOptions::default() }).await;
    let mut stream = client.watch(WatchRequest::new(KeyRange::all())).await.unwrap();
    let member = client.status().await.unwrap().header.member_id;
    // Longer than two probes at the shortest interval: etcd would have answered wrong ones with GOAWAY.
    let quiet = tokio::time::timeout(Duration::from_secs(24), stream.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    client.put(PutRequest::new("/a", "1")).await.unwrap();
    assert!(matches!(stream.next().await.unwrap().unwrap(), WatchMessage::Events { .. }));
    assert_eq!(client.status().await.unwrap().header.member_id, member);
}
