//! A Debian package, written here: an `ar` archive of a version, a control archive and a data archive (deb(5)).

use anyhow::{Result, bail};

use super::archive::{Entry, tar_gz};

/// What a package says of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Package<'a> {
    pub(super) version: &'a str,
    /// As Debian names it: `amd64`, `arm64`.
    pub(super) architecture: &'a str,
}

/// Debian's word for a machine.
pub(super) fn architecture(arch: &str) -> Option<&'static str> {
    match arch {
        "x86_64" => Some("amd64"),
        "aarch64" => Some("arm64"),
        _ => None,
    }
}

/// The package with these files; paths are relative to `/`.
pub(super) fn write(package: Package<'_>, files: &[Entry], epoch: u64) -> Result<Vec<u8>> {
    let control = [Entry::file("control", control(package, files))];
    let members = [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", tar_gz(&control, "./", epoch)?),
        ("data.tar.gz", tar_gz(files, "./", epoch)?),
    ];
    ar(&members, epoch)
}

fn control(package: Package<'_>, files: &[Entry]) -> String {
    let kibibytes: usize = files.iter().map(|file| file.bytes.len().div_ceil(1024)).sum();
    format!(
        "Package: lifeboat\nVersion: {}\nArchitecture: {}\nMaintainer: The maintainers of Lifeboat <maintainers@lifeboat.invalid>\nInstalled-Size: {kibibytes}\nRecommends: ca-certificates\n\
         Section: admin\nPriority: optional\nDescription: backups of etcd that are proven to restore\n \
         Backs etcd up, sealed and verified, proves that the backups restore, and brings\n the cluster back. The program is static.\n",
        package.version, package.architecture
    )
}

/// An archive of `ar`: headers of sixty characters, members at even places.
fn ar(members: &[(&str, Vec<u8>)], epoch: u64) -> Result<Vec<u8>> {
    let mut archive = b"!<arch>\n".to_vec();
    for (name, bytes) in members {
        let header = format!("{name:<16}{epoch:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, "100644", bytes.len());
        if header.len() != 60 {
            bail!("{name}: does not fit into an archive");
        }
        archive.extend(header.as_bytes());
        archive.extend(bytes);
        if bytes.len() % 2 == 1 {
            archive.push(b'\n');
        }
    }
    Ok(archive)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Command;

    use super::*;
    use crate::process::{find_on_path, output};

    const PACKAGE: Package<'_> = Package { version: "1.2.3", architecture: "amd64" };

    fn files() -> Vec<Entry> {
        vec![Entry::program("usr/bin/lifeboat", vec![1; 5001]), Entry::file("usr/share/doc/lifeboat/copyright", "Apache-2.0\n")]
    }

    #[test]
    fn members_begin_at_even_places() {
        let archive = ar(&[("a", vec![1]), ("b", vec![2, 3])], 5).unwrap();
        assert_eq!(archive.len(), 8 + 60 + 2 + 60 + 2);
        assert_eq!(archive[8 + 60..8 + 62], [1, b'\n']);
        assert!(ar(&[("a-name-that-is-too-long", vec![])], 5).is_err());
    }

    #[test]
    fn dpkg_reads_it() {
        if find_on_path("dpkg-deb").is_none() {
            println!("SKIPPED: deb: no dpkg-deb");
            return;
        }
        let dir = std::env::temp_dir().join(format!("xtask-deb-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("x.deb");
        std::fs::write(&path, write(PACKAGE, &files(), 1_700_000_000).unwrap()).unwrap();
        let field = |name: &str| output(Command::new("dpkg-deb").arg("--field").arg(&path).arg(name)).unwrap().trim().to_owned();
        assert_eq!((field("Package"), field("Version"), field("Architecture")), ("lifeboat".into(), "1.2.3".into(), "amd64".into()));
        assert_eq!(field("Installed-Size"), "6");
        let info = output(Command::new("dpkg-deb").arg("--info").arg(&path)).unwrap();
        assert!(info.contains("new Debian package, version 2.0"), "{info}");
        let contents = output(Command::new("dpkg-deb").arg("--contents").arg(&path)).unwrap();
        assert!(
            contents.lines().any(|line| line.starts_with("-rwxr-xr-x root/root      5001 ") && line.ends_with(" ./usr/bin/lifeboat")),
            "{contents}"
        );
        output(Command::new("dpkg-deb").arg("--extract").arg(&path).arg(dir.join("root"))).unwrap();
        assert_eq!(std::fs::read(dir.join("root/usr/bin/lifeboat")).unwrap(), vec![1; 5001]);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn it_comes_out_the_same_twice() {
        let mut other = files();
        other.reverse();
        assert_eq!(write(PACKAGE, &files(), 7).unwrap(), write(PACKAGE, &other, 7).unwrap());
    }
}
