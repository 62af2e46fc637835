//! Is the file inside what its manifest says? Structure, revision, counts, HashKV: everything a manifest claims is read from the file anew.

use std::sync::Arc;

use bbolt::Database;
use etcd_store::id::Revision;
use vault::manifest::{HashKvVerdict, Manifest, plain_text};

use super::open::Contents;
use crate::backup::attempt::{Examined, examine};
use crate::backup::verdict_word;
use crate::failure::Outcome;
use crate::judge::{Answer, Testimony, Verdict, judge};
use crate::limits::VERIFY_HASHES;
use crate::spool::Spool;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    /// What is not as the manifest says.
    pub(super) wrong: Vec<String>,
    /// HashKV: the manifest's verdict, or what the recorded answers come to now where that is worse. None when the file could not be read at all.
    pub(super) hashkv: Option<HashKvVerdict>,
    /// How many recorded answers of members were compared with the file again.
    pub(super) answers_compared: usize,
}

/// Compares. Blocks: the whole file is walked.
pub(super) fn compare(manifest: &Manifest, contents: &Contents) -> Outcome<Content> {
    let mut wrong = digests(manifest, contents);
    if !wrong.is_empty() {
        return Ok(Content { wrong, hashkv: None, answers_compared: 0 });
    }
    let examined = match examine(contents.spool.as_ref(), manifest.snapshot.db_size) {
        Ok(examined) => examined,
        Err(failure) => {
            wrong.push(match failure.cause {
                Some(cause) => format!("{}: {cause}", failure.what),
                None => failure.what,
            });
            return Ok(Content { wrong, hashkv: None, answers_compared: 0 });
        }
    };
    wrong.extend(facts(manifest, &examined));
    let (verdict, answers_compared) = verdict(manifest, &examined, &contents.spool);
    if worse(verdict, manifest.hashkv.verdict) {
        let (now, stated) = (verdict_word(verdict), verdict_word(manifest.hashkv.verdict));
        wrong.push(format!("HashKV: what the members answered is {now} when held against the file, the manifest says {stated}"));
    }
    let hashkv = Some(if worse(verdict, manifest.hashkv.verdict) { verdict } else { manifest.hashkv.verdict });
    Ok(Content { wrong, hashkv, answers_compared })
}

fn differs(what: &str, found: &dyn std::fmt::Display, stated: &dyn std::fmt::Display) -> String {
    format!("{what} is {found}, the manifest says {stated}")
}

fn digests(manifest: &Manifest, contents: &Contents) -> Vec<String> {
    let stated = &manifest.snapshot;
    let mut wrong = Vec::new();
    if contents.length != stated.file_size {
        wrong.push(differs("the length of the snapshot file", &contents.length, &stated.file_size));
    }
    if contents.database != stated.db_sha256 {
        wrong.push(differs("SHA-256 of the database", &contents.database, &stated.db_sha256));
    }
    if contents.file != stated.file_sha256 {
        wrong.push(differs("SHA-256 of the snapshot file", &contents.file, &stated.file_sha256));
    }
    if !contents.trailer.is_empty() && contents.trailer != contents.database.0 {
        wrong.push("the SHA-256 trailer of the snapshot file is not the digest of its database".to_owned());
    }
    wrong
}

/// One fact: its name, what the file says, what the manifest says.
type Fact = (&'static str, String, String);

fn facts(manifest: &Manifest, examined: &Examined) -> Vec<String> {
    let inspection = &examined.inspection;
    let number = |name, found: i64, stated: i64| -> Fact { (name, found.to_string(), stated.to_string()) };
    let count = |name, found: u64, stated: u64| -> Fact { (name, found.to_string(), stated.to_string()) };
    let optional = |name, found: Option<String>, stated: Option<String>| -> Fact {
        (name, found.unwrap_or_else(|| "none".to_owned()), stated.unwrap_or_else(|| "none".to_owned()))
    };
    let revision = |revision: Option<Revision>| revision.map_or(0, |revision| revision.0);
    let row = inspection.last_row.as_ref().map(|row| format!("{}/{} {}", row.main, row.sub, row.sha256));
    let stated_row = manifest.last_row.as_ref().map(|row| format!("{}/{} {}", row.main, row.sub, row.sha256));
    let mut all = vec![
        number("the revision", inspection.revision.0, manifest.revision),
        number("the scheduled compaction", revision(inspection.meta.scheduled_compact), manifest.compact_revision.scheduled),
        number("the finished compaction", revision(inspection.meta.finished_compact), manifest.compact_revision.finished),
        count("the raft term", inspection.meta.term.unwrap_or(0), manifest.raft.term),
        count("the raft index", inspection.meta.consistent_index.unwrap_or(0), manifest.raft.index),
        number("the epoch", revision(inspection.epoch), manifest.epoch),
        optional("the last row", row, stated_row),
        optional("the fingerprint", examined.fingerprint.clone(), manifest.fingerprint.as_ref().map(ToString::to_string)),
        count("the number of rows", inspection.rows, manifest.counts.rows),
        count("the number of live keys", inspection.user_keys(), manifest.counts.live_keys),
        count("the number of leases", inspection.leases, manifest.counts.leases),
    ];
    if let Some(computed) = &manifest.hashkv.computed {
        let found = &examined.hash_kv;
        let text = |hash: u32, revision: i64, compact: i64| format!("{hash:08x} at revision {revision}, compacted at {compact}");
        all.push((
            "HashKV",
            text(found.hash, found.revision.0, found.compact_revision),
            text(computed.hash, computed.revision, computed.compact_revision),
        ));
    }
    all.into_iter().filter(|(_, found, stated)| found != stated).map(|(name, found, stated)| differs(name, &found, &stated)).collect()
}

/// Holds the answers that the manifest records against the file again, by the rules of the backup itself.
fn verdict(manifest: &Manifest, examined: &Examined, spool: &Arc<Spool>) -> (HashKvVerdict, usize) {
    let own = &examined.hash_kv;
    let mut known = vec![((own.revision.0, own.compact_revision), Some(own.hash))];
    let source = manifest.member.as_ref().map(|member| member.id);
    let members = &manifest.cluster_state.members;
    let mut testimonies = Vec::new();
    for recorded in &manifest.hashkv.answers {
        let member = members.iter().find(|member| member.id == recorded.member);
        let answer = match &recorded.answer {
            None => Answer::None(String::new()),
            Some(said) => {
                let key = (said.revision, said.compact_revision);
                let file = match known.iter().find(|(of, _)| *of == key) {
                    Some((_, file)) => *file,
                    None if known.len() >= VERIFY_HASHES => None,
                    None => {
                        let file = offline(spool, key);
                        known.push((key, file));
                        file
                    }
                };
                let (hash, revision, compact_revision) = (said.hash, Revision(said.revision), Revision(said.compact_revision));
                match file {
                    Some(file) => Answer::Comparable { hash, revision, compact_revision, file },
                    None => Answer::NotComparable { hash, revision, compact_revision },
                }
            }
        };
        testimonies.push(Testimony {
            member: recorded.member,
            name: member.map(|member| plain_text(&member.name)).unwrap_or_default(),
            voter: member.is_some_and(|member| !member.learner),
            is_source: source == Some(recorded.member),
            answer,
            asked: recorded.asked,
        });
    }
    let compared = testimonies.iter().filter(|testimony| matches!(testimony.answer, Answer::Comparable { .. })).count();
    let voters = members.iter().filter(|member| !member.learner).count();
    let verdict = match judge(&testimonies, voters).verdict {
        Verdict::Match => HashKvVerdict::Match,
        Verdict::Disputed => HashKvVerdict::Disputed,
        Verdict::Failed => HashKvVerdict::Failed,
        Verdict::Inconclusive if manifest.hashkv.verdict == HashKvVerdict::NotOffered => HashKvVerdict::NotOffered,
        Verdict::Inconclusive => HashKvVerdict::Inconclusive,
        Verdict::NotOffered => HashKvVerdict::NotOffered,
    };
    (verdict, compared)
}

fn offline(spool: &Arc<Spool>, (revision, compact_revision): (i64, i64)) -> Option<u32> {
    let database = Database::open(spool.as_ref()).ok()?;
    etcd_store::hash_kv(&database, Some(Revision(compact_revision)), Revision(revision)).ok().map(|hash| hash.hash)
}

/// How bad a verdict is: whether nothing speaks against the file, members do, or its own member does.
fn verdict_rank(verdict: HashKvVerdict) -> u8 {
    match verdict {
        HashKvVerdict::Match | HashKvVerdict::Inconclusive | HashKvVerdict::NotOffered => 0,
        HashKvVerdict::Disputed => 1,
        HashKvVerdict::Failed => 2,
    }
}

fn worse(now: HashKvVerdict, stated: HashKvVerdict) -> bool {
    verdict_rank(now) > verdict_rank(stated)
}
