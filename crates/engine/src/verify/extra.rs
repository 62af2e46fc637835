//! Opening an extra: one tar in the age format, read to its end.

use std::io::{self, Read};
use std::sync::Arc;

use vault::layers::Layers;
use vault::repository::proof::is_damage;
use vault::seal::{Identities, SealError, StreamDecoder};

use super::scan::Blocks;
use crate::failure::Outcome;

/// What came of opening an extra.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// It is a sound tar.
    Tar,
    /// No identity given opens it, or one cannot be used; in words.
    Locked(String),
    /// It does not open, or is no tar; in words.
    Damaged(String),
}

/// Opens an extra from its bytes as they come. Nothing of it is kept.
pub(super) fn open(blocks: Blocks, identities: &Arc<Identities>) -> Outcome<Opened> {
    let layers = Layers { zstd: false, age: true };
    let judge = |error: SealError| if is_damage(&error) { Opened::Damaged(error.to_string()) } else { Opened::Locked(error.to_string()) };
    Ok(match StreamDecoder::open(layers, blocks, identities) {
        Ok(decoder) => walk(decoder).map_or_else(|error| Opened::Damaged(error.to_string()), |()| Opened::Tar),
        Err(error) => judge(error),
    })
}

fn walk(plain: impl Read) -> io::Result<()> {
    let mut archive = tar::Archive::new(plain);
    for entry in archive.entries()? {
        io::copy(&mut entry?, &mut io::sink())?;
    }
    // Behind the tar's own end too: the last chunk says that nothing was cut off.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use vault::seal::recipients::seal_bytes;
    use vault::seal::{NoCallbacks, Recipients, SecretString};

    use super::*;

    fn passphrase(text: &str) -> Arc<Identities> {
        let mut identities = Identities::new();
        identities.add_passphrase(SecretString::from(text.to_owned()));
        Arc::new(identities)
    }

    fn sealed(plain: &[u8]) -> Vec<u8> {
        let recipients = Recipients::passphrase(SecretString::from("right".to_owned())).with_work_factor(2);
        seal_bytes(&recipients, plain, NoCallbacks).unwrap()
    }

    fn tar_of(content: &[u8]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_cksum();
        archive.append_data(&mut header, "etc/pki/ca.key", content).unwrap();
        archive.into_inner().unwrap()
    }

    fn opened(stored: &[u8], identities: &Arc<Identities>) -> Opened {
        open(Blocks::of(stored, 100_000), identities).unwrap()
    }

    #[test]
    fn a_tar_is_read_to_its_end() {
        let stored = sealed(&tar_of(&vec![7; 200_000]));
        assert_eq!(opened(&stored, &passphrase("right")), Opened::Tar);
        assert!(matches!(opened(&stored, &passphrase("wrong")), Opened::Locked(_)));
    }

    #[test]
    fn a_changed_or_cut_extra_is_damaged() {
        let stored = sealed(&tar_of(&vec![7; 200_000]));
        let mut changed = stored.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert!(matches!(opened(&changed, &passphrase("right")), Opened::Damaged(_)));
        assert!(matches!(opened(&stored[..stored.len() - 10], &passphrase("right")), Opened::Damaged(_)));
        assert!(matches!(opened(&sealed(&tar_of(&[1; 3000])[..2000]), &passphrase("right")), Opened::Damaged(_)));
    }
}
