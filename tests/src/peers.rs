//! The real programs, as `cargo xtask peers` listed them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The etcd minors that Lifeboat supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EtcdVersion {
    /// 3.4: no etcdutl, no storage version, `members` bucket as old as time.
    V3_4,
    /// 3.5.
    V3_5,
    /// 3.6: storage version in the file, v2 store gone.
    V3_6,
    /// 3.7: boots from the database alone.
    V3_7,
}

impl EtcdVersion {
    /// All of them, oldest first.
    pub const ALL: [Self; 4] = [Self::V3_4, Self::V3_5, Self::V3_6, Self::V3_7];

    /// `3.4` and so on, as in the names of `peers.json`.
    #[must_use]
    pub fn minor(self) -> &'static str {
        match self {
            Self::V3_4 => "3.4",
            Self::V3_5 => "3.5",
            Self::V3_6 => "3.6",
            Self::V3_7 => "3.7",
        }
    }

    /// Whether its server is there to be tested.
    #[must_use]
    pub fn available(self) -> bool {
        self.find("etcd").is_some() && self.find("etcdctl").is_some()
    }

    /// The full version of the server, e.g. `3.6.14`.
    #[must_use]
    pub fn full(self) -> &'static str {
        &self.need("etcd").version
    }

    /// The server's path.
    #[must_use]
    pub fn etcd(self) -> &'static Path {
        &self.need("etcd").path
    }

    /// The client's path.
    #[must_use]
    pub fn etcdctl(self) -> &'static Path {
        &self.need("etcdctl").path
    }

    /// The offline tool's path; 3.4 has none.
    #[must_use]
    pub fn etcdutl(self) -> Option<&'static Path> {
        self.find("etcdutl").map(|peer| peer.path.as_path())
    }

    fn find(self, program: &str) -> Option<&'static Peer> {
        peer(&format!("{program}-{}", self.minor()))
    }

    fn need(self, program: &str) -> &'static Peer {
        self.find(program).unwrap_or_else(|| panic!("no {program} {self}: run `cargo xtask peers`"))
    }
}

impl fmt::Display for EtcdVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.minor())
    }
}

/// One program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// What it says of itself.
    pub version: String,
    /// Absolute path.
    pub path: PathBuf,
}

/// All programs by their names in `peers.json`: `etcd-3.6`, `etcdutl-3.6`, `age`, `zstd`, `minisign`, `versitygw` ...
/// Read from `LIFEBOAT_PEERS`, else from `target/peers/peers.json`; empty when neither is there.
#[must_use]
pub fn peers() -> &'static BTreeMap<String, Peer> {
    static PEERS: OnceLock<BTreeMap<String, Peer>> = OnceLock::new();
    PEERS.get_or_init(read)
}

/// One program, when it could be had.
#[must_use]
pub fn peer(name: &str) -> Option<&'static Peer> {
    peers().get(name)
}

/// The etcd versions that are there, oldest first.
#[must_use]
pub fn versions() -> Vec<EtcdVersion> {
    EtcdVersion::ALL.into_iter().filter(|version| version.available()).collect()
}

/// Tells xtask that something did not run, and why.
pub fn skipped(why: impl fmt::Display) {
    println!("SKIPPED: {why}");
}

/// Whether the long tests were asked for (`cargo xtask test --full`).
#[must_use]
pub fn full() -> bool {
    std::env::var_os("LIFEBOAT_TEST_FULL").is_some_and(|value| !value.is_empty())
}

fn read() -> BTreeMap<String, Peer> {
    let path = std::env::var_os("LIFEBOAT_PEERS").map_or_else(|| workspace().join("target/peers/peers.json"), PathBuf::from);
    let Ok(text) = std::fs::read_to_string(&path) else { return BTreeMap::new() };
    let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let entries = json.as_object().unwrap_or_else(|| panic!("{}: not an object", path.display()));
    entries
        .iter()
        .filter_map(|(name, entry)| {
            let peer = Peer { version: entry.get("version")?.as_str()?.to_owned(), path: entry.get("path")?.as_str()?.into() };
            peer.path.exists().then(|| (name.clone(), peer))
        })
        .collect()
}

/// The checkout's root.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
