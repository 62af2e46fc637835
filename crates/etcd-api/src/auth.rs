//! The token of etcd's own authentication: fetched once, renewed once per failure, by one task at a time.

use secrecy::ExposeSecret;
use tokio::sync::Mutex;
use tonic::Status;
use tonic::metadata::{Ascii, MetadataValue};

use crate::options::Credentials;
use crate::pb;

/// A token with the count of fetches that made it, so that of many callers who find it stale only one renews it.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    generation: u64,
    value: Option<MetadataValue<Ascii>>,
}

impl Token {
    /// The metadata to send; `None` on a cluster without authentication.
    pub(crate) fn metadata(&self) -> Option<MetadataValue<Ascii>> {
        self.value.clone()
    }
}

/// The credentials and the newest token.
#[derive(Debug)]
pub(crate) struct Auth {
    credentials: Credentials,
    newest: Mutex<Option<Token>>,
}

impl Auth {
    pub(crate) fn new(credentials: Credentials) -> Self {
        Self { credentials, newest: Mutex::new(None) }
    }

    /// The newest token; a new one if there is none, or if the newest is still `stale`.
    ///
    /// The lock is held across the call to etcd: the others wait for this one's token instead of fetching their own.
    pub(crate) async fn token<F, Fut>(&self, stale: Option<&Token>, fetch: F) -> Result<Token, Status>
    where
        F: FnOnce(pb::AuthenticateRequest) -> Fut,
        Fut: Future<Output = Result<pb::AuthenticateResponse, Status>>,
    {
        let mut newest = self.newest.lock().await;
        let generation = newest.as_ref().map_or(0, |token| token.generation);
        match newest.as_ref() {
            Some(token) if stale.is_none_or(|stale| stale.generation != generation) => return Ok(token.clone()),
            _ => {}
        }
        let request =
            pb::AuthenticateRequest { name: self.credentials.user.clone(), password: self.credentials.password.expose_secret().to_owned() };
        let value = match fetch(request).await {
            Ok(response) => Some(metadata(&response.token)?),
            // As etcd's own client: credentials for a cluster that has authentication off are no error.
            Err(status) if status.message().contains("authentication is not enabled") => None,
            Err(status) => return Err(status),
        };
        let token = Token { generation: generation.wrapping_add(1), value };
        *newest = Some(token.clone());
        Ok(token)
    }
}

fn metadata(token: &str) -> Result<MetadataValue<Ascii>, Status> {
    let mut value = MetadataValue::try_from(token).map_err(|_| Status::internal("protocol error: the token is no ASCII text"))?;
    value.set_sensitive(true);
    Ok(value)
}
