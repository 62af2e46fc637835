//! What the tests of the client against the double share.
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use lifeboat_tests::peers::skipped;
use lifeboat_tests::{EtcdVersion, Workload};
use talos_api::{
    Client, Error, ErrorKind, Node, NodeName, Options as ClientOptions, ResetRequest, Selection, Service, SnapshotStream, Talosconfig,
};
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

/// How a reset before a recovery is asked for.
pub(crate) fn wipe(label: &str) -> ResetRequest {
    ResetRequest { graceful: false, reboot: true, wipe: vec![label.to_owned()] }
}

/// The state of a node's etcd once it is one of these.
pub(crate) async fn reach(node: &Node, states: &[&str]) -> Service {
    loop {
        // A node that restarts does not answer meanwhile.
        if let Ok(Some(service)) = node.service("etcd").await
            && states.contains(&service.state.as_str())
        {
            return service;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Resets a node and waits until it has come back with another boot id.
pub(crate) async fn reset(node: &Node, request: ResetRequest) {
    let before = node.boot_id().await.unwrap();
    assert!(!node.reset(request).await.unwrap().is_empty());
    reborn(node, &before).await;
}

/// Waits until a node was started again after the boot with this id.
pub(crate) async fn reborn(node: &Node, before: &str) {
    loop {
        if let Ok(id) = node.boot_id().await
            && id != before
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A node that waits for a bootstrap.
pub(crate) fn waiting() -> Option<TalosDouble> {
    start(Options::default().not_bootstrapped(), EtcdVersion::V3_6)
}

/// A snapshot of some other cluster.
pub(crate) fn taken() -> Option<Vec<u8>> {
    static TAKEN: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let take = || {
        let double = start(Options::default(), EtcdVersion::V3_6)?;
        Some(block_on(async {
            fill(&double, 29).await;
            snapshot(&admin(&double, 0)).await.unwrap()
        }))
    };
    TAKEN.get_or_init(take).clone()
}
