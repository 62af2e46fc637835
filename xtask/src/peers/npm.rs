//! Programs for Node.js, below a directory of our own: nothing is installed into the machine's Node.js.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::apt;
use super::catalog::Npm;
use crate::process::{find_on_path, output};
use crate::workspace;

/// The oldest Node.js that is tried.
const OLDEST: u32 = 18;

/// Installs a program's packages into `work` (moved to `home` afterwards) with a launcher beside them. The packages are those whose digests the
/// lock file fixes; none of their own scripts runs.
pub(super) fn install_program(npm: &Npm, work: &Path, home: &Path, say: &dyn Fn(&str)) -> Result<()> {
    let node = node(say)?;
    let recipe = workspace::root().join("xtask/peers").join(npm.dir);
    for file in ["package.json", "package-lock.json"] {
        fs::copy(recipe.join(file), work.join(file)).with_context(|| format!("cannot copy {file}"))?;
    }
    let mut command = Command::new("npm");
    command.args(["ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(work);
    output(&mut command)?;
    let script = Path::new("node_modules").join(npm.script);
    if !work.join(&script).is_file() {
        bail!("the packages have no {}", script.display());
    }
    let launcher = work.join(npm.file);
    // The launcher becomes node itself, so that who ends it ends the program.
    let text = format!("#!/bin/sh\nexec '{}' '{}' \"$@\"\n", node.display(), home.join(&script).display());
    fs::write(&launcher, text).with_context(|| format!("cannot write {}", launcher.display()))?;
    fs::set_permissions(&launcher, fs::Permissions::from_mode(0o755)).with_context(|| format!("cannot write {}", launcher.display()))
}

/// The machine's own Node.js with npm, having both installed first where root can do that.
fn node(say: &dyn Fn(&str)) -> Result<PathBuf> {
    if let Ok(node) = on_path() {
        return Ok(node);
    }
    say("no Node.js with npm on this machine: apt-get install nodejs npm");
    apt::install_for_good(&["nodejs", "npm"]).context("no Node.js")?;
    on_path()
}

fn on_path() -> Result<PathBuf> {
    let node = find_on_path("node").context("no node on PATH")?;
    find_on_path("npm").context("no npm on PATH")?;
    let said = output(Command::new(&node).arg("--version"))?;
    match major(&said) {
        Some(major) if major >= OLDEST => Ok(node),
        _ => bail!("{} is {}, at least {OLDEST} is needed", node.display(), said.trim()),
    }
}

/// `v20.20.2` → 20.
fn major(said: &str) -> Option<u32> {
    said.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::major;

    #[test]
    fn node_says_its_version_with_a_letter() {
        assert_eq!(major("v20.20.2\n"), Some(20));
        assert_eq!(major("20.20.2"), None);
    }
}
