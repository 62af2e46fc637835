//! Snapshot files made ready for another tool, and what a plan says of one.

use super::*;

const TARGET: i64 = 5_000_000;

/// A cluster that was lost: two of Talos's own keys (one of them gone already), two others, an alarm, a key whose lease is missing.
fn lost() -> Vec<u8> {
    let memory = Memory::default();
    let mut builder = Builder::new(&memory, 4096).unwrap();
    let mut names = bucket::ALL;
    names.sort_unstable();
    for name in names {
        builder.bucket(name.as_bytes(), 0).unwrap();
        let mut items: Vec<(Vec<u8>, Vec<u8>)> = match name {
            bucket::ALARM => vec![(vec![8, 5, 16, 1], Vec::new())],
            bucket::CLUSTER => vec![(b"clusterVersion".to_vec(), b"3.6.0".to_vec())],
            bucket::MEMBERS => vec![(b"9".to_vec(), br#"{"id":9,"peerURLs":["http://old:1"],"name":"cp-1"}"#.to_vec())],
            bucket::META => vec![
                (b"consistent_index".to_vec(), 77_u64.to_be_bytes().to_vec()),
                (b"storageVersion".to_vec(), b"3.6.0".to_vec()),
                (b"term".to_vec(), 4_u64.to_be_bytes().to_vec()),
            ],
            bucket::KEY => {
                let put = |key, revision: u8, lease| (RowKey::put(Revision(i64::from(revision)), 0), row(key, revision, lease));
                let gone = RowKey { main: Revision(5), sub: 0, tombstone: true };
                let mut deletion = vec![0x0a, 9];
                deletion.extend_from_slice(b"talos:v1:");
                let rows = [
                    put("a", 2, 0),
                    put("talos:v1:vip", 3, 0),
                    put("talos:v1:", 4, 0),
                    (gone, deletion),
                    put("b", 6, 9),
                    put("talos:v1:vip", 7, 0),
                ];
                rows.into_iter().map(|(key, value)| (key.encode().to_vec(), value)).collect()
            }
            _ => Vec::new(),
        };
        items.sort();
        for (key, value) in items {
            builder.item(&key, &value).unwrap();
        }
    }
    builder.finish(false).unwrap();
    memory.into_bytes()
}

fn request(place: &Place) -> PrepareRequest {
    PrepareRequest {
        snapshot: place.snapshot.clone(),
        out: place.dir.path().join("out.db"),
        target_revision: Some(TARGET),
        for_talos: true,
        skip_hash_check: false,
        unknown_lease_ttl: 3600,
    }
}

fn run(request: &PrepareRequest) -> crate::Outcome<Prepared> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(prepare(request.clone(), Arc::new(Silent)))
}

#[test]
fn facts_are_what_the_file_says() {
    let place = place(&with_trailer(lost()));
    let found = facts(&place.snapshot, false).unwrap();
    assert_eq!((found.revision, found.epoch, found.compact_revision, found.live_keys), (7, 0, None, 3));
    assert_eq!((found.consistent_index, found.term, found.alarms.len()), (Some(77), Some(4), 1));
    assert_eq!((found.storage_version.as_deref(), found.cluster_version.as_deref()), (Some("3.6.0"), Some("3.6.0")));
    assert_eq!(
        (found.members.len(), found.members[0].name.as_str(), &found.members[0].peer_urls[..]),
        (1, "cp-1", &["http://old:1".to_owned()][..])
    );
    assert_eq!((found.size, found.trailer), (lost().len() as u64 + 32, Trailer::Matches));
    assert_eq!(found.database_sha256, super::super::digest::hex(digest(&SHA256, &lost()).as_ref()));
}

#[test]
fn a_file_without_its_trailer_is_taken_only_when_told() {
    let bare = place(&lost());
    let failure = facts(&bare.snapshot, false).unwrap_err();
    assert!(failure.what.contains("no SHA-256 trailer"), "{failure}");
    assert_eq!(facts(&bare.snapshot, true).unwrap().trailer, Trailer::Absent);
    assert!(run(&request(&bare)).unwrap_err().what.contains("no SHA-256 trailer"));
    assert_eq!(run(&PrepareRequest { skip_hash_check: true, ..request(&bare) }).unwrap().facts.trailer, Trailer::Absent);

    let mut wrong = with_trailer(lost());
    *wrong.last_mut().unwrap() ^= 1;
    let wrong = place(&wrong);
    assert_eq!(facts(&wrong.snapshot, false).unwrap_err().code, Code::Unproven);
    assert_eq!(facts(&wrong.snapshot, true).unwrap().trailer, Trailer::Differs);
    let damaged = place(&with_trailer(damaged(lost())));
    assert_eq!(facts(&damaged.snapshot, true).unwrap_err().code, Code::Unproven);
}

#[test]
fn the_file_that_is_made_is_whole_and_safe_to_restore() {
    let place = place(&with_trailer(lost()));
    let source = std::fs::read(&place.snapshot).unwrap();
    let made = run(&request(&place)).unwrap();
    assert_eq!(made.facts, facts(&place.snapshot, false).unwrap());
    assert_eq!((made.revision_after, made.live_keys), (TARGET, 2));
    let words = made.changes.join("; ");
    for word in ["revision 7 → 5000000", "1 of Talos's own keys were dropped, with 4 rows", "1 alarm(s)", "1 lease(s)"] {
        assert!(words.contains(word), "{words}");
    }
    let out = place.dir.path().join("out.db");
    let after = facts(&out, false).unwrap();
    assert_eq!((after.trailer, after.size, after.live_keys), (Trailer::Matches, made.size, 2));
    assert_eq!((after.revision, after.epoch, after.compact_revision), (TARGET, TARGET, Some(TARGET)));
    assert!(after.alarms.is_empty());
    // Whoever restores it sets members and raft's state.
    assert_eq!((after.members, after.consistent_index, after.term), (made.facts.members, Some(77), Some(4)));
    let file = DatabaseFile::open(&out).unwrap();
    assert_eq!(inspect(&Database::open(&file).unwrap(), &Options::default()).unwrap().missing_leases.total, 0);
    assert_eq!(std::fs::read(&place.snapshot).unwrap(), source);
    assert_eq!(place.tree(), [out, place.snapshot.clone()]);
}

#[test]
fn without_a_target_revisions_stay_and_the_rest_is_mended() {
    let place = place(&with_trailer(lost()));
    let made = run(&PrepareRequest { target_revision: None, for_talos: false, ..request(&place) }).unwrap();
    let after = facts(&place.dir.path().join("out.db"), false).unwrap();
    assert_eq!((made.revision_after, after.revision, after.epoch, after.live_keys), (7, 7, 0, 3));
    assert!(after.alarms.is_empty() && made.changes.len() == 2, "{:?}", made.changes);
}

#[test]
fn a_copy_of_odd_length_gets_a_trailer_that_is_seen() {
    let mut odd = lost();
    odd.resize(odd.len() * 8 + 100, 0);
    let place = place(&odd);
    let made = run(&PrepareRequest { skip_hash_check: true, ..request(&place) }).unwrap();
    assert_eq!(made.size % 512, 32);
    assert_eq!(facts(&place.dir.path().join("out.db"), false).unwrap().trailer, Trailer::Matches);
}

#[test]
fn what_cannot_be_made_leaves_nothing_behind() {
    type Change = fn(PrepareRequest) -> PrepareRequest;
    let sound = with_trailer(lost());
    let cases: [(Vec<u8>, Change, Code, &str); 7] = [
        (sound.clone(), |request| PrepareRequest { target_revision: None, ..request }, Code::Usage, "Talos's own keys"),
        (sound.clone(), |request| PrepareRequest { target_revision: Some(7), ..request }, Code::Usage, "not beyond"),
        (sound.clone(), |request| PrepareRequest { unknown_lease_ttl: 0, ..request }, Code::Usage, "at least 1 s"),
        (sound.clone(), |request| PrepareRequest { out: request.snapshot.clone(), ..request }, Code::Usage, "exists already"),
        (sound.clone(), |request| PrepareRequest { out: request.snapshot.join("x/out.db"), ..request }, Code::Failed, "cannot be made"),
        (with_trailer(damaged(lost())), |request| request, Code::Unproven, "not a sound etcd database"),
        (
            b"no database".to_vec(),
            |request| PrepareRequest { skip_hash_check: true, ..request },
            Code::Unproven,
            "not a sound etcd database",
        ),
    ];
    for (content, change, code, word) in cases {
        let place = place(&content);
        let before = place.tree();
        let failure = run(&change(request(&place))).unwrap_err();
        assert!(failure.code == code && failure.what.contains(word), "{failure}");
        assert_eq!(place.tree(), before, "{word}");
        assert!(!failure.to_string().contains(".part"), "{failure}");
    }
}

#[test]
fn work_that_is_dropped_takes_away_what_it_made() {
    let place = place(&with_trailer(lost()));
    let before = place.tree();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let outcome = runtime.block_on(async {
        // One poll begins the work; the other branch is ready at the second.
        let preparing = std::pin::pin!(prepare(request(&place), Arc::new(Silent)));
        tokio::select! {
            biased;
            outcome = preparing => Some(outcome),
            () = std::future::ready(()) => None,
        }
    });
    if outcome.is_none() {
        let left = place.tree();
        assert!(left == before || left.contains(&place.dir.path().join("out.db")), "{left:?}");
        assert!(!left.iter().any(|path| path.to_string_lossy().contains(".part")), "{left:?}");
    }
}
