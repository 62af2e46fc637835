//! Addresses on loopback: a network of its own for each double.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Ports that must be free on every address: apid, etcd's clients, peers and metrics.
pub(crate) const APID: u16 = 50_000;
pub(crate) const ETCD_CLIENT: u16 = 2379;
pub(crate) const ETCD_PEER: u16 = 2380;
pub(crate) const ETCD_METRICS: u16 = 2381;

const ATTEMPTS: u32 = 200;

/// This many addresses `127.a.b.2`, `.3` … whose ports are all free.
pub(crate) fn addresses(count: usize) -> Vec<Ipv4Addr> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    // Doubles of several test processes run beside each other; each begins elsewhere.
    let start = std::process::id().wrapping_mul(7919).wrapping_add(nanos);
    for _ in 0..ATTEMPTS {
        let n = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(101));
        // 127.0.x.x is where everybody else is.
        let (a, b) = (10 + n % 240, 1 + n / 240 % 250);
        let octet = |n: u32| u8::try_from(n).unwrap();
        let all: Vec<Ipv4Addr> =
            (0..count).map(|index| Ipv4Addr::new(127, octet(a), octet(b), octet(2 + u32::try_from(index).unwrap()))).collect();
        let free = |ip: &Ipv4Addr| [APID, ETCD_CLIENT, ETCD_PEER, ETCD_METRICS].iter().all(|&port| TcpListener::bind((*ip, port)).is_ok());
        if all.iter().all(free) {
            return all;
        }
    }
    panic!("no free network in 127.0.0.0/8");
}
