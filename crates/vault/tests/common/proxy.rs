//! A proxy before a real server that breaks connections.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// Sends one request and reads the whole answer.
pub(crate) fn exchange(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut upstream = TcpStream::connect(address).unwrap();
    upstream.set_read_timeout(Some(PATIENCE)).unwrap();
    upstream.write_all(request).unwrap();
    read_message(&mut upstream, !request.starts_with(b"HEAD"))
}

/// Reads one HTTP/1.1 message: a head, and the body whose length it states or whose last chunk is empty.
pub(crate) fn read_message(stream: &mut TcpStream, with_body: bool) -> Vec<u8> {
    let mut message = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let end = message.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&message[..end]).to_ascii_lowercase();
            let chunked = head.lines().any(|line| line.starts_with("transfer-encoding:") && line.contains("chunked"));
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).map_or(0, |text| text.trim().parse().unwrap());
            let whole = if chunked { message.ends_with(b"\r\n0\r\n\r\n") } else { message.len() >= end + length };
            if !with_body || whole {
                return message;
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return message,
            Ok(count) => message.extend_from_slice(&buffer[..count]),
        }
    }
}

/// What a proxy does to an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Break {
    /// The request is carried out, and its answer lost.
    LoseAnswer,
    /// The request does not reach the server, and the connection ends.
    LoseRequest,
    /// The answer ends after this many bytes.
    CutAnswer(usize),
    /// The server is said to be overloaded.
    SlowDown,
    /// The request does not reach the server: this is answered, a status line's text and a body.
    #[allow(dead_code, reason = "not every test that includes this file uses it")]
    Answer(&'static str, &'static str),
}

type Rules = Arc<Mutex<Vec<(String, Break, usize)>>>;

/// A proxy for one connection per request. Breaks those whose first line contains a text, a number of times.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    rules: Rules,
}

impl Proxy {
    pub(crate) fn before(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let rules = Rules::default();
        let shared = Arc::clone(&rules);
        thread::spawn(move || {
            for client in listener.incoming() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(client.unwrap(), upstream, &shared));
            }
        });
        Self { address, rules }
    }

    /// Breaks the next `times` requests whose first line contains all words of `words`.
    pub(crate) fn inject(&self, words: &str, how: Break, times: usize) {
        self.rules.lock().unwrap().push((words.to_owned(), how, times));
    }

    /// How many breaks have not happened.
    pub(crate) fn left(&self) -> usize {
        self.rules.lock().unwrap().iter().map(|(_, _, times)| times).sum()
    }
}

fn decide(rules: &Rules, line: &str) -> Option<Break> {
    let mut rules = rules.lock().unwrap();
    let rule = rules.iter_mut().find(|(words, _, times)| *times > 0 && words.split(' ').all(|word| line.contains(word)))?;
    rule.2 -= 1;
    Some(rule.1)
}

/// The same answer, which says that the connection ends with it. Without these words a client may send its next request into a connection that is
/// just being closed, and be told of a break that no test asked for.
fn the_last(answer: Vec<u8>) -> Vec<u8> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return answer };
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let kept: Vec<&str> = head
        .split("\r\n")
        .filter(|line| !["connection:", "keep-alive:"].iter().any(|name| line.to_ascii_lowercase().starts_with(name)))
        .collect();
    let mut changed = kept.join("\r\n").into_bytes();
    changed.extend_from_slice(b"\r\nConnection: close");
    changed.extend_from_slice(&answer[end..]);
    changed
}

fn serve(mut client: TcpStream, upstream: SocketAddr, rules: &Rules) {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = read_message(&mut client, true);
    if request.is_empty() {
        return;
    }
    // Google's object names come with these two encoded.
    let line = String::from_utf8_lossy(&request).lines().next().unwrap_or_default().replace("%2F", "/").replace("%2D", "-");
    let how = decide(rules, &line);
    if how == Some(Break::LoseRequest) {
        return;
    }
    let own = match how {
        Some(Break::SlowDown) => {
            Some(("503 Slow Down", "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"))
        }
        Some(Break::Answer(status, body)) => Some((status, body)),
        _ => None,
    };
    if let Some((status, body)) = own {
        let _ = write!(client, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        return;
    }
    let answer = the_last(exchange(upstream, &request));
    let end = match how {
        Some(Break::LoseAnswer) => 0,
        Some(Break::CutAnswer(len)) => len.min(answer.len()),
        _ => answer.len(),
    };
    let _ = client.write_all(&answer[..end]);
}
