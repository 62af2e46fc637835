//! The live side of the proof: every member is asked for HashKV, one at a time within a budget, and the answers are held against the file.

use std::time::{Duration, Instant};

use bbolt::Database;
use etcd_api::ErrorKind;
use etcd_store::id::Revision;
use jiff::Timestamp;

use crate::judge::{Answer, Judgement, Testimony, Verdict, judge};
use crate::limits::{HASHKV_SPEED, HASHKV_SPEED_WARM};
use crate::member_link::MemberLink;
use crate::source::{Asked, Source};
use crate::spool::Spool;

/// One member's answer as it came, before it is compared.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    /// Index in [`Source::asked`].
    pub(super) at: usize,
    /// When it was asked.
    pub(super) asked: Option<Timestamp>,
    /// What it said: hash, the revision asked for, the compact revision it used; or why there is nothing.
    pub(super) said: Result<(u32, Revision, Revision), String>,
}

/// Every member's part, and how long they were asked, one after another.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) raw: Vec<Raw>,
    pub(super) took: Duration,
}

impl Answers {
    /// Asks every member for its hash at `revision`, before anything was read from any of them: the source first, until the budget is used up.
    ///
    /// The scan blocks a member's writes, so a member that would take longer than what is left is not asked.
    pub(super) async fn early(source: &Source, from: usize, revision: Revision, budget: Duration) -> Self {
        Self::default().with(source, from, revision, budget, false).await
    }

    /// Asks every member whose answer is missing, or cannot be compared with a file that is compacted at `floor`, for its hash at the snapshot's
    /// `revision`. The source has just read its whole file and answers from memory (docs/decisions/0002).
    pub(super) async fn complete(mut self, source: &Source, from: usize, revision: Revision, floor: Revision, budget: Duration) -> Self {
        self.raw.retain(|raw| raw.stands(floor));
        self.with(source, from, revision, budget, true).await
    }

    async fn with(mut self, source: &Source, from: usize, revision: Revision, budget: Duration, warm: bool) -> Self {
        if source.is_talos_only() {
            return self;
        }
        let started = Instant::now();
        let before = self.took;
        let mut order: Vec<usize> = (0..source.asked.len()).filter(|at| self.raw.iter().all(|raw| raw.at != *at)).collect();
        order.sort_by_key(|at| *at != from);
        for at in order {
            let left = budget.saturating_sub(before + started.elapsed());
            self.raw.push(ask_one(&source.asked[at], at, revision, left, warm && at == from).await);
        }
        self.took = before + started.elapsed();
        self
    }
}

impl Raw {
    /// Whether it can be compared with a file that holds no history below `floor` (-1 for one that was never compacted).
    fn stands(&self, floor: Revision) -> bool {
        self.said.as_ref().is_ok_and(|(_, _, compact_revision)| *compact_revision >= floor)
    }
}

async fn ask_one(asked: &Asked, at: usize, revision: Revision, left: Duration, warm: bool) -> Raw {
    let none = |why: String| Raw { at, asked: None, said: Err(why) };
    let (Some(client), Ok(state)) = (asked.link.as_ref().and_then(MemberLink::etcd), &asked.candidate.state) else {
        return none("it does not answer".to_owned());
    };
    let speed = if warm { HASHKV_SPEED_WARM } else { HASHKV_SPEED };
    let needed = Duration::from_secs_f64(state.db_size_in_use as f64 / speed as f64);
    if needed > left {
        return none(format!(
            "its scan may take {:.1} s and {:.1} s of the budget are left (--hashkv-budget)",
            needed.as_secs_f64(),
            left.as_secs_f64()
        ));
    }
    let when = Timestamp::now();
    match client.hash_kv(Some(revision), left.max(Duration::from_millis(100))).await {
        Ok(reply) => Raw { at, asked: Some(when), said: Ok((reply.hash, revision, reply.compact_revision)) },
        Err(error) => {
            let why = match error.kind() {
                ErrorKind::Compacted(_) => format!("revision {revision} was compacted meanwhile"),
                ErrorKind::FutureRevision => format!("it has not reached revision {revision} yet"),
                ErrorKind::LearnerUnsupported => "a learner does not answer this".to_owned(),
                kind => kind.to_string(),
            };
            Raw { at, asked: Some(when), said: Err(why) }
        }
    }
}

/// Holds answers against the file in the spool. Blocks: the file is hashed once per compact revision that was answered, but for `own`, which is
/// the file's hash as computed already.
pub(super) fn compare(raw: &[Raw], source: &Source, from: usize, spool: &Spool, own: &etcd_store::HashKv) -> (Vec<Testimony>, Judgement) {
    let mut known: Vec<((Revision, Revision), Option<u32>)> = vec![((own.revision, Revision(own.compact_revision)), Some(own.hash))];
    let mut testimonies = Vec::new();
    for answer in raw {
        let candidate = &source.asked[answer.at].candidate;
        let compared = match &answer.said {
            Err(why) => Answer::None(why.clone()),
            Ok((hash, revision, compact_revision)) => {
                let key = (*revision, *compact_revision);
                let file = match known.iter().find(|(of, _)| *of == key) {
                    Some((_, file)) => *file,
                    None => {
                        let file = offline(spool, *revision, *compact_revision);
                        known.push((key, file));
                        file
                    }
                };
                match file {
                    Some(file) => Answer::Comparable { hash: *hash, revision: *revision, compact_revision: *compact_revision, file },
                    None => Answer::NotComparable { hash: *hash, revision: *revision, compact_revision: *compact_revision },
                }
            }
        };
        testimonies.push(Testimony {
            member: candidate.id,
            name: candidate.name.clone(),
            voter: candidate.state.as_ref().is_ok_and(|state| !state.is_learner),
            is_source: answer.at == from,
            answer: compared,
            asked: answer.asked,
        });
    }
    let mut judgement = judge(&testimonies, source.voters());
    if source.is_talos_only() {
        judgement.verdict = Verdict::NotOffered;
    }
    (testimonies, judgement)
}

fn offline(spool: &Spool, revision: Revision, compact_revision: Revision) -> Option<u32> {
    let database = Database::open(spool).ok()?;
    etcd_store::hash_kv(&database, Some(compact_revision), revision).ok().map(|hash| hash.hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(said: Result<i64, &str>) -> Raw {
        let said = said.map(|compact| (7, Revision(10), Revision(compact))).map_err(str::to_owned);
        Raw { at: 0, asked: None, said }
    }

    #[test]
    fn an_answer_given_before_the_stream_stands_while_the_file_holds_its_history() {
        assert!(raw(Ok(-1)).stands(Revision(-1)));
        assert!(raw(Ok(5)).stands(Revision(5)));
        assert!(raw(Ok(5)).stands(Revision(-1)), "a member may be ahead with a compaction");
        assert!(!raw(Ok(5)).stands(Revision(8)), "compacted between the answer and the snapshot");
        assert!(!raw(Ok(-1)).stands(Revision(3)));
        assert!(!raw(Err("it does not answer")).stands(Revision(-1)));
    }
}
