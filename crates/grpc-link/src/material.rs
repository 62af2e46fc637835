//! Reading certificates and keys from PEM text.

use std::time::{Duration, SystemTime};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

/// Which part of the caller's TLS material an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Material {
    /// The CA certificates.
    Ca,
    /// The client certificate.
    Certificate,
    /// The client key.
    Key,
    /// The server name to expect.
    ServerName,
    /// The trust store of the system, used when no CA is given.
    SystemRoots,
}

/// TLS material that cannot be used. It never holds key bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {fact}", match .what {
    Material::Ca => "CA certificates",
    Material::Certificate => "client certificate",
    Material::Key => "client key",
    Material::ServerName => "server name",
    Material::SystemRoots => "system trust store",
})]
pub struct MaterialError {
    /// Which part.
    pub what: Material,
    /// What is wrong with it.
    pub fact: String,
}

impl MaterialError {
    pub(crate) fn new(what: Material, fact: impl Into<String>) -> Self {
        Self { what, fact: fact.into() }
    }
}

/// All certificates of a PEM text, at least one. `what` is only for the error.
///
/// # Errors
/// When the text is no PEM or holds no certificate. The certificates themselves are not looked into.
pub fn certificates(what: Material, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| MaterialError::new(what, format!("not readable as PEM: {error}")))?;
    if all.is_empty() {
        return Err(MaterialError::new(what, "no CERTIFICATE block in it"));
    }
    Ok(all)
}

/// The first private key of a PEM text.
pub(crate) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, MaterialError> {
    if contains(pem, b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || contains(pem, b"Proc-Type: 4,ENCRYPTED") {
        let fact = "the key is encrypted; give it decrypted (openssl pkey -in KEY -out PLAIN)";
        return Err(MaterialError::new(Material::Key, fact));
    }
    let pem = relabel_ed25519(pem);
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
        rustls_pki_types::pem::Error::NoItemsFound => MaterialError::new(Material::Key, "no PRIVATE KEY block in it"),
        error => MaterialError::new(Material::Key, format!("not readable as PEM: {error}")),
    })
}

/// Talos writes PKCS#8 under the label "ED25519 PRIVATE KEY", which PEM readers do not know.
fn relabel_ed25519(pem: &[u8]) -> Zeroizing<Vec<u8>> {
    const LABEL: &[u8] = b" ED25519 PRIVATE KEY-----";
    const KNOWN: &[u8] = b" PRIVATE KEY-----";
    // Sized once: a growing vector would leave copies of the key behind.
    let mut out = Zeroizing::new(Vec::with_capacity(pem.len()));
    let mut rest = pem;
    while let Some((&first, tail)) = rest.split_first() {
        match rest.strip_prefix(LABEL) {
            Some(after) => {
                out.extend_from_slice(KNOWN);
                rest = after;
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    out
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// The last moment at which a DER certificate is valid; `None` for bytes that are no X.509 certificate.
#[must_use]
pub fn certificate_ends(der: &[u8]) -> Option<SystemTime> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let seconds = certificate.validity().not_after.timestamp();
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}
