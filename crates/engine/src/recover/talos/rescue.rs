//! Saving what a node holds before it is wiped: its snapshot; where etcd does not run, its database file, byte for byte.

use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use serde_json::{Value, json};
use talos_api::Node;

use super::drive::Recovery;
use super::plan::PlannedNode;
use crate::access::Access;
use crate::backup;
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;
use crate::seal_pipeline::on_thread;
use crate::snapshot_file::{self, SaveRequest, Target};
use crate::talos::TalosOptions;
use crate::talos::failure::failure;
use crate::temporary::Temporary;

/// Where a member's database is on a node.
const DATABASE: &str = "/var/lib/etcd/member/snap/db";
/// How often a file is read until two readings are equal.
const READINGS: usize = 4;
/// Bytes that are written to a rescue file at a time.
const STEP: usize = 1 << 20;
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
    pub(super) async fn rescue(&self, node: &PlannedNode, to: &Path, may_fail: bool) -> Outcome<Value> {
        let asked = self.node(node)?;
        // Of which state this is, so that a later one is not taken for it.
        let boot_id = asked.boot_id().await.ok();
        let applied = asked.etcd_status().await.ok().map(|status| status.raft_applied_index);
        let mut rescued = match self.rescue_once(node, to, applied.is_some() && !may_fail).await {
            Err(failure) if may_fail => {
                self.progress.say(&format!("warning: what {} holds is not rescued: {}", node.name, said(&failure)));
                json!({"node": node.name, "file": null, "clean": false, "sound": false, "why": said(&failure)})
            }
            rescued => rescued?,
        };
        rescued["boot_id"] = boot_id.into();
        rescued["applied"] = applied.into();
        Ok(rescued)
    }

    async fn rescue_once(&self, node: &PlannedNode, to: &Path, must_be_sound: bool) -> Outcome<Value> {
        if let Some(directory) = to.parent() {
            disk::create_dir_all(directory, 0o700).map_err(|error| {
                Failure::failed(format!("the directory for rescue files cannot be made: {error}")).object(directory.display()).again()
            })?;
        }
        let (clean, dirty) = names(to);
        let asked = self.node(node)?;
        // Without a running etcd there is no snapshot; without a quorum there is one all the same.
        if asked.etcd_status().await.is_ok() {
            match self.snapshot(node, &clean, true, std::sync::Arc::clone(&self.progress)).await {
                Ok(()) => return Ok(self.kept(&asked, described(node, &clean, true).await, &clean, true).await),
                Err(failure) => {
                    self.progress.say(&format!("{}: no snapshot can be had ({}), so its file is read", node.name, said(&failure)))
                }
            }
        }
        self.read_file(&asked, node, &dirty).await?;
        let described = described(node, &dirty, false).await;
        if must_be_sound && described.get("sound").and_then(Value::as_bool) != Some(true) {
            return Err(Failure::failed(format!("{} runs, and neither a snapshot of it nor its file is sound", node.name))
                .object(dirty.display())
                .cause(format!(
                    "{}; --abandon, then --no-rescue wipes it without",
                    described.get("why").and_then(Value::as_str).unwrap_or_default()
                ))
                .again());
        }
        Ok(self.kept(&asked, described, &dirty, false).await)
    }

    /// Puts a sound rescue into the repository too, where there is one and recipients are known. That it could not be costs a word: the file is here.
    async fn kept(&self, asked: &Node, mut described: Value, file: &Path, clean: bool) -> Value {
        let (Some(keep), Some(true)) = (&self.keep, described.get("sound").and_then(Value::as_bool)) else { return described };
        let status = asked.etcd_status().await.ok();
        let name = described.get("node").and_then(Value::as_str).unwrap_or_default().to_owned();
        let request = backup::RescueRequest {
            file: file.to_owned(),
            clean,
            member: status.as_ref().map(|status| vault::manifest::Member { id: status.member_id, name: name.clone() }),
            etcd: status.map(|status| status.version),
            talos: asked.version().await.ok().map(|version| version.tag),
            tags: Vec::new(),
            ..keep.clone()
        };
        match backup::rescue(request, std::sync::Arc::clone(&self.progress)).await {
            Ok(committed) => {
                let id = committed.manifest.id.to_string();
                self.progress.say(&format!("{name}: kept in the repository as {id}"));
                described["backup"] = id.into();
            }
            Err(failure) => {
                self.progress.say(&format!("warning: what {name} held is kept here only, not in the repository: {}", said(&failure)));
                described["not_in_repository"] = said(&failure).into();
            }
        }
        described
    }

    /// A snapshot of what runs on a node, into a file; with `check` its structure is proven first.
    pub(super) async fn snapshot(&self, node: &PlannedNode, to: &Path, check: bool, progress: std::sync::Arc<dyn Progress>) -> Outcome<()> {
        let options = TalosOptions { nodes: vec![node.address.clone()], direct: false, ..self.talos.clone() };
        let request = SaveRequest {
            source: Access::Talos(options),
            keepalive_time: None,
            keepalive_timeout: None,
            timeout: None,
            target: Target::File(to.to_owned()),
            check,
        };
        snapshot_file::save(request, progress).await.map(drop)
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
        let (mut hash, mut length, mut waiting) = (Context::new(&SHA256), 0_u64, Vec::with_capacity(STEP));
        // Talos sends a KiB at a time.
        while let Some(piece) = stream.next().await.map_err(wrong)? {
            hash.update(&piece);
            waiting.extend_from_slice(&piece);
            if waiting.len() >= STEP {
                file.write_all_at(&waiting, length).map_err(cannot)?;
                length += waiting.len() as u64;
                waiting.clear();
                self.progress.bytes("rescue", length, None);
            }
        }
        self.progress.done();
        file.write_all_at(&waiting, length).map_err(cannot)?;
        length += waiting.len() as u64;
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
