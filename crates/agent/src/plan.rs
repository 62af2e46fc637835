//! What is due next for one cluster, and when. Pure: the time, and what is remembered, are arguments.

use std::time::Duration;

use engine::config::{Defrag, Policy, Schedule};
use jiff::{SignedDuration, Timestamp};

/// The pause after a first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// How long a verification or a drill that could not be done waits.
pub const CHECKS_WAIT: Duration = Duration::from_secs(3_600);
/// How long a drill waits that was done and found nothing out.
pub const INCONCLUSIVE_WAIT: Duration = Duration::from_secs(6 * 3_600);

/// A piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Job {
    /// A backup.
    Backup,
    /// A defragmentation of the members that need it, while its window is open.
    Defrag,
    /// A verification of the newest backup.
    Verify,
    /// A drill of the backup that was drilled least recently.
    Drill,
}

impl Job {
    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Defrag => "defrag",
            Self::Verify => "verify",
            Self::Drill => "drill",
        }
    }
}

/// What has to be known of a cluster to say what is due. All of it but the failures can be read from the repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// When a backup of the running cluster was taken last, by whomever.
    pub last_backup: Option<Timestamp>,
    /// When backups were verified last, whatever came of it.
    pub last_verify: Option<Timestamp>,
    /// When a drill was run last, whatever came of it.
    pub last_drill: Option<Timestamp>,
    /// When members were looked at for a defragmentation last, whatever came of it.
    pub last_defrag: Option<Timestamp>,
    /// A defragmentation could not be begun; until then none is tried again.
    pub defrag_not_before: Option<Timestamp>,
    /// Tries of the backup that is due that failed.
    pub failing: Option<Failing>,
    /// Somebody else is at it; until then there is nothing to do.
    pub busy_until: Option<Timestamp>,
    /// A verification could not be done; until then none is tried again.
    pub verify_not_before: Option<Timestamp>,
    /// The same for drills: what keeps the one from being done need not keep the other.
    pub drill_not_before: Option<Timestamp>,
}

/// A row of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failing {
    /// When the first of them began.
    pub first: Timestamp,
    /// When the last of them ended.
    pub last: Timestamp,
    /// How many.
    pub tries: u32,
}

impl Memory {
    /// A backup was committed.
    pub fn succeeded(&mut self, at: Timestamp) {
        self.last_backup = Some(at);
        self.failing = None;
        self.busy_until = None;
    }

    /// A try failed. After the window a new row begins: the next moment of the schedule has a window of its own.
    pub fn failed(&mut self, began: Timestamp, ended: Timestamp, window: Duration) {
        self.busy_until = None;
        self.failing = Some(match self.failing {
            Some(row) if within(row.first, window, began) => Failing { last: ended, tries: row.tries.saturating_add(1), ..row },
            _ => Failing { first: began, last: ended, tries: 1 },
        });
    }
}

/// The next piece of work and its moment; one in the past or now is due.
#[must_use]
pub fn next(cluster: &str, policy: &Policy, memory: &Memory, now: Timestamp) -> Option<(Job, Timestamp)> {
    let backup = policy.schedule().ok().map(|schedule| (Job::Backup, backup_due(cluster, policy, &schedule, memory, now)));
    let check_due = |schedule: Schedule, last: Option<Timestamp>, not_before: Option<Timestamp>| {
        // Another host's clock may be a little ahead; what is further ahead says nothing.
        let last = last.filter(|last| !is_to_come(*last, now)).map(|last| last.min(now));
        let due = schedule.due(last, now);
        not_before.filter(|until| !is_to_come(*until, later(now, INCONCLUSIVE_WAIT))).map_or(due, |until| due.max(until))
    };
    // Without a backup there is nothing to look at.
    let verify = policy.verify.as_ref().and_then(|verify| verify.timing().schedule().ok().flatten());
    let verify = verify
        .filter(|_| memory.last_backup.is_some())
        .map(|schedule| (Job::Verify, check_due(schedule, memory.last_verify, memory.verify_not_before)));
    let drill = policy.drill.as_ref().and_then(|drill| drill.timing().schedule().ok().flatten());
    let drill = drill
        .filter(|_| memory.last_backup.is_some())
        .map(|schedule| (Job::Drill, check_due(schedule, memory.last_drill, memory.drill_not_before)));
    let defrag = policy.defrag.as_ref().and_then(|defrag| window(defrag, memory, now)).map(|at| (Job::Defrag, at));
    // Of what is due the backup comes first, however long the other things have waited.
    [backup, defrag, verify, drill].into_iter().flatten().min_by_key(|(job, at)| ((*at).max(now), *job))
}

/// When members are looked at next: now while a window is open in which that was not done, else when the next one opens. A window that was missed is not
/// caught up: it was chosen for its hours.
fn window(defrag: &Defrag, memory: &Memory, now: Timestamp) -> Option<Timestamp> {
    let opens = defrag.opens().ok()?;
    let open = opens.next_after(now.checked_sub(SignedDuration::try_from(defrag.window()).ok()?).ok()?).filter(|opened| *opened <= now);
    let is_done = |opened: Timestamp| memory.last_defrag.is_some_and(|done| done >= opened && !is_to_come(done, now));
    match open.filter(|opened| !is_done(*opened)) {
        Some(opened) => {
            let wait = memory.defrag_not_before.filter(|until| !is_to_come(*until, later(now, CHECKS_WAIT)));
            Some(wait.map_or(opened, |until| opened.max(until)))
        }
        None => opens.next_after(now),
    }
}

/// How long the window that is open now stays open; nothing where none is.
#[must_use]
pub fn window_left(defrag: &Defrag, now: Timestamp) -> Duration {
    let left = || {
        let window = SignedDuration::try_from(defrag.window()).ok()?;
        let opened = defrag.opens().ok()?.next_after(now.checked_sub(window).ok()?).filter(|opened| *opened <= now)?;
        Duration::try_from(opened.checked_add(window).ok()?.duration_since(now)).ok()
    };
    left().unwrap_or_default()
}

/// Whether a backup that is due failed, and all its retries.
#[must_use]
pub fn has_given_up(cluster: &str, policy: &Policy, memory: &Memory, now: Timestamp) -> bool {
    let Ok(schedule) = policy.schedule() else { return false };
    let of_schedule = Memory { failing: None, busy_until: None, ..memory.clone() };
    let is_due = backup_due(cluster, policy, &schedule, &of_schedule, now) <= now;
    is_due && memory.failing.is_some_and(|row| !is_tried_again(policy, &schedule, row))
}

/// Whether the next try is still within the window.
fn is_tried_again(policy: &Policy, schedule: &Schedule, row: Failing) -> bool {
    within(row.first, policy.retry_window(schedule, row.first), later(row.last, pause(row.tries)))
}

/// When the next backup is due.
fn backup_due(cluster: &str, policy: &Policy, schedule: &Schedule, memory: &Memory, now: Timestamp) -> Timestamp {
    let late = offset(cluster, policy.jitter());
    let on_schedule = |after: Timestamp| schedule.next_after(after.min(now)).map_or(now, |moment| later(moment, late));
    // What was done in the future was done by a wrong clock, and says nothing: counted from now anew at each look it would never be due.
    let is_past = |moment: &Timestamp| !is_to_come(*moment, now);
    let by_schedule = memory.last_backup.filter(is_past).map_or(now, on_schedule);
    let due = match memory.failing.filter(|row| is_past(&row.last)) {
        // Tried while the repository could not be read, which now shows that nothing was due; or somebody else has done it meanwhile.
        _ if by_schedule > now => by_schedule,
        Some(row) if is_tried_again(policy, schedule, row) => later(row.last, pause(row.tries)),
        // The next moment of the schedule, not one counted from the last of the retries.
        Some(row) => Some(on_schedule(row.first)).filter(|moment| *moment > row.last).unwrap_or_else(|| on_schedule(row.last)),
        None => by_schedule,
    };
    memory.busy_until.filter(|until| !is_to_come(*until, now)).map_or(due, |until| due.max(until))
}

/// The pause after so many failures.
fn pause(tries: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1_u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX)).min(LONGEST_PAUSE)
}

/// A share of the jitter that is always the same for a cluster, on every machine.
fn offset(cluster: &str, jitter: Duration) -> Duration {
    let digest = ring::digest::digest(&ring::digest::SHA256, cluster.as_bytes());
    let share = digest.as_ref().iter().take(2).fold(0_u32, |share, byte| share << 8 | u32::from(*byte));
    jitter / 65_536 * share
}

fn later(moment: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| moment.checked_add(by).ok()).unwrap_or(moment)
}

/// The later one of two moments at which something was done, of those that are not to come.
#[must_use]
pub fn last_of(one: Option<Timestamp>, other: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    [one, other].into_iter().flatten().filter(|moment| !is_to_come(*moment, now)).max()
}

/// Whether a moment is to come, by more than two clocks may differ.
fn is_to_come(moment: Timestamp, now: Timestamp) -> bool {
    moment > later(now, engine::limits::CLOCKS_DIFFER)
}

/// Whether a moment lies within a window that began. A clock that was set back makes it begin anew.
fn within(began: Timestamp, window: Duration, moment: Timestamp) -> bool {
    Duration::try_from(moment.duration_since(began)).is_ok_and(|since| since <= window)
}

#[cfg(test)]
mod tests {
    use engine::config::{self, Config};

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn policy(backup: &str) -> Policy {
        let config: Config = config::parse(&format!("clusters: {{prod: {{kubeadm: {{}}, {backup}}}}}")).unwrap();
        config.policy(&config.clusters["prod"])
    }

    /// Runs the schedule from one moment to another; every try takes a minute. The answer is when it was tried.
    fn simulate(policy: &Policy, from: Timestamp, to: Timestamp, fails: impl Fn(Timestamp) -> bool) -> Vec<Timestamp> {
        let schedule = policy.schedule().unwrap();
        let (mut now, mut memory, mut tried) = (from, Memory { last_backup: Some(from), ..Memory::default() }, Vec::new());
        loop {
            let (_, due) = next("prod", policy, &memory, now).unwrap();
            now = due.max(now);
            if now >= to {
                return tried;
            }
            tried.push(now);
            let began = now;
            now = later(now, Duration::from_secs(60));
            if fails(began) {
                memory.failed(began, now, policy.retry_window(&schedule, began));
            } else {
                memory.succeeded(began);
            }
        }
    }

    #[test]
    fn what_never_ran_is_due_at_once_and_what_ran_is_due_by_its_schedule() {
        let policy = policy("backup: {every: 6h}");
        let now = at("2026-11-22T12:00:00Z");
        assert_eq!(next("prod", &policy, &Memory::default(), now), Some((Job::Backup, now)));
        let memory = Memory { last_backup: Some(at("2026-11-22T10:00:00Z")), ..Memory::default() };
        assert_eq!(next("prod", &policy, &memory, now), Some((Job::Backup, at("2026-11-22T16:00:00Z"))));
        let memory = Memory { last_backup: Some(at("2026-11-20T10:00:00Z")), ..Memory::default() };
        let (_, due) = next("prod", &policy, &memory, now).unwrap();
        assert!(due < now, "what was missed is due, once");
    }

    #[test]
    fn a_year_without_trouble_is_a_year_of_backups() {
        let begin = at("2028-01-01T00:00:00Z");
        let end = at("2029-01-01T00:00:00Z");
        assert_eq!(simulate(&policy("backup: {cron: '0 */6 * * *', timezone: Europe/Berlin}"), begin, end, |_| false).len(), 366 * 4);
        let drifting = simulate(&policy("backup: {every: 6h}"), begin, end, |_| false).len();
        assert_eq!(drifting, 366 * 4 - 1, "the first is six hours after the one before");
    }

    #[test]
    fn a_failure_is_tried_again_with_growing_pauses_until_the_window_ends() {
        let policy = policy("backup: {every: 6h, retry_window: 1h}");
        let begin = at("2026-11-22T00:00:00Z");
        let tried = simulate(&policy, begin, at("2026-11-22T12:30:00Z"), |_| true);
        let minutes: Vec<i64> = tried.iter().map(|moment| moment.duration_since(begin).as_secs() / 60).collect();
        // A minute of work, then pauses of 0.5, 1, 2, 4, 8, 15, 15 minutes.
        assert_eq!(&minutes[..7], [360, 361, 363, 366, 371, 380, 396], "{minutes:?}");
        let first_row = minutes.iter().take_while(|minute| **minute <= 420).count();
        assert!(minutes[first_row] >= 360 + 360, "after the window the schedule goes on: {minutes:?}");
        for pair in tried.windows(2) {
            assert!(pair[1].duration_since(pair[0]).as_secs() >= 90);
        }
    }

    #[test]
    fn an_outage_costs_no_more_than_its_own_time() {
        let policy = policy("backup: {every: 1h, retry_window: 55m}");
        let (from, to) = (at("2026-11-22T03:10:00Z"), at("2026-11-22T03:40:00Z"));
        let tried = simulate(&policy, at("2026-11-22T00:15:00Z"), at("2026-11-22T06:00:00Z"), |moment| (from..to).contains(&moment));
        let after = tried.iter().find(|moment| **moment >= to).unwrap();
        assert!(after.duration_since(to).as_secs() <= 16 * 60, "{after}");
    }

    #[test]
    fn a_try_that_failed_before_the_repository_could_be_read_brings_no_second_backup() {
        let policy = policy("backup: {every: 6h, retry_window: 1h}");
        let now = at("2026-11-22T12:00:00Z");
        let mut memory = Memory::default();
        memory.failed(at("2026-11-22T10:00:00Z"), at("2026-11-22T10:01:00Z"), Duration::from_secs(3_600));
        assert!(has_given_up(
            "prod",
            &policy,
            &Memory {
                failing: Some(Failing { tries: 9, last: at("2026-11-22T11:00:00Z"), ..memory.failing.unwrap() }),
                ..Memory::default()
            },
            now
        ));
        memory.last_backup = Some(at("2026-11-22T08:00:00Z"));
        assert_eq!(next("prod", &policy, &memory, now), Some((Job::Backup, at("2026-11-22T14:00:00Z"))));
        assert!(!has_given_up("prod", &policy, &memory, now));
    }

    #[test]
    fn jitter_is_fixed_for_a_cluster_and_differs_between_clusters() {
        let policy = policy("backup: {every: 6h, jitter: 10m}");
        let now = at("2026-11-22T12:00:00Z");
        let memory = Memory { last_backup: Some(now), ..Memory::default() };
        let due = |name: &str| next(name, &policy, &memory, now).unwrap().1;
        assert_eq!(due("a"), due("a"));
        let moments: std::collections::BTreeSet<Timestamp> = (0..100).map(|at| due(&format!("cluster-{at}"))).collect();
        assert!(moments.len() > 90);
        let (first, last) = (*moments.first().unwrap(), *moments.last().unwrap());
        assert!(first >= at("2026-11-22T18:00:00Z") && last < at("2026-11-22T18:10:00Z"));
        assert!(last.duration_since(first).as_secs() > 8 * 60, "spread over the whole of it");
    }

    #[test]
    fn checks_that_a_wrong_clock_made_or_that_cannot_be_done_hold_up_nothing_and_do_not_run_wild() {
        let policy = policy("backup: {every: 6h}, verify: {every: 1d}, drill: {every: 30d}");
        let now = at("2026-11-22T12:00:00Z");
        let future = Some(at("2026-11-22T14:00:00Z"));
        let done = Some(at("2026-11-22T11:00:00Z"));
        let memory = Memory { last_backup: Some(now), last_verify: done, last_drill: done, ..Memory::default() };
        // A mark of the future says nothing; once the check was done here it is not due again, whatever the mark says.
        assert_eq!(next("prod", &policy, &Memory { last_verify: future, ..memory.clone() }, now).unwrap(), (Job::Verify, now));
        let again = Memory { last_verify: last_of(Some(now), future, now), ..memory.clone() };
        assert_eq!(next("prod", &policy, &again, now).unwrap().0, Job::Backup);
        // A clock that is a little ahead is no wrong clock.
        let ahead = Memory { last_verify: Some(at("2026-11-22T12:01:00Z")), ..memory.clone() };
        assert_eq!(next("prod", &policy, &ahead, now).unwrap().0, Job::Backup);
        // What keeps the verification from being done does not keep the drill.
        let waits = Some(at("2026-11-22T12:30:00Z"));
        let stuck = Memory { last_verify: None, last_drill: None, verify_not_before: waits, ..memory.clone() };
        assert_eq!(next("prod", &policy, &stuck, now).unwrap(), (Job::Drill, now));
        // Somebody else was busy, and then the clock was set back by a day.
        let busy = Memory { last_backup: None, busy_until: Some(at("2026-11-23T12:00:00Z")), ..memory };
        assert_eq!(next("prod", &policy, &busy, now).unwrap(), (Job::Backup, now));
    }

    #[test]
    fn a_clock_that_is_set_back_or_forth_leaves_one_run_due() {
        let policy = policy("backup: {every: 6h, retry_window: 1h}");
        let now = at("2026-11-22T12:00:00Z");
        let mut memory = Memory { last_backup: Some(at("2031-01-01T00:00:00Z")), ..Memory::default() };
        assert_eq!(next("prod", &policy, &memory, now).unwrap().1, now, "what a wrong clock did says nothing");
        memory.succeeded(now);
        assert_eq!(next("prod", &policy, &memory, now).unwrap().1, at("2026-11-22T18:00:00Z"), "and once is enough");
        let memory = Memory { last_backup: Some(at("2026-11-22T12:02:00Z")), ..Memory::default() };
        assert_eq!(
            next("prod", &policy, &memory, now).unwrap().1,
            at("2026-11-22T18:00:00Z"),
            "another host's clock may be a little ahead"
        );
        let mut memory = Memory::default();
        memory.failed(at("2031-01-01T00:00:00Z"), at("2031-01-01T00:01:00Z"), Duration::from_secs(3_600));
        let (_, due) = next("prod", &policy, &memory, now).unwrap();
        assert!(due <= at("2026-11-22T18:00:00Z"), "{due}");
    }

    #[test]
    fn verifications_wait_for_a_first_backup() {
        let policy = policy("backup: {every: 6h}, verify: {every: 1d}");
        let now = at("2026-11-22T12:00:00Z");
        assert_eq!(next("prod", &policy, &Memory::default(), now).unwrap().0, Job::Backup);
        let memory = Memory { last_backup: Some(now), ..Memory::default() };
        assert_eq!(next("prod", &policy, &memory, now), Some((Job::Verify, now)));
        let memory = Memory { last_verify: Some(now), ..memory };
        assert_eq!(next("prod", &policy, &memory, now).unwrap().0, Job::Backup);
    }

    #[test]
    fn who_is_busy_is_left_alone() {
        let policy = policy("backup: {every: 6h}");
        let now = at("2026-11-22T12:00:00Z");
        let memory = Memory { busy_until: Some(at("2026-11-22T12:00:30Z")), ..Memory::default() };
        assert_eq!(next("prod", &policy, &memory, now), Some((Job::Backup, at("2026-11-22T12:00:30Z"))));
    }

    #[test]
    fn a_window_is_used_once_while_it_is_open_and_not_caught_up() {
        let policy = policy("backup: {every: 6h}, defrag: {cron: '0 3 * * 0', timezone: Europe/Berlin, window: 2h}");
        let sunday = |time: &str| at(&format!("2026-11-22T{time}:00Z"));
        let memory = Memory { last_backup: Some(sunday("01:00")), ..Memory::default() };
        // 03:00 in Berlin is 02:00 UTC.
        let due = |memory: &Memory, time: &str| next("prod", &policy, memory, sunday(time)).unwrap();
        assert_eq!(due(&memory, "01:30"), (Job::Defrag, sunday("02:00")));
        assert_eq!(due(&memory, "02:00"), (Job::Defrag, sunday("02:00")));
        assert_eq!(due(&memory, "03:59"), (Job::Defrag, sunday("02:00")), "still open");
        assert_eq!(due(&memory, "04:01").0, Job::Backup, "it is closed, and not caught up");
        let done = Memory { last_defrag: Some(sunday("02:01")), ..memory.clone() };
        assert_eq!(due(&done, "02:30").0, Job::Backup, "once in a window");
        let failed = Memory { defrag_not_before: Some(sunday("02:20")), ..memory.clone() };
        assert_eq!(due(&failed, "02:15"), (Job::Defrag, sunday("02:20")));
        let late = Memory { last_backup: Some(at("2026-11-21T00:00:00Z")), ..memory };
        assert_eq!(due(&late, "02:30").0, Job::Backup, "of what is due the backup comes first");
        assert_eq!(window_left(policy.defrag.as_ref().unwrap(), sunday("03:30")), Duration::from_secs(1_800));
        assert_eq!(window_left(policy.defrag.as_ref().unwrap(), sunday("04:30")), Duration::ZERO);
    }
}
