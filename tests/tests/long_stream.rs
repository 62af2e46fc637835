//! A stream that may last longer than the snapshot's revision: the members are asked for HashKV before it, at the revision of the opening read, and
//! what they say is compared with the file all the same (design part 10, "Live HashKV").
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;

use etcd_api::{Client, PutRequest};
use etcd_store::id::Revision;
use jiff::SignedDuration;
use lifeboat_tests::{EtcdCluster, Job, Options, etcd_matrix};
use vault::manifest::{HashKvAnswer, HashKvValue, HashKvVerdict, Manifest};

const SAID: &str = "members are asked for HashKV of revision";

fn manifest_file(job: &Job, id: &str) -> PathBuf {
    job.repository().join("prod/snapshots").join(id).join("manifest.json")
}

fn manifest(job: &Job, id: &str) -> Manifest {
    Manifest::decode(&std::fs::read(manifest_file(job, id)).unwrap()).unwrap()
}

/// Makes a backup's manifest say that its stream took an hour.
fn as_if_slow(job: &Job, id: &str) {
    let mut slow = manifest(job, id);
    slow.times.stream_ended = slow.times.stream_started.checked_add(SignedDuration::from_hours(1)).unwrap();
    std::fs::write(manifest_file(job, id), vault::canonical::encode(&slow).unwrap()).unwrap();
}

async fn put(client: &Client, from: u32, count: u32) -> Revision {
    let mut revision = Revision(0);
    for n in from..from + count {
        revision = client.put(PutRequest::new(format!("key/{}", n % 50), format!("value {n}"))).await.unwrap().header.revision;
    }
    revision
}

fn backup(job: &Job, cluster: &EtcdCluster) -> (String, String) {
    let done = job.backup(cluster);
    assert!(done.out().contains("hashkv match"), "{done}");
    (done.out().split_whitespace().nth(1).expect("`backup <id> of ...`").to_owned(), done.to_string())
}

etcd_matrix! {
    /// Three members, with a compaction behind them, while clients write: members answered before the stream began, at the revision of the opening
    /// read, and each answer was compared with a file that is newer.
    async fn members_are_asked_before_a_stream_that_may_outlast_the_revision(etcd: EtcdVersion) {
        let job = Job::new();
        let cluster = EtcdCluster::start(etcd, Options::default().members(3));
        let client = cluster.client(0).await;
        let newest = put(&client, 0, 200).await;
        client.compact(Revision(newest.0 - 20), true).await.unwrap();
        let (first, said) = backup(&job, &cluster);
        assert!(!said.contains(SAID), "a small database streams at once: {said}");
        let usual = manifest(&job, &first);
        assert!(usual.hashkv.answers.iter().all(|told| told.asked.unwrap() >= usual.times.stream_ended), "{:?}", usual.hashkv);

        as_if_slow(&job, &first);
        let writing = tokio::spawn({
            let client = client.clone();
            async move {
                let mut from = 200;
                loop {
                    put(&client, from, 10).await;
                    from += 10;
                }
            }
        });
        let (second, said) = backup(&job, &cluster);
        writing.abort();
        assert!(said.contains(SAID), "{said}");
        let manifest = manifest(&job, &second);
        assert_eq!((manifest.hashkv.verdict, manifest.hashkv.answers.len()), (HashKvVerdict::Match, 3));
        // A member that had not reached that revision yet was asked again at the end. The one that answered the opening read had.
        let early = |told: &&HashKvAnswer| told.asked.is_some_and(|asked| asked <= manifest.times.stream_started);
        let early: Vec<HashKvValue> = manifest.hashkv.answers.iter().filter(early).filter_map(|told| told.answer).collect();
        assert!(!early.is_empty(), "{:?} {:?}", manifest.hashkv, manifest.times);
        for answer in early {
            assert!(answer.revision > usual.revision && answer.revision <= manifest.revision, "{answer:?} {}", manifest.revision);
            assert_eq!(answer.compact_revision, manifest.hashkv.computed.unwrap().compact_revision);
        }
        // The proof is one that a later look into the file repeats.
        let verified = job.cmd("verify").args([&second, "--deep", "-i"]).arg(job.identity()).run().ok();
        assert!(verified.out().contains("deep"), "{verified}");
    }
}
