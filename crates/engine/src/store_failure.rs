//! A store's errors in an operator's words: the likely cause and what mends it.

use vault::store::StoreError;

use crate::failure::{Code, Failure};

/// A failure for an error of a store. `what` did not happen is the caller's to say.
#[must_use]
pub fn failure(what: &str, error: &StoreError) -> Failure {
    let (code, object, advice) = match error {
        StoreError::NoRoot { root } => {
            (Code::NoRepository, root.clone(), "create it, or check --repo (for S3: the bucket, --s3-endpoint and --s3-region)")
        }
        StoreError::Denied { key, .. } => (
            Code::StoreUnreachable,
            key.clone(),
            "check the credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or --s3-credentials-file) and that they may list, read and write there",
        ),
        StoreError::Unreachable { key, .. } => {
            (Code::StoreUnreachable, key.clone(), "check --repo and --s3-endpoint, and that the store runs and can be reached from here")
        }
        StoreError::Full { key } => (Code::Failed, key.clone(), "make room in the store, or name another one with --repo"),
        StoreError::NotFound { key } => (Code::Failed, key.clone(), "the object is missing: lifeboat verify names everything that is"),
        StoreError::AlreadyExists { key } => (Code::Failed, key.clone(), "another writer was at work at the same moment"),
        StoreError::Corrupt { key, .. } => (Code::Unproven, key.clone(), "the stored object is damaged, or the store breaks its own rules"),
        StoreError::Changed { key } | StoreError::Other { key, .. } => (Code::Failed, key.clone(), "see the store's own words"),
        _ => (Code::Failed, String::new(), "see the store's own words"),
    };
    Failure::new(code, what).object(object).cause(format!("{error}; {advice}")).again()
}
