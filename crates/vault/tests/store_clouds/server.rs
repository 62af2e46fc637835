//! Real emulators of Google Cloud Storage and Azure Blob Storage as processes of the test.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
use object_store::client::{HttpRequest, HttpRequestBody};
use vault::store::{Store, StoreOptions, open_store};

use crate::gcs_bridge::Bridge;

pub(crate) const BUCKET: &str = "lifeboat-test";
const PATIENCE: Duration = Duration::from_secs(60);

/// The storage account of the tests, which Azurite is told of; the key is "lifeboat's key for tests" in base64.
pub(crate) const ACCOUNT: &str = "lifeboattest";
pub(crate) const ACCOUNT_KEY: &str = "bGlmZWJvYXQncyBrZXkgZm9yIHRlc3Rz";

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
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
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
        let mut child = command.spawn().unwrap();
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(begun.elapsed() < PATIENCE, "{} does not answer on {address}", program.display());
            thread::sleep(Duration::from_millis(50));
        }
        // Somebody else's listener would have made ours end.
        assert!(child.try_wait().unwrap().is_none(), "{} has ended", program.display());
        let bridge = (kind == Kind::Google).then(|| Bridge::before(address));
        let server = Self { child, kind, address: bridge.as_ref().map_or(address, |bridge| bridge.address), bridge, dir };
        match kind {
            Kind::Google => {
                let body = format!("{{\"name\":\"{BUCKET}\"}}");
                let head = "Content-Type: application/json\r\n";
                request(address, "POST", "/storage/v1/b", head, &body);
            }
            Kind::Azure => {
                let target = format!("/{ACCOUNT}/{BUCKET}?restype=container");
                let url = format!("http://{address}{target}");
                let mut asked: HttpRequest = http::Request::put(url).header("content-length", "0").body(HttpRequestBody::empty()).unwrap();
                let key = AzureCredential::AccessKey(AzureAccessKey::try_new(ACCOUNT_KEY).unwrap());
                AzureAuthorizer::new(&key, ACCOUNT).try_authorize(&mut asked).unwrap();
                let lines: Vec<_> =
                    asked.headers().iter().map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap())).collect();
                request(address, "PUT", &target, &lines.concat(), "");
            }
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
    let length = if headers.contains("content-length") { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    write!(stream, "{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{length}{headers}\r\n{body}").unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
}

/// A shared access signature for everything in the account: <https://learn.microsoft.com/rest/api/storageservices/create-account-sas>.
pub(crate) fn account_sas() -> String {
    use base64::Engine;
    let base64 = base64::engine::general_purpose::STANDARD;
    let (version, expiry) = ("2023-11-03", "2099-01-01T00:00:00Z");
    let fields = [ACCOUNT, "rwdlacup", "b", "sco", "", expiry, "", "https,http", version, ""];
    let to_sign: String = fields.iter().map(|field| format!("{field}\n")).collect();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &base64.decode(ACCOUNT_KEY).unwrap());
    let signature = base64.encode(ring::hmac::sign(&key, to_sign.as_bytes()));
    let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    format!("sv={version}&ss=b&srt=sco&sp=rwdlacup&se={expiry}&spr=https,http&sig={signature}")
}
