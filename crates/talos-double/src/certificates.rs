//! The two authorities of a Talos cluster, what they sign, and the talosconfig.
//!
//! Source: reference Talos `pkg/machinery/config/generate/secrets`: the OS authority has Ed25519 keys and organization
//! `talos`, etcd's has ECDSA P-256 keys and organization `etcd`; a client's roles are its subject's organizations.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    SignatureAlgorithm, date_time_ymd,
};

/// A certificate and its key as PEM.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// An authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    algorithm: &'static SignatureAlgorithm,
    pub(crate) pair: Pair,
}

/// What a certificate is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Server,
    Client,
    /// etcd's members are both to each other.
    Both,
}

/// How long a certificate is valid. Fixed years need no clock.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Validity {
    Now,
    Over,
}

impl Authority {
    pub(crate) fn new(organization: &str, algorithm: &'static SignatureAlgorithm) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, organization);
        valid(&mut params, Validity::Now);
        let key = KeyPair::generate_for(algorithm).unwrap();
        let cert = params.self_signed(&key).unwrap().pem();
        let pair = Pair { cert, key: key_pem(&key, algorithm) };
        Self { issuer: Issuer::new(params, key), algorithm, pair }
    }

    pub(crate) fn issue(&self, common_name: &str, organizations: &[&str], addresses: &[Ipv4Addr], what: Use, validity: Validity) -> Pair {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if !common_name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, common_name);
        }
        // rcgen keeps one entry for each of its types; the same type by its number is another one to it.
        let types = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
        assert!(organizations.len() <= types.len(), "at most two roles");
        for (kind, organization) in types.into_iter().zip(organizations) {
            params.distinguished_name.push(kind, DnValue::Utf8String((*organization).to_owned()));
        }
        params.subject_alt_names = addresses.iter().map(|&ip| SanType::IpAddress(ip.into())).collect();
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match what {
            Use::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Use::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Use::Both => vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth],
        };
        valid(&mut params, validity);
        let key = KeyPair::generate_for(self.algorithm).unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair { cert, key: key_pem(&key, self.algorithm) }
    }
}

fn valid(params: &mut CertificateParams, validity: Validity) {
    let (from, to) = match validity {
        Validity::Now => (2020, 2120),
        Validity::Over => (2020, 2021),
    };
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
}

/// Talos labels Ed25519 keys in its own way (siderolabs/crypto x509: `ED25519 PRIVATE KEY` around PKCS#8), and writes ECDSA keys in Go's form of RFC 5915.
fn key_pem(key: &KeyPair, algorithm: &'static SignatureAlgorithm) -> String {
    if algorithm == &rcgen::PKCS_ED25519 {
        return key.serialize_pem().replace(" PRIVATE KEY-----", " ED25519 PRIVATE KEY-----");
    }
    assert_eq!(algorithm, &rcgen::PKCS_ECDSA_P256_SHA256, "the curve of etcd's authority");
    // PKCS#8 of a P-256 key has one form: the number at 36, the point at 73.
    let der = key.serialize_der();
    let (number, point) = (&der[36..68], &der[73..138]);
    let curve = [0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let ec = [&[0x30, 0x77, 0x02, 0x01, 0x01, 0x04, 0x20][..], number, &curve, &[0xa1, 0x44, 0x03, 0x42, 0x00], point].concat();
    let lines: Vec<String> = STANDARD.encode(ec).as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    format!("-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----\n", lines.join("\n"))
}

/// The file that talosctl and Lifeboat read: one context for each role.
pub(crate) fn talosconfig(contexts: &[(&str, &Pair)], default: &str, endpoints: &[String], nodes: &[String], ca: &str) -> String {
    let list = |items: &[String]| items.iter().map(|item| format!("'{item}'")).collect::<Vec<_>>().join(", ");
    let mut text = format!("context: {default}\ncontexts:\n");
    for (name, pair) in contexts {
        write!(
            text,
            "    {name}:\n        endpoints: [{}]\n        nodes: [{}]\n        ca: {}\n        crt: {}\n        key: {}\n",
            list(endpoints),
            list(nodes),
            STANDARD.encode(ca),
            STANDARD.encode(&pair.cert),
            STANDARD.encode(&pair.key),
        )
        .unwrap();
    }
    text
}

/// Writes a pair for a program that wants files.
pub(crate) fn write_pair(dir: &Path, name: &str, pair: &Pair) -> (PathBuf, PathBuf) {
    let (cert, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
    std::fs::write(&cert, &pair.cert).unwrap();
    std::fs::write(&key, &pair.key).unwrap();
    (cert, key)
}
