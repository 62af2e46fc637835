//! How clusters stand, as JSON: `lifeboat status -o json` and the agent's `/status` are the same.

use engine::status::{FailedRun, Newest, Standing};
use jiff::Timestamp;
use serde_json::{Value, json};
use vault::mark::Outcome;

/// The schema of [`standings`].
pub const SCHEMA: &str = "lifeboat.status/1";

/// All clusters, and the worst of their states.
#[must_use]
pub fn standings(standings: &[Standing], now: Timestamp) -> Value {
    let worst = standings.iter().map(|standing| standing.state).reduce(engine::status::State::worse);
    json!({
        "state": worst.map(engine::status::State::word),
        "exit": worst.map_or(0, |state| state.code() as u8),
        "clusters": standings.iter().map(|standing| of(standing, now)).collect::<Vec<_>>(),
    })
}

/// One cluster.
#[must_use]
pub fn of(standing: &Standing, now: Timestamp) -> Value {
    json!({
        "cluster": standing.cluster,
        "state": standing.state.word(),
        "newest": standing.newest.as_ref().map(|newest| of_newest(newest, now)),
        "late_at": standing.late_at,
        "next": standing.next,
        "failed": standing.failed.as_ref().map(|FailedRun { since, exit, detail }| json!({"since": since, "exit": exit, "detail": detail})),
        "backups": standing.backups,
        "objects": standing.objects,
        "stored_bytes": standing.stored_bytes,
        "unconfirmed": standing.unconfirmed,
        "verified": standing.verified,
        "drilled": standing.drilled,
        "last_drill": standing.last_drill.map(ending),
        "growth_bytes_per_day": standing.growth.map(|growth| growth.bytes_per_day),
        "stores_behind": standing.behind.iter().map(|behind| json!({"store": behind.store, "lacks": behind.lacks, "why": behind.why})).collect::<Vec<_>>(),
        "overdue": standing.overdue,
        "damaged": standing.damaged.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "warnings": standing.warnings,
    })
}

fn of_newest(newest: &Newest, now: Timestamp) -> Value {
    json!({
        "id": newest.id.to_string(),
        "moment": newest.moment,
        "age": now.duration_since(newest.moment).as_secs(),
        "revision": newest.revision,
        "keys": newest.keys,
        "bytes": newest.bytes,
        "stored_bytes": newest.stored_bytes,
        "seconds": newest.took.as_secs_f64(),
        "hashkv": engine::backup::verdict_word(newest.hashkv),
        "proven": newest.proof.word(),
        "proven_at": newest.proof.at,
    })
}

pub(crate) fn ending(ending: Outcome) -> &'static str {
    match ending {
        Outcome::Passed => "passed",
        Outcome::Failed => "failed",
        Outcome::Inconclusive => "inconclusive",
    }
}
