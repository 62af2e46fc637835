//! Removing one blob. `object_store` removes by batches alone, whose answers do not tell why a blob stays: the code that says so ("immutable due
//! to policy") is dropped there. So this sends the plain request (<https://learn.microsoft.com/rest/api/storageservices/delete-blob>).

use futures::StreamExt;
use object_store::azure::{AzureAuthorizer, AzureCredentialProvider};
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpRequestBody, HttpResponse, ReqwestConnector};
use object_store::path::Path;
use object_store::{Error, Result};

use super::super::object::client::Transport;
use super::super::object::error::STATUS;
use super::credentials::Settings;

/// How much of the body of an error is read, in bytes.
const MAX_BODY: usize = 16 << 10;

const STORE: &str = "MicrosoftAzure";

pub(super) struct Remover {
    client: HttpClient,
    credentials: AzureCredentialProvider,
    account: String,
    /// The container's URL.
    container: url::Url,
}

impl Remover {
    /// # Errors
    /// An endpoint that is no URL, or no HTTP client; in words.
    pub(super) fn new(
        transport: &Transport,
        settings: &Settings,
        container: &str,
        credentials: AzureCredentialProvider,
    ) -> std::result::Result<Self, String> {
        let mut url = url::Url::parse(&settings.endpoint).map_err(|error| error.to_string())?;
        url.path_segments_mut().map_err(|()| "the endpoint is no URL with a path")?.pop_if_empty().push(container);
        let client = ReqwestConnector::default().connect(&transport.small()).map_err(|error| error.to_string())?;
        Ok(Self { client, credentials, account: settings.account.clone(), container: url })
    }

    /// Removes the blob; snapshots of it, which are not ours, keep it.
    pub(super) async fn remove(&self, path: &Path) -> Result<()> {
        let mut url = self.container.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path.parts());
        }
        let request = http::Request::delete(url.as_str()).header(http::header::CONTENT_LENGTH, 0).body(HttpRequestBody::empty());
        let mut request: HttpRequest = request.map_err(|error| generic(error.into()))?;
        let credential = self.credentials.get_credential().await?;
        AzureAuthorizer::new(&credential, &self.account).try_authorize(&mut request)?;
        let answer = self.client.execute(request).await.map_err(|error| generic(error.into()))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let body = beginning(answer).await.map_err(|error| generic(error.into()))?;
        // In the form that the errors of all other requests have.
        let source = format!("{STATUS}{status}: {body}").into();
        Err(match status.as_u16() {
            404 => Error::NotFound { path: path.to_string(), source },
            401 => Error::Unauthenticated { path: path.to_string(), source },
            403 => Error::PermissionDenied { path: path.to_string(), source },
            _ => generic(source),
        })
    }
}

fn generic(source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::Generic { store: STORE, source }
}

/// The beginning of an answer's body as text.
async fn beginning(answer: HttpResponse) -> std::result::Result<String, HttpError> {
    let mut pieces = answer.into_body().bytes_stream();
    let mut body = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        body.extend_from_slice(&piece[..piece.len().min(MAX_BODY - body.len())]);
        if body.len() >= MAX_BODY {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}
