//! Who prunes, and so whose tombstones are its own.

use std::io;
use std::path::Path;

use vault::mark::Tombstone;
use vault::repository::MarkEntry;
use vault::sign::{SigningKey, Status, TrustedSigners};

use crate::failure::{Failure, Outcome};
use crate::label;

/// The file in the state directory with this host's id.
const FILE: &str = "pruner";

/// Who prunes: with trusted signers any of them; else this host, by an id in its state directory.
#[derive(Debug)]
pub struct Pruner {
    /// Signs the tombstones, where given.
    pub signing: Option<SigningKey>,
    is_by_signature: bool,
    host: Option<String>,
}

impl Pruner {
    /// Finds out who prunes. A host without an id gets one, unless nothing is to be carried out.
    ///
    /// # Errors
    /// A usage failure where signers are trusted and `signing` is not one of them; where the id can neither be read nor made.
    pub fn new(signers: &TrustedSigners, signing: Option<SigningKey>, state: Option<&Path>, dry_run: bool) -> Outcome<Self> {
        let is_by_signature = !signers.is_empty();
        if !dry_run {
            label::check_signer(signers, signing.as_ref(), "a pruning")?;
        }
        let host = if is_by_signature { None } else { host(state, dry_run)? };
        Ok(Self { signing, is_by_signature, host })
    }

    /// The id to write into a tombstone.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// Whether a tombstone is its own.
    #[must_use]
    pub fn owns(&self, entry: &MarkEntry, tombstone: &Tombstone) -> bool {
        if self.is_by_signature {
            return matches!(entry.signature, Status::Trusted(_));
        }
        entry.counts && self.host.is_some() && tombstone.pruner == self.host
    }
}

fn host(state: Option<&Path>, dry_run: bool) -> Outcome<Option<String>> {
    let Some(state) = state else {
        if dry_run {
            return Ok(None);
        }
        return Err(Failure::failed("there is no place for the id of this pruner")
            .cause("without trusted signers a pruner knows its own tombstones by an id in the state directory; neither HOME, XDG_STATE_HOME nor LIFEBOAT_STATE_DIR is set")
            .again());
    };
    let path = state.join(FILE);
    let wrong = |error: io::Error| Failure::failed(format!("the id of this pruner cannot be kept: {error}")).object(path.display()).again();
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim().parse::<ulid::Ulid>().is_ok() => return Ok(Some(text.trim().to_owned())),
        Ok(_) => {}
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {}
        Err(error) => return Err(wrong(error)),
    }
    if dry_run {
        return Ok(None);
    }
    // A new id only starts the grace anew.
    let id = ulid::Ulid::generate().to_string();
    disk::create_dir_all(state, 0o700).map_err(wrong)?;
    disk::publish_replace(&path, format!("{id}\n").as_bytes(), 0o600).map_err(wrong)?;
    Ok(Some(id))
}
