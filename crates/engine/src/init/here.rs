//! What lies on this machine: a backup kept beside what it protects is lost with it.

use std::net::{IpAddr, ToSocketAddrs, UdpSocket};
use std::path::Path;

/// The host of a URL or of `host:port`; brackets of an IPv6 address are taken off.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['/', '?']).next().unwrap_or(rest);
    match rest.strip_prefix('[') {
        Some(inner) => inner.split(']').next().unwrap_or(inner),
        None => rest.rsplit_once(':').map_or(rest, |(host, _)| host),
    }
}

/// Whether the host of a URL is a loopback address or `localhost`.
#[must_use]
pub fn is_loopback(url: &str) -> bool {
    let host = host(url);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether the host of a URL is this machine. Names are resolved; one that is not known is elsewhere.
#[must_use]
pub fn is_here(url: &str) -> bool {
    let host = host(url);
    let addresses: Vec<IpAddr> = match host.parse() {
        Ok(address) => vec![address],
        Err(_) => (host, 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect()).unwrap_or_default(),
    };
    addresses.into_iter().any(|address| address.is_loopback() || is_own(address))
}

/// Whether the host of a URL is an address of this machine. No name is looked up.
#[must_use]
pub fn is_here_by_address(url: &str) -> bool {
    host(url).parse().is_ok_and(|address: IpAddr| address.is_loopback() || is_own(address))
}

/// Whether an address is one of this machine's: then the kernel would talk to it from that same address. Nothing is sent.
fn is_own(address: IpAddr) -> bool {
    const DISCARD: u16 = 9;
    let any: IpAddr = if address.is_ipv4() { std::net::Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let source = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((address, DISCARD))?;
        Ok(socket.local_addr()?.ip())
    };
    source().is_ok_and(|source| source == address)
}

/// The name of this machine, where it has one.
#[must_use]
pub fn hostname() -> Option<String> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    (!name.is_empty()).then_some(name)
}

/// Whether this process is root's.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether a store's URL names a directory on a filesystem of this machine.
#[must_use]
pub fn is_local_store(url: &str) -> bool {
    let path = match url.strip_prefix("file://") {
        Some(path) => path,
        None if url.starts_with('/') => url,
        None => return false,
    };
    !is_network(Path::new(path))
}

/// Whether the nearest existing directory lies on a network filesystem.
fn is_network(path: &Path) -> bool {
    // linux/magic.h: NFS, SMB, CIFS, SMB2, CEPH, AFS, 9P, FUSE (sshfs, s3fs and others), OCFS2, GFS2, Lustre.
    const NETWORK: [u64; 11] = [
        0x6969,
        0x517b,
        0xff53_4d42,
        0xfe53_4d42,
        0x00c3_6400,
        0x5346_414f,
        0x0102_1997,
        0x6573_5546,
        0x7461_636f,
        0x0116_1970,
        0x0bd0_0bd0,
    ];
    let existing = path.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    rustix::fs::statfs(existing).is_ok_and(|stat| NETWORK.contains(&(stat.f_type.cast_unsigned() & 0xffff_ffff)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_taken_from_every_form() {
        for (url, expected) in [
            ("https://10.0.0.1:2379", "10.0.0.1"),
            ("http://[::1]:2379/", "::1"),
            ("etcd.example:2379", "etcd.example"),
            ("https://etcd.example/x", "etcd.example"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(host(url), expected, "{url}");
        }
    }

    #[test]
    fn loopback_is_here_and_a_documentation_address_is_not() {
        assert!(is_here("http://127.0.0.1:2379") && is_here("https://[::1]:2379") && is_here("localhost:2379"));
        assert!(!is_here("https://192.0.2.1:2379"));
        assert!(is_here_by_address("http://127.0.0.1:2379") && is_here_by_address("https://[::1]:2379"));
        assert!(!is_here_by_address("localhost:2379") && !is_here_by_address("https://192.0.2.1:2379"));
        assert!(is_loopback("http://localhost:1") && !is_loopback("http://192.0.2.1:1"));
    }

    #[test]
    fn buckets_are_elsewhere_and_directories_here() {
        assert!(!is_local_store("s3://bucket/prefix"));
        assert!(is_local_store("/proc/backups/of/nobody") && is_local_store("file:///proc/x"));
    }
}
