//! Unary calls: a request in, an answer out. Field numbers are etcd's.

use grpc_link::testing::{Encoder, Failure, Fields};

use super::script::{Script, ScriptMember};
use super::state::State;

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";
const OUT_OF_RANGE: u32 = 11;
const UNIMPLEMENTED: u32 = 12;
const INVALID_ARGUMENT: u32 = 3;
const FAILED_PRECONDITION: u32 = 9;

pub(super) fn header(script: &Script) -> Encoder {
    Encoder::new().number(1, script.cluster_id).number(2, script.member_id).signed(3, script.revision).number(4, script.raft_term)
}

/// Answers the call of this name; `endpoint` is the double's own address.
pub(super) fn answer(name: &str, request: &Fields, state: &mut State, endpoint: &str) -> Result<Encoder, Failure> {
    let script = &mut state.script;
    match name {
        "Status" => Ok(status(script)),
        "MemberList" => Ok(members(script, endpoint)),
        "Range" => Ok(range(script, request)),
        "HashKV" => hash_kv(script, request),
        "Alarm" => Ok(alarm(script, request)),
        "Put" => Ok(put(script, request)),
        "Authenticate" => authenticate(state, request),
        _ => Err(Failure::new(UNIMPLEMENTED, format!("unknown method {name}"))),
    }
}

fn status(script: &Script) -> Encoder {
    let length = i64::try_from(script.snapshot.len()).unwrap_or(i64::MAX);
    let status = Encoder::new()
        .message(1, header(script))
        .bytes(2, &script.version)
        .signed(3, script.db_size.unwrap_or(length))
        .number(4, script.leader)
        .number(5, script.raft_index)
        .number(6, script.raft_term)
        .number(7, script.raft_applied_index);
    let status = script.errors.iter().fold(status, |status, error| status.element(8, error));
    let status = status.signed(9, script.db_size_in_use.unwrap_or(length)).flag(10, script.is_learner).bytes(11, &script.storage_version);
    if script.storage_version.is_empty() {
        return status;
    }
    status.signed(12, script.db_size_quota).message(13, Encoder::new())
}

fn members(script: &Script, endpoint: &str) -> Encoder {
    let itself = ScriptMember {
        id: script.member_id,
        name: "double".to_owned(),
        peer_urls: vec!["http://127.0.0.1:1".to_owned()],
        client_urls: vec![endpoint.to_owned()],
        is_learner: script.is_learner,
    };
    let alone = [itself];
    let members = if script.members.is_empty() { &alone[..] } else { &script.members };
    // As the real one, the header of a membership answer has no revision.
    let header = Encoder::new().number(1, script.cluster_id).number(2, script.member_id).number(4, script.raft_term);
    let answer = Encoder::new().message(1, header);
    members.iter().fold(answer, |answer, member| {
        let one = Encoder::new().number(1, member.id).bytes(2, &member.name);
        let one = member.peer_urls.iter().fold(one, |one, url| one.element(3, url));
        let one = member.client_urls.iter().fold(one, |one, url| one.element(4, url));
        answer.message(2, one.flag(5, member.is_learner))
    })
}

fn range(script: &Script, request: &Fields) -> Encoder {
    let (key, end) = (request.bytes(1), request.bytes(2));
    let inside = |candidate: &[u8]| match end {
        [] => candidate == key,
        [0] => candidate >= key,
        end => candidate >= key && candidate < end,
    };
    let (limit, keys_only, count_only) = (request.number(3), request.number(8) != 0, request.number(9) != 0);
    let found: Vec<_> = script.kvs.iter().filter(|(key, _)| inside(key)).collect();
    let shown = match (count_only, limit) {
        (true, _) => 0,
        (false, 0) => found.len(),
        (false, limit) => found.len().min(usize::try_from(limit).unwrap_or(usize::MAX)),
    };
    let answer = found.iter().take(shown).fold(Encoder::new().message(1, header(script)), |answer, (key, value)| {
        let value: &[u8] = if keys_only { &[] } else { value };
        let kv = Encoder::new().bytes(1, key).signed(2, script.revision).signed(3, script.revision).number(4, 1).bytes(5, value);
        answer.message(2, kv)
    });
    answer.flag(3, !count_only && shown < found.len()).number(4, found.len() as u64)
}

fn put(script: &mut Script, request: &Fields) -> Encoder {
    script.revision += 1;
    script.kvs.insert(request.bytes(1).to_vec(), request.bytes(2).to_vec());
    Encoder::new().message(1, header(script))
}

fn hash_kv(script: &Script, request: &Fields) -> Result<Encoder, Failure> {
    let asked = request.number(1).cast_signed();
    let revision = if asked == 0 { script.revision } else { asked };
    if revision > script.revision {
        return Err(Failure::new(OUT_OF_RANGE, FUTURE));
    }
    let answer = script.hash_kv.get(&revision).copied().or(script.hash_kv_default).ok_or_else(|| Failure::new(OUT_OF_RANGE, COMPACTED))?;
    let told = if script.storage_version.is_empty() { 0 } else { revision };
    Ok(Encoder::new().message(1, header(script)).number(2, u64::from(answer.hash)).signed(3, answer.compact_revision).signed(4, told))
}

fn alarm(script: &mut Script, request: &Fields) -> Encoder {
    const DEACTIVATE: u64 = 2;
    let (member, kind) = (request.number(2), request.number(3));
    let mut shown = script.alarms.clone();
    if request.number(1) == DEACTIVATE {
        shown.retain(|&(of, what)| of == member && u64::from(what) == kind);
        script.alarms.retain(|alarm| !shown.contains(alarm));
    }
    let answer = Encoder::new().message(1, header(script));
    shown.iter().fold(answer, |answer, &(member, kind)| answer.message(2, Encoder::new().number(1, member).number(2, u64::from(kind))))
}

fn authenticate(state: &mut State, request: &Fields) -> Result<Encoder, Failure> {
    let Some((user, password)) = &state.script.credentials else {
        return Err(Failure::new(FAILED_PRECONDITION, "etcdserver: authentication is not enabled"));
    };
    if request.text(1) != *user || request.text(2) != *password {
        let text = "etcdserver: authentication failed, invalid user ID or password";
        return Err(Failure::new(INVALID_ARGUMENT, text));
    }
    let header = header(&state.script);
    Ok(Encoder::new().message(1, header).bytes(2, state.issue_token()))
}
