//! A store that misbehaves: an HTTP proxy before a real S3 server that spoils whole exchanges.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::random::Random;

/// How long the proxy itself waits for either side.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a silent exchange looks whether its client has gone.
const POLL: Duration = Duration::from_millis(20);
/// The largest head of a request.
const MAX_HEAD: usize = 64 << 10;

/// What happens to one exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misdeed {
    /// The request is not carried out; the connection ends.
    LoseRequest,
    /// The request is carried out; the connection ends without an answer. Nobody can tell this from [`Misdeed::LoseRequest`].
    LoseAnswer,
    /// The request is not carried out: 503 `SlowDown`.
    SlowDown,
    /// The request is not carried out: 500 `InternalError`.
    InternalError,
    /// The request is carried out and 500 is the answer: as ambiguous as none.
    FailAfter,
    /// The request is carried out; the answer's body ends after this share of it, in percent.
    CutBody(u8),
    /// The request is carried out after a while.
    Late(Duration),
    /// The request is not carried out; nothing is answered until the client gives up.
    Silent,
    /// The request is carried out; nothing is answered until the client gives up.
    SilentAfter,
}

/// One exchange as it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Method and target, such as `PUT /bucket/key?partNumber=1`.
    pub line: String,
    /// What was done to it.
    pub misdeed: Option<Misdeed>,
}

type Decide = Box<dyn FnMut(&str) -> Option<Misdeed> + Send>;

/// Forwards requests from a loopback port of its own to an HTTP server, one connection each, and spoils those that are chosen.
/// Ends when dropped.
pub struct HttpProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    decide: Mutex<Decide>,
    log: Mutex<Vec<Exchange>>,
    stopped: AtomicBool,
}

impl HttpProxy {
    /// Forwards to a server on 127.0.0.1, well-behaved at first.
    #[must_use]
    pub fn before(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let well: Decide = Box::new(|_| None);
        let shared = Arc::new(Shared { decide: Mutex::new(well), log: Mutex::default(), stopped: AtomicBool::new(false) });
        let accept = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if accept.stopped.load(Ordering::SeqCst) {
                    break;
                }
                let (Ok(client), shared) = (client, Arc::clone(&accept)) else { continue };
                std::thread::spawn(move || drop(serve(client, port, &shared)));
            }
        });
        Self { address, shared }
    }

    /// `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on `decide` says what happens to an exchange, by its method and target.
    pub fn misbehave(&self, decide: impl FnMut(&str) -> Option<Misdeed> + Send + 'static) {
        *self.shared.decide.lock().unwrap() = Box::new(decide);
    }

    /// Spoils exchanges at random: of those that begin with one of these methods `percent`, each in one of these ways.
    pub fn misbehave_at_random(&self, seed: u64, percent: u64, methods: &'static [&'static str], ways: &'static [Misdeed]) {
        let mut random = Random::new(seed);
        self.misbehave(move |line| {
            let meant = methods.iter().any(|method| line.starts_with(method)) && random.below(100) < percent;
            meant.then(|| *random.pick(ways))
        });
    }

    /// Spoils the first `times` exchanges whose line contains all `words`.
    pub fn spoil(&self, words: &'static [&'static str], misdeed: Misdeed, times: usize) {
        let mut left = times;
        self.misbehave(move |line| {
            let meant = left > 0 && words.iter().all(|word| line.contains(word));
            left -= usize::from(meant);
            meant.then_some(misdeed)
        });
    }

    /// From now on everything goes well.
    pub fn behave(&self) {
        self.misbehave(|_| None);
    }

    /// The exchanges since the last call, in the order in which they began.
    #[must_use]
    pub fn take_log(&self) -> Vec<Exchange> {
        std::mem::take(&mut *self.shared.log.lock().unwrap())
    }
}

impl std::fmt::Debug for HttpProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpProxy").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for HttpProxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then sees that it is over.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(mut client: TcpStream, port: u16, shared: &Shared) -> std::io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    let Some(request) = read_request(&mut client)? else { return Ok(()) };
    let line = request.line();
    let misdeed = (shared.decide.lock().unwrap())(&line);
    shared.log.lock().unwrap().push(Exchange { line, misdeed });
    match misdeed {
        Some(Misdeed::LoseRequest) => return Ok(()),
        Some(Misdeed::SlowDown) => return refuse(&mut client, "503 Slow Down", "SlowDown"),
        Some(Misdeed::InternalError) => return refuse(&mut client, "500 Internal Server Error", "InternalError"),
        Some(Misdeed::Silent) => return hold(&client, shared),
        Some(Misdeed::Late(pause)) => std::thread::sleep(pause),
        _ => {}
    }
    let answer = request.forward(port)?;
    match misdeed {
        Some(Misdeed::LoseAnswer) => Ok(()),
        Some(Misdeed::FailAfter) => refuse(&mut client, "500 Internal Server Error", "InternalError"),
        Some(Misdeed::SilentAfter) => hold(&client, shared),
        Some(Misdeed::CutBody(percent)) => {
            let head = end_of_head(&answer).unwrap_or(answer.len());
            let end = head + (answer.len() - head) * usize::from(percent) / 100;
            client.write_all(&answer[..end])
        }
        _ => client.write_all(&answer),
    }
}

/// Says nothing until the client has gone.
fn hold(client: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    client.set_nonblocking(true)?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline && !shared.stopped.load(Ordering::SeqCst) {
        match client.peek(&mut [0]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::sleep(POLL),
            _ => break,
        }
    }
    client.shutdown(Shutdown::Both)
}

fn refuse(client: &mut TcpStream, status: &str, code: &str) -> std::io::Result<()> {
    let body = format!("<Error><Code>{code}</Code><Message>as the test wants it</Message></Error>");
    write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// A request as it came.
struct Request {
    bytes: Vec<u8>,
}

impl Request {
    fn line(&self) -> String {
        let line = self.bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
        String::from_utf8_lossy(line).trim_end_matches(" HTTP/1.1").to_owned()
    }

    /// Carries it out, and returns the whole answer, which is the last on its connection.
    fn forward(&self, port: u16) -> std::io::Result<Vec<u8>> {
        let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        server.set_read_timeout(Some(PATIENCE))?;
        server.write_all(&only_one(&self.bytes))?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer)?;
        Ok(only_one(&answer))
    }
}

/// The message with the word that its connection carries no other. Signatures do not cover that header.
fn only_one(message: &[u8]) -> Vec<u8> {
    let line = message.windows(2).position(|two| two == b"\r\n").map_or(0, |at| at + 2);
    [&message[..line], b"Connection: close\r\n", &message[line..]].concat()
}

fn end_of_head(message: &[u8]) -> Option<usize> {
    message.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// Reads a request with its body, whose length it states. `None` when the client only looked.
fn read_request(stream: &mut TcpStream) -> std::io::Result<Option<Request>> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    let mut end = None;
    loop {
        if end.is_none() {
            end = end_of_head(&bytes).map(|head| head + content_length(&bytes[..head]));
            assert!(end.is_some() || bytes.len() < MAX_HEAD, "this is no request");
        }
        if end.is_some_and(|end| bytes.len() >= end) {
            return Ok(Some(Request { bytes }));
        }
        match stream.read(&mut buffer)? {
            0 if bytes.is_empty() => return Ok(None),
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers with what it was sent, and counts.
    fn echo() -> (u16, Arc<Mutex<usize>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (port, count) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(0)));
        let counted = Arc::clone(&count);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let Ok(Some(request)) = read_request(&mut stream) else { continue };
                *counted.lock().unwrap() += 1;
                let body = &request.bytes[end_of_head(&request.bytes).unwrap()..];
                drop(write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", body.len(), String::from_utf8_lossy(body)));
            }
        });
        (port, count)
    }

    fn ask(proxy: &HttpProxy) -> String {
        let mut stream = TcpStream::connect(proxy.address).unwrap();
        write!(stream, "PUT /bucket/key HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n0123456789").unwrap();
        let mut answer = String::new();
        drop(stream.read_to_string(&mut answer));
        answer
    }

    #[test]
    fn each_misdeed_is_done_and_the_server_sees_what_it_should() {
        let (port, count) = echo();
        let proxy = HttpProxy::before(port);
        assert!(ask(&proxy).ends_with("\r\n\r\n0123456789"));
        let mut seen = 1;
        for (misdeed, answer, carried_out) in [
            (Misdeed::LoseRequest, "", false),
            (Misdeed::LoseAnswer, "", true),
            (Misdeed::SlowDown, "503 Slow Down", false),
            (Misdeed::InternalError, "500 Internal", false),
            (Misdeed::FailAfter, "500 Internal", true),
            (Misdeed::CutBody(50), "01234", true),
            (Misdeed::Late(Duration::from_millis(1)), "0123456789", true),
        ] {
            proxy.spoil(&["PUT", "key"], misdeed, 1);
            let got = ask(&proxy);
            assert!(got.contains(answer) && got.is_empty() == answer.is_empty(), "{misdeed:?}: {got}");
            assert!(!got.contains("56789") || matches!(misdeed, Misdeed::Late(_)), "{misdeed:?}: {got}");
            seen += usize::from(carried_out);
            assert_eq!(*count.lock().unwrap(), seen, "{misdeed:?}");
            assert!(ask(&proxy).ends_with("0123456789"), "only the first one is spoilt");
            seen += 1;
        }
        let log = proxy.take_log();
        assert_eq!((log.len(), log[1].line.as_str(), log[1].misdeed), (15, "PUT /bucket/key", Some(Misdeed::LoseRequest)));
    }

    #[test]
    fn silence_lasts_until_the_client_has_gone() {
        let (port, count) = echo();
        let proxy = HttpProxy::before(port);
        for (misdeed, carried_out) in [(Misdeed::Silent, 0), (Misdeed::SilentAfter, 1)] {
            proxy.spoil(&["PUT"], misdeed, 1);
            let mut stream = TcpStream::connect(proxy.address).unwrap();
            write!(stream, "PUT /k HTTP/1.1\r\nContent-Length: 0\r\n\r\n").unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            assert!(stream.read(&mut [0]).is_err(), "silence, not an end");
            // The server's side of it may come after the client has lost patience.
            let deadline = Instant::now() + PATIENCE;
            while *count.lock().unwrap() != carried_out {
                assert!(Instant::now() < deadline, "{misdeed:?}: {} carried out", count.lock().unwrap());
                std::thread::sleep(POLL);
            }
        }
    }
}
