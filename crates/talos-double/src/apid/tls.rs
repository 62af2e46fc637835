//! Mutual TLS with the OS authority, and the roles in a client's certificate.

use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certificates::{Use, Validity};
use crate::world::World;

/// A node's side of TLS: a certificate for its addresses; clients must show one of the same authority.
pub(super) fn acceptor(world: &World, node: usize) -> TlsAcceptor {
    let addresses: Vec<_> = [Some(world.nodes[node].ip), world.virtual_ip, world.load_balancer].into_iter().flatten().collect();
    let pair = world.os.issue(&world.nodes[node].hostname, &[], &addresses, Use::Server, Validity::Now);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(world.os.pair.cert.as_bytes()).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let chain = vec![CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()];
    let key = PrivatePkcs8KeyDer::from_pem_slice(pair.key.replace("ED25519 PRIVATE", "PRIVATE").as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, PrivateKeyDer::Pkcs8(key))
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// The caller's roles: the organizations of its certificate. `None` for a certificate that is for anything but clients,
/// which apid refuses (`verifyExtKeyUsage`).
pub(super) fn caller(stream: &TlsStream<TcpStream>) -> Option<Vec<String>> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let usage = certificate.extended_key_usage().ok()??.value;
    if !usage.client_auth || usage.server_auth || usage.any {
        return None;
    }
    Some(certificate.subject().iter_organization().filter_map(|entry| entry.as_str().ok()).map(str::to_owned).collect())
}
