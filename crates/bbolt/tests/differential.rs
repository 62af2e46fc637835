//! The real bbolt reads what this crate writes, and this crate reads what bbolt writes.
//!
//! bbolt is built from `tests/go` with the Go toolchain named by `GO`, else the one on the path, else
//! `/usr/local/go/bin/go`. Where it cannot be built, each test prints `SKIPPED: <why>` and passes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use bbolt::{Bucket, Database, Edit, Error, Memory, ReadAt};
use common::{Content, Disk, Keys, image, key, sample, value};

static PEER: LazyLock<Result<PathBuf, String>> = LazyLock::new(build_peer);

fn build_peer() -> Result<PathBuf, String> {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/go");
    let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bbolt-peer");
    let named = std::env::var("GO").unwrap_or_else(|_| "go".to_owned());
    let mut why = String::new();
    for go in [named.as_str(), "/usr/local/go/bin/go"] {
        let built = Command::new(go).args(["build", "-buildvcs=false", "-o"]).arg(&binary).arg(".").current_dir(&module).output();
        match built {
            Ok(output) if output.status.success() => return Ok(binary),
            Ok(output) => write!(why, "{go} build: {} ", String::from_utf8_lossy(&output.stderr)).unwrap(),
            Err(error) => write!(why, "{go}: {error}; ").unwrap(),
        }
    }
    Err(why)
}

/// Runs the peer, or says why it cannot be had.
struct Peer(&'static Path);

impl Peer {
    fn get() -> Option<Self> {
        match &*PEER {
            Ok(binary) => Some(Self(binary)),
            Err(why) => {
                println!("SKIPPED: no bbolt to compare with: {why}");
                None
            }
        }
    }

    fn run(&self, arguments: &[&str], file: &Path) -> String {
        let output = Command::new(self.0).args(arguments).arg(file).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "bbolt {arguments:?} on {}: {errors}", file.display());
        String::from_utf8(output.stdout).unwrap()
    }

    fn check(&self, file: &Path) {
        self.run(&["check"], file);
    }

    fn dump(&self, file: &Path) -> BTreeSet<String> {
        self.run(&["dump"], file).lines().map(str::to_owned).collect()
    }
}

/// The peer's dump format.
fn line(path: &[Vec<u8>], sequence: u64, keys: &Keys) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |bytes: &[u8]| {
        for byte in format!("{}:", bytes.len()).bytes().chain(bytes.iter().copied()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for (key, value) in keys {
        add(key);
        add(value);
    }
    let hex = |name: &Vec<u8>| name.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let path: Vec<_> = path.iter().map(hex).collect();
    format!("{} {sequence} {} {hash:016x}", path.join("/"), keys.len())
}

fn by_walk<S: ReadAt>(database: &Database<S>) -> BTreeSet<String> {
    let content = Content::of(database);
    content.buckets.iter().map(|(path, (sequence, keys))| line(path, *sequence, keys)).collect()
}

fn by_cursor<S: ReadAt>(database: &Database<S>) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for name in database.bucket_names().unwrap() {
        let bucket = database.bucket(&name).unwrap().unwrap();
        bucket_by_cursor(&mut vec![name], &bucket, &mut lines);
    }
    lines
}

fn bucket_by_cursor<S: ReadAt>(path: &mut Vec<Vec<u8>>, bucket: &Bucket<'_, S>, lines: &mut BTreeSet<String>) {
    let mut keys = Keys::new();
    let mut inner = Vec::new();
    let mut cursor = bucket.cursor();
    while let Some((key, value)) = cursor.next().unwrap() {
        let (key, value) = (key.to_vec(), value.to_vec());
        if cursor.is_bucket() {
            inner.push(key);
        } else {
            keys.insert(key, value);
        }
    }
    lines.insert(line(path, bucket.sequence(), &keys));
    for name in inner {
        let bucket = bucket.bucket(&name).unwrap().unwrap();
        path.push(name);
        bucket_by_cursor(path, &bucket, lines);
        path.pop();
    }
}

fn open(file: &Path) -> Database<Disk> {
    Database::open(Disk(File::options().read(true).write(true).open(file).unwrap())).unwrap()
}

#[test]
fn files_made_by_bbolt_read_the_same_here() {
    let Some(peer) = Peer::get() else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("db");
    for page_size in ["1024", "4096", "16384", "65536"] {
        for kind in ["empty", "random", "nested", "inline", "big", "holes"] {
            for freelist in ["-no-freelist=false", "-no-freelist=true"] {
                if kind == "holes" && page_size != "1024" {
                    continue;
                }
                let _ = fs::remove_file(&file);
                peer.run(&["make", "-page-size", page_size, "-kind", kind, "-rounds", "30", freelist], &file);
                let expected = peer.dump(&file);
                let database = open(&file);
                assert_eq!(database.meta().page_size.to_string(), page_size);
                assert_eq!(by_walk(&database), expected, "{page_size} {kind} {freelist}");
                assert_eq!(by_cursor(&database), expected, "{page_size} {kind} {freelist}");
                let report = database.check().unwrap();
                let stored = database.meta().freelist.is_some();
                assert_eq!(report.freelist_pages > 0, stored);
                if kind == "holes" {
                    assert!(report.free > 0xFFFF, "the long form of the count: {}", report.free);
                }
            }
        }
    }
}

/// A fixed sequence of numbers that looks random.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(end)) as u32
    }
}

fn keys_of<'c>(content: &'c mut Content, bucket: &[u8]) -> &'c mut Keys {
    &mut content.buckets.get_mut(&vec![bucket.to_vec()]).unwrap().1
}

/// Changes the file here and says what it must contain then.
fn edit(file: &Path, numbers: &mut Numbers) -> BTreeSet<String> {
    let database = open(file);
    let mut content = Content::of(&database);
    let names = database.bucket_names().unwrap();
    let mut edit = Edit::begin(database).unwrap();
    let added = format!("added-{}", numbers.below(3)).into_bytes();
    edit.create_bucket(&added).unwrap();
    content.buckets.entry(vec![added.clone()]).or_default();
    for name in names.iter().chain([&added]) {
        match numbers.below(6) {
            0 => {
                edit.clear_bucket(name).unwrap();
                content.buckets.retain(|path, _| path[0] != *name || path.len() == 1);
                keys_of(&mut content, name).clear();
            }
            1 | 2 => {
                let from = key(numbers.below(5000));
                let count = numbers.below(3000) as usize;
                let gone: Vec<_> = keys_of(&mut content, name).range(from..).take(count).map(|(key, _)| key.clone()).collect();
                for key in gone {
                    assert!(edit.delete(name, &key).unwrap());
                    keys_of(&mut content, name).remove(&key);
                }
            }
            _ => {
                for _ in 0..numbers.below(500) {
                    let number = numbers.below(5000);
                    let size = if numbers.below(60) == 0 { 30_000 } else { 100 };
                    edit.put(name, &key(number), &value(number, size)).unwrap();
                    keys_of(&mut content, name).insert(key(number), value(number, size));
                }
            }
        }
    }
    let database = edit.commit().unwrap();
    database.check().unwrap();
    content.buckets.iter().map(|(path, (sequence, keys))| line(path, *sequence, keys)).collect()
}

#[test]
fn files_edited_here_are_sound_to_bbolt_and_stay_so_when_it_writes_on() {
    let Some(peer) = Peer::get() else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("db");
    for (round, page_size) in ["1024", "4096", "16384"].into_iter().enumerate() {
        for kind in ["random", "nested", "inline", "big", "empty"] {
            let mut numbers = Numbers(round as u64 * 100 + kind.len() as u64);
            let _ = fs::remove_file(&file);
            peer.run(&["make", "-page-size", page_size, "-kind", kind, "-rounds", "40"], &file);
            for turn in 0..4 {
                let expected = edit(&file, &mut numbers);
                assert_eq!(open(&file).meta().freelist, None);
                peer.check(&file);
                assert_eq!(peer.dump(&file), expected, "{page_size} {kind} turn {turn}");
                let seed = numbers.below(1_000_000).to_string();
                let freelist = if turn % 2 == 0 { "-no-freelist=false" } else { "-no-freelist=true" };
                peer.run(&["write", "-rounds", "12", "-seed", &seed, freelist], &file);
                peer.check(&file);
                let database = open(&file);
                assert_eq!(database.meta().freelist.is_some(), turn % 2 == 0);
                assert_eq!(by_walk(&database), peer.dump(&file), "{page_size} {kind} turn {turn}");
            }
        }
    }
}

#[test]
fn a_nested_bucket_is_not_taken_for_a_value() {
    let Some(peer) = Peer::get() else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("db");
    peer.run(&["make", "-kind", "nested"], &file);
    let before = fs::read(&file).unwrap();
    let database = open(&file);
    let top = database.bucket(b"top").unwrap().unwrap();
    assert_eq!(top.get(b"key-00002500-below").unwrap(), None);
    assert!(top.bucket(b"key-00002500-below").unwrap().is_some_and(|below| below.sequence() > 0));
    let mut edit = Edit::begin(open(&file)).unwrap();
    assert!(matches!(edit.delete(b"top", b"key-00002500-below"), Err(Error::IsBucket { .. })));
    assert_eq!(edit.get(b"top", b"key-00002500-below").unwrap(), None);
    edit.put(b"top", b"key-00002500-below", b"v").unwrap();
    assert!(matches!(edit.commit(), Err(Error::IsBucket { .. })));
    assert_eq!(fs::read(&file).unwrap()[..before.len()], before);
    peer.check(&file);
}

#[test]
fn files_built_here_are_sound_to_bbolt() {
    let Some(peer) = Peer::get() else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("db");
    for page_size in [1024, 4096, 16384, 65536] {
        for (inline, freelist) in [(false, false), (true, false), (true, true)] {
            fs::write(&file, image(&sample(page_size), page_size, inline, freelist)).unwrap();
            peer.check(&file);
            assert_eq!(peer.dump(&file), by_walk(&open(&file)));
            peer.run(&["write", "-rounds", "20", "-no-freelist=true"], &file);
            peer.check(&file);
            assert_eq!(peer.dump(&file), by_walk(&open(&file)));
        }
    }
}

#[test]
fn bbolt_takes_over_a_long_free_list_built_here() {
    let Some(peer) = Peer::get() else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("db");
    for free in [3, 0xFFFE, 0xFFFF, 70_000] {
        let sink = Memory::default();
        let mut builder = bbolt::build::Builder::new(&sink, 1024).unwrap();
        builder.skip_pages(free).unwrap();
        builder.bucket(b"alpha", 3).unwrap();
        builder.item(b"k", b"v").unwrap();
        builder.finish(true).unwrap();
        fs::write(&file, sink.into_bytes()).unwrap();
        peer.check(&file);
        peer.run(&["write", "-rounds", "10"], &file);
        peer.check(&file);
        let report = open(&file).check().unwrap();
        assert_eq!(report.pages, report.free + report.reachable);
        assert_eq!(by_walk(&open(&file)), peer.dump(&file));
    }
}
