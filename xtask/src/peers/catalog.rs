//! Which peers there are and the ways to get each, best first.

use anyhow::{Context, Result};

use crate::workspace;

/// One peer: a set of programs that come together.
pub(super) struct Recipe {
    /// Directory below `target/peers`.
    pub(super) name: &'static str,
    pub(super) programs: Vec<Program>,
    /// Tried in this order until one works.
    pub(super) ways: Vec<Way>,
}

/// One program of a peer.
pub(super) struct Program {
    /// Name in `peers.json`.
    pub(super) name: &'static str,
    /// File name, in the peer's directory or on `PATH`.
    pub(super) file: &'static str,
    pub(super) version: VersionOf,
    /// The version must begin like this.
    pub(super) version_prefix: Option<&'static str>,
    /// The peer is usable without it (etcdutl does not exist before 3.5).
    pub(super) optional: bool,
}

/// How to know a program's version.
pub(super) enum VersionOf {
    /// It says so when called with these arguments.
    Says(&'static [&'static str]),
    /// It says so, unless it was built from its module: then it says nothing, and this is the module's version.
    SaysOrPinned(&'static [&'static str], &'static str),
    /// It cannot be asked; the way that made it pins it.
    Pinned(&'static str),
}

/// A way to get a peer.
pub(super) enum Way {
    /// Whatever the machine has.
    OnPath,
    /// The distribution's packages, unpacked without being installed.
    Debian(Debian),
    /// Built from Go modules pinned by a checked-in `go.mod` and `go.sum`.
    GoModule(GoModule),
    /// A Python program with its own packages, below the peer's directory.
    Python(Python),
    /// A program for Node.js with its own packages, below the peer's directory, pinned by a checked-in `package.json` and `package-lock.json`.
    Npm(Npm),
}

pub(super) struct Debian {
    /// Binary packages; the first one's version counts.
    pub(super) packages: &'static [&'static str],
    /// The distribution's version must begin like this.
    pub(super) version_prefix: Option<&'static str>,
    /// Files to take: path in the package and our name for it.
    pub(super) files: &'static [(&'static str, &'static str)],
}

pub(super) struct GoModule {
    /// Directory below `xtask/peers` with `go.mod` and `go.sum`.
    pub(super) dir: &'static str,
    /// Main packages and the file each is built to; `.` is a `main.go` of our own beside `go.mod`.
    pub(super) mains: &'static [(&'static str, &'static str)],
}

pub(super) struct Python {
    /// Directory below `xtask/peers` with `requirements.txt`.
    pub(super) dir: &'static str,
    /// The module that `python3 -m` runs.
    pub(super) module: &'static str,
    /// File name of the launcher.
    pub(super) file: &'static str,
}

pub(super) struct Npm {
    /// Directory below `xtask/peers` with `package.json` and `package-lock.json`. The lock file names no registry: the client knows its own.
    pub(super) dir: &'static str,
    /// The script that node runs, below `node_modules`.
    pub(super) script: &'static str,
    /// File name of the launcher.
    pub(super) file: &'static str,
}

impl Way {
    /// For people.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::OnPath => "PATH".to_owned(),
            Self::Debian(debian) => format!("apt-get download {}", debian.packages.join(" ")),
            Self::GoModule(module) => format!("Go modules of xtask/peers/{}", module.dir),
            Self::Python(python) => format!("pip install of xtask/peers/{}", python.dir),
            Self::Npm(npm) => format!("npm ci of xtask/peers/{}", npm.dir),
        }
    }

    /// Changes when a peer made this way has to be made again.
    pub(super) fn stamp(&self) -> Result<String> {
        match self {
            Self::OnPath => Ok(String::new()),
            Self::Debian(debian) => Ok(format!("debian {} {:?}", debian.packages.join(" "), debian.files)),
            Self::GoModule(module) => {
                // A main of our own is part of what is made; the others are fixed by go.sum.
                let own = if module.mains.iter().any(|(package, _)| *package == ".") {
                    recipe_file(module.dir, "main.go")?
                } else {
                    String::new()
                };
                Ok(format!("go {:?}\n{}{}{own}", module.mains, recipe_file(module.dir, "go.mod")?, recipe_file(module.dir, "go.sum")?))
            }
            Self::Python(python) => Ok(format!("python {}\n{}", python.module, recipe_file(python.dir, "requirements.txt")?)),
            Self::Npm(npm) => {
                Ok(format!("npm {}\n{}{}", npm.script, recipe_file(npm.dir, "package.json")?, recipe_file(npm.dir, "package-lock.json")?))
            }
        }
    }
}

fn recipe_file(dir: &str, file: &str) -> Result<String> {
    let path = workspace::root().join("xtask/peers").join(dir).join(file);
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Every peer, in the order they are fetched: the quick ones first, so that a slow one fails alone.
pub(super) fn recipes() -> Vec<Recipe> {
    vec![
        zstd(),
        age(),
        minisign(),
        restic(),
        promtool(),
        etcd_3_4(),
        etcd_3_6(),
        etcd_3_5(),
        etcd_3_7(),
        versitygw(),
        moto(),
        kube_strict(),
        fake_gcs_server(),
        azurite(),
    ]
}

const fn tool(name: &'static str, version_args: &'static [&'static str]) -> Program {
    Program { name, file: name, version: VersionOf::Says(version_args), version_prefix: None, optional: false }
}

fn zstd() -> Recipe {
    Recipe {
        name: "zstd",
        programs: vec![tool("zstd", &["--version"])],
        ways: vec![
            Way::OnPath,
            Way::Debian(Debian {
                packages: &["zstd", "libzstd1", "liblz4-1", "liblzma5", "zlib1g"],
                version_prefix: None,
                files: &[("usr/bin/zstd", "zstd")],
            }),
        ],
    }
}

fn age() -> Recipe {
    Recipe {
        name: "age",
        programs: vec![tool("age", &["--version"]), tool("age-keygen", &["--version"])],
        ways: vec![
            Way::OnPath,
            Way::Debian(Debian {
                packages: &["age"],
                version_prefix: None,
                files: &[("usr/bin/age", "age"), ("usr/bin/age-keygen", "age-keygen")],
            }),
            Way::GoModule(GoModule {
                dir: "age",
                mains: &[("filippo.io/age/cmd/age", "age"), ("filippo.io/age/cmd/age-keygen", "age-keygen")],
            }),
        ],
    }
}

fn minisign() -> Recipe {
    Recipe {
        name: "minisign",
        programs: vec![tool("minisign", &["-v"])],
        ways: vec![
            Way::OnPath,
            Way::Debian(Debian {
                packages: &["minisign", "libsodium23"],
                version_prefix: None,
                files: &[("usr/bin/minisign", "minisign")],
            }),
            Way::GoModule(GoModule { dir: "minisign", mains: &[("aead.dev/minisign/cmd/minisign", "minisign")] }),
        ],
    }
}

/// The other opinion on what a retention policy keeps.
fn restic() -> Recipe {
    Recipe {
        name: "restic",
        programs: vec![tool("restic", &["version"])],
        ways: vec![
            Way::OnPath,
            Way::Debian(Debian { packages: &["restic"], version_prefix: None, files: &[("usr/bin/restic", "restic")] }),
        ],
    }
}

/// Checks alerting rules, and runs their tests.
fn promtool() -> Recipe {
    Recipe {
        name: "promtool",
        programs: vec![Program { version: VersionOf::SaysOrPinned(&["--version"], "0.315.0"), ..tool("promtool", &[]) }],
        ways: vec![
            Way::OnPath,
            Way::Debian(Debian { packages: &["prometheus"], version_prefix: None, files: &[("usr/bin/promtool", "promtool")] }),
            Way::GoModule(GoModule { dir: "promtool", mains: &[("github.com/prometheus/prometheus/cmd/promtool", "promtool")] }),
        ],
    }
}

/// Decodes manifests into Kubernetes' own types and takes nothing that they lack.
fn kube_strict() -> Recipe {
    Recipe {
        name: "kube-strict",
        programs: vec![tool("kube-strict", &["--version"])],
        ways: vec![Way::GoModule(GoModule { dir: "kube-strict", mains: &[(".", "kube-strict")] })],
    }
}

fn etcd_programs(names: [&'static str; 3], prefix: &'static str, etcdutl_optional: bool) -> Vec<Program> {
    let [etcd, etcdctl, etcdutl] = names;
    let program = |name, file, version_args, optional| Program {
        name,
        file,
        version: VersionOf::Says(version_args),
        version_prefix: Some(prefix),
        optional,
    };
    vec![
        program(etcd, "etcd", &["--version"] as &[&str], false),
        program(etcdctl, "etcdctl", &["version"], false),
        program(etcdutl, "etcdutl", &["version"], etcdutl_optional),
    ]
}

/// etcd 3.4 predates its own usable module path: distributions that still carry it come first, then the newest 3.4 commit that exists as a pseudo-version.
fn etcd_3_4() -> Recipe {
    Recipe {
        name: "etcd-3.4",
        programs: etcd_programs(["etcd-3.4", "etcdctl-3.4", "etcdutl-3.4"], "3.4.", true),
        ways: vec![
            Way::Debian(Debian {
                packages: &["etcd-server", "etcd-client"],
                version_prefix: Some("3.4."),
                files: &[("usr/bin/etcd", "etcd"), ("usr/bin/etcdctl", "etcdctl")],
            }),
            Way::GoModule(GoModule { dir: "etcd-3.4", mains: &[("go.etcd.io/etcd", "etcd"), ("go.etcd.io/etcd/etcdctl", "etcdctl")] }),
        ],
    }
}

const ETCD_MAINS: &[(&str, &str)] =
    &[("go.etcd.io/etcd/server/v3", "etcd"), ("go.etcd.io/etcd/etcdctl/v3", "etcdctl"), ("go.etcd.io/etcd/etcdutl/v3", "etcdutl")];

fn etcd_3_5() -> Recipe {
    Recipe {
        name: "etcd-3.5",
        programs: etcd_programs(["etcd-3.5", "etcdctl-3.5", "etcdutl-3.5"], "3.5.", false),
        ways: vec![Way::GoModule(GoModule { dir: "etcd-3.5", mains: ETCD_MAINS })],
    }
}

fn etcd_3_6() -> Recipe {
    Recipe {
        name: "etcd-3.6",
        programs: etcd_programs(["etcd-3.6", "etcdctl-3.6", "etcdutl-3.6"], "3.6.", false),
        ways: vec![Way::GoModule(GoModule { dir: "etcd-3.6", mains: ETCD_MAINS })],
    }
}

fn etcd_3_7() -> Recipe {
    Recipe {
        name: "etcd-3.7",
        programs: etcd_programs(["etcd-3.7", "etcdctl-3.7", "etcdutl-3.7"], "3.7.", false),
        ways: vec![Way::GoModule(GoModule { dir: "etcd-3.7", mains: ETCD_MAINS })],
    }
}

/// The S3 server that really checks signatures and conditions.
fn versitygw() -> Recipe {
    Recipe {
        name: "versitygw",
        // It says "git" unless its release scripts built it.
        programs: vec![Program { version: VersionOf::Pinned("1.8.0"), ..tool("versitygw", &[]) }],
        ways: vec![Way::GoModule(GoModule { dir: "versitygw", mains: &[("github.com/versity/versitygw/cmd/versitygw", "versitygw")] })],
    }
}

/// A second opinion about S3: another implementation, in memory, which does not check signatures.
fn moto() -> Recipe {
    let program = Program { name: "moto", file: "moto_server", version: VersionOf::Pinned("5.2.5"), version_prefix: None, optional: false };
    Recipe {
        name: "moto",
        programs: vec![program],
        ways: vec![Way::Python(Python { dir: "moto", module: "moto.server", file: "moto_server" })],
    }
}

/// Google Cloud Storage, in memory. It writes by the JSON API alone: crates/vault/tests/common/gcs_bridge.rs.
fn fake_gcs_server() -> Recipe {
    const NAME: &str = "fake-gcs-server";
    Recipe {
        name: NAME,
        // It has no way to be asked.
        programs: vec![Program { version: VersionOf::Pinned("1.56.1"), ..tool(NAME, &[]) }],
        ways: vec![Way::GoModule(GoModule { dir: NAME, mains: &[("github.com/fsouza/fake-gcs-server", NAME)] })],
    }
}

/// Azure Blob Storage. Its last version for the Node.js that distributions have.
fn azurite() -> Recipe {
    let name = "azurite";
    Recipe {
        name,
        programs: vec![Program { version_prefix: Some("3.35."), ..tool(name, &["--version"]) }],
        ways: vec![Way::Npm(Npm { dir: name, script: "azurite/dist/src/blob/main.js", file: name })],
    }
}
