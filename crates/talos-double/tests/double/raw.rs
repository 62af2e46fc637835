//! A caller by hand, for what the client never says: `nodes`, several `node`, `proxyfrom`.

use std::future::poll_fn;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use grpc_link::testing::{Failure, Fields, frame};
use http::Request;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, IpAddr, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::net::TcpStream;

/// Makes one call with this metadata; every message that came, or the status.
pub(crate) async fn call(
    talosconfig: &Path,
    endpoint: Ipv4Addr,
    path: &str,
    metadata: &[(&str, &str)],
    message: Bytes,
) -> Result<Vec<Fields>, Failure> {
    let socket = TcpStream::connect((endpoint, 50_000)).await.unwrap();
    let name = ServerName::IpAddress(IpAddr::V4(endpoint.into()));
    let stream = tokio_rustls::TlsConnector::from(Arc::new(tls(talosconfig))).connect(name, socket).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let driving = tokio::spawn(connection);
    let mut request =
        Request::post(format!("https://{endpoint}:50000{path}")).header("content-type", "application/grpc").header("te", "trailers");
    for (name, value) in metadata {
        request = request.header(*name, *value);
    }
    poll_fn(|cx| sender.poll_ready(cx)).await.unwrap();
    let (response, mut body) = sender.send_request(request.body(()).unwrap(), false).unwrap();
    body.send_data(frame(&message), true).unwrap();
    let response = response.await.unwrap();
    let mut status = response.headers().clone();
    let mut body = response.into_body();
    let mut bytes = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend_from_slice(&data);
    }
    if let Some(trailers) = body.trailers().await.unwrap() {
        status = trailers;
    }
    driving.abort();
    let text = |name: &str| status.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    match text("grpc-status").parse().unwrap() {
        0 => Ok(messages(bytes)),
        code => Err(Failure::new(code, text("grpc-message").replace("%22", "\""))),
    }
}

fn messages(mut bytes: BytesMut) -> Vec<Fields> {
    let mut all = Vec::new();
    while let Some(&[_, a, b, c, d]) = bytes.first_chunk::<5>() {
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        all.push(Fields::decode(&bytes.split_to(5 + length)[5..]));
    }
    assert!(bytes.is_empty(), "half a message");
    all
}

/// The default context's certificates, taken from the file by its lines.
fn tls(talosconfig: &Path) -> ClientConfig {
    let text = std::fs::read_to_string(talosconfig).unwrap();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap();
        String::from_utf8(STANDARD.decode(line.trim()).unwrap()).unwrap()
    };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(field("ca:").as_bytes()).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(field("crt:").as_bytes()).unwrap()];
    let key = PrivatePkcs8KeyDer::from_pem_slice(field("key:").replace("ED25519 PRIVATE", "PRIVATE").as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, PrivateKeyDer::Pkcs8(key))
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}
