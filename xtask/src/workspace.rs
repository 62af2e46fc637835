//! Where things are. Everything xtask writes lives below `target/` of the checkout, whatever `CARGO_TARGET_DIR` says about compiled code.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The checkout's root directory: the parent of the manifest directory that `cargo run` names. What was true at compile time is second best, because
/// two checkouts that share a target directory share this program.
pub(crate) fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        manifest.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
    })
}

/// Where peers are cached.
pub(crate) fn peers_dir() -> PathBuf {
    root().join("target/peers")
}

/// The list of peers that tests read.
pub(crate) fn peers_json() -> PathBuf {
    peers_dir().join("peers.json")
}

/// Full logs of the last `cargo xtask test`.
pub(crate) fn logs_dir() -> PathBuf {
    root().join("target/test-logs")
}

/// Copies of the binaries under test, out of the way of a concurrent rebuild.
pub(crate) fn bins_dir() -> PathBuf {
    root().join("target/test-bins")
}

/// Where cargo puts compiled code: `CARGO_TARGET_DIR`, else `target/`.
pub(crate) fn cargo_target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) if !dir.is_empty() => root().join(dir),
        _ => root().join("target"),
    }
}

/// Corpora, findings and logs of `cargo xtask fuzz`, kept from run to run.
pub(crate) fn fuzz_dir() -> PathBuf {
    root().join("target/fuzz")
}

/// The cargo that runs us.
pub(crate) fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}
