//! Uploading a snapshot, and bootstrapping.

use std::io::Write;
use std::sync::Arc;

use grpc_link::testing::{Encoder, Failure, Fields, Messages};

use super::restart::reboot_later;
use super::{Ending, Out, Served, boot};
use crate::etcd::Intent;
use crate::message::{answer, bootstrap_request, code, data_fields};
use crate::world::{NodeState, World};

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
    let again = node.switches().take_reboot();
    if let Some(pause) = again {
        reboot_later(world, node, pause);
    }
    Ok(Encoder::new())
}
