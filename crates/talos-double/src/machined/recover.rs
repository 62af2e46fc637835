//! Uploading a snapshot, bootstrapping, resetting.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use grpc_link::testing::{Encoder, Failure, Fields, Messages};

use super::resources::volumes;
use super::{Ending, Out, Served, boot};
use crate::etcd::Intent;
use crate::message::{
    answer, bootstrap_request, code, data_fields, reboot as reboot_fields, reset as reset_fields, reset_partition, reset_request,
};
use crate::world::{Kind, NodeState, World};

/// EtcdRecover: writes what comes; a stream that breaks leaves nothing.
pub(super) async fn upload(node: &NodeState, mut messages: Messages, out: &Out) -> Served {
    let path = node.etcd.lock().await.place.recovery.clone();
    if !path.parent().is_some_and(std::path::Path::is_dir) {
        return Err(Failure::new(code::FAILED_PRECONDITION, "etcd service is not ready for recovery yet"));
    }
    let mut file = std::fs::File::create(&path).map_err(|error| Failure::new(code::UNKNOWN, error.to_string()))?;
    while let Some(message) = messages.next().await {
        file.write_all(Fields::decode(&message).bytes(data_fields::BYTES))
            .map_err(|error| Failure::new(code::UNKNOWN, error.to_string()))?;
    }
    if !messages.ended() {
        std::fs::remove_file(&path).unwrap();
        return Err(Failure::new(code::CANCELED, "context canceled"));
    }
    file.sync_all().map_err(|error| Failure::new(code::UNKNOWN, error.to_string()))?;
    let _gone = out.send(answer(Encoder::new())).await;
    Ok(Ending::Ok)
}

/// Bootstrap returns when the service is started, not when the restore ran.
pub(super) async fn bootstrap(world: &Arc<World>, node: &NodeState, request: &Fields) -> Result<Encoder, Failure> {
    if node.is_resetting() {
        return Err(Failure::new(code::FAILED_PRECONDITION, "bootstrap is not available yet"));
    }
    if node.switches().time_unsynced {
        return Err(Failure::new(code::FAILED_PRECONDITION, "time is not in sync yet"));
    }
    let mut etcd = node.etcd.lock().await;
    if etcd.place.has_data() {
        return Err(Failure::new(code::ALREADY_EXISTS, "etcd data directory is not empty"));
    }
    let intent = Intent {
        recover: request.number(bootstrap_request::RECOVER_ETCD) != 0,
        skip_hash_check: request.number(bootstrap_request::RECOVER_SKIP_HASH_CHECK) != 0,
    };
    if node.switches().forget_bootstrap {
        return Ok(Encoder::new());
    }
    etcd.intent = Some(intent);
    drop(etcd);
    // A service that failed before waits for nothing any more.
    boot(world, node.index).await;
    Ok(Encoder::new())
}

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
    let order = Order {
        leave: request.number(reset_request::GRACEFUL) != 0 && node.kind == Kind::ControlPlane,
        reboot: request.number(reset_request::REBOOT) != 0,
        wipe_etcd: labels.is_empty() || labels.iter().any(|label| label == etcd_on),
    };
    node.resetting.store(true, Ordering::Relaxed);
    tokio::spawn(carry_out(Arc::clone(world), node.index, order));
    Ok(Encoder::new().bytes(reset_fields::ACTOR_ID, format!("reset-{}", node.index)))
}

/// Reboot: goes on after the answer.
pub(super) fn reboot(world: &Arc<World>, node: &NodeState) -> Encoder {
    let (world, index) = (Arc::clone(world), node.index);
    tokio::spawn(async move {
        tokio::time::sleep(GOING_DOWN).await;
        super::reboot(&world, index).await;
    });
    Encoder::new().bytes(reboot_fields::ACTOR_ID, format!("reboot-{}", node.index))
}

/// What a reset has to do.
struct Order {
    leave: bool,
    reboot: bool,
    wipe_etcd: bool,
}

/// How long the node stays up after the answer; a real one takes longer to go down.
const GOING_DOWN: Duration = Duration::from_secs(1);

async fn carry_out(world: Arc<World>, index: usize, order: Order) {
    tokio::time::sleep(GOING_DOWN).await;
    let Some(node) = world.nodes.get(index) else { return };
    if order.leave && super::etcd::leave(&world, node).await.is_err() {
        // The sequence ends there; the node stays as it is.
        node.resetting.store(false, Ordering::Relaxed);
        return;
    }
    node.up.send_replace(false);
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
