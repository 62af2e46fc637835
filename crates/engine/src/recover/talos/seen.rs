//! One node at one moment, as far as a step has to know it.

use talos_api::{ErrorClass, ErrorKind, MachineStage, Node, NodeName, ServiceHealth};

use super::evidence::Data;
use super::plan::PlannedNode;
use crate::failure::{Failure, Outcome};
use crate::talos::failure::failure;

/// Where etcd's data are on a node (Talos `pkg/machinery/constants`, `EtcdDataPath`).
pub(super) const DATA: &str = "/var/lib/etcd";
/// Where the database is in it.
const DATABASE: &str = "/var/lib/etcd/member/snap";
/// Bytes of the smallest page a database has.
const PAGE: u64 = 4096;
/// Where an upload lies, and its name there.
const UPLOAD: (&str, &str) = ("/var/lib", "etcd.snapshot");
/// What an empty filesystem may hold.
const NO_DATA: &str = "lost+found";

/// A node that answers.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// The id of this boot.
    pub(super) boot_id: String,
    /// How far the machine has come.
    pub(super) stage: MachineStage,
    /// State of the service etcd; empty where there is none yet.
    pub(super) state: String,
    /// Whether it is well.
    pub(super) health: ServiceHealth,
    /// The last thing that happened to it.
    pub(super) event: String,
    /// What lies in etcd's directory.
    pub(super) data: Data,
}

impl Seen {
    /// Whether it is empty and waits for a bootstrap or a cluster to join.
    pub(super) fn is_clean(&self) -> bool {
        self.data == Data::None
            && matches!(self.state.as_str(), "Preparing" | "Waiting" | "Failed")
            && self.stage != MachineStage::Resetting
    }

    /// Whether etcd runs and is well.
    pub(super) fn is_well(&self) -> bool {
        self.state == "Running" && self.health == ServiceHealth::Healthy
    }

    /// What tells one state from another; without texts, which differ each time etcd is started anew.
    pub(super) fn mark(&self) -> (String, bool, String) {
        (self.state.clone(), self.data == Data::None, self.boot_id.clone())
    }

    /// In words.
    pub(super) fn words(&self) -> String {
        let data = match &self.data {
            Data::None => "no data",
            Data::There { .. } => "data",
            Data::Unknown(_) => "unknown data",
        };
        format!("etcd is {}, with {data} ({})", if self.state.is_empty() { "not there yet" } else { &self.state }, self.event)
    }
}

/// Looks at a node; the error says why it does not answer.
pub(super) async fn see(node: &Node) -> Result<Seen, String> {
    let words = |error: talos_api::Error| error.kind().to_string();
    let (boot_id, status, service, data) = tokio::join!(node.boot_id(), node.machine_status(), node.service("etcd"), data(node));
    let boot_id = boot_id.map_err(words)?;
    let service = service.map_err(words)?;
    let (state, health, event) = match service {
        Some(service) => {
            let event = service.events.last().map(|event| event.message.clone()).unwrap_or_default();
            (service.state, service.health, event)
        }
        None => (String::new(), ServiceHealth::Unknown, String::new()),
    };
    // A look that a reboot came between says nothing of either boot.
    if node.boot_id().await.map_err(words)? != boot_id {
        return Err("it was starting anew while it was looked at".to_owned());
    }
    let stage = status.map_err(words)?.map_or(MachineStage::Unknown, |status| status.stage);
    Ok(Seen { boot_id, stage, state, health, event, data })
}

/// What lies in etcd's directory on a node.
pub(super) async fn data(node: &Node) -> Data {
    let entries = match node.list(DATA, 1).await {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound(_)) => return Data::None,
        Err(error) => return Data::Unknown(error.kind().to_string()),
    };
    if entries.iter().all(|entry| entry.name == NO_DATA) {
        return Data::None;
    }
    let database = match node.list(DATABASE, 1).await {
        Ok(files) => files.into_iter().find(|file| file.name == "db" && !file.is_directory).map(|file| file.size),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound(_)) => None,
        Err(error) => return Data::Unknown(error.kind().to_string()),
    };
    // Less than a page is no database: a write that never came to anything.
    Data::There { database: database.filter(|size| *size >= PAGE) }
}

/// Whether an upload lies on a node: an order to restore it may still be in its memory.
pub(super) async fn has_upload(node: &Node) -> bool {
    node.list(UPLOAD.0, 1).await.is_ok_and(|entries| entries.iter().any(|entry| entry.name == UPLOAD.1))
}

/// A planned node, as it is asked.
pub(super) fn node(client: &talos_api::Client, planned: &PlannedNode) -> Outcome<Node> {
    let name = NodeName::parse(&planned.address)
        .map_err(|error| Failure::failed("the plan names a node by what is no address").object(&planned.address).cause(error).again())?;
    Ok(client.node(&name))
}

/// Whether a call may be tried again after this: the node is on its way, or nobody knows whether it heard.
pub(super) fn may_pass(error: &talos_api::Error) -> bool {
    matches!(error.class(), ErrorClass::Unreachable)
        || matches!(error.kind(), ErrorKind::NotReady(_) | ErrorKind::Unavailable(_) | ErrorKind::Timeout(_) | ErrorKind::EtcdSilent(_))
}

/// A call to a node that was refused for good.
pub(super) fn refused(what: &str, error: &talos_api::Error) -> Failure {
    failure(what, error)
}
