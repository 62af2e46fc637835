//! Database files and what lies beside them.

use bbolt::Memory;
use bbolt::build::Builder;
use etcd_store::cluster::{ClusterSpec, parse_initial_cluster};
use etcd_store::id::Revision;
use etcd_store::raft_snapshot::RaftSnapshot;
use etcd_store::row::{KeyValue, RowKey};

const SOUND: &str = "a seed is sound by construction";

/// A bucket's name, and its keys with their values in order.
type Bucket = (&'static [u8], Vec<(Vec<u8>, Vec<u8>)>);

fn build(page_size: u32, inline: bool, freelist: bool, content: &[Bucket]) -> Vec<u8> {
    let memory = Memory::default();
    let mut builder = Builder::new(&memory, page_size).expect(SOUND);
    builder.inline_small_buckets(inline);
    for (name, items) in content {
        builder.bucket(name, 0).expect(SOUND);
        for (key, value) in items {
            builder.item(key, value).expect(SOUND);
        }
    }
    builder.skip_pages(u64::from(freelist)).expect(SOUND);
    builder.finish(freelist).expect(SOUND);
    memory.into_bytes()
}

/// Files of several shapes: inline buckets, several levels, values that run over pages, with and without a list of free pages.
pub(crate) fn databases() -> Vec<Vec<u8>> {
    let keys = |count: u32, length: usize| (0..count).map(|n| (format!("k{n:04}").into_bytes(), vec![b'v'; length])).collect::<Vec<_>>();
    let small = [(&b"empty"[..], vec![]), (b"inline", keys(2, 20)), (b"tree", keys(60, 40)), (b"wide", keys(2, 1500))];
    let deep = [(&b"deep"[..], keys(900, 4))];
    let mut files = vec![
        build(1024, true, true, &small),
        build(1024, false, false, &small),
        build(4096, true, false, &[(b"one", keys(3, 10))]),
        build(1024, false, false, &deep),
    ];
    files.extend(snapshots().into_iter().take(1));
    files
}

/// The same behind scripts of an edit.
pub(crate) fn edits() -> Vec<Vec<u8>> {
    let script = |first: u8| {
        (0..24).map(|n: u8| n.wrapping_mul(37).wrapping_add(first) % if n.is_multiple_of(3) { 5 } else { 255 }).collect::<Vec<u8>>()
    };
    databases().iter().zip([1, 50, 90, 130, 200]).map(|(file, first)| [script(first), file.clone()].concat()).collect()
}

/// Scripts of edits beside a map.
pub(crate) fn models() -> Vec<Vec<u8>> {
    let script = |start: [u8; 4], step: u8| {
        let operations = (0..120_u8).flat_map(|n| [n.wrapping_mul(step), n.wrapping_mul(7), n.wrapping_mul(3), n.wrapping_mul(11)]);
        start.into_iter().chain(operations).collect::<Vec<u8>>()
    };
    vec![
        script([0, 0, 0, 0], 5),
        script([0, 2, 200, 20], 13),
        script([1, 135, 90, 60], 29),
        script([0, 8, 255, 3], 53),
        script([1, 3, 20, 255], 31),
    ]
}

/// Snapshot files as etcd makes them, with and without a trailer.
pub(crate) fn snapshots() -> Vec<Vec<u8>> {
    let mut long = build(1024, true, false, &etcd(60, 50));
    let short = build(1024, false, true, &etcd(6, 10));
    let whole_pages = build(4096, true, true, &etcd(3, 3));
    let with_trailer = [short.clone(), vec![7; 32]].concat();
    long.truncate(32 << 10);
    vec![long, short, whole_pages, with_trailer]
}

fn etcd(rows: i64, value: usize) -> [Bucket; 10] {
    let mut key = Vec::new();
    for main in 2..rows + 2 {
        let name = [b'k', (main % 7) as u8];
        let tombstone = main % 11 == 0;
        let put =
            KeyValue { key: &name, create_revision: main, mod_revision: main, version: 1, value: &vec![b'v'; value], lease: main % 3 };
        let written = if tombstone { KeyValue::tombstone(&name) } else { put };
        key.push((RowKey { main: Revision(main), sub: 0, tombstone }.encode().to_vec(), written.encode()));
    }
    let pair = |key: &[u8], value: &[u8]| (key.to_vec(), value.to_vec());
    let member = br#"{"id":1,"peerURLs":["http://a:1"],"name":"a","clientURLs":["http://a:2"]}"#;
    [
        (b"alarm", vec![pair(&[8, 5, 16, 1], b"")]),
        (b"auth", vec![pair(b"authEnabled", &[0]), pair(b"authRevision", &1_u64.to_be_bytes())]),
        (b"authRoles", vec![pair(b"root", b"\x0a\x04root")]),
        (b"authUsers", vec![pair(b"root", b"\x0a\x04root\x12\x03xyz\x1a\x04root")]),
        (b"cluster", vec![pair(b"clusterVersion", b"3.6.0"), pair(b"downgrade", br#"{"target-version":"3.5.0","enabled":true}"#)]),
        (b"key", key),
        (b"lease", vec![pair(&1_i64.to_be_bytes(), &[8, 1, 16, 60])]),
        (b"members", vec![pair(b"1", member)]),
        (b"members_removed", vec![pair(b"2", b"removed")]),
        (
            b"meta",
            vec![
                pair(b"confState", br#"{"voters":[1],"auto_leave":false}"#),
                pair(b"consistent_index", &9_u64.to_be_bytes()),
                pair(b"scheduledCompactRev", &RowKey::put(Revision(4), 0).encode()),
                pair(b"storageVersion", b"3.6.0"),
                pair(b"term", &2_u64.to_be_bytes()),
            ],
        ),
    ]
}

/// Snapshots behind the two revisions that a hash is asked for.
pub(crate) fn hash_kv() -> Vec<Vec<u8>> {
    snapshots().into_iter().zip([[0, 60], [0, 7], [3, 5], [5, 8]]).map(|(file, asked)| [asked.to_vec(), file].concat()).collect()
}

/// Keys and values of the small buckets, behind the length of the key.
pub(crate) fn values() -> Vec<Vec<u8>> {
    let pairs: [(&[u8], &[u8]); 8] = [
        (&1_i64.to_be_bytes(), &[8, 1, 16, 60]),
        (&[8, 5, 16, 1], b""),
        (b"root", b"\x0a\x04root\x12\x03xyz\x1a\x04root"),
        (b"8e9e05c52164694d", br#"{"id":10276657743932975437,"peerURLs":["http://a:1"],"name":"a"}"#),
        (b"1", br#"{"voters":[1],"voters_outgoing":[2],"learners":[3],"learners_next":[4],"auto_leave":true}"#),
        (b"v", b"3.6.0"),
        (b"d", br#"{"target-version":"3.5.0","enabled":true}"#),
        (b"r", &[0, 0, 0, 0, 0, 0, 0, 4, b'_', 0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    pairs.iter().map(|(key, value)| [&[key.len() as u8], *key, value].concat()).collect()
}

/// Rows, JSON values, initial clusters.
pub(crate) fn records() -> Vec<Vec<u8>> {
    let row = KeyValue { key: b"/registry/pods/a", create_revision: 2, mod_revision: 300, version: 4, value: b"v", lease: -1 };
    let spec = cluster();
    vec![
        row.encode(),
        KeyValue::tombstone(b"gone").encode(),
        RowKey { main: Revision(7), sub: 3, tombstone: true }.encode().to_vec(),
        spec.records()[0].to_json().into_bytes(),
        br#"{"voters":[1,2],"learners":[3],"auto_leave":false}"#.to_vec(),
        b"a=http://a:1,b=http://[::1]:2,b=https://c.example:3".to_vec(),
    ]
}

fn cluster() -> ClusterSpec {
    ClusterSpec::new("token", parse_initial_cluster("a=http://a:1,b=http://b:1").expect(SOUND)).expect(SOUND)
}

/// A segment as it stands in a restored member, and one with the zeros of its preallocation behind it.
pub(crate) fn wal() -> Vec<Vec<u8>> {
    let segment = etcd_store::wal::bootstrap(&cluster(), cluster().members()[0].id);
    vec![[segment.clone(), vec![0; 512]].concat(), segment]
}

/// The snapshot of a restored member.
pub(crate) fn raft_snapshots() -> Vec<Vec<u8>> {
    vec![RaftSnapshot::bootstrap(&cluster()).encode()]
}
