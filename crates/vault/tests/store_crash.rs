//! `file://` ended at each of its writes, syncs and renames, with all that was not durable forgotten: what is left is a store in which
//! every object is whole or not there, in which what was reported as written is there, and in which the same work then succeeds.

#![cfg(feature = "crash-points")]
#![allow(clippy::unwrap_used, missing_docs, clippy::print_stdout)]

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use disk::crash;
use vault::store::{Store, StoreError, StoreOptions, open_store};

const BIG: usize = (2 << 20) + 17;

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn big() -> Bytes {
    (0..BIG).map(|at| (at >> 4) as u8).collect::<Vec<_>>().into()
}

/// What is to be written, in order.
fn objects() -> [(&'static str, Bytes); 4] {
    [
        ("prod/snapshots/1/db", big()),
        ("prod/snapshots/1/manifest.json.minisig", text("signature")),
        ("prod/snapshots/1/manifest.json", text("{manifest}")),
        ("prod/lease.json", text("second")),
    ]
}

fn open(dir: &Path) -> Arc<dyn Store> {
    open_store(dir.join("repo").to_str().unwrap(), &StoreOptions { create_root: true, ..StoreOptions::default() }).unwrap()
}

/// Writes everything, telling each key once the store has said that it is written.
async fn write_all(dir: &Path, tell: impl Fn(&str)) -> Result<(), StoreError> {
    let store = open(dir);
    for (key, bytes) in objects() {
        match key {
            "prod/snapshots/1/db" => {
                if store.head(key).await.is_err() {
                    let mut upload = store.upload(key).await?;
                    upload.write(bytes).await?;
                    upload.complete().await?;
                }
            }
            "prod/lease.json" => {
                let there = store.get(key, 100).await.ok();
                if there.is_none() {
                    store.replace(key, text("first"), None).await?;
                }
                let etag = store.head(key).await?.etag;
                store.replace(key, bytes, etag.as_deref()).await?;
            }
            _ => drop(store.create(key, bytes).await?),
        }
        tell(key);
    }
    Ok(())
}

/// Not a test of its own: what the other starts as a process.
#[test]
fn child() {
    if let Ok(dir) = std::env::var("STORE_CRASH_DIR") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let tell = |key: &str| writeln!(std::io::stdout(), "WRITTEN {key}").unwrap();
        runtime.block_on(write_all(Path::new(&dir), tell)).unwrap();
        crash::report();
    }
}

/// Runs the child to be ended at point `n`; what it told, and whether it came to its end.
fn run(dir: &Path, variable: &str, n: u64, forget: &str) -> (Vec<String>, bool) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env("STORE_CRASH_DIR", dir)
        .env(variable, n.to_string())
        .env("LIFEBOAT_CRASH_FORGET", forget)
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let told = stdout.lines().filter_map(|line| line.split_once("WRITTEN ")).map(|(_, key)| key.to_owned()).collect();
    match output.status.code() {
        Some(crash::EXIT_CODE) => (told, false),
        Some(0) => (told, true),
        other => panic!("{variable}={n}: {other:?} {}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// Checks what is left after a crash, then does the work again.
async fn check(dir: &Path, told: &[String], case: &str) {
    let store = open(dir);
    for (key, bytes) in objects() {
        match store.get(key, BIG as u64).await {
            Ok((_, found)) => assert!(found == bytes || (key == "prod/lease.json" && found == text("first")), "{case}: {key} is not whole"),
            Err(StoreError::NotFound { .. }) => {
                assert!(!told.iter().any(|written| written == key), "{case}: {key} was written and is lost")
            }
            Err(error) => panic!("{case}: {error}"),
        }
    }
    let manifest = store.head("prod/snapshots/1/manifest.json").await.is_ok();
    assert!(!manifest || store.head("prod/snapshots/1/db").await.is_ok(), "{case}: a manifest without its data");
    assert!(store.list("").await.unwrap().iter().all(|object| objects().iter().any(|(key, _)| *key == object.key)), "{case}");
    write_all(dir, |_| {}).await.unwrap();
    for (key, bytes) in objects() {
        assert!(store.get(key, BIG as u64).await.unwrap().1 == bytes, "{case}: {key}");
    }
}

#[tokio::test]
async fn every_object_is_whole_or_not_there_whenever_the_process_ends() {
    for (variable, forget) in
        [("LIFEBOAT_CRASH_AT", "1"), ("LIFEBOAT_CRASH_AFTER", "1"), ("LIFEBOAT_CRASH_AT", "content"), ("LIFEBOAT_CRASH_AT", "0")]
    {
        let mut n = 1;
        loop {
            let dir = tempfile::tempdir().unwrap();
            let (told, finished) = run(dir.path(), variable, n, forget);
            check(dir.path(), &told, &format!("{variable}={n} forget={forget}")).await;
            if finished {
                break;
            }
            n += 1;
        }
        println!("{variable} forget={forget}: {} points", n - 1);
        assert!(n > 30, "only {n} points");
    }
}
