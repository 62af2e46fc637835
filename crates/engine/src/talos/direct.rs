//! etcd itself, behind Talos: a client certificate for one day, made in memory from the authority in a control plane node's machine config.
//!
//! It needs os:admin. The certificate never reaches a disk; what is shown to etcd is only that its own authority signed it (etcd runs with
//! `--client-cert-auth` and, on Talos, without users).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use etcd_api::TlsOptions;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use talos_api::{MachineConfig, Node};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::TalosOptions;
use super::failure::failure;
use super::reach::{Reached, reach};
use super::secrets::{Authority, Secrets};
use crate::failure::{Failure, Outcome};
use crate::source::SourceOptions;

/// How long the certificate is valid.
const VALID_FOR: Duration = Duration::from_secs(24 * 3600);

/// How far the clocks of the nodes may be behind ours.
const CLOCKS_APART: Duration = Duration::from_secs(3600);

/// How etcd is reached directly. Made once for these options; later calls answer from memory.
///
/// # Errors
/// Whatever stands in the way: no control plane node answers, our role is not os:admin, the machine config holds no authority of etcd's.
pub async fn options(talos: &TalosOptions) -> Outcome<SourceOptions> {
    talos.minted.get_or_try_init(|| make(talos)).await.cloned()
}

async fn make(talos: &TalosOptions) -> Outcome<SourceOptions> {
    let reached = reach(talos, true).await?;
    let config = machine_config(&reached).await?;
    let wrong = |cause: String| {
        Failure::failed("no client certificate for etcd can be made")
            .cause(format!("{cause}; talos.direct works on control plane nodes of Talos itself"))
            .again()
    };
    let authority = Secrets::read(&config).and_then(|secrets| secrets.etcd_authority()).map_err(wrong)?;
    let tls = mint(&authority, SystemTime::now()).map_err(wrong)?;
    // Talos runs etcd with TLS alone: another scheme would be a member's attempt to take the certificates off.
    let urls = reached.members.iter().filter_map(|member| member.client_urls.first().cloned());
    let mut endpoints: Vec<String> = urls.filter(|url| url.starts_with("https://")).collect();
    endpoints.sort();
    if endpoints.is_empty() {
        return Err(Failure::failed("etcd's members cannot be found")
            .cause("the nodes that answer give no member list with client URLs")
            .next(["lifeboat", "etcd", "members"]));
    }
    Ok(SourceOptions {
        endpoints,
        tls: Some(Arc::new(tls)),
        dial_timeout: talos.dial_timeout,
        request_timeout: talos.request_timeout,
        ..SourceOptions::default()
    })
}

/// The machine config of the first control plane node that gives it.
async fn machine_config(reached: &Reached) -> Outcome<MachineConfig> {
    let mut last = None;
    for node in &reached.nodes {
        match node.machine_config().await {
            Ok(config) => return Ok(config),
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        Some(error) => failure("the machine config, from which the client certificate for etcd is made, cannot be had", &error),
        None => Failure::failed("no node was asked").again(),
    })
}

/// A client certificate signed by etcd's authority, valid around `now`.
///
/// # Errors
/// In words: what is wrong with the authority.
pub fn mint(authority: &Authority, now: SystemTime) -> Result<TlsOptions, String> {
    let certificate =
        CertificateDer::from_pem_slice(&authority.certificate).map_err(|_| "the authority's certificate is not PEM".to_owned())?;
    let key = signing_key(&authority.key)?;
    refuse_odd_names(&certificate)?;
    let issuer =
        Issuer::from_ca_cert_der(&certificate, key).map_err(|error| format!("the authority's certificate cannot be used: {error}"))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "lifeboat");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| "the clock is before 1970".to_owned())?;
    let begin = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = begin + since_epoch.saturating_sub(CLOCKS_APART);
    params.not_after = begin + since_epoch + VALID_FOR;
    let failed = |error: rcgen::Error| format!("the client certificate cannot be made: {error}");
    let own = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let signed = params.signed_by(&own, &issuer).map_err(failed)?;
    Ok(TlsOptions {
        ca_pem: Some(authority.certificate.clone()),
        cert_pem: Some(signed.pem().into_bytes()),
        key_pem: Some(Zeroizing::new(own.serialize_pem().into_bytes())),
        server_name: None,
        insecure_skip_verify: false,
    })
}

/// rcgen writes the authority's name into what it signs, and ends the process where a type in it is no object identifier (found by fuzzing): the first
/// number is at most 2, and the second below 40 unless the first is 2 (X.660).
fn refuse_odd_names(certificate: &CertificateDer<'_>) -> Result<(), String> {
    let cannot = || "the authority's certificate cannot be used: it is no certificate with a name".to_owned();
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| cannot())?;
    for attribute in parsed.subject().iter_attributes() {
        let arcs: Vec<u64> = attribute.attr_type().iter().ok_or_else(cannot)?.take(2).collect();
        match arcs[..] {
            [2, _] | [0 | 1, 0..40] => {}
            _ => return Err(cannot()),
        }
    }
    Ok(())
}

/// The authority's key. Talos writes ECDSA keys in the form of RFC 5915 ("EC PRIVATE KEY") and Ed25519 ones as PKCS#8 under a label of its own.
fn signing_key(pem: &[u8]) -> Result<KeyPair, String> {
    let text = std::str::from_utf8(pem).map_err(|_| "the authority's key is not PEM".to_owned())?;
    let known = Zeroizing::new(text.replace(" ED25519 PRIVATE KEY-----", " PRIVATE KEY-----"));
    let key = PrivateKeyDer::from_pem_slice(known.as_bytes()).map_err(|_| "the authority's key is not PEM".to_owned())?;
    let der: Zeroizing<Vec<u8>> = match &key {
        PrivateKeyDer::Pkcs8(der) => Zeroizing::new(der.secret_pkcs8_der().to_vec()),
        PrivateKeyDer::Sec1(der) => pkcs8(der.secret_sec1_der())?,
        _ => return Err("the authority's key is neither ECDSA nor Ed25519".to_owned()),
    };
    KeyPair::try_from(&der[..])
        .map_err(|_| "the authority's key is of a kind that is not supported (P-256, P-384 and Ed25519 are)".to_owned())
}

/// A key of RFC 5915 in the envelope of RFC 5208, with the curve that its length tells.
fn pkcs8(sec1: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
    const EC_PUBLIC_KEY: [u8; 9] = [0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    const P384: [u8; 7] = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
    // SEQUENCE { version 1, OCTET STRING of the curve's length, … }
    let body = sec1.get(if sec1.get(1).is_some_and(|length| *length < 0x80) { 2 } else { 3 }..).unwrap_or_default();
    let curve: &[u8] = match body.get(..5) {
        Some([2, 1, 1, 4, 32]) => &P256,
        Some([2, 1, 1, 4, 48]) => &P384,
        _ => return Err("the authority's key is on a curve that is not supported (P-256 and P-384 are)".to_owned()),
    };
    let algorithm = wrapped(0x30, &[&EC_PUBLIC_KEY[..], curve].concat());
    let inner = Zeroizing::new([&[2, 1, 0][..], &algorithm, &wrapped(0x04, sec1)].concat());
    Ok(wrapped(0x30, &inner))
}

/// One element of DER. Longer contents than 64 KiB do not come here: a key is small, and a longer one is cut into nonsense that is refused.
fn wrapped(tag: u8, content: &[u8]) -> Zeroizing<Vec<u8>> {
    let [.., high, low] = content.len().to_be_bytes();
    let mut out = Zeroizing::new(vec![tag]);
    match content.len() {
        0..0x80 => out.push(low),
        0x80..0x100 => out.extend([0x81, low]),
        _ => out.extend([0x82, high, low]),
    }
    out.extend_from_slice(content);
    out
}

/// A failure for what Talos does not pass on, told with the way there is.
#[must_use]
pub fn not_offered(what: &str) -> Failure {
    Failure::usage(format!("Talos does not offer {what}"))
        .cause("with talos.direct: true in lifeboat.yaml, or --talos-direct, etcd itself is asked; it takes the role os:admin")
        .again_with(["--talos-direct"])
}

/// Whether a node may be asked for its machine config at all.
#[must_use]
pub fn may_read_machine_config(node: &Node) -> bool {
    node.client().roles().has(&talos_api::Role::Admin)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use base64::Engine;
    use rcgen::{BasicConstraints, IsCa, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm};

    use super::*;

    fn authority(algorithm: &'static SignatureAlgorithm) -> (String, KeyPair) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "etcd");
        let key = KeyPair::generate_for(algorithm).unwrap();
        (params.self_signed(&key).unwrap().pem(), key)
    }

    fn minted(certificate: &str, key: &str) -> Result<TlsOptions, String> {
        mint(&Authority { certificate: certificate.as_bytes().to_vec(), key: Zeroizing::new(key.as_bytes().to_vec()) }, SystemTime::now())
    }

    /// The key as Go writes it (`x509.MarshalECPrivateKey`): RFC 5915 with the curve and the point.
    fn as_go_writes_it(key: &KeyPair) -> String {
        let der = key.serialize_der();
        let (number, point) = (&der[36..68], &der[73..138]);
        let curve = [0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        let ec = [&[0x30, 0x77, 0x02, 0x01, 0x01, 0x04, 0x20][..], number, &curve, &[0xa1, 0x44, 0x03, 0x42, 0x00], point].concat();
        format!("-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----\n", base64::engine::general_purpose::STANDARD.encode(ec))
    }

    #[test]
    fn every_form_of_key_that_talos_writes_signs() {
        for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519, &PKCS_ECDSA_P384_SHA384] {
            let (certificate, key) = authority(algorithm);
            let pem = key.serialize_pem();
            let tls = minted(&certificate, &pem).unwrap();
            assert!(tls.cert_pem.is_some() && tls.key_pem.is_some() && !tls.insecure_skip_verify);
            minted(&certificate, &pem.replace(" PRIVATE KEY", " ED25519 PRIVATE KEY")).unwrap();
        }
        let (certificate, key) = authority(&PKCS_ECDSA_P256_SHA256);
        let sec1 = as_go_writes_it(&key);
        assert!(sec1.contains("BEGIN EC PRIVATE KEY"));
        minted(&certificate, &sec1).unwrap();
    }

    #[test]
    fn a_name_that_is_no_name_is_refused_and_no_panic() {
        let (certificate, key) = authority(&PKCS_ECDSA_P256_SHA256);
        let mut der = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap().to_vec();
        // organizationName becomes 5.13.10.
        for at in 0..der.len() - 5 {
            if der[at..at + 5] == [0x06, 0x03, 0x55, 0x04, 0x0a] {
                der[at + 2..at + 4].copy_from_slice(&[0x81, 0x55]);
            }
        }
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        assert!(minted(&pem, &key.serialize_pem()).unwrap_err().contains("cannot be used"));
    }

    #[test]
    fn an_authority_that_is_none_is_told_without_its_key() {
        let (certificate, key) = authority(&PKCS_ECDSA_P256_SHA256);
        let garbage = "-----BEGIN EC PRIVATE KEY-----\naHVzaGh1c2g=\n-----END EC PRIVATE KEY-----\n";
        for (certificate, key, words) in [
            ("nothing", key.serialize_pem().as_str(), "certificate is not PEM"),
            (certificate.as_str(), "nothing", "key is not PEM"),
            (certificate.as_str(), garbage, "curve"),
            ("-----BEGIN CERTIFICATE-----\naHVzaA==\n-----END CERTIFICATE-----\n", key.serialize_pem().as_str(), "cannot be used"),
        ] {
            let error = minted(certificate, key).unwrap_err();
            assert!(error.contains(words) && !error.contains("hush"), "{error}");
        }
    }
}
