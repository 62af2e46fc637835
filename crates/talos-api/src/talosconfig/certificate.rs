//! What a client certificate says of its holder.

use std::time::{Duration, SystemTime};

use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use crate::role::{Role, Roles};

/// Who a client certificate makes us, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its roles: the Organization entries of its subject.
    pub roles: Roles,
    /// First moment at which it is valid.
    pub not_before: SystemTime,
    /// Last moment at which it is valid.
    pub not_after: SystemTime,
}

/// How long a certificate has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remaining {
    /// Its time begins only after this much; a wrong clock is likelier than a certificate from the future.
    NotYet(Duration),
    /// It is valid for this much longer.
    Left(Duration),
    /// It has been over for this long. Every call fails, and only a control plane node's machine config or the secrets
    /// bundle can make a new one.
    Over(Duration),
}

impl Identity {
    /// How long the certificate has left at `now`.
    #[must_use]
    pub fn remaining(&self, now: SystemTime) -> Remaining {
        if let Ok(early) = self.not_before.duration_since(now)
            && !early.is_zero()
        {
            return Remaining::NotYet(early);
        }
        match self.not_after.duration_since(now) {
            Ok(left) => Remaining::Left(left),
            Err(over) => Remaining::Over(over.duration()),
        }
    }

    /// Its whole lifetime: a year for those of `talosctl gen config`, six hours for those of service accounts. "Soon" is
    /// relative to it.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.not_after.duration_since(self.not_before).unwrap_or_default()
    }
}

/// Reads the first certificate of a PEM text.
///
/// # Errors
/// What is wrong with it, in words.
pub fn certificate_identity(pem: &[u8]) -> Result<Identity, String> {
    let chain = grpc_link::certificates(grpc_link::Material::Certificate, pem).map_err(|error| error.fact)?;
    let der = chain.first().ok_or("no CERTIFICATE block in it")?;
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| "not an X.509 certificate")?;
    let organizations = certificate.subject().iter_organization().filter_map(|entry| entry.as_str().ok());
    let roles = Roles::new(organizations.map(Role::from_name).collect());
    let validity = certificate.validity();
    Ok(Identity { roles, not_before: moment(validity.not_before), not_after: moment(validity.not_after) })
}

fn moment(time: ASN1Time) -> SystemTime {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let moved = if seconds < 0 { SystemTime::UNIX_EPOCH.checked_sub(distance) } else { SystemTime::UNIX_EPOCH.checked_add(distance) };
    moved.unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use proptest::prelude::*;

    use super::*;

    fn certificate(organizations: &[&str]) -> String {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        // rcgen keeps one entry per type; several roles are tested with the real thing in the tests with the double.
        for organization in organizations {
            params.distinguished_name.push(rcgen::DnType::OrganizationName, *organization);
        }
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2027, 1, 1);
        params.self_signed(&rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap()).unwrap().pem()
    }

    #[test]
    fn roles_and_validity_come_from_the_certificate() {
        let identity = certificate_identity(certificate(&["os:etcd:backup"]).as_bytes()).unwrap();
        assert_eq!(identity.roles.as_slice(), [Role::EtcdBackup]);
        let day = Duration::from_secs(86_400);
        assert_eq!(identity.lifetime(), day * 365);
        assert_eq!(identity.remaining(identity.not_before), Remaining::Left(day * 365));
        assert_eq!(identity.remaining(identity.not_after - day), Remaining::Left(day));
        assert_eq!(identity.remaining(identity.not_after), Remaining::Left(Duration::ZERO));
        assert_eq!(identity.remaining(identity.not_after + day), Remaining::Over(day));
        assert_eq!(identity.remaining(identity.not_before - day), Remaining::NotYet(day));
        assert_eq!(certificate_identity(certificate(&[]).as_bytes()).unwrap().roles.to_string(), "no role");
    }

    #[test]
    fn what_is_no_certificate_is_said_to_be_none() {
        assert!(certificate_identity(b"").unwrap_err().contains("no CERTIFICATE"));
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(certificate_identity(garbage.as_bytes()).unwrap_err().contains("X.509"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(at in 0_usize..400, byte in any::<u8>()) {
            use base64::Engine;
            let base64 = base64::engine::general_purpose::STANDARD;
            let pem = certificate(&["os:reader"]);
            let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
            let mut der = base64.decode(body).unwrap();
            let at = at % der.len();
            der[at] = byte;
            let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", base64.encode(&der));
            let _either = certificate_identity(pem.as_bytes());
        }
    }
}
