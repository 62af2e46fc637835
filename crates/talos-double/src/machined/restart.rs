//! Resetting a node, and starting it anew.
//!
//! Source: reference Talos `internal/app/machined/internal/server/v1alpha1/v1alpha1_server.go` (`Reset`, `Reboot`,
//! `checkSupported`), `internal/app/machined/pkg/runtime/v1alpha1/v1alpha1_sequencer.go` (`Reset`: in a container the sequence only
//! stops everything and shuts down).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use grpc_link::testing::{Encoder, Failure, Fields};

use super::resources::volumes;
use crate::message::{code, reboot as reboot_fields, reset as reset_fields, reset_partition, reset_request};
use crate::world::{Kind, NodeState, World};

/// How long the node stays up after the answer; a real one takes longer to go down.
const GOING_DOWN: Duration = Duration::from_secs(1);

/// Reset: goes on after the answer.
pub(super) fn reset(world: &Arc<World>, node: &NodeState, request: &Fields) -> Result<Encoder, Failure> {
    let labels: Vec<String> =
        request.each(reset_request::SYSTEM_PARTITIONS_TO_WIPE).map(|spec| Fields::decode(spec).text(reset_partition::LABEL)).collect();
    let volumes = volumes(world);
    for label in &labels {
        let text = match volumes.iter().find(|volume| volume.label == label) {
            Some(volume) if volume.partition.is_some() => continue,
            Some(_) => format!("failed to reset: volume \"{label}\" is not located"),
            None => {
                let missing = format!("resource VolumeStatuses.block.talos.dev(runtime/{label}@undefined) doesn't exist");
                format!("failed to get volume status with label \"{label}\": {missing}")
            }
        };
        return Err(Failure::new(code::UNKNOWN, text));
    }
    let etcd_on = if world.options.etcd_partition { "ETCD" } else { "EPHEMERAL" };
    let order = if world.options.in_container() {
        // Everything is stopped and the container ends, whatever was asked for.
        Order { leave: false, reboot: false, wipe_etcd: false }
    } else if node.switches().take_ignored_reset() {
        Order { leave: false, reboot: true, wipe_etcd: false }
    } else {
        Order {
            leave: request.number(reset_request::GRACEFUL) != 0 && node.kind == Kind::ControlPlane,
            reboot: request.number(reset_request::REBOOT) != 0,
            wipe_etcd: labels.is_empty() || labels.iter().any(|label| label == etcd_on),
        }
    };
    node.resetting.store(true, Ordering::Relaxed);
    tokio::spawn(carry_out(Arc::clone(world), node.index, order));
    Ok(Encoder::new().bytes(reset_fields::ACTOR_ID, format!("reset-{}", node.index)))
}

/// Reboot: goes on after the answer.
pub(super) fn reboot(world: &Arc<World>, node: &NodeState) -> Result<Encoder, Failure> {
    if world.options.in_container() {
        return Err(Failure::new(code::FAILED_PRECONDITION, "method is not supported in container mode"));
    }
    reboot_later(world, node, GOING_DOWN);
    Ok(Encoder::new().bytes(reboot_fields::ACTOR_ID, format!("reboot-{}", node.index)))
}

/// Lets a node reboot by itself after a while.
pub(super) fn reboot_later(world: &Arc<World>, node: &NodeState, pause: Duration) {
    let (world, index) = (Arc::clone(world), node.index);
    tokio::spawn(async move {
        tokio::time::sleep(pause).await;
        super::reboot(&world, index).await;
    });
}

/// What a reset has to do.
struct Order {
    leave: bool,
    reboot: bool,
    wipe_etcd: bool,
}

async fn carry_out(world: Arc<World>, index: usize, order: Order) {
    tokio::time::sleep(GOING_DOWN).await;
    let Some(node) = world.nodes.get(index) else { return };
    if order.leave && super::etcd::leave(&world, node).await.is_err() {
        // The sequence ends there; the node stays as it is.
        node.resetting.store(false, Ordering::Relaxed);
        return;
    }
    node.up.send_replace(false);
    node.halt_boot().await;
    let mut etcd = node.etcd.lock().await;
    etcd.stop("Finished", "Service finished successfully");
    if order.wipe_etcd {
        etcd.wipe(false);
        let _gone = std::fs::remove_file(&etcd.place.recovery);
    }
    drop(etcd);
    node.resetting.store(false, Ordering::Relaxed);
    if order.reboot {
        super::reboot(&world, index).await;
    }
}
