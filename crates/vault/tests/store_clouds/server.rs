//! Real emulators of Google Cloud Storage and Azure Blob Storage as processes of the test.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use vault::store::{Store, StoreOptions, open_store};

use crate::azure_account::{ACCOUNT, ACCOUNT_KEY, ACCOUNT_SAS};
use crate::gcs_bridge::Bridge;
use crate::net::{ReservedPort, listens};

pub(crate) const BUCKET: &str = "lifeboat-test";
const PATIENCE: Duration = Duration::from_secs(60);

/// Which cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// fake-gcs-server behind the [`Bridge`].
    Google,
    /// Azurite.
    Azure,
}

impl Kind {
    pub(crate) fn scheme(self) -> &'static str {
        match self {
            Kind::Google => "gs",
            Kind::Azure => "az",
        }
    }

    fn variable(self) -> &'static str {
        match self {
            Kind::Google => "LIFEBOAT_TEST_FAKE_GCS",
            Kind::Azure => "LIFEBOAT_TEST_AZURITE",
        }
    }
}

pub(crate) struct Server {
    child: Child,
    pub(crate) kind: Kind,
    /// Where the store is to be found.
    pub(crate) address: SocketAddr,
    pub(crate) bridge: Option<Bridge>,
    dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts an emulator with one empty bucket or container, or says why the test is skipped.
    pub(crate) fn start(kind: Kind) -> Option<Self> {
        let Some(program) = std::env::var_os(kind.variable()).map(PathBuf::from) else {
            println!("SKIPPED: {} is not set", kind.variable());
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let reserved = ReservedPort::new();
        let address = SocketAddr::from(([127, 0, 0, 1], reserved.port()));
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let mut command = Command::new(&program);
        match kind {
            Kind::Google => {
                command.args(["-scheme", "http", "-backend", "memory", "-log-level", "error", "-host", &host, "-port", &port]);
                command.args(["-public-host", &address.to_string()]);
            }
            Kind::Azure => {
                command.env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{ACCOUNT_KEY}"));
                command.args(["--blobHost", &host, "--blobPort", &port, "--inMemoryPersistence", "--silent", "--disableTelemetry"]);
            }
        }
        command.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        drop(reserved);
        let child = command.spawn().unwrap();
        // From here on the process ends with the server.
        let mut server = Self { child, kind, address, bridge: None, dir };
        let begun = Instant::now();
        while !listens(server.child.id(), address.port()) {
            assert!(server.child.try_wait().unwrap().is_none(), "{} has ended", program.display());
            assert!(begun.elapsed() < PATIENCE, "{} does not listen on {address}", program.display());
            thread::sleep(Duration::from_millis(50));
        }
        match kind {
            Kind::Google => {
                let body = format!("{{\"name\":\"{BUCKET}\"}}");
                let head = "Content-Type: application/json\r\n";
                request(address, "POST", "/storage/v1/b", head, &body);
                let bridge = Bridge::before(address);
                server.address = bridge.address;
                server.bridge = Some(bridge);
            }
            Kind::Azure => request(address, "PUT", &format!("/{ACCOUNT}/{BUCKET}?restype=container&{ACCOUNT_SAS}"), "", ""),
        }
        Some(server)
    }

    /// The options that lead to `address`, which may be that of a proxy, with these lines for credentials (Azure).
    pub(crate) fn options_with(&self, address: SocketAddr, name: &str, lines: &str) -> StoreOptions {
        match self.kind {
            Kind::Google => StoreOptions { endpoint: Some(format!("http://{address}")), ..StoreOptions::default() },
            Kind::Azure => {
                let path = self.dir.path().join(format!("{name}.env"));
                std::fs::write(&path, lines).unwrap();
                let endpoint = Some(format!("http://{address}/{ACCOUNT}"));
                StoreOptions { endpoint, credentials_file: Some(path), ..StoreOptions::default() }
            }
        }
    }

    pub(crate) fn options(&self, address: SocketAddr) -> StoreOptions {
        self.options_with(address, "key", &format!("AZURE_STORAGE_ACCOUNT_KEY={ACCOUNT_KEY}\n"))
    }

    pub(crate) fn url(&self, bucket: &str, prefix: &str) -> String {
        format!("{}://{bucket}/{prefix}", self.kind.scheme())
    }

    /// Opens the test's bucket through `address`.
    pub(crate) fn open(&self, address: SocketAddr, prefix: &str) -> Arc<dyn Store> {
        open_store(&self.url(BUCKET, prefix), &self.options(address)).unwrap()
    }
}

/// Sends one request that must succeed.
fn request(address: SocketAddr, method: &str, target: &str, headers: &str, body: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    write!(stream, "{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
        .unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
}
