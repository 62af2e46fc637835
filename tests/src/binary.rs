//! The binary under test, in an environment where nothing of the developer's own is visible.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use tempfile::TempDir;

use crate::peers::workspace;
use crate::run::{Finished, Run};

/// A user of `lifeboat` with an empty home: configuration, state and cache survive from one run to the next and die with this value.
#[derive(Debug)]
pub struct Lifeboat {
    binary: PathBuf,
    home: TempDir,
}

impl Lifeboat {
    /// With the ordinary binary.
    #[must_use]
    pub fn new() -> Self {
        Self { binary: binary(None), home: TempDir::new().unwrap() }
    }

    /// With the binary that counts every durable step and can be told to end at any of them.
    #[must_use]
    pub fn with_crash_points() -> Self {
        Self { binary: binary(Some("crash-points")), home: TempDir::new().unwrap() }
    }

    /// The user's home directory.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The binary's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.binary
    }

    /// A run with these arguments. The environment holds `PATH` and the user's directories, and nothing else: no `LIFEBOAT_*`, `ETCDCTL_*`, `AWS_*`.
    #[must_use]
    pub fn cmd<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Run {
        let run = self.environment(Run::new(&self.binary));
        match std::env::var_os("PATH") {
            Some(path) => run.env("PATH", path),
            None => run,
        }
        .args(args)
    }

    /// A line for a shell in which `lifeboat` is the binary under test, in the same environment as [`Lifeboat::cmd`].
    #[must_use]
    pub fn shell(&self, line: &str) -> Run {
        let bin = self.home.path().join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        let name = bin.join("lifeboat");
        if !name.exists() {
            std::os::unix::fs::symlink(&self.binary, &name).unwrap();
        }
        let mut path = bin.into_os_string();
        if let Some(more) = std::env::var_os("PATH") {
            path.push(":");
            path.push(more);
        }
        self.environment(Run::new("/bin/sh")).env("PATH", path).args(["-c", line])
    }

    fn environment(&self, run: Run) -> Run {
        let home = self.home.path();
        let mut run = run.clear_env().dir(home).env("HOME", home).env("RUST_BACKTRACE", "1").env("TZ", "UTC");
        for (variable, name) in [
            ("XDG_CONFIG_HOME", ".config"),
            ("XDG_STATE_HOME", ".local/state"),
            ("XDG_DATA_HOME", ".local/share"),
            ("XDG_CACHE_HOME", ".cache"),
            ("XDG_RUNTIME_DIR", ".run"),
            ("TMPDIR", "tmp"),
        ] {
            let dir = home.join(name);
            std::fs::create_dir_all(&dir).unwrap();
            run = run.env(variable, dir);
        }
        run
    }

    /// Runs with these arguments.
    #[must_use]
    pub fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Finished {
        self.cmd(args).run()
    }
}

impl Default for Lifeboat {
    fn default() -> Self {
        Self::new()
    }
}

/// The binary: what xtask built, else built now beside the running test. The variable is trusted to be fresh.
fn binary(feature: Option<&str>) -> PathBuf {
    let variable = if feature.is_some() { "LIFEBOAT_TEST_BIN_CRASH" } else { "LIFEBOAT_TEST_BIN" };
    match std::env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => build(feature),
    }
}

/// Builds with the profile and target directory of the running test, and puts each variant under a name of its own.
fn build(feature: Option<&str>) -> PathBuf {
    static BUILT: Mutex<Vec<(Option<String>, PathBuf)>> = Mutex::new(Vec::new());
    let mut built = BUILT.lock().unwrap();
    let key = feature.map(str::to_owned);
    if let Some((_, path)) = built.iter().find(|(variant, _)| *variant == key) {
        return path.clone();
    }
    // <target>/<profile>/deps/<test>
    let test = std::env::current_exe().unwrap();
    let profile_dir = test.ancestors().nth(2).unwrap();
    let target = profile_dir.parent().unwrap();
    let mut cargo = Command::new(option_env!("CARGO").unwrap_or("cargo"));
    cargo.args(["build", "--quiet", "-p", "lifeboat", "--bin", "lifeboat", "--target-dir"]).arg(target).current_dir(workspace());
    if profile_dir.ends_with("release") {
        cargo.arg("--release");
    }
    if let Some(feature) = feature {
        cargo.args(["--features", feature]);
    }
    let out = cargo.output().unwrap();
    assert!(out.status.success(), "cannot build lifeboat:\n{}", String::from_utf8_lossy(&out.stderr));
    let path = profile_dir.join(format!("lifeboat-under-test{}", feature.map_or(String::new(), |feature| format!("-{feature}"))));
    let fresh = path.with_extension(std::process::id().to_string());
    std::fs::copy(profile_dir.join("lifeboat"), &fresh).unwrap();
    std::fs::rename(&fresh, &path).unwrap();
    built.push((key, path.clone()));
    path
}
