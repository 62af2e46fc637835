//! Asking a member how it is, over its plain metrics listener, so that no certificate or password is needed.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(3);

/// Whether the member has a leader and answers linearizable reads, alarms aside.
pub(super) fn ready(metrics_port: u16) -> bool {
    // etcd asks itself for a linearizable read; an alarm alone must not look like a member that does not run.
    get(metrics_port, "/health?exclude=NOSPACE&exclude=CORRUPT").is_some_and(|answer| answer.contains("\"health\":\"true\""))
}

/// The answer to a GET, headers included; `None` when there is none.
pub(super) fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    stream.set_write_timeout(Some(TIMEOUT)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}
