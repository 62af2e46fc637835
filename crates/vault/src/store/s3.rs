//! `s3://`: a repository in a bucket of S3 or a compatible store; everything but the way to it is [`super::object`].

mod credentials;

use object_store::aws::{AmazonS3Builder, Checksum, S3ConditionalPut};

use super::StoreError;
use super::object::client::{Clients, Transport, from_env, parts_of, read_small};
use super::object::error::{Meaning, Words};
use super::object::{BucketStore, Dialect, Place};
use super::open::{PartChecksum, StoreOptions};

/// Opens a repository in a bucket. Nothing is sent yet.
///
/// # Errors
/// [`StoreError::Other`] for a setting that cannot be, or a credentials or certificate file that cannot be read.
pub(super) fn open(place: &Place<'_>, options: &StoreOptions) -> Result<BucketStore, StoreError> {
    BucketStore::new(place, clients(place.bucket, options).map_err(|detail| place.refused(detail))?, Box::new(S3))
}

struct S3;

impl Dialect for S3 {
    fn words(&self) -> &'static Words {
        &WORDS
    }
}

/// The codes of the S3 API's error responses.
const WORDS: Words = Words {
    meaning,
    no_credentials: "neither in the environment (AWS_ACCESS_KEY_ID, …) nor a credentials file nor from this machine's role",
    // Asking the machine's own metadata service is the last way to credentials; when that fails, there are none.
    metadata: &["169.254.", "/latest/api/token", "security-credentials"],
};

fn meaning(code: &str) -> Option<Meaning> {
    Some(match code {
        "NoSuchBucket" => Meaning::NoRoot,
        "NoSuchKey" => Meaning::NotFound,
        "PreconditionFailed" => Meaning::Precondition,
        "InvalidRange" => Meaning::Corrupt,
        "RequestTimeTooSkewed" => Meaning::Denied("; is this machine's clock right?"),
        "AccessDenied"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "AllAccessDisabled"
        | "AccountProblem"
        | "InvalidSecurity"
        | "NotSignedUp"
        | "UnauthorizedAccess" => Meaning::Denied(""),
        "QuotaExceeded" | "InsufficientStorage" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded" | "EntityTooLarge" => {
            Meaning::Full
        }
        "SlowDown" | "ServiceUnavailable" | "InternalError" | "RequestTimeout" | "ThrottlingException" | "TooManyRequests" => {
            Meaning::Unreachable
        }
        // Answered with 501, and yet the server is well: it does not do this.
        "NotImplemented" => Meaning::Other,
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" | "TemporaryRedirect" => {
            Meaning::WrongRegion
        }
        _ => return None,
    })
}

fn clients(bucket: &str, options: &StoreOptions) -> Result<Clients, String> {
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
    // The endpoint by the variables of the cloud's own tools, the more specific one first.
    let endpoint = options.endpoint.clone().or_else(|| from_env(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]));
    // Certificates of virtual hosts do not cover bucket names with dots.
    let path_style = options.path_style.unwrap_or(endpoint.is_some() || bucket.contains('.'));
    builder = builder.with_virtual_hosted_style_request(!path_style);
    let transport = Transport::new(endpoint.as_deref(), options.ca_file.as_deref())?;
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(full_endpoint(&endpoint, bucket, path_style)?);
    }
    Clients::new(&transport, |options, retry| {
        builder.clone().with_client_options(options).with_retry(retry).build().map_err(|error| error.to_string())
    })
}

/// With a credentials file the builder has not read the environment; the region is no secret and may still come from there.
fn region_from_env(options: &StoreOptions) -> Option<String> {
    options.credentials_file.as_ref()?;
    from_env(&["AWS_REGION", "AWS_DEFAULT_REGION"])
}

/// The endpoint as `object_store` wants it: for virtual hosts the bucket is part of it.
fn full_endpoint(endpoint: &str, bucket: &str, path_style: bool) -> Result<String, String> {
    let (scheme, host) = parts_of(endpoint)?;
    Ok(if path_style { format!("{scheme}://{host}") } else { format!("{scheme}://{bucket}.{host}") })
}

#[cfg(test)]
mod tests {
    use super::super::object::error::tests::{generic, map_with};
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

    #[test]
    fn codes_decide() {
        let xml =
            |code: &str| format!("400: <Error><Code>{code}</Code><Message>words\u{1b}[1m</Message><Region>eu-west-9</Region></Error>");
        let of = |code: &str| map_with(&WORDS, generic(&xml(code)));
        assert!(matches!(of("NoSuchBucket"), StoreError::NoRoot { root } if root == "s3://b"));
        assert!(matches!(of("NoSuchKey"), StoreError::NotFound { key } if key == "k"));
        assert!(matches!(of("InvalidAccessKeyId"), StoreError::Denied { detail, .. } if detail == "InvalidAccessKeyId: words[1m"));
        assert!(matches!(of("SignatureDoesNotMatch"), StoreError::Denied { .. }));
        assert!(matches!(of("SlowDown"), StoreError::Unreachable { .. }));
        assert!(matches!(of("InvalidRange"), StoreError::Corrupt { .. }));
        let not_done = map_with(&WORDS, generic("501 Not Implemented: <Error><Code>NotImplemented</Code><Message>no</Message></Error>"));
        assert!(matches!(not_done, StoreError::Other { detail, .. } if detail == "NotImplemented: no"));
        assert!(matches!(of("QuotaExceeded"), StoreError::Full { .. }));
        assert!(matches!(of("AuthorizationHeaderMalformed"), StoreError::Other { detail, .. } if detail.ends_with("region eu-west-9")));
        assert!(matches!(of("Unheard"), StoreError::Other { detail, .. } if detail.starts_with("Unheard: words")));
        assert!(matches!(map_with(&WORDS, generic("connect http://169.254.169.254/latest")), StoreError::Denied { .. }));
    }
}
