//! The HTTP clients: one per kind of request, since one time-out does not fit all.

use std::path::Path;

use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum, S3ConditionalPut};
use object_store::{BackoffConfig, Certificate, ClientOptions, RetryConfig};

use super::super::limits::{
    ATTEMPTS, CONNECT_TIMEOUT, MAX_SETTINGS_FILE, PART_TIMEOUT, READ_STALL, RETRY_BUDGET, RETRY_PAUSE, RETRY_PAUSE_MAX, SMALL_TIMEOUT,
    SMALL_WRITE,
};
use super::super::open::{PartChecksum, StoreOptions};
use super::credentials;

#[derive(Debug)]
pub(super) struct Clients {
    /// Looking, deleting, small writes: a short time-out over all.
    pub(super) small: AmazonS3,
    /// Reads and listings: only silence ends them.
    pub(super) read: AmazonS3,
    /// Parts: a long time-out over all.
    pub(super) write: AmazonS3,
}

impl Clients {
    pub(super) fn new(bucket: &str, options: &StoreOptions) -> Result<Self, String> {
        // reqwest is built without a provider of its own. If main has installed one already, that one is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let settings = Settings::gather(bucket, options)?;
        let base = || ClientOptions::new().with_connect_timeout(CONNECT_TIMEOUT);
        Ok(Self {
            small: settings.client(base().with_timeout(SMALL_TIMEOUT))?,
            read: settings.client(base().with_timeout_disabled().with_read_timeout(READ_STALL))?,
            write: settings.client(base().with_timeout(PART_TIMEOUT))?,
        })
    }

    /// The client for a write of this many bytes.
    pub(super) fn for_write(&self, len: usize) -> &AmazonS3 {
        if len <= SMALL_WRITE { &self.small } else { &self.write }
    }
}

struct Settings {
    builder: AmazonS3Builder,
    allow_http: bool,
    certificates: Vec<Certificate>,
}

/// The endpoint by the variables of the cloud's own tools, the more specific one first.
fn endpoint_from_env() -> Option<String> {
    ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .filter(|url| !url.is_empty())
}

impl Settings {
    fn gather(bucket: &str, options: &StoreOptions) -> Result<Self, String> {
        let mut builder = match &options.credentials_file {
            // The environment's credentials must not mix with those of the file.
            Some(path) => {
                credentials::apply(AmazonS3Builder::new(), &read_small(path)?).map_err(|error| format!("{}: {error}", path.display()))?
            }
            None => AmazonS3Builder::from_env(),
        };
        builder = builder.with_bucket_name(bucket).with_conditional_put(S3ConditionalPut::ETagMatch).with_disable_bulk_delete(true);
        if let Some(region) = options.region.clone().or_else(|| region_from_env(options)) {
            builder = builder.with_region(region);
        }
        builder = match options.checksum {
            PartChecksum::Sha256 => builder.with_checksum_algorithm(Checksum::SHA256),
            PartChecksum::Crc64Nvme => builder.with_checksum_algorithm(Checksum::CRC64NVME),
            PartChecksum::Off => builder,
        };
        let endpoint = options.endpoint.clone().or_else(endpoint_from_env);
        // Certificates of virtual hosts do not cover bucket names with dots.
        let path_style = options.path_style.unwrap_or(endpoint.is_some() || bucket.contains('.'));
        builder = builder.with_virtual_hosted_style_request(!path_style);
        let allow_http = endpoint.as_deref().is_some_and(|url| url.starts_with("http://"));
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(full_endpoint(&endpoint, bucket, path_style)?);
        }
        let certificates = match &options.ca_file {
            None => Vec::new(),
            Some(path) => {
                Certificate::from_pem_bundle(read_small(path)?.as_bytes()).map_err(|error| format!("{}: {error}", path.display()))?
            }
        };
        Ok(Self { builder, allow_http, certificates })
    }

    fn client(&self, mut options: ClientOptions) -> Result<AmazonS3, String> {
        for certificate in &self.certificates {
            options = options.with_root_certificate(certificate.clone());
        }
        let retry = RetryConfig {
            backoff: BackoffConfig { init_backoff: RETRY_PAUSE, max_backoff: RETRY_PAUSE_MAX, base: 2.0 },
            max_retries: ATTEMPTS - 1,
            retry_timeout: RETRY_BUDGET,
        };
        let options = options.with_allow_http(self.allow_http);
        self.builder.clone().with_client_options(options).with_retry(retry).build().map_err(|error| error.to_string())
    }
}

/// With a credentials file the builder has not read the environment; the region is no secret and may still come from there.
fn region_from_env(options: &StoreOptions) -> Option<String> {
    options.credentials_file.as_ref()?;
    ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|name| std::env::var(name).ok()).filter(|region| !region.is_empty())
}

/// The endpoint as `object_store` wants it: for virtual hosts the bucket is part of it.
fn full_endpoint(endpoint: &str, bucket: &str, path_style: bool) -> Result<String, String> {
    let url = endpoint.trim_end_matches('/');
    let Some((scheme, host)) = url.split_once("://") else {
        return Err(format!("the endpoint {endpoint:?} must begin with https:// or http://"));
    };
    if !matches!(scheme, "https" | "http") || host.is_empty() || host.contains(['@', '?', '#']) {
        return Err("the endpoint must be https://HOST[:PORT] or http://HOST[:PORT], without credentials".to_owned());
    }
    Ok(if path_style { url.to_owned() } else { format!("{scheme}://{bucket}.{host}") })
}

/// Reads a file of settings, following links: secrets are mounted that way.
fn read_small(path: &Path) -> Result<String, String> {
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
    fn endpoints() {
        assert_eq!(full_endpoint("https://s3.example:9000/", "b", true), Ok("https://s3.example:9000".to_owned()));
        assert_eq!(full_endpoint("https://s3.example", "b", false), Ok("https://b.s3.example".to_owned()));
        for bad in ["s3.example", "ftp://s3.example", "https://", "https://key:secret@s3.example"] {
            let error = full_endpoint(bad, "b", true);
            assert!(error.as_ref().is_err_and(|text| !text.contains("secret")), "{error:?}");
        }
    }
}
