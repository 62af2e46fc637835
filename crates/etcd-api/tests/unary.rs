//! Unary calls against the double, whose field numbers are written down a second time, by hand.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::{Duration, Instant};

use common::{connect, database, endpoint};
use etcd_api::testing::{Behaviour, Failure, MisbehavingEtcd, Script, ScriptHash, ScriptMember};
use etcd_api::{Alarm, AlarmKind, Client, ConnectOptions, ErrorClass, ErrorKind, KeyRange, LinkFault, PutRequest, RangeRequest};
use etcd_store::id::{ClusterId, MemberId, Revision};

async fn double(script: Script) -> (MisbehavingEtcd, Client) {
    let double = MisbehavingEtcd::start(Behaviour::Sound, script).await.unwrap();
    let client = connect(&double).await;
    (double, client)
}

#[tokio::test]
async fn status_has_every_field() {
    let script = Script {
        cluster_id: u64::MAX - 1,
        member_id: 7,
        revision: 1 << 40,
        raft_term: 9,
        leader: 8,
        raft_index: 100,
        raft_applied_index: 99,
        db_size: Some(3 << 30),
        db_size_in_use: Some(1 << 30),
        errors: vec!["etcdserver: no leader".into(), "memberID:7 alarm:NOSPACE".into()],
        is_learner: true,
        ..Script::default()
    };
    let (double, client) = double(script).await;
    let status = client.status().await.unwrap();
    assert_eq!(status.header.cluster_id, ClusterId(u64::MAX - 1));
    assert_eq!(status.header.member_id, MemberId(7));
    assert_eq!((status.header.revision, status.header.raft_term), (Revision(1 << 40), 9));
    assert_eq!((status.version.as_str(), status.leader), ("3.6.14", Some(MemberId(8))));
    assert_eq!((status.raft_index, status.raft_applied_index, status.raft_term), (100, 99, 9));
    assert_eq!((status.db_size, status.db_size_in_use, status.db_size_quota), (3 << 30, 1 << 30, Some(2 << 30)));
    assert_eq!(status.errors.len(), 2);
    assert!(status.is_learner);
    assert_eq!(status.storage_version.as_deref(), Some("3.6.0"));
    assert!(!status.downgrade.unwrap().enabled);

    double.change(|script| {
        script.leader = 0;
        script.storage_version.clear();
    });
    let old = client.status().await.unwrap();
    assert_eq!((old.leader, old.storage_version, old.db_size_quota, old.downgrade), (None, None, None, None));
}

#[tokio::test]
async fn a_database_size_below_zero_is_no_answer() {
    let (_double, client) = double(Script { db_size: Some(-1), ..Script::default() }).await;
    let error = client.status().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Protocol(_)), "{error}");
    assert_eq!(error.class(), ErrorClass::Misbehaved);
}

#[tokio::test]
async fn members_keep_their_order_and_what_has_not_started() {
    let member = |id, name: &str| ScriptMember {
        id,
        name: name.into(),
        peer_urls: vec![format!("https://10.0.0.{id}:2380"), "https://[fd00::1]:2380".into()],
        client_urls: if name.is_empty() { vec![] } else { vec![format!("https://10.0.0.{id}:2379")] },
        is_learner: name.is_empty(),
    };
    let (_double, client) = double(Script { members: vec![member(2, "b"), member(1, "")], ..Script::default() }).await;
    let list = client.members(true).await.unwrap();
    assert_eq!(list.members.len(), 2);
    assert!(list.members[0].has_started() && !list.members[0].is_learner);
    assert_eq!(list.members[0].client_urls, ["https://10.0.0.2:2379"]);
    assert!(!list.members[1].has_started() && list.members[1].is_learner);
    assert_eq!(list.members[1].id, MemberId(1));
    assert_eq!(list.members[1].peer_urls.len(), 2);
}

#[tokio::test]
async fn ranges_page_count_and_leave_values_out() {
    let kvs = (0..10_u8).map(|i| (vec![b'/', b'0' + i], vec![i; 3])).collect();
    let (_double, client) = double(Script { kvs, revision: 5, ..Script::default() }).await;
    let all = RangeRequest::new(KeyRange::prefix("/"));
    let page = client.range(RangeRequest { limit: 4, ..all.clone() }).await.unwrap();
    assert_eq!((page.kvs.len(), page.more, page.count, page.header.revision), (4, true, 10, Revision(5)));
    assert_eq!((&page.kvs[3].key[..], &page.kvs[3].value[..]), (&b"/3"[..], &[3, 3, 3][..]));
    let keys = client.range(RangeRequest { keys_only: true, ..all.clone() }).await.unwrap();
    assert!(keys.kvs.len() == 10 && keys.kvs.iter().all(|kv| kv.value.is_empty()));
    let count = client.range(RangeRequest { count_only: true, ..all }).await.unwrap();
    assert_eq!((count.kvs.len(), count.count), (0, 10));
    let header = client.linearizable_read().await.unwrap();
    assert_eq!(header.revision, Revision(5));
    client.put(PutRequest::new("/a", "b")).await.unwrap();
    assert_eq!(client.linearizable_read().await.unwrap().revision, Revision(6));
}

#[tokio::test]
async fn an_answer_of_many_megabytes_is_taken() {
    let value = database(64 << 10);
    let kvs = [(b"big".to_vec(), value.clone())].into();
    let (_double, client) = double(Script { kvs, ..Script::default() }).await;
    let answer = client.range(RangeRequest::new(KeyRange::all())).await.unwrap();
    assert!(answer.kvs[0].value == value, "32 MiB came back different");
}

#[tokio::test]
async fn hashes_are_told_apart_from_compacted_and_future() {
    let hash = ScriptHash { hash: u32::MAX, compact_revision: 3 };
    let script = Script { revision: 9, hash_kv: [(9, hash), (7, ScriptHash { hash: 1, compact_revision: 3 })].into(), ..Script::default() };
    let (double, client) = double(script).await;
    let limit = Duration::from_secs(5);
    let newest = client.hash_kv(None, limit).await.unwrap();
    assert_eq!((newest.hash, newest.compact_revision, newest.hash_revision), (u32::MAX, Revision(3), Some(Revision(9))));
    assert_eq!(client.hash_kv(Some(Revision(7)), limit).await.unwrap().hash, 1);
    assert_eq!(*client.hash_kv(Some(Revision(2)), limit).await.unwrap_err().kind(), ErrorKind::Compacted(None));
    assert_eq!(*client.hash_kv(Some(Revision(10)), limit).await.unwrap_err().kind(), ErrorKind::FutureRevision);
    double.change(|script| script.storage_version.clear());
    assert_eq!(client.hash_kv(None, limit).await.unwrap().hash_revision, None);
}

#[tokio::test]
async fn alarms_are_listed_and_disarmed_one_by_one() {
    let (_double, client) = double(Script { alarms: vec![(1, 1), (0xdead, 2), (2, 1)], ..Script::default() }).await;
    let alarm = |member, kind| Alarm { member: MemberId(member), kind };
    let listed = client.alarms().await.unwrap();
    assert_eq!(listed, [alarm(1, AlarmKind::NoSpace), alarm(0xdead, AlarmKind::Corrupt), alarm(2, AlarmKind::NoSpace)]);
    let gone = client.disarm(MemberId(0xdead), AlarmKind::Corrupt).await.unwrap();
    assert_eq!(gone, [alarm(0xdead, AlarmKind::Corrupt)]);
    assert_eq!(client.alarms().await.unwrap().len(), 2);
    assert_eq!(client.disarm(MemberId(1), AlarmKind::Corrupt).await.unwrap(), []);
}

#[tokio::test]
async fn a_call_the_server_does_not_know_says_so() {
    let (_double, client) = double(Script::default()).await;
    let error = client.move_leader(MemberId(1)).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unimplemented(_)), "{error}");
    assert_eq!(error.call(), Some("MoveLeader"));
}

#[tokio::test]
async fn a_call_has_its_deadline_and_tells_it_to_the_server() {
    let mut script = Script::default();
    script.delay.insert("Status".into(), Duration::from_secs(60));
    let double = MisbehavingEtcd::start(Behaviour::Sound, script).await.unwrap();
    let limit = Duration::from_secs(2);
    let options = ConnectOptions { request_timeout: limit, ..ConnectOptions::default() };
    let client = Client::connect(endpoint(double.endpoint()), &options).await.unwrap();
    let started = Instant::now();
    let error = client.status().await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(*error.kind(), ErrorKind::Timeout(limit));
    assert_eq!(error.class(), ErrorClass::Unreachable);
    assert!(double.calls()[0].timeout.is_some());
    assert!(client.alarms().await.is_ok(), "the connection outlives a call's deadline");
}

#[tokio::test]
async fn etcd_s_refusals_are_typed_whichever_way_they_travel() {
    let refusals = [
        (9, "etcdserver: rpc not supported for learner", ErrorKind::LearnerUnsupported),
        (14, "etcdserver: no leader", ErrorKind::NoLeader),
        (8, "etcdserver: mvcc: database space exceeded", ErrorKind::NoSpace),
        (15, "etcdserver: corrupt cluster", ErrorKind::Corrupt),
        (9, "etcdserver: cluster ID mismatch", ErrorKind::ClusterIdMismatch),
    ];
    let (double, client) = double(Script::default()).await;
    for late_status in [false, true] {
        for (code, text, kind) in &refusals {
            double.change(|script| {
                script.late_status = late_status;
                script.fail.insert("Range".into(), Failure::new(*code, *text));
            });
            let error = client.linearizable_read().await.unwrap_err();
            assert_eq!(error.kind(), kind);
            assert_eq!(error.class(), ErrorClass::Refused);
            assert_eq!(error.endpoint().to_string(), double.endpoint());
        }
    }
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = Client::connect(endpoint(&address.to_string()), &ConnectOptions::default()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Link(LinkFault::Unreachable(_))), "{error}");
    assert_eq!((error.class(), error.call()), (ErrorClass::Unreachable, None));
    let error = Client::connect(endpoint("no-such-host.invalid:2379"), &ConnectOptions::default()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Link(LinkFault::Unreachable(_)) | ErrorKind::Timeout(_)), "{error}");
}

#[tokio::test]
async fn a_server_that_has_gone_is_unreachable_at_the_next_call_and_back_when_it_is_back() {
    let (double, client) = double(Script::default()).await;
    client.status().await.unwrap();
    let address = double.address();
    drop(double);
    // The connection may still look alive to the first call; the second must dial.
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let error = client.status().await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Unreachable, "{error}");
        kinds.push(error.kind().clone());
    }
    assert!(matches!(kinds[1], ErrorKind::Link(LinkFault::Unreachable(_))), "{kinds:?}");
    assert_eq!(address, client.endpoint().to_string().strip_prefix("http://").unwrap().parse().unwrap());
}

#[tokio::test]
async fn a_port_that_is_no_http2_says_what_it_is() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.read(&mut [0; 1024]).await;
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    });
    let client = Client::connect(endpoint(&address.to_string()), &ConnectOptions::default()).await.unwrap();
    let error = client.status().await.unwrap_err();
    server.await.unwrap();
    assert!(error.to_string().contains("HTTP/1"), "{error}");
}
