//! Making keys and keeping them in files: the recovery identity that opens backups, the signing key that vouches for them. A file that is there is
//! never overwritten; one that holds what is wanted is used.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use vault::limits::IDENTITY_FILE_BYTES;
use vault::seal::identities::open_bytes;
use vault::seal::recipients::{generate_identity, seal_bytes};
use vault::seal::{Identities, NoCallbacks, Recipients};
use vault::sign::{PublicKey, SigningKey};

use crate::failure::{Failure, Outcome};
use crate::place;

/// What the comment in an identity file begins with, by `age-keygen` and by us.
const PUBLIC_KEY: &str = "# public key: ";
/// A key file that others can read has more bits than these.
const OWNER_ONLY: u32 = 0o600;

/// A recovery identity that was just made and is in no file yet.
#[derive(Debug)]
pub struct Fresh {
    file: SecretString,
    /// Its public half.
    pub recipient: String,
}

impl Fresh {
    /// Makes one.
    #[must_use]
    pub fn make() -> Self {
        let (file, recipient) = generate_identity();
        Self { file, recipient }
    }

    /// The one line that opens backups, to be shown to its owner once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.file.expose_secret().lines().find(|line| !line.starts_with('#')).unwrap_or_default()
    }

    /// Writes the identity to a new file, readable by its owner alone.
    pub fn keep(&self, path: &Path) -> Outcome<()> {
        write(path, self.file.expose_secret(), "the identity", "--identity-out")
    }
}

/// A key in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept<P> {
    /// The file.
    pub path: PathBuf,
    /// The public half.
    pub public: P,
    /// Whether the file was there already.
    pub was_there: bool,
}

/// The recovery identity in a file: the one that is there, else a new one.
pub fn identity(path: &Path) -> Outcome<Kept<String>> {
    let path = absolute(path)?;
    if path.symlink_metadata().is_ok() {
        let public = recipient_of(&path)?;
        return Ok(Kept { path, public, was_there: true });
    }
    let fresh = Fresh::make();
    fresh.keep(&path)?;
    Ok(Kept { path, public: fresh.recipient, was_there: false })
}

/// The signing key in a file: the one that is there, else a new one.
pub fn signing(path: &Path) -> Outcome<Kept<PublicKey>> {
    let path = absolute(path)?;
    if path.symlink_metadata().is_ok() {
        let key = place::signing_key(&path).map_err(|failure| failure.again())?;
        return Ok(Kept { path, public: key.public().clone(), was_there: true });
    }
    let public = new_signing(&path)?;
    Ok(Kept { path, public, was_there: false })
}

/// Makes a signing key in a new file.
pub fn new_signing(path: &Path) -> Outcome<PublicKey> {
    let failed = |error: vault::sign::SignError| Failure::failed("the signing key cannot be made").cause(error).again();
    let key = SigningKey::generate().map_err(failed)?;
    let text = key.to_file().map_err(failed)?;
    write(path, text.expose_secret(), "the signing key", "--signing-out")?;
    Ok(key.public().clone())
}

/// Refuses a file that is there already. Nothing is made.
pub fn refuse_existing(path: &Path, what: &str, flag: &str) -> Outcome<()> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    Err(exists(path, what, flag))
}

fn exists(path: &Path, what: &str, flag: &str) -> Failure {
    Failure::usage(format!("{what} is not written: there is a file already"))
        .object(path.display())
        .cause(format!("a key that is overwritten is lost, and every backup with it; name another file with {flag}"))
        .again()
}

fn write(path: &Path, text: &str, what: &str, flag: &str) -> Outcome<()> {
    disk::publish_new(path, text.as_bytes(), OWNER_ONLY).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => exists(path, what, flag),
        _ => Failure::usage(format!("{what} cannot be written: {error}")).object(path.display()).again(),
    })
}

/// The public half of the identity in a file: what its comment says, once it was proven that the identity opens what is sealed to it.
pub fn recipient_of(path: &Path) -> Outcome<String> {
    let failed = |cause: &dyn std::fmt::Display| {
        Failure::usage("there is a file already, and it is not an identity that could be used")
            .object(path.display())
            .cause(format!("{cause}; name another file with --identity-out"))
            .again()
    };
    let size = std::fs::metadata(path).map_err(|error| failed(&error))?.len();
    if size > IDENTITY_FILE_BYTES as u64 {
        return Err(failed(&format!("{size} bytes are more than an identity has")));
    }
    let content = std::fs::read(path).map_err(|error| failed(&error))?;
    let mut identities = Identities::new();
    identities.add_file(&path.display().to_string(), &content, NoCallbacks).map_err(|error| failed(&error))?;
    let text = String::from_utf8_lossy(&content);
    let recipient = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(PUBLIC_KEY))
        .ok_or_else(|| failed(&format!("no line '{PUBLIC_KEY}age1…' tells its public half; give that with --recipient instead")))?
        .trim();
    let probe = b"lifeboat";
    let opens = Recipients::keys([recipient])
        .and_then(|recipients| seal_bytes(&recipients, probe, NoCallbacks))
        .and_then(|sealed| open_bytes(&identities, &sealed, probe.len()));
    match opens {
        Ok(opened) if opened == probe => Ok(recipient.to_ascii_lowercase()),
        Ok(_) => Err(failed(&"it opens other bytes than were sealed to the public key it names")),
        Err(error) => Err(failed(&format!("it does not open what is sealed to the public key it names: {error}"))),
    }
}

/// Whether a key file can be read by others than its owner.
#[must_use]
pub fn is_open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

/// A path that is right from every directory.
pub fn absolute(path: &Path) -> Outcome<PathBuf> {
    std::path::absolute(path).map_err(|error| Failure::usage("the path cannot be used").object(path.display()).cause(error).again())
}

/// Checks recipients and gives them in their one form, each once, with the fingerprints that manifests name them by.
pub fn recipients(texts: &[String]) -> Outcome<Vec<(String, String)>> {
    let mut checked: Vec<(String, String)> = Vec::new();
    for text in texts {
        let one = Recipients::keys([text.as_str()]).map_err(|error| {
            Failure::usage("a recipient cannot be used").object(text.chars().take(80).collect::<String>()).cause(error).again()
        })?;
        let canonical = text.trim().to_ascii_lowercase();
        let fingerprint = one.fingerprints().first().map(ToString::to_string).unwrap_or_default();
        if !checked.iter().any(|(known, _)| *known == canonical) {
            checked.push((canonical, fingerprint));
        }
    }
    // All of them together may still not fit (too many).
    if !checked.is_empty() {
        Recipients::keys(checked.iter().map(|(text, _)| text.as_str()))
            .map_err(|error| Failure::usage("the recipients cannot be used together").cause(error).again())?;
    }
    Ok(checked)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_identity_is_made_once_and_then_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identity.txt");
        let made = identity(&path).unwrap();
        assert!(!made.was_there && made.public.starts_with("age1"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(identity(&path).unwrap(), Kept { was_there: true, ..made });
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        assert!(Fresh::make().keep(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn an_identity_that_names_another_public_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identity.txt");
        let (one, other) = (Fresh::make(), Fresh::make());
        std::fs::write(&path, format!("{PUBLIC_KEY}{}\n{}\n", other.recipient, one.reveal())).unwrap();
        assert!(recipient_of(&path).unwrap_err().cause.unwrap().contains("does not open"));
        std::fs::write(&path, format!("{}\n", one.reveal())).unwrap();
        assert!(recipient_of(&path).unwrap_err().cause.unwrap().contains("public half"));
        std::fs::write(&path, "my notes").unwrap();
        assert_eq!(recipient_of(&path).unwrap_err().code, crate::Code::Usage);
        assert_eq!(std::fs::read(&path).unwrap(), b"my notes");
    }

    #[test]
    fn a_signing_key_is_made_once_and_then_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sign.key");
        let made = signing(&path).unwrap();
        assert!(!made.was_there && !is_open_to_others(&path));
        assert_eq!(signing(&path).unwrap(), Kept { was_there: true, ..made });
        assert!(refuse_existing(&path, "the signing key", "--signing-out").is_err());
        std::fs::write(&path, "junk").unwrap();
        assert_eq!(signing(&path).unwrap_err().code, crate::Code::Usage);
    }

    #[test]
    fn recipients_are_checked_and_each_counts_once() {
        let fresh = Fresh::make();
        let found = recipients(&[fresh.recipient.clone(), fresh.recipient.to_ascii_uppercase()]).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1.len(), 16);
        assert_eq!(recipients(&["age1nonsense".to_owned()]).unwrap_err().code, crate::Code::Usage);
    }
}
