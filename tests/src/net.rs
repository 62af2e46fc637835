//! Loopback ports, and whose listener one is.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Ports are taken from below the kernel's ephemeral range, so that no outgoing connection can occupy the port of a member that is down for a moment.
const FIRST: u16 = 12_000;
const COUNT: u32 = 19_000;
/// From one port to the next; it has no divisor in common with [`COUNT`], so that every port comes once before any comes again.
const STEP: u32 = 101;

/// A port kept free by a listener of ours until the server is about to take it.
#[derive(Debug)]
pub struct ReservedPort {
    listener: TcpListener,
}

impl ReservedPort {
    /// Reserves some free port of 127.0.0.1.
    #[must_use]
    pub fn new() -> Self {
        static START: OnceLock<u32> = OnceLock::new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Test processes run beside each other; each starts elsewhere, and goes on from there: a port that was given before may belong to a server
        // that is down for a moment.
        let start = START.get_or_init(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
            std::process::id().wrapping_mul(7919).wrapping_add(now) % COUNT
        });
        for _ in 0..COUNT {
            let offset = (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT * STEP) % COUNT;
            let port = FIRST + u16::try_from(offset).unwrap();
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                return Self { listener };
            }
        }
        panic!("no free port on 127.0.0.1");
    }

    /// Its number.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }
}

impl Default for ReservedPort {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether `pid` itself listens on `port` of 127.0.0.1 (or of all addresses), by the inode of the socket: `/proc/net/tcp`, then `/proc/<pid>/fd`.
#[must_use]
pub fn listens(pid: u32, port: u16) -> bool {
    let inodes: Vec<String> = listeners(port).into_iter().map(|inode| format!("socket:[{inode}]")).collect();
    let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    fds.flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok())
        .any(|target| inodes.iter().any(|inode| target.as_os_str() == inode.as_str()))
}

/// Whether anybody listens on `port`.
#[must_use]
pub fn anybody_listens(port: u16) -> bool {
    !listeners(port).is_empty()
}

/// Inodes of the sockets in state LISTEN on a port.
fn listeners(port: u16) -> Vec<u64> {
    const LISTEN: &str = "0A";
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let Ok(text) = fs::read_to_string(table) else { continue };
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (Some(local), Some(state), Some(inode)) = (fields.get(1), fields.get(3), fields.get(9)) else { continue };
            let this_port = local.rsplit_once(':').and_then(|(_, hex)| u16::from_str_radix(hex, 16).ok());
            if *state == LISTEN && this_port == Some(port) {
                inodes.extend(inode.parse::<u64>());
            }
        }
    }
    inodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_attributed_to_its_process() {
        let reserved = ReservedPort::new();
        let me = std::process::id();
        assert!(listens(me, reserved.port()));
        assert!(!listens(1, reserved.port()));
        let port = reserved.port();
        drop(reserved);
        assert!(!listens(me, port) && !anybody_listens(port));
    }

    #[test]
    fn reserved_ports_differ() {
        let ports: Vec<ReservedPort> = (0..20).map(|_| ReservedPort::new()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(ReservedPort::port).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 20);
    }

    #[test]
    fn a_port_that_was_free_again_is_not_given_again() {
        let mut numbers: Vec<u16> = (0..50).map(|_| ReservedPort::new().port()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
    }
}
