//! The facts of a manifest, each from where it was found.

use etcd_store::Inspection;
use etcd_store::id::MemberId;
use vault::manifest::{
    Alarm, ClusterState, CompactRevision, Counts, HashKv, HashKvAnswer, HashKvValue, HashKvVerdict, LastRow, Member, MemberState, Raft,
    SnapshotFile, Versions, plain_text,
};

use super::attempt::{Examined, TRAILER};
use crate::judge::{Answer, Testimony, Verdict};
use crate::source::{Asked, Source};

pub(super) fn member(asked: &Asked) -> Option<Member> {
    let candidate = &asked.candidate;
    (candidate.id != MemberId(0)).then(|| Member { id: candidate.id, name: plain_text(&candidate.name) })
}

pub(super) fn versions(asked: &Asked, inspection: &Inspection) -> Versions {
    Versions {
        etcd: asked.version.as_deref().map(plain_text),
        cluster: inspection.versions.cluster_version.map(|version| version.to_string()),
        storage: inspection.storage_version.map(|version| version.to_string()),
        talos: asked.talos_version.as_deref().map(plain_text),
        kubernetes: None,
    }
}

pub(super) fn compact_revision(inspection: &Inspection) -> CompactRevision {
    CompactRevision {
        scheduled: inspection.meta.scheduled_compact.map_or(0, |revision| revision.0),
        finished: inspection.meta.finished_compact.map_or(0, |revision| revision.0),
    }
}

pub(super) fn raft(inspection: &Inspection) -> Raft {
    Raft { term: inspection.meta.term.unwrap_or(0), index: inspection.meta.consistent_index.unwrap_or(0) }
}

pub(super) fn last_row(inspection: &Inspection) -> Option<LastRow> {
    let row = inspection.last_row.as_ref()?;
    Some(LastRow { main: row.main.0, sub: row.sub, sha256: row.sha256.parse().ok()? })
}

pub(super) fn counts(inspection: &Inspection) -> Counts {
    Counts { rows: inspection.rows, live_keys: inspection.user_keys(), leases: inspection.leases }
}

pub(super) fn snapshot_file(summary: &etcd_api::SnapshotSummary, inspection: &Inspection) -> SnapshotFile {
    SnapshotFile {
        db_size: summary.database_size,
        db_sha256: vault::digest::Sha256(summary.sha256),
        file_size: summary.database_size + TRAILER,
        file_sha256: vault::digest::Sha256(summary.file_sha256),
        in_use: inspection.check.reachable.checked_mul(u64::from(inspection.page_size)),
    }
}

pub(super) fn hash_kv(verdict: Verdict, examined: &Examined, testimonies: &[Testimony]) -> HashKv {
    let computed = HashKvValue {
        hash: examined.hash_kv.hash,
        revision: examined.hash_kv.revision.0,
        compact_revision: examined.hash_kv.compact_revision,
    };
    let answers = testimonies
        .iter()
        .filter(|testimony| testimony.member != MemberId(0))
        .map(|testimony| {
            let answer = match testimony.answer {
                Answer::Comparable { hash, revision, compact_revision, .. }
                | Answer::NotComparable { hash, revision, compact_revision } => {
                    Some(HashKvValue { hash, revision: revision.0, compact_revision: compact_revision.0 })
                }
                Answer::None(_) => None,
            };
            HashKvAnswer { member: testimony.member, answer, asked: testimony.asked }
        })
        .collect();
    let verdict = match verdict {
        Verdict::Match => HashKvVerdict::Match,
        Verdict::Disputed => HashKvVerdict::Disputed,
        Verdict::Failed => HashKvVerdict::Failed,
        Verdict::Inconclusive => HashKvVerdict::Inconclusive,
        Verdict::NotOffered => HashKvVerdict::NotOffered,
    };
    HashKv { verdict, computed: Some(computed), answers }
}

pub(super) fn cluster_state(source: &Source) -> ClusterState {
    let answered = |id: MemberId| source.asked.iter().any(|asked| asked.candidate.id == id && asked.candidate.state.is_ok());
    ClusterState {
        leader: source.leader(),
        members: source
            .members
            .iter()
            .map(|member| MemberState {
                id: member.id,
                name: plain_text(&member.name),
                learner: member.is_learner,
                answered: answered(member.id),
            })
            .collect(),
        alarms: source.alarms.iter().map(|alarm| Alarm { member: alarm.member, alarm: crate::source::alarm_name(alarm.kind) }).collect(),
    }
}

/// What the members' answers came to, in words for a person.
pub(super) fn proof_words(testimonies: &[Testimony]) -> Vec<String> {
    testimonies
        .iter()
        .map(|testimony| {
            let name = if testimony.name.is_empty() { testimony.member.to_string() } else { testimony.name.clone() };
            match &testimony.answer {
                Answer::Comparable { hash, file, .. } if hash == file => format!("{name} agrees ({hash:08x})"),
                Answer::Comparable { hash, file, .. } => format!("{name} DIFFERS ({hash:08x}, the backup has {file:08x})"),
                Answer::NotComparable { compact_revision, .. } => {
                    format!("{name} answered at compact revision {compact_revision}, which the file cannot be compared at")
                }
                Answer::None(why) => format!("{name} was not compared: {why}"),
            }
        })
        .collect()
}
