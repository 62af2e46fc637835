//! Packages of the Python index, below a directory of our own: nothing is installed into the machine's Python.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::apt;
use super::catalog::Python;
use crate::process::output;
use crate::workspace;

/// `pip install --target`, having pip itself installed first where root can do that.
/// With a target directory pip works on distributions that guard their own packages against it.
pub(super) fn install(requirements: &[String], target: &Path) -> Result<()> {
    if output(Command::new("python3").args(["-m", "pip", "--version"])).is_err() {
        apt::install_for_good(&["python3-pip"]).context("no pip")?;
    }
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--only-binary", ":all:", "--upgrade", "--target"]).arg(target).args(requirements);
    pip.env("PIP_ROOT_USER_ACTION", "ignore").env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
    output(&mut pip).map(drop)
}

/// Installs a program's packages into `work` (moved to `home` afterwards) with a launcher beside them.
pub(super) fn install_program(python: &Python, work: &Path, home: &Path) -> Result<()> {
    let requirements = workspace::root().join("xtask/peers").join(python.dir).join("requirements.txt");
    install(&["-r".to_owned(), requirements.display().to_string()], &work.join("packages"))?;
    let launcher = work.join(python.file);
    let text = format!("#!/bin/sh\nPYTHONPATH='{}' exec python3 -m {} \"$@\"\n", home.join("packages").display(), python.module);
    fs::write(&launcher, text).with_context(|| format!("cannot write {}", launcher.display()))?;
    fs::set_permissions(&launcher, fs::Permissions::from_mode(0o755)).with_context(|| format!("cannot write {}", launcher.display()))
}
