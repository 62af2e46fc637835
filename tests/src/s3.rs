//! Real S3 servers as processes.

use std::path::PathBuf;

use crate::process::{Process, guarded};
use crate::server::{Server, find};

/// A running S3 server with one bucket.
#[derive(Debug)]
pub struct S3Server {
    server: Server,
    bucket: String,
}

/// The credentials every fixture accepts.
pub const ACCESS_KEY: &str = "lifeboat-test";
/// See [`ACCESS_KEY`].
pub const SECRET_KEY: &str = "lifeboat-test-secret";
/// The region every fixture is in.
pub const REGION: &str = "us-east-1";

impl S3Server {
    /// versitygw over a temporary directory: signatures and conditions are really checked. `None` when the program could not be had.
    #[must_use]
    pub fn versitygw(bucket: &str) -> Option<Self> {
        let program = find("LIFEBOAT_TEST_S3_VERSITYGW", "versitygw")?;
        let server = Server::start("versitygw", |port, dir| {
            std::fs::create_dir_all(dir.join("buckets").join(bucket)).unwrap();
            let mut command = guarded(&program);
            command
                .args(["--quiet", "--port", &format!("127.0.0.1:{port}"), "--region", REGION, "posix"])
                .arg(dir.join("buckets"))
                .env("ROOT_ACCESS_KEY", ACCESS_KEY)
                .env("ROOT_SECRET_KEY", SECRET_KEY);
            command
        });
        Some(Self { server, bucket: bucket.to_owned() })
    }

    /// moto, in memory: another implementation, which accepts any signature. `None` when the program could not be had.
    #[must_use]
    pub fn moto(bucket: &str) -> Option<Self> {
        let program = find("LIFEBOAT_TEST_S3_MOTO", "moto")?;
        let server = Server::start("moto", |port, _| {
            let mut command = guarded(&program);
            command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
            command
        });
        let server = Self { server, bucket: bucket.to_owned() };
        server.put_bucket();
        Some(server)
    }

    fn put_bucket(&self) {
        drop(self.server.request("PUT", &format!("/{}", self.bucket), "", ""));
    }

    /// `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    /// The port, e.g. for a [`crate::Proxy`] in between.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server.port()
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
        self.server.dir().join("buckets").join(&self.bucket)
    }

    /// The server's process, e.g. to freeze it.
    pub fn process(&mut self) -> &mut Process {
        self.server.process()
    }
}
