//! A store's errors in an operator's words: the likely cause and what mends it.

use vault::store::StoreError;

use crate::failure::{Code, Failure};
use crate::store_kind::StoreKind;

/// A failure for an error of a store. `what` did not happen is the caller's to say.
#[must_use]
pub fn failure(what: &str, error: &StoreError) -> Failure {
    // What is the root alone has a scheme.
    let (StoreError::NoRoot { root: object } | StoreError::Denied { key: object, .. } | StoreError::Unreachable { key: object, .. }) =
        error
    else {
        return of_kind(None, what, error);
    };
    of_kind(object.contains("://").then(|| StoreKind::of(object)), what, error)
}

/// As [`failure`], of the store at `url`.
#[must_use]
pub fn failure_at(url: &str, what: &str, error: &StoreError) -> Failure {
    of_kind(Some(StoreKind::of(url)), what, error)
}

fn of_kind(kind: Option<StoreKind>, what: &str, error: &StoreError) -> Failure {
    let (code, object, advice) = match error {
        StoreError::NoRoot { root } => (Code::NoRepository, root.clone(), no_root(kind)),
        StoreError::Denied { key, .. } => (Code::StoreUnreachable, key.clone(), denied(kind)),
        StoreError::Unreachable { key, .. } => (Code::StoreUnreachable, key.clone(), unreachable(kind)),
        StoreError::Full { key } => (Code::Failed, key.clone(), "make room in the store, or name another one with --repo".to_owned()),
        StoreError::NotFound { key } => {
            (Code::Failed, key.clone(), "the object is missing: lifeboat verify names everything that is".to_owned())
        }
        StoreError::AlreadyExists { key } => (Code::Failed, key.clone(), "another writer was at work at the same moment".to_owned()),
        StoreError::Corrupt { key, .. } => {
            (Code::Unproven, key.clone(), "the stored object is damaged, or the store breaks its own rules".to_owned())
        }
        StoreError::Changed { key } | StoreError::Other { key, .. } => (Code::Failed, key.clone(), "see the store's own words".to_owned()),
        _ => (Code::Failed, String::new(), "see the store's own words".to_owned()),
    };
    Failure::new(code, what).object(object).cause(format!("{error}; {advice}")).again()
}

fn no_root(kind: Option<StoreKind>) -> String {
    match kind {
        Some(StoreKind::Google) => "create it, or check --repo (the bucket) and --store-endpoint".to_owned(),
        Some(StoreKind::Azure) => "create it, or check --repo (the container), the storage account and --store-endpoint".to_owned(),
        Some(StoreKind::Directory | StoreKind::S3) | None => {
            "create it, or check --repo (for S3: the bucket, --s3-endpoint and --s3-region)".to_owned()
        }
    }
}

fn denied(kind: Option<StoreKind>) -> String {
    match kind {
        Some(StoreKind::Directory) => "check the owner and the mode of the directory, and as whom this runs".to_owned(),
        Some(kind) => format!(
            "check the credentials ({}, or {}) and that they may list, read and write there",
            kind.credentials(),
            kind.credentials_flag()
        ),
        None => "check the store's credentials (in the environment, or a credentials file) and that they may list, read and write there"
            .to_owned(),
    }
}

fn unreachable(kind: Option<StoreKind>) -> String {
    let endpoint = match kind {
        Some(StoreKind::Directory) => "",
        Some(kind) => kind.endpoint_flag(),
        None => "the endpoint",
    };
    let and = if endpoint.is_empty() { "" } else { " and " };
    format!("check --repo{and}{endpoint}, and that the store runs and can be reached from here")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_is_the_stores() {
        let denied = StoreError::Denied { key: "lifeboat.json".to_owned(), detail: "no".to_owned() };
        for (url, word) in [
            ("s3://b/p", "AWS_SECRET_ACCESS_KEY, or --s3-credentials-file"),
            ("gs://b/p", "GOOGLE_APPLICATION_CREDENTIALS, or --store-credentials-file"),
            ("az://c/p", "AZURE_STORAGE_ACCOUNT_KEY"),
            ("/var/backups", "the mode of the directory"),
        ] {
            let text = format!("{:?}", failure_at(url, "nothing", &denied));
            assert!(text.contains(word), "{text}");
        }
    }
}
