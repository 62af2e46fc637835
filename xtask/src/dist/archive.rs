//! Archives that come out the same from the same files: sorted, owned by root, all of one time.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::{Context, Result, bail};
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

/// A file of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where it lies, relative, with `/` between its parts.
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) bytes: Vec<u8>,
}

impl Entry {
    /// A file that everybody may read.
    pub(super) fn file(path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), mode: 0o644, bytes: bytes.into() }
    }

    /// A program.
    pub(super) fn program(path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { mode: 0o755, ..Self::file(path, bytes) }
    }
}

/// A gzipped tar archive of `entries` and the directories above them, in which every time is `epoch` (seconds since 1970). Every path gets `prefix` before it.
pub(super) fn tar_gz(entries: &[Entry], prefix: &str, epoch: u64) -> Result<Vec<u8>> {
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let mut builder = Builder::new(Vec::new());
    let mut made = BTreeSet::new();
    if !prefix.is_empty() {
        append(&mut builder, EntryType::Directory, prefix, 0o755, &[], epoch)?;
    }
    for entry in sorted {
        for (at, _) in entry.path.match_indices('/') {
            let directory = format!("{prefix}{}/", &entry.path[..at]);
            if made.insert(directory.clone()) {
                append(&mut builder, EntryType::Directory, &directory, 0o755, &[], epoch)?;
            }
        }
        append(&mut builder, EntryType::Regular, &format!("{prefix}{}", entry.path), entry.mode, &entry.bytes, epoch)?;
    }
    gz(&builder.into_inner().context("cannot end an archive")?)
}

/// The header takes the path as it is: `./usr` is what dpkg expects, and the library would drop the dot.
fn append(builder: &mut Builder<Vec<u8>>, kind: EntryType, path: &str, mode: u32, bytes: &[u8], epoch: u64) -> Result<()> {
    let mut header = Header::new_ustar();
    let name = &mut header.as_ustar_mut().context("no ustar header")?.name;
    if path.len() > name.len() || path.starts_with('/') || path.contains("..") {
        bail!("{path}: not a path for an archive");
    }
    name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_username("root").context("cannot name the owner")?;
    header.set_groupname("root").context("cannot name the owner")?;
    header.set_mtime(epoch);
    header.set_size(bytes.len() as u64);
    header.set_cksum();
    builder.append(&header, bytes).with_context(|| format!("cannot put {path} into an archive"))
}

/// Gzipped, without a time or a name in it.
pub(super) fn gz(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    encoder.write_all(bytes).context("cannot compress")?;
    encoder.finish().context("cannot compress")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Command;

    use super::*;
    use crate::process::{find_on_path, output};

    fn entries() -> Vec<Entry> {
        vec![Entry::file("docs/b.md", "b"), Entry::program("bin/tool", vec![7; 3000]), Entry::file("docs/a.md", "a")]
    }

    #[test]
    fn the_order_of_the_files_makes_no_difference() {
        let mut other = entries();
        other.reverse();
        assert_eq!(tar_gz(&entries(), "x-1/", 1_700_000_000).unwrap(), tar_gz(&other, "x-1/", 1_700_000_000).unwrap());
        assert_ne!(tar_gz(&entries(), "x-1/", 1).unwrap(), tar_gz(&entries(), "x-1/", 2).unwrap());
    }

    #[test]
    fn paths_that_lead_elsewhere_or_do_not_fit_are_refused() {
        for path in ["/etc/passwd", "a/../b", &"x".repeat(101)] {
            assert!(tar_gz(&[Entry::file(path, "")], "", 1).is_err(), "{path}");
        }
    }

    #[test]
    fn tar_reads_it() {
        if find_on_path("tar").is_none() {
            println!("SKIPPED: archive: no tar");
            return;
        }
        let dir = std::env::temp_dir().join(format!("xtask-archive-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("x.tar.gz");
        std::fs::write(&path, tar_gz(&entries(), "x-1/", 1_700_000_000).unwrap()).unwrap();
        let listed = output(Command::new("tar").args(["--utc", "-tvzf"]).arg(&path)).unwrap();
        let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
        let names: Vec<&str> = lines.iter().map(|line| line[5]).collect();
        assert_eq!(names, ["x-1/", "x-1/bin/", "x-1/bin/tool", "x-1/docs/", "x-1/docs/a.md", "x-1/docs/b.md"]);
        assert_eq!(lines[2][..5], ["-rwxr-xr-x", "root/root", "3000", "2023-11-14", "22:13"]);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
