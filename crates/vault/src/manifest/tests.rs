#![allow(clippy::unwrap_used)]

use etcd_store::id::MemberId;
use proptest::prelude::*;

use super::*;
use crate::canonical::encode;

/// A manifest with every field filled.
pub(crate) fn example() -> Manifest {
    let at = |time: &str| time.parse::<Timestamp>().unwrap();
    let stored = |name: &str, role, size| StoredObject { name: name.parse().unwrap(), role, size, sha256: Sha256::of(name.as_bytes()) };
    let value = HashKvValue { hash: 0xdead_beef, revision: 123_456, compact_revision: 120_000 };
    Manifest {
        repository: "01D39ZY06FGSCTVN4T2V9PKHFZ".parse().unwrap(),
        cluster: "prod".parse().unwrap(),
        id: "20261121T020004Z-7qk2m9".parse().unwrap(),
        lineage: "0001-cdf818194e3a8c32-0".parse().unwrap(),
        lineage_check: LineageCheck::Compared,
        last_row_check: RowCheck::Same,
        older: false,
        unconfirmed: None,
        source: Source::Direct,
        clean: None,
        cluster_id: Some(ClusterId(0xcdf8_1819_4e3a_8c32)),
        member: Some(Member { id: MemberId(0x8e9e_05c5_2164_694d), name: "cp-1".into() }),
        versions: Versions { etcd: Some("3.5.30".into()), cluster: Some("3.5.0".into()), ..Versions::default() },
        revision: 123_456,
        compact_revision: CompactRevision { scheduled: 120_000, finished: 120_000 },
        raft: Raft { term: 7, index: 200_001 },
        epoch: 0,
        last_row: Some(LastRow { main: 123_456, sub: 0, sha256: Sha256::of(b"row") }),
        fingerprint: "6a1f2b3c-0000-4444-8888-123456789abc".parse().ok(),
        counts: Counts { rows: 5000, live_keys: 4000, leases: 31 },
        snapshot: SnapshotFile {
            db_size: 20 << 20,
            db_sha256: Sha256::of(b"db"),
            file_size: (20 << 20) + 32,
            file_sha256: Sha256::of(b"file"),
            in_use: Some(18 << 20),
        },
        layers: Layers::SEALED,
        sealing: Sealing {
            recipients: vec!["0123456789abcdef".parse().unwrap()],
            passphrase: false,
            extra_recipients: vec!["fedcba9876543210".parse().unwrap()],
        },
        objects: vec![
            stored("db.zst.age", Role::Snapshot, 5 << 20),
            stored("extra/machine-config.age", Role::Extra, 900),
            stored("frames.bin", Role::Frames, 200),
        ],
        hashkv: HashKv {
            verdict: HashKvVerdict::Match,
            computed: Some(value),
            answers: vec![HashKvAnswer {
                member: MemberId(0x8e9e_05c5_2164_694d),
                answer: Some(value),
                asked: Some(at("2026-11-21T02:00:09Z")),
            }],
        },
        proven: Proven { rung: Rung::Stored, at: Some(at("2026-11-21T02:00:12Z")) },
        cluster_state: ClusterState {
            leader: Some(MemberId(0x8e9e_05c5_2164_694d)),
            members: vec![MemberState { id: MemberId(0x8e9e_05c5_2164_694d), name: "cp-1".into(), learner: false, answered: true }],
            alarms: vec![Alarm { member: MemberId(1), alarm: "NOSPACE".into() }],
        },
        times: Times {
            started: at("2026-11-21T02:00:04.25Z"),
            opening_read: Some(at("2026-11-21T02:00:04.5Z")),
            stream_started: at("2026-11-21T02:00:05Z"),
            stream_ended: at("2026-11-21T02:00:08Z"),
            committed: at("2026-11-21T02:00:12Z"),
        },
        encryption_at_rest: Some(true),
        secrets: Default::default(),
        tool: Tool { version: "0.1.0".into() },
        tags: vec!["before-upgrade".parse().unwrap()],
        parents: vec![Parent { id: "20261120T200004Z-aaaaaa".parse().unwrap(), sha256: Sha256::of(b"parent") }],
        signer: Some("0123456789ABCDEF".parse().unwrap()),
        warnings: vec!["member cp-3 did not answer".into()],
    }
}

#[test]
fn what_is_written_is_read() {
    assert_eq!(Manifest::decode(&encode(&example()).unwrap()).unwrap(), example());
}

#[test]
fn every_flipped_byte_is_found() {
    let bytes = encode(&example()).unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        assert!(Manifest::decode(&damaged).is_err(), "byte {at}");
    }
}

#[test]
fn contradictions_are_refused() {
    type Change = fn(&mut Manifest);
    let changes: &[(&str, Change)] = &[
        ("revision", |m| m.revision = 0),
        ("compact_revision", |m| m.compact_revision.scheduled = m.revision + 1),
        ("compact_revision", |m| m.compact_revision.finished = i64::MIN),
        ("epoch", |m| m.epoch = 5),
        ("last_row", |m| m.last_row = Some(LastRow { main: m.revision + 1, sub: 0, sha256: Sha256::of(b"") })),
        ("file_size", |m| m.snapshot.file_size += 1),
        ("file_size", |m| m.snapshot.db_size = u64::MAX),
        ("objects", |m| m.objects.clear()),
        ("objects", |m| m.objects.reverse()),
        ("objects", |m| m.objects.push(m.objects[2].clone())),
        ("objects", |m| m.objects[0].role = Role::Extra),
        ("objects", |m| m.layers = Layers { zstd: true, age: false }),
        ("sealing", |m| m.sealing.recipients.clear()),
        ("sealing", |m| m.sealing.passphrase = true),
        ("warnings", |m| m.warnings = vec![String::new(); 257]),
        ("control", |m| m.cluster_state.members[0].name = "\u{1b}[2J".into()),
        ("too long", |m| m.versions.etcd = Some("3".repeat(1025))),
    ];
    for (field, change) in changes {
        let mut manifest = example();
        change(&mut manifest);
        let why = manifest.check().unwrap_err();
        assert!(why.contains(field), "{field}: {why}");
    }
}

#[test]
fn ids_have_one_spelling() {
    let text = String::from_utf8(encode(&example()).unwrap()).unwrap();
    assert!(text.contains("\"8e9e05c52164694d\""));
    let member = |id: &str| serde_json::from_str::<Member>(&format!(r#"{{"id":"{id}","name":""}}"#));
    assert!(member("8e9e05c52164694d").is_ok());
    assert!(member("8E9E05C52164694D").is_err());
    assert!(member("1").is_err());
}

#[test]
fn a_bare_file_says_what_it_does_not_know() {
    let mut manifest = example();
    manifest.source = Source::File;
    (manifest.cluster_id, manifest.member, manifest.last_row, manifest.fingerprint) = (None, None, None, None);
    manifest.lineage = "0001-file-0".parse().unwrap();
    manifest.cluster_state = ClusterState::default();
    manifest.hashkv = HashKv { verdict: HashKvVerdict::NotOffered, computed: None, answers: vec![] };
    assert_eq!(Manifest::decode(&encode(&manifest).unwrap()).unwrap(), manifest);
}

#[test]
fn texts_from_outside_are_made_plain() {
    assert_eq!(plain_text("cp\u{1b}[31m-1\n"), "cp [31m-1 ");
    assert!(plain_text(&"é".repeat(2000)).len() <= limits::TEXT_BYTES);
}

#[test]
fn rungs_are_ordered() {
    let rungs = [Rung::None, Rung::Stored, Rung::Read, Rung::Deep, Rung::Booted];
    assert!(rungs.is_sorted());
    for rung in rungs {
        assert_eq!(serde_json::to_string(&rung).unwrap(), format!("\"{}\"", rung.as_str()));
    }
}

proptest! {
    #[test]
    fn numbers_survive(revision in 1i64.., hash in any::<u32>(), size in 0..u64::MAX - 32, index in any::<u64>()) {
        let mut manifest = example();
        manifest.revision = revision;
        manifest.compact_revision = CompactRevision { scheduled: 0, finished: -1 };
        manifest.last_row = None;
        manifest.hashkv.computed = Some(HashKvValue { hash, revision, compact_revision: 0 });
        (manifest.snapshot.db_size, manifest.snapshot.file_size) = (size, size + 32);
        manifest.raft.index = index;
        prop_assert_eq!(Manifest::decode(&encode(&manifest).unwrap()).unwrap(), manifest);
    }

    #[test]
    fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Manifest::decode(&bytes).is_err());
    }
}
