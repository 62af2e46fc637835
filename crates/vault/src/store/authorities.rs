//! Whom TLS trusts where the machine names nobody: in an empty container, or on the day everything is set up anew.

use std::sync::OnceLock;

/// The authorities that Mozilla trusts, as DER, as they were when this release was built; none where the machine has authorities of its own, which are
/// newer, and the administrator's to choose.
#[must_use]
pub fn built_in() -> &'static [&'static [u8]] {
    static FOUND: OnceLock<Vec<&'static [u8]>> = OnceLock::new();
    FOUND.get_or_init(|| if machine_has_any() { Vec::new() } else { mozilla() })
}

/// Whether the machine names authorities, in the usual places or by `SSL_CERT_FILE` and `SSL_CERT_DIR`.
fn machine_has_any() -> bool {
    !rustls_native_certs::load_native_certs().certs.is_empty()
}

fn mozilla() -> Vec<&'static [u8]> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|certificate| certificate.as_ref()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_in_is_a_list_that_clients_take() {
        let certificates: Vec<_> = mozilla().into_iter().filter_map(|der| reqwest::Certificate::from_der(der).ok()).collect();
        assert!(certificates.len() > 100, "{}", certificates.len());
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder().tls_certs_only(certificates).build().unwrap();
    }
}
