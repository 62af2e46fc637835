//! Telling receivers how the clusters are: what is known becomes situations, situations become messages, and what became of those is remembered.
//!
//! What was told is kept in a file of the state directory, so that a restart tells nothing twice. An agent on another machine has none, and tells once more
//! what is bad.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use engine::care::health::Severity;
use engine::config::{Config, Event, duration};
use engine::status::{Standing, State};
use engine::{Code, exclusion};
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde_json::Map;
use tokio::sync::watch::Receiver as Changes;
use tokio::time::sleep;
use vault::mark::Outcome;

use crate::notify::state::{self, Condition, Due, Lines, Situation, Topic, Wishes};
use crate::notify::{self, Message, Receiver};
use crate::observed::{Cluster, Observed};
use crate::{Say, page};

/// How often it is looked whether there is anything to tell.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a backup may be too old before that is told although no try has failed: an agent that was just started tries first.
const TRIES_FIRST: SignedDuration = SignedDuration::from_mins(10);
/// How long a repository may be unreadable before that is told.
const STORE_AWAY: SignedDuration = SignedDuration::from_hours(1);
/// So many looks at the members in a row must fail before that is told.
const LOOKS_MISSED: u32 = 3;
/// The file with what was told.
const FILE: &str = "told.json";
/// A file larger than this is not ours.
const FILE_MOST: u64 = 16 << 20;

/// One thing that is so, in words.
struct So {
    topic: Topic,
    situation: Situation,
    title: String,
    text: String,
}

/// Tells until it is dropped.
pub(crate) async fn tell(observed: Arc<Observed>, config: Changes<Arc<Config>>, say: Say) {
    let file = exclusion::state_directory().map(|directory| directory.join(FILE));
    let mut lines = file.as_deref().and_then(load).unwrap_or_default();
    loop {
        let now = Arc::clone(&config.borrow());
        let receivers = notify::receivers(&now.notify);
        let before = lines.clone();
        lines.retain(|cluster| now.clusters.contains_key(cluster), |name| receivers.iter().any(|receiver| receiver.name == name));
        let known: Vec<(String, Cluster)> = observed.at(Timestamp::now()).into_iter().collect();
        round(&mut lines, &receivers, &known, &say).await;
        if lines != before
            && let Some(file) = &file
            && let Err(error) = save(file, &lines)
        {
            say(&format!("note: what was told cannot be remembered in {}: {error}", file.display()));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// One look at everything; all that is due is sent at once.
async fn round(lines: &mut Lines, receivers: &[Receiver], clusters: &[(String, Cluster)], say: &Say) {
    let now = Timestamp::now();
    let mut due = Vec::new();
    for (cluster, known) in clusters {
        for so in situations(cluster, known, now) {
            for receiver in receivers {
                let hears = |event: Event| receiver.hears_state(event, cluster);
                let remind = receiver.notifier.remind.as_deref().and_then(|text| duration(text).ok());
                let decision =
                    state::decide(&lines.get(cluster, &receiver.name, so.topic), &so.situation, &Wishes { hears: &hears, remind }, now);
                lines.set(cluster, &receiver.name, so.topic, decision.line);
                due.extend(decision.due.map(|what| (cluster.clone(), receiver, so.topic, message(cluster, known, &so, &what, now), what)));
            }
        }
    }
    let sent = join_all(due.into_iter().map(|(cluster, receiver, topic, message, what)| async move {
        let answer = notify::send(receiver, &message).await;
        (cluster, receiver.name.clone(), topic, what, answer)
    }));
    for (cluster, receiver, topic, what, answer) in sent.await {
        let line = match &answer.outcome {
            Ok(_) => state::delivered(&what, Timestamp::now()),
            Err(why) => {
                say(&format!("{cluster}: {receiver} could not be told: {why}"));
                state::not_delivered(&lines.get(&cluster, &receiver, topic), Timestamp::now())
            }
        };
        lines.set(&cluster, &receiver, topic, line);
    }
}

/// What becomes of a run, told at once to who hears of runs.
pub(crate) async fn tell_run(config: &Config, cluster: &str, event: Event, title: String, text: String, say: &Say) {
    deliver(config, cluster, event, title, text, say, &|receiver| receiver.hears_run(event, cluster)).await;
}

/// Tells everybody who hears it, at once; who could not be told is said.
pub(crate) async fn deliver(
    config: &Config,
    cluster: &str,
    event: Event,
    title: String,
    text: String,
    say: &Say,
    hears: &(dyn Fn(&Receiver) -> bool + Sync),
) {
    let message = Message {
        event,
        reminder: false,
        cluster: cluster.to_owned(),
        title,
        text,
        facts: Map::new(),
        at: Timestamp::now(),
        host: notify::host(),
    };
    let receivers = notify::receivers(&config.notify);
    let who: Vec<&Receiver> = receivers.iter().filter(|receiver| hears(receiver)).collect();
    for answer in join_all(who.into_iter().map(|receiver| notify::send(receiver, &message))).await {
        if let Err(why) = answer.outcome {
            say(&format!("{cluster}: {} could not be told: {why}", answer.receiver));
        }
    }
}

/// What is so, of each topic of which anything is known.
fn situations(cluster: &str, known: &Cluster, now: Timestamp) -> Vec<So> {
    let mut all = Vec::new();
    if let Some(standing) = &known.standing {
        all.extend(backups(cluster, known, standing, now));
        if standing.state != State::Unknown {
            all.push(content(cluster, standing));
            all.push(stores(cluster, standing));
            all.extend(drills(cluster, standing));
        }
    }
    all.extend(health(cluster, known));
    all
}

fn backups(cluster: &str, known: &Cluster, standing: &Standing, now: Timestamp) -> Option<So> {
    let has_failed = known.attempt.as_ref().is_some_and(|attempt| attempt.failure.is_some());
    let for_long = known.state_since.is_some_and(|since| now.duration_since(since) > TRIES_FIRST);
    let condition = match standing.state {
        State::NeverRan if has_failed || for_long => Condition::NeverRan,
        State::Stale if has_failed || for_long => Condition::Stale,
        State::NeverRan | State::Stale => return None,
        State::Unknown if known.state_since.is_some_and(|since| now.duration_since(since) > STORE_AWAY) => Condition::Failed,
        _ if known.has_given_up || known.attempt.as_ref().is_some_and(|attempt| attempt.code == Code::Unproven) => Condition::Failed,
        State::Protected if known.attempt.as_ref().is_some_and(|attempt| attempt.code == Code::Warnings) => Condition::Warning,
        // Whoever has just begun does not know how the last run ended, and must not call off what was told of it.
        State::Protected if known.attempt.is_none() => return None,
        State::Protected => Condition::Fine,
        // It is tried again; or nobody knows.
        State::LastRunFailed | State::Unknown => return None,
    };
    let newest = standing.newest.as_ref();
    let age = newest.map_or_else(
        || "there is no good backup".to_owned(),
        |newest| format!("the newest good backup is {}, of {}", newest.id, newest.moment),
    );
    let title = match condition {
        Condition::NeverRan => format!("{cluster}: there is no backup"),
        Condition::Stale => format!("{cluster}: the newest backup is too old"),
        Condition::Failed => format!("{cluster}: the backup failed, and all its retries"),
        Condition::Warning => format!("{cluster}: a backup was committed with warnings"),
        _ => format!("{cluster}: backups are as they should be again"),
    };
    let why =
        known.attempt.as_ref().and_then(|attempt| attempt.failure.clone()).map(|why| format!("\nlast try: {why}")).unwrap_or_default();
    let next = if condition == Condition::Fine { String::new() } else { format!("\nnext: lifeboat status --cluster {cluster}") };
    Some(So { topic: Topic::Backups, situation: Situation::of(condition), title, text: format!("{age}{why}{next}") })
}

fn content(cluster: &str, standing: &Standing) -> So {
    let ids: Vec<String> = standing.damaged.iter().map(ToString::to_string).collect();
    if ids.is_empty() && !standing.changed.is_empty() {
        return So {
            topic: Topic::Content,
            situation: Situation::about(
                Condition::Warning,
                standing.newest.as_ref().map(|newest| newest.id.to_string()).unwrap_or_default(),
            ),
            title: format!("{cluster}: the content of the newest backup is very different"),
            text: format!("{}\nnext: lifeboat list --cluster {cluster}", standing.changed.join("\n")),
        };
    }
    if ids.is_empty() {
        let title = format!("{cluster}: the content of backups is as it should be");
        return So { topic: Topic::Content, situation: Situation::of(Condition::Fine), title: title.clone(), text: title };
    }
    So {
        topic: Topic::Content,
        situation: Situation::about(Condition::Damaged, ids.join(" ")),
        title: format!("{cluster}: {} damaged backups", ids.len()),
        text: format!("{}\nnext: lifeboat verify --all --read --cluster {cluster}", ids.join("\n")),
    }
}

fn stores(cluster: &str, standing: &Standing) -> So {
    let of = |situation: Situation, title: String, text: String| So { topic: Topic::Stores, situation, title, text };
    if standing.behind.is_empty() {
        let title = format!("{cluster}: every store holds the backups");
        return of(Situation::of(Condition::Fine), title.clone(), title);
    }
    let names: Vec<&str> = standing.behind.iter().map(|behind| behind.store.as_str()).collect();
    let lines: Vec<String> = standing.behind.iter().map(ToString::to_string).collect();
    of(
        Situation::about(Condition::StoreBehind, names.join(" ")),
        format!("{cluster}: {} behind: {}", if names.len() == 1 { "a store is" } else { "stores are" }, names.join(", ")),
        format!("{}\nnext: lifeboat status --cluster {cluster}", lines.join("\n")),
    )
}

/// One that found nothing out is neither a failure nor the end of one, unless nothing was found out for long.
fn drills(cluster: &str, standing: &Standing) -> Option<So> {
    let of = |situation: Situation, title: String| {
        Some(So { topic: Topic::Drills, situation, title, text: format!("next: lifeboat status --cluster {cluster}") })
    };
    let overdue = standing.overdue.join(" and ");
    match standing.last_drill {
        Some(Outcome::Failed) => of(Situation::of(Condition::DrillFailed), format!("{cluster}: the last drill failed")),
        _ if !overdue.is_empty() => of(
            Situation::about(Condition::Warning, overdue.clone()),
            format!("{cluster}: nothing has passed {overdue} for twice as long as the policy wants"),
        ),
        Some(Outcome::Inconclusive) => None,
        Some(Outcome::Passed) | None => of(Situation::of(Condition::Fine), format!("{cluster}: checks pass again")),
    }
}

fn health(cluster: &str, known: &Cluster) -> Option<So> {
    let of = |situation: Situation, title: String, text: String| Some(So { topic: Topic::Health, situation, title, text });
    if let Some(why) = &known.unseen {
        let is_sure = known.looks_missed >= LOOKS_MISSED;
        let situation = Situation::about(Condition::Health, "unreachable");
        return if is_sure { of(situation, format!("{cluster}: etcd does not answer"), why.clone()) } else { None };
    }
    known.view.as_ref()?;
    let alerts: Vec<_> = known.findings.iter().filter(|finding| finding.severity == Severity::Alert).collect();
    if alerts.is_empty() {
        return of(Situation::of(Condition::Fine), format!("{cluster}: etcd is well again"), String::new());
    }
    let mut checks: Vec<&str> = alerts.iter().map(|finding| finding.check).collect();
    checks.sort_unstable();
    checks.dedup();
    let text: Vec<String> = alerts
        .iter()
        .map(|finding| format!("{}{}", finding.member.as_ref().map(|member| format!("{member}: ")).unwrap_or_default(), finding.says))
        .collect();
    of(
        Situation::about(Condition::Health, checks.join(" ")),
        format!("{cluster}: etcd needs care: {}", checks.join(", ")),
        format!("{}\nnext: lifeboat etcd health --cluster {cluster}", text.join("\n")),
    )
}

fn message(cluster: &str, known: &Cluster, so: &So, due: &Due, now: Timestamp) -> Message {
    let facts = known.standing.as_ref().map(|standing| page::of(standing, now)).and_then(|value| value.as_object().cloned());
    Message {
        event: due.event,
        reminder: due.reminder,
        cluster: cluster.to_owned(),
        title: so.title.clone(),
        text: so.text.clone(),
        facts: facts.unwrap_or_default(),
        at: now,
        host: notify::host(),
    }
}

fn load(file: &Path) -> Option<Lines> {
    let size = std::fs::metadata(file).ok()?.len();
    if size > FILE_MOST {
        return None;
    }
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

fn save(file: &PathBuf, lines: &Lines) -> std::io::Result<()> {
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory)?;
    }
    // Renamed into place: a half-written file would be none. That it survives a crash of the machine is not needed.
    // Two agents may share a state directory.
    let beside = file.with_extension(format!("json.{}", std::process::id()));
    std::fs::write(&beside, serde_json::to_vec(lines)?)?;
    std::fs::rename(beside, file)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use engine::Failure;

    use super::*;
    use crate::observed::Attempt;

    fn conditions(known: &Cluster, now: Timestamp) -> Vec<(Topic, Condition)> {
        situations("prod", known, now).into_iter().map(|so| (so.topic, so.situation.condition)).collect()
    }

    fn attempt(now: Timestamp, failed: bool) -> Option<Attempt> {
        let code = if failed { Code::SourceUnreachable } else { Code::Ok };
        Some(Attempt { at: now, took: Duration::from_secs(1), code, failure: failed.then(|| "no route".to_owned()) })
    }

    #[test]
    fn who_was_just_started_tries_before_he_complains() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let standing = Standing::empty("prod".parse().unwrap());
        let mut known = Cluster { standing: Some(standing), state_since: Some(now), ..Cluster::default() };
        assert!(!conditions(&known, now).iter().any(|(topic, _)| *topic == Topic::Backups));
        known.attempt = attempt(now, true);
        assert!(conditions(&known, now).contains(&(Topic::Backups, Condition::NeverRan)));
        known.attempt = None;
        let later = now + SignedDuration::from_mins(11);
        assert!(conditions(&known, later).contains(&(Topic::Backups, Condition::NeverRan)), "silence is a failure too");
    }

    #[test]
    fn a_failure_that_is_tried_again_is_none_yet_and_an_unknown_store_is_no_recovery() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let mut standing = Standing { state: State::LastRunFailed, ..Standing::empty("prod".parse().unwrap()) };
        let known = |standing: &Standing, has_given_up| Cluster {
            standing: Some(standing.clone()),
            attempt: attempt(now, true),
            has_given_up,
            ..Cluster::default()
        };
        assert!(!conditions(&known(&standing, false), now).iter().any(|(topic, _)| *topic == Topic::Backups));
        assert!(conditions(&known(&standing, true), now).contains(&(Topic::Backups, Condition::Failed)));
        standing = Standing::unknown("prod".parse().unwrap(), &Failure::failed("no store"));
        assert!(conditions(&known(&standing, false), now).is_empty());
        assert_eq!(conditions(&known(&standing, true), now), [(Topic::Backups, Condition::Failed)]);
    }

    #[test]
    fn one_look_that_fails_is_no_outage() {
        let now = Timestamp::UNIX_EPOCH;
        let mut known = Cluster { unseen: Some("nobody answers".to_owned()), looks_missed: 1, ..Cluster::default() };
        assert!(conditions(&known, now).is_empty());
        known.looks_missed = LOOKS_MISSED;
        assert_eq!(conditions(&known, now), [(Topic::Health, Condition::Health)]);
    }
}
