//! Making a call: which endpoint, what goes with it, when to try another, and what came of it.

use std::time::Duration;

use grpc_link::{DEADLINE_GRACE, LinkFault};
use http::uri::PathAndQuery;
use prost::Message;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::Node;
use super::link::Link;
use super::method::Method;
use crate::error::{Error, ErrorKind};
use crate::limits::MESSAGE_MAX;
use crate::node::Endpoint;
use crate::pb;
use crate::status::Asked;

/// An answer of the shape that every unary call of Talos' own services has.
pub(super) trait Merged: Message + Default + 'static {
    /// One node's part.
    type One;

    fn messages(self) -> Vec<Self::One>;

    fn metadata(one: &Self::One) -> Option<&pb::Metadata>;
}

macro_rules! merged {
    ($($answer:ident of $one:ident),+ $(,)?) => {
        $(impl Merged for pb::$answer {
            type One = pb::$one;

            fn messages(self) -> Vec<Self::One> {
                self.messages
            }

            fn metadata(one: &Self::One) -> Option<&pb::Metadata> {
                one.metadata.as_ref()
            }
        })+
    };
}

merged! {
    VersionResponse of Version, HostnameResponse of Hostname, MemoryResponse of Memory, MountsResponse of Mounts,
    ServiceListResponse of ServiceList, BootstrapResponse of Bootstrap, ResetResponse of Reset, RebootResponse of Reboot,
    EtcdMemberListResponse of EtcdMembers, EtcdStatusResponse of EtcdStatus, EtcdAlarmResponse of EtcdAlarm,
    EtcdDefragmentResponse of EtcdDefragment, EtcdLeaveClusterResponse of EtcdLeaveCluster,
    EtcdRemoveMemberByIdResponse of EtcdRemoveMemberById, EtcdForfeitLeadershipResponse of EtcdForfeitLeadership,
    EtcdRecoverResponse of EtcdRecover,
}

/// Which endpoint a stream came through, to name it and to type what happens to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Via(usize);

impl Node {
    /// One unary call of Talos' own services under the default time limit.
    pub(super) async fn call<Q, A>(&self, method: &'static Method, request: Q) -> Result<A::One, Error>
    where
        Q: Message + Clone + 'static,
        A: Merged,
    {
        self.call_within::<Q, A>(method, request, self.client.shared.options.request_timeout).await
    }

    /// One unary call of Talos' own services: exactly one message comes back, and no error in its metadata.
    pub(super) async fn call_within<Q, A>(&self, method: &'static Method, request: Q, limit: Duration) -> Result<A::One, Error>
    where
        Q: Message + Clone + 'static,
        A: Merged,
    {
        let (via, answer) = self.unary::<Q, A>(method, request, limit).await?;
        let mut messages = answer.messages();
        let one = match (messages.pop(), messages.is_empty()) {
            (Some(one), true) => one,
            (None, _) => return Err(self.error(method, Some(via), ErrorKind::Protocol("an answer without a message".to_owned()))),
            (Some(_), false) => {
                let fact = format!("{} answers from one node", messages.len() + 1);
                return Err(self.error(method, Some(via), ErrorKind::Protocol(fact)));
            }
        };
        match self.asked(method, limit).in_metadata(A::metadata(&one)) {
            Some(kind) => Err(self.error(method, Some(via), kind)),
            None => Ok(one),
        }
    }

    /// One unary call of any service.
    pub(super) async fn unary<Q, A>(&self, method: &'static Method, request: Q, limit: Duration) -> Result<(Via, A), Error>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        self.through(method, limit, |channel| {
            let mut message = self.request(request.clone());
            // Told to the server as well, so that it stops working for a caller who has gone.
            message.set_timeout(limit + DEADLINE_GRACE);
            async move {
                let mut grpc = grpc(channel);
                grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
                let answer = grpc.unary(message, PathAndQuery::from_static(method.path), ProstCodec::<Q, A>::default()).await?;
                Ok(answer.into_inner())
            }
        })
        .await
    }

    /// Opens a stream of answers and waits for its first message, which is where a refusal shows. `limit` is for that.
    pub(crate) async fn open<Q, A>(
        &self,
        method: &'static Method,
        request: Q,
        limit: Duration,
    ) -> Result<(Via, Streaming<A>, Option<A>), Error>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let opened = self.through(method, limit, |channel| {
            let message = self.request(request.clone());
            async move {
                let mut grpc = grpc(channel);
                grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
                let path = PathAndQuery::from_static(method.path);
                let mut stream = grpc.server_streaming(message, path, ProstCodec::<Q, A>::default()).await?.into_inner();
                let first = stream.message().await?;
                Ok((stream, first))
            }
        });
        let (via, (stream, first)) = opened.await?;
        Ok((via, stream, first))
    }

    /// Runs `attempt` at one endpoint after the other, until one answers or repeating could do harm.
    pub(super) async fn through<T, F, Fut>(&self, method: &'static Method, limit: Duration, mut attempt: F) -> Result<(Via, T), Error>
    where
        F: FnMut(Channel) -> Fut,
        Fut: Future<Output = Result<T, Status>>,
    {
        let order = match self.only {
            Some(index) => vec![index],
            None => self.client.order(self.name.as_ref()),
        };
        let mut unreachable = Vec::new();
        let mut forwarding_refused = None;
        for index in order {
            let Some(link) = self.client.shared.links.get(index) else { continue };
            let channel = match link.channel().await {
                Ok(channel) => channel,
                Err(fault) => {
                    note(method, link.endpoint(), &fault);
                    unreachable.push((link.endpoint().clone(), fault));
                    continue;
                }
            };
            match self.attempt_at(link, method, limit, attempt(channel)).await {
                Ok(answer) => {
                    self.client.worked(index);
                    return Ok((Via(index), answer));
                }
                Err(ErrorKind::Link(fault)) if another_may_help(&fault, method) => {
                    note(method, link.endpoint(), &fault);
                    unreachable.push((link.endpoint().clone(), fault));
                }
                Err(ErrorKind::NoForwarding) => forwarding_refused = Some(index),
                Err(kind) => return Err(self.error(method, Some(Via(index)), kind)),
            }
        }
        Err(match (forwarding_refused, unreachable.len()) {
            // A worker that answers says more than control plane nodes that do not.
            (Some(index), 0) => self.error(method, Some(Via(index)), ErrorKind::NoForwarding),
            (None, 1) => {
                let (endpoint, fault) = unreachable.remove(0);
                Error::new(method.name, self.name.as_ref(), Some(&endpoint), fault)
            }
            _ => self.error(method, None, ErrorKind::NoEndpoint(unreachable)),
        })
    }

    async fn attempt_at<T>(
        &self,
        link: &Link,
        method: &'static Method,
        limit: Duration,
        attempt: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, ErrorKind> {
        match timeout(limit, attempt).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(status)) => Err(self.asked(method, limit).classify(&status, link.fate())),
            Err(_) => Err(ErrorKind::Timeout(limit)),
        }
    }

    pub(super) fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        *request.metadata_mut() = self.client.metadata(self.name.as_ref());
        request
    }

    pub(crate) fn asked(&self, method: &'static Method, limit: Duration) -> Asked<'_> {
        Asked { method, limit, roles: &self.client.shared.roles }
    }

    /// Types a status that a stream ended with.
    pub(crate) fn classify(&self, method: &'static Method, via: Via, limit: Duration, status: &Status) -> ErrorKind {
        match self.client.shared.links.get(via.0) {
            Some(link) => self.asked(method, limit).classify(status, link.fate()),
            None => self.asked(method, limit).classify(status, &grpc_link::Fate::default()),
        }
    }

    pub(crate) fn error(&self, method: &'static Method, via: Option<Via>, kind: impl Into<ErrorKind>) -> Error {
        let endpoint = via.and_then(|Via(index)| self.client.shared.links.get(index)).map(Link::endpoint);
        Error::new(method.name, self.name.as_ref(), endpoint, kind)
    }

    pub(super) fn request_timeout(&self) -> Duration {
        self.client.shared.options.request_timeout
    }
}

pub(super) fn grpc(channel: Channel) -> Grpc<Channel> {
    Grpc::new(channel).max_decoding_message_size(MESSAGE_MAX)
}

/// Whether another endpoint may be asked: the call certainly went nowhere, or it only reads.
fn another_may_help(fault: &LinkFault, method: &Method) -> bool {
    match fault {
        LinkFault::Material(_) => false,
        LinkFault::ConnectionLost(_) => method.reads,
        _ => true,
    }
}

fn note(method: &Method, endpoint: &Endpoint, fault: &LinkFault) {
    tracing::debug!(%endpoint, call = method.name, %fault, "the endpoint cannot be used");
}
