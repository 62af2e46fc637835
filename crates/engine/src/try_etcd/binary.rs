//! The etcd program: finding it, and asking which version it is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use etcd_store::version::Version;

use crate::failure::{Failure, Outcome};

/// A program that does not tell its version within this time is none.
const TELLS_WITHIN: Duration = Duration::from_secs(20);

/// An etcd that can be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary {
    /// Its path.
    pub path: PathBuf,
    /// Its version, as it told.
    pub version: Version,
}

/// The program named, else the first `etcd` in the directories of `search`.
pub(super) async fn find(named: Option<&Path>, search: &[PathBuf]) -> Outcome<Binary> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => search.iter().map(|directory| directory.join("etcd")).find(|path| is_program(path)).ok_or_else(|| {
            Failure::usage("no etcd was found to run")
                .cause(format!(
                    "looked in {}; name one with --etcd PATH (any etcd from 3.4 on, best of the backup's own version)",
                    search.iter().map(|directory| directory.display().to_string()).collect::<Vec<_>>().join(", ")
                ))
                .again()
        })?,
    };
    let failed = |cause: &dyn std::fmt::Display| Failure::usage("this etcd cannot be run").object(path.display()).cause(cause).again();
    let mut command = tokio::process::Command::new(&path);
    command.arg("--version").env_clear().envs(super::server::kept_environment()).stdin(std::process::Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(TELLS_WITHIN, command.output()).await {
        Ok(output) => output.map_err(|error| failed(&error))?,
        Err(_) => return Err(failed(&format!("it did not tell its version within {} s", TELLS_WITHIN.as_secs()))),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let version = version_in(&text).ok_or_else(|| failed(&"it does not say 'etcd Version: 3.…' when asked with --version"))?;
    Ok(Binary { path, version })
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Reads the first line of `etcd --version`: `etcd Version: 3.6.16`.
fn version_in(text: &str) -> Option<Version> {
    text.lines().find_map(|line| line.trim().strip_prefix("etcd Version:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn versions_are_read_as_every_etcd_writes_them() {
        for (text, version) in [
            ("etcd Version: 3.4.23\nGit SHA: Not provided (use ./build instead of go build)\nGo Version: go1.19\n", "3.4.23"),
            ("etcd Version: 3.6.0-rc.1\n", "3.6.0"),
            ("{\"level\":\"warn\"}\netcd Version: 3.7.3\n", "3.7.3"),
        ] {
            assert_eq!(version_in(text).unwrap(), version.parse().unwrap(), "{text}");
        }
        assert_eq!(version_in("etcdctl version: 3.5.1"), None);
        assert_eq!(version_in(""), None);
    }
}
