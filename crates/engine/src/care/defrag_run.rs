//! Carrying a defragmentation out: one member at a time, the cluster looked at before and after each, stopped by the first thing that is not as it should be.

use std::time::{Duration, Instant};

use etcd_store::id::MemberId;

use super::act;
use super::change::{self, ChangePlan};
use super::defrag::{Plan, Step, healthy};
use super::look::{Looked, look};
use super::refusal::Refusal;
use crate::access::Access;
use crate::failure::{Code, Failure, Outcome};
use crate::limits::{DEFRAG_LEAST, DEFRAG_MOST, DEFRAG_SPEED};
use crate::member_link::MemberLink;
use crate::progress::Progress;

/// How long a defragmentation of a file may take. A member may tell any size: a day is enough for every real one.
#[must_use]
pub fn limit_for(size: u64) -> Duration {
    (DEFRAG_LEAST + Duration::from_secs(size / DEFRAG_SPEED)).min(DEFRAG_MOST)
}

/// What came of one member's turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// The member.
    pub member: MemberId,
    /// Its label.
    pub label: String,
    /// Bytes of its file before.
    pub before: u64,
    /// Bytes of its file afterwards.
    pub after: u64,
    /// How long it did not serve, at most.
    pub took: Duration,
}

/// A run: what was done, and why it ended early if it did.
#[derive(Debug)]
pub struct Ran {
    /// Members that had their turn.
    pub turns: Vec<Turn>,
    /// What stopped it. The members after are as they were.
    pub stopped: Option<Failure>,
}

/// Carries the plan out, with a pause between two members.
pub async fn run(access: &Access, plan: &Plan, pause: Duration, progress: &dyn Progress) -> Ran {
    run_until(access, plan, pause, None, progress).await
}

/// Carries the plan out; no step begins after `until`. One that began is finished.
pub async fn run_until(access: &Access, plan: &Plan, pause: Duration, until: Option<Instant>, progress: &dyn Progress) -> Ran {
    let mut ran = Ran { turns: Vec::new(), stopped: None };
    for (at, step) in plan.steps.iter().enumerate() {
        if at > 0 && matches!(step, Step::Defragment { .. }) {
            tokio::time::sleep(pause).await;
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            ran.stopped = Some(stopped(plan, step, &ran.turns, Failure::failed("the window closed")));
            break;
        }
        match one(access, step, progress).await {
            Ok(turn) => ran.turns.extend(turn),
            Err(failure) => {
                ran.stopped = Some(stopped(plan, step, &ran.turns, failure));
                break;
            }
        }
    }
    ran
}

/// Says where it stopped and what is done: who runs it again gets a plan for the rest.
fn stopped(plan: &Plan, step: &Step, turns: &[Turn], failure: Failure) -> Failure {
    let at = match step {
        Step::Defragment { label, .. } => label,
        Step::MoveLeader { labels, .. } => &labels.0,
    };
    let all = plan.steps.iter().filter(|step| matches!(step, Step::Defragment { .. })).count();
    let cause = failure.cause.map(|cause| format!("{cause}; ")).unwrap_or_default();
    Failure {
        code: Code::Failed,
        what: format!("the defragmentation stopped at {at}: {}", failure.what),
        cause: Some(format!(
            "{cause}{} of {all} member(s) had their turn, the others are as they were; the same command goes on with them",
            turns.len()
        )),
        ..failure
    }
    .next(["lifeboat", "etcd", "health"])
}

async fn one(access: &Access, step: &Step, progress: &dyn Progress) -> Outcome<Option<Turn>> {
    let looked = look(access).await?;
    healthy(&looked.view)?;
    match step {
        Step::MoveLeader { from, to, .. } => {
            if looked.view.leader() == Some(*from) {
                hand_over(access, &looked, Some(*to), progress).await?;
            }
            Ok(None)
        }
        Step::Defragment { member, label, .. } => {
            // Another election may have made it the leader since the plan was made.
            let alone = looked.view.working_voters().count() == 1;
            let looked =
                if looked.view.leader() == Some(*member) && !alone { hand_over(access, &looked, None, progress).await? } else { looked };
            turn(access, &looked, *member, label, progress).await.map(Some)
        }
    }
}

async fn hand_over(access: &Access, looked: &Looked, to: Option<MemberId>, progress: &dyn Progress) -> Outcome<Looked> {
    let to = to.and_then(|id| looked.view.member(id)).filter(|member| member.is_working_voter());
    let plan: ChangePlan = change::move_leader(&looked.view, to)?;
    progress.say(&plan.words);
    act::change(access, looked, &plan, progress).await?;
    look(access).await
}

async fn turn(access: &Access, looked: &Looked, member: MemberId, label: &str, progress: &dyn Progress) -> Outcome<Turn> {
    let gone = || Failure::failed(format!("{label} no longer answers")).object(member).next(["lifeboat", "etcd", "health"]);
    let status = looked.view.member(member).and_then(super::view::MemberView::status).ok_or_else(gone)?;
    let link = looked.links.get(&member).ok_or_else(gone)?;
    let before = status.db_size;
    let limit = limit_for(before);
    progress.say(&format!(
        "{label}: {}, {} of it in use; it does not serve until this has ended",
        super::size(before),
        super::size(status.db_size_in_use)
    ));
    let began = Instant::now();
    match defragment(link, limit).await {
        Ok(()) => {}
        // It goes on by itself; what is seen afterwards counts.
        Err(refusal) if refusal.is_timeout() => {
            progress.say(&format!("{label}: no answer within {} s; waiting until it serves", limit.as_secs()))
        }
        Err(refusal) => return Err(refusal.failure(&format!("{label} was not defragmented"))),
    }
    let took = began.elapsed();
    let after = act::caught_up(access, limit).await?;
    let size = after.view.member(member).and_then(super::view::MemberView::status).map(|status| status.db_size).ok_or_else(gone)?;
    progress.say(&format!("{label}: {} → {} in {:.1} s; it has caught up", super::size(before), super::size(size), took.as_secs_f64()));
    Ok(Turn { member, label: label.to_owned(), before, after: size, took })
}

async fn defragment(link: &MemberLink, limit: Duration) -> Result<(), Refusal> {
    match link {
        MemberLink::Etcd(client) => client.defragment(limit).await?,
        MemberLink::Talos(node) => node.etcd_defragment(limit).await?,
    }
    Ok(())
}
