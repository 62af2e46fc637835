//! From the caller's TLS options to a rustls configuration, and from rustls errors to ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore, SignatureScheme};
use rustls_pki_types::ServerName;

use super::material::{self, Material, MaterialError};
use super::verifier::AcceptAnyCertificate;
use crate::endpoint::{Endpoint, Scheme};
use crate::error::ErrorKind;
use crate::options::TlsOptions;

/// What every connection to one https endpoint needs.
#[derive(Clone, Debug)]
pub(crate) struct TlsSetup {
    pub(super) config: Arc<ClientConfig>,
    pub(super) server_name: ServerName<'static>,
    pub(super) identity: Arc<Identity>,
}

/// The client certificate, if any, and whether a server has asked for one.
#[derive(Debug)]
pub(super) struct Identity {
    certificate: Option<Arc<CertifiedKey>>,
    asked: AtomicBool,
}

impl Identity {
    /// Whether a server asked for a client certificate during any handshake of this client.
    pub(super) fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    pub(super) fn is_given(&self) -> bool {
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
    pub(super) fn new(endpoint: &Endpoint, options: Option<&TlsOptions>) -> Result<Self, MaterialError> {
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
        Ok(Self { config: Arc::new(config), server_name: server_name(endpoint, options)?, identity })
    }
}

fn server_name(endpoint: &Endpoint, options: &TlsOptions) -> Result<ServerName<'static>, MaterialError> {
    let name = options.server_name.clone().unwrap_or_else(|| endpoint.host());
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
            Some(error) => format!("no usable certificate ({error}); give the CA with --cacert"),
            None => "no certificate found; give the CA with --cacert".to_owned(),
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
pub(super) fn classify(error: &rustls::Error, expected: &str) -> ErrorKind {
    match error {
        rustls::Error::InvalidCertificate(reason) => classify_certificate(reason, expected),
        rustls::Error::AlertReceived(alert) => classify_alert(*alert, expected),
        rustls::Error::InvalidMessage(_) => {
            ErrorKind::SchemeMismatch { spoke: Scheme::Https, fact: "the server's answer is not TLS".to_owned() }
        }
        other => ErrorKind::Tls(other.to_string()),
    }
}

fn classify_certificate(reason: &CertificateError, expected: &str) -> ErrorKind {
    match reason {
        CertificateError::UnknownIssuer => ErrorKind::TlsCa("unknown issuer".to_owned()),
        // Every kubeadm and Talos cluster names its CA alike, so a foreign one is found by name and fails by signature.
        CertificateError::BadSignature => ErrorKind::TlsCa("the issuer has the name of our CA but another key".to_owned()),
        CertificateError::NotValidForName => {
            ErrorKind::WrongServerName { expected: expected.to_owned(), fact: "it names others".to_owned() }
        }
        CertificateError::NotValidForNameContext { presented, .. } => ErrorKind::WrongServerName {
            expected: expected.to_owned(),
            fact: crate::status::tame(&format!("it names {}", presented.join(", "))),
        },
        other => ErrorKind::TlsServerCertificate(crate::status::tame(&other.to_string())),
    }
}

fn classify_alert(alert: AlertDescription, expected: &str) -> ErrorKind {
    match alert {
        AlertDescription::CertificateRequired => ErrorKind::TlsClientCertificate("it wants one and none was given".to_owned()),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError => ErrorKind::TlsClientCertificate(format!("alert {alert:?}")),
        AlertDescription::UnrecognisedName => {
            ErrorKind::WrongServerName { expected: expected.to_owned(), fact: "the server does not serve that name".to_owned() }
        }
        AlertDescription::NoApplicationProtocol => {
            ErrorKind::Tls("the server does not offer HTTP/2; is this etcd's client port?".to_owned())
        }
        // What a server says whose certificate has a key we cannot check: ring knows no P-521, which `etcd --auto-tls` uses.
        AlertDescription::HandshakeFailure => {
            ErrorKind::Tls("no signature or cipher in common; is the server's certificate of an unsupported kind (P-521)?".to_owned())
        }
        other => ErrorKind::Tls(format!("alert {other:?}")),
    }
}
