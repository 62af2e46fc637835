//! Programs out of the distribution's packages: downloaded with `apt-get download` and unpacked with `dpkg -x`, so neither root nor an installation is needed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

use super::catalog::Debian;
use crate::process::{find_on_path, output};

/// Puts the wanted files of some packages into `work`, which will be moved to `home` afterwards.
/// A program with shared libraries of its own gets a launcher that points the loader at them.
pub(super) fn install(debian: &Debian, work: &Path, home: &Path) -> Result<()> {
    if find_on_path("apt-get").is_none() || find_on_path("dpkg").is_none() {
        bail!("no apt-get on this machine");
    }
    if let Some(wanted) = debian.version_prefix {
        let version = candidate(debian.packages[0])?;
        if !version.starts_with(wanted) {
            bail!("the distribution has version {version}");
        }
    }
    let debs = work.join("debs");
    fs::create_dir_all(&debs).context("cannot create the download directory")?;
    download(debian.packages, &debs)?;
    let root = work.join("root");
    for entry in fs::read_dir(&debs).context("cannot list the downloads")? {
        let deb = entry.context("cannot list the downloads")?.path();
        output(Command::new("dpkg").arg("-x").arg(&deb).arg(&root))?;
    }
    fs::remove_dir_all(&debs).context("cannot remove the downloads")?;
    for (inside, name) in debian.files {
        if debian.packages.iter().any(|package| package.starts_with("lib")) {
            launcher(&work.join(name), &home.join("root"), inside)?;
        } else {
            fs::rename(root.join(inside), work.join(name)).with_context(|| format!("the packages have no {inside}"))?;
        }
    }
    Ok(())
}

/// The version that `apt-get download` would give.
fn candidate(package: &str) -> Result<String> {
    let look = || -> Result<Option<String>> {
        let policy = output(Command::new("apt-cache").args(["policy", package]))?;
        Ok(policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: ").map(str::to_owned)).filter(|version| version != "(none)"))
    };
    if let Some(version) = look()? {
        return Ok(version);
    }
    update()?;
    look()?.with_context(|| format!("the distribution has no package {package}"))
}

fn download(packages: &[&str], into: &Path) -> Result<()> {
    let attempt = || output(Command::new("apt-get").arg("download").args(packages).current_dir(into));
    if attempt().is_ok() {
        return Ok(());
    }
    // A fresh container image has no package lists, and old lists name files that the mirror has replaced since.
    let updated = update();
    match attempt() {
        Ok(_) => Ok(()),
        Err(error) => match updated {
            Ok(()) => Err(error),
            Err(update) => Err(error.context(format!("after a failed update ({update:#})"))),
        },
    }
}

/// `apt-get update`, at most once per run.
pub(super) fn update() -> Result<()> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    DONE.get_or_init(|| {
        output(Command::new("apt-get").arg("update").env("DEBIAN_FRONTEND", "noninteractive"))
            .map(drop)
            .map_err(|error| format!("{error:#}"))
    })
    .clone()
    .map_err(anyhow::Error::msg)
}

/// Installs packages for good; works for root only.
pub(super) fn install_for_good(packages: &[&str]) -> Result<()> {
    update()?;
    let mut command = Command::new("apt-get");
    command.args(["install", "-y", "--no-install-recommends"]).args(packages).env("DEBIAN_FRONTEND", "noninteractive");
    output(&mut command).map(drop)
}

fn launcher(file: &Path, root: &Path, inside: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
    let text = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH='{root}/usr/lib/{triplet}:{root}/lib/{triplet}' exec '{root}/{inside}' \"$@\"\n",
        root = root.display()
    );
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).with_context(|| format!("cannot write {}", file.display()))
}
