//! A bad network between a client and a server on loopback.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the network does to bytes on their way. Changes apply at once, to open connections too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Toxics {
    /// Each piece of data waits this long, in both directions.
    pub delay: Duration,
    /// The connection is cut once this many bytes have come from the server (per connection).
    pub cut_after: Option<u64>,
    /// Bytes are taken and go nowhere; connections stay open.
    pub blackhole: bool,
    /// Bytes per second from the server.
    pub rate: Option<u64>,
    /// New connections are closed at once.
    pub refuse: bool,
}

/// Forwards connections from a loopback port of its own to a server; misbehaves as told. Ends, with its connections, when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    toxics: Mutex<Toxics>,
    stopped: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
    accepted: AtomicU64,
    from_server: AtomicU64,
    from_client: AtomicU64,
}

/// How often a blocked direction looks whether it may go on.
const POLL: Duration = Duration::from_millis(5);
/// Size of one piece of data.
const PIECE: usize = 16 * 1024;

impl Proxy {
    /// Forwards to a server on 127.0.0.1, well-behaved at first.
    #[must_use]
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            toxics: Mutex::default(),
            stopped: AtomicBool::new(false),
            open: Mutex::default(),
            accepted: AtomicU64::new(0),
            from_server: AtomicU64::new(0),
            from_client: AtomicU64::new(0),
        });
        let accept = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if accept.stopped.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(client) = client else { continue };
                accept.accepted.fetch_add(1, Ordering::SeqCst);
                if !accept.toxics().refuse {
                    connect(&accept, &client, port);
                }
            }
        });
        Self { address, shared }
    }

    /// Where clients connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Changes the network.
    pub fn set(&self, toxics: Toxics) {
        *self.shared.toxics.lock().unwrap() = toxics;
    }

    /// Cuts every open connection, now.
    pub fn cut_all(&self) {
        for stream in self.shared.open.lock().unwrap().drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// How many connections were made.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Bytes forwarded from the server to clients.
    #[must_use]
    pub fn from_server(&self) -> u64 {
        self.shared.from_server.load(Ordering::SeqCst)
    }

    /// Bytes forwarded from clients to the server.
    #[must_use]
    pub fn from_client(&self) -> u64 {
        self.shared.from_client.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.cut_all();
        // Wakes the accepting thread, which then sees that it is over.
        drop(TcpStream::connect(self.address));
    }
}

impl Shared {
    fn toxics(&self) -> Toxics {
        self.toxics.lock().unwrap().clone()
    }
}

fn connect(shared: &Arc<Shared>, client: &TcpStream, port: u16) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
        drop(client.shutdown(Shutdown::Both));
        return;
    };
    for stream in [client, &server] {
        drop(stream.set_nodelay(true));
    }
    shared.open.lock().unwrap().extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
    for from_server in [true, false] {
        let (from, to) = if from_server { (&server, client) } else { (client, &server) };
        let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            pump(&shared, &from, &to, from_server);
            drop(to.shutdown(Shutdown::Write));
        });
    }
}

fn pump(shared: &Shared, mut from: &TcpStream, mut to: &TcpStream, from_server: bool) {
    let mut buffer = vec![0; PIECE];
    let mut sent = 0;
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let toxics = shared.toxics();
        if toxics.blackhole {
            while shared.toxics().blackhole && !shared.stopped.load(Ordering::SeqCst) {
                std::thread::sleep(POLL);
            }
            // What was swallowed is gone: going on would hand over a stream with a gap.
            drop(from.shutdown(Shutdown::Both));
            drop(to.shutdown(Shutdown::Both));
            return;
        }
        std::thread::sleep(toxics.delay);
        let mut piece = &buffer[..read];
        let limit = toxics.cut_after.filter(|_| from_server).map(|limit| limit.saturating_sub(sent));
        if let Some(left) = limit {
            piece = &piece[..piece.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
        }
        if to.write_all(piece).is_err() {
            return;
        }
        let forwarded = piece.len() as u64;
        sent += forwarded;
        if from_server { &shared.from_server } else { &shared.from_client }.fetch_add(forwarded, Ordering::SeqCst);
        if limit.is_some_and(|left| forwarded == left) {
            drop(from.shutdown(Shutdown::Both));
            drop(to.shutdown(Shutdown::Both));
            return;
        }
        if let Some(rate) = toxics.rate.filter(|_| from_server) {
            std::thread::sleep(Duration::from_secs_f64(forwarded as f64 / rate as f64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// Sends back a megabyte for every byte it gets.
    fn talkative_server() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let (mut byte, mut stream) = ([0], stream);
                    while let Ok(1..) = stream.read(&mut byte) {
                        if stream.write_all(&vec![byte[0]; 1 << 20]).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        port
    }

    fn ask(proxy: &Proxy) -> (TcpStream, usize) {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap();
        stream.write_all(b"x").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        // A cut connection ends in an error or an end, both fine here.
        drop(stream.read_to_end(&mut all));
        (stream, all.len())
    }

    #[test]
    fn bytes_pass_and_are_counted() {
        let proxy = Proxy::to(talkative_server());
        assert_eq!(ask(&proxy).1, 1 << 20);
        assert_eq!((proxy.from_server(), proxy.from_client(), proxy.accepted()), (1 << 20, 1, 1));
    }

    #[test]
    fn a_connection_is_cut_at_the_byte() {
        let proxy = Proxy::to(talkative_server());
        proxy.set(Toxics { cut_after: Some(100_001), ..Toxics::default() });
        ask(&proxy);
        assert_eq!(proxy.from_server(), 100_001);
        proxy.set(Toxics { refuse: true, ..Toxics::default() });
        assert_eq!(ask(&proxy).1, 0);
    }

    #[test]
    fn delays_and_rates_take_their_time() {
        let proxy = Proxy::to(talkative_server());
        proxy.set(Toxics { delay: Duration::from_millis(20), rate: Some(4 << 20), ..Toxics::default() });
        let begun = Instant::now();
        assert_eq!(ask(&proxy).1, 1 << 20);
        assert!(begun.elapsed() >= Duration::from_millis(250), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_black_hole_answers_nothing_until_it_is_lifted() {
        let proxy = Proxy::to(talkative_server());
        proxy.set(Toxics { blackhole: true, ..Toxics::default() });
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap();
        stream.write_all(b"x").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert!(stream.read(&mut [0]).is_err(), "silence, not an end");
        proxy.set(Toxics::default());
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
        assert_eq!(ask(&proxy).1, 1 << 20);
    }
}
