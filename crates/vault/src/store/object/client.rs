//! The HTTP clients: one per kind of request, since one time-out does not fit all.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use object_store::multipart::MultipartStore;
use object_store::{BackoffConfig, Certificate, ClientOptions, ObjectStore, RetryConfig};

use super::super::authorities;
use super::super::limits::{
    ATTEMPTS, CONNECT_TIMEOUT, MAX_SETTINGS_FILE, PART_TIMEOUT, READ_STALL, RETRY_BUDGET, RETRY_PAUSE, RETRY_PAUSE_MAX, SMALL_TIMEOUT,
    SMALL_WRITE,
};

/// What one client of a cloud can do.
pub(in super::super) trait Client: ObjectStore + MultipartStore {}

impl<T: ObjectStore + MultipartStore> Client for T {}

pub(in super::super) struct Clients {
    /// Looking, deleting, small writes: a short time-out over all.
    pub(in super::super) small: Arc<dyn Client>,
    /// Reads and listings: only silence ends them.
    pub(in super::super) read: Arc<dyn Client>,
    /// Parts: a long time-out over all.
    pub(in super::super) write: Arc<dyn Client>,
}

impl Clients {
    /// Makes the three clients with `build`, from the options for each kind of request; the first one is that for small requests.
    ///
    /// # Errors
    /// Those of `build`.
    pub(in super::super) fn new<C: Client>(
        transport: &Transport,
        mut build: impl FnMut(ClientOptions, RetryConfig) -> Result<C, String>,
    ) -> Result<Self, String> {
        // reqwest is built without a provider of its own. If main has installed one already, that one is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut make = |options: ClientOptions| -> Result<Arc<dyn Client>, String> { Ok(Arc::new(build(options, retry())?)) };
        Ok(Self {
            small: make(transport.small())?,
            read: make(transport.base().with_timeout_disabled().with_read_timeout(READ_STALL))?,
            write: make(transport.base().with_timeout(PART_TIMEOUT))?,
        })
    }

    /// The client for a write of this many bytes.
    pub(super) fn for_write(&self, len: usize) -> &dyn Client {
        if len <= SMALL_WRITE { self.small.as_ref() } else { self.write.as_ref() }
    }
}

fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { init_backoff: RETRY_PAUSE, max_backoff: RETRY_PAUSE_MAX, base: 2.0 },
        max_retries: ATTEMPTS - 1,
        retry_timeout: RETRY_BUDGET,
    }
}

/// How connections are made.
pub(in super::super) struct Transport {
    allow_http: bool,
    certificates: Vec<Certificate>,
    /// The machine has none, and no client is made that asks for them.
    no_system: bool,
}

impl Transport {
    /// Plain HTTP is for an endpoint that was named with `http://`; `ca_file` holds certificates (PEM) to trust beside the
    /// system's, or beside those built in where the system has none.
    ///
    /// # Errors
    /// A file that cannot be read, in words.
    pub(in super::super) fn new(endpoint: Option<&str>, ca_file: Option<&Path>) -> Result<Self, String> {
        let mut certificates = match ca_file {
            None => Vec::new(),
            Some(path) => {
                Certificate::from_pem_bundle(read_small(path)?.as_bytes()).map_err(|error| format!("{}: {error}", path.display()))?
            }
        };
        let built_in = authorities::built_in();
        certificates.extend(built_in.iter().filter_map(|der| Certificate::from_der(der).ok()));
        Ok(Self { allow_http: endpoint.is_some_and(is_plain), no_system: !built_in.is_empty(), certificates })
    }

    fn base(&self) -> ClientOptions {
        let mut options = ClientOptions::new().with_connect_timeout(CONNECT_TIMEOUT).with_allow_http(self.allow_http);
        options = options.with_no_system_certificates(self.no_system);
        for certificate in &self.certificates {
            options = options.with_root_certificate(certificate.clone());
        }
        options
    }

    /// The options for small requests.
    pub(in super::super) fn small(&self) -> ClientOptions {
        self.base().with_timeout(SMALL_TIMEOUT)
    }
}

/// Whether an endpoint is reached without TLS.
pub(in super::super) fn is_plain(endpoint: &str) -> bool {
    endpoint.starts_with("http://")
}

/// Whether an endpoint is on this machine: nobody listens on the way.
pub(in super::super) fn is_loopback(endpoint: &str) -> bool {
    let url = url::Url::parse(endpoint).ok();
    let host = url.as_ref().and_then(url::Url::host_str).unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// An endpoint's scheme and the rest, which has no credentials in it.
///
/// # Errors
/// What is wrong with it, without repeating credentials.
pub(in super::super) fn parts_of(endpoint: &str) -> Result<(&str, &str), String> {
    let url = endpoint.trim_end_matches('/');
    let Some((scheme, host)) = url.split_once("://") else {
        return Err(format!("the endpoint {endpoint:?} must begin with https:// or http://"));
    };
    if !matches!(scheme, "https" | "http") || host.is_empty() || host.contains(['@', '?', '#']) {
        return Err("the endpoint must be https://HOST[:PORT] or http://HOST[:PORT], without credentials".to_owned());
    }
    Ok((scheme, host))
}

/// The first of these variables that holds anything.
pub(in super::super) fn from_env(names: &[&str]) -> Option<String> {
    names.iter().filter_map(|name| std::env::var(name).ok()).find(|text| !text.is_empty())
}

/// Reads a file of settings, following links: secrets are mounted that way.
pub(in super::super) fn read_small(path: &Path) -> Result<String, String> {
    let fail = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = disk::File::open_read(path).map_err(|error| fail(&error))?;
    let len = file.len().map_err(|error| fail(&error))?;
    if len > MAX_SETTINGS_FILE {
        return Err(fail(&"the file is too large"));
    }
    // At most a mebibyte.
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, 0).map_err(|error| fail(&error))?;
    String::from_utf8(bytes).map_err(|_| fail(&"the file is not text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_by_the_address() {
        for here in ["http://127.0.0.1:10000/devstoreaccount1", "http://localhost:4443", "http://[::1]:1"] {
            assert!(is_loopback(here), "{here}");
        }
        for away in ["http://10.0.0.1:1", "http://127.0.0.1.example:1", "http://localhost.example", "nothing"] {
            assert!(!is_loopback(away), "{away}");
        }
    }
}
