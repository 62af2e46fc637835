//! Files kept beside a backup: PKI, encryption configuration, whatever a cluster is not itself without.
//!
//! Each path becomes one tar, sealed to its own recipients. The tar goes through an encrypted spool like the snapshot, so its size is not bounded by
//! memory and nothing plain reaches the disk.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use vault::name::ExtraName;

use crate::failure::{Failure, Outcome};
use crate::feed::Feed;
use crate::limits::FRAME;

/// The word that means every Talos node's machine config, where a path would stand.
pub const MACHINE_CONFIG: &str = "machine-config";

/// Something kept beside a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extra {
    /// A file or a directory of this machine.
    Path(PathBuf),
    /// The machine config of every node of a Talos cluster.
    MachineConfig,
}

impl Extra {
    /// What is meant by a path, or by the one reserved word.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        if path.as_os_str() == MACHINE_CONFIG { Self::MachineConfig } else { Self::Path(path.to_owned()) }
    }

    /// Whether it holds, or may hold, what decrypts values that the API server encrypts.
    #[must_use]
    pub fn holds_encryption_key(&self) -> bool {
        match self {
            Self::Path(path) => holds_encryption_configuration(path),
            Self::MachineConfig => true,
        }
    }
}

impl std::fmt::Display for Extra {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::MachineConfig => f.write_str(MACHINE_CONFIG),
        }
    }
}

/// The name an extra has in the repository, from its path: `/etc/kubernetes/pki` becomes `etc-kubernetes-pki`.
pub fn name_for(path: &Path) -> Outcome<ExtraName> {
    if !path.is_absolute() {
        return Err(Failure::usage("an extra is named by its absolute path").object(path.display()).again());
    }
    let mut name: String = path
        .to_string_lossy()
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '_' { c } else { '-' })
        .collect();
    while name.contains("..") {
        name = name.replace("..", ".");
    }
    let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let name: String = name.chars().take(63).collect();
    name.parse().map_err(|error| Failure::usage(format!("no name can be made for the extra: {error}")).object(path.display()))
}

/// Each extra once, with the name it gets; names are told apart by a number where two would share one.
pub fn name_all(extras: &[Extra]) -> Outcome<Vec<(ExtraName, Extra)>> {
    let reserved = || MACHINE_CONFIG.parse::<ExtraName>().map_err(|error| Failure::failed(error.to_string()));
    let mut named: Vec<(ExtraName, Extra)> = Vec::new();
    if extras.contains(&Extra::MachineConfig) {
        named.push((reserved()?, Extra::MachineConfig));
    }
    for extra in extras {
        let Extra::Path(path) = extra else { continue };
        let plain = name_for(path)?;
        let mut name = plain.clone();
        let mut number = 1;
        // The reserved word is nobody else's, whether it is asked for or not.
        while name.as_str() == MACHINE_CONFIG || named.iter().any(|(taken, _)| *taken == name) {
            number += 1;
            let short: String = plain.as_str().chars().take(59).collect();
            name = format!("{short}-{number}")
                .parse()
                .map_err(|error| Failure::usage(format!("no name can be made for the extra: {error}")).object(path.display()))?;
        }
        named.push((name, extra.clone()));
    }
    Ok(named)
}

/// Writes a tar of `path` into a feed and completes it. Symbolic links are kept as links, sockets and the like are left out.
///
/// Blocks until everything is in the spool; run it on a thread of its own.
pub fn pack(path: &Path, feed: &Feed) -> Outcome<()> {
    let mut archive = tar::Builder::new(FrameWriter::new(feed));
    archive.follow_symlinks(false);
    let inside = path.strip_prefix("/").unwrap_or(path);
    let unreadable = |error: io::Error| Failure::failed(format!("the extra cannot be read: {error}")).object(path.display());
    let metadata = std::fs::symlink_metadata(path).map_err(unreadable)?;
    let packed = if metadata.is_dir() { archive.append_dir_all(inside, path) } else { archive.append_path_with_name(path, inside) };
    packed.map_err(unreadable)?;
    archive.into_inner().and_then(FrameWriter::finish).map_err(unreadable)?;
    feed.complete();
    Ok(())
}

/// Whether a file, or a file below a directory, is an API server's `EncryptionConfiguration`.
#[must_use]
pub fn holds_encryption_configuration(path: &Path) -> bool {
    /// Files looked at, at most, and their size: such a configuration is a small file near the top.
    const FILES: usize = 10_000;
    const BYTES: u64 = 1 << 20;
    let mut waiting = vec![path.to_owned()];
    let mut seen = 0;
    while let Some(path) = waiting.pop() {
        seen += 1;
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
        if seen > FILES || metadata.is_symlink() {
            continue;
        }
        if metadata.is_dir() {
            waiting.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else if metadata.is_file()
            && metadata.len() <= BYTES
            && let Ok(content) = read_at_most(&path, BYTES)
            && content.windows(23).any(|window| window == b"EncryptionConfiguration")
        {
            return true;
        }
    }
    false
}

/// A file may grow, or become another one, after it was looked at.
fn read_at_most(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut content = Vec::new();
    std::fs::File::open(path)?.take(bytes).read_to_end(&mut content)?;
    Ok(content)
}

/// Cuts what is written into frames of a feed.
pub(crate) struct FrameWriter<'a> {
    feed: &'a Feed,
    frame: Vec<u8>,
}

impl Write for FrameWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(FRAME - self.frame.len());
        self.frame.extend_from_slice(&bytes[..taken]);
        if self.frame.len() == FRAME {
            self.hand_over()?;
        }
        Ok(taken)
    }

    // A frame shorter than the others may only be the last one, so only `finish` hands over what is left.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> FrameWriter<'a> {
    pub(crate) fn new(feed: &'a Feed) -> Self {
        Self { feed, frame: feed.buffer() }
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        if self.frame.is_empty() { Ok(()) } else { self.hand_over() }
    }

    fn hand_over(&mut self) -> io::Result<()> {
        let full = std::mem::replace(&mut self.frame, self.feed.buffer());
        self.feed.push(full).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::spool::{Spool, SpoolOptions};

    #[test]
    fn names_are_slugs_of_their_paths_and_never_the_same() {
        let paths = ["/etc/kubernetes/pki", "/etc/kubernetes-pki", "/opt/../x", "/machine-config", "machine-config"];
        let named = name_all(&paths.map(|path| Extra::of(Path::new(path)))).unwrap();
        let names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names[..3], ["machine-config", "etc-kubernetes-pki", "etc-kubernetes-pki-2"]);
        assert!(!names[3].contains(".."));
        assert_eq!(names[4], "machine-config-2", "the word is reserved");
        assert!(name_for(Path::new("relative")).is_err());
        assert!(name_for(Path::new("/")).is_err());
    }

    #[test]
    fn a_pipe_among_the_extras_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let made = std::process::Command::new("mkfifo").arg(directory.path().join("pipe")).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfifo");
        assert!(!holds_encryption_configuration(directory.path()));
        std::fs::write(directory.path().join("encryption.yaml"), "kind: EncryptionConfiguration").unwrap();
        assert!(holds_encryption_configuration(directory.path()));
    }

    #[test]
    fn a_directory_comes_back_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("pki")).unwrap();
        std::fs::write(directory.path().join("pki/ca.crt"), "certificate").unwrap();
        std::os::unix::fs::symlink("ca.crt", directory.path().join("pki/link")).unwrap();
        let spool_directory = tempfile::tempdir().unwrap();
        let options = SpoolOptions { directory: Some(spool_directory.path().to_owned()), ..SpoolOptions::default() };
        let feed = Feed::new(Arc::new(Spool::create(&options).unwrap()));
        pack(&directory.path().join("pki"), &feed).unwrap();
        let mut bytes = Vec::new();
        while let Some(frame) = feed.take().unwrap() {
            bytes.extend_from_slice(&frame.bytes);
        }
        let out = tempfile::tempdir().unwrap();
        tar::Archive::new(&bytes[..]).unpack(out.path()).unwrap();
        let inside = out.path().join(directory.path().strip_prefix("/").unwrap()).join("pki");
        assert_eq!(std::fs::read_to_string(inside.join("ca.crt")).unwrap(), "certificate");
        assert_eq!(std::fs::read_link(inside.join("link")).unwrap(), Path::new("ca.crt"));
    }
}
