//! The fuzz targets over mutations of the golden objects, on stable: cut, flipped, spliced. Nothing may panic.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

use vault::fuzzing;

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1/repository")
}

fn files(directory: &Path, into: &mut Vec<Vec<u8>>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, into);
        } else {
            into.push(fs::read(&path).unwrap());
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound.max(1)
    }
}

fn mutate(bytes: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut mutated = bytes.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(mutated.len());
        match random.below(5) {
            0 => mutated.truncate(at),
            1 if !mutated.is_empty() => mutated[at] ^= 1 << random.below(8),
            2 if !mutated.is_empty() => mutated[at] = [0, 0xff, b'"', b'{', b'9'][random.below(5)],
            3 => {
                let from = random.below(other.len());
                let length = random.below(64).min(other.len() - from);
                mutated.splice(at..at, other[from..from + length].iter().copied());
            }
            _ => {
                let end = (at + random.below(16)).min(mutated.len());
                mutated.drain(at..end);
            }
        }
    }
    mutated
}

fn run(target: fn(&[u8]), rounds: usize) {
    let mut corpus = Vec::new();
    files(&golden(), &mut corpus);
    let mut random = Random(0x5eed);
    corpus.iter().for_each(|bytes| target(bytes));
    for _ in 0..rounds {
        let (one, other) = (random.below(corpus.len()), random.below(corpus.len()));
        target(&mutate(&corpus[one], &corpus[other], &mut random));
    }
}

#[test]
fn manifests() {
    run(fuzzing::manifest, 3000);
}

#[test]
fn frame_tables() {
    run(fuzzing::frames, 3000);
}

#[test]
fn keys() {
    run(fuzzing::key, 1000);
    let mut listed = Vec::new();
    for key in ["prod/lineages/0001-cdf818194e3a8c32-0.json", "prod/snapshots/20261121T020004Z-7qk2m9/extra/machine-config.age", "latest~1"]
    {
        listed.push(key.as_bytes());
    }
    let mut random = Random(7);
    for round in 0..3000 {
        fuzzing::key(&mutate(listed[round % 3], listed[(round + 1) % 3], &mut random));
    }
}

#[test]
fn marks_and_signatures() {
    run(fuzzing::mark, 3000);
}

#[test]
fn signatures_and_keys() {
    run(fuzzing::signature, 1000);
}

#[test]
fn lineages_and_markers() {
    run(fuzzing::lineage, 3000);
}

#[test]
fn sealed_objects() {
    let snapshot = golden().join("prod/snapshots/20261121T020004Z-7qk2m9");
    let (data, table) = (fs::read(snapshot.join("db.zst.age")).unwrap(), fs::read(snapshot.join("frames.bin")).unwrap());
    let mut random = Random(11);
    for round in 0..400 {
        // A table holds 0xff sooner or later, which ends it for the target; that is one more mutation.
        let mut input = if round % 2 == 0 { mutate(&table, &data, &mut random) } else { table.clone() };
        input.push(0xff);
        input.extend(if round % 2 == 1 { mutate(&data, &table, &mut random) } else { data.clone() });
        fuzzing::unseal(&input);
    }
}
