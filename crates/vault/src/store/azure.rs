//! `az://`: a repository in a container of Azure Blob Storage; everything else is [`super::object`].
//!
//! Creation is conditional on `If-None-Match: *`, replacement on `If-Match`
//! (<https://learn.microsoft.com/rest/api/storageservices/specifying-conditional-headers-for-blob-service-operations>). A big object is written as
//! blocks that become an object by one list of them. There is no request that gives up blocks: those of an upload that was not completed are
//! visible to nobody, and Azure removes them after a week.

mod credentials;
mod delete;

use std::sync::Arc;

use async_trait::async_trait;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};

use super::StoreError;
use super::object::client::{Clients, Transport, is_loopback, is_plain, read_small};
use super::object::error::{Meaning, Words};
use super::object::{Bucket, BucketStore, Dialect, Place, persist};
use super::open::StoreOptions;
use credentials::{Credential, Settings};
use delete::Remover;

/// Opens a repository in a container. Nothing is sent yet.
///
/// # Errors
/// [`StoreError::Other`] for a setting that cannot be, no storage account, or a credentials or certificate file that cannot be read.
pub(super) fn open(place: &Place<'_>, options: &StoreOptions) -> Result<BucketStore, StoreError> {
    let (clients, remover) = clients(place.bucket, options).map_err(|detail| place.refused(detail))?;
    BucketStore::new(place, clients, Box::new(Azure { remover }))
}

struct Azure {
    remover: Remover,
}

#[async_trait]
impl Dialect for Azure {
    fn words(&self) -> &'static Words {
        &WORDS
    }

    async fn delete(&self, bucket: &Bucket, key: &str) -> Result<(), StoreError> {
        let path = bucket.path(key)?;
        persist(|| async { self.remover.remove(&path).await.map_err(|error| bucket.error(key, error)) }).await
    }
}

/// The codes of error responses: <https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes> and
/// <https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes>.
const WORDS: Words = Words {
    meaning,
    no_credentials: "neither in the environment (AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN, AZURE_CLIENT_ID, …) nor a credentials \
                     file nor from this machine's managed identity",
    metadata: &["169.254.", "/metadata/identity/"],
};

fn meaning(code: &str) -> Option<Meaning> {
    Some(match code {
        "ContainerNotFound" | "ContainerBeingDeleted" | "ContainerDisabled" => Meaning::NoRoot,
        "BlobNotFound" | "ResourceNotFound" => Meaning::NotFound,
        "BlobAlreadyExists" => Meaning::Exists,
        "ConditionNotMet" | "TargetConditionNotMet" => Meaning::Precondition,
        "InvalidRange" => Meaning::Corrupt,
        "AuthenticationFailed" | "InvalidAuthenticationInfo" => {
            Meaning::Denied("; is the key or the token right, and this machine's clock?")
        }
        "AuthorizationFailure"
        | "AuthorizationPermissionMismatch"
        | "AuthorizationProtocolMismatch"
        | "AuthorizationResourceTypeMismatch"
        | "AuthorizationServiceMismatch"
        | "AuthorizationSourceIPMismatch"
        | "InsufficientAccountPermissions"
        | "AccountIsDisabled"
        | "KeyBasedAuthenticationNotPermitted"
        | "NoAuthenticationInformation"
        | "PublicAccessNotPermitted"
        | "UnauthorizedBlobOverwrite" => Meaning::Denied(""),
        // A policy, a legal hold or somebody's lease on the blob forbid it, whoever asks.
        "BlobImmutableDueToPolicy"
        | "BlobImmutableDueToLegalHold"
        | "BlobNotDeletableDueToImmutabilityPolicy"
        | "LeaseIdMissing"
        | "LeaseIdMismatchWithBlobOperation" => Meaning::Denied(""),
        "AccountQuotaExceeded" | "RequestBodyTooLarge" => Meaning::Full,
        "ServerBusy" | "OperationTimedOut" | "InternalError" => Meaning::Unreachable,
        _ => return None,
    })
}

fn clients(container: &str, options: &StoreOptions) -> Result<(Clients, Remover), String> {
    let file = match &options.credentials_file {
        None => None,
        Some(path) => Some((path, read_small(path)?)),
    };
    let in_file = |detail: String| match &file {
        Some((path, _)) => format!("{}: {detail}", path.display()),
        None => detail,
    };
    let settings = Settings::gather(file.as_ref().map(|(_, text)| text.as_str()), options.endpoint.as_deref()).map_err(in_file)?;
    let endpoint = settings.endpoint.as_str();
    // A key only signs; these are themselves the secret.
    let shown = matches!(settings.credential, Credential::Sas(_) | Credential::Token(_));
    if shown && is_plain(endpoint) && !is_loopback(endpoint) {
        return Err(format!("a token is not sent over plain HTTP ({endpoint}); name an https:// endpoint"));
    }
    let mut builder = MicrosoftAzureBuilder::new()
        .with_account(&settings.account)
        .with_container_name(container)
        .with_endpoint(settings.endpoint.clone());
    builder = match &settings.credential {
        Credential::Key(key) => builder.with_access_key(key),
        Credential::Sas(token) => builder.with_config(AzureConfigKey::SasKey, token),
        Credential::Token(keys) => keys.iter().fold(builder, |builder, (key, value)| builder.with_config(*key, value)),
    };
    let transport = Transport::new(Some(endpoint), options.ca_file.as_deref())?;
    let mut shared = None;
    let clients = Clients::new(&transport, |options, retry| {
        let mut builder = builder.clone().with_client_options(options).with_retry(retry);
        if let Some(credentials) = &shared {
            builder = builder.with_credentials(Arc::clone(credentials));
        }
        let client = builder.build().map_err(|error| in_file(explain(&error)))?;
        // One token for all three clients, fetched with the times of small requests.
        shared.get_or_insert_with(|| Arc::clone(client.credentials()));
        Ok(client)
    })?;
    let credentials = shared.ok_or("no client was made")?;
    Ok((clients, Remover::new(&transport, &settings, container, credentials)?))
}

/// The builder's own words, which say nothing of the secret but where it is wrong.
fn explain(error: &object_store::Error) -> String {
    let text = error.to_string();
    if text.contains("Invalid Access Key") { "the account key is not base64; is it whole?".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::object::error::tests::{generic, map_with};
    use super::*;

    #[test]
    fn codes_decide() {
        let xml = |code: &str| {
            format!("409 Conflict: <?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>words\nRequestId:1\nTime:2</Message></Error>")
        };
        let of = |code: &str| map_with(&WORDS, generic(&xml(code)));
        assert!(matches!(of("ContainerNotFound"), StoreError::NoRoot { .. }));
        assert!(matches!(of("BlobAlreadyExists"), StoreError::AlreadyExists { .. }));
        for locked in ["BlobImmutableDueToPolicy", "LeaseIdMissing", "AuthorizationPermissionMismatch"] {
            assert!(matches!(of(locked), StoreError::Denied { detail, .. } if detail == format!("{locked}: words")));
        }
        // The library takes every 409 for "already exists".
        let conflict = object_store::Error::AlreadyExists { path: "p".to_owned(), source: xml("BlobImmutableDueToPolicy").into() };
        assert!(matches!(map_with(&WORDS, conflict), StoreError::Denied { .. }));
        assert!(matches!(of("ServerBusy"), StoreError::Unreachable { .. }));
        let nothing = map_with(&WORDS, generic("connect http://169.254.169.254/metadata/identity/oauth2/token"));
        assert!(nothing.to_string().contains("AZURE_STORAGE_ACCOUNT_KEY"), "{nothing}");
    }

    #[test]
    fn secrets_stay_out_of_errors_and_debug() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place { scheme: "az", bucket: "container", prefix: "p" };
        let with = |text: &str, endpoint: Option<&str>| {
            let path = dir.path().join("azure.env");
            std::fs::write(&path, text).unwrap();
            let options = StoreOptions { credentials_file: Some(path), endpoint: endpoint.map(str::to_owned), ..StoreOptions::default() };
            open(&place, &options).map(|store| format!("{store:?}")).map_err(|error| error.to_string())
        };
        let account = "AZURE_STORAGE_ACCOUNT_NAME=acme\n";
        let good = with(&format!("{account}AZURE_STORAGE_ACCOUNT_KEY=aHVudGVyMg=="), None).unwrap();
        assert_eq!(good, "BucketStore { root: \"az://container/p\", .. }");
        let bad = with(&format!("{account}AZURE_STORAGE_ACCOUNT_KEY=hunter2!"), None).unwrap_err();
        assert!(bad.contains("not base64") && !bad.contains("hunter2"), "{bad}");
        let sas = format!("{account}AZURE_STORAGE_SAS_TOKEN=sv=1&sig=hunter2");
        let plain = with(&sas, Some("http://storage.example/acme")).unwrap_err();
        assert!(plain.contains("plain HTTP") && !plain.contains("hunter2"), "{plain}");
        assert!(with(&sas, Some("http://127.0.0.1:10000/acme")).is_ok());
    }
}
