//! Entry points for fuzzing: what a Talos node may send, and what a talosconfig may hold. None of them may panic or allocate without bound, whatever
//! arrives.

use std::time::Duration;

use etcd_api::SnapshotLimits;
use grpc_link::Fate;
use prost::Message;
use ring::digest;

use crate::client::method;
use crate::pb;
use crate::role::Roles;
use crate::snapshot::check::Checker;
use crate::status::Asked;
use crate::talosconfig::{Selection, Talosconfig};
use crate::types::etcd::{alarms, member};
use crate::types::machine::{boot_id, wall_clock};
use crate::types::resource::{Kind, LocalMember, NodeAddresses};
use crate::types::{
    ClusterMember, Diagnostic, EtcdSpec, EtcdStatus, MachineConfig, MachineStatus, MachineType, Memory, Mount, Service, TimeStatus,
    Version, Volume,
};

/// The text of a talosconfig, and each of its contexts taken apart. No text of an error quotes more of it than its place.
pub fn talosconfig(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Ok(config) = Talosconfig::parse(text) else { return };
    for context in config.contexts() {
        let selection = Selection { context: Some(context), ..Selection::default() };
        match config.select(&selection) {
            Ok(access) => assert!(!access.endpoints.is_empty(), "an access without an endpoint"),
            Err(error) => drop(error.to_string()),
        }
    }
}

/// An answer to a unary call, a resource, or a file of the kernel's; the first byte says which. All of it as the text of a status, too.
pub fn answer(bytes: &[u8]) {
    let Some((call, bytes)) = bytes.split_first() else { return };
    status_text(i32::from(*call), &String::from_utf8_lossy(bytes));
    match call % 18 {
        0 => decoded(bytes, |answer: pb::EtcdStatus| drop(EtcdStatus::from_wire(answer))),
        1 => decoded(bytes, |answer: pb::EtcdMember| drop(member(answer))),
        2 => decoded(bytes, |answer: pb::EtcdAlarm| drop(alarms(answer))),
        3 => decoded(bytes, |answer: pb::Version| drop(Version::from_wire(answer))),
        4 => decoded(bytes, |answer: pb::Memory| {
            let _ = Memory::from_wire(answer);
        }),
        5 => decoded(bytes, |answer: pb::ServiceInfo| drop(Service::from(answer))),
        6 => decoded(bytes, |answer: pb::MountStat| drop(Mount::from(answer))),
        7 => drop(MachineType::read("id", bytes)),
        8 => drop(MachineConfig::read("id", bytes)),
        9 => drop(ClusterMember::read("id", bytes)),
        10 => drop(LocalMember::read("id", bytes).is_some()),
        11 => drop(EtcdSpec::read("id", bytes).and_then(|spec| spec.quota()).is_some()),
        12 => drop(NodeAddresses::read("id", bytes)),
        13 => drop(Volume::read("id", bytes)),
        14 => drop(MachineStatus::read("id", bytes)),
        15 => drop(Diagnostic::read("id", bytes)),
        16 => {
            let _ = TimeStatus::read("id", bytes);
        }
        _ => {
            let (stat, uptime) = bytes.split_at(bytes.iter().position(|&byte| byte == 0).unwrap_or(0));
            let _ = (wall_clock(stat, uptime.get(1..).unwrap_or_default()), boot_id(bytes));
        }
    }
}

/// A status, whose text decides what kind of failure it is and is shown to people.
fn status_text(code: i32, text: &str) {
    let roles = Roles::default();
    let asked = Asked { method: &method::ETCD_STATUS, limit: Duration::from_secs(1), roles: &roles };
    let kind = asked.classify(&tonic::Status::new(tonic::Code::from_i32(code % 17), text), &Fate::default());
    assert!(!kind.to_string().chars().any(char::is_control), "a control character reaches the terminal");
}

/// A snapshot stream, cut into pieces as long as the bytes before each say: as it is, then filled up to whole pages with its digest behind, which no
/// fuzzer would find by itself. What counts as whole is what arrived, to the byte.
pub fn snapshot_stream(bytes: &[u8]) {
    drain(&pieces(bytes), Duration::from_millis(1));
    let mut whole: Vec<u8> = pieces(bytes).concat();
    whole.resize(whole.len().next_multiple_of(1 << 14).max(1 << 14), 0);
    let digest = digest::digest(&digest::SHA256, &whole);
    whole.extend_from_slice(digest.as_ref());
    let size = whole.len() as u64 - 32;
    let step = usize::from(bytes.first().copied().unwrap_or(1)).max(1) * 16;
    let pieces: Vec<&[u8]> = whole.chunks(step).collect();
    // In no time: small pieces that come slowly are a fault of their own.
    assert_eq!(drain(&pieces, Duration::ZERO), Some(size), "a whole stream was not taken");
    // Cut anywhere it is none.
    let cut = usize::from(bytes.last().copied().unwrap_or(0)) % pieces.len();
    assert_eq!(drain(&pieces[..cut], Duration::ZERO), None, "a stream that was cut counts as whole");
}

/// The size of the database, where the stream counts as whole.
fn drain(pieces: &[&[u8]], waited: Duration) -> Option<u64> {
    let mut checker = Checker::new(SnapshotLimits::default());
    let mut data = 0;
    for piece in pieces {
        let proven = checker.message(piece, waited).ok()?;
        data += (proven.held.len() + proven.fresh) as u64;
    }
    let summary = checker.end().ok()?;
    assert_eq!(summary.database_size, data, "what was handed out is not what was announced");
    Some(data)
}

fn pieces(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while let Some((length, rest)) = bytes.split_first() {
        let (piece, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

fn decoded<M: Message + Default>(bytes: &[u8], then: impl FnOnce(M)) {
    if let Ok(message) = M::decode(bytes) {
        then(message);
    }
}
