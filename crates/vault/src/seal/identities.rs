//! What opens a backup: identity files, plugins, passphrases.

use std::fmt;
use std::io::{Cursor, Read};

use age::secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use age::{Callbacks, DecryptError, Decryptor, Identity, IdentityFile};
use age_core::format::{FileKey, Stanza};

use super::SealError;
use crate::limits;

/// The keys a reader was given.
#[derive(Default)]
pub struct Identities(Vec<Box<dyn Identity + Send + Sync>>);

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} identities", self.0.len())
    }
}

const BINARY: &[u8] = b"age-encryption.org/";
const ARMORED: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";

impl Identities {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the content of an identity file is itself encrypted.
    pub fn is_encrypted(content: &[u8]) -> bool {
        content.starts_with(BINARY) || content.starts_with(ARMORED)
    }

    /// Adds the identities of a file: lines of `AGE-SECRET-KEY-1…` or `AGE-PLUGIN-…`, comments, or such a file encrypted with a passphrase, for
    /// which `callbacks` are asked. `label` is for messages.
    pub fn add_file(&mut self, label: &str, content: &[u8], callbacks: impl Callbacks) -> Result<(), SealError> {
        let wrong = |detail: String| SealError::Identity { label: label.to_owned(), detail };
        if content.len() > limits::IDENTITY_FILE_BYTES {
            return Err(wrong("too large for an identity file".to_owned()));
        }
        let opened;
        let content = if Self::is_encrypted(content) {
            opened = open_encrypted(label, content, &callbacks)?;
            &opened[..]
        } else {
            content
        };
        let file = IdentityFile::from_buffer(content).map_err(|e| wrong(e.to_string()))?;
        let identities = file.with_callbacks(callbacks).into_identities()?;
        if identities.is_empty() {
            return Err(wrong("there is no identity in it".to_owned()));
        }
        self.0.extend(identities);
        Ok(())
    }

    /// Adds a passphrase.
    pub fn add_passphrase(&mut self, passphrase: SecretString) {
        self.0.push(Box::new(passphrase_identity(passphrase)));
    }

    /// Unwraps the file key of a header, once, and checks the header's MAC with it.
    pub(super) fn unwrap<R: Read>(&self, decryptor: Decryptor<R>) -> Result<FileKey, SealError> {
        let capture = Capture { identities: self, key: std::cell::RefCell::new(None) };
        decryptor.decrypt(std::iter::once(&capture as &dyn Identity))?;
        capture.key.into_inner().ok_or(SealError::NoKey)
    }
}

fn passphrase_identity(passphrase: SecretString) -> age::scrypt::Identity {
    let mut identity = age::scrypt::Identity::new(passphrase);
    identity.set_max_work_factor(limits::SCRYPT_LOG_N);
    identity
}

fn open_encrypted(label: &str, content: &[u8], callbacks: &impl Callbacks) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let wrong = |detail: &str| SealError::Identity { label: label.to_owned(), detail: detail.to_owned() };
    let decryptor = Decryptor::new_buffered(age::armor::ArmoredReader::new(content)).map_err(|_| wrong("its age header is not sound"))?;
    if !decryptor.is_scrypt() {
        return Err(wrong("it is encrypted, but not with a passphrase"));
    }
    let asked = callbacks.request_passphrase(&format!("Passphrase for {label}"));
    let passphrase = asked.ok_or_else(|| wrong("it is encrypted, and there is nobody to ask for the passphrase"))?;
    let identity = passphrase_identity(passphrase);
    let reader = decryptor.decrypt(std::iter::once(&identity as &dyn Identity)).map_err(|e| match e {
        DecryptError::ExcessiveWork { required, .. } => SealError::ExcessiveWork { required },
        _ => wrong("the passphrase does not open it"),
    })?;
    let mut plain = Zeroizing::new(Vec::new());
    let limit = limits::IDENTITY_FILE_BYTES as u64;
    reader.take(limit).read_to_end(&mut plain).map_err(|_| wrong("it is damaged"))?;
    Ok(plain)
}

/// Asks all identities and keeps the file key. The age crate would hand out a reader only; with the key, any number of them can be made.
struct Capture<'a> {
    identities: &'a Identities,
    key: std::cell::RefCell<Option<FileKey>>,
}

impl Identity for Capture<'_> {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        self.keep(self.identities.0.iter().find_map(|identity| identity.unwrap_stanza(stanza)))
    }

    fn unwrap_stanzas(&self, stanzas: &[Stanza]) -> Option<Result<FileKey, DecryptError>> {
        self.keep(self.identities.0.iter().find_map(|identity| identity.unwrap_stanzas(stanzas)))
    }
}

impl Capture<'_> {
    fn keep(&self, found: Option<Result<FileKey, DecryptError>>) -> Option<Result<FileKey, DecryptError>> {
        if let Some(Ok(key)) = &found {
            self.key.replace(Some(FileKey::init_with_mut(|copy| *copy = *key.expose_secret())));
        }
        found
    }
}

/// Opens a small object at once that [`super::recipients::seal_bytes`] made. More than `limit` bytes of plain text are an error.
pub fn open_bytes(identities: &Identities, sealed: &[u8], limit: usize) -> Result<Vec<u8>, SealError> {
    let mut plain = Vec::new();
    let mut reader = super::fallback::open_age(Cursor::new(sealed), identities)?;
    let read = (&mut reader).take((limit as u64).saturating_add(1)).read_to_end(&mut plain);
    read.map_err(|e| SealError::Age { detail: e.to_string() })?;
    if plain.len() > limit {
        return Err(SealError::Age { detail: format!("it holds more than the {limit} bytes allowed") });
    }
    Ok(plain)
}
