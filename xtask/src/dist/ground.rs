//! Does the program run where there is nothing else? It is started in its container's file system, by a user without rights.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::process::{find_on_path, is_executable, output};

/// The user of the container: no name, no rights.
pub(super) const USER: u32 = 65_532;

/// What `/usr/bin/lifeboat --version` says with `root` as its whole file system, and how that was tried.
pub(super) fn version_in(root: &Path) -> Result<(String, String)> {
    // An ordinary user's PATH often lacks the directory of administration.
    let there = |path: &PathBuf| is_executable(path);
    let Some(chroot) = find_on_path("chroot").or_else(|| Some(PathBuf::from("/usr/sbin/chroot")).filter(there)) else { bail!("no chroot") };
    let program = ["/usr/bin/lifeboat", "--version"];
    let as_root = || {
        let mut command = Command::new(&chroot);
        command.arg(format!("--userspec={USER}:{USER}")).arg(root).args(program).env_clear();
        (output(&mut command), format!("chroot as {USER}"))
    };
    let in_a_namespace = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user"]).arg(&chroot).arg(root).args(program);
        (output(&mut command), "chroot in a user namespace, with no rights outside of it".to_owned())
    };
    // Only root may chroot; who is not gets a namespace of his own, where the kernel gives one.
    let (said, how) = if is_root()? { as_root() } else { in_a_namespace() };
    Ok((said?.trim().to_owned(), how))
}

fn is_root() -> Result<bool> {
    Ok(output(Command::new("id").arg("-u"))?.trim() == "0")
}
