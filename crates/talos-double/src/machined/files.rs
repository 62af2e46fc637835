//! Logs, files and directories.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use grpc_link::testing::{Encoder, Failure, Fields};

use super::{Ending, Out, Served};
use crate::message::{code, data, file_info, list_request, logs_request, read_request};
use crate::world::NodeState;

/// Talos' chunker reads this much at a time.
const PIECE: usize = 1024;
/// How often a log that is followed is looked at.
const FOLLOW: Duration = Duration::from_millis(100);

pub(super) async fn logs(node: &NodeState, request: &Fields, out: &Out) -> Served {
    let (id, follow) = (request.text(logs_request::ID), request.number(logs_request::FOLLOW) != 0);
    // int32 travels sign-extended.
    let tail = request.number(logs_request::TAIL_LINES).cast_signed();
    if request.text(logs_request::NAMESPACE) != "system" || id != "etcd" || node.kind != crate::world::Kind::ControlPlane {
        return Err(Failure::new(code::UNKNOWN, format!("log \"{id}\" was not registered")));
    }
    let path = node.etcd.lock().await.place.log.clone();
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let skip = usize::try_from(tail).map_or(0, |tail| lines.len().saturating_sub(tail));
    for piece in lines.get(skip..).unwrap_or_default().concat().as_bytes().chunks(PIECE) {
        if out.send(data(piece)).await.is_err() {
            return Ok(Ending::Ok);
        }
    }
    if follow {
        tokio::select! {
            () = follow_from(&path, text.len() as u64, out) => {}
            () = out.gone() => {}
        }
    }
    Ok(Ending::Ok)
}

/// Sends what is added to a log, until nobody reads it.
async fn follow_from(path: &Path, mut seen: u64, out: &Out) {
    loop {
        tokio::time::sleep(FOLLOW).await;
        let fresh = beyond(path, seen).unwrap_or_default();
        seen += fresh.len() as u64;
        for piece in fresh.chunks(PIECE) {
            if out.send(data(piece)).await.is_err() {
                return;
            }
        }
    }
}

fn beyond(path: &Path, offset: u64) -> std::io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut fresh = Vec::new();
    file.read_to_end(&mut fresh)?;
    Ok(fresh)
}

/// A path of the node within the directory that stands for its root.
fn within(node: &NodeState, path: &str) -> Result<PathBuf, Failure> {
    let path = Path::new(path);
    if !path.is_absolute() || path.components().any(|part| matches!(part, Component::ParentDir)) {
        return Err(Failure::new(code::UNKNOWN, "path must be absolute"));
    }
    Ok(node.root.join(path.strip_prefix("/").unwrap_or(path)))
}

fn missing(doing: &str, path: &str) -> String {
    format!("{doing} {path}: no such file or directory")
}

/// What the kernel would tell of its clock in a file that nobody wrote; `None` for any other. The node was started when its
/// boot id was made.
fn kernel_file(node: &NodeState, path: &str) -> Option<String> {
    let made = || std::fs::metadata(node.boot_id()).and_then(|facts| facts.modified());
    let up = || SystemTime::now().duration_since(made().unwrap()).unwrap_or_default();
    match path {
        "/proc/uptime" => Some(format!("{:.2} 0.00\n", up().as_secs_f64())),
        "/proc/stat" => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let started = (now - up()).as_secs().saturating_add_signed(node.switches().clock_ahead);
            Some(format!("cpu  1 0 1 1 0 0 0 0 0 0\nctxt 1\nbtime {started}\nprocesses 1\n"))
        }
        _ => None,
    }
}

pub(super) async fn read(node: &NodeState, request: &Fields, out: &Out) -> Served {
    let path = request.text(read_request::PATH);
    if let Some(text) = kernel_file(node, &path) {
        let _gone = out.send(data(text.as_bytes())).await;
        return Ok(Ending::Ok);
    }
    let place = within(node, &path)?;
    let Ok(facts) = std::fs::metadata(&place) else { return Err(Failure::new(code::NOT_FOUND, missing("stat", &path))) };
    if !facts.is_file() {
        return Err(Failure::new(code::UNKNOWN, "path must be a regular file"));
    }
    let mut file = std::fs::File::open(&place).map_err(|error| Failure::new(code::UNKNOWN, error.to_string()))?;
    let mut buffer = [0; PIECE];
    loop {
        // A read error ends the stream with OK, as with snapshots.
        let length = file.read(&mut buffer).unwrap_or(0);
        if length == 0 || out.send(data(&buffer[..length])).await.is_err() {
            return Ok(Ending::Ok);
        }
    }
}

pub(super) async fn list(node: &NodeState, request: &Fields, out: &Out) -> Served {
    let root = request.text(list_request::ROOT);
    let root = if root.is_empty() { "/".to_owned() } else { root };
    let depth =
        match (request.number(list_request::RECURSE) != 0, usize::try_from(request.number(list_request::RECURSION_DEPTH)).unwrap_or(0)) {
            (false, _) => 1,
            (true, 0) => usize::MAX,
            (true, depth) => depth,
        };
    let place = within(node, &root)?;
    let Ok(facts) = std::fs::symlink_metadata(&place) else {
        return Err(Failure::new(code::UNKNOWN, missing("lstat", &root)));
    };
    let mut waiting = vec![(place, root, ".".to_owned(), facts, 0)];
    while let Some((place, name, relative, facts, level)) = waiting.pop() {
        let info = Encoder::new()
            .bytes(file_info::NAME, &name)
            .number(file_info::SIZE, facts.len())
            .number(file_info::MODE, 0o600)
            .number(file_info::MODIFIED, 1)
            .flag(file_info::IS_DIR, facts.is_dir())
            .bytes(file_info::RELATIVE_NAME, &relative);
        if out.send(info).await.is_err() {
            return Ok(Ending::Ok);
        }
        if !facts.is_dir() || level >= depth {
            continue;
        }
        for entry in std::fs::read_dir(&place).into_iter().flatten().flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            let below = if relative == "." { file.clone() } else { format!("{relative}/{file}") };
            if let Ok(facts) = entry.metadata() {
                waiting.push((entry.path(), format!("{name}/{file}"), below, facts, level + 1));
            }
        }
    }
    Ok(Ending::Ok)
}
