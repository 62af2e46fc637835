//! Emulators of Google Cloud Storage and of Azure Blob Storage as processes. What they lack: `crates/vault/tests/store_clouds`.

use crate::process::guarded;
use crate::server::{Server, find};

#[path = "../../crates/vault/tests/common/azure_account.rs"]
mod azure_account;
#[path = "../../crates/vault/tests/common/gcs_bridge.rs"]
mod gcs_bridge;

use azure_account::{ACCOUNT, ACCOUNT_KEY, ACCOUNT_SAS};

/// A running emulator with one bucket or container.
#[derive(Debug)]
pub struct CloudServer {
    #[expect(dead_code, reason = "it ends when it is dropped")]
    server: Server,
    scheme: &'static str,
    bucket: String,
    endpoint: String,
}

impl CloudServer {
    /// fake-gcs-server behind the bridge that lets it be written by the XML API. `None` when the program could not be had.
    #[must_use]
    pub fn google(bucket: &str) -> Option<Self> {
        let program = find("LIFEBOAT_TEST_FAKE_GCS", "fake-gcs-server")?;
        let server = Server::start("fake-gcs-server", |port, _| {
            let mut command = guarded(&program);
            command.args([
                "-scheme",
                "http",
                "-backend",
                "memory",
                "-log-level",
                "error",
                "-host",
                "127.0.0.1",
                "-port",
                &port.to_string(),
            ]);
            command.args(["-public-host", &format!("127.0.0.1:{port}")]);
            command
        });
        drop(server.request("POST", "/storage/v1/b", "Content-Type: application/json\r\n", &format!("{{\"name\":\"{bucket}\"}}")));
        let bridge = gcs_bridge::Bridge::before(([127, 0, 0, 1], server.port()).into());
        let endpoint = format!("http://{}", bridge.address);
        Some(Self { server, scheme: "gs", bucket: bucket.to_owned(), endpoint })
    }

    /// Azurite. `None` when the program could not be had.
    #[must_use]
    pub fn azure(container: &str) -> Option<Self> {
        let program = find("LIFEBOAT_TEST_AZURITE", "azurite")?;
        let server = Server::start("azurite", |port, dir| {
            let mut command = guarded(&program);
            command.current_dir(dir).env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{ACCOUNT_KEY}"));
            command.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string(), "--inMemoryPersistence", "--disableTelemetry"]);
            command
        });
        drop(server.request("PUT", &format!("/{ACCOUNT}/{container}?restype=container&{ACCOUNT_SAS}"), "", ""));
        let endpoint = format!("http://127.0.0.1:{}/{ACCOUNT}", server.port());
        Some(Self { server, scheme: "az", bucket: container.to_owned(), endpoint })
    }

    /// `gs://<bucket>/<prefix>` or `az://<container>/<prefix>`.
    #[must_use]
    pub fn url(&self, prefix: &str) -> String {
        format!("{}://{}/{prefix}", self.scheme, self.bucket)
    }

    /// Where it is found.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What the tools of its cloud need in their environment.
    #[must_use]
    pub fn env(&self) -> Vec<(&'static str, String)> {
        match self.scheme {
            "gs" => vec![("STORAGE_EMULATOR_HOST", self.endpoint.clone())],
            _ => vec![
                ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT.to_owned()),
                ("AZURE_STORAGE_ACCOUNT_KEY", ACCOUNT_KEY.to_owned()),
                ("AZURE_STORAGE_ENDPOINT", self.endpoint.clone()),
            ],
        }
    }
}
