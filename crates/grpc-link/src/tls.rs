//! From the caller's TLS options to a rustls configuration, and from rustls errors to ours.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore, SignatureScheme};
use rustls_pki_types::ServerName;
use zeroize::Zeroizing;

use crate::address::{Address, Scheme};
use crate::fault::LinkFault;
use crate::material::{self, Material, MaterialError};
use crate::status::tame;
use crate::verifier::AcceptAnyCertificate;

/// TLS material as PEM text in memory. The caller reads the files, so that errors can name them.
#[derive(Clone, Default)]
pub struct TlsOptions {
    /// Certificates of the CA that signs servers' certificates. Without it the system's roots are trusted. Keys of servers may
    /// be RSA, ECDSA P-256/P-384 or Ed25519, not P-521.
    pub ca_pem: Option<Vec<u8>>,
    /// Client certificate, then any intermediates.
    pub cert_pem: Option<Vec<u8>>,
    /// Private key of the client certificate: PKCS#8, PKCS#1 or SEC1; RSA, ECDSA P-256/P-384 or Ed25519; Talos' own
    /// label "ED25519 PRIVATE KEY" is understood.
    pub key_pem: Option<Zeroizing<Vec<u8>>>,
    /// Name or address that the server's certificate must carry, when it is not the address's host (a tunnel, say).
    pub server_name: Option<String>,
    /// Accept any server certificate. The connection is then only as trustworthy as the network.
    pub insecure_skip_verify: bool,
}

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions")
            .field("ca_pem", &self.ca_pem.is_some())
            .field("cert_pem", &self.cert_pem.is_some())
            .field("key_pem", &self.key_pem.is_some())
            .field("server_name", &self.server_name)
            .field("insecure_skip_verify", &self.insecure_skip_verify)
            .finish()
    }
}
/// What every connection to one https address needs.
#[derive(Clone, Debug)]
pub(crate) struct TlsSetup {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) server_name: ServerName<'static>,
    pub(crate) identity: Arc<Identity>,
}

/// The client certificate, if any, and whether a server has asked for one.
#[derive(Debug)]
pub(crate) struct Identity {
    certificate: Option<Arc<CertifiedKey>>,
    asked: AtomicBool,
}

impl Identity {
    /// Whether a server asked for a client certificate during any handshake of this client.
    pub(crate) fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    pub(crate) fn is_given(&self) -> bool {
        self.certificate.is_some()
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _root_hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.certificate.clone()
    }

    fn has_certs(&self) -> bool {
        // Without a certificate the question must still reach `resolve`; rustls asks it whenever the server asks us.
        self.certificate.is_some()
    }
}

impl TlsSetup {
    pub(crate) fn new(address: &Address, options: Option<&TlsOptions>) -> Result<Self, MaterialError> {
        let defaults = TlsOptions::default();
        let options = options.unwrap_or(&defaults);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| MaterialError::new(Material::Ca, format!("TLS cannot be set up: {error}")))?;
        let builder = if options.insecure_skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAnyCertificate(Arc::clone(&provider))))
        } else {
            builder.with_root_certificates(roots(options.ca_pem.as_deref())?)
        };
        let identity = Arc::new(Identity { certificate: client_certificate(options, &provider)?, asked: AtomicBool::new(false) });
        let mut config = builder.with_client_cert_resolver(Arc::clone(&identity) as Arc<dyn ResolvesClientCert>);
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { config: Arc::new(config), server_name: server_name(address, options)?, identity })
    }
}

fn server_name(address: &Address, options: &TlsOptions) -> Result<ServerName<'static>, MaterialError> {
    let name = options.server_name.clone().unwrap_or_else(|| address.host());
    ServerName::try_from(name.clone())
        .map_err(|_| MaterialError::new(Material::ServerName, format!("'{name}' is neither a host name nor an address")))
}

fn roots(ca_pem: Option<&[u8]>) -> Result<RootCertStore, MaterialError> {
    let mut store = RootCertStore::empty();
    if let Some(pem) = ca_pem {
        for certificate in material::certificates(Material::Ca, pem)? {
            store.add(certificate).map_err(|error| MaterialError::new(Material::Ca, format!("not a usable certificate: {error}")))?;
        }
        return Ok(store);
    }
    let found = rustls_native_certs::load_native_certs();
    let (added, _ignored) = store.add_parsable_certificates(found.certs);
    if added == 0 {
        let fact = match found.errors.first() {
            Some(error) => format!("no usable certificate ({error}); the CA has to be named"),
            None => "no certificate found; the CA has to be named".to_owned(),
        };
        return Err(MaterialError::new(Material::SystemRoots, fact));
    }
    Ok(store)
}

fn client_certificate(options: &TlsOptions, provider: &CryptoProvider) -> Result<Option<Arc<CertifiedKey>>, MaterialError> {
    let (cert_pem, key_pem) = match (&options.cert_pem, &options.key_pem) {
        (None, None) => return Ok(None),
        (Some(_), None) => return Err(MaterialError::new(Material::Key, "a certificate was given without its key")),
        (None, Some(_)) => {
            return Err(MaterialError::new(Material::Certificate, "a key was given without its certificate"));
        }
        (Some(cert), Some(key)) => (cert, key),
    };
    let chain = material::certificates(Material::Certificate, cert_pem)?;
    let key = material::private_key(key_pem)?;
    let certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => MaterialError::new(Material::Key, "the key does not belong to the certificate"),
        rustls::Error::InvalidCertificate(error) => MaterialError::new(Material::Certificate, format!("not a usable certificate: {error}")),
        error => MaterialError::new(Material::Key, format!("not a usable key: {error}")),
    })?;
    Ok(Some(Arc::new(certified)))
}

/// Types an error of rustls. `expected` is the name that was looked for.
pub(crate) fn classify(error: &rustls::Error, expected: &str) -> LinkFault {
    match error {
        rustls::Error::InvalidCertificate(reason) => classify_certificate(reason, expected),
        rustls::Error::AlertReceived(alert) => classify_alert(*alert, expected),
        rustls::Error::InvalidMessage(_) => {
            LinkFault::SchemeMismatch { spoke: Scheme::Https, fact: "the server's answer is not TLS".to_owned() }
        }
        other => LinkFault::Tls(other.to_string()),
    }
}

fn classify_certificate(reason: &CertificateError, expected: &str) -> LinkFault {
    match reason {
        CertificateError::UnknownIssuer => LinkFault::TlsCa("unknown issuer".to_owned()),
        // Every kubeadm and Talos cluster names its CA alike, so a foreign one is found by name and fails by signature.
        CertificateError::BadSignature => LinkFault::TlsCa("the issuer has the name of our CA but another key".to_owned()),
        CertificateError::NotValidForName => {
            LinkFault::WrongServerName { expected: expected.to_owned(), fact: "it names others".to_owned() }
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            LinkFault::WrongServerName { expected: expected.to_owned(), fact: tame(&format!("it names {}", presented.join(", "))) }
        }
        other => LinkFault::TlsServerCertificate(tame(&other.to_string())),
    }
}

fn classify_alert(alert: AlertDescription, expected: &str) -> LinkFault {
    match alert {
        AlertDescription::CertificateRequired => LinkFault::TlsClientCertificate("it wants one and none was given".to_owned()),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError => LinkFault::TlsClientCertificate(format!("alert {alert:?}")),
        AlertDescription::UnrecognisedName => {
            LinkFault::WrongServerName { expected: expected.to_owned(), fact: "the server does not serve that name".to_owned() }
        }
        AlertDescription::NoApplicationProtocol => LinkFault::Tls("the server does not offer HTTP/2; is this the right port?".to_owned()),
        // What a server says whose certificate has a key we cannot check: ring knows no P-521, which `etcd --auto-tls` uses.
        AlertDescription::HandshakeFailure => {
            LinkFault::Tls("no signature or cipher in common; is the server's certificate of an unsupported kind (P-521)?".to_owned())
        }
        other => LinkFault::Tls(format!("alert {other:?}")),
    }
}
