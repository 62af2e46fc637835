//! What the tests of the client against the double share.
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use lifeboat_tests::peers::skipped;
use lifeboat_tests::{EtcdVersion, Workload};
use talos_api::{Client, Error, ErrorKind, Node, NodeName, Options as ClientOptions, Selection, SnapshotStream, Talosconfig};
use talos_double::{Options, TalosDouble};

/// Longer than any test takes on a slow machine: what waits for ever fails.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs a test's calls.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    lifeboat_tests::matrix::block_on(async { tokio::time::timeout(PATIENCE, work).await.expect("it must not wait for ever") })
}

/// A running double, or a word that its etcd is not here.
pub(crate) fn start(options: Options, etcd: EtcdVersion) -> Option<TalosDouble> {
    if !etcd.available() {
        skipped(format_args!("etcd {etcd} is not available"));
        return None;
    }
    Some(TalosDouble::start(options.etcd(etcd)))
}

/// A client as a user with one of the double's contexts has it.
pub(crate) fn client(double: &TalosDouble, context: &str) -> Client {
    select(&double.talosconfig(), Selection { context: Some(context.to_owned()), ..Selection::default() })
}

/// A client whose only endpoints are these.
pub(crate) fn client_through(double: &TalosDouble, context: &str, endpoints: &[String]) -> Client {
    let selection = Selection { context: Some(context.to_owned()), endpoints: endpoints.to_vec(), ..Selection::default() };
    select(&double.talosconfig(), selection)
}

/// A client from a talosconfig.
pub(crate) fn select(talosconfig: &Path, selection: Selection) -> Client {
    let access = Talosconfig::read(talosconfig).unwrap().select(&selection).unwrap();
    Client::new(&access, ClientOptions::default())
}

/// A node by its number in the double.
pub(crate) fn node(double: &TalosDouble, client: &Client, index: usize) -> Node {
    client.node(&NodeName::parse(&double.node_ip(index).to_string()).unwrap())
}

/// The admin's view of a node.
pub(crate) fn admin(double: &TalosDouble, index: usize) -> Node {
    node(double, &client(double, "admin"), index)
}

/// Fills etcd with what Kubernetes would.
pub(crate) async fn fill(double: &TalosDouble, seed: u64) {
    let client = double.etcd_client(0).await.unwrap();
    Workload::small(seed).apply(&client).await;
}

/// Reads a snapshot to its proven end.
pub(crate) async fn drain(mut stream: SnapshotStream) -> Result<(Vec<u8>, [u8; 32]), Error> {
    let mut all = Vec::new();
    while let Some(piece) = stream.next().await? {
        all.extend_from_slice(&piece);
    }
    let summary = stream.finish()?;
    assert_eq!(all.len() as u64, summary.database_size);
    Ok((all, summary.sha256))
}

/// A whole snapshot file: database and digest.
pub(crate) async fn snapshot(node: &Node) -> Result<Vec<u8>, Error> {
    let (mut file, digest) = drain(node.etcd_snapshot(etcd_api::SnapshotLimits::default()).await?).await?;
    file.extend_from_slice(&digest);
    Ok(file)
}

/// Uploads a snapshot file for a recovery.
pub(crate) async fn upload(node: &Node, file: &[u8]) -> Result<(), Error> {
    let mut upload = node.etcd_recover().await?;
    upload.send(Bytes::copy_from_slice(file)).await?;
    upload.finish().await
}

/// The kind of an error that must have happened.
#[track_caller]
pub(crate) fn kind<T: std::fmt::Debug>(outcome: Result<T, Error>) -> ErrorKind {
    outcome.expect_err("it must fail").kind().clone()
}
