#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use etcd_api::testing::{Behaviour, MisbehavingEtcd, Script};
use etcd_api::{Client, ConnectOptions, Endpoint, Error, SnapshotLimits, SnapshotSummary};

/// A database of this many 512-byte units whose every byte depends on its place.
pub(crate) fn database(units: usize) -> Vec<u8> {
    (0..units * 512).map(|i| (i * 31 + i / 512 * 7 + i / 65536) as u8).collect()
}

pub(crate) fn endpoint(text: &str) -> Endpoint {
    Endpoint::parse(text, false).unwrap()
}

pub(crate) async fn connect(double: &MisbehavingEtcd) -> Client {
    Client::connect(endpoint(double.endpoint()), &ConnectOptions::default()).await.unwrap()
}

/// Limits short enough for a test to wait for.
pub(crate) fn quick() -> SnapshotLimits {
    SnapshotLimits { idle_timeout: Duration::from_secs(4), ..SnapshotLimits::default() }
}

/// Starts a double, drains its snapshot, and returns what came of it.
pub(crate) async fn drain(behaviour: Behaviour, script: Script) -> (MisbehavingEtcd, Result<(Vec<u8>, SnapshotSummary), Error>) {
    let double = MisbehavingEtcd::start(behaviour, script).await.unwrap();
    let client = connect(&double).await;
    let drained = drain_from(&client, quick()).await;
    (double, drained)
}

pub(crate) async fn drain_from(client: &Client, limits: SnapshotLimits) -> Result<(Vec<u8>, SnapshotSummary), Error> {
    let mut stream = client.snapshot(limits).await?;
    let mut out = Vec::new();
    while let Some(piece) = stream.next().await? {
        assert!(!piece.is_empty());
        out.extend_from_slice(&piece);
        assert!(stream.received() >= out.len() as u64);
    }
    Ok((out, stream.finish()?))
}
