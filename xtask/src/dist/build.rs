//! The static program: what builds it for musl, and how.
//!
//! Rust brings its own linker and libc for these targets; only C sources (zstd, ring) need a compiler that knows musl's headers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{find_on_path, nice, output};
use crate::{peers, workspace};

/// A program that was built.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) path: PathBuf,
    pub(super) took: Duration,
    /// What compiled the C sources, for people.
    pub(super) compiler: String,
}

/// Builds `lifeboat` for a musl target such as `x86_64-unknown-linux-musl`. `say` receives a line when something slow begins.
pub(super) fn lifeboat(target: &str, say: &dyn Fn(&str)) -> Result<Built> {
    let (arch, _) = target.split_once('-').context("not a target")?;
    standard_library(target, say)?;
    let (cc, compiler) = c_compiler(arch, say)?;
    say(&format!("{target}: cargo build --release, C by {compiler}"));
    let begun = Instant::now();
    let (root, target_dir) = (workspace::root(), workspace::cargo_target_dir());
    let cargo_home =
        std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    // No path of this machine goes into the program, so another one makes the same bytes. The last one that fits counts.
    let mut flags = format!("-C target-feature=+crt-static --remap-path-prefix={}=/lifeboat", root.display());
    flags.push_str(&format!(" --remap-path-prefix={}=/target", target_dir.display()));
    let mut c_flags = Vec::new();
    if let Some(home) = &cargo_home {
        flags.push_str(&format!(" --remap-path-prefix={}=/cargo", home.display()));
        c_flags.push(format!("-ffile-prefix-map={}=/cargo", home.display()));
    }
    c_flags.push(format!("-ffile-prefix-map={}=/lifeboat", root.display()));
    let (lower, upper) = (target.replace('-', "_"), target.replace('-', "_").to_uppercase());
    let mut cargo = nice(workspace::cargo());
    cargo
        .args(["build", "--release", "--locked", "--target", target, "-p", "lifeboat", "--bin", "lifeboat"])
        .current_dir(root)
        .env(format!("CC_{lower}"), &cc)
        .env(format!("CFLAGS_{lower}"), c_flags.join(" "))
        .env(format!("CARGO_TARGET_{upper}_LINKER"), "rust-lld")
        .env(format!("CARGO_TARGET_{upper}_RUSTFLAGS"), flags)
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    // What cargo tells of xtask itself: build scripts look at these variables, and would begin anew for another way to call it.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            cargo.env_remove(name);
        }
    }
    output(&mut cargo)?;
    Ok(Built { path: target_dir.join(target).join("release/lifeboat"), took: begun.elapsed(), compiler })
}

/// Rust's own library for the target, by rustup where it is missing.
fn standard_library(target: &str, say: &dyn Fn(&str)) -> Result<()> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(workspace::root()))?;
    if Path::new(sysroot.trim()).join("lib/rustlib").join(target).join("lib").is_dir() {
        return Ok(());
    }
    if find_on_path("rustup").is_none() {
        bail!("this Rust has no library for {target}, and there is no rustup to get it");
    }
    say(&format!("rustup target add {target}"));
    output(Command::new("rustup").args(["target", "add", target]).current_dir(workspace::root())).map(drop)
}

/// A C compiler for musl on this processor family, and its name for people: the machine's own, the machine's ordinary one with musl's headers, or zig.
fn c_compiler(arch: &str, say: &dyn Fn(&str)) -> Result<(PathBuf, String)> {
    let native = arch == std::env::consts::ARCH;
    for name in [Some(format!("{arch}-linux-musl-gcc")), native.then(|| "musl-gcc".to_owned())].into_iter().flatten() {
        if let Some(path) = find_on_path(&name) {
            return Ok((path, name));
        }
    }
    let dir = workspace::root().join("target/musl").join(arch);
    let mut reasons = Vec::new();
    for (how, way) in [("cc with the headers of musl-dev", with_headers as Way), ("zig cc", with_zig)] {
        match way(arch, &dir, say).and_then(|script| working(&dir, &script)) {
            Ok(cc) => return Ok((cc, how.to_owned())),
            Err(error) => reasons.push(format!("{how}: {error:#}")),
        }
    }
    bail!("no C compiler for {arch} and musl: {}", reasons.join("; "))
}

type Way = fn(&str, &Path, &dyn Fn(&str)) -> Result<String>;

/// The headers out of the distribution's package, which fit this machine's own processor only.
fn with_headers(arch: &str, dir: &Path, say: &dyn Fn(&str)) -> Result<String> {
    if arch != std::env::consts::ARCH {
        bail!("they are for {} alone", std::env::consts::ARCH);
    }
    if find_on_path("cc").is_none() {
        bail!("no cc");
    }
    let headers = dir.join("root/usr/include").join(format!("{arch}-linux-musl"));
    if !headers.is_dir() {
        say("apt-get download musl-dev");
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        peers::unpack_debian(&["musl-dev"], dir)?;
    }
    Ok(format!("exec cc -nostdinc -isystem '{}' -isystem \"$(cc -print-file-name=include)\" \"$@\"\n", headers.display()))
}

/// zig holds every libc's headers and compiles C for all of them; it comes as a wheel.
fn with_zig(arch: &str, dir: &Path, say: &dyn Fn(&str)) -> Result<String> {
    let wheel = dir.with_file_name("zig");
    if !wheel.join("ziglang").is_dir() {
        say("pip install ziglang");
        peers::install_python("zig", &wheel)?;
    }
    // It names targets in its own way, and traps where C leaves a thing undefined unless told not to.
    Ok(format!(
        "for word do\n  shift\n  case \"$word\" in --target=*) ;; *) set -- \"$@\" \"$word\" ;; esac\ndone\nPYTHONPATH='{}' exec python3 -m ziglang cc -target {arch}-linux-musl -fno-sanitize=undefined \"$@\"\n",
        wheel.display()
    ))
}

/// Writes the compiler's script, and lets it compile something before a build of minutes relies on it.
fn working(dir: &Path, script: &str) -> Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let cc = dir.join("cc");
    let text = format!("#!/bin/sh\n{script}");
    // The same script is left as it is: cargo builds anew what an older one was made by.
    if fs::read_to_string(&cc).ok().as_deref() != Some(&text) {
        fs::write(&cc, text).with_context(|| format!("cannot write {}", cc.display()))?;
        fs::set_permissions(&cc, fs::Permissions::from_mode(0o755)).with_context(|| format!("cannot write {}", cc.display()))?;
    }
    let source = dir.join("probe.c");
    fs::write(&source, "#include <stdlib.h>\n#include <stdatomic.h>\nvoid *probe(size_t n) { return malloc(n); }\n")
        .context("cannot write a C file")?;
    output(Command::new(&cc).arg("-c").arg(&source).arg("-o").arg(dir.join("probe.o")))?;
    Ok(cc)
}
