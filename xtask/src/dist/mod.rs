//! `cargo xtask dist`: what is released, under `target/dist`.
//!
//! For each processor family a static program, as a `.tar.gz`, a Debian package and a directory to build a container image from, with a bill of materials;
//! and `SHA256SUMS` over all files. Nothing of it depends on this machine or on the clock: every time is that of the commit (`SOURCE_DATE_EPOCH` beats
//! it), entries are sorted, and no path of the machine is in the program. A program counts only once its ELF header says that it is static and, where
//! this machine can run it, once it ran in a file system that holds nothing else.

mod archive;
mod build;
mod deb;
mod elf;
mod ground;
mod payload;
mod sbom;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::peers::report::align;
use crate::process::output;
use crate::workspace;
use build::Built;
use payload::Payload;

/// What is released for, where the tools can be had.
const TARGETS: [&str; 2] = ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"];
/// Where the system's certificates are, here and in the image.
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";

/// The `dist` subcommand: all targets, or those named.
pub(crate) fn command(args: &[String]) -> Result<ExitCode> {
    let targets = targets(args)?;
    let dir = workspace::root().join("target/dist");
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let (epoch, version) = (epoch()?, env!("CARGO_PKG_VERSION"));
    let say = |line: &str| println!("{line}");
    let (mut built, mut failed) = (Vec::new(), Vec::new());
    for target in targets {
        match build::lifeboat(target, &say) {
            Ok(program) => built.push((target, program)),
            Err(error) => failed.push(format!("not made: {target}: {error:#}")),
        }
    }
    let native = built.iter().find(|(target, _)| arch(target) == std::env::consts::ARCH);
    if let Some((_, program)) = native {
        let work = workspace::root().join("target/dist-work");
        let payload = Payload::gather(&program.path, &work)?;
        for (target, program) in &built {
            say(&one(target, program, &payload, version, epoch, &dir)?);
        }
    } else if !built.is_empty() {
        failed.push("nothing was packed: what prints the manual and the unit is a program that runs here, and there is none".to_owned());
    }
    print!("{}", sums(&dir)?);
    for line in &failed {
        println!("{line}");
    }
    println!("under {}", dir.display());
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn targets(args: &[String]) -> Result<Vec<&'static str>> {
    let mut chosen = Vec::new();
    let mut rest = args.iter();
    while let Some(argument) = rest.next() {
        if argument != "--target" {
            bail!("unknown option {argument:?}; there is --target TARGET");
        }
        let name = rest.next().context("--target wants a target")?;
        chosen.push(
            *TARGETS
                .iter()
                .find(|target| *target == name)
                .with_context(|| format!("{name}: no release is made for it; there are {TARGETS:?}"))?,
        );
    }
    Ok(if chosen.is_empty() { TARGETS.to_vec() } else { chosen })
}

fn arch(target: &str) -> &str {
    target.split('-').next().unwrap_or(target)
}

/// The time that everything gets: `SOURCE_DATE_EPOCH`, else that of the commit.
fn epoch() -> Result<u64> {
    let text = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => output(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(workspace::root()))
            .context("no SOURCE_DATE_EPOCH, and git tells no commit")?,
    };
    text.trim().parse().with_context(|| format!("{text:?}: not a time in seconds"))
}

/// Checks one program and packs it; returns what there is to say.
fn one(target: &str, built: &Built, payload: &Payload, version: &str, epoch: u64, dir: &Path) -> Result<String> {
    let arch = arch(target);
    let program = fs::read(&built.path).with_context(|| format!("cannot read {}", built.path.display()))?;
    elf::check(&program, elf::machine(arch).context("an unknown machine")?).context(target.to_owned())?;
    let context = container(arch, &program, dir)?;
    let ran = if arch == std::env::consts::ARCH {
        let (said, how) = ground::version_in(&context.join("rootfs")).context("it does not run in an empty file system")?;
        if said != format!("lifeboat {version}") {
            bail!("{target}: it calls itself {said:?}");
        }
        format!("ran in an empty file system ({how})")
    } else {
        "not run: this machine is of another family".to_owned()
    };
    let name = format!("lifeboat-{version}-linux-{arch}");
    put(dir, &format!("{name}.tar.gz"), &archive::tar_gz(&payload.of_archive(&program), &format!("{name}/"), epoch)?)?;
    let architecture = deb::architecture(arch).context("Debian does not know it")?;
    let package = deb::write(deb::Package { version, architecture }, &payload.of_package(&program)?, epoch)?;
    put(dir, &format!("lifeboat_{version}_{architecture}.deb"), &package)?;
    sbom::write(target, version, dir)?;
    Ok(format!("{target}: {} bytes, {:.0} s, C by {}, static, {ran}", program.len(), built.took.as_secs_f64(), built.compiler))
}

/// A directory for `podman build` or `docker build`: the recipe, and the whole file system of the image.
fn container(arch: &str, program: &[u8], dir: &Path) -> Result<PathBuf> {
    let context = dir.join(format!("container-{arch}"));
    let root = context.join("rootfs");
    for inside in ["usr/bin", "var/lib/lifeboat", "etc/ssl/certs"] {
        fs::create_dir_all(root.join(inside)).with_context(|| format!("cannot create {inside} in {}", root.display()))?;
    }
    put(&root, "usr/bin/lifeboat", program)?;
    executable(&root.join("usr/bin/lifeboat"))?;
    // Only a store or a receiver whose certificate is a public authority's needs them.
    if let Ok(certificates) = fs::read(Path::new("/").join(CERTIFICATES)) {
        put(&root, CERTIFICATES, &certificates)?;
    }
    let recipe = workspace::root().join("deploy/container/Containerfile");
    put(&context, "Containerfile", &fs::read(&recipe).with_context(|| format!("cannot read {}", recipe.display()))?)?;
    Ok(context)
}

fn executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).with_context(|| format!("cannot write {}", path.display()))
}

fn put(dir: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = dir.join(name);
    fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes `SHA256SUMS` over the files of a directory, as `sha256sum -c` reads it, and returns a table for people.
fn sums(dir: &Path) -> Result<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry.with_context(|| format!("cannot list {}", dir.display()))?.path();
        if path.is_file() {
            files.push((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), path));
        }
    }
    files.sort();
    let (mut text, mut rows) = (String::new(), vec![["FILE", "BYTES", "SHA-256"].map(str::to_owned)]);
    for (name, path) in files {
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        text.push_str(&format!("{digest}  {name}\n"));
        rows.push([name, bytes.len().to_string(), digest]);
    }
    put(dir, "SHA256SUMS", text.as_bytes())?;
    Ok(align(&rows))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::process::find_on_path;

    #[test]
    fn targets_are_those_named_or_all() {
        let of = |words: &[&str]| targets(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&[]).unwrap(), TARGETS);
        assert_eq!(of(&["--target", TARGETS[1]]).unwrap(), [TARGETS[1]]);
        assert!(of(&["--target"]).is_err() && of(&["--target", "riscv64"]).is_err() && of(&["x"]).is_err());
    }

    #[test]
    fn sums_are_what_sha256sum_reads() {
        let dir = std::env::temp_dir().join(format!("xtask-sums-{}", std::process::id()));
        fs::create_dir_all(dir.join("container-x")).unwrap();
        put(&dir, "b", b"abc").unwrap();
        put(&dir, "a", b"").unwrap();
        let table = sums(&dir).unwrap();
        assert!(table.contains("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"), "{table}");
        if find_on_path("sha256sum").is_some() {
            output(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(&dir)).unwrap();
        } else {
            println!("SKIPPED: SHA256SUMS: no sha256sum");
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
