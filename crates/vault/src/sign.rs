//! Detached signatures that the `minisign` tool makes and checks.
//!
//! A signature file has four lines: an untrusted comment (signed by nobody), base64 of `"ED"`, key id and Ed25519 signature over the
//! BLAKE2b-512 of the bytes (minisign's prehashed form, its default since 0.10), the trusted comment, and base64 of a second signature over the
//! first one and the trusted comment. Lifeboat's trusted comment says which object is meant, so a sound signature cannot be moved elsewhere:
//!
//! ```text
//! trusted comment: lifeboat repository=<ulid> cluster=<name> id=<backup id or mark ulid> role=manifest
//! ```
//!
//! Whom to trust is said by the config or the recovery kit, never by the repository. A signature proves the host's key, not the truth.

use std::fmt;
use std::io::Cursor;
use std::str::FromStr;

use age::secrecy::SecretString;
use age::secrecy::zeroize::Zeroizing;

use crate::limits;
use crate::name::{ClusterName, RepositoryId, text_serde};

/// What is wrong with a key, or why nothing could be signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// Not a minisign public key.
    #[error("not a minisign public key: {detail}")]
    NotAPublicKey {
        /// What is wrong, without the text.
        detail: String,
    },
    /// Not an unencrypted minisign secret key file.
    #[error("not an unencrypted minisign secret key file (made by `lifeboat key` or `minisign -G -W`): {detail}")]
    NotASecretKey {
        /// What is wrong, without the text.
        detail: String,
    },
    /// The signature could not be made.
    #[error("cannot sign: {detail}")]
    Failed {
        /// The library's words.
        detail: String,
    },
}

/// The id of a signing key: 64 random bits, written as `minisign` does, 16 upper-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u64);

impl KeyId {
    fn from_bytes(bytes: &[u8]) -> Self {
        // minisign: KEYNUM_BYTES = 8, shown as a little-endian number.
        let mut id = [0; 8];
        for (to, from) in id.iter_mut().zip(bytes) {
            *to = *from;
        }
        Self(u64::from_le_bytes(id))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// Text that was given as a key id is not 16 upper-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key id: 16 upper-case hexadecimal digits are expected")]
pub struct NotAKeyId;

impl FromStr for KeyId {
    type Err = NotAKeyId;

    fn from_str(text: &str) -> Result<Self, NotAKeyId> {
        let id = u64::from_str_radix(text, 16).map(Self).map_err(|_| NotAKeyId)?;
        if id.to_string() == text { Ok(id) } else { Err(NotAKeyId) }
    }
}

text_serde!(KeyId);

/// What a signed object is, for the trusted comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A manifest; the id is the backup's.
    Manifest,
    /// A mark; the id is the mark's.
    Mark,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manifest => "manifest",
            Self::Mark => "mark",
        })
    }
}

/// What a signature is tied to beside the bytes.
#[derive(Clone, Copy)]
pub struct Binding<'a> {
    /// The repository.
    pub repository: &'a RepositoryId,
    /// The cluster.
    pub cluster: &'a ClusterName,
    /// The backup id or mark id.
    pub id: &'a (dyn fmt::Display + Sync),
    /// What it is.
    pub role: Role,
}

impl fmt::Debug for Binding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Binding({})", self.comment())
    }
}

impl Binding<'_> {
    /// The trusted comment.
    pub fn comment(&self) -> String {
        let Self { repository, cluster, id, role } = self;
        format!("lifeboat repository={repository} cluster={cluster} id={id} role={role}")
    }
}

/// The public half of a signing key.
#[derive(Clone)]
pub struct PublicKey(minisign::PublicKey);

impl PublicKey {
    /// Its id.
    pub fn id(&self) -> KeyId {
        KeyId::from_bytes(self.0.keynum())
    }

    /// The key as one line of base64, as `minisign -P` takes it.
    pub fn to_line(&self) -> String {
        self.0.to_base64()
    }

    /// The key as a two-line file, as `minisign -p` takes it.
    pub fn to_file(&self) -> String {
        format!("untrusted comment: minisign public key {}\n{}\n", self.id(), self.to_line())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.to_line())
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bytes() == other.0.to_bytes()
    }
}

impl Eq for PublicKey {}

impl FromStr for PublicKey {
    type Err = SignError;

    /// Reads one line of base64 or a two-line file.
    fn from_str(text: &str) -> Result<Self, SignError> {
        let mut lines = text.trim().lines();
        let line = match (lines.next(), lines.next(), lines.next()) {
            (Some(line), None, None) => line.trim(),
            (Some(comment), Some(line), None) if comment.starts_with("untrusted comment:") => line.trim(),
            _ => {
                return Err(SignError::NotAPublicKey {
                    detail: "one line of base64, or a comment and such a line, are expected".to_owned(),
                });
            }
        };
        let key = minisign::PublicKey::from_base64(line).map_err(|e| SignError::NotAPublicKey { detail: e.to_string() })?;
        // The library takes any two bytes for the algorithm.
        if !key.to_bytes().starts_with(b"Ed") {
            return Err(SignError::NotAPublicKey { detail: "it is for another algorithm than Ed25519".to_owned() });
        }
        Ok(Self(key))
    }
}

/// A whole signing key. It is kept unencrypted on the backup host, in a file only its owner can read (0600).
#[derive(Clone)]
pub struct SigningKey {
    secret: minisign::SecretKey,
    public: PublicKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The library's own Debug prints the secret.
        write!(f, "SigningKey({})", self.public.id())
    }
}

impl SigningKey {
    /// Makes a new key.
    pub fn generate() -> Result<Self, SignError> {
        let pair = minisign::KeyPair::generate_unencrypted_keypair().map_err(|e| SignError::Failed { detail: e.to_string() })?;
        Ok(Self { secret: pair.sk, public: PublicKey(pair.pk) })
    }

    /// Reads a secret key file without a password: what [`SigningKey::to_file`] gives or `minisign -G -W` makes.
    pub fn from_file_text(text: &str) -> Result<Self, SignError> {
        let bad = |e: minisign::PError| SignError::NotASecretKey { detail: e.to_string() };
        let bytes = secret_key_bytes(text).map_err(|detail| SignError::NotASecretKey { detail: detail.to_owned() })?;
        let secret = minisign::SecretKey::from_bytes(&bytes).map_err(bad)?;
        // `minisign -G -W` leaves the checksum zero; where there is one, it has to be right.
        if bytes.last_chunk::<32>().is_some_and(|checksum| *checksum != [0; 32]) {
            let boxed = minisign::SecretKeyBox::from_string(text).map_err(bad)?;
            minisign::SecretKey::from_unencrypted_box(boxed).map_err(bad)?;
        }
        let public = minisign::PublicKey::from_secret_key(&secret).map_err(bad)?;
        Ok(Self { secret, public: PublicKey(public) })
    }

    /// The text of the secret key file. The caller writes it with mode 0600.
    pub fn to_file(&self) -> Result<SecretString, SignError> {
        let comment = format!("minisign secret key {}", self.public.id());
        let boxed = self.secret.to_box(Some(&comment)).map_err(|e| SignError::Failed { detail: e.to_string() })?;
        Ok(SecretString::from(boxed.to_string()))
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs `bytes` as the object `binding` describes; the answer is the content of the `.minisig` object.
    pub fn sign(&self, bytes: &[u8], binding: &Binding<'_>) -> Result<String, SignError> {
        let untrusted = format!("signature by lifeboat with key {}", self.public.id());
        // With the public key given, the library checks what it made: a damaged key or bad memory shows here, not at restore.
        minisign::sign(Some(&self.public.0), &self.secret, bytes, Some(&binding.comment()), Some(&untrusted))
            .map(|signature| signature.to_string())
            .map_err(|e| SignError::Failed { detail: e.to_string() })
    }
}

/// The 158 bytes of a secret key file: algorithms, salt and limits (zero), key id, seed, public key, checksum.
fn secret_key_bytes(text: &str) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    use base64::Engine as _;
    let line = text.lines().nth(1).ok_or("it does not have two lines")?;
    let decoded = base64::engine::general_purpose::STANDARD.decode(line.trim()).map_err(|_| "its second line is not base64")?;
    let bytes = Zeroizing::new(decoded);
    if bytes.len() != 158 || !bytes.starts_with(b"Ed") {
        return Err("it is not an Ed25519 key");
    }
    if bytes[2..4] != [0, 0] {
        return Err("it is encrypted with a password");
    }
    // Offsets of minisign's SeckeyStruct: seed at 62, public key at 94. ring compares the halves.
    let halves = ring::signature::Ed25519KeyPair::from_seed_and_public_key(&bytes[62..94], &bytes[94..126]);
    halves.map(|_| ()).map_err(|_| "it is damaged: its halves do not belong together")?;
    Ok(bytes)
}

/// What the signature of an object is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Sound, and by a signer that is trusted.
    Trusted(KeyId),
    /// By a signer that is not among the trusted ones, so it could not be checked.
    Untrusted(KeyId),
    /// There is none.
    Unsigned,
    /// There is one and it is wrong: the object or the signature was changed, or comes from elsewhere.
    Invalid(String),
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trusted(key) => write!(f, "signed by {key}"),
            Self::Untrusted(key) => write!(f, "signed by {key}, which is not trusted"),
            Self::Unsigned => f.write_str("not signed"),
            Self::Invalid(why) => write!(f, "bad signature: {why}"),
        }
    }
}

/// The signers that are trusted. With none, nothing is known about any signature, and unsigned objects count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedSigners(Vec<PublicKey>);

impl TrustedSigners {
    /// Trusts these keys.
    pub fn new(keys: Vec<PublicKey>) -> Self {
        Self(keys)
    }

    /// Whether none is configured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys.
    pub fn keys(&self) -> &[PublicKey] {
        &self.0
    }

    /// Whether an object with this status counts (for `latest`, retention, proofs, acceptance): with trusted signers only theirs do, without
    /// any all do whose signature is not plainly wrong.
    pub fn counts(&self, status: &Status) -> bool {
        match status {
            Status::Trusted(_) => true,
            Status::Untrusted(_) | Status::Unsigned => self.is_empty(),
            Status::Invalid(_) => false,
        }
    }

    /// Judges the detached `signature` of `bytes`.
    pub fn judge(&self, bytes: &[u8], signature: Option<&[u8]>, binding: &Binding<'_>) -> Status {
        let Some(signature) = signature else { return Status::Unsigned };
        match parse(signature) {
            Ok(parsed) => self.judge_parsed(bytes, &parsed, binding),
            Err(why) => Status::Invalid(why.to_owned()),
        }
    }

    fn judge_parsed(&self, bytes: &[u8], signature: &minisign::SignatureBox, binding: &Binding<'_>) -> Status {
        let comment = signature.trusted_comment().unwrap_or_default();
        let expected = binding.comment();
        if comment != expected {
            return Status::Invalid(format!("it was moved from elsewhere: its trusted comment is {comment:?}, {expected:?} is expected"));
        }
        let id = KeyId::from_bytes(signature.keynum());
        // Ids are 64 bits anybody can choose, so more than one key may have this one.
        let candidates: Vec<&PublicKey> = self.0.iter().filter(|key| key.id() == id).collect();
        if candidates.is_empty() {
            return Status::Untrusted(id);
        }
        let sound = |key: &&PublicKey| minisign::verify(&key.0, signature, Cursor::new(bytes), true, false, false).is_ok();
        if candidates.iter().any(sound) { Status::Trusted(id) } else { Status::Invalid(format!("it does not fit the bytes (key {id})")) }
    }
}

/// Base64 characters of 74 and of 64 bytes.
const SIGNATURE_LINE: usize = 100;
const GLOBAL_LINE: usize = 88;

/// Reads a signature file. The library is lenient (lengths, spaces, more lines), so the exact form is asked for first.
fn parse(signature: &[u8]) -> Result<minisign::SignatureBox, &'static str> {
    if signature.len() > limits::SIGNATURE_BYTES {
        return Err("it is too long for a signature");
    }
    let text = str::from_utf8(signature).map_err(|_| "it is not text")?;
    let lines: Vec<&str> = text.strip_suffix('\n').ok_or("its last line is not ended")?.split('\n').collect();
    let [untrusted, first, trusted, second] = lines[..] else { return Err("it does not have four lines") };
    let framed = untrusted.starts_with("untrusted comment: ") && trusted.starts_with("trusted comment: ");
    let exact = first.len() == SIGNATURE_LINE && second.len() == GLOBAL_LINE && trusted.trim_end() == trusted;
    if !framed || !exact || text.contains('\r') {
        return Err("it is not of the form of a minisign signature");
    }
    let parsed = minisign::SignatureBox::from_string(text).map_err(|_| "it is not of the form of a minisign signature")?;
    if parsed.is_prehashed() { Ok(parsed) } else { Err("it is of minisign's legacy form, which is not taken") }
}

/// Runs the parser of signature files on arbitrary bytes.
pub(crate) fn parse_any(bytes: &[u8]) -> bool {
    parse(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use age::secrecy::ExposeSecret;

    fn repository() -> RepositoryId {
        "01D39ZY06FGSCTVN4T2V9PKHFZ".parse().unwrap()
    }

    fn with_binding<T>(id: &str, role: Role, then: impl FnOnce(&Binding<'_>) -> T) -> T {
        let (repository, cluster) = (repository(), "prod".parse().unwrap());
        then(&Binding { repository: &repository, cluster: &cluster, id: &id, role })
    }

    fn sign(key: &SigningKey, bytes: &[u8]) -> Vec<u8> {
        with_binding("x", Role::Manifest, |binding| key.sign(bytes, binding).unwrap().into_bytes())
    }

    fn judge(signers: &TrustedSigners, bytes: &[u8], signature: Option<&[u8]>) -> Status {
        with_binding("x", Role::Manifest, |binding| signers.judge(bytes, signature, binding))
    }

    #[test]
    fn a_signature_is_trusted_untrusted_or_missing() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let signature = sign(&key, b"bytes");
        let id = key.public().id();
        let trusting = TrustedSigners::new(vec![other.public().clone(), key.public().clone()]);
        assert_eq!(judge(&trusting, b"bytes", Some(&signature)), Status::Trusted(id));
        let foreign = TrustedSigners::new(vec![other.public().clone()]);
        assert_eq!(judge(&foreign, b"bytes", Some(&signature)), Status::Untrusted(id));
        assert_eq!(judge(&trusting, b"bytes", None), Status::Unsigned);
        assert!(matches!(judge(&trusting, b"bytez", Some(&signature)), Status::Invalid(_)));
    }

    #[test]
    fn with_trusted_signers_only_theirs_count() {
        let key = SigningKey::generate().unwrap();
        let (none, some) = (TrustedSigners::default(), TrustedSigners::new(vec![key.public().clone()]));
        let id = key.public().id();
        for (status, without, with) in [
            (Status::Trusted(id), true, true),
            (Status::Untrusted(id), true, false),
            (Status::Unsigned, true, false),
            (Status::Invalid("x".into()), false, false),
        ] {
            assert_eq!((none.counts(&status), some.counts(&status)), (without, with), "{status}");
        }
    }

    #[test]
    fn nothing_can_be_moved_elsewhere() {
        let key = SigningKey::generate().unwrap();
        let signature = sign(&key, b"bytes");
        for signers in [TrustedSigners::default(), TrustedSigners::new(vec![key.public().clone()])] {
            for (id, role) in [("y", Role::Manifest), ("x", Role::Mark)] {
                let status = with_binding(id, role, |binding| signers.judge(b"bytes", Some(&signature), binding));
                assert!(matches!(&status, Status::Invalid(why) if why.contains("moved")), "{status}");
            }
        }
    }

    #[test]
    fn every_flipped_byte_of_a_signature_is_found_or_harmless() {
        let key = SigningKey::generate().unwrap();
        let trusting = TrustedSigners::new(vec![key.public().clone()]);
        let signature = sign(&key, b"bytes");
        let comment = "untrusted comment: ".len()..signature.iter().position(|b| *b == b'\n').unwrap();
        for at in 0..signature.len() {
            let mut damaged = signature.clone();
            damaged[at] ^= 1;
            let status = judge(&trusting, b"bytes", Some(&damaged));
            // The text of the untrusted comment is signed by nobody and used by nobody.
            assert_eq!(matches!(status, Status::Trusted(_)), comment.contains(&at), "byte {at}: {status}");
        }
    }

    #[test]
    fn junk_is_invalid() {
        let signers = TrustedSigners::default();
        for junk in [&b""[..], b"\n\n\n\n", &[0xff; 300], &[b'a'; 5000], b"untrusted comment: \n\ntrusted comment: \n\n"] {
            assert!(matches!(judge(&signers, b"", Some(junk)), Status::Invalid(_)));
        }
    }

    #[test]
    fn keys_survive_their_files() {
        let key = SigningKey::generate().unwrap();
        let file = key.to_file().unwrap();
        let again = SigningKey::from_file_text(file.expose_secret()).unwrap();
        assert_eq!(again.public(), key.public());
        assert_eq!(key.public().to_line().parse::<PublicKey>().unwrap(), *key.public());
        assert_eq!(key.public().to_file().parse::<PublicKey>().unwrap(), *key.public());
        assert_eq!(key.public().id().to_string().parse::<KeyId>().unwrap(), key.public().id());
        assert!(!format!("{key:?}").contains(file.expose_secret().lines().nth(1).unwrap()));
    }

    #[test]
    fn bad_keys_are_refused_without_repeating_them() {
        let file = SigningKey::generate().unwrap().to_file().unwrap();
        let mut text = file.expose_secret().to_owned();
        // In the middle of the key itself; the salt before it is of no use without a password and checked by nobody.
        let at = text.len() - 80;
        text.replace_range(at..=at, if &text[at..=at] == "A" { "B" } else { "A" });
        for bad in ["", "x", "untrusted comment: x\nRWQ", &text] {
            let error = SigningKey::from_file_text(bad).unwrap_err().to_string();
            assert!(bad.len() < 100 || !error.contains(&bad[90..110]));
            assert!(bad.parse::<PublicKey>().is_err());
        }
    }
}
