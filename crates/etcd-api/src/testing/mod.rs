//! A double of an etcd member that misbehaves on command, for end-to-end tests.
//!
//! It speaks real gRPC over real sockets and encodes every message by hand: it shares no generated type and no gRPC
//! library with the client it tests, so that a wrong field number cannot cancel itself out. It answers Status, MemberList,
//! Range, Put, HashKV, Alarm, Authenticate, Watch and Snapshot from a [`Script`] that can be changed while it runs; the
//! Snapshot call follows a [`Behaviour`]. It listens on 127.0.0.1 on a port of the system's choice and stops when dropped.

mod answers;
mod script;
mod snapshot;
mod state;
mod watch;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use grpc_link::testing::{Encoder, Failure};
use grpc_link::testing::{Fields, Gone, Messages, Sink};
use h2::RecvStream;
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

pub use self::script::{Behaviour, Script, ScriptHash, ScriptMember, WatchStep};
use self::snapshot::Ending;
pub use self::state::Call;
use self::state::State;
pub use self::watch::{ScriptEvent, WatchAnswer};

/// A running double.
pub struct MisbehavingEtcd {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    address: SocketAddr,
    endpoint: String,
    tls: Option<TlsAcceptor>,
    state: Mutex<State>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MisbehavingEtcd {
    /// Starts a double that speaks plain HTTP/2. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When no socket can be opened.
    pub async fn start(behaviour: Behaviour, script: Script) -> io::Result<Self> {
        Self::launch(behaviour, script, None).await
    }

    /// Starts a double that speaks TLS. The configuration decides about certificates; it should offer `h2` by ALPN.
    ///
    /// # Errors
    /// When no socket can be opened.
    pub async fn start_tls(behaviour: Behaviour, script: Script, tls: Arc<rustls::ServerConfig>) -> io::Result<Self> {
        Self::launch(behaviour, script, Some(TlsAcceptor::from(tls))).await
    }

    async fn launch(behaviour: Behaviour, script: Script, tls: Option<TlsAcceptor>) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared =
            Arc::new(Shared { address, endpoint: format!("{scheme}://{address}"), tls, state: Mutex::new(State::new(behaviour, script)) });
        let task = tokio::spawn(listen(listener, Arc::clone(&shared)));
        Ok(Self { shared, task })
    }

    /// Its address, like `http://127.0.0.1:40123`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.shared.endpoint
    }

    /// Its socket address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Changes how later Snapshot calls go.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        self.shared.state().behaviour = behaviour;
    }

    /// Changes what later calls are told.
    pub fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.shared.state().script);
    }

    /// Makes every token issued so far invalid.
    pub fn expire_tokens(&self) {
        self.shared.state().expire_tokens();
    }

    /// Every call so far, in order of arrival.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.shared.state().calls.clone()
    }

    /// How often a call was made, by etcd's name for it.
    #[must_use]
    pub fn count(&self, name: &str) -> usize {
        self.shared.state().calls.iter().filter(|call| call.name == name).count()
    }

    /// How many connections have been accepted (TLS handshake included).
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.state().connections
    }

    /// How many Snapshot and Watch calls the client has cancelled while the double waited.
    #[must_use]
    pub fn cancelled(&self) -> u64 {
        self.shared.state().cancelled
    }
}

impl Drop for MisbehavingEtcd {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for MisbehavingEtcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MisbehavingEtcd").field("endpoint", &self.shared.endpoint).finish_non_exhaustive()
    }
}

/// Accepts until aborted; the connections end with it, because the set that holds them is dropped.
async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        connections.spawn(connection(socket, Arc::clone(&shared)));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(socket: TcpStream, shared: Arc<Shared>) {
    // A failure to set it only makes a test slower.
    socket.set_nodelay(true).unwrap_or_default();
    match &shared.tls {
        None => serve(socket, &shared).await,
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(socket).await {
                serve(stream, &shared).await;
            }
        }
    }
}

async fn serve<S>(stream: S, shared: &Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let number = {
        let mut state = shared.state();
        state.connections += 1;
        state.connections
    };
    grpc_link::testing::serve(stream, |request, sink| call(request, sink, Arc::clone(shared), number)).await;
}

async fn call(request: Request<RecvStream>, mut sink: Sink, shared: Arc<Shared>, connection: u64) {
    // Whoever has gone needs no answer.
    let _gone = answer(request, &mut sink, &shared, connection).await;
}

async fn answer(request: Request<RecvStream>, sink: &mut Sink, shared: &Arc<Shared>, connection: u64) -> Result<(), Gone> {
    let text = |name: &str| {
        let value = request.headers().get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let call = Call {
        name: request.uri().path().rsplit('/').next().unwrap_or_default().to_owned(),
        token: text("token"),
        timeout: text("grpc-timeout"),
        connection,
    };
    let (admitted, script, behaviour) = {
        let mut state = shared.state();
        state.calls.push(call.clone());
        (state.admit(&call), state.script.clone(), state.behaviour.clone())
    };
    if let Some(delay) = script.delay.get(&call.name) {
        tokio::time::sleep(*delay).await;
    }
    if let Err(failure) = admitted {
        return sink.finish(Some(&failure), script.late_status);
    }
    let mut requests = Messages::new(request.into_body());
    match call.name.as_str() {
        "Snapshot" => {
            if let Ending::Cancelled = snapshot::play(sink, &behaviour, &script).await? {
                shared.state().cancelled += 1;
            }
            Ok(())
        }
        "Watch" => {
            if watch::play(sink, &mut requests, &script.watch).await? {
                shared.state().cancelled += 1;
            }
            Ok(())
        }
        _ => unary(&call.name, &mut requests, sink, shared, script.late_status).await,
    }
}

async fn unary(name: &str, requests: &mut Messages, sink: &mut Sink, shared: &Arc<Shared>, late_status: bool) -> Result<(), Gone> {
    let message = requests.next().await.unwrap_or_default();
    let answered = answers::answer(name, &Fields::decode(&message), &mut shared.state(), &shared.endpoint);
    match answered {
        Ok(message) => {
            sink.message(message).await?;
            sink.finish(None, late_status)
        }
        Err(failure) => sink.finish(Some(&failure), late_status),
    }
}
