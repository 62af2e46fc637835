//! `gs://`: a repository in a bucket of Google Cloud Storage, over its XML API; everything else is [`super::object`].
//!
//! Creation is conditional on generation 0, "no live object" (<https://cloud.google.com/storage/docs/request-preconditions>). There is no
//! conditional write by entity tag, so a replacement looks at the object first, compares the tag, and then writes on condition of the
//! generation it has seen: whoever was quicker has given it another generation.

mod credentials;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{PutMode, UpdateVersion};

use super::object::client::{Clients, Transport, from_env, is_plain, parts_of};
use super::object::error::{Meaning, Words};
use super::object::{Bucket, BucketStore, Dialect, Place};
use super::open::StoreOptions;
use super::{ObjectInfo, StoreError};

/// Opens a repository in a bucket. Nothing is sent yet.
///
/// # Errors
/// [`StoreError::Other`] for a setting that cannot be, or a credentials or certificate file that cannot be read.
pub(super) fn open(place: &Place<'_>, options: &StoreOptions) -> Result<BucketStore, StoreError> {
    BucketStore::new(place, clients(place.bucket, options).map_err(|detail| place.refused(detail))?, Box::new(Gcs))
}

struct Gcs;

#[async_trait]
impl Dialect for Gcs {
    fn words(&self) -> &'static Words {
        &WORDS
    }

    async fn update(&self, bucket: &Bucket, key: &str, bytes: &Bytes, etag: &str) -> Result<ObjectInfo, StoreError> {
        let there = bucket.look(key).await?;
        if there.e_tag.as_deref() != Some(etag) {
            return Err(StoreError::Changed { key: key.to_owned() });
        }
        let Some(generation) = there.version else {
            return Err(StoreError::Corrupt { key: key.to_owned(), detail: "the store does not tell the object's generation".to_owned() });
        };
        bucket.put(key, bytes, PutMode::Update(UpdateVersion { e_tag: None, version: Some(generation) })).await
    }
}

/// The codes of the XML API's error responses: <https://cloud.google.com/storage/docs/xml-api/reference-status>.
const WORDS: Words = Words {
    meaning,
    no_credentials: "neither in the environment (GOOGLE_APPLICATION_CREDENTIALS) nor a credentials file nor from `gcloud auth \
                     application-default login` nor from this machine's or workload's service account",
    metadata: &["169.254.", "/computeMetadata/"],
};

fn meaning(code: &str) -> Option<Meaning> {
    Some(match code {
        "NoSuchBucket" => Meaning::NoRoot,
        "NoSuchKey" => Meaning::NotFound,
        "PreconditionFailed" => Meaning::Precondition,
        "InvalidRange" => Meaning::Corrupt,
        "AuthenticationRequired" => Meaning::Denied("; is the credentials file right, and this machine's clock?"),
        // A retention policy, a hold or a locked object forbid what an administrator might be allowed.
        "RetentionPolicyNotMet" | "ObjectUnderActiveHold" | "ObjectRetentionNotMet" => Meaning::Denied(""),
        "AccessDenied" | "AccountProblem" | "InvalidSecurity" | "UserProjectAccountProblem" | "UserProjectMissing" | "ExpiredToken" => {
            Meaning::Denied("")
        }
        "QuotaExceeded" | "EntityTooLarge" => Meaning::Full,
        "SlowDown" | "ServiceUnavailable" | "InternalError" | "RequestTimeout" | "TooManyRequests" => Meaning::Unreachable,
        "NotImplemented" => Meaning::Other,
        _ => return None,
    })
}

/// The service's own address.
const GOOGLE: &str = "https://storage.googleapis.com";

/// An emulator's address as Google's own client libraries take it: `HOST:PORT` is plain HTTP.
fn emulator_from_env() -> Option<String> {
    from_env(&["STORAGE_EMULATOR_HOST"]).map(|host| if host.contains("://") { host } else { format!("http://{host}") })
}

fn clients(bucket: &str, options: &StoreOptions) -> Result<Clients, String> {
    let emulator = if options.endpoint.is_none() { emulator_from_env() } else { None };
    let endpoint = options.endpoint.clone().or_else(|| emulator.clone());
    let base = match &endpoint {
        None => GOOGLE.to_owned(),
        Some(endpoint) => parts_of(endpoint).map(|(scheme, host)| format!("{scheme}://{host}"))?,
    };
    let mut builder = GoogleCloudStorageBuilder::new().with_bucket_name(bucket).with_base_url(&base);
    // The token is itself the secret: on a line that anybody can read it is not sent, and an emulator does not ask for one.
    builder = match &options.credentials_file {
        Some(_) if is_plain(&base) => {
            return Err(format!(
                "a credentials file is not used over plain HTTP ({base}); name an https:// endpoint, or leave out the file"
            ));
        }
        None if is_plain(&base) || emulator.is_some() => builder.with_bearer_token("anonymous"),
        file => credentials::apply(builder, file.as_deref())?,
    };
    let transport = Transport::new(endpoint.as_deref(), options.ca_file.as_deref())?;
    let mut shared = None;
    Clients::new(&transport, |options, retry| {
        let mut builder = builder.clone().with_client_options(options).with_retry(retry);
        if let Some(credentials) = &shared {
            builder = builder.with_credentials(std::sync::Arc::clone(credentials));
        }
        let client = builder.build().map_err(|error| error.to_string())?;
        // One token for all three clients, fetched with the times of small requests.
        shared.get_or_insert_with(|| std::sync::Arc::clone(client.credentials()));
        Ok(client)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::object::error::tests::{generic, map_with};
    use super::*;

    #[test]
    fn codes_decide() {
        let of = |code: &str| {
            map_with(
                &WORDS,
                generic(&format!("403 Forbidden: <?xml version='1.0'?><Error><Code>{code}</Code><Message>words</Message></Error>")),
            )
        };
        assert!(matches!(of("NoSuchBucket"), StoreError::NoRoot { .. }));
        for locked in ["RetentionPolicyNotMet", "ObjectUnderActiveHold", "AccessDenied"] {
            assert!(matches!(of(locked), StoreError::Denied { detail, .. } if detail == format!("{locked}: words")));
        }
        assert!(matches!(of("SlowDown"), StoreError::Unreachable { .. }));
        let nothing = map_with(&WORDS, generic("connect http://169.254.169.254/computeMetadata/v1/instance"));
        assert!(nothing.to_string().contains("GOOGLE_APPLICATION_CREDENTIALS"), "{nothing}");
    }

    #[test]
    fn no_token_goes_over_plain_http() {
        let place = Place { scheme: "gs", bucket: "bucket", prefix: "p" };
        let plain = StoreOptions { endpoint: Some("http://127.0.0.1:1".to_owned()), ..StoreOptions::default() };
        assert_eq!(format!("{:?}", open(&place, &plain).unwrap()), "BucketStore { root: \"gs://bucket/p\", .. }");
        let with_file = StoreOptions { credentials_file: Some("/nonexistent".into()), ..plain };
        assert!(open(&place, &with_file).unwrap_err().to_string().contains("plain HTTP"));
    }
}
