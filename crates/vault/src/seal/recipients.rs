//! To whom a backup is sealed: public keys, so that a backup host holds nothing that opens one.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use age::Callbacks;
use age::secrecy::{ExposeSecret, SecretString};
use age_core::format::{FileKey, Stanza};

use super::{FrameCompressor, SealError, SealWriter};
use crate::digest::Sha256;
use crate::layers::Layers;
use crate::limits;
use crate::name::text_serde;

/// What a manifest says of a recipient: the first 16 hexadecimal digits of the SHA-256 of its text (`age1…`, lower case, without a line feed).
///
/// `printf %s age1… | sha256sum | cut -c1-16` gives the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecipientFingerprint(u64);

impl RecipientFingerprint {
    fn of(recipient: &str) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = Sha256::of(recipient.as_bytes()).0;
        Self(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

impl fmt::Display for RecipientFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for RecipientFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecipientFingerprint({self})")
    }
}

/// Text that was given as a recipient's fingerprint is not 16 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a recipient's fingerprint: 16 lower-case hexadecimal digits are expected")]
pub struct NotAFingerprint;

impl FromStr for RecipientFingerprint {
    type Err = NotAFingerprint;

    fn from_str(text: &str) -> Result<Self, NotAFingerprint> {
        let fingerprint = u64::from_str_radix(text, 16).map(Self).map_err(|_| NotAFingerprint)?;
        if fingerprint.to_string() == text { Ok(fingerprint) } else { Err(NotAFingerprint) }
    }
}

text_serde!(RecipientFingerprint);

#[derive(Clone)]
enum Key {
    X25519(age::x25519::Recipient),
    Tag(age::tag::Recipient),
    TagPq(Box<age::tagpq::Recipient>),
    Plugin(age::plugin::Recipient),
}

fn parse(text: &str) -> Option<Key> {
    let native = text
        .parse()
        .map(Key::X25519)
        .or_else(|_| text.parse().map(Key::Tag))
        .or_else(|_| text.parse().map(|key| Key::TagPq(Box::new(key))));
    native.or_else(|_| text.parse().map(Key::Plugin)).ok()
}

#[derive(Clone)]
enum Who {
    Keys(Vec<(String, Key)>),
    Passphrase { passphrase: SecretString, log_n: u8 },
}

/// A non-empty set of recipients that can be used together: one or more public keys, or one passphrase.
#[derive(Clone)]
pub struct Recipients(Who);

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Who::Keys(keys) => f.debug_list().entries(keys.iter().map(|(text, _)| text)).finish(),
            Who::Passphrase { .. } => f.write_str("a passphrase"),
        }
    }
}

impl Recipients {
    /// Public keys: `age1…` (X25519, the tagged kinds of age 0.12, and `age1<plugin>1…`). Duplicates count once.
    pub fn keys<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, SealError> {
        let mut keys: Vec<(String, Key)> = Vec::new();
        for text in texts {
            // bech32 may be all upper case; a recipient must have one fingerprint only.
            let canonical = text.trim().to_ascii_lowercase();
            let key = parse(&canonical).ok_or_else(|| SealError::NotARecipient { text: text.chars().take(80).collect() })?;
            if !keys.iter().any(|(known, _)| *known == canonical) {
                keys.push((canonical, key));
            }
        }
        if keys.is_empty() || keys.len() > limits::RECIPIENTS {
            let detail = format!("there are {}, 1 to {} are allowed", keys.len(), limits::RECIPIENTS);
            return Err(SealError::Recipients { detail });
        }
        Ok(Self(Who::Keys(keys)))
    }

    /// The keys in a recipients file: one per line, `#` begins a comment.
    pub fn lines(file: &str) -> impl Iterator<Item = &str> {
        file.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
    }

    /// A passphrase, which then is the only recipient. Opening takes 256 MiB and about a second.
    pub fn passphrase(passphrase: SecretString) -> Self {
        Self(Who::Passphrase { passphrase, log_n: limits::SCRYPT_LOG_N_WRITTEN })
    }

    /// Sets the work factor of a passphrase to 2^`log_n`, `1..=`[`limits::SCRYPT_LOG_N`]. No effect on keys.
    #[must_use]
    pub fn with_work_factor(mut self, factor: u8) -> Self {
        if let Who::Passphrase { log_n, .. } = &mut self.0 {
            *log_n = factor.clamp(1, limits::SCRYPT_LOG_N);
        }
        self
    }

    /// What the manifest says of the keys; empty for a passphrase.
    pub fn fingerprints(&self) -> Vec<RecipientFingerprint> {
        match &self.0 {
            Who::Keys(keys) => keys.iter().map(|(text, _)| RecipientFingerprint::of(text)).collect(),
            Who::Passphrase { .. } => Vec::new(),
        }
    }

    /// Whether it is a passphrase.
    pub fn is_passphrase(&self) -> bool {
        matches!(self.0, Who::Passphrase { .. })
    }

    /// Makes a file key, wraps it for everyone, and answers the age header with the payload's nonce behind it, and the key.
    ///
    /// Plugins run here; `callbacks` answer their questions.
    pub(super) fn wrap(&self, callbacks: impl Callbacks) -> Result<(Vec<u8>, FileKey), SealError> {
        let recipients = match &self.0 {
            Who::Keys(keys) => boxed(keys, callbacks)?,
            Who::Passphrase { passphrase, log_n } => {
                let mut recipient = age::scrypt::Recipient::new(passphrase.clone());
                recipient.set_work_factor(*log_n);
                vec![Box::new(recipient) as Box<dyn age::Recipient>]
            }
        };
        let capture: Vec<Capture> = recipients.into_iter().map(Capture::new).collect();
        let encryptor = age::Encryptor::with_recipients(capture.iter().map(|recipient| recipient as &dyn age::Recipient))?;
        let mut header = Vec::new();
        // The crate's writer is dropped unused: header and nonce are all that is wanted of it, so its key encrypts nothing.
        encryptor.wrap_output(&mut header).map_err(|e| SealError::Age { detail: e.to_string() })?;
        let key = capture.into_iter().find_map(|recipient| recipient.key.into_inner());
        Ok((header, key.ok_or_else(|| SealError::Age { detail: "no file key was made".to_owned() })?))
    }
}

/// Forwards to a recipient and keeps the file key, which the age crate would show to its own writer only.
struct Capture {
    recipient: Box<dyn age::Recipient>,
    key: RefCell<Option<FileKey>>,
}

impl Capture {
    fn new(recipient: Box<dyn age::Recipient>) -> Self {
        Self { recipient, key: RefCell::new(None) }
    }
}

impl age::Recipient for Capture {
    fn wrap_file_key(&self, key: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), age::EncryptError> {
        self.key.replace(Some(FileKey::init_with_mut(|copy| *copy = *key.expose_secret())));
        self.recipient.wrap_file_key(key)
    }
}

fn boxed(keys: &[(String, Key)], callbacks: impl Callbacks) -> Result<Vec<Box<dyn age::Recipient>>, SealError> {
    let mut recipients: Vec<Box<dyn age::Recipient>> = Vec::new();
    let mut plugins = Vec::new();
    for (_, key) in keys {
        match key {
            Key::X25519(key) => recipients.push(Box::new(key.clone())),
            Key::Tag(key) => recipients.push(Box::new(key.clone())),
            Key::TagPq(key) => recipients.push(key.clone()),
            Key::Plugin(key) => plugins.push(key.clone()),
        }
    }
    let mut names: Vec<&str> = plugins.iter().map(age::plugin::Recipient::plugin).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        // One process per plugin, for all of its recipients.
        let plugin = age::plugin::RecipientPluginV1::new(name, &plugins, &[], callbacks.clone());
        recipients.push(Box::new(plugin.map_err(|e| SealError::Plugin { detail: e.to_string() })?));
    }
    Ok(recipients)
}

/// Seals a small object at once, without compression: what an extra is (a file of the age format around a tar).
pub fn seal_bytes(recipients: &Recipients, plain: &[u8], callbacks: impl Callbacks) -> Result<Vec<u8>, SealError> {
    let mut writer = SealWriter::new(Layers { zstd: false, age: true }, Some(recipients), callbacks)?;
    let mut frames = FrameCompressor::stored();
    for raw in plain.chunks(limits::FRAME_RAW) {
        writer.push(frames.compress(raw)?)?;
    }
    let (pieces, _) = writer.finish()?;
    Ok(pieces.concat())
}

/// Makes an X25519 identity: the text of an identity file (the caller writes it with mode 0600), and its recipient.
pub fn generate_identity() -> (SecretString, String) {
    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public().to_string();
    let file = format!("# public key: {recipient}\n{}\n", identity.to_string().expose_secret());
    (SecretString::from(file), recipient)
}
