//! Damaged files: every parser returns, and no edit makes a sound file unsound.

#![allow(clippy::unwrap_used)]

use bbolt::build::Builder;
use bbolt::{Database, Memory};
use etcd_store::cluster::{ClusterSpec, parse_initial_cluster};
use etcd_store::id::Revision;
use etcd_store::raft_snapshot::RaftSnapshot;
use etcd_store::row::{KeyValue, RowKey};
use etcd_store::{Options, fuzzing, inspect};

/// Sound bytes and what parses them.
type Case<'a> = (&'a [u8], fn(&[u8]));

fn image() -> Vec<u8> {
    let memory = Memory::default();
    let mut builder = Builder::new(&memory, 1024).unwrap();
    builder.inline_small_buckets(true);
    builder.bucket(b"alarm", 0).unwrap();
    builder.item(&[8, 5, 16, 1], b"").unwrap();
    builder.bucket(b"key", 0).unwrap();
    for main in 2..40 {
        let key = [b'k', (main % 7) as u8];
        let tombstone = main % 11 == 0;
        let put = KeyValue { key: &key, create_revision: main, mod_revision: main, version: 1, value: &[b'v'; 50], lease: main % 3 };
        let value = if tombstone { KeyValue::tombstone(&key) } else { put };
        builder.item(&RowKey { main: Revision(main), sub: 0, tombstone }.encode(), &value.encode()).unwrap();
    }
    builder.bucket(b"lease", 0).unwrap();
    builder.item(&1_i64.to_be_bytes(), &[8, 1, 16, 60]).unwrap();
    builder.bucket(b"members", 0).unwrap();
    builder.item(b"1", br#"{"id":1,"peerURLs":["http://a:1"]}"#).unwrap();
    builder.bucket(b"meta", 0).unwrap();
    builder.item(b"confState", br#"{"voters":[1],"auto_leave":false}"#).unwrap();
    builder.item(b"scheduledCompactRev", &RowKey::put(Revision(20), 0).encode()).unwrap();
    builder.finish(false).unwrap();
    memory.into_bytes()
}

#[test]
fn every_flipped_bit_of_a_database_is_survived() {
    let sound = image();
    let whole = inspect(&Database::open(sound.clone()).unwrap(), &Options::default()).unwrap();
    assert_eq!((whole.rows, whole.alarms.len(), whole.members.len()), (38, 1, 1));
    for at in 0..sound.len() {
        let mut damaged = sound.clone();
        damaged[at] ^= 1 << (at % 8);
        fuzzing::inspect(&damaged);
        fuzzing::edits(&damaged);
        if at % 16 == 0 {
            fuzzing::hash_kv(&[&[22, 31][..], &damaged].concat());
        }
    }
}

#[test]
fn every_truncation_of_a_database_is_survived() {
    let sound = image();
    for length in (0..sound.len()).step_by(64) {
        fuzzing::inspect(&sound[..length]);
        fuzzing::edits(&sound[..length]);
    }
    fuzzing::inspect(&[&sound[..], &[7; 32]].concat());
    fuzzing::edits(&sound);
}

#[test]
fn small_formats_survive_mutations_of_what_is_sound() {
    let cluster = ClusterSpec::new("t", parse_initial_cluster("a=http://a:1,b=http://b:1").unwrap()).unwrap();
    let wal = etcd_store::wal::bootstrap(&cluster, cluster.members()[0].id);
    let snap = RaftSnapshot::bootstrap(&cluster).encode();
    let member = cluster.records()[0].to_json().into_bytes();
    let row = KeyValue { key: b"k", create_revision: 2, mod_revision: 3, version: 4, value: b"v", lease: -1 }.encode();
    let cases: [Case<'_>; 5] = [
        (&wal, fuzzing::wal),
        (&snap, fuzzing::raft_snapshot),
        (&member, fuzzing::json),
        (&row, fuzzing::row),
        (b"a=http://a:1,b=http://[::1]:2", fuzzing::initial_cluster),
    ];
    for (sound, parse) in cases {
        for at in 0..sound.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff, sound[at] ^ 1, sound[at].wrapping_add(1)] {
                let mut damaged = sound.to_vec();
                damaged[at] = value;
                parse(&damaged);
                parse(&damaged[..at]);
            }
        }
    }
}

#[test]
fn hostile_values_in_small_buckets_are_survived() {
    let values: [&[u8]; 5] =
        [b"", b"\x08\x01\x10\x3c", br#"{"voters":[1],"auto_leave":false}"#, br#"{"id":1,"peerURLs":["http://a:1"]}"#, &[0xff; 90]];
    for value in values {
        for cut in 0..=value.len() {
            for key_length in [1, 8, 17] {
                fuzzing::values(&[&[key_length], &[b'0'; 17][..usize::from(key_length)], &value[..cut]].concat());
            }
        }
    }
}
