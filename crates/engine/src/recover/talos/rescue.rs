//! Saving what a node holds before it is wiped: its snapshot; where etcd does not run, its database file, byte for byte.

use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use serde_json::{Value, json};
use talos_api::Node;

use super::drive::Recovery;
use super::plan::PlannedNode;
use crate::access::Access;
use crate::failure::{Failure, Outcome};
use crate::seal_pipeline::on_thread;
use crate::snapshot_file::{self, SaveRequest, Target};
use crate::talos::TalosOptions;
use crate::talos::failure::failure;
use crate::temporary::Temporary;

/// Where a member's database is on a node.
const DATABASE: &str = "/var/lib/etcd/member/snap/db";
/// How often a file is read until two readings are equal.
const READINGS: usize = 4;
/// Bytes of a page of the smallest kind: less than this is no database.
const LEAST: u64 = 4096;

/// The names a rescue can have: a snapshot that etcd gave, and a file that was read from a disk.
#[must_use]
pub(super) fn names(to: &Path) -> (PathBuf, PathBuf) {
    (to.with_extension("db"), to.with_extension("dirty.db"))
}

impl Recovery {
    /// What a run before this one rescued of a node.
    pub(super) async fn rescued(&self, node: &PlannedNode, to: &Path) -> Option<Value> {
        let (clean, dirty) = names(to);
        if clean.exists() {
            return Some(described(node, &clean, true).await);
        }
        if dirty.exists() { Some(described(node, &dirty, false).await) } else { None }
    }

    /// Carries the step out.
    pub(super) async fn rescue(&self, node: &PlannedNode, to: &Path) -> Outcome<Value> {
        if let Some(directory) = to.parent() {
            disk::create_dir_all(directory, 0o700).map_err(|error| {
                Failure::failed(format!("the directory for rescue files cannot be made: {error}")).object(directory.display()).again()
            })?;
        }
        let (clean, dirty) = names(to);
        let asked = self.node(node)?;
        // Without a running etcd there is no snapshot; without a quorum there is one all the same.
        if asked.etcd_status().await.is_ok() {
            match self.snapshot(node, &clean).await {
                Ok(()) => return Ok(described(node, &clean, true).await),
                Err(failure) => {
                    self.progress.say(&format!("{}: no snapshot can be had ({}), so its file is read", node.name, said(&failure)))
                }
            }
        }
        self.read_file(&asked, node, &dirty).await?;
        Ok(described(node, &dirty, false).await)
    }

    async fn snapshot(&self, node: &PlannedNode, to: &Path) -> Outcome<()> {
        let options = TalosOptions { nodes: vec![node.address.clone()], direct: false, ..self.talos.clone() };
        let request = SaveRequest {
            source: Access::Talos(options),
            keepalive_time: None,
            keepalive_timeout: None,
            timeout: None,
            target: Target::File(to.to_owned()),
            check: true,
        };
        snapshot_file::save(request, std::sync::Arc::clone(&self.progress)).await.map(drop)
    }

    /// Reads the database file until two readings are equal: etcd may write to it meanwhile. Talos ends a file that it could not read to its end with OK,
    /// so the size is compared as well.
    async fn read_file(&self, asked: &Node, node: &PlannedNode, to: &Path) -> Outcome<()> {
        let mut before = None;
        for reading in 1..=READINGS {
            let (temporary, file) = Temporary::create(to)?;
            let (digest, length) = self.download(asked, file).await?;
            let told = asked.list("/var/lib/etcd/member/snap", 1).await.ok();
            let told = told.and_then(|files| files.into_iter().find(|file| file.name == "db")).map(|file| file.size);
            let is_whole = length >= LEAST && told.is_none_or(|told| told == length);
            let is_same = before.as_ref() == Some(&digest);
            if is_whole && (is_same || reading == READINGS) {
                if !is_same {
                    self.progress
                        .say(&format!("warning: the database of {} changed while it was read; what was read last is kept", node.name));
                }
                return temporary.place();
            }
            if reading == READINGS {
                return Err(Failure::failed(format!("the database of {} cannot be read to its end", node.name))
                    .object(format!("{DATABASE} on {}", node.address))
                    .cause(format!(
                        "{length} bytes came of {}; its disk may be failing. --abandon, then --no-rescue goes without",
                        told.unwrap_or_default()
                    ))
                    .again());
            }
            before = Some(digest);
        }
        Err(Failure::failed("the database was not read; this is a bug in Lifeboat"))
    }

    /// One reading; its digest and length. The file is durable.
    async fn download(&self, asked: &Node, file: disk::File) -> Outcome<([u8; 32], u64)> {
        let cannot = |error: std::io::Error| Failure::failed(format!("the rescue file cannot be written: {error}")).again();
        let wrong = |error: talos_api::Error| failure("the database of the node cannot be read", &error);
        let mut stream = asked.read(DATABASE).await.map_err(wrong)?;
        let (mut hash, mut length) = (Context::new(&SHA256), 0_u64);
        while let Some(piece) = stream.next().await.map_err(wrong)? {
            hash.update(&piece);
            file.write_all_at(&piece, length).map_err(cannot)?;
            length += piece.len() as u64;
            self.progress.bytes("rescue", length, None);
        }
        self.progress.done();
        on_thread("sync", move || Ok(file.sync())).await?.map_err(cannot)?;
        let mut digest = [0; 32];
        digest.copy_from_slice(hash.finish().as_ref());
        Ok((digest, length))
    }
}

/// What a rescue file holds. One that is damaged is kept as it is, and said to be.
async fn described(node: &PlannedNode, path: &Path, clean: bool) -> Value {
    let file = path.to_owned();
    let facts = on_thread("look", move || Ok(snapshot_file::facts(&file, !clean))).await;
    match facts.and_then(|facts| facts) {
        Ok(facts) => {
            json!({"node": node.name, "file": path, "clean": clean, "sound": true, "revision": facts.revision, "keys": facts.live_keys})
        }
        Err(failure) => json!({"node": node.name, "file": path, "clean": clean, "sound": false, "why": said(&failure)}),
    }
}

fn said(failure: &Failure) -> String {
    match &failure.cause {
        Some(cause) => format!("{}: {cause}", failure.what),
        None => failure.what.clone(),
    }
}
