//! TLS with real sockets: whatever is wrong with certificates, names and schemes is said as such.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::Arc;

use common::endpoint;
use etcd_api::testing::{Behaviour, MisbehavingEtcd, Script};
use etcd_api::{Client, ConnectOptions, Endpoint, Error, ErrorClass, ErrorKind, LinkFault, Material, Scheme, TlsOptions};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

const RSA_PKCS1: &str = include_str!("data/rsa.pkcs1.pem");
const RSA_PKCS8: &str = include_str!("data/rsa.pkcs8.pem");
const EC_SEC1: &str = include_str!("data/ec.sec1.pem");
const EC_PKCS8: &str = include_str!("data/ec.pkcs8.pem");
const EC_ENCRYPTED: &str = include_str!("data/ec.encrypted.pem");
const ED25519: &str = include_str!("data/ed25519.pkcs8.pem");

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
}

impl Ca {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { der: certificate.der().clone(), pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    fn issue(&self, names: &[&str], key: &KeyPair) -> rcgen::Certificate {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        CertificateParams::new(names).unwrap().signed_by(key, &self.issuer).unwrap()
    }

    fn issue_expired(&self, names: &[&str], key: &KeyPair) -> rcgen::Certificate {
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        params.signed_by(key, &self.issuer).unwrap()
    }

    /// A client certificate for a key in the form of the fixtures.
    fn client(&self, pkcs8: &str, given: &str) -> TlsOptions {
        let key = KeyPair::from_pem(pkcs8).unwrap();
        let certificate = self.issue(&["client"], &key);
        TlsOptions {
            cert_pem: Some(certificate.pem().into_bytes()),
            key_pem: Some(Zeroizing::new(given.as_bytes().to_vec())),
            ..TlsOptions::default()
        }
    }

    fn trusted(&self) -> TlsOptions {
        TlsOptions { ca_pem: Some(self.pem.clone().into_bytes()), ..TlsOptions::default() }
    }
}

const TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
const TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

fn server(
    certificate: &rcgen::Certificate,
    key: &KeyPair,
    clients: Option<&Ca>,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions).unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add(ca.der.clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// A server of this CA for 127.0.0.1 and `etcd.test`.
async fn double(ca: &Ca, clients: Option<&Ca>, versions: &[&'static SupportedProtocolVersion]) -> MisbehavingEtcd {
    let key = KeyPair::generate().unwrap();
    let config = server(&ca.issue(&["127.0.0.1", "etcd.test"], &key), &key, clients, versions);
    MisbehavingEtcd::start_tls(Behaviour::Sound, Script::default(), config).await.unwrap()
}

/// Connects and makes one call.
async fn status(endpoint: Endpoint, tls: TlsOptions) -> Result<(), Error> {
    let options = ConnectOptions { tls: Some(tls), ..ConnectOptions::default() };
    let client = Client::connect(endpoint, &options).await?;
    client.status().await.map(|_| ())
}

async fn failure(double: &MisbehavingEtcd, tls: TlsOptions) -> ErrorKind {
    let error = status(endpoint(double.endpoint()), tls).await.expect_err("must not connect");
    assert_eq!(error.class(), ErrorClass::Unreachable, "{error}");
    assert_eq!(error.endpoint().to_string(), double.endpoint());
    assert_eq!(double.count("Status"), 0);
    error.kind().clone()
}

#[tokio::test]
async fn a_server_of_our_ca_is_trusted_by_both_versions() {
    let ca = Ca::new("etcd-ca");
    for versions in [TLS12, TLS13] {
        let double = double(&ca, None, versions).await;
        status(endpoint(double.endpoint()), ca.trusted()).await.unwrap();
        assert_eq!(double.count("Status"), 1);
    }
}

#[tokio::test]
async fn a_bundle_of_cas_is_trusted_as_a_whole() {
    let (old, new) = (Ca::new("old"), Ca::new("new"));
    let double = double(&new, None, TLS13).await;
    let bundle = format!("some text\n{}\n{}", old.pem, new.pem).into_bytes();
    status(endpoint(double.endpoint()), TlsOptions { ca_pem: Some(bundle), ..TlsOptions::default() }).await.unwrap();
}

#[tokio::test]
async fn a_server_of_another_ca_is_named_as_such() {
    let double = double(&Ca::new("etcd-ca"), None, TLS13).await;
    let kind = failure(&double, Ca::new("other").trusted()).await;
    assert!(matches!(kind, ErrorKind::Link(LinkFault::TlsCa(_))), "{kind:?}");
}

#[tokio::test]
async fn a_server_of_another_ca_with_the_same_name_is_named_as_such() {
    let double = double(&Ca::new("etcd-ca"), None, TLS13).await;
    let kind = failure(&double, Ca::new("etcd-ca").trusted()).await;
    assert!(matches!(kind, ErrorKind::Link(LinkFault::TlsCa(_))), "{kind:?}");
}

#[tokio::test]
async fn without_a_ca_the_system_decides_and_does_not_know_ours() {
    let double = double(&Ca::new("etcd-ca"), None, TLS13).await;
    let error = status(endpoint(double.endpoint()), TlsOptions::default()).await.unwrap_err();
    match error.kind() {
        ErrorKind::Link(LinkFault::TlsCa(_)) => {}
        // A machine without any root certificates.
        ErrorKind::Link(LinkFault::Material(material)) => assert_eq!(material.what, Material::SystemRoots),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn verification_can_be_skipped() {
    let double = double(&Ca::new("etcd-ca"), None, TLS13).await;
    let tls = TlsOptions { insecure_skip_verify: true, ..TlsOptions::default() };
    status(endpoint(double.endpoint()), tls).await.unwrap();
}

#[tokio::test]
async fn a_certificate_for_another_name_is_named_as_such_and_can_be_overridden() {
    let ca = Ca::new("etcd-ca");
    let key = KeyPair::generate().unwrap();
    let config = server(&ca.issue(&["etcd.test", "10.1.2.3"], &key), &key, None, TLS13);
    let double = MisbehavingEtcd::start_tls(Behaviour::Sound, Script::default(), config).await.unwrap();
    match failure(&double, ca.trusted()).await {
        ErrorKind::Link(LinkFault::WrongServerName { expected, fact }) => {
            assert_eq!(expected, "127.0.0.1");
            assert!(fact.contains("etcd.test") && fact.contains("10.1.2.3"), "{fact}");
        }
        other => panic!("{other:?}"),
    }
    for name in ["etcd.test", "10.1.2.3"] {
        status(endpoint(double.endpoint()), TlsOptions { server_name: Some(name.into()), ..ca.trusted() }).await.unwrap();
    }
}

#[tokio::test]
async fn an_expired_certificate_is_named_as_such() {
    let ca = Ca::new("etcd-ca");
    let key = KeyPair::generate().unwrap();
    let config = server(&ca.issue_expired(&["127.0.0.1"], &key), &key, None, TLS13);
    let double = MisbehavingEtcd::start_tls(Behaviour::Sound, Script::default(), config).await.unwrap();
    let kind = failure(&double, ca.trusted()).await;
    assert!(matches!(&kind, ErrorKind::Link(LinkFault::TlsServerCertificate(fact)) if fact.contains("expired")), "{kind:?}");
}

#[tokio::test]
async fn client_keys_of_every_form_are_read() {
    let ca = Ca::new("etcd-ca");
    let double = double(&ca, Some(&ca), TLS13).await;
    let talos = ED25519.replace("PRIVATE KEY", "ED25519 PRIVATE KEY");
    assert!(talos.starts_with("-----BEGIN ED25519 PRIVATE KEY-----"));
    let forms =
        [(RSA_PKCS8, RSA_PKCS1), (RSA_PKCS8, RSA_PKCS8), (EC_PKCS8, EC_SEC1), (EC_PKCS8, EC_PKCS8), (ED25519, ED25519), (ED25519, &talos)];
    for (pkcs8, given) in forms {
        let tls = TlsOptions { ca_pem: ca.trusted().ca_pem, ..ca.client(pkcs8, given) };
        status(endpoint(double.endpoint()), tls).await.unwrap();
    }
    assert_eq!(double.count("Status"), forms.len());
}

#[tokio::test]
async fn a_missing_client_certificate_is_named_as_such() {
    let ca = Ca::new("etcd-ca");
    for versions in [TLS12, TLS13] {
        let double = double(&ca, Some(&ca), versions).await;
        for _ in 0..10 {
            let kind = failure(&double, ca.trusted()).await;
            assert!(matches!(kind, ErrorKind::Link(LinkFault::TlsClientCertificate(_))), "{kind:?}");
        }
    }
}

#[tokio::test]
async fn a_client_certificate_of_another_ca_is_named_as_such() {
    let (ca, other) = (Ca::new("etcd-ca"), Ca::new("other"));
    for versions in [TLS12, TLS13] {
        let double = double(&ca, Some(&ca), versions).await;
        for _ in 0..10 {
            let tls = TlsOptions { ca_pem: ca.trusted().ca_pem, ..other.client(EC_PKCS8, EC_SEC1) };
            let kind = failure(&double, tls).await;
            assert!(matches!(kind, ErrorKind::Link(LinkFault::TlsClientCertificate(_))), "{kind:?}");
        }
    }
}

#[tokio::test]
async fn every_call_after_a_refused_client_certificate_says_so_and_streams_too() {
    let ca = Ca::new("etcd-ca");
    let double = double(&ca, Some(&ca), TLS13).await;
    let options = ConnectOptions { tls: Some(ca.trusted()), ..ConnectOptions::default() };
    let client = Client::connect(endpoint(double.endpoint()), &options).await.unwrap();
    for _ in 0..5 {
        let error = client.status().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Link(LinkFault::TlsClientCertificate(_))), "{error}");
        let error = client.snapshot(common::quick()).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Link(LinkFault::TlsClientCertificate(_))), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_and_hangs_up_without_a_word_is_understood() {
    let ca = Ca::new("etcd-ca");
    let key = KeyPair::generate().unwrap();
    let config = {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(ca.der.clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let verifier = verifier.allow_unauthenticated().build().unwrap();
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(TLS13).unwrap();
        let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let chain = vec![ca.issue(&["127.0.0.1"], &key).der().clone()];
        builder.with_client_cert_verifier(verifier).with_single_cert(chain, der).unwrap()
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let server = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            drop(acceptor.accept(socket).await);
        }
    });
    let error = status(endpoint(&format!("https://{address}")), ca.trusted()).await.unwrap_err();
    server.abort();
    assert!(matches!(error.kind(), ErrorKind::Link(LinkFault::TlsClientCertificate(_))), "{error}");
}

#[tokio::test]
async fn plain_http_to_a_tls_port_is_named_as_such() {
    let ca = Ca::new("etcd-ca");
    for versions in [TLS12, TLS13] {
        let double = double(&ca, None, versions).await;
        let plain = double.endpoint().replace("https", "http");
        for _ in 0..10 {
            let error = status(endpoint(&plain), ca.trusted()).await.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Link(LinkFault::SchemeMismatch { spoke: Scheme::Http, .. })), "{error}");
            assert!(error.to_string().contains("try https"), "{error}");
        }
    }
}

#[tokio::test]
async fn tls_to_a_plain_port_is_named_as_such() {
    let double = MisbehavingEtcd::start(Behaviour::Sound, Script::default()).await.unwrap();
    let tls = double.endpoint().replace("http", "https");
    let error = status(endpoint(&tls), Ca::new("etcd-ca").trusted()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Link(LinkFault::SchemeMismatch { spoke: Scheme::Https, .. })), "{error}");
    assert!(error.to_string().contains("try plain http"), "{error}");
    assert_eq!(error.class(), ErrorClass::Unreachable);
}

#[tokio::test]
async fn a_port_that_hangs_up_at_once_is_named_as_such_either_way() {
    // What a Go server does with the wrong protocol: no alert, no byte, closed.
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            socket.readable().await.unwrap();
            drop(socket);
        }
    });
    for (scheme, spoke) in [("http", Scheme::Http), ("https", Scheme::Https)] {
        let error = status(endpoint(&format!("{scheme}://{address}")), Ca::new("etcd-ca").trusted()).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Link(LinkFault::SchemeMismatch { spoke: said, .. }) if *said == spoke), "{error}");
    }
    server.abort();
}

#[tokio::test]
async fn unusable_material_is_refused_before_anything_is_dialled() {
    let ca = Ca::new("etcd-ca");
    let good = || ca.client(EC_PKCS8, EC_SEC1);
    let key = |text: &str| Some(Zeroizing::new(text.as_bytes().to_vec()));
    let broken_pem = ca.pem.replace("MII", "M*I").into_bytes();
    let cases = [
        (TlsOptions { ca_pem: Some(b"no pem".to_vec()), ..good() }, Material::Ca, "no CERTIFICATE"),
        (TlsOptions { ca_pem: Some(broken_pem), ..good() }, Material::Ca, "PEM"),
        (TlsOptions { ca_pem: Some(EC_SEC1.into()), ..good() }, Material::Ca, "no CERTIFICATE"),
        (TlsOptions { cert_pem: Some(Vec::new()), ..good() }, Material::Certificate, "no CERTIFICATE"),
        (TlsOptions { cert_pem: None, ..good() }, Material::Certificate, "without its certificate"),
        (TlsOptions { key_pem: None, ..good() }, Material::Key, "without its key"),
        (TlsOptions { key_pem: key(RSA_PKCS1), ..good() }, Material::Key, "does not belong"),
        (TlsOptions { key_pem: key(EC_ENCRYPTED), ..good() }, Material::Key, "encrypted"),
        (TlsOptions { key_pem: key("nothing"), ..good() }, Material::Key, "no PRIVATE KEY"),
        (TlsOptions { server_name: Some("not a name".into()), ..good() }, Material::ServerName, "not a name"),
    ];
    for (tls, what, fact) in cases {
        let tls = TlsOptions { ca_pem: tls.ca_pem.clone().or_else(|| ca.trusted().ca_pem), ..tls };
        // Port 9 is not listened on: reaching for it would be another error.
        let error = status(endpoint("https://127.0.0.1:9"), tls).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Input, "{error}");
        match error.kind() {
            ErrorKind::Link(LinkFault::Material(material)) => {
                assert_eq!(material.what, what, "{error}");
                assert!(material.fact.contains(fact), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn options_never_print_keys() {
    let tls = Ca::new("etcd-ca").client(EC_PKCS8, EC_SEC1);
    let options = ConnectOptions { tls: Some(tls), ..ConnectOptions::default() };
    let printed = format!("{options:?}");
    assert!(printed.contains("key_pem: true") && !printed.contains("PRIVATE"), "{printed}");
}
