//! Sound inputs for each target, made anew each time: by the product's own writers, from the golden repository, or by hand where only etcd writes them.

mod etcd;
mod repository;
mod talos;
mod wire;

pub(crate) use etcd::{databases, edits, hash_kv, models, raft_snapshots, records, snapshots, values, wal};
pub(crate) use repository::{configs, frames, keys, lineages, manifests, marks, plans, sealed, signatures};
pub(crate) use talos::{journals, machine_configs, talos_answers, talos_streams, talosconfigs};
pub(crate) use wire::{answers, objects, snapshot_streams, watch_streams};
