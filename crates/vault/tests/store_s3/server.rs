//! Real S3 servers as processes of the test.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use vault::store::{Store, StoreOptions, open_store};

use crate::proxy::exchange;

pub(crate) const BUCKET: &str = "lifeboat-test";
const PATIENCE: Duration = Duration::from_secs(30);

/// Which implementation, by the variable that holds the path of its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Versitygw,
    Moto,
}

impl Kind {
    fn variable(self) -> &'static str {
        match self {
            Kind::Versitygw => "LIFEBOAT_TEST_S3_VERSITYGW",
            Kind::Moto => "LIFEBOAT_TEST_S3_MOTO",
        }
    }
}

pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Server {
    /// Starts a server with one empty bucket, or says why the test is skipped.
    pub(crate) fn start(kind: Kind) -> Option<Self> {
        Self::start_with(kind, &[])
    }

    /// … with further arguments (versitygw).
    pub(crate) fn start_with(kind: Kind, extra: &[&str]) -> Option<Self> {
        let Some(program) = std::env::var_os(kind.variable()).map(PathBuf::from) else {
            println!("SKIPPED: {} is not set", kind.variable());
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        // Another process may be faster to take the port that was free: then it ends, and is started on another one.
        let server = (0..5).find_map(|_| Self::start_at(kind, &program, extra, dir.path()));
        let Some((child, address)) = server else { panic!("{} does not start", program.display()) };
        let server = Self { child, address, dir };
        if kind == Kind::Moto {
            let request = format!(
                "PUT /{BUCKET} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\nAuthorization: AWS4-HMAC-SHA256 Credential=testkey/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0\r\n\r\n"
            );
            assert!(exchange(address, request.as_bytes()).starts_with(b"HTTP/1.1 200"));
        }
        Some(server)
    }

    /// Starts it on a port that is free now, and waits until it answers; `None` when it ended.
    fn start_at(kind: Kind, program: &Path, extra: &[&str], dir: &Path) -> Option<(Child, SocketAddr)> {
        let address = free_address();
        let mut command = Command::new(program);
        match kind {
            Kind::Versitygw => {
                std::fs::create_dir_all(dir.join("root").join(BUCKET)).unwrap();
                command.env("ROOT_ACCESS_KEY", "testkey").env("ROOT_SECRET_KEY", "testsecret");
                command
                    .args(extra)
                    .args(["--quiet", "--region", "us-east-1", "--port", &address.to_string(), "posix"])
                    .arg(dir.join("root"));
            }
            Kind::Moto => {
                command.args(["-H", "127.0.0.1", "-p", &address.port().to_string()]);
            }
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            if child.try_wait().unwrap().is_some() {
                return None;
            }
            if begun.elapsed() >= PATIENCE {
                let _ = child.kill();
                panic!("{} does not answer on {address}", program.display());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Some((child, address))
    }

    /// How many directories and parts the server keeps for unfinished uploads (versitygw only).
    pub(crate) fn unfinished_uploads(&self) -> usize {
        fn entries(dir: &Path) -> usize {
            let Ok(listed) = std::fs::read_dir(dir) else { return 0 };
            listed.map(|entry| 1 + entries(&entry.unwrap().path())).sum()
        }
        // Where versitygw's posix backend keeps them: backend/posix/posix.go, MetaTmpMultipartDir.
        entries(&self.dir.path().join("root").join(BUCKET).join(".sgwtmp/multipart"))
    }

    pub(crate) fn options(&self, secret: &str) -> StoreOptions {
        options(self.dir.path(), self.address, secret)
    }

    /// Opens the test's bucket through `address`, which may be that of a proxy.
    pub(crate) fn open(&self, address: SocketAddr, prefix: &str) -> Arc<dyn Store> {
        open_store(&format!("s3://{BUCKET}/{prefix}"), &options(self.dir.path(), address, "testsecret")).unwrap()
    }
}

pub(crate) fn options(dir: &Path, address: SocketAddr, secret: &str) -> StoreOptions {
    let path = dir.join(format!("credentials-{secret}"));
    std::fs::write(&path, format!("AWS_ACCESS_KEY_ID=testkey\nAWS_SECRET_ACCESS_KEY={secret}\n")).unwrap();
    StoreOptions {
        endpoint: Some(format!("http://{address}")),
        region: Some("us-east-1".to_owned()),
        credentials_file: Some(path),
        ..StoreOptions::default()
    }
}
