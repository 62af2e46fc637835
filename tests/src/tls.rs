//! Certificates for loopback servers, made anew for every test: good ones and the ways they go bad.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};
use tempfile::TempDir;

/// A certificate and its key, PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub cert: PathBuf,
    /// Its private key, mode 0600.
    pub key: PathBuf,
}

/// A certificate authority, what it signed, and an authority nobody trusts. The files die with this value.
#[derive(Debug)]
pub struct TlsSet {
    dir: TempDir,
    /// The authority's certificate.
    pub ca: PathBuf,
    /// For a server at 127.0.0.1, ::1 and localhost; etcd presents it as a client too (its gateway dials itself).
    pub server: Pair,
    /// For a client; common name `root`, which etcd takes as the user when client certificates and authentication are on.
    pub client: Pair,
    /// The certificate of an authority that signed none of the good ones.
    pub wrong_ca: PathBuf,
    /// A client of the wrong authority.
    pub wrong_client: Pair,
    /// A client of the right authority whose time is over.
    pub expired_client: Pair,
    /// A server of the right authority whose time is over.
    pub expired_server: Pair,
    /// A server of the right authority for another name.
    pub other_name_server: Pair,
    /// A server of the right authority that ends in five days.
    pub ending_server: Pair,
    /// A client of the right authority that ends in twenty days.
    pub ending_client: Pair,
}

impl TlsSet {
    /// Makes all of them.
    #[must_use]
    pub fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let at = dir.path();
        let (authority, ca) = authority(at, "ca");
        let (wrong_authority, wrong_ca) = self::authority(at, "wrong-ca");
        let loopback = &["127.0.0.1", "::1", "localhost"];
        Self {
            server: leaf(at, "server", &authority, "server", loopback, Validity::Now),
            client: leaf(at, "client", &authority, "root", &[], Validity::Now),
            wrong_client: leaf(at, "wrong-client", &wrong_authority, "root", &[], Validity::Now),
            expired_client: leaf(at, "expired-client", &authority, "root", &[], Validity::Over),
            expired_server: leaf(at, "expired-server", &authority, "server", loopback, Validity::Over),
            other_name_server: leaf(at, "other-name-server", &authority, "server", &["elsewhere.example"], Validity::Now),
            ending_server: leaf(at, "ending-server", &authority, "server", loopback, Validity::Days(5)),
            ending_client: leaf(at, "ending-client", &authority, "root", &[], Validity::Days(20)),
            ca,
            wrong_ca,
            dir,
        }
    }

    /// The directory with all the files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Default for TlsSet {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Clone, Copy)]
enum Validity {
    Now,
    Over,
    /// From now on.
    Days(i64),
}

fn validity(params: &mut CertificateParams, validity: Validity) {
    // Fixed years wherever it can be: no clock is needed, and no test fails around midnight.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = match validity {
        Validity::Now => date_time_ymd(2120, 1, 1),
        Validity::Over => date_time_ymd(2021, 1, 1),
        Validity::Days(days) => {
            let end = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * days)).to_zoned(jiff::tz::TimeZone::UTC);
            date_time_ymd(end.year().into(), end.month().unsigned_abs(), end.day().unsigned_abs())
        }
    };
}

fn authority(dir: &Path, name: &str) -> (Issuer<'static, KeyPair>, PathBuf) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.distinguished_name.push(DnType::CommonName, name);
    validity(&mut params, Validity::Now);
    let key = KeyPair::generate().unwrap();
    let path = dir.join(format!("{name}.pem"));
    fs::write(&path, params.self_signed(&key).unwrap().pem()).unwrap();
    (Issuer::new(params, key), path)
}

fn leaf(dir: &Path, file: &str, authority: &Issuer<'_, KeyPair>, common_name: &str, names: &[&str], when: Validity) -> Pair {
    let mut params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if !names.is_empty() {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    validity(&mut params, when);
    let key = KeyPair::generate().unwrap();
    let pair = Pair { cert: dir.join(format!("{file}.pem")), key: dir.join(format!("{file}-key.pem")) };
    fs::write(&pair.cert, params.signed_by(&key, authority).unwrap().pem()).unwrap();
    fs::write(&pair.key, key.serialize_pem()).unwrap();
    fs::set_permissions(&pair.key, fs::Permissions::from_mode(0o600)).unwrap();
    pair
}
