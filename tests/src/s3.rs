//! Real S3 servers as processes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::net::{ReservedPort, anybody_listens, listens};
use crate::peers::peer;
use crate::process::{Process, guarded};

/// A running S3 server with one bucket.
#[derive(Debug)]
pub struct S3Server {
    process: Process,
    port: u16,
    dir: TempDir,
    bucket: String,
}

/// The credentials every fixture accepts.
pub const ACCESS_KEY: &str = "lifeboat-test";
/// See [`ACCESS_KEY`].
pub const SECRET_KEY: &str = "lifeboat-test-secret";
/// The region every fixture is in.
pub const REGION: &str = "us-east-1";

const READY: Duration = Duration::from_secs(60);
const ATTEMPTS: u32 = 3;

impl S3Server {
    /// versitygw over a temporary directory: signatures and conditions are really checked. `None` when the program could not be had.
    #[must_use]
    pub fn versitygw(bucket: &str) -> Option<Self> {
        let program = find("LIFEBOAT_TEST_S3_VERSITYGW", "versitygw")?;
        Some(Self::start("versitygw", bucket, |port, dir| {
            std::fs::create_dir_all(dir.join("buckets").join(bucket)).unwrap();
            let mut command = guarded(&program);
            command
                .args(["--quiet", "--port", &format!("127.0.0.1:{port}"), "--region", REGION, "posix"])
                .arg(dir.join("buckets"))
                .env("ROOT_ACCESS_KEY", ACCESS_KEY)
                .env("ROOT_SECRET_KEY", SECRET_KEY);
            command
        }))
    }

    /// moto, in memory: another implementation, which accepts any signature. `None` when the program could not be had.
    #[must_use]
    pub fn moto(bucket: &str) -> Option<Self> {
        let program = find("LIFEBOAT_TEST_S3_MOTO", "moto")?;
        let server = Self::start("moto", bucket, |port, _| {
            let mut command = guarded(&program);
            command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
            command
        });
        server.put_bucket();
        Some(server)
    }

    fn start(name: &str, bucket: &str, command: impl Fn(u16, &Path) -> std::process::Command) -> Self {
        for attempt in 1.. {
            let dir = TempDir::new().unwrap();
            let reserved = ReservedPort::new();
            let port = reserved.port();
            let command = command(port, dir.path());
            drop(reserved);
            let process = Process::start(name, command, &dir.path().join("log"));
            let mut server = Self { process, port, dir, bucket: bucket.to_owned() };
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

    fn put_bucket(&self) {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(READY)).unwrap();
        write!(stream, "PUT /{} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", self.bucket, self.port)
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port, e.g. for a [`crate::Proxy`] in between.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The bucket's name.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// `s3://<bucket>/<prefix>`.
    #[must_use]
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{}/{prefix}", self.bucket)
    }

    /// What any S3 client needs in its environment.
    #[must_use]
    pub fn env(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ]
    }

    /// Where versitygw keeps the bucket's objects as files; moto has no such place.
    #[must_use]
    pub fn bucket_dir(&self) -> PathBuf {
        self.dir.path().join("buckets").join(&self.bucket)
    }

    /// The server's process, e.g. to freeze it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn find(variable: &str, name: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).or_else(|| peer(name).map(|peer| peer.path.clone()))
}
