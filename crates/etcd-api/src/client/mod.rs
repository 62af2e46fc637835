//! One member of a cluster, spoken to over one HTTP/2 connection.

mod access;
mod cluster;
mod kv;
mod lease;
mod maintenance;
pub(crate) mod method;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use grpc_link::{DEADLINE_GRACE, Fate};
use http::uri::PathAndQuery;
use prost::Message;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use self::method::Method;
use crate::auth::{Auth, Token};
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind};
use crate::options::ConnectOptions;
use crate::snapshot::{SnapshotLimits, SnapshotStream};
use crate::watch::{WatchRequest, WatchStream};
use crate::{pb, status};

/// Exactly one member. Cloning is cheap; clones share the connection and the token.
///
/// The connection is made by [`Client::connect`] and made anew, on the next call, after it broke.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: Endpoint,
    channel: Channel,
    fate: Fate,
    auth: Option<Auth>,
    request_timeout: Duration,
}

impl Client {
    /// Connects to a member: TCP, and for https the TLS handshake.
    ///
    /// With TLS 1.3 a server that refuses our client certificate says so only after the handshake, so that
    /// [`LinkFault::TlsClientCertificate`](grpc_link::LinkFault::TlsClientCertificate) may come from the first call instead. No call is made here.
    ///
    /// # Errors
    /// [`LinkFault::Material`](grpc_link::LinkFault::Material) for unusable certificates; the kinds of class
    /// [`Unreachable`](crate::ErrorClass::Unreachable) when no connection comes about within the dial time-out.
    pub async fn connect(endpoint: Endpoint, options: &ConnectOptions) -> Result<Self, Error> {
        let fate = Fate::default();
        let connected = grpc_link::connect(endpoint.address(), options.tls.as_ref(), &options.channel(), &fate).await;
        let channel = connected.map_err(|fault| Error::new(&endpoint, None, fault))?;
        let auth = options.credentials.clone().map(Auth::new);
        Ok(Self { shared: Arc::new(Shared { endpoint, channel, fate, auth, request_timeout: options.request_timeout }) })
    }

    /// The member's address.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// Until when the certificate is valid that this member showed last. `None` without TLS.
    #[must_use]
    pub fn server_certificate_ends(&self) -> Option<std::time::SystemTime> {
        self.shared.fate.certificate_ends()
    }

    /// Opens a snapshot of this member's database and reads the first message.
    ///
    /// The data point is what this member had applied when the stream began: not linearizable, so a lagging member gives
    /// an old snapshot. Needs the role `root` where authentication is on.
    ///
    /// # Errors
    /// As [`SnapshotStream::next`].
    pub async fn snapshot(&self, limits: SnapshotLimits) -> Result<SnapshotStream, Error> {
        SnapshotStream::open(self, limits).await
    }

    /// Starts a watch and waits until the member has confirmed it.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] and [`ErrorKind::Unauthenticated`] as for any call. A start below the compacted
    /// revision is confirmed first and shows up as [`ErrorKind::Compacted`] from [`WatchStream::next`].
    pub async fn watch(&self, request: WatchRequest) -> Result<WatchStream, Error> {
        WatchStream::open(self, request).await
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.shared.request_timeout
    }

    pub(crate) fn error(&self, method: &Method, kind: impl Into<ErrorKind>) -> Error {
        Error::new(&self.shared.endpoint, Some(method.name), kind)
    }

    pub(crate) fn classify(&self, status: &Status, limit: Duration) -> ErrorKind {
        status::classify(status, limit, &self.shared.fate)
    }

    /// One unary call under the default time limit.
    async fn call<Q, A>(&self, method: &'static Method, request: Q) -> Result<A, Error>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        self.call_within(method, request, self.shared.request_timeout).await
    }

    /// One unary call, repeated once with a new token when the first answer says that the token is stale.
    async fn call_within<Q, A>(&self, method: &'static Method, request: Q, limit: Duration) -> Result<A, Error>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        self.with_token(method, limit, |token| self.attempt(method, request.clone(), token, limit)).await
    }

    /// Runs `attempt` with the current token, and once more with a new one if that may cure its error.
    pub(crate) async fn with_token<T, F, Fut>(&self, method: &'static Method, limit: Duration, mut attempt: F) -> Result<T, Error>
    where
        F: FnMut(Option<Token>) -> Fut,
        Fut: Future<Output = Result<T, Status>>,
    {
        let token = self.token(None).await?;
        let status = match attempt(token.clone()).await {
            Ok(answer) => return Ok(answer),
            Err(status) => status,
        };
        let status = match token {
            Some(stale) if status::cured_by_new_token(status.message()) => {
                tracing::debug!(endpoint = %self.shared.endpoint, call = method.name, "renewing the token");
                let fresh = self.token(Some(&stale)).await?;
                match attempt(fresh).await {
                    Ok(answer) => return Ok(answer),
                    Err(status) => status,
                }
            }
            _ => status,
        };
        Err(self.error(method, self.classify(&status, limit)))
    }

    async fn token(&self, stale: Option<&Token>) -> Result<Option<Token>, Error> {
        let Some(auth) = &self.shared.auth else {
            return Ok(None);
        };
        let limit = self.shared.request_timeout;
        let fetched = auth.token(stale, |request| self.attempt(&method::AUTHENTICATE, request, None, limit)).await;
        match fetched {
            Ok(token) => Ok(Some(token)),
            Err(status) => Err(self.error(&method::AUTHENTICATE, self.classify(&status, limit))),
        }
    }

    async fn attempt<Q, A>(&self, method: &'static Method, message: Q, token: Option<Token>, limit: Duration) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut request = with_metadata(message, token);
        // Told to the server as well, so that it stops working for a caller who has gone; a little later than our own end, because a server whose
        // time is over resets the stream, which would look like a lost connection if that came first.
        request.set_timeout(limit + DEADLINE_GRACE);
        let mut grpc = self.grpc(method.answer_max);
        let call = async {
            grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
            let path = PathAndQuery::from_static(method.path);
            grpc.unary(request, path, ProstCodec::<Q, A>::default()).await
        };
        match timeout(limit, call).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded("no answer in time")),
        }
    }

    pub(crate) async fn open_snapshot(&self, decode_limit: usize, token: Option<Token>) -> Result<Streaming<pb::SnapshotResponse>, Status> {
        let mut grpc = self.grpc(decode_limit);
        grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
        let request = with_metadata(pb::SnapshotRequest {}, token);
        let path = PathAndQuery::from_static(method::SNAPSHOT.path);
        let response = grpc.server_streaming(request, path, ProstCodec::default()).await?;
        Ok(response.into_inner())
    }

    pub(crate) async fn open_watch(
        &self,
        requests: tokio_stream::wrappers::ReceiverStream<pb::WatchRequest>,
        require_leader: bool,
        token: Option<Token>,
    ) -> Result<Streaming<pb::WatchResponse>, Status> {
        let mut grpc = self.grpc(method::WATCH.answer_max);
        grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
        let mut request = with_metadata(requests, token);
        if require_leader {
            request.metadata_mut().insert("hasleader", tonic::metadata::MetadataValue::from_static("true"));
        }
        let path = PathAndQuery::from_static(method::WATCH.path);
        let response = grpc.streaming(request, path, ProstCodec::default()).await?;
        Ok(response.into_inner())
    }

    fn grpc(&self, answer_max: usize) -> Grpc<Channel> {
        Grpc::new(self.shared.channel.clone()).max_decoding_message_size(answer_max)
    }
}

fn with_metadata<M>(message: M, token: Option<Token>) -> Request<M> {
    let mut request = Request::new(message);
    if let Some(value) = token.and_then(|token| token.metadata()) {
        request.metadata_mut().insert("token", value);
    }
    request
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("endpoint", &self.shared.endpoint).finish_non_exhaustive()
    }
}
