//! libFuzzer over the target that `LIFEBOAT_FUZZ_TARGET` names. One program for all targets, because linking it takes longer than everything else.
//!
//! `LIFEBOAT_FUZZ_LIST=1` prints the targets instead; with `LIFEBOAT_FUZZ_SEEDS=DIR` the target's seeds are written there first.
#![no_main]

use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use lifeboat_fuzz::{TARGETS, Target, find};

static TARGET: OnceLock<&'static Target> = OnceLock::new();

fuzz_target!(
    init: prepare(),
    |data: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(data);
        }
    }
);

fn prepare() {
    if std::env::var_os("LIFEBOAT_FUZZ_LIST").is_some() {
        for target in TARGETS {
            println!("{}\t{}\t{}", target.name, target.max_len, target.covers);
        }
        std::process::exit(0);
    }
    let name = std::env::var("LIFEBOAT_FUZZ_TARGET").unwrap_or_default();
    let Some(target) = find(&name) else {
        eprintln!("LIFEBOAT_FUZZ_TARGET names no target: {name:?}");
        std::process::exit(2);
    };
    if let Some(directory) = std::env::var_os("LIFEBOAT_FUZZ_SEEDS").map(PathBuf::from) {
        for (number, seed) in (target.seeds)().iter().enumerate() {
            std::fs::write(directory.join(format!("seed-{number:02}")), seed).expect("the corpus directory can be written");
        }
    }
    TARGET.set(target).expect("initialised once");
}
