//! apid: TLS, who is asking, and which node is meant.
//!
//! Source: reference Talos `internal/app/apid/pkg/director/director.go`, `internal/app/apid/pkg/backend/apid.go`,
//! `internal/app/apid/service.go`.

mod merge;
mod tls;

use std::sync::Arc;

use bytes::Bytes;
use grpc_link::testing::{Encoder, Failure, Gone, Messages, Order, Sink};
use h2::RecvStream;
use http::Request;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::machined::{self, Ending, Incoming, Out, rules};
use crate::message::{self, code};
use crate::network::APID;
use crate::world::{Call, Kind, World};

/// Messages between a node and whoever passes them on.
const QUEUE: usize = 64;

/// Opens a node's listeners and serves them in the background.
pub(crate) async fn listen(world: &Arc<World>, node: usize) {
    let acceptor = tls::acceptor(world, node);
    let holder = world.virtual_ip.filter(|_| node == 0);
    for ip in [Some(world.nodes[node].ip), holder].into_iter().flatten() {
        let listener = TcpListener::bind((ip, APID)).await.unwrap();
        let (world, acceptor) = (Arc::clone(world), acceptor.clone());
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(connection(socket, acceptor.clone(), Arc::clone(&world), node));
                while connections.try_join_next().is_some() {}
            }
        });
    }
}

async fn connection(socket: TcpStream, acceptor: tokio_rustls::TlsAcceptor, world: Arc<World>, node: usize) {
    let mut up = world.nodes[node].up.subscribe();
    if !*up.borrow_and_update() {
        return;
    }
    socket.set_nodelay(true).unwrap_or_default();
    let Ok(stream) = acceptor.accept(socket).await else { return };
    let Some(caller) = tls::caller(&stream) else { return };
    let caller = Arc::new(caller);
    let served = grpc_link::testing::serve(stream, |request, sink| {
        let (world, roles) = (Arc::clone(&world), Arc::clone(&caller));
        async move { call(world, node, roles, request, sink).await }
    });
    tokio::select! {
        () = served => {}
        // A node that goes down takes its connections with it.
        _ = up.wait_for(|up| !up) => {}
    }
}

/// What a request's metadata asks for.
struct Route {
    node: Vec<String>,
    nodes: Vec<String>,
    runtime: Option<String>,
    /// Whether another apid has passed it on, or the caller says so.
    passed_on: bool,
}

impl Route {
    fn of(request: &Request<RecvStream>) -> Self {
        let all = |name: &str| -> Vec<String> {
            request.headers().get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
        };
        let passed_on = request.headers().contains_key("proxyfrom");
        Self { node: all("node"), nodes: all("nodes"), runtime: all("runtime").pop(), passed_on }
    }
}

/// Where a call goes.
enum Target {
    /// To one node, everything transparent.
    One(Result<usize, Failure>),
    /// To several, merged: the target as it was given, and the node it is.
    Many(Vec<(String, Result<usize, Failure>)>),
}

async fn call(world: Arc<World>, endpoint: usize, roles: Arc<Vec<String>>, request: Request<RecvStream>, mut sink: Sink) {
    let path = request.uri().path().to_owned();
    let route = Route::of(&request);
    let target = direct(&world, endpoint, &path, &route);
    let mut messages = Messages::new(request.into_body());
    let called = |node: usize| Call {
        name: path.rsplit('/').next().unwrap_or_default().to_owned(),
        endpoint,
        node,
        roles: roles.to_vec(),
        node_metadata: route.node.clone(),
        nodes_metadata: route.nodes.clone(),
        runtime: route.runtime.clone(),
    };
    // Whoever has gone needs no answer.
    let _gone = match target {
        Err(failure) | Ok(Target::One(Err(failure))) => sink.finish(Some(&failure), false),
        Ok(Target::One(Ok(node))) => {
            let incoming = if rules::takes_stream(&path) {
                Incoming::Stream(messages)
            } else {
                Incoming::One(messages.next().await.unwrap_or_default())
            };
            pass(&world, &path, called(node), incoming, &mut sink).await
        }
        Ok(Target::Many(targets)) => {
            let message = messages.next().await.unwrap_or_default();
            let targets = targets.into_iter().map(|(name, node)| (name, node.map(&called))).collect();
            merge::many(&world, &path, targets, message, &mut sink).await
        }
    };
}

/// Where the metadata send a call: `node` to one, `nodes` to many, neither to the node that was dialled.
fn direct(world: &World, endpoint: usize, path: &str, route: &Route) -> Result<Target, Failure> {
    if route.passed_on {
        return Ok(Target::One(Ok(endpoint)));
    }
    if route.node.len() > 1 {
        return Err(Failure::new(code::INVALID_ARGUMENT, "node metadata must be single-valued"));
    }
    let forwards = world.nodes[endpoint].kind == Kind::ControlPlane;
    let itself = |target: &String| world.find(target).is_some_and(|node| node.index == endpoint);
    let no_forwarding = || Failure::new(code::PERMISSION_DENIED, "no request forwarding");
    if !route.nodes.is_empty() {
        if !forwards && route.nodes.len() == 1 && route.nodes.iter().all(itself) {
            return Ok(Target::One(Ok(endpoint)));
        }
        if !rules::can_be_merged(path) {
            return Err(Failure::new(code::INVALID_ARGUMENT, format!("one-2-many proxying is not supported for method {path}")));
        }
        if !forwards {
            return Err(no_forwarding());
        }
        let find = |target: &String| Ok((target.clone(), second_hop(world, target)?));
        return Ok(Target::Many(route.nodes.iter().map(find).collect::<Result<_, Failure>>()?));
    }
    match route.node.first() {
        None => Ok(Target::One(Ok(endpoint))),
        Some(target) if !forwards && itself(target) => Ok(Target::One(Ok(endpoint))),
        Some(_) if !forwards => Err(no_forwarding()),
        Some(target) => Ok(Target::One(second_hop(world, target)?)),
    }
}

/// The node a target is; the outer error is of the target itself, the inner one of reaching it.
fn second_hop(world: &World, target: &str) -> Result<Result<usize, Failure>, Failure> {
    let ported = target.parse::<std::net::IpAddr>().is_err() && target.contains(':');
    if target.is_empty() || ported {
        return Err(Failure::new(code::INTERNAL, format!("invalid target \"{target}\"")));
    }
    let unreachable = |fact: &str| {
        let text = format!("connection error: desc = \"transport: Error while dialing: dial tcp {target}:{APID}: connect: {fact}\"");
        Failure::new(code::UNAVAILABLE, text)
    };
    Ok(match world.find(target) {
        Some(node) if node.is_up() => Ok(node.index),
        Some(_) => Err(unreachable("connection refused")),
        None => Err(unreachable("no route to host")),
    })
}

/// Passes one node's answer on as it is.
async fn pass(world: &Arc<World>, path: &str, call: Call, incoming: Incoming, sink: &mut Sink) -> Result<(), Gone> {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(QUEUE);
    let work = machined::serve(Arc::clone(world), path.to_owned(), call, incoming, Out::new(sender));
    let work = tokio::spawn(work);
    loop {
        // Whoever goes is noticed also while there is nothing to say. Work that is under way goes on.
        let message = tokio::select! {
            message = receiver.recv() => message,
            () = sink.cancelled() => return Err(Gone),
        };
        let Some(message) = message else { break };
        sink.raw(&message).await?;
    }
    let ending = work.await.unwrap_or_else(|error| Ending::Fail(Failure::new(code::INTERNAL, error.to_string())));
    finish(sink, ending).await
}

async fn finish(sink: &mut Sink, ending: Ending) -> Result<(), Gone> {
    match ending {
        Ending::Ok => sink.finish(None, false),
        Ending::Fail(failure) => sink.finish(Some(&failure), false),
        Ending::Disconnect => {
            sink.order(Order::Cut);
            Ok(())
        }
        Ending::Hang => {
            sink.headers()?;
            sink.cancelled().await;
            Ok(())
        }
    }
}

/// What apid appends to a message of a merged answer.
fn appended(target: &str, failure: Option<&Failure>) -> Encoder {
    message::appended(target, failure.map(|failure| (failure.code, failure.message.as_str())))
}
