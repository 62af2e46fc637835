//! Other people's servers on loopback, as processes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::net::{ReservedPort, anybody_listens, listens};
use crate::peers::peer;
use crate::process::Process;

const READY: Duration = Duration::from_secs(60);
const ATTEMPTS: u32 = 3;

/// A server that listens on a port of loopback and keeps its files in a directory of its own.
#[derive(Debug)]
pub struct Server {
    process: Process,
    port: u16,
    dir: TempDir,
}

impl Server {
    /// Starts what `command` makes of a free port and a fresh directory, and waits until it listens there itself.
    pub(crate) fn start(name: &str, command: impl Fn(u16, &Path) -> Command) -> Self {
        for attempt in 1.. {
            let dir = TempDir::new().unwrap();
            let reserved = ReservedPort::new();
            let port = reserved.port();
            let command = command(port, dir.path());
            drop(reserved);
            let process = Process::start(name, command, &dir.path().join("log"));
            let mut server = Self { process, port, dir };
            if server.wait_ready() {
                return server;
            }
            assert!(attempt < ATTEMPTS, "{name} does not start:\n{}", server.process.log_tail(30));
        }
        unreachable!("the loop returns or panics")
    }

    /// False when somebody else has the port or the server ended.
    fn wait_ready(&mut self) -> bool {
        let deadline = Instant::now() + READY;
        while Instant::now() < deadline && self.process.running() {
            if listens(self.process.pid(), self.port) {
                return true;
            }
            if anybody_listens(self.port) {
                // It may be ours by now: the two looks were not one.
                return listens(self.process.pid(), self.port);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Sends one request, which must succeed, and returns the answer.
    pub(crate) fn request(&self, method: &str, target: &str, headers: &str, body: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(READY)).unwrap();
        let length = body.len();
        let head =
            format!("{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: {length}\r\nConnection: close\r\n", self.port);
        write!(stream, "{head}{headers}\r\n{body}").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
        answer
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// The program of a peer, by its variable, else by its name among the peers.
pub(crate) fn find(variable: &str, name: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).or_else(|| peer(name).map(|peer| peer.path.clone()))
}
